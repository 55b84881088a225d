/* calibrate.h: from logits to probabilities: p = 1 / (1 + exp(-(a * logit + b))).
 *
 * Platt's method: a and b maximise the likelihood of the labels, found by Newton's method in double
 * precision.  `l2` adds l2 * a * a / 2 to the negative log-likelihood (a sum over cases, not a mean;
 * b is free), so that few or separable cases do not drive a to infinity; 0 is plain maximum
 * likelihood.
 */
#ifndef CARZEROD_MODEL_CALIBRATE_H
#define CARZEROD_MODEL_CALIBRATE_H

#include <stddef.h>
#include <stdint.h>

struct platt {
	double a, b;
};

/* -EDOM when one kind of case is missing; -ERANGE when there is no finite maximum (the scores separate
 * the cases; use l2 > 0). */
int calibrate_platt(const float *logit, const uint8_t *positive, size_t n, double l2, struct platt *ret);

double calibrate_probability(const struct platt *p, double logit);

#endif
