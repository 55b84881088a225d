/* store.h: what the node remembers.  Three things have a life of their own: an instance (an image
 * that somebody sent), a study (what is reported as one), and a delivery (one kind of object on its
 * way to one destination).  schema.sql's opening comment is the state machine; this header is the
 * only door to it, and nothing outside store/ may assume SQLite: another engine can stand here.
 *
 * Rules for callers
 *  - One process holds one read-write store.  Readers (carzeroctl) use store_open_reader().
 *  - Every changing call is one durable transaction of its own, unless it stands between
 *    store_begin() and store_commit(): then all of them become durable together in store_commit().
 *    (Group commit: the keeper wraps one turn of its loop.)
 *  - A claim (instance, study or delivery) counts the attempt before the work and carries a token
 *    and a lease.  Every call that ends the work takes the claim and fails with -ESTALE when the
 *    token is no longer the row's: a late worker can change nothing.
 *  - `now`, `due`, `lease` are wall-clock ms since 1970, given by the caller, never read here.
 *    Rows are ordered by id, never by time.  A fresh or flushed row has due 0: at once.
 *  - The lists of one study, instance or delivery fill at most `max` entries; when there are more they
 *    return -E2BIG with *ret_n = how many.  Lists that page or look around just stop at `max`.
 *  - -EIO, -ENOSPC and every other error from commit leave the transaction rolled back; the caller
 *    must say no to whoever waits.
 */
#ifndef CARZEROD_STORE_STORE_H
#define CARZEROD_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/str.h"

#define STORE_WHY_MAX 200      /* reason texts: ours, ASCII, no patient data */
#define STORE_FINDING_MAX 65   /* id of a finding */
#define STORE_SCORES_MAX 512   /* findings per instance */
#define STORE_PEER_MAX 46      /* numeric address */
#define STORE_EVENT_MAX 400    /* text of an event */
#define STORE_EVENTS_MAX 200   /* kept of one study; 1000 of the node */
#define STORE_MAP_BYTES_MAX 1024 /* of one attention map: 32 x 32 */
#define STORE_CLASSES_MAX 3    /* SR classes prepared for one report */

struct store;

int store_open(const char *path, struct store **ret, struct err *e);   /* creates, migrates; newer schema: -ENOTSUP */
int store_open_reader(const char *path, struct store **ret, struct err *e); /* never writes, never checkpoints */
void store_close(struct store *s); /* NULL allowed; checkpoints a writer */

/* A checked copy of the database at `path`, of one moment, as FOLDER/carzerod-STAMP.db; the newest `keep` of those whose
 * stamp begins with a digit stay.  Holds no writer up. */
int store_backup(const char *path, const char *folder, const char *stamp, unsigned keep, struct err *e);
/* A broken database and its log get other names, with the stamp in them. */
int store_set_aside(const char *path, const char *stamp, struct err *e);
/* The newest good backup as the database, where there is none now; its name in ret.  -ENOENT: there is none. */
int store_restore(const char *path, const char *folder, char ret[64], struct err *e);

int store_begin(struct store *s);
int store_commit(struct store *s);
void store_rollback(struct store *s);
const char *store_error(const struct store *s); /* text of the last failure, for one log line */

/* ---- key/value facts of this installation (site namespace, clean-exit flag) ---- */
int store_get_setting(struct store *s, const char *key, char *ret, size_t size); /* -ENOENT */
int store_set_setting(struct store *s, const char *key, const char *value);

/* ---- instances ------------------------------------------------------------------------------ */

enum instance_state {
	INSTANCE_READY = 0,       /* waits for analysis (also after a retry: see due) */
	INSTANCE_CLAIMED = 1,
	INSTANCE_SETTLED = 2,     /* outcome says how */
	INSTANCE_QUARANTINED = 3, /* three attempts failed; settled for the study's sake */
	INSTANCE_ASIDE = 4,       /* stored class that we do not analyse: kept, never claimed */
};

enum instance_outcome {
	OUTCOME_NONE = 0,
	OUTCOME_SCORED = 1,
	OUTCOME_NOT_ANALYSED = 2, /* the gate or the decoder said why: reported with the reason */
	OUTCOME_FAILED = 3,       /* quarantined: reported with the reason */
	OUTCOME_SILENT = 4,       /* not analysed and, by rule, not reported (why tells) */
};

