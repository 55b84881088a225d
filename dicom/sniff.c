/* sniff.c: see sniff.h.
 *
 * Job: find SOP class, SOP instance, Study and Series UID, and the Study Date, in a data set that streams by.
 * Promise: constant memory, one pass, no recursion.  Group 0009..0019 private elements of any size
 * may precede the Study UID, so the limit is on elements looked at, not on an offset in the file.
 * Never: looks behind (0020,000E), keeps a value that is not one of these, trusts a length for
 * more than a skip.
 *
 * Each step collects exactly the bytes that the next decision needs: 8 for a tag with VR or length,
 * 12 where the VR has a long length (PS3.5 7.1.2), the value of a UID.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/mem.h"

#include "dicom/sniff.h"

#define UNDEFINED_LENGTH 0xffffffffu
#define INFLATE_CHUNK 4096

#define TAG_SOP_CLASS 0x00080016u
#define TAG_SOP_UID 0x00080018u
#define TAG_STUDY_DATE 0x00080020u
#define TAG_STUDY_UID 0x0020000du
#define TAG_SERIES_UID 0x0020000eu
#define TAG_FIRST 0x00040000u /* groups 0000 and 0002 never stand in a data set */
#define TAG_ITEM 0xfffee000u
#define TAG_ITEM_END 0xfffee00du
#define TAG_SEQUENCE_END 0xfffee0ddu

enum { HEAD = 8, LONG_HEAD = 12 };

struct sniffer {
	struct sniff found;
	int verdict;             /* 0: going on; 1: all passed; negative: given up */
	bool big_endian, implicit;

	uint8_t have[UID_MAX - 1];
	size_t n_have, n_want;
	char *value;             /* where the value being collected goes; NULL: it is a head */
	char date[UID_MAX];      /* Study Date goes here first */
	uint64_t skip;

	uint32_t last_tag;       /* top level */
	unsigned elements;
	unsigned depth;          /* open sequences and items of undefined length */
	uint32_t items;          /* bit d: level d + 1 is an item, else a sequence */
	unsigned implicit_depth; /* from this level on a UN of undefined length rules (PS3.5 6.2.2); 0: none */

	bool inflating;
	z_stream z;
	uint64_t inflated;
};

enum sniff_syntax sniff_syntax_of(const char *uid)
{
	if (strcmp(uid, "1.2.840.10008.1.2") == 0)
		return SNIFF_IMPLICIT_LE;
	if (strcmp(uid, "1.2.840.10008.1.2.2") == 0)
		return SNIFF_EXPLICIT_BE;
	if (strcmp(uid, "1.2.840.10008.1.2.1.99") == 0)
		return SNIFF_DEFLATED;
	return SNIFF_EXPLICIT_LE;
}

struct sniffer *sniffer_new(enum sniff_syntax syntax)
{
	struct sniffer *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->n_want = HEAD;
	s->implicit = syntax == SNIFF_IMPLICIT_LE;
	s->big_endian = syntax == SNIFF_EXPLICIT_BE;
	if (syntax == SNIFF_DEFLATED) {
		/* PS3.5 A.5: a raw deflate stream (RFC 1951), no zlib head. */
		if (inflateInit2(&s->z, -MAX_WBITS) != Z_OK) {
			free(s);
			return NULL;
		}
		s->inflating = true;
	}
	return s;
}

void sniffer_free(struct sniffer *s)
{
	if (s == NULL)
		return;
	if (s->inflating)
		(void)inflateEnd(&s->z); /* can only say that the stream was not finished */
	free(s);
}

static bool implicit_here(const struct sniffer *s)
{
	return s->implicit || (s->implicit_depth > 0 && s->depth >= s->implicit_depth);
}

static bool big_endian_here(const struct sniffer *s)
{
	/* The content of a UN of undefined length is implicit VR little endian in every syntax. */
	return s->big_endian && !implicit_here(s);
}

static bool in_item(const struct sniffer *s)
{
	return s->depth > 0 && (s->items & (1u << (s->depth - 1))) != 0;
}

static int push(struct sniffer *s, bool item)
{
	if (s->depth == SNIFF_DEPTH_MAX)
		return -EBADMSG;
	if (item)
		s->items |= 1u << s->depth;
	else
		s->items &= ~(1u << s->depth);
	s->depth++;
	return 0;
}

static void pop(struct sniffer *s)
{
	s->depth--;
	if (s->depth < s->implicit_depth)
		s->implicit_depth = 0;
}

