/* scu.cc: see scu.h.
 *
 * Job: one association to one peer, C-STORE of objects that lie in memory, C-ECHO.
 * Promise: where the peer takes explicit VR little endian, the data set's bytes on the wire are the
 * file's; only for a peer that takes implicit VR alone is it written anew.  Connecting, the answer to
 * the request and each response have a deadline (wire.hh).
 * Never: retries, decides what a status means, puts a peer's text or a UID of a patient's study into
 * an error.
 *
 * Each class is proposed twice, once with explicit and once with implicit VR little endian: an
 * acceptor picks one syntax per context, and many would pick implicit.
 *
 * DCMTK 3.6.7 connects to IPv4 alone, in one attempt, and has no place to hand it a connected socket.  So
 * we connect, to each address of the peer until one answers, and hand over with our own connect(): it
 * stands before libc's for the libraries of this program, puts the socket that is ready in the place of
 * the one that DCMTK wants connected, and is libc's for everybody else.
 */
#include "dicom/wire.hh"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "dcmtk/dcmdata/dcdatset.h"
#include "dcmtk/dcmdata/dcfilefo.h"
#include "dcmtk/dcmdata/dcistrmb.h"
#include "dcmtk/dcmdata/dcostrmb.h"
#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmdata/dcxfer.h"
#include "dcmtk/dcmnet/cond.h"
#include "dcmtk/dcmnet/dcmtrans.h"
#include "dcmtk/ofstd/ofstd.h"

extern "C" {
#include "base/clock.h"
}

#include "dicom/command.h"
#include "dicom/dicom.h"
#include "dicom/flat.h"
#include "dicom/scu.h"
#include "dicom/spooled.h"

#define CLASSES_MAX 60 /* two contexts each, of 128 */
#define PDU_BYTES_MAX 131072
#define CONVERT_CHUNK 65536
#define ANSWER_BYTES_MAX 65536 /* of a data set that a peer answers or reports with */
#define CONVERTED_MAX (64u << 20) /* of an object written anew */

/* Of one object: the deadlines of its PDUs and of the answer are shorter, this ends a trickle. */
#define OPERATION_MS (600LL * 1000)

struct scu {
	struct dicom_peer peer;
	char name[sizeof(dicom_peer::host) + 40]; /* "10.0.0.5:104 (ARCHIVE)" */
	struct wire wire;
	wire_layer layer;
	T_ASC_Network *network = nullptr;
	T_ASC_Association *association = nullptr;
	uint16_t message_id = 0;
	bool broken = false; /* nothing more can be sent; close without a release */

	explicit scu(const struct dicom_peer *p) : peer(*p), layer(&wire)
	{
		char quoted[4 * AE_TITLE_MAX];

		(void)snprintf(name, sizeof(name), "%s:%u (%s)", p->host, p->port,
			       str_quote(quoted, sizeof(quoted), p->ae_title));
	}
	scu(const scu &) = delete;
	scu &operator=(const scu &) = delete;

	~scu()
	{
		if (association != nullptr) {
			(void)ASC_dropAssociation(association); /* closes the socket: nothing to learn */
			(void)ASC_destroyAssociation(&association);
		}
		if (network != nullptr)
			(void)ASC_dropNetwork(&network);
	}
};

static int ready_socket = -1; /* connected: for the next connect() */

/* See the opening comment. */
extern "C" int connect(int fd, const struct sockaddr *address, socklen_t n)
{
	int ready = ready_socket, r;

	if (ready < 0)
		return static_cast<int>(syscall(SYS_connect, fd, address, n));
	ready_socket = -1;
	r = dup3(ready, fd, O_CLOEXEC);
	(void)close(ready);
	return r < 0 ? -1 : 0;
}

namespace
{

const char no_address[] = "host name cannot be resolved to an address";

enum scu_failure unreachable(struct scu *s, struct err *e, const char *what, const char *why)
{
	char quoted[TLS_WHY_MAX];

	s->broken = true;
	(void)err_set(e, -EIO, "%s: %s: %s", s->name, what, str_quote(quoted, sizeof(quoted), why));
	return SCU_UNREACHABLE;
}

/* The association is of no more use: what happened to it? */
enum scu_failure lost(struct scu *s, struct err *e, const char *doing, const OFCondition &c)
{
	char why[80];

	switch (s->wire.state) {
	case WIRE_TIMED_OUT:
		(void)snprintf(why, sizeof(why), "no answer within %u s", s->peer.response_seconds);
		return unreachable(s, e, doing, why);
	case WIRE_CLOSED_BY_PEER:
		return unreachable(s, e, doing, "the peer closed the connection");
	case WIRE_BROKEN:
		return unreachable(s, e, doing, strerror(s->wire.error));
	case WIRE_TLS:
		return unreachable(s, e, doing, tls_link_why(s->wire.link));
	case WIRE_OPEN:
		break;
	}
	if (c == DUL_PEERABORTEDASSOCIATION)
		return unreachable(s, e, doing, "the peer aborted the association");
	wire_abort(&s->wire, ABORT_PROVIDER, ABORT_UNEXPECTED_PDU);
	return unreachable(s, e, doing, c.text());
}

/* PS3.8 table 9-21, with what a person can do about it. */
const char *reject_advice(unsigned source, unsigned reason)
{
	switch (source << 8 | reason) {
	case 0x0102:
		return "application context not supported: is this a DICOM service?";
	case 0x0103:
		return "our AE title is not known there: the archive must be told about it";
	case 0x0107:
		return "called AE title not recognised: check ae_title of this peer";
	case 0x0202:
		return "protocol version not supported";
	case 0x0301:
		return "temporary congestion";
	case 0x0302:
		return "local limit exceeded: too many associations or no space there";
	default:
		return "no reason given: the archive's log may tell, often our AE title is not known there";
	}
}

enum scu_failure rejected(struct scu *s, struct err *e)
{
	T_ASC_RejectParameters p;
	unsigned source, reason;
	bool transient;

