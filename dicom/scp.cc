/* scp.cc: see scp.h.
 *
 * Job: one association, from the connected socket to its end: negotiation, C-ECHO, C-STORE.
 * Promise: 0000H is sent only after the file is whole, sealed, fsynced, closed without error and
 * ops->stored() has answered 0000H.  Whatever else happens the peer gets a refusal or the end of the
 * association, the descriptor is closed and ops->abandon() is called.  Every wait ends (wire.hh).
 * Never: parses a data set, keeps more of it than a PDU, opens a file, starts a thread, looks a name
 * up.  A write that fails does not stop the reading: the rest is drained so that the peer hears A700
 * instead of a broken connection.
 *
 * DCMTK does the upper layer (PS3.8), tls.c TLS; commands are read by command.c and the data set
 * is streamed from its PDVs.  DCMTK's DIMSE layer would parse commands of any size recursively, and
 * its file stream says success for a file that a full disk cut short at fclose().
 *
 * The limit on objects: the C-STORE over it is drained and refused with A700, so that the sender
 * knows exactly which object to send again, then the association is aborted.
 */
#include "dicom/wire.hh"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmnet/cond.h"
#include "dcmtk/ofstd/ofstd.h"

extern "C" {
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
}

#include "dicom/command.h"
#include "dicom/dicom.h"
#include "dicom/scp.h"
#include "dicom/sniff.h"
#include "dicom/spooled.h"

#define STORAGE_PREFIX "1.2.840.10008.5.1.4.1.1."
#define CONTEXTS_MAX 128         /* PS3.8 9.3.2.2: odd identifiers of one byte */
#define WRITEBACK_BYTES (1u << 20) /* of an object: written so often before it is whole */
#define REQUEST_BYTES_MAX 131072 /* of an A-ASSOCIATE-RQ: 128 contexts with 30 syntaxes each */

namespace
{

/* PS3.4 B.2.3 and PS3.7 annex C.  0111H and 0213H are not C-STORE's. */
enum {
	OK = 0x0000,
	PROCESSING_FAILURE = 0x0110,
	INVALID_VALUE = 0x0115,
	INVALID_UID = 0x0117,
	CLASS_NOT_SUPPORTED = 0x0122,
	MISTYPED = 0x0212,
	OUT_OF_RESOURCES = 0xa700,
	MISMATCH = 0xa900,
	UNREADABLE = 0xc000,
	UID_MISSING = 0xc002,
};

/* Best first: what every reader reads, then lossless, then lossy, then what costs us most. */
const char *const syntaxes[] = {
	UID_LittleEndianExplicitTransferSyntax,
	UID_LittleEndianImplicitTransferSyntax,
	UID_JPEGProcess14SV1TransferSyntax,
	UID_JPEGProcess14TransferSyntax,
	UID_JPEGLSLosslessTransferSyntax,
	UID_JPEG2000LosslessOnlyTransferSyntax,
	"1.2.840.10008.1.2.4.201", /* High-Throughput JPEG 2000 lossless; 3.6.7 has no name for it */
	"1.2.840.10008.1.2.4.202", /* the same with RPCL progression */
	UID_RLELosslessTransferSyntax,
	UID_JPEG2000Part2MulticomponentImageCompressionLosslessOnlyTransferSyntax,
	UID_JPEGProcess15TransferSyntax,
	UID_JPEGProcess28TransferSyntax,
	UID_JPEGProcess29TransferSyntax,
	UID_JPEGProcess2_4TransferSyntax,
	UID_JPEGProcess1TransferSyntax,
	UID_JPEGLSLossyTransferSyntax,
	UID_JPEG2000TransferSyntax,
	"1.2.840.10008.1.2.4.203", /* High-Throughput JPEG 2000 */
	UID_JPEG2000Part2MulticomponentImageCompressionTransferSyntax,
	UID_JPEGProcess3_5TransferSyntax,
	UID_JPEGProcess6_8TransferSyntax,
	UID_JPEGProcess7_9TransferSyntax,
	UID_JPEGProcess10_12TransferSyntax,
	UID_JPEGProcess11_13TransferSyntax,
	UID_JPEGProcess16_18TransferSyntax,
	UID_JPEGProcess17_19TransferSyntax,
	UID_JPEGProcess20_22TransferSyntax,
	UID_JPEGProcess21_23TransferSyntax,
	UID_JPEGProcess24_26TransferSyntax,
	UID_JPEGProcess25_27TransferSyntax,
	UID_MPEG2MainProfileAtMainLevelTransferSyntax,
	UID_MPEG2MainProfileAtHighLevelTransferSyntax,
	UID_MPEG4HighProfileLevel4_1TransferSyntax,
	UID_MPEG4BDcompatibleHighProfileLevel4_1TransferSyntax,
	UID_MPEG4HighProfileLevel4_2_For2DVideoTransferSyntax,
	UID_MPEG4HighProfileLevel4_2_For3DVideoTransferSyntax,
	UID_MPEG4StereoHighProfileLevel4_2TransferSyntax,
	UID_HEVCMainProfileLevel5_1TransferSyntax,
	UID_HEVCMain10ProfileLevel5_1TransferSyntax,
	UID_DeflatedExplicitVRLittleEndianTransferSyntax,
	UID_BigEndianExplicitTransferSyntax,
};
#define UNCOMPRESSED 2 /* of them, at the head: for Verification */

bool is_storage(const char *sop_class)
{
	return strncmp(sop_class, STORAGE_PREFIX, strlen(STORAGE_PREFIX)) == 0 && uid_valid(sop_class);
}

struct context {
	char sop_class[UID_MAX], syntax[UID_MAX]; /* "": not accepted */
};

struct session {
	int sock;
	const struct scp_policy *policy;
	const struct scp_ops *ops;
	void *arg;
	struct scp_result *result;

