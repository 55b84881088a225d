/* test_page.c: what a page of results looks like: nothing cut, nothing over something else, attention
 * where it belongs, the same bytes twice.
 *
 * With PAGE_DIR in the environment each case is written there as a PPM, to be looked at.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "dicom/page.h"

#include "tests/tap.h"

/* What fontconfig keeps for the life of the process is not a leak of ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libfontconfig\n";
}

#define WIDTH 1200
#define HEIGHT 1500
#define MANY 256

static const char *const names14[] = {
	"Atelectasis", "Cardiomegaly", "Pleural effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
	"Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural thickening", "Hernia",
};
static const char long_name[] = "Enlargement of the cardiomediastinal silhouette, new or progressive";
static const char unbroken[] = "Lungenrundherdverdachtsabklaerungsbefundbesprechungsterminvorschlag";
static const char foreign[] = "Pleuraerguß, épanchement, Κύφωση, пневмония";

static uint8_t gray[HEIGHT * WIDTH];
static uint8_t shade[14 * 14], spike[14 * 14];
static struct page_finding findings[MANY];

static void make_picture(void)
{
	for (size_t y = 0; y < HEIGHT; y++)
		for (size_t x = 0; x < WIDTH; x++)
			gray[y * WIDTH + x] = (uint8_t)(90 + 60 * sin((double)x / 90) * cos((double)y / 140));
	for (size_t i = 0; i < sizeof(shade); i++) {
		double dx = (double)(i % 14) - 9, dy = (double)(i / 14) - 8.5;

		shade[i] = (uint8_t)(255 * exp(-(dx * dx + dy * dy) / 8));
	}
}

static void make_findings(size_t n, bool calibrated, size_t present, size_t undetermined)
{
	for (size_t i = 0; i < n; i++) {
		findings[i] = (struct page_finding){
			.name = names14[i % 14],
			.logit = -2.5f + 0.1f * (float)(i % 20),
			.probability = (double)NAN,
			.absent_below = (double)NAN,
			.present_from = (double)NAN,
		};
		if (!calibrated)
			continue;
		findings[i].absent_below = 0.05;
		findings[i].present_from = 0.35;
		findings[i].decision = i < present ? SR_PRESENT : i < present + undetermined ? SR_UNDETERMINED : SR_ABSENT;
		findings[i].probability = findings[i].decision == SR_PRESENT ? 0.4 + 0.59 * (double)i / (double)n :
					  findings[i].decision == SR_ABSENT  ? 0.01 : 0.2;
	}
}

static struct page usual(size_t n)
{
	static const char *const notes[] = { "Image 2 of 2 was not analysed: not a frontal chest radiograph: view LL" };
	struct page p = {
		.stamp = "",
		.title = "AI result, not verified",
		.subtitle = "Not a medical device. For research and quality assurance; do not base a decision on it.",
		.caption = "Image 1 of 2, as its own window shows it",
		.gray = gray, .width = WIDTH, .height = HEIGHT,
		.map_x = -80, .map_y = 94, .map_width = 1312, .map_height = 1312,
		.findings = findings, .n_findings = n,
		.notes = notes, .n_notes = 1,
		.identity = "carzerod 0.1.0, model CARZero, weights 0123456789ab, findings ba9876543210, window, f32",
	};

	return p;
}

static void add_map(struct page *p, size_t finding, const uint8_t *map)
{
	p->map[p->n_maps++] = (struct page_map){ finding, 14, map };
}

static void write_ppm(const char *name, const struct page_drawn *d)
{
	const char *dir = getenv("PAGE_DIR");
	char path[512];
	FILE *f;

	if (dir == NULL)
		return;
	(void)snprintf(path, sizeof(path), "%s/%s.ppm", dir, name);
	f = fopen(path, "w");
	if (f == NULL)
		return;
	fprintf(f, "P6 %u %u 255\n", d->width, d->height);
	(void)fwrite(d->rgb, 3, (size_t)d->width * d->height, f);
	(void)fclose(f);
}

static bool inside(struct page_box in, struct page_box out)
{
	return in.width == 0 || (in.x >= out.x - 1 && in.y >= out.y - 1 && in.x + in.width <= out.x + out.width + 1 &&
				 in.y + in.height <= out.y + out.height + 1);
}

static bool overlap(struct page_box a, struct page_box b)
{
	return a.width > 0 && b.width > 0 && a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height &&
	       b.y < a.y + a.height;
}

static void check_layout(const char *name, const struct page_drawn *d)
{
	const struct page_box whole = { 0, 0, d->width, d->height };
	size_t cut = 0, outside = 0, crossing = 0, under = 0;

	for (size_t i = 0; i < d->n_texts; i++) {
		cut += !inside(d->text[i], d->room[i]);
		outside += !inside(d->text[i], whole);
		for (size_t j = 0; j < i; j++)
			crossing += overlap(d->text[i], d->text[j]);
		/* only a stamp may lie on a picture, and then within it */
		under += overlap(d->text[i], d->picture) && !inside(d->text[i], d->picture);
	}
	is_int(cut, 0, "%s: no text is wider or higher than its room (%zu texts)", name, d->n_texts);
	is_int(outside, 0, "%s: or leaves the page of %u x %u", name, d->width, d->height);
	is_int(crossing, 0, "%s: no text lies on another", name);
	is_int(under, 0, "%s: or half on the picture", name);
	ok(d->n_texts < PAGE_TEXTS_MAX, "%s: all were looked at", name);
}

