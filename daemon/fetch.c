/* fetch.c: carzerod-fetch, which carzeroctl fetch becomes: studies that an archive has, brought here.
 *
 * C-FIND says which, C-MOVE asks the archive to send each to our own listener, where they are received,
 * analysed and reported like any other.  Before each C-MOVE the keeper notes that its objects
 * from that archive are fetched: their reports stay here, unless --send.
 *
 * One study after the other, at most --rate in a minute, and none while more than WAITING_MAX images
 * wait for analysis: what a modality sends must not stand behind an archive's past.
 * It never opens database or spool, and no association of its own carries an image.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "dicom/dicom.h"
#include "dicom/scu.h"

#include "daemon/config.h"
#include "daemon/sandbox.h"
#include "daemon/secure.h"

#define STUDIES_MAX 10000 /* of one query */
#define WAITING_MAX 100
#define WAITING_PAUSE_MS 1000
#define ANSWER_MAX 65536  /* of the keeper */
#define CONNECT_SECONDS 10
#define RESPONSE_SECONDS 300 /* an archive may bring films from a tape first */
#define FETCH_MEMORY (1024ull << 20)
#define FETCH_FILES 64
#define USAGE 64
#define QUERY_BYTES_MAX 384
#define DEFAULT_RATE 20

static const char usage[] =
	"Usage: carzeroctl [-c FILE] fetch PEER STUDY_UID\n"
	"       carzeroctl [-c FILE] fetch PEER --date YYYYMMDD[-YYYYMMDD]\n"
	"       carzeroctl [-c FILE] fetch PEER --accession NUMBER\n"
	"\n"
	"Brings studies from an archive: C-FIND there, C-MOVE to this node.  They are analysed and\n"
	"their reports are kept; nothing is sent.\n"
	"\n"
	"      --send          send the reports, as routes say\n"
	"      --rate N        at most N studies in a minute (20)\n"
	"      --dry-run       only list what would be fetched\n";

struct found {
	char study_uid[UID_MAX], date[9];
};

struct fetch {
	struct study_query query;
	bool send, dry_run;
	uint64_t rate;
	struct dicom_peer peer;
	int keeper; /* its control socket */
	struct found *found;
	size_t n, skipped;
	unsigned failed;
};

static void stop(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void stop(int code, const char *format, ...)
{
	va_list ap;

	(void)fputs("carzeroctl: fetch: ", stderr);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	exit(code);
}

/* ---- the keeper --------------------------------------------------------------------------------------- */

static int open_control(const struct config *c)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", c->state_dir) >= (int)sizeof(sa.sun_path))
		stop(2, "state_dir is too long for a socket name");
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		stop(2, "carzerod does not answer at %s: %s", sa.sun_path, strerror(errno));
	return fd;
}

/* The answer is JSON of ours, read for one thing at a time. */
static void ask(struct fetch *f, const char *request, char answer[ANSWER_MAX])
{
	ssize_t n;

	if (send(f->keeper, request, strlen(request), MSG_NOSIGNAL) < 0)
		stop(2, "carzerod: %s", strerror(errno));
	n = recv(f->keeper, answer, ANSWER_MAX - 1, 0);
	if (n <= 0)
		stop(2, "carzerod: %s", n == 0 ? "it has stopped" : strerror(errno));
	answer[n] = '\0';
}

