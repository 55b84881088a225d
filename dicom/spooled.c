/* spooled.c: see spooled.h, and spooled_read() in scp.h.
 *
 * Job: preamble, File Meta and seal of the files in the spool, both ways, without DCMTK: the keeper
 * reads them at start-up and holds no DICOM library.
 * Promise: spooled_read() says 0 only for a file that we wrote, that was sealed, and whose length is
 * the sealed one.  It does not hash; that is the caller's, who knows whether it has the time.
 * Never: takes a peer's byte into the head but valid UIDs and a valid AE title.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fdio.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/spooled.h"

#define PREAMBLE 128
#define GROUP_AT (PREAMBLE + 4 + 12) /* where the group length begins to count */

enum {
	E_GROUP_LENGTH = 0x0000,
	E_VERSION = 0x0001,
	E_SOP_CLASS = 0x0002,
	E_SOP_UID = 0x0003,
	E_SYNTAX = 0x0010,
	E_IMPLEMENTATION = 0x0012,
	E_IMPLEMENTATION_VERSION = 0x0013,
	E_SOURCE_AE = 0x0016,
	E_CREATOR = 0x0100,
	E_SEAL = 0x0102,
};

/* The seal: magic, length as 64 bit little endian, SHA-256. */
static const char magic[8] = { 'c', 'a', 'r', 'z', 'e', 'r', 'o', '1' };
#define SEAL_SIZE (sizeof(magic) + 8 + DIGEST_SIZE)

static size_t put_head(uint8_t *p, unsigned element, const char *vr, size_t length)
{
	p[0] = 2;
	p[1] = 0;
	p[2] = (uint8_t)element;
	p[3] = (uint8_t)(element >> 8);
	p[4] = (uint8_t)vr[0];
	p[5] = (uint8_t)vr[1];
	p[6] = (uint8_t)length;
	p[7] = (uint8_t)(length >> 8);
	if (vr[0] != 'O')
		return 8;
	p[6] = p[7] = 0;
	p[8] = (uint8_t)length;
	p[9] = (uint8_t)(length >> 8);
	p[10] = p[11] = 0;
	return 12;
}

static size_t put_text(uint8_t *p, unsigned element, const char *vr, const char *text)
{
	size_t length = strlen(text);
	size_t n = put_head(p, element, vr, length + length % 2);

	memcpy(p + n, text, length);
	n += length;
	if (length % 2 != 0)
		p[n++] = memcmp(vr, "UI", 2) == 0 ? '\0' : ' ';
	return n;
}

int spooled_begin(int fd, const struct spooled *head, struct spooled_place *ret)
{
	uint8_t out[SPOOLED_HEAD_MAX] = { 0 };
	uint8_t *p = out + PREAMBLE;
	size_t n;
	int r;

	assert(uid_valid(head->sop_class) && uid_valid(head->sop_uid) && uid_valid(head->syntax));
	assert(ae_title_valid(head->calling_ae));
	memcpy(p, "DICM", 4);
	n = GROUP_AT;
	n += put_head(out + n, E_VERSION, "OB", 2);
	out[n++] = 0;
	out[n++] = 1;
	n += put_text(out + n, E_SOP_CLASS, "UI", head->sop_class);
	n += put_text(out + n, E_SOP_UID, "UI", head->sop_uid);
	n += put_text(out + n, E_SYNTAX, "UI", head->syntax);
	n += put_text(out + n, E_IMPLEMENTATION, "UI", DICOM_IMPLEMENTATION_UID);
	n += put_text(out + n, E_IMPLEMENTATION_VERSION, "SH", DICOM_IMPLEMENTATION_VERSION);
	n += put_text(out + n, E_SOURCE_AE, "AE", head->calling_ae);
	n += put_text(out + n, E_CREATOR, "UI", SPOOLED_PRIVATE_CREATOR);
	n += put_head(out + n, E_SEAL, "OB", SEAL_SIZE);
	ret->seal = n;
	n += SEAL_SIZE; /* zeroes until sealed */
	ret->data_set = n;
	p += 4;
	p += put_head(p, E_GROUP_LENGTH, "UL", 4);
	p[0] = (uint8_t)(n - GROUP_AT);
	p[1] = (uint8_t)((n - GROUP_AT) >> 8);
	r = write_full(fd, out, n);
	return r;
}

int spooled_seal(int fd, const struct spooled_place *place, uint64_t size,
		 const uint8_t digest[DIGEST_SIZE])
{
	uint8_t seal[SEAL_SIZE];

	memcpy(seal, magic, sizeof(magic));
	for (size_t i = 0; i < 8; i++)
		seal[sizeof(magic) + i] = (uint8_t)(size >> (8 * i));
	memcpy(seal + sizeof(magic) + 8, digest, DIGEST_SIZE);
	return pwrite_full(fd, seal, sizeof(seal), (off_t)place->seal);
}

/* Explicit VR little endian, as all File Meta (PS3.10 7.1). */
static int get_element(struct buf *b, uint16_t *ret_element, struct buf *ret_value)
{
	const uint8_t *span;
	uint16_t group, element, length16;
	uint32_t length;
	uint8_t vr[2];
	int r;

	if (buf_get_u16(b, false, &group) < 0 || buf_get_u16(b, false, &element) < 0 ||
	    buf_get_bytes(b, vr, sizeof(vr)) < 0 || group != 2)
		return -EBADMSG;
	if (vr[0] == 'O') {
		if (buf_skip(b, 2) < 0 || buf_get_u32(b, false, &length) < 0)
			return -EBADMSG;
	} else {
		if (buf_get_u16(b, false, &length16) < 0)
			return -EBADMSG;
		length = length16;
	}
	r = buf_get_span(b, &span, length);
	if (r < 0)
		return r;
	*ret_element = element;
	*ret_value = buf_of(span, length);
	return 0;
}

