/* overlay.h: a grounding map laid on the picture that it belongs to.
 *
 * The map has side x side fields and covers the crop of the letterboxed square, and nothing else.  Each
 * pixel of the picture lies in one field or outside the crop, where the model saw nothing.  Fields are
 * not smoothed: the map knows no more than one number for each.
 *
 * It shows where attention went.  It is not the outline of a lesion, and nothing here calls it so.
 */
#ifndef CARZEROD_DAEMON_OVERLAY_H
#define CARZEROD_DAEMON_OVERLAY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#include "model/preprocess.h"

struct overlay {
	const uint8_t *gray; /* [height][width] the picture as it was letterboxed */
	size_t width, height;
	struct letterbox box; /* where it came to lie */
	size_t crop;	      /* side of the middle of the square that the model looked at */
	const float *map;     /* [side][side] shares of attention, none negative */
	size_t side;
	const char *title;    /* goes into the file as text */
};

#define OVERLAY_OUTSIDE SIZE_MAX

/* The field (row * side + column) in which the middle of pixel x, y lies, or OVERLAY_OUTSIDE. */
size_t overlay_field(const struct overlay *o, size_t x, size_t y);

/* One row of the picture as RGB, [width][3]: orange over grey, the more the larger the share is compared
 * with the largest of this map; half as bright outside the crop. */
void overlay_row(const struct overlay *o, size_t y, uint8_t *ret);

/* A PNG of the picture's size; a file that exists is not overwritten (-EEXIST). */
int overlay_write_png(const struct overlay *o, const char *path, struct err *e);
/* The shares, a line a row of fields, separated by tabs; the same about files that exist. */
int overlay_write_tsv(const struct overlay *o, const char *path, struct err *e);

#endif
