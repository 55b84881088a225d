/* sim.c: the keeper in one process with a world that is drawn from a seed.
 *
 * The real keeper (keeper.c and all its rooms, spool.c, the store on SQLite) runs turn after turn; what
 * is simulated is everything that it meets: both clocks, poll(), processes (helper.c, waitpid, kill),
 * chance (getrandom), and what a power cut leaves of renames and removals that no fsync of a folder
 * covered.  Helpers answer late, wrongly, never, or die; peers send and repeat; archives refuse.  The
 * node dies at any failpoint, with or without its power, and starts again.
 *
 * After each turn: what was acknowledged has its row and its file; every claim in the store is held by
 * exactly one job; deliveries never grow fewer; bytes under a UID never change; nobody reports the
 * same inputs twice; a routine report that is due sees at most three others go to its destination before one of its kind, one of
 * the slow lane fifteen.  When the faults stop, everything comes to its end.  The same seed, the same run.
 *
 * A mutant that forgets the fsync of folders must be caught.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- what is replaced ------------------------------------------------------------------------------- */

#define clock_wall_ms clock_real_wall_ms
#define clock_boot_ms clock_real_boot_ms
#include "base/clock.c"
#undef clock_wall_ms
#undef clock_boot_ms
int64_t clock_wall_ms(void);
int64_t clock_boot_ms(void);
#define fatal fatal_really
#include "base/log.c"
#undef fatal
void fatal(int exit_code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

#include "daemon/keeper.c"

#include "base/fdio.h"

#include "store/store-private.h"

#include "dicom/scu.h"

#include "tests/tap.h"

#define EPOCH_STEPS 3000
#define DRAIN_STEPS 60000
#define MODALITIES 4
#define STUDY_IMAGES 3
#define OBJECTS_MAX 4096
#define HELPERS_MAX 64
#define ASSOCIATIONS_MAX MODALITIES
#define ACTIONS_MAX 512
#define OPS_MAX 4096
#define SIDE 16

enum mutant { NO_MUTANT, FOLDERS_UNSYNCED };

static uint64_t seed, random_state;
static int64_t wall, boot;
static bool faults;
static enum mutant mutant;
static jmp_buf died;
static bool running; /* inside the keeper: a failpoint may end it */
static struct keeper *k;
static char folder[300], config_path[340];
static uint64_t steps, crashes, cuts, fatals, helper_deaths;
static char broken[300]; /* the first invariant that did not hold */

static uint32_t chance(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state >> 20) % below);
}

static bool one_in(uint32_t n)
{
	return faults && chance(n) == 0;
}

static void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void violated(const char *format, ...)
{
	va_list ap;

	if (broken[0] != '\0')
		return;
	va_start(ap, format);
	(void)vsnprintf(broken, sizeof(broken), format, ap);
	va_end(ap);
}

int64_t clock_wall_ms(void)
{
	return wall;
}

int64_t clock_boot_ms(void)
{
	return boot;
}

static void pass(int64_t ms)
{
	wall += ms;
	boot += ms;
}

void fatal(int exit_code, const char *format, ...)
{
	(void)exit_code;
	(void)format;
	fatals++;
	longjmp(died, 1);
}

int failpoint_pass(const char *name, const uint8_t *digest)
{
	(void)digest;
	if (!running || !faults)
		return 0;
	if (one_in(2000))
		longjmp(died, 2);
	if (strcmp(name, "spool.create") == 0 && one_in(100))
		return -EMFILE;
	if (strcmp(name, "store.commit") == 0 && one_in(400))
		return chance(2) == 0 ? -ENOSPC : -EIO;
	return 0;
}

int64_t failpoint_clock_ms(bool b)
{
	(void)b;
	return 0;
}

ssize_t getrandom(void *p, size_t n, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = (uint8_t)chance(256);
	return (ssize_t)n;
}

/* ---- folders that forget ---------------------------------------------------------------------------- */

struct op { /* a rename; removals go to trash/ */
	int from, to; /* ours */
	char old[32], new[32];
	ino_t from_ino, to_ino;
	bool from_synced, to_synced;
};

static struct op ops[OPS_MAX];
static size_t n_ops;
static int trash = -1;
static uint64_t n_trash;

static ino_t inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static int real_rename(int from, const char *old, int to, const char *new, unsigned flags)
{
	return (int)syscall(SYS_renameat2, from, old, to, new, flags);
}

/* Names in objects/ and reports/ are "XX/ID": the folder that is synced is XX. */
static ino_t folder_of(int at, const char *name)
{
	char path[8];
	struct stat st;

	if (strchr(name, '/') == NULL)
		return inode(at);
	(void)snprintf(path, sizeof(path), "%.2s", name);
	return fstatat(at, path, &st, 0) == 0 ? st.st_ino : 0;
}

static void note(int from, const char *old, int to, const char *new, ino_t to_ino)
{
	struct op *o = &ops[n_ops];

	if (n_ops == OPS_MAX) /* the oldest are long synced */
		memmove(ops, ops + 1, (--n_ops) * sizeof(*o));
	o = &ops[n_ops++];
	*o = (struct op){ .from = from, .to = to, .from_ino = folder_of(from, old), .to_ino = to_ino };
	(void)snprintf(o->old, sizeof(o->old), "%s", old);
	(void)snprintf(o->new, sizeof(o->new), "%s", new);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
	int r = real_rename(from, old, to, new, flags);

	if (r == 0)
		note(from, old, to, new, folder_of(to, new));
	return r;
}

