/* sandbox.c: seccomp allow-lists by libseccomp, resource limits by setrlimit.
 *
 * The lists were made from traces of whole runs (every transfer syntax, every report path) and are
 * kept short by warming DCMTK and BLAS up first: dictionary, codecs, time zone, threads.  futex,
 * mmap and madvise stay because malloc and BLAS need them; mmap and mprotect may not make memory
 * executable, so injected code has nowhere to run.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef WITHOUT_SANDBOX
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#endif

#include "base/fdio.h"
#include "base/mem.h"

#include "daemon/sandbox.h"

bool sandbox_built(void)
{
#ifdef WITHOUT_SANDBOX
	return false;
#else
	return true;
#endif
}

const char *sandbox_code_text(int exit_code)
{
	return exit_code == SANDBOX_EXIT ? " (its sandbox refused a system call: its line above says which)" : "";
}

static int limit(int resource, uint64_t value, const char *name, struct err *e)
{
	struct rlimit was, now = { .rlim_cur = value, .rlim_max = value };

	if (getrlimit(resource, &was) < 0)
		return err_set(e, -errno, "getrlimit %s: %s", name, strerror(errno));
	if (was.rlim_max < now.rlim_max)
		now.rlim_cur = now.rlim_max = was.rlim_max; /* stricter already */
	if (setrlimit(resource, &now) < 0)
		return err_set(e, -errno, "setrlimit %s: %s", name, strerror(errno));
	return 0;
}

#ifndef WITHOUT_SANDBOX

#define FILTER_BYTES_MAX 32768
#define OUR_PID 0x7fedcba9u /* stands in a prepared filter for the pid of who enters it; no pid is that large */

static bool starts_processes(enum sandbox_role role)
{
	return role == SANDBOX_LISTENER || role == SANDBOX_DISPATCHER;
}

static const int calls_common[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(writev),
	SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(lseek), SCMP_SYS(fsync),
	SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(futex),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(exit),
	SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigaction), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getpid),
	SCMP_SYS(gettid), SCMP_SYS(getrandom), SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(getrusage), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(sysinfo), /* qsort of large arrays asks for the memory's size */
};

static const int calls_network[] = {
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(shutdown), SCMP_SYS(select),
	SCMP_SYS(pselect6), SCMP_SYS(getpeername), SCMP_SYS(getsockname), SCMP_SYS(setsockopt),
	SCMP_SYS(getsockopt), SCMP_SYS(setitimer), SCMP_SYS(alarm), SCMP_SYS(timer_settime),
	SCMP_SYS(timer_create), SCMP_SYS(timer_delete), SCMP_SYS(uname),
};

/* What forks: its children set limits and enter a filter of their own.  waitid() is not among them. */
static const int calls_parent[] = {
	SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(dup3), SCMP_SYS(socketpair), SCMP_SYS(set_robust_list),
	SCMP_SYS(prlimit64), SCMP_SYS(seccomp), SCMP_SYS(close_range),
};

/* OpenBLAS makes its threads when it is loaded, and on a busy machine one may not have run yet when the filter
 * closes.  The first things that a new thread does, with every signal blocked, are to tell the kernel where its own
 * memory is: refused there, the process would be killed without a word.  Then it takes a buffer and says on which
 * memory node that may lie. */
static const int calls_new_thread[] = { SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(mbind) };

static const int calls_serving[] = {
	SCMP_SYS(accept4), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
	SCMP_SYS(shutdown), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt),
};

/* Runs inside the process that was caught: async-signal-safe only. */
static void on_refused(int signal_number, siginfo_t *info, void *context)
{
	char line[128];
	int n;

	(void)signal_number;
	(void)context;
	n = snprintf(line, sizeof(line), "%s[%d]: sandbox: system call %d refused, process ends\n",
		     program_invocation_short_name, (int)getpid(), info->si_syscall);
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(SANDBOX_EXIT);
	_exit(SANDBOX_EXIT);
}

