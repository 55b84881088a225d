/* calls.c: every call of a one-image run that changes a disk fails, or is the last that is made.
 *
 * The image is sent once with one call failing: EIO, ENOSPC, EMFILE or ENOMEM from the n-th open, write,
 * fsync or rename of the whole node on its file systems.  Allowed: 0000H, A7xx, a rejected or lost
 * association; a node that ends, ends by an exit code of its own and is started again, as systemd
 * does.  Then the sender repeats, and in the end the image is there, with one report in the archive.
 *
 * And at each of these calls the node is killed, or loses power.
 */
#include "tests/fault/fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap.h"

#include "tests/fault/shim.h"

static struct shim *shim;
static char library[64];
static uint32_t number;
static unsigned statuses[4]; /* 0000H, A7xx, others, none */
static unsigned points, ends, other_codes, bad, missed;

static const char *const kinds[] = { "open", "write", "fsync", "rename", "unlink", "call" };

static void remove_library(void)
{
	(void)unlink(library);
}

static void share(void)
{
	static char text[16], preload[1200];
	const char *folder = getenv("builddir");
	int id = shmget(IPC_PRIVATE, sizeof(*shim), IPC_CREAT | 0600);

	(void)snprintf(library, sizeof(library), "/run/carzerod-fault-%d.so", (int)getpid());
	(void)atexit(remove_library);
	shim = shmat(id, NULL, 0);
	(void)shmctl(id, IPC_RMID, NULL);
	(void)snprintf(text, sizeof(text), "%d", id);
	(void)setenv("FAULT_SHIM", text, 1);
	/* in a folder of the system's: Landlock lets helpers read nowhere else */
	(void)snprintf(preload, sizeof(preload), "%s/tests/fault/shim.so", folder != NULL ? folder : ".");
	is_int(fault_run((const char *const[]){ "cp", preload, library, NULL }), 0, "the library is where every process may read it");
	(void)snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", library);
	{
		static const char *wrap[3];

		wrap[0] = "env";
		wrap[1] = preload;
		node_setup(&(struct node_setup){ .type = "ext4", .wrap = wrap });
	}
	(void)snprintf(shim->prefix, sizeof(shim->prefix), "%s/", node_state());
}

/* The device of a loop image is another one after a power cut. */
static void look(void)
{
	char spool[700];
	struct stat st;

	if (stat(node_state(), &st) == 0)
		shim->dev[0] = st.st_dev;
	(void)snprintf(spool, sizeof(spool), "%s/spool", node_state());
	if (stat(spool, &st) == 0)
		shim->dev[1] = st.st_dev;
}

static void arm(enum shim_action action, unsigned kind, uint32_t at, int error)
{
	shim->on = 0;
	memset(shim->passed, 0, sizeof(shim->passed));
	shim->action = action;
	shim->kind = kind;
	shim->at = at;
	shim->error = error;
	shim->hit = 0;
	look();
	shim->on = 1;
}

static bool settled_or_hit(void)
{
	return shim->hit > 0 || !node_running() || node_at_rest();
}

static bool struck(void)
{
	return shim->hit > 0;
}

static bool ensure_node(void)
{
	int code;

	if (node_running())
		return true;
	code = node_stop(1);
	ends++;
	if (code < 64 || code > 78) {
		other_codes++;
		printf("# the node ended with %d\n", code);
	}
	node_start();
	return node_wait_ready(20000);
}

static void judge(const char *what, pid_t pid)
{
	struct reckoning r = { 0 };
	int64_t end = fault_now_ms() + 30000;
	bool equal = false, fine;
	unsigned n;

	while (waitpid(pid, NULL, WNOHANG) == 0 && fault_now_ms() < end) {
		(void)ensure_node();
		fault_pause(5);
	}
	fine = fault_now_ms() < end;
	if (!fine)
		(void)sender_done(pid, 0);
	for (unsigned i = 0; i < 4500 && fine && !node_at_rest(); i++) {
		(void)ensure_node(); /* a later call of the same image may have ended it */
		fault_pause(20);
	}
	n = archive_count(number, &equal);
	reckon_new(&r);
	if (fine && n == 1 && equal && r.lost == 0)
		return;
	bad++;
	printf("# %s: image %u: %s, %u reports in the archive%s, %llu lost\n", what, number, fine ? "acknowledged" : "not acknowledged",
	       n, equal ? "" : " (not equal)", (unsigned long long)r.lost);
}

static void count_status(int status)
{
	statuses[status == 0 ? 0 : status < 0 ? 3 : (status & 0xff00) == 0xa700 ? 1 : 2]++;
}

