/* paint.c: strokes, blobs, textures and blurs on planes of floats.
 *
 * Job: turn shapes in body coordinates into sums on a plane, at any resolution, quickly: every shape is
 * confined to the window of pixels it can touch, and no transcendental function runs per pixel.
 * Promise: the same shapes at twice the size give the same picture, only finer; nothing thinner than a
 * pixel is drawn thinner (it would sparkle), it is drawn fainter instead.
 * Never: reads or writes outside the film; decides what is anatomy.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

#include "paint.h"

/* Thinner than this many pixels (half width) a stroke is widened and made fainter. */
static const float thinnest = .75f;

int canvas_open(struct canvas *c, unsigned w, unsigned h, const struct pose *p)
{
	float half = .5f * (float)(w < h ? w : h);
	float cs = cosf(p->tilt), sn = sinf(p->tilt);
	size_t n = (size_t)w * h;
	float cx, cy;

	*c = (struct canvas){ .w = w, .h = h };
	c->scale = half / sqrtf(p->zoom_x * p->zoom_y);
	c->pixel = 1 / c->scale;

	/* film u,v in -1..1 of the shorter side; body = zoom * rotation * (u - shift) */
	c->xx = p->zoom_x * cs / half;
	c->xy = p->zoom_x * sn / half;
	c->yx = -p->zoom_y * sn / half;
	c->yy = p->zoom_y * cs / half;
	cx = .5f * (float)w + p->shift_x * half - .5f;
	cy = .5f * (float)h + p->shift_y * half - .5f;
	c->x0 = -cx * c->xx - cy * c->xy;
	c->y0 = -cx * c->yx - cy * c->yy;
	c->ux = half * cs / p->zoom_x;
	c->uy = -half * sn / p->zoom_y;
	c->vx = half * sn / p->zoom_x;
	c->vy = half * cs / p->zoom_y;
	c->u0 = cx;
	c->v0 = cy;

	c->tissue = calloc(n, sizeof(float));
	c->air = calloc(n, sizeof(float));
	c->vessel = calloc(n, sizeof(float));
	c->cloud = calloc(n, sizeof(float));
	c->near = calloc(n, sizeof(float));
	c->amp = calloc(n, sizeof(float));
	if (!c->tissue || !c->air || !c->vessel || !c->cloud || !c->near || !c->amp) {
		canvas_close(c);
		return -ENOMEM;
	}
	return 0;
}

void canvas_close(struct canvas *c)
{
	free(c->tissue);
	free(c->air);
	free(c->vessel);
	free(c->cloud);
	free(c->near);
	free(c->amp);
	*c = (struct canvas){ .w = 0 };
}

static struct window window_of(const struct canvas *c, float u0, float v0, float u1, float v1)
{
	float w = (float)c->w, h = (float)c->h;

	return (struct window){ .x0 = (int)clampf(floorf(u0), 0, w), .y0 = (int)clampf(floorf(v0), 0, h),
				.x1 = (int)clampf(ceilf(u1) + 1, 0, w), .y1 = (int)clampf(ceilf(v1) + 1, 0, h) };
}

static void to_pixel(const struct canvas *c, float x, float y, float *u, float *v)
{
	*u = c->u0 + x * c->ux + y * c->uy;
	*v = c->v0 + x * c->vx + y * c->vy;
}

struct window canvas_window(const struct canvas *c, float x0, float y0, float x1, float y1)
{
	const float xs[4] = { x0, x1, x0, x1 }, ys[4] = { y0, y0, y1, y1 };
	float lu = 1e9f, lv = 1e9f, hu = -1e9f, hv = -1e9f;

	for (int i = 0; i < 4; i++) {
		float u, v;

		to_pixel(c, xs[i], ys[i], &u, &v);
		lu = fminf(lu, u);
		hu = fmaxf(hu, u);
		lv = fminf(lv, v);
		hv = fmaxf(hv, v);
	}
	return window_of(c, lu, lv, hu, hv);
}

/* Monotone where the knots are monotone (harmonic mean of the secants): a border must not ripple. */
static float knot_slope(const struct knot *k, size_t i, size_t n)
{
	float a, b;

	if (i == 0 || i == n - 1)
		return 0;
	a = (k[i].value - k[i - 1].value) / (k[i].at - k[i - 1].at);
	b = (k[i + 1].value - k[i].value) / (k[i + 1].at - k[i].at);
	return a * b <= 0 ? 0 : 2 * a * b / (a + b);
}