	memset(&p, 0, sizeof(p));
	(void)ASC_getRejectParameters(s->association->params, &p); /* zeroes give the default text */
	source = static_cast<unsigned>(p.source) & 0xff;
	reason = static_cast<unsigned>(p.reason) & 0xff;
	transient = p.result == ASC_RESULT_REJECTEDTRANSIENT;
	s->broken = true;
	(void)err_set(e, -ECONNREFUSED, "%s: association rejected (%s, source %u, reason %u): %s "
		      "(we call ourselves %s)", s->name, transient ? "transient" : "permanent", source,
		      reason, reject_advice(source, reason), s->peer.our_ae_title);
	return transient ? SCU_REJECTED_TRANSIENT : SCU_REJECTED_PERMANENT;
}

int resolve(struct dicom_peer *peer, const char **ret_why)
{
	struct addrinfo hints, *list = nullptr;
	char port[8];
	int r;

	memset(&hints, 0, sizeof(hints));
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICSERV;
	(void)snprintf(port, sizeof(port), "%u", peer->port);
	peer->n_where = 0;
	r = getaddrinfo(peer->host, port, &hints, &list);
	if (r == 0) {
		r = getnameinfo(list->ai_addr, list->ai_addrlen, peer->address, sizeof(peer->address), nullptr, 0,
				NI_NUMERICHOST);
		for (const struct addrinfo *a = list; a != nullptr && peer->n_where < SCU_ADDRESSES_MAX; a = a->ai_next)
			if (a->ai_addrlen <= sizeof(peer->where[0]))
				memcpy(&peer->where[peer->n_where++], a->ai_addr, a->ai_addrlen);
		freeaddrinfo(list);
	}
	*ret_why = gai_strerror(r);
	return r;
}

int connect_to(const struct sockaddr_storage *where, int64_t until_ms, int *ret)
{
	socklen_t length = where->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(where->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
	socklen_t n = sizeof(error);

	if (fd < 0)
		return -errno;
	if (connect(fd, reinterpret_cast<const struct sockaddr *>(where), length) < 0)
		error = errno;
	if (error == EINPROGRESS) {
		if (!wire_wait(fd, POLLOUT, until_ms))
			error = ETIMEDOUT;
		else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
			error = errno;
	}
	if (error == 0 && fcntl(fd, F_SETFL, 0) < 0)
		error = errno;
	if (error != 0) {
		(void)close(fd);
		return -error;
	}
	*ret = fd;
	return 0;
}

/* Each address has its share of the time. */
int connect_peer(const struct dicom_peer *peer, int *ret)
{
	int64_t end_ms = clock_boot_ms() + 1000LL * peer->connect_seconds;
	int r = -EHOSTUNREACH;

	for (size_t i = 0; i < peer->n_where; i++) {
		int64_t now = clock_boot_ms();

		r = connect_to(&peer->where[i], now + (end_ms - now) / static_cast<int64_t>(peer->n_where - i), ret);
		if (r == 0)
			return 0;
	}
	return r;
}

OFCondition propose(T_ASC_Parameters *params, const char *const *classes, size_t n, bool commitment)
{
	static const char *one_syntax[2][1] = { { UID_LittleEndianExplicitTransferSyntax },
						{ UID_LittleEndianImplicitTransferSyntax } };
	static const char *both[] = { UID_LittleEndianExplicitTransferSyntax,
				      UID_LittleEndianImplicitTransferSyntax };
	T_ASC_PresentationContextID id = 1;
	OFCondition c = ASC_addPresentationContext(params, id, UID_VerificationSOPClass, both, 2);

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < 2 && c.good(); j++) {
			id = static_cast<T_ASC_PresentationContextID>(id + 2);
			c = ASC_addPresentationContext(params, id, classes[i], one_syntax[j], 1);
		}
	if (commitment && c.good()) /* we are the SCU: no role to negotiate */
		c = ASC_addPresentationContext(params, static_cast<T_ASC_PresentationContextID>(id + 2), COMMITMENT_SOP_CLASS,
					       both, 2);
	return c;
}

OFCondition request(struct scu *s, const char *const *classes, size_t n)
{
	int64_t now = clock_boot_ms();
	int64_t response_ms = 1000LL * s->peer.response_seconds;
	T_ASC_Parameters *params = nullptr;
	OFCondition c;

	s->wire.idle_ms = response_ms;
	s->wire.first_ms = now + 1000LL * s->peer.connect_seconds + response_ms;
	s->wire.end_ms = now + OPERATION_MS;
	s->wire.tls = s->peer.tls;
	s->wire.tls_exact = s->peer.certificate[0] != '\0';
	s->wire.tls_name = s->peer.any_name ? nullptr : s->wire.tls_exact ? s->peer.certificate : s->peer.host;
	c = ASC_initializeNetwork(NET_REQUESTOR, 0, static_cast<int>(s->peer.response_seconds),
				  &s->network);
	if (c.good())
		c = ASC_setTransportLayer(s->network, &s->layer, 0);
	if (c.good())
		c = ASC_createAssociationParameters(&params, PDU_BYTES_MAX);
	if (c.bad())
		return c;
	(void)ASC_setAPTitles(params, s->peer.our_ae_title, s->peer.ae_title, nullptr); /* copies */
	(void)ASC_setPresentationAddresses(params, "", "127.0.0.1:104"); /* where connect() below does not go */
	OFStandard::strlcpy(params->ourImplementationClassUID, DICOM_IMPLEMENTATION_UID,
			    sizeof(params->ourImplementationClassUID));
	OFStandard::strlcpy(params->ourImplementationVersionName, DICOM_IMPLEMENTATION_VERSION,
			    sizeof(params->ourImplementationVersionName));
	c = propose(params, classes, n, s->peer.commitment);
	if (c.bad()) {
		(void)ASC_destroyAssociationParameters(&params);
		return c;
	}
	/* From here on the association owns the parameters, also when this fails. */
	return ASC_requestAssociation(s->network, params, &s->association);
}

enum scu_failure no_connection(struct scu *s, struct err *e, int error)
{
	static const char doing[] = "no connection, check host and port of this peer";
	char why[80];

