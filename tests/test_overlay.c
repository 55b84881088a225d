/* test_overlay.c: a map lies where the model saw what it is about.
 *
 * The way there is the model's own: a picture with one bright block is letterboxed by preprocess.c, the
 * means of the crop's fields are taken for a map, and the overlay must then colour the bright block, and
 * colour it most in its middle.  Sizes larger, smaller and equal to the square, upright and lying.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#include "daemon/overlay.h"
#include "daemon/research_image.h"
#include "tests/tap.h"

#define SQUARE 256
#define CROP 224
#define SIDE 14
#define PATCH (CROP / SIDE)

struct block { /* of pixels, ends exclusive */
	size_t x0, y0, x1, y1;
};

static void field_means(const uint8_t *square, float map[SIDE * SIDE])
{
	size_t margin = (SQUARE - CROP) / 2, x, y;

	memset(map, 0, SIDE * SIDE * sizeof(*map));
	for (y = 0; y < CROP; y++)
		for (x = 0; x < CROP; x++)
			map[y / PATCH * SIDE + x / PATCH] +=
				(float)square[(y + margin) * SQUARE + x + margin] / (PATCH * PATCH);
}

/* Red less blue is the overlay's strength on a picture without colours. */
static int strength(const uint8_t *rgb)
{
	return rgb[0] - rgb[2];
}

/* Where the colour of the overlay has its centre of weight. */
static void centre(const struct overlay *o, double *ret_x, double *ret_y)
{
	CLEANUP(free) uint8_t *row = xcalloc(o->width, 3);
	double sum = 0;

	*ret_x = *ret_y = 0;
	for (size_t y = 0; y < o->height; y++) {
		overlay_row(o, y, row);
		for (size_t x = 0; x < o->width; x++) {
			double w = strength(row + 3 * x);

			sum += w;
			*ret_x += w * ((double)x + 0.5);
			*ret_y += w * ((double)y + 0.5);
		}
	}
	*ret_x /= sum;
	*ret_y /= sum;
}

static void check_block(size_t width, size_t height, double at_x, double at_y)
{
	CLEANUP(free) uint8_t *gray = xcalloc(width, height);
	CLEANUP(free) uint8_t *row = xcalloc(width, 3);
	uint8_t square[SQUARE * SQUARE];
	float map[SIDE * SIDE];
	struct overlay o = { gray, width, height, { 0 }, CROP, map, SIDE, "test" };
	size_t longer = width > height ? width : height, half = longer / 16;
	size_t cx = (size_t)(at_x * (double)width), cy = (size_t)(at_y * (double)height), field, hot = 0;
	struct block b = { cx - half, cy - half, cx + half, cy + half };
	double x, y, pixel;

	for (size_t j = b.y0; j < b.y1; j++)
		memset(gray + j * width + b.x0, 200, b.x1 - b.x0);
	if (!ok(preprocess_letterbox(gray, width, height, SQUARE, square, &o.box) == 0, "%zu x %zu", width, height))
		return;
	field_means(square, map);
	for (size_t i = 0; i < SIDE * SIDE; i++)
		hot = map[i] > map[hot] ? i : hot;
	field = overlay_field(&o, cx, cy);
	ok(field != OVERLAY_OUTSIDE && map[field] > 0.9f * map[hot], "  the block's middle lies in a hot field");
	memset(gray, 0, width * height); /* only the map shows now */
	centre(&o, &x, &y);
	pixel = (double)longer / SQUARE; /* one of the square, in those of the picture */
	printf("# block at %zu %zu, overlay at %.1f %.1f, a field has %.0f\n", cx, cy, x, y, PATCH * pixel);
	ok(fabs(x - (double)cx) < 1.5 * pixel + 1 && fabs(y - (double)cy) < 1.5 * pixel + 1,
	   "  the overlay's centre is the block's");
	overlay_row(&o, cy, row);
	ok(strength(row + 3 * cx) > 130, "  and it is strongest there");
}

/* By hand: 1000 wide, 500 high is halved to 256 x 128 with 64 empty lines above; the crop leaves columns
 * 16..239 of the square, so pixels from 62.5 to 937.5, and field 0 begins at square row 16, which no
 * pixel reaches before field row (64 - 16) / 16 = 3. */
