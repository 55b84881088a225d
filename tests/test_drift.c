/* test_drift.c: an unchanged stream stays calm, a changed one is noticed, state survives packing.
 *
 * With CARZEROD_SHARED set also on logits that the published weights gave to 22,433 real films: in an order
 * by chance they are one population; patients with effusions alone are another.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/mem.h"

#include "daemon/drift.h"
#include "tests/tap.h"

#define FINDINGS 14
#define STREAM 2000

static uint64_t state = 11;

static double chance(void) /* 0 to 1; SplitMix64 */
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

static double normal(void)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += chance();
	return sum - 6;
}

/* One image whose finding `moved` is shifted by so many deviations. */
static int feed(struct drift *d, const char *source, size_t moved, double shift)
{
	float logits[FINDINGS];

	for (size_t f = 0; f < FINDINGS; f++)
		logits[f] = (float)(normal() + (f == moved ? shift : 0));
	return drift_add(d, source, logits);
}

static void test_calm_and_change(void)
{
	struct drift *d = drift_new(FINDINGS);
	size_t reference, window, finding, alarms = 0, took = 0;
	bool changed, defined = false;
	double highest = 0;

	for (int i = 0; i < DRIFT_REFERENCE + DRIFT_WINDOW - 1; i++)
		defined |= feed(d, "CALM", 0, 0) != 0 || !isnan(drift_psi(d, 0, 3));
	ok(!defined, "no figure before both are full");
	for (int i = 0; i < STREAM; i++) {
		(void)feed(d, "CALM", 0, 0);
		alarms += drift_alarm(d, 0, &changed, &finding);
		for (size_t f = 0; f < FINDINGS; f++)
			highest = fmax(highest, drift_psi(d, 0, f));
	}
	is_int((long long)alarms, 0, "no alarm in %d images of one population", STREAM);
	printf("# highest PSI of %d findings x %d images: %.3f\n", FINDINGS, STREAM, highest);
	ok(highest > 0.02 && highest < DRIFT_ALARM, "though PSI is never quite 0");
	drift_filled(d, 0, &reference, &window);
	is_int((long long)(reference + window), DRIFT_REFERENCE + DRIFT_WINDOW, "both are full");

	/* other processing: one finding's scores move by a deviation */
	for (took = 0; took < 2 * DRIFT_WINDOW; took++) {
		(void)feed(d, "CALM", 5, 1);
		if (drift_alarm(d, 0, &changed, &finding))
			break;
	}
	ok(took < DRIFT_WINDOW, "a shift of one deviation is noticed after %zu images", took + 1);
	ok(changed && finding == 5, "told once, with the finding that moved");
	(void)feed(d, "CALM", 5, 1);
	ok(drift_alarm(d, 0, &changed, &finding) && !changed, "and not again");
	for (took = 0; took < 2 * DRIFT_WINDOW; took++) {
		(void)feed(d, "CALM", 0, 0);
		if (!drift_alarm(d, 0, &changed, &finding))
			break;
	}
	ok(took < 2 * DRIFT_WINDOW && changed, "it ends when the scores are back, after %zu images", took + 1);
	is_int((long long)drift_sources(d), 1, "one source");
	is_str(drift_name(d, 0), "CALM", "by its name");
	drift_free(d);
}

/* A model that gives few different logits must not raise an alarm. */
static void test_ties(void)
{
	struct drift *d = drift_new(1);
	size_t finding, alarms = 0;
	bool changed;

	for (int i = 0; i < STREAM + DRIFT_REFERENCE; i++) {
		float logit = chance() < 0.7 ? 0.0f : 1.0f;

		(void)drift_add(d, "TIES", &logit);
		alarms += drift_alarm(d, 0, &changed, &finding);
	}
	is_int((long long)alarms, 0, "two values only: calm; PSI %.3f", drift_psi(d, 0, 0));
	for (int i = 0; i < DRIFT_WINDOW; i++)
		(void)drift_add(d, "TIES", &(float){ 1.0f });
	ok(drift_alarm(d, 0, &changed, &finding), "one of them alone: alarm; PSI %.3f", drift_psi(d, 0, 0));
	drift_free(d);
}

