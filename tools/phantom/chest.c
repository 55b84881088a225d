/* chest.c: the frontal chest: trunk, lungs, heart, vessels, bones, then what is wrong with them.
 *
 * Job: add up, for every ray, how much it meets.  The outlines are splines over body height or width
 * (tables, so that a pixel costs look-ups only); ribs are hoops in space, projected, so that their back
 * arcs run level and their front arcs steeply and both grow dense where they turn away from the plate;
 * lung markings are branching trees from the hila.
 * Promise: findings act on the anatomy (fluid replaces air, a collapsed lung loses its markings, a large
 * heart moves its border), they are not stickers; every one reports a box around its visible part.
 * Never: takes anything from a patient's image.
 *
 * Arrays of two are right, left; the right side is x < 0, the viewer's left.  `xs` is the distance from
 * the midline towards the side in question.
 */
#include "rng.h"

#include "body.h"

/* What a full ray of lung air removes, in trunk thicknesses. */
static const float air_gain = .70f;
static const float pi = 3.14159265f;

struct chest {
	struct canvas *c;
	const struct phantom_spec *spec;
	struct phantom_film *film;
	struct phantom_person who;
	bool ap;
	float apex;             /* y of the top of the lungs */
	float turn;             /* rotation about the long axis: moves front and back apart */
	float shift;            /* of the mediastinum, pushed by a large effusion */
	float heart;            /* size against an ordinary heart */
	float markings;         /* density of the lung vessels */
	float clear;            /* extra air */
	float fat;
	float arm;              /* slope of the upper arm's inner border: raised 1, hanging 3 */
	struct curve wall;      /* xs of the lung's outer border, by y */
	struct curve border[2]; /* xs of the mediastinum and heart, by y */
	struct curve dome[2];   /* y of the diaphragm, by xs */
	struct curve trunk;     /* xs of the skin, by y */
	struct curve thick;     /* of the trunk, by y */
	struct curve shoulder;  /* y of the skin above the shoulder, by xs */
};

static const float sign_of[2] = { -1, 1 };

static size_t side_index(const struct phantom_finding *f)
{
	return f->side == PHANTOM_RIGHT ? 0 : 1;
}

/* small 0, moderate 1, large 2, massive 3 */
static float size_step(const struct phantom_finding *f)
{
	return (float)((int)f->size - PHANTOM_SMALL);
}

static const struct phantom_finding *find(const struct chest *ch, enum phantom_kind kind)
{
	for (size_t i = 0; i < ch->film->findings; i++)
		if (ch->film->finding[i].kind == kind)
			return &ch->film->finding[i];
	return NULL;
}

/* ---- boxes */

static void box_window(struct phantom_finding *f, struct window w)
{
	struct phantom_box b = { (unsigned)w.x0, (unsigned)w.y0, (unsigned)w.x1, (unsigned)w.y1 };

	if (w.x1 <= w.x0 || w.y1 <= w.y0)
		return;
	if (f->box.x1 == 0) {
		f->box = b;
		return;
	}
	f->box.x0 = b.x0 < f->box.x0 ? b.x0 : f->box.x0;
	f->box.y0 = b.y0 < f->box.y0 ? b.y0 : f->box.y0;
	f->box.x1 = b.x1 > f->box.x1 ? b.x1 : f->box.x1;
	f->box.y1 = b.y1 > f->box.y1 ? b.y1 : f->box.y1;
}

static float *cover_at(const struct chest *ch, const struct phantom_finding *f, int px, int py)
{
	size_t x = (size_t)px * PHANTOM_CELLS / ch->c->w, y = (size_t)py * PHANTOM_CELLS / ch->c->h;

	return &ch->film->cover[f - ch->film->finding][y * PHANTOM_CELLS + x];
}

static void cover_window(const struct chest *ch, const struct phantom_finding *f, struct window w)
{
	float pixel = PHANTOM_CELLS * PHANTOM_CELLS / ((float)ch->c->w * (float)ch->c->h);

	for (int y = w.y0; y < w.y1; y++) {
		for (int x = w.x0; x < w.x1; x++) {
			float *cell = cover_at(ch, f, x, y);

			*cell = fminf(*cell + pixel, 1);
		}
	}
}

/* A thin thing covers every cell that it runs through. */
static void box_dabs(const struct chest *ch, struct phantom_finding *f, const struct dab *d, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct window w = canvas_window(ch->c, d[i].x - d[i].w, d[i].y - d[i].w, d[i].x + d[i].w,
						d[i].y + d[i].w);

		box_window(f, w);
		if (w.x1 > w.x0 && w.y1 > w.y0)
			*cover_at(ch, f, (w.x0 + w.x1 - 1) / 2, (w.y0 + w.y1 - 1) / 2) = 1;
	}
}

/* ---- the shape of this person */

static void fit_lungs(struct chest *ch, struct rng *r)
{
	const struct phantom_finding *emphysema = find(ch, PHANTOM_EMPHYSEMA);
	float wide = 1 + rng_range(r, -.03f, .03f) + (emphysema ? .03f : 0);
	float lift = ch->ap ? -.07f : 0;        /* a lying patient breathes in less */
	float down = emphysema ? .09f + .035f * size_step(emphysema) : 0;
	float level[2] = { .30f + lift + rng_range(r, -.03f, .03f), 0 };
	struct knot wall[] = { { -.78f, .22f }, { -.72f, .31f }, { -.65f, .39f }, { -.55f, .462f }, { -.40f, .535f },
			       { -.20f, .600f }, { 0, .640f }, { .20f, .668f }, { .40f, .690f }, { .60f, .703f },
			       { .80f, .705f } };

	for (size_t i = 0; i < sizeof(wall) / sizeof(wall[0]); i++)
		wall[i].value *= wide;
	curve_fit(&ch->wall, wall, sizeof(wall) / sizeof(wall[0]));

	level[1] = level[0] + rng_range(r, .02f, .07f);
	for (size_t i = 0; i < ch->film->findings; i++) {
		const struct phantom_finding *f = &ch->film->finding[i];

		if (f->kind == PHANTOM_ATELECTASIS)
			level[side_index(f)] -= .05f + .03f * size_step(f);
	}
	for (size_t s = 0; s < 2; s++) {
		float y = level[s] + down, flat = emphysema ? .5f : 1;
		const struct knot dome[] = {
			{ 0, y + .05f * flat }, { .10f, y + .03f * flat }, { .20f, y + .008f }, { .29f, y },
			{ .40f, y + .02f * flat }, { .50f, y + .065f * flat }, { .58f, y + .125f * flat },
			{ .65f, y + .20f * flat }, { .70f, y + .27f * flat }, { .74f, y + .36f * flat },
		};

		curve_fit(&ch->dome[s], dome, sizeof(dome) / sizeof(dome[0]));
	}
}

