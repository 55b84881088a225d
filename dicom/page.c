/* page.c: see page.h.
 *
 * Job: one function walks down the page; it runs twice, once to learn the height and once to draw.
 * The order is the reader's: that this is no verified result, what was found, where attention went,
 * every finding with score, thresholds and decision, and who says so.
 * Promise: meaning is never in colour alone; the map is a glow without an edge, since an edge would
 * read as the outline of a lesion; what the model could not see is dimmed.
 * Never: a text about the patient.  Nothing of a header comes here.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo-pdf.h>
#include <pango/pangocairo.h>

#include "base/mem.h"
#include "base/str.h"

#include "dicom/page.h"

#define MARGIN 32.0
#define GAP 24.0
#define LEFT_WIDTH 832.0
#define CAPTION_WIDTH_MIN 320.0
#define LEFT_HEIGHT_MAX 1000.0
#define MAIN_HEIGHT_MIN 1000.0 /* room for findings and maps beside a picture that is square or low */
#define MAP_ROOM 400.0        /* kept for maps below the findings beside the picture */
#define MAP_HEIGHT_MIN 240.0
#define MAP_GAP 16.0
#define STAMP_WIDTH_MIN 220.0
#define CONTENT (PAGE_WIDTH - 2 * MARGIN)
#define FONT "DejaVu Sans"
#define OTHER_CHARACTERS "\u2265\u2212\u00a0" /* of our own texts: at least, minus, a space that does not break */
#define PAGE_HEIGHT_MIN 480.0
#define PDF_SCALE 0.5 /* points for one of our lines */
#define GLOW 0.62 /* of the colour where attention is highest: the picture stays visible */
#define GLOW_FROM 0.25 /* below this share of the highest nothing glows */

enum style { STAMP, TITLE, SUMMARY, HEADING, BODY, BODY_BOLD, SMALL, SMALL_BOLD, STYLE_COUNT };

static const struct {
	double size;
	bool bold;
} styles[STYLE_COUNT] = {
	[STAMP] = { 24, true },	 [TITLE] = { 30, true },    [SUMMARY] = { 22, true },   [HEADING] = { 17, true },
	[BODY] = { 16, false },	 [BODY_BOLD] = { 16, true }, [SMALL] = { 14, false },  [SMALL_BOLD] = { 14, true },
};

struct colour {
	double red, green, blue;
};

static const struct colour background = { 0.045, 0.055, 0.065 }, line = { 0.17, 0.19, 0.21 },
			   white = { 0.93, 0.94, 0.95 }, dim = { 0.66, 0.69, 0.72 }, black = { 0, 0, 0 },
			   amber = { 1, 0.72, 0.10 }, blue = { 0.60, 0.78, 1 }, red = { 0.72, 0.05, 0.10 };
static const double glow[3] = { 255, 106, 0 };

/* ---- fonts --------------------------------------------------------------------------------------- */

static PangoContext *context;
static PangoFontDescription *description[STYLE_COUNT];
static uint8_t prepared[0x110000 / 8]; /* characters that were laid out */

static bool is_prepared(gunichar c)
{
	return c < 0x110000 && (prepared[c / 8] >> c % 8 & 1) != 0;
}

static void open_fonts(const char *language)
{
	cairo_font_options_t *options = cairo_font_options_create();

	/* what fontconfig says about this machine's monitor must not change our bytes */
	cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
	cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_SLIGHT);
	cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
	context = pango_font_map_create_context(pango_cairo_font_map_get_default());
	pango_cairo_context_set_font_options(context, options);
	pango_context_set_language(context, pango_language_from_string(language));
	pango_context_set_base_dir(context, PANGO_DIRECTION_LTR);
	cairo_font_options_destroy(options);
	for (int i = 0; i < STYLE_COUNT; i++) {
		description[i] = pango_font_description_new();
		pango_font_description_set_family(description[i], FONT);
		pango_font_description_set_weight(description[i], styles[i].bold ? PANGO_WEIGHT_BOLD : PANGO_WEIGHT_NORMAL);
		pango_font_description_set_absolute_size(description[i], styles[i].size * PANGO_SCALE);
	}
}

static PangoLayout *layout_new(enum style style, const char *text)
{
	PangoLayout *layout = pango_layout_new(context);

	pango_layout_set_font_description(layout, description[style]);
	pango_layout_set_text(layout, text, -1);
	return layout;
}

/* What is drawn to get ready: both sorts of page take glyphs in their own ways. */
struct scratch {
	cairo_t *pixels, *pdf;
};