static void test_pack(void)
{
	struct drift *a = drift_new(FINDINGS), *b = drift_new(FINDINGS), *other = drift_new(FINDINGS - 1);
	void *bytes;
	size_t n, finding;
	bool same = true, changed;

	for (int i = 0; i < DRIFT_REFERENCE + DRIFT_WINDOW + 123; i++)
		(void)feed(a, "CR1", 2, i / 700.0);
	n = drift_pack(a, 0, &bytes);
	is_int(drift_unpack(b, "CR1", bytes, n), 0, "unpack");
	for (size_t f = 0; f < FINDINGS; f++)
		same &= drift_psi(a, 0, f) == drift_psi(b, 0, f);
	ok(same, "the same figures, to the bit");
	for (int i = 0; i < 700; i++) {
		state = (uint64_t)i;
		(void)feed(a, "CR1", 2, 1);
		state = (uint64_t)i;
		(void)feed(b, "CR1", 2, 1);
	}
	for (size_t f = 0; f < FINDINGS; f++)
		same &= drift_psi(a, 0, f) == drift_psi(b, 0, f);
	ok(same && drift_alarm(a, 0, &changed, &finding) == drift_alarm(b, 0, &changed, &finding),
	   "and the same after 700 more");
	is_int(drift_unpack(other, "CR1", bytes, n), -EBADMSG, "not of this findings list");
	is_int(drift_unpack(b, "CR2", bytes, n - 1), -EBADMSG, "cut");
	((uint8_t *)bytes)[n - 1] = DRIFT_BINS;
	is_int(drift_unpack(b, "CR2", bytes, n), -EBADMSG, "a bin that is none");
	((uint8_t *)bytes)[n - 1] = 0;
	((uint8_t *)bytes)[12] = 0xff, ((uint8_t *)bytes)[13] = 0xff;
	is_int(drift_unpack(b, "CR2", bytes, n), -EBADMSG, "a place outside the window");
	free(bytes);

	for (int i = 0; i < DRIFT_SOURCES_MAX + 2; i++) {
		char name[AE_TITLE_MAX];

		(void)snprintf(name, sizeof(name), "S%d", i);
		if (i >= DRIFT_SOURCES_MAX - 1) /* CR1 is one of them */
			is_int(feed(b, name, 0, 0), -1, "source %d is not watched", i);
		else
			(void)feed(b, name, 0, 0);
	}
	is_int((long long)drift_sources(b), DRIFT_SOURCES_MAX, "sources have a limit");
	drift_free(a);
	drift_free(b);
	drift_free(other);
}

#define ROWS 22433

static size_t read_real(float (*ret)[FINDINGS])
{
	char path[4096], line[2048];
	size_t n = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/model/real/logits-chestxray14.csv",
		       getenv("CARZEROD_SHARED") != NULL ? getenv("CARZEROD_SHARED") : "/nonexistent");
	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	if (fgets(line, sizeof(line), f) == NULL)
		line[0] = '\0'; /* the header */
	while (n < ROWS && fgets(line, sizeof(line), f) != NULL) {
		char *p = line;

		for (size_t i = 0; i < FINDINGS; i++) {
			ret[n][i] = strtof(p, &p);
			p += *p == ',';
		}
		n++;
	}
	(void)fclose(f);
	return n;
}

/* Real logits, drawn by chance from the first `from` rows of an order. */
static size_t alarms_of(struct drift *d, float (*x)[FINDINGS], size_t from, int images)
{
	size_t alarms = 0, finding;
	bool changed;

	for (int i = 0; i < images; i++) {
		int s = drift_add(d, "REAL", x[(size_t)(chance() * (double)from)]);

		alarms += drift_alarm(d, (size_t)s, &changed, &finding) && changed;
	}
	return alarms;
}

static int by_effusion(const void *pa, const void *pb) /* ChestXray14's third finding, highest first */
{
	const float *a = pa, *b = pb;

	return (a[2] < b[2]) - (a[2] > b[2]);
}

static void test_real(void)
{
	float(*x)[FINDINGS] = xcalloc(ROWS, sizeof(*x));
	size_t n = read_real(x);
	struct drift *d;

	if (n == 0) {
		skip("CARZEROD_SHARED has no logits of real films");
		free(x);
		return;
	}
	d = drift_new(FINDINGS);
	is_int((long long)alarms_of(d, x, n, DRIFT_REFERENCE + DRIFT_WINDOW + STREAM), 0,
	       "%d real films by chance: no alarm", STREAM);
	qsort(x, n, sizeof(*x), by_effusion);
	is_int((long long)alarms_of(d, x, n / 2, DRIFT_WINDOW), 1, "only films of the upper half by effusion: one alarm");
	drift_free(d);
	free(x);
}

int main(void)
{
	test_calm_and_change();
	test_ties();
	test_pack();
	test_real();
	return done();
}
