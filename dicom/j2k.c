/* j2k.c: see j2k.h.
 *
 * Job: walk the markers of ITU-T T.800 annex A (T.814 adds HTJ2K's), then let OpenJPEG decode from
 * memory.
 * Promise: the walk is linear and allocates nothing; what it passes makes OpenJPEG keep at most
 * TILES_MAX tiles and BLOCKS_MAX code-blocks beside the pixels and loop over PACKETS_MAX packets.
 * Every tile has its parts, whole, and the stream its end: OpenJPEG would paint what is missing.
 * Never: lets OpenJPEG open a file, start a thread, or go on after a warning.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <openjpeg.h>

#include "base/buf.h"
#include "base/mem.h"

#include "dicom/j2k.h"

#define TILES_MAX 4096                   /* each costs OpenJPEG 7 KB before the first pixel */
#define BLOCKS_MAX (UINT64_C(1) << 20)   /* code-blocks and precincts of all tiles: up to 300 bytes each */
#define PACKETS_MAX (UINT64_C(1) << 22)  /* precincts of all tiles, times layers */
#define LEVELS_MAX 32                    /* table A.20 */
#define STREAM_BYTES (64u << 10)

enum { /* T.800 table A.2, T.814 annex A */
	SOC = 0xff4f, CAP = 0xff50, SIZ = 0xff51, COD = 0xff52, COC = 0xff53, TLM = 0xff55,
	PLM = 0xff57, PLT = 0xff58, CPF = 0xff59, QCD = 0xff5c, QCC = 0xff5d, RGN = 0xff5e, POC = 0xff5f,
	PPM = 0xff60, PPT = 0xff61, CRG = 0xff63, COM = 0xff64, SOT = 0xff90, SOD = 0xff93, EOC = 0xffd9,
};

#define SOT_BYTES 12 /* marker and segment: a tile part's length counts from here */
#define SOD_BYTES 2

#define BOX(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

struct walk {
	struct buf b;
	char *why;
	struct j2k_frame *frame;
	unsigned bits_allocated;
	uint32_t tile_width, tile_height; /* of the largest tile, clipped to the image */
	uint32_t tiles;
	uint64_t precincts, layers;       /* largest of any COD or COC; precincts of one tile */
	uint8_t seen[TILES_MAX / 8];
};

static enum image_reason refuse(struct walk *w, enum image_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static enum image_reason refuse(struct walk *w, enum image_reason reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(w->why, IMAGE_WHY_MAX, format, ap); /* cut texts are fine */
	va_end(ap);
	return reason;
}

static enum image_reason breaks_off(struct walk *w)
{
	return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame breaks off");
}

/* A marker segment's bytes behind its length. */
static int get_segment(struct buf *b, struct buf *ret)
{
	const uint8_t *p;
	uint16_t size;
	int r = buf_get_u16(b, true, &size);

	if (r < 0)
		return r;
	if (size < 2)
		return -EBADMSG;
	r = buf_get_span(b, &p, size - 2u);
	if (r < 0)
		return r;
	*ret = buf_of(p, size - 2u);
	return 0;
}

/* ---- JP2 boxes (T.800 annex I) ------------------------------------------------------------------- */

/* The content of a box; one of length 0 reaches to the end. */
static int get_box(struct buf *b, uint32_t *ret_type, struct buf *ret)
{
	const uint8_t *p;
	uint32_t size;
	uint64_t content;
	int r = buf_get_u32(b, true, &size);

	if (r == 0)
		r = buf_get_u32(b, true, ret_type);
	if (r < 0)
		return r;
	if (size == 1) {
		r = buf_get_u64(b, true, &content);
		if (r < 0)
			return r;
		if (content < 16)
			return -EBADMSG;
		content -= 16;
	} else if (size == 0)
		content = b->left;
	else if (size < 8)
		return -EBADMSG;
	else
		content = size - 8;
	if (content > b->left)
		return -EBADMSG;
	r = buf_get_span(b, &p, (size_t)content);
	*ret = buf_of(p, (size_t)content);
	return r;
}

static bool has_palette(struct buf header)
{
	struct buf content;
	uint32_t type;

	while (get_box(&header, &type, &content) == 0)
		if (type == BOX('p', 'c', 'l', 'r'))
			return true;
	return false;
}

/* Moves w->b from a JP2 file to the codestream in it; a raw codestream stays as it is. */
static enum image_reason open_boxes(struct walk *w)
{
	static const uint8_t signature[12] = { 0, 0, 0, 12, 'j', 'P', ' ', ' ', 0x0d, 0x0a, 0x87, 0x0a };
	struct buf content, file = w->b;
	uint32_t type;

	if (file.left < sizeof(signature) || memcmp(file.p, signature, sizeof(signature)) != 0)
		return IMAGE_OK;
	while (get_box(&file, &type, &content) == 0) {
		if (type == BOX('j', 'p', '2', 'h') && has_palette(content))
			return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame with a palette");
		if (type == BOX('j', 'p', '2', 'c')) {
			w->b = content;
			return IMAGE_OK;
		}
	}
	return refuse(w, IMAGE_BROKEN, "JP2 boxes without a codestream");
}

/* ---- main header ---------------------------------------------------------------------------------- */

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
	return a / b + (a % b != 0);
}