static void fail_at(unsigned kind, uint32_t at, int error)
{
	char what[100];
	int sock, status = -1;

	(void)snprintf(what, sizeof(what), "%s %u: %s", kinds[kind], at, strerrorname_np(error));
	number++;
	points++;
	arm(SHIM_FAIL, kind, at, error);
	sock = sender_open("MODALITY");
	if (sock >= 0)
		status = sender_store(sock, number);
	if (sock >= 0)
		sender_close(sock);
	count_status(status);
	if (status > 0 && (status & 0xff00) != 0xa700)
		printf("# %s: answered %04xH\n", what, (unsigned)status);
	if (status == 0) /* the failure may come later, on the image's way to the archive */
		(void)fault_wait(5000, settled_or_hit);
	fault_pause(20);
	shim->on = shim->hit == 0;
	(void)ensure_node();
	judge(what, sender_until(number));
	missed += shim->hit == 0;
	shim->on = 0;
}

static void die_at(uint32_t at, bool cut)
{
	char what[100];
	pid_t pid;

	(void)snprintf(what, sizeof(what), "%s at call %u", cut ? "power cut" : "killed", at);
	number++;
	points++;
	arm(SHIM_STOP, SHIM_KINDS, at, 0);
	pid = sender_until(number);
	(void)fault_wait(3000, struck);
	missed += shim->hit == 0;
	if (cut)
		node_power_cut();
	else
		node_kill();
	shim->on = 0;
	shim->action = SHIM_COUNT;
	node_start();
	judge(what, pid);
}

int main(void)
{
	static const int errors[] = { EIO, ENOSPC, EMFILE, ENOMEM };
	unsigned all = fault_number("FAULT_ALL", 0, 1);
	uint32_t passed[SHIM_KINDS + 1];
	int64_t start;

	if (!fault_have_disks())
		plan_skip_all("power cuts need root and loop devices");
	fault_begin("tests/fault/calls");
	share();
	archive_start();
	node_start();
	if (!ok(node_wait_ready(20000) && node_wait_model(20000), "the node is ready"))
		return done();
	for (unsigned i = 0; i < 2; i++) { /* the second run has no first-time work */
		number++;
		arm(SHIM_COUNT, SHIM_KINDS, 0, 0);
		judge("without faults", sender_until(number));
	}
	shim->on = 0;
	memcpy(passed, shim->passed, sizeof(passed));
	is_int(bad, 0, "a run without faults");
	ok(!node_log_has("cannot be preloaded"), "every process of the node is watched");
	ok(passed[SHIM_WRITE] > 5 && passed[SHIM_SYNC] > 5 && passed[SHIM_RENAME] >= 2 && passed[SHIM_OPEN] > 2, "its calls are seen");
	printf("# one image: %u opens, %u writes, %u fsyncs, %u renames, %u unlinks\n", passed[SHIM_OPEN], passed[SHIM_WRITE],
	       passed[SHIM_SYNC], passed[SHIM_RENAME], passed[SHIM_REMOVE]);
	start = fault_now_ms();
	for (unsigned kind = SHIM_OPEN; kind <= SHIM_RENAME; kind++)
		for (uint32_t at = 1; at <= passed[kind]; at++)
			for (unsigned e = 0; e < 4; e++)
				if (all || fault_random(passed[SHIM_KINDS] * 4) < 6)
					fail_at(kind, at, errors[e]);
	printf("# failing calls: %u points in %.1f s; first answer 0000H %u, A7xx %u, another status %u, none %u; the node ended %u times; "
	       "%u points not reached\n",
	       points, (double)(fault_now_ms() - start) / 1000, statuses[0], statuses[1], statuses[2], statuses[3], ends, missed);
	is_int(bad, 0, "after every failing call: nothing lost, one report in the archive");
	is_int(statuses[2], 0, "no answer but 0000H and A7xx");
	is_int(other_codes, 0, "a node that ended, ended by a code of its own");
	points = bad = missed = 0;
	start = fault_now_ms();
	for (uint32_t at = 1; at <= passed[SHIM_KINDS]; at++)
		for (unsigned cut = 0; cut < 2; cut++)
			if (all || fault_random(passed[SHIM_KINDS] * 2) < 5)
				die_at(at, cut);
	printf("# deaths at a call: %u points in %.1f s, %u not reached\n", points, (double)(fault_now_ms() - start) / 1000, missed);
	is_int(bad, 0, "after every death at a call: nothing lost, one report in the archive");
	is_int(node_stop(20000), 0, "SIGTERM ends it with 0");
	is_int(fault_planted(), 0, "no planted name, id, birth date or accession number in the node's log");
	return done();
}
