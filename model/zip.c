/* zip.c: see zip.h.  APPNOTE.TXT 4.3: end record, zip64 end record, central headers, local headers.
 *
 * Read from the end, as the format wants: the last end record, its directory, then each member's
 * local header only to learn where its data begins (the local sizes are zero in PyTorch's files).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/zip.h"

#define END_SIGNATURE 0x06054b50
#define END_SIZE 22
#define COMMENT_MAX 65535
#define END64_SIGNATURE 0x06064b50
#define LOCATOR_SIGNATURE 0x07064b50
#define LOCATOR_SIZE 20
#define CENTRAL_SIGNATURE 0x02014b50
#define LOCAL_SIGNATURE 0x04034b50
#define LOCAL_SIZE 30
#define EXTRA_ZIP64 1
#define FLAG_ENCRYPTED 1
#define SATURATED16 0xffff
#define SATURATED32 0xffffffff
#define NAME_SHOWN 160

struct zip {
	const uint8_t *p;
	size_t n;
	const char *what;
	struct zip_member *members; /* [count] by name */
	size_t count;
};

struct directory {
	uint64_t count, size, at;
};

static struct buf at(const struct zip *z, uint64_t offset)
{
	if (offset > z->n)
		offset = z->n;
	return buf_of(z->p + offset, z->n - (size_t)offset);
}

/* The last end record whose comment ends with the file. */
static bool find_end(const struct zip *z, size_t *ret)
{
	size_t back, most = z->n < END_SIZE + COMMENT_MAX ? z->n : END_SIZE + COMMENT_MAX;

	for (back = END_SIZE; back <= most; back++) {
		struct buf b = at(z, z->n - back);
		uint32_t signature;
		uint16_t comment;

		if (buf_get_u32(&b, false, &signature) == 0 && signature == END_SIGNATURE &&
		    buf_skip(&b, 16) == 0 && buf_get_u16(&b, false, &comment) == 0 && comment == b.left) {
			*ret = z->n - back;
			return true;
		}
	}
	return false;
}

/* Replaces what the 32-bit record could not hold. */
static int read_end64(const struct zip *z, size_t end, struct directory *d, struct err *e)
{
	uint32_t signature = 0, disk, disks;
	uint64_t where = 0, here, size;
	struct buf b;

	b = end >= LOCATOR_SIZE ? at(z, end - LOCATOR_SIZE) : buf_of(NULL, 0);
	if (buf_get_u32(&b, false, &signature) < 0 || signature != LOCATOR_SIGNATURE)
		return 0; /* no zip64 */
	if (buf_skip(&b, 4) < 0 || buf_get_u64(&b, false, &where) < 0)
		return err_set(e, -EBADMSG, "%s: broken zip64 locator", z->what);
	b = at(z, where);
	if (buf_get_u32(&b, false, &signature) < 0 || signature != END64_SIGNATURE ||
	    buf_get_u64(&b, false, &size) < 0 || buf_skip(&b, 4) < 0 ||
	    buf_get_u32(&b, false, &disk) < 0 || buf_get_u32(&b, false, &disks) < 0 ||
	    buf_get_u64(&b, false, &here) < 0 || buf_get_u64(&b, false, &d->count) < 0 ||
	    buf_get_u64(&b, false, &d->size) < 0 || buf_get_u64(&b, false, &d->at) < 0)
		return err_set(e, -EBADMSG, "%s: broken zip64 end record", z->what);
	if (disk != 0 || disks != 0 || here != d->count)
		return err_set(e, -ENOTSUP, "%s: a zip archive in several parts", z->what);
	return 0;
}

static int read_end(const struct zip *z, struct directory *d, struct err *e)
{
	uint16_t disk, disks, here, count;
	uint32_t signature, size, offset;
	struct buf b;
	size_t end;
	int r;

	if (!find_end(z, &end))
		return err_set(e, -EBADMSG,
			       "%s: begins like a zip archive but has no directory at its end; "
			       "the download was cut short",
			       z->what);
	b = at(z, end);
	if (buf_get_u32(&b, false, &signature) < 0 || buf_get_u16(&b, false, &disk) < 0 ||
	    buf_get_u16(&b, false, &disks) < 0 || buf_get_u16(&b, false, &here) < 0 ||
	    buf_get_u16(&b, false, &count) < 0 || buf_get_u32(&b, false, &size) < 0 ||
	    buf_get_u32(&b, false, &offset) < 0)
		return err_set(e, -EBADMSG, "%s: broken zip end record", z->what);
	*d = (struct directory){ count, size, offset };
	r = read_end64(z, end, d, e);
	if (r < 0)
		return r;
	if ((disk != 0 && disk != SATURATED16) || (disks != 0 && disks != SATURATED16) || here != count)
		return err_set(e, -ENOTSUP, "%s: a zip archive in several parts", z->what);
	if (d->at > z->n || d->size > z->n - d->at)
		return err_set(e, -EBADMSG,
			       "%s: the zip directory is said to lie at byte %llu with %llu bytes, "
			       "but the file has "
			       "%zu; the download was cut short",
			       z->what, (unsigned long long)d->at, (unsigned long long)d->size,
			       z->n);
	if (d->count > ZIP_MEMBERS_MAX)
		return err_set(e, -E2BIG,
			       "%s: %llu members in the zip archive, at most %d are read", z->what,
			       (unsigned long long)d->count, ZIP_MEMBERS_MAX);
	return 0;
}

