/* fault.h: what the fault programs share: disks that lose power, a node, senders that remember every
 * answer, and the comparison of what was promised with what is there.
 *
 * The node is the real carzerod with its real children, in a process group of its own.  The senders are
 * processes of ours that speak DICOM by hand (a data set arrives byte for byte as we know it, so its
 * digest is known beforehand) and write each C-STORE status that they get into a file on another file
 * system than the node's.  The state directory holds the database, spool/ in it is a mount point of
 * another image: otherwise the fsync of the database would commit what spool.c forgot to sync
 * (RELIABILITY.md).
 *
 * A power cut is the shutdown ioctl of ext4 and xfs with NOLOGFLUSH: what was not synced is gone.  What
 * the node answers while it lasts does not count as an answer.
 *
 * Needs root and loop devices for the disks; the rest runs without.
 */
#ifndef CARZEROD_TESTS_FAULT_H
#define CARZEROD_TESTS_FAULT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/digest.h"
#include "base/failpoint.h"
#include "base/str.h"

#define FAULT_SENDERS_MAX 16
#define FAULT_SENDER_SPAN 1000000u /* image numbers of one sender */

/* ---- the program ---- */
/* Makes a work folder of its own; ends all that was started when the program ends. */
void fault_begin(const char *name);
/* Ends everything; lines of the node's log with a name, id, birth date or accession number that was planted in the images. */
int fault_planted(void);
/* Between two scenarios: ends everything, state, disks, archive and answers are gone. */
void fault_reset(void);
bool fault_long(void); /* CHECK_LONG=yes */
/* A number of the environment, else one of the two. */
unsigned fault_number(const char *name, unsigned usual, unsigned in_long);
const char *fault_work(void);
bool fault_have_disks(void); /* root, and a loop device */
bool fault_have_xfs(void);   /* its tools */
/* xorshift, from FAULT_SEED or the clock; the seed is printed */
uint32_t fault_random(uint32_t below);
int64_t fault_now_ms(void); /* CLOCK_MONOTONIC: never moved by a test */
void fault_pause(unsigned ms);
int fault_run(const char *const *argv); /* to its end, silent; its exit code */
/* Until `true_` holds or the time is over. */
bool fault_wait(unsigned ms, bool (*holds)(void));

/* ---- disks ---- */
struct disk;
/* Makes an image and mounts it at `at` (made when missing). `type`: "ext4" or "xfs". */
struct disk *disk_new(const char *type, const char *at, unsigned mebibytes);
void disk_cut(struct disk *d);     /* the power goes; what is mounted answers EIO from now on */
void disk_remount(struct disk *d); /* nobody may have a file open */
void disk_free(struct disk *d);    /* NULL allowed */

/* ---- failpoints ---- */
#ifdef WITH_FAILPOINTS
extern struct failpoints *fault_points;
/* Nodes started from now on share the places with us. */
void fault_arm_nothing(void);
struct failpoint_place *fault_arm(const char *name, enum failpoint_action action, int32_t argument, uint32_t at);
void fault_disarm(void); /* every place only counts, from 0 */
#endif

/* ---- the node ---- */
struct node_setup {
	const char *type;     /* of the disks: "ext4", "xfs", or NULL: plain folders */
	unsigned mebibytes;   /* 0: 1024 */
	const char *extra;    /* more lines of configuration */
	const char *storage;  /* more members of `storage` */
	const char *limits;   /* more members of `limits` */
	const char *routes;   /* NULL: every report goes to ARCHIVE */
	const char *const *wrap; /* NULL, or what goes before the command, NULL at its end */
};
void node_setup(const struct node_setup *setup);
void node_start(void);
bool node_wait_ready(unsigned ms); /* it listens; false: it ended or the time is over */
bool node_wait_model(unsigned ms);
bool node_running(void);
void node_kill(void);              /* SIGKILL to the process group, and all of it reaped */
void node_power_cut(void);         /* both disks, then node_kill(), then both come back */
int node_stop(unsigned ms);        /* SIGTERM: exit code, 128 + signal, or -1 when the time is over (killed then) */
pid_t node_pid(void);
uint16_t node_port(void), archive_port(void);
pid_t node_child(const char *program, unsigned nth); /* a process of the node by its name; 0 */
const char *node_state(void);
bool node_log_has(const char *text);
unsigned node_log_count(const char *text);

/* ---- images ---- */
struct image {
	char sop[UID_MAX], study[UID_MAX];
	uint8_t digest[DIGEST_SIZE]; /* of the data set */
	uint8_t *data_set;           /* malloc'd */
	size_t n;
};
void image_make(uint32_t number, struct image *ret); /* one study each */
void image_free(struct image *i);

/* ---- senders ---- */
int sender_open(const char *calling);        /* an open association, or -1; -2: rejected for now */
int sender_store(int sock, uint32_t number); /* the status, or -1: the association is lost */
int sender_store_half(int sock, uint32_t number); /* begins, and stops in the middle of a PDU */
void sender_close(int sock);
/* A process that sends FAULT_SENDER_SPAN * which + 0, 1, ... for ever, `per` images an association, each
 * until it is acknowledged. */
void senders_start(unsigned n, unsigned per, unsigned pause_ms);
void senders_stop(void);
/* A process that sends one image until it is acknowledged; the images are taken into account like those of
 * senders_start(). */
pid_t sender_until(uint32_t number);
bool sender_done(pid_t pid, unsigned ms); /* it ended, and well */
uint64_t senders_answers(void);         /* how many answers came so far */

/* ---- what was promised, and what is there ---- */
struct reckoning {
	uint64_t acknowledged, refused; /* answers 0000H and others */
	uint64_t lost;                  /* acknowledged without row, file, or with other bytes */
	uint64_t unreported, twice;     /* acknowledged studies without a report, or with several */
	uint64_t quarantined;
	uint64_t archived, archived_twice, archived_other; /* in the archive: studies, in several files, other bytes */
};
/* Looks at what was acknowledged since the last call; the node may be running. */
void reckon_new(struct reckoning *r);
/* Looks at everything again, reports included. */
void reckon_all(struct reckoning *r);
bool node_at_rest(void); /* nothing waits, is worked on, or is to be sent */

/* ---- an archive ---- */
void archive_start(void); /* storescp of DCMTK, into WORK/archive */
uint16_t archive_start_behind(void); /* the same on another port than the node is told */
void archive_stop(void);
/* How many files in the archive are of this image's study; *ret_equal: each holds the data set of the one report that
 * the node made for it, byte for byte. */
unsigned archive_count(uint32_t number, bool *ret_equal);
/* The instance's row, or false. */
struct instance;
bool node_instance(uint32_t number, struct instance *ret);

#endif
