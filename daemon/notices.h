/* notices.h: the keeper's rooms say here what somebody may want to be told.  Private to carzerod; see notices.c.
 *
 * A key makes a notice unique for its hook: what is raised again under it is not told again.
 */
#ifndef CARZEROD_DAEMON_NOTICES_H
#define CARZEROD_DAEMON_NOTICES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

#include "daemon/config.h"
#include "daemon/helper.h"
#include "daemon/ipc.h"

struct keeper;

struct hook { /* one for each entry of `notify` */
	const struct notify_rule *rule;
	struct helper helper;
	bool busy, failing;
	uint64_t ticket;
	struct notice notice; /* as claimed, while busy */
	int64_t deadline;     /* boot ms, while busy */
	int64_t due;	      /* wall ms of the first that waits; INT64_MAX: none */
};

void notices_open(struct keeper *k);
void notices_reload(struct keeper *k, const struct config *old); /* k->config is the new one */

/* Inside the turn's transaction.  study: NULL when it is about none; no patient data in the text. */
void notices_raise(struct keeper *k, enum notify_event event, const struct study *study, const char *key,
		   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* urgent: [findings of the present list] which are. */
void notices_urgent(struct keeper *k, const struct study *study, unsigned revision, const bool *urgent);

void notices_dispatch(struct keeper *k);
int64_t notices_next(const struct keeper *k); /* wall ms; INT64_MAX: never */
void notices_told(struct keeper *k, struct hook *h, const struct ipc_told *m);
void notices_lost(struct keeper *k, struct hook *h);
void notices_deadlines(struct keeper *k);
void notices_forget(struct keeper *k); /* the turn was thrown away: what was claimed in it is not */

#endif
