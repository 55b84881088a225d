/* fault.c: see fault.h. */
#include "tests/fault/fault.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "store/spool.h"
#include "store/store.h"

#include "tests/tap.h"

#define SHUTDOWN _IOR('X', 125, uint32_t) /* EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN */
#define NOLOGFLUSH 2u
#define PATIENT_NAME "Planted^Zebedee"
#define PATIENT_ID "PLANTED-4711"
#define ACCESSION "PLANTEDACC"

static char work[512], state[600], config_path[600], log_path[600];
static const char *name_of_test;
static uint16_t port_of_node, port_of_archive;
static pid_t node, archive, senders[FAULT_SENDERS_MAX];
static int node_status;
static size_t n_senders;
static const char *const *wrap;
static struct disk *disk_state, *disk_spool;
static uint64_t random_state;
static uint32_t *powered; /* shared with senders: odd while there is no power */
static off_t seen; /* of the answers: where reckon_new() stopped */

static void die(const char *what) __attribute__((noreturn));
static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

/* ---- small things ---------------------------------------------------------------------------- */

int64_t fault_now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void fault_pause(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		continue;
}

bool fault_wait(unsigned ms, bool (*holds)(void))
{
	int64_t end = fault_now_ms() + ms;

	while (!holds()) {
		if (fault_now_ms() >= end)
			return false;
		fault_pause(10);
	}
	return true;
}

uint32_t fault_random(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state >> 16) % below);
}

bool fault_long(void)
{
	const char *text = getenv("CHECK_LONG");

	return text != NULL && strcmp(text, "yes") == 0;
}

unsigned fault_number(const char *name, unsigned usual, unsigned in_long)
{
	const char *text = getenv(name);

	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : fault_long() ? in_long : usual;
}

const char *fault_work(void)
{
	return work;
}

/* argv run to its end; its exit code. */
int fault_run(const char *const *argv)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#define RUN(...) fault_run((const char *const[]){ __VA_ARGS__, NULL })

static const char *in_build(const char *name)
{
	static char path[4][1024];
	static unsigned next;
	const char *folder = getenv("builddir");
	char *p = path[next++ % 4];

	(void)snprintf(p, sizeof(path[0]), "%s/%s", folder != NULL ? folder : ".", name);
	return p;
}

static uint16_t free_port(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(sa);
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* below the ephemeral range: a connection of somebody's must not take it while the node is down */
	do
		sa.sin_port = htons((uint16_t)(12000 + fault_random(18000)));
	while (bind(sock, (struct sockaddr *)&sa, n) < 0);
	(void)close(sock);
	return ntohs(sa.sin_port);
}

static void end_all(void)
{
	senders_stop();
	if (node > 0)
		node_kill();
	archive_stop();
	disk_free(disk_spool);
	disk_free(disk_state);
	disk_spool = disk_state = NULL;
}

void fault_reset(void)
{
	static const char *const what[] = { "state", "answers", "archive" };
	char path[700];

	end_all();
#ifdef WITH_FAILPOINTS
	(void)unsetenv("CARZEROD_FAILPOINTS");
	if (fault_points != NULL)
		(void)shmdt(fault_points);
	fault_points = NULL;
#endif
	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", work, what[i]);
		(void)RUN("rm", "-rf", path);
	}
	seen = 0;
}

static void on_signal(int sig)
{
	(void)sig;
	exit(1); /* a test that was told to stop has nothing to keep whole but its mounts: atexit */
}

void fault_begin(const char *name)
{
	const char *seed = getenv("FAULT_SEED");

	name_of_test = name;
	random_state = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)fault_now_ms() * 2654435761u ^ (uint64_t)getpid();
	random_state |= 1;
	printf("# seed %llu (FAULT_SEED)\n", (unsigned long long)random_state);
	(void)snprintf(work, sizeof(work), "%s.work", in_build(name));
	(void)RUN("rm", "-rf", work);
	if (mkdir(work, 0700) < 0)
		die(work);
	(void)snprintf(state, sizeof(state), "%s/state", work);
	(void)snprintf(config_path, sizeof(config_path), "%s/carzerod.yaml", work);
	(void)snprintf(log_path, sizeof(log_path), "%s/node.log", work);
	port_of_node = free_port();
	port_of_archive = free_port();
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("prctl");
	powered = mmap(NULL, sizeof(*powered), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (powered == MAP_FAILED)
		die("mmap");
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, on_signal);
	(void)signal(SIGTERM, on_signal);
	(void)atexit(end_all);
}

/* ---- disks -------------------------------------------------------------------------------------- */

struct disk {
	char image[700], at[700], device[32];
	const char *type;
};

bool fault_have_disks(void)
{
	int fd;

	if (geteuid() != 0)
		return false;
	fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	(void)close(fd);
	return true;
}

bool fault_have_xfs(void)
{
	return RUN("mkfs.xfs", "-V") == 0;
}