	struct wire wire;
	wire_layer layer;
	T_ASC_Network *network = nullptr;
	T_ASC_Association *association = nullptr;
	struct digest *digest = nullptr;
	char calling_ae[AE_TITLE_MAX] = "";
	struct context contexts[256]; /* by identifier */

	session(int fd, const struct scp_policy *p, const struct scp_ops *o, void *a,
		struct scp_result *r)
		: sock(fd), policy(p), ops(o), arg(a), result(r), layer(&wire)
	{
		memset(contexts, 0, sizeof(contexts));
	}
	session(const session &) = delete;
	session &operator=(const session &) = delete;

	~session()
	{
		if (association != nullptr) {
			(void)ASC_dropAssociation(association); /* closes the socket: nothing to learn */
			(void)ASC_destroyAssociation(&association);
		}
		if (network != nullptr)
			(void)ASC_dropNetwork(&network);
		if (!wire.taken)
			(void)close(sock); /* DCMTK gave up before it took the socket over */
		digest_free(digest);
	}
};

/* The first trouble is the one worth a log line. */
__attribute__((format(printf, 2, 3))) void note(struct session *s, const char *format, ...)
{
	va_list ap;

	if (s->result->detail[0] != '\0')
		return;
	va_start(ap, format);
	(void)vsnprintf(s->result->detail, sizeof(s->result->detail), format, ap); /* cut is fine */
	va_end(ap);
}

/* What a peer proposes and we do not take: for whoever asks why nothing came. */
void note_refused(struct session *s, const T_ASC_PresentationContext *p, bool syntax)
{
	char *text = s->result->refused_contexts;
	size_t size = sizeof(s->result->refused_contexts), n = strlen(text);
	char quoted[2][UID_MAX];

	s->result->contexts_refused++;
	if (n + 2 * UID_MAX > size)
		return; /* the first ones tell */
	(void)str_quote(quoted[0], UID_MAX, p->abstractSyntax);
	if (!syntax || p->transferSyntaxCount == 0) {
		(void)snprintf(text + n, size - n, "%s%s", n > 0 ? ", " : "", quoted[0]);
		return;
	}
	(void)str_quote(quoted[1], UID_MAX, p->proposedTransferSyntaxes[0]);
	(void)snprintf(text + n, size - n, "%s%s in %s", n > 0 ? ", " : "", quoted[0], quoted[1]);
}

/* DCMTK gave `c` instead of what was asked for: why has the association ended? */
void ended(struct session *s, const OFCondition &c)
{
	char quoted[120];

	switch (s->wire.state) {
	case WIRE_TIMED_OUT:
		s->result->end = SCP_TIMED_OUT;
		if (s->wire.pdus == 0)
			note(s, "no whole association request within %u s", s->policy->request_seconds);
		else if (clock_boot_ms() >= s->wire.end_ms)
			note(s, "the association lasted %u s", s->policy->association_seconds);
		else
			note(s, "no whole PDU within %u s", s->policy->idle_seconds);
		return;
	case WIRE_BROKEN:
		s->result->end = SCP_CLOSED;
		note(s, "connection lost: %s", strerror(s->wire.error));
		return;
	case WIRE_CLOSED_BY_PEER:
		s->result->end = SCP_CLOSED;
		note(s, "the peer closed the connection");
		return;
	case WIRE_TLS:
		s->result->end = SCP_TLS;
		note(s, "%s", tls_link_why(s->wire.link));
		wire_linger(&s->wire); /* or the peer would not read the alert */
		return;
	case WIRE_OPEN:
		break;
	}
	if (c == DUL_PEERABORTEDASSOCIATION) {
		s->result->end = SCP_ABORTED_BY_PEER;
		return;
	}
	if (c == DUL_UNSUPPORTEDPEERPROTOCOL) { /* DCMTK has rejected it by itself */
		s->result->end = SCP_REJECTED;
		note(s, "unknown protocol version");
		wire_linger(&s->wire);
		return;
	}
	s->result->end = SCP_PROTOCOL_ERROR;
	note(s, "%s", str_quote(quoted, sizeof(quoted), c.text()));
	wire_abort(&s->wire, ABORT_PROVIDER, ABORT_INVALID_PARAMETER);
	wire_linger(&s->wire);
}

/* We end it, for a reason of our own. */
void give_up(struct session *s, enum scp_end end, uint8_t source, uint8_t reason)
{
	s->result->end = end;
	wire_abort(&s->wire, source, reason);
	wire_linger(&s->wire);
}

void protocol_error(struct session *s, const char *what)
{
	note(s, "%s", what);
	give_up(s, SCP_PROTOCOL_ERROR, ABORT_PROVIDER, ABORT_UNEXPECTED_PDU);
}

void released(struct session *s, bool in_between)
{
	if (!in_between) {
		protocol_error(s, "release requested in the middle of a message");
		return;
	}
	s->result->end = SCP_RELEASED;
	(void)ASC_acknowledgeRelease(s->association); /* a peer that is gone has its data acknowledged */
	wire_linger(&s->wire);
}

/* The next fragment; `between` messages a release may come instead.  False: the association is over
 * and the result says how. */
bool next_pdv(struct session *s, bool between, DUL_PDV *ret)
{
	OFCondition c = wire_next_pdv(s->association, ret);

	if (c == DUL_PEERREQUESTEDRELEASE) {
		released(s, between);
		return false;
	}
	if (c.bad())
		ended(s, c);
	return c.good();
}

bool send_command(struct session *s, uint8_t context_id, const struct command *c)
{
	uint8_t bytes[COMMAND_WRITE_MAX];
	OFCondition r = wire_send_pdv(s->association, context_id, DUL_COMMANDPDV, true, bytes,
				      command_write(c, bytes));

	if (r.bad())
		ended(s, r);
	return r.good();
}

/* One object on its way to a file. */
struct incoming {
	struct session *s;
	int fd = -1;
	uint64_t pushed = 0; /* bytes of the data set that the disk has been given */
	bool made = false; /* ops->create has given us one, neither stored nor abandoned yet */
	struct scp_object object;
	struct spooled_place place;
	struct sniffer *sniffer = nullptr;