static int allow(scmp_filter_ctx filter, const int *calls, size_t n)
{
	size_t i;
	int r;

	for (i = 0; i < n; i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Memory yes, executable memory no. */
static int allow_memory(scmp_filter_ctx filter)
{
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	if (r < 0)
		return r;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/* All processes of the node have one uid, so the kernel would let a worker signal the keeper: by
 * tgkill, or by fcntl(F_SETOWN) and a descriptor that becomes readable.  abort() and our own signals
 * stay at home; of fcntl what is asked of flags. */
static int allow_at_home(scmp_filter_ctx filter, enum sandbox_role role)
{
	static const int commands[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC };
	size_t i;
	/* a child has another pid than the parent whose filter it inherits, and narrows the call itself */
	int r = starts_processes(role) ? seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 0)
		       : seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
					  SCMP_A0(SCMP_CMP_EQ, OUR_PID));

	for (i = 0; r == 0 && i < ARRAY_SIZE(commands); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				     SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)commands[i]));
	return r;
}

/* fork() as glibc does it, nothing else that clone() can: no threads, no namespaces.  prctl() as far as the
 * children want it.  clone3() hides its flags from a filter, and nobody needs it. */
static int allow_children(scmp_filter_ctx filter)
{
	static const int prctls[] = { PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS };
	size_t i;
	int r = allow(filter, calls_parent, ARRAY_SIZE(calls_parent));

	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_EQ, CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD));
	for (i = 0; r == 0 && i < ARRAY_SIZE(prctls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)prctls[i]));
	return r;
}

/* To read, where Landlock lets it: no flag that creates, truncates or writes. */
static int allow_reading(scmp_filter_ctx filter)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
}

/* TCP, outwards: no raw socket, no netlink, no UNIX socket of somebody else's. */
static int allow_connecting(scmp_filter_ctx filter)
{
	static const int families[] = { AF_INET, AF_INET6 };
	size_t i;
	int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(connect), 0);

	if (r == 0) /* a connected socket in the place of DCMTK's (scu.cc): among descriptors that we have */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(dup3), 0);
	for (i = 0; r == 0 && i < ARRAY_SIZE(families); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]),
				     SCMP_A1(SCMP_CMP_MASKED_EQ, (scmp_datum_t)~(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_STREAM));
	return r;
}

static int allow_role(scmp_filter_ctx filter, enum sandbox_role role)
{
	int r = allow(filter, calls_common, ARRAY_SIZE(calls_common));

	if (r == 0)
		r = allow_memory(filter);
	if (r == 0)
		r = allow_at_home(filter, role);
	if (r == 0 && (role == SANDBOX_LISTENER || role == SANDBOX_ASSOCIATION || role == SANDBOX_SEND))
		r = allow(filter, calls_network, ARRAY_SIZE(calls_network));
	if (r == 0 && starts_processes(role))
		r = allow_children(filter);
	if (r == 0 && role == SANDBOX_LISTENER)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(accept4), 0);
	if (r == 0 && (role == SANDBOX_LISTENER || role == SANDBOX_ASSOCIATION)) /* a child's filter comes on top of its parent's */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sync_file_range), 0);
	if (r == 0 && role == SANDBOX_LISTENER)
		r = allow_reading(filter);
	if (r == 0 && role == SANDBOX_SEND)
		r = allow_connecting(filter);
	if (r == 0 && role == SANDBOX_INFER)
		r = allow(filter, calls_new_thread, ARRAY_SIZE(calls_new_thread));
	if (r == 0 && role == SANDBOX_EXPORT)
		r = allow(filter, calls_serving, ARRAY_SIZE(calls_serving));
	return r;
}

/* A role's filter as the kernel takes it. */
static struct program {
	struct sock_filter *code;
	size_t n;
	size_t pid_at; /* the instruction that compares with our own pid */
} programs[SANDBOX_ROLE_COUNT];