static cairo_status_t drop(void *arg, const unsigned char *p, unsigned n)
{
	(void)arg;
	(void)p;
	(void)n;
	return CAIRO_STATUS_SUCCESS;
}

static cairo_t *draw_on(cairo_surface_t *surface)
{
	cairo_t *cr = cairo_create(surface);

	cairo_surface_destroy(surface); /* cr holds it */
	return cr;
}

/* Opens what this text needs in this style; false when a glyph is missing. */
static bool lay_out(const struct scratch *to, enum style style, const char *text)
{
	PangoLayout *layout = layout_new(style, text);
	bool whole = pango_layout_get_unknown_glyphs_count(layout) == 0;

	pango_cairo_show_layout(to->pixels, layout);
	pango_cairo_show_layout(to->pdf, layout);
	g_object_unref(layout);
	return whole;
}

/* The first character of the text that no font has, or 0; the others are prepared. */
static gunichar prepare_text(const struct scratch *to, const char *text)
{
	gunichar missing = 0;
	const char *p;

	for (int i = 0; i < STYLE_COUNT; i++)
		(void)lay_out(to, (enum style)i, text);
	for (p = text; *p != '\0'; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);
		char one[8] = "";

		if (is_prepared(c))
			continue;
		(void)g_unichar_to_utf8(c, one);
		if (lay_out(to, BODY, one))
			prepared[c / 8] |= (uint8_t)(1 << c % 8);
		else if (missing == 0)
			missing = c;
	}
	return missing;
}

int page_prepare(const char *language, const char *const *texts, size_t n, struct err *e)
{
	struct scratch to = {
		draw_on(cairo_image_surface_create(CAIRO_FORMAT_RGB24, 64, 64)),
		draw_on(cairo_pdf_surface_create_for_stream(drop, NULL, 64, 64)),
	};
	char ascii[96 + sizeof(OTHER_CHARACTERS)] = "";
	gunichar missing;
	int r = 0;

	if (context == NULL)
		open_fonts(language);
	for (size_t i = 0; i < 95; i++)
		ascii[i] = (char)(' ' + i);
	(void)str_copy(ascii + 95, sizeof(ascii) - 95, OTHER_CHARACTERS);
	missing = prepare_text(&to, ascii);
	if (missing != 0)
		r = err_set(e, -ENOENT, "no installed font has plain letters: install the package fonts-dejavu-core");
	for (size_t i = 0; i < n; i++) {
		if (!g_utf8_validate(texts[i], -1, NULL))
			continue; /* read from UTF-8 files; else drawn as '?' */
		missing = prepare_text(&to, texts[i]);
		if (missing != 0 && r == 0)
			r = err_set(e, -ENOENT,
				    "text %zu: no installed font has the character U+%04X: install one for this script "
				    "(such as fonts-noto-core or fonts-noto-cjk)", i + 1, missing);
	}
	cairo_destroy(to.pixels);
	cairo_destroy(to.pdf);
	return r;
}

/* ---- texts --------------------------------------------------------------------------------------- */

struct sheet {
	cairo_t *cr; /* NULL: only measuring */
	const struct page *page;
	struct page_drawn *out;
};

/* With '?' for what was not prepared.  malloc'd. */
static char *safe(const char *text)
{
	GString *s = g_string_new(NULL);
	char *ret;

	if (!g_utf8_validate(text, -1, NULL))
		text = "?";
	for (; *text != '\0'; text = g_utf8_next_char(text)) {
		gunichar c = g_utf8_get_char(text);

		g_string_append_unichar(s, is_prepared(c) ? c : '?');
	}
	ret = xstrdup(s->str);
	(void)g_string_free(s, TRUE);
	return ret;
}

static void set_colour(const struct sheet *s, struct colour c)
{
	cairo_set_source_rgb(s->cr, c.red, c.green, c.blue);
}

static void note_box(struct sheet *s, struct page_box ink, struct page_box room)
{
	if (s->out->n_texts == PAGE_TEXTS_MAX)
		return;
	s->out->text[s->out->n_texts] = ink;
	s->out->room[s->out->n_texts++] = room;
}

