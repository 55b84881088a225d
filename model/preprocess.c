/* preprocess.c: grey levels to the letterboxed square, byte for byte as the training code did
 * (carzero.md section 2).
 *
 * The reference resizes with OpenCV's INTER_AREA, which is four different algorithms; each is here
 * with its own rounding:
 *
 *	same size                      copy
 *	both ratios whole numbers      block mean; 2x2 in integers, else float32
 *	shrinking                      area weights, float32, summed in a fixed order
 *	enlarging                      fixed-point bilinear with area coordinates
 *
 * Float32 results depend on the order of additions and on the absence of contraction (FMA): this
 * file must be compiled with -ffp-contract=off and never with fast-math.  Rounding is half to even,
 * the default mode, which nobody in this program changes.
 */
#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/mem.h"

#include "model/preprocess.h"

#define LINES 8 /* of the film that are summed side by side */

/* As in kernels_math.h, and without contraction whatever the attribute makes of the file's options. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR_CODE                                                                                     \
	__attribute__((target_clones("arch=x86-64-v3", "default"), optimize("O3", "fp-contract=off")))
#else
#define VECTOR_CODE
#endif

struct image {
	uint8_t *p;
	size_t width, height, stride;
};

struct source {
	const uint8_t *p;
	size_t width, height;
};

/* Half to even, clamped, as saturate_cast<uchar>(float). */
static uint8_t round_u8(float v)
{
	long n = lrintf(v);

	return (uint8_t)(n < 0 ? 0 : n > 255 ? 255 : n);
}

static void resize_copy(const struct source *src, const struct image *dst)
{
	size_t y;

	for (y = 0; y < dst->height; y++)
		memcpy(dst->p + y * dst->stride, src->p + y * src->width, src->width);
}

/* Both ratios whole: the mean of ix x iy blocks.  At side 256 a sum stays below 2^24, which float32
 * holds exactly. */
VECTOR_CODE
static void resize_blocks(const struct source *src, const struct image *dst, size_t ix, size_t iy)
{
	float scale = 1.0f / (float)(ix * iy);
	size_t x, y, i, j;

	for (y = 0; y < dst->height; y++) {
		for (x = 0; x < dst->width; x++) {
			const uint8_t *p = src->p + y * iy * src->width + x * ix;
			uint64_t sum = 0;

			for (j = 0; j < iy; j++) {
				uint32_t line = 0; /* 255 * PREPROCESS_SIDE_MAX fits */

				for (i = 0; i < ix; i++)
					line += p[j * src->width + i];
				sum += line;
			}
			dst->p[y * dst->stride + x] = ix == 2 && iy == 2 ? (uint8_t)((sum + 2) >> 2)
									  : round_u8((float)sum * scale);
		}
	}
}

struct share { /* source line `src` goes into result line `dst` with this weight */
	size_t dst, src;
	float weight;
};

/* The shares of one axis, in the order in which they are summed; room for n + 2 * dn. */
static size_t area_shares(size_t n, size_t dn, double scale, struct share *ret)
{
	size_t d, s, k = 0;

	for (d = 0; d < dn; d++) {
		double f1 = (double)d * scale, f2 = f1 + scale;
		double cell = fmin(scale, (double)n - f1);
		size_t s1 = (size_t)ceil(f1), s2 = (size_t)floor(f2);

		if (s2 > n - 1)
			s2 = n - 1;
		if (s1 > s2)
			s1 = s2;
		if ((double)s1 - f1 > 1e-3)
			ret[k++] = (struct share){ d, s1 - 1, (float)(((double)s1 - f1) / cell) };
		for (s = s1; s < s2; s++)
			ret[k++] = (struct share){ d, s, (float)(1.0 / cell) };
		if (f2 - (double)s2 > 1e-3)
			ret[k++] = (struct share){
				d, s2, (float)(fmin(fmin(f2 - (double)s2, 1.0), cell) / cell)
			};
	}
	return k;
}

