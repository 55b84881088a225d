/* frame.c: see frame.h.
 *
 * Job: walk the marker segments of ITU-T T.81 (JPEG) and T.87 (JPEG-LS) from SOI to EOI; decode RLE.
 * Promise: linear time, no allocation.  What passes has exactly one frame header, which agrees with
 * the data set, one scan, and an end: a frame that was cut short is known before its missing half
 * is painted grey by a tolerant decoder.
 * Never: decodes JPEG.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"

#include "dicom/frame.h"

#define RLE_HEADER 64

enum { /* T.81 table B.1, T.87 table C.1 */
	TEM = 0x01, SOF0 = 0xc0, SOF1 = 0xc1, SOF3 = 0xc3, DHT = 0xc4, DAC = 0xcc, SOF15 = 0xcf,
	RST0 = 0xd0, RST7 = 0xd7, SOI = 0xd8, EOI = 0xd9, SOS = 0xda, DNL = 0xdc, SOF55 = 0xf7, LSE = 0xf8,
};

static enum image_reason refuse(char *why, enum image_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static enum image_reason refuse(char *why, enum image_reason reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(why, IMAGE_WHY_MAX, format, ap); /* cut texts are fine */
	va_end(ap);
	return reason;
}

static const char *coding_name(enum frame_coding coding)
{
	return coding == FRAME_JPEG_LS ? "JPEG-LS" : "JPEG";
}

static bool is_frame_header(uint8_t marker)
{
	return marker == SOF55 || (marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != 0xc8 &&
				   marker != DAC);
}

static bool frame_header_fits(enum frame_coding coding, uint8_t marker)
{
	switch (coding) {
	case FRAME_JPEG_BASELINE:
		return marker == SOF0;
	case FRAME_JPEG_EXTENDED:
		return marker == SOF0 || marker == SOF1;
	case FRAME_JPEG_LOSSLESS:
		return marker == SOF3;
	case FRAME_JPEG_LS:
		return marker == SOF55;
	}
	return false;
}

static bool precision_fits(enum frame_coding coding, unsigned precision)
{
	switch (coding) {
	case FRAME_JPEG_BASELINE:
		return precision == 8;
	case FRAME_JPEG_EXTENDED:
		return precision == 8 || precision == 12;
	case FRAME_JPEG_LOSSLESS:
	case FRAME_JPEG_LS:
		return precision >= 2 && precision <= 16;
	}
	return false;
}

struct expected {
	enum frame_coding coding;
	unsigned rows, columns, bits_allocated;
};

/* T.81 B.2.2: precision, lines, samples per line, components. */
static enum image_reason check_frame_header(const struct expected *x, struct buf segment, unsigned *ret_precision,
					    char *why)
{
	uint8_t precision, components;
	uint16_t lines, samples;

	if (buf_get_u8(&segment, &precision) < 0 || buf_get_u16(&segment, true, &lines) < 0 ||
	    buf_get_u16(&segment, true, &samples) < 0 || buf_get_u8(&segment, &components) < 0)
		return refuse(why, IMAGE_BROKEN, "%s frame header is too short", coding_name(x->coding));
	if (lines != x->rows || samples != x->columns)
		return refuse(why, IMAGE_BROKEN, "%s frame is %u x %u, Rows (0028,0010) and Columns (0028,0011) say %u x %u",
			      coding_name(x->coding), lines, samples, x->rows, x->columns);
	if (components != 1)
		return refuse(why, IMAGE_BROKEN, "%s frame has %u components, Samples per Pixel (0028,0002) is 1",
			      coding_name(x->coding), components);
	if (!precision_fits(x->coding, precision) || precision > x->bits_allocated)
		return refuse(why, IMAGE_BROKEN, "%s frame has %u bits, which its transfer syntax or Bits Allocated "
			      "(0028,0100) does not allow", coding_name(x->coding), precision);
	*ret_precision = precision;
	return IMAGE_OK;
}

/* Skips to the next marker; bytes that are no fill bytes may not stand between segments. */
static int next_marker(struct buf *b, uint8_t *ret)
{
	uint8_t v;
	int r;

	r = buf_get_u8(b, &v);
	if (r < 0)
		return r;
	if (v != 0xff)
		return -EBADMSG;
	while (v == 0xff) { /* T.81 B.1.1.2: any number of fill bytes */
		r = buf_get_u8(b, &v);
		if (r < 0)
			return r;
	}
	*ret = v;
	return 0;
}

/* Entropy-coded bytes of the one scan: only restart markers and the end may follow. */
static enum image_reason check_scan(enum frame_coding coding, struct buf *b, char *why)
{
	/* T.81 F.1.2.3 stuffs a zero byte after 0xFF, T.87 A.1 a zero bit. */
	uint8_t stuffed_max = coding == FRAME_JPEG_LS ? 0x7f : 0x00;

	while (b->left > 1) {
		const uint8_t *at = memchr(b->p, 0xff, b->left - 1);
		uint8_t marker;

		if (at == NULL)
			break;
		(void)buf_skip(b, (size_t)(at - b->p) + 1); /* inside: memchr found it */
		marker = b->p[0];
		if (marker == 0xff) /* fill byte: look again from there */
			continue;
		(void)buf_skip(b, 1);
		if (marker <= stuffed_max || (marker >= RST0 && marker <= RST7))
			continue;
		if (marker == EOI)
			return IMAGE_OK;
		return refuse(why, IMAGE_BROKEN, "%s frame has marker %02X inside its scan", coding_name(coding), marker);
	}
	return refuse(why, IMAGE_BROKEN, "%s frame breaks off: no end of image", coding_name(coding));
}

/* T.87 C.2.4.1: coding parameters are fine; mapping tables and 32-bit sizes are not grey images. */
static bool lse_allowed(struct buf segment)
{
	uint8_t id;

	return buf_get_u8(&segment, &id) == 0 && id == 1;
}

/* T.81 B.2.3: a sequential scan has spectral selection 0..63 and no approximation.  Old writers put
 * zeroes there and libjpeg decodes the same, with a warning; this warning is settled here, so that
 * every other one can be taken for damage. */
static void settle_spectral_selection(uint8_t *segment, size_t n)
{
	static const uint8_t sequential[3] = { 0, 63, 0 };

	if (n == 6) /* one component: its count, its two bytes, these three */
		memcpy(segment + 3, sequential, sizeof(sequential));
}

enum image_reason frame_check(enum frame_coding coding, uint8_t *p, size_t n, unsigned rows,
			      unsigned columns, unsigned bits_allocated, unsigned *ret_precision,
			      char why[IMAGE_WHY_MAX])
{
	const struct expected x = { coding, rows, columns, bits_allocated };
	struct buf b = buf_of(p, n);
	bool have_header = false;
	uint8_t marker;

	if (next_marker(&b, &marker) < 0 || marker != SOI)
		return refuse(why, IMAGE_BROKEN, "pixel data do not begin as a %s frame", coding_name(coding));
	for (;;) {
		const uint8_t *segment;
		enum image_reason r;
		uint16_t size;

		if (next_marker(&b, &marker) < 0)
			return refuse(why, IMAGE_BROKEN, "%s frame breaks off in its header", coding_name(coding));
		/* Markers without a length, and those that would change what was checked. */
		if (marker <= TEM || (marker >= RST0 && marker <= EOI) || marker == DNL || marker == DAC)
			return refuse(why, IMAGE_BROKEN, "%s frame has marker %02X in its header", coding_name(coding), marker);
		if (buf_get_u16(&b, true, &size) < 0 || size < 2 || buf_get_span(&b, &segment, size - 2u) < 0)
			return refuse(why, IMAGE_BROKEN, "%s frame breaks off in its header", coding_name(coding));
		if (is_frame_header(marker)) {
			if (have_header)
				return refuse(why, IMAGE_BROKEN, "%s frame has two frame headers", coding_name(coding));
			if (!frame_header_fits(coding, marker))
				return refuse(why, IMAGE_BROKEN, "%s frame has a coding process (%02X) that is not its "
					      "transfer syntax's", coding_name(coding), marker);
			r = check_frame_header(&x, buf_of(segment, size - 2u), ret_precision, why);
			if (r != IMAGE_OK)
				return r;
			have_header = true;
		}
		if (marker == LSE && !lse_allowed(buf_of(segment, size - 2u)))
			return refuse(why, IMAGE_UNSUPPORTED, "JPEG-LS frame with a mapping table or 32-bit size");
		if (marker == SOS) {
			if (coding == FRAME_JPEG_BASELINE || coding == FRAME_JPEG_EXTENDED)
				settle_spectral_selection(p + (segment - p), size - 2u);
			break;
		}
	}
	if (!have_header)
		return refuse(why, IMAGE_BROKEN, "%s frame has no frame header", coding_name(coding));
	return check_scan(coding, &b, why);
}

/* PS3.5 G.3.2: PackBits.  Exactly `samples` bytes, each to every `step`th place. */
static bool unpack(struct buf b, size_t samples, unsigned shift, uint16_t *ret)
{
	size_t done = 0;
	uint8_t head;

	while (done < samples) {
		const uint8_t *from;
		size_t count, left = samples - done;
		bool repeat;

		if (buf_get_u8(&b, &head) < 0)
			return false;
		if (head == 0x80)
			continue;
		repeat = head > 0x80;
		count = repeat ? 257u - head : head + 1u;
		if (buf_get_span(&b, &from, repeat ? 1 : count) < 0)
			return false;
		if (count > left) /* some writers let the last run go over the end */
			count = left;
		for (size_t i = 0; i < count; i++)
			ret[done + i] = (uint16_t)(ret[done + i] | (unsigned)from[repeat ? 0 : i] << shift);
		done += count;
	}
	return true;
}

enum image_reason frame_decode_rle(const uint8_t *p, size_t n, size_t samples, unsigned bytes,
				   uint16_t *ret, char why[IMAGE_WHY_MAX])
{
	struct buf b = buf_of(p, n);
	uint32_t segments, offset[2] = { 0 }, end;

	if (n < RLE_HEADER || buf_get_u32(&b, false, &segments) < 0)
		return refuse(why, IMAGE_BROKEN, "RLE frame breaks off in its header");
	if (segments != bytes)
		return refuse(why, IMAGE_BROKEN, "RLE frame has %u segments, Bits Allocated (0028,0100) needs %u",
			      (unsigned)segments, bytes);
	for (unsigned i = 0; i < bytes; i++)
		(void)buf_get_u32(&b, false, &offset[i]); /* inside the header */
	memset(ret, 0, samples * sizeof(*ret));
	for (unsigned i = 0; i < bytes; i++) {
		end = i + 1 < bytes ? offset[i + 1] : n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
		if (offset[i] < RLE_HEADER || end < offset[i] || end > n)
			return refuse(why, IMAGE_BROKEN, "RLE frame has a segment outside itself");
		/* The most significant byte comes first (G.2). */
		if (!unpack(buf_of(p + offset[i], end - offset[i]), samples, 8 * (bytes - 1 - i), ret))
			return refuse(why, IMAGE_BROKEN, "RLE frame breaks off in segment %u", i + 1);
	}
	return IMAGE_OK;
}
