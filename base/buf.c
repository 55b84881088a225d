/* buf.c: see buf.h. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"

int buf_get_span(struct buf *b, const uint8_t **ret, size_t n)
{
	if (n > b->left)
		return -EBADMSG;
	*ret = b->p;
	b->p += n;
	b->left -= n;
	return 0;
}

int buf_skip(struct buf *b, size_t n)
{
	const uint8_t *ignored;

	return buf_get_span(b, &ignored, n);
}

int buf_get_bytes(struct buf *b, void *ret, size_t n)
{
	const uint8_t *p;
	int r = buf_get_span(b, &p, n);

	if (r < 0)
		return r;
	if (n > 0)
		memcpy(ret, p, n);
	return 0;
}

static int get_number(struct buf *b, bool big_endian, size_t n, uint64_t *ret)
{
	const uint8_t *p;
	uint64_t v = 0;
	size_t i;
	int r = buf_get_span(b, &p, n);

	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		v |= (uint64_t)p[big_endian ? n - 1 - i : i] << (8 * i);
	*ret = v;
	return 0;
}

int buf_get_u8(struct buf *b, uint8_t *ret)
{
	return buf_get_bytes(b, ret, 1);
}

int buf_get_u16(struct buf *b, bool big_endian, uint16_t *ret)
{
	uint64_t v;
	int r = get_number(b, big_endian, 2, &v);

	if (r < 0)
		return r;
	*ret = (uint16_t)v;
	return 0;
}

int buf_get_u32(struct buf *b, bool big_endian, uint32_t *ret)
{
	uint64_t v;
	int r = get_number(b, big_endian, 4, &v);

	if (r < 0)
		return r;
	*ret = (uint32_t)v;
	return 0;
}

int buf_get_u64(struct buf *b, bool big_endian, uint64_t *ret)
{
	return get_number(b, big_endian, 8, ret);
}