	if (error == ETIMEDOUT) {
		(void)snprintf(why, sizeof(why), "no answer within %u s", s->peer.connect_seconds);
		return unreachable(s, e, doing, why);
	}
	return unreachable(s, e, doing, strerror(error));
}

enum scu_failure open_association(struct scu *s, const char *const *classes, size_t n, struct err *e)
{
	const char *why = "";
	OFCondition c;
	int r;

	if (n > CLASSES_MAX) {
		(void)err_set(e, -E2BIG, "%s: %zu classes, at most %d", s->name, n, CLASSES_MAX);
		return SCU_NO_CONTEXT;
	}
	if (s->peer.address[0] == '\0' && resolve(&s->peer, &why) != 0)
		return unreachable(s, e, no_address, why);
	r = connect_peer(&s->peer, &ready_socket);
	if (r < 0)
		return no_connection(s, e, -r);
	c = request(s, classes, n);
	if (ready_socket >= 0) { /* DCMTK gave up before it wanted it */
		(void)close(ready_socket);
		ready_socket = -1;
		return lost(s, e, "association requested", c);
	}
	if (c == DUL_ASSOCIATIONREJECTED)
		return rejected(s, e);
	/* DCMTK calls it a success when the connection ends before an answer has come. */
	if (c.bad() || s->wire.fd < 0 || s->wire.state != WIRE_OPEN)
		return lost(s, e, "association requested", c);
	if (n > 0)
		for (size_t i = 0; i < n; i++)
			if (ASC_findAcceptedPresentationContextID(s->association, classes[i]) != 0)
				return SCU_OK;
	if (n == 0 &&
	    ASC_findAcceptedPresentationContextID(s->association, UID_VerificationSOPClass) != 0)
		return SCU_OK;
	(void)err_set(e, -ENOTSUP, "%s: the archive accepts none of the %zu storage class(es) offered: "
		      "choose others in sr_classes of the route, or let the archive accept one", s->name,
		      n);
	return SCU_NO_CONTEXT;
}

/* A whole command set. */
enum scu_failure receive_command(struct scu *s, const char *doing, uint8_t *ret_context, struct command *ret, struct err *e)
{
	uint8_t bytes[COMMAND_BYTES_MAX];
	size_t n = 0;
	DUL_PDV pdv;

	do {
		OFCondition c = wire_next_pdv(s->association, &pdv);

		if (c == DUL_PEERREQUESTEDRELEASE || c.bad())
			return lost(s, e, doing, c);
		if (pdv.pdvType != DUL_COMMANDPDV || (n > 0 && pdv.presentationContextID != *ret_context) ||
		    pdv.fragmentLength > sizeof(bytes) - n)
			return lost(s, e, doing, DUL_UNEXPECTEDPDU);
		*ret_context = pdv.presentationContextID;
		memcpy(bytes + n, pdv.data, pdv.fragmentLength);
		n += pdv.fragmentLength;
	} while (!pdv.lastPDV);
	if (command_read(bytes, n, ret) < 0)
		return lost(s, e, doing, DUL_UNEXPECTEDPDU);
	return SCU_OK;
}

/* The data set that follows a command. */
enum scu_failure receive_data_set(struct scu *s, const char *doing, uint8_t context_id, std::vector<uint8_t> *ret,
				  struct err *e)
{
	DUL_PDV pdv;

