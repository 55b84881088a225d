/* hostile.c: a client of a DICOM node that behaves well, badly, or at random.  PS3.7 and PS3.8 by hand.
 *
 *	hostile rate PORT N              N associations, one after the other, each stores one small object
 *	hostile hold PORT N              N associations at a time: how many are served, and how the rest is told
 *	hostile loris PORT HALF SLOW S   HALF connections that say nothing and SLOW that say a byte a second, from
 *	                                 other addresses, and then none, in turns for S seconds; a good client is timed
 *	hostile trickle PORT             a C-STORE in fragments of 16 bytes, four a second: when is it ended?
 *	hostile rude PORT                malformed requests and PDUs, one kind a line of TAP
 *	hostile flip PORT N SEED         N associations with bits flipped, cut off or out of order; C-ECHO after each
 *
 * Prints one line of figures, `name=value ...`, or TAP (rude).  It never reads more than an answer, and
 * every wait of its own ends.  Exit code 0: it could do what was asked, whatever the node did.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

#include "tests/tap.h"

#define PDU_MAX (1u << 20)
#define PARTS_MAX 16     /* PDUs of one association */
#define ANSWER_MS 20000  /* for any answer */
#define GOOD_HOST 0x7f000001u
#define BAD_HOSTS 0x7f010000u /* 127.1.0.0/16: strangers */
#define APPLICATION "1.2.840.10008.3.1.1.1"
#define VERIFICATION "1.2.840.10008.1.1"
#define CT_IMAGE "1.2.840.10008.5.1.4.1.1.2" /* set aside: the rate of associations, not of the decoder */
#define CR_IMAGE "1.2.840.10008.5.1.4.1.1.1"
#define IMPLICIT "1.2.840.10008.1.2"
#define SMALL_BYTES 8192 /* of pixels */

static uint16_t port;

/* ---- bytes ------------------------------------------------------------------------------------------ */

struct bytes {
	uint8_t p[PDU_MAX];
	size_t n;
};