/* The silhouette between the lungs.  Above, great vessels; below, the heart, which alone scales. */
static void fit_heart(struct chest *ch, struct rng *r)
{
	float knob = rng_range(r, .85f, 1.15f) + .004f * ((float)ch->who.age - 50);
	float size = ch->heart, low = curve_at(&ch->dome[1], .2f) - .34f;
	const struct knot left[] = {
		{ -1.0f, .10f }, { -.70f, .105f }, { -.60f, .112f }, { -.50f, .125f }, { -.44f, .158f * knob },
		{ -.38f, .172f * knob }, { -.31f, .140f }, { -.27f, .136f }, { -.20f, .158f }, { -.14f, .178f },
		{ -.05f + low, .12f + .115f * size }, { .05f + low, .12f + .18f * size },
		{ .13f + low, .12f + .235f * size }, { .21f + low, .12f + .278f * size },
		{ .27f + low, .12f + .287f * size }, { .32f + low, .12f + .27f * size },
		{ .37f + low, .12f + .22f * size }, { .43f + low, .15f }, { .55f + low, .10f }, { 1.2f, .10f },
	};
	const struct knot right[] = {
		{ -1.0f, .10f }, { -.70f, .082f }, { -.60f, .095f }, { -.45f, .122f }, { -.25f, .128f },
		{ -.14f, .135f }, { -.02f, .10f + .065f * size }, { .08f, .10f + .092f * size },
		{ .18f, .10f + .095f * size }, { .28f, .10f + .075f * size }, { .36f, .12f }, { 1.2f, .10f },
	};

	curve_fit(&ch->border[0], right, sizeof(right) / sizeof(right[0]));
	curve_fit(&ch->border[1], left, sizeof(left) / sizeof(left[0]));
}

static void fit_trunk(struct chest *ch, struct rng *r)
{
	float f = ch->fat, neck = .25f + .02f * f;
	float up = ch->ap ? .03f : rng_range(r, -.03f, .05f);
	const struct knot trunk[] = {
		{ -1.4f, neck }, { -1.10f, neck - .02f }, { -.96f, neck + .03f }, { -.86f, .40f }, { -.78f, .56f },
		{ -.68f, .72f }, { -.55f, .80f + f }, { -.20f, .835f + f }, { .15f, .815f + f }, { .50f, .825f + f },
		{ .80f, .84f + 1.5f * f }, { 1.3f, .86f + 2 * f },
	};
	const struct knot thick[] = {
		{ -1.2f, .60f }, { -.90f, .62f }, { -.70f, .74f + f }, { -.40f, .90f + f }, { 0, 1.0f + f },
		{ .40f, 1.08f + f }, { .80f, 1.15f + f }, { 1.3f, 1.15f + f },
	};
	const struct knot shoulder[] = {
		{ 0, -1.9f }, { neck - .03f, -1.5f }, { neck + .01f, -1.12f }, { neck + .06f, -.97f }, { .42f, -.89f - up },
		{ .60f, -.83f - up }, { .80f, -.79f - up }, { .95f, -.74f - up }, { 1.08f, -.64f }, { 1.18f, -.48f },
		{ 1.24f, -.2f }, { 1.3f, .3f },
	};

	curve_fit(&ch->trunk, trunk, sizeof(trunk) / sizeof(trunk[0]));
	curve_fit(&ch->thick, thick, sizeof(thick) / sizeof(thick[0]));
	curve_fit(&ch->shoulder, shoulder, sizeof(shoulder) / sizeof(shoulder[0]));
}

static void fit_person(struct chest *ch)
{
	const struct phantom_finding *f;
	struct rng r = rng_open(ch->spec->seed, CHANCE_CHEST);

	ch->ap = ch->spec->view == PHANTOM_AP;
	ch->who = phantom_person_of(ch->spec->seed);
	ch->fat = .04f * ch->who.habitus;
	ch->arm = ch->ap ? rng_range(&r, 2.4f, 3.6f) : rng_range(&r, .9f, 2.0f);
	ch->apex = -.71f + rng_range(&r, -.02f, .02f);
	ch->turn = rng_range(&r, -.035f, .035f);
	ch->heart = rng_range(&r, .88f, 1.08f) * (ch->ap ? 1.08f : 1.0f);
	ch->markings = rng_range(&r, .85f, 1.15f);
	ch->clear = rng_range(&r, -.02f, .02f);
	for (size_t i = 0; i < ch->film->findings; i++) {
		f = &ch->film->finding[i];
		if (f->kind == PHANTOM_CARDIOMEGALY)
			ch->heart = 1.36f + .16f * size_step(f);
		else if (f->kind == PHANTOM_EDEMA)
			ch->markings *= 1.35f;
		else if (f->kind == PHANTOM_EFFUSION && f->size == PHANTOM_MASSIVE)
			ch->shift -= .07f * sign_of[side_index(f)];
	}
	f = find(ch, PHANTOM_EMPHYSEMA);
	if (f) {
		ch->markings *= .60f - .08f * size_step(f);
		ch->clear += .09f;
		if (!find(ch, PHANTOM_CARDIOMEGALY))
			ch->heart *= .84f;
	}
	fit_lungs(ch, &r);
	fit_heart(ch, &r);
	fit_trunk(ch, &r);
}

/* y of the upper border of the lung */
static float lung_top(const struct chest *ch, float xs)
{
	float d = xs - .235f;

	return ch->apex + 4.5f * d * d;
}

/* ---- soft parts and lungs, one pass over the film */