	explicit incoming(struct session *session) : s(session)
	{
		memset(&object, 0, sizeof(object));
		memset(&place, 0, sizeof(place));
	}
	incoming(const incoming &) = delete;
	incoming &operator=(const incoming &) = delete;

	~incoming()
	{
		discard();
		sniffer_free(sniffer);
	}

	void discard()
	{
		if (fd >= 0)
			(void)close(fd); /* the file goes */
		fd = -1;
		if (made)
			s->ops->abandon(s->arg, object.id);
		made = false;
	}
};

struct refusal {
	uint16_t status;      /* OK: none */
	const char *comment;  /* for the peer; at most 64 characters */
};

struct refusal disk_trouble(struct session *s, const char *step, int r)
{
	note(s, "%s: %s", step, strerror(-r));
	return { OUT_OF_RESOURCES, "object cannot be stored now" };
}

/* Before the data set: may it come at all? */
struct refusal check_command(struct session *s, const struct command *q, const struct context *context)
{
	if (s->result->objects + s->result->refused >= s->policy->objects) {
		note(s, "more than %u objects in one association", s->policy->objects);
		return { OUT_OF_RESOURCES, "too many objects in one association" };
	}
	if (strcmp(q->sop_class, context->sop_class) != 0) {
		note(s, "SOP class of a C-STORE is not its presentation context's");
		return { CLASS_NOT_SUPPORTED, "SOP class is not that of the presentation context" };
	}
	if (q->sop_uid[0] == '\0') {
		note(s, "malformed Affected SOP Instance UID");
		return { INVALID_UID, "Affected SOP Instance UID is malformed" };
	}
	return { OK, nullptr };
}

struct refusal begin_object(struct session *s, struct incoming *in, const struct command *q,
			    const struct context *context)
{
	struct spooled head;
	uint16_t status;
	int r;

	memset(&head, 0, sizeof(head));
	(void)str_copy(in->object.sop_class, UID_MAX, q->sop_class);
	(void)str_copy(in->object.sop_uid, UID_MAX, q->sop_uid);
	(void)str_copy(in->object.syntax, UID_MAX, context->syntax);
	in->object.analysed_class = spooled_is_analysed(q->sop_class);
	in->sniffer = sniffer_new(sniff_syntax_of(context->syntax));
	if (in->sniffer == nullptr)
		return disk_trouble(s, "memory", -ENOMEM);
	status = s->ops->create(s->arg, &in->object.id, &in->fd);
	if (status != OK) {
		in->fd = -1;
		note(s, "no file for the object (%04xH)", status);
		return { status, "object cannot be stored now" };
	}
	in->made = true;
	(void)str_copy(head.sop_class, UID_MAX, q->sop_class);
	(void)str_copy(head.sop_uid, UID_MAX, q->sop_uid);
	(void)str_copy(head.syntax, UID_MAX, context->syntax);
	(void)str_copy(head.calling_ae, AE_TITLE_MAX, s->calling_ae);
	r = spooled_begin(in->fd, &head, &in->place);
	if (r < 0)
		return disk_trouble(s, "write", r);
	digest_reset(s->digest);
	return { OK, nullptr };
}

/* The disk works while the rest comes and is hashed, so that the fsync finds little left to do.  It promises
 * nothing: what became of it, and of everything else, the fsync tells. */
void push(struct incoming *in)
{
	if (in->object.size - in->pushed < WRITEBACK_BYTES)
		return;
	(void)sync_file_range(in->fd, static_cast<off_t>(in->place.data_set + in->pushed),
			      static_cast<off_t>(in->object.size - in->pushed), SYNC_FILE_RANGE_WRITE);
	in->pushed = in->object.size;
}

struct refusal append(struct session *s, struct incoming *in, const void *p, size_t n)
{
	int r;