/* A.5.1: the size of everything. */
static enum image_reason check_siz(struct walk *w, struct buf s)
{
	struct j2k_frame *f = w->frame;
	uint32_t x, y, left, top, tile_x, tile_y, tile_left, tile_top;
	uint16_t profile, components;
	uint8_t depth, dx, dy;

	if (buf_get_u16(&s, true, &profile) < 0 || buf_get_u32(&s, true, &x) < 0 || buf_get_u32(&s, true, &y) < 0 ||
	    buf_get_u32(&s, true, &left) < 0 || buf_get_u32(&s, true, &top) < 0 || buf_get_u32(&s, true, &tile_x) < 0 ||
	    buf_get_u32(&s, true, &tile_y) < 0 || buf_get_u32(&s, true, &tile_left) < 0 ||
	    buf_get_u32(&s, true, &tile_top) < 0 || buf_get_u16(&s, true, &components) < 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a size marker that is too short");
	if (left >= x || top >= y || x > INT32_MAX || y > INT32_MAX || x - left != f->columns || y - top != f->rows)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame is %lld x %lld, Rows (0028,0010) and Columns (0028,0011) "
			      "say %u x %u", (long long)y - top, (long long)x - left, f->rows, f->columns);
	if (components != 1)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has %u components, Samples per Pixel (0028,0002) is 1",
			      components);
	if (buf_get_u8(&s, &depth) < 0 || buf_get_u8(&s, &dx) < 0 || buf_get_u8(&s, &dy) < 0 || s.left != 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a size marker of a wrong length");
	f->precision = (depth & 0x7fu) + 1;
	f->is_signed = (depth & 0x80) != 0;
	if (f->precision > w->bits_allocated)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has %u bits, Bits Allocated (0028,0100) is %u", f->precision,
			      w->bits_allocated);
	if (dx != 1 || dy != 1)
		return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame is subsampled %u x %u", dx, dy);
	/* B.3: the first tile holds the first pixel. */
	if (tile_x == 0 || tile_y == 0 || tile_left > left || tile_top > top || left - tile_left >= tile_x ||
	    top - tile_top >= tile_y)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has impossible tiles");
	x = ceil_div(x - tile_left, tile_x);
	y = ceil_div(y - tile_top, tile_y);
	if ((uint64_t)x * y > TILES_MAX)
		return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame has %llu tiles, at most %u are decoded",
			      (unsigned long long)x * y, TILES_MAX);
	w->tiles = x * y;
	w->tile_width = tile_x < f->columns ? tile_x : f->columns;
	w->tile_height = tile_y < f->rows ? tile_y : f->rows;
	return IMAGE_OK;
}

/* Cells of a grid of 2^log that a run of n samples can touch, wherever it begins. */
static uint64_t cells(uint64_t n, unsigned log)
{
	return (n >> log) + 2;
}

/* A.6.1, table A.15: what COD and COC share.  Counts precincts (B.6) and code-blocks (B.7) from above. */
static enum image_reason check_coding(struct walk *w, bool own_precincts, struct buf s)
{
	uint8_t levels, block_width, block_height, style, transform;
	uint64_t blocks = 0, precincts = 0;

