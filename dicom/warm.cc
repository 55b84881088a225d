/* warm.cc: dicom_scp_warm_up(), see scp.h.
 *
 * Job: one whole association over a socketpair before any peer is served, all of it written before
 * it is read: what DCMTK, libcrypto and libc open or set up at first use, they do here, so that a
 * forked and locked-down child opens nothing.
 * Promise: needs no network and no file system; the object goes to a memory file.
 * Never: is part of serving; a failure shows at the first association, and at debug level here.
 */
#include "dicom/guard.hh"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dcmtk/dcmdata/dcuid.h"

extern "C" {
#include "base/fdio.h"
}

#include "dicom/command.h"
#include "dicom/scp.h"

#define WARM_BYTES_MAX 2048

namespace
{

struct script {
	uint8_t bytes[WARM_BYTES_MAX];
	size_t n;
};

void put(struct script *t, const void *p, size_t n)
{
	memcpy(t->bytes + t->n, p, n);
	t->n += n;
}

void put_u8(struct script *t, unsigned v)
{
	t->bytes[t->n++] = static_cast<uint8_t>(v);
}

void put_be16(struct script *t, unsigned v)
{
	put_u8(t, v >> 8);
	put_u8(t, v & 0xff);
}

void put_be32(struct script *t, size_t v)
{
	put_be16(t, static_cast<unsigned>(v >> 16));
	put_be16(t, static_cast<unsigned>(v & 0xffff));
}

void put_item(struct script *t, unsigned type, const char *uid)
{
	put_be16(t, type << 8);
	put_be16(t, static_cast<unsigned>(strlen(uid)));
	put(t, uid, strlen(uid));
}

void put_context(struct script *t, unsigned id, const char *abstract, const char *syntax)
{
	put_be16(t, 0x2000);
	put_be16(t, static_cast<unsigned>(4 + 4 + strlen(abstract) + 4 + strlen(syntax)));
	put_be32(t, static_cast<size_t>(id) << 24);
	put_item(t, 0x30, abstract);
	put_item(t, 0x40, syntax);
}

void put_request(struct script *t, const char *title)
{
	char padded[33];
	size_t length_at;

	(void)snprintf(padded, sizeof(padded), "%-16.16s%-16.16s", title, "WARM-UP");
	put_be16(t, 0x0100);
	length_at = t->n;
	put_be32(t, 0);
	put_be32(t, 0x00010000); /* protocol version 1 */
	put(t, padded, 32);
	memset(t->bytes + t->n, 0, 32);
	t->n += 32;
	put_item(t, 0x10, UID_StandardApplicationContext);
	put_context(t, 1, UID_VerificationSOPClass, UID_LittleEndianImplicitTransferSyntax);
	put_context(t, 3, UID_ComputedRadiographyImageStorage, UID_LittleEndianImplicitTransferSyntax);
	put_be32(t, 0x50000008); /* user information: maximum length alone */
	put_be32(t, 0x51000004);
	put_be32(t, 16384);
	t->bytes[length_at + 2] = static_cast<uint8_t>((t->n - length_at - 4) >> 8);
	t->bytes[length_at + 3] = static_cast<uint8_t>(t->n - length_at - 4);
}

void put_data(struct script *t, unsigned id, bool is_command, const void *p, size_t n)
{
	put_be16(t, 0x0400);
	put_be32(t, n + 6);
	put_be32(t, n + 2);
	put_u8(t, id);
	put_u8(t, is_command ? 3 : 2);
	put(t, p, n);
}

void put_command(struct script *t, unsigned id, unsigned field, const char *sop_class, bool store)
{
	uint8_t bytes[COMMAND_WRITE_MAX];
	struct command c;

	memset(&c, 0, sizeof(c));
	c.field = static_cast<uint16_t>(field);
	c.message_id = 1;
	c.data_set = store;
	(void)str_copy(c.sop_class, sizeof(c.sop_class), sop_class);
	if (store)
		(void)str_copy(c.sop_uid, sizeof(c.sop_uid), "1.2");
	put_data(t, id, true, bytes, command_write(&c, bytes));
}

uint16_t warm_create(void *, uint64_t *ret_id, int *ret_fd)
{
	int fd = fd_memory("warm-up");

	if (fd < 0)
		return 0xa700;
	*ret_id = 0;
	*ret_fd = fd;
	return 0;
}

uint16_t warm_stored(void *, const struct scp_object *)
{
	return 0;
}

void warm_abandon(void *, uint64_t)
{
}

void warm_admit(void *, const struct scp_association *, struct scp_reject *)
{
}

}

void dicom_scp_warm_up(void)
{
	/* SOP class, SOP instance, Study and Series UID, in implicit VR little endian. */
	static const char data_set[] = "\x08\0\x16\0\x1a\0\0\0" UID_ComputedRadiographyImageStorage "\0"
				       "\x08\0\x18\0\4\0\0\0" "1.2\0"
				       "\x20\0\x0d\0\4\0\0\0" "1.3\0"
				       "\x20\0\x0e\0\4\0\0\0" "1.4\0";
	static const uint8_t release[] = { 5, 0, 0, 0, 0, 4, 0, 0, 0, 0 };
	static const struct scp_ops ops = { warm_admit, warm_create, warm_stored, warm_abandon, nullptr, nullptr };
	struct scp_policy policy;
	struct scp_result result;
	struct script t;
	int pair[2], r;

	memset(&policy, 0, sizeof(policy));
	policy.ae_title = "CARZEROD";
	policy.pdu_bytes = 16384;
	policy.object_bytes = WARM_BYTES_MAX;
	policy.objects = 2;
	policy.request_seconds = policy.idle_seconds = policy.association_seconds = 10;
	t.n = 0;
	put_request(&t, policy.ae_title);
	put_command(&t, 1, COMMAND_C_ECHO_RQ, UID_VerificationSOPClass, false);
	put_command(&t, 3, COMMAND_C_STORE_RQ, UID_ComputedRadiographyImageStorage, true);
	put_data(&t, 3, false, data_set, sizeof(data_set) - 1);
	put(&t, release, sizeof(release));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return; /* the first association will say so */
	if (write_full(pair[0], t.bytes, t.n) < 0 || shutdown(pair[0], SHUT_WR) < 0)
		log_debug("warm-up: %s", strerror(errno));
	r = dicom_scp_serve(pair[1], &policy, &ops, nullptr, &result); /* closes its end */
	log_debug("warm-up: result=%d end=%s objects=%u detail=\"%s\"", r, scp_end_name(result.end),
		  result.objects, result.detail);
	(void)close(pair[0]);
}
