/* points.c: the node dies at every arrow of the state machine, in whichever process draws it.
 *
 * One image is sent; the process that passes the place stops there for good, then the whole group is
 * killed, or the disks lose power.  The node starts again; the sender repeats until it is acknowledged.
 * In the end the archive must hold exactly one report of that study, with the bytes of the one report
 * that the node made.  The places are those that a run without faults passes: none can be forgotten.
 */
#include "tests/fault/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#define PLACES_MAX 128
#define SHORT_PLACES 6

static struct {
	char name[FAILPOINT_NAME_MAX];
	uint32_t passed;
} places[PLACES_MAX];
static unsigned n_places;
static struct failpoint_place *armed;
static uint32_t number;

static bool hit(void)
{
	return __atomic_load_n(&armed->hit, __ATOMIC_SEQ_CST) > 0;
}


static void learn_places(void)
{
	for (unsigned i = 0; i < FAILPOINT_PLACES && n_places < PLACES_MAX; i++) {
		const struct failpoint_place *p = &fault_points->place[i];
		unsigned k;

		if (p->state != FAILPOINT_SET)
			continue;
		for (k = 0; k < n_places && strcmp(places[k].name, p->name) != 0; k++)
			continue;
		if (k == n_places)
			(void)snprintf(places[n_places++].name, FAILPOINT_NAME_MAX, "%s", p->name);
		places[k].passed += p->passed;
	}
}

/* Sends the next image and waits until its report has arrived. */
static bool one_image(pid_t pid)
{
	return sender_done(pid, 30000) && fault_wait(60000, node_at_rest);
}

static void judge(const char *how)
{
	bool equal = false;
	unsigned n = archive_count(number, &equal);

	ok(n == 1 && equal, "%s: the archive has one report, with the node's bytes", how);
	if (n != 1 || !equal)
		printf("# image %u: %u reports in the archive%s\n", number, n, equal ? "" : ", not equal or not one in the node");
}

static void die_at(const char *name, uint32_t at, bool cut)
{
	char how[128];
	pid_t pid;

	(void)snprintf(how, sizeof(how), "%s at %s, passage %u", cut ? "cut" : "killed", name, at);
	fault_disarm();
	armed = fault_arm(name, FAILPOINT_HANG, 0, at);
	number++;
	pid = sender_until(number);
	if (!fault_wait(8000, hit)) { /* a place of the start: it is passed there only */
		node_kill();
		node_start();
		(void)fault_wait(10000, hit);
	}
	ok(hit(), "%s: it was there", how);
	if (cut)
		node_power_cut();
	else
		node_kill();
	armed->action = FAILPOINT_COUNT;
	(void)snprintf(armed->name, sizeof(armed->name), "used");
	node_start();
	ok(one_image(pid), "%s: acknowledged, and nothing waits", how);
	judge(how);
}

int main(void)
{
	unsigned all = fault_number("FAULT_ALL", 0, 1), deaths = 0;
	int64_t start;

	if (!fault_have_disks())
		plan_skip_all("power cuts need root and loop devices");
	fault_begin("tests/fault/points");
	node_setup(&(struct node_setup){ .type = "ext4" });
	archive_start();
	fault_arm_nothing();
	node_start();
	number = 1;
	ok(one_image(sender_until(number)), "a run without faults");
	judge("without faults");
	learn_places();
	start = fault_now_ms();
	for (unsigned i = 0; i < n_places; i++) {
		if (strcmp(places[i].name, "used") == 0)
			continue;
		/* the short form: some places, others every time */
		if (!all && fault_random(n_places) >= SHORT_PLACES)
			continue;
		for (uint32_t at = 1; at <= (all ? (places[i].passed < 3 ? places[i].passed : 3) : 1); at++) {
			die_at(places[i].name, at, fault_random(2) == 0);
			deaths++;
			if (all) {
				die_at(places[i].name, at, fault_random(2) == 0);
				deaths++;
			}
		}
	}
	printf("# died at %u of %u places, %u deaths in %.1f s: one report of each study in the archive, bytes equal\n",
	       all ? n_places : SHORT_PLACES, n_places, deaths, (double)(fault_now_ms() - start) / 1000);
	is_int(node_stop(20000), 0, "SIGTERM ends it with 0");
	is_int(fault_planted(), 0, "no planted name, id, birth date or accession number in the node's log");
	return done();
}