static void check_by_hand(void)
{
	CLEANUP(free) uint8_t *gray = xcalloc(1000, 500);
	float map[SIDE * SIDE] = { 0 };
	struct overlay o = { gray, 1000, 500, { 0 }, CROP, map, SIDE, "test" };
	uint8_t square[SQUARE * SQUARE], row[3000];
	static const struct { size_t x, y, field; } cases[] = {
		{ 61, 0, OVERLAY_OUTSIDE }, { 63, 0, 3 * SIDE }, { 124, 0, 3 * SIDE }, { 125, 0, 3 * SIDE + 1 },
		{ 124, 61, 3 * SIDE }, { 124, 62, 4 * SIDE }, { 936, 499, 10 * SIDE + 13 },
		{ 938, 499, OVERLAY_OUTSIDE },
	};

	if (!ok(preprocess_letterbox(gray, 1000, 500, SQUARE, square, &o.box) == 0, "by hand: letterboxed"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		is_int((long long)overlay_field(&o, cases[i].x, cases[i].y), (long long)cases[i].field, "by hand: pixel %zu %zu",
		       cases[i].x, cases[i].y);
	memset(gray, 100, 1000 * 500);
	map[3 * SIDE] = 1;
	map[3 * SIDE + 1] = 0.5f;
	overlay_row(&o, 0, row);
	is_int(row[0], 50, "outside the crop it is darker");
	is_int(row[3 * 100], 193, "red of the largest share");
	is_int(row[3 * 100 + 2], 40, "blue of the largest share");
	is_int(row[3 * 150], 147, "half of it for half the share");
	is_int(row[3 * 500], 100, "and nothing for none");
	map[3 * SIDE] = map[3 * SIDE + 1] = 0;
	overlay_row(&o, 0, row);
	is_int(row[3 * 100], 100, "a map of zeros is no colour");
}

static void check_files(void)
{
	uint8_t gray[64] = { 0 };
	float map[4] = { 0, 0.25f, 0.5f, 0 };
	struct overlay o = { gray, 8, 8, { 8, 0, 0, 8, 8, 1, 1 }, 8, map, 2, "Pneumothorax: attention" };
	char folder[] = "/tmp/test_overlay.XXXXXX", png[64], tsv[64], line[64] = "";
	struct research_image image;
	struct err e = { "" };
	FILE *f;

	if (!ok(mkdtemp(folder) != NULL, "a folder"))
		return;
	(void)snprintf(png, sizeof(png), "%s/a.png", folder);
	(void)snprintf(tsv, sizeof(tsv), "%s/a.tsv", folder);
	is_int(overlay_write_png(&o, png, &e), 0, "a PNG is written");
	if (ok(research_image_load(png, RECIPE_WINDOW, &image, &e) == 0, "and read again %s", e.text)) {
		is_int(image.width, 8, "  its width");
		ok(image.gray[7] > 0 && image.gray[0] == 0, "  the right upper field has colour");
		research_image_free(&image);
	}
	is_int(overlay_write_png(&o, png, &e), -EEXIST, "a file that is there stays");
	is_int(overlay_write_tsv(&o, tsv, &e), 0, "the numbers are written");
	f = fopen(tsv, "re");
	ok(f != NULL && fgets(line, sizeof(line), f) != NULL, "and read again");
	is_str(line, "0\t0.25\n", "  the first row");
	if (f != NULL)
		(void)fclose(f);
	(void)unlink(png);
	(void)unlink(tsv);
	is_int(overlay_write_png(&o, "/nowhere/a.png", &e), -ENOENT, "no folder: %s", e.text);
	is_int(rmdir(folder), 0, "nothing else is left");
}

int main(void)
{
	static const size_t sizes[][2] = {
		{ 1024, 1024 }, { 256, 256 }, { 2000, 2500 }, { 2500, 2000 }, { 3001, 1000 }, { 700, 2111 }, { 120, 180 }, { 180, 120 },
	};
	static const double places[][2] = { { 0.5, 0.5 }, { 0.25, 0.3 }, { 0.72, 0.4 }, { 0.35, 0.75 } };

	check_by_hand();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (size_t k = 0; k < ARRAY_SIZE(places); k++)
			check_block(sizes[i][0], sizes[i][1], places[k][0], places[k][1]);
	check_files();
	return done();
}
