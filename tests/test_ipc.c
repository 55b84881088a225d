/* test_ipc.c: the judge of messages: what it lets through and what not, and how it travels.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "daemon/config.h"
#include "daemon/ipc.h"

#include "tests/tap.h"

static void good_object(union ipc_message *m)
{
	ipc_begin(m, IPC_STORED, 42);
	(void)str_copy(m->object.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.1.1");
	(void)str_copy(m->object.sop_uid, UID_MAX, "1.2.3.4");
	(void)str_copy(m->object.study_uid, UID_MAX, "1.2.3");
	(void)str_copy(m->object.series_uid, UID_MAX, "1.2.3.1");
	(void)str_copy(m->object.syntax, UID_MAX, "1.2.840.10008.1.2.1");
	(void)str_copy(m->object.calling_ae, AE_TITLE_MAX, "MODALITY");
	(void)str_copy(m->object.called_ae, AE_TITLE_MAX, "CARZEROD");
	m->object.size = 1000;
	m->object.analysed_class = 1;
	m->object.study_date = 20260131;
}

static void good_compose(union ipc_message *m)
{
	ipc_begin(m, IPC_COMPOSE, 1);
	m->compose.n_images = 2;
	m->compose.object = OBJECT_SC;
	m->compose.page = 1;
	m->compose.side = 256;
	m->compose.crop = 224;
	m->compose.map_side = 14;
	(void)str_copy(m->compose.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.7");
	(void)str_copy(m->compose.sop_uid, UID_MAX, "1.2.3.4");
	(void)str_copy(m->compose.series_uid, UID_MAX, "1.2.3.1");
	(void)str_copy(m->compose.device_uid, UID_MAX, "1.2.3.2");
}

static void test_check(void)
{
	union ipc_message m;
	size_t n = sizeof(struct ipc_object);

	good_object(&m);
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), 0, "a whole STORED passes");
	is_int(ipc_check(IPC_IMAGE, &m, n, 0), -EPROTO, "from another role it does not");
	is_int(ipc_check(IPC_ASSOCIATION, &m, n - 1, 0), -EPROTO, "one byte short");
	is_int(ipc_check(IPC_ASSOCIATION, &m, n + 1, 0), -EPROTO, "one byte long");
	is_int(ipc_check(IPC_ASSOCIATION, &m, 3, 0), -EPROTO, "no header");
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 1), -EPROTO, "a descriptor that nobody asked for");
	m.h.magic ^= 1;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "foreign magic");
	good_object(&m);
	m.h.type = IPC_TYPE_COUNT;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a type beyond the table");
	m.h.type = 0;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "type 0");
	good_object(&m);
	memset(m.object.study_uid, '1', UID_MAX);
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a UID without an end");
	good_object(&m);
	(void)str_copy(m.object.sop_uid, UID_MAX, "1.2/../../x");
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a path where a UID belongs");
	good_object(&m);
	m.object.calling_ae[0] = '\n';
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a control character in an AE title");
	good_object(&m);
	m.object.analysed_class = 2;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a bool that is 2");
	good_object(&m);
	m.object.study_date = 100000101;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "a date of nine digits");
	good_object(&m);
	m.h.token = 0;
	is_int(ipc_check(IPC_ASSOCIATION, &m, n, 0), -EPROTO, "no file");

	ipc_begin(&m, IPC_ENDED, 0);
	is_int(ipc_check(IPC_ASSOCIATION, &m, sizeof(m.ended), 0), 0, "an ENDED");
	m.ended.end = 16;
	is_int(ipc_check(IPC_ASSOCIATION, &m, sizeof(m.ended), 0), -EPROTO, "an end that does not exist");
	ipc_begin(&m, IPC_ENDED, 0);
	memset(m.ended.contexts, 'x', sizeof(m.ended.contexts));
	is_int(ipc_check(IPC_ASSOCIATION, &m, sizeof(m.ended), 0), -EPROTO, "contexts without an end");

	ipc_begin(&m, IPC_SCORED, 1);
	m.scored.n = FINDINGS_MAX;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.scored), 0), 0, "the longest SCORED");
	m.scored.n++;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.scored), 0), -EPROTO, "one score too many");
	m.scored.n = 1;
	m.scored.kept = 2;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.scored), 0), -EPROTO, "an embedding that is neither kept nor not");
	ipc_begin(&m, IPC_MODEL, 0);
	m.model.side = 256;
	m.model.crop = 224;
	m.model.map_side = 14;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.model), 0), 0, "a model");
	m.model.map_side = IPC_MAP_SIDE_MAX + 1;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.model), 0), -EPROTO, "larger attention maps than we take");
	m.model.map_side = 14;
	m.model.crop = 257;
	is_int(ipc_check(IPC_INFER, &m, sizeof(m.model), 0), -EPROTO, "a crop beyond the square");
	ipc_begin(&m, IPC_SCORE, 1);
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.score), 1), -EPROTO, "SCORE without a file for the maps");
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.score), 2), 0, "with one");
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.score), 3), 0, "and with one for the embedding");
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.score), 4), -EPROTO, "but no more");
	good_compose(&m);
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.compose), 5), 0, "a whole COMPOSE");
	m.compose.n_images = IPC_IMAGES_MAX + 1;
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.compose), 5), -EPROTO, "more images than a report covers");
	good_compose(&m);
	m.compose.page = IPC_PAGES_MAX + 1;
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.compose), 5), -EPROTO, "more pages than are made");
	good_compose(&m);
	m.compose.object = OBJECT_COUNT;
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.compose), 5), -EPROTO, "an object that is none");
	good_compose(&m);
	memset(m.compose.model_name, 'x', sizeof(m.compose.model_name));
	is_int(ipc_check(IPC_KEEPER, &m, sizeof(m.compose), 5), -EPROTO, "a model name without an end");
	ipc_begin(&m, IPC_SENT, 1);
	m.sent.status = 0x10000;
	is_int(ipc_check(IPC_SEND, &m, sizeof(m.sent), 0), -EPROTO, "a status of 17 bits");
	ipc_begin(&m, IPC_SENT, 1);
	memset(m.sent.why, 'x', sizeof(m.sent.why));
	is_int(ipc_check(IPC_SEND, &m, sizeof(m.sent), 0), -EPROTO, "a reason without an end");
}

static unsigned open_fds(void)
{
	unsigned n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_travel(void)
{
	union ipc_message m, got;
	int pair[2], fds[IPC_FDS_MAX], give[3];
	unsigned before;
	size_t n_fds = 0;
	char c = 0;

	is_int(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0, "a channel");
	is_int(ipc_receive(pair[1], IPC_KEEPER, &got, fds, &n_fds), -EAGAIN, "nothing waits");
	give[0] = fd_memory("a");
	give[1] = fd_memory("b");
	give[2] = fd_memory("c");
	is_int(write_full(give[1], "!", 1), 0, "something to find again");
	ipc_begin(&m, IPC_DECODE, 7);
	m.decode.side = 256;
	is_int(ipc_send(pair[0], &m, give, 2), 0, "DECODE leaves with two files");
	is_int(ipc_receive(pair[1], IPC_KEEPER, &got, fds, &n_fds), 1, "and arrives");
	is_int((int)n_fds, 2, "with both");
	is_int(got.h.token == 7 && got.decode.side == 256, 1, "as it was");
	is_int(pread_full(fds[1], &c, 1, 0), 0, "the second file is readable");
	is_int(c, '!', "and the right one");
	is_int(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "close-on-exec");
	(void)close(fds[0]);
	(void)close(fds[1]);

	before = open_fds();
	ipc_begin(&m, IPC_DECODE, 7);
	m.decode.side = 256;
	is_int(ipc_send(pair[0], &m, give, 3), 0, "DECODE with a third file");
	is_int(ipc_receive(pair[1], IPC_KEEPER, &got, fds, &n_fds), -EPROTO, "is refused");
	is_int((int)open_fds(), (int)before, "and no descriptor stays behind");
	is_int(fd_send(pair[0], "junk", 4, give, 3), 0, "junk with three files");
	is_int(ipc_receive(pair[1], IPC_KEEPER, &got, fds, &n_fds), -EPROTO, "is refused");
	is_int((int)open_fds(), (int)before, "and no descriptor stays behind");

	is_int(fd_seal(give[2]), 0, "a memory file can be sealed");
	ok(write(give[2], "x", 1) < 0, "and not written any more");
	(void)close(pair[0]);
	is_int(ipc_receive(pair[1], IPC_KEEPER, &got, fds, &n_fds), 0, "the other end is gone");
	(void)close(pair[1]);
	(void)close(give[0]);
	(void)close(give[1]);
	(void)close(give[2]);
}

int main(void)
{
	test_check();
	test_travel();
	return done();
}
