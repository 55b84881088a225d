/* scan.c: see scan.h.  The walk of PS3.5 chapter 7 with a stack of our own.
 *
 * Job: decide whether DCMTK may see the header of this file, and where its pixels are.
 * Promise: time linear in the file's size, memory constant but for a bounded inflation; every
 * length is compared with what encloses it before it is used.
 * Never: guesses.  A value representation that PS3.5 does not have, an item where none can be, a
 * missing delimiter: the file is refused, because another parser could see other nesting there.
 *
 * In implicit VR a sequence of known length looks like any other value until the dictionary is
 * asked, and DCMTK asks it.  So a value that begins with an item tag is walked as a sequence here,
 * whatever its tag.  The only large values where that may happen by chance are pixels, which are
 * exempt.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/mem.h"

#include "dicom/scan.h"

#define SCAN_DEPTH_MAX 64         /* of our stack, whatever the limits say */
#define SCAN_ELEMENTS_MAX 200000  /* a structured header has some thousand */
#define INFLATED_HEADER_MAX (16u << 20) /* beside the pixels, of a deflated data set */
#define UNDEFINED 0xffffffffu

#define TAG(group, element) (((uint32_t)(group) << 16) | (element))
#define TAG_ITEM TAG(0xfffe, 0xe000)
#define TAG_ITEM_END TAG(0xfffe, 0xe00d)
#define TAG_SEQUENCE_END TAG(0xfffe, 0xe0dd)
#define TAG_PIXEL_DATA TAG(0x7fe0, 0x0010)

struct element {
	uint32_t tag;
	char vr[2];              /* zeroes in implicit VR and for items */
	uint32_t length;
};

struct level {
	bool is_sequence;        /* holds items; else holds elements */
	bool undefined;          /* ends by a delimiter */
	enum scan_encoding encoding;
	size_t end;              /* first byte outside; of an undefined level, of what encloses it */
};

struct walk {
	const uint8_t *p;
	size_t n, at;
	unsigned depth, items, elements, fragments;
	struct level level[SCAN_DEPTH_MAX];
	const struct dicom_limits *limits;
	struct scan *ret;
};

