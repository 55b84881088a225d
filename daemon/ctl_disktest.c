/* ctl_disktest.c: carzeroctl disktest: how long the disk takes to make something durable, and whether to believe it.
 *
 * A disk that says "flushed" while the data are in a volatile cache loses what the node acknowledged, and
 * nothing above it can see that but by the clock: no turning disk flushes faster than it turns, and no
 * device with a volatile cache flushes in no time.  So this measures the node's two kinds of writes in
 * state_dir and holds the figures against what the kernel says of the device.  A disk that passes is plausible, not proven.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/ctl.h"

#define SMALL_TIMES 200
#define SMALL_BYTES 4096
#define LARGE_TIMES 10
#define LARGE_BYTES (8u << 20)
#define TURN_MS 1.0   /* half a turn of the fastest disk is 2 ms */
#define FLUSH_MS 0.03 /* a command to a device and back, with nothing to flush */

struct times {
	double median, worst; /* ms */
};

static double now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static int by_value(const void *pa, const void *pb)
{
	const double *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

static struct times measure(int fd, const char *path, size_t bytes, size_t times)
{
	CLEANUP(free) uint8_t *block = xcalloc(1, bytes);
	CLEANUP(free) double *took = xcalloc(times, sizeof(*took));
	size_t i;
	int r;

	for (i = 0; i < times; i++) {
		double from = now_ms();

		memset(block, (int)(i + 1), bytes);
		r = write_full(fd, block, bytes);
		if (r < 0 || fsync(fd) < 0)
			ctl_stop(CTL_CANNOT, "%s: %s", path, strerror(r < 0 ? -r : errno));
		took[i] = now_ms() - from;
	}
	qsort(took, times, sizeof(*took), by_value);
	return (struct times){ took[times / 2], took[times - 1] };
}

/* One word of the device's queue in /sys, of the disk when st_dev is a partition of it; "" when there is none. */
static void queue_word(dev_t dev, const char *name, char ret[32])
{
	static const char *const places[] = { "queue", "../queue" };
	char path[128];
	size_t i;

	ret[0] = '\0';
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		FILE *f;

		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev), places[i], name);
		f = fopen(path, "re");
		if (f == NULL)
			continue;
		if (fgets(ret, 32, f) == NULL)
			ret[0] = '\0';
		ret[strcspn(ret, "\n")] = '\0';
		(void)fclose(f);
		return;
	}
}

static const char *verdict(const struct times *small, bool turning, bool cached, bool known)
{
	if (!known)
		return "the kernel names no device here: nothing to hold the figures against";
	if (turning && small->median < TURN_MS)
		return "a turning disk cannot be so fast: a cache answers for it. Switch it off, or make sure that it survives a power cut";
	if (cached && small->median < FLUSH_MS)
		return "a device with a volatile cache cannot flush so fast: flushes are not carried out";
	return NULL;
}

int ctl_disktest(const struct config *c)
{
	char path[4096], rotational[32], cache[32];
	struct times small, large;
	const char *trouble;
	bool known, turning, cached;
	struct stat st;
	int fd;

	if (snprintf(path, sizeof(path), "%s/disktest.XXXXXX", c->state_dir) >= (int)sizeof(path))
		ctl_stop(CTL_CANNOT, "state_dir: path too long");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		ctl_stop(CTL_CANNOT, "%s: %s", path, strerror(errno));
	(void)unlink(path); /* nothing is left behind, whatever happens */
	if (fstat(fd, &st) < 0)
		ctl_stop(CTL_CANNOT, "%s: %s", path, strerror(errno));
	small = measure(fd, path, SMALL_BYTES, SMALL_TIMES);
	large = measure(fd, path, LARGE_BYTES, LARGE_TIMES);
	(void)close(fd);
	queue_word(st.st_dev, "rotational", rotational);
	queue_word(st.st_dev, "write_cache", cache);
	known = rotational[0] != '\0';
	turning = strcmp(rotational, "1") == 0;
	cached = strcmp(cache, "write back") == 0;
	trouble = verdict(&small, turning, cached, known);
	if (ctl_as_json) {
		ctl_print_json(json_pack("{s:f, s:f, s:f, s:f, s:b, s:b, s:b, s:s*}", "small_median_ms", small.median, "small_worst_ms",
					 small.worst, "large_median_ms", large.median, "large_worst_ms", large.worst, "turning",
					 turning, "volatile_cache", cached, "plausible", trouble == NULL, "trouble", trouble));
		return trouble == NULL ? CTL_GOOD : CTL_ATTENTION;
	}
	printf("%s: device %u:%u, %s, %s\n", c->state_dir, major(st.st_dev), minor(st.st_dev),
	       !known ? "unknown" : turning ? "turning" : "not turning",
	       cache[0] == '\0' ? "cache unknown" : cached ? "volatile write cache" : "no volatile write cache");
	printf("4 KiB and fsync: median %.3f ms, worst of %d %.3f ms\n", small.median, SMALL_TIMES, small.worst);
	printf("8 MiB and fsync: median %.1f ms, worst of %d %.1f ms\n", large.median, LARGE_TIMES, large.worst);
	printf("%s\n", trouble != NULL ? trouble : "plausible; what a power cut leaves, only a power cut shows");
	return trouble == NULL ? CTL_GOOD : CTL_ATTENTION;
}
