/* research_image.c: see research_image.h.
 *
 * libpng and libjpeg report errors by longjmp: what must survive it lives in a struct outside the
 * function that calls setjmp.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

#include "base/buf.h"
#include "base/fdio.h"
#include "base/mem.h"

#include "model/preprocess.h"

#include "dicom/dicom.h"
#include "dicom/image.h"

#include "daemon/research_image.h"

#define LIBRARY_TEXT_MAX 200
#define DICOM_MIN_SIDE 64
#define DICOM_DEPTH 16
#define DICOM_ITEMS 10000
#define DICOM_FRAGMENTS 4096
#define NODE_MIN_AGE 18 /* the node's default, for the note */

static int take_size(size_t width, size_t height, const char *path, struct research_image *ret,
		     struct err *e)
{
	size_t n;

	if (width == 0 || height == 0 || width > PREPROCESS_SIDE_MAX || height > PREPROCESS_SIDE_MAX ||
	    !mul_ok(width, height, &n) || n > RESEARCH_PIXELS_MAX)
		return err_set(e, -E2BIG,
			       "%s: %zu x %zu pixels, at most %d a side and %zu in all are taken",
			       path, width, height, PREPROCESS_SIDE_MAX, RESEARCH_PIXELS_MAX);
	ret->gray = malloc(n);
	if (ret->gray == NULL)
		return err_set(e, -ENOMEM, "%s: no memory for %zu x %zu pixels", path, width, height);
	ret->width = width;
	ret->height = height;
	return 0;
}

/* ---- PNG ---- */

struct png_job {
	const char *path;
	struct buf b;
	struct research_image *ret;
	struct err *e;
	png_structp png;
	png_infop info;
	png_bytep *rows;
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
	(void)text; /* odd profiles and times: pixels are not touched */
}

static void png_feed(png_structp png, png_bytep p, png_size_t n)
{
	struct png_job *j = png_get_io_ptr(png);

	if (buf_get_bytes(&j->b, p, n) < 0)
		png_error(png, "the file ends before the picture does");
}

/* As OpenCV 4 asks libpng to; called with setjmp armed. */
static int png_decode(struct png_job *j)
{
	size_t i;
	int colour, depth, r;

	png_read_info(j->png, j->info);
	colour = png_get_color_type(j->png, j->info);
	depth = png_get_bit_depth(j->png, j->info);
	if (depth == 16)
		return err_set(
			j->e, -ENOTSUP,
			"%s: 16 bits a sample; the reference would keep only the high byte, so a "
			"12-bit picture would be black: convert it to 8 bits first",
			j->path);
	png_set_strip_alpha(j->png);
	if (colour == PNG_COLOR_TYPE_PALETTE)
		png_set_palette_to_rgb(j->png);
	if ((colour & PNG_COLOR_MASK_COLOR) == 0 && depth < 8)
		png_set_expand_gray_1_2_4_to_8(j->png);
	png_set_rgb_to_gray(j->png, PNG_ERROR_ACTION_NONE, 0.299, 0.587);
	(void)png_set_interlace_handling(j->png);
	png_read_update_info(j->png, j->info);
	r = take_size(png_get_image_width(j->png, j->info), png_get_image_height(j->png, j->info),
		      j->path, j->ret, j->e);
	if (r < 0)
		return r;
	if (png_get_rowbytes(j->png, j->info) != j->ret->width)
		return err_set(j->e, -ENOTSUP, "%s: a PNG that does not become 8-bit grey", j->path);
	j->rows = xcalloc(j->ret->height, sizeof(*j->rows));
	for (i = 0; i < j->ret->height; i++)
		j->rows[i] = j->ret->gray + i * j->ret->width;
	png_read_image(j->png, j->rows);
	png_read_end(j->png, NULL);
	return 0;
}

static int load_png(const char *path, const void *p, size_t n, struct research_image *ret, struct err *e)
{
	struct png_job j = { .path = path, .b = buf_of(p, n), .ret = ret, .e = e };
	int r;

	j.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, png_failed, png_warned);
	if (j.png == NULL)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	j.info = png_create_info_struct(j.png);
	if (j.info == NULL) {
		png_destroy_read_struct(&j.png, NULL, NULL);
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	}
	png_set_user_limits(j.png, PREPROCESS_SIDE_MAX, PREPROCESS_SIDE_MAX);
	png_set_read_fn(j.png, &j, png_feed);
	if (setjmp(png_jmpbuf(j.png)) != 0)
		r = err_set(e, -EBADMSG, "%s: broken PNG: %s", path, j.text);
	else
		r = png_decode(&j);
	png_destroy_read_struct(&j.png, &j.info, NULL);
	free(j.rows);
	return r;
}

