/* send.c: carzerod-send: takes our objects to one destination.
 *
 * One process for each destination that has work.  It gets read-only descriptors of finished objects
 * (one per SR class, in order of preference), opens an association, says which class the peer took,
 * waits until the keeper has committed that choice, stores, and reports the status.  The
 * association is kept for a backlog and released after a short silence; the process ends after a longer one.
 *
 * SIGHUP ends it once it is idle: the next one reads renewed certificates.
 * It never opens the database or the spool and never sees an image.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/scu.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"
#include "daemon/secure.h"

#define RELEASE_AFTER_MS 1000
#define END_AFTER_MS 60000
#define CONNECT_SECONDS 10
#define COMMITMENT_SECONDS 10 /* for an archive that tells on the same association */
#define RESPONSE_SECONDS 60
#define REPORT_BYTES_MAX (64u << 20)
#define SEND_MEMORY (1024ull << 20)
#define SEND_FILES 64

struct sender {
	struct dicom_peer peer;
	struct scu *scu; /* open association, or NULL */
	const struct peer *config;
	const char *classes[CONFIG_CLASSES_MAX + IPC_CLASSES_MAX]; /* that it was opened for */
	size_t n_classes;
	char other[IPC_CLASSES_MAX][UID_MAX]; /* those that the configuration does not name any more */
	struct err unknown; /* why there is no address: nobody knew the name when we started */
	bool stale;         /* a name, and not reached: by now it may be another address's */
};

static volatile sig_atomic_t hung_up;

static void on_hangup(int signal_number)
{
	(void)signal_number;
	hung_up = 1;
}

static bool is_offered(const struct sender *s, const char *sop_class)
{
	size_t i;

	for (i = 0; i < s->n_classes; i++) {
		if (strcmp(s->classes[i], sop_class) == 0)
			return true;
	}
	return false;
}

/* One association for all that this peer is sent, so that a study's objects go together; and for what was
 * prepared when the configuration named other classes. */
static enum scu_failure open_for(struct sender *s, const struct ipc_deliver *d, struct err *e)
{
	enum scu_failure failure;
	bool offered = true;
	uint32_t i;

	for (i = 0; i < d->n; i++)
		offered = offered && is_offered(s, d->sop_class[i]);
	if (s->scu != NULL && offered)
		return SCU_OK;
	dicom_scu_close(s->scu);
	s->scu = NULL;
	s->n_classes = config_classes(s->config, s->classes);
	for (i = 0; i < d->n; i++) {
		if (is_offered(s, d->sop_class[i]))
			continue;
		(void)str_copy(s->other[i], UID_MAX, d->sop_class[i]);
		s->classes[s->n_classes++] = s->other[i];
	}
	if (s->peer.address[0] == '\0') {
		*e = s->unknown;
		s->stale = true;
		return SCU_UNREACHABLE;
	}
	failure = dicom_scu_open(&s->peer, s->classes, s->n_classes, &s->scu, e);
	if (failure != SCU_OK)
		s->scu = NULL;
	s->stale = failure == SCU_UNREACHABLE && strcmp(s->peer.address, s->peer.host) != 0;
	return failure;
}

/* Tells the keeper which class it will be and waits for its commit. */
static bool choose(uint64_t token, uint32_t index)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n_fds = 0;
	int r;

	ipc_begin(&m, IPC_CHOSE, token);
	m.chose.index = index;
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
	r = ipc_receive(IPC_FD, IPC_KEEPER, &m, fds, &n_fds);
	if (r == 0)
		_exit(0);
	if (r < 0 || m.h.type != IPC_GO || m.h.token != token)
		fatal(FATAL_SOFTWARE, "channel: no GO for what was chosen");
	return m.go.go != 0;
}

static enum scu_failure store_first_accepted(struct sender *s, const struct ipc_deliver *d,
					     const int *fds, int *ret_status, struct err *e)
{
	CLEANUP(free) void *file = NULL;
	enum scu_failure failure;
	uint16_t status = 0;
	size_t n = 0;
	uint32_t i;
	int r;

	for (i = 0; i < d->n; i++) {
		if (dicom_scu_accepts(s->scu, d->sop_class[i]))
			break;
	}
	if (i == d->n) {
		(void)err_set(e, 0, "%s accepts %s", s->peer.ae_title,
			      d->n > 1 ? "none of the SR classes that were prepared" : "no object of this class");
		return SCU_NO_CONTEXT;
	}
	if (!choose(d->h.token, i)) {
		(void)err_set(e, 0, "another class was sent before; waits for the operator");
		return SCU_NO_CONTEXT;
	}
	failpoint("send.chosen");
	r = read_file(fds[i], REPORT_BYTES_MAX, &file, &n);
	if (r < 0)
		fatal(FATAL_IO, "report file: %s", strerror(-r));
	failure = dicom_scu_store(s->scu, file, n, &status, e);
	failpoint("send.stored");
	if (failure == SCU_OK || failure == SCU_STATUS)
		*ret_status = status;
	else {
		dicom_scu_close(s->scu); /* broken: the next one starts anew */
		s->scu = NULL;
	}
	return failure;
}

/* Told on our own association; the keeper knows whether it waits for that. */
static void committed(void *arg, const char *transaction, const struct commitment_item *item)
{
	union ipc_message m;

	(void)arg;
	ipc_begin(&m, IPC_COMMITTED, 0);
	(void)str_copy(m.committed.transaction, UID_MAX, transaction);
	(void)str_copy(m.committed.sop_uid, UID_MAX, item->sop_uid);
	m.committed.failed = item->failed;
	m.committed.reason = item->reason;
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
}