/* A text in a column of this width, wrapped; returns its height. */
static double put(struct sheet *s, enum style style, struct colour colour, PangoAlignment align, double x, double y,
		  double width, const char *text)
{
	char *shown = safe(text);
	PangoLayout *layout = layout_new(style, shown);
	PangoRectangle ink, logical;

	pango_layout_set_width(layout, (int)(width * PANGO_SCALE));
	pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
	pango_layout_set_alignment(layout, align);
	pango_layout_get_pixel_extents(layout, &ink, &logical);
	if (s->cr != NULL) {
		set_colour(s, colour);
		cairo_move_to(s->cr, x, y);
		pango_cairo_show_layout(s->cr, layout);
		note_box(s, (struct page_box){ x + ink.x, y + ink.y, ink.width, ink.height },
			 (struct page_box){ x, y, width, logical.height });
	}
	g_object_unref(layout);
	free(shown);
	return logical.height;
}

static double left(struct sheet *s, enum style style, struct colour colour, double x, double y, double width,
		   const char *text)
{
	return put(s, style, colour, PANGO_ALIGN_LEFT, x, y, width, text);
}

static void fill(struct sheet *s, struct colour colour, double x, double y, double width, double height)
{
	if (s->cr == NULL)
		return;
	set_colour(s, colour);
	cairo_rectangle(s->cr, x, y, width, height);
	cairo_fill(s->cr);
}

/* ---- pictures ------------------------------------------------------------------------------------ */

/* From n values to m: for each output the first input and how much of each counts. */
struct taps {
	size_t n, max;
	size_t *first; /* [n] */
	float *weight; /* [n][max] */
};

/* Area averaging when it shrinks, linear between middles when it grows. */
static struct taps taps_new(size_t from, size_t to)
{
	double ratio = (double)from / (double)to, reach = ratio > 1 ? ratio / 2 : 0.5;
	struct taps t = { .n = to, .max = (size_t)ceil(2 * reach) + 2 };

	t.first = xcalloc(to, sizeof(*t.first));
	t.weight = xcalloc(to * t.max, sizeof(*t.weight));
	for (size_t i = 0; i < to; i++) {
		double middle = ((double)i + 0.5) * ratio, low = middle - reach, high = middle + reach, sum = 0;
		double start = floor(low < 0 ? 0 : low);

		t.first[i] = (size_t)start;
		for (size_t k = 0; k < t.max && start + (double)k < (double)from; k++) {
			double a = fmax(low, start + (double)k), b = fmin(high, start + (double)k + 1);
			double w = b > a ? b - a : 0;

			t.weight[i * t.max + k] = (float)w;
			sum += w;
		}
		for (size_t k = 0; k < t.max; k++)
			t.weight[i * t.max + k] /= (float)sum;
	}
	return t;
}

static void taps_free(struct taps *t)
{
	free(t->first);
	free(t->weight);
}

/* gray: [height][width] to ret: [to_height][to_width] */
static void resize(const uint8_t *gray, size_t width, size_t height, uint8_t *ret, size_t to_width, size_t to_height)
{
	struct taps across = taps_new(width, to_width), down = taps_new(height, to_height);
	float *sum = xcalloc(width, sizeof(*sum));

	for (size_t y = 0; y < to_height; y++) {
		memset(sum, 0, width * sizeof(*sum));
		for (size_t k = 0; k < down.max && down.first[y] + k < height; k++) {
			float w = down.weight[y * down.max + k];
			const uint8_t *row = gray + (down.first[y] + k) * width;

			for (size_t x = 0; w > 0 && x < width; x++)
				sum[x] += w * (float)row[x];
		}
		for (size_t x = 0; x < to_width; x++) {
			float v = 0;

			for (size_t k = 0; k < across.max && across.first[x] + k < width; k++)
				v += across.weight[x * across.max + k] * sum[across.first[x] + k];
			ret[y * to_width + x] = (uint8_t)(v + 0.5f);
		}
	}
	free(sum);
	taps_free(&across);
	taps_free(&down);
}

/* Attention at a point of the map, 0..1; fields are numbers at their middles, linear between. */
static double attention(const struct page_map *map, double x, double y)
{
	double last = (double)map->side - 1, cx = fmin(fmax(x - 0.5, 0), last), cy = fmin(fmax(y - 0.5, 0), last);
	size_t x0 = (size_t)cx, y0 = (size_t)cy, x1 = x0 + (x0 < map->side - 1), y1 = y0 + (y0 < map->side - 1);
	double fx = cx - (double)x0, fy = cy - (double)y0;
	double top = map->shade[y0 * map->side + x0] * (1 - fx) + map->shade[y0 * map->side + x1] * fx;
	double bottom = map->shade[y1 * map->side + x0] * (1 - fx) + map->shade[y1 * map->side + x1] * fx;

	return (top * (1 - fy) + bottom * fy) / 255;
}

