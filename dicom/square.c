/* square.c: see square.h.
 *
 * Job: one-dimensional area averaging, down columns or along rows.
 * Promise: with n values shrunk to m, output i is the mean of the input from i*n/m to (i+1)*n/m,
 * exactly, rounded once; so no value leaves the range of the values that it was made of.
 * Never: enlarges, and never touches a float once the size is known.
 */
#include <math.h>

#include "dicom/square.h"

struct square square_of(size_t width, size_t height, double vertical, double horizontal)
{
	struct square s = { width, height, width, height };

	if (vertical > horizontal)
		s.width = (size_t)floor((double)width * (horizontal / vertical) + 0.5);
	else
		s.height = (size_t)floor((double)height * (vertical / horizontal) + 0.5);
	return s;
}

/* Half up, for negative sums too. */
static int32_t mean(int64_t sum, int64_t n)
{
	int64_t doubled = 2 * sum + n, q = doubled / (2 * n);

	return (int32_t)(doubled % (2 * n) < 0 ? q - 1 : q);
}

/* n values, each `step` after the other, to m.  In units of 1/m of an input and 1/n of an output both
 * lines are n*m long: input j covers j*m..(j+1)*m, output i covers i*n..(i+1)*n. */
static void shrink_line(const int32_t *from, size_t n, int32_t *ret, size_t m, size_t from_step, size_t ret_step)
{
	size_t j = 0, used = 0; /* of input j */

	for (size_t i = 0; i < m; i++) {
		int64_t sum = 0;
		size_t need = n;

		while (need > 0) {
			size_t part = m - used < need ? m - used : need;

			sum += (int64_t)from[j * from_step] * (int64_t)part;
			need -= part;
			used += part;
			if (used == m) {
				used = 0;
				j++;
			}
		}
		ret[i * ret_step] = mean(sum, (int64_t)n);
	}
}

void square_average(const struct square *s, const int32_t *from, int32_t *ret)
{
	if (s->width < s->from_width)
		for (size_t y = 0; y < s->height; y++)
			shrink_line(from + y * s->from_width, s->from_width, ret + y * s->width, s->width, 1, 1);
	else
		for (size_t x = 0; x < s->width; x++)
			shrink_line(from + x, s->from_height, ret + x, s->height, s->width, s->width);
}
