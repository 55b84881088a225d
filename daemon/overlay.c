/* overlay.c: see overlay.h.
 *
 * From a pixel's middle forward into the square, never from a field back to pixels: so every pixel has
 * exactly one field, whatever the sizes are.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <png.h>

#include "base/mem.h"

#include "daemon/overlay.h"

#define LIBRARY_TEXT_MAX 200
#define STRENGTH 0.6 /* of the colour where the share is largest: the picture stays visible */

static const uint8_t colour[3] = { 255, 96, 0 };

/* Column or row of fields of one coordinate; `side` outside the crop. */
static size_t field_of(size_t pixel, double scale, size_t offset, size_t square, size_t crop, size_t side)
{
	double at = ((double)pixel + 0.5) * scale + (double)offset - (double)(square - crop) / 2;
	size_t field;

	if (at < 0 || at >= (double)crop)
		return side;
	field = (size_t)(at * (double)side / (double)crop);
	return field < side ? field : side - 1;
}

size_t overlay_field(const struct overlay *o, size_t x, size_t y)
{
	size_t column = field_of(x, o->box.scale_x, o->box.left, o->box.side, o->crop, o->side);
	size_t row = field_of(y, o->box.scale_y, o->box.top, o->box.side, o->crop, o->side);

	return column == o->side || row == o->side ? OVERLAY_OUTSIDE : row * o->side + column;
}

void overlay_row(const struct overlay *o, size_t y, uint8_t *ret)
{
	double largest = 0;
	size_t x, i;

	for (i = 0; i < o->side * o->side; i++)
		largest = (double)o->map[i] > largest ? (double)o->map[i] : largest;
	for (x = 0; x < o->width; x++) {
		uint8_t gray = o->gray[y * o->width + x];
		size_t field = overlay_field(o, x, y);
		double part = field != OVERLAY_OUTSIDE && largest > 0 ? STRENGTH * (double)o->map[field] / largest
								      : 0;

		for (i = 0; i < 3; i++)
			ret[3 * x + i] = field == OVERLAY_OUTSIDE
						 ? gray / 2
						 : (uint8_t)(gray + part * ((double)colour[i] - gray) + 0.5);
	}
}

static int create(const char *path, FILE **ret, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	*ret = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (*ret != NULL)
		return 0;
	if (fd >= 0)
		(void)close(fd); /* nothing was written */
	return err_set(e, -errno, "%s: %s%s", path, strerror(errno),
		       errno == EEXIST ? "; give an empty folder, nothing is overwritten" : "");
}

static int finish(FILE *f, const char *path, int r, struct err *e)
{
	int code = r;

	if (code == 0 && (fflush(f) != 0 || ferror(f)))
		code = err_set(e, -EIO, "%s: writing failed", path);
	if (fclose(f) != 0 && code == 0)
		code = err_set(e, -errno, "%s: writing: %s", path, strerror(errno));
	if (code < 0)
		(void)unlink(path); /* half a picture helps nobody */
	return code;
}

/* ---- PNG: libpng reports errors by longjmp, so what must survive lives in a struct ---- */

struct png_job {
	png_structp png;
	png_infop info;
	uint8_t *row;
	char *title; /* libpng takes no const */
	char text[LIBRARY_TEXT_MAX];
};

static void png_failed(png_structp png, png_const_charp text)
{
	struct png_job *j = png_get_error_ptr(png);

	(void)snprintf(j->text, sizeof(j->text), "%s", text);
	png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp text)
{
	(void)png;
	(void)text; /* about text chunks; pixels are not touched */
}

/* Called with setjmp armed. */
static int png_encode(struct png_job *j, const struct overlay *o, FILE *f)
{
	static char title[] = "Title", meaning[] = "Description",
		    what[] = "Where the model's attention went; not the outline of a lesion.";
	png_text text[] = { { .compression = PNG_TEXT_COMPRESSION_NONE, .key = title },
			    { .compression = PNG_TEXT_COMPRESSION_NONE, .key = meaning, .text = what } };
	size_t y;

	text[0].text = j->title;
	png_init_io(j->png, f);
	png_set_IHDR(j->png, j->info, (png_uint_32)o->width, (png_uint_32)o->height, 8, PNG_COLOR_TYPE_RGB,
		     PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_set_text(j->png, j->info, text, ARRAY_SIZE(text));
	png_write_info(j->png, j->info);
	for (y = 0; y < o->height; y++) {
		overlay_row(o, y, j->row);
		png_write_row(j->png, j->row);
	}
	png_write_end(j->png, NULL);
	return 0;
}

static int write_png(const struct overlay *o, FILE *f, const char *path, struct err *e)
{
	struct png_job j = { .png = NULL };
	int r;

	j.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &j, png_failed, png_warned);
	if (j.png != NULL)
		j.info = png_create_info_struct(j.png);
	if (j.info == NULL) {
		png_destroy_write_struct(&j.png, NULL);
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	}
	j.row = xcalloc(o->width, 3);
	j.title = xstrdup(o->title);
	if (setjmp(png_jmpbuf(j.png)) != 0)
		r = err_set(e, -EIO, "%s: writing: %s", path, j.text);
	else
		r = png_encode(&j, o, f);
	png_destroy_write_struct(&j.png, &j.info);
	free(j.row);
	free(j.title);
	return r;
}

int overlay_write_png(const struct overlay *o, const char *path, struct err *e)
{
	FILE *f;
	int r = create(path, &f, e);

	return r < 0 ? r : finish(f, path, write_png(o, f, path, e), e);
}

int overlay_write_tsv(const struct overlay *o, const char *path, struct err *e)
{
	FILE *f;
	int r = create(path, &f, e);
	size_t i;

	if (r < 0)
		return r;
	for (i = 0; i < o->side * o->side; i++)
		fprintf(f, "%.9g%c", (double)o->map[i], (i + 1) % o->side == 0 ? '\n' : '\t');
	return finish(f, path, 0, e);
}
