/* hook.c: carzerod-hook, one webhook or mailbox of `notify`.
 *
 * Takes one notice at a time from the keeper and brings it out by libcurl: POST of JSON over HTTPS, signed
 * with HMAC-SHA-256, or a mail to an SMTP server.  It says whether that went well and why not; when to try again
 * is the keeper's business.  It ends after a minute of silence.
 *
 * It sees the notices' texts, its secret and the peer's answer, which it throws away; never the
 * database, an image or a report.  No redirects, no proxies, no other protocol than the URL's.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <curl/curl.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"

#define CONNECT_SECONDS 10L
#define WHOLE_SECONDS 30L
#define ANSWER_BYTES_MAX 65536
#define SECRET_BYTES_MAX 4096
#define END_AFTER_MS 60000
#define HOOK_FILES 64
#define HOOK_MEMORY (512ull << 20)

struct teller {
	const struct config *config;
	const struct notify_rule *rule;
	uint8_t *secret;
	size_t n_secret;
	CURL *curl;
	char why[CURL_ERROR_SIZE];
};

/* An answer is read, up to a limit, and forgotten. */
static size_t forget(char *p, size_t size, size_t n, void *arg)
{
	size_t *seen = arg;

	(void)p;
	*seen += size * n;
	return *seen > ANSWER_BYTES_MAX ? 0 : size * n;
}

struct upload {
	const char *p;
	size_t n;
};

static size_t give(char *p, size_t size, size_t n, void *arg)
{
	struct upload *u = arg;
	size_t part = size * n < u->n ? size * n : u->n;

	memcpy(p, u->p, part);
	u->p += part;
	u->n -= part;
	return part;
}

static CURLcode usual(struct teller *t, size_t *seen)
{
	CURL *c = t->curl;
	const struct {
		CURLoption option;
		long value;
	} longs[] = {
		{ CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS }, { CURLOPT_TIMEOUT, WHOLE_SECONDS },
		{ CURLOPT_NOSIGNAL, 1 },		     { CURLOPT_FOLLOWLOCATION, 0 },
		{ CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2 },
	};
	CURLcode r;

	curl_easy_reset(c);
	*seen = 0;
	t->why[0] = '\0';
	r = curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->why);
	for (size_t i = 0; r == CURLE_OK && i < ARRAY_SIZE(longs); i++)
		r = curl_easy_setopt(c, longs[i].option, longs[i].value);
	if (r == CURLE_OK)
		r = curl_easy_setopt(c, CURLOPT_URL, t->rule->url);
	if (r == CURLE_OK)
		r = curl_easy_setopt(c, CURLOPT_PROXY, "");
	if (r == CURLE_OK)
		r = curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https,smtp");
	if (r == CURLE_OK && t->rule->ca != NULL)
		r = curl_easy_setopt(c, CURLOPT_CAINFO, t->rule->ca);
	if (r == CURLE_OK)
		r = curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, forget);
	if (r == CURLE_OK)
		r = curl_easy_setopt(c, CURLOPT_WRITEDATA, seen);
	return r;
}

/* The receiver computes the same over the seconds, a full stop and the body, and refuses what is old or wrong. */
static void sign(const struct teller *t, const char *body, char *ret, size_t size)
{
	CLEANUP(free) char *text = NULL;
	uint8_t mac[DIGEST_SIZE];
	char hex[DIGEST_HEX_MAX];
	long long seconds = clock_wall_ms() / 1000;
	int n = asprintf(&text, "%lld.%s", seconds, body);

	if (n < 0)
		fatal(FATAL_TEMPORARY, "out of memory");
	digest_hmac(t->secret, t->n_secret, text, (size_t)n, mac);
	str_hex(hex, mac, sizeof(mac));
	(void)snprintf(ret, size, "X-Carzerod-Signature: t=%lld,v1=%s", seconds, hex);
}

static bool post(struct teller *t, const struct ipc_notice *n, char *why, size_t size)
{
	struct curl_slist *headers = NULL;
	char line[256];
	size_t seen;
	long code = 0;
	CURLcode r = usual(t, &seen);

	headers = curl_slist_append(headers, "Content-Type: application/json");
	(void)snprintf(line, sizeof(line), "X-Carzerod-Event: %s", n->event);
	headers = curl_slist_append(headers, line);
	(void)snprintf(line, sizeof(line), "X-Carzerod-Notice: %llu", (unsigned long long)n->id);
	headers = curl_slist_append(headers, line);
	if (t->secret != NULL) {
		sign(t, n->body, line, sizeof(line));
		headers = curl_slist_append(headers, line);
	}
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_USERAGENT, "carzerod/" PACKAGE_VERSION);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, n->body);
	if (r == CURLE_OK)
		r = curl_easy_perform(t->curl);
	curl_slist_free_all(headers);
	(void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &code);
	if (r != CURLE_OK)
		(void)snprintf(why, size, "%.150s", t->why[0] != '\0' ? t->why : curl_easy_strerror(r));
	else if (code < 200 || code > 299)
		(void)snprintf(why, size, "HTTP status %ld", code);
	return r == CURLE_OK && code >= 200 && code <= 299;
}

