/* test_sandbox.c: the walls of each role, tried from inside.
 *
 * Every attempt is a child of its own: it enters the role's sandbox and does the one thing.  What is
 * refused must end it with SANDBOX_EXIT after one line that names the call; what a role needs must
 * go on working.  The allow-lists are written down here a second time, number by number, and every other
 * system call is tried: a list that grows must grow in both places, with a reason.
 *
 * Signals are sent as number 0 and addresses are not there, so that a hole does no harm.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cblas.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/mem.h"

#include "daemon/sandbox.h"

#include "tests/tap.h"

#define PASSED 0     /* exit codes of a child: the call came back */
#define WRONG 1      /* something that must work did not */
#define NO_SANDBOX 2 /* sandbox_enter() failed */
#define SYSCALLS 512 /* beyond the newest number */
#define CHILD_SECONDS 20
#define AS_BYTES ((uint64_t)512 << 20)

static const struct {
	enum sandbox_role role;
	const char *name;
} roles[] = {
	{ SANDBOX_LISTENER, "listener" },
	{ SANDBOX_DISPATCHER, "dispatcher" },
	{ SANDBOX_ASSOCIATION, "association" },
	{ SANDBOX_IMAGE, "image" },
	{ SANDBOX_INFER, "infer" },
	{ SANDBOX_SEND, "send" },
};

static bool starts_processes(enum sandbox_role role)
{
	return role == SANDBOX_LISTENER || role == SANDBOX_DISPATCHER;
}

static bool on_network(enum sandbox_role role)
{
	return role == SANDBOX_LISTENER || role == SANDBOX_ASSOCIATION || role == SANDBOX_SEND;
}

/* ---- children ---------------------------------------------------------------------------------- */

static char child_said[512]; /* the last child's stderr */

