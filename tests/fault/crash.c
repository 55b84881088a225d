/* crash.c: kill -9 and power cuts at random moments, again and again.
 *
 * Senders never stop; the node dies, comes back, and after every return each image that was
 * acknowledged must have its row and its file with equal bytes.  When the dying ends, the node is left
 * alone until nothing waits: every acknowledged study must have exactly one report, and nobody lifted
 * a finger.
 *
 * Then deliberately broken variants of the node must lose something.  They test the test.
 */
#include "tests/fault/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"

#include "tests/tap.h"

#define SENDERS 3

#define BROKEN_MAX 60 /* deaths within which a broken node must have lost something */

static bool kills;

static void die_once(unsigned window_ms)
{
	/* one in eight dies while it starts: recovery is interrupted as well */
	if (fault_random(8) == 0)
		fault_pause(fault_random(120));
	else if (node_wait_ready(20000))
		fault_pause(fault_random(window_ms));
	if (kills)
		node_kill();
	else
		node_power_cut();
}

static void storm(const char *what, unsigned n, unsigned window_ms, struct reckoning *r)
{
	int64_t start = fault_now_ms();

	senders_start(SENDERS, 4, 10); /* slow enough for the backlog to be worked off in the end */
	for (unsigned i = 0; i < n; i++) {
		node_start();
		if (i > 0 && node_wait_ready(20000))
			reckon_new(r);
		die_once(window_ms);
	}
	printf("# %s: %u deaths in %.1f s, %llu ms each\n", what, n, (double)(fault_now_ms() - start) / 1000,
	       (unsigned long long)((fault_now_ms() - start) / (n > 0 ? n : 1)));
	fflush(stdout);
}

static void honest(const char *what, const char *type, bool by_kill, unsigned n)
{
	struct reckoning new = { 0 }, all = { 0 };

	fault_reset();
	kills = by_kill;
	node_setup(&(struct node_setup){ .type = type });
	archive_start();
	storm(what, n, 400, &new);
	senders_stop();
	is_int(new.lost, 0, "%s: no acknowledged image was missing after a return", what);
#ifdef WITH_FAILPOINTS
	fault_arm_nothing();
	fault_points->wall_ms = STORE_SUSPECT_MS; /* what was claimed at several deaths waits that long */
#endif
	node_start();
	if (!ok(node_wait_ready(20000), "%s: the node comes back", what))
		return;
	ok(fault_wait(200000 + 600 * n, node_at_rest), "%s: in the end nothing waits", what);
	reckon_all(&all);
	printf("# %s: N=%u acknowledged=%llu refused=%llu lost=%llu unreported=%llu reported-twice=%llu quarantined=%llu\n", what, n,
	       (unsigned long long)all.acknowledged, (unsigned long long)all.refused, (unsigned long long)all.lost,
	       (unsigned long long)all.unreported, (unsigned long long)all.twice, (unsigned long long)all.quarantined);
	ok(all.acknowledged > n / 2, "%s: images were acknowledged", what);
	is_int(all.lost, 0, "%s: every acknowledged image is there with equal bytes", what);
	is_int(all.unreported, 0, "%s: every acknowledged study is reported", what);
	is_int(all.twice, 0, "%s: none is reported twice", what);
	is_int(all.quarantined, 0, "%s: no image was blamed for a death of the node", what);
	is_int(node_stop(20000), 0, "%s: SIGTERM ends it with 0", what);
}

#ifdef WITH_FAILPOINTS
static void broken(const char *place, const char *what, const char *type)
{
	struct reckoning r = { 0 };
	unsigned i;

	fault_reset();
	node_setup(&(struct node_setup){ .type = type, .routes = "[]" });
	fault_arm_nothing();
	(void)fault_arm(place, FAILPOINT_DO_SKIP, 0, 0);
	/* or rows that were lost are made anew from the files: a second wall, which would hide a hole in the first */
	(void)fault_arm("recovery.adopt", FAILPOINT_DO_SKIP, 0, 0);
	senders_start(SENDERS, 4, 0);
	for (i = 0; i < BROKEN_MAX && r.lost == 0; i++) {
		node_start();
		if (node_wait_ready(20000)) {
			reckon_new(&r);
			fault_pause(50 + fault_random(150));
		}
		node_power_cut();
	}
	senders_stop();
	node_start();
	(void)node_wait_ready(20000);
	reckon_new(&r);
	node_kill();
	printf("# %s (%s): caught after %u power cuts, %llu of %llu acknowledged lost\n", what, type, i,
	       (unsigned long long)r.lost, (unsigned long long)r.acknowledged);
	ok(r.lost > 0, "a node %s loses images, and it is seen (%s)", what, type);
}
#endif

/* FAULT_SCENE=kill, ext4, xfs or broken: only that one. */
static bool chosen(const char *scene)
{
	const char *only = getenv("FAULT_SCENE");

	return only == NULL || strcmp(only, scene) == 0;
}

int main(void)
{
	unsigned n = fault_number("FAULT_N", 6, 1000);

	if (!fault_have_disks())
		plan_skip_all("power cuts need root and loop devices");
	fault_begin("tests/fault/crash");
	if (chosen("kill"))
		honest("kill -9", "ext4", true, n);
	if (chosen("ext4"))
		honest("power cut, ext4", "ext4", false, n);
	if (chosen("xfs") && fault_have_xfs())
		honest("power cut, xfs", "xfs", false, n);
	else if (chosen("xfs"))
		skip("mkfs.xfs is not installed");
#ifdef WITH_FAILPOINTS
	if (!chosen("broken"))
		return done();
	broken("scp.fsync", "without the fsync of the file", "ext4");
	broken("spool.sync", "without the fsync of the directories", "ext4");
	broken("store.full", "with synchronous=NORMAL", "ext4");
	broken("receive.answer", "that answers before the COMMIT", "ext4");
	if (fault_long() && fault_have_xfs()) {
		broken("scp.fsync", "without the fsync of the file", "xfs");
		broken("spool.sync", "without the fsync of the directories", "xfs");
		broken("store.full", "with synchronous=NORMAL", "xfs");
		broken("receive.answer", "that answers before the COMMIT", "xfs");
	}
#endif
	is_int(fault_planted(), 0, "no planted name, id, birth date or accession number in the node's log");
	return done();
}