	ret->clear();
	do {
		OFCondition c = wire_next_pdv(s->association, &pdv);

		if (c == DUL_PEERREQUESTEDRELEASE || c.bad())
			return lost(s, e, doing, c);
		if (pdv.pdvType != DUL_DATASETPDV || pdv.presentationContextID != context_id ||
		    ret->size() + pdv.fragmentLength > ANSWER_BYTES_MAX)
			return lost(s, e, doing, DUL_UNEXPECTEDPDU);
		ret->insert(ret->end(), static_cast<const uint8_t *>(pdv.data),
			    static_cast<const uint8_t *>(pdv.data) + pdv.fragmentLength);
	} while (!pdv.lastPDV);
	return SCU_OK;
}

/* Whether this context speaks explicit VR little endian; the other that we propose is implicit. */
bool is_explicit(const struct scu *s, uint8_t context_id)
{
	T_ASC_PresentationContext p;

	return ASC_findAcceptedPresentationContext(s->association->params, context_id, &p).good() &&
	       strcmp(p.acceptedTransferSyntax, UID_LittleEndianExplicitTransferSyntax) == 0;
}

/* An N-EVENT-REPORT on our own association (PS3.4 J.3.3): told, and answered. */
enum scu_failure take_event(struct scu *s, const char *doing, uint8_t context_id, const struct command *q, struct err *e)
{
	uint8_t bytes[COMMAND_WRITE_MAX];
	std::vector<uint8_t> data;
	struct command answer = *q;
	struct commitment told;
	enum scu_failure failure;
	OFCondition c;

	if (!q->data_set || s->peer.committed == nullptr || strcmp(q->sop_class, COMMITMENT_SOP_CLASS) != 0)
		return lost(s, e, doing, DUL_UNEXPECTEDPDU);
	failure = receive_data_set(s, doing, context_id, &data, e);
	if (failure != SCU_OK)
		return failure;
	memset(&told, 0, sizeof(told));
	answer.field = COMMAND_N_EVENT_RSP;
	answer.data_set = false;
	answer.status = commitment_read(data.data(), data.size(), is_explicit(s, context_id), &told) < 0 ? 0x0115 : 0;
	for (size_t i = 0; i < told.n; i++)
		s->peer.committed(s->peer.arg, told.transaction, &told.item[i]);
	c = wire_send_pdv(s->association, context_id, DUL_COMMANDPDV, true, bytes, command_write(&answer, bytes));
	return c.bad() ? lost(s, e, doing, c) : SCU_OK;
}

/* The whole answer to request `message_id` in this context. */
enum scu_failure receive_answer(struct scu *s, uint8_t context_id, uint16_t field, const char *doing,
				uint16_t *ret_status, struct err *e)
{
	enum scu_failure failure;
	struct command answer;
	uint8_t id = 0;

	for (;;) {
		failure = receive_command(s, doing, &id, &answer, e);
		if (failure != SCU_OK)
			return failure;
		if (answer.field != COMMAND_N_EVENT_RQ)
			break;
		failure = take_event(s, doing, id, &answer, e);
		if (failure != SCU_OK)
			return failure;
	}
	if (id != context_id || answer.field != field || answer.data_set || answer.message_id != s->message_id)
		return lost(s, e, doing, DUL_UNEXPECTEDPDU);
	*ret_status = answer.status;
	return SCU_OK;
}

/* PS3.4 table B.2-1 and PS3.7 annex C, in the operator's words. */
const char *status_meaning(uint16_t status)
{
	if (status >> 8 == 0xa7)
		return "out of resources there";
	if (status >> 8 == 0xa9)
		return "the object does not match its SOP class there";
	if (status >> 12 == 0xc)
		return "the archive cannot understand or process the object";
	if (status >> 12 == 0xb)
		return "stored with a warning";
	switch (status) {
	case 0x0110:
		return "processing failure there";
	case 0x0111:
		return "the archive has an object with this UID already";
	case 0x0122:
		return "SOP class not supported there";
	case 0x0124:
		return "not authorised: the archive must allow our AE title to store";
	default:
		return "see PS3.7 annex C";
	}
}

/* Writes a data set anew, between explicit and implicit VR little endian.  -ENOTSUP: not possible. */
int convert(const void *file, size_t n, E_TransferSyntax to, std::vector<uint8_t> *ret)
{
	DcmFileFormat format;
	DcmInputBufferStream in;
	std::vector<uint8_t> chunk(CONVERT_CHUNK);
	DcmOutputBufferStream out(chunk.data(), static_cast<offile_off_t>(chunk.size()));
	DcmDataset *d;
	OFCondition c;

	in.setBuffer(file, static_cast<offile_off_t>(n));
	in.setEos();
	format.transferInit();
	c = format.read(in);
	format.transferEnd();
	d = format.getDataset();
	if (c.bad() || !d->canWriteXfer(to))
		return -ENOTSUP;
	d->transferInit();
	do {
		void *p = nullptr;
		offile_off_t length = 0;

		c = d->write(out, to, EET_ExplicitLength, nullptr);
		out.flushBuffer(p, length);
		if (ret->size() + static_cast<size_t>(length) > CONVERTED_MAX)
			return -E2BIG;
		ret->insert(ret->end(), static_cast<uint8_t *>(p),
			    static_cast<uint8_t *>(p) + length);
	} while (c == EC_StreamNotifyClient);
	d->transferEnd();
	return c.good() ? 0 : -ENOTSUP;
}

/* The context for this class with exactly this syntax; 0: none. */
uint8_t context_with(const struct scu *s, const char *sop_class, const char *syntax)
{
	T_ASC_PresentationContext p;
	uint8_t id = ASC_findAcceptedPresentationContextID(s->association, sop_class, syntax);

	/* DCMTK falls back to other syntaxes of the class. */
	if (id == 0 || ASC_findAcceptedPresentationContext(s->association->params, id, &p).bad() ||
	    strcmp(p.acceptedTransferSyntax, syntax) != 0)
		return 0;
	return id;
}

OFCondition send_object(struct scu *s, uint8_t context_id, const struct command *q, const uint8_t *p,
			size_t n)
{
	uint8_t bytes[COMMAND_WRITE_MAX];
	size_t chunk = static_cast<size_t>(s->association->sendPDVLength); /* even, as the peer allows */
	OFCondition c = wire_send_pdv(s->association, context_id, DUL_COMMANDPDV, true, bytes,
				      command_write(q, bytes));

	while (c.good() && n > 0) {
		size_t take = n < chunk ? n : chunk;

		c = wire_send_pdv(s->association, context_id, DUL_DATASETPDV, take == n, p, take);
		p += take;
		n -= take;
	}
	return c;
}

enum scu_failure store(struct scu *s, const void *file, size_t n, uint16_t *ret_status, struct err *e)
{
	static const char doing[] = "C-STORE";
	std::vector<uint8_t> converted;
	const uint8_t *data_set;
	struct spooled head;
	struct command q;
	enum scu_failure failure;
	uint8_t context_id;
	size_t length;
	OFCondition c;

