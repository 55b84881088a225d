/* square.c: what the letterboxed square costs as films grow, in ./run bench curves: for 1 to 16 megapixels the
 * CPU milliseconds of preprocess_letterbox(), and of reading the same film once (the sum of its bytes), each the least of some
 * repeats.  A film of each size that is a whole multiple of 256, and one that is not.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

#include "model/preprocess.h"

#define REPEATS 9
#define SIDE 256

static volatile uint64_t sink; /* keeps the reading from being optimised away */

static double cpu(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_once(const uint8_t *p, size_t n)
{
	uint64_t sum = 0, word;

	for (size_t i = 0; i + sizeof(word) <= n; i += sizeof(word)) {
		memcpy(&word, p + i, sizeof(word));
		sum += word;
	}
	sink = sum;
}

int main(void)
{
	static const struct {
		size_t width, height;
	} films[] = { { 1024, 1024 }, { 1000, 1050 }, { 2048, 2048 }, { 2022, 2022 }, { 2500, 3056 }, { 4096, 4096 }, { 4080, 4112 } };
	uint8_t square[SIDE * SIDE];

	for (size_t i = 0; i < ARRAY_SIZE(films); i++) {
		size_t n = films[i].width * films[i].height;
		CLEANUP(free) uint8_t *film = xcalloc(n, 1);
		double least = 1e9, reading = 1e9;
		struct letterbox box;

		for (size_t k = 0; k < n; k++)
			film[k] = (uint8_t)((uint32_t)k * 2654435761u >> 24);
		for (int r = 0; r < REPEATS; r++) {
			double start = cpu(), between;

			if (preprocess_letterbox(film, films[i].width, films[i].height, SIDE, square, &box) < 0)
				return 1;
			between = cpu();
			read_once(film, n);
			least = between - start < least ? between - start : least;
			reading = cpu() - between < reading ? cpu() - between : reading;
		}
		printf("%zux%zu %.2f %.2f\n", films[i].width, films[i].height, 1e3 * least, 1e3 * reading);
	}
	return 0;
}
