/* probe.c: carzerod-probe, one step of carzeroctl selftest that speaks DICOM.
 *
 *	echo PEER                                   C-ECHO to a peer, as the node would call it
 *	find PEER STUDY_UID SERIES_UID SOP_UID      whether a peer has this object, by C-FIND
 *	own-echo CALLING ADDRESS PORT plain|tls     C-ECHO to our own listener, under another's AE title
 *	own-store CALLING ADDRESS PORT plain|tls STUDY_UID   the drawn film, as this study, likewise
 *
 * It prints one line: a word (enum scu_failure in words, or "absent") and what there is to say.  What the
 * result means is carzeroctl's business, which has the database and never hears a peer's bytes.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/film.h"
#include "dicom/scu.h"

#include "daemon/config.h"
#include "daemon/sandbox.h"
#include "daemon/secure.h"

#define CONNECT_SECONDS 10
#define RESPONSE_SECONDS 30
#define FILM_BYTES_MAX (1024 * 1024)
#define PROBE_MEMORY (1024ull << 20)
#define PROBE_FILES 64
#define USAGE 64

static const uint8_t film_namespace[16] = { 0x6a, 0x0d, 0x5b, 0x1e, 0x27, 0xc3, 0x4f, 0x90,
					    0x8e, 0x44, 0x9b, 0x72, 0x1c, 0xd5, 0x03, 0xaf };

struct probe {
	struct config *config;
	struct dicom_peer peer;
	struct study_query query;
	struct film_names names;
	void *film;
	size_t n_film;
	unsigned seen;
};

static const char *word_of(enum scu_failure f)
{
	switch (f) {
	case SCU_OK:
		return "ok";
	case SCU_UNREACHABLE:
		return "unreachable";
	case SCU_REJECTED_TRANSIENT:
		return "rejected-for-now";
	case SCU_REJECTED_PERMANENT:
		return "rejected";
	case SCU_NO_CONTEXT:
		return "not-offered";
	case SCU_STATUS:
	case SCU_LIMIT:
		break;
	}
	return "status";
}

static int say(enum scu_failure f, const char *text)
{
	printf("%s %s\n", word_of(f), text);
	return 0;
}

/* ---- who ---- */

static void to_peer(struct probe *p, const char *name)
{
	const struct peer *peer = config_peer(p->config, name);

	if (peer == NULL)
		fatal(FATAL_CONFIG, "no peer is called '%s'", name);
	(void)str_copy(p->peer.ae_title, AE_TITLE_MAX, peer->ae_title);
	(void)str_copy(p->peer.our_ae_title, AE_TITLE_MAX, p->config->ae_title);
	(void)str_copy(p->peer.host, sizeof(p->peer.host), peer->host);
	(void)str_copy(p->peer.certificate, sizeof(p->peer.certificate), peer->certificate);
	p->peer.port = peer->port;
	if (!peer->tls)
		p->peer.tls = NULL;
}

static void to_ourselves(struct probe *p, char **argv)
{
	uint64_t port;

	(void)str_copy(p->peer.ae_title, AE_TITLE_MAX, p->config->ae_title);
	if (!str_copy(p->peer.our_ae_title, AE_TITLE_MAX, argv[0]) || !ae_title_valid(argv[0]) ||
	    !str_copy(p->peer.host, sizeof(p->peer.host), argv[1]) || !str_to_u64(argv[2], 1, UINT16_MAX, &port))
		fatal(FATAL_CONFIG, "wants an AE title, an address and a port");
	p->peer.port = (uint16_t)port;
	p->peer.any_name = true;
	if (strcmp(argv[3], "tls") != 0)
		p->peer.tls = NULL;
}

/* ---- what ---- */