static void put(struct bytes *b, const void *p, size_t n)
{
	if (n > sizeof(b->p) - b->n)
		abort();
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

static void put_be(struct bytes *b, uint64_t v, unsigned width)
{
	uint8_t p[8];
	unsigned i;

	for (i = 0; i < width; i++)
		p[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
	put(b, p, width);
}

static void put_le(struct bytes *b, uint64_t v, unsigned width)
{
	uint8_t p[8];
	unsigned i;

	for (i = 0; i < width; i++)
		p[i] = (uint8_t)(v >> (8 * i));
	put(b, p, width);
}

static void set_be32(struct bytes *b, size_t at, size_t v)
{
	unsigned i;

	for (i = 0; i < 4; i++)
		b->p[at + i] = (uint8_t)(v >> (8 * (3 - i)));
}

static void put_item(struct bytes *b, unsigned type, const char *text)
{
	put_be(b, type << 8, 2);
	put_be(b, strlen(text), 2);
	put(b, text, strlen(text));
}

static size_t begin_pdu(struct bytes *b, unsigned type)
{
	size_t at = b->n;

	put_be(b, type << 8, 2);
	put_be(b, 0, 4);
	return at;
}

static void end_pdu(struct bytes *b, size_t at)
{
	set_be32(b, at + 2, b->n - at - 6);
}

static void put_context(struct bytes *b, unsigned id, const char *abstract)
{
	put_be(b, 0x2000, 2);
	put_be(b, 4 + 4 + strlen(abstract) + 4 + strlen(IMPLICIT), 2);
	put_be(b, (uint64_t)id << 24, 4);
	put_item(b, 0x30, abstract);
	put_item(b, 0x40, IMPLICIT);
}

static void put_request(struct bytes *b, unsigned contexts)
{
	size_t at = begin_pdu(b, 1);
	char titles[33];
	unsigned i;

	put_be(b, 0x00010000, 4);
	(void)snprintf(titles, sizeof(titles), "%-16s%-16s", "CARZEROD", "HOSTILE");
	put(b, titles, 32);
	for (i = 0; i < 4; i++)
		put_be(b, 0, 8);
	put_item(b, 0x10, APPLICATION);
	put_context(b, 1, VERIFICATION);
	put_context(b, 3, CT_IMAGE);
	put_context(b, 5, CR_IMAGE);
	for (i = 3; i < contexts; i++)
		put_context(b, (2 * i + 1) & 0xff, CT_IMAGE);
	put_be(b, 0x50000008, 4);
	put_be(b, 0x51000004, 4);
	put_be(b, 16384, 4);
	end_pdu(b, at);
}

static void put_text(struct bytes *b, uint32_t tag, const char *text)
{
	size_t n = strlen(text);

	put_le(b, tag >> 16, 2);
	put_le(b, tag & 0xffff, 2);
	put_le(b, (n + 1) & ~(size_t)1, 4);
	put(b, text, n);
	if (n % 2 != 0)
		put(b, "\0", 1);
}

static void put_short(struct bytes *b, uint32_t tag, unsigned v)
{
	put_le(b, tag >> 16, 2);
	put_le(b, tag & 0xffff, 2);
	put_le(b, 2, 4);
	put_le(b, v, 2);
}

/* A P-DATA with one fragment around what `body` appends. */
static void put_fragment(struct bytes *b, unsigned context, unsigned flags, const struct bytes *body)
{
	put_be(b, 0x0400, 2);
	put_be(b, body->n + 6, 4);
	put_be(b, body->n + 2, 4);
	put_be(b, context << 8 | flags, 2);
	put(b, body->p, body->n);
}

static void put_command(struct bytes *b, unsigned context, unsigned field, const char *sop_class, const char *sop_uid)
{
	struct bytes *c = xcalloc(1, sizeof(*c));
	size_t group_at;

	put_le(c, 0, 4);
	put_le(c, 4, 4);
	group_at = c->n;
	put_le(c, 0, 4);
	put_text(c, 0x00000002, sop_class);
	put_short(c, 0x00000100, field);
	put_short(c, 0x00000110, 7);
	put_short(c, 0x00000700, 0);
	put_short(c, 0x00000800, sop_uid != NULL ? 0 : 0x0101);
	if (sop_uid != NULL)
		put_text(c, 0x00001000, sop_uid);
	c->p[group_at] = (uint8_t)(c->n - group_at - 4);
	put_fragment(b, context, 3, c);
	free(c);
}

static void put_data_set(struct bytes *b, unsigned context, const char *sop_class, const char *sop_uid, size_t pixels)
{
	struct bytes *d = xcalloc(1, sizeof(*d));
	char study[80];

	put_text(d, 0x00080016, sop_class);
	put_text(d, 0x00080018, sop_uid);
	(void)snprintf(study, sizeof(study), "%s.1", sop_uid);
	put_text(d, 0x0020000d, study);
	(void)snprintf(study, sizeof(study), "%s.2", sop_uid);
	put_text(d, 0x0020000e, study);
	put_le(d, 0x7fe0, 2);
	put_le(d, 0x0010, 2);
	put_le(d, pixels, 4);
	while (pixels >= 8) {
		put_le(d, pixels * 0x9e3779b97f4a7c15u, 8);
		pixels -= 8;
	}
	put_fragment(b, context, 2, d);
	free(d);
}

static void put_release(struct bytes *b)
{
	size_t at = begin_pdu(b, 5);

	put_be(b, 0, 4);
	end_pdu(b, at);
}

static void new_uid(char ret[65])
{
	static unsigned long n;
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)snprintf(ret, 65, "1.2.826.0.1.9.%lld.%ld.%ld.%lu", (long long)ts.tv_sec, ts.tv_nsec, (long)getpid(), ++n);
}

/* ---- connections -------------------------------------------------------------------------------------- */

static double now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static int dial(uint32_t from)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	sa.sin_addr.s_addr = htonl(from);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sa.sin_port = htons(port);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static bool say(int fd, const struct bytes *b)
{
	size_t done = 0;

	while (done < b->n) {
		ssize_t n = send(fd, b->p + done, b->n - done, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool hear_bytes(int fd, uint8_t *p, size_t n)
{
	while (n > 0) {
		struct pollfd w = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (poll(&w, 1, ANSWER_MS) <= 0)
			return false;
		got = recv(fd, p, n, 0);
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

/* The next PDU; its type, 0 when the connection ended. */
static int hear(int fd, struct bytes *ret)
{
	uint32_t n;

	ret->n = 0;
	if (!hear_bytes(fd, ret->p, 6))
		return 0;
	n = (uint32_t)ret->p[2] << 24 | (uint32_t)ret->p[3] << 16 | (uint32_t)ret->p[4] << 8 | ret->p[5];
	if (n > sizeof(ret->p) - 6 || !hear_bytes(fd, ret->p + 6, n))
		return 0;
	ret->n = n + 6;
	return ret->p[0];
}

/* Until the node closes, or ANSWER_MS without a byte. */
static bool hear_the_end(int fd)
{
	char p[4096];
	struct pollfd w = { .fd = fd, .events = POLLIN };
	ssize_t n;

	do {
		if (poll(&w, 1, ANSWER_MS) <= 0)
			return false;
		n = recv(fd, p, sizeof(p), 0);
	} while (n > 0);
	return true;
}

/* One whole, good association.  C-ECHO, or a C-STORE of a small object of this class. */
static bool good(uint32_t from, const char *sop_class)
{
	struct bytes *b = xcalloc(1, sizeof(*b));
	bool done = false;
	char uid[65];
	int fd = dial(from);

	if (fd >= 0) {
		put_request(b, 3);
		if (say(fd, b) && hear(fd, b) == 2) {
			b->n = 0;
			if (sop_class == NULL)
				put_command(b, 1, 0x30, VERIFICATION, NULL);
			else {
				new_uid(uid);
				put_command(b, sop_class[strlen(sop_class) - 1] == '2' ? 3 : 5, 1, sop_class, uid);
				put_data_set(b, sop_class[strlen(sop_class) - 1] == '2' ? 3 : 5, sop_class, uid, SMALL_BYTES);
			}
			done = say(fd, b) && hear(fd, b) == 4;
			/* the answer's Status (0000,0900) is 0000 */
			done = done && memmem(b->p, b->n, "\0\0\0\x09\x02\0\0\0\0\0", 10) != NULL;
			b->n = 0;
			put_release(b);
			done = done && say(fd, b) && hear(fd, b) == 6;
		}
		(void)close(fd);
	}
	free(b);
	return done;
}

/* ---- well-behaved: rate, hold ----------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct times {
	double *ms;
	size_t n, room;
	unsigned failed;
};

static void add_time(struct times *t, double ms)
{
	if (t->n == t->room) {
		t->room = t->room != 0 ? 2 * t->room : 1024;
		t->ms = xreallocarray(t->ms, t->room, sizeof(*t->ms));
	}
	t->ms[t->n++] = ms;
}

static double percentile(struct times *t, double share)
{
	if (t->n == 0)
		return -1;
	qsort(t->ms, t->n, sizeof(*t->ms), by_size);
	return t->ms[(size_t)((double)(t->n - 1) * share)];
}

static void one_good(struct times *t, const char *sop_class)
{
	double start = now_ms();

	if (good(GOOD_HOST, sop_class))
		add_time(t, now_ms() - start);
	else
		t->failed++;
}

static int rate(unsigned n)
{
	struct times t = { 0 };
	double start = now_ms(), took;
	unsigned i;

	for (i = 0; i < n; i++)
		one_good(&t, CT_IMAGE);
	took = now_ms() - start;
	printf("associations=%u failed=%u per_second=%.0f p50_ms=%.2f p99_ms=%.2f\n", n, t.failed, n / took * 1e3,
	       percentile(&t, 0.5), percentile(&t, 0.99));
	free(t.ms);
	return 0;
}

static int hold(unsigned n)
{
	struct bytes *b = xcalloc(1, sizeof(*b));
	int *fd = xcalloc(n, sizeof(*fd));
	unsigned served = 0, transient = 0, other = 0, i;

	for (i = 0; i < n; i++) {
		b->n = 0;
		put_request(b, 3);
		fd[i] = dial(BAD_HOSTS + 1 + i / 8); /* eight a host, below the limit per host */
		switch (fd[i] >= 0 && say(fd[i], b) ? hear(fd[i], b) : 0) {
		case 2:
			served++;
			break;
		case 3: /* result 2: transient, source 3: provider, presentation; reason 1 or 2 */
			if (b->p[7] == 2 && b->p[8] == 3 && (b->p[9] == 1 || b->p[9] == 2))
				transient++;
			else
				other++;
			break;
		default:
			other++;
		}
	}
	printf("served=%u refused_for_now=%u otherwise=%u\n", served, transient, other);
	for (i = 0; i < n; i++)
		(void)close(fd[i]);
	free(fd);
	free(b);
	return 0;
}

/* ---- slow ------------------------------------------------------------------------------------------------- */

struct slow {
	int fd;
	size_t said;
	double next; /* ms */
};

static void attack(unsigned half, unsigned slow, double until) __attribute__((noreturn));
static void attack(unsigned half, unsigned slow, double until)
{
	struct slow *s = xcalloc(half + slow, sizeof(*s));
	struct pollfd *w = xcalloc(half + slow, sizeof(*w));
	struct bytes *b = xcalloc(1, sizeof(*b));
	unsigned i;

	put_request(b, 3);
	for (i = 0; i < half + slow; i++)
		s[i].fd = -1;
	while (now_ms() < until) {
		double now = now_ms();

		for (i = 0; i < half + slow; i++) {
			if (s[i].fd < 0 && now >= s[i].next) { /* closed by the node: again, after a second */
				s[i].fd = dial(BAD_HOSTS + 1 + i % 40);
				s[i].said = 0;
				s[i].next = now + 1000;
			}
			if (s[i].fd >= 0 && i >= half && now >= s[i].next && s[i].said < b->n) {
				(void)!send(s[i].fd, b->p + s[i].said++, 1, MSG_NOSIGNAL);
				s[i].next = now + 1000;
			}
			w[i] = (struct pollfd){ .fd = s[i].fd, .events = POLLIN };
		}
		(void)poll(w, half + slow, 50);
		for (i = 0; i < half + slow; i++) {
			if (w[i].revents == 0)
				continue;
			(void)close(s[i].fd); /* whatever it says: we are told off */
			s[i].fd = -1;
			s[i].next = now + 1000;
		}
	}
	_exit(0);
}

/* In turns, so that what else the machine does falls on both. */
static int loris(unsigned half, unsigned slow, unsigned seconds)
{
	struct times idle = { 0 }, under = { 0 };
	double end = now_ms() + 1000.0 * seconds, until;

	while (now_ms() < end) {
		pid_t pid;

		for (until = now_ms() + 2000; now_ms() < until;)
			one_good(&idle, CT_IMAGE);
		pid = fork();
		if (pid == 0)
			attack(half, slow, now_ms() + 10000);
		(void)usleep(1000000);
		for (until = now_ms() + 2000; now_ms() < until;)
			one_good(&under, CT_IMAGE);
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		(void)usleep(500000);
	}
	printf("idle=%zu idle_failed=%u idle_p50_ms=%.2f idle_p99_ms=%.2f "
	       "attacked=%zu attacked_failed=%u attacked_p50_ms=%.2f attacked_p99_ms=%.2f\n",
	       idle.n, idle.failed, percentile(&idle, 0.5), percentile(&idle, 0.99), under.n, under.failed,
	       percentile(&under, 0.5), percentile(&under, 0.99));
	free(idle.ms);
	free(under.ms);
	return 0;
}

/* A request, a command, and then a data set in fragments of 16 bytes, four a second. */
static int trickle(void)
{
	struct bytes *b = xcalloc(1, sizeof(*b)), *d = xcalloc(1, sizeof(*d));
	double start;
	char uid[65];
	size_t said = 0;
	int fd = dial(GOOD_HOST);

	new_uid(uid);
	put_request(b, 3);
	if (fd < 0 || !say(fd, b) || hear(fd, b) != 2) {
		puts("not served");
		return 1;
	}
	b->n = 0;
	put_command(b, 3, 1, CT_IMAGE, uid);
	start = now_ms();
	if (!say(fd, b))
		return 1;
	put(d, "sixteen bytes...", 16);
	while (now_ms() - start < 300000) {
		struct pollfd w = { .fd = fd, .events = POLLIN };

		b->n = 0;
		put_fragment(b, 3, 0, d);
		if (!say(fd, b))
			break;
		said += 16;
		if (poll(&w, 1, 250) > 0)
			break;
	}
	printf("ended_after_s=%.1f bytes=%zu\n", (now_ms() - start) / 1e3, said);
	(void)close(fd);
	free(b);
	free(d);
	return 0;
}

/* ---- rude --------------------------------------------------------------------------------------------------- */

static void served_afterwards(const char *what)
{
	ok(good(GOOD_HOST, NULL), "%s: then a good peer is served", what);
}

/* Says `b` and wants the connection closed, with any answer or none. */
static void closed_after(const char *what, const struct bytes *b, bool established)
{
	struct bytes *t = xcalloc(1, sizeof(*t));
	int fd = dial(GOOD_HOST);
	bool begun = fd >= 0;

	if (begun && established) {
		put_request(t, 3);
		begun = say(fd, t) && hear(fd, t) == 2;
	}
	ok(begun, "%s: connected", what);
	(void)say(fd, b); /* the node may close while we speak */
	ok(hear_the_end(fd), "%s: closed", what);
	(void)close(fd);
	free(t);
	served_afterwards(what);
}

static int answer_to(const struct bytes *b, struct bytes *ret)
{
	int fd = dial(GOOD_HOST), type = fd >= 0 && say(fd, b) ? hear(fd, ret) : 0;

	(void)close(fd);
	return type;
}

static void fill(struct bytes *b, size_t n, unsigned seed)
{
	while (n-- > 0) {
		seed = seed * 1664525 + 1013904223;
		put_be(b, seed >> 24, 1);
	}
}

static int rude(void)
{
	struct bytes *b = xcalloc(1, sizeof(*b)), *t = xcalloc(1, sizeof(*t));
	size_t at;
	unsigned i;

	put_request(b, 128);
	is_int(answer_to(b, t), 2, "128 presentation contexts: accepted");
	b->n = 0;
	put_request(b, 129);
	i = (unsigned)answer_to(b, t);
	ok(i == 0 || i == 2 || i == 3 || i == 7, "129: any answer but a crash (PDU type %u)", i);
	served_afterwards("129 contexts");

	b->n = 0;
	put_request(b, 3);
	set_be32(b, 2, 0xffffffff);
	closed_after("a request of 4 GiB", b, false);
	set_be32(b, 2, 2u << 20);
	closed_after("a request of 2 MiB", b, false);
	b->n = 0;
	put_request(b, 3);
	b->n /= 2;
	put_be(b, 0, 8);
	closed_after("a request whose second half is missing", b, false);
	b->n = 0;
	put_request(b, 3);
	b->p[74 + 2] = 0xff; /* length of the first item */
	closed_after("an item that is longer than its PDU", b, false);

	b->n = 0;
	fill(b, 100000, 1);
	closed_after("100 kB of noise", b, false);
	closed_after("noise in an association", b, true);
	b->n = 0;
	put(b, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
	closed_after("HTTP", b, false);
	b->n = 0;
	put_be(b, 0x0400, 2);
	put_be(b, 0x7fffffff, 4);
	fill(b, 4096, 2);
	closed_after("P-DATA of 2 GiB", b, true);
	b->n = 0;
	put_be(b, 0x0400, 2);
	put_be(b, 200000, 4);
	put_be(b, 199996, 4);
	put_be(b, 0x0303, 2);
	fill(b, 199994, 3);
	closed_after("P-DATA beyond the maximum that we announced", b, true);
	b->n = 0;
	put_be(b, 0x0400, 2);
	put_be(b, 10, 4);
	put_be(b, 0xfffffff0, 4);
	put_be(b, 0x0303, 2);
	put_be(b, 0, 4);
	closed_after("a fragment of 4 GiB in a PDU of 10 bytes", b, true);
	b->n = 0;
	t->n = 0;
	put_be(t, 0, 8);
	put_fragment(b, 99, 3, t);
	closed_after("a context that was never proposed", b, true);
	b->n = 0;
	put_fragment(b, 3, 2, t);
	closed_after("a data set without a command", b, true);
	b->n = 0;
	t->n = 0;
	fill(t, 12000, 4);
	for (i = 0; i < 40; i++)
		put_fragment(b, 3, 1, t);
	closed_after("a command that never ends", b, true);
	b->n = 0;
	put_command(b, 3, 0x20, CT_IMAGE, NULL);
	closed_after("C-FIND", b, true);
	b->n = 0;
	put_request(b, 3);
	closed_after("a second request", b, true);
	b->n = 0;
	at = begin_pdu(b, 0x3f);
	put_be(b, 0, 4);
	end_pdu(b, at);
	closed_after("a PDU of no known type", b, true);
	b->n = 0;
	at = begin_pdu(b, 7);
	put_be(b, 0, 4);
	end_pdu(b, at);
	closed_after("A-ABORT instead of a request", b, false);
	free(b);
	free(t);
	return done();
}

/* ---- flipped bits ------------------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t chance(uint32_t below)
{
	random_state ^= random_state << 13; /* Marsaglia's xorshift64 */
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % below;
}

/* The PDUs of one association: request, C-ECHO, C-STORE, data set in three fragments, release. */
static size_t record(struct bytes *parts)
{
	struct bytes *d = xcalloc(1, sizeof(*d));
	char uid[65];
	size_t n = 0, i, third;

	for (i = 0; i < PARTS_MAX; i++)
		parts[i].n = 0;
	new_uid(uid);
	put_request(&parts[n++], 3);
	put_command(&parts[n++], 1, 0x30, VERIFICATION, NULL);
	put_command(&parts[n++], 5, 1, CR_IMAGE, uid);
	put_data_set(&parts[n], 5, CR_IMAGE, uid, 2048);
	third = (parts[n].n - 12) / 3;
	put(d, parts[n].p + 12, parts[n].n - 12);
	parts[n].n = 0;
	for (i = 0; i < 3; i++) {
		struct bytes *f = xcalloc(1, sizeof(*f));

		put(f, d->p + i * third, i == 2 ? d->n - 2 * third : third);
		put_fragment(&parts[n++], 5, i == 2 ? 2 : 0, f);
		free(f);
	}
	put_release(&parts[n++]);
	free(d);
	return n;
}

static void spoil(struct bytes *parts, size_t *n)
{
	unsigned how = chance(10), flips = 1 + chance(8);
	size_t i = chance((uint32_t)*n), j = chance((uint32_t)*n);
	struct bytes *whole;

	if (how < 7) {
		while (flips-- > 0) {
			struct bytes *b = &parts[chance(2) != 0 ? i : chance((uint32_t)*n)];
			/* heads and commands matter more than pixels */
			size_t at = chance((uint32_t)(b->n > 64 && chance(3) != 0 ? 64 : b->n));

			b->p[at] ^= (uint8_t)(1u << chance(8));
		}
	} else if (how == 7) {
		parts[i].n = chance((uint32_t)parts[i].n);
		*n = i + 1;
	} else if (how == 8 && i != j) {
		whole = xcalloc(1, sizeof(*whole));
		put(whole, parts[i].p, parts[i].n);
		parts[i].n = 0;
		put(&parts[i], parts[j].p, parts[j].n);
		parts[j].n = 0;
		put(&parts[j], whole->p, whole->n);
		free(whole);
	} else if (*n < PARTS_MAX) { /* one twice */
		parts[*n].n = 0;
		put(&parts[*n], parts[i].p, parts[i].n);
		++*n;
	}
}

static int flip(unsigned cases, uint64_t seed)
{
	struct bytes *parts = xcalloc(PARTS_MAX, sizeof(*parts));
	unsigned i, bad_echoes = 0, no_connection = 0;
	double start = now_ms();

	random_state = seed * 0x9e3779b97f4a7c15u + 1;
	for (i = 0; i < cases; i++) {
		size_t n = record(parts), k;
		char drain[4096];
		int fd;

		spoil(parts, &n);
		fd = dial(GOOD_HOST);
		if (fd < 0) {
			no_connection++;
			continue;
		}
		for (k = 0; k < n && say(fd, &parts[k]); k++) {
			struct pollfd w = { .fd = fd, .events = POLLIN };

			if (poll(&w, 1, 0) > 0)
				(void)!recv(fd, drain, sizeof(drain), MSG_DONTWAIT);
		}
		(void)shutdown(fd, SHUT_WR); /* it has no more to wait for */
		(void)hear_the_end(fd);
		(void)close(fd);
		if (!good(GOOD_HOST, NULL)) {
			bad_echoes++;
			printf("# case %u of seed %" PRIu64 ": the C-ECHO after it fails\n", i, seed);
		}
	}
	printf("cases=%u seed=%" PRIu64 " no_connection=%u bad_echoes=%u seconds=%.0f\n", cases, seed, no_connection,
	       bad_echoes, (now_ms() - start) / 1e3);
	free(parts);
	return 0;
}

/* ---- command line -------------------------------------------------------------------------------------------- */

static uint64_t number(char **argv, int argc, int i, uint64_t max)
{
	uint64_t v = 0;

	if (i >= argc || !str_to_u64(argv[i], 0, max, &v)) {
		fputs("usage: see the head of hostile.c\n", stderr);
		exit(64);
	}
	return v;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	(void)signal(SIGPIPE, SIG_IGN);
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	port = (uint16_t)number(argv, argc, 2, 65535);
	if (strcmp(what, "rate") == 0)
		return rate((unsigned)number(argv, argc, 3, 1000000));
	if (strcmp(what, "hold") == 0)
		return hold((unsigned)number(argv, argc, 3, 10000));
	if (strcmp(what, "loris") == 0)
		return loris((unsigned)number(argv, argc, 3, 10000), (unsigned)number(argv, argc, 4, 10000),
			     (unsigned)number(argv, argc, 5, 3600));
	if (strcmp(what, "trickle") == 0)
		return trickle();
	if (strcmp(what, "rude") == 0)
		return rude();
	if (strcmp(what, "flip") == 0)
		return flip((unsigned)number(argv, argc, 3, 10000000), number(argv, argc, 4, UINT64_MAX));
	return (int)number(argv, argc, argc, 0);
}