/* Why a study may wait while others go before. */
enum study_lane {
	LANE_NORMAL = 0,
	LANE_OLD = 1,     /* the rest is the slow lane: an old study, */
	LANE_FLOOD = 2,   /* one of more than its sender usually has, */
	LANE_FETCHED = 3, /* one that an operator fetched */
};

struct instance {
	int64_t id;
	int64_t study;            /* row id */
	enum study_lane lane;     /* its study's */
	uint64_t file;            /* spool id in SPOOL_OBJECTS */
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX];
	char syntax[UID_MAX];     /* transfer syntax of the stored bytes */
	char calling_ae[AE_TITLE_MAX], called_ae[AE_TITLE_MAX], peer[STORE_PEER_MAX];
	uint8_t digest[DIGEST_SIZE]; /* SHA-256 of the data set's bytes */
	uint64_t size;            /* bytes of the data set */
	int64_t received;
	unsigned revision;        /* 1, or more for other bytes under the same SOP Instance UID */
	unsigned repeats;         /* how often the same bytes came again */
	bool kept;                /* its file is there; false: it has expired */
	uint64_t embedding;       /* spool id in SPOOL_EMBEDDINGS, 0: none; the file may be missing or torn all the same */
	enum instance_state state;
	enum instance_outcome outcome;
	char why[STORE_WHY_MAX];  /* reason of the outcome, or of the last failed attempt */
	unsigned attempt;
	int64_t token, lease, due;
	/* facts from the decoder, zero until settled */
	uint8_t patient[DIGEST_SIZE]; /* SHA-256 of Patient ID and issuer: to notice two patients in one study */
	uint8_t content[DIGEST_SIZE]; /* SHA-256 of decoded pixels and of the elements that a report copies */
	char recipe[16], precision[8], version[32];
	uint8_t weights[DIGEST_SIZE], findings[DIGEST_SIZE]; /* what scored it */
	int64_t settled;
};

struct score {
	char finding[STORE_FINDING_MAX];
	float logit;
	float probability; /* NAN when uncalibrated */
	uint8_t decision;  /* enum decision of daemon/findings.h */
};

/* What the caller fills: all up to `received`, and state READY or ASIDE.  The lane is a wish: the study's is normal if one
 * object that it waits for is.
 * Same UID and digest as a row that is there: *ret_duplicate, in->id and in->study of that row, its repeats += 1, no
 * new work (the caller discards its file).  Same UID, other digest: a new row with revision + 1.
 * A READY instance re-opens its study: state COLLECTING and, unless it was collecting already, settle_at = settle_at.
 * (From COMPOSING this voids the claim: its end will be -ESTALE.)  A study of ASIDE instances alone is SILENT. */
int store_add_instance(struct store *s, struct instance *in, int64_t settle_at, bool *ret_duplicate);

/* The file that a row names (-ENODATA: it has expired); and another file with the same bytes in its place (the old one
 * is gone). */
int store_instance_file(struct store *s, int64_t id, uint64_t *ret);
int store_adopt_file(struct store *s, int64_t id, uint64_t file, int64_t now);

/* Claims the READY instance with the lowest id whose due <= now, of the normal lane first but for one claim in
 * STORE_SLOW_EVERY: attempt += 1, new token, lease.  -ENOENT: nothing to do. */
int store_claim_instance(struct store *s, int64_t now, int64_t lease, struct instance *ret);

/* Ends a claim with an outcome; copies outcome, why, embedding, patient .. settled from `in` (id and token identify the
 * claim). */
int store_settle_instance(struct store *s, const struct instance *in, const struct score *scores, size_t n);
/* Ends a claim without an outcome: READY again at `due`; `uncount` takes the attempt back (a clean interruption is not poison). */
int store_retry_instance(struct store *s, const struct instance *in, int64_t due, const char *why, bool uncount);
/* Ends a claim for good: QUARANTINED, OUTCOME_FAILED. */
int store_quarantine_instance(struct store *s, const struct instance *in, int64_t now, const char *why);
/* For the operator: a QUARANTINED or SETTLED instance becomes READY with attempt 0 and re-opens its study.
 * -ENOENT: no such row; -EBUSY: READY or CLAIMED; -ENOTSUP: ASIDE; -ENODATA: its file has expired. */
