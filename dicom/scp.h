/* scp.h: serves one association on a connected socket, in a process of its own.
 *
 * The data set of a C-STORE is streamed, unparsed, into a descriptor that `ops` provides, behind a
 * preamble of zeroes and a File Meta of our own; it is hashed on the way and its header sniffed.
 * 0000H is answered only after ops->stored() returned 0000H.  Any doubt is A700 and the sender keeps
 * its copy.
 */
#ifndef CARZEROD_DICOM_SCP_H
#define CARZEROD_DICOM_SCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/str.h"

#include "dicom/commitment.h"
#include "dicom/tls.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A-ASSOCIATE-RJ as PS3.8 9.3.4 numbers them. */
struct scp_reject {
	uint8_t result, source, reason; /* all zero: accept */
};

struct scp_policy {
	const char *ae_title;        /* called AE title that we answer to */
	uint32_t pdu_bytes;          /* 4096..131072 */
	uint64_t object_bytes;
	unsigned objects;            /* per association */
	unsigned request_seconds, idle_seconds, association_seconds;
	unsigned slow_seconds;       /* after these an object must have come at slow_bytes a second, or is given up; 0: never */
	unsigned slow_bytes;
	bool refuse_other_storage;   /* contexts of storage classes that we do not analyse are refused */
	const struct tls *tls;       /* NULL: plain DICOM */
	/* Asked once, when the whole request is here and before it is judged: all zero, or the answer to give
	 * (draining, disk, limits).  NULL: every request is judged. */
	struct scp_reject (*may_begin)(void *arg);
};

struct scp_association {
	char calling_ae[AE_TITLE_MAX], called_ae[AE_TITLE_MAX];
	const struct tls_link *tls;  /* tls_link_peer_is(); NULL: plain */
};

struct scp_object {
	uint64_t id;                 /* from ops->create */
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX], syntax[UID_MAX];
	uint8_t digest[DIGEST_SIZE]; /* of the data set */
	uint64_t size;               /* of the data set */
	uint32_t study_date;         /* YYYYMMDD as a number, 0: none.  Of a patient: for no log */
	bool analysed_class;         /* CR, DX or grey Secondary Capture: else set aside */
};

struct scp_ops {
	/* Request read, before the answer: decides on AE titles and address.  Fills ret to reject. */
	void (*admit)(void *arg, const struct scp_association *a, struct scp_reject *ret);
	/* A write-only descriptor (then ours to close) and its id; 0 or a DIMSE status to refuse with. */
	uint16_t (*create)(void *arg, uint64_t *ret_id, int *ret_fd);
	/* The object is whole, its file fsynced and closed.  Returns the DIMSE status to answer. */
	uint16_t (*stored)(void *arg, const struct scp_object *o);
	/* The object will not come: its file may go. */
	void (*abandon)(void *arg, uint64_t id);
	/* After admit(): whether this peer may tell us that it has committed to objects (PS3.4 annex J);
	 * NULL: nobody may. */
	bool (*expects_commitment)(void *arg);
	/* What it tells about one object; the DIMSE status to answer. */
	uint16_t (*committed)(void *arg, const char *transaction, const struct commitment_item *item);
};

enum scp_end { SCP_RELEASED, SCP_ABORTED_BY_PEER, SCP_REJECTED, SCP_TIMED_OUT, SCP_PROTOCOL_ERROR, SCP_LIMIT, SCP_CLOSED, SCP_TLS };
const char *scp_end_name(enum scp_end end);

struct scp_result {
	enum scp_end end;
	unsigned echoes, objects, refused; /* C-ECHOs, C-STOREs answered 0000H, C-STOREs answered otherwise */
	uint64_t bytes;
	bool disk_failed;            /* an fsync failed: the association was aborted, the process must end */
	char detail[TLS_WHY_MAX];    /* for one log line: quoted, no patient data */
	unsigned contexts, contexts_refused; /* presentation contexts proposed, and not accepted */
	char refused_contexts[150];  /* the first of them: class, and syntaxes when they were the reason */
};

/* Takes over `sock`.  Runs until the association ends.  `warmed` work (dicom_init, scp_warm_up) is done before. */
int dicom_scp_serve(int sock, const struct scp_policy *policy, const struct scp_ops *ops, void *arg,
		    struct scp_result *ret);
/* What is accepted, for the conformance statement: NULL after the last. */
const char *dicom_scp_syntax(size_t i); /* best first; the first two are uncompressed */
const char *dicom_scp_storage_prefix(void);
/* PS3.6 annex A's name for a UID. */
const char *dicom_uid_name(const char *uid);

/* Everything in DCMTK that would open files or allocate lazily later. */
void dicom_scp_warm_up(void);

/* The stored file's reserved private File Meta element (0002,0100)/(0002,0102): length and SHA-256
 * of the data set, so that a spool file explains itself without the database. */
#define SPOOLED_PRIVATE_CREATOR "2.25.305828488182831875890203105390285383139"
struct spooled {
	char sop_class[UID_MAX], sop_uid[UID_MAX], syntax[UID_MAX], calling_ae[AE_TITLE_MAX];
	uint64_t size;
	uint8_t digest[DIGEST_SIZE];
	uint64_t offset;             /* of the data set in the file */
};
/* Reads it back in pure C; -EBADMSG when the file is not one of ours or was not finished. */
int spooled_read(int fd, struct spooled *ret);

#ifdef __cplusplus
}
#endif
#endif
