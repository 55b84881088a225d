/* carzerod.c: command line and start of the node; keeper.c is its life.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/config.h"
#include "daemon/findings.h"
#include "daemon/helper.h"
#include "daemon/keeper.h"
#include "daemon/landlock.h"
#include "daemon/notify.h"
#include "daemon/sandbox.h"

static const char usage[] =
	"Usage: carzerod [-F] [-c FILE] [--check-config]\n"
	"\n"
	"A DICOM node that receives chest radiographs, scores findings with CARZero and\n"
	"sends Structured Reports.  AI results, not verified; not a medical device.\n"
	"\n"
	"  -c, --config FILE   configuration (" CONFIG_DEFAULT_PATH ")\n"
	"  -F, --foreground    stay in the foreground (always so; accepted for habit)\n"
	"      --rebuild       make the database anew from the spool (the old one is renamed), and end\n"
	"      --check-config  check configuration, findings list and folders; change nothing\n"
	"  -h, --help          this text\n"
	"  -V, --version       version\n"
	"\n"
	"carzerod(8) describes signals, files and exit codes; carzeroctl(8) asks a running node.\n";

static void load(const char *path, struct config **ret_config, struct findings **ret_findings,
		 void **ret_text, size_t *ret_n)
{
	struct err e;

	if (config_load(path, ret_config, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	if (findings_load((*ret_config)->findings, ret_findings, ret_text, ret_n, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
}

/* The keeper knows no TLS: carzerod-receive opens what the configuration names, and says why it cannot. */
static void check_tls(const struct config *c, const char *path)
{
	if (c->tls.on && helper_try("carzerod-receive", path) != 0)
		exit(FATAL_CONFIG); /* its line says why */
}

/* By the process that will draw: this one knows nothing of fonts.  Returns its exit code. */
static int check_fonts(const char *path)
{
	char program[4096];
	int status;
	pid_t pid;

	(void)snprintf(program, sizeof(program), "%s/carzerod-image", helper_folder());
	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		(void)execl(program, "carzerod-image", "-k", "-c", path, (char *)NULL);
		_exit(FATAL_OS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) == FATAL_OS)
		fatal(FATAL_OS, "%s: cannot be run: are all of carzerod's programs installed?", program);
	return WEXITSTATUS(status);
}

static int check_config(const char *path)
{
	struct findings *findings;
	struct config *config;
	struct stat st;
	void *text;
	size_t n;

	load(path, &config, &findings, &text, &n);
	check_tls(config, path);
	if (stat(config->model, &st) < 0 || !S_ISDIR(st.st_mode))
		fatal(FATAL_CONFIG, "%s: model: %s: %s", path, config->model,
		      errno != 0 ? strerror(errno) : "not a folder; carzero-model import makes a bundle");
	printf("%s: good: AE title %s, %zu peers, %zu routes, %zu findings (%s)\n", path, config->ae_title,
	       config->n_peers, config->n_routes, findings->n, findings->name);
	if (config->n_access == 0)
		printf("%s: note: no access rules: any calling AE title from any address may send\n", path);
	if (config->n_routes == 0)
		printf("%s: note: no routes: reports are kept and sent nowhere\n", path);
	free(text);
	findings_free(findings);
	config_free(config);
	return check_fonts(path);
}

static void warn_about(const struct config *c)
{
	if (c->n_access == 0)
		log_warning("any calling AE title from any address may send: set access in the configuration");
	if (c->n_routes == 0)
		log_warning("reports are kept and sent nowhere: set routes in the configuration");
	if (c->allow_out_of_domain)
		log_warning("allow_out_of_domain: images are scored by a bundle that may never have seen a patient");
	if (!sandbox_built())
		log_warning("built without sandbox: for sanitizers and debugging, not for a hospital network");
}

/* The keeper's own walls: it writes beneath state_dir alone, and reads besides it what it and its
 * helpers need.  Helpers inherit them and get narrower ones (helper.h). */
