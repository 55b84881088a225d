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

/* The whole File Meta behind its group length. */
static int get_meta(struct buf b, struct spooled *s)
{
	char creator[UID_MAX] = "";
	bool sealed = false;

	while (b.left > 0) {
		uint16_t element;
		struct buf value;
		int r = get_element(&b, &element, &value);

		if (r < 0)
			return r;
		switch (element) {
		case E_SOP_CLASS:
			r = get_text(&value, s->sop_class, sizeof(s->sop_class));
			break;
		case E_SOP_UID:
			r = get_text(&value, s->sop_uid, sizeof(s->sop_uid));
			break;
		case E_SYNTAX:
			r = get_text(&value, s->syntax, sizeof(s->syntax));
			break;
		case E_SOURCE_AE:
			r = get_text(&value, s->calling_ae, sizeof(s->calling_ae));
			break;
		case E_CREATOR:
			r = get_text(&value, creator, sizeof(creator));
			break;
		case E_SEAL:
			r = get_seal(value, s);
			sealed = true;
			break;
		default:
			break;
		}
		if (r < 0)
			return r;
	}
	if (!sealed || strcmp(creator, SPOOLED_PRIVATE_CREATOR) != 0 || !uid_valid(s->sop_class) ||
	    !uid_valid(s->sop_uid) || !uid_valid(s->syntax) || !ae_title_valid(s->calling_ae))
		return -EBADMSG;
	return 0;
}

int spooled_read(int fd, struct spooled *ret)
{
	uint8_t bytes[SPOOLED_HEAD_MAX];
	static const uint8_t zero[PREAMBLE];
	struct spooled s = { 0 };
	struct buf b, value;
	const uint8_t *meta;
	uint16_t element;
	uint32_t length;
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
	if (memcmp(bytes, zero, PREAMBLE) != 0 || memcmp(bytes + PREAMBLE, "DICM", 4) != 0)
		return -EBADMSG;
	b = buf_of(bytes + PREAMBLE + 4, n - PREAMBLE - 4);
	r = get_element(&b, &element, &value);
	if (r < 0)
		return r;
	if (element != E_GROUP_LENGTH || value.left != 4 || buf_get_u32(&value, false, &length) < 0)
		return -EBADMSG;
	r = buf_get_span(&b, &meta, length);
	if (r < 0)
		return r;
	r = get_meta(buf_of(meta, length), &s);
	if (r < 0)
		return r;
	s.offset = GROUP_AT + (uint64_t)length;
	if (s.size != (uint64_t)st.st_size - s.offset)
		return -EBADMSG;
	*ret = s;
	return 0;
}
