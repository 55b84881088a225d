/* test_scu.c: storing to real peers over loopback: storescp of the package dcmtk in several moods, and
 * dicom_scp_serve() where the peer's answer must be chosen.
 *
 * Holds: the data set arrives byte for byte; each way to fail is sorted as scu.h says, in time, with
 * a line that says what to do.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/scp.h"
#include "dicom/scu.h"

#include "tests/tap.h"

#define SR "1.2.840.10008.5.1.4.1.1.88.33"
#define SC "1.2.840.10008.5.1.4.1.1.7"
#define CR "1.2.840.10008.5.1.4.1.1.1"
#define EXPLICIT "1.2.840.10008.1.2.1"
#define META 132

static char dir[] = "/tmp/test_scu.XXXXXX";
static const char *const classes[] = { SR, SC };
static uint8_t file[1 << 20];
static size_t file_n;
static pid_t peer_pid;

/* ---- peers ------------------------------------------------------------------------------------ */

static int listen_on_v6(uint16_t *ret_port, int backlog)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof(a);
	int sock = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sock, backlog) < 0 ||
	    getsockname(sock, (struct sockaddr *)&a, &length) < 0)
		return -1;
	*ret_port = ntohs(a.sin6_port);
	return sock;
}

static int listen_on(uint16_t *ret_port, int backlog)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sock, backlog) < 0 ||
	    getsockname(sock, (struct sockaddr *)&a, &length) < 0) {
		perror("listen");
		exit(1);
	}
	*ret_port = ntohs(a.sin_port);
	return sock;
}

static struct dicom_peer peer_at(uint16_t port)
{
	struct dicom_peer p = { .ae_title = "ARCHIVE", .our_ae_title = "CARZEROD", .host = "127.0.0.1",
				.port = port, .connect_seconds = 2, .response_seconds = 2 };

	return p;
}

static void wait_for(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	for (int i = 0; i < 100; i++) {
		CLEANUP(close) int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(sock, (struct sockaddr *)&a, sizeof(a)) == 0)
			return;
		(void)usleep(50000);
	}
	plan_skip_all("storescp of package dcmtk does not run");
}

/* A storescp on a free port, with two further options. */
static struct dicom_peer start_storescp(const char *one, const char *two)
{
	const char *argv[] = { "storescp", "-od", dir, "-aet", "ARCHIVE", "+B", NULL, NULL, NULL, NULL };
	char port_text[8];
	uint16_t port;
	size_t n = 6;

	(void)close(listen_on(&port, 1)); /* free a moment ago; nobody else is on this machine's loopback */
	(void)snprintf(port_text, sizeof(port_text), "%u", port);
	if (one != NULL)
		argv[n++] = one;
	if (two != NULL)
		argv[n++] = two;
	argv[n] = port_text;
	fflush(stdout);
	peer_pid = fork();
	if (peer_pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		(void)execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	wait_for(port);
	return peer_at(port);
}

static void stop_peer(void)
{
	(void)kill(peer_pid, SIGKILL);
	(void)waitpid(peer_pid, NULL, 0);
}

static uint16_t status_to_give;
static struct scp_reject reject_to_give;

static void admit(void *arg, const struct scp_association *a, struct scp_reject *ret)
{
	(void)arg;
	(void)a;
	*ret = reject_to_give;
}

static uint16_t create(void *arg, uint64_t *ret_id, int *ret_fd)
{
	(void)arg;
	*ret_id = 1;
	*ret_fd = fd_memory("object");
	return *ret_fd < 0 ? 0xa700 : 0;
}

static uint16_t stored(void *arg, const struct scp_object *o)
{
	(void)arg;
	(void)o;
	return status_to_give;
}

static void abandon(void *arg, uint64_t id)
{
	(void)arg;
	(void)id;
}

/* Our own acceptor, with chosen answers. */
static struct dicom_peer start_own_at(int sock, uint16_t port, const char *ae_title, bool refuse_other)
{
	static const struct scp_ops ops = { admit, create, stored, abandon, NULL, NULL };
	struct scp_policy policy = { .ae_title = ae_title, .pdu_bytes = 16384, .object_bytes = 1 << 20,
				     .objects = 10, .request_seconds = 5, .idle_seconds = 5,
				     .association_seconds = 20, .refuse_other_storage = refuse_other };

	fflush(stdout);
	peer_pid = fork();
	if (peer_pid == 0) {
		struct scp_result result;

		for (;;)
			(void)dicom_scp_serve(accept4(sock, NULL, NULL, SOCK_CLOEXEC), &policy, &ops,
					      NULL, &result);
	}
	(void)close(sock);
	return peer_at(port);
}

static struct dicom_peer start_own(const char *ae_title, bool refuse_other)
{
	uint16_t port;
	int sock = listen_on(&port, 8);

