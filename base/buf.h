/* buf.h: the one place where foreign bytes are read.
 *
 * A struct buf is a window on memory that somebody else owns.  Every getter checks the length and
 * returns 0 or -EBADMSG; on failure nothing is consumed and the result is untouched.  Numbers are
 * assembled byte by byte, so alignment and the machine's byte order do not matter.
 */
#ifndef CARZEROD_BASE_BUF_H
#define CARZEROD_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	const uint8_t *p;
	size_t left;
};

static inline struct buf buf_of(const void *p, size_t n)
{
	struct buf b = { (const uint8_t *)p, n }; /* C++ includes this too */

	return b;
}

int buf_get_u8(struct buf *b, uint8_t *ret);
int buf_get_u16(struct buf *b, bool big_endian, uint16_t *ret);
int buf_get_u32(struct buf *b, bool big_endian, uint32_t *ret);
int buf_get_u64(struct buf *b, bool big_endian, uint64_t *ret);
int buf_get_bytes(struct buf *b, void *ret, size_t n);
/* Points *ret at n bytes inside the window. */
int buf_get_span(struct buf *b, const uint8_t **ret, size_t n);
int buf_skip(struct buf *b, size_t n);

#endif
