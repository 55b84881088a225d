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

struct indexed {
	float score;
	uint32_t index;
};

static int by_falling_score(const void *pa, const void *pb)
{
	const struct indexed *a = pa, *b = pb;

	return (a->score < b->score) - (a->score > b->score);
}

int metrics_order(const float *score, size_t n, uint32_t **ret)
{
	CLEANUP(free) struct indexed *s = calloc(n > 0 ? n : 1, sizeof(*s));
	uint32_t *order = calloc(n > 0 ? n : 1, sizeof(*order));
	size_t i;

	if (s == NULL || order == NULL) {
		free(order);
		return -ENOMEM;
	}
	for (i = 0; i < n; i++)
		s[i] = (struct indexed){ score[i], (uint32_t)i };
	qsort(s, n, sizeof(*s), by_falling_score);
	for (i = 0; i < n; i++)
		order[i] = s[i].index;
	*ret = order;
	return 0;
}

/* From the highest score down, a group of equal scores at a time. */
int metrics_measure(const float *score, const uint32_t *order, const uint8_t *positive, const uint32_t *weight,
		    size_t n, struct measures *ret)
{
	double hits = 0, alarms = 0, above = 0, precision = 0;
	size_t i, j;

	for (i = 0; i < n; i = j) {
		double more[2] = { 0, 0 }; /* negatives, positives of the group */

		for (j = i; j < n && score[order[j]] == score[order[i]]; j++)
			more[positive[order[j]]] += weight != NULL ? weight[order[j]] : 1;
		above += more[0] * (hits + more[1] / 2);
		hits += more[1];
		alarms += more[0];
		if (more[1] > 0)
			precision += more[1] * hits / (hits + alarms);
	}
	if (hits <= 0 || alarms <= 0)
		return -EDOM;
	*ret = (struct measures){ above / (hits * alarms), precision / hits };
	return 0;
}

/* As above.  Cases that count nothing set no threshold. */
int metrics_threshold(const float *score, const uint32_t *order, const uint8_t *positive, const uint32_t *weight,
		      size_t n, double wanted, int by_alarm, struct threshold *ret)
{
	double all[2] = { 0, 0 }, called[2] = { 0, 0 };
	struct threshold best;
	size_t i, j;
	int found = 0;

	for (i = 0; i < n; i++)
		all[positive[i]] += weight != NULL ? weight[i] : 1;
	if (all[0] <= 0 || all[1] <= 0)
		return -EDOM;
	for (i = 0; i < n; i = j) {
		double before = called[0] + called[1], now, rate;

		for (j = i; j < n && score[order[j]] == score[order[i]]; j++)
			called[positive[order[j]]] += weight != NULL ? weight[order[j]] : 1;
		now = called[0] + called[1];
		rate = now / (all[0] + all[1]);
		if (by_alarm && rate > wanted)
			break;
		if (now <= before)
			continue;
		best = (struct threshold){ (double)score[order[i]], called[1] / all[1], called[1] / now, rate };
		found = 1;
		if (!by_alarm && best.sensitivity >= wanted)
			break;
	}
	if (!found)
		return -EDOM;
	*ret = best;
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