int store_requeue_instance(struct store *s, int64_t id, int64_t settle_at);

int store_instance_scores(struct store *s, int64_t instance, struct score *ret, size_t max, size_t *ret_n);

struct score_map {          /* where attention went for one finding, see schema-2.sql */
	size_t place;       /* of its score in the list */
	size_t n;           /* bytes */
	uint8_t shade[STORE_MAP_BYTES_MAX];
};

/* To a score that store_settle_instance() wrote; belongs into the same transaction.  -ENOENT: no such score. */
int store_add_map(struct store *s, int64_t instance, const struct score_map *map);
int store_instance_maps(struct store *s, int64_t instance, struct score_map *ret, size_t max, size_t *ret_n);

/* Scored instances whose embedding is kept, with id > after and since <= received < until, by id. */
int store_list_embeddings(struct store *s, int64_t after, int64_t since, int64_t until, struct instance *ret, size_t max,
			  size_t *ret_n);
int store_count_embeddings(struct store *s, int64_t since, int64_t until, uint64_t *ret); /* how many those are */
/* For the start: a file without a row goes to the scored instance that has no embedding and that it was made of, by what
 * made that one's scores; -ENOENT.  And a row whose file is gone names none. */
int store_adopt_embedding(struct store *s, const struct instance *of, uint64_t file);
int store_forget_embedding(struct store *s, int64_t instance);

/* ---- studies -------------------------------------------------------------------------------- */

enum study_state {
	STUDY_COLLECTING = 0, /* due for a report at settle_at, once no instance is READY or CLAIMED */
	STUDY_COMPOSING = 1,  /* claimed */
	STUDY_REPORTED = 2,
	STUDY_SILENT = 3,     /* nothing in it is to be reported; why tells */
	STUDY_PARKED = 4,     /* could not or must not be reported; why tells; an operator is told */
};

struct study {
	int64_t id;
	char study_uid[UID_MAX];
	enum study_lane lane;
	enum study_state state;
	int64_t settle_at;
	unsigned attempt;
	int64_t token, lease;
	unsigned revision;    /* number of reports made so far (of any class: one revision, several files) */
	char why[STORE_WHY_MAX];
	int64_t created;
};

/* The objects of this study that this AE title sends are fetched: their reports are kept here, or sent too. */
enum fetched { FETCHED_NOT = 0, FETCHED_KEEP, FETCHED_SEND };
int store_note_fetched(struct store *s, const char *study_uid, const char *calling_ae, bool keep);
int store_is_fetched(struct store *s, const char *study_uid, const char *calling_ae, enum fetched *ret);

/* Sets settle_at to min(settle_at, at) for a COLLECTING study; others are left alone. */
int store_settle_study(struct store *s, int64_t study, int64_t at);

/* Claims the first COLLECTING study with settle_at <= now and no instance READY or CLAIMED, of the lanes as instances are.
 * -ENOENT. */
int store_next_study(struct store *s, int64_t now, int64_t lease, struct study *ret);

/* All instances of a study (ASIDE included), by id, at most max; *ret_n may exceed max (then -E2BIG). */
int store_study_instances(struct store *s, int64_t study, struct instance *ret, size_t max, size_t *ret_n);

/* Fixes the time of the report for these inputs: when the study already carries `key`, *ret_at is the
 * stored time, else key and *ret_at (given) are stored.  So a repeated attempt makes the same bytes. */
int store_plan_study(struct store *s, const struct study *claim, const uint8_t key[DIGEST_SIZE], int64_t *ret_at);

/* Ends a claim: REPORTED, SILENT or PARKED, with why. */
int store_close_study(struct store *s, const struct study *claim, enum study_state state, const char *why);
/* Ends a claim: COLLECTING again, settle_at = due. */
int store_retry_study(struct store *s, const struct study *claim, int64_t due, const char *why, bool uncount);

int store_find_study(struct store *s, const char *study_uid, struct study *ret); /* -ENOENT */
/* Studies with id < before (INT64_MAX for the newest), newest first. */
int store_list_studies(struct store *s, int64_t before, struct study *ret, size_t max, size_t *ret_n);

/* ---- reports -------------------------------------------------------------------------------- */

