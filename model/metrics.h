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

/* Mean squared distance of the probability from what was the case; n > 0. */
double metrics_brier(const double *probability, const uint8_t *positive, size_t n);

#endif