int unlinkat(int at, const char *name, int flags)
{
	char kept[32];

	if (k == NULL || k->spool == NULL || flags != 0)
		return (int)syscall(SYS_unlinkat, at, name, flags);
	(void)snprintf(kept, sizeof(kept), "%llu", (unsigned long long)++n_trash);
	if (real_rename(at, name, trash, kept, 0) < 0)
		return -1;
	note(at, name, trash, kept, 0);
	return 0;
}

int fsync(int fd)
{
	ino_t ino = inode(fd);
	size_t kept = 0;

	if (mutant == FOLDERS_UNSYNCED && running)
		return 0;
	for (size_t i = 0; i < n_ops; i++) {
		ops[i].from_synced |= ops[i].from_ino == ino;
		ops[i].to_synced |= ops[i].to_ino == ino || ops[i].to_ino == 0;
		if (!ops[i].from_synced || !ops[i].to_synced)
			ops[kept++] = ops[i];
	}
	n_ops = kept;
	return 0; /* the files lie in memory */
}

/* What no fsync covered may be there or not; the journal keeps the order within it. */
static void lose_power(void)
{
	size_t lost = n_ops > 0 ? chance((uint32_t)n_ops + 1) : 0;

	if (mutant != NO_MUTANT)
		lost = n_ops;
	for (size_t i = n_ops; i > n_ops - lost; i--)
		(void)real_rename(ops[i - 1].to, ops[i - 1].new, ops[i - 1].from, ops[i - 1].old, RENAME_NOREPLACE);
	n_ops = 0;
}

/* ---- the world ---------------------------------------------------------------------------------------- */

struct process {
	bool used, dead; /* dead: not reaped yet */
	pid_t pid;
	int sock;        /* the world's end; -1 */
	enum ipc_role role;
	char ae[AE_TITLE_MAX];
	struct ipc_deliver deliver; /* of a sender, under way */
	int fds[IPC_CLASSES_MAX];
	uint32_t index;
};

struct object { /* what modalities send */
	char sop[UID_MAX], study[UID_MAX];
	uint8_t digest[DIGEST_SIZE];
	bool acknowledged;
};

struct modality {
	unsigned first, n, at; /* objects of the study that it sends */
	int sock;              /* association; -1 */
	uint64_t file;
	bool asked;            /* ADMIT is under way */
	bool busy;             /* waits for FILE or ANSWER */
};

struct action {
	int64_t at;
	size_t process;
	pid_t pid;      /* of which incarnation */
	union ipc_message m;
};

static struct process process[HELPERS_MAX];
static struct modality modality[MODALITIES];
static struct object object[OBJECTS_MAX];
static unsigned n_objects, n_studies;
static struct action action[ACTIONS_MAX];
static size_t n_actions;
static pid_t last_pid = 1000000;
static bool sending; /* new studies come */

struct taken { /* what the archive holds */
	char sop[UID_MAX];
	uint8_t digest[DIGEST_SIZE];
};
static struct taken archive[OBJECTS_MAX];
static unsigned n_archive;

static struct action *after(int64_t ms)
{
	struct action *a = &action[n_actions];

	if (n_actions == ACTIONS_MAX) {
		violated("the world has too much to do");
		n_actions--;
		a--;
	}
	n_actions++;
	memset(a, 0, sizeof(*a));
	a->at = boot + ms;
	return a;
}

static struct action *say(struct process *p, int64_t ms, enum ipc_type type, uint64_t token)
{
	struct action *a = after(ms);

	a->process = (size_t)(p - process);
	a->pid = p->pid;
	ipc_begin(&a->m, type, token);
	return a;
}

static void die(struct process *p)
{
	if (p->sock >= 0)
		(void)close(p->sock);
	p->sock = -1;
	p->dead = true;
	for (size_t i = 0; i < ARRAY_SIZE(p->fds); i++)
		if (p->fds[i] >= 0) {
			(void)close(p->fds[i]);
			p->fds[i] = -1;
		}
	if (p->role == IPC_RECEIVER)
		for (size_t i = 0; i < MODALITIES; i++)
			modality[i].asked = false;
	helper_deaths++;
}

const char *helper_folder(void)
{
	return "/nonexistent";
}

void helper_init(struct helper *h, const char *program)
{
	memset(h, 0, sizeof(*h));
	h->program = program;
	h->sock = -1;
}

