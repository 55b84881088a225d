/* flat.c: see flat.h. */
#include <errno.h>
#include <string.h>

#include "base/str.h"

#include "dicom/flat.h"

#define UNDEFINED 0xffffffffu
#define ITEM 0xfffee000u
#define ITEM_END 0xfffee00du
#define SEQUENCE_END 0xfffee0ddu

/* PS3.5 7.1.2: VRs whose length has four bytes, behind two that are reserved. */
static bool long_form(const uint8_t vr[2])
{
	static const char all[] = "OBODOFOLOVOWSQSVUCUNURUTUV";
	size_t i;

	for (i = 0; i + 1 < sizeof(all); i += 2)
		if (memcmp(vr, all + i, 2) == 0)
			return true;
	return false;
}

static int get_length(struct buf *b, bool explicit_vr, uint32_t *ret)
{
	uint8_t vr[2];
	uint16_t length;
	int r;

	if (!explicit_vr)
		return buf_get_u32(b, false, ret);
	r = buf_get_bytes(b, vr, 2);
	if (r < 0)
		return r;
	r = buf_get_u16(b, false, &length);
	if (r < 0)
		return r;
	if (long_form(vr))
		return buf_get_u32(b, false, ret);
	*ret = length;
	return 0;
}

struct flat flat_of(const void *p, size_t n, bool explicit_vr)
{
	return (struct flat){ .left = buf_of(p, n), .explicit_vr = explicit_vr };
}

int flat_next(struct flat *f, struct flat_element *ret)
{
	for (;;) {
		struct buf b = f->left;
		uint16_t group, element;
		const uint8_t *span;
		uint32_t length, tag;

		if (b.left == 0)
			return 0;
		if (buf_get_u16(&b, false, &group) < 0 || buf_get_u16(&b, false, &element) < 0)
			return -EBADMSG;
		tag = (uint32_t)group << 16 | element;
		if (tag == ITEM || tag == ITEM_END || tag == SEQUENCE_END) {
			if (buf_get_u32(&b, false, &length) < 0)
				return -EBADMSG;
			f->left = b;
			continue;
		}
		if (get_length(&b, f->explicit_vr, &length) < 0)
			return -EBADMSG;
		f->entered = b;
		ret->tag = tag;
		ret->value = buf_of(b.p, 0);
		if (length != UNDEFINED) {
			if (buf_get_span(&b, &span, length) < 0)
				return -EBADMSG;
			ret->value = buf_of(span, length);
		}
		f->left = b;
		return 1;
	}
}

void flat_enter(struct flat *f)
{
	f->left = f->entered;
}

bool flat_text(const struct flat_element *e, char *ret, size_t size)
{
	size_t i;

	for (i = 0; i < e->value.left; i++)
		if (e->value.p[i] < 0x20 && !(e->value.p[i] == 0 && i + 1 == e->value.left))
			return false;
	return e->value.left < size && str_copy_padded(ret, size, e->value.p, e->value.left);
}

/* ---- writing -------------------------------------------------------------------------------------- */

static void put(struct flat_out *o, const void *p, size_t n)
{
	if (o->full || n > o->size - o->n) {
		o->full = true;
		return;
	}
	memcpy(o->p + o->n, p, n);
	o->n += n;
}

static void put_u16(struct flat_out *o, unsigned v)
{
	const uint8_t bytes[2] = { (uint8_t)v, (uint8_t)(v >> 8) };

	put(o, bytes, 2);
}

static void put_tag(struct flat_out *o, uint32_t tag)
{
	put_u16(o, tag >> 16);
	put_u16(o, tag & 0xffff);
}

static void put_u32(struct flat_out *o, uint32_t v)
{
	put_u16(o, v & 0xffff);
	put_u16(o, v >> 16);
}

void flat_put_text(struct flat_out *o, uint32_t tag, const char vr[2], const char *text)
{
	size_t n = strlen(text), even = n + n % 2;

	put_tag(o, tag);
	if (o->explicit_vr) {
		put(o, vr, 2);
		put_u16(o, (unsigned)even);
	} else
		put_u32(o, (uint32_t)even);
	put(o, text, n);
	if (n % 2 != 0)
		put(o, memcmp(vr, "UI", 2) == 0 ? "\0" : " ", 1);
}

void flat_put_sequence(struct flat_out *o, uint32_t tag)
{
	put_tag(o, tag);
	if (o->explicit_vr)
		put(o, "SQ\0", 4);
	put_u32(o, UNDEFINED);
}

void flat_put_item(struct flat_out *o)
{
	put_tag(o, ITEM);
	put_u32(o, UNDEFINED);
}

void flat_put_item_end(struct flat_out *o)
{
	put_tag(o, ITEM_END);
	put_u32(o, 0);
}

void flat_put_sequence_end(struct flat_out *o)
{
	put_tag(o, SEQUENCE_END);
	put_u32(o, 0);
}
