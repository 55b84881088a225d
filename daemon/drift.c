/* drift.c: see drift.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/drift.h"

/* What drift_pack() keeps: this head, the reference [findings][DRIFT_REFERENCE] as floats, then the
 * window [DRIFT_WINDOW][findings] as bins. */
struct head {
	uint32_t findings;
	uint32_t reference; /* images in it */
	uint32_t window;
	uint32_t next;	    /* place of the window that the next image takes */
};

struct source {
	char name[AE_TITLE_MAX];
	struct head head;
	float *reference;			  /* [findings][DRIFT_REFERENCE]; each row sorted once full */
	uint8_t *window;			  /* [DRIFT_WINDOW][findings] bins */
	uint32_t (*of)[DRIFT_BINS];		  /* [findings] how many of the full reference are in each bin */
	uint32_t (*in)[DRIFT_BINS];		  /* [findings] of the window */
	bool alarm, was;			  /* after the last image, and before it */
};

struct drift {
	size_t findings, n;
	struct source source[DRIFT_SOURCES_MAX];
};

struct drift *drift_new(size_t findings)
{
	struct drift *d = xcalloc(1, sizeof(*d));

	d->findings = findings; /* at most FINDINGS_MAX: 0.5 MB a source */
	return d;
}

void drift_free(struct drift *d)
{
	size_t i;

	if (d == NULL)
		return;
	for (i = 0; i < d->n; i++) {
		free(d->source[i].reference);
		free(d->source[i].window);
		free(d->source[i].of);
		free(d->source[i].in);
	}
	free(d);
}

static struct source *source_of(struct drift *d, const char *name)
{
	struct source *s;
	size_t i;

	for (i = 0; i < d->n; i++) {
		if (strcmp(d->source[i].name, name) == 0)
			return &d->source[i];
	}
	if (d->n == DRIFT_SOURCES_MAX)
		return NULL;
	s = &d->source[d->n++];
	(void)str_copy(s->name, sizeof(s->name), name);
	s->head.findings = (uint32_t)d->findings;
	s->reference = xcalloc(d->findings * DRIFT_REFERENCE, sizeof(*s->reference));
	s->window = xcalloc(d->findings * DRIFT_WINDOW, 1);
	s->of = xcalloc(d->findings, sizeof(*s->of));
	s->in = xcalloc(d->findings, sizeof(*s->in));
	return s;
}