void curve_fit(struct curve *c, const struct knot *k, size_t n)
{
	size_t i = 0;

	for (size_t j = 0; j < CURVE_POINTS; j++) {
		float at = -CURVE_REACH + 2 * CURVE_REACH * (float)j / (CURVE_POINTS - 1);
		float dx, t, m0, m1;

		while (i + 2 < n && at > k[i + 1].at)
			i++;
		dx = k[i + 1].at - k[i].at;
		t = clampf((at - k[i].at) / dx, 0, 1);
		m0 = knot_slope(k, i, n) * dx;
		m1 = knot_slope(k, i + 1, n) * dx;
		c->v[j] = (1 + 2 * t) * (1 - t) * (1 - t) * k[i].value + t * (1 - t) * (1 - t) * m0 +
			  t * t * (3 - 2 * t) * k[i + 1].value - t * t * (1 - t) * m1;
	}
}

static float catmull(float p0, float p1, float p2, float p3, float t)
{
	return .5f * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t * t +
		      (3 * p1 - p0 - 3 * p2 + p3) * t * t * t);
}

size_t paint_smooth(const struct dab *in, size_t n, size_t per, struct dab *out)
{
	size_t m = 0;

	for (size_t i = 0; i + 1 < n; i++) {
		const struct dab *a = &in[i ? i - 1 : 0], *b = &in[i], *c = &in[i + 1];
		const struct dab *d = &in[i + 2 < n ? i + 2 : n - 1];

		for (size_t j = 0; j < per && m + 1 < PAINT_MAX_DABS; j++) {
			float t = (float)j / (float)per;

			out[m++] = (struct dab){ .x = catmull(a->x, b->x, c->x, d->x, t),
						 .y = catmull(a->y, b->y, c->y, d->y, t),
						 .w = b->w + (c->w - b->w) * t,
						 .a = b->a + (c->a - b->a) * t };
		}
	}
	out[m++] = in[n - 1];
	return m;
}

/* One segment in pixels: keeps, per pixel, the smallest distance in units of the half width. */
static void stroke_segment(struct canvas *c, const struct dab *a, const struct dab *b)
{
	float pad = fmaxf(a->w, b->w) + 1.5f;
	float dx = b->x - a->x, dy = b->y - a->y, len = dx * dx + dy * dy;
	float inv = len > 1e-12f ? 1 / len : 0;
	struct window win = window_of(c, fminf(a->x, b->x) - pad, fminf(a->y, b->y) - pad,
				      fmaxf(a->x, b->x) + pad, fmaxf(a->y, b->y) + pad);

	for (int y = win.y0; y < win.y1; y++) {
		float *near = c->near + (size_t)y * c->w, *amp = c->amp + (size_t)y * c->w;
		float ry = (float)y - a->y;

		for (int x = win.x0; x < win.x1; x++) {
			float rx = (float)x - a->x;
			float t = clampf((rx * dx + ry * dy) * inv, 0, 1);
			float ex = rx - t * dx, ey = ry - t * dy, w = a->w + t * (b->w - a->w);
			float q = (ex * ex + ey * ey) / (w * w);

			if (q < near[x]) {
				near[x] = q;
				amp[x] = a->a + t * (b->a - a->a);
			}
		}
	}
}

static float profile_at(enum profile p, float q)       /* q: squared distance over squared half width */
{
	switch (p) {
	case PROFILE_SOLID:
		return q < 1 ? sqrtf(1 - q) : 0;
	case PROFILE_BONE:
		return (q < 1 ? sqrtf(1 - q) : 0) - (q < .70f ? .68f * sqrtf(.70f - q) : 0);
	case PROFILE_SOFT:
		return q < 1 ? (1 - q) * (1 - q) : 0;
	case PROFILE_FLAT:
		return edge(.9f - sqrtf(q), .1f);
	}
	return 0;
}

void paint_stroke(struct canvas *c, float *dst, const struct dab *d, size_t n, enum profile profile)
{
	float lu = 1e9f, lv = 1e9f, hu = -1e9f, hv = -1e9f;
	struct dab p[PAINT_MAX_DABS];
	struct window win;

	if (n > PAINT_MAX_DABS)
		n = PAINT_MAX_DABS;
	for (size_t i = 0; i < n; i++) {
		float w = d[i].w * c->scale;

		to_pixel(c, d[i].x, d[i].y, &p[i].x, &p[i].y);
		p[i].w = fmaxf(w, thinnest);
		p[i].a = d[i].a * (w / p[i].w);
		lu = fminf(lu, p[i].x - p[i].w);
		hu = fmaxf(hu, p[i].x + p[i].w);
		lv = fminf(lv, p[i].y - p[i].w);
		hv = fmaxf(hv, p[i].y + p[i].w);
	}
	win = window_of(c, lu - 2, lv - 2, hu + 2, hv + 2);
	for (int y = win.y0; y < win.y1; y++)
		for (int x = win.x0; x < win.x1; x++)
			c->near[(size_t)y * c->w + (size_t)x] = 4;
	if (n == 1)
		stroke_segment(c, &p[0], &p[0]);
	for (size_t i = 0; i + 1 < n; i++)
		stroke_segment(c, &p[i], &p[i + 1]);
	for (int y = win.y0; y < win.y1; y++) {
		size_t row = (size_t)y * c->w;

		for (int x = win.x0; x < win.x1; x++) {
			size_t at = row + (size_t)x;

			if (c->near[at] < 1)
				dst[at] += c->amp[at] * profile_at(profile, c->near[at]);
		}
	}
}

