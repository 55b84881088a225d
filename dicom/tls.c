/* tls.c: see tls.h.
 *
 * Job: OpenSSL behind a small face.  DCMTK's own TLS layer blocks in reads that no deadline ends,
 * lowers OpenSSL's security level to 0 and knows no profile newer than BCP 195 of 2015; here the
 * socket is non-blocking, wire.cc waits, and every wait has its end.
 * Promise: after tls_open() no file is opened: it is called before the sandbox.
 * Never: logs, asks for a password, believes an authority of the operating system's.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "dicom/tls.h"

#define FILE_BYTES_MAX (1u << 20)
#define CERTIFICATES_MAX 64 /* of one file */
#define SECURITY_LEVEL 2    /* OpenSSL's: 112 bits, RSA of 2048, no SHA-1 */

/* RFC 9325 4.2, and 4.3 for the authenticated ciphers of 1.3 (RFC 8446 9.1). */
static const char suites_12[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
				"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
static const char suites_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

struct tls {
	SSL_CTX *context;
	struct tls_dates ends;
};

struct tls_link {
	SSL *ssl;
	char name[64]; /* what a certificate that was refused calls itself, quoted */
	char why[TLS_WHY_MAX];
};

/* ---- reading files ----------------------------------------------------------------------------- */

static int refuse_password(char *p, int n, int writing, void *arg)
{
	(void)p, (void)n, (void)writing, (void)arg;
	return -1; /* nobody is there to type one */
}

static void cleanup_bio(BIO **b)
{
	BIO_free(*b);
}

static const char *library_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *text = ERR_reason_error_string(code);

	return text != NULL ? text : "no reason given";
}

static int64_t time_ms(const ASN1_TIME *t)
{
	struct tm tm;

	if (t == NULL || ASN1_TIME_to_tm(t, &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm) * 1000;
}

static void sooner(int64_t *first, int64_t at)
{
	if (at != 0 && (*first == 0 || at < *first))
		*first = at;
}

/* Every certificate of a PEM text, at least one: each() takes or refuses it. */
static int each_certificate(struct tls *t, const char *path, const void *text, size_t n,
			    int (*each)(struct tls *t, X509 *x, size_t i), struct err *e)
{
	CLEANUP(bio) BIO *bio = BIO_new_mem_buf(text, (int)n);
	size_t i;

	for (i = 0; bio != NULL; i++) {
		X509 *x = PEM_read_bio_X509(bio, NULL, refuse_password, NULL);
		int good;

		if (x == NULL)
			break;
		good = i < CERTIFICATES_MAX ? each(t, x, i) : 0;
		X509_free(x);
		if (!good)
			return err_set(e, -EBADMSG, "%s: certificate %zu of the file is refused: %s", path, i + 1,
				       i < CERTIFICATES_MAX ? library_reason() : "too many");
	}
	if (i == 0)
		return err_set(e, -EBADMSG, "%s: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path);
	if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return err_set(e, -EBADMSG, "%s: certificate %zu of the file: %s", path, i + 1, library_reason());
	ERR_clear_error();
	return 0;
}

static int take_own(struct tls *t, X509 *x, size_t i)
{
	sooner(&t->ends.certificate, time_ms(X509_get0_notAfter(x)));
	if (i == 0)
		return SSL_CTX_use_certificate(t->context, x);
	return (int)SSL_CTX_add1_chain_cert(t->context, x);
}

static int take_authority(struct tls *t, X509 *x, size_t i)
{
	(void)i;
	sooner(&t->ends.ca, time_ms(X509_get0_notAfter(x)));
	/* tells the peer which certificate to show, if it has several */
	return SSL_CTX_add_client_CA(t->context, x) &&
	       X509_STORE_add_cert(SSL_CTX_get_cert_store(t->context), x);
}

static int open_certificates(struct tls *t, const char *path, const char *what,
			     int (*each)(struct tls *t, X509 *x, size_t i), struct err *e)
{
	CLEANUP(free) void *text = NULL;
	size_t n;
	int r = read_path(path, FILE_BYTES_MAX, &text, &n, e);

	if (r < 0)
		return err_prefix(e, r, "tls.%s", what);
	return each_certificate(t, path, text, n, each, e);
}

static int open_key(struct tls *t, const char *path, struct err *e)
{
	CLEANUP(bio) BIO *bio = NULL;
	void *text = NULL;
	EVP_PKEY *key = NULL;
	struct stat st;
	size_t n = 0;
	int r = read_path(path, FILE_BYTES_MAX, &text, &n, e);

	if (r < 0)
		return err_prefix(e, r, "tls.key");
	if (stat(path, &st) == 0 && (st.st_mode & S_IRWXO) != 0)
		r = err_set(e, -EACCES, "tls.key: %s may be read by everybody: chmod o= it, and consider the key stolen",
			    path);
	else {
		bio = BIO_new_mem_buf(text, (int)n);
		key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, refuse_password, NULL) : NULL;
		if (key == NULL)
			r = err_set(e, -EBADMSG, "tls.key: %s holds no private key that can be read: %s (an encrypted "
				    "key is of no use to a service; systemd-creds encrypts the file instead)", path,
				    library_reason());
		else if (SSL_CTX_use_PrivateKey(t->context, key) != 1)
			r = err_set(e, -EBADMSG, "tls.key: %s: not the key of tls.certificate, or too weak: %s", path,
				    library_reason());
	}
	EVP_PKEY_free(key);
	OPENSSL_cleanse(text, n);
	free(text);
	return r;
}

static int open_crl(struct tls *t, const char *path, struct err *e)
{
	X509_STORE *store = SSL_CTX_get_cert_store(t->context);
	CLEANUP(free) void *text = NULL;
	CLEANUP(bio) BIO *bio = NULL;
	size_t i, n;
	int r = read_path(path, FILE_BYTES_MAX, &text, &n, e);

	if (r < 0)
		return err_prefix(e, r, "tls.crl");
	bio = BIO_new_mem_buf(text, (int)n);
	for (i = 0; bio != NULL && i < CERTIFICATES_MAX; i++) {
		X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, refuse_password, NULL);
		int good;

		if (crl == NULL)
			break;
		sooner(&t->ends.crl, time_ms(X509_CRL_get0_nextUpdate(crl)));
		good = X509_STORE_add_crl(store, crl);
		X509_CRL_free(crl);
		if (!good)
			return err_set(e, -EBADMSG, "tls.crl: %s: %s", path, library_reason());
	}
	if (i == 0)
		return err_set(e, -EBADMSG, "tls.crl: %s holds no revocation list in PEM form (-----BEGIN X509 CRL-----)",
			       path);
	ERR_clear_error();
	/* Of the peer's own certificate; an authority that has no list here can vouch for nobody. */
	(void)X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int set_rules(SSL_CTX *c)
{
	SSL_CTX_set_security_level(c, SECURITY_LEVEL);
	(void)SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
				     SSL_OP_CIPHER_SERVER_PREFERENCE |
				     /* DICOM has its own end of an association, and many peers just close */
				     SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_passwd_cb(c, refuse_password);
	return SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) && SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) &&
	       SSL_CTX_set_cipher_list(c, suites_12) && SSL_CTX_set_ciphersuites(c, suites_13) &&
	       SSL_CTX_set_num_tickets(c, 0);
}