static int by_value(const void *pa, const void *pb)
{
	const float *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

/* Bins are between the reference's tenths; equal values fall to one side together. */
static uint8_t bin_of(const float *sorted, float x)
{
	uint8_t bin = 0;

	while (bin + 1 < DRIFT_BINS && x >= sorted[(size_t)(bin + 1) * DRIFT_REFERENCE / DRIFT_BINS])
		bin++;
	return bin;
}

/* The shares of the full reference are counted, not taken for a tenth: equal logits may fill a bin. */
static void count_reference(const struct drift *d, struct source *s)
{
	size_t f, i;

	for (f = 0; f < d->findings; f++) {
		float *x = s->reference + f * DRIFT_REFERENCE;

		qsort(x, DRIFT_REFERENCE, sizeof(*x), by_value);
		for (i = 0; i < DRIFT_REFERENCE; i++)
			s->of[f][bin_of(x, x[i])]++;
	}
}

static void take_reference(const struct drift *d, struct source *s, const float *logits)
{
	size_t f;

	for (f = 0; f < d->findings; f++)
		s->reference[f * DRIFT_REFERENCE + s->head.reference] = logits[f];
	if (++s->head.reference == DRIFT_REFERENCE)
		count_reference(d, s);
}

static void take_window(const struct drift *d, struct source *s, const float *logits)
{
	uint8_t *place = s->window + s->head.next * d->findings;
	size_t f;

	for (f = 0; f < d->findings; f++) {
		if (s->head.window == DRIFT_WINDOW)
			s->in[f][place[f]]--;
		place[f] = bin_of(s->reference + f * DRIFT_REFERENCE, logits[f]);
		s->in[f][place[f]]++;
	}
	s->head.next = (s->head.next + 1) % DRIFT_WINDOW;
	if (s->head.window < DRIFT_WINDOW)
		s->head.window++;
}

static double psi(const struct source *s, size_t finding)
{
	double sum = 0;
	size_t i;

	if (s->head.reference < DRIFT_REFERENCE || s->head.window < DRIFT_WINDOW)
		return (double)NAN;
	for (i = 0; i < DRIFT_BINS; i++) {
		double q = (s->of[finding][i] + 0.5) / (DRIFT_REFERENCE + 0.5 * DRIFT_BINS);
		double p = (s->in[finding][i] + 0.5) / (DRIFT_WINDOW + 0.5 * DRIFT_BINS);

		sum += (p - q) * log(p / q);
	}
	return sum;
}

static double most(const struct drift *d, const struct source *s, size_t *ret_finding)
{
	double highest = 0;
	size_t f;

	*ret_finding = 0;
	for (f = 0; f < d->findings; f++) {
		double x = psi(s, f);

		if (x > highest) { /* false of NAN */
			highest = x;
			*ret_finding = f;
		}
	}
	return highest;
}

int drift_add(struct drift *d, const char *source, const float *logits)
{
	struct source *s = source_of(d, source);
	double highest;
	size_t finding;

	if (s == NULL)
		return -1;
	if (s->head.reference < DRIFT_REFERENCE)
		take_reference(d, s, logits);
	else
		take_window(d, s, logits);
	highest = most(d, s, &finding);
	s->was = s->alarm;
	s->alarm = highest >= (s->alarm ? DRIFT_CALM : DRIFT_ALARM);
	return (int)(s - d->source);
}

size_t drift_sources(const struct drift *d)
{
	return d->n;
}

const char *drift_name(const struct drift *d, size_t source)
{
	return d->source[source].name;
}

void drift_filled(const struct drift *d, size_t source, size_t *ret_reference, size_t *ret_window)
{
	*ret_reference = d->source[source].head.reference;
	*ret_window = d->source[source].head.window;
}

double drift_psi(const struct drift *d, size_t source, size_t finding)
{
	return psi(&d->source[source], finding);
}

bool drift_alarm(struct drift *d, size_t source, bool *ret_changed, size_t *ret_finding)
{
	const struct source *s = &d->source[source];

	(void)most(d, s, ret_finding);
	*ret_changed = s->alarm != s->was;
	return s->alarm;
}

size_t drift_pack(const struct drift *d, size_t source, void **ret)
{
	const struct source *s = &d->source[source];
	size_t n_reference = d->findings * DRIFT_REFERENCE * sizeof(float), n_window = d->findings * DRIFT_WINDOW;
	uint8_t *p = xcalloc(1, sizeof(s->head) + n_reference + n_window);

	memcpy(p, &s->head, sizeof(s->head));
	memcpy(p + sizeof(s->head), s->reference, n_reference);
	memcpy(p + sizeof(s->head) + n_reference, s->window, n_window);
	*ret = p;
	return sizeof(s->head) + n_reference + n_window;
}

/* What the file says is believed only as far as no index can leave its array. */
int drift_unpack(struct drift *d, const char *source, const void *bytes, size_t n)
{
	size_t n_reference = d->findings * DRIFT_REFERENCE * sizeof(float), n_window = d->findings * DRIFT_WINDOW;
	const uint8_t *p = bytes;
	struct head head;
	struct source *s;
	size_t i;

	if (n != sizeof(head) + n_reference + n_window)
		return -EBADMSG;
	memcpy(&head, p, sizeof(head));
	if (head.findings != d->findings || head.reference > DRIFT_REFERENCE || head.window > DRIFT_WINDOW ||
	    head.next >= DRIFT_WINDOW || (head.window > 0 && head.reference < DRIFT_REFERENCE))
		return -EBADMSG;
	for (i = 0; i < n_window; i++)
		if (p[sizeof(head) + n_reference + i] >= DRIFT_BINS)
			return -EBADMSG;
	s = source_of(d, source);
	if (s == NULL)
		return -ENOSPC;
	s->head = head;
	memcpy(s->reference, p + sizeof(head), n_reference);
	memcpy(s->window, p + sizeof(head) + n_reference, n_window);
	memset(s->of, 0, d->findings * sizeof(*s->of));
	memset(s->in, 0, d->findings * sizeof(*s->in));
	if (head.reference == DRIFT_REFERENCE)
		count_reference(d, s);
	for (i = 0; i < head.window * d->findings; i++)
		s->in[i % d->findings][s->window[i]]++;
	return 0;
}