	if (in->object.size + n > s->policy->object_bytes) {
		note(s, "object of more than %llu bytes",
		     static_cast<unsigned long long>(s->policy->object_bytes));
		return { OUT_OF_RESOURCES, "object is larger than this node accepts" };
	}
	r = write_full(in->fd, p, n);
	if (r < 0)
		return disk_trouble(s, "write", r);
	digest_update(s->digest, p, n);
	(void)sniffer_feed(in->sniffer, p, n); /* its verdict is asked for at the end */
	in->object.size += n;
	push(in);
	return { OK, nullptr };
}

/* The data set is whole: is it what the command said? */
struct refusal check_data_set(struct session *s, struct incoming *in)
{
	struct sniff found;
	int r;

	memset(&found, 0, sizeof(found));
	r = sniffer_end(in->sniffer, true, &found);
	if (r == -ENODATA) {
		note(s, "a data set without a valid SOP, Study or Series UID");
		return { UID_MISSING, "SOP, Study or Series Instance UID missing or malformed" };
	}
	if (r < 0) {
		note(s, "a data set that cannot be read in its transfer syntax");
		return { UNREADABLE, "data set cannot be read in its transfer syntax" };
	}
	if (strcmp(found.sop_class, in->object.sop_class) != 0 ||
	    strcmp(found.sop_uid, in->object.sop_uid) != 0) {
		note(s, "a data set whose SOP UIDs are not those of its command");
		return { MISMATCH, "SOP UIDs of command and data set differ" };
	}
	(void)str_copy(in->object.study_uid, UID_MAX, found.study_uid);
	(void)str_copy(in->object.series_uid, UID_MAX, found.series_uid);
	in->object.study_date = found.study_date;
	return { OK, nullptr };
}

/* The order is the promise: seal, fsync, close checked, and only then ops->stored(), which renames,
 * syncs the directory and commits. */
struct refusal finish_object(struct session *s, struct incoming *in)
{
	struct refusal refused = check_data_set(s, in);
	uint16_t status;
	int fd, r;