static void wall_in(const struct config *c, const char *path, char *const tls[CREDENTIAL_FILES])
{
	/* a wall stands around whoever is started within it: what a helper reads we must be allowed to */
	const char *reads[] = { path, c->findings, c->model, KEEPER_FONT_CACHE, tls[0], tls[1], tls[2], tls[3] };
	CLEANUP(close) int set = -1;
	struct err e;
	size_t i;
	int r;

	if (sandbox_limit(0, 0, 0, 0, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fatal(FATAL_OS, "prctl: %s", strerror(errno));
	r = landlock_new(LANDLOCK_FILES, &set, &e);
	if (r == 0)
		r = landlock_system(set, &e);
	if (r == 0)
		r = landlock_path(set, c->state_dir, LANDLOCK_OWN, &e);
	if (r == 0)
		r = landlock_path(set, helper_folder(), LANDLOCK_PROGRAM, &e);
	for (i = 0; r == 0 && i < ARRAY_SIZE(reads) && reads[i] != NULL; i++)
		r = landlock_folder_of(set, reads[i], &e);
	if (r < 0)
		fatal(FATAL_OS, "%s", e.text);
	r = landlock_enter(set);
	if (r < 0)
		fatal(FATAL_OS, "landlock: %s", strerror(-r));
	if (set >= 0)
		log_info("landlock: ABI %d; writes beneath %s only", landlock_abi(), c->state_dir);
	else if (sandbox_built())
		log_warning("this kernel has no Landlock: seccomp alone, and only once a process is warm");
}

static void open_state(struct keeper *k, const void *text, size_t n_text)
{
	char path[4096];
	struct err e;
	int r;

	if (mkdir(k->config->state_dir, 0700) < 0 && errno != EEXIST)
		fatal(FATAL_CONFIG, "state_dir %s: %s", k->config->state_dir, strerror(errno));
	if (credential_paths(k->config, k->tls.path, &e) < 0)
		fatal(FATAL_CONFIG, "%s: %s", k->config_path, e.text);
	wall_in(k->config, k->config_path, k->tls.path);
	if (disk_unsafe(k->config->state_dir) != NULL && !k->config->unsafe_storage)
		fatal(FATAL_CONFIG,
		      "state_dir %s is on %s, which need not survive a power cut: use a local ext4 or xfs, or, where nothing "
		      "matters, storage: {unsafe: true}",
		      k->config->state_dir, disk_unsafe(k->config->state_dir));
	if (disk_unsafe(k->config->state_dir) != NULL)
		log_warning("storage.unsafe: state_dir is on %s: what is acknowledged may be lost in a power cut",
			    disk_unsafe(k->config->state_dir));
	if (snprintf(path, sizeof(path), "%s/carzerod.db", k->config->state_dir) >= (int)sizeof(path))
		fatal(FATAL_CONFIG, "state_dir: path too long");
	/* the store first: its lock says that we are alone here */
	r = recovery_open(k, path, &e);
	if (r == 0)
		r = spool_open(k->config->state_dir, &k->spool, &e);
	if (r < 0) /* a lock may come free, a disk come back: worth another start; what people must mend is not */
		fatal(r == -ENOTSUP || r == -EUCLEAN || r == -ENOTDIR || r == -EACCES || r == -EPERM || r == -ENOENT ||
				      r == -EINVAL || r == -EBADMSG
			      ? FATAL_CONFIG
			      : FATAL_TEMPORARY,
		      "%s", e.text);
	keeper_must(k, store_keep_findings(k->store, k->findings->digest, text, n_text), "keep the findings list");
}

static int serve(const char *path, bool rebuild)
{
	struct keeper *k = xcalloc(1, sizeof(*k));
	bool tls[KEEPER_SOCKETS_MAX];
	unsigned i, n = notify_listen_fds(tls, KEEPER_SOCKETS_MAX);
	void *text;
	size_t n_text;

	if (n > KEEPER_SOCKETS_MAX)
		fatal(FATAL_CONFIG, "more than %d sockets from the service manager", KEEPER_SOCKETS_MAX);
	for (i = 0; i < n; i++) /* the receiver wants those for TLS behind the others */
		if (!tls[i])
			k->listen_fd[k->n_listen_fds++] = IPC_FD + (int)i;
	for (i = 0; i < n; i++)
		if (tls[i]) {
			k->listen_fd[k->n_listen_fds++] = IPC_FD + (int)i;
			k->n_tls_fds++;
		}
	load(path, &k->config, &k->findings, &text, &n_text);
	k->config_path = path;
	k->rebuild = rebuild;
	log_set_level(k->config->log_level);
	(void)umask(0077);
	warn_about(k->config);
	k->metrics_fd = figures_listen(k->config);
	open_state(k, text, n_text);
	reload_open(k, text, n_text);
	free(text);
	(void)keeper_run(k);
	spool_close(k->spool);
	store_close(k->store);
	findings_free(k->findings);
	log_info("stopped");
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "foreground", no_argument, NULL, 'F' },
		{ "rebuild", no_argument, NULL, 'b' },
		{ "check-config", no_argument, NULL, 'k' }, { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },      { NULL, 0, NULL, 0 },
	};
	const char *path = CONFIG_DEFAULT_PATH;
	bool check = false, rebuild = false;
	int c;

	log_open("carzerod", LOG_LEVEL_INFO);
	(void)setenv("OMP_WAIT_POLICY", "passive", 0); /* for the workers: see kernels_wait_asleep() */
	while ((c = getopt_long(argc, argv, "c:FhV", options, NULL)) != -1) {
		if (c == 'c')
			path = optarg;
		else if (c == 'k')
			check = true;
		else if (c == 'b')
			rebuild = true;
		else if (c == 'h' || c == 'V') {
			(void)fputs(c == 'h' ? usage : "carzerod " PACKAGE_VERSION "\n", stdout);
			return 0;
		} else if (c != 'F') {
			(void)fputs("Try 'carzerod --help'.\n", stderr);
			return 64;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr, "carzerod: unexpected argument '%s'. Try 'carzerod --help'.\n", argv[optind]);
		return 64;
	}
	return check ? check_config(path) : serve(path, rebuild);
}