/* Runs `work` in a child behind the role's walls; returns its wait status. */
static int in_child(enum sandbox_role role, void (*work)(const void *arg), const void *arg)
{
	int err_pipe[2], status = -1;
	ssize_t n, got = 0;
	pid_t pid;

	if (pipe2(err_pipe, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		struct err e;

		(void)dup2(err_pipe[1], STDERR_FILENO);
		(void)close(err_pipe[0]);
		(void)close(err_pipe[1]);
		(void)alarm(CHILD_SECONDS);
		if (sandbox_enter(role, &e) < 0)
			_exit(NO_SANDBOX);
		work(arg);
		_exit(PASSED);
	}
	(void)close(err_pipe[1]);
	while ((n = read(err_pipe[0], child_said + got, sizeof(child_said) - 1 - (size_t)got)) > 0)
		got += n;
	child_said[got] = '\0';
	(void)close(err_pipe[0]);
	(void)waitpid(pid, &status, 0);
	return status;
}

static bool refused(int status, long number)
{
	const char *said = strstr(child_said, "sandbox: system call"); /* after the program's name */
	char line[96];

	(void)snprintf(line, sizeof(line), "sandbox: system call %ld refused, process ends\n", number);
	return WIFEXITED(status) && WEXITSTATUS(status) == SANDBOX_EXIT && said != NULL && strcmp(said, line) == 0;
}

static bool exited(int status, int code)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static bool killed_silently(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static void explain(int status)
{
	printf("# wait status %#x, stderr \"%.*s\"\n", (unsigned)status, (int)strcspn(child_said, "\n"), child_said);
}

/* ---- what must end the process -------------------------------------------------------------------- */

static void open_a_file(const void *arg)
{
	FILE *f = fopen("/etc/passwd", "r");

	(void)arg;
	(void)f;
}

static void create_a_file(const void *arg)
{
	(void)arg;
	(void)!open("/tmp/carzerod-sandbox-hole", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static void make_a_socket(const void *arg)
{
	(void)arg;
	(void)!socket(AF_INET, SOCK_STREAM, 0);
}

static void make_a_datagram_socket(const void *arg)
{
	(void)arg;
	(void)!socket(AF_INET, SOCK_DGRAM, 0);
}

static void make_a_raw_socket(const void *arg)
{
	(void)arg;
	(void)!socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static void make_a_unix_socket(const void *arg)
{
	(void)arg;
	(void)!socket(AF_UNIX, SOCK_STREAM, 0);
}

static void make_a_pair(const void *arg)
{
	int pair[2];

	(void)arg;
	(void)!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
}

static void connect_somewhere(const void *arg)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(9) };

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)arg;
	(void)!connect(0, (struct sockaddr *)&sa, sizeof(sa));
}

static void fork_a_process(const void *arg)
{
	(void)arg;
	(void)!fork();
}

static void make_a_namespace(const void *arg)
{
	(void)arg;
	(void)!syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}

static void *nothing(void *arg)
{
	return arg;
}

static void make_a_thread(const void *arg)
{
	pthread_t t;

	(void)arg;
	(void)!pthread_create(&t, NULL, nothing, NULL);
}

static void run_a_program(const void *arg)
{
	(void)arg;
	(void)!execl("/bin/true", "true", (char *)NULL);
}

static void trace_the_parent(const void *arg)
{
	(void)arg;
	(void)!ptrace(PTRACE_ATTACH, getpid(), NULL, NULL);
}

static void become_dumpable(const void *arg)
{
	(void)arg;
	(void)!prctl(PR_SET_DUMPABLE, 1);
}

static void signal_the_parent(const void *arg)
{
	(void)!kill(*(const pid_t *)arg, 0);
}

static void map_code(const void *arg)
{
	(void)arg;
	(void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void map_writable_code(const void *arg)
{
	(void)arg;
	(void)!mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void make_data_code(const void *arg)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)arg;
	(void)!mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void call(const void *arg)
{
	(void)!syscall(*(const long *)arg, -1L, -1L, -1L, -1L, -1L, -1L);
}

#define SILENT -1L

static const struct {
	const char *what;
	void (*work)(const void *arg);
	long number; /* SILENT: the kernel ends the process itself, without a word */
	unsigned may; /* roles that can: a bit each */
} attempts[] = {
	{ "open a file", open_a_file, SYS_openat, 1 << SANDBOX_LISTENER },
	{ "create a file", create_a_file, SYS_openat, 0 },
	{ "make a socket", make_a_socket, SYS_socket, 1 << SANDBOX_SEND },
	{ "make a datagram socket", make_a_datagram_socket, SYS_socket, 0 },
	{ "make a raw socket", make_a_raw_socket, SYS_socket, 0 },
	{ "make a UNIX socket", make_a_unix_socket, SYS_socket, 0 },
	{ "make a socket pair", make_a_pair, SYS_socketpair, 1 << SANDBOX_LISTENER | 1 << SANDBOX_DISPATCHER },
	{ "connect", connect_somewhere, SYS_connect, 1 << SANDBOX_SEND },
	{ "fork", fork_a_process, SYS_clone, 1 << SANDBOX_LISTENER | 1 << SANDBOX_DISPATCHER },
	{ "make a namespace", make_a_namespace, SYS_clone, 0 },
	{ "make a thread", make_a_thread, SILENT, 0 }, /* glibc blocks all signals around it, ours for SIGSYS too */
	{ "run a program", run_a_program, SYS_execve, 0 },
	{ "trace a process", trace_the_parent, SYS_ptrace, 0 },
	{ "make itself dumpable", become_dumpable, SYS_prctl, 0 },
	{ "signal the parent", signal_the_parent, SYS_kill, 1 << SANDBOX_LISTENER | 1 << SANDBOX_DISPATCHER },
	{ "map executable memory", map_code, SYS_mmap, 0 },
	{ "map writable and executable memory", map_writable_code, SYS_mmap, 0 },
	{ "make data executable", make_data_code, SYS_mprotect, 0 },
};

static void test_refused(enum sandbox_role role, const char *name)
{
	pid_t parent = getpid();
	size_t i;

	for (i = 0; i < ARRAY_SIZE(attempts); i++) {
		int status = in_child(role, attempts[i].work, &parent);

		bool ended = attempts[i].number == SILENT ? killed_silently(status) : refused(status, attempts[i].number);
		bool may = (attempts[i].may >> role & 1) != 0;

		if (!ok(may ? exited(status, PASSED) : ended, "%s: can%s %s", name, may ? "" : "not", attempts[i].what))
			explain(status);
	}
}

/* ---- every other call ------------------------------------------------------------------------------- */

static const short for_all[] = {
	SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_writev, SYS_close, SYS_fstat, SYS_newfstatat, SYS_lseek,
	SYS_fsync, SYS_sendmsg, SYS_recvmsg, SYS_poll, SYS_ppoll, SYS_futex, SYS_munmap, SYS_mremap, SYS_brk,
	SYS_madvise, SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction,
	SYS_clock_gettime, SYS_gettimeofday, SYS_getpid, SYS_gettid, SYS_getrandom, SYS_restart_syscall,
	SYS_sched_yield, SYS_sched_getaffinity, SYS_fcntl, SYS_getrusage, SYS_nanosleep, SYS_clock_nanosleep,
	SYS_tgkill, SYS_sysinfo,
};
static const short for_network[] = {
	SYS_recvfrom, SYS_sendto, SYS_shutdown, SYS_select, SYS_pselect6, SYS_getpeername, SYS_getsockname,
	SYS_setsockopt, SYS_getsockopt, SYS_setitimer, SYS_alarm, SYS_timer_settime, SYS_timer_create,
	SYS_timer_delete, SYS_uname,
};
static const short for_parents[] = {
	SYS_wait4, SYS_kill, SYS_dup3, SYS_socketpair, SYS_set_robust_list, SYS_prlimit64, SYS_seccomp,
	SYS_close_range,
};

#ifdef __x86_64__
/* Recent kernels (6.18 does) let uretprobe and uprobe past every filter; outside of a probe they do nothing. */
static const short past_filters[] = { 335, 336 };
#else
static const short past_filters[] = { -1 };
#endif

static bool listed(long number, const short *list, size_t n)
{
	while (n > 0) {
		if (list[--n] == number)
			return true;
	}
	return false;
}

/* mmap, mprotect, socket, clone, openat and prctl are refused here too: with every bit set they ask for more
 * than any role may. */
static void test_every_call(enum sandbox_role role, const char *name)
{
	unsigned holes = 0, tried = 0;
	long i;

	for (i = 0; i < SYSCALLS; i++) {
		int status;

		if (listed(i, for_all, ARRAY_SIZE(for_all)) || listed(i, past_filters, ARRAY_SIZE(past_filters)) ||
		    (on_network(role) && listed(i, for_network, ARRAY_SIZE(for_network))) ||
		    (starts_processes(role) && listed(i, for_parents, ARRAY_SIZE(for_parents))) ||
		    (role == SANDBOX_INFER && (i == SYS_set_robust_list || i == SYS_rseq || i == SYS_mbind)) ||
		    ((role == SANDBOX_LISTENER || role == SANDBOX_ASSOCIATION) && i == SYS_sync_file_range) ||
		    (role == SANDBOX_LISTENER && i == SYS_accept4) || (role == SANDBOX_SEND && (i == SYS_connect || i == SYS_dup3)))
			continue;
		tried++;
		status = in_child(role, call, &i);
		if (refused(status, i))
			continue;
		printf("# system call %ld is not refused\n", i);
		explain(status);
		holes++;
	}
	is_int(holes, 0, "%s: each of %u other system calls is refused", name, tried);
}

#ifdef __x86_64__
static void call_i386(const void *arg)
{
	long result;

	(void)arg;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory"); /* getpid of the other table */
}

static void call_x32(const void *arg)
{
	(void)arg;
	(void)!syscall(0x40000000L | SYS_getpid);
}
#endif

/* A filter that looks at numbers alone is passed by through another table of numbers. */
static void test_other_tables(enum sandbox_role role, const char *name)
{
#ifdef __x86_64__
	int status = in_child(role, call_i386, NULL);

	if (!ok(WIFSIGNALED(status) || exited(status, SANDBOX_EXIT), "%s: cannot enter by the 32-bit table", name))
		explain(status);
	status = in_child(role, call_x32, NULL);
	if (!ok(WIFSIGNALED(status) || exited(status, SANDBOX_EXIT), "%s: nor by the x32 one", name))
		explain(status);
#else
	(void)role;
	(void)name;
#endif
}

/* ---- signals to others: all processes of the node have one uid ---------------------------------------- */

static void signal_a_thread_of_the_parent(const void *arg)
{
	const pid_t parent = *(const pid_t *)arg;

	(void)!syscall(SYS_tgkill, parent, parent, 0);
}

static void let_a_descriptor_signal_the_parent(const void *arg)
{
	(void)!fcntl(0, F_SETOWN, *(const pid_t *)arg);
}

static void test_others(enum sandbox_role role, const char *name)
{
	pid_t parent = getpid();

	if (starts_processes(role))
		return; /* they end their children; Landlock keeps their signals at home (test_landlock.c) */
	ok(refused(in_child(role, signal_a_thread_of_the_parent, &parent), SYS_tgkill), "%s: cannot tgkill the parent", name);
	ok(refused(in_child(role, let_a_descriptor_signal_the_parent, &parent), SYS_fcntl),
	   "%s: cannot have SIGIO sent to the parent", name);
}

/* ---- what must go on working --------------------------------------------------------------------------- */

static void need(bool good, const char *what)
{
	if (good)
		return;
	(void)dprintf(STDERR_FILENO, "%s: %s", what, strerror(errno));
	_exit(WRONG);
}

static void use_memory(const void *arg)
{
	size_t n = (size_t)64 << 20;
	char *p = malloc(n), *q;

	(void)arg;
	need(p != NULL, "64 MiB");
	memset(p, 1, n);
	q = realloc(p, 2 * n);
	need(q != NULL && q[n - 1] == 1, "128 MiB");
	q[2 * n - 1] = 1;
	free(q);
	for (n = 16; n < 1 << 20; n *= 2) {
		p = malloc(n);
		need(p != NULL, "a small block");
		memset(p, 2, n);
		free(p);
	}
}

struct files {
	int file, pair[2], status;
};

static void use_files(const void *arg)
{
	const struct files *f = arg;
	struct stat st;
	char got[8], *map;
	int fds[1], copy;
	size_t n_fds = 0;

	need(pwrite_full(f->file, "abcd", 4, 0) == 0 && lseek(f->file, 4, SEEK_SET) == 4, "pwrite, lseek");
	need(write_full(f->file, "efgh", 4) == 0, "write");
	need(fsync(f->file) == 0, "fsync");
	need(fstat(f->file, &st) == 0 && st.st_size == 8, "fstat");
	need(pread_full(f->file, got, 4, 2) == 0 && memcmp(got, "cdef", 4) == 0, "pread");
	map = mmap(NULL, 8, PROT_READ, MAP_PRIVATE, f->file, 0);
	need(map != MAP_FAILED && memcmp(map, "abcdefgh", 8) == 0 && munmap(map, 8) == 0, "mmap");
	need(fd_send(f->pair[0], "hello", 5, &f->file, 1) == 0, "sending a descriptor");
	need(fd_receive(f->pair[1], got, sizeof(got), fds, 1, &n_fds) == 5 && n_fds == 1, "receiving one");
	copy = fds[0];
	need(fcntl(copy, F_GETFL) >= 0 && fcntl(copy, F_GETFD) == FD_CLOEXEC, "fcntl");
	need(close(copy) == 0, "close");
}

static void use_clocks(const void *arg)
{
	struct timespec ts, pause = { .tv_nsec = 1000000 };
	struct pollfd p = { .fd = -1 };
	char date[9], when[14], offset[6], random[4];

	(void)arg;
	need(syscall(SYS_clock_gettime, CLOCK_REALTIME, &ts) == 0, "clock_gettime by the kernel");
	need(clock_wall_ms() > 0 && clock_boot_ms() > 0, "both clocks");
	clock_dicom_local(clock_wall_ms(), date, when, offset);
	need(nanosleep(&pause, NULL) == 0, "nanosleep");
	need(poll(&p, 1, 1) == 0, "poll");
	need(syscall(SYS_getrandom, random, sizeof(random), 0) == sizeof(random), "getrandom");
	need(getpid() > 0, "getpid");
}

static void give_up(const void *arg)
{
	(void)arg;
	abort();
}

static void read_status(const void *arg)
{
	const struct files *f = arg;
	char text[4096];
	ssize_t n = pread(f->status, text, sizeof(text) - 1, 0);

	need(n > 0, "own status");
	text[n] = '\0';
	need(strstr(text, "NoNewPrivs:\t1\n") != NULL, "no_new_privs");
	need(strstr(text, "Seccomp:\t2\n") != NULL, "seccomp filter");
}

/* /proc/self is whoever opens it: the child does so before it locks itself down. */
static int status_in_child(enum sandbox_role role)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		struct files f = { .status = open("/proc/self/status", O_RDONLY | O_CLOEXEC) };
		struct err e;

		if (sandbox_enter(role, &e) < 0)
			_exit(NO_SANDBOX);
		read_status(&f);
		_exit(PASSED);
	}
	(void)waitpid(pid, &status, 0);
	return status;
}

static void check_works(enum sandbox_role role, const char *name, const char *what, void (*work)(const void *),
			const void *arg)
{
	int status = in_child(role, work, arg);

	if (!ok(exited(status, PASSED), "%s: %s", name, what))
		explain(status);
}

static void test_works(enum sandbox_role role, const char *name)
{
	struct files f = { .file = fd_memory("test") };
	int status;

	if (!ok(f.file >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f.pair) == 0, "%s: descriptors", name))
		return;
	check_works(role, name, "malloc and realloc of big blocks", use_memory, NULL);
	check_works(role, name, "given descriptors: read, write, fsync, map, pass on", use_files, &f);
	check_works(role, name, "clocks, sleep, poll, random", use_clocks, NULL);
	is_int(status_in_child(role), 0, "%s: the kernel confirms filter and no_new_privs", name);
	status = in_child(role, give_up, NULL);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: abort() is still an abort", name);
	(void)close(f.file);
	(void)close(f.pair[0]);
	(void)close(f.pair[1]);
}

/* ---- association: the connected socket -------------------------------------------------------------------- */

static volatile sig_atomic_t alarmed;

static void on_alarm(int signal_number)
{
	(void)signal_number;
	alarmed = 1;
}

static void use_socket(const void *arg)
{
	const struct files *f = arg;
	struct itimerval soon = { .it_value = { .tv_usec = 1000 } };
	struct timeval wait = { .tv_usec = 1000 };
	struct sockaddr_in sa;
	socklen_t n = sizeof(sa);
	char got[4];
	fd_set set;
	int on = 1;

	need(setsockopt(f->pair[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
	need(setsockopt(f->pair[0], IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on)) == 0, "TCP_QUICKACK");
	need(getpeername(f->pair[0], (struct sockaddr *)&sa, &n) == 0, "getpeername");
	n = sizeof(sa);
	need(getsockname(f->pair[0], (struct sockaddr *)&sa, &n) == 0, "getsockname");
	need(send(f->pair[0], "ping", 4, MSG_NOSIGNAL) == 4, "send");
	FD_ZERO(&set);
	FD_SET(f->pair[1], &set);
	need(select(f->pair[1] + 1, &set, NULL, NULL, &wait) == 1, "select");
	need(recv(f->pair[1], got, 4, 0) == 4 && memcmp(got, "ping", 4) == 0, "recv");
	(void)signal(SIGALRM, on_alarm);
	need(setitimer(ITIMER_REAL, &soon, NULL) == 0, "setitimer");
	while (!alarmed)
		need(poll(NULL, 0, 100) <= 0, "poll");
	need(shutdown(f->pair[0], SHUT_RDWR) == 0, "shutdown");
}

static int tcp_pair(int pair[2])
{
	CLEANUP(close) int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t n = sizeof(sa);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listening < 0 || bind(listening, (struct sockaddr *)&sa, n) < 0 || listen(listening, 1) < 0 ||
	    getsockname(listening, (struct sockaddr *)&sa, &n) < 0)
		return -errno;
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (pair[0] < 0 || connect(pair[0], (struct sockaddr *)&sa, n) < 0)
		return -errno;
	pair[1] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	return pair[1] < 0 ? -errno : 0;
}

static void test_socket(enum sandbox_role role, const char *name)
{
	struct files f;

	if (!ok(tcp_pair(f.pair) == 0, "%s: a connection", name))
		return;
	check_works(role, name, "the socket that it has: options, send, receive, select, timer, shutdown",
		    use_socket, &f);
	(void)close(f.pair[0]);
	(void)close(f.pair[1]);
}

/* ---- parents: a child of theirs enters its own, narrower role -------------------------------------------------- */

struct nest {
	enum sandbox_role role;
	void (*work)(const void *arg);
};

static void fork_and_narrow(const void *arg)
{
	const struct nest *n = arg;
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		struct err e = { "" };

		need(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "death signal");
		need(sandbox_limit(AS_BYTES, 10, 0, 0, &e) == 0 && sandbox_enter(n->role, &e) == 0, e.text);
		n->work(NULL);
		_exit(PASSED);
	}
	need(pid > 0 && waitpid(pid, &status, 0) == pid, "a child");
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : NO_SANDBOX);
}

