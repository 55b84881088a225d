/* commitment.c: storage commitment (PS3.4 annex J), from the keeper's side.
 *
 * A peer with `commitment` has an object only when it has said so twice: 0000H to the C-STORE, and
 * later that it keeps it.  The order that makes this safe:
 *	0000H came: the delivery waits, its transaction is committed,   (store_await_commitment)
 *	and only then the sender asks (N-ACTION);
 *	what the archive tells (N-EVENT-REPORT) comes by the sender's association or by a new one to our
 *	listener: the delivery is done, or goes again.
 * Nothing told within WAIT_MS, or killed between the commit and the answer to the N-ACTION: stored and
 * asked again, with the same UID and the same bytes.
 *
 * One transaction asks for one object: what an archive tells about several is several answers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/commitment.h"
#include "dicom/scu.h"

#include "daemon/keeper.h"

#define WAIT_MS (24ll * 3600 * 1000)
#define AGAIN_BASE_MS 15000
#define AGAIN_CAP_MS 900000
#define PARKED_AGAIN_MS (24ll * 3600 * 1000)
#define FAILURES_MAX 3 /* of the sort that people must mend, then parked */
#define ASK_TIME_MS 660000 /* the sender's own limits end earlier */

static void new_transaction(char ret[UID_MAX])
{
	uint8_t uuid[16];

	if (getrandom(uuid, sizeof(uuid), 0) != (ssize_t)sizeof(uuid))
		fatal(FATAL_OS, "getrandom: %s", strerror(errno));
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562 5.4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	uid_from_uuid(uuid, ret);
}

void commitment_ask(struct keeper *k, struct courier *c, int status)
{
	const struct report *sent = &c->report[c->chosen];
	union ipc_message m;

	c->ticket = ++k->ticket;
	ipc_begin(&m, IPC_ASK, c->ticket);
	new_transaction(m.ask.transaction);
	(void)str_copy(m.ask.sop_class, UID_MAX, sent->sop_class);
	(void)str_copy(m.ask.sop_uid, UID_MAX, sent->sop_uid);
	m.ask.wait = c->peer->commitment == COMMITMENT_SAME;
	keeper_must(k, store_await_commitment(k->store, &c->delivery, m.ask.transaction, k->now + WAIT_MS, status,
					      "stored there; waits for storage commitment"),
		    "note a storage commitment");
	failpoint("commitment.noted");
	c->asking = true;
	c->deadline = k->boot + ASK_TIME_MS;
	keeper_post(k, &c->helper, c->helper.sock, &m, NULL, 0); /* leaves after the commit */
}

/* Sent again, later; `mend`: people must do something about it. */
static void again(struct keeper *k, const struct delivery *d, const char *why, bool mend, bool park)
{
	unsigned permanent = mend ? d->permanent + 1 : d->permanent;
	bool parked = park || permanent >= FAILURES_MAX;
	int64_t due = k->now + (parked ? PARKED_AGAIN_MS : keeper_backoff_ms(AGAIN_BASE_MS, AGAIN_CAP_MS, d->attempt - 1));
	int r = store_resend_delivery(k->store, d, due, parked, why, permanent);

	if (r == -ESTALE)
		return; /* told meanwhile, or sent again already */
	if (!keeper_must(k, r, "send a delivery again"))
		return;
	keeper_event(k, d->study, EVENT_DELIVERY, "%s to %s not committed, %s: %s", d->kind, d->destination,
		     parked ? "parked" : "sent again", why);
	if (parked)
		log_error("delivery=%lld to=\"%s\" parked: %s; tried again tomorrow, or now with carzeroctl flush",
			  (long long)d->id, d->destination, why);
	else
		log_warning("delivery=%lld to=\"%s\" not committed: %s; sent again", (long long)d->id, d->destination, why);
}

void commitment_asked(struct keeper *k, struct courier *c, const struct ipc_sent *d)
{
	if (!c->busy || !c->asking || d->h.token != c->ticket)
		return;
	c->busy = c->asking = false;
	if (d->failure == SCU_OK) {
		keeper_must(k, store_commitment_asked(k->store, &c->delivery, k->now), "note a storage commitment");
		log_debug("delivery=%lld to=\"%s\" storage commitment asked for", (long long)c->delivery.id,
			  c->peer->ae_title);
		return;
	}
	again(k, &c->delivery, d->why, d->failure == SCU_STATUS || d->failure == SCU_REJECTED_PERMANENT,
	      d->failure == SCU_NO_CONTEXT);
}

void commitment_lost(struct keeper *k, struct courier *c)
{
	c->busy = c->asking = false;
	again(k, &c->delivery, "the sending process ended while it asked for storage commitment", false, false);
}

void commitment_told(struct keeper *k, const struct ipc_committed *t, const char *destination)
{
	char why[STORE_WHY_MAX];
	struct delivery d;
	int r = store_find_commitment(k->store, destination, t->transaction, t->sop_uid, &d);

	if (r == -ENOENT) { /* of an older transaction, or none of ours */
		log_warning("storage commitment told by \"%s\" for a transaction or an object that does not wait: ignored",
			    destination);
		return;
	}
	if (!keeper_must(k, r, "find a storage commitment"))
		return;
	if (d.state == DELIVERY_SENDING)
		return; /* being sent again: it will be asked for anew */
	if (t->failed) {
		(void)snprintf(why, sizeof(why), "the archive does not commit to it (%04XH): %s", t->reason,
			       commitment_reason(t->reason));
		again(k, &d, why, t->reason == 0x0119 || t->reason == 0x0122, false);
		return;
	}
	facts_delivered(k, &d, 0);
	r = store_confirm_delivery(k->store, &d, k->now, "stored and committed");
	if (r == -ESTALE)
		return; /* told twice */
	if (!keeper_must(k, r, "close a delivery"))
		return;
	failpoint("commitment.confirmed");
	k->delivered++;
	figures_delivered(k, d.study);
	keeper_event(k, d.study, EVENT_DELIVERY, "%s to %s committed", d.kind, destination);
	log_info("delivery=%lld study=%lld to=\"%s\" committed", (long long)d.id, (long long)d.study, destination);
}
