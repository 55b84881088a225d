/* render.c: from a spec to a film.
 *
 * Job: settle what the spec left open, let the view paint its line integrals, then expose and develop:
 * scatter, processing, the curve of the film, grain, the lead letter, collimation.
 * Promise: the same spec gives the same film; the curve adapts as a machine's exposure control does, so
 * a heavy and a slender person both fill the grey scale.
 * Never: knows about files or DICOM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

#include "body.h"

static const char *const view_names[] = { "PA", "AP", "LL", "hand", "blank" };
static const char *const kind_names[PHANTOM_KINDS] = {
	"effusion", "pneumothorax", "cardiomegaly", "opacity", "nodule", "mass", "edema", "emphysema",
	"atelectasis", "pleural-thickening", "fracture", "pacemaker", "tube", "line",
};
static const char *const side_names[] = { NULL, "right", "left", NULL };
static const char *const size_names[] = { NULL, "small", "moderate", "large", "massive" };
static const char *const lobe_names[] = { NULL, "RUL", "RML", "RLL", "LUL", "LLL" };

const char *phantom_view_name(enum phantom_view v)
{
	return view_names[v];
}

const char *phantom_kind_name(enum phantom_kind k)
{
	return kind_names[k];
}

const char *phantom_side_name(enum phantom_side s)
{
	return side_names[s];
}

const char *phantom_size_name(enum phantom_size s)
{
	return size_names[s];
}

const char *phantom_lobe_name(enum phantom_lobe l)
{
	return lobe_names[l];
}

struct phantom_person phantom_person_of(uint64_t seed)
{
	struct rng r = rng_open(seed, CHANCE_PERSON);
	struct phantom_person p;

	p.female = rng_below(&r, 2);
	p.age = 22 + rng_below(&r, 64);
	p.habitus = clampf(.5f * rng_bell(&r), -1, 1);
	return p;
}

static bool has_lobe(enum phantom_kind k)
{
	return k == PHANTOM_OPACITY || k == PHANTOM_NODULE || k == PHANTOM_MASS;
}

static void settle(struct phantom_finding *f, struct rng *r)
{
	enum phantom_side side = rng_below(r, 2) ? PHANTOM_LEFT : PHANTOM_RIGHT;
	enum phantom_size size = PHANTOM_SMALL + rng_below(r, 3);
	unsigned lobe = rng_below(r, 60);       /* divisible by 5, 3 and 2: one draw whatever is open */
	bool lobed = has_lobe(f->kind);
	bool central = f->kind == PHANTOM_CARDIOMEGALY || f->kind == PHANTOM_EDEMA ||
		       f->kind == PHANTOM_EMPHYSEMA || f->kind == PHANTOM_TUBE;

	if (f->size == PHANTOM_SIZE_ANY)
		f->size = size;
	if (f->size == PHANTOM_MASSIVE && f->kind != PHANTOM_EFFUSION)
		f->size = PHANTOM_LARGE;
	if (!lobed) {
		f->lobe = PHANTOM_LOBE_ANY;
	} else if (f->lobe == PHANTOM_LOBE_ANY) {
		f->lobe = f->side == PHANTOM_RIGHT ? PHANTOM_RUL + lobe % 3 :
			  f->side == PHANTOM_LEFT ? PHANTOM_LUL + lobe % 2 : PHANTOM_RUL + lobe % 5;
	}
	if (f->lobe != PHANTOM_LOBE_ANY)
		f->side = f->lobe <= PHANTOM_RLL ? PHANTOM_RIGHT : PHANTOM_LEFT;
	else if (central)
		f->side = PHANTOM_SIDE_NONE;
	else if (f->side == PHANTOM_SIDE_ANY)
		f->side = side;
	f->box = (struct phantom_box){ 0, 0, 0, 0 };
	f->contrast = 0;
}

/* ---- exposure and development */

enum { LEVELS = 1024 };

/* The tissue values that a share of the counted film stays below. */
static float level_below(const unsigned *count, float lo, float step, float share)
{
	unsigned total = 0, sum = 0;

	for (size_t i = 0; i < LEVELS; i++)
		total += count[i];
	for (size_t i = 0; i < LEVELS; i++) {
		sum += count[i];
		if ((float)sum >= share * (float)total)
			return lo + step * (float)i;
	}
	return lo + step * LEVELS;
}

/* Dark lung and dense middle of this film, from its inner part and without the air around the body. */
static void exposure(const struct canvas *c, float *ret_lo, float *ret_hi)
{
	const float lo = .02f, step = 2.0f / LEVELS;
	unsigned count[LEVELS] = { 0 };

	for (unsigned y = c->h / 8; y < c->h - c->h / 8; y += 2) {
		for (unsigned x = c->w / 8; x < c->w - c->w / 8; x += 2) {
			float t = (c->tissue[(size_t)y * c->w + x] - lo) / step;

			if (t >= 1)
				count[t < LEVELS ? (unsigned)t : LEVELS - 1]++;
		}
	}
	*ret_lo = level_below(count, lo, step, .05f);
	*ret_hi = level_below(count, lo, step, .95f);
}