static int read_program(int fd, struct program *ret)
{
	CLEANUP(free) void *code = NULL;
	size_t n = 0, i;
	int r = read_file(fd, FILTER_BYTES_MAX, &code, &n);

	if (r < 0)
		return r;
	ret->n = n / sizeof(*ret->code);
	ret->pid_at = ret->n;
	for (i = 0; i < ret->n; i++) {
		const struct sock_filter *f = (const struct sock_filter *)code + i;

		if (f->code == (BPF_JMP | BPF_JEQ | BPF_K) && f->k == OUR_PID)
			ret->pid_at = i;
	}
	ret->code = TAKE(code);
	return 0;
}

int sandbox_prepare(enum sandbox_role role, struct err *e)
{
	CLEANUP(close) int fd = -1;
	scmp_filter_ctx filter;
	int r = 0;

	if (programs[role].n > 0)
		return 0;
	fd = fd_memory("filter");
	if (fd < 0)
		return err_set(e, fd, "sandbox: no memory file: %s", strerror(-fd));
	filter = seccomp_init(SCMP_ACT_TRAP);
	if (filter == NULL)
		return err_set(e, -ENOMEM, "sandbox: out of memory");
	if (r == 0)
		r = allow_role(filter, role);
	if (r == 0)
		r = seccomp_export_bpf(filter, fd);
	seccomp_release(filter);
	if (r == 0)
		r = lseek(fd, 0, SEEK_SET) < 0 ? -errno : read_program(fd, &programs[role]);
	return r < 0 ? err_set(e, r, "sandbox: no filter: %s", strerror(-r)) : 0;
}

int sandbox_enter(enum sandbox_role role, struct err *e)
{
	struct sigaction action = { .sa_sigaction = on_refused, .sa_flags = SA_SIGINFO };
	struct program *p = &programs[role];
	struct sock_fprog kernel_form;
	int r = sandbox_prepare(role, e);

	if (r == 0 && !starts_processes(role))
		r = limit(RLIMIT_NPROC, 0, "processes", e);
	if (r < 0)
		return r;
	if (sigaction(SIGSYS, &action, NULL) < 0)
		return err_set(e, -errno, "sandbox: sigaction: %s", strerror(errno));
	if (p->pid_at < p->n)
		p->code[p->pid_at].k = (uint32_t)getpid();
	kernel_form = (struct sock_fprog){ (unsigned short)p->n, p->code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "sandbox: no_new_privs: %s", strerror(errno));
	/* TSYNC: BLAS threads were made when the library was loaded, before this filter */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &kernel_form) != 0)
		return err_set(e, -EACCES, "sandbox: the kernel refuses the seccomp filter: %s", strerror(errno));
	return 0;
}

#else

int sandbox_prepare(enum sandbox_role role, struct err *e)
{
	(void)role;
	(void)e;
	return 0;
}

int sandbox_enter(enum sandbox_role role, struct err *e)
{
	(void)role;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "no_new_privs: %s", strerror(errno));
	return 0;
}

#endif

int sandbox_limit(uint64_t address_space, unsigned cpu_seconds, unsigned files, uint64_t file_size, struct err *e)
{
	int r = limit(RLIMIT_CORE, 0, "core", e); /* a core file would hold pixels and names */

#ifdef WITHOUT_SANDBOX
	address_space = 0; /* sanitizers reserve terabytes of address space */
#endif
	if (r == 0 && address_space != 0)
		r = limit(RLIMIT_AS, address_space, "address space", e);
	if (r == 0 && cpu_seconds != 0)
		r = limit(RLIMIT_CPU, cpu_seconds, "CPU time", e);
	if (r == 0 && files != 0)
		r = limit(RLIMIT_NOFILE, files, "descriptors", e);
	if (r == 0 && file_size != 0) {
		(void)signal(SIGXFSZ, SIG_IGN); /* an error to answer, not a death */
		r = limit(RLIMIT_FSIZE, file_size, "file size", e);
	}
	return r;
}
