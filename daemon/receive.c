/* receive.c: carzerod-receive, the listener and the processes that serve associations.
 *
 * The listener accepts and hands the connection to a child of its own; it never reads a byte from a peer.  The
 * child serves one association under seccomp and resource limits, and every leak, crash or flood dies
 * with it.  (One process per association is not a taste: DCMTK leaks memory for some requests before any
 * AE title is checked.)  Children are forked ahead, while nothing else is to be done, so that nobody
 * waits for that.
 *
 * A connection is worth nothing until its request is whole.  Until its first byte it is a descriptor here
 * and no process.  When its request is whole, the child asks by its leash, and the listener gets it a
 * channel to the keeper, which counts it as an association.  Where there are too many, a newcomer takes
 * the place of the oldest that has said nothing, or of the oldest without a whole request, of the host
 * that has most of those: who says nothing, or a byte a second, gets in nobody's way but his own.
 *
 * It never opens the database or the spool: objects are written into descriptors that the keeper
 * hands over, write-only, one at a time.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "dicom/dicom.h"
#include "dicom/scp.h"

#include "daemon/config.h"
#include "daemon/conformance.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"
#include "daemon/secure.h"

#define LISTEN_BACKLOG 512
#define LISTENING_MAX (2 * CONFIG_LISTEN_MAX) /* plain and TLS */
#define SLOW_SECONDS 30 /* then an object must have come at */
#define SLOW_BYTES 16384 /* a second */
#define CHILD_FILES 32
#define CHILD_MEMORY (1024ull << 20)
#define CHILD_EXTRA 64 /* children beyond limits.associations, to say a proper no */
#define ACCEPT_PAUSE_MS 50
#define OVERDUE_SECONDS 60 /* beyond limits.association_seconds */
#define META_BYTES_MAX 65536 /* preamble and File Meta before a data set */

#define SILENT_MAX 256 /* connections that have not said a byte */
#define SPARES 4       /* children that wait for a connection */
#define SILENT_LOOK_MS 1000 /* after those whose time is over */
#define IDLE_MS 1      /* without anything to do: then is the time to fork */
#define TELL_EVERY_MS 10000 /* of connections that are turned away */

struct child {
	pid_t pid; /* 0: free */
	int leash; /* SOCK_SEQPACKET: a connection to it; one question from it; one answer to it */
	bool asked; /* its request is whole; a channel or a refusal followed */
	struct in6_addr host;
	int64_t started; /* boot ms */
};

/* Over the leash. */
struct leash_connection { /* + the connected socket */
	struct in6_addr from;
	bool tls;
	int64_t since; /* boot ms */
};
struct silent { /* accepted, and has not said a byte */
	int fd;
	struct leash_connection c;
};
struct leash_answer { /* + the channel, when it is not refused */
	struct scp_reject refuse;
};

struct listener {
	bool retired;
	const struct config *config;
	struct {
		int fd;
		bool tls, ours; /* ours: opened here, not handed over */
	} sock[LISTENING_MAX];
	size_t n_sock;
	struct tls *tls; /* NULL: not configured */
	struct child *child;
	size_t max_children;
	struct child spare[SPARES];
	size_t n_spare;
	struct silent silent[SILENT_MAX]; /* the oldest first */
	size_t n_silent;
	struct pollfd *poll; /* [LISTENING_MAX + 2 + SILENT_MAX + max_children] */
	struct child **polled; /* [max_children] whose leashes stand at the end of `poll` */
	size_t n_polled;
	unsigned turned_away;
	int64_t told; /* boot ms */
	uint64_t question; /* token of the last ADMIT */
};

/* IPv4 arrives on IPv6 sockets as ::ffff:a.b.c.d; people and access rules write a.b.c.d. */
static bool host_text(const struct in6_addr *from, char *ret, size_t size)
{
	if (IN6_IS_ADDR_V4MAPPED(from))
		return inet_ntop(AF_INET, &from->s6_addr[12], ret, (socklen_t)size) != NULL;
	return inet_ntop(AF_INET6, from, ret, (socklen_t)size) != NULL;
}

static int to_keeper = IPC_FD; /* -1 in a child until its request is whole */

/* ---- one association, in the child ------------------------------------------------------------ */

struct association {
	const struct config *config;
	struct in6_addr from;
	char host[INET6_ADDRSTRLEN];
	char calling_ae[AE_TITLE_MAX], called_ae[AE_TITLE_MAX]; /* "" until admit() */
	const char *hint; /* which setting would have accepted a refused request */
};

