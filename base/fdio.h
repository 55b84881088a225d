/* fdio.h: whole reads and writes, and descriptors that travel.
 *
 * Nothing here keeps state.  read_full and write_full retry short transfers and EINTR, so that a
 * caller sees all or an error.  fd_send and fd_receive move one SOCK_SEQPACKET message together
 * with up to FD_SEND_MAX descriptors (SCM_RIGHTS); received descriptors are close-on-exec and belong
 * to the caller, and a message that was cut, or that brought more descriptors than asked for, is
 * -EPROTO with every descriptor closed.
 */
#ifndef CARZEROD_BASE_FDIO_H
#define CARZEROD_BASE_FDIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define FD_SEND_MAX 128

/* Reads exactly n bytes; -ENODATA when the file ends before. */
int read_full(int fd, void *p, size_t n);
int pread_full(int fd, void *p, size_t n, off_t at);
int write_full(int fd, const void *p, size_t n);
int pwrite_full(int fd, const void *p, size_t n, off_t at);

/* The whole regular file from its start, at most `max` bytes (-E2BIG over it); a NUL follows the bytes.
 * -EISDIR, -EINVAL: not a regular file. */
int read_file(int fd, size_t max, void **ret, size_t *ret_n);
int read_path(const char *path, size_t max, void **ret, size_t *ret_n, struct err *e);

int fd_send(int sock, const void *msg, size_t n, const int *fds, size_t n_fds);
/* Returns the message's length; 0 is the peer's end of file; -EAGAIN when nothing waits; -EPROTO when
 * the message or its descriptors are more than the caller has room for (all are closed then). */
ssize_t fd_receive(int sock, void *msg, size_t size, int *fds, size_t max_fds, size_t *ret_n_fds);

/* A memory file: close-on-exec, sealable. */
int fd_memory(const char *name);
/* Forbids any further change of a memory file, by anybody who holds it. */
int fd_seal(int fd);

#endif
