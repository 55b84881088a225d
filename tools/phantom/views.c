/* views.c: what is not a frontal chest: a lateral chest, a hand, an empty exposure.
 *
 * Job: give a gate something to refuse.  The lateral is plausible enough that tags and pixels agree; the
 * hand has the right bones in the right number; the empty one has only the beam on it.
 * Never: carries findings.
 */
#include "rng.h"

#include "body.h"

/* The patient faces the viewer's left: sternum at x < 0, spine at x > 0. */
static const struct knot lateral_front[] = {
	{ -1.3f, -.20f }, { -.95f, -.18f }, { -.80f, -.30f }, { -.60f, -.46f }, { -.30f, -.60f }, { 0, -.66f },
	{ .40f, -.66f }, { .80f, -.68f }, { 1.3f, -.66f },
};
static const struct knot lateral_back[] = {
	{ -1.3f, .34f }, { -.95f, .38f }, { -.70f, .58f }, { -.40f, .70f }, { 0, .74f }, { .40f, .70f },
	{ .80f, .62f }, { 1.3f, .60f },
};
static const struct knot lateral_sternum[] = {
	{ -.75f, -.10f }, { -.62f, -.30f }, { -.40f, -.45f }, { -.10f, -.55f }, { .20f, -.58f }, { .5f, -.57f },
};
static const struct knot lateral_ribs[] = {
	{ -.75f, .20f }, { -.60f, .42f }, { -.35f, .57f }, { 0, .63f }, { .40f, .61f }, { .75f, .56f },
};
/* y of the domes by x, front to back */
static const struct knot lateral_dome[] = {
	{ -.60f, .36f }, { -.45f, .26f }, { -.25f, .21f }, { -.05f, .22f }, { .20f, .30f }, { .40f, .44f },
	{ .55f, .60f }, { .64f, .72f },
};

#define KNOTS(k) k, sizeof(k) / sizeof((k)[0])

static float ellipse(float x, float y, float cx, float cy, float rx, float ry, float lean)
{
	float a = (x - cx - lean * (y - cy)) / rx, b = (y - cy) / ry;

	return fmaxf(1 - a * a - b * b, 0);
}

static void lateral_soft_parts(struct canvas *c, struct rng *r)
{
	struct curve front, back, sternum, ribs, dome;
	float soft = fmaxf(.008f, c->pixel), second = rng_range(r, .03f, .07f), size = rng_range(r, .9f, 1.1f);

	curve_fit(&front, KNOTS(lateral_front));
	curve_fit(&back, KNOTS(lateral_back));
	curve_fit(&sternum, KNOTS(lateral_sternum));
	curve_fit(&ribs, KNOTS(lateral_ribs));
	curve_fit(&dome, KNOTS(lateral_dome));
	for (unsigned py = 0; py < c->h; py++) {
		for (unsigned px = 0; px < c->w; px++) {
			size_t at = (size_t)py * c->w + px;
			float x, y, f, b, mid, half, q, in, air, low, heart;

			canvas_body(c, (int)px, (int)py, &x, &y);
			f = curve_at(&front, y);
			b = curve_at(&back, y);
			mid = .5f * (f + b);
			half = .5f * (b - f);
			q = (x - mid) / half;
			if (q * q >= 1)
				continue;
			/* Raised arms and shoulders make the top dense; the belly is the thickest part. */
			c->tissue[at] = sqrtf(1 - fabsf(q * q * q)) *
					(1.15f + .35f * edge(-.45f - y, .35f) + .25f * edge(y - .45f, .3f));
			in = edge(x - curve_at(&sternum, y), soft) * edge(curve_at(&ribs, y) - x, soft) *
			     edge(y + .74f, .1f);
			low = curve_at(&dome, x) - y;
			air = in * (.5f * edge(low, soft) + .5f * edge(low + second, soft));
			q = (x - .02f) / .62f;
			air *= sqrtf(fmaxf(1 - q * q, .1f)) * (.72f + .28f * edge(y + .35f, .3f));
			heart = sqrtf(ellipse(x, y, -.25f, .13f, .34f * size, .36f * size, .45f));
			/* The great vessels run up from the heart and arch back. */
			q = ellipse(x, y, -.10f, -.32f, .17f, .30f, -.20f);
			air *= (1 - .62f * heart) * (1 - .24f * q);
			c->air[at] = air;
			c->tissue[at] -= .80f * air;
		}
	}
}