/* On the association of the C-STORE, if it is still there.  An archive that tells on an association of its
 * own is not kept waiting with ours. */
static void ask_commitment(struct sender *s, const struct ipc_ask *a)
{
	struct commitment wanted = { .n = 1 };
	struct ipc_deliver one = { .n = 1 };
	union ipc_message m;
	enum scu_failure failure;
	struct err e = { "" };
	uint16_t status = 0;

	(void)str_copy(wanted.transaction, UID_MAX, a->transaction);
	(void)str_copy(wanted.item[0].sop_class, UID_MAX, a->sop_class);
	(void)str_copy(wanted.item[0].sop_uid, UID_MAX, a->sop_uid);
	(void)str_copy(one.sop_class[0], UID_MAX, a->sop_class);
	failure = s->scu != NULL ? SCU_OK : open_for(s, &one, &e);
	if (failure == SCU_OK)
		failure = dicom_scu_ask_commitment(s->scu, &wanted, &status, &e);
	ipc_begin(&m, IPC_ASKED, a->h.token);
	m.sent.failure = failure;
	m.sent.status = failure == SCU_OK || failure == SCU_STATUS ? status : -1;
	(void)str_copy(m.sent.why, sizeof(m.sent.why), e.text);
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
	if (failure == SCU_OK && a->wait && dicom_scu_await_commitment(s->scu, COMMITMENT_SECONDS, &e) == SCU_OK)
		return;
	dicom_scu_close(s->scu);
	s->scu = NULL;
}

static void deliver(struct sender *s, const struct ipc_deliver *d, const int *fds, size_t n_fds)
{
	union ipc_message m;
	enum scu_failure failure;
	struct err e = { "" };
	int status = -1;

	if (n_fds != d->n)
		fatal(FATAL_SOFTWARE, "channel: %u classes with %zu files", d->n, n_fds);
	failpoint("send.asked");
	failure = open_for(s, d, &e);
	failpoint("send.opened");
	if (failure == SCU_OK)
		failure = store_first_accepted(s, d, fds, &status, &e);
	ipc_begin(&m, IPC_SENT, d->h.token);
	m.sent.failure = failure;
	m.sent.status = status;
	(void)str_copy(m.sent.why, sizeof(m.sent.why), e.text);
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
}

static void run(struct sender *s) __attribute__((noreturn));
static void run(struct sender *s)
{
	struct pollfd p = { .fd = IPC_FD, .events = POLLIN };
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n_fds;
	int r;

	begin_ready();
	for (;;) {
		if (hung_up) {
			dicom_scu_close(s->scu);
			_exit(0);
		}
		r = poll(&p, 1, s->scu != NULL ? RELEASE_AFTER_MS : END_AFTER_MS);
		if (r < 0 && errno == EINTR)
			continue;
		if (r == 0 && s->scu == NULL)
			_exit(0);
		if (r == 0) {
			dicom_scu_close(s->scu);
			s->scu = NULL;
			continue;
		}
		n_fds = 0;
		r = ipc_receive(IPC_FD, IPC_KEEPER, &m, fds, &n_fds);
		if (r == 0) {
			dicom_scu_close(s->scu);
			_exit(0);
		}
		if (r < 0 || (m.h.type != IPC_DELIVER && m.h.type != IPC_ASK))
			fatal(FATAL_SOFTWARE, "channel: %s", r < 0 ? strerror(-r) : "not for us");
		if (m.h.type == IPC_ASK)
			ask_commitment(s, &m.ask);
		else
			deliver(s, &m.deliver, fds, n_fds);
		while (n_fds > 0)
			(void)close(fds[--n_fds]);
		if (s->stale) /* the next process asks for the address anew; behind these walls nobody can */
			_exit(0);
	}
}

int main(int argc, char **argv)
{
	const char *path;
	const struct peer *peer;
	struct config *config;
	struct tls *tls = NULL;
	struct sender s = { 0 };
	struct err e;

	config = begin_helper("carzerod-send", argc, argv, &path);
	peer = optind < argc ? config_peer(config, argv[optind]) : NULL;
	if (peer == NULL)
		fatal(FATAL_CONFIG, "no such destination among peers");
	if (dicom_init(false, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	if (peer->tls && secure_open(config, &tls, &e) < 0)
		fatal(FATAL_TEMPORARY, "%s: %s", path, e.text); /* a renewal may be under way */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, on_hangup);
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (sandbox_limit(SEND_MEMORY, 0, SEND_FILES, 0, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	(void)str_copy(s.peer.ae_title, AE_TITLE_MAX, peer->ae_title);
	(void)str_copy(s.peer.our_ae_title, AE_TITLE_MAX, config->ae_title);
	(void)str_copy(s.peer.host, sizeof(s.peer.host), peer->host);
	s.config = peer;
	s.peer.port = peer->port;
	s.peer.tls = tls;
	s.peer.commitment = peer->commitment != COMMITMENT_NONE;
	s.peer.committed = committed;
	(void)str_copy(s.peer.certificate, sizeof(s.peer.certificate), peer->certificate);
	s.peer.connect_seconds = CONNECT_SECONDS;
	s.peer.response_seconds = RESPONSE_SECONDS;
	(void)dicom_scu_resolve(&s.peer, &s.unknown); /* told to the keeper with the first object */
	if (sandbox_enter(SANDBOX_SEND, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	run(&s);
}