int helper_start(struct helper *h, const int *fds, size_t n_fds, int64_t now, struct err *e)
{
	struct process *p = NULL;
	int pair[2];

	(void)fds;
	(void)n_fds;
	for (size_t i = 0; i < HELPERS_MAX; i++)
		if (!process[i].used)
			p = &process[i];
	if (p == NULL || one_in(50) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_set(e, -EAGAIN, "no process");
	memset(p, 0, sizeof(*p));
	p->used = true;
	p->pid = ++last_pid;
	p->sock = pair[1];
	for (size_t i = 0; i < ARRAY_SIZE(p->fds); i++)
		p->fds[i] = -1;
	h->pid = p->pid;
	h->sock = pair[0];
	h->ready = false;
	h->started = now;
	if (strcmp(h->program, "carzerod-receive") == 0) {
		p->role = IPC_RECEIVER;
		(void)say(p, 1 + chance(50), IPC_LISTENING, 0);
	} else if (strcmp(h->program, "carzerod-image") == 0) {
		p->role = IPC_IMAGE;
		(void)say(p, 1 + chance(50), IPC_READY, 0);
	} else if (strcmp(h->program, "carzerod-infer") == 0) {
		struct ipc_model *m = &say(p, 1 + chance(200), IPC_MODEL, 0)->m.model;

		p->role = IPC_INFER;
		(void)str_copy(m->name, sizeof(m->name), "simulated");
		(void)str_copy(m->family, sizeof(m->family), "untrained-tiny"); /* of the calibrations in findings-test.yaml */
		m->domain = 2;
		m->n_findings = (uint32_t)k->findings->n;
		m->side = SIDE;
		m->crop = SIDE;
		m->map_side = 4;
		memset(m->weights, 7, DIGEST_SIZE);
		memcpy(m->findings, k->findings->digest, DIGEST_SIZE);
	} else if (strcmp(h->program, "carzerod-maint") == 0) {
		p->role = IPC_ASSOCIATION; /* it reads files and says what an association would have said */
	} else {
		p->role = IPC_SEND;
		for (size_t i = 0; h->argv[i] != NULL; i++)
			(void)str_copy(p->ae, sizeof(p->ae), h->argv[i]); /* the last argument */
		(void)say(p, 1 + chance(30), IPC_READY, 0);
	}
	return 0;
}

int kill(pid_t pid, int sig)
{
	for (size_t i = 0; i < HELPERS_MAX; i++)
		if (sig == SIGKILL && process[i].used && !process[i].dead && process[i].pid == pid)
			die(&process[i]);
	return 0;
}

pid_t waitpid(pid_t pid, int *status, int flags)
{
	(void)flags;
	for (size_t i = 0; i < HELPERS_MAX; i++)
		if (process[i].used && process[i].dead && (pid < 0 || process[i].pid == pid)) {
			process[i].used = false;
			if (status != NULL)
				*status = SIGKILL;
			return process[i].pid;
		}
	return 0;
}

void helper_ended(struct helper *h, int64_t now)
{
	if (h->sock >= 0)
		(void)close(h->sock);
	h->sock = -1;
	if (h->pid > 0)
		(void)kill(h->pid, SIGKILL);
	h->pid = 0;
	h->ready = false;
	h->pause_ms = h->pause_ms == 0 ? 100 : h->pause_ms < 30000 ? 2 * h->pause_ms : 30000;
	if (now - h->started > 60000)
		h->pause_ms = 100;
	h->not_before = now + h->pause_ms;
}

void helper_restart(struct helper *h, int64_t now)
{
	helper_ended(h, now);
	h->not_before = now;
}

int helper_try(const char *program, const char *path)
{
	(void)program;
	(void)path;
	return 0;
}

bool helper_may_start(const struct helper *h, int64_t now)
{
	return h->pid == 0 && now >= h->not_before;
}

/* -- modalities */

static struct process *receiver(void)
{
	for (size_t i = 0; i < HELPERS_MAX; i++)
		if (process[i].used && !process[i].dead && process[i].role == IPC_RECEIVER && k->receiver.ready &&
		    k->receiver.pid == process[i].pid)
			return &process[i];
	return NULL;
}

static void next_study(struct modality *m)
{
	unsigned n = 1 + chance(STUDY_IMAGES);

	m->at = 0;
	if (n_studies > 0 && chance(6) == 0 && n_objects > 0) { /* the same film again */
		m->first = chance(n_objects);
		m->n = 1;
		return;
	}
	m->first = n_objects;
	m->n = n;
	if (n_objects + n > OBJECTS_MAX) {
		m->n = 0;
		return;
	}
	/* a late film of an old study, or a new one */
	for (unsigned i = 0; i < n; i++) {
		struct object *o = &object[n_objects++];
		char text[UID_MAX];

		if (i == 0 && n_objects > 1 && chance(5) == 0)
			(void)str_copy(o->study, UID_MAX, object[chance(n_objects - 1)].study);
		else
			(void)snprintf(o->study, UID_MAX, "1.2.%u", n_studies + 1);
		(void)snprintf(o->sop, UID_MAX, "1.3.%u", n_objects);
		(void)snprintf(text, sizeof(text), "%s", o->sop);
		digest_of(text, strlen(text), o->digest);
		o->acknowledged = false;
	}
	n_studies++;
}

static void leave(struct modality *m)
{
	if (m->sock >= 0)
		(void)close(m->sock);
	m->sock = -1;
	m->busy = false;
	m->file = 0;
}

static void fill_stored(union ipc_message *msg, const struct object *o)
{
	(void)str_copy(msg->object.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.1.1");
	(void)str_copy(msg->object.sop_uid, UID_MAX, o->sop);
	(void)str_copy(msg->object.study_uid, UID_MAX, o->study);
	(void)str_copy(msg->object.series_uid, UID_MAX, o->study);
	(void)str_copy(msg->object.syntax, UID_MAX, "1.2.840.10008.1.2.1");
	(void)str_copy(msg->object.calling_ae, AE_TITLE_MAX, "MODALITY");
	(void)str_copy(msg->object.called_ae, AE_TITLE_MAX, "CARZEROD");
	memcpy(msg->object.digest, o->digest, DIGEST_SIZE);
	msg->object.size = strlen(o->sop);
	msg->object.analysed_class = 1;
	msg->object.study_date = strlen(o->study) % 2 == 0 ? 20200101 : 0;
}

static void tell(struct modality *m, enum ipc_type type, uint64_t token)
{
	union ipc_message msg;

	ipc_begin(&msg, type, token);
	if (type == IPC_STORED)
		fill_stored(&msg, &object[m->first + m->at]);
	if (ipc_send(m->sock, &msg, NULL, 0) < 0)
		leave(m);
	else
		m->busy = type != IPC_ABANDON;
}

static void modality_turn(size_t i)
{
	struct modality *m = &modality[i];
	union ipc_message msg;
	struct process *r;

	if (m->at >= m->n) {
		if (m->sock >= 0)
			leave(m);
		m->n = m->at = 0;
		if (!sending || chance(60) != 0) /* or a backlog would be most of the run */
			return;
		next_study(m);
		return;
	}
	if (m->sock < 0) {
		r = receiver();
		if (m->asked || r == NULL)
			return;
		ipc_begin(&msg, IPC_ADMIT, i + 1);
		(void)str_copy(msg.admit.host, sizeof(msg.admit.host), "192.0.2.1");
		m->asked = ipc_send(r->sock, &msg, NULL, 0) == 0;
		return;
	}
	if (m->busy)
		return;
	if (one_in(40)) /* the peer vanishes */
		leave(m);
	else if (m->file == 0)
		tell(m, IPC_CREATE, 0);
	else if (one_in(30)) {
		tell(m, IPC_ABANDON, m->file);
		m->file = 0;
	} else
		tell(m, IPC_STORED, m->file);
}

static void modality_hears(struct modality *m)
{
	int fds[IPC_FDS_MAX];
	union ipc_message msg;
	size_t n = 0;
	int r;

	if (m->sock < 0)
		return;
	r = ipc_receive(m->sock, IPC_KEEPER, &msg, fds, &n);
	if (r == -EAGAIN)
		return;
	if (r != 1) {
		leave(m);
		return;
	}
	m->busy = false;
	if (msg.h.type == IPC_FILE && msg.status.status == 0 && n == 1) {
		const char *text = object[m->first + m->at].sop;

		m->file = msg.h.token;
		(void)write_full(fds[0], text, strlen(text));
	} else if (msg.h.type == IPC_ANSWER) {
		m->file = 0;
		if (msg.status.status == 0) {
			object[m->first + m->at].acknowledged = true;
			m->at++;
		}
	}
	while (n > 0)
		(void)close(fds[--n]);
}

/* -- helpers */

static void compose(struct process *p, const union ipc_message *m, const int *fds)
{
	struct action *a = say(p, 1 + chance(300), IPC_COMPOSED, m->h.token);
	char text[2 * UID_MAX];

	(void)snprintf(text, sizeof(text), "%s %s %s", m->compose.sop_uid, m->compose.date, m->compose.time);
	if (one_in(15))
		a->m.composed.result = chance(2) == 0 ? -EIO : -ENOSPC;
	else if (write_full(fds[0], text, strlen(text)) == 0)
		a->m.composed.size = strlen(text);
}

static void decode(struct process *p, const union ipc_message *m, const int *fds)
{
	struct action *a = say(p, 1 + chance(300), IPC_DECODED, m->h.token);
	uint8_t square[SIDE * SIDE] = { 1 };

	(void)write_full(fds[1], square, sizeof(square));
	a->m.decoded.quality_control = 1;
	a->m.decoded.reason = chance(10) == 0 ? 1 + chance(3) : 0;
	memset(a->m.decoded.patient, 1, DIGEST_SIZE);
	memcpy(a->m.decoded.content, m->decode.digest, DIGEST_SIZE);
}

/* What the archive has under this UID stays what it was. */
static void archive_takes(int fd)
{
	char text[2 * UID_MAX] = "";
	struct taken t;
	unsigned i;

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0) {
		violated("an empty report was sent");
		return;
	}
	digest_of(text, strlen(text), t.digest);
	text[strcspn(text, " ")] = '\0';
	(void)str_copy(t.sop, UID_MAX, text);
	for (i = 0; i < n_archive && strcmp(archive[i].sop, t.sop) != 0; i++)
		continue;
	if (i == n_archive && n_archive < OBJECTS_MAX)
		archive[n_archive++] = t;
	else if (i < n_archive && memcmp(archive[i].digest, t.digest, DIGEST_SIZE) != 0)
		violated("other bytes under the UID %s", t.sop);
}

static void sent(struct process *p, uint64_t token, enum scu_failure failure, int status)
{
	struct action *a = say(p, 1 + chance(100), IPC_SENT, token);

	a->m.sent.failure = failure;
	a->m.sent.status = status;
}

static void hears_go(struct process *p, const union ipc_message *m)
{
	if (!m->go.go)
		sent(p, m->h.token, SCU_NO_CONTEXT, -1);
	else if (one_in(12)) { /* it took it, and the answer is lost */
		archive_takes(p->fds[p->index]);
		if (chance(2) == 0)
			sent(p, m->h.token, SCU_UNREACHABLE, -1);
		else
			die(p);
		return;
	} else if (one_in(8))
		sent(p, m->h.token, SCU_STATUS, (int)(chance(2) == 0 ? 0xa700 : chance(2) == 0 ? 0x0122 : 0xc000));
	else {
		archive_takes(p->fds[p->index]);
		sent(p, m->h.token, SCU_OK, 0);
	}
}

static void examine_file(struct process *p, const union ipc_message *m, int fd)
{
	char text[UID_MAX] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		text[0] = '\0';
	for (unsigned i = 0; i < n_objects; i++)
		if (strcmp(object[i].sop, text) == 0) {
			fill_stored(&say(p, 1, IPC_STORED, m->h.token)->m, &object[i]);
			return;
		}
	(void)say(p, 1, IPC_ABANDON, m->h.token); /* not whole */
}

static void hears(struct process *p)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n = 0;
	int r;

	if (!p->used || p->dead)
		return;
	r = ipc_receive(p->sock, IPC_KEEPER, &m, fds, &n);
	if (r == -EAGAIN)
		return;
	if (r != 1) {
		die(p);
		return;
	}
	if (m.h.type == IPC_CHANNEL) {
		struct modality *mod = &modality[(m.h.token - 1) % MODALITIES];

		mod->asked = false;
		if (n == 1 && mod->sock < 0) {
			mod->sock = take_fd(&fds[0]);
			(void)fcntl(mod->sock, F_SETFL, O_NONBLOCK);
			n = 0;
		}
	} else if (one_in(20))
		die(p);
	else if (one_in(25)) {
		/* it hangs over this one; a decoder's parent tells of a death instead, half of the times */
		if (p->role == IPC_IMAGE && chance(2) == 0)
			say(p, 20, IPC_DIED, m.h.token)->m.died.signal = SIGSEGV;
	} else if (m.h.type == IPC_DECODE)
		decode(p, &m, fds);
	else if (m.h.type == IPC_COMPOSE)
		compose(p, &m, fds);
	else if (m.h.type == IPC_FILE)
		examine_file(p, &m, fds[0]);
	else if (m.h.type == IPC_SCORE) {
		struct ipc_scored *d = &say(p, 1 + chance(400), IPC_SCORED, m.h.token)->m.scored;

		d->n = (uint32_t)k->findings->n;
		d->logit[1] = chance(2) == 0 ? 1000 : 0; /* pneumothorax: urgent */
	}
	else if (m.h.type == IPC_DELIVER) {
		p->deliver = m.deliver;
		for (size_t i = 0; i < ARRAY_SIZE(p->fds); i++) {
			if (p->fds[i] >= 0)
				(void)close(p->fds[i]);
			p->fds[i] = i < n ? fds[i] : -1;
		}
		n = 0;
		p->index = chance(m.deliver.n);
		if (one_in(6))
			sent(p, m.h.token, chance(2) == 0 ? SCU_UNREACHABLE : SCU_REJECTED_TRANSIENT, -1);
		else
			say(p, 1 + chance(100), IPC_CHOSE, m.h.token)->m.chose.index = p->index;
	} else if (m.h.type == IPC_GO)
		hears_go(p, &m);
	while (n > 0)
		(void)close(fds[--n]);
}