static uint32_t pixel_of(const double c[3])
{
	return (uint32_t)(c[0] + 0.5) << 16 | (uint32_t)(c[1] + 0.5) << 8 | (uint32_t)(c[2] + 0.5);
}

/* One pixel of the picture under a map.  x, y: in pixels of the radiograph. */
static uint32_t glowing(const struct page *p, const struct page_map *map, uint8_t gray, double x, double y)
{
	double mx = (x - p->map_x) / p->map_width * (double)map->side;
	double my = (y - p->map_y) / p->map_height * (double)map->side;
	double c[3] = { gray, gray, gray }, part;

	if (mx < 0 || my < 0 || mx >= (double)map->side || my >= (double)map->side) {
		c[0] = c[1] = c[2] = gray * 0.45; /* the model did not see this */
		return pixel_of(c);
	}
	part = fmax(attention(map, mx, my) - GLOW_FROM, 0) / (1 - GLOW_FROM) * GLOW;
	for (int i = 0; i < 3; i++)
		c[i] += part * (glow[i] - c[i]);
	return pixel_of(c);
}

/* The radiograph, with a map or NULL, into a box of whole pixels. */
static void picture(struct sheet *s, const struct page_map *map, double x, double y, size_t width, size_t height)
{
	const struct page *p = s->page;
	uint8_t *small;
	cairo_surface_t *image;
	unsigned char *data;
	int stride;

	if (s->cr == NULL)
		return;
	small = xcalloc(width, height);
	resize(p->gray, p->width, p->height, small, width, height);
	image = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
	data = cairo_image_surface_get_data(image);
	stride = cairo_image_surface_get_stride(image);
	for (size_t j = 0; data != NULL && j < height; j++) {
		uint32_t *row = (uint32_t *)(void *)(data + j * (size_t)stride);

		for (size_t i = 0; i < width; i++) {
			uint8_t gray = small[j * width + i];
			double c[3] = { gray, gray, gray };

			row[i] = map == NULL ? pixel_of(c) :
					       glowing(p, map, gray, ((double)i + 0.5) * (double)p->width / (double)width,
						       ((double)j + 0.5) * (double)p->height / (double)height);
		}
	}
	free(small);
	cairo_surface_mark_dirty(image);
	cairo_set_source_surface(s->cr, image, x, y);
	cairo_rectangle(s->cr, x, y, (double)width, (double)height);
	cairo_fill(s->cr);
	cairo_surface_destroy(image);
}

/* The largest size of the radiograph's shape in a box. */
static void fit(const struct page *p, double max_width, double max_height, size_t *ret_width, size_t *ret_height)
{
	double scale = fmin(max_width / (double)p->width, max_height / (double)p->height);

	*ret_width = (size_t)fmax(1, floor((double)p->width * scale));
	*ret_height = (size_t)fmax(1, floor((double)p->height * scale));
}

/* The stamp once more, as a band of this width whose lower or upper edge is at y: over the edge of the
 * radiograph, so that one that is cut out of the page still says it, and below the small ones. */
static double stamp_picture(struct sheet *s, double x, double y, double width, bool above)
{
	struct sheet measure = { NULL, s->page, s->out };
	double height;

	if (s->page->stamp[0] == '\0')
		return 0;
	height = put(&measure, SMALL_BOLD, white, PANGO_ALIGN_CENTER, x, 0, width - 8, s->page->stamp) + 8;
	if (above)
		y -= height;
	fill(s, red, x, y, width, height);
	(void)put(s, SMALL_BOLD, white, PANGO_ALIGN_CENTER, x + 4, y + 4, width - 8, s->page->stamp);
	return height;
}

/* ---- findings ------------------------------------------------------------------------------------ */

static bool is_calibrated(const struct page_finding *f)
{
	return !isnan(f->probability);
}

/* Present, undetermined, uncalibrated, absent. */
static int rank(const struct page_finding *f)
{
	if (!is_calibrated(f))
		return 2;
	return f->decision == SR_PRESENT ? 0 : f->decision == SR_ABSENT ? 3 : 1;
}

static bool comes_before(const struct page_finding *f, size_t a, size_t b)
{
	int ra = rank(&f[a]), rb = rank(&f[b]);

	if (ra != rb)
		return ra < rb;
	if (ra < 2 && f[a].probability != f[b].probability)
		return f[a].probability > f[b].probability;
	return a < b; /* as the site's list has them */
}