/* The keeper answers in order; anything else, or its end, means that nothing may be promised. */
static bool ask(union ipc_message *m, enum ipc_type expected, int *ret_fd)
{
	int fds[IPC_FDS_MAX];
	size_t n_fds = 0;
	int r = ipc_send(to_keeper, m, NULL, 0);

	if (r == 0)
		r = ipc_receive(to_keeper, IPC_KEEPER, m, fds, &n_fds);
	if (r != 1) {
		log_error("channel to the keeper: %s; refusing what the peer sends",
			  r == 0 ? "closed" : strerror(-r));
		return false;
	}
	if (m->h.type != expected) {
		while (n_fds > 0)
			(void)close(fds[--n_fds]);
		return false;
	}
	if (ret_fd != NULL)
		*ret_fd = n_fds == 1 ? fds[0] : -1;
	return true;
}

static bool carries(const void *link, const char *name)
{
	return tls_link_peer_is(link, name);
}

static void admit(void *arg, const struct scp_association *a, struct scp_reject *ret)
{
	struct association *as = arg;

	(void)str_copy(as->calling_ae, sizeof(as->calling_ae), a->calling_ae);
	(void)str_copy(as->called_ae, sizeof(as->called_ae), a->called_ae);
	if (config_access(as->config, a->calling_ae, &as->from, a->tls != NULL ? carries : NULL, a->tls, &as->hint))
		return;
	/* PS3.8 table 9-21: rejected-permanent, DICOM UL service-user, calling-AE-title-not-recognized */
	*ret = (struct scp_reject){ .result = 1, .source = 1, .reason = 3 };
}

static uint16_t create(void *arg, uint64_t *ret_id, int *ret_fd)
{
	union ipc_message m;
	int fd = -1;

	(void)arg;
	ipc_begin(&m, IPC_CREATE, 0);
	if (!ask(&m, IPC_FILE, &fd))
		return 0xa700;
	if (m.status.status != 0 || fd < 0)
		return m.status.status != 0 ? m.status.status : 0xa700;
	*ret_id = m.h.token;
	*ret_fd = fd;
	return 0;
}

static uint16_t stored(void *arg, const struct scp_object *o)
{
	struct association *as = arg;
	union ipc_message m;

	ipc_begin(&m, IPC_STORED, o->id);
	(void)str_copy(m.object.sop_class, UID_MAX, o->sop_class);
	(void)str_copy(m.object.sop_uid, UID_MAX, o->sop_uid);
	(void)str_copy(m.object.study_uid, UID_MAX, o->study_uid);
	(void)str_copy(m.object.series_uid, UID_MAX, o->series_uid);
	(void)str_copy(m.object.syntax, UID_MAX, o->syntax);
	(void)str_copy(m.object.calling_ae, AE_TITLE_MAX, as->calling_ae);
	(void)str_copy(m.object.called_ae, AE_TITLE_MAX, as->called_ae);
	memcpy(m.object.digest, o->digest, DIGEST_SIZE);
	m.object.size = o->size;
	m.object.analysed_class = o->analysed_class;
	m.object.study_date = o->study_date;
	failpoint("receive.stored");
	if (failpoint_skips("receive.answer")) /* answer before COMMIT: a mutant that the tests must catch */
		return ipc_send(to_keeper, &m, NULL, 0) < 0 ? 0xa700 : 0;
	if (!ask(&m, IPC_ANSWER, NULL) || m.h.token != o->id)
		return 0xa700; /* the sender keeps its copy: the only safe answer */
	failpoint("receive.answered");
	return m.status.status;
}

static void abandon(void *arg, uint64_t id)
{
	union ipc_message m;

	(void)arg;
	ipc_begin(&m, IPC_ABANDON, id);
	(void)ipc_send(to_keeper, &m, NULL, 0); /* when it fails the keeper sees our end and cleans up */
}

static bool expects_commitment(void *arg)
{
	const struct association *as = arg;
	const struct peer *peer = config_peer(as->config, as->calling_ae);

	return peer != NULL && peer->commitment != COMMITMENT_NONE;
}

