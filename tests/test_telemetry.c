/* test_telemetry.c: a reader never sees half a page, cannot write to it; the text is Prometheus' format. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#include "daemon/telemetry.h"
#include "tests/tap.h"

static void test_counting(void)
{
	struct telemetry_time t = { { 0 }, 0 };
	struct telemetry_statuses s = { { { 0, 0, 0 } } };

	telemetry_time_add(&t, 1000);	     /* on a bound: inside it */
	telemetry_time_add(&t, 1001);
	telemetry_time_add(&t, -5);	     /* a clock went back */
	telemetry_time_add(&t, 3600000000LL); /* beyond all bounds */
	is_int((long long)t.in[0], 2, "up to 1 ms");
	is_int((long long)t.in[1], 1, "above");
	is_int((long long)t.in[TELEMETRY_BUCKETS], 1, "an hour");
	is_int((long long)t.microseconds, 3600002001LL, "sum");
	for (int i = 0; i < 40; i++)
		telemetry_status_add(&s, i < 20 ? 0xa700 : i);
	telemetry_status_add(&s, -1);
	is_int((long long)s.of[0].n, 20, "one status, counted");
	is_int((long long)s.of[TELEMETRY_STATUSES_MAX - 1].n, 7, "what has no place counts as one");
}

static void test_sources(void)
{
	CLEANUP(free) struct telemetry *t = xcalloc(1, sizeof(*t));
	char name[AE_TITLE_MAX];

	for (int i = 0; i < DRIFT_SOURCES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "S%d", i);
		ok(telemetry_source(t, name) == &t->source[i], "source %d", i);
	}
	ok(telemetry_source(t, "S3") == &t->source[3], "found again");
	ok(telemetry_source(t, "MORE") == NULL, "no place for another");
}

/* The writer sets every counter of the page to one number; a torn copy would hold two. */
static void test_page(void)
{
	struct telemetry *t = xcalloc(1, sizeof(*t)), *copy = xcalloc(1, sizeof(*copy));
	const struct telemetry_page *read_only;
	struct telemetry_page *page;
	unsigned seen = 0, torn = 0;
	int fd, status;
	pid_t writer;

	is_int(telemetry_page_new(&page, &fd), 0, "a page");
	is_int(telemetry_page_map(fd, &read_only), 0, "mapped by a reader");
	ok(!telemetry_read(read_only, copy), "nothing was published yet");
	ok(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED, "a reader cannot map it for writing");
	ok(ftruncate(fd, 0) < 0, "nor cut it");
	writer = fork();
	if (writer == 0) {
		for (uint64_t i = 1;; i++) {
			t->accepted = t->turns = t->source[DRIFT_SOURCES_MAX - 1].scored = i;
			telemetry_publish(page, t);
		}
	}
	while (seen < 2000 && torn == 0) {
		if (!telemetry_read(read_only, copy))
			continue;
		seen++;
		torn += copy->accepted != copy->turns || copy->accepted != copy->source[DRIFT_SOURCES_MAX - 1].scored;
	}
	is_int(torn, 0, "%u copies under a writer that never rests, up to number %llu: all whole", seen,
	       (unsigned long long)copy->turns);
	ok(copy->turns > 1, "and it wrote meanwhile");
	(void)kill(writer, SIGKILL);
	(void)waitpid(writer, &status, 0);
	telemetry_page_free(page);
	(void)close(fd);
	free(t);
	free(copy);
}

/* Every sample belongs to the family announced above it; every line has a name, labels and a number. */
static void check_text(const char *text)
{
	char family[128] = "", line[512], name[128], rest[512];
	unsigned samples = 0, families = 0, bad = 0;
	double value;

	while (*text != '\0') {
		size_t n = strcspn(text, "\n");

		(void)snprintf(line, sizeof(line), "%.*s", (int)n, text);
		text += n + (text[n] == '\n');
		if (sscanf(line, "# TYPE %127s %511s", name, rest) == 2) {
			families++;
			memcpy(family, name, sizeof(family));
			bad += strcmp(rest, "counter") != 0 && strcmp(rest, "gauge") != 0 && strcmp(rest, "histogram") != 0;
			/* a counter says so in its name, nothing else does */
			bad += (strcmp(rest, "counter") == 0) != (strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0);
			continue;
		}
		if (line[0] == '#')
			continue;
		samples++;
		if (sscanf(line, "%127[a-z0-9_]%511[^\n]", name, rest) != 2 || strncmp(name, family, strlen(family)) != 0 ||
		    (rest[0] != ' ' && (rest[0] != '{' || strstr(rest, "} ") == NULL)) ||
		    sscanf(rest[0] == ' ' ? rest : strstr(rest, "} ") + 1, "%lf", &value) != 1) {
			printf("# not a sample of %s: %s\n", family, line);
			bad++;
		}
	}
	is_int(bad, 0, "%u samples of %u families are well-formed", samples, families);
	ok(families > 30 && samples > families, "and they are many");
}

static void test_text(void)
{
	static const char *const reasons[] = { "ok", "not-dicom", NULL };
	CLEANUP(free) struct telemetry *t = xcalloc(1, sizeof(*t));
	char *text = NULL;
	size_t n = 0;
	FILE *o = open_memstream(&text, &n);

	(void)str_copy(t->version, sizeof(t->version), "1.2");
	t->started = 1000;
	t->now = 5000;
	t->n_destinations = 1;
	(void)str_copy(t->destination[0].ae_title, AE_TITLE_MAX, "A\"B C");
	telemetry_status_add(&t->destination[0].sent, 0xa700);
	telemetry_status_add(&t->destination[0].sent, -1);
	telemetry_source(t, "CR1")->psi[1] = 0.5;
	t->n_findings = 2;
	(void)str_copy(t->finding[1], FINDING_ID_MAX, "effusion");
	telemetry_time_add(&t->stage[TELEMETRY_INFER], 30000);
	t->oldest_instance = 2000;
	t->not_analysed[1] = 4;
	telemetry_print(o, t, 10000, reasons);
	(void)fclose(o);
	check_text(text);
	ok(strstr(text, "carzerod_send_total{destination=\"A\\\"B C\",status=\"A700\"} 1\n") != NULL, "quotes are escaped");
	ok(strstr(text, "status=\"none\"} 1\n") != NULL, "no answer is a status of its own");
	ok(strstr(text, "carzerod_drift_psi{source=\"CR1\",finding=\"effusion\"} 0.500000\n") != NULL, "PSI");
	ok(strstr(text, "finding=\"\"") == NULL, "what is not defined is not there");
	ok(strstr(text, "carzerod_stage_seconds_bucket{stage=\"infer\",le=\"0.025\"} 0\n") != NULL &&
		   strstr(text, "carzerod_stage_seconds_bucket{stage=\"infer\",le=\"0.05\"} 1\n") != NULL &&
		   strstr(text, "carzerod_stage_seconds_bucket{stage=\"infer\",le=\"+Inf\"} 1\n") != NULL,
	   "buckets are cumulated");
	ok(strstr(text, "carzerod_oldest_job_seconds{lane=\"normal\"} 8\n") != NULL, "ages are of now");
	ok(strstr(text, "carzerod_last_turn_seconds 5\n") != NULL, "and so is that of the figures");
	ok(strstr(text, "carzerod_not_analysed_total{reason=\"not-dicom\"} 4\n") != NULL, "reasons have names");
	free(text);
}

int main(void)
{
	test_counting();
	test_sources();
	test_page();
	test_text();
	return done();
}
