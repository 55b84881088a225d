/* grey.c: see grey.h.
 *
 * Job: one table of 2^bits grey levels, then one lookup a pixel.
 * Promise: for every stored value the formula of PS3.3 C.11.2 in double, rounded half up; the same
 * image gives the same bytes on every machine.
 * Never: looks at anything but the values: what the attributes mean is image.cc's part.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

#include "dicom/grey.h"

/* Percentile window, as a share of the pixels that are not padding (results differ by recipe, so
 * these numbers are part of it). */
#define PERCENTILE_LOW 0.005
#define PERCENTILE_HIGH 0.995

static int32_t lowest(const struct grey *g)
{
	return g->is_signed ? -(INT32_C(1) << (g->bits - 1)) : 0;
}

static double lut_value(const struct grey_lut *lut, double x)
{
	double i = floor(x + 0.5) - (double)lut->first;

	if (!(i > 0))
		i = 0;
	else if (i > (double)(lut->n - 1))
		i = (double)(lut->n - 1);
	return lut->data[(size_t)i];
}

/* PS3.3 C.11.1 */
static double modality_value(const struct grey *g, int32_t stored)
{
	if (g->modality.n > 0)
		return lut_value(&g->modality, stored);
	return stored * g->slope + g->intercept;
}

/* PS3.3 C.11.2.1.2 and C.11.2.1.3, onto 0..1 */
static double window_value(enum grey_function function, double center, double width, double x)
{
	double low, high;

	switch (function) {
	case GREY_SIGMOID:
		return 1 / (1 + exp(-4 * (x - center) / width));
	case GREY_LINEAR_EXACT:
		low = center - width / 2;
		high = center + width / 2;
		return x <= low ? 0 : x > high ? 1 : (x - center) / width + 0.5;
	case GREY_LINEAR:
		break;
	}
	low = center - 0.5 - (width - 1) / 2;
	high = center - 0.5 + (width - 1) / 2;
	return x <= low ? 0 : x > high ? 1 : (x - (center - 0.5)) / (width - 1) + 0.5;
}

static uint8_t to_level(double share, bool invert)
{
	if (!(share > 0))
		share = 0;
	else if (share > 1)
		share = 1;
	if (invert)
		share = 1 - share;
	return (uint8_t)floor(share * 255 + 0.5);
}

static bool window_possible(const struct grey *g)
{
	/* A width of 1 is a threshold in LINEAR; less than that has no meaning there. */
	double least = g->function == GREY_LINEAR ? 1 : 0;

	return g->has_window && isfinite(g->center) && isfinite(g->width) && g->width >= least && g->width > 0;
}

static bool is_padding(const struct grey *g, int32_t stored)
{
	return g->has_padding && stored >= g->padding_low && stored <= g->padding_high;
}

static void table_by_attributes(const struct grey *g, size_t n, uint8_t *table)
{
	double full = (double)((UINT32_C(1) << g->voi.bits) - 1);

	for (size_t i = 0; i < n; i++) {
		double x = modality_value(g, lowest(g) + (int32_t)i);
		double share = g->voi.n > 0 ? lut_value(&g->voi, x) / full :
					      window_value(g->function, g->center, g->width, x);

		table[i] = to_level(share, g->invert);
	}
}

struct share { /* of the pixels with one modality value */
	double value;
	uint64_t count;
};

static int share_compare(const void *a, const void *b)
{
	const struct share *x = a, *y = b;

	return (x->value > y->value) - (x->value < y->value);
}

/* Smallest value that at least this share of all pixels does not exceed. */
static double percentile(const struct share *shares, size_t n, uint64_t total, double part)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < n; i++) {
		seen += shares[i].count;
		if ((double)seen >= part * (double)total)
			return shares[i].value;
	}
	return shares[n - 1].value;
}

static void table_by_percentile(const struct grey *g, const uint32_t *count, size_t n, uint8_t *table)
{
	struct share *shares = xcalloc(n, sizeof(*shares));
	double low, high;
	uint64_t total = 0;
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		if (count[i] == 0)
			continue;
		shares[used++] = (struct share){ modality_value(g, lowest(g) + (int32_t)i), count[i] };
		total += count[i];
	}
	qsort(shares, used, sizeof(*shares), share_compare);
	low = percentile(shares, used, total, PERCENTILE_LOW);
	high = percentile(shares, used, total, PERCENTILE_HIGH);
	if (!(low < high)) { /* nearly all of one level: what little there is shall be seen */
		low = shares[0].value;
		high = shares[used - 1].value;
	}
	for (size_t i = 0; i < n; i++)
		table[i] = to_level((modality_value(g, lowest(g) + (int32_t)i) - low) / (high - low), g->invert);
	free(shares);
}

static bool one_level(const uint32_t *count, const uint8_t *table, size_t n)
{
	int level = -1;

	for (size_t i = 0; i < n; i++) {
		if (count[i] == 0)
			continue;
		if (level >= 0 && level != table[i])
			return false;
		level = table[i];
	}
	return true;
}

int grey_render(const struct grey *g, const int32_t *stored, size_t n, uint8_t *ret, enum grey_how *ret_how)
{
	size_t levels = (size_t)1 << g->bits;
	CLEANUP(free) uint32_t *count = xcalloc(levels, sizeof(*count));
	CLEANUP(free) uint8_t *table = xcalloc(levels, 1);
	enum grey_how how = GREY_BY_PERCENTILE;
	size_t used = 0;

	for (size_t i = 0; i < n; i++)
		if (!is_padding(g, stored[i]))
			count[stored[i] - lowest(g)]++;
	for (size_t i = 0; i < levels; i++)
		used += count[i] > 0;
	if (used < 2)
		return -ENODATA;
	if (g->voi.n > 0 || window_possible(g)) {
		how = g->voi.n > 0 ? GREY_BY_LUT : GREY_BY_WINDOW;
		table_by_attributes(g, levels, table);
	}
	if (how == GREY_BY_PERCENTILE || one_level(count, table, levels)) {
		how = GREY_BY_PERCENTILE;
		table_by_percentile(g, count, levels, table);
		if (one_level(count, table, levels)) /* a Modality LUT that maps all to one */
			return -ENODATA;
	}
	if (g->has_padding)
		for (size_t i = 0; i < levels; i++)
			if (is_padding(g, lowest(g) + (int32_t)i))
				table[i] = 0;
	for (size_t i = 0; i < n; i++)
		ret[i] = table[stored[i] - lowest(g)];
	*ret_how = how;
	return 0;
}
