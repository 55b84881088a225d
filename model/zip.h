/* zip.h: the directory of a zip archive whose members are stored, not compressed.
 *
 * That is what PyTorch writes, and all that is read: a compressed or encrypted member is an error,
 * so there is nothing to inflate and no archive can be larger inside than outside.  Our own reading,
 * not a library's, because the tensors must be used where they lie (mapped, 64-byte aligned), because
 * PyTorch leaves sizes out of the local headers, and because 200 lines with every bound in sight are
 * easier to trust here than a general archiver.
 *
 * Sizes and checksums come from the central directory, zip64 included.  After a successful open no
 * member reaches outside the archive and no two overlap; names are unique.  Names and data point into
 * the caller's bytes.
 */
#ifndef CARZEROD_MODEL_ZIP_H
#define CARZEROD_MODEL_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define ZIP_MEMBERS_MAX 65536 /* with the optimizer's state about 1,300 */

struct zip_member {
	const char *name; /* name_len bytes, no NUL */
	size_t name_len;
	const uint8_t *data;
	size_t size;
	uint32_t crc32;
};

struct zip;

/* `what` is what errors call the bytes. */
int zip_open(const void *p, size_t n, const char *what, struct zip **ret, struct err *e);
void zip_close(struct zip *z); /* NULL allowed */

size_t zip_count(const struct zip *z);
const struct zip_member *zip_member(const struct zip *z, size_t i); /* by name */
const struct zip_member *zip_find(const struct zip *z, const char *name, size_t len); /* or NULL */

/* CRC-32 as zip uses it; start with 0. */
uint32_t zip_crc32(uint32_t crc, const void *p, size_t n);

#endif
