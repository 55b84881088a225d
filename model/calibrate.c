/* calibrate.c: see calibrate.h. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "model/calibrate.h"

#define STEPS_MAX 200
#define HALVINGS_MAX 40
#define SLOPE_MAX 1e4	 /* beyond it the fit is running away */
#define GRADIENT_DONE 1e-9 /* per case */

struct sums { /* of the negative log-likelihood: value, gradient, second derivatives */
	double value, ga, gb, haa, hab, hbb;
};

double calibrate_probability(const struct platt *p, double logit)
{
	return 1 / (1 + exp(-(p->a * logit + p->b)));
}

static struct sums sum_up(const float *logit, const uint8_t *positive, size_t n, double l2,
			  const struct platt *p)
{
	struct sums s = { .value = l2 * p->a * p->a / 2, .ga = l2 * p->a, .haa = l2 };
	size_t i;

	for (i = 0; i < n; i++) {
		double x = logit[i], z = p->a * x + p->b, q = calibrate_probability(p, x),
		       w = q * (1 - q);

		/* -log of the probability of what was the case, without overflow */
		s.value += fmax(z, 0) - (positive[i] ? z : 0) + log1p(exp(-fabs(z)));
		s.ga += (q - positive[i]) * x;
		s.gb += q - positive[i];
		s.haa += w * x * x;
		s.hab += w * x;
		s.hbb += w;
	}
	return s;
}

/* With one score, likelihood has no finite maximum exactly when no negative lies above a positive, or
 * the other way round. */
static bool separable(const float *logit, const uint8_t *positive, size_t n)
{
	double low[2] = { INFINITY, INFINITY }, high[2] = { -INFINITY, -INFINITY };
	size_t i;

	for (i = 0; i < n; i++) {
		low[positive[i]] = fmin(low[positive[i]], logit[i]);
		high[positive[i]] = fmax(high[positive[i]], logit[i]);
	}
	return high[0] <= low[1] || high[1] <= low[0];
}

/* The largest part of the Newton step that does not make things worse. */
static bool step(const float *logit, const uint8_t *positive, size_t n, double l2, const struct sums *s,
		 struct platt *p)
{
	double det = s->haa * s->hbb - s->hab * s->hab, t = 1;
	double da = (s->hbb * s->ga - s->hab * s->gb) / det, db = (s->haa * s->gb - s->hab * s->ga) / det;
	int i;

	if (!(det > 0) || !isfinite(da) || !isfinite(db))
		return false;
	for (i = 0; i < HALVINGS_MAX; i++, t /= 2) {
		struct platt next = { p->a - t * da, p->b - t * db };

		if (sum_up(logit, positive, n, l2, &next).value <= s->value) {
			*p = next;
			return true;
		}
	}
	return false;
}

int calibrate_platt(const float *logit, const uint8_t *positive, size_t n, double l2, struct platt *ret)
{
	struct platt p = { 0, 0 };
	size_t positives = 0, i;
	int steps;

	for (i = 0; i < n; i++)
		positives += positive[i];
	if (positives == 0 || positives == n)
		return -EDOM;
	if (l2 <= 0 && separable(logit, positive, n))
		return -ERANGE;
	p.b = log((double)positives / (double)(n - positives));
	for (steps = 0; steps < STEPS_MAX; steps++) {
		struct sums s = sum_up(logit, positive, n, l2, &p);

		if (fabs(s.ga) < GRADIENT_DONE * (double)n && fabs(s.gb) < GRADIENT_DONE * (double)n) {
			*ret = p;
			return 0;
		}
		if (!step(logit, positive, n, l2, &s, &p) || fabs(p.a) > SLOPE_MAX)
			return -ERANGE;
	}
	return -ERANGE;
}