static void cleanup_tls_close(struct tls **t)
{
	tls_close(*t);
}

int tls_open(const struct tls_files *files, struct tls **ret, struct err *e)
{
	CLEANUP(tls_close) struct tls *t = xcalloc(1, sizeof(*t));
	int r;

	ERR_clear_error();
	/* SSL_CTX_new() reads the system's openssl.cnf, whose rules may only be stricter than ours */
	t->context = SSL_CTX_new(TLS_method());
	if (t->context == NULL || !set_rules(t->context))
		return err_set(e, -ENOTSUP, "TLS: OpenSSL cannot do what PS3.15 B.12 asks for: %s", library_reason());
	r = open_certificates(t, files->certificate, "certificate", take_own, e);
	if (r == 0)
		r = open_key(t, files->key, e);
	if (r == 0)
		r = open_certificates(t, files->ca, "ca", take_authority, e);
	if (r == 0 && files->crl != NULL)
		r = open_crl(t, files->crl, e);
	ERR_clear_error();
	if (r < 0)
		return r;
	*ret = TAKE(t);
	return 0;
}

void tls_close(struct tls *t)
{
	if (t == NULL)
		return;
	SSL_CTX_free(t->context);
	free(t);
}

void tls_ends(const struct tls *t, struct tls_dates *ret)
{
	*ret = t->ends;
}

/* ---- one connection ------------------------------------------------------------------------------ */

static bool is_address(const char *name)
{
	ASN1_OCTET_STRING *a = a2i_IPADDRESS(name);

	ASN1_OCTET_STRING_free(a);
	ERR_clear_error();
	return a != NULL;
}

static bool expect(SSL *ssl, const char *name, bool exact)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (!exact && is_address(name))
		return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
	if (exact)
		X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS);
	else if (SSL_set_tlsext_host_name(ssl, name) != 1)
		return false;
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

/* OpenSSL forgets a certificate that it refuses: what it calls itself, for the line that says so. */
static int note_name(int good, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	X509 *x = X509_STORE_CTX_get0_cert(store);
	struct tls_link *l = SSL_get_app_data(ssl);
	char name[48];

	if (!good && x != NULL &&
	    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, name, sizeof(name)) >= 0)
		(void)str_quote(l->name, sizeof(l->name), name);
	return good;
}

