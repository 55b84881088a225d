/* pool.c: see pool.h.
 *
 * In memory and in the file a block is 64 bytes of who it is, then its own, up to the next multiple of 64.
 * The file has one such head for itself in front: magic, key, size and a checksum of all that follows.
 *
 * The checksum finds what disks do: a page that never arrived, a cut, a flipped bit.  It is no defence
 * against people: who can write here can write a right one.  Every step of it is one-to-one, so a
 * change of one word always changes the sum.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/pool.h"

#define MAGIC UINT64_C(0x31304c4f4f505a43) /* "CZPOOL01": the layout of this file's comment */
#define CHUNK ((size_t)32 << 20)
#define HUGE_PAGE ((size_t)2 << 20)
#define READ_BYTES ((size_t)1 << 20)
#define LANES 8

struct file_head {
	uint64_t magic, size, sum;
	uint8_t key[DIGEST_SIZE];
	uint64_t zero;
};

struct block_head {
	uint64_t tag, size, zero[6];
};

_Static_assert(sizeof(struct file_head) == POOL_ALIGNMENT, "blocks stay aligned");
_Static_assert(sizeof(struct block_head) == POOL_ALIGNMENT, "blocks stay aligned");

struct chunk {
	uint8_t *memory; /* [size] */
	size_t used, size;
};

struct pool {
	struct chunk *chunks; /* [n], of a new pool */
	size_t n;
	void *map; /* the whole file, of a filled one; else NULL */
	size_t size, at;
	bool failed;
};

/* ---- a new one ------------------------------------------------------------------------------- */

struct pool *pool_new(void)
{
	return xcalloc(1, sizeof(struct pool));
}

void pool_free(struct pool *p)
{
	if (p == NULL)
		return;
	for (size_t i = 0; i < p->n; i++)
		free(p->chunks[i].memory);
	free(p->chunks);
	if (p->map != NULL)
		(void)munmap(p->map, p->size); /* our own mapping: cannot fail */
	free(p);
}

static struct chunk *chunk_with(struct pool *p, size_t n)
{
	struct chunk *c = p->n > 0 ? &p->chunks[p->n - 1] : NULL;
	size_t size = CHUNK;

