/* load.c: a sender that waits for nothing but answers, for ./run bench receive.
 *
 *	load store PORT AE AT_A_TIME N FILE   N objects over AT_A_TIME associations
 *	load assoc PORT AE AT_A_TIME N FILE   N associations, AT_A_TIME at a time, each with one object
 *	load echo PORT AE N                   N C-ECHOs on one association
 *
 * FILE is one Part 10 object; each time that it is sent its Study and SOP Instance UIDs are others.  Prints
 * `per_second=.. p50_ms=.. p95_ms=.. failed=.. last_ms=..`, the last being the moment (wall clock) of the last answer; exit code 1
 * when anything failed.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include "dicom/scp.h"
#include "dicom/spooled.h"

#include "tools/bench/wire.h"

#define ANSWER_SECONDS 60
#define COUNTER_DIGITS 10

struct sender {
	int fd;
	const char *ae;
	struct spooled head;
	uint8_t *data;        /* of the object: this process's own */
	size_t n;
	char *sop, *study;    /* UIDs inside `data`; their last digits are ours */
	struct iovec *part;
	uint8_t (*pdv)[12];   /* heads of its PDUs */
	size_t n_parts, pdu;
};

static uint16_t port;

static double now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static double wall_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static bool hear_all(int fd, void *p, size_t n)
{
	uint8_t *at = p;

	while (n > 0) {
		ssize_t got = recv(fd, at, n, MSG_WAITALL);

		if (got <= 0)
			return false;
		at += got;
		n -= (size_t)got;
	}
	return true;
}

/* One PDU; false: none, or a larger one than any answer is. */
static bool hear(int fd, struct bytes *b)
{
	if (!hear_all(fd, b->p, 6))
		return false;
	b->n = get_be32(b->p + 2);
	if (b->n > sizeof(b->p) - 6 || !hear_all(fd, b->p + 6, b->n))
		return false;
	b->n += 6;
	return true;
}

/* A whole command, in however many PDUs a peer likes to give it (DCMTK: one, Orthanc: one). */
static bool hear_answer(int fd, unsigned field)
{
	struct bytes b = { .n = 0 };
	struct message m;

	return hear(fd, &b) && b.p[0] == P_DATA && b.n > 12 && b.p[11] == 3 && read_command(b.p + 12, b.n - 12, &m) &&
	       m.field == field && m.status == 0;
}