static char *wanted(struct sniffer *s, uint32_t tag)
{
	switch (tag) {
	case TAG_SOP_CLASS:
		return s->found.sop_class;
	case TAG_SOP_UID:
		return s->found.sop_uid;
	case TAG_STUDY_DATE:
		return s->date;
	case TAG_STUDY_UID:
		return s->found.study_uid;
	case TAG_SERIES_UID:
		return s->found.series_uid;
	default:
		return NULL;
	}
}

/* Items and delimiters (PS3.5 7.5): they have no VR in any syntax. */
static int delimiter(struct sniffer *s, uint32_t tag, uint32_t length)
{
	if (s->depth == 0)
		return -EBADMSG;
	switch (tag) {
	case TAG_ITEM:
		if (in_item(s))
			return -EBADMSG;
		if (length == UNDEFINED_LENGTH)
			return push(s, true);
		s->skip = length;
		return 0;
	case TAG_ITEM_END:
		if (!in_item(s) || length != 0)
			return -EBADMSG;
		pop(s);
		return 0;
	case TAG_SEQUENCE_END:
		if (in_item(s) || length != 0)
			return -EBADMSG;
		pop(s);
		return 0;
	default:
		return -EBADMSG;
	}
}

static int element(struct sniffer *s, uint32_t tag, uint32_t length, bool sequence, bool unknown)
{
	char *value = s->depth == 0 ? wanted(s, tag) : NULL;

	if (length == UNDEFINED_LENGTH) {
		if (!sequence && !unknown)
			return -EBADMSG;
		if (push(s, false) < 0)
			return -EBADMSG;
		if (unknown && !implicit_here(s))
			s->implicit_depth = s->depth;
		return 0;
	}
	if (value != NULL && length > 0 && length <= sizeof(s->have)) {
		s->value = value;
		s->n_want = length;
		return 0;
	}
	s->skip = length;
	return 0;
}

/* 0: not a VR; 2 or 4: the bytes of its length field. */
static unsigned length_bytes(const uint8_t vr[2])
{
	static const char short_vrs[] = "AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS";
	static const char long_vrs[] = "OBODOFOLOVOWSQSVUCUNURUTUV";

	for (size_t i = 0; i + 1 < sizeof(short_vrs); i += 2)
		if (memcmp(short_vrs + i, vr, 2) == 0)
			return 2;
	for (size_t i = 0; i + 1 < sizeof(long_vrs); i += 2)
		if (memcmp(long_vrs + i, vr, 2) == 0)
			return 4;
	return 0;
}

/* A tag with what follows it is in s->have.  1: four more bytes of this head are needed. */
static int head(struct sniffer *s)
{
	struct buf b = buf_of(s->have, s->n_have);
	bool big = big_endian_here(s);
	uint16_t group = 0, number = 0, length16 = 0;
	uint32_t tag, length = 0;
	uint8_t vr[2] = { 0, 0 };
	int r;

	r = buf_get_u16(&b, big, &group);
	if (r < 0)
		return r;
	r = buf_get_u16(&b, big, &number);
	if (r < 0)
		return r;
	tag = (uint32_t)group << 16 | number;
	if (s->n_have == HEAD) {
		if (++s->elements > SNIFF_ELEMENTS_MAX)
			return -EBADMSG;
		if (group == 0xfffe) {
			r = buf_get_u32(&b, big, &length);
			return r < 0 ? r : delimiter(s, tag, length);
		}
		if (s->depth > 0 && !in_item(s))
			return -EBADMSG;
		if (s->depth == 0) {
			if (tag < TAG_FIRST || tag <= s->last_tag)
				return -EBADMSG;
			s->last_tag = tag;
			if (tag > TAG_SERIES_UID) {
				if (!s->implicit && length_bytes(s->have + 4) == 0)
					return -EBADMSG; /* noise, not an element */
				s->verdict = 1;
				return 0;
			}
		}
	}
	if (implicit_here(s)) {
		r = buf_get_u32(&b, big, &length);
		return r < 0 ? r : element(s, tag, length, true, false);
	}
	r = buf_get_bytes(&b, vr, sizeof(vr));
	if (r < 0)
		return r;
	switch (length_bytes(vr)) {
	case 2:
		r = buf_get_u16(&b, big, &length16);
		return r < 0 ? r : element(s, tag, length16, false, false);
	case 4:
		if (s->n_have == HEAD)
			return 1;
		r = buf_skip(&b, 2);
		if (r < 0)
			return r;
		r = buf_get_u32(&b, big, &length);
		return r < 0 ? r : element(s, tag, length, memcmp(vr, "SQ", 2) == 0,
					   memcmp(vr, "UN", 2) == 0);
	default:
		return -EBADMSG;
	}
}