static float trunk_depth(const struct chest *ch, float xs, float y)
{
	float r = xs / curve_at(&ch->trunk, y), flat = edge(y + .75f, .2f);
	/* The neck is round, the chest flatter. */
	float trunk = r < 1 ? curve_at(&ch->thick, y) * sqrtf(1 - r * r * (1 - flat + flat * r)) : 0;
	float in = y - curve_at(&ch->shoulder, xs), out, sh;

	if (in <= 0)
		return trunk;
	/* Shoulder and arm are thinner and thin out towards the skin, above and at the armpit's fold. */
	out = -.17f + ch->arm * (xs - .84f) - y;
	if (ch->arm > 0 && xs < .84f)
		out = -.17f - y + .25f * (xs - .84f);
	sh = .66f * sqrtf(fminf(in * 3.2f, 1)) * sqrtf(clampf(out * 5.5f, 0, 1));
	/* Overlapping round parts: the larger one, with a soft joint instead of a crease. */
	return trunk > sh ? trunk + .25f * sh * (1 - trunk) : sh + .25f * trunk * (1 - sh);
}

/* Lung on this ray, 0..1, before the heart takes its place. */
static float lung_air(const struct chest *ch, size_t s, float xs, float y, float soft)
{
	float wall = curve_at(&ch->wall, y), top = lung_top(ch, xs), below = y - curve_at(&ch->dome[s], xs);
	float in, r, dome, deep;

	if (xs > wall + soft || y < top - .02f || below > .2f)
		return 0;
	in = edge(wall - xs, soft) * edge(y - top, .012f) * edge(xs - .035f, .02f);
	r = xs / (wall + .015f);
	/* Behind the dome a recess of lung goes on, thinning. */
	dome = edge(-below, soft);
	dome += (1 - dome) * .15f * clampf(1 - below / .17f, 0, 1);
	deep = sqrtf(clampf((y - top) * 2.4f, 0, 1)) * (.78f + .22f * clampf((xs - .05f) * 5, 0, 1));
	return in * dome * deep * sqrtf(fmaxf(1 - r * r, 0));
}

/* How much of the ray the mediastinum takes from the lung, 0..1. */
static float middle_density(const struct chest *ch, float x, float y, float soft)
{
	float xm = x - ch->shift - .5f * ch->turn;
	float d = curve_at(&ch->border[xm < 0 ? 0 : 1], y) - fabsf(xm), t;

	if (d < -soft)
		return 0;
	t = clampf(d * (1 / .26f), 0, 1);
	return edge(d, soft) * (.40f + .54f * sqrtf(t * (2 - t)));
}

static void paint_soft_parts(struct chest *ch)
{
	struct canvas *c = ch->c;
	float soft = fmaxf(.007f, .7f * c->pixel);

	for (unsigned py = 0; py < c->h; py++) {
		for (unsigned px = 0; px < c->w; px++) {
			size_t at = (size_t)py * c->w + px;
			float x, y, xs, depth, air, dense;

			canvas_body(c, (int)px, (int)py, &x, &y);
			xs = fabsf(x);
			depth = trunk_depth(ch, xs, y);
			air = lung_air(ch, x < 0 ? 0 : 1, xs, y, soft);
			dense = xs < .75f ? middle_density(ch, x, y, soft) : 0;
			air *= 1 - dense;
			c->air[at] = air;
			c->tissue[at] = depth - (air_gain + ch->clear) * air +
					.12f * dense * edge(y + .75f, .3f) * edge(curve_at(&ch->dome[1], xs) - y, .06f);
		}
	}
}

static void paint_stomach_and_breasts(struct chest *ch)
{
	struct canvas *c = ch->c;
	struct rng r = rng_open(ch->spec->seed, CHANCE_TEXTURE);
	float dome = curve_at(&ch->dome[1], .30f);

	if (rng_below(&r, 5)) {
		float x = rng_range(&r, .24f, .36f), rx = rng_range(&r, .09f, .15f);
		float y = dome + rng_range(&r, .10f, .13f), amount = rng_range(&r, .16f, .30f);

		paint_blob(c, c->tissue, x, y, rx, .062f, .1f, 2, -amount, 0);
		paint_blob(c, c->tissue, x + rx, y + .1f, .06f, .045f, -.3f, 2, -.5f * amount, 0);
	}
	for (size_t s = 0; s < 2; s++) {
		float x = sign_of[s] * rng_range(&r, .40f, .46f), y = rng_range(&r, .22f, .30f);
		float size = .24f + .04f * ch->who.habitus, amount = rng_range(&r, .08f, .13f);
		struct window w = canvas_window(c, x - size, y - size, x + size, y + size);

		if (!ch->who.female)
			continue;
		/* A half ball hanging: the lower border is a sharp crescent, the upper one fades. */
		for (int py = w.y0; py < w.y1; py++) {
			for (int px = w.x0; px < w.x1; px++) {
				float bx, by, q;

				canvas_body(c, px, py, &bx, &by);
				bx = (bx - x) / size;
				by = (by - y) / size;
				q = bx * bx + by * by;
				if (q < 1)
					c->tissue[(size_t)py * c->w + (size_t)px] +=
						amount * sqrtf(1 - q) * clampf(.75f + .6f * by, 0, 1);
			}
		}
	}
}

/* ---- lung markings */

struct tree {
	struct chest *ch;
	struct rng r;
};

static void grow(struct tree *t, float x, float y, float angle, float w, unsigned depth)
{
	float len = rng_range(&t->r, .05f, .10f) * (.55f + 20 * w);

	for (int i = 0; i < 3; i++) {
		float nx = x + cosf(angle) * len / 3, ny = y + sinf(angle) * len / 3;

		paint_twig(t->ch->c, t->ch->c->vessel, x, y, nx, ny, w, fminf(1, w * 75));
		x = nx;
		y = ny;
		angle += .17f * rng_bell(&t->r);
	}
	if (depth == 0 || w < .0014f)
		return;
	for (int k = -1; k <= 1; k += 2) {
		/* Drawn one by one: the order of two draws in one call is the compiler's. */
		float turn = (float)k * rng_range(&t->r, .15f, .60f), thin = rng_range(&t->r, .60f, .84f);

		grow(t, x, y, angle + turn, w * thin, depth - 1);
	}
}

static void paint_vessels(struct chest *ch)
{
	struct tree t = { ch, rng_open(ch->spec->seed, CHANCE_VESSELS) };
	enum { trunks = 13 };

	for (size_t s = 0; s < 2; s++) {
		float hx = .165f + ch->shift * sign_of[s], hy = s ? -.18f : -.13f;

		for (int k = 0; k < trunks; k++) {
			/* From steeply up to steeply down; the lower ones leave lower, wider and reach further. */
			float down = (float)k / (trunks - 1);
			float a = -1.30f + 2.55f * down + .16f * rng_bell(&t.r);
			float w = rng_range(&t.r, .007f, .011f) + .0055f * down;

			float xs = hx + (s ? .14f : .05f) * down * down + rng_range(&t.r, -.025f, .05f);
			float y = hy + .30f * (down - .35f) + rng_range(&t.r, -.02f, .02f);

			grow(&t, sign_of[s] * xs, y, s ? a : pi - a, w, 6);
		}
	}
}