/* ---- JPEG ---- */

struct jpeg_job {
	struct jpeg_error_mgr mgr; /* first: libjpeg hands back its address */
	const char *path;
	struct research_image *ret;
	struct err *e;
	struct jpeg_decompress_struct jpeg;
	jmp_buf out;
	char text[LIBRARY_TEXT_MAX];
};

static void jpeg_failed(j_common_ptr jpeg) __attribute__((noreturn));
static void jpeg_failed(j_common_ptr jpeg)
{
	struct jpeg_job *j = (struct jpeg_job *)jpeg->err;
	char text[JMSG_LENGTH_MAX];

	jpeg->err->format_message(jpeg, text);
	(void)snprintf(j->text, sizeof(j->text), "%.*s", (int)sizeof(j->text) - 1, text);
	longjmp(j->out, 1);
}

/* Warnings are about odd headers; the one that matters, a cut file, ends in jpeg_starved(). */
static void jpeg_message(j_common_ptr jpeg, int level)
{
	(void)jpeg;
	(void)level;
}

/* libjpeg would go on with grey. */
static boolean jpeg_starved(j_decompress_ptr jpeg) __attribute__((noreturn));
static boolean jpeg_starved(j_decompress_ptr jpeg)
{
	struct jpeg_job *j = (struct jpeg_job *)jpeg->err;

	(void)snprintf(j->text, sizeof(j->text), "the file ends before the picture does");
	longjmp(j->out, 1);
}

/* EXIF orientation of an APP1 marker: TIFF, tag 0x0112 of the first directory; 1 when there is none. */
static unsigned orientation(const uint8_t *p, size_t n)
{
	struct buf b = buf_of(p, n), tiff;
	uint16_t order, entries, tag, type, value;
	uint32_t at, count;
	uint8_t exif[6];
	bool big;

	if (buf_get_bytes(&b, exif, sizeof(exif)) < 0 || memcmp(exif, "Exif\0", sizeof(exif)) != 0)
		return 1;
	tiff = b;
	if (buf_get_u16(&b, true, &order) < 0 || (order != 0x4949 && order != 0x4d4d))
		return 1;
	big = order == 0x4d4d;
	if (buf_skip(&b, 2) < 0 || buf_get_u32(&b, big, &at) < 0 || buf_skip(&tiff, at) < 0 ||
	    buf_get_u16(&tiff, big, &entries) < 0)
		return 1;
	while (entries-- > 0) {
		if (buf_get_u16(&tiff, big, &tag) < 0 || buf_get_u16(&tiff, big, &type) < 0 ||
		    buf_get_u32(&tiff, big, &count) < 0 || buf_get_u16(&tiff, big, &value) < 0 ||
		    buf_skip(&tiff, 2) < 0)
			return 1;
		if (tag == 0x0112)
			return value;
	}
	return 1;
}

/* Called with setjmp armed. */
static int jpeg_decode(struct jpeg_job *j, const void *p, size_t n)
{
	const struct jpeg_marker_struct *m;
	int r;

	jpeg_mem_src(&j->jpeg, p, n);
	j->jpeg.src->fill_input_buffer = jpeg_starved;
	jpeg_save_markers(&j->jpeg, JPEG_APP0 + 1, 0xffff);
	(void)jpeg_read_header(&j->jpeg, TRUE);
	for (m = j->jpeg.marker_list; m != NULL; m = m->next)
		if (orientation(m->data, m->data_length) > 1)
			return err_set(
				j->e, -ENOTSUP,
				"%s: EXIF says that it is turned or mirrored; save it upright",
				j->path);
	if (j->jpeg.num_components == 4)
		return err_set(j->e, -ENOTSUP, "%s: a CMYK JPEG; convert it to grey", j->path);
	j->jpeg.out_color_space = JCS_GRAYSCALE;
	(void)jpeg_start_decompress(&j->jpeg);
	r = take_size(j->jpeg.output_width, j->jpeg.output_height, j->path, j->ret, j->e);
	if (r < 0)
		return r;
	while (j->jpeg.output_scanline < j->jpeg.output_height) {
		JSAMPROW row = j->ret->gray + j->jpeg.output_scanline * j->ret->width;

		(void)jpeg_read_scanlines(&j->jpeg, &row, 1);
	}
	(void)jpeg_finish_decompress(&j->jpeg);
	return 0;
}