	if (buf_get_u8(&s, &levels) < 0 || buf_get_u8(&s, &block_width) < 0 || buf_get_u8(&s, &block_height) < 0 ||
	    buf_get_u8(&s, &style) < 0 || buf_get_u8(&s, &transform) < 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a coding marker that is too short");
	if (levels > LEVELS_MAX || block_width > 8 || block_height > 8 || block_width + block_height > 8 || transform > 1)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has impossible coding parameters");
	for (unsigned r = 0; r <= levels; r++) {
		uint64_t width = (w->tile_width >> (levels - r < 31 ? levels - r : 31)) + 2;
		uint64_t height = (w->tile_height >> (levels - r < 31 ? levels - r : 31)) + 2;
		unsigned band = r > 0, px = 15, py = 15, bx = block_width + 2u, by = block_height + 2u;
		uint8_t size;

		if (own_precincts) {
			if (buf_get_u8(&s, &size) < 0)
				return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a coding marker that is too short");
			px = size & 15;
			py = size >> 4;
			if (px < band || py < band)
				return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has impossible precincts");
		}
		bx = bx < px - band ? bx : px - band;
		by = by < py - band ? by : py - band;
		precincts += cells(width, px) * cells(height, py);
		blocks += (band ? 3 : 1) * cells(width >> band, bx) * cells(height >> band, by);
	}
	if ((precincts + blocks) * w->tiles > BLOCKS_MAX)
		return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame is cut into more blocks than are decoded");
	if (precincts > w->precincts)
		w->precincts = precincts;
	w->frame->irreversible |= transform == 0;
	return IMAGE_OK;
}

static enum image_reason check_cod(struct walk *w, struct buf s)
{
	uint8_t style, order, transform;
	uint16_t layers;

	if (buf_get_u8(&s, &style) < 0 || buf_get_u8(&s, &order) < 0 || buf_get_u16(&s, true, &layers) < 0 ||
	    buf_get_u8(&s, &transform) < 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a coding marker that is too short");
	if (layers > w->layers)
		w->layers = layers;
	return check_coding(w, style & 1, s);
}

static enum image_reason check_coc(struct walk *w, struct buf s)
{
	uint8_t component, style; /* one byte each: there are less than 257 components */

	if (buf_get_u8(&s, &component) < 0 || buf_get_u8(&s, &style) < 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has a coding marker that is too short");
	return check_coding(w, style & 1, s);
}

/* Segments that main header and tile parts share.  Everything that changes amounts is checked; what
 * nobody writes in medicine and decoders stumble over is refused. */
static enum image_reason check_segment(struct walk *w, uint16_t marker, struct buf segment)
{
	switch (marker) {
	case COD:
		return check_cod(w, segment);
	case COC:
		return check_coc(w, segment);
	case QCD:
	case QCC:
	case RGN:
	case COM:
		return IMAGE_OK;
	case POC:
	case PPM:
	case PPT:
		return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame with marker %04X (changes of progression, packed packet "
			      "headers)", marker);
	default:
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has marker %04X in its header", marker);
	}
}

static bool main_header_only(uint16_t marker)
{
	return marker == CAP || marker == CPF || marker == TLM || marker == PLM || marker == CRG;
}

/* SOC and SIZ, then segments up to the first SOT, which is left unread. */
static enum image_reason check_main_header(struct walk *w)
{
	enum image_reason r;
	struct buf segment, ahead;
	uint16_t marker;