/* Another test may take the free device between the question and the answer. */
static void attach(struct disk *d)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), image = open(d->image, O_RDWR | O_CLOEXEC);
	struct loop_config config = { .fd = (uint32_t)image, .info.lo_flags = LO_FLAGS_AUTOCLEAR };

	if (control < 0 || image < 0)
		die(d->image);
	for (unsigned i = 0; i < 100; i++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE), device;

		if (n < 0)
			die("LOOP_CTL_GET_FREE");
		(void)snprintf(d->device, sizeof(d->device), "/dev/loop%d", n);
		device = open(d->device, O_RDWR | O_CLOEXEC);
		if (device >= 0 && ioctl(device, LOOP_CONFIGURE, &config) == 0) {
			/* autoclear: the device goes with its last user, the mount */
			if (mount(d->device, d->at, d->type, MS_NOATIME, "") < 0)
				die("mount");
			(void)close(device);
			(void)close(image);
			(void)close(control);
			return;
		}
		if (device >= 0)
			(void)close(device);
	}
	die("LOOP_CONFIGURE");
}

struct disk *disk_new(const char *type, const char *at, unsigned mebibytes)
{
	struct disk *d = xcalloc(1, sizeof(*d));
	/* in memory where that is possible: the host's disk is not what is tested */
	const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : work;
	static unsigned nth;
	int fd, r;

	d->type = type;
	(void)snprintf(d->image, sizeof(d->image), "%s/carzerod-%d-%u.img", folder, (int)getpid(), nth++);
	(void)snprintf(d->at, sizeof(d->at), "%s", at);
	if (mkdir(at, 0700) < 0 && errno != EEXIST)
		die(at);
	fd = open(d->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)mebibytes << 20) < 0)
		die(d->image);
	(void)close(fd);
	r = strcmp(type, "xfs") == 0 ? RUN("mkfs.xfs", "-q", "-f", d->image)
				     : RUN("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", d->image);
	if (r != 0)
		die("mkfs");
	attach(d);
	return d;
}

void disk_cut(struct disk *d)
{
	uint32_t how = NOLOGFLUSH;
	int fd = open(d->at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, SHUTDOWN, &how) < 0)
		die("shutdown ioctl");
	(void)close(fd);
}

static void unmount(struct disk *d)
{
	for (unsigned i = 0; umount(d->at) < 0; i++) {
		if (i == 500)
			die("umount");
		fault_pause(2); /* the last process is being torn down */
	}
}

void disk_remount(struct disk *d)
{
	unmount(d);
	attach(d);
}

void disk_free(struct disk *d)
{
	if (d == NULL)
		return;
	(void)umount2(d->at, MNT_DETACH);
	(void)unlink(d->image);
	free(d);
}

/* ---- failpoints --------------------------------------------------------------------------------------- */

#ifdef WITH_FAILPOINTS
struct failpoints *fault_points;

void fault_arm_nothing(void)
{
	static char text[16];
	int id = shmget(IPC_PRIVATE, sizeof(*fault_points), IPC_CREAT | 0600);

	if (id < 0)
		die("shmget");
	fault_points = shmat(id, NULL, 0);
	(void)shmctl(id, IPC_RMID, NULL); /* it goes with the last who has it */
	if ((intptr_t)fault_points == -1)
		die("shmat");
	fault_points->magic = FAILPOINT_MAGIC;
	(void)snprintf(text, sizeof(text), "%d", id);
	(void)setenv("CARZEROD_FAILPOINTS", text, 1);
}

struct failpoint_place *fault_arm(const char *name, enum failpoint_action action, int32_t argument, uint32_t at)
{
	for (unsigned i = 0; i < FAILPOINT_PLACES; i++) {
		struct failpoint_place *p = &fault_points->place[i];
		uint32_t unused = FAILPOINT_FREE;

		if (!__atomic_compare_exchange_n(&p->state, &unused, FAILPOINT_BEING_WRITTEN, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST))
			continue;
		(void)snprintf(p->name, sizeof(p->name), "%s", name);
		p->action = action;
		p->argument = argument;
		p->at = at;
		__atomic_store_n(&p->state, FAILPOINT_SET, __ATOMIC_SEQ_CST);
		return p;
	}
	die("no place left");
}

void fault_disarm(void)
{
	for (unsigned i = 0; i < FAILPOINT_PLACES; i++) {
		fault_points->place[i].action = FAILPOINT_COUNT;
		fault_points->place[i].passed = fault_points->place[i].hit = 0;
	}
}
#endif

/* ---- the node ----------------------------------------------------------------------------------------- */

static void make_bundle(char *ret, size_t size)
{
	char made[1100], there[1100];

	(void)snprintf(ret, size, "%s", in_build("tests/untrained-bundle"));
	(void)snprintf(there, sizeof(there), "%s/model.json", ret);
	if (access(there, R_OK) == 0)
		return;
	(void)snprintf(made, sizeof(made), "%s.%d", ret, (int)getpid());
	if (RUN(in_build("tools/bundle/mkbundle"), "--seed", "1", "--out", made) != 0)
		die("mkbundle");
	if (rename(made, ret) < 0)
		(void)RUN("rm", "-rf", made); /* another test was faster */
}

