/* test_preprocess.c: bytes equal to OpenCV's.
 *
 * tests/vectors/preprocess/ holds digests of what OpenCV 4.6.0 made of pictures that this file can
 * draw too (tools/reference/preprocess_vectors.py); where CARZEROD_SHARED names the folder with the
 * golden arrays, those are compared byte by byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"

#include "model/preprocess.h"
#include "tests/tap.h"

static uint32_t noise(size_t i, uint32_t seed)
{
	uint32_t h = (uint32_t)i * 2654435761u + seed;

	h ^= h >> 15;
	h *= 2246822519u;
	return h ^ h >> 13;
}

static uint8_t *picture(const char *kind, size_t w, size_t h)
{
	uint8_t *p = xcalloc(w * h, 1);
	uint32_t seed = (uint32_t)(w * 65537 + h);
	size_t i;

	for (i = 0; i < w * h; i++) {
		uint32_t r = noise(i, seed) >> 24;

		p[i] = (uint8_t)(strcmp(kind, "noise") == 0 ? r : i % w * 200 / w + i / w * 40 / h + (r >> 4));
	}
	return p;
}

static uint8_t level(const char *kind, size_t i, size_t n)
{
	uint32_t r = noise(i, (uint32_t)n);

	switch (kind[0] == 'n' && kind[1] == 'a' ? 'w' : kind[0]) {
	case 'n': return (uint8_t)(r >> 24);
	case 'f': return (uint8_t)((r >> 30) * 7 + 20);
	case 'w': return (uint8_t)((r >> 27) + 100);
	case 't': return r & 1 ? 9 : 200;
	case 'p': return (uint8_t)(r & 15 ? 3 : r >> 24);
	default: return 77;
	}
}

static int32_t stored(const char *kind, size_t i, size_t n)
{
	uint32_t r = noise(i, (uint32_t)n);

	if (strcmp(kind, "u12") == 0)
		return (int32_t)(r >> 20);
	if (strcmp(kind, "u16") == 0)
		return (int32_t)(r >> 16);
	if (strcmp(kind, "s16") == 0)
		return (int32_t)(r >> 16) - 32768;
	if (strcmp(kind, "s32") == 0)
		return (int32_t)((int64_t)r - 2147483648);
	if (strcmp(kind, "spike") == 0)
		return i == 5 ? 65535 : (int32_t)(r >> 21);
	return 500;
}

static bool digest_is(const uint8_t *p, size_t n, const char *want)
{
	uint8_t digest[DIGEST_SIZE];
	char hex[DIGEST_HEX_MAX];

	digest_of(p, n, digest);
	str_hex(hex, digest, DIGEST_SIZE);
	return strcmp(hex, want) == 0;
}

static FILE *vectors(const char *name)
{
	const char *top = getenv("srcdir");
	char path[4096];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/tests/vectors/preprocess/%s", top != NULL ? top : ".", name);
	f = fopen(path, "re");
	ok(f != NULL, "%s opens", path);
	return f;
}

static void check_letterbox(void)
{
	CLEANUP(fclose) FILE *f = vectors("letterbox.tsv");
	char kind[16], want[DIGEST_HEX_MAX];
	size_t w, h, side, n = 0, good = 0;

	while (f != NULL && fscanf(f, "%zu %zu %zu %15s %64s", &w, &h, &side, kind, want) == 5) {
		CLEANUP(free) uint8_t *p = picture(kind, w, h), *square = xcalloc(side * side, 1);
		struct letterbox box;
		int r = preprocess_letterbox(p, w, h, side, square, &box);
		bool same = r == 0 && digest_is(square, side * side, want);

		if (!same)
			printf("# differs: %zux%zu to %zu, %s, returned %d\n", w, h, side, kind, r);
		n++;
		good += same;
	}
	is_int(good, n, "letterbox: equal to OpenCV for every size");
	ok(n >= 160, "letterbox: %zu pictures", n);
}

static void check_levels(void)
{
	CLEANUP(fclose) FILE *f = vectors("equalize.tsv"), *g = vectors("mimic.tsv");
	char kind[16], want[DIGEST_HEX_MAX];
	size_t n, i;
	int m1;

	while (f != NULL && fscanf(f, "%15s %zu %64s", kind, &n, want) == 3) {
		CLEANUP(free) uint8_t *p = xcalloc(n, 1);

		for (i = 0; i < n; i++)
			p[i] = level(kind, i, n);
		preprocess_equalize(p, n);
		ok(digest_is(p, n, want), "equalize: %s, %zu pixels", kind, n);
	}
	while (g != NULL && fscanf(g, "%15s %zu %d %64s", kind, &n, &m1, want) == 4) {
		CLEANUP(free) int32_t *v = xcalloc(n, sizeof(*v));
		CLEANUP(free) uint8_t *p = xcalloc(n, 1);

		for (i = 0; i < n; i++)
			v[i] = stored(kind, i, n);
		preprocess_mimic(v, n, m1 != 0, p);
		ok(digest_is(p, n, want), "mimic: %s, %zu pixels, MONOCHROME%d", kind, n, 2 - m1);
	}
}

static void check_golden(void)
{
	static const struct { size_t h, w; } sizes[] = { { 512, 512 }, { 640, 500 }, { 400, 611 }, { 180, 200 } };
	const char *shared = getenv("CARZEROD_SHARED");
	size_t i;

	for (i = 0; shared != NULL && i < ARRAY_SIZE(sizes); i++) {
		CLEANUP(free) void *gray = NULL;
		CLEANUP(free) void *want = NULL;
		uint8_t square[256 * 256];
		struct letterbox box;
		char path[4096];
		size_t n, m;

		(void)snprintf(path, sizeof(path), "%s/model/tiny/golden_img%zu_u8.bin", shared, i);
		if (!ok(read_path(path, 1 << 20, &gray, &n, NULL) == 0 && n == sizes[i].h * sizes[i].w, "%s", path))
			continue;
		(void)snprintf(path, sizeof(path), "%s/model/tiny/golden_img%zu_box.bin", shared, i);
		if (!ok(read_path(path, 1 << 20, &want, &m, NULL) == 0 && m == sizeof(square), "%s", path))
			continue;
		is_int(preprocess_letterbox(gray, sizes[i].w, sizes[i].h, 256, square, &box), 0, "golden %zu", i);
		ok(memcmp(square, want, sizeof(square)) == 0, "golden letterbox %zu: bytes equal", i);
	}
}

static void check_geometry(void)
{
	static const struct {
		size_t w, h;
		int r;
		size_t left, top, width, height;
	} t[] = {
		{ 512, 512, 0, 0, 0, 256, 256 },     { 500, 640, 0, 28, 0, 200, 256 },
		{ 611, 400, 0, 0, 44, 256, 167 },    { 256, 1, 0, 0, 127, 256, 1 },
		{ 1, 1, 0, 0, 0, 256, 256 },         { 257, 1, -EBADMSG, 0, 0, 0, 0 },
		{ 1, 257, -EBADMSG, 0, 0, 0, 0 },    { 0, 5, -EBADMSG, 0, 0, 0, 0 },
		{ 5, 0, -EBADMSG, 0, 0, 0, 0 },      { 32769, 4, -E2BIG, 0, 0, 0, 0 },
		{ 4, SIZE_MAX, -E2BIG, 0, 0, 0, 0 },
	};
	CLEANUP(free) uint8_t *p = xcalloc(1000, 1000);
	uint8_t square[256 * 256];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(t); i++) {
		struct letterbox box = { .side = 1 };

		is_int(preprocess_letterbox(p, t[i].w, t[i].h, 256, square, &box), t[i].r, "%zux%zu", t[i].w,
		       t[i].h);
		if (t[i].r < 0) {
			is_int(box.side, 1, "  the box is untouched");
			continue;
		}
		ok(box.left == t[i].left && box.top == t[i].top && box.width == t[i].width &&
			   box.height == t[i].height,
		   "  lies at %zu,%zu %zux%zu", box.left, box.top, box.width, box.height);
	}
}

/* The field of a map over the crop in which the square is brightest. */
static size_t brightest_field(const uint8_t *square, size_t *ret_row)
{
	size_t best = 0, column = 0, row, x, y, c;

	for (row = 0; row < 14; row++)
		for (c = 0; c < 14; c++) {
			size_t sum = 0;

			for (y = 0; y < 16; y++)
				for (x = 0; x < 16; x++)
					sum += square[(16 + row * 16 + y) * 256 + 16 + c * 16 + x];
			if (sum > best) {
				best = sum;
				column = c;
				*ret_row = row;
			}
		}
	return column;
}