static void act(void)
{
	for (size_t i = 0; i < n_actions;) {
		struct action a = action[i];
		struct process *p = &process[a.process];

		if (a.at > boot) {
			i++;
			continue;
		}
		action[i] = action[--n_actions];
		if (p->used && !p->dead && p->pid == a.pid && ipc_send(p->sock, &a.m, NULL, 0) < 0)
			die(p);
	}
}

static int64_t next_action(void)
{
	int64_t next = boot + 10000;

	for (size_t i = 0; i < n_actions; i++)
		if (action[i].at < next)
			next = action[i].at;
	return next;
}

int poll(struct pollfd *p, nfds_t n, int timeout)
{
	struct timespec none = { 0, 0 };
	int64_t end = boot + (timeout < 0 ? 10000 : timeout);
	int r;

	if (p == NULL) {
		pass(timeout);
		return 0;
	}
	for (;;) {
		for (size_t i = 0; i < HELPERS_MAX; i++)
			hears(&process[i]);
		for (size_t i = 0; i < MODALITIES; i++) {
			modality_hears(&modality[i]);
			modality_turn(i);
		}
		act();
		r = (int)syscall(SYS_ppoll, p, n, &none, NULL, 8);
		if (r != 0 || boot >= end)
			return r;
		for (size_t i = 0; i < HELPERS_MAX; i++)
			if (process[i].used && process[i].dead)
				return 0; /* SIGCHLD */
		pass(next_action() > end ? end - boot : next_action() > boot ? next_action() - boot : 1);
		if (one_in(300))
			wall += chance(2) == 0 ? -3600000 : 7200000; /* somebody sets the clock */
	}
}