	if (buf_get_u16(&w->b, true, &marker) < 0 || marker != SOC)
		return refuse(w, IMAGE_BROKEN, "pixel data do not begin as a JPEG 2000 frame");
	if (buf_get_u16(&w->b, true, &marker) < 0 || marker != SIZ || get_segment(&w->b, &segment) < 0)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame does not begin with its size");
	r = check_siz(w, segment);
	while (r == IMAGE_OK) {
		ahead = w->b;
		if (buf_get_u16(&ahead, true, &marker) < 0)
			return breaks_off(w);
		if (marker == SOT)
			return IMAGE_OK;
		w->b = ahead;
		if (get_segment(&w->b, &segment) < 0)
			return breaks_off(w);
		if (!main_header_only(marker))
			r = check_segment(w, marker, segment);
	}
	return r;
}

/* ---- tile parts ----------------------------------------------------------------------------------- */

/* A.4.2: the part behind SOT's marker, header and data; w->b then stands at what follows it. */
static enum image_reason check_tile_part(struct walk *w)
{
	const uint8_t *p;
	struct buf segment, part;
	uint16_t tile, marker;
	uint32_t size;

	if (get_segment(&w->b, &segment) < 0 || segment.left != 8 || buf_get_u16(&segment, true, &tile) < 0 ||
	    buf_get_u32(&segment, true, &size) < 0)
		return breaks_off(w);
	if (tile >= w->tiles)
		return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has tile %u of %u", tile, w->tiles);
	if (size == 0) { /* the last one, up to EOC, behind which only padding may be */
		size_t n = w->b.left;

		while (n > 0 && w->b.p[n - 1] == 0)
			n--;
		if (n < SOD_BYTES + 2)
			return breaks_off(w);
		size = SOT_BYTES;
		if (n - 2 > UINT32_MAX - SOT_BYTES)
			return refuse(w, IMAGE_TOO_LARGE, "JPEG 2000 frame of more than 4 GB");
		size += (uint32_t)(n - 2);
	}
	if (size < SOT_BYTES + SOD_BYTES || buf_get_span(&w->b, &p, size - SOT_BYTES) < 0)
		return breaks_off(w);
	part = buf_of(p, size - SOT_BYTES);
	w->seen[tile / 8] = (uint8_t)(w->seen[tile / 8] | 1u << tile % 8);
	for (;;) {
		enum image_reason r;

		if (buf_get_u16(&part, true, &marker) < 0)
			return breaks_off(w);
		if (marker == SOD)
			return IMAGE_OK;
		if (get_segment(&part, &segment) < 0)
			return breaks_off(w);
		r = marker == PLT ? IMAGE_OK : check_segment(w, marker, segment);
		if (r != IMAGE_OK)
			return r;
	}
}

static enum image_reason check_tile_parts(struct walk *w)
{
	enum image_reason r;
	uint16_t marker;