/* DA (PS3.5 table 6.2-1): eight digits, perhaps a space.  Anything else is no date: nothing depends on it but who waits. */
static uint32_t date_of(const uint8_t *p, size_t n)
{
	uint32_t v = 0, day, month;

	while (n > 8 && (p[n - 1] == ' ' || p[n - 1] == '\0'))
		n--;
	if (n != 8)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return 0;
		v = v * 10 + (uint32_t)(p[i] - '0');
	}
	day = v % 100, month = v / 100 % 100;
	return day >= 1 && day <= 31 && month >= 1 && month <= 12 ? v : 0;
}

/* s->have holds what was wanted: decide. */
static void step(struct sniffer *s)
{
	int r = 0;

	if (s->value == s->date) {
		s->found.study_date = date_of(s->have, s->n_have);
		s->value = NULL;
	} else if (s->value != NULL) {
		if (!str_copy_padded(s->value, UID_MAX, s->have, s->n_have) || !uid_valid(s->value))
			s->value[0] = '\0';
		s->value = NULL;
	} else {
		r = head(s);
		if (r == 1) {
			s->n_want = LONG_HEAD;
			return;
		}
	}
	s->n_have = 0;
	if (s->value == NULL)
		s->n_want = HEAD;
	if (r < 0)
		s->verdict = r;
}

static void walk(struct sniffer *s, const uint8_t *p, size_t n)
{
	while (n > 0 && s->verdict == 0) {
		size_t take;

		if (s->skip > 0) {
			take = s->skip < n ? (size_t)s->skip : n;
			s->skip -= take;
		} else {
			take = s->n_want - s->n_have;
			if (take > n)
				take = n;
			memcpy(s->have + s->n_have, p, take);
			s->n_have += take;
			if (s->n_have == s->n_want)
				step(s);
		}
		p += take;
		n -= take;
	}
}

static void inflate_and_walk(struct sniffer *s, const uint8_t *p, size_t n)
{
	uint8_t out[INFLATE_CHUNK];

	/* zlib's interface predates const; it only reads. */
	s->z.next_in = (Bytef *)(uintptr_t)p;
	s->z.avail_in = (uInt)n;
	while (s->verdict == 0) {
		size_t got;
		int r;

		s->z.next_out = out;
		s->z.avail_out = sizeof(out);
		r = inflate(&s->z, Z_NO_FLUSH);
		got = sizeof(out) - s->z.avail_out;
		s->inflated += got;
		/* What came before an error still counts: the verdict must not depend on how the
		 * stream was cut into pieces. */
		walk(s, out, got);
		if (s->verdict == 0 && ((r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) ||
					s->inflated > SNIFF_INFLATED_MAX))
			s->verdict = -EBADMSG;
		if (r == Z_STREAM_END || got == 0)
			return;
	}
}

bool sniffer_feed(struct sniffer *s, const void *p, size_t n)
{
	const uint8_t *bytes = p;

	while (n > 0 && s->verdict == 0) {
		size_t take = n < (1u << 30) ? n : 1u << 30; /* zlib counts in unsigned int */

		if (s->inflating)
			inflate_and_walk(s, bytes, take);
		else
			walk(s, bytes, take);
		bytes += take;
		n -= take;
	}
	return s->verdict == 0;
}

int sniffer_end(const struct sniffer *s, bool whole, struct sniff *ret)
{
	bool between = s->n_have == 0 && s->value == NULL && s->skip == 0 && s->depth == 0;

	if (s->verdict < 0)
		return s->verdict;
	if (s->verdict == 0 && whole && !between)
		return -EBADMSG;
	*ret = s->found;
	if (ret->sop_class[0] == '\0' || ret->sop_uid[0] == '\0' || ret->study_uid[0] == '\0' ||
	    ret->series_uid[0] == '\0')
		return -ENODATA;
	return 0;
}

int sniff_header(const void *bytes, size_t n, bool whole, enum sniff_syntax syntax, struct sniff *ret)
{
	struct sniffer *s = sniffer_new(syntax);
	int r;

	if (s == NULL)
		return -ENOMEM;
	(void)sniffer_feed(s, bytes, n); /* the verdict comes with sniffer_end() */
	r = sniffer_end(s, whole, ret);
	sniffer_free(s);
	return r;
}
