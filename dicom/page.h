/* page.h: one radiograph's results on one page, for people: the radiograph, what was found, and where
 * the model's attention went.  For Secondary Capture (pixels) and Encapsulated PDF.
 *
 * Drawn by cairo and pango, which are used nowhere else.  The same input gives the same bytes on one
 * machine: nothing here reads a clock, and fonts are asked for once, by page_prepare(), which has to
 * run before the process gives up opening files.  A character that was not laid out then is drawn as
 * '?' afterwards, since its font may not be open.
 *
 * Texts are UTF-8.  They wrap and the page grows; no text is ever cut.
 */
#ifndef CARZEROD_DICOM_PAGE_H
#define CARZEROD_DICOM_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#include "dicom/sr.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PAGE_WIDTH 1536
#define PAGE_HEIGHT_MAX 16384
#define PAGE_MAPS_MAX 3
#define PAGE_TEXTS_MAX 4096 /* of one page: 256 findings have six each */

struct page_finding {
	const char *name;
	float logit;
	double probability;                /* NAN: uncalibrated */
	enum sr_decision decision;
	double absent_below, present_from; /* NAN: there is none */
};

struct page_map {
	size_t finding;                    /* index into findings */
	size_t side;
	const uint8_t *shade;              /* [side][side], 255: most of the attention */
};

struct page {
	const char *stamp;                 /* "", or what nobody may miss */
	const char *title;                 /* "AI result, not verified" */
	const char *subtitle;              /* what the title means; "" none */
	const char *caption;               /* of the radiograph */
	const uint8_t *gray;               /* [height][width], or NULL: no radiograph */
	size_t width, height;
	double map_x, map_y, map_width, map_height; /* what the maps cover of it, in its pixels */
	const struct page_finding *findings; /* NULL: not analysed */
	size_t n_findings;
	struct page_map map[PAGE_MAPS_MAX];
	size_t n_maps;
	const char *const *notes;
	size_t n_notes;
	const char *identity;              /* who made this, of what version, by which model */
};

struct page_box {
	double x, y, width, height;
};

struct page_drawn {
	unsigned width, height;
	uint8_t *rgb;                      /* [height][width][3] */
	struct page_box picture, map[PAGE_MAPS_MAX]; /* where the radiograph and its copies under the maps lie */
	struct page_box text[PAGE_TEXTS_MAX]; /* ink of each text */
	struct page_box room[PAGE_TEXTS_MAX]; /* and what it may cover */
	size_t n_texts;
};

/* Lays out `texts` and all of ASCII in every style.  language: RFC 5646, chooses among forms of Han
 * characters.  -ENOENT when some character has no glyph in any installed font; e names the text's
 * number, the character and what to install; everything else is prepared all the same. */
int page_prepare(const char *language, const char *const *texts, size_t n, struct err *e);

/* *ret is freed by page_free().  -E2BIG over PAGE_HEIGHT_MAX, -ENOMEM. */
int page_draw(const struct page *page, struct page_drawn **ret, struct err *e);
void page_free(struct page_drawn *drawn); /* NULL allowed */

/* Pages as one PDF; *ret is malloc'd.  created: ISO 8601, since the file must not depend on a clock. */
int page_write_pdf(const struct page *page, size_t n, const char *title, const char *created, uint8_t **ret, size_t *ret_n,
		   struct err *e);

#ifdef __cplusplus
}
#endif
#endif
