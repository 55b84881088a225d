/* maps.c: see maps.h. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>

#include "daemon/findings.h"
#include "daemon/maps.h"

/* Among findings of one decision. */
static bool stronger(const struct score *a, const struct score *b)
{
	return a->decision == DECISION_NONE ? a->logit > b->logit : a->probability > b->probability;
}

/* The strongest of this decision after the `found` ones in ret; the earlier in the list wins a draw. */
static size_t next_strongest(const struct score *scores, size_t n, enum decision decision, const size_t *ret,
			     size_t found)
{
	size_t best = n, i, j;

	for (i = 0; i < n; i++) {
		for (j = 0; j < found && ret[j] != i; j++)
			continue;
		if (j == found && scores[i].decision == decision && (best == n || stronger(&scores[i], &scores[best])))
			best = i;
	}
	return best;
}

size_t maps_choose(const struct score *scores, size_t n, size_t ret[MAPS_MAX])
{
	size_t found = 0, place;

	while (found < MAPS_MAX && (place = next_strongest(scores, n, DECISION_PRESENT, ret, found)) < n)
		ret[found++] = place;
	if (found == 0 && (place = next_strongest(scores, n, DECISION_UNDETERMINED, ret, 0)) < n)
		ret[found++] = place;
	if (found == 0 && (place = next_strongest(scores, n, DECISION_NONE, ret, 0)) < n)
		ret[found++] = place;
	return found;
}

int maps_shade(const float *map, size_t n, struct score_map *ret)
{
	double largest = 0;
	size_t i;

	if (n > STORE_MAP_BYTES_MAX)
		return -E2BIG;
	for (i = 0; i < n; i++) {
		if (!isfinite(map[i]) || map[i] < 0)
			return -ERANGE;
		if ((double)map[i] > largest)
			largest = (double)map[i];
	}
	if (largest <= 0)
		return -ERANGE;
	for (i = 0; i < n; i++)
		ret->shade[i] = (uint8_t)((double)map[i] / largest * 255 + 0.5);
	ret->n = n;
	return 0;
}