	for (;;) {
		if (buf_get_u16(&w->b, true, &marker) < 0)
			return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame breaks off: no end of codestream");
		if (marker == EOC)
			break;
		if (marker != SOT)
			return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame has marker %04X between its tiles", marker);
		r = check_tile_part(w);
		if (r != IMAGE_OK)
			return r;
	}
	for (uint32_t i = 0; i < w->tiles; i++)
		if ((w->seen[i / 8] & 1u << i % 8) == 0)
			return refuse(w, IMAGE_BROKEN, "JPEG 2000 frame lacks tile %u of %u", i, w->tiles);
	if (w->precincts * w->tiles * w->layers > PACKETS_MAX)
		return refuse(w, IMAGE_UNSUPPORTED, "JPEG 2000 frame is cut into more packets than are decoded");
	return IMAGE_OK;
}

enum image_reason j2k_check(const uint8_t *p, size_t n, unsigned rows, unsigned columns,
			    unsigned bits_allocated, struct j2k_frame *ret, char why[IMAGE_WHY_MAX])
{
	struct j2k_frame frame = { .rows = rows, .columns = columns };
	struct walk w = { .b = buf_of(p, n), .why = why, .frame = &frame, .bits_allocated = bits_allocated };
	enum image_reason r = open_boxes(&w);

	if (r != IMAGE_OK)
		return r;
	frame.p = w.b.p;
	r = check_main_header(&w);
	if (r == IMAGE_OK)
		r = check_tile_parts(&w);
	if (r != IMAGE_OK)
		return r;
	frame.n = (size_t)(w.b.p - frame.p);
	*ret = frame;
	return IMAGE_OK;
}

/* ---- decoding ------------------------------------------------------------------------------------- */

struct memory {
	const uint8_t *p;
	size_t n, at;
};

static OPJ_SIZE_T memory_read(void *to, OPJ_SIZE_T n, void *user)
{
	struct memory *m = user;

	if (m->at == m->n)
		return (OPJ_SIZE_T)-1; /* the library's word for the end */
	if (n > m->n - m->at)
		n = m->n - m->at;
	memcpy(to, m->p + m->at, n);
	m->at += n;
	return n;
}

static OPJ_BOOL memory_seek(OPJ_OFF_T at, void *user)
{
	struct memory *m = user;

	if (at < 0 || (uint64_t)at > m->n)
		return OPJ_FALSE;
	m->at = (size_t)at;
	return OPJ_TRUE;
}

static OPJ_OFF_T memory_skip(OPJ_OFF_T n, void *user)
{
	struct memory *m = user;

	if (n < 0 || (uint64_t)n > m->n - m->at)
		return -1;
	m->at += (size_t)n;
	return n;
}

/* Warnings and errors alike; their texts may quote the input. */
static void on_message(const char *text, void *user)
{
	bool *damaged = user;

	(void)text;
	*damaged = true;
}

static opj_stream_t *open_stream(struct memory *m)
{
	opj_stream_t *stream = opj_stream_create(STREAM_BYTES, OPJ_TRUE);

	if (stream == NULL)
		return NULL;
	opj_stream_set_user_data(stream, m, NULL);
	opj_stream_set_user_data_length(stream, m->n);
	opj_stream_set_read_function(stream, memory_read);
	opj_stream_set_skip_function(stream, memory_skip);
	opj_stream_set_seek_function(stream, memory_seek);
	return stream;
}

static bool run(opj_codec_t *codec, opj_stream_t *stream, bool *damaged, opj_image_t **ret)
{
	opj_dparameters_t parameters;

	opj_set_default_decoder_parameters(&parameters);
	opj_set_warning_handler(codec, on_message, damaged);
	opj_set_error_handler(codec, on_message, damaged);
	return opj_setup_decoder(codec, &parameters) && opj_decoder_set_strict_mode(codec, OPJ_TRUE) &&
	       opj_read_header(stream, codec, ret) && opj_decode(codec, stream, *ret) &&
	       opj_end_decompress(codec, stream) && !*damaged;
}

static bool is_as_checked(const struct j2k_frame *f, const opj_image_t *image)
{
	const opj_image_comp_t *c = image->comps;

	return image->numcomps == 1 && c->data != NULL && c->w == f->columns && c->h == f->rows &&
	       c->prec == f->precision && (c->sgnd != 0) == f->is_signed;
}

static void take_values(const struct j2k_frame *f, const opj_image_t *image, unsigned bits, uint16_t *ret)
{
	unsigned used = bits < f->precision ? bits : f->precision;
	int32_t low = f->is_signed ? -(INT32_C(1) << (used - 1)) : 0;
	int32_t high = low + (int32_t)((UINT32_C(1) << used) - 1);
	unsigned mask = (1u << f->precision) - 1;
	size_t n = (size_t)f->rows * f->columns;

	for (size_t i = 0; i < n; i++) {
		int32_t v = image->comps[0].data[i];

		v = v < low ? low : v > high ? high : v;
		ret[i] = (uint16_t)((unsigned)v & mask);
	}
}

int j2k_decode(const struct j2k_frame *frame, unsigned bits, uint16_t *ret)
{
	struct memory m = { frame->p, frame->n, 0 };
	opj_stream_t *stream = open_stream(&m);
	opj_codec_t *codec;
	opj_image_t *image = NULL;
	bool damaged = false;
	int r;

	/* Creating a codec starts as many threads as this says, before it could be told not to. */
	(void)unsetenv("OPJ_NUM_THREADS");
	codec = opj_create_decompress(OPJ_CODEC_J2K);
	r = codec == NULL || stream == NULL ? -ENOMEM : -EBADMSG;
	if (r == -EBADMSG && run(codec, stream, &damaged, &image) && is_as_checked(frame, image)) {
		take_values(frame, image, bits, ret);
		r = 0;
	}
	opj_stream_destroy(stream);
	opj_destroy_codec(codec);
	opj_image_destroy(image);
	return r;
}