static uint16_t committed(void *arg, const char *transaction, const struct commitment_item *item)
{
	const struct association *as = arg;
	union ipc_message m;

	ipc_begin(&m, IPC_COMMITTED, 0);
	(void)str_copy(m.committed.transaction, UID_MAX, transaction);
	(void)str_copy(m.committed.sop_uid, UID_MAX, item->sop_uid);
	(void)str_copy(m.committed.calling_ae, AE_TITLE_MAX, as->calling_ae);
	m.committed.failed = item->failed;
	m.committed.reason = item->reason;
	return ask(&m, IPC_ANSWER, NULL) ? m.status.status : 0x0110; /* the archive tells again */
}

static void report_association(const struct association *as, const struct scp_result *result)
{
	char calling[5 * AE_TITLE_MAX];

	str_quote(calling, sizeof(calling), as->calling_ae);
	if (result->end == SCP_REJECTED && calling[0] == '\0') { /* before admit(): detail names the titles */
		log_warning("association refused from=%s: %s (ours is ae_title in the configuration)", as->host,
			    result->detail);
		return;
	}
	if (result->end == SCP_REJECTED) {
		log_warning("association refused from=%s calling=\"%s\": %s%s%s", as->host, calling, result->detail,
			    as->hint != NULL ? "; " : "", as->hint != NULL ? as->hint : "");
		return;
	}
	log_line(result->end == SCP_RELEASED ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
		 "association end=%s from=%s calling=\"%s\" stored=%u refused=%u echoes=%u bytes=%llu%s%s",
		 scp_end_name(result->end), as->host, calling, result->objects, result->refused,
		 result->echoes, (unsigned long long)result->bytes,
		 result->detail[0] != '\0' ? ": " : "", result->detail);
}

/* For the history of the studies that it brought, or of the node; when it fails the keeper knows less. */
static void tell_keeper(const struct association *as, const struct scp_result *result)
{
	union ipc_message m;

	ipc_begin(&m, IPC_ENDED, 0);
	m.ended.end = (uint32_t)result->end;
	m.ended.stored = result->objects;
	m.ended.refused = result->refused;
	m.ended.echoes = result->echoes;
	m.ended.bytes = result->bytes;
	(void)str_quote(m.ended.calling_ae, sizeof(m.ended.calling_ae), as->calling_ae);
	(void)snprintf(m.ended.detail, sizeof(m.ended.detail), "%s%s%s", result->detail, as->hint != NULL ? "; " : "",
		       as->hint != NULL ? as->hint : "");
	if (result->contexts_refused > 0)
		(void)snprintf(m.ended.contexts, sizeof(m.ended.contexts), "%u of %u presentation contexts refused: %s",
			       result->contexts_refused, result->contexts, result->refused_contexts);
	else if (result->contexts > 0)
		(void)snprintf(m.ended.contexts, sizeof(m.ended.contexts), "%u presentation contexts accepted",
			       result->contexts);
	(void)ipc_send(to_keeper, &m, NULL, 0);
}

/* The request is whole: may it be an association? */
static struct scp_reject may_begin(void *arg)
{
	/* PS3.8 table 9-21: rejected-transient, service-provider (presentation), temporary-congestion */
	struct leash_answer answer = { .refuse = { 2, 3, 1 } };
	size_t n_fds = 0;

	(void)arg;
	if (fd_send(IPC_FD, "?", 1, NULL, 0) < 0 ||
	    fd_receive(IPC_FD, &answer, sizeof(answer), &to_keeper, 1, &n_fds) != (ssize_t)sizeof(answer))
		answer.refuse = (struct scp_reject){ 2, 3, 1 };
	if (n_fds == 0)
		to_keeper = -1;
	if (to_keeper < 0 && answer.refuse.result == 0)
		answer.refuse = (struct scp_reject){ 2, 3, 1 };
	return answer.refuse;
}

static void serve(const struct config *config, const struct tls *tls, int sock, const struct leash_connection *c)
	__attribute__((noreturn));
