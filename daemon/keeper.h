/* keeper.h: the keeper's rooms and what they share.  Private to carzerod.
 *
 * One thread, one loop, one transaction a turn (intake has its own, before):
 *
 *	intake.c      associations: admits them, hands out files, commits what they stored, answers
 *	lane.c        which objects let others go before
 *	analysis.c    instances: claim -> decode (image) -> score (infer) -> outcome
 *	reporting.c   studies: claim -> compose (image), once for each object and SR class -> reports, deliveries
 *	delivery.c    destinations: claim -> send -> done, later, or parked
 *	retention.c   what is done with goes
 *	commitment.c  destinations that must say that they keep what they took
 *	facts.c       what explains a report without the database
 *	disk.c        how full the disk is, and what is done then
 *	control.c     the operator's socket
 *	notices.c     what hooks are told
 *	audit.c       what the audit trail is told
 *	figures.c     what happened, counted: for carzerod-export and the drift monitor
 *	reload.c      another configuration: tried, then taken over
 *	recovery.c    the start
 *	keeper.c      helpers, the turn, shutdown
 *
 * A room's *_dispatch() claims work inside the turn's transaction and posts messages; posts leave
 * only after the commit.  So nobody works on, and no peer is told, what is not durable.
 * A broken invariant or a failing disk is fatal(): start-up is the recovery.
 */
#ifndef CARZEROD_DAEMON_KEEPER_H
#define CARZEROD_DAEMON_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/spool.h"
#include "store/store.h"

#include "daemon/config.h"
#include "daemon/credential.h"
#include "daemon/figures.h"
#include "daemon/findings.h"
#include "daemon/helper.h"
#include "daemon/ipc.h"
#include "daemon/audit.h"
#include "daemon/lane.h"
#include "daemon/notices.h"

#define KEEPER_WORKERS_MAX CONFIG_WORKERS_MAX
#define KEEPER_DECODE_AHEAD 2
#define KEEPER_JOBS_MAX (KEEPER_WORKERS_MAX + KEEPER_DECODE_AHEAD)
#define KEEPER_COMPOSE_MAX 2
#define KEEPER_STUDIES_PER_ASSOCIATION 64
#define KEEPER_CONTROL_MAX 8
#define RETENTION_HOLD_MS (24ll * 3600 * 1000)
#define KEEPER_SOCKETS_MAX IPC_SOCKETS_MAX
#define KEEPER_RETIRED_MAX 8
/* a file in the folder in which Debian keeps fontconfig's caches */
#define KEEPER_FONT_CACHE "/var/cache/fontconfig/CACHEDIR.TAG"

_Static_assert(KEEPER_JOBS_MAX + KEEPER_COMPOSE_MAX <= IPC_IMAGE_JOBS_MAX, "carzerod-image must take all");

struct association {
	int sock;                  /* our end of the child's channel, non-blocking; -1: free slot */
	char host[64];
	uint64_t file;             /* handed out and not yet stored or abandoned; 0: none */
	int64_t study[KEEPER_STUDIES_PER_ASSOCIATION]; /* touched, to be settled when it ends */
	size_t n_study;
	bool ended;                /* its child is gone: to be cleaned up inside the turn's transaction */
	bool disk_full;            /* no file was given for want of space */
	bool lane_full;            /* an object came for which the slow lane has no place */
	bool told;                 /* the child has said how it went: */
	struct ipc_ended end;
	bool answer_due;           /* STORED in this turn's batch */
	bool repeat;               /* of what was here already */
	bool put_off;              /* the slow lane is full: A700 */
	int64_t since;             /* figures_now() when the file was handed out */
	struct ipc_object stored;
	uint16_t answer;
};

enum job_stage { JOB_FREE = 0, JOB_DECODE, JOB_WAIT, JOB_SCORE };

struct job {
	enum job_stage stage;
	uint64_t ticket;           /* names the job to the worker; claims' tokens are unique in a row only */
	struct instance in;        /* as claimed */
	int square;                /* memory file, sealed once decoded; -1 */
	int maps;                  /* memory file of attention maps, when JOB_SCORE; -1 */
	uint64_t embedding;        /* in incoming/: where its embedding is written, when JOB_SCORE; 0: nowhere */
	size_t worker;             /* of k->infer, when JOB_SCORE */
	int64_t deadline;          /* boot ms */
	int64_t since;             /* figures_now() when the decoder got it */
};

/* SR classes, a Secondary Capture and a presentation state for each page, a PDF */
#define COMPOSITION_REPORTS_MAX (STORE_CLASSES_MAX + 2 * IPC_PAGES_MAX + 1)