struct report {
	int64_t id;
	int64_t study;
	unsigned revision;        /* of the study: files of one revision say the same in different classes */
	char kind[4];             /* "SR" (later: "SC", "PR", "PDF") */
	char sop_class[UID_MAX], sop_uid[UID_MAX], series_uid[UID_MAX];
	char predecessor[UID_MAX]; /* SOP Instance UID of the same class in the revision before, or "" */
	uint64_t file;            /* spool id in SPOOL_REPORTS */
	uint64_t size;
	uint8_t digest[DIGEST_SIZE]; /* of the whole file */
	uint8_t findings[DIGEST_SIZE], weights[DIGEST_SIZE];
	int64_t created;
};

/* The file must be durable before.  -EEXIST when the SOP Instance UID is there already. */
int store_add_report(struct store *s, struct report *r);
/* The newest `max` reports, by id; *ret_n may exceed max (then -E2BIG). */
int store_study_reports(struct store *s, int64_t study, struct report *ret, size_t max, size_t *ret_n);
/* What the database knows of one revision, the open transaction included, as bytes (free()d by the caller) that
 * store_import_facts() takes; and the file that holds them. */
int store_export_facts(struct store *s, int64_t study, unsigned revision, void **ret, size_t *ret_n);
int store_set_facts(struct store *s, int64_t study, unsigned revision, uint64_t file);
int store_delivery_facts(struct store *s, int64_t delivery, uint64_t *ret_file, char ret_sop_uid[UID_MAX]); /* -ENOENT */
int store_named_facts(struct store *s, uint64_t file, bool *ret);
/* After a restore, objects first: adds study, results, reports and deliveries.  -EEXIST: its reports are known;
 * -EBADMSG: no facts.  Then what was delivered is DONE again. */
int store_import_facts(struct store *s, const void *bytes, size_t n, uint64_t file);
int store_restore_delivered(struct store *s, const char *sop_uid, const char *destination, int status, int64_t at);
/* Ends a study's claim as REPORTED with revision = the given one. */
int store_finish_study(struct store *s, const struct study *claim, unsigned revision, const char *why);

/* The text of a findings list, kept under its digest so that every score can be explained later. */
int store_keep_findings(struct store *s, const uint8_t digest[DIGEST_SIZE], const void *text, size_t n);
/* *ret is malloc'd, NUL after n bytes.  -ENOENT. */
int store_get_findings(struct store *s, const uint8_t digest[DIGEST_SIZE], void **ret, size_t *ret_n);

/* ---- deliveries ----------------------------------------------------------------------------- */

/* What goes out first.  Of STORE_ROUTINE_EVERY claims in a row one is for the oldest routine delivery, of STORE_SLOW_EVERY one
 * for the slow lane, so that nothing starves (turn.c has the bounds). */
enum store_rank {
	RANK_URGENT = 0,
	RANK_ROUTINE = 1,
	RANK_SLOW = 2,
};
#define STORE_ROUTINE_EVERY 4
#define STORE_SLOW_EVERY 16

enum delivery_state {
	DELIVERY_QUEUED = 0,
	DELIVERY_SENDING = 1, /* claimed */
	DELIVERY_DONE = 2,
	DELIVERY_PARKED = 3,  /* refused for a reason that people must mend; retried daily and on reload; never deleted */
};

struct delivery {
	int64_t id;
	int64_t study;
	unsigned revision;
	char kind[4];
	char destination[AE_TITLE_MAX];
	enum store_rank rank;
	enum delivery_state state;
	unsigned attempt;      /* since it was queued or last parked */
	unsigned permanent;    /* consecutive refusals of the permanent sort */
	int64_t token, lease, due;
	int64_t report;        /* row of the class chosen at negotiation; 0 until chosen; then it never changes,
				* except through store_reject_report() */
	int status;            /* last DIMSE status, or -1 when the peer gave none */
	char why[STORE_WHY_MAX];
	int64_t created, finished;
};

/* One row for each destination, study, revision and kind; there already: 0, nothing changes.  What the destination has
 * not got yet of the study gets this rank too if it is the more urgent: an amended report does not pass the one before. */
int store_add_delivery(struct store *s, int64_t study, unsigned revision, const char *kind,
		       const char *destination, enum store_rank rank, int64_t now);