static int dial(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		die("socket");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static void put_context(struct bytes *b, unsigned id, const char *abstract, const char *syntax)
{
	put_be(b, 0x2000, 2);
	put_be(b, 4 + 4 + strlen(abstract) + 4 + strlen(syntax), 2);
	put_be(b, (uint64_t)id << 24, 4);
	put_item(b, 0x30, abstract);
	put_item(b, 0x40, syntax);
}

/* The largest PDU of the peer, out of the user information at the end of its acceptance; 0: refused. */
static size_t pdu_of(const struct bytes *b)
{
	size_t at = 6 + 68;

	while (at + 4 <= b->n && b->p[at] != 0x50)
		at += 4 + ((size_t)b->p[at + 2] << 8 | b->p[at + 3]);
	for (at += 4; at + 8 <= b->n; at += 4 + ((size_t)b->p[at + 2] << 8 | b->p[at + 3])) {
		if (b->p[at] == 0x51) {
			size_t n = get_be32(b->p + at + 4);

			return n == 0 || n > PDU_BYTES ? PDU_BYTES : n;
		}
	}
	return 0;
}

/* Context 1 is Verification, 3 the object's. */
static bool associate(struct sender *s)
{
	struct bytes b = { .n = 0 };
	size_t at = begin_pdu(&b, ASSOCIATE_RQ);
	char titles[40];

	put_be(&b, 0x00010000, 4);
	(void)snprintf(titles, sizeof(titles), "%-16.16s%-16s", s->ae, "LOAD");
	put(&b, titles, 32);
	for (unsigned i = 0; i < 4; i++)
		put_be(&b, 0, 8);
	put_item(&b, 0x10, APPLICATION);
	put_context(&b, 1, VERIFICATION, IMPLICIT);
	if (s->n > 0)
		put_context(&b, 3, s->head.sop_class, s->head.syntax);
	put_user(&b);
	end_pdu(&b, at);
	s->fd = dial();
	if (s->fd >= 0 && say_all(s->fd, b.p, b.n) && hear(s->fd, &b) && b.p[0] == ASSOCIATE_AC)
		s->pdu = pdu_of(&b);
	else
		s->pdu = 0;
	return s->pdu > 0;
}

static bool release(struct sender *s)
{
	static const uint8_t request[10] = { RELEASE_RQ, 0, 0, 0, 0, 4 };
	struct bytes b = { .n = 0 };

	return say_all(s->fd, request, sizeof(request)) && hear(s->fd, &b) && b.p[0] == RELEASE_RP;
}

static void hang_up(struct sender *s)
{
	if (s->fd >= 0)
		(void)close(s->fd);
	s->fd = -1;
}

/* The data set as PDUs of the size that the peer takes. */
static void cut(struct sender *s)
{
	size_t room = (s->pdu - 6) & ~(size_t)1, n = (s->n + room - 1) / room, i;

	s->part = xreallocarray(s->part, 2 * n, sizeof(*s->part));
	s->pdv = xreallocarray(s->pdv, n, sizeof(*s->pdv));
	s->n_parts = 2 * n;
	for (i = 0; i < n; i++) {
		size_t length = i + 1 < n ? room : s->n - i * room;
		uint8_t *h = s->pdv[i];

		memset(h, 0, sizeof(*s->pdv));
		h[0] = P_DATA;
		set_be32(h + 2, length + 6);
		set_be32(h + 6, length + 2);
		h[10] = 3;
		h[11] = i + 1 < n ? 0 : 2;
		s->part[2 * i] = (struct iovec){ h, sizeof(*s->pdv) };
		s->part[2 * i + 1] = (struct iovec){ s->data + i * room, length };
	}
}

/* Parts that went out only in part are sent to their end by themselves. */
static bool say_parts(const struct sender *s)
{
	size_t i = 0;

	while (i < s->n_parts) {
		size_t n = s->n_parts - i < 64 ? s->n_parts - i : 64, k;
		ssize_t put_n = writev(s->fd, s->part + i, (int)n);

		if (put_n < 0)
			return false;
		for (k = i + n; i < k && (size_t)put_n >= s->part[i].iov_len; i++)
			put_n -= (ssize_t)s->part[i].iov_len;
		if (i < k) {
			if (!say_all(s->fd, (uint8_t *)s->part[i].iov_base + put_n, s->part[i].iov_len - (size_t)put_n))
				return false;
			i++;
		}
	}
	return true;
}

static bool store(struct sender *s, uint64_t counter)
{
	struct message m = { .field = C_STORE_RQ, .id = (unsigned)(counter % 60000 + 1) };
	char digits[COUNTER_DIGITS + 1];
	struct bytes b = { .n = 0 };

	(void)snprintf(digits, sizeof(digits), "%0*llu", COUNTER_DIGITS, (unsigned long long)(counter % 9999999999u));
	memcpy(s->sop + strlen(s->head.sop_uid) - COUNTER_DIGITS, digits, COUNTER_DIGITS);
	if (s->study != NULL)
		memcpy(s->study, digits, COUNTER_DIGITS);
	(void)str_copy(m.sop_class, sizeof(m.sop_class), s->head.sop_class);
	take_uid(m.sop_uid, (const uint8_t *)s->sop, strlen(s->head.sop_uid));
	put_command(&b, 3, &m);
	return say_all(s->fd, b.p, b.n) && say_parts(s) && hear_answer(s->fd, C_STORE_RSP);
}

static bool echo(struct sender *s)
{
	struct message m = { .field = C_ECHO_RQ, .id = 1, .sop_class = VERIFICATION };
	struct bytes b = { .n = 0 };

	put_command(&b, 1, &m);
	return say_all(s->fd, b.p, b.n) && hear_answer(s->fd, C_ECHO_RSP);
}

/* (0020,000D) in explicit VR little endian, which is what tools/phantom writes. */
static char *find_study(const struct sender *s)
{
	static const uint8_t head[] = { 0x20, 0, 0x0d, 0, 'U', 'I' };
	uint8_t *p = memmem(s->data, s->n, head, sizeof(head));
	size_t n;

	if (p == NULL)
		return NULL;
	n = p[6] | (size_t)p[7] << 8;
	while (n > 0 && p[8 + n - 1] == '\0')
		n--;
	return n > COUNTER_DIGITS ? (char *)p + 8 + n - COUNTER_DIGITS : NULL;
}

static void load_file(struct sender *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *all;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	all = xcalloc(1, (size_t)st.st_size);
	if (read(fd, all, (size_t)st.st_size) != st.st_size || part10_head(all, (size_t)st.st_size, &s->head) < 0 ||
	    s->head.offset >= (uint64_t)st.st_size || strlen(s->head.sop_uid) <= COUNTER_DIGITS) {
		fprintf(stderr, "%s: no Part 10 file\n", path);
		exit(2);
	}
	(void)close(fd);
	s->data = all + s->head.offset;
	s->n = (size_t)st.st_size - s->head.offset;
	s->sop = memmem(s->data, s->n, s->head.sop_uid, strlen(s->head.sop_uid));
	s->study = find_study(s);
	if (s->sop == NULL) {
		fprintf(stderr, "%s: its data set lacks its SOP Instance UID\n", path);
		exit(2);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* One of those at a time; times in ms go to `ret`, negative: failed. */
static void work(struct sender *s, const char *what, size_t n, uint64_t counter, double *ret, double *ret_last)
{
	bool each = strcmp(what, "assoc") == 0, good = true;
	size_t i;

	for (i = 0; i < n; i++) {
		double from = now_ms();

		if (each || i == 0) {
			good = associate(s);
			if (good && s->n > 0 && (i == 0 || s->n_parts == 0))
				cut(s);
			if (!each)
				from = now_ms();
		}
		good = good && (strcmp(what, "echo") == 0 ? echo(s) : store(s, counter + i));
		*ret_last = wall_ms();
		if (each) {
			good = good && release(s);
			hang_up(s);
		}
		ret[i] = good ? now_ms() - from : -1;
	}
	if (!each && s->fd >= 0)
		(void)release(s);
	hang_up(s);
}

int main(int argc, char **argv)
{
	struct sender s = { .fd = -1 };
	bool is_echo = argc == 5 && strcmp(argv[1], "echo") == 0;
	size_t at_a_time, n, i, failed = 0;
	uint64_t counter, number = 0, in_all = 0, together = 1;
	struct timespec ts;
	double *took, from;

	if ((!is_echo && argc != 7) || !str_to_u64(argv[2], 1, UINT16_MAX, &number) ||
	    !str_to_u64(argv[is_echo ? 4 : 5], 1, 1000000, &in_all) || (!is_echo && !str_to_u64(argv[4], 1, 256, &together))) {
		fprintf(stderr, "load store|assoc PORT AE AT_A_TIME N FILE, load echo PORT AE N\n");
		return 2;
	}
	port = (uint16_t)number;
	s.ae = argv[3];
	at_a_time = (size_t)together;
	n = (size_t)in_all / at_a_time * at_a_time;
	if (!is_echo)
		load_file(&s, argv[6]);
	if (n == 0)
		return 2;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	counter = (uint64_t)ts.tv_sec * 100000 + (uint64_t)ts.tv_nsec / 10000; /* ever others */
	took = mmap(NULL, (n + 1) * sizeof(*took), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (took == MAP_FAILED)
		die("mmap");
	from = now_ms();
	for (i = 0; i < at_a_time; i++) {
		if (at_a_time > 1 && fork() != 0)
			continue;
		work(&s, argv[1], n / at_a_time, counter + i * n, took + i * (n / at_a_time), took + n);
		if (at_a_time > 1)
			_exit(0);
	}
	while (wait(NULL) > 0)
		;
	from = now_ms() - from;
	qsort(took, n, sizeof(*took), by_size);
	while (failed < n && took[failed] < 0)
		failed++;
	printf("per_second=%.1f p50_ms=%.3f p95_ms=%.3f failed=%zu last_ms=%.1f\n", (double)(n - failed) / from * 1e3, took[n / 2],
	       took[(n - 1) * 95 / 100], failed, took[n]);
	return failed > 0;
}