	if (refused.status != OK)
		return refused;
	digest_final(s->digest, in->object.digest);
	r = spooled_seal(in->fd, &in->place, in->object.size, in->object.digest);
	if (r < 0)
		return disk_trouble(s, "write", r);
	/* A failed fsync is never tried again: the pages that it lost are marked clean. */
	r = failpoint_error("scp.fsync"); /* skipped or failed */
	if (r == 0 && fsync(in->fd) < 0)
		r = -errno;
	s->result->disk_failed = r < 0;
	if (r < 0)
		return disk_trouble(s, "fsync", r);
	failpoint("scp.synced");
	fd = in->fd;
	in->fd = -1;
	if (close(fd) < 0)
		return disk_trouble(s, "close", -errno);
	in->made = false; /* stored() owns it now, whatever it answers */
	status = s->ops->stored(s->arg, &in->object);
	if (status != OK) {
		note(s, "not stored (%04xH)", status);
		return { status, "object cannot be stored now" };
	}
	s->result->bytes += in->object.size;
	return { OK, nullptr };
}

/* A peer that keeps each PDU's time and takes hours for an object holds a file and a place. */
bool too_slow(struct session *s, int64_t since_ms, uint64_t seen)
{
	int64_t took_ms = clock_boot_ms() - since_ms;

	if (s->policy->slow_seconds == 0 || took_ms < 1000LL * s->policy->slow_seconds ||
	    seen * 1000 >= static_cast<uint64_t>(took_ms) * s->policy->slow_bytes)
		return false;
	note(s, "an object came at less than %u bytes a second", s->policy->slow_bytes);
	give_up(s, SCP_TIMED_OUT, ABORT_USER, ABORT_NOT_SPECIFIED);
	return true;
}

/* One C-STORE; false: the association is over. */
bool store(struct session *s, uint8_t context_id, const struct command *q)
{
	const struct context *context = &s->contexts[context_id];
	bool last_one = s->result->objects + s->result->refused >= s->policy->objects;
	struct incoming in(s);
	struct refusal refused = check_command(s, q, context);
	struct command answer = *q;
	int64_t since_ms = clock_boot_ms();
	uint64_t seen = 0;
	bool whole = !q->data_set;

	if (!q->data_set)
		refused = { MISTYPED, "C-STORE without a data set" };
	if (refused.status == OK)
		refused = begin_object(s, &in, q, context);
	while (!whole) {
		DUL_PDV pdv;

		if (!next_pdv(s, false, &pdv))
			return false;
		if (pdv.pdvType != DUL_DATASETPDV || pdv.presentationContextID != context_id) {
			protocol_error(s, "a command or another context inside a data set");
			return false;
		}
		whole = pdv.lastPDV;
		seen += pdv.fragmentLength;
		if (!whole && too_slow(s, since_ms, seen))
			return false;
		if (refused.status == OK)
			refused = append(s, &in, pdv.data, pdv.fragmentLength);
		if (refused.status == OK)
			continue;
		/* Nothing of it will be kept: free the disk now, drain the rest for the answer. */
		in.discard();
		if (seen / 2 > s->policy->object_bytes) {
			note(s, "object of more than twice the limit");
			give_up(s, SCP_LIMIT, ABORT_USER, ABORT_NOT_SPECIFIED);
			return false;
		}
	}
	if (refused.status == OK)
		refused = finish_object(s, &in);
	in.discard(); /* before the answer: the sender may come back for the same disk at once */
	if (refused.status == OK)
		s->result->objects++;
	else
		s->result->refused++;
	answer.kind = 0;
	answer.field = COMMAND_C_STORE_RSP;
	answer.data_set = false;
	answer.status = refused.status;
	if (refused.status != OK && refused.comment != nullptr)
		(void)str_copy(answer.comment, sizeof(answer.comment), refused.comment);
	if (!send_command(s, context_id, &answer))
		return false;
	if (last_one || s->result->disk_failed)
		give_up(s, SCP_LIMIT, ABORT_USER, ABORT_NOT_SPECIFIED);
	return !last_one && !s->result->disk_failed;
}

/* An archive tells what became of objects that we sent it; false: the association is over. */
bool event_report(struct session *s, uint8_t context_id, const struct command *q)
{
	static uint8_t bytes[COMMITMENT_BYTES_MAX]; /* a process serves one association */
	bool explicit_vr = strcmp(s->contexts[context_id].syntax, UID_LittleEndianImplicitTransferSyntax) != 0;
	struct command answer = *q;
	struct commitment told;
	size_t n = 0;
	DUL_PDV pdv;

	memset(&told, 0, sizeof(told));
	do {
		if (!next_pdv(s, false, &pdv))
			return false;
		if (pdv.pdvType != DUL_DATASETPDV || pdv.presentationContextID != context_id) {
			protocol_error(s, "a command or another context inside a data set");
			return false;
		}
		if (pdv.fragmentLength > sizeof(bytes) - n) {
			note(s, "an N-EVENT-REPORT of more than %zu bytes", sizeof(bytes));
			give_up(s, SCP_LIMIT, ABORT_USER, ABORT_NOT_SPECIFIED);
			return false;
		}
		memcpy(bytes + n, pdv.data, pdv.fragmentLength);
		n += pdv.fragmentLength;
	} while (!pdv.lastPDV);
	answer.status = OK;
	if (commitment_read(bytes, n, explicit_vr, &told) < 0) {
		note(s, "an N-EVENT-REPORT that cannot be read");
		answer.status = INVALID_VALUE;
	}
	for (size_t i = 0; i < told.n && answer.status == OK; i++)
		answer.status = s->ops->committed(s->arg, told.transaction, &told.item[i]);
	answer.field = COMMAND_N_EVENT_RSP;
	answer.data_set = false;
	return send_command(s, context_id, &answer);
}

bool echo(struct session *s, uint8_t context_id, const struct command *q)
{
	struct command answer = *q;

	answer.field = COMMAND_C_ECHO_RSP;
	answer.kind = 0;
	answer.status = OK;
	s->result->echoes++;
	return send_command(s, context_id, &answer);
}

/* A whole command set; false: the association is over. */
bool next_command(struct session *s, uint8_t *ret_context, struct command *ret)
{
	uint8_t bytes[COMMAND_BYTES_MAX];
	size_t n = 0;
	DUL_PDV pdv;

	do {
		if (!next_pdv(s, n == 0, &pdv))
			return false;
		if (pdv.pdvType != DUL_COMMANDPDV) {
			protocol_error(s, "a data set without a command");
			return false;
		}
		if (n > 0 && pdv.presentationContextID != *ret_context) {
			protocol_error(s, "a command in two contexts");
			return false;
		}
		*ret_context = pdv.presentationContextID;
		if (s->contexts[*ret_context].syntax[0] == '\0') {
			protocol_error(s, "a presentation context that was not accepted");
			return false;
		}
		if (pdv.fragmentLength > sizeof(bytes) - n) {
			note(s, "a command of more than %zu bytes", sizeof(bytes));
			give_up(s, SCP_LIMIT, ABORT_USER, ABORT_NOT_SPECIFIED);
			return false;
		}
		memcpy(bytes + n, pdv.data, pdv.fragmentLength);
		n += pdv.fragmentLength;
		if (pdv.fragmentLength == 0 && !pdv.lastPDV) {
			protocol_error(s, "an empty fragment of a command");
			return false;
		}
	} while (!pdv.lastPDV);
	if (command_read(bytes, n, ret) < 0) {
		protocol_error(s, "a command that cannot be read");
		return false;
	}
	return true;
}

void serve_commands(struct session *s)
{
	struct command c;
	uint8_t context_id = 0;

	while (next_command(s, &context_id, &c)) {
		bool going_on;

		if (c.field == COMMAND_C_ECHO_RQ && !c.data_set) {
			going_on = echo(s, context_id, &c);
		} else if (c.field == COMMAND_C_STORE_RQ) {
			going_on = store(s, context_id, &c);
		} else if (c.field == COMMAND_N_EVENT_RQ && c.data_set &&
			   strcmp(s->contexts[context_id].sop_class, COMMITMENT_SOP_CLASS) == 0) {
			going_on = event_report(s, context_id, &c);
		} else {
			protocol_error(s, "a command that is none of C-ECHO and C-STORE");
			return;
		}
		if (!going_on)
			return;
	}
}

const char *best_syntax(const T_ASC_PresentationContext *p, size_t n_known)
{
	for (size_t i = 0; i < n_known; i++)
		for (int j = 0; j < p->transferSyntaxCount; j++)
			if (strcmp(syntaxes[i], p->proposedTransferSyntaxes[j]) == 0)
				return syntaxes[i];
	return nullptr;
}

void negotiate_context(struct session *s, const T_ASC_PresentationContext *p)
{
	T_ASC_Parameters *params = s->association->params;
	uint8_t id = p->presentationContextID;
	struct context *ours = &s->contexts[id];
	bool verification = strcmp(p->abstractSyntax, UID_VerificationSOPClass) == 0;
	/* An archive tells in the role of the SCP (PS3.7 D.3.3.4).  One that proposes to be the SCU wants
	 * commitment from us, who are no archive. */
	bool commitment = strcmp(p->abstractSyntax, COMMITMENT_SOP_CLASS) == 0 &&
			  (p->proposedRole == ASC_SC_ROLE_SCP || p->proposedRole == ASC_SC_ROLE_SCUSCP) &&
			  s->ops->expects_commitment != nullptr && s->ops->expects_commitment(s->arg);
	const char *syntax;

	if (ours->syntax[0] != '\0')
		return; /* the identifier a second time: the first stands */
	if (!verification && !commitment && !spooled_is_analysed(p->abstractSyntax) &&
	    (s->policy->refuse_other_storage || !is_storage(p->abstractSyntax))) {
		note_refused(s, p, false);
		(void)ASC_refusePresentationContext(params, id, ASC_P_ABSTRACTSYNTAXNOTSUPPORTED);
		return;
	}
	syntax = best_syntax(p, verification || commitment ? UNCOMPRESSED : sizeof(syntaxes) / sizeof(syntaxes[0]));
	if (syntax == nullptr ||
	    ASC_acceptPresentationContext(params, id, syntax,
					  commitment ? ASC_SC_ROLE_SCP : ASC_SC_ROLE_DEFAULT).bad()) {
		note_refused(s, p, true);
		(void)ASC_refusePresentationContext(params, id, ASC_P_TRANSFERSYNTAXESNOTSUPPORTED);
		return;
	}
	(void)str_copy(ours->sop_class, UID_MAX, p->abstractSyntax);
	(void)str_copy(ours->syntax, UID_MAX, syntax);
}

void negotiate_contexts(struct session *s)
{
	T_ASC_Parameters *params = s->association->params;
	int n = ASC_countPresentationContexts(params);

	for (int i = 0; i < n && i < CONTEXTS_MAX; i++) {
		T_ASC_PresentationContext p;

		/* Bad with more than 50 syntaxes: the count is 0 then, and none is found. */
		(void)ASC_getPresentationContext(params, i, &p);
		s->result->contexts++;
		negotiate_context(s, &p);
	}
}

void copy_title(char dst[AE_TITLE_MAX], const char *src)
{
	while (*src == ' ') /* PS3.8 9.3.2: leading and trailing spaces do not count */
		src++;
	(void)str_copy_padded(dst, AE_TITLE_MAX, src, strlen(src));
}

/* All zero when the association may be. */
struct scp_reject judge(struct session *s)
{
	const DUL_ASSOCIATESERVICEPARAMETERS *p = &s->association->params->DULparams;
	struct scp_reject reject = { 0, 0, 0 };
	struct scp_association a;

