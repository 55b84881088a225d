/* cache.c: see cache.h.
 *
 * The folder is opened once and everything in it is reached through that descriptor.  Whoever locks, locks
 * the folder itself; an unfinished file is somebody's who died with it, and goes when the next one is
 * written under the lock.
 *
 * Never: an error that stops anybody.  What cannot be kept is computed again the next time.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include "base/mem.h"

#include "model/cache.h"

#define NAME_MAX_BYTES (DIGEST_HEX_MAX + 16)
#define UNFINISHED "unfinished"
#define KIND_MAX 12

struct cache {
	char *folder; /* for texts */
	int fd;
	uint64_t spare;
};

int cache_open(const char *folder, uint64_t spare, struct cache **ret, struct err *e)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cache *c;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", folder, strerror(errno));
	c = xcalloc(1, sizeof(*c));
	*c = (struct cache){ .folder = xstrdup(folder), .fd = fd, .spare = spare };
	*ret = c;
	return 0;
}

void cache_close(struct cache *c)
{
	if (c == NULL)
		return;
	(void)close(c->fd); /* with the lock, if it is held */
	free(c->folder);
	free(c);
}

void cache_lock(struct cache *c)
{
	while (flock(c->fd, LOCK_EX) < 0 && errno == EINTR)
		;
}

void cache_unlock(struct cache *c)
{
	(void)flock(c->fd, LOCK_UN); /* a lock that was never had */
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Code and its rounding are chosen by what the CPU says of itself.  /proc/cpuinfo would say it too, but a
 * service need not see it. */
static void processor(struct digest *d)
{
#if defined(__x86_64__) || defined(__i386__)
	static const unsigned leaves[] = { 0, 1, 7, 0x80000002, 0x80000003, 0x80000004 };

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
		unsigned r[4] = { 0 };

		if (!__get_cpuid_count(leaves[i], 0, &r[0], &r[1], &r[2], &r[3]))
			continue;
		if (leaves[i] == 1)
			r[1] = 0; /* the number of the core that we run on */
		digest_update(d, r, sizeof(r));
	}
#endif
	for (unsigned long type = AT_HWCAP; type <= AT_HWCAP2; type += AT_HWCAP2 - AT_HWCAP) {
		unsigned long bits = getauxval(type);

		digest_update(d, &bits, sizeof(bits));
	}
}