static void paint_hila(struct chest *ch)
{
	static const struct dab artery[2][4] = {
		{ { -.120f, -.19f, .034f, .10f }, { -.165f, -.13f, .034f, .15f }, { -.190f, -.04f, .026f, .14f },
		  { -.215f, .07f, .012f, .06f } },
		{ { .120f, -.22f, .036f, .10f }, { .175f, -.21f, .034f, .15f }, { .205f, -.14f, .026f, .14f },
		  { .225f, -.03f, .012f, .06f } },
	};
	struct canvas *c = ch->c;

	for (size_t s = 0; s < 2; s++) {
		struct dab in[4], out[PAINT_MAX_DABS];

		for (size_t i = 0; i < 4; i++) {
			in[i] = artery[s][i];
			in[i].x += ch->shift;
			in[i].a *= ch->markings;
		}
		paint_stroke(c, c->tissue, out, paint_smooth(in, 4, 6, out), PROFILE_SOFT);
		paint_blob(c, c->tissue, in[1].x, in[1].y + .04f, .07f, .13f, 0, 2, .05f, 0);
	}
}

/* What is left of the markings after the findings, and the grain of the lung itself. */
static void blend_markings(struct chest *ch)
{
	struct canvas *c = ch->c;
	size_t n = (size_t)c->w * c->h;
	float gain = .150f * ch->markings;

	for (size_t i = 0; i < n; i++) {
		float in = fminf(c->air[i] * 2.2f, 1);

		if (in > 0)
			c->tissue[i] += in * (gain * c->vessel[i] + .022f * c->cloud[i]);
	}
}

static void paint_airways(struct chest *ch)
{
	struct canvas *c = ch->c;
	float x = ch->shift * .8f + .5f * ch->turn;
	const struct dab trachea[3] = { { x * .3f, -1.3f, .036f, -.17f }, { x * .6f, -.75f, .036f, -.17f },
					{ x + .005f, -.34f, .032f, -.10f } };
	const struct dab right[3] = { { x - .015f, -.31f, .026f, -.02f }, { x - .07f, -.24f, .026f, -.09f },
				      { x - .13f, -.16f, .018f, -.05f } };
	const struct dab left[3] = { { x + .02f, -.31f, .024f, -.02f }, { x + .09f, -.25f, .022f, -.08f },
				     { x + .16f, -.19f, .016f, -.05f } };

	paint_stroke(c, c->tissue, trachea, 3, PROFILE_SOLID);
	paint_stroke(c, c->tissue, right, 3, PROFILE_SOLID);
	paint_stroke(c, c->tissue, left, 3, PROFILE_SOLID);
}

/* ---- bones */

enum { RIBS = 12, RIB_DABS = 40 };

/* One rib as dabs from the spine round to its front end.  `*front` is the dab at which it has turned to
 * the front; back and front are separate strokes, since where they cross both count.
 */
static size_t rib_path(const struct chest *ch, size_t s, size_t k, float spacing, struct dab *out, size_t *front)
{
	static const float end_deg[RIBS] = { 150, 150, 148, 146, 142, 137, 130, 122, 112, 102, 78, 58 };
	static const float fall[RIBS] = { .20f, .30f, .37f, .43f, .47f, .50f, .52f, .52f, .50f, .48f, .52f, .56f };
	float y0 = ch->apex + .015f + spacing * (float)k, high = .0195f + .0016f * (float)(k < 6 ? k : 6);
	float drop = fall[k] * (ch->ap ? 1.12f : 1);
	size_t n = RIB_DABS;
	float pz = 0;

	*front = n - 1;
	for (size_t i = 0; i < n; i++) {
		float phi = pi / 180 * (6 + (end_deg[k] - 6) * (float)i / (float)(n - 1));
		float bump = (phi - .45f) * 3.3f;
		float y = y0 + drop * .5f * (1 - cosf(phi)) - .022f / (1 + bump * bump);
		float a = k ? curve_at(&ch->wall, y) + .020f : .335f, z = .45f * cosf(phi);
		struct dab *d = &out[i];

		d->x = sign_of[s] * (a * powf(sinf(phi), .88f)) + ch->turn * cosf(phi);
		d->y = y;
		if (phi > .5f * pi && *front == n - 1)
			*front = i;
		if (i) {
			float dx = d->x - d[-1].x, dy = d->y - d[-1].y, dz = z - pz;
			float flat = sqrtf(dx * dx + dy * dy) + 1e-6f;

			/* A rib is a plate on edge: wide where it runs level, thin where it turns down;
			 * the ray goes through more of it where it runs along the ray. */
			d->w = (high * fabsf(dx) + .014f * fabsf(dy)) / flat;
			d->a = fminf(sqrtf(flat * flat + dz * dz) / flat, 1.8f) * (k > 9 ? .8f : 1);
			/* The front end goes over into cartilage, which hardly shows. */
			d->a *= i > *front ? .075f * clampf((float)(n - 1 - i) / 6, 0, 1) : .105f;
		}
		pz = z;
	}
	out[0].w = out[1].w;
	out[0].a = out[1].a;
	/* At the turn back and front strokes lie on each other: each gives half. */
	for (size_t i = *front > 3 ? *front - 3 : 0; i < n && i <= *front + 3; i++)
		out[i].a *= .5f + .14f * fabsf((float)i - (float)*front);
	return n;
}