void node_setup(const struct node_setup *s)
{
	unsigned mebibytes = s->mebibytes != 0 ? s->mebibytes : 1024;
	char bundle[1024], spool[700];
	const char *srcdir = getenv("srcdir");
	FILE *f;

	if (mkdir(state, 0700) < 0 && errno != EEXIST)
		die(state);
	if (s->type != NULL) {
		disk_state = disk_new(s->type, state, mebibytes);
		(void)snprintf(spool, sizeof(spool), "%s/spool", state);
		disk_spool = disk_new(s->type, spool, mebibytes);
		(void)RUN("sync", "-f", state); /* the mount point is no part of what is tried */
	}
	wrap = s->wrap;
	make_bundle(bundle, sizeof(bundle));
	f = fopen(config_path, "w");
	if (f == NULL)
		die(config_path);
	(void)fprintf(f,
		      "ae_title: CARZEROD\n"
		      "listen: [\"127.0.0.1:%u\"]\n"
		      "state_dir: %s\n"
		      "model: %s\n"
		      "findings: %s/tests/findings-test.yaml\n"
		      "threads: 1\n"
		      "settle: 0\n"
		      "settle_max: 3\n"
		      "storage: {min_free: 1 MiB, keep_embeddings: true, %s}\n"
		      "limits: {associations_per_host: 32%s%s}\n"
		      "access:\n"
		      "- {calling_ae: \"*\", from: [127.0.0.0/8]}\n"
		      "peers:\n"
		      "- {ae_title: ARCHIVE, host: 127.0.0.1, port: %u, sr_classes: [comprehensive], objects: [sr]}\n"
		      "routes: %s\n%s",
		      port_of_node, state, bundle, srcdir != NULL ? srcdir : ".", s->storage != NULL ? s->storage : "ballast: 1 MiB",
		      s->limits != NULL ? ", " : "",
		      s->limits != NULL ? s->limits : "", port_of_archive,
		      s->routes != NULL ? s->routes : "[{from: \"*\", to: [ARCHIVE]}]", s->extra != NULL ? s->extra : "");
	(void)fclose(f);
}

void node_start(void)
{
	const char *argv[64];
	size_t n = 0;
	int fd;

	for (; wrap != NULL && wrap[n] != NULL; n++)
		argv[n] = wrap[n];
	argv[n++] = in_build("carzerod");
	argv[n++] = "-c";
	argv[n++] = config_path;
	argv[n] = NULL;
	node = fork();
	if (node < 0)
		die("fork");
	if (node == 0) {
		fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		(void)dup2(fd, 2);
		(void)setsid();
		(void)setenv("CARZEROD_LIBEXECDIR", in_build(""), 1);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	node_status = -1;
}

pid_t node_pid(void)
{
	return node;
}

uint16_t node_port(void)
{
	return port_of_node;
}

uint16_t archive_port(void)
{
	return port_of_archive;
}

const char *node_state(void)
{
	return state;
}

bool node_running(void)
{
	int status;

	if (node <= 0)
		return false;
	if (node_status < 0 && waitpid(node, &status, WNOHANG) == node)
		node_status = status;
	return node_status < 0;
}

static int connect_node(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port_of_node),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval limit = { .tv_sec = 20 };
	int on = 1, sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0)
		die("socket");
	if (connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		(void)close(sock);
		return -1;
	}
	(void)setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return sock;
}

static int log_lines(const char *text)
{
	CLEANUP(free) char *line = NULL;
	CLEANUP(fclose) FILE *f = fopen(log_path, "r");
	size_t size = 0;
	int n = 0;

	while (f != NULL && getline(&line, &size, f) > 0)
		n += strstr(line, text) != NULL;
	return n;
}

bool node_log_has(const char *text)
{
	return log_lines(text) > 0;
}

unsigned node_log_count(const char *text)
{
	return (unsigned)log_lines(text);
}

bool node_wait_ready(unsigned ms)
{
	int64_t end = fault_now_ms() + ms;
	int sock;

	while ((sock = connect_node()) < 0) {
		if (!node_running() || fault_now_ms() >= end)
			return false;
		fault_pause(3);
	}
	(void)close(sock);
	return true;
}

/* The line of this node, not of one before it. */
bool node_wait_model(unsigned ms)
{
	int64_t end = fault_now_ms() + ms;
	char text[64];

	for (;;) {
		CLEANUP(free) char *line = NULL;
		CLEANUP(fclose) FILE *f = fopen(log_path, "r");
		size_t size = 0;

		(void)snprintf(text, sizeof(text), "carzerod[%d] info: model ", (int)node);
		while (f != NULL && getline(&line, &size, f) > 0)
			if (strstr(line, text) != NULL)
				return true;
		if (!node_running() || fault_now_ms() >= end)
			return false;
		fault_pause(10);
	}
}

