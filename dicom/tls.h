/* tls.h: TLS under an association (PS3.15 B.12: BCP 195, that is RFC 8996 and RFC 9325).
 *
 * struct tls is what this node shows and whom it believes: certificate, key, certificate
 * authorities, revocation list, read once, before any wall of the sandbox stands.  struct tls_link is
 * one connection.  Both sides show a certificate, always.
 *
 * The rules: TLS 1.2 or 1.3; ECDHE with AES-GCM (in 1.3 also ChaCha20-Poly1305); keys and
 * signatures of at least 112 bits of security; no compression, no renegotiation, no resumption, so
 * that every association has been checked against the lists that are valid now.
 */
#ifndef CARZEROD_DICOM_TLS_H
#define CARZEROD_DICOM_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TLS_WHY_MAX 160

struct tls;
struct tls_link;

struct tls_files { /* paths of PEM files */
	const char *certificate; /* ours, followed by those between it and the authority */
	const char *key;         /* unencrypted, not readable by others */
	const char *ca;          /* authorities that we believe */
	const char *crl;         /* their revocation lists; NULL: none is asked for */
};

struct tls_dates { /* wall-clock ms; 0: there is none */
	int64_t certificate, ca, crl; /* of several the first to end; crl: when its next one is due */
};

/* Errors name file and reason.  An expired certificate is none: tls_ends() tells. */
int tls_open(const struct tls_files *files, struct tls **ret, struct err *e);
void tls_close(struct tls *t); /* wipes the key; NULL allowed */
void tls_ends(const struct tls *t, struct tls_dates *ret);

/* Names of the suites that are offered and taken: NULL after the last. */
const char *tls_suite(size_t i);

/* A connection on `fd`, which becomes non-blocking and stays the caller's.  name: what the peer's
 * certificate must carry, an address or a name (NULL: any certificate that an authority of ours
 * signed).  exact: the name is no host name; the certificate's common name counts too. */
int tls_link_new(const struct tls *t, int fd, bool server, const char *name, bool exact, struct tls_link **ret);
void tls_link_free(struct tls_link *l); /* NULL allowed */

/* Each returns what it did (the handshake 1, the others bytes, reading 0 at the peer's end);
 * -EAGAIN: wait for *ret_events (poll's) and call again; -ECONNABORTED: over, tls_link_why() says why. */
int tls_link_handshake(struct tls_link *l, short *ret_events);
ssize_t tls_link_read(struct tls_link *l, void *p, size_t n, short *ret_events);
ssize_t tls_link_write(struct tls_link *l, const void *p, size_t n, short *ret_events);
bool tls_link_pending(const struct tls_link *l); /* bytes that poll cannot see */
void tls_link_end(struct tls_link *l); /* says that nothing more will be written */

/* One line for the operator, foreign text in it quoted. */
const char *tls_link_why(const struct tls_link *l);
/* Whether the peer's certificate carries this name: DNS name or common name, letter case aside. */
bool tls_link_peer_is(const struct tls_link *l, const char *name);

#ifdef __cplusplus
}
#endif
#endif