static int load_jpeg(const char *path, const void *p, size_t n, struct research_image *ret, struct err *e)
{
	CLEANUP(free) struct jpeg_job *j = xcalloc(1, sizeof(*j));
	int r;

	j->path = path;
	j->ret = ret;
	j->e = e;
	j->jpeg.err = jpeg_std_error(&j->mgr);
	j->mgr.error_exit = jpeg_failed;
	j->mgr.emit_message = jpeg_message;
	if (setjmp(j->out) != 0) {
		r = err_set(e, -EBADMSG, "%s: broken JPEG: %s", path, j->text);
	} else {
		jpeg_create_decompress(&j->jpeg);
		r = jpeg_decode(j, p, n);
	}
	jpeg_destroy_decompress(&j->jpeg);
	return r;
}

/* ---- DICOM ---- */

/* What the node would say to this image; the numbers are given all the same. */
static void note_gate(const struct dicom_image *image, struct research_image *ret)
{
	const struct gate_rules rules = { .check_view = true, .min_age = NODE_MIN_AGE };
	char why[IMAGE_WHY_MAX];
	enum image_reason reason = gate_decide(&rules, &image->facts, why);

	if (reason != IMAGE_OK)
		(void)snprintf(ret->note, sizeof(ret->note), "the node would not score this: %s (%s)",
			       image_reason_name(reason), why);
}

static int take_dicom(const char *path, const struct dicom_image *image, enum recipe recipe,
		      struct research_image *ret, struct err *e)
{
	size_t n = image->width * image->height; /* of an array that exists */
	int r;

	if (image->reason != IMAGE_OK)
		return err_set(e, -ENOTSUP, "%s: %s: %s", path, image_reason_name(image->reason),
			       image->why);
	r = take_size(image->width, image->height, path, ret, e);
	if (r < 0)
		return r;
	if (recipe == RECIPE_MIMIC)
		preprocess_mimic(image->stored, n, image->monochrome1, ret->gray);
	else
		memcpy(ret->gray, image->window, n);
	ret->recipe = recipe;
	note_gate(image, ret);
	return 0;
}

static int load_dicom(const char *path, const void *p, size_t n, enum recipe recipe,
		      struct research_image *ret, struct err *e)
{
	static const struct dicom_limits limits = {
		.side = PREPROCESS_SIDE_MAX, .pixels = RESEARCH_PIXELS_MAX, .min_side = DICOM_MIN_SIDE,
		.depth = DICOM_DEPTH, .items = DICOM_ITEMS, .fragments = DICOM_FRAGMENTS,
	};
	static bool started;
	struct dicom_image *image;
	int r;

	if (!started) {
		r = dicom_init(true, e);
		if (r < 0)
			return r;
		started = true;
	}
	r = dicom_image_decode(p, n, &limits, &image);
	if (r < 0)
		return err_set(e, r, "%s: %s", path, strerror(-r));
	r = take_dicom(path, image, recipe, ret, e);
	dicom_image_free(image);
	return r;
}

int research_image_load(const char *path, enum recipe recipe, struct research_image *ret, struct err *e)
{
	struct research_image image = { .recipe = RECIPE_WINDOW };
	CLEANUP(free) void *p = NULL;
	const uint8_t *b;
	size_t n;
	int r;

	r = read_path(path, RESEARCH_FILE_MAX, &p, &n, e);
	if (r < 0)
		return r;
	b = p;
	if (n >= 132 && memcmp(b + 128, "DICM", 4) == 0)
		r = load_dicom(path, p, n, recipe, &image, e);
	else if (n >= 8 && png_sig_cmp(b, 0, 8) == 0)
		r = load_png(path, p, n, &image, e);
	else if (n >= 3 && b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff)
		r = load_jpeg(path, p, n, &image, e);
	else
		r = err_set(e, -ENOTSUP,
			    "%s: neither DICOM (with its file header) nor PNG nor JPEG", path);
	if (r < 0) {
		research_image_free(&image);
		return r;
	}
	*ret = image;
	return 0;
}

void research_image_free(struct research_image *image)
{
	free(image->gray);
	memset(image, 0, sizeof(*image));
}
