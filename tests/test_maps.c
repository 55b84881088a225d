/* test_maps.c: which attention maps are kept, and as what. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/findings.h"
#include "daemon/maps.h"

#include "tests/tap.h"

static const struct score p90 = { .probability = 0.9f, .decision = DECISION_PRESENT };
static const struct score p80 = { .probability = 0.8f, .decision = DECISION_PRESENT };
static const struct score p70 = { .probability = 0.7f, .decision = DECISION_PRESENT };
static const struct score u30 = { .probability = 0.3f, .decision = DECISION_UNDETERMINED };
static const struct score u95 = { .probability = 0.95f, .decision = DECISION_UNDETERMINED };
static const struct score a02 = { .probability = 0.02f, .logit = 9, .decision = DECISION_ABSENT };
static const struct score r1 = { .probability = NAN, .logit = 1, .decision = DECISION_NONE };
static const struct score r2 = { .probability = NAN, .logit = -2, .decision = DECISION_NONE };

static void test_choose(void)
{
	const struct {
		const char *what;
		struct score list[5];
		size_t n, want_n, want[MAPS_MAX];
	} cases[] = {
		{ "nothing scored", { p90 }, 0, 0, { 0 } },
		{ "present ones, most probable first", { p70, a02, p90, u95, p80 }, 5, 3, { 2, 4, 0 } },
		{ "an undetermined one is not among them, however probable", { u95, p70 }, 2, 1, { 1 } },
		{ "at most three", { p70, p70, p90, p80, p90 }, 5, 3, { 2, 4, 3 } },
		{ "none present: the most probable undetermined", { a02, u30, u95, r1 }, 4, 1, { 2 } },
		{ "nothing calibrated: the highest raw score", { r2, r1, r2 }, 3, 1, { 1 } },
		{ "the first of a draw", { r2, r2 }, 2, 1, { 0 } },
		{ "absent is never shown", { a02, a02 }, 2, 0, { 0 } },
		{ "absent is never shown, raw beside it is", { a02, r2 }, 2, 1, { 1 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t got[MAPS_MAX] = { 0 };
		size_t n = maps_choose(cases[i].list, cases[i].n, got);

		ok(n == cases[i].want_n && memcmp(got, cases[i].want, n * sizeof(got[0])) == 0, "%s", cases[i].what);
	}
}

static void test_shade(void)
{
	float map[STORE_MAP_BYTES_MAX + 1] = { 0.01f, 0.02f, 0, 0.005f };
	struct score_map got;

	is_int(maps_shade(map, 4, &got), 0, "four shares");
	ok(got.n == 4 && got.shade[0] == 128 && got.shade[1] == 255 && got.shade[2] == 0 && got.shade[3] == 64,
	   "relative to the largest");
	is_int(maps_shade(map, STORE_MAP_BYTES_MAX, &got), 0, "the largest map");
	is_int(maps_shade(map, STORE_MAP_BYTES_MAX + 1, &got), -E2BIG, "a larger one");
	map[3] = -0.1f;
	is_int(maps_shade(map, 4, &got), -ERANGE, "a negative share");
	map[3] = NAN;
	is_int(maps_shade(map, 4, &got), -ERANGE, "no number");
	map[3] = INFINITY;
	is_int(maps_shade(map, 4, &got), -ERANGE, "infinite");
	memset(map, 0, sizeof(map));
	is_int(maps_shade(map, 4, &got), -ERANGE, "no attention at all");
}

int main(void)
{
	test_choose();
	test_shade();
	return done();
}