static void serve(const struct config *config, const struct tls *tls, int sock, const struct leash_connection *c)
{
	static const struct scp_ops ops = { admit, create, stored, abandon, expects_commitment, committed };
	struct association as = { .config = config, .from = c->from };
	unsigned waited = (unsigned)((clock_boot_ms() - c->since) / 1000), whole = config->limits.arttim_seconds;
	struct scp_policy policy = {
		.ae_title = config->ae_title,
		.pdu_bytes = config->limits.pdu_bytes,
		.object_bytes = config->limits.object_bytes,
		.objects = config->limits.association_objects,
		.request_seconds = waited < whole ? whole - waited : 1,
		.idle_seconds = config->limits.idle_seconds,
		.association_seconds = config->limits.association_seconds,
		.slow_seconds = SLOW_SECONDS,
		.slow_bytes = SLOW_BYTES,
		.refuse_other_storage = config->other_storage == OTHER_REFUSE,
		.tls = tls,
		.may_begin = may_begin,
	};
	struct scp_result result = { 0 };
	int r;

	if (!host_text(&as.from, as.host, sizeof(as.host)))
		as.host[0] = '\0';
	r = dicom_scp_serve(sock, &policy, &ops, &as, &result);
	if (r < 0)
		log_error("association from=%s: %s", as.host, strerror(-r));
	report_association(&as, &result);
	if (to_keeper < 0 && result.end == SCP_TLS)
		(void)may_begin(NULL); /* no request came, but who was refused is what somebody will ask */
	if (to_keeper >= 0)
		tell_keeper(&as, &result);
	_exit(result.disk_failed ? FATAL_IO : 0);
}

/* A child's life: the leash takes the place of the listener's channel, nothing else is kept, the walls
 * close, and then comes a connection. */
static void child_main(struct listener *l, int leash) __attribute__((noreturn));
static void child_main(struct listener *l, int leash)
{
	struct leash_connection c;
	size_t n_fds = 0;
	sigset_t none;
	int sock = -1, r;
	struct err e;

	to_keeper = -1;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup3(leash, IPC_FD, O_CLOEXEC) < 0 || syscall(SYS_close_range, IPC_FD + 1, ~0u, 0) < 0)
		fatal(FATAL_OS, "leash: %s", strerror(errno));
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	r = sandbox_limit(CHILD_MEMORY, l->config->limits.association_seconds, CHILD_FILES,
			  l->config->limits.object_bytes + META_BYTES_MAX, &e);
	if (r == 0)
		r = sandbox_enter(SANDBOX_ASSOCIATION, &e);
	if (r < 0)
		fatal(FATAL_OS, "%s", e.text); /* never serve a stranger without the walls */
	if (fd_receive(IPC_FD, &c, sizeof(c), &sock, 1, &n_fds) != (ssize_t)sizeof(c) || n_fds != 1)
		_exit(0); /* not needed */
	if (!c.tls)
		tls_close(TAKE(l->tls)); /* no key where none is needed */
	serve(l->config, l->tls, sock, &c);
}

/* ---- the listener ------------------------------------------------------------------------------ */

/* A host without IPv6 still has IPv4. */
static int bind_ipv4(const struct listen_address *a, struct err *e)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(a->port) };
	CLEANUP(close) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (a->host[0] != '\0' && inet_pton(AF_INET, a->host, &sa.sin_addr) != 1)
		return err_set(e, -EINVAL, "listen: this machine has no IPv6 for \"%s\"", a->host);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
		return err_set(e, -errno, "listen %s:%u: %s", a->host, a->port, strerror(errno));
	return TAKE_FD(fd);
}

static int bind_address(const struct listen_address *a, struct err *e)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };
	CLEANUP(close) int fd = -1;
	struct in_addr v4;
	int on = 1, off = 0;

	if (a->host[0] == '\0')
		sa.sin6_addr = in6addr_any;
	else if (inet_pton(AF_INET, a->host, &v4) == 1) {
		sa.sin6_addr.s6_addr[10] = sa.sin6_addr.s6_addr[11] = 0xff;
		memcpy(&sa.sin6_addr.s6_addr[12], &v4, sizeof(v4));
	} else if (inet_pton(AF_INET6, a->host, &sa.sin6_addr) != 1)
		return err_set(e, -EINVAL, "listen: \"%s\" is no numeric address", a->host);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 && errno == EAFNOSUPPORT)
		return bind_ipv4(a, e);
	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
		return err_set(e, -errno, "listen %s:%u: %s%s", a->host, a->port, strerror(errno),
			       errno == EACCES ? " (ports below 1024 need carzerod.socket or CAP_NET_BIND_SERVICE)" : "");
	return TAKE_FD(fd);
}

