/* telemetry.c: see telemetry.h.  The page, and its text for Prometheus. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "daemon/telemetry.h"

#define READ_TRIES 1000
#define STATUS_NONE 0x10000u
#define STATUS_OTHER 0x10001u

/* Upper bounds in seconds: a group commit is a few ms, a result some seconds, an archive may be down for hours. */
static const double bounds[TELEMETRY_BUCKETS] = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600 };

/* ---- counting ---- */

void telemetry_time_add(struct telemetry_time *t, int64_t microseconds)
{
	size_t i = 0;

	if (microseconds < 0)
		microseconds = 0; /* a clock that was set back */
	while (i < TELEMETRY_BUCKETS && (double)microseconds > bounds[i] * 1e6)
		i++;
	t->in[i]++;
	t->microseconds += (uint64_t)microseconds;
}

void telemetry_status_add(struct telemetry_statuses *s, int status)
{
	uint32_t as = status < 0 ? STATUS_NONE : (uint32_t)status & 0xffff;
	size_t i = 0;

	while (i + 1 < TELEMETRY_STATUSES_MAX && s->of[i].used && s->of[i].status != as)
		i++;
	s->of[i].status = i + 1 == TELEMETRY_STATUSES_MAX ? STATUS_OTHER : as;
	s->of[i].used = 1;
	s->of[i].n++;
}

struct telemetry_source *telemetry_source(struct telemetry *t, const char *ae_title)
{
	struct telemetry_source *s;
	size_t i;

	for (i = 0; i < t->n_sources; i++) {
		if (strcmp(t->source[i].ae_title, ae_title) == 0)
			return &t->source[i];
	}
	if (t->n_sources == DRIFT_SOURCES_MAX)
		return NULL;
	s = &t->source[t->n_sources++];
	(void)str_copy(s->ae_title, sizeof(s->ae_title), ae_title);
	for (i = 0; i < FINDINGS_MAX; i++)
		s->psi[i] = (double)NAN;
	return s;
}

/* ---- the page ---- */

struct telemetry_page {
	uint64_t sequence; /* odd while the rest is being written */
	struct telemetry t;
};

int telemetry_page_new(struct telemetry_page **ret, int *ret_fd)
{
	char path[32];
	void *p;
	int fd = fd_memory("carzerod-telemetry"), r;

	if (fd < 0)
		return fd;
	r = ftruncate(fd, sizeof(struct telemetry_page)) < 0 ? -errno : 0;
	p = r < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct telemetry_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (r == 0 && p == MAP_FAILED)
		r = -errno;
	/* nobody may map it for writing after us, nor cut it under a reader */
	if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		r = -errno;
	if (r == 0) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
		if (*ret_fd < 0)
			r = -errno;
	}
	(void)close(fd);
	if (r < 0) {
		if (p != MAP_FAILED)
			(void)munmap(p, sizeof(struct telemetry_page));
		return r;
	}
	*ret = p;
	return 0;
}