static size_t *order_new(const struct page *p)
{
	size_t *order = xcalloc(p->n_findings + 1, sizeof(*order));

	for (size_t i = 0; i < p->n_findings; i++) { /* 256 at most */
		size_t at = i;

		for (; at > 0 && comes_before(p->findings, i, order[at - 1]); at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	return order;
}

static size_t count(const struct page *p, int of_rank)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_findings; i++)
		n += rank(&p->findings[i]) == of_rank;
	return n;
}

static const char *plural(size_t n)
{
	return n == 1 ? "" : "s";
}

/* The one sentence that must be true of the whole list. */
static void summary(const struct page *p, char *ret, size_t size)
{
	size_t present = count(p, 0), undetermined = count(p, 1), raw = count(p, 2);

	if (p->findings == NULL)
		(void)snprintf(ret, size, "Not analysed");
	else if (present > 0)
		(void)snprintf(ret, size, "%zu finding%s present", present, plural(present));
	else if (raw == p->n_findings)
		(void)snprintf(ret, size, "Raw scores only: nothing was decided");
	else if (undetermined > 0)
		(void)snprintf(ret, size, "No finding reaches its threshold; %zu undetermined", undetermined);
	else
		(void)snprintf(ret, size, "No finding reaches its threshold");
}

/* Columns of one row, from its left edge: name, value, bar, decision, thresholds. */
struct columns {
	double name, value, bar, decision, threshold, end;
};

static struct columns columns_of(double width)
{
	return (struct columns){ 0, width - 400, width - 312, width - 248, width - 132, width };
}

/* The probability as a length, with a notch at each threshold. */
static void bar(struct sheet *s, const struct page_finding *f, double x, double y, double width, struct colour colour)
{
	fill(s, line, x, y, width, 8);
	fill(s, colour, x, y, width * f->probability, 8);
	if (!isnan(f->absent_below))
		fill(s, white, x + width * f->absent_below - 0.5, y - 3, 1, 14);
	if (!isnan(f->present_from))
		fill(s, white, x + width * f->present_from - 1, y - 4, 2, 16);
}

static void chip(struct sheet *s, const struct page_finding *f, double x, double y, double width)
{
	static const char *const words[] = { "Present", "Undetermined", "No decision", "Absent" };
	static const struct colour *const colours[] = { &black, &blue, &dim, &dim };
	int r = rank(f);

	if (r == 0)
		fill(s, amber, x, y - 3, width, 25);
	(void)put(s, r == 0 ? SMALL_BOLD : SMALL, *colours[r], PANGO_ALIGN_CENTER, x, y, width, words[r]);
}

/* Nothing is certain, and nothing impossible: no rounding says so. */
static void percent(double p, char *ret, size_t size)
{
	if (p > 0.9995)
		(void)snprintf(ret, size, ">99.9\u00a0%%");
	else if (p < 0.0005)
		(void)snprintf(ret, size, "<0.1\u00a0%%");
	else
		(void)snprintf(ret, size, "%.1f\u00a0%%", p * 100);
}

static void thresholds(const struct page_finding *f, char *ret, size_t size)
{
	bool lo = !isnan(f->absent_below), hi = !isnan(f->present_from);

	ret[0] = '\0';
	if (lo && hi)
		(void)snprintf(ret, size, "< %.3g\u00a0\u00a0\u2265 %.3g\u00a0%%", f->absent_below * 100, f->present_from * 100);
	else if (lo || hi)
		(void)snprintf(ret, size, "%s %.3g\u00a0%%", lo ? "<" : "\u2265", (lo ? f->absent_below : f->present_from) * 100);
}

static double row(struct sheet *s, const struct page_finding *f, double x, double y, double width)
{
	struct columns c = columns_of(width);
	bool present = rank(f) == 0;
	struct colour colour = present ? amber : rank(f) == 3 ? dim : white;
	char value[32], limits[64];
	double height, other;

	if (is_calibrated(f))
		percent(f->probability, value, sizeof(value));
	else
		(void)snprintf(value, sizeof(value), "%s%.2f", f->logit < 0 ? "\u2212" : "", fabs((double)f->logit));
	thresholds(f, limits, sizeof(limits));
	height = left(s, present ? BODY_BOLD : BODY, colour, x + c.name, y + 7, c.value - c.name - 12, f->name);
	(void)put(s, present ? BODY_BOLD : BODY, colour, PANGO_ALIGN_RIGHT, x + c.value, y + 7, c.bar - c.value - 12, value);
	if (is_calibrated(f))
		bar(s, f, x + c.bar, y + 13, c.decision - c.bar - 12, colour);
	chip(s, f, x + c.decision, y + 8, c.threshold - c.decision - 12);
	other = put(s, SMALL, dim, PANGO_ALIGN_RIGHT, x + c.threshold, y + 8, c.end - c.threshold, limits);
	height = fmax(height, other) + 13;
	fill(s, line, x, y + height, width, 1);
	return height + 1;
}