static int get_text(const struct buf *value, char *dst, size_t size)
{
	return str_copy_padded(dst, size, value->p, value->left) ? 0 : -EBADMSG;
}

static int get_seal(struct buf value, struct spooled *s)
{
	uint8_t got[sizeof(magic)];

	if (value.left != SEAL_SIZE || buf_get_bytes(&value, got, sizeof(got)) < 0 ||
	    memcmp(got, magic, sizeof(magic)) != 0 || buf_get_u64(&value, false, &s->size) < 0)
		return -EBADMSG;
	return buf_get_bytes(&value, s->digest, sizeof(s->digest));
}

struct meta {
	struct spooled s;
	char creator[UID_MAX];
	struct buf seal; /* empty: none there */
};

static int get_value(uint16_t element, struct buf value, struct meta *m)
{
	switch (element) {
	case E_SOP_CLASS:
		return get_text(&value, m->s.sop_class, sizeof(m->s.sop_class));
	case E_SOP_UID:
		return get_text(&value, m->s.sop_uid, sizeof(m->s.sop_uid));
	case E_SYNTAX:
		return get_text(&value, m->s.syntax, sizeof(m->s.syntax));
	case E_SOURCE_AE:
		return get_text(&value, m->s.calling_ae, sizeof(m->s.calling_ae));
	case E_CREATOR:
		return get_text(&value, m->creator, sizeof(m->creator));
	case E_SEAL:
		m->seal = value;
		return 0;
	default:
		return 0;
	}
}

/* "DICM" and the whole File Meta, at the start of a file in memory. */
static int get_meta(const void *file, size_t n, struct meta *m)
{
	struct buf b = buf_of(file, n), value;
	const uint8_t *span;
	uint16_t element;
	uint32_t length;

	if (buf_skip(&b, PREAMBLE) < 0 || buf_get_span(&b, &span, 4) < 0 ||
	    memcmp(span, "DICM", 4) != 0 || get_element(&b, &element, &value) < 0 ||
	    element != E_GROUP_LENGTH || value.left != 4 ||
	    buf_get_u32(&value, false, &length) < 0 || buf_get_span(&b, &span, length) < 0)
		return -EBADMSG;
	m->s.offset = GROUP_AT + (uint64_t)length;
	b = buf_of(span, length);
	while (b.left > 0) {
		int r = get_element(&b, &element, &value);

		if (r < 0)
			return r;
		r = get_value(element, value, m);
		if (r < 0)
			return r;
	}
	if (!uid_valid(m->s.sop_class) || !uid_valid(m->s.sop_uid) || !uid_valid(m->s.syntax))
		return -EBADMSG;
	return 0;
}

static const char *const analysed[] = {
	"1.2.840.10008.5.1.4.1.1.1",     /* Computed Radiography */
	"1.2.840.10008.5.1.4.1.1.1.1",   /* Digital X-Ray, for presentation */
	"1.2.840.10008.5.1.4.1.1.1.1.1", /* and for processing */
	"1.2.840.10008.5.1.4.1.1.7",     /* Secondary Capture */
	/* of digitisers and gateways; one grey frame is an image like any other */
	"1.2.840.10008.5.1.4.1.1.7.2",   /* Multi-frame Grayscale Byte Secondary Capture */
	"1.2.840.10008.5.1.4.1.1.7.3",   /* and Word */
};

const char *spooled_analysed_class(size_t i)
{
	return i < ARRAY_SIZE(analysed) ? analysed[i] : NULL;
}

bool spooled_is_analysed(const char *sop_class)
{
	for (size_t i = 0; i < ARRAY_SIZE(analysed); i++)
		if (strcmp(analysed[i], sop_class) == 0)
			return true;
	return false;
}

int part10_head(const void *file, size_t n, struct spooled *ret)
{
	struct meta m = { 0 };
	int r = get_meta(file, n, &m);

	if (r == 0)
		*ret = m.s;
	return r;
}

int spooled_read(int fd, struct spooled *ret)
{
	static const uint8_t zero[PREAMBLE];
	uint8_t bytes[SPOOLED_HEAD_MAX];
	struct meta m = { 0 };
	struct stat st;
	size_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < GROUP_AT)
		return -EBADMSG;
	n = st.st_size < SPOOLED_HEAD_MAX ? (size_t)st.st_size : SPOOLED_HEAD_MAX;
	r = pread_full(fd, bytes, n, 0);
	if (r < 0)
		return r == -ENODATA ? -EBADMSG : r;
	r = get_meta(bytes, n, &m);
	if (r < 0)
		return r;
	r = get_seal(m.seal, &m.s);
	if (r < 0)
		return r;
	if (memcmp(bytes, zero, PREAMBLE) != 0 || strcmp(m.creator, SPOOLED_PRIVATE_CREATOR) != 0 ||
	    !ae_title_valid(m.s.calling_ae) || m.s.size != (uint64_t)st.st_size - m.s.offset)
		return -EBADMSG;
	*ret = m.s;
	return 0;
}
