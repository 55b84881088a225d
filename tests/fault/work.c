/* work.c: workers that crash or hang, a service manager that wants the node to end, clocks that jump,
 * and an archive that is away for hours.
 */
#include "tests/fault/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#include "store/store.h"

#include "tests/tap.h"

static uint32_t number;
static struct failpoint_place *armed;

static bool hit(void)
{
	return __atomic_load_n(&armed->hit, __ATOMIC_SEQ_CST) > 0;
}

static bool archived(void)
{
	bool equal;

	return archive_count(number, &equal) == 1 && equal;
}

/* ms from the first byte sent until the report is in the archive, or -1. */
static int64_t latency(void)
{
	int64_t start = fault_now_ms();

	number++;
	return sender_done(sender_until(number), 20000) && fault_wait(30000, archived) ? fault_now_ms() - start : -1;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Of n images, one after the other. */
static bool latencies(unsigned n, int64_t *ret_median, int64_t *ret_p99)
{
	int64_t *ms = xcalloc(n, sizeof(*ms));
	bool all = true;

	for (unsigned i = 0; i < n; i++) {
		ms[i] = latency();
		all &= ms[i] >= 0;
	}
	qsort(ms, n, sizeof(*ms), by_value);
	*ret_median = ms[n / 2];
	*ret_p99 = ms[n * 99 / 100 < n ? n * 99 / 100 : n - 1];
	free(ms);
	return all;
}

static uint32_t of_interest;
static bool quarantined(void)
{
	struct instance in;

	return node_instance(of_interest, &in) && in.state == INSTANCE_QUARANTINED;
}

static bool scored(void)
{
	struct instance in;

	return node_instance(of_interest, &in) && in.outcome == OUTCOME_SCORED;
}

/* ---- poison ------------------------------------------------------------------------------------------ */

static void poison(unsigned n)
{
	int64_t median = 0, p99 = 0, median_with = 0, p99_with = 0;
	struct failpoint_place *p;
	struct instance in = { 0 };
	struct image image;

	ok(latencies(n, &median, &p99), "images are reported while there is no poison");
	of_interest = 500000;
	image_make(of_interest, &image);
	p = fault_arm("image.decode", FAILPOINT_COUNT, 0, 0);
	memcpy(p->digest, image.digest, DIGEST_SIZE);
	p->about = 1;
	p->action = FAILPOINT_CRASH;
	ok(sender_done(sender_until(of_interest), 10000), "an image that crashes its decoder is acknowledged");
	ok(latencies(n, &median_with, &p99_with), "others are reported meanwhile");
	ok(fault_wait(60000, quarantined), "it is quarantined");
	(void)node_instance(of_interest, &in);
	is_int(p->hit, 3, "after three tries");
	is_int(in.attempt, 3, "which were counted");
	ok(strstr(in.why, "signal 11") != NULL, "and the reason names the signal");
	printf("# poison: \"%s\"; others' latency median %lld ms, p99 %lld ms, without it %lld and %lld ms (n=%u)\n", in.why,
	       (long long)median_with, (long long)p99_with, (long long)median, (long long)p99, n);
	/* generous for a busy machine; a queue behind the poison would cost seconds */
	ok(p99_with < 3 * p99 + 500, "others' p99 latency is what it was");
	image_free(&image);
}

static void hang(const char *place, const char *what, const char *log)
{
	int64_t start = fault_now_ms();
	unsigned before = node_log_count(log);

	fault_disarm();
	armed = fault_arm(place, FAILPOINT_HANG, 0, 1);
	of_interest = ++number;
	ok(sender_done(sender_until(number), 10000) && fault_wait(10000, hit), "%s hangs", what);
	ok(fault_wait(30000, scored), "it is killed at its deadline, and the image is scored in the next attempt");
	printf("# hang of %s: %lld ms until it was scored all the same\n", what, (long long)(fault_now_ms() - start));
	ok(node_log_count(log) > before, "the log says so");
	ok(fault_wait(20000, archived), "and reported once");
}

/* ---- SIGTERM -------------------------------------------------------------------------------------------- */

static void stop_and_come_back(const char *when)
{
	int64_t start = fault_now_ms();
	int code = node_stop(20000);

	printf("# SIGTERM %s: exit %d after %lld ms\n", when, code, (long long)(fault_now_ms() - start));
	is_int(code, 0, "SIGTERM %s: exit 0", when);
	fault_disarm();
	node_start();
	ok(node_wait_ready(20000), "it comes back");
}

static void sigterm(void)
{
	struct instance in = { 0 };
	bool equal = false;
	pid_t pid;
	int sock;

	fault_disarm();
	armed = fault_arm("infer.score", FAILPOINT_HANG, 0, 1);
	of_interest = ++number;
	ok(sender_done(sender_until(number), 10000) && fault_wait(10000, hit), "an image is being scored");
	stop_and_come_back("in inference");
	ok(fault_wait(20000, archived), "its report comes after the restart");
	(void)node_instance(number, &in);
	is_int(in.attempt, 1, "the interrupted attempt did not count");

	sock = sender_open("MODALITY");
	ok(sock >= 0 && sender_store_half(sock, number + 1) == 0, "an image is half received");
	stop_and_come_back("in a PDU");
	(void)close(sock);
	number++;
	ok(sender_done(sender_until(number), 10000) && fault_wait(20000, archived), "it is sent again and reported");

	fault_disarm();
	armed = fault_arm("send.opened", FAILPOINT_HANG, 0, 1);
	number++;
	pid = sender_until(number);
	ok(sender_done(pid, 10000) && fault_wait(20000, hit), "a report is being sent");
	stop_and_come_back("in send");
	ok(fault_wait(20000, archived), "it is delivered after the restart");
	is_int(archive_count(number, &equal), 1, "once");
}

/* ---- the watchdog ------------------------------------------------------------------------------------------ */

static uint32_t *beats;
static char notify_path[64];
static pid_t listener;

/* The service manager's end: always read, or the node would wait for it. */
static void watch(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[4096];
	ssize_t r;

	(void)snprintf(notify_path, sizeof(notify_path), "/tmp/carzerod-fault-%d", (int)getpid());
	(void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", notify_path);
	(void)unlink(notify_path);
	beats = mmap(NULL, sizeof(*beats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sock < 0 || bind(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return;
	(void)setenv("NOTIFY_SOCKET", notify_path, 1);
	(void)setenv("WATCHDOG_USEC", "1500000", 1);
	listener = fork();
	if (listener == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while ((r = recv(sock, text, sizeof(text) - 1, 0)) > 0) {
			text[r] = '\0';
			*beats += strstr(text, "WATCHDOG=1") != NULL;
		}
		_exit(0);
	}
	(void)close(sock);
}

static unsigned heartbeats(unsigned ms)
{
	uint32_t before = __atomic_load_n(beats, __ATOMIC_SEQ_CST);

	fault_pause(ms);
	return __atomic_load_n(beats, __ATOMIC_SEQ_CST) - before;
}

static void watchdog(void)
{
	pid_t infer;

	ok(heartbeats(3000) > 0, "the service manager hears a heartbeat");
	infer = node_child("carzerod-infer", 0);
	ok(infer > 0 && kill(infer, SIGSTOP) == 0, "the inference process is stopped");
	of_interest = ++number;
	ok(sender_done(sender_until(number), 10000), "an image comes");
	ok(heartbeats(1500) > 0, "the keeper lives on");
	ok(fault_wait(30000, archived), "the stopped process is killed at its deadline, and the image reported");
	ok(kill(node_pid(), SIGSTOP) == 0, "the keeper is stopped");
	(void)heartbeats(100); /* what was on its way */
	is_int(heartbeats(2500), 0, "no heartbeat: the service manager would act");
	(void)kill(node_pid(), SIGCONT);
	ok(heartbeats(3000) > 0, "the heartbeat comes back with it");
}

/* ---- an archive behind a door ----------------------------------------------------------------------------- */

static struct door {
	uint32_t open;
	uint32_t came, now, most; /* connections; at one time */
} *door;

#define DOOR_MAX 16

static void forward(int from, int to, bool *gone)
{
	char data[16384];
	ssize_t n = recv(from, data, sizeof(data), 0);

	if (n <= 0 || send(to, data, (size_t)n, MSG_NOSIGNAL) != n)
		*gone = true;
}

static int socket_on(uint16_t port, bool server)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (server ? bind(s, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(s, 64) < 0
		   : connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		(void)close(s);
		return -1;
	}
	return s;
}

/* Counts who comes; closed, everybody is turned away at once. */
static void keep_door(uint16_t port, uint16_t behind) __attribute__((noreturn));
static void keep_door(uint16_t port, uint16_t behind)
{
	struct pollfd p[1 + 2 * DOOR_MAX];
	nfds_t n = 1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGTERM, SIG_DFL);
	p[0] = (struct pollfd){ .fd = socket_on(port, true), .events = POLLIN };
	if (p[0].fd < 0)
		_exit(1);
	for (;;) {
		(void)poll(p, n, -1);
		for (nfds_t i = 1; i < n; i += 2) {
			bool gone = false;

			if (p[i].revents != 0)
				forward(p[i].fd, p[i + 1].fd, &gone);
			if (p[i + 1].revents != 0)
				forward(p[i + 1].fd, p[i].fd, &gone);
			if (!gone)
				continue;
			(void)close(p[i].fd);
			(void)close(p[i + 1].fd);
			p[i] = p[n - 2];
			p[i + 1] = p[n - 1];
			n -= 2;
			door->now--;
			break;
		}
		if (p[0].revents != 0) {
			int in = accept4(p[0].fd, NULL, NULL, SOCK_CLOEXEC), out = -1;

			door->came++;
			if (door->open && n < 1 + 2 * DOOR_MAX)
				out = socket_on(behind, false);
			if (out < 0) {
				(void)close(in);
				continue;
			}
			p[n++] = (struct pollfd){ .fd = in, .events = POLLIN };
			p[n++] = (struct pollfd){ .fd = out, .events = POLLIN };
			if (++door->now > door->most)
				door->most = door->now;
		}
	}
}

/* The keeper sleeps by the true clock: a connection wakes it. */
static void pass_time(int64_t ms)
{
	int sock;

	fault_points->wall_ms += ms;
	fault_points->boot_ms += ms;
	sock = sender_open("MODALITY");
	if (sock >= 0)
		sender_close(sock);
}

static bool all_archived(uint32_t from, uint32_t to)
{
	bool equal;

	for (uint32_t i = from; i <= to; i++)
		if (archive_count(i, &equal) != 1 || !equal)
			return false;
	return true;
}

static void archive_away(unsigned hours, unsigned n)
{
	uint32_t first = number + 1;
	unsigned probes, minutes = fault_long() ? 1 : 5, steps = hours * 60 / minutes;
	int64_t start;
	bool acknowledged = true;

	fault_disarm();
	door->open = 0;
	door->came = 0;
	for (unsigned i = 0; i < n; i++)
		acknowledged &= sender_done(sender_until(++number), 10000);
	ok(acknowledged, "%u images are acknowledged while the archive is away", n);
	for (unsigned i = 0; i < steps; i++) {
		pass_time(60000 * minutes);
		fault_pause(15);
	}
	probes = door->came;
	ok(probes > 0 && probes <= 2 * steps, "for %u hours it is asked at most about once a minute", hours);
	door->came = door->most = 0;
	door->open = 1;
	start = fault_now_ms();
	for (unsigned i = 0; i < 100 && !all_archived(first, number); i++) {
		if (i % 10 == 0)
			pass_time(30000);
		fault_pause(100);
	}
	ok(all_archived(first, number), "then every report is there, once, with equal bytes");
	printf("# away for %u h of its clock: %u probes; back: %u of %u delivered in %.1f s over %u associations, at most %u at a time\n",
	       hours, probes, number + 1 - first, n, (double)(fault_now_ms() - start) / 1000, door->came, door->most);
	ok(door->most <= 2, "over at most two associations at a time");
	ok(door->came <= 4, "and no storm of them");
}

static void jump(int64_t ms, const char *how)
{
	int64_t took;

	fault_points->wall_ms += ms;
	took = latency();
	printf("# clock %s: the next image was reported and delivered after %lld ms\n", how, (long long)took);
	ok(took >= 0 && took < 15000, "clock %s: nothing stalls", how);
}

/* With something that waits for a moment which the clock has just left behind it. */
static void jump_while_waiting(int64_t ms, const char *how)
{
	uint32_t waiting;

	door->open = 0;
	waiting = ++number;
	ok(sender_done(sender_until(number), 10000), "an image whose report cannot be delivered yet");
	fault_pause(1500);
	fault_points->wall_ms += ms;
	pass_time(0);
	door->open = 1;
	for (unsigned i = 0; i < 150 && !all_archived(waiting, waiting); i++) {
		if (i % 10 == 0)
			pass_time(10000);
		fault_pause(100);
	}
	ok(all_archived(waiting, waiting), "clock %s: what waited is delivered", how);
}

int main(void)
{
	pid_t keeper_of_door;
	uint16_t behind;

	fault_begin("tests/fault/work");
	watch();
	fault_arm_nothing();
	door = mmap(NULL, sizeof(*door), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	node_setup(&(struct node_setup){ .limits = "image_seconds: 2, infer_seconds: 2" });
	behind = archive_start_behind();
	door->open = 1;
	keeper_of_door = fork();
	if (keeper_of_door == 0)
		keep_door(archive_port(), behind);
	node_start();
	ok(node_wait_ready(20000) && node_wait_model(20000), "the node is ready");
	if (!ok(latency() >= 0, "an image is reported and delivered"))
		return done();
	poison(fault_number("FAULT_N", 12, 100));
	hang("infer.score", "the inference process", "inference overdue");
	hang("image.decode", "a decoder", "longer than limits.image_seconds");
	sigterm();
	watchdog();
	archive_away(6, fault_number("FAULT_N", 12, 100));
	jump(-3600 * 1000ll, "back by an hour");
	jump_while_waiting(-3600 * 1000ll, "back by an hour");
	jump(10ll * 365 * 86400 * 1000, "forward by ten years");
	jump_while_waiting(10ll * 365 * 86400 * 1000, "forward by ten years");
	is_int(node_stop(20000), 0, "SIGTERM ends it with 0");
	(void)kill(keeper_of_door, SIGKILL);
	(void)waitpid(keeper_of_door, NULL, 0);
	is_int(fault_planted(), 0, "no planted name, id, birth date or accession number in the node's log");
	(void)kill(listener, SIGKILL);
	(void)waitpid(listener, NULL, 0);
	(void)unlink(notify_path);
	return done();
}