	if (s->broken)
		return unreachable(s, e, doing, "the association has ended");
	s->wire.end_ms = clock_boot_ms() + OPERATION_MS;
	if (part10_head(file, n, &head) < 0 || head.offset >= n) {
		(void)err_set(e, -EBADMSG, "%s: the object to send is not a DICOM file", s->name);
		return SCU_NO_CONTEXT;
	}
	data_set = static_cast<const uint8_t *>(file) + head.offset;
	length = n - head.offset;
	/* The syntax that the file has, else the other one. */
	context_id = context_with(s, head.sop_class, head.syntax);
	if (context_id == 0) {
		bool is_explicit = strcmp(head.syntax, UID_LittleEndianExplicitTransferSyntax) == 0;
		bool is_implicit = strcmp(head.syntax, UID_LittleEndianImplicitTransferSyntax) == 0;
		const char *other = is_explicit ? UID_LittleEndianImplicitTransferSyntax :
						  UID_LittleEndianExplicitTransferSyntax;

		if (!is_explicit && !is_implicit) {
			(void)err_set(e, -ENOTSUP, "%s: the object to send is compressed (%s)", s->name,
				      head.syntax);
			return SCU_NO_CONTEXT;
		}
		context_id = context_with(s, head.sop_class, other);
		if (context_id == 0) {
			(void)err_set(e, -ENOTSUP, "%s: the archive does not accept SOP class %s", s->name,
				      head.sop_class);
			return SCU_NO_CONTEXT;
		}
		if (convert(file, n, DcmXfer(other).getXfer(), &converted) < 0) {
			(void)err_set(e, -ENOTSUP, "%s: the object cannot be written in the transfer "
				      "syntax that the archive accepts (%s)", s->name, other);
			return SCU_NO_CONTEXT;
		}
		data_set = converted.data();
		length = converted.size();
	}
	memset(&q, 0, sizeof(q));
	q.field = COMMAND_C_STORE_RQ;
	q.message_id = ++s->message_id;
	q.data_set = true;
	(void)str_copy(q.sop_class, sizeof(q.sop_class), head.sop_class);
	(void)str_copy(q.sop_uid, sizeof(q.sop_uid), head.sop_uid);
	c = send_object(s, context_id, &q, data_set, length);
	if (c.bad())
		return lost(s, e, doing, c);
	failure = receive_answer(s, context_id, COMMAND_C_STORE_RSP, doing, ret_status, e);
	if (failure != SCU_OK || *ret_status == 0)
		return failure;
	(void)err_set(e, -EIO, "%s: C-STORE answered %04XH: %s", s->name, *ret_status,
		      status_meaning(*ret_status));
	return SCU_STATUS;
}

enum scu_failure echo(struct scu *s, uint16_t *ret_status, struct err *e)
{
	static const char doing[] = "C-ECHO";
	uint8_t bytes[COMMAND_WRITE_MAX];
	enum scu_failure failure;
	struct command q;
	uint8_t id;
	OFCondition c;