static void read_film(struct probe *p, const char *study_uid)
{
	const char *folder = getenv("CARZEROD_LIBEXECDIR"); /* the build tree */
	CLEANUP(free) void *file = NULL;
	char path[4096], text[UID_MAX + 16], offset[6];
	struct err e;
	size_t n;

	if (snprintf(path, sizeof(path), "%s/selftest.dcm", folder != NULL ? folder : PKGDATADIR) >= (int)sizeof(path) ||
	    read_path(path, FILM_BYTES_MAX, &file, &n, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	if (!uid_valid(study_uid))
		fatal(FATAL_CONFIG, "'%s' is not a UID", study_uid);
	(void)str_copy(p->names.study_uid, UID_MAX, study_uid);
	(void)snprintf(text, sizeof(text), "%s series", study_uid);
	uid_from_name(film_namespace, text, p->names.series_uid);
	(void)snprintf(text, sizeof(text), "%s film", study_uid);
	uid_from_name(film_namespace, text, p->names.sop_uid);
	clock_dicom_local(clock_wall_ms(), p->names.date, p->names.time, offset);
	p->names.study_description = "CARZEROD SELF-TEST, DRAWN, NO PATIENT";
	if (dicom_film_renew(file, n, &p->names, &p->film, &p->n_film, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
}

static int echo(struct probe *p)
{
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0;
	enum scu_failure f = dicom_scu_open(&p->peer, NULL, 0, &s, &e);

	if (f == SCU_NO_CONTEXT)
		(void)err_set(&e, 0, "%s accepts the association and no C-ECHO", p->peer.ae_title);
	if (f == SCU_OK)
		f = dicom_scu_echo(s, &status, &e);
	dicom_scu_close(s);
	return say(f, f == SCU_OK ? "answered 0000H" : e.text);
}

static int store(struct probe *p)
{
	const char *classes[] = { p->names.sop_class };
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0;
	enum scu_failure f = dicom_scu_open(&p->peer, classes, 1, &s, &e);

	if (f == SCU_OK)
		f = dicom_scu_store(s, p->film, p->n_film, &status, &e);
	dicom_scu_close(s);
	return say(f, f == SCU_OK ? "answered 0000H" : e.text);
}

static bool count(void *arg, const struct study_found *found)
{
	struct probe *p = arg;

	p->seen += strcmp(found->sop_uid, p->query.sop_uid) == 0;
	return true;
}

static int find(struct probe *p)
{
	static const char *const classes[] = { QUERY_FIND_CLASS };
	struct err e = { "" };
	struct scu *s = NULL;
	uint16_t status = 0;
	enum scu_failure f = dicom_scu_open(&p->peer, classes, 1, &s, &e);

	if (f == SCU_NO_CONTEXT)
		(void)err_set(&e, 0, "%s has no Study Root C-FIND for %s", p->peer.ae_title, p->peer.our_ae_title);
	if (f == SCU_OK)
		f = dicom_scu_find(s, &p->query, count, p, &status, &e);
	dicom_scu_close(s);
	if (f == SCU_OK && p->seen == 0) {
		printf("absent C-FIND answers, and does not know the object\n");
		return 0;
	}
	return say(f, f == SCU_OK ? "C-FIND names it" : e.text);
}

static int (*prepare(struct probe *p, int argc, char **argv))(struct probe *p)
{
	if (argc == 2 && strcmp(argv[0], "echo") == 0) {
		to_peer(p, argv[1]);
		return echo;
	}
	if (argc == 5 && strcmp(argv[0], "find") == 0) {
		to_peer(p, argv[1]);
		if (!str_copy(p->query.study_uid, UID_MAX, argv[2]) || !str_copy(p->query.series_uid, UID_MAX, argv[3]) ||
		    !str_copy(p->query.sop_uid, UID_MAX, argv[4]) || !uid_valid(argv[4]))
			fatal(FATAL_CONFIG, "find wants three UIDs");
		return find;
	}
	if (argc == 5 && strcmp(argv[0], "own-echo") == 0) {
		to_ourselves(p, argv + 1);
		return echo;
	}
	if (argc == 6 && strcmp(argv[0], "own-store") == 0) {
		to_ourselves(p, argv + 1);
		read_film(p, argv[5]);
		return store;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const char *path = CONFIG_DEFAULT_PATH;
	struct probe p = { .seen = 0 };
	struct tls *tls = NULL;
	int (*step)(struct probe *);
	struct err e;
	int c;

	log_open("carzerod-probe", LOG_LEVEL_INFO);
	while ((c = getopt(argc, argv, "c:")) != -1) {
		if (c != 'c')
			return USAGE;
		path = optarg;
	}
	if (config_load_running(path, &p.config, &e) < 0 || dicom_init(false, &e) < 0 || secure_open(p.config, &tls, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	p.peer.tls = tls;
	p.peer.connect_seconds = CONNECT_SECONDS;
	p.peer.response_seconds = RESPONSE_SECONDS;
	step = prepare(&p, argc - optind, argv + optind);
	if (step == NULL)
		return USAGE;
	if (dicom_scu_resolve(&p.peer, &e) < 0)
		return say(SCU_UNREACHABLE, e.text);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (sandbox_limit(PROBE_MEMORY, 0, PROBE_FILES, 0, &e) < 0 || sandbox_enter(SANDBOX_SEND, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	return step(&p);
}