/* The service manager's sockets of one kind, or else those of the configuration. */
static void listener_open(struct listener *l, bool tls, int first, unsigned inherited)
{
	const struct listen_address *list = tls ? l->config->tls.listen : l->config->listen;
	size_t i, n = tls ? l->config->tls.n_listen : l->config->n_listen;
	struct err e;

	if (inherited > 0 && tls && l->tls == NULL)
		fatal(FATAL_CONFIG, "the service manager hands over a socket for TLS: the configuration wants the key `tls`");
	for (i = 0; i < inherited; i++) {
		l->sock[l->n_sock].tls = tls;
		l->sock[l->n_sock++].fd = first + (int)i;
		(void)fcntl(first + (int)i, F_SETFL, O_NONBLOCK);
		(void)fcntl(first + (int)i, F_SETFD, FD_CLOEXEC);
	}
	for (i = 0; inherited == 0 && i < n; i++) {
		int fd = bind_address(&list[i], &e);

		if (fd < 0) /* a port may come free, an address may come up: the keeper tries again */
			fatal(fd == -EADDRINUSE || fd == -EADDRNOTAVAIL ? FATAL_TEMPORARY : FATAL_CONFIG, "%s", e.text);
		l->sock[l->n_sock].tls = tls;
		l->sock[l->n_sock].ours = true;
		l->sock[l->n_sock++].fd = fd;
	}
}

/* Connections that were turned away, told once in a while: a flood must not become one of log lines. */
static void turn_away(struct listener *l, const char *what)
{
	int64_t now = clock_boot_ms();

	l->turned_away++;
	if (l->told != 0 && now - l->told < TELL_EVERY_MS)
		return;
	log_warning("connections turned away: %s (%u since the last such line)", what, l->turned_away);
	l->told = now;
	l->turned_away = 0;
}

static bool same_host(const struct child *a, const struct child *b)
{
	return memcmp(&a->host, &b->host, sizeof(a->host)) == 0;
}

/* The oldest connection without a request, of the host that has most of them; NULL: every one has spoken. */
static struct child *most_silent(struct listener *l)
{
	struct child *worst = NULL;
	unsigned most = 0;
	size_t i, j;

	for (i = 0; i < l->max_children; i++) {
		struct child *c = &l->child[i];
		unsigned n = 0;

		if (c->pid == 0 || c->asked)
			continue;
		for (j = 0; j < l->max_children; j++)
			n += l->child[j].pid != 0 && !l->child[j].asked && same_host(&l->child[j], c);
		if (n > most || (n == most && c->started < worst->started)) {
			most = n;
			worst = c;
		}
	}
	return worst;
}

static void forget_child(struct child *c)
{
	(void)close(c->leash);
	c->leash = -1;
	c->pid = 0;
}

/* Killed and gone when it returns. */
static void end_child(struct child *c)
{
	(void)kill(c->pid, SIGKILL);
	(void)waitpid(c->pid, NULL, 0);
	forget_child(c);
}

static struct child *child_slot(struct listener *l)
{
	struct child *c;
	size_t i;

	for (i = 0; i < l->max_children; i++) {
		if (l->child[i].pid == 0)
			return &l->child[i];
	}
	c = most_silent(l);
	if (c == NULL) {
		turn_away(l, "too many associations; one closed unread");
		return NULL;
	}
	turn_away(l, "too many; one whose request was not whole was closed");
	end_child(c);
	return c;
}

static bool fork_spare(struct listener *l)
{
	struct child *c = &l->spare[l->n_spare];
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return false;
	pid = fork();
	if (pid == 0)
		child_main(l, pair[1]);
	(void)close(pair[1]);
	if (pid < 0) {
		log_error("fork: %s", strerror(errno));
		(void)close(pair[0]);
		return false;
	}
	*c = (struct child){ .pid = pid, .leash = pair[0] };
	(void)fcntl(c->leash, F_SETFL, O_NONBLOCK); /* the listener never waits for a child */
	l->n_spare++;
	return true;
}

static void end_spares(struct listener *l)
{
	while (l->n_spare > 0)
		end_child(&l->spare[--l->n_spare]);
}

/* Asks the keeper; true: go on (maybe only to refuse), with *ret_channel -1 or ours. */
static bool ask_for_channel(struct listener *l, const struct in6_addr *from, struct scp_reject *ret,
			    int *ret_channel)
{
	union ipc_message m;

	ipc_begin(&m, IPC_ADMIT, ++l->question);
	if (!host_text(from, m.admit.host, sizeof(m.admit.host)))
		return false;
	if (!ask(&m, IPC_CHANNEL, ret_channel) || m.h.token != l->question)
		fatal(FATAL_TEMPORARY, "the keeper is gone");
	*ret = (struct scp_reject){ m.channel.result, m.channel.source, m.channel.reason };
	return true;
}