/* The zip64 extra field holds, in this order, only those values that are saturated. */
static int read_extra(struct buf extra, uint64_t *size, uint64_t *packed, uint64_t *offset)
{
	while (extra.left > 0) {
		uint16_t id, n;
		const uint8_t *p;
		struct buf b;

		if (buf_get_u16(&extra, false, &id) < 0 || buf_get_u16(&extra, false, &n) < 0 ||
		    buf_get_span(&extra, &p, n) < 0)
			return -EBADMSG;
		if (id != EXTRA_ZIP64)
			continue;
		b = buf_of(p, n);
		if ((*size == SATURATED32 && buf_get_u64(&b, false, size) < 0) ||
		    (*packed == SATURATED32 && buf_get_u64(&b, false, packed) < 0) ||
		    (*offset == SATURATED32 && buf_get_u64(&b, false, offset) < 0))
			return -EBADMSG;
		return 0;
	}
	return 0;
}

static const char *shown(char ret[NAME_SHOWN], const struct zip_member *m)
{
	char raw[NAME_SHOWN];

	(void)str_copy_padded(raw, sizeof(raw), m->name, m->name_len); /* cutting is what we want */
	return str_quote(ret, NAME_SHOWN, raw);
}

/* Where the data begins: behind the local header, whose name and extra field have their own lengths. */
static int find_data(const struct zip *z, uint64_t offset, uint64_t limit, struct zip_member *m,
		     uint64_t size, struct err *e)
{
	struct buf b = at(z, offset);
	uint16_t name_len, extra_len;
	uint32_t signature;
	char name[NAME_SHOWN];
	uint64_t begin;

	if (buf_get_u32(&b, false, &signature) < 0 || signature != LOCAL_SIGNATURE ||
	    buf_skip(&b, 22) < 0 || buf_get_u16(&b, false, &name_len) < 0 ||
	    buf_get_u16(&b, false, &extra_len) < 0)
		return err_set(e, -EBADMSG, "%s: member %s: no local header at byte %llu", z->what,
			       shown(name, m), (unsigned long long)offset);
	begin = offset + LOCAL_SIZE + name_len + extra_len;
	if (begin > limit || size > limit - begin)
		return err_set(e, -EBADMSG,
			       "%s: member %s of %llu bytes does not fit before the directory",
			       z->what, shown(name, m), (unsigned long long)size);
	m->data = z->p + begin;
	m->size = (size_t)size;
	return 0;
}

static int read_member(const struct zip *z, struct buf *b, uint64_t limit, struct zip_member *m,
		       struct err *e)
{
	uint16_t flags, method, name_len, extra_len, comment_len;
	uint32_t signature, packed32, size32, offset32;
	uint64_t packed, size, offset;
	const uint8_t *name, *extra;
	char text[NAME_SHOWN];

	if (buf_get_u32(b, false, &signature) < 0 || signature != CENTRAL_SIGNATURE ||
	    buf_skip(b, 4) < 0 || buf_get_u16(b, false, &flags) < 0 ||
	    buf_get_u16(b, false, &method) < 0 || buf_skip(b, 4) < 0 ||
	    buf_get_u32(b, false, &m->crc32) < 0 || buf_get_u32(b, false, &packed32) < 0 ||
	    buf_get_u32(b, false, &size32) < 0 || buf_get_u16(b, false, &name_len) < 0 ||
	    buf_get_u16(b, false, &extra_len) < 0 || buf_get_u16(b, false, &comment_len) < 0 ||
	    buf_skip(b, 8) < 0 || buf_get_u32(b, false, &offset32) < 0 ||
	    buf_get_span(b, &name, name_len) < 0 || buf_get_span(b, &extra, extra_len) < 0 ||
	    buf_skip(b, comment_len) < 0)
		return err_set(e, -EBADMSG, "%s: broken entry in the zip directory", z->what);
	m->name = (const char *)name;
	m->name_len = name_len;
	packed = packed32;
	size = size32;
	offset = offset32;
	if (read_extra(buf_of(extra, extra_len), &size, &packed, &offset) < 0)
		return err_set(e, -EBADMSG, "%s: member %s: broken zip64 field", z->what, shown(text, m));
	if ((flags & FLAG_ENCRYPTED) != 0)
		return err_set(e, -ENOTSUP, "%s: member %s is encrypted", z->what, shown(text, m));
	if (method != 0 || packed != size)
		return err_set(e, -ENOTSUP,
			       "%s: member %s is compressed; PyTorch stores its members. Give the "
			       "checkpoint itself, not an archive around it",
			       z->what, shown(text, m));
	return find_data(z, offset, limit, m, size, e);
}