void telemetry_publish(struct telemetry_page *p, const struct telemetry *t)
{
	__atomic_store_n(&p->sequence, p->sequence + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	p->t = *t;
	__atomic_store_n(&p->sequence, p->sequence + 1, __ATOMIC_RELEASE);
}

void telemetry_page_free(struct telemetry_page *p)
{
	if (p != NULL)
		(void)munmap(p, sizeof(*p));
}

int telemetry_page_map(int fd, const struct telemetry_page **ret)
{
	const void *p = mmap(NULL, sizeof(struct telemetry_page), PROT_READ, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

bool telemetry_read(const struct telemetry_page *p, struct telemetry *ret)
{
	const struct timespec moment = { .tv_nsec = 100000 };
	int tries;

	for (tries = 0; tries < READ_TRIES; tries++) {
		uint64_t before = __atomic_load_n(&p->sequence, __ATOMIC_ACQUIRE);

		if (before % 2 == 0) {
			*ret = p->t;
			__atomic_thread_fence(__ATOMIC_ACQUIRE);
			if (__atomic_load_n(&p->sequence, __ATOMIC_RELAXED) == before)
				return before != 0;
		}
		(void)nanosleep(&moment, NULL);
	}
	return false;
}

/* ---- text ---- */

/* A label's value: backslash, quote and line feed are escaped; AE titles and ids hold nothing else odd. */
static void print_label(FILE *o, const char *key, const char *value)
{
	fprintf(o, "%s=\"", key);
	for (; *value != '\0'; value++) {
		if (*value == '\\' || *value == '"')
			putc('\\', o);
		if (*value == '\n')
			fputs("\\n", o);
		else
			putc(*value, o);
	}
	putc('"', o);
}

static void head(FILE *o, const char *name, const char *type, const char *help)
{
	fprintf(o, "# HELP carzerod_%s %s\n# TYPE carzerod_%s %s\n", name, help, name, type);
}

static void plain(FILE *o, const char *name, const char *type, const char *help, double value)
{
	head(o, name, type, help);
	fprintf(o, "carzerod_%s %.17g\n", name, value);
}

static void counter(FILE *o, const char *name, const char *help, uint64_t value)
{
	head(o, name, "counter", help);
	fprintf(o, "carzerod_%s %" PRIu64 "\n", name, value);
}

/* One sample of a family with one label. */
static void sample(FILE *o, const char *name, const char *key, const char *label, double value)
{
	fprintf(o, "carzerod_%s{", name);
	print_label(o, key, label);
	fprintf(o, "} %.17g\n", value);
}

static double age(int64_t since, int64_t now)
{
	return since == 0 || since > now ? 0 : (double)(now - since) / 1000;
}

static const char *status_text(uint32_t status, char ret[8])
{
	if (status == STATUS_NONE || status == STATUS_OTHER)
		return status == STATUS_NONE ? "none" : "other";
	(void)snprintf(ret, 8, "%04X", (unsigned)status);
	return ret;
}

static void print_statuses(FILE *o, const char *name, const char *destination, const struct telemetry_statuses *s)
{
	char text[8];
	size_t i;

	for (i = 0; i < TELEMETRY_STATUSES_MAX; i++) {
		if (!s->of[i].used)
			continue;
		fprintf(o, "carzerod_%s{", name);
		if (destination != NULL) {
			print_label(o, "destination", destination);
			putc(',', o);
		}
		print_label(o, "status", status_text(s->of[i].status, text));
		fprintf(o, "} %" PRIu64 "\n", s->of[i].n);
	}
}

static void print_stages(FILE *o, const struct telemetry *t)
{
	static const char *const names[TELEMETRY_STAGES] = { "commit", "store", "decode", "infer", "compose", "send", "result" };
	size_t i, b;

	head(o, "stage_seconds", "histogram",
	     "Time of a stage: commit (folders and database), store (file handed out to answer), decode, infer, compose, "
	     "send (one object), result (last image received to report accepted).");
	for (i = 0; i < TELEMETRY_STAGES; i++) {
		const struct telemetry_time *s = &t->stage[i];
		uint64_t n = 0;

		for (b = 0; b < TELEMETRY_BUCKETS; b++) {
			n += s->in[b];
			fprintf(o, "carzerod_stage_seconds_bucket{stage=\"%s\",le=\"%g\"} %" PRIu64 "\n", names[i], bounds[b], n);
		}
		n += s->in[TELEMETRY_BUCKETS];
		fprintf(o, "carzerod_stage_seconds_bucket{stage=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", names[i], n);
		fprintf(o, "carzerod_stage_seconds_sum{stage=\"%s\"} %.6f\n", names[i], (double)s->microseconds / 1e6);
		fprintf(o, "carzerod_stage_seconds_count{stage=\"%s\"} %" PRIu64 "\n", names[i], n);
	}
}

static void print_receiving(FILE *o, const struct telemetry *t)
{
	plain(o, "associations", "gauge", "Associations under way.", (double)t->associations);
	counter(o, "associations_total", "Associations that were given a process.", t->accepted);
	counter(o, "associations_refused_total", "Associations refused for now: limits, disk, queue, shutdown.", t->refused);
	head(o, "store_total", "counter", "C-STORE requests whose data set arrived whole, by the status that was answered.");
	print_statuses(o, "store_total", NULL, &t->stored);
	counter(o, "store_bytes_total", "Bytes of objects that were kept.", t->stored_bytes);
	counter(o, "store_repeats_total", "Objects that were here already, byte for byte.", t->repeats);
}

static void print_queue(FILE *o, const struct telemetry *t, int64_t now)
{
	static const char *const instance[] = { "ready", "claimed", "settled", "quarantined", "aside" };
	static const char *const study[] = { "collecting", "composing", "reported", "silent", "parked" };
	size_t i;

	head(o, "instances", "gauge", "Objects in the database, by state.");
	for (i = 0; i < ARRAY_SIZE(instance); i++)
		sample(o, "instances", "state", instance[i], (double)t->instances[i]);
	head(o, "studies", "gauge", "Studies in the database, by state.");
	for (i = 0; i < ARRAY_SIZE(study); i++)
		sample(o, "studies", "state", study[i], (double)t->studies[i]);
	plain(o, "reports", "gauge", "Report files in the database.", (double)t->reports);
	head(o, "waiting_images", "gauge", "Objects that wait for their scores or get them, by lane.");
	sample(o, "waiting_images", "lane", "normal", (double)(t->instances[0] + t->instances[1] - t->slow));
	sample(o, "waiting_images", "lane", "slow", (double)t->slow);
	head(o, "oldest_job_seconds", "gauge", "Age of the oldest object that waits for its scores, by lane; 0 when none does.");
	sample(o, "oldest_job_seconds", "lane", "normal", age(t->oldest_instance, now));
	sample(o, "oldest_job_seconds", "lane", "slow", age(t->oldest_slow, now));
	counter(o, "scored_total", "Images scored.", t->scored);
	counter(o, "quarantined_total", "Objects set aside after repeated failures.", t->quarantined);
	counter(o, "reported_total", "Reports composed.", t->reported);
}

static void print_destinations(FILE *o, const struct telemetry *t, int64_t now)
{
	size_t i;

	head(o, "destination_available", "gauge", "1 while the destination answers, 0 while it rests after a failure.");
	for (i = 0; i < t->n_destinations; i++)
		sample(o, "destination_available", "destination", t->destination[i].ae_title, (double)t->destination[i].available);
	head(o, "outbox", "gauge", "Deliveries by destination and state.");
	for (i = 0; i < t->n_destinations; i++) {
		const struct telemetry_destination *d = &t->destination[i];
		const uint64_t n[] = { d->waiting, d->parked, d->done };
		static const char *const state[] = { "waiting", "parked", "done" };

		for (size_t k = 0; k < ARRAY_SIZE(n); k++) {
			fputs("carzerod_outbox{", o);
			print_label(o, "destination", d->ae_title);
			fprintf(o, ",state=\"%s\"} %" PRIu64 "\n", state[k], n[k]);
		}
	}
	head(o, "outbox_oldest_seconds", "gauge", "Age of the oldest delivery that is not done; 0 when none waits.");
	for (i = 0; i < t->n_destinations; i++)
		sample(o, "outbox_oldest_seconds", "destination", t->destination[i].ae_title, age(t->destination[i].oldest, now));
	head(o, "send_total", "counter", "Attempts to send an object, by destination and C-STORE status.");
	for (i = 0; i < t->n_destinations; i++)
		print_statuses(o, "send_total", t->destination[i].ae_title, &t->destination[i].sent);
	counter(o, "delivered_total", "Objects that a destination accepted.", t->delivered);
}

static void print_sources(FILE *o, const struct telemetry *t, const char *const *reasons)
{
	size_t i, f;

	head(o, "not_analysed_total", "counter", "Images that were not scored, by reason.");
	for (i = 0; i < TELEMETRY_REASONS_MAX && reasons[i] != NULL; i++)
		if (t->not_analysed[i] > 0)
			sample(o, "not_analysed_total", "reason", reasons[i], (double)t->not_analysed[i]);
	head(o, "source_images_total", "counter", "Images by calling AE title and outcome.");
	for (i = 0; i < t->n_sources; i++) {
		const struct telemetry_source *s = &t->source[i];
		const uint64_t n[] = { s->scored, s->not_analysed, s->failed };
		static const char *const outcome[] = { "scored", "not_analysed", "failed" };

		for (size_t k = 0; k < ARRAY_SIZE(n); k++) {
			fputs("carzerod_source_images_total{", o);
			print_label(o, "source", s->ae_title);
			fprintf(o, ",outcome=\"%s\"} %" PRIu64 "\n", outcome[k], n[k]);
		}
	}
	head(o, "drift_alarm", "gauge", "1 while the scores of a source differ from its reference (PSI from 0.25).");
	for (i = 0; i < t->n_sources; i++)
		sample(o, "drift_alarm", "source", t->source[i].ae_title, (double)t->source[i].alarm);
	head(o, "drift_psi", "gauge", "Population stability index of a finding's scores, last 500 images against the source's first 500.");
	for (i = 0; i < t->n_sources; i++) {
		for (f = 0; f < t->n_findings && f < FINDINGS_MAX; f++) {
			if (isnan(t->source[i].psi[f]))
				continue;
			fputs("carzerod_drift_psi{", o);
			print_label(o, "source", t->source[i].ae_title);
			putc(',', o);
			print_label(o, "finding", t->finding[f]);
			fprintf(o, "} %.6f\n", t->source[i].psi[f]);
		}
	}
}

static void print_machine(FILE *o, const struct telemetry *t)
{
	char number[16];
	size_t i;

	plain(o, "disk_free_ratio", "gauge", "Free share of the file system of state_dir.",
	      t->total_bytes > 0 ? (double)t->free_bytes / (double)t->total_bytes : 0);
	plain(o, "disk_free_bytes", "gauge", "Free bytes of the file system of state_dir.", (double)t->free_bytes);
	plain(o, "disk_free_inodes", "gauge", "Free inodes of the file system of state_dir.", (double)t->free_inodes);
	plain(o, "db_wal_bytes", "gauge", "Size of the database's write-ahead log.", (double)t->wal_bytes);
	head(o, "helper_deaths_total", "counter", "Ends of helper processes that nobody asked for, by signal (0: an exit code).");
	for (i = 0; i < TELEMETRY_SIGNALS_MAX; i++) {
		if (t->deaths[i] == 0)
			continue;
		(void)snprintf(number, sizeof(number), "%zu", i);
		sample(o, "helper_deaths_total", "signal", number, (double)t->deaths[i]);
	}
	plain(o, "lost_objects", "gauge", "Rows whose file was missing at the last start: must be 0.", (double)t->lost_objects);
	counter(o, "clock_steps_total", "Times that the wall clock was set.", t->clock_steps);
	counter(o, "turns_total", "Turns of the keeper.", t->turns);
}

void telemetry_print(FILE *o, const struct telemetry *t, int64_t now, const char *const *reasons)
{
	head(o, "build_info", "gauge", "1; what runs.");
	fputs("carzerod_build_info{", o);
	print_label(o, "version", t->version);
	putc(',', o);
	print_label(o, "model", t->model);
	putc(',', o);
	print_label(o, "domain", t->domain);
	putc(',', o);
	print_label(o, "precision", t->precision);
	fputs("} 1\n", o);
	plain(o, "start_time_seconds", "gauge", "When the node was started, seconds since 1970.", (double)t->started / 1000);
	plain(o, "last_turn_seconds", "gauge", "Age of these figures: large when the keeper does not turn.", age(t->now, now));
	plain(o, "model_ready", "gauge", "1 once a model is loaded.", (double)t->model_ready);
	print_receiving(o, t);
	print_queue(o, t, now);
	print_stages(o, t);
	print_sources(o, t, reasons);
	print_destinations(o, t, now);
	print_machine(o, t);
}