/* Sockets of the service manager may be IPv4 only; inside, every address has the IPv6 form. */
static int accept_from(int listening, struct in6_addr *ret)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t n = sizeof(sa);
	int sock = accept4(listening, (struct sockaddr *)&sa, &n, SOCK_CLOEXEC);

	*ret = in6addr_any;
	if (sa.ss_family == AF_INET6)
		*ret = ((const struct sockaddr_in6 *)&sa)->sin6_addr;
	else if (sa.ss_family == AF_INET) {
		ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
		memcpy(&ret->s6_addr[12], &((const struct sockaddr_in *)&sa)->sin_addr, 4);
	}
	return sock;
}

static void hand_over(struct listener *l, int sock, const struct leash_connection *c)
{
	struct child *slot = child_slot(l);

	if (slot == NULL || (l->n_spare == 0 && !fork_spare(l)))
		return;
	*slot = l->spare[--l->n_spare];
	slot->host = c->from;
	slot->started = c->since;
	if (fd_send(slot->leash, c, sizeof(*c), &sock, 1) < 0) {
		log_error("an association's process is not there: %s; connection closed", strerror(errno));
		end_child(slot);
	}
}

static void forget_silent(struct listener *l, size_t i)
{
	(void)close(l->silent[i].fd);
	l->n_silent--;
	memmove(&l->silent[i], &l->silent[i + 1], (l->n_silent - i) * sizeof(l->silent[0]));
}

static void accept_one(struct listener *l, int listening, bool tls)
{
	struct leash_connection c = { .tls = tls, .since = clock_boot_ms() };
	CLEANUP(close) int sock = accept_from(listening, &c.from);
	struct pollfd said = { .fd = sock, .events = POLLIN };
	int on = 1;

	if (sock < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			(void)usleep(ACCEPT_PAUSE_MS * 1000); /* the backlog keeps them; do not spin */
		return;
	}
	(void)setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (poll(&said, 1, 0) > 0) {
		hand_over(l, sock, &c);
		return;
	}
	if (l->n_silent == SILENT_MAX) {
		turn_away(l, "too many; one that had not said a byte was closed");
		forget_silent(l, 0);
	}
	l->silent[l->n_silent++] = (struct silent){ TAKE_FD(sock), c };
}

/* Those that have spoken get a process; those that have not, for long enough, are closed. */
static void hear_silent(struct listener *l, const struct pollfd *polled, size_t n)
{
	int64_t limit = clock_boot_ms() - (int64_t)l->config->limits.arttim_seconds * 1000;
	size_t i;

	while (n-- > 0) { /* from the end, so that the places before stay as they were polled */
		if (polled[n].revents == 0)
			continue;
		hand_over(l, l->silent[n].fd, &l->silent[n].c);
		forget_silent(l, n);
	}
	for (i = 0; i < l->n_silent && l->silent[i].c.since < limit; i++)
		turn_away(l, "one that did not say a byte within limits.request_seconds was closed");
	while (i > 0)
		forget_silent(l, --i);
}

/* A child has its request whole.  It may ask once. */
static void answer_child(struct listener *l, struct child *c)
{
	CLEANUP(close) int channel = -1;
	struct leash_answer answer = { 0 };
	unsigned of_host = 0;
	char question;
	size_t n_fds = 0, i;

	if (fd_receive(c->leash, &question, 1, NULL, 0, &n_fds) != 1 || c->asked) {
		(void)kill(c->pid, SIGKILL); /* it has ended, or breaks the rules; reaped in a moment */
		return;
	}
	for (i = 0; i < l->max_children; i++)
		of_host += l->child[i].pid != 0 && l->child[i].asked && same_host(&l->child[i], c);
	c->asked = true;
	/* PS3.8 table 9-21: rejected-transient, service-provider (presentation), local-limit-exceeded */
	if (of_host >= l->config->limits.associations_per_host)
		answer.refuse = (struct scp_reject){ 2, 3, 2 };
	else if (!ask_for_channel(l, &c->host, &answer.refuse, &channel))
		answer.refuse = (struct scp_reject){ 2, 3, 1 };
	if (fd_send(c->leash, &answer, sizeof(answer), &channel, channel >= 0 ? 1 : 0) < 0)
		(void)kill(c->pid, SIGKILL);
}