/* ---- the invariants ------------------------------------------------------------------------------------ */

static uint64_t deliveries_before;

static void check_object(unsigned i)
{
	struct instance in[16];
	struct study study;
	size_t n = 0;
	int r, fd;

	r = store_find_study(k->store, object[i].study, &study);
	if (r == 0)
		r = store_study_instances(k->store, study.id, in, ARRAY_SIZE(in), &n);
	if (r == -E2BIG) {
		n = ARRAY_SIZE(in);
		r = 0;
	}
	for (size_t j = 0; r == 0 && j < n; j++) {
		if (strcmp(in[j].sop_uid, object[i].sop) != 0)
			continue;
		fd = spool_read(k->spool, SPOOL_OBJECTS, in[j].file);
		if (fd < 0)
			violated("object %u was acknowledged and its file is gone", i);
		else
			(void)close(fd);
		return;
	}
	if (n < ARRAY_SIZE(in))
		violated("object %u was acknowledged and has no row", i);
}

static struct { /* claims of each destination */
	int64_t n;
	unsigned passed[RANK_SLOW + 1]; /* in a row, while a delivery of this rank was due, of none of it */
} claims[CONFIG_PEERS_MAX];
static uint64_t passings[RANK_SLOW + 1];

static int64_t count_due(const char *destination, enum store_rank rank)
{
	CLEANUP(query) struct query q = query_on(k->store, "SELECT count(*) FROM delivery WHERE destination = ? AND rank = ? "
							   "AND state IN (0, 3) AND due <= ?");
	int64_t n = 0;

	query_bind_text(&q, destination, AE_TITLE_MAX);
	query_bind_int(&q, rank);
	query_bind_int(&q, k->now);
	(void)query_value(&q, &n);
	return n;
}

