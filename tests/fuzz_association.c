/* fuzz_association.c: what a peer sends over one connection, from its first byte to its end.
 *
 * Byte 0 odd: a good association request goes before the rest (contexts 1 CR explicit, 3 CT implicit,
 * 5 Verification), so that mutations reach the messages.  No fork, no network: the bytes are written
 * into a socketpair before dicom_scp_serve() reads the other end.
 *
 * Holds: it returns 0 and in time, closes the socket, every file asked for is stored or abandoned
 * exactly once, and what is stored has valid UIDs, a seal that the file agrees with, and the digest of
 * its bytes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/dicom.h"
#include "dicom/scp.h"

#define BYTES_MAX 100000 /* fits a socket's buffer */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* DCMTK 3.6.7 loses memory for repeated user-identity items: one reason for a process per association. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libdcmnet.so";
}

static const char request[] =
	"\1\0\0\0\1\x11\0\1\0\0CARZEROD        MODALITY        "
	"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
	"\x10\0\0\x15" "1.2.840.10008.3.1.1.1"
	"\x20\0\0\x38\1\0\0\0\x30\0\0\x19" "1.2.840.10008.5.1.4.1.1.1" "\x40\0\0\x13" "1.2.840.10008.1.2.1"
	"\x20\0\0\x36\3\0\0\0\x30\0\0\x19" "1.2.840.10008.5.1.4.1.1.2" "\x40\0\0\x11" "1.2.840.10008.1.2"
	"\x20\0\0\x2e\5\0\0\0\x30\0\0\x11" "1.2.840.10008.1.1" "\x40\0\0\x11" "1.2.840.10008.1.2"
	"\x50\0\0\x08\x51\0\0\4\0\0\x40\0";

static unsigned created, stored_n, abandoned;
static int kept = -1; /* our own descriptor of the file that is being written */

static void admit(void *arg, const struct scp_association *a, struct scp_reject *ret)
{
	(void)arg;
	(void)ret;
	assert(ae_title_valid(a->calling_ae));
}

static uint16_t create(void *arg, uint64_t *ret_id, int *ret_fd)
{
	(void)arg;
	assert(kept < 0);
	kept = fd_memory("object");
	*ret_fd = fcntl(kept, F_DUPFD_CLOEXEC, 3);
	assert(*ret_fd >= 0);
	*ret_id = ++created;
	return 0;
}

static uint16_t stored(void *arg, const struct scp_object *o)
{
	uint8_t digest[DIGEST_SIZE];
	struct spooled s;

	(void)arg;
	assert(o->id == created && kept >= 0);
	assert(uid_valid(o->sop_class) && uid_valid(o->sop_uid) && uid_valid(o->study_uid) &&
	       uid_valid(o->series_uid) && uid_valid(o->syntax));
	assert(spooled_read(kept, &s) == 0 && s.size == o->size);
	assert(digest_fd(kept, s.offset, digest) == 0);
	assert(memcmp(digest, o->digest, DIGEST_SIZE) == 0 && memcmp(digest, s.digest, DIGEST_SIZE) == 0);
	(void)close(kept);
	kept = -1;
	stored_n++;
	return 0;
}

static bool expects_commitment(void *arg)
{
	(void)arg;
	return true;
}

static uint16_t committed(void *arg, const char *transaction, const struct commitment_item *item)
{
	(void)arg;
	assert(uid_valid(transaction) && uid_valid(item->sop_uid) && (item->sop_class[0] == '\0' || uid_valid(item->sop_class)));
	return 0;
}

static void abandon(void *arg, uint64_t id)
{
	(void)arg;
	assert(id == created && kept >= 0);
	(void)close(kept);
	kept = -1;
	abandoned++;
}

static void set_up(void)
{
	static bool ready;
	struct err e;

	if (ready)
		return;
	log_open("fuzz_association", LOG_LEVEL_ERROR);
	if (dicom_init(false, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	ready = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct scp_ops ops = { admit, create, stored, abandon, expects_commitment, committed };
	static const struct scp_policy policy = {
		.ae_title = "CARZEROD", .pdu_bytes = 16384, .object_bytes = 30000, .objects = 5,
		.request_seconds = 5, .idle_seconds = 5, .association_seconds = 10,
	};
	struct scp_result result;
	int pair[2];

	if (size == 0 || size > BYTES_MAX)
		return 0;
	set_up();
	created = stored_n = abandoned = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return 0;
	if ((data[0] & 1) != 0)
		assert(write_full(pair[0], request, sizeof(request) - 1) == 0);
	assert(write_full(pair[0], data + 1, size - 1) == 0);
	assert(shutdown(pair[0], SHUT_WR) == 0);
	assert(dicom_scp_serve(pair[1], &policy, &ops, NULL, &result) == 0);
	assert(fcntl(pair[1], F_GETFD) < 0 && errno == EBADF);
	assert(created == stored_n + abandoned && kept < 0);
	assert(result.objects == stored_n && result.end != SCP_TIMED_OUT);
	(void)close(pair[0]);
	return 0;
}