static void paint_ribs(struct chest *ch)
{
	struct canvas *c = ch->c;
	struct rng r = rng_open(ch->spec->seed, CHANCE_BONES);
	float spacing = .104f + rng_range(&r, -.004f, .004f) + (find(ch, PHANTOM_EMPHYSEMA) ? .006f : 0);

	for (size_t s = 0; s < 2; s++) {
		struct phantom_finding *broken = NULL;

		for (size_t i = 0; i < ch->film->findings; i++)
			if (ch->film->finding[i].kind == PHANTOM_FRACTURE &&
			    side_index(&ch->film->finding[i]) == s)
				broken = &ch->film->finding[i];
		for (size_t k = 0; k < RIBS; k++) {
			struct dab d[RIB_DABS];
			size_t front, n = rib_path(ch, s, k, spacing, d, &front);

			if (broken && k >= 5 && k < 6 + (size_t)size_step(broken)) {
				/* Behind, towards the side: the outer part slips down, a gap shows. */
				size_t at = front * 9 / 20 + (k & 1), gap = 2;

				for (size_t i = at + gap; i < n; i++)
					d[i].y += .030f * clampf(1 - (float)(i - at) / 18, 0, 1);
				paint_stroke(c, c->tissue, d, at, PROFILE_BONE);
				paint_stroke(c, c->tissue, d + at + gap, front - at - gap + 1, PROFILE_BONE);
				box_dabs(ch, broken, d + at - 3, 6 + gap);
			} else {
				paint_stroke(c, c->tissue, d, front + 1, PROFILE_BONE);
			}
			if (front < n - 1)
				paint_stroke(c, c->tissue, d + front, n - front, PROFILE_BONE);
		}
	}
}

static void paint_spine(struct chest *ch)
{
	struct canvas *c = ch->c;
	struct rng r = rng_open(ch->spec->seed, CHANCE_BONES + 1000);
	float bend = rng_range(&r, -.015f, .015f), y = -1.35f, step = .085f;

	while (y < 1.4f) {
		float x = bend * sinf(2.2f * y) + .3f * ch->turn, hw = .066f + .012f * clampf(y + .6f, 0, 1.4f);
		float hh = .5f * step - .004f;

		paint_blob(c, c->tissue, x, y, hw, hh, 0, 4, .062f, .5f);
		paint_blob(c, c->tissue, x, y, .85f * hw, .62f * step, 0, 4, .035f, .1f);
		for (int k = -1; k <= 1; k += 2) {
			const struct dab wing[2] = { { x + (float)k * hw * .8f, y - .2f * hh, .013f, .05f },
						     { x + (float)k * (hw + .050f), y - .45f * hh, .010f, .03f } };

			paint_blob(c, c->tissue, x + (float)k * .62f * hw, y - .25f * hh, .012f, .019f, 0, 2,
				   .035f, .8f);
			paint_stroke(c, c->tissue, wing, 2, PROFILE_BONE);
		}
		paint_blob(c, c->tissue, x - 1.2f * ch->turn, y + .7f * hh, .009f, .022f, 0, 2, .05f, .7f);
		y += step;
		step = .085f + .032f * clampf((y + 1) / 1.8f, 0, 1);
	}
}

static void paint_shade_triangle(struct canvas *c, const float p[3][2], float amount)
{
	struct window w = canvas_window(c, fminf(p[0][0], fminf(p[1][0], p[2][0])),
					fminf(p[0][1], fminf(p[1][1], p[2][1])),
					fmaxf(p[0][0], fmaxf(p[1][0], p[2][0])),
					fmaxf(p[0][1], fmaxf(p[1][1], p[2][1])));
	float turn = (p[1][0] - p[0][0]) * (p[2][1] - p[0][1]) - (p[1][1] - p[0][1]) * (p[2][0] - p[0][0]);
	float nx[3], ny[3];

	for (int i = 0; i < 3; i++) {
		float dx = p[(i + 1) % 3][0] - p[i][0], dy = p[(i + 1) % 3][1] - p[i][1];
		float inv = (turn > 0 ? 1 : -1) / sqrtf(dx * dx + dy * dy);

		nx[i] = -dy * inv;
		ny[i] = dx * inv;
	}
	for (int py = w.y0; py < w.y1; py++) {
		for (int px = w.x0; px < w.x1; px++) {
			float x, y, d = 1;

			canvas_body(c, px, py, &x, &y);
			for (int i = 0; i < 3; i++)
				d = fminf(d, (x - p[i][0]) * nx[i] + (y - p[i][1]) * ny[i]);
			c->tissue[(size_t)py * c->w + (size_t)px] += amount * edge(d, .012f);
		}
	}
}

static void bone_line(struct chest *ch, size_t s, const struct dab *in, size_t n, float dx, float dy,
		      enum profile p)
{
	struct dab a[8], out[PAINT_MAX_DABS];

	for (size_t i = 0; i < n; i++) {
		a[i] = in[i];
		a[i].x = sign_of[s] * (in[i].x + dx);
		a[i].y = in[i].y + dy;
	}
	paint_stroke(ch->c, ch->c->tissue, out, paint_smooth(a, n, 8, out), p);
}

static void paint_shoulder_girdle(struct chest *ch)
{
	static const struct dab clavicle[] = {
		{ .065f, -.505f, .036f, .11f }, { .13f, -.525f, .031f, .125f }, { .26f, -.575f, .024f, .14f },
		{ .40f, -.645f, .023f, .15f }, { .55f, -.715f, .025f, .14f }, { .68f, -.750f, .029f, .12f },
		{ .80f, -.755f, .026f, .10f },
	};
	static const struct dab medial[] = { { .54f, -.66f, .010f, .04f }, { .565f, -.45f, .009f, .045f },
					     { .61f, -.18f, .009f, .045f }, { .665f, .0f, .012f, .05f } };
	static const struct dab lateral[] = { { .665f, .0f, .013f, .06f }, { .73f, -.14f, .014f, .07f },
					      { .80f, -.33f, .016f, .08f }, { .85f, -.44f, .020f, .07f } };
	static const struct dab spine[] = { { .57f, -.56f, .010f, .05f }, { .70f, -.64f, .016f, .08f },
					    { .84f, -.72f, .022f, .09f }, { .94f, -.74f, .026f, .09f } };
	static const struct dab coracoid[] = { { .84f, -.58f, .022f, .07f }, { .78f, -.63f, .020f, .08f },
					       { .75f, -.61f, .016f, .07f } };
	static const struct dab humerus[] = { { 1.00f, -.44f, .075f, .15f }, { 1.05f, -.25f, .055f, .18f },
					      { 1.12f, .10f, .048f, .20f }, { 1.20f, .6f, .048f, .2f } };
	struct canvas *c = ch->c;
	struct rng r = rng_open(ch->spec->seed, CHANCE_BONES + 2000);
	float lift = rng_range(&r, -.02f, .03f) - (ch->ap ? .07f : 0);
	float in = (ch->ap ? -.07f : 0) + rng_range(&r, -.01f, .02f), down = rng_range(&r, -.03f, .03f);

	for (size_t s = 0; s < 2; s++) {
		const float blade[3][2] = { { sign_of[s] * (.55f + in), -.66f + down },
					    { sign_of[s] * (.665f + in), .01f + down },
					    { sign_of[s] * (.86f + in), -.46f + down } };

		bone_line(ch, s, clavicle, 7, -sign_of[s] * ch->turn, lift, PROFILE_BONE);
		paint_shade_triangle(c, blade, .028f);
		bone_line(ch, s, medial, 4, in, down, PROFILE_SOLID);
		bone_line(ch, s, lateral, 4, in, down, PROFILE_BONE);
		bone_line(ch, s, spine, 4, in, down, PROFILE_BONE);
		bone_line(ch, s, coracoid, 3, in, down, PROFILE_BONE);
		paint_blob(c, c->tissue, sign_of[s] * (.87f + in), -.49f + down, .020f, .075f, .15f * sign_of[s], 2, .06f, .3f);
		paint_blob(c, c->tissue, sign_of[s] * (.985f + .5f * in), -.51f + down, .105f, .105f, 0, 2, .13f,
			   .35f);
		bone_line(ch, s, humerus, 4, .5f * in, down, PROFILE_BONE);
	}
}