static void try(const char *name, const struct page *p)
{
	struct page_drawn *d = NULL, *again = NULL;
	struct err e = { "" };

	if (!ok(page_draw(p, &d, &e) == 0 && page_draw(p, &again, &e) == 0, "%s is drawn %s", name, e.text))
		return;
	write_ppm(name, d);
	check_layout(name, d);
	ok(d->height == again->height && memcmp(d->rgb, again->rgb, (size_t)d->width * d->height * 3) == 0,
	   "%s: the same bytes again", name);
	page_free(d);
	page_free(again);
}

static void test_cases(void)
{
	struct page p;
	static const char *const many_notes[] = { "Image 2 of 9 was not analysed: no image data", "Image 3 of 9 was not analysed: its header cannot be read", "Amended: replaces an earlier result of this study." };

	make_findings(14, true, 1, 2);
	p = usual(14);
	add_map(&p, 0, shade);
	try("one-present", &p);
	make_findings(14, true, 3, 2);
	p = usual(14);
	p.stamp = "DEMONSTRATION MODEL, NOT VALID ON PATIENTS";
	for (size_t i = 0; i < 3; i++)
		add_map(&p, 2 - i, shade);
	try("three-present-stamped", &p);
	make_findings(14, true, 0, 0);
	p = usual(14);
	try("none-present", &p);
	make_findings(60, true, 2, 11);
	p = usual(60);
	add_map(&p, 1, shade);
	add_map(&p, 0, shade);
	try("sixty", &p);
	make_findings(60, true, 0, 0);
	p = usual(60);
	try("sixty-none-present", &p);
	make_findings(14, false, 0, 0);
	p = usual(14);
	add_map(&p, 9, shade);
	try("uncalibrated", &p);
	p = usual(0);
	p.gray = NULL;
	p.findings = NULL;
	p.notes = many_notes;
	p.n_notes = 3;
	try("not-analysed", &p);
	make_findings(14, true, 2, 3);
	findings[0].name = findings[4].name = findings[10].name = long_name;
	findings[1].name = findings[5].name = unbroken;
	findings[2].name = foreign;
	p = usual(14);
	add_map(&p, 0, shade);
	add_map(&p, 1, shade);
	try("long-names", &p);
	make_findings(MANY, true, 3, 100);
	for (size_t i = 0; i < MANY; i++)
		findings[i].name = long_name;
	p = usual(MANY);
	for (size_t i = 0; i < 3; i++)
		add_map(&p, i, shade);
	try("as-many-as-can-be", &p);
	make_findings(1, true, 1, 0);
	p = usual(1);
	p.width = 1500;
	p.height = 500;
	p.caption = "Image 1 of 1";
	add_map(&p, 0, shade);
	try("low-and-wide", &p);
	p.width = 200;
	p.height = 1500;
	try("narrow-and-high", &p);
	p.width = 64;
	p.height = 64;
	try("tiny", &p);
}

/* The most coloured pixel of a box. */
static void hottest(const struct page_drawn *d, struct page_box box, double *ret_x, double *ret_y)
{
	int most = 0;
	double sx = 0, sy = 0, n = 0;

	for (size_t y = (size_t)box.y; y < (size_t)(box.y + box.height); y++)
		for (size_t x = (size_t)box.x; x < (size_t)(box.x + box.width); x++) {
			const uint8_t *c = d->rgb + (y * d->width + x) * 3;
			int colour = c[0] - c[2];

			if (colour > most) {
				most = colour;
				sx = sy = n = 0;
			}
			if (colour == most && most > 0) {
				sx += (double)x + 0.5;
				sy += (double)y + 0.5;
				n++;
			}
		}
	*ret_x = n > 0 ? (sx / n - box.x) / box.width : -1;
	*ret_y = n > 0 ? (sy / n - box.y) / box.height : -1;
}