static int name_order(const char *a, size_t na, const char *b, size_t nb)
{
	int r = memcmp(a, b, na < nb ? na : nb);

	return r != 0 ? r : (na > nb) - (na < nb);
}

static int by_name(const void *pa, const void *pb)
{
	const struct zip_member *a = pa, *b = pb;

	return name_order(a->name, a->name_len, b->name, b->name_len);
}

static int by_place(const void *pa, const void *pb)
{
	const struct zip_member *a = pa, *b = pb;

	return (a->data > b->data) - (a->data < b->data);
}

static int check_members(struct zip *z, struct err *e)
{
	char one[NAME_SHOWN], two[NAME_SHOWN];
	size_t i;

	qsort(z->members, z->count, sizeof(*z->members), by_place);
	for (i = 1; i < z->count; i++)
		if (z->members[i].data < z->members[i - 1].data + z->members[i - 1].size)
			return err_set(e, -EBADMSG, "%s: members %s and %s overlap", z->what,
				       shown(one, &z->members[i - 1]), shown(two, &z->members[i]));
	qsort(z->members, z->count, sizeof(*z->members), by_name);
	for (i = 1; i < z->count; i++)
		if (by_name(&z->members[i - 1], &z->members[i]) == 0)
			return err_set(e, -EBADMSG, "%s: two members are called %s", z->what,
				       shown(one, &z->members[i]));
	return 0;
}

static int read_all(struct zip *z, struct err *e)
{
	struct directory d;
	struct buf b;
	int r;

	r = read_end(z, &d, e);
	if (r < 0)
		return r;
	b = buf_of(z->p + d.at, (size_t)d.size);
	z->members = xcalloc((size_t)d.count, sizeof(*z->members)); /* bounded by ZIP_MEMBERS_MAX */
	for (; z->count < d.count; z->count++) {
		r = read_member(z, &b, d.at, &z->members[z->count], e);
		if (r < 0)
			return r;
	}
	return check_members(z, e);
}

int zip_open(const void *p, size_t n, const char *what, struct zip **ret, struct err *e)
{
	struct zip *z = xcalloc(1, sizeof(*z));
	int r;

	z->p = p;
	z->n = n;
	z->what = what;
	r = read_all(z, e);
	if (r < 0) {
		zip_close(z);
		return r;
	}
	*ret = z;
	return 0;
}

void zip_close(struct zip *z)
{
	if (z == NULL)
		return;
	free(z->members);
	free(z);
}

size_t zip_count(const struct zip *z)
{
	return z->count;
}

const struct zip_member *zip_member(const struct zip *z, size_t i)
{
	assert(i < z->count);
	return &z->members[i];
}

const struct zip_member *zip_find(const struct zip *z, const char *name, size_t len)
{
	struct zip_member key = { .name = name, .name_len = len };

	return z->count > 0 ? bsearch(&key, z->members, z->count, sizeof(key), by_name) : NULL;
}

/* Slicing by 8: 0.9 GB of weights must not take long.  table[k][b] is byte b followed by k zeros. */
static void crc_table(uint32_t table[8][256])
{
	size_t i, k;

	for (i = 0; i < 256; i++) {
		uint32_t c = (uint32_t)i;

		for (k = 0; k < 8; k++)
			c = (c & 1) != 0 ? c >> 1 ^ 0xedb88320 : c >> 1;
		table[0][i] = c;
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++)
			table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

uint32_t zip_crc32(uint32_t crc, const void *p, size_t n)
{
	static uint32_t t[8][256];
	const uint8_t *b = p;
	uint32_t c = ~crc;

	if (t[0][1] == 0)
		crc_table(t);
	for (; n >= 8; n -= 8, b += 8)
		c = t[7][(c ^ b[0]) & 255] ^ t[6][(c >> 8 ^ b[1]) & 255] ^ t[5][(c >> 16 ^ b[2]) & 255] ^
		    t[4][(c >> 24 ^ b[3]) & 255] ^ t[3][b[4]] ^ t[2][b[5]] ^ t[1][b[6]] ^ t[0][b[7]];
	for (; n > 0; n--, b++)
		c = c >> 8 ^ t[0][(c ^ *b) & 255];
	return ~c;
}