/* ---- findings inside the lung */

struct shape {
	size_t s;               /* side */
	float x, y, rx, ry;     /* body coordinates; x is xs */
	float size;
	float floor;            /* a sharp lower border (a fissure), or 9 */
};

/* Weight of a finding at a point, 0..1. */
typedef float (*weigh)(const struct chest *, const struct shape *, float xs, float y, float cloud);

struct effect {
	float fill;             /* share of the air that is replaced */
	float add;              /* tissue on top, whether or not there is air */
	float hide;             /* share of the markings that vanish */
	float mottle;           /* unevenness of the fill */
	bool anywhere;          /* counts for the box outside aerated lung too */
};

/* `f` may be NULL: what happens beside a finding has no box. */
static void shade(struct chest *ch, struct phantom_finding *f, const struct shape *sh, weigh fn, struct effect e)
{
	struct canvas *c = ch->c;
	struct window w = sh->s ? canvas_window(c, 0, -.9f, .8f, .8f) : canvas_window(c, -.8f, -.9f, 0, .8f);
	struct window box = { w.x1, w.y1, w.x0, w.y0 };
	float pixel = PHANTOM_CELLS * PHANTOM_CELLS / ((float)c->w * (float)c->h);

	for (int py = w.y0; py < w.y1; py++) {
		for (int px = w.x0; px < w.x1; px++) {
			size_t at = (size_t)py * c->w + (size_t)px;
			float x, y, m, air = c->air[at];

			canvas_body(c, px, py, &x, &y);
			x *= sign_of[sh->s];
			if (x < 0 || (air <= 0 && !e.anywhere))
				continue;
			m = fn(ch, sh, x, y, c->cloud[at]);
			if (m <= 0)
				continue;
			if (f && m * (e.anywhere ? 1 : fminf(4 * air, 1)) > .4f) {
				box.x0 = px < box.x0 ? px : box.x0;
				box.y0 = py < box.y0 ? py : box.y0;
				box.x1 = px + 1 > box.x1 ? px + 1 : box.x1;
				box.y1 = py + 1 > box.y1 ? py + 1 : box.y1;
				*cover_at(ch, f, px, py) += pixel;
			}
			x = 1 + e.mottle * clampf(c->cloud[at], -1.5f, 1.5f);
			c->tissue[at] += m * (air_gain * air * e.fill * x + e.add);
			c->vessel[at] *= clampf(1 - e.hide * m, -1, 1);
		}
	}
	if (f)
		box_window(f, box);
}

static float weigh_patch(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float a = (xs - sh->x) / sh->rx, b = (y - sh->y) / sh->ry;

	(void)ch;
	return edge(1 - a * a - b * b + .20f * cloud, .80f) * edge(sh->floor - y + .05f * (xs - .3f), .012f);
}

static float weigh_ball(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float a = (xs - sh->x) / sh->rx, b = (y - sh->y) / sh->ry, q = a * a + b * b + .10f * cloud;

	(void)ch;
	return q < 1 ? sqrtf(1 - q) : 0;
}

static float weigh_wings(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float a = (xs - .24f) / sh->rx, b = (y - .02f) / sh->ry;
	float q = a * a + b * b;

	(void)ch;
	return clampf((1.05f / (1 + q * q * 1.5f)) * (1 + .10f * cloud) - .12f, 0, 1);
}

static float weigh_fluid(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float out = clampf((xs - .22f) / .46f, 0, 1), in = clampf((.22f - xs) / .2f, 0, 1);
	float base = curve_at(&ch->dome[sh->s], .72f);
	float level = base - sh->size * (.62f + .38f * out * out + .10f * in);

	(void)cloud;
	/* A large pool is as deep as the chest; a meniscus is thin at its top, so it fades upwards. */
	return clampf((y - level) / (.05f + .10f * sh->size), 0, 1) *
	       edge(curve_at(&ch->wall, y) + .006f - xs, .008f);
}

/* Distance inside the surface of a lung that has come away from the wall by sh->size. */
static float lung_edge(const struct chest *ch, const struct shape *sh, float xs, float y)
{
	float gap = sh->size * clampf(.95f - .75f * (y + .2f), .25f, 1);

	return fminf(curve_at(&ch->wall, y) - gap - xs, y - lung_top(ch, xs) - 1.15f * sh->size);
}

static float weigh_gap(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	(void)cloud;
	return edge(-lung_edge(ch, sh, xs, y), .008f);
}

/* The lung that has come away holds less air. */
static float weigh_shrunk(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	(void)cloud;
	return edge(lung_edge(ch, sh, xs, y), .008f);
}

static float weigh_pleural_line(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float d = fabsf(lung_edge(ch, sh, xs, y));

	(void)cloud;
	return edge(.006f - d, .006f);
}

static float weigh_rind(const struct chest *ch, const struct shape *sh, float xs, float y, float cloud)
{
	float d = fminf(curve_at(&ch->wall, y) - xs, (y - lung_top(ch, xs)) * .8f);
	float along = edge(sh->ry - fabsf(y - sh->y), .12f);

	return edge(sh->size * (1 + .08f * cloud) * along - d, .010f) * along;
}