static void area_store(const float *sum, const struct image *dst, size_t y)
{
	size_t x;

	for (x = 0; x < dst->width; x++)
		dst->p[y * dst->stride + x] = round_u8(sum[x]);
}

/* LINES lines from p on, of n that there are (the last stands in for the others), element by element. */
static void interleave(const uint8_t *p, size_t width, size_t n, uint8_t *ret /* [width, LINES] */)
{
	const uint8_t *at[LINES];
	size_t x = 0;

	for (size_t l = 0; l < LINES; l++)
		at[l] = p + (l < n ? l : n - 1) * width;
#ifdef __SSE2__
	for (; x + 8 <= width; x += 8) {
		__m128i pair[4], low[2], high[2], *to = (__m128i *)(void *)(ret + x * LINES);

		for (size_t l = 0; l < 4; l++)
			pair[l] = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)(at[2 * l] + x)),
						    _mm_loadl_epi64((const __m128i *)(const void *)(at[2 * l + 1] + x)));
		for (size_t l = 0; l < 2; l++) {
			low[l] = _mm_unpacklo_epi16(pair[2 * l], pair[2 * l + 1]);
			high[l] = _mm_unpackhi_epi16(pair[2 * l], pair[2 * l + 1]);
		}
		_mm_storeu_si128(to, _mm_unpacklo_epi32(low[0], low[1]));
		_mm_storeu_si128(to + 1, _mm_unpackhi_epi32(low[0], low[1]));
		_mm_storeu_si128(to + 2, _mm_unpacklo_epi32(high[0], high[1]));
		_mm_storeu_si128(to + 3, _mm_unpackhi_epi32(high[0], high[1]));
	}
#endif
	for (; x < width; x++)
		for (size_t l = 0; l < LINES; l++)
			ret[x * LINES + l] = at[l][x];
}

/* What each of LINES lines gives to each column of the result, in the order of the shares: a line's sum is one
 * chain of additions, but LINES of them do not wait for each other. */
VECTOR_CODE
static void sum_lines(const uint8_t *restrict lines /* [width, LINES] */, const struct share *xs, size_t nx,
		      float *restrict ret /* [columns, LINES] */)
{
	for (size_t k = 0; k < nx;) {
		size_t dst = xs[k].dst;
		float sum[LINES] = { 0 };

		for (; k < nx && xs[k].dst == dst; k++)
			for (size_t l = 0; l < LINES; l++)
				sum[l] += (float)lines[xs[k].src * LINES + l] * xs[k].weight;
		memcpy(ret + dst * LINES, sum, sizeof(sum));
	}
}

static int resize_area(const struct source *src, const struct image *dst, double scale_x, double scale_y)
{
	CLEANUP(free) struct share *xs = NULL, *ys = NULL;
	CLEANUP(free) uint8_t *lines = NULL;	      /* [src->width, LINES] */
	CLEANUP(free) float *rows = NULL, *sum = NULL; /* [dst->width, LINES], [dst->width] */
	size_t nx, ny, i, x, y = 0, from = 0, to = 0;  /* lines holds [from, to) */

	xs = calloc(src->width + 2 * dst->width, sizeof(*xs));
	ys = calloc(src->height + 2 * dst->height, sizeof(*ys));
	lines = calloc(src->width, LINES);
	rows = calloc(dst->width, LINES * sizeof(*rows));
	sum = calloc(dst->width, sizeof(*sum));
	if (xs == NULL || ys == NULL || lines == NULL || rows == NULL || sum == NULL)
		return -ENOMEM;
	nx = area_shares(src->width, dst->width, scale_x, xs);
	ny = area_shares(src->height, dst->height, scale_y, ys);
	for (i = 0; i < ny; i++) { /* ys[].src never decreases */
		bool first = i == 0 || ys[i].dst != y;

		if (ys[i].src >= to) {
			from = ys[i].src;
			to = from + LINES < src->height ? from + LINES : src->height;
			interleave(src->p + from * src->width, src->width, to - from, lines);
			sum_lines(lines, xs, nx, rows);
		}
		if (first && i > 0)
			area_store(sum, dst, y);
		y = ys[i].dst;
		for (x = 0; x < dst->width; x++) {
			float v = ys[i].weight * rows[x * LINES + ys[i].src - from];

			sum[x] = first ? v : sum[x] + v;
		}
	}
	area_store(sum, dst, y);
	return 0;
}