static void test_nested(enum sandbox_role outer, enum sandbox_role inner, const char *name)
{
	const struct nest bad = { inner, fork_a_process }, good = { inner, use_memory };
	struct err e = { "" };
	int status;

	/* as the parents do; the child only enters */
	ok(sandbox_prepare(inner, &e) == 0, "%s: prepares the filter of its children", name);
	status = in_child(outer, fork_and_narrow, &good);
	if (!ok(exited(status, PASSED), "%s: a child enters its own role and works there", name))
		explain(status);
	ok(exited(in_child(outer, fork_and_narrow, &bad), SANDBOX_EXIT), "%s: and cannot do there what its parent may", name);
}

/* ---- infer: threads ------------------------------------------------------------------------------------------ */

#define SIDE 512

static void multiply(const float *a, const float *b, float *c)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SIDE, SIDE, SIDE, 1.0f, a, SIDE, b, SIDE, 0.0f, c, SIDE);
}

/* As carzerod-infer does it: threads and buffers exist before the lockdown. */
static void blas_in_child(void)
{
	size_t n = (size_t)SIDE * SIDE, i;
	float *a = malloc(n * sizeof(*a)), *b = malloc(n * sizeof(*b));
	float *before = malloc(n * sizeof(*before)), *after = malloc(n * sizeof(*after));
	struct err e;

	(void)alarm(CHILD_SECONDS);
	openblas_set_num_threads(2);
	if (openblas_get_num_threads() != 2)
		_exit(NO_SANDBOX);
	for (i = 0; i < n; i++) {
		a[i] = (float)(i % 17) / 16.0f;
		b[i] = (float)(i % 23) / 22.0f;
	}
	multiply(a, b, before);
	need(sandbox_enter(SANDBOX_INFER, &e) == 0, "lockdown");
	for (i = 0; i < 8; i++)
		multiply(a, b, after);
	need(memcmp(before, after, n * sizeof(*before)) == 0, "the same product");
	_exit(PASSED);
}