/* There and back: a light in the picture, the field it lands in, and that field in the picture again. */
static void check_seen(void)
{
	static const struct {
		size_t w, h;
		double x, y; /* of the light, as shares */
	} t[] = {
		{ 512, 512, 0.5, 0.5 },	  { 2000, 2500, 0.3, 0.8 }, { 2500, 2000, 0.85, 0.2 }, { 3001, 1777, 0.61, 0.49 },
		{ 700, 1900, 0.75, 0.9 }, { 120, 100, 0.2, 0.3 },   { 257, 255, 0.91, 0.91 },
	};
	CLEANUP(free) uint8_t *p = xcalloc(3001, 2500);
	uint8_t square[256 * 256];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		double x = t[i].x * (double)t[i].w, y = t[i].y * (double)t[i].h, field_x, field_y, size_x, size_y;
		size_t column, row = 0;
		struct letterbox box, place;
		struct seen seen;

		memset(p, 0, t[i].w * t[i].h);
		p[(size_t)y * t[i].w + (size_t)x] = 255;
		for (size_t k = 0; k < 16; k++) /* so that it survives being shrunk */
			memset(p + ((size_t)y - 4 + k / 2) * t[i].w + (size_t)x - 4, 255, 8);
		if (!ok(preprocess_letterbox(p, t[i].w, t[i].h, 256, square, &box) == 0, "a light in %zux%zu", t[i].w, t[i].h))
			continue;
		is_int(preprocess_place(t[i].w, t[i].h, 256, &place), 0, "  placed");
		ok(memcmp(&place, &box, sizeof(box)) == 0, "  as it was");
		column = brightest_field(square, &row);
		seen = preprocess_seen(&box, 224);
		size_x = seen.width / 14;
		size_y = seen.height / 14;
		field_x = seen.x + (double)column * size_x;
		field_y = seen.y + (double)row * size_y;
		ok(x > field_x - 4 && x < field_x + size_x + 4 && y > field_y - 4 && y < field_y + size_y + 4,
		   "  lies in field %zu,%zu: %.1f,%.1f in %.1f,%.1f +%.1f", column, row, x, y, field_x, field_y, size_x);
	}
}

int main(void)
{
	check_seen();
	check_letterbox();
	check_levels();
	check_golden();
	check_geometry();
	return done();
}