struct blend { /* result = (w0 * line s + w1 * line s + 1) / 2048 */
	size_t s;
	int w0, w1;
};

static void area_blends(size_t n, size_t dn, double scale, double inverse, struct blend *ret)
{
	size_t d;

	for (d = 0; d < dn; d++) {
		size_t s = (size_t)floor((double)d * scale);
		float f = (float)((double)(d + 1) - (double)(s + 1) * inverse);

		f = f <= 0 ? 0.0f : f - floorf(f);
		if (s >= n - 1) {
			s = n - 1;
			f = 0.0f;
		}
		ret[d] = (struct blend){ s, (int)lrintf((1.0f - f) * 2048.0f), (int)lrintf(f * 2048.0f) };
	}
}

/* Horizontal sums of one source line, 11 fractional bits. */
static void blend_row(const uint8_t *p, size_t n, const struct blend *xs, size_t dn, int *ret)
{
	size_t d;

	for (d = 0; d < dn; d++)
		ret[d] = xs[d].s + 1 < n ? p[xs[d].s] * xs[d].w0 + p[xs[d].s + 1] * xs[d].w1
					 : p[xs[d].s] * 2048;
}

static int resize_enlarge(const struct source *src, const struct image *dst, double scale_x,
			  double scale_y, double inverse_x, double inverse_y)
{
	CLEANUP(free) struct blend *xs = NULL, *ys = NULL;
	CLEANUP(free) int *upper = NULL, *lower = NULL;
	size_t x, y;

	xs = calloc(dst->width, sizeof(*xs));
	ys = calloc(dst->height, sizeof(*ys));
	upper = calloc(dst->width, sizeof(*upper));
	lower = calloc(dst->width, sizeof(*lower));
	if (xs == NULL || ys == NULL || upper == NULL || lower == NULL)
		return -ENOMEM;
	area_blends(src->width, dst->width, scale_x, inverse_x, xs);
	area_blends(src->height, dst->height, scale_y, inverse_y, ys);
	for (y = 0; y < dst->height; y++) {
		size_t s = ys[y].s, below = s + 1 < src->height ? s + 1 : s;

		blend_row(src->p + s * src->width, src->width, xs, dst->width, upper);
		blend_row(src->p + below * src->width, src->width, xs, dst->width, lower);
		for (x = 0; x < dst->width; x++)
			dst->p[y * dst->stride + x] =
				(uint8_t)(((ys[y].w0 * (upper[x] >> 4) >> 16) +
					   (ys[y].w1 * (lower[x] >> 4) >> 16) + 2) >> 2);
	}
	return 0;
}

static bool whole(double v)
{
	return fabs(v - rint(v)) < DBL_EPSILON;
}

/* cv2.resize(..., INTER_AREA).  The ratios are computed as OpenCV does, through the inverse. */
static int resize(const struct source *src, const struct image *dst)
{
	double inverse_x = (double)dst->width / (double)src->width;
	double inverse_y = (double)dst->height / (double)src->height;
	double scale_x = 1.0 / inverse_x, scale_y = 1.0 / inverse_y;

	if (dst->width == src->width && dst->height == src->height) {
		resize_copy(src, dst);
		return 0;
	}
	if (scale_x < 1 || scale_y < 1)
		return resize_enlarge(src, dst, scale_x, scale_y, inverse_x, inverse_y);
	if (whole(scale_x) && whole(scale_y)) {
		resize_blocks(src, dst, (size_t)rint(scale_x), (size_t)rint(scale_y));
		return 0;
	}
	return resize_area(src, dst, scale_x, scale_y);
}

