/* flat.h: small data sets of the services beside C-STORE (PS3.5 7): what we ask and what is answered.
 *
 * Reading is a walk over elements, one after the other, without recursion and without a dictionary: of
 * a sequence the walk shows the element, and flat_enter() goes on with what is inside; items and
 * delimiters are stepped over.  Where it ends is known only by the tags that follow, which is enough
 * for data sets whose meaning we know.  Writing is the same in the other direction.
 * Little endian; explicit or implicit VR.
 */
#ifndef CARZEROD_DICOM_FLAT_H
#define CARZEROD_DICOM_FLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#ifdef __cplusplus
extern "C" {
#endif

struct flat {
	struct buf left;
	bool explicit_vr;
	struct buf entered; /* from the value of the last element on */
};

struct flat_element {
	uint32_t tag;     /* group << 16 | element */
	struct buf value; /* nothing when the length is undefined: the walk is inside already */
};

struct flat flat_of(const void *p, size_t n, bool explicit_vr);

/* 1: an element; 0: the end; -EBADMSG. */
int flat_next(struct flat *f, struct flat_element *ret);
/* Goes on inside the value of the last element: a sequence of defined length. */
void flat_enter(struct flat *f);
/* The value as text without padding; false when it does not fit or is no text of one line. */
bool flat_text(const struct flat_element *e, char *ret, size_t size);

/* What is written; full when it did not fit, and then nothing of it may be sent. */
struct flat_out {
	uint8_t *p;
	size_t n, size;
	bool explicit_vr, full;
};

void flat_put_text(struct flat_out *o, uint32_t tag, const char vr[2], const char *text); /* UI is padded with NUL, others with a space */
/* A sequence of undefined length: begin, then for each item begin and end, then end. */
void flat_put_sequence(struct flat_out *o, uint32_t tag);
void flat_put_item(struct flat_out *o);
void flat_put_item_end(struct flat_out *o);
void flat_put_sequence_end(struct flat_out *o);

#ifdef __cplusplus
}
#endif
#endif