struct composed_object { /* one file of a composition */
	enum result_object object;
	unsigned page;             /* 1.. */
	struct report report;      /* file, size as it becomes ready */
	char predecessor_series[UID_MAX];
};

struct composition {
	bool used;
	struct study study;        /* as claimed */
	struct instance *instance; /* [n_instances] that the report covers */
	size_t n_instances;
	size_t expired;            /* more that it would cover, but their files are gone */
	uint8_t findings[DIGEST_SIZE];
	int64_t at;
	int images, findings_text; /* memory files that every COMPOSE reads; -1 */
	struct composed_object made[COMPOSITION_REPORTS_MAX];
	size_t n_made, ready;
	uint64_t ticket;           /* of the COMPOSE under way */
	int64_t since;             /* figures_now() then */
	int64_t deadline;
	const struct peer *destination[CONFIG_PEERS_MAX];
	size_t n_destinations;
	char why[STORE_WHY_MAX];
};

struct courier { /* one for each configured peer */
	const struct peer *peer;
	struct helper helper;
	bool busy;
	bool stale;                /* its helper has old settings: started anew once it is not busy */
	bool asking;               /* busy with storage commitment: the delivery is no claim of ours any more */
	size_t chosen;             /* of report, once the peer took a class */
	bool went;                 /* the object of this attempt was let go */
	uint64_t ticket;           /* of the DELIVER under way */
	struct delivery delivery;  /* as claimed, while busy */
	struct report report[STORE_CLASSES_MAX]; /* offered */
	size_t n_reports;
	int64_t deadline;          /* boot ms, while busy */
	int64_t since;             /* figures_now() when the sender got it */
	unsigned failures;         /* consecutive, of the destination as a whole */
	int64_t not_before;        /* boot ms: the circuit is open until then */
	bool held;                 /* an operator keeps everything back (setting "hold AE") */
	int64_t away_since;        /* wall ms of the first failure in a row */
	bool told_away;            /* notify: away */
};

struct outgoing {
	struct helper *helper;     /* whose channel it is: killed when it does not take the message */
	int sock;
	union ipc_message m;
	int fds[IPC_FDS_MAX];      /* ours, closed after sending */
	size_t n_fds;
	struct outgoing *next;
};

struct model_facts {
	bool known;
	char name[64], family[64];
	uint32_t domain, side, crop, map_side;
	uint8_t weights[DIGEST_SIZE];
};

struct keeper {
	const char *config_path;
	struct config *config;
	struct findings *findings;
	struct store *store;
	struct spool *spool;
	uint8_t site[16];          /* namespace of every UID that we make */
	char site_text[37];
	struct model_facts model;

	struct helper maint;       /* works now and then, see backup_at */
	int64_t backup_at;         /* boot ms */
	struct helper receiver, image, export, infer[KEEPER_WORKERS_MAX];
	struct helper retired[KEEPER_RETIRED_MAX]; /* receivers of before a reload, until their last association ends */
	struct courier *courier;   /* [CONFIG_PEERS_MAX], config->n_peers used */
	int listen_fd[KEEPER_SOCKETS_MAX]; /* the service manager's, or the first receiver's */
	struct figures *figures;
	struct hook hook[NOTIFY_MAX]; /* config->n_notify used */
	struct audit audit;
	int metrics_fd;            /* listens for carzerod-export; -1 */
	size_t n_listen_fds, n_tls_fds; /* the latter stand last */
	char n_sockets[8], n_tls_sockets[8]; /* how many of both, for a successor's command line */

	char running[4200];        /* what helpers read: STATE/running/carzerod.yaml */
	char cache[4200];          /* STATE/cache: what carzerod-infer keeps of its start; may be empty */
	bool draining;             /* an operator lets nobody in and everything out */
	bool reload_wanted;
	struct reload *reload;     /* under way; NULL */
	struct helper trial;       /* its inference process */
	unsigned reloads;          /* ended, and how the last one did: */
	bool reload_good;
	char reload_text[1024];    /* why it was refused; or what only a restart changes */
	char reload_kept[64];
	struct {
		int64_t certificate, ca, crl; /* wall ms at which each ends; 0: none */
		int64_t told_at;
		char *path[CREDENTIAL_FILES]; /* what the receiver and the senders read; NULL: none */
	} tls;

	struct association *association; /* [config->limits.associations] */
	struct lane_senders senders;
	struct job job[KEEPER_JOBS_MAX];
	struct composition composition[KEEPER_COMPOSE_MAX];
	struct outgoing *first, **last;

