/* wire.hh: the TCP connection under an association, with deadlines that hold.
 *
 * Job: DCMTK's transport layer for scp.cc and scu.cc.  DCMTK's own time-outs are per recv(), so a
 * peer that sends a byte now and then keeps it for ever, and the body of an association request is
 * read without any.  Here every wait ends: the first PDU must be whole by `first`, each later one
 * within `idle` from the moment we wait for it, and nothing lasts beyond `end`.
 * Promise: no thread, no signal, no timer: a poll() with the time that is left.  TCP_NODELAY on,
 * and TCP_QUICKACK re-armed after each recv: a sender that keeps Nagle's algorithm on (every stock
 * DCMTK modality) otherwise waits 40 ms for our acknowledgement, per object.
 * Never: looks into a PDU beyond its 6 byte head; opens anything.
 */
#ifndef CARZEROD_DICOM_WIRE_HH
#define CARZEROD_DICOM_WIRE_HH

#include "dicom/guard.hh"

#include "dicom/tls.h"

#include "dcmtk/dcmnet/assoc.h"
#include "dcmtk/dcmnet/dcmlayer.h"
#include "dcmtk/dcmnet/dul.h"

#define WIRE_LINGER_MS 1000 /* for the peer to read our last PDU and close */

/* PS3.8 9.3.8: who aborts and why. */
enum { ABORT_USER = 0, ABORT_PROVIDER = 2 };
enum { ABORT_NOT_SPECIFIED = 0, ABORT_UNEXPECTED_PDU = 2, ABORT_INVALID_PARAMETER = 6 };

enum wire_state { WIRE_OPEN, WIRE_CLOSED_BY_PEER, WIRE_TIMED_OUT, WIRE_BROKEN, WIRE_TLS /* see tls_link_why() */ };

struct wire {
	bool taken = false;       /* a connection object has been made and owns the socket */
	int fd = -1;              /* while that lives */
	enum wire_state state = WIRE_OPEN;
	int error = 0;            /* errno of WIRE_BROKEN */
	int64_t end_ms = 0;       /* boot time; of the whole association */
	int64_t first_ms = 0;     /* boot time; of the first PDU from the peer */
	int64_t idle_ms = 0;      /* duration; of a wait for one whole PDU */

	const struct tls *tls = nullptr; /* NULL: plain */
	const char *tls_name = nullptr;  /* of tls_link_new(), when we are the client */
	bool tls_server = false, tls_exact = false;
	struct tls_link *link = nullptr; /* while the connection object lives, and after: for its why */

	uint64_t pdus = 0;        /* whole ones from the peer */
	int64_t waiting_since_ms = 0; /* for the PDU to come; 0: not waiting */
	uint8_t head[6];
	size_t n_head = 0;
	uint32_t body_left = 0;

	uint8_t ahead[16384];     /* read from the socket, not yet asked for */
	size_t ahead_at = 0, ahead_n = 0;

	wire() = default;
	wire(const wire &) = delete;
	wire &operator=(const wire &) = delete;
	~wire()
	{
		tls_link_free(link);
	}
};

/* Gives each connection of a DCMTK network to one wire. */
class wire_layer : public DcmTransportLayer {
public:
	explicit wire_layer(struct wire *w) : w_(w)
	{
	}
	DcmTransportConnection *createConnection(DcmNativeSocketType fd, OFBool secure) override;

private:
	struct wire *w_;
};

/* The next fragment, read if none is left: bad, or DUL_PEERREQUESTEDRELEASE, when something else came. */
OFCondition wire_next_pdv(T_ASC_Association *association, DUL_PDV *ret);
/* n bytes as one fragment; DCMTK cuts it into PDUs that the peer takes. */
OFCondition wire_send_pdv(T_ASC_Association *association, uint8_t context_id, DUL_DATAPDV type,
			  bool last, const void *p, size_t n);

/* Waits for poll's events, at most until then (boot time); true: they came, or an error to be told. */
bool wire_wait(int fd, short events, int64_t until_ms);
/* Whether the peer says something, or ends, within that time. */
bool wire_readable(struct wire *w, int64_t ms);
/* Sends A-ABORT if the socket takes it; the connection is to be dropped then. */
void wire_abort(struct wire *w, uint8_t source, uint8_t reason);
/* We have said our last PDU: lets the peer read it and close, at most WIRE_LINGER_MS.  Closing with
 * its bytes unread would reset the connection and destroy what we said. */
void wire_linger(struct wire *w);

#endif
