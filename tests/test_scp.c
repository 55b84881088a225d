/* test_scp.c: real associations over loopback against dicom_scp_serve().
 *
 * A server process serves a known number of connections one after the other and reports each through
 * a pipe: how it ended, what the operations were asked, how long it took, how many descriptors were
 * open before and after.  Peers are the programs of the package dcmtk (echoscu, storescu, dcmsend)
 * and hand-made bytes, well-formed or hostile.  After every hostile peer an ordinary C-STORE must
 * work in the same process.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/command.h"
#include "dicom/dicom.h"
#include "dicom/scp.h"

#include "tests/tap.h"

#define CR "1.2.840.10008.5.1.4.1.1.1"
#define CT "1.2.840.10008.5.1.4.1.1.2"
#define VERIFICATION "1.2.840.10008.1.1"
#define APPLICATION_CONTEXT "1.2.840.10008.3.1.1.1"
#define IMPLICIT "1.2.840.10008.1.2"
#define EXPLICIT "1.2.840.10008.1.2.1"
#define UID "1.2.826.0.1.1"

enum trick { NO_TRICK, CREATE_REFUSES, CREATE_FULL_DEVICE, STORED_REFUSES, ADMIT_REJECTS, SMALL_FILES };

/* What the server says of one connection. */
struct report {
	int r;
	struct scp_result result;
	unsigned created, stored, abandoned;
	struct scp_object object; /* the last one stored */
	struct scp_association association;
	int fds_more;             /* open after, less open before */
	int64_t ms;
};

static char dir[] = "/tmp/test_scp.XXXXXX";
static int dir_fd = -1;
static struct report report; /* the server's own, then the last one received */
static enum trick trick;
static uint64_t next_id;
static uint16_t port;
static int pipe_fd = -1;
static pid_t server;

static const struct scp_policy ordinary = {
	.ae_title = "CARZEROD", .pdu_bytes = 16384, .object_bytes = 1 << 20, .objects = 100,
	.request_seconds = 1, .idle_seconds = 1, .association_seconds = 20,
};

/* ---- the server ------------------------------------------------------------------------------- */

static void admit(void *arg, const struct scp_association *a, struct scp_reject *ret)
{
	(void)arg;
	report.association = *a;
	if (trick == ADMIT_REJECTS)
		*ret = (struct scp_reject){ 1, 1, 3 };
}

static uint16_t create(void *arg, uint64_t *ret_id, int *ret_fd)
{
	char name[32];

	(void)arg;
	if (trick == CREATE_REFUSES)
		return 0xa701;
	*ret_id = ++next_id;
	(void)snprintf(name, sizeof(name), "in.%llu", (unsigned long long)*ret_id);
	if (trick == CREATE_FULL_DEVICE)
		*ret_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	else
		*ret_fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	report.created++;
	return *ret_fd < 0 ? 0xa700 : 0;
}

static uint16_t stored(void *arg, const struct scp_object *o)
{
	char from[32], to[32];

	(void)arg;
	report.object = *o;
	report.stored++;
	(void)snprintf(from, sizeof(from), "in.%llu", (unsigned long long)o->id);
	(void)snprintf(to, sizeof(to), "object.%llu", (unsigned long long)o->id);
	if (trick == STORED_REFUSES) {
		(void)unlinkat(dir_fd, from, 0);
		return 0xa700;
	}
	return renameat(dir_fd, from, dir_fd, to) == 0 ? 0 : 0xa700;
}

static void abandon(void *arg, uint64_t id)
{
	char name[32];

	(void)arg;
	report.abandoned++;
	(void)snprintf(name, sizeof(name), "in.%llu", (unsigned long long)id);
	(void)unlinkat(dir_fd, name, 0);
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

static void serve(int listener, const struct scp_policy *policy, unsigned n, int out)
{
	static const struct scp_ops ops = { admit, create, stored, abandon, NULL, NULL };

	if (trick == SMALL_FILES) {
		struct rlimit limit = { 100000, 100000 };

		(void)signal(SIGXFSZ, SIG_IGN);
		(void)setrlimit(RLIMIT_FSIZE, &limit);
	}
	while (n-- > 0) {
		int sock, before;
		int64_t t;

		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0)
			_exit(1);
		memset(&report, 0, sizeof(report));
		before = open_fds() - 1;
		t = clock_boot_ms();
		report.r = dicom_scp_serve(sock, policy, &ops, NULL, &report.result);
		report.ms = clock_boot_ms() - t;
		report.fds_more = open_fds() - before;
		if (write_full(out, &report, sizeof(report)) < 0)
			_exit(1);
	}
	_exit(0);
}

/* Serves n connections in a process of its own; the pipe brings their reports. */
static void start(const struct scp_policy *policy, enum trick t, unsigned n)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ends[2];

	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(listener, 64) < 0 || getsockname(listener, (struct sockaddr *)&a, &length) < 0 ||
	    pipe2(ends, O_CLOEXEC) < 0) {
		perror("server");
		exit(1);
	}
	port = ntohs(a.sin_port);
	trick = t;
	fflush(stdout);
	server = fork();
	if (server == 0) {
		(void)close(ends[0]);
		serve(listener, policy, n, ends[1]);
	}
	next_id += 1000; /* two servers never use one name */
	(void)close(listener);
	(void)close(ends[1]);
	pipe_fd = ends[0];
}

static bool next_report(void)
{
	struct pollfd p = { .fd = pipe_fd, .events = POLLIN };

	memset(&report, 0, sizeof(report));
	if (poll(&p, 1, 15000) != 1 || read_full(pipe_fd, &report, sizeof(report)) < 0) {
		ok(false, "the server reports within 15 s");
		return false;
	}
	if (report.r != 0 || report.fds_more != 0)
		ok(false, "serve gives 0 and leaks no descriptor (%d, %+d)", report.r, report.fds_more);
	return true;
}