	memset(&a, 0, sizeof(a));
	if (s->policy->may_begin != nullptr)
		reject = s->policy->may_begin(s->arg);
	if (reject.result != 0) {
		note(s, "no associations are accepted now");
		return reject;
	}
	a.tls = s->wire.link;
	copy_title(a.calling_ae, p->callingAPTitle);
	copy_title(a.called_ae, p->calledAPTitle);
	if (strcmp(p->applicationContextName, UID_StandardApplicationContext) != 0) {
		note(s, "unknown application context");
		return { 1, 1, 2 };
	}
	if (strcmp(a.called_ae, s->policy->ae_title) != 0) {
		char called[40], calling[40];

		note(s, "called AE title \"%s\" is not ours; calling \"%s\"",
		     str_quote(called, sizeof(called), a.called_ae),
		     str_quote(calling, sizeof(calling), a.calling_ae));
		return { 1, 1, 7 };
	}
	if (!ae_title_valid(a.calling_ae)) {
		note(s, "malformed calling AE title");
		return { 1, 1, 3 };
	}
	(void)str_copy(s->calling_ae, sizeof(s->calling_ae), a.calling_ae);
	s->ops->admit(s->arg, &a, &reject);
	if (reject.result != 0)
		note(s, "not admitted");
	return reject;
}

void reject_association(struct session *s, struct scp_reject r)
{
	T_ASC_RejectParameters p;
	OFCondition c;

	p.result = static_cast<T_ASC_RejectParametersResult>(r.result);
	p.source = static_cast<T_ASC_RejectParametersSource>(r.source);
	p.reason = static_cast<T_ASC_RejectParametersReason>(r.source << 8 | r.reason);
	c = ASC_rejectAssociation(s->association, &p);
	if (c.bad()) {
		ended(s, c);
		return;
	}
	s->result->end = SCP_REJECTED;
	wire_linger(&s->wire);
}

/* Reads the request and answers it; true: established. */
bool negotiate(struct session *s)
{
	T_ASC_Parameters *params;
	struct scp_reject reject;
	OFCondition c;

	c = ASC_receiveAssociation(s->network, &s->association, s->policy->pdu_bytes);
	if (c.bad() || s->wire.state != WIRE_OPEN) {
		ended(s, c);
		return false;
	}
	/* DCMTK calls it a success when another PDU has come, or an abort. */
	if (s->association->params->DULparams.requestedPresentationContext == nullptr) {
		protocol_error(s, "another PDU than an association request came first");
		return false;
	}
	reject = judge(s);
	if (reject.result != 0) {
		reject_association(s, reject);
		return false;
	}
	negotiate_contexts(s);
	params = s->association->params;
	OFStandard::strlcpy(params->ourImplementationClassUID, DICOM_IMPLEMENTATION_UID,
			    sizeof(params->ourImplementationClassUID));
	OFStandard::strlcpy(params->ourImplementationVersionName, DICOM_IMPLEMENTATION_VERSION,
			    sizeof(params->ourImplementationVersionName));
	c = ASC_acknowledgeAssociation(s->association);
	if (c.bad()) {
		ended(s, c);
		return false;
	}
	return true;
}

}