static double head_of_rows(struct sheet *s, double x, double y, double width)
{
	struct columns c = columns_of(width);
	bool raw = count(s->page, 2) == s->page->n_findings;
	double height = left(s, SMALL, dim, x, y, c.value - 12, "Finding");

	(void)put(s, SMALL, dim, PANGO_ALIGN_RIGHT, x + c.value - 60, y, c.bar - c.value + 48, raw ? "Raw score" : "Probability");
	(void)put(s, SMALL, dim, PANGO_ALIGN_CENTER, x + c.decision, y, c.threshold - c.decision - 12, "Decision");
	(void)put(s, SMALL, dim, PANGO_ALIGN_RIGHT, x + c.threshold - 8, y, c.end - c.threshold + 8, raw ? "" : "Thresholds");
	fill(s, dim, x, y + height + 6, width, 1);
	return height + 7;
}

/* ---- the zones of the page, from above ------------------------------------------------------------- */

static double banner(struct sheet *s)
{
	const struct page *p = s->page;
	double y = 20;

	if (p->stamp[0] != '\0') {
		struct sheet measure = { NULL, p, s->out };
		double height = put(&measure, STAMP, white, PANGO_ALIGN_CENTER, MARGIN, 0, CONTENT, p->stamp);

		fill(s, red, 0, 0, PAGE_WIDTH, height + 24);
		(void)put(s, STAMP, white, PANGO_ALIGN_CENTER, MARGIN, 12, CONTENT, p->stamp);
		y += height + 24;
	}
	y += left(s, TITLE, amber, MARGIN, y, CONTENT, p->title) + 2;
	if (p->subtitle[0] != '\0')
		y += left(s, SMALL, dim, MARGIN, y, CONTENT, p->subtitle);
	return y + 18;
}

static double radiograph(struct sheet *s, double y)
{
	const struct page *p = s->page;
	size_t width, height;

	fit(p, LEFT_WIDTH, LEFT_HEIGHT_MAX, &width, &height);
	picture(s, NULL, MARGIN, y, width, height);
	(void)stamp_picture(s, MARGIN, y + (double)height, (double)width, true);
	s->out->picture = (struct page_box){ MARGIN, y, (double)width, (double)height };
	return (double)height + 8 + left(s, SMALL, dim, MARGIN, y + (double)height + 8, fmax((double)width, CAPTION_WIDTH_MIN),
					 p->caption);
}

static void caption_of_map(const struct page_finding *f, char *ret, size_t size)
{
	static const char *const words[] = { "present", "undetermined", "raw score", "absent" };

	char value[32];

	percent(f->probability, value, sizeof(value));
	if (is_calibrated(f))
		(void)snprintf(ret, size, "%s: %s, %s", f->name, words[rank(f)], value);
	else
		(void)snprintf(ret, size, "%s: highest raw score, %s%.2f; nothing was decided", f->name,
			       f->logit < 0 ? "\u2212" : "", fabs((double)f->logit));
}

/* Copies of the radiograph under the maps, side by side; returns the height. */
static double maps(struct sheet *s, double x, double y, double width, double height_max)
{
	const struct page *p = s->page;
	double each = floor((width - MAP_GAP * (double)(p->n_maps - 1)) / (double)p->n_maps), from = y, text = 0;
	size_t w, h;

	y += left(s, HEADING, white, x, y, width, "Attention, not a lesion outline") + 2;
	y += left(s, SMALL, dim, x, y, width, "Where the model looked for this finding. It did not see the dimmed edges.") + 10;
	fit(p, each, fmax(height_max - (y - from) - 48, MAP_HEIGHT_MIN), &w, &h);
	for (size_t i = 0; i < p->n_maps; i++) {
		double at = x + (double)i * (each + MAP_GAP);
		char caption[512];

		double stamp = stamp_picture(s, at, y + (double)h, fmax((double)w, fmin(each, STAMP_WIDTH_MIN)), false);

		picture(s, &p->map[i], at, y, w, h);
		s->out->map[i] = (struct page_box){ at, y, (double)w, (double)h };
		caption_of_map(&p->findings[p->map[i].finding], caption, sizeof(caption));
		text = fmax(text, stamp + left(s, SMALL, white, at, y + (double)h + stamp + 6, each, caption));
	}
	return y + (double)h + 6 + text - from;
}

