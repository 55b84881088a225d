/* scu.h: one association to one peer, to store objects that we made.
 */
#ifndef CARZEROD_DICOM_SCU_H
#define CARZEROD_DICOM_SCU_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/str.h"

#include "dicom/commitment.h"
#include "dicom/tls.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SCU_ADDRESSES_MAX 4 /* of one name */

struct dicom_peer {
	char ae_title[AE_TITLE_MAX], our_ae_title[AE_TITLE_MAX];
	char host[256];
	char address[48];            /* of host, numeric, the first; "": found out at open, which reads files and asks servers */
	struct sockaddr_storage where[SCU_ADDRESSES_MAX]; /* all of them, IPv4 or IPv6, with the port; tried in order */
	size_t n_where;
	uint16_t port;
	unsigned connect_seconds, response_seconds;
	const struct tls *tls;       /* NULL: plain DICOM */
	bool commitment;             /* Storage Commitment is proposed too */
	/* What it tells about an object, whenever it does on this association. */
	void (*committed)(void *arg, const char *transaction, const struct commitment_item *item);
	void *arg;
	char certificate[65];        /* name that its certificate must carry; "": host */
	bool any_name;               /* whatever it calls itself: our own listener, on this machine */
};

/* Why an association or a C-STORE failed, sorted by what to do next. */
enum scu_failure {
	SCU_OK = 0,
	SCU_UNREACHABLE,      /* no TCP connection, no answer, connection lost: back off */
	SCU_REJECTED_TRANSIENT, /* A-ASSOCIATE-RJ result 2: back off */
	SCU_REJECTED_PERMANENT, /* result 1: our titles are unknown there: people must mend it */
	SCU_NO_CONTEXT,       /* none of the offered classes accepted */
	SCU_STATUS,           /* a DIMSE status came: see it */
	SCU_LIMIT,            /* more answers than the caller takes */
};

struct scu; /* an open association */

/* Fills in peer->address and where.  -EHOSTUNREACH: nobody knows the name now. */
int dicom_scu_resolve(struct dicom_peer *peer, struct err *e);
/* Proposes the given storage classes, each in a context of its own (explicit and implicit VR little
 * endian).  The text in e is one line for the operator. */
enum scu_failure dicom_scu_open(const struct dicom_peer *peer, const char *const *classes, size_t n,
				struct scu **ret, struct err *e);
/* Whether a class was accepted. */
int dicom_scu_accepts(const struct scu *s, const char *sop_class);
/* Stores one Part 10 file held in memory, its data set unchanged but for the transfer syntax. */
enum scu_failure dicom_scu_store(struct scu *s, const void *file, size_t n, uint16_t *ret_status, struct err *e);
/* Asks for commitment to one object (N-ACTION); what comes of it is told later, here or elsewhere. */
enum scu_failure dicom_scu_ask_commitment(struct scu *s, const struct commitment *c, uint16_t *ret_status, struct err *e);
/* Waits for one N-EVENT-REPORT; peer.committed() tells of it.  SCU_UNREACHABLE: none came in that time, or the
 * association has ended. */
enum scu_failure dicom_scu_await_commitment(struct scu *s, unsigned seconds, struct err *e);
/* ---- Query/Retrieve, Study Root (PS3.4 annex C), at the level of studies; one object can be asked for too ---- */

#define QUERY_FIND_CLASS "1.2.840.10008.5.1.4.1.2.2.1"
#define QUERY_MOVE_CLASS "1.2.840.10008.5.1.4.1.2.2.2"

struct study_query { /* "" asks for any */
	char study_uid[UID_MAX];
	char date[18];       /* YYYYMMDD or YYYYMMDD-YYYYMMDD */
	char accession[17];
	char series_uid[UID_MAX], sop_uid[UID_MAX]; /* given: this object, and whether it is there */
};

struct study_found {
	char study_uid[UID_MAX];
	char date[9];        /* "" when the archive does not say */
	char modalities[65]; /* separated by backslashes; "" likewise, or cut */
	char sop_uid[UID_MAX]; /* "" unless an object was asked for */
};

struct move_result {
	uint16_t status;
	unsigned completed, failed, warned;
};

/* The query as an identifier (PS3.4 C.4.1.1.3), explicit VR little endian, as it is asked where that is accepted.
 * Its length; 0: it does not fit. */
size_t dicom_scu_query_bytes(const struct study_query *q, uint8_t *ret, size_t size);
/* each() returns false when it takes no more: the association is aborted. */
enum scu_failure dicom_scu_find(struct scu *s, const struct study_query *q,
				bool (*each)(void *arg, const struct study_found *f), void *arg, uint16_t *ret_status,
				struct err *e);
/* Asks the archive to send one study to our own AE title. */
enum scu_failure dicom_scu_move(struct scu *s, const char *study_uid, struct move_result *ret, struct err *e);

enum scu_failure dicom_scu_echo(struct scu *s, uint16_t *ret_status, struct err *e);
/* Releases (or aborts, when broken) and frees. NULL allowed. */
void dicom_scu_close(struct scu *s);

#ifdef __cplusplus
}
#endif
#endif