	return start_own_at(sock, port, ae_title, refuse_other);
}

/* ---- objects ---------------------------------------------------------------------------------- */

static void put(const void *p, size_t n)
{
	memcpy(file + file_n, p, n);
	file_n += n;
}

static void put_element(unsigned group, unsigned element, const char *vr, const char *text)
{
	size_t n = strlen(text);
	uint8_t head[8] = { (uint8_t)group, (uint8_t)(group >> 8), (uint8_t)element,
			    (uint8_t)(element >> 8), (uint8_t)vr[0], (uint8_t)vr[1],
			    (uint8_t)(n + n % 2), 0 };

	put(head, 8);
	put(text, n);
	if (n % 2 != 0)
		put(vr[0] == 'U' ? "" : " ", 1);
}

/* A Part 10 file that DCMTK would not write the same way: undefined lengths, a trailing space. */
static void make_object(const char *sop_class, const char *uid, const char *syntax)
{
	size_t group_end;

	memset(file, 0, META);
	memcpy(file + 128, "DICM", 4);
	file_n = META;
	put("\2\0\0\0UL\4\0\0\0\0\0", 12);
	put("\2\0\1\0OB\0\0\2\0\0\0\0\1", 14);
	put_element(2, 2, "UI", sop_class);
	put_element(2, 3, "UI", uid);
	put_element(2, 0x10, "UI", syntax);
	put_element(2, 0x12, "UI", "1.2.3");
	group_end = file_n;
	file[META + 8] = (uint8_t)(group_end - META - 12);
	file[META + 9] = (uint8_t)((group_end - META - 12) >> 8);
	put_element(0x08, 0x16, "UI", sop_class);
	put_element(0x08, 0x18, "UI", uid);
	put_element(0x08, 0x60, "CS", "SR");
	put_element(0x10, 0x10, "PN", "Nobody  ");
	put_element(0x20, 0x0d, "UI", "1.2.3");
	put_element(0x20, 0x0e, "UI", "1.2.3.1");
	put("\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff", 20);
	put_element(0x40, 0xa160, "LO", "x");
	put("\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0", 16);
}

static size_t data_set_at(const uint8_t *p)
{
	return META + 12 + (size_t)(p[META + 8] | p[META + 9] << 8);
}

/* The received file whose name holds `uid`. */
static void *received(const char *uid, size_t *ret_n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	void *p = NULL;

	while (p == NULL && (e = readdir(d)) != NULL)
		if (strstr(e->d_name, uid) != NULL) {
			char path[512];
			struct err err;

			(void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			(void)read_path(path, sizeof(file), &p, ret_n, &err);
		}
	(void)closedir(d);
	return p;
}

static void arrived_as_sent(const char *uid)
{
	CLEANUP(free) uint8_t *got = NULL;
	size_t n = 0, at = data_set_at(file);

	got = received(uid, &n);
	if (!ok(got != NULL, "   it has arrived"))
		return;
	ok(n - data_set_at(got) == file_n - at &&
	   memcmp(got + data_set_at(got), file + at, file_n - at) == 0, "   byte for byte");
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void test_storing(void)
{
	struct dicom_peer peer = start_storescp(NULL, NULL);
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0xffff;

	is_int(dicom_scu_open(&peer, classes, 2, &s, &e), SCU_OK, "storescp accepts: %s", e.text);
	ok(dicom_scu_accepts(s, SR) && dicom_scu_accepts(s, SC) && !dicom_scu_accepts(s, CR),
	   "   the classes that were offered");
	is_int(dicom_scu_echo(s, &status, &e), SCU_OK, "C-ECHO");
	is_int(status, 0, "   0000H");
	make_object(SR, "1.2.826.0.1.77", EXPLICIT);
	status = 0xffff;
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_OK, "C-STORE: %s", e.text);
	is_int(status, 0, "   0000H");
	arrived_as_sent("1.2.826.0.1.77");
	make_object(SC, "1.2.826.0.1.78", EXPLICIT);
	put("\xe0\x7f\x10\0OW\0\0\0\0\x0c\0", 12);
	file_n += 0x0c0000; /* 768 kB in several PDUs */
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_OK, "a large one, same association");
	arrived_as_sent("1.2.826.0.1.78");
	make_object(CR, "1.2.826.0.1.79", EXPLICIT);
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_NO_CONTEXT, "a class not offered: %s",
	       e.text);
	is_int(dicom_scu_store(s, "no file", 7, &status, &e), SCU_NO_CONTEXT, "not a file: %s", e.text);
	make_object(SR, "1.2.826.0.1.80", "1.2.840.10008.1.2.4.50");
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_NO_CONTEXT, "compressed: %s", e.text);
	make_object(SR, "1.2.826.0.1.81", EXPLICIT);
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_OK, "the association lives on");
	dicom_scu_close(s);
	(void)str_copy(peer.host, sizeof(peer.host), "localhost");
	is_int(dicom_scu_open(&peer, NULL, 0, &s, &e), SCU_OK, "by name, for C-ECHO alone: %s", e.text);
	is_int(dicom_scu_echo(s, &status, &e), SCU_OK, "   C-ECHO");
	dicom_scu_close(s);
	dicom_scu_close(NULL);
	stop_peer();
}