static void stop(void)
{
	int status = 0;

	(void)waitpid(server, &status, 0);
	is_int(status, 0, "the server process ended well");
	(void)close(pipe_fd);
}

static unsigned files(const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)) != NULL)
		n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
	(void)closedir(d);
	return n;
}

/* ---- a peer of raw bytes ---------------------------------------------------------------------- */

struct bytes {
	uint8_t p[1 << 18];
	size_t n;
};

static struct bytes out, in;

static void put(struct bytes *b, const void *p, size_t n)
{
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

static void put_be(struct bytes *b, uint32_t v, unsigned bytes)
{
	while (bytes-- > 0)
		b->p[b->n++] = (uint8_t)(v >> (8 * bytes));
}

static void put_item(struct bytes *b, unsigned type, const char *text)
{
	put_be(b, type << 8, 2);
	put_be(b, (uint32_t)strlen(text), 2);
	put(b, text, strlen(text));
}

/* `syntaxes`: separated by spaces. */
static void put_context(struct bytes *b, unsigned id, const char *abstract, const char *syntaxes)
{
	size_t at = b->n;

	put_be(b, 0x20000000, 4);
	put_be(b, id << 24, 4);
	put_item(b, 0x30, abstract);
	while (*syntaxes != '\0') {
		char uid[UID_MAX];
		size_t n = strcspn(syntaxes, " ");

		(void)str_copy_padded(uid, sizeof(uid), syntaxes, n);
		put_item(b, 0x40, uid);
		syntaxes += n + (syntaxes[n] == ' ');
	}
	b->p[at + 2] = (uint8_t)((b->n - at - 4) >> 8);
	b->p[at + 3] = (uint8_t)(b->n - at - 4);
}

static void begin_request(struct bytes *b, const char *called, const char *calling, const char *context)
{
	char titles[33];

	(void)snprintf(titles, sizeof(titles), "%-16.16s%-16.16s", called, calling);
	b->n = 0;
	put_be(b, 0x01000000, 4);
	put_be(b, 0x00000001, 4);
	put_be(b, 0, 2);
	put(b, titles, 32);
	memset(b->p + b->n, 0, 32), b->n += 32;
	put_item(b, 0x10, context);
}

static void end_request(struct bytes *b)
{
	put_be(b, 0x50000008, 4);
	put_be(b, 0x51000004, 4);
	put_be(b, 16384, 4);
	b->p[4] = (uint8_t)((b->n - 6) >> 8);
	b->p[5] = (uint8_t)(b->n - 6);
}

/* Contexts 1 CR explicit, 3 CT implicit, 5 Verification. */
static void ordinary_request(struct bytes *b)
{
	begin_request(b, "CARZEROD", "MODALITY", APPLICATION_CONTEXT);
	put_context(b, 1, CR, EXPLICIT);
	put_context(b, 3, CT, IMPLICIT);
	put_context(b, 5, VERIFICATION, IMPLICIT);
	end_request(b);
}

static void put_pdv(struct bytes *b, unsigned id, unsigned control, const void *p, size_t n)
{
	put_be(b, 0x0400, 2);
	put_be(b, (uint32_t)n + 6, 4);
	put_be(b, (uint32_t)n + 2, 4);
	put_be(b, id << 8 | control, 2);
	put(b, p, n);
}

static void put_command(struct bytes *b, unsigned id, const struct command *c)
{
	uint8_t p[COMMAND_WRITE_MAX];

	put_pdv(b, id, 3, p, command_write(c, p));
}

static const struct command echo_rq = { .field = COMMAND_C_ECHO_RQ, .message_id = 1,
					.sop_class = VERIFICATION };
static const struct command store_rq = { .field = COMMAND_C_STORE_RQ, .message_id = 2,
					 .data_set = true, .sop_class = CR, .sop_uid = UID };

static void put_element(struct bytes *b, unsigned group, unsigned element, const char *uid)
{
	size_t n = strlen(uid);
	uint8_t head[8] = { (uint8_t)group, 0, (uint8_t)element, 0, 'U', 'I', (uint8_t)(n + n % 2), 0 };

	put(b, head, 8);
	put(b, uid, n + n % 2);
}

/* A CR data set in explicit VR with `pixels` bytes of pixel data; leaves out what is NULL. */
static void data_set(struct bytes *b, const char *sop_class, const char *uid, const char *study,
		     size_t pixels)
{
	uint8_t head[12] = { 0xe0, 0x7f, 0x10, 0, 'O', 'W', 0, 0, (uint8_t)pixels, (uint8_t)(pixels >> 8),
			     (uint8_t)(pixels >> 16), 0 };

	b->n = 0;
	put_element(b, 0x08, 0x16, sop_class);
	if (uid != NULL)
		put_element(b, 0x08, 0x18, uid);
	if (study != NULL) {
		put_element(b, 0x20, 0x0d, study);
		put_element(b, 0x20, 0x0e, "1.2.3.1");
	}
	put(b, head, sizeof(head));
	memset(b->p + b->n, 7, pixels);
	b->n += pixels;
}

/* The whole data set in fragments of 10 000 bytes. */
static void put_data_set(struct bytes *b, unsigned id, const struct bytes *set)
{
	for (size_t i = 0; i < set->n; i += 10000) {
		size_t n = set->n - i < 10000 ? set->n - i : 10000;

		put_pdv(b, id, i + n == set->n ? 2 : 0, set->p + i, n);
	}
}

static int dial(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct timeval t = { .tv_sec = 10 };

	(void)setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	if (connect(sock, (struct sockaddr *)&a, sizeof(a)) < 0)
		ok(false, "connect: %s", strerror(errno));
	return sock;
}

/* The peer may have closed already: that is for the reading to find out. */
static void say(int sock, const struct bytes *b)
{
	size_t done = 0;

	while (done < b->n) {
		ssize_t n = send(sock, b->p + done, b->n - done, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		done += (size_t)n;
	}
}

/* The next PDU into `in`; its type, 0 at the end of the connection. */
static int hear(int sock)
{
	uint32_t n;

	in.n = 0;
	if (read_full(sock, in.p, 6) < 0)
		return 0;
	n = (uint32_t)in.p[2] << 24 | (uint32_t)in.p[3] << 16 | (uint32_t)in.p[4] << 8 | in.p[5];
	if (n > sizeof(in.p) - 6 || read_full(sock, in.p + 6, n) < 0)
		return 0;
	in.n = n + 6;
	return in.p[0];
}

static int associate(void)
{
	static struct bytes request;
	int sock = dial();

	ordinary_request(&request);
	say(sock, &request);
	is_int(hear(sock), 2, "association accepted");
	return sock;
}

/* The status of a C-STORE-RSP; -1 when something else came. */
static int hear_status(int sock)
{
	struct command c;

	if (hear(sock) != 4 || in.n < 12 || command_read(in.p + 12, in.n - 12, &c) < 0)
		return -1;
	return c.status;
}

static bool comment_heard(void)
{
	return memmem(in.p, in.n, "\0\0\x02\x09", 4) != NULL;
}

static void release(int sock)
{
	static const struct bytes rq = { { 5, 0, 0, 0, 0, 4, 0, 0, 0, 0 }, 10 };

	say(sock, &rq);
	is_int(hear(sock), 6, "released");
	(void)close(sock);
}

static int store(int sock, const struct command *q, unsigned id, const struct bytes *set)
{
	out.n = 0;
	put_command(&out, id, q);
	put_data_set(&out, id, set);
	say(sock, &out);
	return hear_status(sock);
}

/* "Later association fine." */
static void store_well(void)
{
	static struct bytes set;
	int sock = associate();

	data_set(&set, CR, UID, "1.2.3", 50000);
	is_int(store(sock, &store_rq, 1, &set), 0, "an ordinary C-STORE afterwards: success");
	release(sock);
	if (next_report())
		ok(report.result.end == SCP_RELEASED && report.result.objects == 1 && report.stored == 1,
		   "   and one object is stored");
	is_int(files("in."), 0, "   and no unfinished file is left");
}

/* ---- programs of the package dcmtk ------------------------------------------------------------ */

static int run(const char *program, const char *const *arguments)
{
	const char *argv[24] = { program };
	int status = -1, n = 1;
	pid_t pid;

	while (*arguments != NULL)
		argv[n++] = *arguments++;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		(void)execvp(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	(void)waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(program, ...) run(program, (const char *const[]){ __VA_ARGS__, NULL })

static char port_text[8];

static const char *path_of(const char *name)
{
	static char path[8][64];
	static unsigned i;

	i = (i + 1) % 8;
	(void)snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

/* A Part 10 file with an image that the codecs of dcmtk can work on. */
static void make_file(const char *name, const char *sop_class, const char *uid)
{
	char dump[2048];
	FILE *f = fopen(path_of("dump"), "we");

	(void)snprintf(dump, sizeof(dump),
		       "(0002,0010) UI [" EXPLICIT "]\n(0008,0016) UI [%s]\n(0008,0018) UI [%s]\n"
		       "(0008,0060) CS [CR]\n(0010,0010) PN [Nobody]\n(0010,0020) LO [1]\n"
		       "(0020,000d) UI [1.2.3]\n(0020,000e) UI [1.2.3.1]\n(0028,0002) US 1\n"
		       "(0028,0004) CS [MONOCHROME2]\n(0028,0010) US 16\n(0028,0011) US 16\n"
		       "(0028,0100) US 8\n(0028,0101) US 8\n(0028,0102) US 7\n(0028,0103) US 0\n"
		       "(7fe0,0010) OB =%s\n", sop_class, uid, path_of("pixels"));
	(void)fputs(dump, f);
	(void)fclose(f);
	if (RUN("dump2dcm", path_of("dump"), path_of(name)) != 0)
		plan_skip_all("dump2dcm of package dcmtk does not run");
}

static void make_files(void)
{
	uint8_t pixels[256];
	FILE *f = fopen(path_of("pixels"), "we");

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)i;
	(void)fwrite(pixels, sizeof(pixels), 1, f);
	(void)fclose(f);
	make_file("cr.dcm", CR, "1.2.826.0.1.10");
	make_file("ct.dcm", CT, "1.2.826.0.1.11");
}

static void check_stored_file(const char *original)
{
	CLEANUP(free) void *a = NULL, *b = NULL;
	uint8_t digest[DIGEST_SIZE];
	struct spooled s;
	size_t n = 0, m = 0;
	struct err e;
	char name[32];
	CLEANUP(close) int fd = -1;

	(void)snprintf(name, sizeof(name), "object.%llu", (unsigned long long)report.object.id);
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	is_int(spooled_read(fd, &s), 0, "the file explains itself");
	ok(s.size == report.object.size && memcmp(s.digest, report.object.digest, DIGEST_SIZE) == 0 &&
	   strcmp(s.calling_ae, "MODALITY") == 0 && strcmp(s.sop_uid, report.object.sop_uid) == 0 &&
	   strcmp(s.syntax, report.object.syntax) == 0, "   as it was reported");
	is_int(digest_fd(fd, s.offset, digest), 0, "   digest of the data set");
	ok(memcmp(digest, s.digest, DIGEST_SIZE) == 0, "   is the sealed one");
	is_int(read_file(fd, 1 << 20, &a, &n), 0, "   read");
	is_int(read_path(original, 1 << 20, &b, &m, &e), 0, "   original read");
	ok(n > s.offset && m > n - s.offset &&
	   memcmp((char *)a + s.offset, (char *)b + m - (n - s.offset), n - s.offset) == 0,
	   "   the data set is the sender's, byte for byte");
	is_int(RUN("dcmdump", path_of(name)), 0, "   dcmdump reads it");
}

static void test_programs(void)
{
	static const struct {
		const char *make, *option, *file, *proposal, *syntax;
	} encodings[] = {
		{ "dcmconv", "+ti", "ti.dcm", "-xi", IMPLICIT },
		{ "dcmconv", "+tb", "tb.dcm", "-xb", "1.2.840.10008.1.2.2" },
		{ "dcmconv", "+td", "td.dcm", "-xd", "1.2.840.10008.1.2.1.99" },
		{ "dcmcjpeg", "+e1", "e1.dcm", "-xs", "1.2.840.10008.1.2.4.70" },
		{ "dcmcjpeg", "+eb", "eb.dcm", "-xy", "1.2.840.10008.1.2.4.50" },
		{ "dcmcjpls", "+el", "el.dcm", "-xt", "1.2.840.10008.1.2.4.80" },
		{ "dcmcrle", "+fo", "rle.dcm", "-xr", "1.2.840.10008.1.2.5" },
	};
	struct scp_policy strict = ordinary;
	const char *cr = path_of("cr.dcm"), *ct = path_of("ct.dcm");

	start(&ordinary, NO_TRICK, 5 + ARRAY_SIZE(encodings));
	(void)snprintf(port_text, sizeof(port_text), "%u", port);
	is_int(RUN("echoscu", "-aec", "CARZEROD", "127.0.0.1", port_text), 0, "echoscu");
	if (next_report())
		ok(report.result.end == SCP_RELEASED && report.result.echoes == 1, "   one C-ECHO");
	is_str(report.association.calling_ae, "ECHOSCU", "   from ECHOSCU");
	is_int(RUN("echoscu", "-aec", "ARCHIVE", "127.0.0.1", port_text), 1, "echoscu to another title");
	if (next_report())
		is_int(report.result.end, SCP_REJECTED, "   rejected");
	is_int(RUN("storescu", "-aec", "CARZEROD", "-aet", "MODALITY", "127.0.0.1", port_text, cr), 0,
	       "storescu");
	if (next_report() && report.stored == 1)
		check_stored_file(cr);
	ok(report.object.analysed_class && strcmp(report.object.study_uid, "1.2.3") == 0 &&
	   strcmp(report.object.series_uid, "1.2.3.1") == 0 &&
	   strcmp(report.object.sop_uid, "1.2.826.0.1.10") == 0, "   with its UIDs, to be analysed");
	is_int(RUN("dcmsend", "-aec", "CARZEROD", "127.0.0.1", port_text, cr, ct, cr), 0,
	       "dcmsend of two classes");
	if (next_report())
		ok(report.result.objects >= 2 && report.result.refused == 0, "   stored");
	is_int(RUN("storescu", "-aec", "CARZEROD", "127.0.0.1", port_text, ct), 0, "storescu of a CT");
	if (next_report())
		ok(report.stored == 1 && !report.object.analysed_class, "   stored, to be set aside");
	for (size_t i = 0; i < ARRAY_SIZE(encodings); i++) {
		is_int(RUN(encodings[i].make, encodings[i].option, cr, path_of(encodings[i].file)), 0,
		       "%s %s", encodings[i].make, encodings[i].option);
		is_int(RUN("storescu", "-aec", "CARZEROD", encodings[i].proposal, "127.0.0.1", port_text,
			   path_of(encodings[i].file)), 0, "   storescu %s", encodings[i].proposal);
		if (next_report() && report.stored == 1)
			is_str(report.object.syntax, encodings[i].syntax, "   stored as it came");
	}
	stop();

	strict.refuse_other_storage = true;
	start(&strict, NO_TRICK, 1);
	(void)snprintf(port_text, sizeof(port_text), "%u", port);
	ok(RUN("storescu", "-aec", "CARZEROD", "127.0.0.1", port_text, ct) != 0,
	   "refuse_other_storage: storescu of a CT finds no context");
	if (next_report())
		is_int(report.created, 0, "   and nothing is created");
	stop();
}

/* ---- negotiation ------------------------------------------------------------------------------ */

static struct scp_reject beginning; /* what may_begin() says */

static struct scp_reject may_begin(void *arg)
{
	(void)arg;
	return beginning;
}

static void test_rejections(void)
{
	static const struct {
		const char *called, *calling, *context;
		struct scp_reject beginning;
		enum trick trick;
		uint8_t want[3];
		const char *what;
	} cases[] = {
		{ "OTHER", "MODALITY", APPLICATION_CONTEXT, { 0, 0, 0 }, NO_TRICK, { 1, 1, 7 },
		  "called AE title not ours" },
		{ "carzerod", "MODALITY", APPLICATION_CONTEXT, { 0, 0, 0 }, NO_TRICK, { 1, 1, 7 },
		  "called AE title in another case" },
		{ "CARZEROD", "", APPLICATION_CONTEXT, { 0, 0, 0 }, NO_TRICK, { 1, 1, 3 },
		  "no calling AE title" },
		{ "CARZEROD", "A\\B", APPLICATION_CONTEXT, { 0, 0, 0 }, NO_TRICK, { 1, 1, 3 },
		  "calling AE title with a backslash" },
		{ "CARZEROD", "MODALITY", "1.2.3.4", { 0, 0, 0 }, NO_TRICK, { 1, 1, 2 },
		  "application context" },
		{ "CARZEROD", "MODALITY", APPLICATION_CONTEXT, { 0, 0, 0 }, ADMIT_REJECTS, { 1, 1, 3 },
		  "not admitted" },
		{ "CARZEROD", "MODALITY", APPLICATION_CONTEXT, { 2, 3, 2 }, NO_TRICK, { 2, 3, 2 },
		  "local limit" },
		{ "CARZEROD", "MODALITY", APPLICATION_CONTEXT, { 2, 3, 1 }, NO_TRICK, { 2, 3, 1 },
		  "draining" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct scp_policy policy = ordinary;
		int sock;

		beginning = cases[i].beginning;
		policy.may_begin = may_begin;
		start(&policy, cases[i].trick, 1);
		sock = dial();
		begin_request(&out, cases[i].called, cases[i].calling, cases[i].context);
		put_context(&out, 1, CR, EXPLICIT);
		end_request(&out);
		say(sock, &out);
		is_int(hear(sock), 3, "%s: A-ASSOCIATE-RJ", cases[i].what);
		ok(memcmp(in.p + 7, cases[i].want, 3) == 0, "   with result, source, reason %u %u %u",
		   in.p[7], in.p[8], in.p[9]);
		(void)close(sock);
		if (next_report())
			ok(report.result.end == SCP_REJECTED && report.result.detail[0] != '\0',
			   "   \"%s\"", report.result.detail);
		stop();
	}
}

/* Result of context `id` in the A-ASSOCIATE-AC in `in`, its syntax in ret; -1: not there. */
static int context_result(unsigned id, char ret[UID_MAX])
{
	size_t i = 74;

	while (i + 8 <= in.n) {
		size_t n = (size_t)in.p[i + 2] << 8 | in.p[i + 3];

		if (in.p[i] == 0x21 && in.p[i + 4] == id) {
			size_t m = (size_t)in.p[i + 10] << 8 | in.p[i + 11];

			(void)str_copy_padded(ret, UID_MAX, in.p + i + 12, m);
			return in.p[i + 6];
		}
		i += 4 + n;
	}
	return -1;
}

static void test_contexts(void)
{
	static const struct {
		const char *abstract, *syntaxes;
		int result;
		const char *syntax;
	} cases[] = {
		{ CR, "1.2.840.10008.1.2.4.50 " IMPLICIT " " EXPLICIT, 0, EXPLICIT },
		{ CR, "1.2.840.10008.1.2.4.91 1.2.840.10008.1.2.4.70 " IMPLICIT, 0, IMPLICIT },
		{ CR, "1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.90", 0, "1.2.840.10008.1.2.4.90" },
		{ CR, "1.2.840.10008.1.2.2 1.2.840.10008.1.2.4.51", 0, "1.2.840.10008.1.2.4.51" },
		{ CR, "1.2.840.10008.1.2.2 1.2.840.10008.1.2.1.99", 0, "1.2.840.10008.1.2.1.99" },
		{ CR, "1.2.840.10008.1.2.4.201", 0, "1.2.840.10008.1.2.4.201" },
		{ CR, "1.2.3.4", 4, NULL },
		{ CR, "1.2.840.10008.1.2.4.94", 4, NULL }, /* pixels elsewhere: JPIP */
		{ CT, IMPLICIT, 0, IMPLICIT },
		{ "1.2.840.10008.5.1.4.1.1.999.1", EXPLICIT, 0, EXPLICIT },
		{ "1.2.840.10008.5.1.4.1.2.2.1", IMPLICIT, 3, NULL }, /* query */
		{ "1.3.12.2.1107.5.9.1", IMPLICIT, 3, NULL },         /* private */
		{ VERIFICATION, "1.2.840.10008.1.2.4.50", 4, NULL },
		{ VERIFICATION, IMPLICIT, 0, IMPLICIT },
	};
	char many[50 * UID_MAX] = "";
	char syntax[UID_MAX] = "";
	unsigned last = 2 * ARRAY_SIZE(cases) + 1;
	int sock;

	for (int i = 0; i < 60; i++)
		(void)snprintf(many + strlen(many), sizeof(many) - strlen(many), "1.2.3.%d ", i + 1);
	(void)snprintf(many + strlen(many), sizeof(many) - strlen(many), EXPLICIT);
	start(&ordinary, NO_TRICK, 2);
	sock = dial();
	begin_request(&out, "  CARZEROD", " MODALITY", APPLICATION_CONTEXT);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		put_context(&out, (unsigned)(2 * i + 1), cases[i].abstract, cases[i].syntaxes);
	put_context(&out, last, CR, many);
	put_context(&out, 1, CT, IMPLICIT); /* an identifier twice */
	end_request(&out);
	say(sock, &out);
	is_int(hear(sock), 2, "accepted, with spaces before the titles");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		is_int(context_result((unsigned)(2 * i + 1), syntax), cases[i].result, "context %zu: %s",
		       i, cases[i].syntaxes);
		if (cases[i].result == 0)
			is_str(syntax, cases[i].syntax, "   with the best syntax");
	}
	is_int(context_result(last, syntax), 4, "61 transfer syntaxes: refused");
	release(sock);
	(void)next_report();
	is_str(report.association.calling_ae, "MODALITY", "the calling title without its spaces");
	store_well();
	stop();
}

/* ---- statuses --------------------------------------------------------------------------------- */

static void test_statuses(void)
{
	static struct bytes set;
	struct command q = store_rq;
	int sock;

	start(&ordinary, NO_TRICK, 1);
	sock = associate();
	data_set(&set, CR, UID, "1.2.3", 30000);
	is_int(store(sock, &store_rq, 1, &set), 0, "success");
	ok(!comment_heard(), "   without a comment");

	/* command_write() pads and copies: a malformed UID goes out as it is. */
	(void)str_copy(q.sop_uid, UID_MAX, "../../x");
	is_int(store(sock, &q, 1, &set), 0x0117, "UID ../../x: invalid object instance");
	ok(comment_heard() && memmem(in.p, in.n, "../", 3) == NULL, "   with a comment, without the UID");
	q.sop_uid[0] = '\0';
	is_int(store(sock, &q, 1, &set), 0x0117, "no UID: invalid object instance");
	q = store_rq;
	(void)str_copy(q.sop_class, UID_MAX, CT);
	is_int(store(sock, &q, 1, &set), 0x0122, "class of another context: not supported");
	q = store_rq;
	q.data_set = false;
	out.n = 0;
	put_command(&out, 1, &q);
	say(sock, &out);
	is_int(hear_status(sock), 0x0212, "no data set: mistyped argument");

	data_set(&set, CR, "1.2.826.0.1.2", "1.2.3", 30000);
	is_int(store(sock, &store_rq, 1, &set), 0xa900, "another UID in the data set: mismatch");
	data_set(&set, CT, UID, "1.2.3", 30000);
	is_int(store(sock, &store_rq, 1, &set), 0xa900, "another class in the data set: mismatch");
	data_set(&set, CR, UID, NULL, 30000);
	is_int(store(sock, &store_rq, 1, &set), 0xc002, "no Study UID");
	data_set(&set, CR, NULL, "1.2.3", 30000);
	is_int(store(sock, &store_rq, 1, &set), 0xc002, "no SOP instance UID");
	memset(set.p, 0x5a, 30000);
	set.n = 30000;
	is_int(store(sock, &store_rq, 1, &set), 0xc000, "not a data set: cannot understand");
	ok(comment_heard(), "   with a comment");
	set.n = 0;
	out.n = 0;
	put_command(&out, 1, &store_rq);
	put_pdv(&out, 1, 2, "", 0);
	say(sock, &out);
	is_int(hear_status(sock), 0xc002, "an empty data set");

	data_set(&set, CR, UID, "1.2.3", 100000);
	out.n = 0;
	put_command(&out, 5, &echo_rq);
	say(sock, &out);
	is_int(hear_status(sock), 0, "C-ECHO in between");
	is_int(store(sock, &store_rq, 1, &set), 0, "and success again, on the same association");
	release(sock);
	if (next_report()) {
		is_int(report.result.objects, 2, "two stored");
		is_int(report.result.refused, 10, "ten refused");
		is_int(report.stored, 2, "stored() twice");
		is_int(report.abandoned, report.created - 2, "the other files abandoned");
		ok(strstr(report.result.detail, "1.2.8") == NULL, "no UID in \"%s\"", report.result.detail);
	}
	is_int(files("in."), 0, "no unfinished file is left");
	stop();
}

static void test_refusing_operations(void)
{
	static const struct {
		enum trick trick;
		int status;
		unsigned abandoned;
		const char *what;
	} cases[] = {
		{ CREATE_REFUSES, 0xa701, 0, "create() refuses" },
		{ CREATE_FULL_DEVICE, 0xa700, 2, "the disk is full at the first byte" },
		{ STORED_REFUSES, 0xa700, 0, "stored() refuses" },
		{ SMALL_FILES, 0xa700, 2, "the disk is full at the last fragment" },
	};
	static struct bytes set;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int sock;

		start(&ordinary, cases[i].trick, 1);
		sock = associate();
		data_set(&set, CR, UID, "1.2.3", 100000);
		is_int(store(sock, &store_rq, 1, &set), cases[i].status, "%s", cases[i].what);
		ok(comment_heard(), "   with a comment");
		is_int(store(sock, &store_rq, 1, &set), cases[i].status, "   and again");
		if (cases[i].trick == SMALL_FILES) {
			data_set(&set, CR, UID, "1.2.3", 90000);
			is_int(store(sock, &store_rq, 1, &set), 0, "   a smaller one fits");
		}
		release(sock);
		if (next_report()) {
			is_int(report.abandoned, cases[i].abandoned, "   abandoned as often as due");
			is_int(report.result.refused, 2, "   two refused: \"%s\"", report.result.detail);
		}
		is_int(files("in."), 0, "   no unfinished file is left");
		stop();
	}
}

static void test_limits(void)
{
	struct scp_policy policy = ordinary;
	static struct bytes set;
	int sock;

	policy.object_bytes = 100000;
	policy.objects = 2;
	start(&policy, NO_TRICK, 4);
	sock = associate();
	data_set(&set, CR, UID, "1.2.3", 100000);
	is_int(store(sock, &store_rq, 1, &set), 0xa700, "an object over the limit: A700 after draining");
	data_set(&set, CR, UID, "1.2.3", 1000);
	is_int(store(sock, &store_rq, 1, &set), 0, "   the next one is fine");
	is_int(store(sock, &store_rq, 1, &set), 0xa700, "the object over the count: A700");
	is_int(hear(sock), 7, "   then A-ABORT");
	is_int(hear(sock), 0, "   then the end");
	(void)close(sock);
	if (next_report())
		ok(report.result.end == SCP_LIMIT && report.created == 2 && report.abandoned == 1,
		   "   \"%s\"", report.result.detail);

	sock = associate();
	data_set(&set, CR, UID, "1.2.3", 220000);
	out.n = 0;
	put_command(&out, 1, &store_rq);
	put_data_set(&out, 1, &set);
	say(sock, &out);
	is_int(hear(sock), 7, "an object of more than twice the limit: A-ABORT");
	(void)close(sock);
	if (next_report())
		ok(report.result.end == SCP_LIMIT && report.abandoned == 1, "   abandoned");

	sock = associate();
	memset(set.p, 0, 10000);
	out.n = 0;
	put_pdv(&out, 1, 1, set.p, 10000);
	put_pdv(&out, 1, 1, set.p, 10000);
	say(sock, &out);
	is_int(hear(sock), 7, "an endless command: A-ABORT");
	(void)close(sock);
	if (next_report())
		is_int(report.result.end, SCP_LIMIT, "   limit");
	store_well();
	stop();
}

/* ---- time ------------------------------------------------------------------------------------- */

/* Sends b a byte each 100 ms until the peer closes. */
static void trickle(int sock, const struct bytes *b)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	for (size_t i = 0; i < b->n && poll(&p, 1, 100) == 0; i++)
		if (send(sock, b->p + i, 1, MSG_NOSIGNAL) != 1)
			return;
}

static void timed_out(const char *what, unsigned abandoned)
{
	if (!next_report())
		return;
	ok(report.result.end == SCP_TIMED_OUT && report.ms >= 900 && report.ms < 5000,
	   "%s: timed out after %lld ms (\"%s\")", what, (long long)report.ms, report.result.detail);
	is_int(report.abandoned, abandoned, "   abandoned: %u", abandoned);
}

static void test_time(void)
{
	struct scp_policy policy = ordinary;
	static struct bytes set;
	int sock;

	start(&ordinary, NO_TRICK, 9);
	sock = dial();
	is_int(hear(sock), 0, "silence: closed");
	timed_out("no byte", 0);
	(void)close(sock);

	sock = dial();
	ordinary_request(&out);
	out.n = 40;
	say(sock, &out);
	is_int(hear(sock), 0, "half a request: closed");
	timed_out("half a request", 0);
	(void)close(sock);

	sock = dial();
	ordinary_request(&out);
	trickle(sock, &out);
	timed_out("a request of a byte in 100 ms", 0);
	(void)close(sock);

	sock = associate();
	is_int(hear(sock), 7, "silence after negotiation: A-ABORT");
	timed_out("an idle association", 0);
	(void)close(sock);

	sock = associate();
	data_set(&set, CR, UID, "1.2.3", 50000);
	out.n = 0;
	put_command(&out, 1, &store_rq);
	put_data_set(&out, 1, &set);
	out.n -= 4000;
	say(sock, &out);
	is_int(hear(sock), 7, "half a P-DATA, then silence: A-ABORT");
	timed_out("half a P-DATA", 1);
	(void)close(sock);

	sock = associate();
	out.n = 0;
	put_command(&out, 1, &store_rq);
	say(sock, &out);
	is_int(hear(sock), 7, "a data set that never comes: A-ABORT");
	timed_out("a data set that never comes", 1);
	(void)close(sock);

	sock = associate();
	out.n = 0;
	put_command(&out, 1, &store_rq);
	say(sock, &out);
	out.n = 0;
	put_data_set(&out, 1, &set);
	trickle(sock, &out);
	timed_out("a P-DATA of a byte in 100 ms", 1);
	(void)close(sock);

	/* Slower than idle_seconds in all, but no PDU is. */
	sock = associate();
	out.n = 0;
	put_command(&out, 1, &store_rq);
	say(sock, &out);
	for (size_t i = 0; i < set.n; i += 10000) {
		size_t n = set.n - i < 10000 ? set.n - i : 10000;

		(void)usleep(400000);
		out.n = 0;
		put_pdv(&out, 1, i + n == set.n ? 2 : 0, set.p + i, n);
		say(sock, &out);
	}
	is_int(hear_status(sock), 0, "a slow sender is waited for");
	release(sock);
	(void)next_report();
	store_well();
	stop();

	/* The same, where an object must come at a rate. */
	policy.slow_seconds = 1;
	policy.slow_bytes = 50000;
	start(&policy, NO_TRICK, 1);
	sock = associate();
	out.n = 0;
	put_command(&out, 1, &store_rq);
	say(sock, &out);
	for (size_t i = 0; i < 30000; i += 10000) {
		(void)usleep(400000);
		out.n = 0;
		put_pdv(&out, 1, 0, set.p + i, 10000);
		say(sock, &out);
	}
	is_int(hear(sock), 7, "25 kB a second where 50 are wanted: A-ABORT");
	timed_out("25 kB a second where 50 are wanted", 1);
	(void)close(sock);
	stop();
	policy.slow_seconds = 0;

	policy.association_seconds = 1;
	policy.idle_seconds = 10;
	start(&policy, NO_TRICK, 1);
	sock = associate();
	for (int i = 0; i < 100; i++) {
		out.n = 0;
		put_command(&out, 5, &echo_rq);
		say(sock, &out);
		if (hear(sock) != 4)
			break;
		(void)usleep(50000);
	}
	timed_out("C-ECHO for ever", 0);
	(void)close(sock);
	stop();
}

/* A peer that asks and never reads the answers must not keep us. */
static void test_deaf_peer(void)
{
	struct scp_policy policy = ordinary;
	int sock, small = 4096;

	start(&policy, NO_TRICK, 2);
	sock = associate();
	(void)setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	(void)fcntl(sock, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 40; i++) {
		out.n = 0;
		for (int j = 0; j < 1000; j++)
			put_command(&out, 5, &echo_rq);
		(void)usleep(100000);
		say(sock, &out);
	}
	if (next_report())
		ok(report.result.end == SCP_TIMED_OUT || report.result.end == SCP_PROTOCOL_ERROR,
		   "a deaf peer: %s after %lld ms (\"%s\")", scp_end_name(report.result.end),
		   (long long)report.ms, report.result.detail);
	(void)close(sock);
	store_well();
	stop();
}

/* ---- bytes that are not DICOM ----------------------------------------------------------------- */

static void unit(const char *what, const void *p, size_t n, bool associated)
{
	int sock = associated ? associate() : dial();

	out.n = 0;
	put(&out, p, n);
	say(sock, &out);
	while (hear(sock) != 0)
		;
	(void)close(sock);
	if (next_report())
		ok((report.result.end == SCP_PROTOCOL_ERROR || report.result.end == SCP_CLOSED) &&
		   report.ms < 5000, "%s: %s after %lld ms (\"%s\")", what,
		   scp_end_name(report.result.end), (long long)report.ms, report.result.detail);
	is_int(report.created - report.stored, report.abandoned, "   no file is left behind");
}

#define HOSTILE(what, literal, associated) unit(what, literal, sizeof(literal) - 1, associated)

static void test_garbage(void)
{
	static uint8_t noise[4096];
	uint32_t x = 12345;
	static struct bytes b;

	start(&ordinary, NO_TRICK, 24);
	HOSTILE("HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false);
	HOSTILE("TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", false);
	HOSTILE("a request of 4 GB", "\1\0\xff\xff\xff\xff" "AAAAAAAAAAAAAAAAAAAAAAAA", false);
	HOSTILE("a request of 10 bytes", "\1\0\0\0\0\x0a" "AAAAAAAAAA", false);
	HOSTILE("a release first", "\5\0\0\0\0\4\0\0\0\0", false);
	HOSTILE("an abort first", "\7\0\0\0\0\4\0\0\0\0", false);
	HOSTILE("P-DATA first", "\4\0\0\0\0\6\0\0\0\2\1\3", false);
	memset(noise, 0, sizeof(noise));
	unit("zeroes", noise, sizeof(noise), false);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
	unit("noise", noise, sizeof(noise), false);
	unit("noise in an association", noise, sizeof(noise), true);
	HOSTILE("P-DATA of 4 GB", "\4\0\xff\xff\xff\xf0\xff\xff\xff\xec\1\0xxxxxxxx", true);
	HOSTILE("P-DATA over the maximum", "\4\0\0\x0f\x42\x40\0\x0f\x42\x3c\1\0xxxxxxxx", true);
	HOSTILE("a PDV longer than its PDU", "\4\0\0\0\0\x0a\0\0\x13\x88\1\3abcd", true);
	HOSTILE("a PDV of 4 GB", "\4\0\0\0\0\x0a\xff\xff\xff\xff\1\3abcd", true);
	HOSTILE("a PDV of no bytes", "\4\0\0\0\0\4\0\0\0\0", true);
	HOSTILE("a PDU without a PDV", "\4\0\0\0\0\0", true);
	HOSTILE("a context that nobody proposed", "\4\0\0\0\0\x08\0\0\0\4\x4d\3ab", true);
	HOSTILE("a data set first", "\4\0\0\0\0\x08\0\0\0\4\1\2ab", true);
	HOSTILE("a second request", "\1\0\0\0\0\4abcd", true);
	HOSTILE("a command that is none", "\4\0\0\0\0\x0a\0\0\0\6\1\3abcd", true);

	b.n = 0;
	put_command(&b, 1, &store_rq);
	put_command(&b, 1, &store_rq);
	unit("the same command twice", b.p, b.n, true);
	b.n = 0;
	put_command(&b, 1, &store_rq);
	put_pdv(&b, 3, 2, "abcd", 4);
	unit("a data set in another context", b.p, b.n, true);
	b.n = 0;
	put_command(&b, 1, &store_rq);
	put(&b, "\5\0\0\0\0\4\0\0\0\0", 10);
	unit("a release inside a message", b.p, b.n, true);
	store_well();
	stop();
}

static void test_broken_off(void)
{
	static struct bytes set;
	struct linger hard = { 1, 0 };
	int sock;

	data_set(&set, CR, UID, "1.2.3", 100000);
	start(&ordinary, NO_TRICK, 5);
	for (int i = 0; i < 3; i++) {
		static const char *const what[] = { "A-ABORT", "reset", "close" };
		static const enum scp_end want[] = { SCP_ABORTED_BY_PEER, SCP_CLOSED, SCP_CLOSED };

		sock = associate();
		out.n = 0;
		put_command(&out, 1, &store_rq);
		put_pdv(&out, 1, 0, set.p, 10000);
		if (i == 0)
			put(&out, "\7\0\0\0\0\4\0\0\0\0", 10);
		else
			put_pdv(&out, 1, 0, set.p + 10000, 10000), out.n -= 3000;
		say(sock, &out);
		(void)usleep(100000);
		if (i == 1)
			(void)setsockopt(sock, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		(void)close(sock);
		if (next_report())
			ok(report.result.end == want[i] && report.abandoned == 1 && report.stored == 0,
			   "%s in the middle of an object: %s, abandoned (\"%s\")", what[i],
			   scp_end_name(report.result.end), report.result.detail);
		is_int(files("in."), 0, "   no unfinished file is left");
	}
	/* Whole, but the peer is gone before the answer: it is stored, and will come again. */
	sock = associate();
	out.n = 0;
	put_command(&out, 1, &store_rq);
	put_data_set(&out, 1, &set);
	say(sock, &out);
	(void)close(sock);
	if (next_report())
		ok(report.stored == 1 && report.result.end == SCP_CLOSED, "gone before the answer: stored");
	store_well();
	stop();
}

static void clean_up(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			(void)unlinkat(dir_fd, e->d_name, 0);
	(void)closedir(d);
	(void)rmdir(dir);
}

int main(void)
{
	struct err e;

	log_open("test_scp", LOG_LEVEL_ERROR);
	(void)signal(SIGPIPE, SIG_IGN);
	if (mkdtemp(dir) == NULL || (dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return 1;
	if (dicom_init(false, &e) < 0)
		plan_skip_all(e.text);
	dicom_scp_warm_up();
	make_files();
	test_programs();
	test_rejections();
	test_contexts();
	test_statuses();
	test_refusing_operations();
	test_limits();
	test_time();
	test_deaf_peer();
	test_garbage();
	test_broken_off();
	clean_up();
	return done();
}
