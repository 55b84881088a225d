/* digest.c: see digest.h.  libcrypto picks the CPU's SHA instructions; ours would not. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/digest.h"
#include "base/log.h"
#include "base/mem.h"

#define DIGEST_CHUNK (256 * 1024)

struct digest {
	EVP_MD_CTX *ctx;
};

void digest_reset(struct digest *d)
{
	if (EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1)
		fatal(FATAL_SOFTWARE, "libcrypto refuses SHA-256");
}

struct digest *digest_new(void)
{
	struct digest *d = xcalloc(1, sizeof(*d));

	d->ctx = EVP_MD_CTX_new();
	if (d->ctx == NULL)
		fatal(FATAL_TEMPORARY, "out of memory for a digest");
	digest_reset(d);
	return d;
}

void digest_free(struct digest *d)
{
	if (d == NULL)
		return;
	EVP_MD_CTX_free(d->ctx);
	free(d);
}

void digest_update(struct digest *d, const void *p, size_t n)
{
	if (EVP_DigestUpdate(d->ctx, p, n) != 1)
		fatal(FATAL_SOFTWARE, "libcrypto fails in SHA-256");
}

void digest_final(struct digest *d, uint8_t ret[DIGEST_SIZE])
{
	if (EVP_DigestFinal_ex(d->ctx, ret, NULL) != 1)
		fatal(FATAL_SOFTWARE, "libcrypto fails in SHA-256");
}

void digest_of(const void *p, size_t n, uint8_t ret[DIGEST_SIZE])
{
	CLEANUP(digest_free) struct digest *d = digest_new();

	digest_update(d, p, n);
	digest_final(d, ret);
}

int digest_fd(int fd, uint64_t from, uint8_t ret[DIGEST_SIZE])
{
	CLEANUP(digest_free) struct digest *d = digest_new();
	CLEANUP(free) uint8_t *chunk = xcalloc(1, DIGEST_CHUNK);
	off_t at = (off_t)from;

	for (;;) {
		ssize_t r = pread(fd, chunk, DIGEST_CHUNK, at);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		digest_update(d, chunk, (size_t)r);
		at += r;
	}
	digest_final(d, ret);
	return 0;
}

void uuid5(const uint8_t namespace_id[16], const char *name, uint8_t ret[16])
{
	uint8_t sha1[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha1(), NULL) != 1 ||
	    EVP_DigestUpdate(ctx, namespace_id, 16) != 1 ||
	    EVP_DigestUpdate(ctx, name, strlen(name)) != 1 ||
	    EVP_DigestFinal_ex(ctx, sha1, NULL) != 1)
		fatal(FATAL_SOFTWARE, "libcrypto refuses SHA-1 (name-based UUIDs need it)");
	EVP_MD_CTX_free(ctx);
	memcpy(ret, sha1, 16);
	ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x50);
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

void digest_hmac(const void *key, size_t n_key, const void *p, size_t n, uint8_t ret[DIGEST_SIZE])
{
	unsigned n_ret = DIGEST_SIZE;

	if (n_key > INT_MAX || HMAC(EVP_sha256(), key, (int)n_key, p, n, ret, &n_ret) == NULL)
		fatal(FATAL_SOFTWARE, "libcrypto refuses HMAC-SHA-256");
}

int uuid_parse(const char *text, uint8_t ret[16])
{
	char hex[33];
	size_t i, n = 0;

	if (strlen(text) != 36)
		return -EBADMSG;
	for (i = 0; i < 36; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return -EBADMSG;
			continue;
		}
		hex[n++] = text[i];
	}
	hex[n] = '\0';
	return str_unhex(ret, 16, hex) ? 0 : -EBADMSG;
}

void uuid_text(const uint8_t uuid[16], char ret[37])
{
	char hex[33];

	str_hex(hex, uuid, 16);
	(void)snprintf(ret, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		       hex + 20);
}

/* 128 bits to decimal: divide the big-endian bytes by ten until nothing is left. */
void uid_from_uuid(const uint8_t uuid[16], char ret[UID_MAX])
{
	uint8_t n[16];
	char digits[40];
	size_t k = sizeof(digits), i;
	bool more = true;

	memcpy(n, uuid, sizeof(n));
	digits[--k] = '\0';
	while (more) {
		unsigned rest = 0;

		more = false;
		for (i = 0; i < sizeof(n); i++) {
			rest = rest * 256 + n[i];
			n[i] = (uint8_t)(rest / 10);
			rest %= 10;
			more |= n[i] != 0;
		}
		digits[--k] = (char)('0' + rest);
	}
	(void)snprintf(ret, UID_MAX, "2.25.%s", digits + k);
}

void uid_from_name(const uint8_t namespace_id[16], const char *name, char ret[UID_MAX])
{
	uint8_t uuid[16];

	uuid5(namespace_id, name, uuid);
	uid_from_uuid(uuid, ret);
}