/* Rows order[from..to) under one another; returns the height. */
static double rows(struct sheet *s, const size_t *order, size_t from, size_t to, double x, double y, double width)
{
	double start = y;

	y += head_of_rows(s, x, y, width);
	for (size_t i = from; i < to; i++)
		y += row(s, &s->page->findings[order[i]], x, y, width);
	return y - start;
}

/* How many rows fit. */
static size_t rows_that_fit(struct sheet *s, const size_t *order, double width, double height)
{
	struct sheet measure = { NULL, s->page, s->out };
	double y = head_of_rows(&measure, 0, 0, width);
	size_t n = 0;

	for (; n < s->page->n_findings; n++) {
		y += row(&measure, &s->page->findings[order[n]], 0, 0, width);
		if (y > height)
			break;
	}
	return n;
}

/* What was found, beside the picture; *ret_shown rows of it.  Returns the height. */
static double results(struct sheet *s, const size_t *order, double x, double y, double width, double height,
		      size_t *ret_shown)
{
	const struct page *p = s->page;
	double start = y, bottom = y + height;
	char text[192];

	summary(p, text, sizeof(text));
	y += left(s, SUMMARY, count(p, 0) > 0 ? amber : white, x, y, width, text) + 4;
	*ret_shown = 0;
	if (p->findings == NULL)
		return y - start;
	(void)snprintf(text, sizeof(text), "%zu finding%s looked for; nothing is said about anything else.%s", p->n_findings,
		       plural(p->n_findings), count(p, 2) == p->n_findings ? "" :
		       " Absent below, present at or above the thresholds.");
	y += left(s, SMALL, dim, x, y, width, text) + 14;
	*ret_shown = rows_that_fit(s, order, width, bottom - y - (p->n_maps > 0 ? MAP_ROOM : 0));
	y += rows(s, order, 0, *ret_shown, x, y, width);
	if (p->n_maps > 0) {
		y += GAP;
		y += maps(s, x, y, width, bottom - y);
	}
	return y - start;
}

/* The rows that had no room above, in two columns. */
static double more_results(struct sheet *s, const size_t *order, size_t shown, double y)
{
	size_t rest = s->page->n_findings - shown, half = (rest + 1) / 2;
	double width = (CONTENT - 2 * GAP) / 2, height;

	if (rest == 0)
		return 0;
	height = rows(s, order, shown, shown + half, MARGIN, y + GAP, width);
	if (rest > half)
		height = fmax(height, rows(s, order, shown + half, shown + rest, MARGIN + width + 2 * GAP, y + GAP, width));
	return height + GAP;
}

static double foot(struct sheet *s, double y)
{
	double start = y;

	y += GAP;
	for (size_t i = 0; i < s->page->n_notes; i++)
		y += left(s, SMALL, white, MARGIN, y, CONTENT, s->page->notes[i]) + 4;
	y += 8;
	fill(s, line, MARGIN, y, CONTENT, 1);
	y += 12;
	y += left(s, SMALL, dim, MARGIN, y, CONTENT, s->page->identity);
	return y + 20 - start;
}

/* All of it; returns the height of the page. */
static double page_of(struct sheet *s)
{
	const struct page *p = s->page;
	size_t *order = order_new(p), shown = 0;
	double y = banner(s), height, beside;

	if (p->gray != NULL) {
		height = radiograph(s, y);
		beside = MARGIN + fmax(s->out->picture.width, CAPTION_WIDTH_MIN) + GAP;
		height = fmax(height, results(s, order, beside, y, PAGE_WIDTH - MARGIN - beside, fmax(height, MAIN_HEIGHT_MIN),
					      &shown));
	} else {
		height = results(s, order, MARGIN, y, CONTENT, MAIN_HEIGHT_MIN, &shown);
	}
	y += height;
	y += more_results(s, order, shown, y);
	y += foot(s, y);
	free(order);
	return ceil(fmax(y, PAGE_HEIGHT_MIN));
}

/* ---- outside ------------------------------------------------------------------------------------- */