int dicom_scp_serve(int sock, const struct scp_policy *policy, const struct scp_ops *ops, void *arg,
		    struct scp_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	return guarded(nullptr, "dicom_scp_serve", [&]() -> int {
		session s(sock, policy, ops, arg, ret);
		int64_t now = clock_boot_ms();

		if (sock == 0) /* DCMTK takes 0 for "no socket" */
			return -EINVAL;
		s.wire.first_ms = now + 1000LL * policy->request_seconds;
		s.wire.idle_ms = 1000LL * policy->idle_seconds;
		s.wire.end_ms = now + 1000LL * policy->association_seconds;
		s.wire.tls = policy->tls;
		s.wire.tls_server = true;
		s.digest = digest_new();
		dcmAssociatePDUSizeLimit.set(REQUEST_BYTES_MAX);
		/* With a socket set DCMTK makes no listener, and takes it instead of accepting one. */
		dcmExternalSocketHandle.set(sock);
		if (ASC_initializeNetwork(NET_ACCEPTOR, 0, static_cast<int>(policy->request_seconds),
					  &s.network).bad())
			return -EIO;
		if (ASC_setTransportLayer(s.network, &s.layer, 0).bad())
			return -EIO;
		if (negotiate(&s))
			serve_commands(&s);
		return 0;
	});
}

const char *dicom_scp_syntax(size_t i)
{
	return i < sizeof(syntaxes) / sizeof(syntaxes[0]) ? syntaxes[i] : nullptr;
}

const char *dicom_scp_storage_prefix(void)
{
	return STORAGE_PREFIX;
}

const char *dicom_uid_name(const char *uid)
{
	static const char *const newer[][2] = { /* than DCMTK 3.6.7 */
		{ "1.2.840.10008.1.2.4.201", "HTJ2K Lossless" },
		{ "1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL" },
		{ "1.2.840.10008.1.2.4.203", "HTJ2K" },
	};

	for (const auto &n : newer)
		if (strcmp(uid, n[0]) == 0)
			return n[1];
	return dcmFindNameOfUID(uid, "?");
}
