/* full.c: a real file system of 64 MiB is full, first the spool's, then the database's.
 *
 * Whatever comes is refused before or answered A7xx; the node does not end; when there is space again
 * it takes images by itself.
 */
#include "tests/fault/fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

static uint32_t number;
static char hog[800];

static bool archived(void)
{
	bool equal;

	return archive_count(number, &equal) == 1 && equal;
}

static void fill(const char *folder)
{
	static char block[65536];
	int fd;

	(void)snprintf(hog, sizeof(hog), "%s/hog", folder);
	fd = open(hog, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	memset(block, 1, sizeof(block));
	for (size_t n = sizeof(block); n > 0; n /= 2)
		while (write(fd, block, n) == (ssize_t)n)
			continue;
	(void)fsync(fd);
	(void)close(fd);
}

/* -2: rejected; -1: lost. */
static int once(void)
{
	int sock = sender_open("MODALITY"), status = sock;

	if (sock >= 0) {
		status = sender_store(sock, number);
		sender_close(sock);
	}
	return status;
}

static void full(const char *which, const char *folder, const char *storage)
{
	unsigned rejected = 0, a7 = 0, others = 0, taken = 0;
	int64_t start;
	pid_t pid, node;

	fault_reset();
	node_setup(&(struct node_setup){ .type = "ext4", .mebibytes = 64, .storage = storage });
	archive_start();
	node_start();
	node = node_pid();
	number++;
	if (!ok(sender_done(sender_until(number), 30000) && fault_wait(20000, archived), "%s: an image while there is space", which))
		return;
	fill(folder);
	for (unsigned i = 0; i < 30; i++) {
		int status;

		number++;
		status = once();
		rejected += status == -2;
		a7 += status > 0 && (status & 0xff00) == 0xa700;
		taken += status == 0;
		others += status == -1 || (status > 0 && (status & 0xff00) != 0xa700);
		if (i == 10)
			fault_pause(2500); /* by now it knows how little is left */
	}
	printf("# %s full: of 30 images %u rejected, %u answered A7xx, %u taken, %u otherwise\n", which, rejected, a7, taken, others);
	is_int(others, 0, "%s full: refused early, or A7xx", which);
	ok(rejected + a7 > 0, "%s full: and it was full", which);
	ok(node_running() && node_pid() == node, "%s full: the node lives", which);
	(void)unlink(hog);
	start = fault_now_ms();
	number++;
	pid = sender_until(number);
	ok(sender_done(pid, 30000), "%s: with space again images are taken", which);
	printf("# %s: taken again after %lld ms\n", which, (long long)(fault_now_ms() - start));
	ok(fault_wait(60000, archived), "%s: and reported", which);
	is_int(node_stop(20000), 0, "%s: SIGTERM ends it with 0", which);
}

int main(void)
{
	char spool[700];

	if (!fault_have_disks())
		plan_skip_all("a full disk needs root and loop devices");
	fault_begin("tests/fault/full");
	(void)snprintf(spool, sizeof(spool), "%s/spool", node_state());
	full("spool", spool, "ballast: 2 MiB");
	full("database", node_state(), "ballast: 2 MiB");
	is_int(fault_planted(), 0, "no planted name, id, birth date or accession number in the node's log");
	return done();
}