int tls_link_new(const struct tls *t, int fd, bool server, const char *name, bool exact, struct tls_link **ret)
{
	struct tls_link *l = xcalloc(1, sizeof(*l));
	int flags = fcntl(fd, F_GETFL);

	l->ssl = SSL_new(t->context);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || l->ssl == NULL || SSL_set_fd(l->ssl, fd) != 1 ||
	    (name != NULL && !expect(l->ssl, name, exact))) {
		tls_link_free(l);
		return -ENOMEM;
	}
	SSL_set_app_data(l->ssl, l);
	SSL_set_verify(l->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, note_name);
	if (server)
		SSL_set_accept_state(l->ssl);
	else
		SSL_set_connect_state(l->ssl);
	*ret = l;
	return 0;
}

void tls_link_free(struct tls_link *l)
{
	if (l == NULL)
		return;
	SSL_free(l->ssl); /* the socket stays open: its owner closes it */
	free(l);
}

/* OpenSSL's reasons that an operator meets, in words that say what to do. */
static const char *advice(int reason)
{
	switch (reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return "the peer shows no certificate";
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return "the peer does not speak TLS 1.2 or 1.3";
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
		return "no cipher suite in common: ours are ECDHE with AES-GCM (BCP 195)";
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
		return "what came is not TLS: is the peer set to send without it?";
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return "the peer does not know the authority of our certificate";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return "the peer says that our certificate has expired";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
		return "the peer says that our certificate is revoked";
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
		return "the peer does not accept our certificate";
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "the peer wants a certificate and says that we have shown none";
	default:
		return NULL;
	}
}

static void set_why(struct tls_link *l)
{
	unsigned long code = ERR_peek_error(); /* the first is the cause */
	long verified = SSL_get_verify_result(l->ssl);
	const char *text = advice(ERR_GET_REASON(code));

	if (l->why[0] != '\0')
		return;
	if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK) {
		(void)snprintf(l->why, sizeof(l->why), "TLS: the peer's certificate \"%s\" is refused: %s",
			       l->name, X509_verify_cert_error_string(verified));
		return;
	}
	if (text == NULL)
		text = ERR_reason_error_string(code);
	(void)snprintf(l->why, sizeof(l->why), "TLS: %s", text != NULL ? text : "the connection broke");
}

/* Sorts what OpenSSL returned: n > 0 is done; at_end is what the peer's end means to the caller. */
static ssize_t result(struct tls_link *l, int n, ssize_t at_end, short *ret_events)
{
	int saved = errno;

	if (n > 0)
		return n;
	switch (SSL_get_error(l->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		*ret_events = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*ret_events = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		if (at_end < 0)
			(void)snprintf(l->why, sizeof(l->why), "TLS: the peer closed the connection");
		return at_end;
	case SSL_ERROR_SYSCALL:
		(void)snprintf(l->why, sizeof(l->why), "TLS: connection lost: %s",
			       saved != 0 ? strerror(saved) : "the peer closed it");
		return -ECONNABORTED;
	default:
		set_why(l);
		return -ECONNABORTED;
	}
}

int tls_link_handshake(struct tls_link *l, short *ret_events)
{
	ERR_clear_error();
	errno = 0;
	return (int)result(l, SSL_do_handshake(l->ssl), -ECONNABORTED, ret_events);
}

ssize_t tls_link_read(struct tls_link *l, void *p, size_t n, short *ret_events)
{
	ERR_clear_error();
	errno = 0;
	return result(l, SSL_read(l->ssl, p, n < INT32_MAX ? (int)n : INT32_MAX), 0, ret_events);
}

ssize_t tls_link_write(struct tls_link *l, const void *p, size_t n, short *ret_events)
{
	ERR_clear_error();
	errno = 0;
	return result(l, SSL_write(l->ssl, p, n < INT32_MAX ? (int)n : INT32_MAX), -ECONNABORTED, ret_events);
}

bool tls_link_pending(const struct tls_link *l)
{
	return SSL_pending(l->ssl) > 0;
}

void tls_link_end(struct tls_link *l)
{
	ERR_clear_error();
	(void)SSL_shutdown(l->ssl); /* our half; a peer that does not read loses nothing by it */
	ERR_clear_error();
}

const char *tls_link_why(const struct tls_link *l)
{
	return l->why;
}

bool tls_link_peer_is(const struct tls_link *l, const char *name)
{
	X509 *x = SSL_get0_peer_certificate(l->ssl);

	return x != NULL && X509_check_host(x, name, strlen(name),
					    X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS, NULL) == 1;
}

const char *tls_suite(size_t i)
{
	SSL_CTX *c = SSL_CTX_new(TLS_method());
	STACK_OF(SSL_CIPHER) *all = c != NULL && set_rules(c) ? SSL_CTX_get_ciphers(c) : NULL;
	const char *name = NULL;

	if (all != NULL && i < (size_t)sk_SSL_CIPHER_num(all))
		name = SSL_CIPHER_standard_name(sk_SSL_CIPHER_value(all, (int)i));
	SSL_CTX_free(c);
	return name;
}