/* After the claims of a turn nothing more is queued or comes due in it. */
static void check_order(size_t i)
{
	static const unsigned every[] = { [RANK_ROUTINE] = STORE_ROUTINE_EVERY, [RANK_SLOW] = STORE_SLOW_EVERY };
	const struct courier *c = &k->courier[i];
	int64_t n;

	if (turn_number(k->store, "delivery", c->peer->ae_title, &n) < 0 || n == claims[i].n)
		return;
	for (int rank = RANK_ROUTINE; rank <= RANK_SLOW; rank++) {
		unsigned *passed = &claims[i].passed[rank];

		/* one that was seen, and not one that was given up at once or lost with a life */
		if (n != claims[i].n + 1 || !c->busy || (int)c->delivery.rank == rank ||
		    count_due(c->peer->ae_title, (enum store_rank)rank) == 0) {
			*passed = 0;
			continue;
		}
		passings[rank]++;
		if (++*passed >= every[rank])
			violated("a delivery of rank %d to %s is due and %u others went before", rank, c->peer->ae_title, *passed);
	}
	claims[i].n = n;
}

static void check_turn(void)
{
	static unsigned next;
	struct store_counts c;
	uint64_t jobs = 0, compositions = 0, couriers = 0, deliveries;

	if (k->full || k->give_back)
		return; /* claims are given back in the next turn */
	if (store_counts(k->store, &c) < 0) {
		violated("the store does not answer");
		return;
	}
	for (size_t i = 0; i < KEEPER_JOBS_MAX; i++) {
		jobs += k->job[i].stage != JOB_FREE;
		for (size_t j = 0; j < i; j++)
			if (k->job[i].stage != JOB_FREE && k->job[j].stage != JOB_FREE && k->job[i].in.id == k->job[j].in.id)
				violated("two jobs for instance %lld", (long long)k->job[i].in.id);
	}
	for (size_t i = 0; i < KEEPER_COMPOSE_MAX; i++)
		compositions += k->composition[i].used;
	for (size_t i = 0; i < k->config->n_peers; i++)
		couriers += k->courier[i].busy && !k->courier[i].asking;
	for (size_t i = 0; i < k->config->n_peers; i++)
		check_order(i);
	if (jobs != c.instances[INSTANCE_CLAIMED])
		violated("%llu claimed instances, %llu jobs", (unsigned long long)c.instances[INSTANCE_CLAIMED],
			 (unsigned long long)jobs);
	if (compositions < c.studies[STUDY_COMPOSING]) /* a late film voids a claim while its composition goes on */
		violated("%llu claimed studies, %llu compositions", (unsigned long long)c.studies[STUDY_COMPOSING],
			 (unsigned long long)compositions);
	if (couriers != c.deliveries[DELIVERY_SENDING])
		violated("%llu claimed deliveries, %llu couriers busy", (unsigned long long)c.deliveries[DELIVERY_SENDING],
			 (unsigned long long)couriers);
	deliveries = c.deliveries[0] + c.deliveries[1] + c.deliveries[2] + c.deliveries[3];
	if (deliveries < deliveries_before)
		violated("%llu deliveries, %llu before", (unsigned long long)deliveries, (unsigned long long)deliveries_before);
	deliveries_before = deliveries;
	for (unsigned i = 0; i < 2 && n_objects > 0; i++) { /* all of them in their turn, and at every start */
		next = (next + 1) % n_objects;
		if (object[next].acknowledged)
			check_object(next);
	}
}

static void check_all(void)
{
	for (unsigned i = 0; i < n_objects; i++)
		if (object[i].acknowledged)
			check_object(i);
}

/* Reports of one class whose inputs were the same would be two with one digest of inputs: their number is bounded by
 * the number of different sets of images that the study ever had. */
