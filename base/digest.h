/* digest.h: SHA-256, and names that become UIDs.
 *
 * The one door to libcrypto outside TLS.  Digests identify bytes; they never authenticate a person.
 */
#ifndef CARZEROD_BASE_DIGEST_H
#define CARZEROD_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define DIGEST_SIZE 32
#define DIGEST_HEX_MAX (2 * DIGEST_SIZE + 1)

struct digest; /* a running SHA-256 */

struct digest *digest_new(void); /* never NULL */
void digest_free(struct digest *d);
void digest_update(struct digest *d, const void *p, size_t n);
/* Ends the computation; `d` may only be freed or reset afterwards. */
void digest_final(struct digest *d, uint8_t ret[DIGEST_SIZE]);
void digest_reset(struct digest *d);

static inline void cleanup_digest_free(struct digest **d)
{
	digest_free(*d);
}

void digest_of(const void *p, size_t n, uint8_t ret[DIGEST_SIZE]);
/* Digest of a whole file from `from` to its end, read through a bounded buffer. */
int digest_fd(int fd, uint64_t from, uint8_t ret[DIGEST_SIZE]);

/* RFC 2104 with SHA-256. */
void digest_hmac(const void *key, size_t n_key, const void *p, size_t n, uint8_t ret[DIGEST_SIZE]);

/* RFC 9562 5.5: the name-based UUID (SHA-1) of `name` in `namespace`. */
void uuid5(const uint8_t namespace_id[16], const char *name, uint8_t ret[16]);
/* "xxxxxxxx-xxxx-..." to bytes; 0 or -EBADMSG. */
int uuid_parse(const char *text, uint8_t ret[16]);
void uuid_text(const uint8_t uuid[16], char ret[37]);
/* PS3.5 B.2: "2.25." and the UUID as one decimal number. */
void uid_from_uuid(const uint8_t uuid[16], char ret[UID_MAX]);
/* uuid5 and uid_from_uuid in one step. */
void uid_from_name(const uint8_t namespace_id[16], const char *name, char ret[UID_MAX]);

#endif