static void test_blas(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		blas_in_child();
	(void)waitpid(pid, &status, 0);
	if (exited(status, NO_SANDBOX))
		skip("this OpenBLAS has no second thread");
	else if (!ok(exited(status, PASSED), "infer: a product of matrices by two threads after the lockdown, bit by bit"))
		printf("# wait status %#x\n", (unsigned)status);
}

struct sleeper {
	int up[2], go[2]; /* pipes */
	void (*work)(const void *arg);
	const void *arg;
};

static void *wake_and_work(void *arg)
{
	struct sleeper *s = arg;
	char byte;

	need(write(s->up[1], "x", 1) == 1 && read(s->go[0], &byte, 1) == 1, "pipes");
	s->work(s->arg);
	_exit(PASSED);
}

/* A thread that was there before, as BLAS's are, wakes behind the walls.  TSYNC is what is tried here. */
static int in_older_thread(enum sandbox_role role, void (*work)(const void *arg), const void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		struct sleeper s = { .work = work, .arg = arg };
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		pthread_t t;
		struct err e;
		char byte;

		(void)alarm(CHILD_SECONDS);
		need(dup2(null, STDERR_FILENO) >= 0, "stderr"); /* that a refusal names the call was tried above */
		need(pipe2(s.up, O_CLOEXEC) == 0 && pipe2(s.go, O_CLOEXEC) == 0, "pipes");
		need(pthread_create(&t, NULL, wake_and_work, &s) == 0, "thread");
		/* a thread's first steps are calls that no list has: it must be past them */
		need(read(s.up[0], &byte, 1) == 1, "the thread is up");
		need(sandbox_enter(role, &e) == 0, "lockdown");
		need(write(s.go[1], "x", 1) == 1, "write");
		(void)pthread_join(t, NULL);
		_exit(WRONG);
	}
	(void)waitpid(pid, &status, 0);
	return status;
}

