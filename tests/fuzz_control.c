/* fuzz_control.c: no packet on the operator's socket may end the keeper or get an answer that is no JSON.
 *
 * The whole keeper is here, with a real store that holds one object; what a request changes is rolled back,
 * so that an input means the same every time.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "base/mem.h"

#include "daemon/keeper.h"

#define ANSWER_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char text[] = "ae_title: CARZEROD\nstate_dir: state\nmodel: model\nfindings: findings.yaml\n"
			   "peers: [{ae_title: ARCHIVE, host: 127.0.0.1, port: 104}]\n";

static struct keeper *open_keeper(void)
{
	struct keeper *k = xcalloc(1, sizeof(*k));
	struct instance in = { .file = 1, .due = 1, .state = INSTANCE_READY };
	static const char *const files[] = { "carzerod.db", "carzerod.db-wal", "carzerod.db-shm" };
	const char *top = getenv("builddir");
	char folder[4096], path[4200];
	bool duplicate;
	struct err e;
	size_t i;

	log_open("fuzz_control", LOG_LEVEL_ERROR);
	(void)snprintf(folder, sizeof(folder), "%s%sfuzz_control.work", top != NULL ? top : "", top != NULL ? "/tests/" : "");
	if ((mkdir(folder, 0700) < 0 && errno != EEXIST) ||
	    config_parse("fuzz", folder, text, sizeof(text) - 1, &k->config, &e) < 0)
		abort();
	for (i = 0; i < ARRAY_SIZE(files); i++) { /* of an earlier run, maybe of another schema */
		(void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		(void)unlink(path);
	}
	(void)snprintf(path, sizeof(path), "%s/carzerod.db", folder);
	k->findings = xcalloc(1, sizeof(*k->findings));
	if (store_open(path, &k->store, &e) < 0 || spool_open(folder, &k->spool, &e) < 0)
		abort();
	k->last = &k->first;
	k->association = xcalloc(k->config->limits.associations, sizeof(*k->association));
	for (i = 0; i < k->config->limits.associations; i++)
		k->association[i].sock = -1;
	delivery_open(k);
	(void)str_copy(in.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.1");
	(void)str_copy(in.sop_uid, UID_MAX, "1.2.3");
	(void)str_copy(in.study_uid, UID_MAX, "1.2");
	(void)str_copy(in.series_uid, UID_MAX, "1.2.4");
	(void)str_copy(in.syntax, UID_MAX, "1.2.840.10008.1.2.1");
	(void)str_copy(in.calling_ae, AE_TITLE_MAX, "MODALITY");
	if (store_begin(k->store) < 0 || store_add_instance(k->store, &in, 1, &duplicate) < 0 || store_commit(k->store) < 0)
		abort();
	return k;
}

static void check_answer(int sock)
{
	static char answer[ANSWER_MAX];
	ssize_t n = recv(sock, answer, sizeof(answer), MSG_DONTWAIT);
	json_t *j = n > 0 ? json_loadb(answer, (size_t)n, 0, NULL) : NULL;

	if (!json_is_object(j))
		abort();
	json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct keeper *k;
	int pair[2];

	if (k == NULL)
		k = open_keeper();
	if (size == 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return 0;
	k->now = k->boot = 1000000;
	k->control_client[0] = pair[0];
	if (send(pair[1], data, size, MSG_NOSIGNAL) == (ssize_t)size) {
		if (store_begin(k->store) < 0)
			abort();
		control_serve(k, 0);
		store_rollback(k->store);
		control_tell(k, true);
		check_answer(pair[1]);
	}
	if (k->control_client[0] >= 0)
		(void)close(pair[0]);
	(void)close(pair[1]);
	return 0;
}