/* Straight up to the middle, then a shoulder, so that dense parts keep detail and metal is white. */
static float film_curve(float t)
{
	float u = (t - .55f) / .43f;

	/* Stretched, so that the densest tissue, not only metal, comes near the white end. */
	return fminf(1.16f * (u <= 0 ? fmaxf(t, 0) : .55f + .43f * u / (1 + u)), 1);
}

static int develop(struct canvas *c, const struct phantom_spec *spec, float *px)
{
	struct rng r = rng_open(spec->seed, CHANCE_FILM), grain = rng_open(spec->seed, CHANCE_GRAIN);
	float shorter = (float)(c->w < c->h ? c->w : c->h);
	float local = rng_range(&r, .15f, .50f), gamma_shift = rng_range(&r, -.10f, .12f);
	float latitude = rng_range(&r, .62f, .76f);
	/* Grain is per area: a film of fewer, larger pixels averages it away. */
	float noise = rng_range(&r, .008f, .028f) * sqrtf(shorter / 2048);
	size_t n = (size_t)c->w * c->h;
	float lo, hi, scale;
	int rc;

	paint_soften(c, c->tissue, .8f);
	exposure(c, &lo, &hi);
	rc = paint_wide_mean(c, c->tissue, .07f, c->amp);
	if (rc < 0)
		return rc;
	if (hi < lo + .2f)
		hi = lo + .2f;          /* nothing but air or one plate: do not stretch grain to a picture */
	scale = latitude / (hi - lo);
	for (size_t i = 0; i < n; i++) {
		float t = c->tissue[i], g;

		/* Local contrast, as every digital chest film has: less of the wide mean. */
		t += local * (t - c->amp[i]) * edge(t - .12f, .12f);
		g = (t - lo) * scale + .20f + gamma_shift * .5f;
		/* Few quanta behind thick parts, so more grain there. */
		g += noise * rng_bell(&grain) * (.5f + .5f * clampf(t, 0, 1.5f));
		/* Bare exposure is black whatever the curve is. */
		px[i] = film_curve(g) * edge(t - .03f, .05f);
	}
	return 0;
}

/* ---- what lies on the cassette */

/* Draws the letter of the side in lead, in film coordinates, on the film's own grey scale. */
static void lead_letter(struct canvas *c, float *px, char letter, float u, float v, float size)
{
	static const struct dab l[] = { { 0, 0, 0, 0 }, { 0, 1, 0, 0 }, { .55f, 1, 0, 0 } };
	static const struct dab p_bow[] = { { 0, 1, 0, 0 }, { 0, 0, 0, 0 }, { .38f, .02f, 0, 0 }, { .55f, .15f, 0, 0 },
					    { .55f, .36f, 0, 0 }, { .38f, .5f, 0, 0 }, { .02f, .52f, 0, 0 } };
	static const struct dab r_leg[] = { { .28f, .52f, 0, 0 }, { .58f, 1, 0, 0 } };
	const struct { const struct dab *d; size_t n; } strokes[] = {
		{ letter == 'L' ? l : p_bow, letter == 'L' ? 3 : 7 }, { r_leg, letter == 'L' ? 0 : 2 },
	};
	struct canvas flat = *c;
	float half = .5f * (float)(c->w < c->h ? c->w : c->h);

	/* The letter does not tilt or zoom with the patient: a canvas with an identity pose. */
	flat.scale = half;
	flat.u0 = flat.v0 = 0;
	flat.ux = flat.vy = half;
	flat.uy = flat.vx = 0;
	memset(c->vessel, 0, (size_t)c->w * c->h * sizeof(float));
	for (size_t k = 0; k < 2; k++) {
		struct dab d[8];

		for (size_t i = 0; i < strokes[k].n; i++)
			d[i] = (struct dab){ u + size * strokes[k].d[i].x, v + size * strokes[k].d[i].y,
					     .085f * size, 1 };
		if (strokes[k].n)
			paint_stroke(&flat, flat.vessel, d, strokes[k].n, PROFILE_FLAT);
	}
	for (size_t i = 0; i < (size_t)c->w * c->h; i++)
		px[i] += (.97f - px[i]) * fminf(c->vessel[i], 1);
}