/* True when it was one of ours that has just ended. */
static bool reap_from(struct child *c, pid_t pid)
{
	if (c->pid != pid)
		return false;
	forget_child(c);
	return true;
}

static void reap(struct listener *l)
{
	int status;
	pid_t pid;
	size_t i;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (i = 0; i < l->max_children; i++) {
			if (reap_from(&l->child[i], pid))
				break;
		}
		for (i = 0; i < l->n_spare; i++) {
			if (reap_from(&l->spare[i], pid))
				l->spare[i] = l->spare[--l->n_spare];
		}
		if (WIFSIGNALED(status))
			log_error("association process ended by signal %d (%s); its sender keeps what was not acknowledged",
				  WTERMSIG(status), strsignal(WTERMSIG(status)));
		else if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			log_error("association process ended with code %d%s", WEXITSTATUS(status),
				  sandbox_code_text(WEXITSTATUS(status)));
	}
}

/* A child keeps its own deadlines; one that does not is ended from outside. */
static void end_overdue(struct listener *l)
{
	int64_t limit = ((int64_t)l->config->limits.association_seconds + OVERDUE_SECONDS) * 1000;
	int64_t now = clock_boot_ms();
	size_t i;

	for (i = 0; i < l->max_children; i++) {
		if (l->child[i].pid != 0 && now - l->child[i].started > limit) {
			log_error("an association does not end at its limit: its process is killed");
			(void)kill(l->child[i].pid, SIGKILL);
			l->child[i].started = now; /* once is enough */
		}
	}
}

/* What we have opened becomes the keeper's too, once: a successor listens on the same. */
static void tell_listening(struct listener *l)
{
	int fds[LISTENING_MAX];
	union ipc_message m;
	struct tls_dates ends = { 0 };
	size_t n = 0, i;

	if (l->tls != NULL)
		tls_ends(l->tls, &ends);
	ipc_begin(&m, IPC_LISTENING, 0);
	m.listening.certificate_ends = ends.certificate;
	m.listening.ca_ends = ends.ca;
	m.listening.crl_ends = ends.crl;
	for (i = 0; i < l->n_sock; i++) {
		if (!l->sock[i].ours)
			continue;
		fds[n++] = l->sock[i].fd;
		m.listening.n_tls += l->sock[i].tls;
		l->sock[i].ours = false;
	}
	if (ipc_send(IPC_FD, &m, fds, n) < 0)
		fatal(FATAL_TEMPORARY, "the keeper is gone");
}

/* SIGHUP: certificates may have been renewed.  Associations under way keep what they began with. */
static void renew(struct listener *l)
{
	struct tls *fresh;
	struct err e;

	if (secure_open(l->config, &fresh, &e) < 0) {
		log_error("%s; the certificates that were read before stay in use", e.text);
		return;
	}
	tls_close(l->tls);
	l->tls = fresh;
	end_spares(l); /* they have the old ones */
	tell_listening(l);
}

/* Serves those that are here and lets nobody in. */
static void retire(struct listener *l)
{
	size_t i;

	l->retired = true;
	end_spares(l);
	for (i = 0; i < l->n_sock; i++) {
		if (l->sock[i].fd >= 0)
			(void)close(l->sock[i].fd);
		l->sock[i].fd = -1;
	}
}

static bool no_children(const struct listener *l)
{
	size_t i;

	if (l->n_silent > 0)
		return false;
	for (i = 0; i < l->max_children; i++) {
		if (l->child[i].pid != 0)
			return false;
	}
	return true;
}

static void watch(struct listener *l, size_t *n, int fd, short events)
{
	l->poll[(*n)++] = (struct pollfd){ .fd = fd, .events = events };
}

/* Sockets, signals, the keeper, those that are silent, leashes.  poll() leaves out what is -1. */
static int wait_for_something(struct listener *l, int signals)
{
	bool lack = !l->retired && l->n_spare < SPARES;
	int limit = lack ? IDLE_MS : l->n_silent > 0 ? SILENT_LOOK_MS : OVERDUE_SECONDS * 1000;
	size_t n = 0, i;
	int r;

	for (i = 0; i < l->n_sock; i++)
		watch(l, &n, l->sock[i].fd, POLLIN);
	watch(l, &n, signals, POLLIN);
	watch(l, &n, IPC_FD, 0); /* only its end is of interest here */
	for (i = 0; i < l->n_silent; i++)
		watch(l, &n, l->silent[i].fd, POLLIN);
	l->n_polled = 0;
	for (i = 0; i < l->max_children; i++) {
		if (l->child[i].pid == 0)
			continue;
		l->polled[l->n_polled++] = &l->child[i];
		watch(l, &n, l->child[i].leash, l->child[i].asked ? 0 : POLLIN);
	}
	r = poll(l->poll, n, limit);
	if (r < 0 && errno != EINTR)
		fatal(FATAL_OS, "poll: %s", strerror(errno));
	if (r == 0 && lack)
		(void)fork_spare(l); /* else with the next connection */
	return r;
}