void paint_blob(struct canvas *c, float *dst, float cx, float cy, float rx, float ry, float angle, int power,
		float amount, float rim)
{
	float cs = cosf(angle), sn = sinf(angle), r = 1.1f * sqrtf(rx * rx + ry * ry) + 2 * c->pixel;
	struct window win = canvas_window(c, cx - r, cy - r, cx + r, cy + r);

	for (int py = win.y0; py < win.y1; py++) {
		for (int px = win.x0; px < win.x1; px++) {
			float x, y, a, b, q;

			canvas_body(c, px, py, &x, &y);
			a = ((x - cx) * cs + (y - cy) * sn) / rx;
			b = ((y - cy) * cs - (x - cx) * sn) / ry;
			a *= a;
			b *= b;
			q = power > 2 ? a * a + b * b : a + b;
			if (q >= 1.2f)
				continue;
			dst[(size_t)py * c->w + (size_t)px] +=
				amount * edge(1 - q, power > 2 ? .25f : .15f) *
				(1 - rim + rim * fminf(q, 1)) * (rim > 0 ? 1 : sqrtf(fmaxf(1 - .8f * q, .05f)));
		}
	}
}

void paint_twig(struct canvas *c, float *dst, float x0, float y0, float x1, float y1, float w, float a)
{
	struct dab p = { .w = w * c->scale, .a = a }, q = p;
	float dx, dy, inv, pad, iw;
	struct window win;

	to_pixel(c, x0, y0, &p.x, &p.y);
	to_pixel(c, x1, y1, &q.x, &q.y);
	if (p.w < thinnest) {
		a *= p.w / thinnest;
		p.w = thinnest;
	}
	dx = q.x - p.x;
	dy = q.y - p.y;
	inv = 1 / (dx * dx + dy * dy + 1e-6f);
	iw = 1 / (p.w * p.w);
	pad = p.w + 1;
	win = window_of(c, fminf(p.x, q.x) - pad, fminf(p.y, q.y) - pad, fmaxf(p.x, q.x) + pad,
			fmaxf(p.y, q.y) + pad);
	for (int y = win.y0; y < win.y1; y++) {
		float *row = dst + (size_t)y * c->w;

		for (int x = win.x0; x < win.x1; x++) {
			float rx = (float)x - p.x, ry = (float)y - p.y;
			float t = clampf((rx * dx + ry * dy) * inv, 0, 1);
			float ex = rx - t * dx, ey = ry - t * dy, d = (ex * ex + ey * ey) * iw;

			if (d < 1)
				row[x] = fmaxf(row[x], a * (1 - d) * (1 - .4f * d));
		}
	}
}

static float lattice(uint64_t seed, unsigned ix, unsigned iy)
{
	struct rng r = { .state = rng_mix(seed + ((uint64_t)iy << 32 | ix) * 0x9e3779b97f4a7c15u) };

	return rng_bell(&r);
}

void paint_texture(struct canvas *c, float *dst, uint64_t seed, const float *cell, const float *amp, size_t n)
{
	float shorter = (float)(c->w < c->h ? c->w : c->h);
	float above[PHANTOM_MAX_SIDE + 2], below[PHANTOM_MAX_SIDE + 2], line[PHANTOM_MAX_SIDE + 2];

	memset(dst, 0, (size_t)c->w * c->h * sizeof(*dst));
	for (size_t k = 0; k < n; k++) {
		float step = fmaxf(cell[k] * shorter, 1.0f);    /* at least a pixel, so the rows suffice */
		unsigned cols = (unsigned)((float)(c->w - 1) / step) + 2, have = UINT_MAX;

		for (unsigned y = 0; y < c->h; y++) {
			float *row = dst + (size_t)y * c->w, f = (float)y / step;
			unsigned iy = (unsigned)f;

			f -= (float)iy;
			f = f * f * (3 - 2 * f);
			if (have != iy) {
				for (unsigned i = 0; i < cols; i++) {
					above[i] = lattice(seed + k, i, iy);
					below[i] = lattice(seed + k, i, iy + 1);
				}
				have = iy;
			}
			for (unsigned i = 0; i < cols; i++)
				line[i] = amp[k] * (above[i] + (below[i] - above[i]) * f);
			for (unsigned x = 0; x < c->w; x++) {
				float t = (float)x / step;
				unsigned i = (unsigned)t;

				t -= (float)i;
				row[x] += line[i] + (line[i + 1] - line[i]) * t * t * (3 - 2 * t);
			}
		}
	}
}