	if (s->broken)
		return unreachable(s, e, doing, "the association has ended");
	s->wire.end_ms = clock_boot_ms() + OPERATION_MS;
	id = ASC_findAcceptedPresentationContextID(s->association, UID_VerificationSOPClass);
	if (id == 0) {
		(void)err_set(e, -ENOTSUP, "%s: the peer does not accept C-ECHO", s->name);
		return SCU_NO_CONTEXT;
	}
	memset(&q, 0, sizeof(q));
	q.field = COMMAND_C_ECHO_RQ;
	q.message_id = ++s->message_id;
	(void)str_copy(q.sop_class, sizeof(q.sop_class), UID_VerificationSOPClass);
	c = wire_send_pdv(s->association, id, DUL_COMMANDPDV, true, bytes, command_write(&q, bytes));
	if (c.bad())
		return lost(s, e, doing, c);
	failure = receive_answer(s, id, COMMAND_C_ECHO_RSP, doing, ret_status, e);
	if (failure != SCU_OK || *ret_status == 0)
		return failure;
	(void)err_set(e, -EIO, "%s: C-ECHO answered %04XH", s->name, *ret_status);
	return SCU_STATUS;
}

enum scu_failure ask_commitment(struct scu *s, const struct commitment *asked, uint16_t *ret_status, struct err *e)
{
	static const char doing[] = "N-ACTION";
	uint8_t bytes[COMMAND_WRITE_MAX], data[COMMITMENT_WRITE_MAX];
	enum scu_failure failure;
	struct command q;
	uint8_t id;
	size_t n;
	OFCondition c;

	if (s->broken)
		return unreachable(s, e, doing, "the association has ended");
	s->wire.end_ms = clock_boot_ms() + OPERATION_MS;
	id = ASC_findAcceptedPresentationContextID(s->association, COMMITMENT_SOP_CLASS);
	if (id == 0) {
		(void)err_set(e, -ENOTSUP, "%s: the archive does not offer Storage Commitment: switch it on there, or "
			      "remove commitment of this peer", s->name);
		return SCU_NO_CONTEXT;
	}
	n = commitment_write(asked, is_explicit(s, id), data);
	memset(&q, 0, sizeof(q));
	q.field = COMMAND_N_ACTION_RQ;
	q.message_id = ++s->message_id;
	q.data_set = true;
	q.kind = COMMITMENT_ACTION;
	(void)str_copy(q.sop_class, sizeof(q.sop_class), COMMITMENT_SOP_CLASS);
	(void)str_copy(q.sop_uid, sizeof(q.sop_uid), COMMITMENT_SOP_UID);
	c = wire_send_pdv(s->association, id, DUL_COMMANDPDV, true, bytes, command_write(&q, bytes));
	if (c.good())
		c = wire_send_pdv(s->association, id, DUL_DATASETPDV, true, data, n);
	if (c.bad())
		return lost(s, e, doing, c);
	failure = receive_answer(s, id, COMMAND_N_ACTION_RSP, doing, ret_status, e);
	if (failure != SCU_OK || *ret_status == 0)
		return failure;
	(void)err_set(e, -EIO, "%s: N-ACTION (Storage Commitment) answered %04XH", s->name, *ret_status);
	return SCU_STATUS;
}

enum scu_failure await_commitment(struct scu *s, unsigned seconds, struct err *e)
{
	static const char doing[] = "N-EVENT-REPORT";
	enum scu_failure failure;
	struct command q;
	uint8_t id = 0;

	if (s->broken)
		return unreachable(s, e, doing, "the association has ended");
	if (ASC_findAcceptedPresentationContextID(s->association, COMMITMENT_SOP_CLASS) == 0 ||
	    !wire_readable(&s->wire, 1000LL * seconds)) {
		(void)err_set(e, -ETIMEDOUT, "%s: no N-EVENT-REPORT within %u s", s->name, seconds);
		return SCU_UNREACHABLE;
	}
	s->wire.end_ms = clock_boot_ms() + OPERATION_MS;
	failure = receive_command(s, doing, &id, &q, e);
	if (failure == SCU_OK)
		failure = q.field == COMMAND_N_EVENT_RQ ? take_event(s, doing, id, &q, e) :
							  lost(s, e, doing, DUL_UNEXPECTEDPDU);
	return failure;
}

/* PS3.4 annex C: the same for both services, and for every answer. */
enum : uint32_t {
	SOP_UID = 0x00080018,
	STUDY_DATE = 0x00080020,
	ACCESSION_NUMBER = 0x00080050,
	RETRIEVE_LEVEL = 0x00080052,
	MODALITIES_IN_STUDY = 0x00080061,
	STUDY_UID = 0x0020000d,
	SERIES_UID = 0x0020000e,
};

bool is_pending(uint16_t status)
{
	return (status & 0xfffe) == 0xff00;
}

enum scu_failure send_query(struct scu *s, const char *doing, uint8_t id, struct command *q, const struct flat_out *data,
			    struct err *e)
{
	uint8_t bytes[COMMAND_WRITE_MAX];
	OFCondition c;