/* Claims the QUEUED delivery of this destination whose due <= now (also PARKED ones whose due <= now) of the rank whose turn it
 * is, and the lowest id of that.  -ENOENT. */
int store_next_delivery(struct store *s, const char *destination, int64_t now, int64_t lease, struct delivery *ret);
/* Candidate reports of a delivery, to be sent in the order that the destination prefers.  Those that
 * were rejected are left out, until a parked delivery is tried again or flushed. */
int store_delivery_reports(struct store *s, const struct delivery *d, struct report *ret, size_t max, size_t *ret_n);
/* Commits the class that the peer accepted, before the C-STORE.  -EEXIST when another one was chosen
 * before, -ENOENT when it is no candidate. */
int store_choose_report(struct store *s, const struct delivery *claim, int64_t report);
/* Takes the choice back after the peer refused it for good (0122H): the next class may be chosen.
 * -ENOENT when none was chosen. */
int store_reject_report(struct store *s, const struct delivery *claim);
int store_close_delivery(struct store *s, const struct delivery *claim, int64_t now, int status, const char *why);
/* QUEUED again at due; `permanent` is the new count of refusals of that sort; `uncount` as above. */
int store_defer_delivery(struct store *s, const struct delivery *claim, int64_t due, int status,
			 const char *why, unsigned permanent, bool uncount);
int store_park_delivery(struct store *s, const struct delivery *claim, int64_t due, int status, const char *why);
/* Ends a claim: stored there, QUEUED until `due`, and then sent again unless store_confirm_delivery() came
 * before.  The transaction is durable with it: only then may the peer be asked.  Replaces an older one. */
int store_await_commitment(struct store *s, const struct delivery *claim, const char *transaction, int64_t due,
			   int status, const char *why);
/* The peer has taken the question: a restart need not ask again.  Nothing when it was told meanwhile. */
int store_commitment_asked(struct store *s, const struct delivery *d, int64_t now);
/* The delivery whose object this transaction asks for.  -ENOENT: none of that destination does. */
int store_find_commitment(struct store *s, const char *destination, const char *transaction, const char *sop_uid,
			  struct delivery *ret);
/* Both take a delivery as store_find_commitment() gave it and do nothing (-ESTALE) once it was claimed again: the
 * peer has committed to it: DONE; */
int store_confirm_delivery(struct store *s, const struct delivery *d, int64_t now, const char *why);
/* it has not: QUEUED, or PARKED, until `due`; `permanent` as in store_defer_delivery(). */
int store_resend_delivery(struct store *s, const struct delivery *d, int64_t due, bool parked, const char *why,
			  unsigned permanent);
/* Makes every PARKED or waiting delivery of a destination ("" = all) due now, but for those that wait for
 * storage commitment; attempt counts restart. */
int store_flush_deliveries(struct store *s, const char *destination, int64_t now, unsigned *ret_n);

int store_study_deliveries(struct store *s, int64_t study, struct delivery *ret, size_t max, size_t *ret_n);
/* Not DONE, with id > after, by id. */
int store_list_deliveries(struct store *s, int64_t after, struct delivery *ret, size_t max, size_t *ret_n);
/* Destinations that have something QUEUED or PARKED, with the earliest due of each. */
struct destination {
	char ae_title[AE_TITLE_MAX];
	int64_t due;
	unsigned queued, parked;
};
int store_destinations(struct store *s, struct destination *ret, size_t max, size_t *ret_n);

/* ---- events --------------------------------------------------------------------------------- */

enum event_kind {
	EVENT_NODE = 0,        /* reload, peers that were turned away, destinations that came and went */
	EVENT_ASSOCIATION = 1, /* how an association ended that brought something */
	EVENT_OBJECT = 2,      /* an attempt to analyse one failed; the same bytes came again */
	EVENT_REPORT = 3,      /* an attempt to compose one, and how it ended */
	EVENT_DELIVERY = 4,    /* an attempt to send one, and what the peer said */
	EVENT_OPERATOR = 5,    /* carzeroctl changed something */
};

struct event {
	int64_t id;
	enum event_kind kind;
	int64_t first, last;
	unsigned n;            /* how often it came in a row */
	char text[STORE_EVENT_MAX];
};

/* Appends to the history of a study (0: of the node); the newest one again is only counted.  The history is bounded:
 * the oldest go.  No patient data.  An unknown study is no error. */