/* One field alone has attention: the glow's middle lies on the field's middle. */
static void test_spike(void)
{
	static const struct {
		size_t width, height, row, column;
		double x, y, side; /* of the map, in the picture */
	} cases[] = {
		{ 1200, 1500, 3, 10, -56.25, 93.75, 1312.5 }, { 1500, 1200, 9, 2, 93.75, -56.25, 1312.5 },
		{ 1000, 1000, 7, 7, 62.5, 62.5, 875 },	      { 400, 1500, 12, 6, -456.25, 93.75, 1312.5 },
	};

	make_findings(1, true, 1, 0);
	memset(gray, 100, sizeof(gray));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct page p = usual(1);
		struct page_drawn *d = NULL;
		struct err e = { "" };
		double x, y, field = cases[i].side / 14;
		double want_x = (cases[i].x + ((double)cases[i].column + 0.5) * field) / (double)cases[i].width;
		double want_y = (cases[i].y + ((double)cases[i].row + 0.5) * field) / (double)cases[i].height;

		memset(spike, 0, sizeof(spike));
		spike[cases[i].row * 14 + cases[i].column] = 255;
		p.width = cases[i].width;
		p.height = cases[i].height;
		p.map_x = cases[i].x;
		p.map_y = cases[i].y;
		p.map_width = p.map_height = cases[i].side;
		add_map(&p, 0, spike);
		if (!ok(page_draw(&p, &d, &e) == 0, "a spike in a picture of %zu x %zu %s", p.width, p.height, e.text))
			continue;
		hottest(d, d->map[0], &x, &y);
		ok(fabs(x - want_x) * d->map[0].width < 1.5 && fabs(y - want_y) * d->map[0].height < 1.5,
		   "is hottest at %.4f, %.4f; wanted %.4f, %.4f", x, y, want_x, want_y);
		hottest(d, d->picture, &x, &y);
		ok(x < 0 && y < 0, "and the radiograph itself stays grey");
		page_free(d);
	}
}

static void test_prepare(void)
{
	static const char *const texts[] = { long_name, unbroken, foreign }, *const strange[] = { "plain", "\U0010FFFD" };
	struct err e = { "" };
	struct page_drawn *d = NULL;
	struct page p;

	is_int(page_prepare("en", texts, ARRAY_SIZE(texts), &e), 0, "fonts have these texts %s", e.text);
	is_int(page_prepare("en", strange, ARRAY_SIZE(strange), &e), -ENOENT, "no font has a private character");
	ok(strstr(e.text, "text 2") != NULL && strstr(e.text, "U+10FFFD") != NULL, "and that is said: %s", e.text);
	make_findings(2, true, 1, 0);
	findings[0].name = strange[1];
	findings[1].name = "\xff broken";
	p = usual(2);
	is_int(page_draw(&p, &d, &e), 0, "it is drawn all the same");
	page_free(d);
}

static void test_pdf(void)
{
	struct page p[2];
	uint8_t *a = NULL, *b = NULL;
	size_t n_a = 0, n_b = 0;
	struct err e = { "" };
	const char *dir = getenv("PAGE_DIR");

	make_findings(60, true, 2, 11);
	p[0] = p[1] = usual(60);
	add_map(&p[0], 1, shade);
	p[1].n_findings = 14;
	is_int(page_write_pdf(p, 2, "AI result", "2026-01-02T03:04:05", &a, &n_a, &e), 0, "two pages of PDF %s", e.text);
	is_int(page_write_pdf(p, 2, "AI result", "2026-01-02T03:04:05", &b, &n_b, &e), 0, "again");
	ok(n_a > 1000 && n_a == n_b && memcmp(a, b, n_a) == 0, "the same %zu bytes", n_a);
	ok(memcmp(a, "%PDF-1", 6) == 0, "it is a PDF");
	if (dir != NULL) {
		char path[512];
		FILE *f;

		(void)snprintf(path, sizeof(path), "%s/two.pdf", dir);
		f = fopen(path, "w");
		if (f != NULL) {
			(void)fwrite(a, 1, n_a, f);
			(void)fclose(f);
		}
	}
	free(a);
	free(b);
}

int main(void)
{
	make_picture();
	test_prepare();
	test_cases();
	test_spike();
	test_pdf();
	return done();
}