	uint64_t ticket;           /* last one given out; never repeats while we live */
	int control, control_client[KEEPER_CONTROL_MAX];
	char *control_answer[KEEPER_CONTROL_MAX]; /* own: to be sent once the turn is durable; NULL */
	int64_t started;           /* boot ms */
	int64_t upkeep_at, log_told, parked_at; /* boot ms: next minute's work; next word about the log; next look */
	int64_t control_rest;      /* boot ms: no descriptors were left for a client */
	int64_t suspect[KEEPER_JOBS_MAX]; /* objects that were being analysed at an unclean end, not done since */
	size_t n_suspects;
	bool rebuild;              /* the database is made anew from the spool, then the program ends */
	bool held;                 /* told that reports wait for a right clock */
	int64_t now;               /* wall ms of this turn */
	int64_t boot;              /* boot ms of this turn */
	int64_t wake;              /* boot ms: when something is due that no message brings */
	bool stirred;              /* associations brought what the rest of the turn must look at */
	int64_t clock_gap;         /* wall - boot at the last look: notices a clock that was set */
	struct store_counts counts; /* refreshed every few seconds */
	int64_t counts_at;
	struct spool_space space;
	bool disk_low, ballast;    /* associations are refused; the ballast is there */
	int64_t ballast_at, full_told; /* boot ms: next try to make it; last line about a full disk */
	bool in_turn, full;        /* the turn's transaction is open; it cannot be written for want of space */
	bool give_back;            /* claims of a turn that was thrown away */
	int64_t retention_at;      /* boot ms: next look at what may go */
	int64_t purge_before;      /* wall ms: an operator's wish; 0: none */
	int64_t retention_hold;    /* boot ms: nothing goes before */
	bool announced;            /* READY=1 sent */
	bool stopping;
	int64_t refusals_since;    /* boot ms: how many came since is bounded, they are a stranger's doing */
	unsigned refusals;
	uint64_t lost_objects;     /* rows whose file recovery did not find */
	uint64_t clock_steps;
	uint64_t accepted, rejected, scored, not_analysed, quarantined, reported, delivered, expired;
};

/* keeper.c */
int keeper_run(struct keeper *k); /* returns after SIGTERM, with everything at rest */
/* True when the helper has said READY.  One that does not run is started when it may be, with `fds` (may be none); READY
 * then comes in a later turn. */
bool keeper_has(struct keeper *k, struct helper *h, const int *fds, size_t n_fds);
/* Queues a message for after the commit; the descriptors become the keeper's. */
void keeper_post(struct keeper *k, struct helper *helper, int sock, const union ipc_message *m,
		 const int *fds, size_t n_fds);
/* Checks a store or spool call that has no business failing.  It returns after a failure in one case: the disk is full
 * inside a turn; it is false then.  The whole turn is thrown away at its end, with the work that it began: the caller need
 * not care what its results are, only not rely on them. */