int cache_key_begin(struct digest *d, const char *libraries, struct err *e)
{
	static const char program[] = "/proc/self/exe";
	CLEANUP(close) int fd = open(program, O_RDONLY | O_CLOEXEC);
	uint8_t digest[DIGEST_SIZE];
	int r = fd < 0 ? -errno : digest_fd(fd, 0, digest);

	if (r < 0)
		return err_set(e, r, "%s: %s", program, strerror(-r));
	digest_update(d, digest, sizeof(digest));
	digest_update(d, libraries, strlen(libraries) + 1);
	processor(d);
	return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

static void name_of(char ret[NAME_MAX_BYTES], const char *kind, const uint8_t key[DIGEST_SIZE])
{
	char hex[DIGEST_HEX_MAX];

	str_hex(hex, key, DIGEST_SIZE);
	(void)snprintf(ret, NAME_MAX_BYTES, "%s.%.*s", hex, KIND_MAX, kind);
}

int cache_get(struct cache *c, const char *kind, const uint8_t key[DIGEST_SIZE], struct pool **ret, struct err *e)
{
	char name[NAME_MAX_BYTES], path[4096];
	CLEANUP(close) int fd = -1;
	int r;

	name_of(name, kind, key);
	fd = openat(c->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return err_set(e, -ENOENT, "%s/%s: not there", c->folder, name);
	(void)snprintf(path, sizeof(path), "%.3900s/%s", c->folder, name);
	if (fd < 0)
		r = err_set(e, errno == ENOENT ? -EIO : -errno, "%s: %s", path, strerror(errno));
	else
		r = pool_map(fd, key, CACHE_FILE_MAX, path, ret, e);
	if (r < 0)
		(void)unlinkat(c->fd, name, 0); /* it is made again, or tried again */
	else
		(void)futimens(fd, NULL); /* used last; at worst it goes a little early */
	return r == -ENOENT ? -EIO : r;
}

struct entry {
	char name[NAME_MAX_BYTES];
	struct timespec used;
};

static int by_use(const void *pa, const void *pb)
{
	const struct entry *a = pa, *b = pb;

	if (a->used.tv_sec != b->used.tv_sec)
		return a->used.tv_sec > b->used.tv_sec ? -1 : 1;
	return a->used.tv_nsec > b->used.tv_nsec ? -1 : a->used.tv_nsec < b->used.tv_nsec;
}

/* Of this kind the CACHE_KEPT last used stay. */
static void remove_old(const struct cache *c, const char *kind)
{
	CLEANUP(free) struct entry *entries = xcalloc(CACHE_ENTRIES_MAX, sizeof(*entries));
	int fd = openat(c->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	size_t n = 0;

	while (folder != NULL && n < CACHE_ENTRIES_MAX && (d = readdir(folder)) != NULL) {
		const char *dot = strrchr(d->d_name, '.');
		struct stat st;

		if (dot == NULL || strcmp(dot + 1, kind) != 0 || strlen(d->d_name) >= NAME_MAX_BYTES ||
		    fstatat(c->fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		(void)str_copy(entries[n].name, sizeof(entries[n].name), d->d_name); /* it fits */
		entries[n++].used = st.st_mtim;
	}
	if (folder != NULL)
		(void)closedir(folder); /* read only */
	else if (fd >= 0)
		(void)close(fd);
	qsort(entries, n, sizeof(*entries), by_use);
	for (size_t i = CACHE_KEPT; i < n; i++)
		(void)unlinkat(c->fd, entries[i].name, 0); /* who maps it keeps it */
}

/* Written, synced, renamed, the folder synced: a file of this name is whole. */
static int write_file(const struct cache *c, const char *name, const uint8_t key[DIGEST_SIZE], const struct pool *p)
{
	CLEANUP(close) int fd = -1;
	int r;

	(void)unlinkat(c->fd, UNFINISHED, 0);
	fd = openat(c->fd, UNFINISHED, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = pool_write(p, fd, key);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(c->fd, UNFINISHED, c->fd, name) < 0)
		r = -errno;
	if (r == 0 && fsync(c->fd) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(c->fd, UNFINISHED, 0);
	return r;
}

int cache_put(struct cache *c, const char *kind, const uint8_t key[DIGEST_SIZE], const struct pool *p, struct err *e)
{
	uint64_t size = pool_file_size(p), left;
	char name[NAME_MAX_BYTES];
	struct statvfs st;
	int r;

	name_of(name, kind, key);
	if (size > CACHE_FILE_MAX)
		return err_set(e, -E2BIG, "%s/%s: %llu bytes, at most %llu are kept", c->folder, name,
			       (unsigned long long)size, (unsigned long long)CACHE_FILE_MAX);
	if (fstatvfs(c->fd, &st) < 0)
		return err_set(e, -errno, "%s: %s", c->folder, strerror(errno));
	left = (uint64_t)st.f_bavail * st.f_frsize;
	if (left < size || left - size < c->spare)
		return err_set(e, -ENOSPC, "%s: %llu MB free, %llu MB wanted besides the %llu MB that stay free", c->folder,
			       (unsigned long long)left >> 20, (unsigned long long)size >> 20,
			       (unsigned long long)c->spare >> 20);
	r = write_file(c, name, key, p);
	if (r < 0)
		return err_set(e, r, "%s/%s: %s", c->folder, name, strerror(-r));
	remove_old(c, kind);
	return 0;
}