int store_add_event(struct store *s, int64_t study, int64_t now, enum event_kind kind, const char *text);
/* The newest `max` of them, oldest first. */
int store_list_events(struct store *s, int64_t study, struct event *ret, size_t max, size_t *ret_n);

/* ---- watching ------------------------------------------------------------------------------- */

struct outbox { /* deliveries to one destination */
	uint64_t waiting, parked, done;
	int64_t oldest; /* created of the oldest that is not done; 0: none */
};
int store_outbox(struct store *s, const char *destination, struct outbox *ret);
/* When the last image of a study was received; -ENOENT. */
int store_study_received(struct store *s, int64_t study, int64_t *ret);

uint64_t store_log_bytes(struct store *s); /* of the write-ahead log; 0 when there is none */

/* The drift monitor's state of a source, as bytes; `key` names what gave the scores, and another key's row goes. */
int store_put_drift(struct store *s, const char *source, const uint8_t key[DIGEST_SIZE], const void *state, size_t n);
int store_each_drift(struct store *s, const uint8_t key[DIGEST_SIZE],
		     void (*each)(const char *source, const void *state, size_t n, void *arg), void *arg);

/* ---- retention -------------------------------------------------------------------------------- */

/* Moments (wall ms); what was quiet since before them may go.  Nothing goes whose study has a delivery that is not
 * DONE, or something that waits or is worked on. */
struct retention {
	int64_t images; /* files of objects, of studies without a failure */
	int64_t failed; /* files of objects, of studies with a quarantined object, and of parked studies */
	int64_t rows;   /* everything else of a study */
};

struct removal {
	int64_t study;
	char study_uid[UID_MAX];
	bool whole; /* the study is gone; else files of its objects, or some of its rows */
	size_t objects; /* whose files go in this step */
};

/* One bounded step: the rows of at most `max` files go and the files are doomed.  *ret_n: how many rows went; 0: nothing
 * is due. */
int store_expire(struct store *s, const struct retention *before, size_t max, size_t *ret_n, struct removal *ret_what);
/* All of one study goes, whatever its age and deliveries.  -ENOENT: no such study; -EBUSY: something of it is being
 * worked on at this moment. */
int store_purge_study(struct store *s, const char *study_uid, size_t *ret_n);

struct doomed { /* a file that no row names any more */
	unsigned box; /* enum spool_box */
	uint64_t file;
};
/* At most max of them.  To be called in a later transaction than the one that doomed them: then they are unlinked, their
 * directories fsynced, and forgotten before the commit. */
int store_list_doomed(struct store *s, struct doomed *ret, size_t max, size_t *ret_n);
int store_forget_doomed(struct store *s, const struct doomed *d);
/* Earliest `quiet` among studies that could expire next, of each kind; INT64_MAX: none. */
int store_next_expiry(struct store *s, struct retention *ret);
/* ---- notices -------------------------------------------------------------------------------- */

#define STORE_HOOK_MAX 33
#define STORE_NOTICE_BODY_MAX 2048
#define STORE_NOTICE_LEASE_MS 120000

struct notice {
	int64_t id;
	char hook[STORE_HOOK_MAX], event[24];
	char key[128];         /* what it is about: "urgent study 12 revision 1" */
	char body[STORE_NOTICE_BODY_MAX];
	unsigned attempt;
	int64_t created;
};

/* Fills hook, event, key, body, created.  A key that this hook was told is no error and no second notice. */
int store_add_notice(struct store *s, const struct notice *n);
/* The first that is due, its attempt counted; due again after the lease should nobody say how it went.  -ENOENT. */
int store_next_notice(struct store *s, const char *hook, int64_t now, struct notice *ret);
int store_defer_notice(struct store *s, int64_t id, int64_t due);
int store_end_notice(struct store *s, int64_t id, int64_t now); /* told, or given up */
/* When the next is due (INT64_MAX: none waits) and how many wait. */
int store_notices_due(struct store *s, const char *hook, int64_t *ret_due, uint64_t *ret_waiting);

/* ---- audit ---------------------------------------------------------------------------------- */

#define STORE_AUDIT_MAX 8192 /* bytes of a record, its end included */