bool keeper_must(struct keeper *k, int r, const char *what);
/* Into the history that carzeroctl why tells; study 0: the node's.  Inside the turn's transaction. */
void keeper_event(struct keeper *k, int64_t study, enum event_kind kind, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Lets a helper read certificates, keys and revocation lists. */
void keeper_reach_tls(const struct keeper *k, struct helper_reach *reach);
/* Starts an inference process, a worker or one on trial, on the configuration in `running`. */
int keeper_start_infer(struct keeper *k, struct helper *h, const char *model, struct err *e);
/* Command lines and walls of the helpers, by the present configuration. */
void keeper_helpers(struct keeper *k);
void keeper_model(struct keeper *k, const struct ipc_model *m); /* this is the model now */
void keeper_sync(struct keeper *k); /* the spool's folders, or the end */
void keeper_clamp(struct keeper *k); /* what waits is due in its usual time at the latest */
/* Back-off with jitter: base * 2^n up to cap, then 50..150 % of it. */
int64_t keeper_backoff_ms(int64_t base, int64_t cap, unsigned n);

/* intake.c */
void intake_listener(struct keeper *k, struct helper *receiver, const union ipc_message *m);
void intake_receive(struct keeper *k, struct association *a);
/* A row for a file in objects/ that has none; the caller commits. */
int intake_adopt(struct keeper *k, const struct ipc_object *o, uint64_t file, int64_t received);
void intake_commit(struct keeper *k); /* one transaction for all that was stored in this turn, then the answers */
void intake_ends(struct keeper *k); /* inside the turn's transaction */
bool intake_end_quietly(struct keeper *k); /* those whose end leaves no trace in the store; false: others wait for intake_ends() */
bool intake_open(struct keeper *k); /* an association may come now */
void intake_stop(struct keeper *k);
void intake_watch_certificates(struct keeper *k); /* warns every day from 30 days before one ends */
/* Of what TLS needs the end that is to be acted on first, wall ms, with its name and whether it is time; 0: TLS is not configured. */
int64_t intake_tls_ends(const struct keeper *k, const char **ret_what, bool *ret_soon);

/* analysis.c */
void analysis_dispatch(struct keeper *k);
void analysis_decoded(struct keeper *k, const struct ipc_decoded *d);
bool analysis_died(struct keeper *k, const struct ipc_died *d); /* false: not one of its jobs */
void analysis_scored(struct keeper *k, size_t worker, const struct ipc_scored *d);
void analysis_worker_lost(struct keeper *k, size_t worker);
void analysis_image_lost(struct keeper *k);
void analysis_deadlines(struct keeper *k);
void analysis_forget(struct keeper *k); /* work under way, without a word to the store */
void analysis_stop(struct keeper *k, const char *why); /* claims go back uncounted */

/* reporting.c */
void reporting_dispatch(struct keeper *k);
bool reporting_held(const struct keeper *k); /* the clock cannot be right: no report bears its time */
void reporting_composed(struct keeper *k, const struct ipc_composed *d);
bool reporting_died(struct keeper *k, const struct ipc_died *d);
void reporting_image_lost(struct keeper *k);
void reporting_deadlines(struct keeper *k);
void reporting_forget(struct keeper *k);
void reporting_stop(struct keeper *k, const char *why);

/* delivery.c */
void delivery_open(struct keeper *k);
void delivery_dispatch(struct keeper *k);
void delivery_chose(struct keeper *k, struct courier *c, const struct ipc_chose *d);
void delivery_sent(struct keeper *k, struct courier *c, const struct ipc_sent *d);
void delivery_lost(struct keeper *k, struct courier *c);
void delivery_deadlines(struct keeper *k);
void delivery_reload(struct keeper *k, const struct config *old);
void delivery_stop(struct keeper *k);
void delivery_forget(struct keeper *k);
/* Earliest wall ms at which delivery_dispatch could do something; INT64_MAX: never. */
int64_t delivery_next(struct keeper *k);

/* recovery.c */
int recovery_open(struct keeper *k, const char *path, struct err *e); /* the store, or what a backup has of it */
void recovery_run(struct keeper *k);
void recovery_end(struct keeper *k); /* a clean one */
void recovery_cleared(struct keeper *k, int64_t instance); /* no suspect any more */

/* facts.c */
void facts_write(struct keeper *k, int64_t study, unsigned revision); /* after the rows of reports and deliveries */
void facts_delivered(struct keeper *k, const struct delivery *d, int status); /* before the delivery is closed */
void facts_recover(struct keeper *k);

/* disk.c */
const char *disk_unsafe(const char *folder); /* name of a file system that we refuse; NULL: good */
void disk_open(struct keeper *k);
void disk_look(struct keeper *k); /* asks for free space; k->disk_low */
bool disk_takes_object(struct keeper *k);
void disk_full(struct keeper *k, const char *what);

/* retention.c */
void retention_recover(struct keeper *k); /* finishes what a crash interrupted */
void retention_turn(struct keeper *k);

/* reload.c */
void reload_open(struct keeper *k, const void *findings, size_t n_findings); /* at start: what helpers read */
void reload_begin(struct keeper *k); /* the rest inside a turn's transaction */
void reload_apply(struct keeper *k); /* nothing, unless the trial has passed */
void reload_refuse(struct keeper *k, const char *why);
void reload_model(struct keeper *k, const struct ipc_model *m);
void reload_trial_lost(struct keeper *k);
void reload_deadline(struct keeper *k);
bool reload_due(const struct keeper *k); /* the next turn has something to do for it */

/* commitment.c */
void commitment_ask(struct keeper *k, struct courier *c, int status); /* in place of the claim's end */
void commitment_asked(struct keeper *k, struct courier *c, const struct ipc_sent *d);
void commitment_lost(struct keeper *k, struct courier *c);
void commitment_told(struct keeper *k, const struct ipc_committed *t, const char *destination);

/* control.c */
void control_open(struct keeper *k);
void control_accept(struct keeper *k);
void control_serve(struct keeper *k, size_t client);
void control_tell(struct keeper *k, bool done); /* the answers of this turn; not done: it was thrown away */

#endif