static void test_threads(enum sandbox_role role, const char *name)
{
	pid_t parent = getpid();
	unsigned held = 0, tried = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(attempts); i++) {
		int status;

		if ((attempts[i].may >> role & 1) != 0)
			continue;
		tried++;
		status = in_older_thread(role, attempts[i].work, &parent);
		if (attempts[i].number == SILENT ? killed_silently(status) : exited(status, SANDBOX_EXIT))
			held++;
		else
			printf("# a thread from before can %s: wait status %#x\n", attempts[i].what, (unsigned)status);
	}
	is_int(held, tried, "%s: a thread from before cannot do any of that either", name);
	ok(exited(in_older_thread(role, use_memory, NULL), PASSED), "%s: it can use memory", name);
}

/* ---- limits ---------------------------------------------------------------------------------------------------- */


static void need_limit(int resource, rlim_t want, const char *what)
{
	struct rlimit now;

	need(getrlimit(resource, &now) == 0 && now.rlim_cur == want && now.rlim_max == want, what);
}

static void set_limits(void)
{
	volatile size_t too_much = (size_t)AS_BYTES;
	struct err e = { "" };

	need(sandbox_limit(AS_BYTES, 77, 33, 0, &e) == 0, e.text);
	need_limit(RLIMIT_CORE, 0, "core");
	need_limit(RLIMIT_CPU, 77, "CPU");
	need_limit(RLIMIT_NOFILE, 33, "descriptors");
	while (dup(0) >= 0)
		continue;
	need(errno == EMFILE, "no more descriptors");
	if (sandbox_built()) {
		need_limit(RLIMIT_AS, AS_BYTES, "address space");
		need(malloc(too_much) == NULL, "no more memory");
	}
	/* what is stricter stays */
	need(sandbox_limit(2 * AS_BYTES, 78, 34, 0, &e) == 0, e.text);
	need_limit(RLIMIT_CPU, 77, "CPU stays");
	need_limit(RLIMIT_NOFILE, 33, "descriptors stay");
	if (sandbox_built())
		need_limit(RLIMIT_AS, AS_BYTES, "address space stays");
}

