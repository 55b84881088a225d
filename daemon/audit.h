/* audit.h: the keeper's rooms say here what belongs into the audit trail.  Private to carzerod; see audit.c.
 *
 * All but open, reload and lost are called inside a turn's transaction; audit_count() inside that of the intake.
 * Without `audit` in the configuration nothing is recorded.
 */
#ifndef CARZEROD_DAEMON_AUDIT_H
#define CARZEROD_DAEMON_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

#include "daemon/config.h"
#include "daemon/helper.h"
#include "daemon/ipc.h"

#define AUDIT_HOST_MAX 65
#define AUDIT_OPERATOR_MAX 24
#define AUDIT_QUEUE_MAX 100000 /* records that wait; beyond, new ones are left out, and that is recorded */

struct keeper;
struct association;
struct courier;

struct audit {
	struct helper helper;    /* carzerod-audit; only with audit.host */
	char host[AUDIT_HOST_MAX];
	bool begun, durable;     /* the start of the node is recorded; and committed */
	bool unsaid;             /* associations have ended in a turn that was thrown away */
	bool busy, failing;
	uint64_t ticket;
	int64_t deadline;        /* boot ms, while busy */
	int64_t last;            /* row up to which a batch is under way */
	unsigned attempts;
	int64_t not_before;      /* boot ms */
	uint64_t waiting;
	uint64_t left_out;       /* since the queue was full */
	int64_t alerts_since;    /* boot ms */
	unsigned alerts;         /* since then */
	char operator[AUDIT_OPERATOR_MAX]; /* who asked at the control socket: "uid=1000" */
	char purger[AUDIT_OPERATOR_MAX];   /* who asked for what expires by age now; "": nobody */
};

void audit_open(struct keeper *k);
void audit_reload(struct keeper *k); /* k->config is the new one */

void audit_begin(struct keeper *k); /* every turn; the first: the start, and what a death left unsaid */
void audit_end(struct keeper *k);
int audit_count(struct keeper *k, const struct instance *in); /* received: to be said when its association ends */
void audit_received(struct keeper *k, const struct association *a);
void audit_refused(struct keeper *k, const struct association *a);
void audit_sent(struct keeper *k, const struct courier *c);
/* Who asks; then what was done for him. */
void audit_operator(struct keeper *k, int socket);
void audit_action(struct keeper *k, bool configuration, const char *format, ...) __attribute__((format(printf, 3, 4)));
void audit_query(struct keeper *k, const struct peer *peer, const char *query);
void audit_purged(struct keeper *k, const char *study_uid, int64_t study);
void audit_expired(struct keeper *k, const struct removal *what);

void audit_dispatch(struct keeper *k);
int64_t audit_next(const struct keeper *k); /* wall ms; INT64_MAX: never */
void audit_told(struct keeper *k, const struct ipc_told *m);
void audit_lost(struct keeper *k);
void audit_deadline(struct keeper *k);
void audit_forget(struct keeper *k); /* the turn was thrown away */

#endif
