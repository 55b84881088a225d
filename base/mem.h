/* mem.h: allocation that cannot be forgotten, and sizes that cannot overflow.
 *
 * Small allocations of our own abort on exhaustion (xcalloc, xstrdup): a node that cannot get 200
 * bytes restarts better than it limps.  A size that came from outside never goes there: it passes
 * mul_ok/add_ok and a named limit, and the caller returns -ENOMEM.
 *
 * CLEANUP(free) char *p = ...;   releases at the end of the scope
 * CLEANUP(close) int fd = ...;   closes when fd >= 0, keeping errno
 * return TAKE(p); / TAKE_FD(fd)  hands ownership over and disarms the cleanup
 */
#ifndef CARZEROD_BASE_MEM_H
#define CARZEROD_BASE_MEM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLEANUP(how) __attribute__((cleanup(cleanup_##how)))

static inline void cleanup_free(void *pp)
{
	free(*(void **)pp);
}

static inline void cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd); /* read-only or already synced: nothing to learn from a failure */
	errno = saved;
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f != NULL)
		(void)fclose(*f); /* read side only */
}

#define TAKE(p)                                                                                    \
	__extension__({                                                                            \
		__typeof__(p) take_ = (p);                                                         \
		(p) = NULL;                                                                        \
		take_;                                                                             \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}
#define TAKE_FD(fd) take_fd(&(fd))

/* Products and sums of sizes: false on overflow, result untouched. */
static inline bool mul_ok(size_t a, size_t b, size_t *ret)
{
	size_t n;

	if (__builtin_mul_overflow(a, b, &n))
		return false;
	*ret = n;
	return true;
}

static inline bool add_ok(size_t a, size_t b, size_t *ret)
{
	size_t n;

	if (__builtin_add_overflow(a, b, &n))
		return false;
	*ret = n;
	return true;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull, warn_unused_result));
void *xreallocarray(void *p, size_t n, size_t size) __attribute__((returns_nonnull, warn_unused_result));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull, warn_unused_result));

#endif
