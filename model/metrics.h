/* metrics.h: how well scores tell positives from negatives.  Pure functions of arrays.
 *
 * `positive` holds 0 or 1 per case.  Scores are finite (the readers of tables see to it).
 */
#ifndef CARZEROD_MODEL_METRICS_H
#define CARZEROD_MODEL_METRICS_H

#include <stddef.h>
#include <stdint.h>

/* Area under the ROC curve: the chance that a positive scores above a negative, ties half.
 * -EDOM when one of the two kinds is missing, -ENOMEM. */
int metrics_auc(const float *score, const uint8_t *positive, size_t n, double *ret);

struct measures {
	double auc;   /* as above */
	double auprc; /* average precision: the sum of precision times what recall gains at each score */
};

/* Indices by falling score, for metrics_measure().  *ret is malloc'd, [n].  -ENOMEM. */
int metrics_order(const float *score, size_t n, uint32_t **ret);

/* Both measures of cases that count weight[i] times; NULL: once each.
 * -EDOM when one of the two kinds is missing; ret is then untouched. */
int metrics_measure(const float *score, const uint32_t *order, const uint8_t *positive, const uint32_t *weight,
		    size_t n, struct measures *ret);

struct threshold { /* a case is called positive when its score is at least `score` */
	double score, sensitivity, ppv, alarm_rate; /* alarm_rate: the share of all cases called positive */
};

/* The highest threshold with at least this sensitivity, or (by_alarm) the lowest with at most this alarm
 * rate; weight as above.  -EDOM when one of the two kinds is missing, or no score keeps to the rate. */
int metrics_threshold(const float *score, const uint32_t *order, const uint8_t *positive, const uint32_t *weight,
		      size_t n, double wanted, int by_alarm, struct threshold *ret);

/* Mean squared distance of the probability from what was the case; n > 0. */
double metrics_brier(const double *probability, const uint8_t *positive, size_t n);

#endif