/* A record for the repository: the whole syslog message.  Belongs into the transaction of what it tells of. */
int store_add_audit(struct store *s, const char *body);
int store_audits_waiting(struct store *s, uint64_t *ret);
/* Calls each for what waits, oldest first, until it returns non-zero. */
int store_each_audit(struct store *s, int (*each)(int64_t id, const char *body, void *arg), void *arg);
int store_end_audits(struct store *s, int64_t last); /* the repository has them, up to this one */

struct received { /* objects of one study from one sender */
	char peer[STORE_PEER_MAX], calling_ae[AE_TITLE_MAX], study_uid[UID_MAX];
	char sop_class[UID_MAX]; /* "": of several */
	unsigned n;
};
/* One more object, in the transaction of its own row. */
int store_count_received(struct store *s, const struct received *in);
/* Takes out what came from this sender ("" and "": from anybody), a study at a time.  -ENOENT: nothing (more). */
int store_take_received(struct store *s, const char *peer, const char *calling_ae, struct received *ret);
int store_study_uid(struct store *s, int64_t study, char ret[UID_MAX]); /* -ENOENT */

/* ---- recovery and overview ------------------------------------------------------------------ */

/* After a restart: every claim is taken back (attempts stay counted).  Returns how many in *ret_n.  Every notice that waits
 * is due: what was being told when the node ended, or had been put off, does not wait longer.
 * An instance or a study that was claimed for the STORE_SUSPECT_ATTEMPTSth time may be what kills the node: from every
 * start on it waits for STORE_SUSPECT_MS.  So others are served first, and a node that dies of something else every second
 * does not count these deaths against it. */
#define STORE_SUSPECT_ATTEMPTS 3
#define STORE_SUSPECT_MS 30000
int store_recover(struct store *s, int64_t now, unsigned *ret_n);
/* A quick look at the whole database: -EUCLEAN when it is not sound. */
int store_check(struct store *s);
/* Instances that are claimed at this moment. */
int store_list_claimed(struct store *s, int64_t *ret, size_t max, size_t *ret_n);
/* PARKED studies whose last attempt was before that moment collect again, settled at `now`. */
int store_retry_parked(struct store *s, int64_t before, int64_t now, unsigned *ret_n);
/* Checkpoints are made in commits, by themselves; how many in a row could not be. */
unsigned store_checkpoint_failures(struct store *s);
/* The whole log into the database, and its file empty; -EBUSY while somebody reads. */
int store_shorten_log(struct store *s);
/* Every claim is taken back, uncounted, due now: the holder gave up through no fault of the work. */
int store_release(struct store *s, int64_t now);
/* After the wall clock went back: nothing that waits is due later than these moments. */
int store_clamp(struct store *s, int64_t study, int64_t instance, int64_t delivery);
/* The instance that names this spool file, or -ENOENT. */
int store_find_file(struct store *s, uint64_t file, int64_t *ret_instance);
/* Whether this is the SOP Instance UID of an object that we made. */
int store_is_report(struct store *s, const char *sop_uid, bool *ret);
int store_find_report_file(struct store *s, uint64_t file, int64_t *ret_report);
/* Calls each for the file of every instance row (objects; not those that have expired) or report row, until it returns non-zero. */
int store_each_file(struct store *s, bool reports, int (*each)(uint64_t file, int64_t row, void *arg), void *arg);
/* The same with the digest that the row has (of an object's data set, of a whole report). */
int store_each_digest(struct store *s, bool reports,
		      int (*each)(uint64_t file, int64_t row, const uint8_t digest[DIGEST_SIZE], void *arg), void *arg);
/* Earliest moment at which store_claim_instance / store_next_study / store_next_delivery could find something; INT64_MAX: never. */
int store_next_due(struct store *s, int64_t *ret_instance, int64_t *ret_study, int64_t *ret_delivery);

struct store_counts {
	uint64_t instances[5]; /* by enum instance_state */
	uint64_t studies[5];   /* by enum study_state */
	uint64_t deliveries[4];
	uint64_t slow;         /* of the READY and CLAIMED instances: in the slow lane */
	uint64_t reports;
	int64_t oldest_ready, oldest_slow; /* received of the oldest READY or CLAIMED instance of each lane, 0 when none */
	int64_t oldest_delivery; /* created of the oldest delivery not DONE, 0 when none */
};
int store_counts(struct store *s, struct store_counts *ret);

#endif