void paint_soften(struct canvas *c, float *plane, float mix)
{
	unsigned w = c->w, h = c->h;
	float side = .25f * mix, mid = 1 - .5f * mix;

	for (unsigned y = 0; y < h; y++) {
		float *row = plane + (size_t)y * w, left = row[0];

		for (unsigned x = 0; x < w; x++) {
			float here = row[x], right = row[x + 1 < w ? x + 1 : x];

			row[x] = mid * here + side * (left + right);
			left = here;
		}
	}
	memcpy(c->amp, plane, w * sizeof(float));       /* the row above, before it was changed */
	for (unsigned y = 0; y < h; y++) {
		float *row = plane + (size_t)y * w, *above = c->amp;
		const float *next = y + 1 < h ? row + w : row;

		for (unsigned x = 0; x < w; x++) {
			float here = row[x];

			row[x] = mid * here + side * (above[x] + next[x]);
			above[x] = here;
		}
	}
}

/* Running mean of n values, stride s, half width r, edges repeated. */
static void mean_line(const float *in, float *out, int n, size_t s, int r)
{
	float sum = 0;

	for (int i = -r; i <= r; i++)
		sum += in[(size_t)(i < 0 ? 0 : i >= n ? n - 1 : i) * s];
	for (int i = 0; i < n; i++) {
		int drop = i - r, add = i + r + 1;

		out[(size_t)i * s] = sum / (float)(2 * r + 1);
		sum += in[(size_t)(add >= n ? n - 1 : add) * s] - in[(size_t)(drop < 0 ? 0 : drop) * s];
	}
}

/* Done on a grid of a few hundred cells: a wide mean has no detail that would miss the rest. */
int paint_wide_mean(const struct canvas *c, const float *plane, float reach, float *out)
{
	unsigned shorter = c->w < c->h ? c->w : c->h;
	unsigned step = shorter > 128 ? shorter / 128 : 1;
	unsigned gw = (c->w + step - 1) / step, gh = (c->h + step - 1) / step;
	size_t n = (size_t)gw * gh;
	int r = (int)(reach * (float)shorter / (float)step + .5f);
	float *a = calloc(n, sizeof(float)), *b = calloc(n, sizeof(float));

	if (!a || !b) {
		free(a);
		free(b);
		return -ENOMEM;
	}
	for (unsigned gy = 0; gy < gh; gy++) {
		for (unsigned gx = 0; gx < gw; gx++) {
			float sum = 0;
			unsigned cnt = 0;

			for (unsigned y = gy * step; y < (gy + 1) * step && y < c->h; y++)
				for (unsigned x = gx * step; x < (gx + 1) * step && x < c->w; x++, cnt++)
					sum += plane[(size_t)y * c->w + x];
			a[(size_t)gy * gw + gx] = sum / (float)cnt;
		}
	}
	for (int pass = 0; pass < 2; pass++) {          /* two boxes: a tent, no visible squares */
		for (unsigned y = 0; y < gh; y++)
			mean_line(a + (size_t)y * gw, b + (size_t)y * gw, (int)gw, 1, r);
		for (unsigned x = 0; x < gw; x++)
			mean_line(b + x, a + x, (int)gh, gw, r);
	}
	for (unsigned y = 0; y < c->h; y++) {
		float fy = clampf(((float)y + .5f) / (float)step - .5f, 0, (float)(gh - 1));
		unsigned iy = (unsigned)fy, jy = iy + 1 < gh ? iy + 1 : iy;
		float ty = fy - (float)iy;

		for (unsigned x = 0; x < c->w; x++) {
			float fx = clampf(((float)x + .5f) / (float)step - .5f, 0, (float)(gw - 1));
			unsigned ix = (unsigned)fx, jx = ix + 1 < gw ? ix + 1 : ix;
			float tx = fx - (float)ix;
			const float *p = a + (size_t)iy * gw, *q = a + (size_t)jy * gw;

			out[(size_t)y * c->w + x] = (p[ix] + (p[jx] - p[ix]) * tx) * (1 - ty) +
						    (q[ix] + (q[jx] - q[ix]) * tx) * ty;
		}
	}
	free(a);
	free(b);
	return 0;
}
