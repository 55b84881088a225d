/* fdio.c: see fdio.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

int read_full(int fd, void *p, size_t n)
{
	char *q = p;

	while (n > 0) {
		ssize_t r = read(fd, q, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ENODATA;
		q += r;
		n -= (size_t)r;
	}
	return 0;
}

int pread_full(int fd, void *p, size_t n, off_t at)
{
	char *q = p;

	while (n > 0) {
		ssize_t r = pread(fd, q, n, at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ENODATA;
		q += r;
		n -= (size_t)r;
		at += r;
	}
	return 0;
}

int write_full(int fd, const void *p, size_t n)
{
	const char *q = p;

	while (n > 0) {
		ssize_t r = write(fd, q, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		q += r;
		n -= (size_t)r;
	}
	return 0;
}

int pwrite_full(int fd, const void *p, size_t n, off_t at)
{
	const char *q = p;

	while (n > 0) {
		ssize_t r = pwrite(fd, q, n, at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		q += r;
		n -= (size_t)r;
		at += r;
	}
	return 0;
}

int read_file(int fd, size_t max, void **ret, size_t *ret_n)
{
	CLEANUP(free) char *p = NULL;
	struct stat st;
	size_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode)) /* a pipe's size is 0, and it would be read as an empty file */
		return -EINVAL;
	if (st.st_size < 0 || (uintmax_t)st.st_size > max)
		return -E2BIG;
	n = (size_t)st.st_size;
	p = malloc(n + 1);
	if (p == NULL)
		return -ENOMEM;
	r = pread_full(fd, p, n, 0);
	if (r < 0)
		return r;
	p[n] = '\0';
	*ret = TAKE(p);
	*ret_n = n;
	return 0;
}

int read_path(const char *path, size_t max, void **ret, size_t *ret_n, struct err *e)
{
	CLEANUP(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	r = read_file(fd, max, ret, ret_n);
	if (r == -E2BIG)
		return err_set(e, r, "%s: larger than %zu bytes", path, max);
	if (r == -EINVAL)
		return err_set(e, r, "%s: not a regular file", path);
	if (r < 0)
		return err_set(e, r, "%s: %s", path, strerror(-r));
	return 0;
}

int fd_send(int sock, const void *msg, size_t n, const int *fds, size_t n_fds)
{
	union {
		char space[CMSG_SPACE(FD_SEND_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)msg, .iov_len = n };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r;

	if (n_fds > FD_SEND_MAX)
		return -E2BIG;
	if (n_fds > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = control.space;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		r = sendmsg(sock, &h, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return (size_t)r == n ? 0 : -EPROTO;
}

ssize_t fd_receive(int sock, void *msg, size_t size, int *fds, size_t max_fds, size_t *ret_n_fds)
{
	union {
		char space[CMSG_SPACE(FD_SEND_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = msg, .iov_len = size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1,
			    .msg_control = control.space, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	bool broken;
	size_t n_fds = 0;
	ssize_t r;

	do
		r = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	broken = (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
	for (c = CMSG_FIRSTHDR(&h); c != NULL; c = CMSG_NXTHDR(&h, c)) {
		size_t n, i;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (broken || n_fds == max_fds) {
				(void)close(fd); /* not asked for: must not leak into us */
				broken = true;
				continue;
			}
			fds[n_fds++] = fd;
		}
	}
	if (broken || (r == 0 && n_fds > 0)) { /* the caller of 0, an end of file, looks for no descriptors */
		while (n_fds > 0)
			(void)close(fds[--n_fds]);
		return -EPROTO;
	}
	*ret_n_fds = n_fds;
	return r;
}

int fd_memory(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	return fd < 0 ? -errno : fd;
}

int fd_seal(int fd)
{
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}