static void take_pixels(cairo_surface_t *surface, struct page_drawn *out)
{
	const unsigned char *data = cairo_image_surface_get_data(surface);
	size_t stride = (size_t)cairo_image_surface_get_stride(surface);

	out->rgb = xcalloc((size_t)out->width * out->height, 3);
	for (size_t y = 0; y < out->height; y++) {
		const uint32_t *from = (const uint32_t *)(const void *)(data + y * stride);
		uint8_t *to = out->rgb + y * out->width * 3;

		for (size_t x = 0; x < out->width; x++) {
			to[3 * x] = (uint8_t)(from[x] >> 16);
			to[3 * x + 1] = (uint8_t)(from[x] >> 8);
			to[3 * x + 2] = (uint8_t)from[x];
		}
	}
}

/* The height of the page, if it is one that can be drawn. */
static int measure(const struct page *page, struct page_drawn *out, double *ret, struct err *e)
{
	struct sheet s = { NULL, page, out };

	*ret = page_of(&s);
	if (*ret > PAGE_HEIGHT_MAX)
		return err_set(e, -E2BIG, "a page of %.0f lines, at most %d are drawn", *ret, PAGE_HEIGHT_MAX);
	return 0;
}

static void draw(cairo_t *cr, const struct page *page, struct page_drawn *out)
{
	struct sheet s = { cr, page, out };

	set_colour(&s, background);
	cairo_paint(cr);
	(void)page_of(&s);
}

static int page_err(cairo_t *cr, struct err *e)
{
	cairo_status_t status = cairo_status(cr);

	if (status == CAIRO_STATUS_SUCCESS)
		status = cairo_surface_status(cairo_get_target(cr));
	return status == CAIRO_STATUS_SUCCESS ? 0 : err_set(e, -ENOMEM, "page: %s", cairo_status_to_string(status));
}

int page_draw(const struct page *page, struct page_drawn **ret, struct err *e)
{
	struct page_drawn *out = xcalloc(1, sizeof(*out));
	double height;
	cairo_t *cr;
	int r = measure(page, out, &height, e);

	if (r < 0) {
		page_free(out);
		return r;
	}
	out->width = PAGE_WIDTH;
	out->height = (unsigned)height;
	cr = draw_on(cairo_image_surface_create(CAIRO_FORMAT_RGB24, PAGE_WIDTH, (int)out->height));
	draw(cr, page, out);
	cairo_surface_flush(cairo_get_target(cr));
	r = page_err(cr, e);
	if (r == 0)
		take_pixels(cairo_get_target(cr), out);
	cairo_destroy(cr);
	if (r < 0) {
		page_free(out);
		return r;
	}
	*ret = out;
	return 0;
}

void page_free(struct page_drawn *drawn)
{
	if (drawn == NULL)
		return;
	free(drawn->rgb);
	free(drawn);
}

static cairo_status_t append(void *arg, const unsigned char *p, unsigned n)
{
	g_byte_array_append(arg, p, n);
	return CAIRO_STATUS_SUCCESS;
}

int page_write_pdf(const struct page *page, size_t n, const char *title, const char *created, uint8_t **ret, size_t *ret_n,
		   struct err *e)
{
	GByteArray *bytes = g_byte_array_new();
	cairo_surface_t *surface = cairo_pdf_surface_create_for_stream(append, bytes, PAGE_WIDTH * PDF_SCALE, 100);
	struct page_drawn *out = xcalloc(1, sizeof(*out));
	cairo_t *cr = draw_on(surface);
	int r = 0;

	cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_TITLE, title);
	cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_CREATE_DATE, created);
	cairo_scale(cr, PDF_SCALE, PDF_SCALE);
	for (size_t i = 0; r == 0 && i < n; i++) {
		double height;

		r = measure(&page[i], out, &height, e);
		if (r < 0)
			break;
		cairo_pdf_surface_set_size(surface, PAGE_WIDTH * PDF_SCALE, height * PDF_SCALE);
		out->n_texts = 0;
		draw(cr, &page[i], out);
		cairo_show_page(cr);
	}
	cairo_surface_finish(surface);
	if (r == 0)
		r = page_err(cr, e);
	cairo_destroy(cr);
	free(out);
	if (r == 0) {
		*ret = xcalloc(bytes->len, 1);
		memcpy(*ret, bytes->data, bytes->len);
		*ret_n = bytes->len;
	}
	(void)g_byte_array_free(bytes, TRUE);
	return r;
}