static uint64_t waiting(struct fetch *f)
{
	static char answer[ANSWER_MAX];
	static const char key[] = "\"waiting\":";
	const char *at;

	ask(f, "fetch ?", answer);
	at = strstr(answer, key);
	return at != NULL ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* Asked twice: the keeper answers inside its turn, so that the second answer says that the first turn
 * is committed. */
static void announce(struct fetch *f, const char *study_uid)
{
	static char answer[ANSWER_MAX];
	char request[160];
	int i;

	(void)snprintf(request, sizeof(request), "fetch %s %s %s", f->send ? "send" : "keep", study_uid, f->peer.ae_title);
	for (i = 0; i < 2; i++) {
		ask(f, request, answer);
		if (strstr(answer, "\"error\"") != NULL)
			stop(2, "carzerod: %s", answer);
	}
}

/* For the audit trail: who asks whom what. */
static void announce_query(struct fetch *f)
{
	static char answer[ANSWER_MAX];
	char request[700], base64[STR_BASE64_MAX(QUERY_BYTES_MAX)];
	uint8_t bytes[QUERY_BYTES_MAX];

	str_base64(base64, bytes, dicom_scu_query_bytes(&f->query, bytes, sizeof(bytes)));
	(void)snprintf(request, sizeof(request), "fetch query %s %s", f->peer.ae_title, base64);
	ask(f, request, answer);
}

/* ---- the archive ---------------------------------------------------------------------------------------- */

static struct scu *open_archive(struct fetch *f)
{
	static const char *const classes[] = { QUERY_FIND_CLASS, QUERY_MOVE_CLASS };
	struct scu *s = NULL;
	struct err e;

	if (dicom_scu_open(&f->peer, classes, ARRAY_SIZE(classes), &s, &e) != SCU_OK)
		stop(2, "%s", e.text);
	return s;
}

/* By date, an archive's CT and MR are none of our business: what it says of modalities decides, if it does. */
static bool has_radiograph(const char *modalities)
{
	const char *at = modalities;

	while (*at != '\0') {
		size_t n = strcspn(at, "\\");

		if (n == 2 && (strncmp(at, "CR", 2) == 0 || strncmp(at, "DX", 2) == 0))
			return true;
		at += n + (at[n] != '\0');
	}
	return modalities[0] == '\0';
}

static bool take(void *arg, const struct study_found *s)
{
	struct fetch *f = arg;

	if (f->query.study_uid[0] == '\0' && !has_radiograph(s->modalities)) {
		f->skipped++;
		return true;
	}
	if (f->n == STUDIES_MAX)
		return false;
	(void)str_copy(f->found[f->n].study_uid, UID_MAX, s->study_uid);
	(void)str_copy(f->found[f->n].date, sizeof(f->found[0].date), s->date);
	f->n++;
	return true;
}

static void find(struct fetch *f)
{
	struct scu *s = open_archive(f);
	uint16_t status = 0;
	struct err e = { "" };
	enum scu_failure failure;

	if (!dicom_scu_accepts(s, QUERY_FIND_CLASS) || !dicom_scu_accepts(s, QUERY_MOVE_CLASS))
		stop(2, "%s does not offer Study Root Query/Retrieve (C-FIND and C-MOVE) to %s", f->peer.ae_title,
		     f->peer.our_ae_title);
	announce_query(f);
	f->found = xcalloc(STUDIES_MAX, sizeof(*f->found));
	failure = dicom_scu_find(s, &f->query, take, f, &status, &e);
	if (failure == SCU_LIMIT)
		stop(2, "more than %d studies: narrow the date", STUDIES_MAX);
	if (failure != SCU_OK)
		stop(2, "%s", e.text);
	dicom_scu_close(s);
	printf("%zu studies found", f->n);
	if (f->skipped > 0)
		printf(", %zu of other modalities left out", f->skipped);
	printf("\n");
}

static void move(struct fetch *f, struct scu **s, const struct found *study)
{
	struct move_result result = { 0 };
	struct err e = { "" };
	enum scu_failure failure;

	announce(f, study->study_uid);
	if (*s == NULL)
		*s = open_archive(f);
	failure = dicom_scu_move(*s, study->study_uid, &result, &e);
	printf("%s %s: %u objects sent, %u failed%s%s\n", study->study_uid, study->date, result.completed + result.warned,
	       result.failed, failure != SCU_OK ? ": " : "", failure != SCU_OK ? e.text : "");
	(void)fflush(stdout);
	if (failure != SCU_OK || result.failed > 0)
		f->failed++;
	if (failure != SCU_OK) {
		dicom_scu_close(*s);
		*s = NULL;
	}
}

static void pause_until(int64_t boot_ms)
{
	int64_t left = boot_ms - clock_boot_ms();

	if (left > 0)
		(void)usleep((useconds_t)left * 1000);
}

static void fetch_all(struct fetch *f)
{
	int64_t next = clock_boot_ms();
	struct scu *s = NULL;
	size_t i;

	for (i = 0; i < f->n; i++) {
		pause_until(next);
		next = clock_boot_ms() + 60000 / (int64_t)f->rate;
		while (waiting(f) > WAITING_MAX) {
			dicom_scu_close(s); /* nobody is kept waiting with an open association */
			s = NULL;
			pause_until(clock_boot_ms() + WAITING_PAUSE_MS);
		}
		move(f, &s, &f->found[i]);
	}
	dicom_scu_close(s);
}

/* ---- the command line ------------------------------------------------------------------------------------- */

static bool date_valid(const char *d)
{
	size_t n = strspn(d, "0123456789");

	if (n != 8)
		return false;
	return d[8] == '\0' || (d[8] == '-' && strspn(d + 9, "0123456789") == 8 && d[17] == '\0');
}

static const char *read_arguments(struct fetch *f, int argc, char **argv, const char **ret_path)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "date", required_argument, NULL, 'd' },
		{ "accession", required_argument, NULL, 'a' }, { "send", no_argument, NULL, 's' },
		{ "rate", required_argument, NULL, 'r' }, { "dry-run", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	int c;

	f->rate = DEFAULT_RATE;
	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		if (c == 'c')
			*ret_path = optarg;
		else if (c == 'd') {
			if (!date_valid(optarg) || !str_copy(f->query.date, sizeof(f->query.date), optarg))
				stop(USAGE, "--date wants YYYYMMDD or YYYYMMDD-YYYYMMDD, not '%s'", optarg);
		} else if (c == 'a') {
			if (optarg[0] == '\0' || strpbrk(optarg, "*?\\") != NULL ||
			    !str_copy(f->query.accession, sizeof(f->query.accession), optarg))
				stop(USAGE, "--accession wants a number of at most 16 characters, without wildcards");
		} else if (c == 's')
			f->send = true;
		else if (c == 'n')
			f->dry_run = true;
		else if (c == 'r') {
			if (!str_to_u64(optarg, 1, 6000, &f->rate))
				stop(USAGE, "--rate wants 1 to 6000 studies in a minute, not '%s'", optarg);
		} else if (c == 'h') {
			(void)fputs(usage, stdout);
			exit(0);
		} else
			stop(USAGE, "try 'carzeroctl fetch --help'");
	}
	if (optind < argc - 1) {
		if (!uid_valid(argv[optind + 1]) || optind + 2 < argc)
			stop(USAGE, "'%s' is not a Study Instance UID", argv[argc - 1]);
		(void)str_copy(f->query.study_uid, UID_MAX, argv[optind + 1]);
	}
	if (optind >= argc ||
	    (f->query.study_uid[0] != '\0') + (f->query.date[0] != '\0') + (f->query.accession[0] != '\0') != 1)
		stop(USAGE, "wants a peer, and one of a Study Instance UID, --date and --accession");
	return argv[optind];
}