static void test_implicit_only(void)
{
	struct dicom_peer peer = start_storescp("+xi", NULL);
	CLEANUP(free) uint8_t *got = NULL;
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0xffff;
	size_t n = 0;

	is_int(dicom_scu_open(&peer, classes, 2, &s, &e), SCU_OK, "implicit VR only: accepts");
	make_object(SR, "1.2.826.0.1.82", EXPLICIT);
	is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_OK, "   C-STORE: %s", e.text);
	dicom_scu_close(s);
	got = received("1.2.826.0.1.82", &n);
	ok(got != NULL && memmem(got, n, "\x10\0\x10\0\x08\0\0\0Nobody  ", 16) != NULL,
	   "   it arrived in implicit VR, values as they were");
	stop_peer();
}

static void fails(const char *what, const struct dicom_peer *peer, enum scu_failure want,
		  const char *text, int64_t least_ms, int64_t most_ms)
{
	struct err e = { "" };
	struct scu *s = NULL;
	int64_t t = clock_boot_ms();

	is_int(dicom_scu_open(peer, classes, 2, &s, &e), want, "%s: %s", what, e.text);
	t = clock_boot_ms() - t;
	ok(t >= least_ms && t <= most_ms, "   in time (%lld ms)", (long long)t);
	ok(strstr(e.text, text) != NULL && strncmp(e.text, "127.0.0.1:", 10) == 0,
	   "   the line names the peer and says \"%s\"", text);
	ok(s == NULL, "   no association");
}

static void test_no_association(void)
{
	struct dicom_peer peer;
	uint16_t port;
	int sock, waiting[4];

	sock = listen_on(&port, 1);
	(void)close(sock);
	peer = peer_at(port);
	fails("nobody listens", &peer, SCU_UNREACHABLE, "Connection refused", 0, 6000);

	sock = listen_on(&port, 8);
	peer = peer_at(port);
	peer.connect_seconds = peer.response_seconds = 1;
	fails("a peer that says nothing", &peer, SCU_UNREACHABLE, "no answer within 1 s", 900, 6000);
	(void)close(sock);

	/* A full backlog: the connection is never made. */
	sock = listen_on(&port, 0);
	peer.port = port;
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(waiting[i], (struct sockaddr *)&a, sizeof(a));
	}
	fails("no connection", &peer, SCU_UNREACHABLE, "check host and port", 900, 6000);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++)
		(void)close(waiting[i]);
	(void)close(sock);

	peer = start_storescp("--refuse", NULL);
	fails("storescp --refuse", &peer, SCU_REJECTED_PERMANENT, "rejected", 0, 6000);
	stop_peer();

	peer = start_own("OTHER", false);
	fails("another called AE title", &peer, SCU_REJECTED_PERMANENT, "check ae_title of this peer", 0,
	      6000);
	stop_peer();

	reject_to_give = (struct scp_reject){ 1, 1, 3 };
	peer = start_own("ARCHIVE", false);
	fails("our AE title is unknown", &peer, SCU_REJECTED_PERMANENT, "CARZEROD", 0, 6000);
	stop_peer();
	reject_to_give = (struct scp_reject){ 2, 3, 2 };
	peer = start_own("ARCHIVE", false);
	fails("a local limit", &peer, SCU_REJECTED_TRANSIENT, "local limit", 0, 6000);
	stop_peer();
	reject_to_give = (struct scp_reject){ 0, 0, 0 };

	peer = start_own("ARCHIVE", true);
	{
		static const char *const sr_only[] = { SR };
		struct err e = { "" };
		struct scu *s = NULL;

		is_int(dicom_scu_open(&peer, sr_only, 1, &s, &e), SCU_NO_CONTEXT, "no class accepted: %s",
		       e.text);
	}
	stop_peer();
}