/* RFC 5322, for people: the fields of the notice, a line each. */
static char *mail_of(const struct teller *t, const struct ipc_notice *n)
{
	json_t *body = json_loads(n->body, 0, NULL), *value;
	char *text = NULL;
	const char *key;
	size_t size = 0;
	time_t now = (time_t)(clock_wall_ms() / 1000);
	char date[64];
	struct tm tm;
	FILE *o = open_memstream(&text, &size);

	if (o == NULL || gmtime_r(&now, &tm) == NULL || strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", &tm) == 0)
		fatal(FATAL_TEMPORARY, "out of memory");
	fprintf(o, "Date: %s\r\nFrom: <%s>\r\nTo: ", date, t->rule->from);
	for (size_t i = 0; i < t->rule->n_to; i++)
		fprintf(o, "%s<%s>", i > 0 ? ", " : "", t->rule->to[i]);
	fprintf(o, "\r\nSubject: carzerod %s: %s\r\nMessage-ID: <%llu.%lld@carzerod>\r\nMIME-Version: 1.0\r\n"
		   "Content-Type: text/plain; charset=utf-8\r\nAuto-Submitted: auto-generated\r\n\r\n",
		t->config->ae_title, n->event, (unsigned long long)n->id, (long long)now);
	json_object_foreach(body, key, value) {
		char *shown = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

		fprintf(o, "%s: %s\r\n", key, shown != NULL ? shown : json_string_value(value));
		free(shown);
	}
	json_decref(body);
	if (fclose(o) != 0)
		fatal(FATAL_TEMPORARY, "out of memory");
	return text;
}

static bool mail(struct teller *t, const struct ipc_notice *n, char *why, size_t size)
{
	CLEANUP(free) char *text = mail_of(t, n);
	struct upload u = { text, strlen(text) };
	struct curl_slist *to = NULL;
	size_t seen;
	CURLcode r = usual(t, &seen);

	for (size_t i = 0; i < t->rule->n_to; i++)
		to = curl_slist_append(to, t->rule->to[i]);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_MAIL_FROM, t->rule->from);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_MAIL_RCPT, to);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_READFUNCTION, give);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_READDATA, &u);
	if (r == CURLE_OK)
		r = curl_easy_setopt(t->curl, CURLOPT_UPLOAD, 1L);
	if (r == CURLE_OK)
		r = curl_easy_perform(t->curl);
	curl_slist_free_all(to);
	if (r != CURLE_OK)
		(void)snprintf(why, size, "%.150s", t->why[0] != '\0' ? t->why : curl_easy_strerror(r));
	return r == CURLE_OK;
}

static void run(struct teller *t) __attribute__((noreturn));
static void run(struct teller *t)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m, answer;
	size_t n_fds;

	begin_ready();
	for (;;) {
		begin_work(IPC_NOTICE, END_AFTER_MS, &m, fds, &n_fds);
		ipc_begin(&answer, IPC_TOLD, m.h.token);
		answer.told.good = t->rule->n_to > 0 ? mail(t, &m.notice, answer.told.why, sizeof(answer.told.why))
						     : post(t, &m.notice, answer.told.why, sizeof(answer.told.why));
		if (ipc_send(IPC_FD, &answer, NULL, 0) < 0)
			_exit(0);
	}
}

/* Without the line end that an editor leaves. */
static void read_secret(struct teller *t)
{
	CLEANUP(close) int fd = open(t->rule->secret, O_RDONLY | O_CLOEXEC);
	void *p;
	int r = fd < 0 ? -errno : read_file(fd, SECRET_BYTES_MAX, &p, &t->n_secret);

	if (r < 0)
		fatal(FATAL_CONFIG, "notify: %s: secret: %s: %s", t->rule->name, t->rule->secret, strerror(-r));
	t->secret = p;
	while (t->n_secret > 0 && (t->secret[t->n_secret - 1] == '\n' || t->secret[t->n_secret - 1] == '\r'))
		t->n_secret--;
	if (t->n_secret == 0)
		fatal(FATAL_CONFIG, "notify: %s: secret: %s: empty", t->rule->name, t->rule->secret);
}

int main(int argc, char **argv)
{
	struct teller t = { .curl = NULL };
	struct config *config;
	struct err e;

	config = begin_helper("carzerod-hook", argc, argv, NULL);
	t.config = config;
	for (size_t i = 0; optind < argc && i < config->n_notify; i++)
		if (strcmp(config->notify[i].name, argv[optind]) == 0)
			t.rule = &config->notify[i];
	if (t.rule == NULL)
		fatal(FATAL_CONFIG, "no such hook in notify");
	if (t.rule->secret != NULL)
		read_secret(&t);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (t.curl = curl_easy_init()) == NULL)
		fatal(FATAL_OS, "libcurl does not start");
	if (sandbox_limit(HOOK_MEMORY, 0, HOOK_FILES, 0, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	run(&t);
}