int main(int argc, char **argv)
{
	const char *path = CONFIG_DEFAULT_PATH, *name;
	const struct peer *peer;
	struct fetch f = { .keeper = -1 };
	struct config *config;
	struct tls *tls = NULL;
	struct err e;
	size_t i;

	log_open("carzerod-fetch", LOG_LEVEL_INFO);
	name = read_arguments(&f, argc, argv, &path);
	if (config_load(path, &config, &e) < 0)
		stop(2, "%s", e.text);
	peer = config_peer(config, name);
	if (peer == NULL)
		stop(2, "no peer is called '%s' in %s", name, path);
	if (dicom_init(false, &e) < 0 || (peer->tls && secure_open(config, &tls, &e) < 0))
		stop(2, "%s", e.text);
	(void)str_copy(f.peer.ae_title, AE_TITLE_MAX, peer->ae_title);
	(void)str_copy(f.peer.our_ae_title, AE_TITLE_MAX, config->ae_title);
	(void)str_copy(f.peer.host, sizeof(f.peer.host), peer->host);
	(void)str_copy(f.peer.certificate, sizeof(f.peer.certificate), peer->certificate);
	f.peer.port = peer->port;
	f.peer.tls = tls;
	f.peer.connect_seconds = CONNECT_SECONDS;
	f.peer.response_seconds = RESPONSE_SECONDS;
	f.keeper = open_control(config);
	if (dicom_scu_resolve(&f.peer, &e) < 0)
		stop(2, "%s", e.text);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (sandbox_limit(FETCH_MEMORY, 0, FETCH_FILES, 0, &e) < 0 || sandbox_enter(SANDBOX_SEND, &e) < 0)
		stop(2, "%s", e.text);
	find(&f);
	for (i = 0; f.dry_run && i < f.n; i++)
		printf("%s %s\n", f.found[i].study_uid, f.found[i].date);
	if (!f.dry_run)
		fetch_all(&f);
	if (f.failed > 0)
		printf("%u studies were not brought whole\n", f.failed);
	return f.failed > 0 ? 1 : 0;
}
