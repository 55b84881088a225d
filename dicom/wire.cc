/* wire.cc: see wire.hh. */
#include "dicom/wire.hh"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "dcmtk/dcmnet/cond.h"
#include "dcmtk/dcmnet/dcmtrans.h"

extern "C" {
#include "base/clock.h"
}

#define DIRECT_MIN 8192         /* shorter reads go through wire.ahead */
#define LINGER_BYTES (4 << 20)  /* that a peer may still send us before we close on it */

namespace
{

int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Until when the peer may take for its next bytes. */
int64_t deadline_ms(struct wire *w)
{
	if (w->pdus == 0)
		return earlier(w->first_ms, w->end_ms);
	if (w->waiting_since_ms == 0)
		w->waiting_since_ms = clock_boot_ms();
	return earlier(w->waiting_since_ms + w->idle_ms, w->end_ms);
}

/* True when the socket is ready for `events`, or has an error to tell. */
bool wait_until(int fd, short events, int64_t until_ms)
{
	struct pollfd p = { fd, events, 0 };

	for (;;) {
		int64_t left = until_ms - clock_boot_ms();
		int r;

		if (left <= 0)
			return false;
		r = poll(&p, 1, static_cast<int>(earlier(left, INT32_MAX)));
		if (r > 0)
			return true;
		if (r < 0 && errno != EINTR)
			return true; /* the next call on the socket says what is wrong */
	}
}

/* Counts PDUs in the stream from the peer. */
void follow(struct wire *w, const uint8_t *p, size_t n)
{
	while (n > 0) {
		size_t take;

		if (w->n_head < sizeof(w->head)) {
			take = sizeof(w->head) - w->n_head;
			if (take > n)
				take = n;
			memcpy(w->head + w->n_head, p, take);
			w->n_head += take;
			if (w->n_head == sizeof(w->head))
				w->body_left = static_cast<uint32_t>(w->head[2]) << 24 |
					       static_cast<uint32_t>(w->head[3]) << 16 |
					       static_cast<uint32_t>(w->head[4]) << 8 | w->head[5];
		} else {
			take = w->body_left < n ? w->body_left : n;
			w->body_left -= static_cast<uint32_t>(take);
		}
		p += take;
		n -= take;
		if (w->n_head == sizeof(w->head) && w->body_left == 0) {
			w->n_head = 0;
			w->pdus++;
			w->waiting_since_ms = 0;
		}
	}
}

void time_out(struct wire *w)
{
	/* PS3.8 9.2: a request that does not come is not answered; an association is aborted. */
	if (w->pdus > 0)
		wire_abort(w, ABORT_PROVIDER, ABORT_NOT_SPECIFIED);
	w->state = WIRE_TIMED_OUT;
}

/* The socket as it is or under TLS: bytes, 0 at the peer's end, -1 with errno; EAGAIN with the
 * events to wait for. */
ssize_t read_now(struct wire *w, void *p, size_t n, short *ret_events)
{
	ssize_t got;

	*ret_events = POLLIN;
	if (w->link == nullptr)
		return recv(w->fd, p, n, MSG_DONTWAIT);
	got = tls_link_read(w->link, p, n, ret_events);
	if (got >= 0)
		return got;
	errno = static_cast<int>(-got);
	return -1;
}

ssize_t write_now(struct wire *w, const void *p, size_t n, short *ret_events)
{
	ssize_t put;

	*ret_events = POLLOUT;
	if (w->link == nullptr)
		return send(w->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	put = tls_link_write(w->link, p, n, ret_events);
	if (put >= 0)
		return put;
	errno = static_cast<int>(-put);
	return -1;
}

void broken(struct wire *w)
{
	w->state = w->link != nullptr && errno == ECONNABORTED ? WIRE_TLS : WIRE_BROKEN;
	w->error = errno;
}

/* The first deadline covers it: a peer that has not shaken hands has asked for nothing yet. */
OFCondition shake_hands(struct wire *w)
{
	short events = 0;
	int r;

	if (w->tls == nullptr)
		return EC_Normal;
	r = tls_link_new(w->tls, w->fd, w->tls_server, w->tls_name, w->tls_exact, &w->link);
	if (r < 0) {
		errno = -r;
		broken(w);
		return DUL_NETWORKCLOSED;
	}
	for (;;) {
		r = tls_link_handshake(w->link, &events);
		if (r > 0)
			return EC_Normal;
		if (r != -EAGAIN) {
			errno = -r;
			broken(w);
			return DUL_NETWORKCLOSED;
		}
		if (!wait_until(w->fd, events, deadline_ms(w))) {
			w->state = WIRE_TIMED_OUT;
			return DUL_NETWORKCLOSED;
		}
	}
}

/* At least one byte; 0 at the peer's end; -1 with errno. */
ssize_t receive(struct wire *w, void *p, size_t n)
{
	static const int one = 1;

	for (;;) {
		short events;
		ssize_t got;

		if (w->state != WIRE_OPEN) {
			errno = ECONNRESET;
			return -1;
		}
		got = read_now(w, p, n, &events);
		if (got > 0) {
			/* Fails on a socket that is not TCP, where nothing delays an answer. */
			(void)setsockopt(w->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
			follow(w, static_cast<const uint8_t *>(p), static_cast<size_t>(got));
			return got;
		}
		if (got == 0) {
			w->state = WIRE_CLOSED_BY_PEER;
			return 0;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN) {
			broken(w);
			return -1;
		}
		if (!wait_until(w->fd, events, deadline_ms(w))) {
			time_out(w);
			errno = ETIMEDOUT;
			return -1;
		}
	}
}

class wire_connection : public DcmTCPConnection {
public:
	wire_connection(int fd, struct wire *w) : DcmTCPConnection(fd), w_(w)
	{
	}

	~wire_connection() override
	{
		w_->fd = -1; /* the base class closes it */
	}

	OFCondition serverSideHandshake() override
	{
		return shake_hands(w_);
	}

	OFCondition clientSideHandshake() override
	{
		return shake_hands(w_);
	}

	/* Short reads (DCMTK asks for 6 bytes, then the body) are served from what one recv brought. */
	ssize_t read(void *p, size_t n) override
	{
		if (w_->ahead_n == 0 && n >= DIRECT_MIN)
			return receive(w_, p, n);
		if (w_->ahead_n == 0) {
			ssize_t got = receive(w_, w_->ahead, sizeof(w_->ahead));

			if (got <= 0)
				return got;
			w_->ahead_at = 0;
			w_->ahead_n = static_cast<size_t>(got);
		}
		if (n > w_->ahead_n)
			n = w_->ahead_n;
		memcpy(p, w_->ahead + w_->ahead_at, n);
		w_->ahead_at += n;
		w_->ahead_n -= n;
		return static_cast<ssize_t>(n);
	}

	/* All or an error.  A peer that stops reading has `idle` to go on. */
	ssize_t write(void *p, size_t n) override
	{
		const uint8_t *bytes = static_cast<const uint8_t *>(p);
		int64_t until = earlier(clock_boot_ms() + w_->idle_ms, w_->end_ms);
		size_t done = 0;

		while (done < n) {
			short events;
			ssize_t put;

			if (w_->state != WIRE_OPEN) {
				errno = EPIPE;
				return -1;
			}
			put = write_now(w_, bytes + done, n - done, &events);
			if (put >= 0) {
				done += static_cast<size_t>(put);
			} else if (errno == EAGAIN) {
				if (!wait_until(w_->fd, events, until)) {
					w_->state = WIRE_TIMED_OUT;
					errno = ETIMEDOUT;
					return -1;
				}
			} else if (errno != EINTR) {
				broken(w_);
				return -1;
			}
		}
		return static_cast<ssize_t>(n);
	}

	/* DCMTK's time-out is not looked at: ours covers it. */
	OFBool networkDataAvailable(int) override
	{
		if (w_->ahead_n > 0 || (w_->link != nullptr && tls_link_pending(w_->link)))
			return OFTrue;
		if (w_->state != WIRE_OPEN)
			return OFTrue; /* read() then says why not */
		if (wait_until(w_->fd, POLLIN, deadline_ms(w_)))
			return OFTrue;
		time_out(w_);
		return OFFalse;
	}

	void closeTransportConnection() override
	{
		w_->fd = -1;
		DcmTCPConnection::closeTransportConnection();
	}

	void close() override
	{
		closeTransportConnection();
	}

private:
	struct wire *w_;
};

}

DcmTransportConnection *wire_layer::createConnection(DcmNativeSocketType fd, OFBool)
{
	static const int one = 1;

	/* DCMTK sends a PDU's head and body in two calls.  Fails on a socket that is not TCP. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	w_->fd = fd;
	w_->taken = true;
	return new wire_connection(fd, w_);
}

OFCondition wire_next_pdv(T_ASC_Association *association, DUL_PDV *ret)
{
	OFCondition c = DUL_NextPDV(&association->DULassociation, ret);

	if (c.good())
		return c;
	c = DUL_ReadPDVs(&association->DULassociation, nullptr, DUL_BLOCK, 0);
	if (c == DUL_PDATAPDUARRIVED)
		return DUL_NextPDV(&association->DULassociation, ret);
	if (c == DUL_PEERREQUESTEDRELEASE || c.bad())
		return c;
	return DUL_UNEXPECTEDPDU;
}

OFCondition wire_send_pdv(T_ASC_Association *association, uint8_t context_id, DUL_DATAPDV type,
			  bool last, const void *p, size_t n)
{
	DUL_PDV pdv;
	DUL_PDVLIST list;

	memset(&list, 0, sizeof(list));
	pdv.fragmentLength = n;
	pdv.presentationContextID = context_id;
	pdv.pdvType = type;
	pdv.lastPDV = last;
	pdv.data = const_cast<void *>(p); /* DCMTK's interface predates const; it only reads */
	list.count = 1;
	list.pdv = &pdv;
	return DUL_WritePDVs(&association->DULassociation, &list);
}

bool wire_wait(int fd, short events, int64_t until_ms)
{
	return wait_until(fd, events, until_ms);
}

bool wire_readable(struct wire *w, int64_t ms)
{
	return w->ahead_n > 0 || (w->link != nullptr && tls_link_pending(w->link)) || w->state != WIRE_OPEN ||
	       wait_until(w->fd, POLLIN, clock_boot_ms() + ms);
}

void wire_abort(struct wire *w, uint8_t source, uint8_t reason)
{
	const uint8_t pdu[10] = { 7, 0, 0, 0, 0, 4, 0, 0, source, reason };

	short events;

	if (w->fd >= 0 && w->state == WIRE_OPEN)
		/* A peer that does not read learns it from the closed connection. */
		(void)write_now(w, pdu, sizeof(pdu), &events);
}

void wire_linger(struct wire *w)
{
	int64_t until = clock_boot_ms() + WIRE_LINGER_MS;
	size_t seen = 0;

	if (w->fd < 0 || w->state == WIRE_CLOSED_BY_PEER || w->state == WIRE_BROKEN)
		return;
	if (w->link != nullptr && w->state == WIRE_OPEN)
		tls_link_end(w->link);
	(void)shutdown(w->fd, SHUT_WR); /* fails when the peer is gone, which is what we wait for */
	while (seen < LINGER_BYTES && wait_until(w->fd, POLLIN, until)) {
		ssize_t got = recv(w->fd, w->ahead, sizeof(w->ahead), MSG_DONTWAIT);

		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			return;
		if (got > 0)
			seen += static_cast<size_t>(got);
	}
}