static enum image_reason refuse(struct scan *ret, enum image_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static enum image_reason refuse(struct scan *ret, enum image_reason reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(ret->why, sizeof(ret->why), format, ap); /* cut texts are fine */
	va_end(ap);
	ret->reason = reason;
	return reason;
}

static enum image_reason breaks_off(struct scan *ret, uint32_t tag)
{
	return refuse(ret, IMAGE_NOT_DICOM, "the file breaks off at (%04X,%04X): the length goes beyond what "
		      "encloses the element", (unsigned)(tag >> 16), (unsigned)(tag & 0xffff));
}

static bool vr_is(const struct element *e, const char *vr)
{
	return memcmp(e->vr, vr, 2) == 0;
}

/* PS3.5 table 7.1-1: these have two reserved bytes and a 32-bit length. */
static bool vr_is_long(const char vr[2])
{
	static const char names[][3] = { "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV",
					 "UC", "UN", "UR", "UT", "UV" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (memcmp(vr, names[i], 2) == 0)
			return true;
	return false;
}

static bool vr_is_short(const char vr[2])
{
	static const char names[][3] = { "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO",
					 "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (memcmp(vr, names[i], 2) == 0)
			return true;
	return false;
}

static uint32_t length_limit(size_t left)
{
	return left < UNDEFINED ? (uint32_t)left : UNDEFINED - 1;
}

/* Reads tag, VR and length; -EBADMSG when they are not there, -EINVAL for an unknown VR. */
static int element_read(struct buf *b, enum scan_encoding encoding, struct element *ret)
{
	bool big = encoding == SCAN_EXPLICIT_BE;
	uint16_t group, number, short_length;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = buf_get_u16(b, big, &group);
	if (r < 0)
		return r;
	r = buf_get_u16(b, big, &number);
	if (r < 0)
		return r;
	ret->tag = TAG(group, number);
	if (encoding == SCAN_IMPLICIT_LE || group == 0xfffe)
		return buf_get_u32(b, big, &ret->length);
	r = buf_get_bytes(b, ret->vr, 2);
	if (r < 0)
		return r;
	if (vr_is_long(ret->vr)) {
		r = buf_skip(b, 2);
		if (r < 0)
			return r;
		return buf_get_u32(b, big, &ret->length);
	}
	if (!vr_is_short(ret->vr))
		return -EINVAL;
	r = buf_get_u16(b, big, &short_length);
	if (r < 0)
		return r;
	ret->length = short_length;
	return 0;
}

static unsigned get_us(const uint8_t *p, uint32_t n, enum scan_encoding encoding)
{
	struct buf b = buf_of(p, n);
	uint16_t v;

	return n == 2 && buf_get_u16(&b, encoding == SCAN_EXPLICIT_BE, &v) == 0 ? v : 0;
}

/* Number of Frames is an integer string, "1 " as a rule. */
static unsigned get_is(const uint8_t *p, uint32_t n)
{
	char text[16];
	uint64_t v;
	size_t i = 0;

	if (!str_copy_padded(text, sizeof(text), p, n))
		return 0;
	while (text[i] == ' ' || text[i] == '+')
		i++;
	return str_to_u64(text + i, 0, UINT32_MAX, &v) ? (unsigned)v : 0;
}

static void take_geometry(struct scan *s, const struct element *e, const uint8_t *value)
{
	unsigned *to = NULL;

	switch (e->tag) {
	case TAG(0x0028, 0x0002):
		to = &s->samples;
		break;
	case TAG(0x0028, 0x0008):
		if (s->frames == 0)
			s->frames = get_is(value, e->length);
		return;
	case TAG(0x0028, 0x0010):
		to = &s->rows;
		break;
	case TAG(0x0028, 0x0011):
		to = &s->columns;
		break;
	case TAG(0x0028, 0x0100):
		to = &s->bits_allocated;
		break;
	case TAG(0x0028, 0x0101):
		to = &s->bits_stored;
		break;
	case TAG(0x0028, 0x0102):
		s->has_high_bit = e->length == 2;
		to = &s->high_bit;
		break;
	case TAG(0x0028, 0x0103):
		s->is_signed = get_us(value, e->length, s->encoding) == 1;
		return;
	default:
		return;
	}
	if (*to == 0) /* the first of doubled elements counts */
		*to = get_us(value, e->length, s->encoding);
}

static struct level *top(struct walk *w)
{
	return &w->level[w->depth - 1];
}

static enum image_reason push(struct walk *w, struct level level)
{
	unsigned sequences = (w->depth + 1) / 2;

	/* Levels alternate: data set, sequence, item, sequence, item, ... */
	if (level.is_sequence && sequences > w->limits->depth)
		return refuse(w->ret, IMAGE_NOT_DICOM, "sequences are nested more than %u deep", w->limits->depth);
	if (w->depth == SCAN_DEPTH_MAX)
		return refuse(w->ret, IMAGE_NOT_DICOM, "sequences are nested too deep");
	w->level[w->depth++] = level;
	return IMAGE_OK;
}

/* PS3.5 A.4: an offset table and fragments, each an item of known length, up to a delimiter.
 * `at` stands behind the element's header; moves behind the delimiter. */
static enum image_reason walk_fragments(struct walk *w, bool *ret_ended)
{
	bool big = top(w)->encoding == SCAN_EXPLICIT_BE;

	for (;;) {
		struct buf b = buf_of(w->p + w->at, top(w)->end - w->at);
		struct element e;

		if (element_read(&b, big ? SCAN_EXPLICIT_BE : SCAN_EXPLICIT_LE, &e) < 0)
			return breaks_off(w->ret, TAG_PIXEL_DATA);
		w->at += 8;
		if (e.tag == TAG_SEQUENCE_END) {
			*ret_ended = true;
			return IMAGE_OK;
		}
		if (e.tag != TAG_ITEM || e.length == UNDEFINED)
			return refuse(w->ret, IMAGE_NOT_DICOM, "Pixel Data (7FE0,0010) holds something that is not a fragment");
		if (e.length > b.left)
			return breaks_off(w->ret, TAG_PIXEL_DATA);
		if (++w->fragments > w->limits->fragments)
			return refuse(w->ret, IMAGE_TOO_LARGE, "more than %u fragments of pixel data", w->limits->fragments);
		w->at += e.length;
	}
}

static enum image_reason walk_pixels(struct walk *w, const struct element *e)
{
	struct scan *s = w->ret;
	unsigned before = w->fragments;
	enum image_reason r;
	bool ended = false;

	s->pixels = w->p + w->at;
	if (e->length == UNDEFINED) {
		s->encapsulated = true;
		r = walk_fragments(w, &ended);
		s->pixels_size = (size_t)(w->p + w->at - s->pixels) - (ended ? 8 : 0);
		s->fragments = w->fragments - before;
		if (s->fragments > 0)
			s->fragments--; /* the offset table */
		return r;
	}
	if (e->length > top(w)->end - w->at)
		return breaks_off(s, TAG_PIXEL_DATA);
	s->words = vr_is(e, "OW") || w->level[0].encoding == SCAN_IMPLICIT_LE;
	s->pixels_size = e->length;
	w->at += e->length;
	return IMAGE_OK;
}

static bool begins_with_item(const uint8_t *p, uint32_t n)
{
	static const uint8_t item[4] = { 0xfe, 0xff, 0x00, 0xe0 };

	return n >= 8 && memcmp(p, item, sizeof(item)) == 0;
}

static enum image_reason walk_undefined(struct walk *w, const struct element *e)
{
	enum scan_encoding encoding = top(w)->encoding;
	bool ended;

	if (vr_is(e, "UN")) /* PS3.5 6.2.2: the content is implicit VR little endian */
		encoding = SCAN_IMPLICIT_LE;
	else if (vr_is(e, "OB") || vr_is(e, "OW")) {
		if (e->tag == TAG_PIXEL_DATA) /* of an icon */
			return walk_fragments(w, &ended);
		return refuse(w->ret, IMAGE_NOT_DICOM, "(%04X,%04X) has no length",
			      (unsigned)(e->tag >> 16), (unsigned)(e->tag & 0xffff));
	} else if (!vr_is(e, "SQ") && encoding != SCAN_IMPLICIT_LE)
		return refuse(w->ret, IMAGE_NOT_DICOM, "(%04X,%04X) has no length",
			      (unsigned)(e->tag >> 16), (unsigned)(e->tag & 0xffff));
	return push(w, (struct level){ .is_sequence = true, .undefined = true, .encoding = encoding,
				       .end = top(w)->end });
}

static enum image_reason walk_element(struct walk *w)
{
	struct level *in = top(w);
	struct buf b = buf_of(w->p + w->at, in->end - w->at);
	struct element e;
	int r;

	r = element_read(&b, in->encoding, &e);
	if (r == -EINVAL)
		return refuse(w->ret, IMAGE_NOT_DICOM, "(%04X,%04X) has no known value representation",
			      (unsigned)(e.tag >> 16), (unsigned)(e.tag & 0xffff));
	if (r < 0)
		return refuse(w->ret, IMAGE_NOT_DICOM, "the file breaks off between elements");
	if (e.tag == TAG_ITEM_END && in->undefined && e.length == 0) {
		w->at += 8;
		w->depth--;
		return IMAGE_OK;
	}
	if (e.tag >> 16 == 0xfffe)
		return refuse(w->ret, IMAGE_NOT_DICOM, "an item or delimiter stands where an element must be");
	if (++w->elements > SCAN_ELEMENTS_MAX)
		return refuse(w->ret, IMAGE_TOO_LARGE, "more than %u elements", SCAN_ELEMENTS_MAX);
	if (w->depth == 1 && e.tag == TAG_PIXEL_DATA) {
		w->ret->header_size = w->at;
		w->at = (size_t)(b.p - w->p);
		return walk_pixels(w, &e);
	}
	w->at = (size_t)(b.p - w->p);
	if (e.length == UNDEFINED)
		return walk_undefined(w, &e);
	if (e.length > length_limit(b.left))
		return breaks_off(w->ret, e.tag);
	if (vr_is(&e, "SQ") || (in->encoding == SCAN_IMPLICIT_LE && e.tag != TAG_PIXEL_DATA &&
				begins_with_item(b.p, e.length)))
		return push(w, (struct level){ .is_sequence = true, .encoding = in->encoding,
					       .end = w->at + e.length });
	if (w->depth == 1)
		take_geometry(w->ret, &e, b.p);
	w->at += e.length;
	return IMAGE_OK;
}

static enum image_reason walk_item(struct walk *w)
{
	struct level *in = top(w);
	struct buf b = buf_of(w->p + w->at, in->end - w->at);
	struct element e;

	if (element_read(&b, in->encoding, &e) < 0)
		return refuse(w->ret, IMAGE_NOT_DICOM, "the file breaks off in a sequence");
	w->at += 8;
	if (e.tag == TAG_SEQUENCE_END && in->undefined && e.length == 0) {
		w->depth--;
		return IMAGE_OK;
	}
	if (e.tag != TAG_ITEM)
		return refuse(w->ret, IMAGE_NOT_DICOM, "a sequence holds something that is not an item");
	if (++w->items > w->limits->items)
		return refuse(w->ret, IMAGE_TOO_LARGE, "more than %u items", w->limits->items);
	if (e.length != UNDEFINED && e.length > b.left)
		return breaks_off(w->ret, TAG_ITEM);
	return push(w, (struct level){ .undefined = e.length == UNDEFINED, .encoding = in->encoding,
				       .end = e.length == UNDEFINED ? in->end : w->at + e.length });
}

/* Up to and with top-level Pixel Data; what stands behind it is never read by anybody. */
static void walk_data_set(struct scan *ret, const uint8_t *p, size_t n, const struct dicom_limits *limits)
{
	struct walk *w = xcalloc(1, sizeof(*w));
	enum image_reason r = IMAGE_OK;

	*w = (struct walk){ .p = p, .n = n, .limits = limits, .ret = ret };
	w->level[0] = (struct level){ .encoding = ret->encoding, .end = n };
	w->depth = 1;
	ret->data_set = p;
	while (r == IMAGE_OK && ret->pixels == NULL) {
		if (w->at == top(w)->end && !top(w)->undefined) {
			if (--w->depth == 0)
				break;
			continue;
		}
		r = top(w)->is_sequence ? walk_item(w) : walk_element(w);
	}
	if (r == IMAGE_OK && ret->pixels == NULL) {
		ret->header_size = n;
		refuse(ret, IMAGE_NO_PIXELS, "no Pixel Data (7FE0,0010)");
	}
	free(w);
}

/* PS3.10 7.1.  The group ends where another group begins; its length element is only believed
 * where the bytes behind it cannot be told from elements (a deflated data set). */
static size_t read_meta(const uint8_t *p, size_t n, struct scan *ret)
{
	size_t at = 132, group_end = 0;

	while (n - at >= 8 && p[at] == 0x02 && p[at + 1] == 0x00) {
		struct buf b = buf_of(p + at, n - at);
		struct element e;

		if (group_end != 0 && at >= group_end && strcmp(ret->syntax, "1.2.840.10008.1.2.1.99") == 0)
			break;
		if (element_read(&b, SCAN_EXPLICIT_LE, &e) < 0 || e.length > length_limit(b.left))
			return 0;
		if (e.tag == TAG(0x0002, 0x0010))
			(void)str_copy_padded(ret->syntax, sizeof(ret->syntax), b.p, e.length); /* a cut UID is no syntax */
		at = (size_t)(b.p - p) + e.length;
		if (e.tag == TAG(0x0002, 0x0000) && e.length == 4) {
			uint32_t size;

			(void)buf_get_u32(&b, false, &size); /* the length was checked */
			group_end = at + size;
		}
	}
	return at;
}

/* A data set of at most the pixels that we would decode and a header: anything larger is a bomb. */
static int inflate_data_set(struct scan *ret, const uint8_t *p, size_t n, const struct dicom_limits *limits,
			    size_t *ret_n)
{
	size_t max = (limits->pixels < SIZE_MAX / 4 ? (size_t)limits->pixels * 2 : SIZE_MAX / 2) + INFLATED_HEADER_MAX;
	size_t size = 1 << 20, done = 0;
	z_stream z = { 0 };
	int zr = Z_OK;

	if (n > UINT32_MAX)
		return refuse(ret, IMAGE_TOO_LARGE, "deflated data set of more than 4 GB"), 0;
	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		return -ENOMEM;
	z.next_in = (Bytef *)(uintptr_t)p; /* zlib does not write there */
	z.avail_in = (uInt)n;
	while (zr == Z_OK) {
		if (done == size || ret->inflated == NULL) {
			uint8_t *grown;

			if (ret->inflated != NULL)
				size = size < max / 4 ? size * 4 : max;
			grown = done == max ? NULL : realloc(ret->inflated, size);
			if (grown == NULL) {
				(void)inflateEnd(&z);
				if (done < max)
					return -ENOMEM;
				return refuse(ret, IMAGE_TOO_LARGE, "deflated data set inflates beyond %zu bytes", max), 0;
			}
			ret->inflated = grown;
		}
		z.next_out = ret->inflated + done;
		z.avail_out = (uInt)(size - done < UINT32_MAX ? size - done : UINT32_MAX);
		zr = inflate(&z, Z_NO_FLUSH);
		done = (size_t)(z.next_out - ret->inflated);
	}
	(void)inflateEnd(&z);
	if (zr != Z_STREAM_END)
		refuse(ret, IMAGE_NOT_DICOM, "deflated data set is damaged or breaks off");
	*ret_n = done;
	return 0;
}

int scan_file(const void *file, size_t n, const struct dicom_limits *limits, struct scan *ret)
{
	const uint8_t *p = file;
	size_t at;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (n < 132 || memcmp(p + 128, "DICM", 4) != 0)
		return refuse(ret, IMAGE_NOT_DICOM, "no DICOM file: no preamble and DICM prefix"), 0;
	at = read_meta(p, n, ret);
	if (at == 0)
		return refuse(ret, IMAGE_NOT_DICOM, "the file breaks off in its File Meta Information"), 0;
	if (!uid_valid(ret->syntax))
		return refuse(ret, IMAGE_NOT_DICOM, "no valid Transfer Syntax UID (0002,0010)"), 0;
	p += at;
	n -= at;
	/* PS3.5 annex A: all that is not named here is explicit VR little endian. */
	ret->encoding = SCAN_EXPLICIT_LE;
	if (strcmp(ret->syntax, "1.2.840.10008.1.2") == 0)
		ret->encoding = SCAN_IMPLICIT_LE;
	else if (strcmp(ret->syntax, "1.2.840.10008.1.2.2") == 0)
		ret->encoding = SCAN_EXPLICIT_BE;
	else if (strcmp(ret->syntax, "1.2.840.10008.1.2.1.99") == 0) {
		r = inflate_data_set(ret, p, n, limits, &n);
		if (r < 0 || ret->reason != IMAGE_OK)
			return r;
		p = ret->inflated;
	}
	walk_data_set(ret, p, n, limits);
	return 0;
}

void scan_free(struct scan *s)
{
	free(s->inflated);
	s->inflated = NULL;
}

int scan_gather(const struct scan *s, uint8_t **ret, size_t *ret_n)
{
	struct buf b = buf_of(s->pixels, s->pixels_size);
	CLEANUP(free) uint8_t *p = NULL;
	bool table = true;
	size_t n = 0;

	p = malloc(s->pixels_size + 1); /* no more than the file */
	if (p == NULL)
		return -ENOMEM;
	while (b.left > 0) {
		const uint8_t *fragment;
		struct element e;
		int r;

		r = element_read(&b, SCAN_EXPLICIT_LE, &e);
		if (r < 0)
			return r;
		r = buf_get_span(&b, &fragment, e.length);
		if (r < 0)
			return r;
		if (!table) {
			memcpy(p + n, fragment, e.length);
			n += e.length;
		}
		table = false;
	}
	*ret = TAKE(p);
	*ret_n = n;
	return 0;
}
