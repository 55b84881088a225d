/* audit_message.h: what happened, as PS3.15 A.5 wants it written (XML) and A.6 wants it sent (RFC 5424).
 *
 * A message names processes, AE titles, addresses, operators, Study Instance UIDs; never a patient: this node
 * keeps no identifier of one (the patient that the standard wants is there, as unknown).
 */
#ifndef CARZEROD_DAEMON_AUDIT_MESSAGE_H
#define CARZEROD_DAEMON_AUDIT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUDIT_WHO_MAX 3

enum audit_kind {
	AUDIT_START,	    /* Application Activity */
	AUDIT_STOP,
	AUDIT_RECEIVED,	    /* DICOM Instances Transferred, to us */
	AUDIT_SENT,	    /* from us */
	AUDIT_QUERY,	    /* Query */
	AUDIT_REFUSED,	    /* Security Alert: Node Authentication */
	AUDIT_OPERATOR,	    /* Security Alert: Use of Restricted Function */
	AUDIT_CONFIGURED,   /* Security Alert: Software Configuration */
	AUDIT_INTERRUPTED,  /* Security Alert: Audit Recording Stopped: records had to be left out */
	AUDIT_RESUMED,	    /* Security Alert: Audit Recording Started */
	AUDIT_FILES_DELETED, /* DICOM Instances Accessed: D */
	AUDIT_STUDY_DELETED, /* DICOM Study Deleted */
	AUDIT_KINDS
};
const char *audit_kind_name(enum audit_kind k); /* of the event: "Query" */

enum audit_role { AUDIT_NO_ROLE, AUDIT_APPLICATION, AUDIT_SOURCE, AUDIT_DESTINATION };

struct audit_who {
	const char *user;   /* process number, AE title of a stranger, "uid=1000" */
	const char *title;  /* AE title, or NULL */
	const char *at;     /* address or host name, or NULL */
	enum audit_role role;
	bool requestor;
};

struct audit_message {
	enum audit_kind kind;
	unsigned outcome;   /* 0 success, 4 minor, 8 serious failure */
	int64_t at;         /* wall ms */
	struct audit_who who[AUDIT_WHO_MAX];
	size_t n_who;
	const char *study_uid; /* of transfers and deletions */
	const char *sop_class; /* NULL or "": of several */
	unsigned objects;      /* 0: not said */
	const char *query;     /* base64 of the query's data set, explicit VR little endian */
	const char *node;      /* an alert's subject: a host */
	const char *detail;    /* an alert's description */
};

struct audit_source {
	const char *ae_title, *institution, *host;
	long process;
};

/* The syslog message (RFC 5424) with the XML in it; *ret_n its length.  -E2BIG. */
int audit_write(const struct audit_source *from, const struct audit_message *m, char *ret, size_t size, size_t *ret_n);

#endif