static void stores_badly(const char *what, const struct dicom_peer *peer, enum scu_failure want,
			 int want_status, const char *text)
{
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0;
	int64_t t;

	make_object(SR, "1.2.826.0.1.90", EXPLICIT);
	if (!ok(dicom_scu_open(peer, classes, 2, &s, &e) == SCU_OK, "%s: association", what))
		return;
	t = clock_boot_ms();
	is_int(dicom_scu_store(s, file, file_n, &status, &e), want, "   %s", e.text);
	t = clock_boot_ms() - t;
	ok(t < 6000, "   in time (%lld ms)", (long long)t);
	is_int(status, want_status, "   status");
	ok(strstr(e.text, text) != NULL, "   says \"%s\"", text);
	ok(strstr(e.text, "1.2.826") == NULL, "   and no UID");
	if (want == SCU_UNREACHABLE)
		is_int(dicom_scu_store(s, file, file_n, &status, &e), SCU_UNREACHABLE,
		       "   the next one fails at once: %s", e.text);
	dicom_scu_close(s);
}

static void test_not_stored(void)
{
	struct dicom_peer peer;

	peer = start_storescp("--abort-after", NULL);
	stores_badly("a peer that aborts", &peer, SCU_UNREACHABLE, 0, "aborted");
	stop_peer();
	peer = start_storescp("--abort-during", NULL);
	stores_badly("a peer that aborts in the middle", &peer, SCU_UNREACHABLE, 0, "C-STORE");
	stop_peer();
	peer = start_storescp("--sleep-during", "8");
	stores_badly("a peer that does not answer", &peer, SCU_UNREACHABLE, 0, "no answer within 2 s");
	stop_peer();

	status_to_give = 0xa702;
	peer = start_own("ARCHIVE", false);
	stores_badly("a full archive", &peer, SCU_STATUS, 0xa702, "out of resources");
	stop_peer();
	status_to_give = 0x0111;
	peer = start_own("ARCHIVE", false);
	stores_badly("a duplicate", &peer, SCU_STATUS, 0x0111, "already");
	stop_peer();
	status_to_give = 0xb007;
	peer = start_own("ARCHIVE", false);
	stores_badly("a warning", &peer, SCU_STATUS, 0xb007, "warning");
	stop_peer();
	status_to_give = 0xc123;
	peer = start_own("ARCHIVE", false);
	stores_badly("not understood", &peer, SCU_STATUS, 0xc123, "cannot understand");
	stop_peer();
}

static void clean_up(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while ((e = readdir(d)) != NULL)
		if (e->d_name[0] != '.')
			(void)unlinkat(dirfd(d), e->d_name, 0);
	(void)closedir(d);
	(void)rmdir(dir);
}

static void echoes(const char *name, const struct dicom_peer *peer)
{
	struct scu *s = NULL;
	struct err e = { "" };
	uint16_t status = 1;

	is_int(dicom_scu_open(peer, NULL, 0, &s, &e), SCU_OK, "%s: association (%s)", name, e.text);
	if (s == NULL)
		return;
	is_int(dicom_scu_echo(s, &status, &e), SCU_OK, "%s: C-ECHO", name);
	dicom_scu_close(s);
}

static void test_addresses(void)
{
	struct dicom_peer peer, second;
	struct err e = { "" };
	uint16_t port = 0;
	int sock = listen_on_v6(&port, 8);

	if (sock < 0) {
		ok(true, "IPv6 # SKIP this machine has none");
		return;
	}
	peer = start_own_at(sock, port, "ARCHIVE", false);
	(void)str_copy(peer.host, sizeof(peer.host), "::1");
	echoes("IPv6", &peer);
	is_int(dicom_scu_resolve(&peer, &e), 0, "resolved before");
	ok(strcmp(peer.address, "::1") == 0 && peer.n_where == 1, "to itself");
	echoes("IPv6, resolved", &peer);
	stop_peer();

	/* a name with two addresses, of which the first is dead */
	second = start_own("ARCHIVE", false);
	(void)str_copy(peer.host, sizeof(peer.host), "::1");
	peer.port = second.port; /* nobody listens there on ::1 */
	is_int(dicom_scu_resolve(&peer, &e), 0, "one address");
	is_int(dicom_scu_resolve(&second, &e), 0, "and another");
	peer.where[peer.n_where++] = second.where[0];
	echoes("the second address", &peer);
	stop_peer();
}

int main(void)
{
	struct err e;

	log_open("test_scu", LOG_LEVEL_ERROR);
	(void)signal(SIGPIPE, SIG_IGN);
	if (mkdtemp(dir) == NULL)
		return 1;
	if (dicom_init(false, &e) < 0)
		plan_skip_all(e.text);
	test_storing();
	test_implicit_only();
	test_no_association();
	test_not_stored();
	test_addresses();
	clean_up();
	return done();
}