/* Every process of the group: what the leader left behind became ours. */
static void reap_group(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-node, &status, 0)) > 0 || (pid < 0 && errno == EINTR))
		if (pid == node)
			node_status = status;
	node = 0;
}

void node_kill(void)
{
	if (node <= 0)
		return;
	(void)kill(-node, SIGKILL);
	if (node_status < 0)
		(void)kill(node, SIGKILL); /* killed before its setsid() */
	reap_group();
}

/* The kernel answers 0 to an fsync that is under way during the ioctl although it lost the data: 63 of 400
 * times with ext4, and with xfs as well, for a program that does nothing else.  A machine without
 * power says nothing at all; so from here on no answer counts.  The database goes first, lest such a
 * lie about the spool is committed. */
void node_power_cut(void)
{
	__atomic_add_fetch(powered, 1, __ATOMIC_SEQ_CST);
	disk_cut(disk_state);
	disk_cut(disk_spool);
	node_kill();
	__atomic_add_fetch(powered, 1, __ATOMIC_SEQ_CST);
	unmount(disk_spool);
	unmount(disk_state);
	attach(disk_state);
	attach(disk_spool);
}

int node_stop(unsigned ms)
{
	int64_t end = fault_now_ms() + ms;
	int status;

	if (node <= 0)
		return -1;
	(void)kill(node, SIGTERM);
	while (node_running() && fault_now_ms() < end)
		fault_pause(2);
	status = node_status;
	node_kill();
	if (status < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t node_child(const char *program, unsigned nth)
{
	DIR *d = opendir("/proc");
	pid_t found = 0;
	struct dirent *entry;

	while (d != NULL && found == 0 && (entry = readdir(d)) != NULL) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		char path[64], name[64] = "";
		CLEANUP(close) int fd = -1;

		if (pid <= 0 || getpgid(pid) != node)
			continue;
		(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
			continue;
		if (strcmp(name, program) == 0 && nth-- == 0)
			found = pid;
	}
	if (d != NULL)
		(void)closedir(d);
	return found;
}

/* ---- images ---------------------------------------------------------------------------------------------- */

static uint8_t *pattern;
static size_t pattern_size, at_sop, at_study, at_series;

static size_t find_uid(const uint8_t tag[4])
{
	uint8_t head[6];
	const uint8_t *p;

	memcpy(head, tag, 4);
	memcpy(head + 4, "UI", 2);
	p = memmem(pattern, pattern_size, head, sizeof(head));
	if (p == NULL || p[6] != 44 || memcmp(p + 8, "2.25.", 5) != 0)
		die("the phantom is not as it was");
	return (size_t)(p + 8 - pattern);
}

/* One phantom; every other image is the same with other UIDs of the same length. */
static void load_pattern(void)
{
	CLEANUP(free) void *file = NULL;
	char path[700];
	uint32_t meta;
	struct err e;
	size_t n;

	(void)snprintf(path, sizeof(path), "%s/pattern.dcm", work);
	if (RUN(in_build("tools/phantom/phantom"), "--seed", "7", "--size", "64x64", "--patient-name", PATIENT_NAME, "--patient-id",
		PATIENT_ID, "--accession", ACCESSION, "--study-uid", "2.25.100000000000000000000000000000000000007",
		"--series-uid", "2.25.100000000000000000000000000000000000007", "--instance-uid",
		"2.25.100000000000000000000000000000000000007", "-o", path) != 0)
		die("phantom");
	if (read_path(path, 1 << 20, &file, &n, &e) < 0)
		die(path);
	memcpy(&meta, (char *)file + 140, 4); /* (0002,0000), then the group */
	pattern_size = n - 144 - meta;
	pattern = xcalloc(1, pattern_size);
	memcpy(pattern, (char *)file + 144 + meta, pattern_size);
	at_sop = find_uid((const uint8_t[]){ 8, 0, 0x18, 0 });
	at_study = find_uid((const uint8_t[]){ 0x20, 0, 0x0d, 0 });
	at_series = find_uid((const uint8_t[]){ 0x20, 0, 0x0e, 0 });
}

void image_make(uint32_t number, struct image *ret)
{
	char uid[UID_MAX];

	if (pattern == NULL)
		load_pattern();
	(void)snprintf(uid, sizeof(uid), "2.25.1%038u", number);
	ret->n = pattern_size;
	ret->data_set = xcalloc(1, pattern_size);
	memcpy(ret->data_set, pattern, pattern_size);
	memcpy(ret->data_set + at_sop, uid, 44);
	memcpy(ret->data_set + at_study, uid, 44);
	memcpy(ret->data_set + at_series, uid, 44);
	(void)str_copy(ret->sop, UID_MAX, uid);
	(void)str_copy(ret->study, UID_MAX, uid);
	digest_of(ret->data_set, ret->n, ret->digest);
}

void image_free(struct image *i)
{
	free(i->data_set);
}

/* ---- a sender --------------------------------------------------------------------------------------------- */

#define DX "1.2.840.10008.5.1.4.1.1.1.1"

struct out {
	uint8_t b[65536];
	size_t n;
};

static void put(struct out *o, const void *p, size_t n)
{
	memcpy(o->b + o->n, p, n);
	o->n += n;
}

static void put8(struct out *o, unsigned v)
{
	o->b[o->n++] = (uint8_t)v;
}

static void put_be(struct out *o, uint32_t v, unsigned bytes)
{
	while (bytes-- > 0)
		put8(o, v >> 8 * bytes & 0xff);
}

static void put_le(struct out *o, uint32_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		put8(o, v >> 8 * i & 0xff);
}

static void fill_be(struct out *o, size_t at, uint32_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		o->b[at + i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
}

static void put_item(struct out *o, unsigned type, const char *text)
{
	put8(o, type);
	put8(o, 0);
	put_be(o, (uint32_t)strlen(text), 2);
	put(o, text, strlen(text));
}

/* PS3.8 9.3.2 */
static void put_request(struct out *o, const char *calling)
{
	char titles[33];
	size_t context, user;

	put8(o, 1);
	put8(o, 0);
	put_be(o, 0, 4);
	put_be(o, 1, 2);
	put_be(o, 0, 2);
	(void)snprintf(titles, sizeof(titles), "%-16s%-16s", "CARZEROD", calling);
	put(o, titles, 32);
	for (unsigned i = 0; i < 32; i++)
		put8(o, 0);
	put_item(o, 0x10, "1.2.840.10008.3.1.1.1");
	context = o->n;
	put8(o, 0x20);
	put8(o, 0);
	put_be(o, 0, 2);
	put8(o, 1);
	put8(o, 0);
	put8(o, 0);
	put8(o, 0);
	put_item(o, 0x30, DX);
	put_item(o, 0x40, "1.2.840.10008.1.2.1");
	fill_be(o, context + 2, (uint32_t)(o->n - context - 4), 2);
	user = o->n;
	put8(o, 0x50);
	put8(o, 0);
	put_be(o, 0, 2);
	put8(o, 0x51);
	put8(o, 0);
	put_be(o, 4, 2);
	put_be(o, 16384, 4);
	put_item(o, 0x52, "2.25.1");
	fill_be(o, user + 2, (uint32_t)(o->n - user - 4), 2);
	fill_be(o, 2, (uint32_t)(o->n - 6), 4);
}

/* One PDU into `ret`; its type, or -1. */
static int get_pdu(int sock, uint8_t *ret, size_t size, size_t *ret_n)
{
	uint8_t head[6];
	uint32_t n;

	if (read_full(sock, head, 6) < 0)
		return -1;
	n = (uint32_t)head[2] << 24 | (uint32_t)head[3] << 16 | (uint32_t)head[4] << 8 | head[5];
	if (n > size || read_full(sock, ret, n) < 0)
		return -1;
	*ret_n = n;
	return head[0];
}

int sender_open(const char *calling)
{
	struct out *o = xcalloc(1, sizeof(*o));
	int sock = connect_node(), type = -1;
	size_t n;

	put_request(o, calling);
	if (sock >= 0 && write_full(sock, o->b, o->n) == 0)
		type = get_pdu(sock, o->b, sizeof(o->b), &n);
	/* presentation context item: accepted? it lies behind the fixed fields and the application context */
	if (type == 2 && o->b[68 + 25 + 6] != 0)
		type = -1;
	if (type != 2 && sock >= 0)
		(void)close(sock);
	free(o);
	return type == 2 ? sock : type == 3 ? -2 : -1;
}

static void put_element(struct out *o, unsigned element, const void *p, size_t n)
{
	put_le(o, 0, 2);
	put_le(o, element, 2);
	put_le(o, (uint32_t)n, 4);
	put(o, p, n);
}

static void put_short(struct out *o, unsigned element, unsigned value)
{
	uint8_t v[2] = { (uint8_t)value, (uint8_t)(value >> 8) };

	put_element(o, element, v, 2);
}

/* P-DATA-TF with one PDV. */
static void put_pdv(struct out *o, unsigned control, const void *p, size_t n)
{
	put8(o, 4);
	put8(o, 0);
	put_be(o, (uint32_t)(n + 6), 4);
	put_be(o, (uint32_t)(n + 2), 4);
	put8(o, 1);
	put8(o, control);
	put(o, p, n);
}

static void put_store(struct out *o, const struct image *image)
{
	struct out *c = xcalloc(1, sizeof(*c));
	char class_uid[29] = DX;

	put_element(c, 0x0002, class_uid, 28);
	put_short(c, 0x0100, 1);
	put_short(c, 0x0110, 7);
	put_short(c, 0x0700, 0);
	put_short(c, 0x0800, 1);
	put_element(c, 0x1000, image->data_set + at_sop, 44);
	{
		struct out *all = xcalloc(1, sizeof(*all));

		put_le(all, 0, 4);
		put_le(all, 4, 4);
		put_le(all, (uint32_t)c->n, 4);
		put(all, c->b, c->n);
		put_pdv(o, 3, all->b, all->n);
		free(all);
	}
	free(c);
	for (size_t at = 0; at < image->n;) {
		size_t n = image->n - at > 4000 ? 4000 : image->n - at; /* several PDUs, as large images have */

		put_pdv(o, at + n == image->n ? 2 : 0, image->data_set + at, n);
		at += n;
	}
}

/* (0000,0900) in a command set. */
static int status_of(const uint8_t *p, size_t n)
{
	for (size_t at = 0; at + 10 <= n;) {
		uint32_t size = (uint32_t)p[at + 4] | (uint32_t)p[at + 5] << 8 | (uint32_t)p[at + 6] << 16;

		if (p[at + 2] == 0 && p[at + 3] == 9)
			return p[at + 8] | p[at + 9] << 8;
		at += 8 + size;
	}
	return -1;
}

int sender_store(int sock, uint32_t number)
{
	struct out *o = xcalloc(1, sizeof(*o));
	struct image image;
	int status = -1;
	size_t n = 0;

	image_make(number, &image);
	put_store(o, &image);
	if (write_full(sock, o->b, o->n) == 0 && get_pdu(sock, o->b, sizeof(o->b), &n) == 4 && n > 6)
		status = status_of(o->b + 6, n - 6);
	image_free(&image);
	free(o);
	return status;
}

int sender_store_half(int sock, uint32_t number)
{
	struct out *o = xcalloc(1, sizeof(*o));
	struct image image;
	int r;

	image_make(number, &image);
	put_store(o, &image);
	r = write_full(sock, o->b, o->n / 2);
	image_free(&image);
	free(o);
	return r;
}

void sender_close(int sock)
{
	static const uint8_t release[10] = { 5, 0, 0, 0, 0, 4 };
	uint8_t answer[64];
	size_t n;

	if (write_full(sock, release, sizeof(release)) == 0)
		(void)get_pdu(sock, answer, sizeof(answer), &n);
	(void)close(sock);
}

/* ---- many senders ------------------------------------------------------------------------------------------ */

struct answer {
	uint32_t number;
	int32_t status;
};

static int answers_open(int flags)
{
	char path[700];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/answers", work);
	fd = open(path, flags | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

static void send_for_ever(unsigned which, unsigned per, unsigned pause_ms) __attribute__((noreturn));
static void send_for_ever(unsigned which, unsigned per, unsigned pause_ms)
{
	struct answer a = { .number = which * FAULT_SENDER_SPAN };
	int answers = answers_open(O_WRONLY | O_APPEND);

	for (;;) {
		uint32_t power = __atomic_load_n(powered, __ATOMIC_SEQ_CST);
		int sock = sender_open("MODALITY");

		if (sock < 0) {
			fault_pause(5);
			continue;
		}
		for (unsigned i = 0; i < per; i++) {
			a.status = sender_store(sock, a.number);
			if (__atomic_load_n(powered, __ATOMIC_SEQ_CST) != power)
				a.status = -1;
			if (a.status < 0)
				break;
			if (write(answers, &a, sizeof(a)) != sizeof(a))
				_exit(1);
			a.number += a.status == 0;
			if (a.status != 0)
				fault_pause(20);
			if (pause_ms > 0)
				fault_pause(pause_ms);
		}
		if (a.status < 0)
			(void)close(sock);
		else
			sender_close(sock);
	}
}

void senders_start(unsigned n, unsigned per, unsigned pause_ms)
{
	struct image first;

	image_make(0, &first); /* the pattern is made before the processes are */
	image_free(&first);
	for (unsigned i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			(void)signal(SIGTERM, SIG_DFL);
			(void)signal(SIGINT, SIG_DFL);
			send_for_ever((unsigned)n_senders, per, pause_ms);
		}
		senders[n_senders++] = pid;
	}
}

pid_t sender_until(uint32_t number)
{
	struct answer a = { .number = number, .status = -1 };
	struct image image;
	pid_t pid;
	int answers;

	image_make(number, &image);
	image_free(&image);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGTERM, SIG_DFL);
	answers = answers_open(O_WRONLY | O_APPEND);
	while (a.status != 0) {
		uint32_t power = __atomic_load_n(powered, __ATOMIC_SEQ_CST);
		int sock = sender_open("MODALITY");

		if (sock >= 0)
			a.status = sender_store(sock, number);
		if (__atomic_load_n(powered, __ATOMIC_SEQ_CST) != power)
			a.status = -1;
		if (a.status >= 0 && write(answers, &a, sizeof(a)) != sizeof(a))
			_exit(1);
		if (sock >= 0 && a.status >= 0)
			sender_close(sock);
		else if (sock >= 0)
			(void)close(sock);
		if (a.status != 0)
			fault_pause(10);
	}
	_exit(0);
}

bool sender_done(pid_t pid, unsigned ms)
{
	int64_t end = fault_now_ms() + ms;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (fault_now_ms() >= end) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, &status, 0);
			return false;
		}
		fault_pause(3);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void senders_stop(void)
{
	while (n_senders > 0) {
		pid_t pid = senders[--n_senders];

		(void)kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
}

uint64_t senders_answers(void)
{
	CLEANUP(close) int fd = answers_open(O_RDONLY);
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_size / sizeof(struct answer);
}

/* ---- the reckoning ------------------------------------------------------------------------------------------- */

static struct store *open_reader(void)
{
	struct store *s = NULL;
	char path[700];
	struct err e = { "" };

	(void)snprintf(path, sizeof(path), "%s/carzerod.db", state);
	for (unsigned i = 0; i < 20; i++) { /* the node may be making it */
		if (store_open_reader(path, &s, &e) == 0)
			return s;
		fault_pause(20);
	}
	return NULL;
}

/* The file that a row names, read as the disk gives it back. */
static bool file_holds(uint64_t id, const struct image *image)
{
	CLEANUP(free) void *file = NULL;
	char path[800];
	struct err e;
	size_t n;

	(void)snprintf(path, sizeof(path), "%s/spool/objects/%02x/%016llx", state, (unsigned)(id >> 56),
		       (unsigned long long)id);
	if (read_path(path, 1 << 20, &file, &n, &e) < 0 || n < image->n)
		return false;
	return memcmp((char *)file + n - image->n, image->data_set, image->n) == 0;
}

/* Not what goes with them (pages, presentation states). */
static int structured_reports(struct store *s, int64_t study, struct report *ret, size_t max, size_t *ret_n)
{
	size_t n = 0, kept = 0;
	int r = store_study_reports(s, study, ret, max, &n);

	for (size_t i = 0; i < n && i < max; i++)
		if (strcmp(ret[i].kind, "SR") == 0)
			ret[kept++] = ret[i];
	*ret_n = kept;
	return r == -E2BIG ? 0 : r;
}

static void reckon_image(struct store *s, uint32_t number, bool reports, struct reckoning *r)
{
	struct image image;
	struct instance *in = xcalloc(8, sizeof(*in));
	struct report *rep = xcalloc(8, sizeof(*rep));
	struct study study;
	size_t n = 0;

	image_make(number, &image);
	if (store_find_study(s, image.study, &study) < 0 || store_study_instances(s, study.id, in, 8, &n) < 0 || n != 1) {
		printf("# image %u: no row (%s)\n", number, store_error(s));
		r->lost++;
	} else if (memcmp(in[0].digest, image.digest, DIGEST_SIZE) != 0 || !file_holds(in[0].file, &image)) {
		printf("# image %u: row %lld, but file %016llx is not there or not equal\n", number, (long long)in[0].id,
		       (unsigned long long)in[0].file);
		r->lost++;
	} else if (reports) {
		r->quarantined += in[0].state == INSTANCE_QUARANTINED;
		n = 0;
		(void)structured_reports(s, study.id, rep, 8, &n);
		r->unreported += n == 0;
		r->twice += n > 1;
	}
	free(rep);
	free(in);
	image_free(&image);
}

static void reckon(off_t from, off_t to, bool reports, struct reckoning *r)
{
	CLEANUP(close) int fd = answers_open(O_RDONLY);
	struct store *s = open_reader();
	struct answer a;

	for (; from + (off_t)sizeof(a) <= to && pread_full(fd, &a, sizeof(a), from) == 0; from += (off_t)sizeof(a)) {
		if (a.status != 0) {
			r->refused++;
			continue;
		}
		r->acknowledged++;
		if (s == NULL)
			r->lost++;
		else
			reckon_image(s, a.number, reports, r);
	}
	store_close(s);
}

void reckon_new(struct reckoning *r)
{
	off_t end = (off_t)(senders_answers() * sizeof(struct answer));

	reckon(seen, end, false, r);
	seen = end;
}

void reckon_all(struct reckoning *r)
{
	reckon(0, (off_t)(senders_answers() * sizeof(struct answer)), true, r);
}

bool node_at_rest(void)
{
	struct store *s = open_reader();
	struct store_counts c;
	bool rest = s != NULL && store_counts(s, &c) == 0 &&
		    c.instances[INSTANCE_READY] + c.instances[INSTANCE_CLAIMED] + c.studies[STUDY_COLLECTING] +
				    c.studies[STUDY_COMPOSING] + c.deliveries[DELIVERY_QUEUED] +
				    c.deliveries[DELIVERY_SENDING] == 0;

	store_close(s);
	return rest;
}

/* ---- the archive ----------------------------------------------------------------------------------------------- */

static void archive_on(uint16_t number)
{
	char folder[700], port[8];

	(void)snprintf(folder, sizeof(folder), "%s/archive", work);
	(void)snprintf(port, sizeof(port), "%u", number);
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		die(folder);
	archive = fork();
	if (archive < 0)
		die("fork");
	if (archive == 0) {
		int null = open("/dev/null", O_RDWR);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		(void)setenv("TCP_NODELAY", "1", 1);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("storescp", "storescp", "-aet", "ARCHIVE", "-od", folder, port, (char *)NULL);
		_exit(127);
	}
}

void archive_start(void)
{
	archive_on(port_of_archive);
}

uint16_t archive_start_behind(void)
{
	uint16_t port = free_port();

	archive_on(port);
	return port;
}

void archive_stop(void)
{
	if (archive <= 0)
		return;
	(void)kill(archive, SIGKILL);
	while (waitpid(archive, NULL, 0) < 0 && errno == EINTR)
		continue;
	archive = 0;
}

/* Where the data set of a Part 10 file with File Meta begins. */
static size_t data_set_at(const uint8_t *file, size_t n)
{
	if (n < 144)
		return n;
	return 144 + ((size_t)file[140] | (size_t)file[141] << 8 | (size_t)file[142] << 16);
}

static bool same_data_set(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b)
{
	size_t x = data_set_at(a, n_a), y = data_set_at(b, n_b);

	return x < n_a && y < n_b && n_a - x == n_b - y && memcmp(a + x, b + y, n_a - x) == 0;
}

/* The only report of the image's study, or NULL. */
static void *only_report(const struct image *image, size_t *ret_n)
{
	struct store *s = open_reader();
	struct report *rep = xcalloc(8, sizeof(*rep));
	struct study study;
	void *file = NULL;
	char path[800];
	struct err e;
	size_t n = 0;

	if (s != NULL && store_find_study(s, image->study, &study) == 0 && structured_reports(s, study.id, rep, 8, &n) == 0 &&
	    n == 1) {
		(void)snprintf(path, sizeof(path), "%s/spool/reports/%02x/%016llx", state, (unsigned)(rep[0].file >> 56),
			       (unsigned long long)rep[0].file);
		if (read_path(path, 1 << 20, &file, ret_n, &e) < 0)
			file = NULL;
	}
	store_close(s);
	free(rep);
	return file;
}

unsigned archive_count(uint32_t number, bool *ret_equal)
{
	CLEANUP(free) void *ours = NULL;
	char path[1024];
	struct dirent *entry;
	struct image image;
	unsigned n = 0;
	size_t n_ours = 0;
	DIR *d;

	image_make(number, &image);
	ours = only_report(&image, &n_ours);
	*ret_equal = ours != NULL;
	(void)snprintf(path, sizeof(path), "%s/archive", work);
	d = opendir(path);
	while (d != NULL && (entry = readdir(d)) != NULL) {
		CLEANUP(free) void *file = NULL;
		struct err e;
		size_t size;

		(void)snprintf(path, sizeof(path), "%s/archive/%s", work, entry->d_name);
		if (entry->d_name[0] == '.' || read_path(path, 1 << 20, &file, &size, &e) < 0 ||
		    memmem(file, size, image.study, strlen(image.study)) == NULL)
			continue;
		n++;
		*ret_equal = *ret_equal && same_data_set(file, size, ours, n_ours);
	}
	if (d != NULL)
		(void)closedir(d);
	image_free(&image);
	return n;
}

bool node_instance(uint32_t number, struct instance *ret)
{
	struct store *s = open_reader();
	struct study study;
	struct image image;
	size_t n = 0;
	bool found;

	image_make(number, &image);
	found = s != NULL && store_find_study(s, image.study, &study) == 0 &&
		store_study_instances(s, study.id, ret, 1, &n) == 0 && n == 1;
	image_free(&image);
	store_close(s);
	return found;
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

static unsigned planted_lines(const char *birth_date)
{
	const char *const planted[] = { PATIENT_NAME, "Zebedee", PATIENT_ID, ACCESSION, birth_date };
	CLEANUP(free) char *line = NULL;
	CLEANUP(fclose) FILE *f = fopen(log_path, "r");
	unsigned found = 0;
	size_t size = 0;

	while (f != NULL && getline(&line, &size, f) > 0)
		for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++)
			found += planted[i][0] != '\0' && strstr(line, planted[i]) != NULL;
	return found;
}

int fault_planted(void)
{
	char birth_date[9] = "";
	const uint8_t *p;

	end_all();
	if (pattern == NULL)
		load_pattern();
	p = memmem(pattern, pattern_size, "\x10\0\x30\0DA\x08\0", 8);
	if (p == NULL)
		return -1; /* nothing planted is no proof */
	memcpy(birth_date, p + 8, 8);
	return (int)planted_lines(birth_date);
}