static void lateral_bones(struct canvas *c, struct rng *r)
{
	float step = .095f;

	for (float y = -1.2f; y < 1.3f; y += step) {
		float x = .40f - .16f * (y + .05f) * (y + .05f) + .10f * (y > .4f ? .4f - y : 0);

		step = .088f + .022f * clampf(y + .8f, 0, 1.5f);
		paint_blob(c, c->tissue, x, y, .068f, .5f * step - .010f, -.30f * y, 4, .085f, .45f);
		paint_blob(c, c->tissue, x + .12f, y + .05f, .065f, .022f, .5f, 2, .07f, .3f);
	}
	for (int k = 0; k < 10; k++) {
		for (int s = 0; s < 2; s++) {
			float y = -.66f + .115f * (float)k + (s ? .035f : 0), out = s ? .03f : 0, h = .017f;
			const struct dab in[] = { { .47f, y - .03f, h, .07f }, { .58f + out, y + .05f, h, .11f },
						  { .35f, y + .19f, h, .06f }, { .05f, y + .33f, h, .055f },
						  { -.25f, y + .44f, h, .05f }, { -.48f, y + .47f, h, .04f } };
			struct dab d[PAINT_MAX_DABS];

			paint_stroke(c, c->tissue, d, paint_smooth(in, k < 7 ? 6 : 4, 8, d), PROFILE_BONE);
		}
	}
	for (int k = 0; k < 4; k++) {
		float y = -.52f + .14f * (float)k, x = -.40f - .09f * (float)k;

		paint_blob(c, c->tissue, x, y, .022f, .062f, .5f - .1f * (float)k, 4, .10f, .5f);
	}
	/* Scapulae edge-on and the two upper arms. */
	for (int s = 0; s < 2; s++) {
		float o = .05f * (float)s + rng_range(r, -.01f, .01f);
		const struct dab blade[] = { { .50f + o, -.75f, .02f, .09f }, { .56f + o, -.4f, .012f, .10f },
					     { .60f + o, -.12f, .010f, .05f } };
		const struct dab arm[] = { { .05f + 2 * o, -.72f, .075f, .16f }, { -.10f + 2 * o, -1.0f, .055f, .2f },
					   { -.25f + 2 * o, -1.3f, .05f, .2f } };
		struct dab d[PAINT_MAX_DABS];

		paint_stroke(c, c->tissue, d, paint_smooth(blade, 3, 8, d), PROFILE_BONE);
		paint_stroke(c, c->tissue, d, paint_smooth(arm, 3, 8, d), PROFILE_BONE);
	}
}

static void lateral_markings(struct canvas *c, struct rng *r)
{
	static const struct dab trachea[] = { { .06f, -1.0f, .045f, -.16f }, { .08f, -.6f, .042f, -.2f },
					      { .10f, -.24f, .036f, -.2f } };
	size_t n = (size_t)c->w * c->h;

	for (int k = 0; k < 46; k++) {
		float a = rng_range(r, 0, 6.283f), w = rng_range(r, .006f, .013f);
		float x = .06f + rng_range(r, -.09f, .09f), y = -.13f + rng_range(r, -.12f, .12f);

		for (int i = 0; i < 7 && w > .002f; i++) {
			float nx = x + .075f * cosf(a), ny = y + .075f * sinf(a);

			paint_twig(c, c->vessel, x, y, nx, ny, w, fminf(1, w * 75));
			x = nx;
			y = ny;
			a += .25f * rng_bell(r);
			w *= .82f;
		}
	}
	for (size_t i = 0; i < n; i++)
		c->tissue[i] += fminf(2 * c->air[i], 1) * (.13f * c->vessel[i] + .012f * c->cloud[i]);
	paint_stroke(c, c->tissue, trachea, 3, PROFILE_SOLID);
	paint_blob(c, c->tissue, .08f, -.15f, .10f, .09f, 0, 2, .12f, 0);
	paint_blob(c, c->tissue, .10f, -.22f, .03f, .03f, 0, 2, -.14f, 0);
}

void lateral_paint(struct canvas *c, const struct phantom_spec *spec)
{
	static const float cell[] = { .10f, .03f, .012f }, amp[] = { .6f, .6f, .5f };
	struct rng r = rng_open(spec->seed, CHANCE_CHEST);

	lateral_soft_parts(c, &r);
	paint_texture(c, c->cloud, rng_mix(spec->seed ^ CHANCE_TEXTURE), cell, amp, 3);
	lateral_markings(c, &r);
	lateral_bones(c, &r);
}

/* ---- a right hand, palm on the plate, seen from its back: thumb towards the viewer's left */