static struct shape lobe_shape(const struct phantom_finding *f, struct rng *r)
{
	static const struct { size_t s; float x, y, floor; } where[] = {
		[PHANTOM_RUL] = { 0, .36f, -.36f, -.10f }, [PHANTOM_RML] = { 0, .30f, .06f, 9 },
		[PHANTOM_RLL] = { 0, .45f, .17f, 9 }, [PHANTOM_LUL] = { 1, .36f, -.36f, 9 },
		[PHANTOM_LLL] = { 1, .47f, .17f, 9 },
	};
	float dx = rng_range(r, -.04f, .04f), dy = rng_range(r, -.05f, .05f);

	return (struct shape){ .s = where[f->lobe].s, .x = where[f->lobe].x + dx, .y = where[f->lobe].y + dy,
			       .floor = where[f->lobe].floor };
}

static void paint_atelectasis(struct chest *ch, struct phantom_finding *f, struct rng *r)
{
	size_t s = side_index(f), bands = 1 + rng_below(r, 2) + (size_t)size_step(f);

	for (size_t i = 0; i < bands; i++) {
		float y = curve_at(&ch->dome[s], .4f) - .05f - .055f * (float)i, slope = rng_range(r, -.22f, .10f);
		float x0 = rng_range(r, .22f, .30f) + (s ? .10f : 0), x1 = x0 + rng_range(r, .18f, .26f);
		float w = rng_range(r, .011f, .017f);
		struct dab in[3] = { { x0, y, .5f * w, .08f }, { .5f * (x0 + x1), y + slope * .1f, w, .20f },
				     { x1, y + slope * .22f, .6f * w, .10f } }, out[PAINT_MAX_DABS];
		size_t n;

		for (size_t k = 0; k < 3; k++)
			in[k].x *= sign_of[s];
		n = paint_smooth(in, 3, 8, out);
		paint_stroke(ch->c, ch->c->tissue, out, n, PROFILE_SOLID);
		box_dabs(ch, f, out, n);
	}
}

static void paint_lung_finding(struct chest *ch, struct phantom_finding *f, struct rng *r)
{
	struct shape sh = { .s = side_index(f), .floor = 9 };
	float step = size_step(f);

	switch (f->kind) {
	case PHANTOM_EFFUSION:
		sh.size = (const float[]){ .32f, .54f, .84f, 2.5f }[(int)step];
		shade(ch, f, &sh, weigh_fluid, (struct effect){ .fill = .92f, .add = .02f, .hide = 1 });
		break;
	case PHANTOM_PNEUMOTHORAX:
		sh.size = .11f + .05f * step + rng_range(r, 0, .02f);
		shade(ch, f, &sh, weigh_gap, (struct effect){ .fill = -.20f, .hide = 1 });
		/* The line belongs to the same finding; its box lies within the gap's. */
		shade(ch, f, &sh, weigh_pleural_line, (struct effect){ .add = .085f });
		shade(ch, NULL, &sh, weigh_shrunk, (struct effect){ .fill = .07f + .03f * step });
		break;
	case PHANTOM_OPACITY:
		sh = lobe_shape(f, r);
		sh.rx = .15f + .05f * step;
		sh.ry = .13f + .04f * step;
		/* hide > 1 turns the markings dark: air in the bronchi of a solid lung */
		shade(ch, f, &sh, weigh_patch,
		      (struct effect){ .fill = .66f + .08f * step, .hide = 1.12f, .mottle = .06f });
		break;
	case PHANTOM_NODULE:
	case PHANTOM_MASS:
		sh = lobe_shape(f, r);
		sh.x += rng_range(r, -.03f, .06f);
		sh.rx = f->kind == PHANTOM_NODULE ? .034f + .012f * step : .088f + .022f * step;
		sh.ry = sh.rx * rng_range(r, .85f, 1.15f);
		shade(ch, f, &sh, weigh_ball, (struct effect){ .add = f->kind == PHANTOM_NODULE ? .30f : .36f,
							       .hide = .5f, .anywhere = true });
		break;
	case PHANTOM_EDEMA:
		sh.rx = .24f + .03f * step;
		sh.ry = .36f + .04f * step;
		for (sh.s = 0; sh.s < 2; sh.s++)
			shade(ch, f, &sh, weigh_wings, (struct effect){ .fill = .34f + .09f * step, .mottle = .12f });
		break;
	case PHANTOM_THICKENING:
		sh.size = .040f + .018f * step;
		sh.y = rng_below(r, 2) ? -.50f : .15f;
		sh.ry = .24f + .05f * step;
		shade(ch, f, &sh, weigh_rind, (struct effect){ .fill = .55f, .add = .14f, .hide = 1 });
		break;
	case PHANTOM_ATELECTASIS:
		paint_atelectasis(ch, f, r);
		break;
	default:
		break;
	}
}

/* ---- findings that are the shape of everything, and devices */

static void box_chest(struct chest *ch, struct phantom_finding *f)
{
	float wide = curve_at(&ch->wall, .5f);
	struct window w = canvas_window(ch->c, -wide, ch->apex, wide, curve_at(&ch->dome[1], .7f));

	box_window(f, w);
	cover_window(ch, f, w);
}

static void box_heart(struct chest *ch, struct phantom_finding *f)
{
	float left = 0, right = 0, low = curve_at(&ch->dome[1], .2f);
	struct window w;

	for (float y = -.1f; y < low; y += .01f) {
		left = fmaxf(left, curve_at(&ch->border[1], y));
		right = fmaxf(right, curve_at(&ch->border[0], y));
	}
	w = canvas_window(ch->c, ch->shift - right, -.14f, ch->shift + left, low + .02f);
	box_window(f, w);
	cover_window(ch, f, w);
}

static void wire(struct chest *ch, struct phantom_finding *f, const struct dab *in, size_t n)
{
	struct dab out[PAINT_MAX_DABS];
	size_t m = paint_smooth(in, n, 12, out);

	paint_stroke(ch->c, ch->c->tissue, out, m, PROFILE_SOLID);
	box_dabs(ch, f, out, m);
}

