/* shim.c: preloaded into the node: the n-th call that changes a disk of the node fails, or never returns.
 *
 * Only calls on the file systems under test count, so that a number means the same call in every run.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fault/shim.h"

static struct shim *shim;

static void attach(void) __attribute__((constructor));
static void attach(void)
{
	const char *id = getenv("FAULT_SHIM");
	void *p = id != NULL ? shmat((int)strtol(id, NULL, 10), NULL, 0) : NULL;

	if ((intptr_t)p != -1)
		shim = p;
}

static bool ours(int fd)
{
	struct stat st;

	return shim != NULL && shim->on && fstat(fd, &st) == 0 && (st.st_dev == shim->dev[0] || st.st_dev == shim->dev[1]);
}

/* True: fail, with errno set. */
static bool strikes(enum shim_kind kind)
{
	static volatile unsigned turns;
	uint32_t nth, any;

	nth = __atomic_add_fetch(&shim->passed[kind], 1, __ATOMIC_SEQ_CST);
	any = __atomic_add_fetch(&shim->passed[SHIM_KINDS], 1, __ATOMIC_SEQ_CST);
	if (shim->action == SHIM_COUNT || shim->at != (shim->kind == SHIM_KINDS ? any : nth) ||
	    (shim->kind != SHIM_KINDS && shim->kind != kind))
		return false;
	(void)__atomic_add_fetch(&shim->hit, 1, __ATOMIC_SEQ_CST);
	while (shim->action == SHIM_STOP)
		turns++;
	errno = shim->error;
	return true;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FD(fd, kind) (ours(fd) && strikes(kind))

ssize_t write(int fd, const void *p, size_t n)
{
	return ON_FD(fd, SHIM_WRITE) ? -1 : REAL(write)(fd, p, n);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return ON_FD(fd, SHIM_WRITE) ? -1 : REAL(pwrite)(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return ON_FD(fd, SHIM_WRITE) ? -1 : REAL(pwrite64)(fd, p, n, at);
}

int fsync(int fd)
{
	return ON_FD(fd, SHIM_SYNC) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
	return ON_FD(fd, SHIM_SYNC) ? -1 : REAL(fdatasync)(fd);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	return ON_FD(from, SHIM_RENAME) ? -1 : REAL(renameat2)(from, old, to, new, flags);
}

int unlinkat(int at, const char *name, int flags)
{
	return ON_FD(at, SHIM_REMOVE) ? -1 : REAL(unlinkat)(at, name, flags);
}

static bool path_is_ours(int at, const char *path)
{
	if (shim == NULL || !shim->on)
		return false;
	return path[0] == '/' ? strncmp(path, shim->prefix, strlen(shim->prefix)) == 0 : at != AT_FDCWD && ours(at);
}

static int mode_of(int flags, va_list ap)
{
	return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, int) : 0;
}

#define OPEN_AT(name)                                                                                                  \
	int name(int at, const char *path, int flags, ...)                                                             \
	{                                                                                                              \
		va_list ap;                                                                                            \
		int mode;                                                                                              \
                                                                                                                       \
		va_start(ap, flags);                                                                                   \
		mode = mode_of(flags, ap);                                                                             \
		va_end(ap);                                                                                            \
		return path_is_ours(at, path) && strikes(SHIM_OPEN) ? -1 : REAL(name)(at, path, flags, mode);          \
	}
#define OPEN(name)                                                                                                     \
	int name(const char *path, int flags, ...)                                                                     \
	{                                                                                                              \
		va_list ap;                                                                                            \
		int mode;                                                                                              \
                                                                                                                       \
		va_start(ap, flags);                                                                                   \
		mode = mode_of(flags, ap);                                                                             \
		va_end(ap);                                                                                            \
		return path_is_ours(AT_FDCWD, path) && strikes(SHIM_OPEN) ? -1 : REAL(name)(path, flags, mode);        \
	}
OPEN_AT(openat)
OPEN_AT(openat64)
OPEN(open)
OPEN(open64)
