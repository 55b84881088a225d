/* spooled.h: the head of a stored file, written before the data set streams in and sealed after.
 *
 * 128 zero bytes and "DICM" (PS3.10 7.1; a peer's preamble could make the file a program as well),
 * then our own File Meta.  Its private element (0002,0102) is reserved as zeroes and filled by
 * spooled_seal() just before the fsync, so a file that was not finished says so by itself.
 */
#ifndef CARZEROD_DICOM_SPOOLED_H
#define CARZEROD_DICOM_SPOOLED_H

#include <stddef.h>
#include <stdint.h>

#include "dicom/scp.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SPOOLED_HEAD_MAX 1024

/* Where spooled_begin() left things. */
struct spooled_place {
	uint64_t data_set; /* offset of the data set */
	uint64_t seal;     /* offset of the private element's value */
};

/* Writes the head at the start of an empty file, from head's sop_class, sop_uid, syntax and
 * calling_ae; the file position is at the data set then. */
int spooled_begin(int fd, const struct spooled *head, struct spooled_place *ret);
/* Fills length and digest in.  fsync is the caller's. */
int spooled_seal(int fd, const struct spooled_place *place, uint64_t size,
		 const uint8_t digest[DIGEST_SIZE]);

/* Whether objects of this class are analysed: CR, DX, grey Secondary Capture.  Others are set aside. */
bool spooled_is_analysed(const char *sop_class);
const char *spooled_analysed_class(size_t i); /* NULL after the last */

/* The File Meta of any Part 10 file in memory: class, instance, syntax and the data set's offset.
 * -EBADMSG. */
int part10_head(const void *file, size_t n, struct spooled *ret);

#ifdef __cplusplus
}
#endif
#endif
