/* sink.c: what a disk and a socket give at best, for ./run bench receive.
 *
 *	sink PORT FOLDER [hash]
 *
 * Takes DICOM associations and believes everything: a process for each, a file for each object, written as
 * it comes, fsynced, renamed, its folder fsynced, and then the answer.  No database, no limits, no walls: a
 * yardstick and not a receiver.  `hash`: it computes SHA-256 of each object as well.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "tools/bench/wire.h"

#define ROOM (1u << 20)

struct sink {
	int fd, dir;
	uint8_t *p; /* [ROOM]; what has come and was not looked at lies at `at`, `n` long */
	size_t at, n;
	struct digest *digest; /* NULL: no hash */
	char syntax[256][65];
	struct message m;
	int file;
	char name[64];
};

static bool want(struct sink *s, size_t n)
{
	if (s->n >= n)
		return true;
	memmove(s->p, s->p + s->at, s->n);
	s->at = 0;
	while (s->n < n) {
		ssize_t got = recv(s->fd, s->p + s->n, ROOM - s->n, 0);

		if (got <= 0)
			return false;
		s->n += (size_t)got;
	}
	return true;
}

static void eat(struct sink *s, size_t n)
{
	s->at += n;
	s->n -= n;
}

/* Every context with the first of its syntaxes. */
static bool accept_request(struct sink *s, size_t length)
{
	const uint8_t *p = s->p + s->at + 6;
	struct bytes b = { .n = 0 };
	size_t pdu = begin_pdu(&b, ASSOCIATE_AC), at, k;

	put(&b, p, 68);
	put_item(&b, 0x10, APPLICATION);
	for (at = 68; at + 4 <= length; at += 4 + ((size_t)p[at + 2] << 8 | p[at + 3])) {
		size_t end = at + 4 + ((size_t)p[at + 2] << 8 | p[at + 3]);
		unsigned id = p[at + 4];

		if (p[at] != 0x20 || end > length)
			continue;
		for (k = at + 8; k + 4 <= end && p[k] != 0x40;)
			k += 4 + ((size_t)p[k + 2] << 8 | p[k + 3]);
		if (k + 4 > end)
			continue;
		take_uid(s->syntax[id], p + k + 4, (size_t)p[k + 2] << 8 | p[k + 3]);
		put_be(&b, 0x2100, 2);
		put_be(&b, 4 + 4 + strlen(s->syntax[id]), 2);
		put_be(&b, (uint64_t)id << 24, 4);
		put_item(&b, 0x40, s->syntax[id]);
	}
	put_user(&b);
	end_pdu(&b, pdu);
	eat(s, 6 + length);
	return say_all(s->fd, b.p, b.n);
}

static bool answer(struct sink *s, unsigned context, unsigned field)
{
	struct message m = s->m;
	struct bytes b = { .n = 0 };

	m.to = m.id;
	m.field = field;
	put_command(&b, context, &m);
	return say_all(s->fd, b.p, b.n);
}

static bool begin_object(struct sink *s)
{
	static unsigned number;

	(void)snprintf(s->name, sizeof(s->name), "%u.%u.part", (unsigned)getpid(), ++number);
	s->file = openat(s->dir, s->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->digest != NULL)
		digest_reset(s->digest);
	return s->file >= 0;
}

static bool finish_object(struct sink *s)
{
	uint8_t digest[DIGEST_SIZE];
	char whole[sizeof(s->name)];
	bool good = fsync(s->file) == 0;

	if (s->digest != NULL)
		digest_final(s->digest, digest);
	good = close(s->file) == 0 && good;
	s->file = -1;
	(void)snprintf(whole, sizeof(whole), "%.*s", (int)(strlen(s->name) - strlen(".part")), s->name);
	return good && renameat(s->dir, s->name, s->dir, whole) == 0 && fsync(s->dir) == 0;
}

/* The data set's bytes of one fragment, as they come. */
static bool append(struct sink *s, size_t n)
{
	while (n > 0) {
		size_t take;

		if (s->n == 0 && !want(s, 1))
			return false;
		take = s->n < n ? s->n : n;
		if (write_full(s->file, s->p + s->at, take) < 0)
			return false;
		if (s->digest != NULL)
			digest_update(s->digest, s->p + s->at, take);
		eat(s, take);
		n -= take;
	}
	return true;
}

/* One P-DATA PDU; load puts one fragment into each. */
static bool take_data(struct sink *s, size_t length)
{
	unsigned context, control;
	size_t n;

	if (!want(s, 12))
		return false;
	n = get_be32(s->p + s->at + 6);
	context = s->p[s->at + 10];
	control = s->p[s->at + 11];
	if (n + 4 != length || n < 2)
		return false;
	n -= 2;
	eat(s, 12);
	if (control == 3) {
		if (n > ROOM || !want(s, n) || !read_command(s->p + s->at, n, &s->m))
			return false;
		eat(s, n);
		return s->m.field == C_ECHO_RQ ? answer(s, context, C_ECHO_RSP) : begin_object(s);
	}
	if (s->file < 0 || !append(s, n))
		return false;
	return control != 2 || (finish_object(s) && answer(s, context, C_STORE_RSP));
}

static void serve(struct sink *s)
{
	static const uint8_t released[10] = { RELEASE_RP, 0, 0, 0, 0, 4 };
	bool going_on = true;

	while (going_on && want(s, 6)) {
		size_t length = get_be32(s->p + s->at + 2);

		switch (s->p[s->at]) {
		case ASSOCIATE_RQ:
			going_on = length < ROOM / 2 && want(s, 6 + length) && accept_request(s, length);
			break;
		case P_DATA:
			going_on = take_data(s, length);
			break;
		case RELEASE_RQ:
			(void)say_all(s->fd, released, sizeof(released));
			going_on = false;
			break;
		default:
			going_on = false;
		}
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sink s = { .file = -1 };
	int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	uint64_t port = 0;

	if (argc < 3 || !str_to_u64(argv[1], 1, UINT16_MAX, &port)) {
		fprintf(stderr, "sink PORT FOLDER [hash]\n");
		return 2;
	}
	sa.sin_port = htons((uint16_t)port);
	s.dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (s.dir < 0 || bind(listening, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(listening, 64) < 0) {
		perror("sink");
		return 2;
	}
	(void)signal(SIGCHLD, SIG_IGN); /* nobody waits for the children */
	s.p = xcalloc(1, ROOM);
	if (argc > 3)
		s.digest = digest_new();
	for (;;) {
		s.fd = accept(listening, NULL, NULL);
		if (s.fd < 0)
			continue;
		(void)setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (fork() == 0) {
			serve(&s);
			_exit(0);
		}
		(void)close(s.fd);
	}
}