static void cassette(struct canvas *c, const struct phantom_spec *spec, float *px)
{
	struct rng r = rng_open(spec->seed, CHANCE_FILM + 1000);
	float half = .5f * (float)(c->w < c->h ? c->w : c->h), reach_x = (float)c->w / half;
	bool left = rng_below(&r, 3) > 0;       /* which side of a frontal film the letter lies on */
	float in = rng_range(&r, .14f, .22f), v = rng_range(&r, .10f, .20f), size = rng_range(&r, .07f, .09f);
	float side[4], soft = fmaxf(.004f * half, .6f), lean = rng_range(&r, -.004f, .004f);

	/* A left lateral has its left side at the plate; the hand is a right one. */
	left = (left || spec->view == PHANTOM_LL) && spec->view != PHANTOM_HAND;
	if (spec->view != PHANTOM_BLANK)
		lead_letter(c, px, left ? 'L' : 'R', left ? reach_x - in : in - .06f, v, size);
	for (int i = 0; i < 4; i++)
		side[i] = half * (rng_below(&r, 2) ? rng_range(&r, .015f, .06f) : -.02f);
	for (unsigned y = 0; y < c->h; y++) {
		float fy = (float)y, up = edge(fy - side[0], soft);
		float low = edge((float)c->h - fy - side[1], soft);

		for (unsigned x = 0; x < c->w; x++) {
			float fx = (float)x, slope = lean * (fy - half);

			px[(size_t)y * c->w + x] *= up * low * edge(fx - side[2] + slope, soft) *
						    edge((float)c->w - fx - side[3] + slope, soft);
		}
	}
}

/* Contrast as phantom.h defines it. */
static void measure(const struct phantom_film *film, struct phantom_finding *f)
{
	float cx = .5f * (float)(f->box.x0 + f->box.x1), cy = .5f * (float)(f->box.y0 + f->box.y1);
	float rx = .5f * (float)(f->box.x1 - f->box.x0), ry = .5f * (float)(f->box.y1 - f->box.y0);
	float margin = .012f * (float)(film->width < film->height ? film->width : film->height);
	double in = 0, ring = 0, square = 0, n_in = 0, n_ring = 0;

	if (f->box.x1 == 0)
		return;
	for (unsigned y = 0; y < film->height; y++) {
		for (unsigned x = 0; x < film->width; x++) {
			float v = film->px[(size_t)y * film->width + x];
			float dx = fabsf((float)x + .5f - cx), dy = fabsf((float)y + .5f - cy), q;

			if (dx > 2 * rx + 2 * margin || dy > 2 * ry + 2 * margin)
				continue;
			if (dx * dx / (rx * rx) + dy * dy / (ry * ry) < .8f) {
				in += v;
				n_in++;
			}
			dx = fmaxf(dx - margin, 0) / rx;
			dy = fmaxf(dy - margin, 0) / ry;
			q = dx * dx + dy * dy;
			if (q > 1.1f && q < 3) {
				ring += v;
				square += v * v;
				n_ring++;
			}
		}
	}
	if (n_in > 0 && n_ring > 0) {
		ring /= n_ring;
		f->contrast = (float)((in / n_in - ring) / sqrt(fmax(square / n_ring - ring * ring, 1e-6)));
	}
}

int phantom_render(const struct phantom_spec *spec, struct phantom_film *ret)
{
	bool chest = spec->view == PHANTOM_PA || spec->view == PHANTOM_AP;
	struct phantom_film film = { .width = spec->width, .height = spec->height, .findings = spec->findings };
	struct pose pose = { .zoom_x = 1, .zoom_y = 1 };
	struct canvas c;
	int rc;

	if (spec->width < PHANTOM_MIN_SIDE || spec->width > PHANTOM_MAX_SIDE ||
	    spec->height < PHANTOM_MIN_SIDE || spec->height > PHANTOM_MAX_SIDE ||
	    spec->findings > PHANTOM_MAX_FINDINGS || (spec->findings && !chest))
		return -EINVAL;
	for (size_t i = 0; i < spec->findings; i++) {
		struct rng r = rng_open(spec->seed, CHANCE_FINDING + 1000 + i);

		film.finding[i] = spec->finding[i];
		settle(&film.finding[i], &r);
	}
	film.px = malloc((size_t)film.width * film.height * sizeof(float));
	if (!film.px)
		return -ENOMEM;
	if (chest)
		chest_pose(spec, &pose);
	rc = canvas_open(&c, film.width, film.height, &pose);
	if (rc < 0) {
		free(film.px);
		return rc;
	}
	if (chest)
		chest_paint(&c, spec, &film);
	else if (spec->view == PHANTOM_LL)
		lateral_paint(&c, spec);
	else if (spec->view == PHANTOM_HAND)
		hand_paint(&c, spec);
	else
		blank_paint(&c, spec);
	rc = develop(&c, spec, film.px);
	if (rc == 0)
		cassette(&c, spec, film.px);
	for (size_t i = 0; rc == 0 && i < film.findings; i++)
		if (has_lobe(film.finding[i].kind))
			measure(&film, &film.finding[i]);
	canvas_close(&c);
	if (rc < 0) {
		free(film.px);
		return rc;
	}
	*ret = film;
	return 0;
}

void phantom_film_free(struct phantom_film *film)
{
	free(film->px);
	film->px = NULL;
}
