/* metrics.c: see metrics.h. */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"

#include "model/metrics.h"

struct scored {
	float score;
	uint8_t positive;
};

static int by_score(const void *pa, const void *pb)
{
	const struct scored *a = pa, *b = pb;

	return (a->score > b->score) - (a->score < b->score);
}

/* Mann and Whitney: the sum of the positives' ranks, each tie having the mean rank of its group. */
int metrics_auc(const float *score, const uint8_t *positive, size_t n, double *ret)
{
	CLEANUP(free) struct scored *s = NULL;
	double ranks = 0, positives = 0, negatives;
	size_t i, j, k;

	s = calloc(n > 0 ? n : 1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	for (i = 0; i < n; i++)
		s[i] = (struct scored){ score[i], positive[i] };
	qsort(s, n, sizeof(*s), by_score);
	for (i = 0; i < n; i = j) {
		size_t in_group = 0;

		for (j = i; j < n && s[j].score == s[i].score; j++)
			continue;
		for (k = i; k < j; k++)
			in_group += s[k].positive;
		positives += (double)in_group;
		ranks += (double)in_group * ((double)(i + 1) + (double)j) / 2;
	}
	negatives = (double)n - positives;
	if (positives <= 0 || negatives <= 0)
		return -EDOM;
	*ret = (ranks - positives * (positives + 1) / 2) / (positives * negatives);
	return 0;
}

double metrics_brier(const double *probability, const uint8_t *positive, size_t n)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += (probability[i] - positive[i]) * (probability[i] - positive[i]);
	return sum / (double)n;
}