	if (c != NULL && c->size - c->used >= n)
		return c;
	if (n > CHUNK)
		size = (n + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	p->chunks = xreallocarray(p->chunks, p->n + 1, sizeof(*p->chunks));
	c = &p->chunks[p->n];
	*c = (struct chunk){ .memory = aligned_alloc(HUGE_PAGE, size), .size = size };
	if (c->memory == NULL)
		return NULL;
	(void)madvise(c->memory, size, MADV_HUGEPAGE); /* a wish; small pages work as well */
	p->n++;
	return c;
}

static void *take_new(struct pool *p, size_t n, size_t all, uint64_t tag)
{
	struct chunk *c = chunk_with(p, all);
	struct block_head *head;

	if (c == NULL)
		return NULL;
	head = (struct block_head *)(void *)(c->memory + c->used);
	c->used += all;
	memset(head, 0, all);
	*head = (struct block_head){ .tag = tag, .size = n };
	return head + 1;
}

/* ---- a filled one ---------------------------------------------------------------------------- */

/* Head and bytes of a block, rounded up; 0: more than there can be. */
static size_t block_bytes(uint64_t n)
{
	size_t all;

	if (n > SIZE_MAX || !add_ok((size_t)n, sizeof(struct block_head) + POOL_ALIGNMENT - 1, &all))
		return 0;
	return all / POOL_ALIGNMENT * POOL_ALIGNMENT;
}

/* The block at p->at, if it lies in the file. */
static const struct block_head *block_here(const struct pool *p)
{
	const struct block_head *head;
	size_t all;

	if (p->size - p->at < sizeof(*head))
		return NULL;
	head = (const struct block_head *)(const void *)((const uint8_t *)p->map + p->at);
	all = block_bytes(head->size);
	return all == 0 || all > p->size - p->at ? NULL : head;
}

const void *pool_next(struct pool *p, uint64_t *ret_tag, size_t *ret_n)
{
	const struct block_head *head = block_here(p);

	if (head == NULL)
		return NULL;
	p->at += block_bytes(head->size);
	*ret_tag = head->tag;
	*ret_n = (size_t)head->size;
	return head + 1;
}

void pool_rewind(struct pool *p)
{
	p->at = sizeof(struct file_head);
}

static void *take_filled(struct pool *p, size_t n, uint64_t tag)
{
	const struct block_head *head = p->failed ? NULL : block_here(p);

	if (head == NULL || head->size != n || head->tag != tag)
		return NULL;
	p->at += block_bytes(n);
	return (void *)(uintptr_t)(head + 1); /* pages that nobody can write to */
}

/* ---- both ------------------------------------------------------------------------------------ */

bool pool_filled(const struct pool *p)
{
	return p->map != NULL;
}

void *pool_take(struct pool *p, size_t n, uint64_t tag)
{
	size_t all = block_bytes(n);
	void *ret = NULL;

	if (all > 0)
		ret = p->map != NULL ? take_filled(p, n, tag) : take_new(p, n, all, tag);
	p->failed |= ret == NULL;
	return ret;
}

bool pool_keep(struct pool *p, const float **table, size_t n)
{
	float *copy = pool_take(p, n * sizeof(float), 0); /* bounded by the limits of manifest.h */

	if (copy == NULL)
		return false;
	if (!pool_filled(p))
		memcpy(copy, *table, n * sizeof(float));
	*table = copy;
	return true;
}

bool pool_whole(const struct pool *p)
{
	return !p->failed && (p->map == NULL || p->at == p->size);
}

/* ---- the file -------------------------------------------------------------------------------- */

struct sum {
	uint64_t lane[LANES];
};

/* n: a multiple of 64. */
static void sum_add(struct sum *s, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	for (; n > 0; n -= sizeof(s->lane), at += sizeof(s->lane)) {
		uint64_t word[LANES];

		memcpy(word, at, sizeof(word));
		for (size_t i = 0; i < LANES; i++) {
			s->lane[i] = (s->lane[i] ^ word[i]) * UINT64_C(0x9fb21c651e98df25);
			s->lane[i] ^= s->lane[i] >> 29;
		}
	}
}

static uint64_t sum_end(const struct sum *s)
{
	uint64_t ret = 0;

	for (size_t i = 0; i < LANES; i++) {
		ret = (ret ^ s->lane[i]) * UINT64_C(0xd6e8feb86659fd93);
		ret ^= ret >> 32;
	}
	return ret;
}

static int sum_file(int fd, size_t size, uint64_t *ret)
{
	CLEANUP(free) void *bytes = aligned_alloc(POOL_ALIGNMENT, READ_BYTES);
	struct sum s = { { 0 } };
	size_t at, n;
	int r;

	if (bytes == NULL)
		return -ENOMEM;
	for (at = sizeof(struct file_head); at < size; at += n) {
		n = size - at < READ_BYTES ? size - at : READ_BYTES;
		r = pread_full(fd, bytes, n, (off_t)at);
		if (r < 0)
			return r;
		sum_add(&s, bytes, n);
	}
	*ret = sum_end(&s);
	return 0;
}

int pool_map(int fd, const uint8_t key[DIGEST_SIZE], uint64_t max, const char *name, struct pool **ret,
	     struct err *e)
{
	struct file_head head;
	struct pool *p;
	struct stat st;
	uint64_t sum;
	void *map;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "%s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof(head) || st.st_size % POOL_ALIGNMENT != 0)
		return err_set(e, -EBADMSG, "%s: no file of tables, or cut short", name);
	if ((uint64_t)st.st_size > max)
		return err_set(e, -E2BIG, "%s: %lld bytes, at most %llu are read", name, (long long)st.st_size,
			       (unsigned long long)max);
	r = pread_full(fd, &head, sizeof(head), 0);
	if (r < 0)
		return err_set(e, r, "%s: %s", name, strerror(-r));
	if (head.magic != MAGIC || memcmp(head.key, key, DIGEST_SIZE) != 0 || head.size != (uint64_t)st.st_size)
		return err_set(e, -EBADMSG, "%s: its head is wrong, or it was cut short", name);
	r = sum_file(fd, (size_t)st.st_size, &sum);
	if (r < 0)
		return err_set(e, r, "%s: %s", name, strerror(-r));
	if (sum != head.sum)
		return err_set(e, -EBADMSG, "%s: its checksum is wrong: the file is damaged", name);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return err_set(e, -errno, "%s: cannot map %lld bytes: %s", name, (long long)st.st_size,
			       strerror(errno));
	(void)madvise(map, (size_t)st.st_size, MADV_HUGEPAGE); /* where the file system has large pages */
	p = pool_new();
	p->map = map;
	p->size = (size_t)st.st_size;
	pool_rewind(p);
	*ret = p;
	return 0;
}

uint64_t pool_file_size(const struct pool *p)
{
	uint64_t n = sizeof(struct file_head);

	for (size_t i = 0; i < p->n; i++)
		n += p->chunks[i].used;
	return n;
}

/* In pieces that end on borders of huge pages: so the file lies in the page cache in large pages, too. */
static int write_pieces(int fd, const uint8_t *from, size_t n, off_t *at)
{
	size_t piece;
	int r;

	for (; n > 0; n -= piece, from += piece, *at += (off_t)piece) {
		piece = HUGE_PAGE - (size_t)*at % HUGE_PAGE;
		piece = piece < n ? piece : n;
		r = pwrite_full(fd, from, piece, *at);
		if (r < 0)
			return r;
	}
	return 0;
}

int pool_write(const struct pool *p, int fd, const uint8_t key[DIGEST_SIZE])
{
	struct file_head head = { .magic = MAGIC, .size = pool_file_size(p) };
	struct sum s = { { 0 } };
	off_t at = 0;
	int r;

	for (size_t i = 0; i < p->n; i++)
		sum_add(&s, p->chunks[i].memory, p->chunks[i].used);
	head.sum = sum_end(&s);
	memcpy(head.key, key, DIGEST_SIZE);
	r = write_pieces(fd, (const uint8_t *)&head, sizeof(head), &at);
	for (size_t i = 0; r == 0 && i < p->n; i++)
		r = write_pieces(fd, p->chunks[i].memory, p->chunks[i].used, &at);
	return r;
}