	if (data->full)
		return lost(s, e, doing, EC_IllegalParameter);
	s->wire.end_ms = clock_boot_ms() + OPERATION_MS;
	q->message_id = ++s->message_id;
	q->data_set = true;
	c = wire_send_pdv(s->association, id, DUL_COMMANDPDV, true, bytes, command_write(q, bytes));
	if (c.good())
		c = wire_send_pdv(s->association, id, DUL_DATASETPDV, true, data->p, data->n);
	return c.bad() ? lost(s, e, doing, c) : SCU_OK;
}

/* The next answer to it, with its data set if there is one. */
enum scu_failure next_answer(struct scu *s, const char *doing, uint8_t id, uint16_t field, struct command *ret,
			     std::vector<uint8_t> *ret_data, struct err *e)
{
	enum scu_failure failure;
	uint8_t context_id = 0;

	failure = receive_command(s, doing, &context_id, ret, e);
	if (failure != SCU_OK)
		return failure;
	if (context_id != id || ret->field != field || ret->message_id != s->message_id)
		return lost(s, e, doing, DUL_UNEXPECTEDPDU);
	ret_data->clear();
	if (ret->data_set)
		failure = receive_data_set(s, doing, id, ret_data, e);
	return failure;
}

/* False: it names neither study nor object. */
bool read_study(const std::vector<uint8_t> &data, bool explicit_vr, struct study_found *ret)
{
	struct flat f = flat_of(data.data(), data.size(), explicit_vr);
	struct flat_element x;

	memset(ret, 0, sizeof(*ret));
	while (flat_next(&f, &x) > 0) {
		if (x.tag == STUDY_UID && (!flat_text(&x, ret->study_uid, sizeof(ret->study_uid)) || !uid_valid(ret->study_uid)))
			return false;
		if (x.tag == SOP_UID && (!flat_text(&x, ret->sop_uid, sizeof(ret->sop_uid)) || !uid_valid(ret->sop_uid)))
			return false;
		if (x.tag == STUDY_DATE && (!flat_text(&x, ret->date, sizeof(ret->date)) ||
					    strspn(ret->date, "0123456789") != strlen(ret->date)))
			ret->date[0] = '\0';
		if (x.tag == MODALITIES_IN_STUDY && !flat_text(&x, ret->modalities, sizeof(ret->modalities)))
			ret->modalities[0] = '\0';
	}
	return ret->study_uid[0] != '\0' || ret->sop_uid[0] != '\0';
}

void put_query(struct flat_out *o, const struct study_query *wanted)
{
	bool object = wanted->sop_uid[0] != '\0';

	if (object) {
		flat_put_text(o, SOP_UID, "UI", wanted->sop_uid);
		flat_put_text(o, RETRIEVE_LEVEL, "CS", "IMAGE");
	} else {
		flat_put_text(o, STUDY_DATE, "DA", wanted->date);
		flat_put_text(o, ACCESSION_NUMBER, "SH", wanted->accession);
		flat_put_text(o, RETRIEVE_LEVEL, "CS", "STUDY");
		flat_put_text(o, MODALITIES_IN_STUDY, "CS", "");
	}
	flat_put_text(o, STUDY_UID, "UI", wanted->study_uid);
	if (object)
		flat_put_text(o, SERIES_UID, "UI", wanted->series_uid);
}

enum scu_failure find(struct scu *s, const struct study_query *wanted,
		      bool (*each)(void *arg, const struct study_found *f), void *arg, uint16_t *ret_status, struct err *e)
{
	static const char doing[] = "C-FIND";
	bool object = wanted->sop_uid[0] != '\0';
	uint8_t bytes[512], id = ASC_findAcceptedPresentationContextID(s->association, QUERY_FIND_CLASS);
	struct flat_out o;
	std::vector<uint8_t> data;
	struct command q, answer;
	enum scu_failure failure;

	memset(&o, 0, sizeof(o));
	o.p = bytes;
	o.size = sizeof(bytes);
	o.explicit_vr = is_explicit(s, id);
	put_query(&o, wanted);
	memset(&q, 0, sizeof(q));
	q.field = COMMAND_C_FIND_RQ;
	(void)str_copy(q.sop_class, sizeof(q.sop_class), QUERY_FIND_CLASS);
	failure = send_query(s, doing, id, &q, &o, e);
	while (failure == SCU_OK) {
		struct study_found found;

		failure = next_answer(s, doing, id, COMMAND_C_FIND_RSP, &answer, &data, e);
		if (failure != SCU_OK)
			return failure;
		if (!is_pending(answer.status))
			break;
		if (read_study(data, o.explicit_vr, &found) && (object ? found.sop_uid : found.study_uid)[0] != '\0' &&
		    !each(arg, &found)) {
			wire_abort(&s->wire, ABORT_USER, ABORT_NOT_SPECIFIED);
			s->broken = true;
			return SCU_LIMIT;
		}
	}
	if (failure != SCU_OK)
		return failure;
	*ret_status = answer.status;
	if (answer.status == 0)
		return SCU_OK;
	(void)err_set(e, -EIO, "%s: C-FIND answered %04XH", s->name, answer.status);
	return SCU_STATUS;
}

enum scu_failure move(struct scu *s, const char *study_uid, struct move_result *ret, struct err *e)
{
	static const char doing[] = "C-MOVE";
	uint8_t bytes[256], id = ASC_findAcceptedPresentationContextID(s->association, QUERY_MOVE_CLASS);
	struct flat_out o;
	std::vector<uint8_t> data;
	struct command q, answer;
	enum scu_failure failure;

