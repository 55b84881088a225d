/* export.c: carzerod-export, the node's figures for Prometheus.
 *
 * GET /metrics on a loopback address or a UNIX socket (`metrics` in the configuration), whose listening
 * socket it inherits.  It reads the keeper's page of memory (telemetry.h) and nothing else: no database,
 * no spool, no message of the keeper's, so whoever breaks it has what it shows anyway.  The HTTP is libmicrohttpd's, run by our own
 * poll: no threads.
 *
 * It never shows anything about a patient: the page holds nothing of the kind.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/image.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"
#include "daemon/telemetry.h"

#define SOCKET_FD (IPC_FD + 1) /* listens where the configuration says */
#define PAGE_FD (IPC_FD + 2)
#define CONNECTIONS_MAX 16
#define CONNECTION_SECONDS 10
#define CONNECTION_MEMORY 16384
#define EXPORT_FILES 64
#define EXPORT_MEMORY (256ull << 20)
#define FRESH_MS 30000 /* the keeper turns at least every 10 s */

struct exporter {
	const struct telemetry_page *page;
	struct telemetry copy;
	const char *reasons[TELEMETRY_REASONS_MAX + 1];
};

static enum MHD_Result answer(struct MHD_Connection *c, unsigned code, const char *type, char *text, size_t n)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(n, text, text != NULL ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result;

	if (r == NULL) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	result = MHD_queue_response(c, code, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result answer_metrics(struct exporter *x, struct MHD_Connection *c)
{
	char *text = NULL;
	size_t n = 0;
	FILE *o;

	if (!telemetry_read(x->page, &x->copy))
		return answer(c, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain", xstrdup("no figures yet\n"), 15);
	o = open_memstream(&text, &n);
	if (o == NULL)
		return MHD_NO;
	telemetry_print(o, &x->copy, clock_wall_ms(), x->reasons);
	if (fclose(o) != 0) {
		free(text);
		return MHD_NO;
	}
	return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, n);
}

/* For a load balancer or a watchdog: does the keeper turn, and is there a model? */
static enum MHD_Result answer_health(struct exporter *x, struct MHD_Connection *c)
{
	const char *text = "healthy\n";
	unsigned code = MHD_HTTP_OK;

	if (!telemetry_read(x->page, &x->copy) || clock_wall_ms() - x->copy.now > FRESH_MS) {
		text = "the keeper does not turn\n";
		code = MHD_HTTP_SERVICE_UNAVAILABLE;
	} else if (!x->copy.model_ready) {
		text = "no model is loaded yet\n";
		code = MHD_HTTP_SERVICE_UNAVAILABLE;
	}
	return answer(c, code, "text/plain", xstrdup(text), strlen(text));
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
				  const char *version, const char *upload, size_t *upload_n, void **state)
{
	struct exporter *x = arg;

	(void)version;
	(void)upload;
	(void)state;
	if (*upload_n != 0)
		return MHD_NO;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", NULL, 0);
	if (strcmp(url, "/metrics") == 0)
		return answer_metrics(x, c);
	if (strcmp(url, "/health") == 0)
		return answer_health(x, c);
	return answer(c, MHD_HTTP_NOT_FOUND, "text/plain", xstrdup("see /metrics and /health\n"), 25);
}

static struct MHD_Daemon *open_http(struct exporter *x, int fd)
{
	struct MHD_Daemon *d = MHD_start_daemon(
		MHD_USE_EPOLL, 0, NULL, NULL, on_request, x, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_END);

	if (d == NULL)
		fatal(FATAL_OS, "metrics: libmicrohttpd does not start");
	return d;
}

static void run(struct MHD_Daemon *d) __attribute__((noreturn));
static void run(struct MHD_Daemon *d)
{
	struct pollfd p[] = {
		{ .fd = IPC_FD, .events = POLLIN },
		{ .fd = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN },
	};

	for (;;) {
		unsigned MHD_LONG_LONG ms;
		int wait = MHD_get_timeout(d, &ms) == MHD_YES && ms < 60000 ? (int)ms : 60000;

		if (poll(p, ARRAY_SIZE(p), wait) < 0 && errno != EINTR)
			fatal(FATAL_OS, "poll: %s", strerror(errno));
		if (p[0].revents != 0)
			_exit(0); /* the keeper is gone: it never speaks to us */
		if (MHD_run(d) != MHD_YES)
			fatal(FATAL_SOFTWARE, "metrics: libmicrohttpd failed");
	}
}

int main(int argc, char **argv)
{
	struct exporter *x = xcalloc(1, sizeof(*x));
	struct MHD_Daemon *d;
	struct err e;
	int r;

	(void)begin_helper("carzerod-export", argc, argv, NULL);
	r = telemetry_page_map(PAGE_FD, &x->page);
	if (r < 0)
		fatal(FATAL_CONFIG, "no page of figures at descriptor %d: %s", PAGE_FD, strerror(-r));
	(void)close(PAGE_FD);
	for (size_t i = 0; i < TELEMETRY_REASONS_MAX && i <= IMAGE_OUT_OF_DOMAIN; i++)
		x->reasons[i] = image_reason_name((enum image_reason)i);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	d = open_http(x, SOCKET_FD);
	if (sandbox_limit(EXPORT_MEMORY, 0, EXPORT_FILES, 0, &e) < 0 || sandbox_enter(SANDBOX_EXPORT, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	begin_ready();
	run(d);
}