static void take_signals(struct listener *l, int signals)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			_exit(0);
		if (info.ssi_signo == SIGHUP)
			renew(l);
		if (info.ssi_signo == SIGUSR1) /* a successor has the sockets */
			retire(l);
	}
}

static void run(struct listener *l) __attribute__((noreturn));
static void run(struct listener *l)
{
	struct err e;
	sigset_t mask;
	int signals;
	size_t i;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigaddset(&mask, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		fatal(FATAL_OS, "signalfd: %s", strerror(errno));
	if (sandbox_prepare(SANDBOX_ASSOCIATION, &e) < 0 || sandbox_enter(SANDBOX_LISTENER, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	tell_listening(l);
	for (;;) {
		const struct pollfd *silent = l->poll + l->n_sock + 2, *leashes = silent + l->n_silent;
		size_t n_silent = l->n_silent;

		if (wait_for_something(l, signals) < 0)
			continue;
		if (l->poll[l->n_sock + 1].revents != 0)
			_exit(0); /* the keeper stops or died; children see their own channels end */
		for (i = 0; i < l->n_polled; i++) {
			if ((leashes[i].revents & POLLIN) != 0)
				answer_child(l, l->polled[i]);
		}
		take_signals(l, signals);
		reap(l);
		hear_silent(l, silent, n_silent);
		if (l->retired && no_children(l))
			_exit(0);
		end_overdue(l);
		for (i = 0; i < l->n_sock; i++) {
			if (l->poll[i].revents != 0 && l->sock[i].fd >= 0)
				accept_one(l, l->sock[i].fd, l->sock[i].tls);
		}
	}
}

int main(int argc, char **argv)
{
	struct listener l = { 0 };
	struct config *config;
	const char *path = CONFIG_DEFAULT_PATH;
	uint64_t inherited = 0, inherited_tls = 0;
	bool check = false;
	struct err e;
	int c;

	log_open("carzerod-receive", LOG_LEVEL_INFO);
	while ((c = getopt(argc, argv, "c:kms:t:")) != -1) {
		if (c == 'c')
			path = optarg;
		else if (c == 'm') {
			conformance_print(); /* for carzeroctl conformance */
			return 0;
		} else if (c == 'k')
			check = true;
		else if ((c != 's' || !str_to_u64(optarg, 0, CONFIG_LISTEN_MAX, &inherited)) &&
			 (c != 't' || !str_to_u64(optarg, 0, CONFIG_LISTEN_MAX, &inherited_tls)))
			fatal(FATAL_CONFIG, "started by carzerod(8), not by hand");
	}
	if (config_load_running(path, &config, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	log_set_level(config->log_level);
	if (secure_open(config, &l.tls, &e) < 0)
		fatal(FATAL_CONFIG, "%s: %s", path, e.text);
	if (check) /* for carzerod --check-config, which knows no TLS */
		return 0;
	if (fcntl(IPC_FD, F_SETFD, FD_CLOEXEC) < 0)
		fatal(FATAL_CONFIG, "no channel at descriptor %d: started by carzerod(8), not by hand", IPC_FD);
	if (dicom_init(false, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0); /* patient data pass through: no core, no ptrace by equals */
	dicom_scp_warm_up();
	l.config = config;
	l.max_children = config->limits.associations + CHILD_EXTRA;
	l.child = xcalloc(l.max_children, sizeof(*l.child));
	l.polled = xcalloc(l.max_children, sizeof(*l.polled));
	l.poll = xcalloc(LISTENING_MAX + 2 + SILENT_MAX + l.max_children, sizeof(*l.poll));
	listener_open(&l, false, IPC_FD + 1, (unsigned)inherited);
	listener_open(&l, true, IPC_FD + 1 + (int)inherited, (unsigned)inherited_tls);
	run(&l);
}