static void check_end(void)
{
	struct store_counts c;

	if (store_counts(k->store, &c) < 0)
		return;
	if (c.instances[INSTANCE_READY] + c.instances[INSTANCE_CLAIMED] + c.studies[STUDY_COLLECTING] +
		    c.studies[STUDY_COMPOSING] + c.deliveries[DELIVERY_QUEUED] + c.deliveries[DELIVERY_SENDING] !=
	    0)
		violated("it does not come to an end: %llu ready, %llu collecting, %llu queued", (unsigned long long)c.instances[0],
			 (unsigned long long)c.studies[0], (unsigned long long)c.deliveries[0]);
	for (unsigned i = 0; i < n_objects; i++) {
		struct report rep[64];
		struct study study;
		unsigned films = 0;
		size_t n = 0;

		if (!object[i].acknowledged || store_find_study(k->store, object[i].study, &study) < 0)
			continue;
		for (unsigned j = 0; j < n_objects; j++)
			films += strcmp(object[j].study, object[i].study) == 0;
		(void)store_study_reports(k->store, study.id, rep, ARRAY_SIZE(rep), &n);
		if (study.state == STUDY_REPORTED && n == 0)
			violated("study %u is called reported and is not", i);
		if (study.revision > films)
			violated("%u reports of a study with %u films", study.revision, films);
	}
}

/* ---- lives ---------------------------------------------------------------------------------------------- */

static int first_fd;

static void start(void)
{
	struct err e = { "" };
	char path[400];
	void *text;
	size_t n;

	k = xcalloc(1, sizeof(*k));
	k->config_path = config_path;
	k->metrics_fd = k->control = -1;
	for (size_t i = 0; i < KEEPER_CONTROL_MAX; i++)
		k->control_client[i] = -1;
	if (config_load(config_path, &k->config, &e) < 0 ||
	    findings_load(k->config->findings, &k->findings, &text, &n, &e) < 0)
		violated("%s", e.text);
	(void)snprintf(path, sizeof(path), "%s/state/carzerod.db", folder);
	if (broken[0] == '\0' && (store_open(path, &k->store, &e) < 0 || spool_open(k->config->state_dir, &k->spool, &e) < 0))
		violated("%s", e.text);
	if (broken[0] != '\0')
		return;
	keeper_must(k, store_keep_findings(k->store, k->findings->digest, text, n), "keep the findings list");
	free(text);
	k->last = &k->first;
	k->association = xcalloc(k->config->limits.associations, sizeof(*k->association));
	for (size_t i = 0; i < k->config->limits.associations; i++)
		k->association[i].sock = -1;
	for (size_t i = 0; i < KEEPER_JOBS_MAX; i++)
		k->job[i].square = k->job[i].maps = -1;
	k->started = clock_boot_ms();
	recovery_run(k);
	figures_open(k);
	disk_open(k);
	init_helpers(k);
	k->boot = clock_boot_ms();
	k->clock_gap = clock_wall_ms() - k->boot;
	start_helpers(k);
}

/* Everything of the node is gone; its disk is what it was, less what a cut takes. */
static void end_life(bool cut)
{
	running = false;
	if (cut)
		lose_power();
	n_ops = cut ? 0 : n_ops;
	if (k->store != NULL)
		store_close(k->store);
	for (size_t i = 0; i < MODALITIES; i++)
		modality[i] = (struct modality){ .first = modality[i].first, .n = modality[i].n, .at = modality[i].at, .sock = -1 };
	memset(process, 0, sizeof(process));
	n_actions = 0;
	(void)syscall(SYS_close_range, first_fd, ~0u, 0);
	n_ops = 0; /* their folders are closed; without a cut the kernel writes them in its own time */
	k = NULL;  /* its memory is lost: a process would have ended */
}

static struct turn *t;

static bool rest(void)
{
	struct store_counts c;

	for (size_t i = 0; i < MODALITIES; i++)
		if (modality[i].at < modality[i].n)
			return false;
	return store_counts(k->store, &c) == 0 &&
	       c.instances[INSTANCE_READY] + c.instances[INSTANCE_CLAIMED] + c.studies[STUDY_COLLECTING] +
			       c.studies[STUDY_COMPOSING] + c.deliveries[DELIVERY_QUEUED] + c.deliveries[DELIVERY_SENDING] ==
		       0;
}

static void live(uint64_t until, bool draining)
{
	volatile uint64_t end = until;

	while (steps < end && broken[0] == '\0') {
		int how = setjmp(died);

		if (how != 0) {
			bool cut = chance(2) == 0;

			crashes++;
			cuts += cut;
			end_life(cut);
			pass(1 + chance(3000));
		}
		if (k == NULL) {
			running = true;
			start();
			running = false;
			if (broken[0] == '\0')
				check_all();
			continue;
		}
		running = true;
		turn(k, t, -1, 0);
		k->announced |= k->receiver.ready;
		running = false;
		steps++;
		check_turn();
		if (draining && steps % 16 == 0 && rest())
			return;
	}
}

static void epoch(uint64_t n)
{
	n_objects = n_studies = n_archive = 0;
	deliveries_before = 0;
	memset(claims, 0, sizeof(claims));
	memset(modality, 0, sizeof(modality));
	for (size_t i = 0; i < MODALITIES; i++)
		modality[i].sock = -1;
	faults = sending = true;
	live(steps + n, false);
	faults = sending = false;
	live(steps + DRAIN_STEPS, true);
	if (broken[0] == '\0') {
		check_all();
		check_end();
	}
}