/* The longer side becomes `side`, the other is truncated; a square takes the first branch.  The
 * factor is computed first, then multiplied: the order decides about the last pixel. */
static void fit(struct letterbox *box, size_t width, size_t height)
{
	if (height >= width) {
		box->height = box->side;
		box->width = (size_t)((double)width * ((double)box->side / (double)height));
	} else {
		box->width = box->side;
		box->height = (size_t)((double)height * ((double)box->side / (double)width));
	}
	box->left = (box->side - box->width) / 2; /* the odd line goes right and below */
	box->top = (box->side - box->height) / 2;
	box->scale_x = (double)box->width / (double)width;
	box->scale_y = (double)box->height / (double)height;
}

int preprocess_place(size_t width, size_t height, size_t side, struct letterbox *ret)
{
	struct letterbox box = { .side = side };

	assert(side > 0 && side <= PREPROCESS_SIDE_MAX);
	if (width == 0 || height == 0)
		return -EBADMSG;
	if (width > PREPROCESS_SIDE_MAX || height > PREPROCESS_SIDE_MAX)
		return -E2BIG;
	fit(&box, width, height);
	if (box.width == 0 || box.height == 0)
		return -EBADMSG;
	*ret = box;
	return 0;
}

struct seen preprocess_seen(const struct letterbox *box, size_t crop)
{
	double edge = (double)(box->side - crop) / 2;

	return (struct seen){
		(edge - (double)box->left) / box->scale_x,
		(edge - (double)box->top) / box->scale_y,
		(double)crop / box->scale_x,
		(double)crop / box->scale_y,
	};
}

int preprocess_letterbox(const uint8_t *gray, size_t width, size_t height, size_t side, uint8_t *ret,
			 struct letterbox *ret_box)
{
	struct source src = { gray, width, height };
	struct letterbox box;
	struct image dst;
	int r = preprocess_place(width, height, side, &box);

	if (r < 0)
		return r;
	memset(ret, 0, side * side);
	dst = (struct image){ ret + box.top * side + box.left, box.width, box.height, side };
	r = resize(&src, &dst);
	if (r < 0)
		return r;
	*ret_box = box;
	return 0;
}

void preprocess_equalize(uint8_t *gray, size_t n)
{
	size_t hist[256] = { 0 }, first = 0, sum = 0, i;
	uint8_t lut[256] = { 0 };
	float scale;

	if (n == 0)
		return;
	for (i = 0; i < n; i++)
		hist[gray[i]]++;
	while (hist[first] == 0)
		first++;
	if (hist[first] == n)
		return; /* constant: OpenCV leaves it as it is */
	scale = 255.0f / (float)(n - hist[first]);
	for (i = first + 1; i < 256; i++) {
		sum += hist[i];
		lut[i] = round_u8((float)sum * scale);
	}
	for (i = 0; i < n; i++)
		gray[i] = lut[gray[i]];
}

void preprocess_mimic(const int32_t *stored, size_t n, bool monochrome1, uint8_t *ret)
{
	int64_t min = INT32_MAX, max = INT32_MIN;
	size_t i;

	for (i = 0; i < n; i++) {
		min = stored[i] < min ? stored[i] : min;
		max = stored[i] > max ? stored[i] : max;
	}
	for (i = 0; i < n; i++) {
		double range = (double)(max - min), v = (double)(stored[i] - min);
		uint8_t u = range > 0 ? (uint8_t)(v / range * 255) : 0;

		ret[i] = monochrome1 ? (uint8_t)(255 - u) : u;
	}
	preprocess_equalize(ret, n);
}