static void bone(struct canvas *c, float x0, float y0, float x1, float y1, float w)
{
	const struct dab in[] = { { x0, y0, w * 1.25f, .30f },
			      { x0 + .22f * (x1 - x0), y0 + .22f * (y1 - y0), w * .85f, .36f },
				  { x0 + .5f * (x1 - x0), y0 + .5f * (y1 - y0), w * .72f, .42f },
				  { x0 + .82f * (x1 - x0), y0 + .82f * (y1 - y0), w * .85f, .36f },
				  { x1, y1, w * 1.15f, .30f } };
	struct dab d[PAINT_MAX_DABS];

	paint_stroke(c, c->tissue, d, paint_smooth(in, 5, 6, d), PROFILE_BONE);
}

void hand_paint(struct canvas *c, const struct phantom_spec *spec)
{
	/* Per ray, thumb first: where it leaves the wrist, its direction, its bones with the joints between. */
	static const struct { float x, y, angle, len[4], w; } ray[5] = {
		{ -.17f, .42f, -2.35f, { .27f, .20f, .15f, 0 }, .040f },
		{ -.10f, .30f, -1.80f, { .38f, .24f, .14f, .10f }, .037f },
		{ -.02f, .28f, -1.62f, { .37f, .27f, .17f, .10f }, .038f },
		{ .06f, .30f, -1.45f, { .33f, .25f, .16f, .10f }, .035f },
		{ .13f, .34f, -1.24f, { .30f, .19f, .11f, .09f }, .031f },
	};
	static const float carpal[8][4] = {
		{ -.13f, .38f, .050f, .040f }, { -.06f, .36f, .036f, .045f }, { .01f, .37f, .038f, .060f },
		{ .085f, .39f, .040f, .048f }, { -.10f, .48f, .050f, .052f }, { -.01f, .49f, .048f, .045f },
		{ .07f, .485f, .040f, .040f }, { .10f, .47f, .022f, .022f },
	};
	struct rng r = rng_open(spec->seed, CHANCE_BONES);
	const struct dab palm[] = { { 0, 1.3f, .22f, .20f }, { 0, .75f, .20f, .22f }, { -.01f, .50f, .20f, .24f },
				    { -.01f, .25f, .26f, .24f }, { -.01f, .0f, .26f, .18f } };
	struct dab d[PAINT_MAX_DABS];

	paint_stroke(c, c->tissue, d, paint_smooth(palm, 5, 8, d), PROFILE_SOLID);
	for (int k = 0; k < 5; k++) {
		float a = ray[k].angle + rng_range(&r, -.05f, .05f), x = ray[k].x, y = ray[k].y;
		float dx = cosf(a), dy = sinf(a), all = .06f;
		struct dab skin[2] = { { x, y, ray[k].w * 2.2f, .14f }, { 0, 0, ray[k].w * 1.7f, .12f } };

		for (int i = 0; i < 4; i++)
			all += ray[k].len[i];
		skin[1].x = x + all * dx;
		skin[1].y = y + all * dy;
		paint_stroke(c, c->tissue, skin, 2, PROFILE_SOLID);
		for (int i = 0; i < 4 && ray[k].len[i] > 0; i++) {
			float len = ray[k].len[i], w = ray[k].w * (1 - .14f * (float)i);

			bone(c, x + .016f * dx, y + .016f * dy, x + (len - .016f) * dx, y + (len - .016f) * dy, w);
			x += len * dx;
			y += len * dy;
		}
	}
	for (int i = 0; i < 8; i++)
		paint_blob(c, c->tissue, carpal[i][0], carpal[i][1], carpal[i][2], carpal[i][3], .2f * (float)i, 4,
			   .24f, .4f);
	bone(c, -.09f, .57f, -.11f, 1.5f, .085f);
	bone(c, .09f, .58f, .12f, 1.5f, .055f);
}

/* ---- the beam and nothing in it */

void blank_paint(struct canvas *c, const struct phantom_spec *spec)
{
	static const float cell[] = { .5f }, amp[] = { .004f };
	struct rng r = rng_open(spec->seed, CHANCE_FILM + 2000);
	float heel = rng_range(&r, .02f, .06f), level = rng_range(&r, .14f, .20f);

	paint_texture(c, c->cloud, rng_mix(spec->seed ^ CHANCE_TEXTURE), cell, amp, 1);
	for (unsigned y = 0; y < c->h; y++)
		for (unsigned x = 0; x < c->w; x++)
			c->tissue[(size_t)y * c->w + x] = level + heel * (float)y / (float)c->h +
							  c->cloud[(size_t)y * c->w + x];
}