static void remove_state(void)
{
	char path[700];

	(void)snprintf(path, sizeof(path), "%s/state", folder);
	/* removed by nftw-like hands: no process may be started here, waitpid() is ours */
	for (;;) {
		DIR *stack[8];
		char name[8][700];
		int depth = 0;

		(void)snprintf(name[0], sizeof(name[0]), "%s", path);
		stack[0] = opendir(path);
		if (stack[0] == NULL)
			return;
		while (depth >= 0) {
			struct dirent *d = readdir(stack[depth]);
			char child[1400];

			if (d == NULL) {
				(void)closedir(stack[depth]);
				(void)rmdir(name[depth--]);
				continue;
			}
			if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
				continue;
			(void)snprintf(child, sizeof(child), "%s/%s", name[depth], d->d_name);
			if (unlink(child) < 0 && depth < 7) {
				depth++;
				(void)snprintf(name[depth], sizeof(name[depth]), "%.699s", child);
				stack[depth] = opendir(child);
				if (stack[depth] == NULL)
					depth--;
			}
		}
	}
}

static void simulate(uint64_t from, uint64_t n)
{
	broken[0] = '\0';
	seed = from;
	steps = crashes = cuts = fatals = helper_deaths = 0;
	wall = 1800000000000;
	boot = 1000000;
	for (uint64_t e = 0; steps < n && broken[0] == '\0'; e++) {
		char path[400];

		random_state = (seed + e) * 0x9e3779b97f4a7c15 | 1;
		for (int i = 0; i < 8; i++)
			(void)chance(2);
		if (k != NULL)
			end_life(false);
		remove_state();
		(void)snprintf(path, sizeof(path), "%s/state", folder);
		(void)mkdir(path, 0700);
		(void)close(trash);
		(void)snprintf(path, sizeof(path), "%s/state/trash", folder);
		(void)mkdir(path, 0700);
		trash = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (trash >= 0 && trash < first_fd - 1) {
			(void)dup3(trash, first_fd - 1, O_CLOEXEC);
			(void)close(trash);
			trash = first_fd - 1;
		}
		epoch(EPOCH_STEPS);
		if (broken[0] != '\0')
			printf("# seed %llu, epoch %llu, step %llu: %s\n", (unsigned long long)seed, (unsigned long long)e,
			       (unsigned long long)steps, broken);
	}
	running = false;
	if (k != NULL)
		end_life(false);
	mutant = NO_MUTANT;
}

int main(void)
{
	const char *text = getenv("FAULT_SEED"), *number = getenv("FAULT_STEPS"), *srcdir = getenv("srcdir"), *lasts = getenv("CHECK_LONG");
	uint64_t n = number != NULL ? strtoull(number, NULL, 10) : lasts != NULL && strcmp(lasts, "yes") == 0 ? 1000000 : 4000;
	struct timespec now, end;
	FILE *f;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	seed = text != NULL ? strtoull(text, NULL, 10) : (uint64_t)now.tv_nsec;
	printf("# seed %llu (FAULT_SEED), %llu steps (FAULT_STEPS)\n", (unsigned long long)seed, (unsigned long long)n);
	fflush(stdout);
	(void)snprintf(folder, sizeof(folder), "%s/carzerod-sim-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
	(void)mkdir(folder, 0700);
	(void)snprintf(config_path, sizeof(config_path), "%s/carzerod.yaml", folder);
	f = fopen(config_path, "w");
	if (f == NULL)
		plan_skip_all("no folder to work in");
	(void)fprintf(f,
		      "ae_title: CARZEROD\nlisten: [\"127.0.0.1:104\"]\nstate_dir: %s/state\nmodel: %s\nfindings: %s/tests/findings-test.yaml\n"
		      "settle: 0.1\nsettle_max: 5\nstorage: {min_free: 0, ballast: 0, unsafe: true}\nworkers: 2\n"
		      "peers:\n- {ae_title: ARCHIVE, host: 192.0.2.2, port: 104}\n- {ae_title: SECOND, host: 192.0.2.3, port: 104}\n"
		      "routes: [{from: \"*\", to: [ARCHIVE, SECOND]}]\n",
		      folder, folder, srcdir != NULL ? srcdir : ".");
	(void)fclose(f);
	log_open("sim", (enum log_level)0);
	t = xcalloc(1, sizeof(*t));
	first_fd = 20;
	trash = -1;
	simulate(seed, n);
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	printf("# a routine report was passed %llu times, one of the slow lane %llu times\n",
	       (unsigned long long)passings[RANK_ROUTINE], (unsigned long long)passings[RANK_SLOW]);
	printf("# %llu steps in %.1f s: %llu deaths of the node (%llu with its power, %llu by its own will), %llu of helpers\n",
	       (unsigned long long)steps, (double)(end.tv_sec - now.tv_sec) + (double)(end.tv_nsec - now.tv_nsec) / 1e9,
	       (unsigned long long)crashes, (unsigned long long)cuts, (unsigned long long)fatals, (unsigned long long)helper_deaths);
	ok(broken[0] == '\0', "every invariant held, and everything came to its end");
	ok(crashes > 0 && helper_deaths > 0, "there were deaths");
	mutant = FOLDERS_UNSYNCED;
	simulate(seed, 20000);
	ok(broken[0] != '\0', "a keeper whose folders are not synced is caught");
	remove_state();
	(void)unlink(config_path);
	(void)rmdir(folder);
	return done();
}
