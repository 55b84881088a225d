/* disk.c: the disk under state_dir: which kind, how full, and what is done when it is full.
 *
 * Two marks with a distance: below storage.min_free new associations are refused (transient, before
 * a byte is accepted), until there is a thirty-second part more than that.  What has been let in may
 * finish: a single object is refused (A700, before its data set) below half of it.
 *
 * The ballast is a file of allocated blocks that nobody reads.  When the database cannot be written
 * for want of space it goes, and deliveries, retention and checkpoints, which make space, go on with
 * what it held; it comes back when there is room for it beyond the mark.  As long as it is missing
 * the mark is higher by its size, so that what it gave up is not filled with new images.
 *
 * Never: counts on a figure from before; the kernel is asked at each decision.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#include "daemon/keeper.h"

#define TRY_BALLAST_MS 10000
#define TELL_FULL_MS 60000
#define INODES_LOW 20  /* refuse below a twentieth of all */
#define INODES_HIGH 12 /* and until there is a twelfth */

/* statfs(2); those that lose what they acknowledged in a power cut, or that we cannot trust to keep it */
static const struct {
	long type;
	const char *name;
} unsafe[] = {
	{ 0x6969, "NFS" }, { 0x01021994, "tmpfs" }, { 0x858458f6, "ramfs" }, { 0x794c7630, "overlayfs" },
	{ 0xff534d42, "CIFS" }, { 0xfe534d42, "SMB" }, { 0x65735546, "FUSE" }, { 0x01021997, "9p" },
	{ 0x00c36400, "Ceph" }, { 0x4d44, "FAT" }, { 0x2011bab0, "exFAT" },
};

const char *disk_unsafe(const char *folder)
{
	struct statfs st;

	if (statfs(folder, &st) < 0)
		return NULL; /* opening it will say why */
	for (size_t i = 0; i < ARRAY_SIZE(unsafe); i++)
		if ((unsigned long)st.f_type == (unsigned long)unsafe[i].type)
			return unsafe[i].name;
	return NULL;
}

/* ---- the ballast -------------------------------------------------------------------------------- */

static void ballast_path(const struct keeper *k, char ret[4096])
{
	(void)snprintf(ret, 4096, "%s/ballast", k->config->state_dir);
}

static uint64_t missing_ballast(const struct keeper *k)
{
	return k->ballast ? 0 : k->config->ballast_bytes;
}

/* fallocate(2) itself: the library's would write every block where the file system cannot. */
static int make_ballast(const struct keeper *k)
{
	char path[4096];
	int fd, r = 0;

	ballast_path(k, path);
	fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (fallocate(fd, 0, 0, (off_t)k->config->ballast_bytes) < 0 ||
	    ftruncate(fd, (off_t)k->config->ballast_bytes) < 0)
		r = -errno;
	(void)close(fd); /* nothing was written */
	if (r < 0)
		(void)unlink(path); /* no half a ballast; it is tried again */
	return r;
}

static void try_ballast(struct keeper *k)
{
	const struct config *c = k->config;
	int r;

	if (k->ballast || c->ballast_bytes == 0 || k->boot < k->ballast_at)
		return;
	k->ballast_at = k->boot + TRY_BALLAST_MS;
	if (k->space.free_bytes < c->min_free_bytes + c->ballast_bytes)
		return;
	r = make_ballast(k);
	k->ballast = r == 0;
	if (r < 0 && r != -ENOSPC)
		log_warning("ballast: %s; a full disk will stop deliveries too", strerror(-r));
}

/* Gives its blocks to those who make space. */
static void drop_ballast(struct keeper *k)
{
	char path[4096];

	if (!k->ballast)
		return;
	ballast_path(k, path);
	if (unlink(path) < 0 && errno != ENOENT)
		log_error("%s: cannot be removed: %s", path, strerror(errno));
	k->ballast = false;
	k->ballast_at = k->boot + TRY_BALLAST_MS;
	log_error("disk full: the ballast is given up so that deliveries and retention go on; no images are taken");
}

void disk_open(struct keeper *k)
{
	struct stat st;
	char path[4096];

	ballast_path(k, path);
	if (k->config->ballast_bytes == 0)
		(void)unlink(path); /* of an earlier configuration */
	else
		k->ballast = lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
			     (uint64_t)st.st_blocks * 512 >= k->config->ballast_bytes;
	disk_look(k);
}

/* ---- the marks ----------------------------------------------------------------------------------- */

static bool below(const struct spool_space *s, uint64_t mark, uint64_t inodes_part)
{
	return s->free_bytes < mark || (s->total_inodes > 0 && s->free_inodes < s->total_inodes / inodes_part);
}

void disk_look(struct keeper *k)
{
	uint64_t mark = k->config->min_free_bytes + missing_ballast(k);

	keeper_must(k, spool_space(k->spool, &k->space), "ask for free space");
	try_ballast(k);
	if (!k->disk_low && below(&k->space, mark, INODES_LOW)) {
		k->disk_low = true;
		log_error("disk: %llu MiB and %llu inodes free, storage.min_free is %llu MiB: associations are refused",
			  (unsigned long long)k->space.free_bytes >> 20, (unsigned long long)k->space.free_inodes,
			  (unsigned long long)k->config->min_free_bytes >> 20);
	} else if (k->disk_low && !below(&k->space, mark + k->config->min_free_bytes / 32, INODES_HIGH)) {
		k->disk_low = false;
		log_info("disk: %llu MiB free: associations are accepted again", (unsigned long long)k->space.free_bytes >> 20);
	}
}

bool disk_takes_object(struct keeper *k)
{
	disk_look(k);
	return !k->disk_low || !below(&k->space, k->config->min_free_bytes / 2 + missing_ballast(k), 2 * INODES_LOW);
}

void disk_full(struct keeper *k, const char *what)
{
	drop_ballast(k);
	k->disk_low = true; /* until a look at it says otherwise */
	if (k->boot - k->full_told >= TELL_FULL_MS || k->full_told == 0) {
		log_error("cannot %s: the disk is full (%s); what was under way goes back and is tried again", what,
			  store_error(k->store));
		k->full_told = k->boot;
	}
}
