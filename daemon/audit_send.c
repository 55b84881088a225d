/* audit_send.c: carzerod-audit, which brings audit records to their repository: syslog over TLS (RFC 5425).
 *
 * The keeper hands over a memory file of whole frames; we connect, both sides show certificates, write them, say
 * that nothing more comes, and wait until the repository has closed too.  RFC 5425 has no receipt: a peer that
 * ends the connection in order has read all of it, and one that breaks it, or is silent, may not have; the keeper
 * sends the batch again then.  After a failure the process ends, so that the next one asks for the address and
 * reads the certificates anew.
 *
 * It sees audit records and the TLS key; never the database, a study, an image.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/tls.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"
#include "daemon/secure.h"

#define CONNECT_MS 10000
#define BATCH_MS 60000 /* one batch, from the connection to the repository's end of it */
#define BATCH_BYTES_MAX (1024 * 1024)
#define END_AFTER_MS 60000
#define ADDRESSES_MAX 4
#define AUDIT_MEMORY (512ull << 20)
#define AUDIT_FILES 64

struct repository {
	const struct config *config;
	struct tls *tls;
	struct sockaddr_storage where[ADDRESSES_MAX];
	socklen_t length[ADDRESSES_MAX];
	size_t n;
	const char *unknown; /* why there is no address */
};

static void resolve(struct repository *r)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *list = NULL, *a;
	char port[8];
	int error;

	(void)snprintf(port, sizeof(port), "%u", r->config->audit.port);
	error = getaddrinfo(r->config->audit.host, port, &hints, &list);
	if (error != 0) {
		r->unknown = gai_strerror(error);
		return;
	}
	for (a = list; a != NULL && r->n < ADDRESSES_MAX; a = a->ai_next) {
		if (a->ai_addrlen > sizeof(r->where[0]))
			continue;
		memcpy(&r->where[r->n], a->ai_addr, a->ai_addrlen);
		r->length[r->n++] = a->ai_addrlen;
	}
	freeaddrinfo(list);
}

/* False: not before the deadline. */
static bool await(int fd, short events, int64_t until)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left;
	int r;

	do {
		left = until - clock_boot_ms();
		if (left <= 0)
			return false;
		r = poll(&p, 1, (int)left);
	} while (r < 0 && errno == EINTR);
	return r > 0;
}

static int connect_one(const struct repository *r, size_t i, int64_t until)
{
	CLEANUP(close) int fd = socket(r->where[i].ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t n = sizeof(int);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&r->where[i], r->length[i]) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		if (!await(fd, POLLOUT, until))
			return -ETIMEDOUT;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
			return -errno;
	}
	return error != 0 ? -error : TAKE_FD(fd);
}

static int connect_any(const struct repository *r)
{
	int fd = -EHOSTUNREACH;

	for (size_t i = 0; i < r->n; i++) {
		fd = connect_one(r, i, clock_boot_ms() + CONNECT_MS / (int64_t)r->n);
		if (fd >= 0)
			break;
	}
	return fd;
}

static const char *link_error(struct tls_link *l, ssize_t r)
{
	return r == -ECONNABORTED ? tls_link_why(l) : strerror((int)-r);
}

/* NULL: the repository has all of it. */
static const char *speak(struct tls_link *l, int fd, const uint8_t *p, size_t n, int64_t until)
{
	static const char late[] = "no answer in time";
	uint8_t answer[512];
	short events = 0;
	ssize_t r;

	while ((r = tls_link_handshake(l, &events)) == -EAGAIN)
		if (!await(fd, events, until))
			return late;
	if (r < 0)
		return link_error(l, r);
	while (n > 0) {
		r = tls_link_write(l, p, n, &events);
		if (r == -EAGAIN) {
			if (!await(fd, events, until))
				return late;
			continue;
		}
		if (r < 0)
			return link_error(l, r);
		p += r;
		n -= (size_t)r;
	}
	tls_link_end(l);
	while ((r = tls_link_read(l, answer, sizeof(answer), &events)) != 0) { /* it has nothing to say: read and forgotten */
		if (r == -EAGAIN && !await(fd, events, until))
			return "it did not end the connection in time";
		if (r < 0 && r != -EAGAIN)
			return link_error(l, r);
	}
	return NULL;
}

static bool deliver(const struct repository *r, int batch, char *why, size_t size)
{
	int64_t until = clock_boot_ms() + BATCH_MS;
	CLEANUP(close) int fd = -1;
	CLEANUP(free) void *frames = NULL;
	struct tls_link *l = NULL;
	const char *error;
	size_t n;
	int e;

	if (r->n == 0) {
		(void)snprintf(why, size, "host name cannot be resolved to an address: %s", r->unknown);
		return false;
	}
	if (lseek(batch, 0, SEEK_SET) < 0 || (e = read_file(batch, BATCH_BYTES_MAX, &frames, &n)) < 0) {
		(void)snprintf(why, size, "the batch cannot be read");
		return false;
	}
	fd = connect_any(r);
	if (fd < 0) {
		(void)snprintf(why, size, "no connection: %s", strerror(-fd));
		return false;
	}
	e = tls_link_new(r->tls, fd, false, r->config->audit.host, false, &l);
	error = e < 0 ? strerror(-e) : speak(l, fd, frames, n, until);
	if (error != NULL)
		(void)snprintf(why, size, "%s", error);
	tls_link_free(l);
	return error == NULL;
}

static void run(struct repository *r) __attribute__((noreturn));
static void run(struct repository *r)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m, answer;
	size_t n_fds;

	begin_ready();
	for (;;) {
		begin_work(IPC_AUDIT, END_AFTER_MS, &m, fds, &n_fds);
		ipc_begin(&answer, IPC_TOLD, m.h.token);
		answer.told.good = deliver(r, fds[0], answer.told.why, sizeof(answer.told.why));
		(void)close(fds[0]);
		if (ipc_send(IPC_FD, &answer, NULL, 0) < 0 || !answer.told.good)
			_exit(0);
	}
}

int main(int argc, char **argv)
{
	struct repository r = { .n = 0 };
	const char *path;
	struct err e;

	r.config = begin_helper("carzerod-audit", argc, argv, &path);
	if (secure_open(r.config, &r.tls, &e) < 0)
		fatal(FATAL_TEMPORARY, "%s: %s", path, e.text); /* a renewal may be under way */
	if (r.config->audit.host[0] == '\0' || r.tls == NULL)
		fatal(FATAL_CONFIG, "no repository in `audit`");
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (sandbox_limit(AUDIT_MEMORY, 0, AUDIT_FILES, 0, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	resolve(&r);
	if (sandbox_enter(SANDBOX_SEND, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	run(&r);
}