static void paint_pacemaker(struct chest *ch, struct phantom_finding *f, struct rng *r)
{
	float g = sign_of[side_index(f)], x = g * rng_range(r, .46f, .54f), y = rng_range(r, -.46f, -.40f);
	float a = rng_range(r, -.3f, .3f), w = .0065f;
	float tip_x = .12f + .10f * ch->heart + ch->shift, tip_y = curve_at(&ch->dome[1], .2f) - .06f;
	const struct dab lead[] = { { x - g * .05f, y - .07f, w, .5f }, { x - g * .13f, y - .12f, w, .5f },
				    { g * .16f, -.52f, w, .5f }, { g * .03f, -.47f, w, .5f },
				    { -.10f + ch->shift, -.36f, w, .5f }, { -.11f + ch->shift, -.12f, w, .5f },
				    { -.08f + ch->shift, .10f, w, .5f }, { .02f + ch->shift, .2f, w, .5f },
				    { tip_x, tip_y, w, .5f } };
	const struct dab tip[] = { { tip_x - .03f, tip_y - .012f, .010f, .8f }, { tip_x, tip_y, .010f, .8f } };
	struct window box;

	paint_blob(ch->c, ch->c->tissue, x, y, .095f, .075f, a, 4, 1.1f, .15f);
	paint_blob(ch->c, ch->c->tissue, x - g * .02f, y - .075f, .055f, .024f, a, 4, .5f, 0);
	box = canvas_window(ch->c, x - .1f, y - .1f, x + .1f, y + .08f);
	box_window(f, box);
	cover_window(ch, f, box);
	wire(ch, f, lead, sizeof(lead) / sizeof(lead[0]));
	wire(ch, f, tip, 2);
}

static void paint_device(struct chest *ch, struct phantom_finding *f, struct rng *r)
{
	float end = rng_range(r, -.46f, -.40f), x = ch->shift * .8f, g;

	if (f->kind == PHANTOM_PACEMAKER) {
		paint_pacemaker(ch, f, r);
	} else if (f->kind == PHANTOM_TUBE) {
		/* Two walls and the opaque stripe of an endotracheal tube. */
		for (int k = -1; k <= 1; k++) {
			float w = k ? .0045f : .006f, amount = k == 1 ? .80f : k ? .45f : .06f;
			float off = .014f * (float)k;
			const struct dab tube[] = { { x * .2f + off - .02f, -1.4f, w, amount },
						    { x * .5f + off, -.85f, w, amount },
						    { x * .8f + off + .004f, -.6f, w, amount },
						    { x + off + .004f, end, w, amount } };

			wire(ch, f, tube, 4);
		}
	} else if (f->kind == PHANTOM_LINE) {
		g = sign_of[side_index(f)];
		const struct dab line[] = { { g * .34f, -.98f, .0065f, .40f }, { g * .25f, -.78f, .0065f, .40f },
					    { g * .17f, -.58f, .0065f, .40f },
					    { g < 0 ? -.115f + x : -.02f, -.44f, .0065f, .40f },
					    { -.11f + x, -.30f, .0065f, .40f },
					    { -.105f + x, end + .32f, .0065f, .40f } };

		wire(ch, f, line, 6);
	}
}

/* Electrodes of a monitor and their leads: on films taken in bed, and nobody's finding. */
static void paint_monitor(struct chest *ch)
{
	static const float at[3][2] = { { -.50f, -.42f }, { .52f, -.40f }, { .50f, .36f } };
	struct canvas *c = ch->c;
	struct rng r = rng_open(ch->spec->seed, CHANCE_FILM + 3000);

	if (!ch->ap || rng_below(&r, 2))
		return;
	for (int k = 0; k < 3; k++) {
		float x = at[k][0] + rng_range(&r, -.09f, .09f), y = at[k][1] + rng_range(&r, -.08f, .08f);
		float end = at[k][0] + rng_range(&r, -.25f, .25f), out = k == 2 ? 1.5f : -1.4f;
		const struct dab lead[] = { { x, y, .0045f, .22f }, { x + .6f * (end - x), y + .3f * (out - y), .0045f, .22f },
					    { end, out, .0045f, .22f } };
		struct dab smooth[PAINT_MAX_DABS];

		paint_blob(c, c->tissue, x, y, .024f, .024f, 0, 2, .16f, .7f);
		paint_stroke(c, c->tissue, smooth, paint_smooth(lead, 3, 12, smooth), PROFILE_SOLID);
	}
}

void chest_pose(const struct phantom_spec *spec, struct pose *ret)
{
	struct rng r = rng_open(spec->seed, CHANCE_POSE);
	float zoom = rng_range(&r, .92f, 1.08f), wide = rng_range(&r, .97f, 1.05f);
	float dx = rng_range(&r, -.05f, .05f), dy = rng_range(&r, .0f, .09f), tilt = rng_range(&r, -.05f, .05f);

	*ret = (struct pose){ .zoom_x = zoom * wide, .zoom_y = zoom, .shift_x = dx, .shift_y = dy, .tilt = tilt };
}

void chest_paint(struct canvas *c, const struct phantom_spec *spec, struct phantom_film *film)
{
	static const float cell[] = { .12f, .05f, .022f, .010f }, amp[] = { .6f, .6f, .45f, .35f };
	struct chest ch = { .c = c, .spec = spec, .film = film };

	fit_person(&ch);
	paint_soft_parts(&ch);
	paint_texture(c, c->cloud, rng_mix(spec->seed ^ CHANCE_TEXTURE), cell, amp, 4);
	paint_stomach_and_breasts(&ch);
	paint_vessels(&ch);
	for (size_t i = 0; i < film->findings; i++) {
		struct rng r = rng_open(spec->seed, CHANCE_FINDING + i);

		paint_lung_finding(&ch, &film->finding[i], &r);
	}
	blend_markings(&ch);
	paint_hila(&ch);
	paint_spine(&ch);
	paint_ribs(&ch);
	paint_shoulder_girdle(&ch);
	paint_airways(&ch);
	paint_monitor(&ch);
	for (size_t i = 0; i < film->findings; i++) {
		struct phantom_finding *f = &film->finding[i];
		struct rng r = rng_open(spec->seed, CHANCE_FINDING + i);

		if (f->kind == PHANTOM_CARDIOMEGALY)
			box_heart(&ch, f);
		else if (f->kind == PHANTOM_EMPHYSEMA)
			box_chest(&ch, f);
		else
			paint_device(&ch, f, &r);
	}
}
