/* paint.h: how shapes reach the film.
 *
 * Shapes are described in body coordinates: x to the viewer's right, y down, the shorter side of the film
 * about 2 units long, 1 unit about 20 cm.  A canvas maps them to pixels (size, zoom, tilt and shift of
 * this exposure) and holds the planes that shapes are added to.  Values are line integrals: how much
 * tissue the ray met, 1 being a trunk; the film's darkness is made from them at the very end.
 */
#ifndef PHANTOM_PAINT_H
#define PHANTOM_PAINT_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "phantom.h"

/* How this exposure lies over the body: zoom > 1 shows more. */
struct pose {
	float zoom_x, zoom_y, shift_x, shift_y, tilt;
};

struct canvas {
	unsigned w, h;
	float x0, xx, xy, y0, yx, yy;   /* body = (x0 + px*xx + py*xy, y0 + px*yx + py*yy) */
	float u0, ux, uy, v0, vx, vy;   /* the inverse: pixel from body */
	float scale;                    /* pixels per body unit */
	float pixel;                    /* body units per pixel */
	float *tissue;                  /* [h, w] what attenuates */
	float *air;                     /* [h, w] lung air on the ray, 0..1 */
	float *vessel;                  /* [h, w] lung markings, 0..1 */
	float *cloud;                   /* [h, w] smooth noise, deviation about 1 */
	float *near, *amp;              /* [h, w] scratch of paint_stroke() and paint_soften() */
};

/* A range of pixels, x1 and y1 exclusive. */
struct window {
	int x0, y0, x1, y1;
};

/* A value as a function of one body coordinate, tabulated. */
enum { CURVE_POINTS = 512 };
#define CURVE_REACH 2.0f
struct curve {
	float v[CURVE_POINTS];
};

struct knot {
	float at, value;
};

/* A point of a stroke: where, half width, amount. */
struct dab {
	float x, y, w, a;
};

enum profile {
	PROFILE_SOLID,          /* a cylinder: vessels, tubes, wires */
	PROFILE_BONE,           /* a dense shell around a lighter core */
	PROFILE_SOFT,           /* fades towards its edge */
	PROFILE_FLAT,           /* even, with a short edge */
};

int canvas_open(struct canvas *c, unsigned w, unsigned h, const struct pose *pose);
void canvas_close(struct canvas *c);
/* The pixels that a rectangle of the body may touch, clipped to the film. */
struct window canvas_window(const struct canvas *c, float x0, float y0, float x1, float y1);

void curve_fit(struct curve *k, const struct knot *knot, size_t n);

/* Smooth polyline through n dabs, `per` steps between two; out has room for PAINT_MAX_DABS. */
enum { PAINT_MAX_DABS = 512 };
size_t paint_smooth(const struct dab *in, size_t n, size_t per, struct dab *out);

/* Adds a polyline of varying width to dst (a plane of the canvas).  Where it bends or touches itself the
 * nearest part counts, once.
 */
void paint_stroke(struct canvas *c, float *dst, const struct dab *d, size_t n, enum profile profile);
/* Adds a rounded box or ellipse (power 2 is an ellipse, 4 nearly a box); rim > 0 makes its edge denser. */
void paint_blob(struct canvas *c, float *dst, float x, float y, float rx, float ry, float angle, int power,
		float amount, float rim);
/* Draws a thin tapering capsule into dst by maximum: for the thousands of twigs of a vessel tree. */
void paint_twig(struct canvas *c, float *dst, float x0, float y0, float x1, float y1, float w, float a);
/* Smooth noise of deviation about 1, from cells of the given sizes (fractions of the shorter side). */
void paint_texture(struct canvas *c, float *dst, uint64_t seed, const float *cell, const float *amp, size_t n);
/* 3x3 binomial blur, mixed with the original: 0 leaves the plane, 1 is the full blur. */
void paint_soften(struct canvas *c, float *plane, float mix);
/* out = plane averaged over a wide square of the given half width (fraction of the shorter side). */
int paint_wide_mean(const struct canvas *c, const float *plane, float reach, float *out);

static inline float clampf(float v, float lo, float hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

/* 1 inside, 0 outside, smooth over +-soft around distance 0. */
static inline float edge(float inside, float soft)
{
	float t = clampf(.5f + .5f * inside / soft, 0, 1);

	return t * t * (3 - 2 * t);
}

static inline float curve_at(const struct curve *k, float at)
{
	float f = (clampf(at, -CURVE_REACH, CURVE_REACH) + CURVE_REACH) *
		  ((CURVE_POINTS - 1) / (2 * CURVE_REACH));
	int i = (int)f;

	if (i > CURVE_POINTS - 2)
		i = CURVE_POINTS - 2;
	return k->v[i] + (k->v[i + 1] - k->v[i]) * (f - (float)i);
}

static inline void canvas_body(const struct canvas *c, int px, int py, float *x, float *y)
{
	*x = c->x0 + (float)px * c->xx + (float)py * c->xy;
	*y = c->y0 + (float)px * c->yx + (float)py * c->yy;
}

#endif