	memset(&o, 0, sizeof(o));
	o.p = bytes;
	o.size = sizeof(bytes);
	o.explicit_vr = is_explicit(s, id);
	flat_put_text(&o, RETRIEVE_LEVEL, "CS", "STUDY");
	flat_put_text(&o, STUDY_UID, "UI", study_uid);
	memset(&q, 0, sizeof(q));
	q.field = COMMAND_C_MOVE_RQ;
	(void)str_copy(q.sop_class, sizeof(q.sop_class), QUERY_MOVE_CLASS);
	(void)str_copy(q.destination, sizeof(q.destination), s->peer.our_ae_title);
	failure = send_query(s, doing, id, &q, &o, e);
	do {
		if (failure == SCU_OK)
			failure = next_answer(s, doing, id, COMMAND_C_MOVE_RSP, &answer, &data, e);
		if (failure != SCU_OK)
			return failure;
		s->wire.end_ms = clock_boot_ms() + OPERATION_MS; /* each object that was sent gives it time anew */
	} while (is_pending(answer.status));
	ret->status = answer.status;
	ret->completed = answer.completed;
	ret->failed = answer.failed;
	ret->warned = answer.warned;
	if (answer.status == 0 || answer.status == 0xb000) /* some sub-operations failed: the numbers say it */
		return SCU_OK;
	(void)err_set(e, -EIO, "%s: C-MOVE answered %04XH: %s", s->name, answer.status,
		      answer.status == 0xa801 ? "our AE title is unknown there: the archive must be told our address" :
						"see PS3.4 C.4.2");
	return SCU_STATUS;
}

/* guarded() for functions that tell a scu_failure: what C++ throws is our own lack of memory or an
 * input that DCMTK gave up on, and the association cannot be trusted afterwards. */
template <typename F> enum scu_failure sorted(struct scu *s, struct err *e, F f)
{
	enum scu_failure failure = SCU_UNREACHABLE;

	if (guarded(e, "sending", [&]() -> int {
		    failure = f();
		    return 0;
	    }) < 0 && s != nullptr)
		s->broken = true;
	return failure;
}

}

int dicom_scu_resolve(struct dicom_peer *peer, struct err *e)
{
	return guarded(e, "dicom_scu_resolve", [&]() -> int {
		const char *why = "";

		if (resolve(peer, &why) == 0)
			return 0;
		scu unconnected(peer);
		(void)unreachable(&unconnected, e, no_address, why);
		return -EHOSTUNREACH;
	});
}

enum scu_failure dicom_scu_open(const struct dicom_peer *peer, const char *const *classes, size_t n,
				struct scu **ret, struct err *e)
{
	struct scu *s = nullptr;
	enum scu_failure failure;

	failure = sorted(nullptr, e, [&]() -> enum scu_failure {
		s = new scu(peer);
		return open_association(s, classes, n, e);
	});
	if (failure != SCU_OK) {
		dicom_scu_close(s);
		return failure;
	}
	*ret = s;
	return SCU_OK;
}

int dicom_scu_accepts(const struct scu *s, const char *sop_class)
{
	return ASC_findAcceptedPresentationContextID(s->association, sop_class) != 0;
}

enum scu_failure dicom_scu_store(struct scu *s, const void *file, size_t n, uint16_t *ret_status,
				 struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return store(s, file, n, ret_status, e); });
}

enum scu_failure dicom_scu_ask_commitment(struct scu *s, const struct commitment *c, uint16_t *ret_status,
					  struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return ask_commitment(s, c, ret_status, e); });
}

enum scu_failure dicom_scu_await_commitment(struct scu *s, unsigned seconds, struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return await_commitment(s, seconds, e); });
}

size_t dicom_scu_query_bytes(const struct study_query *q, uint8_t *ret, size_t size)
{
	struct flat_out o = {};

	o.p = ret;
	o.size = size;
	o.explicit_vr = true;
	put_query(&o, q);
	return o.full ? 0 : o.n;
}

enum scu_failure dicom_scu_find(struct scu *s, const struct study_query *q,
				bool (*each)(void *arg, const struct study_found *f), void *arg, uint16_t *ret_status,
				struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return find(s, q, each, arg, ret_status, e); });
}

enum scu_failure dicom_scu_move(struct scu *s, const char *study_uid, struct move_result *ret, struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return move(s, study_uid, ret, e); });
}

enum scu_failure dicom_scu_echo(struct scu *s, uint16_t *ret_status, struct err *e)
{
	return sorted(s, e, [&]() -> enum scu_failure { return echo(s, ret_status, e); });
}

void dicom_scu_close(struct scu *s)
{
	if (s == nullptr)
		return;
	(void)guarded(nullptr, "dicom_scu_close", [&]() -> int {
		if (s->association != nullptr && !s->broken && s->wire.fd >= 0 &&
		    ASC_releaseAssociation(s->association).bad())
			wire_abort(&s->wire, ABORT_USER, ABORT_NOT_SPECIFIED);
		return 0;
	});
	delete s;
}
