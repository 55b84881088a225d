/* telemetry.h: the keeper's figures, on a page of memory that carzerod-export reads.
 *
 * The keeper fills a struct telemetry of its own as things happen and publishes it every second: one
 * copy into a sealed memory file, under a sequence number that is odd meanwhile.  The reader maps the
 * file read-only and copies it until the number was even and the same before and after.  So the
 * keeper never waits for a reader and a reader cannot change anything of the keeper's.
 *
 * On the page are counts, sizes and times, AE titles of our configuration and of senders, and names of findings.
 * Never anything about a patient: no UID, no name, no text that came in an object.
 */
#ifndef CARZEROD_DAEMON_TELEMETRY_H
#define CARZEROD_DAEMON_TELEMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/str.h"

#include "daemon/config.h"
#include "daemon/drift.h"
#include "daemon/findings.h"

#define TELEMETRY_STATUSES_MAX 16
#define TELEMETRY_REASONS_MAX 16
#define TELEMETRY_SIGNALS_MAX 65
#define TELEMETRY_BUCKETS 14

/* Seconds; the last bucket is everything. */
struct telemetry_time {
	uint64_t in[TELEMETRY_BUCKETS + 1]; /* not cumulated */
	uint64_t microseconds;		    /* sum */
};

enum telemetry_stage {
	TELEMETRY_COMMIT,  /* an intake's transaction: fsync of folders and COMMIT */
	TELEMETRY_STORE,   /* from the file handed out to the answer */
	TELEMETRY_DECODE, TELEMETRY_INFER, TELEMETRY_COMPOSE,
	TELEMETRY_SEND,	   /* one object to one destination */
	TELEMETRY_RESULT,  /* from the study's last image received to its report accepted by a destination */
	TELEMETRY_STAGES
};

struct telemetry_statuses { /* DIMSE statuses; the last place is for all others */
	struct {
		uint32_t status; /* 0x10000: none, no answer */
		uint32_t used;
		uint64_t n;
	} of[TELEMETRY_STATUSES_MAX];
};

struct telemetry_destination {
	char ae_title[AE_TITLE_MAX];
	uint8_t zero[7];
	uint64_t available, waiting, parked, done;
	int64_t oldest; /* wall ms at which the oldest that waits was made; 0: none */
	struct telemetry_statuses sent;
};

struct telemetry_source { /* a calling AE title */
	char ae_title[AE_TITLE_MAX];
	uint8_t zero[7];
	uint64_t scored, not_analysed, failed;
	uint64_t reference, window, alarm; /* drift.h */
	double psi[FINDINGS_MAX];	   /* NAN: not defined */
};

struct telemetry {
	int64_t started, now;		    /* wall ms; now: of the last turn */
	char version[32], model[64], domain[16], precision[8];
	uint64_t model_ready;
	uint64_t associations, accepted, refused; /* under way; since the start */
	struct telemetry_statuses stored;   /* C-STORE responses that the keeper gave */
	uint64_t stored_bytes, repeats;
	struct telemetry_time stage[TELEMETRY_STAGES];
	uint64_t instances[5], studies[5], deliveries[4], reports;
	uint64_t slow;			    /* of the instances that are ready or claimed: in the slow lane */
	int64_t oldest_instance, oldest_slow, oldest_delivery; /* wall ms; 0: none */
	uint64_t scored, not_analysed[TELEMETRY_REASONS_MAX], quarantined, reported, delivered;
	uint64_t deaths[TELEMETRY_SIGNALS_MAX]; /* of helpers, by signal; 0: by an exit code */
	uint64_t free_bytes, total_bytes, free_inodes, total_inodes, wal_bytes;
	uint64_t lost_objects, clock_steps, turns;
	uint64_t n_destinations, n_sources, n_findings;
	struct telemetry_destination destination[CONFIG_PEERS_MAX];
	struct telemetry_source source[DRIFT_SOURCES_MAX];
	char finding[FINDINGS_MAX][FINDING_ID_MAX];
};

void telemetry_time_add(struct telemetry_time *t, int64_t microseconds);
void telemetry_status_add(struct telemetry_statuses *s, int status); /* < 0: no answer */
struct telemetry_source *telemetry_source(struct telemetry *t, const char *ae_title); /* NULL: no place */

/* ---- the page ---- */

struct telemetry_page;

/* The writer's page; *ret_fd, a read-only descriptor of it, is the caller's.  Negative errno. */
int telemetry_page_new(struct telemetry_page **ret, int *ret_fd);
void telemetry_publish(struct telemetry_page *p, const struct telemetry *t);
void telemetry_page_free(struct telemetry_page *p); /* NULL allowed */

/* The reader's page. */
int telemetry_page_map(int fd, const struct telemetry_page **ret);
/* False when no copy was whole in time: the writer died while it wrote. */
bool telemetry_read(const struct telemetry_page *p, struct telemetry *ret);

/* Prometheus text format 0.0.4; `reasons`: names of not_analysed, NULL at the end. */
void telemetry_print(FILE *o, const struct telemetry *t, int64_t now, const char *const *reasons);

#endif