static void set_none(void)
{
	struct rlimit cpu, as, files;
	struct err e = { "" };

	need(getrlimit(RLIMIT_CPU, &cpu) == 0 && getrlimit(RLIMIT_AS, &as) == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0,
	     "limits as they are");
	need(sandbox_limit(0, 0, 0, 0, &e) == 0, e.text);
	need_limit(RLIMIT_CORE, 0, "core all the same");
	need(getrlimit(RLIMIT_CPU, &as) == 0 && as.rlim_cur == cpu.rlim_cur, "CPU left alone");
	need(getrlimit(RLIMIT_NOFILE, &as) == 0 && as.rlim_cur == files.rlim_cur, "descriptors left alone");
}

static void spend_cpu(void)
{
	struct err e = { "" };
	volatile unsigned n = 0;

	need(sandbox_limit(0, 1, 0, 0, &e) == 0, e.text);
	for (;;)
		n++;
}

static int limits_in_child(void (*work)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		(void)alarm(CHILD_SECONDS);
		work();
		_exit(PASSED);
	}
	(void)waitpid(pid, &status, 0);
	return status;
}

static void test_limits(void)
{
	int status;

	is_int(limits_in_child(set_limits), 0, "limits: set, in force, and never loosened");
	is_int(limits_in_child(set_none), 0, "limits: 0 leaves one alone, core files never come");
	status = limits_in_child(spend_cpu);
	ok(WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL),
	   "limits: a decoder that never ends is ended");
}

int main(void)
{
	char date[9], when[14], offset[6];
	size_t i;

	clock_dicom_local(0, date, when, offset); /* reads the time zone's file, as every worker does before */
	test_limits();
	for (i = 0; i < ARRAY_SIZE(roles); i++) {
		test_refused(roles[i].role, roles[i].name);
		test_every_call(roles[i].role, roles[i].name);
		test_other_tables(roles[i].role, roles[i].name);
		test_others(roles[i].role, roles[i].name);
		test_works(roles[i].role, roles[i].name);
		test_threads(roles[i].role, roles[i].name);
		if (on_network(roles[i].role))
			test_socket(roles[i].role, roles[i].name);
	}
	test_nested(SANDBOX_LISTENER, SANDBOX_ASSOCIATION, "listener");
	test_nested(SANDBOX_DISPATCHER, SANDBOX_IMAGE, "dispatcher");
	test_blas();
	return done();
}
