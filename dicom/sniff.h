/* sniff.h: the few header elements that the receiver must know, read in bounded pure C from the
 * first bytes of a data set.  Nothing is decoded, nothing recursed: sequences are skipped by length
 * or walked with a counter.
 */
#ifndef CARZEROD_DICOM_SNIFF_H
#define CARZEROD_DICOM_SNIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define SNIFF_BYTES_MAX 65536 /* of the data set's start that are looked at */

struct sniff {
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX];
};

enum sniff_syntax { SNIFF_IMPLICIT_LE, SNIFF_EXPLICIT_LE, SNIFF_EXPLICIT_BE };

/* head: the first n bytes of the data set (n <= SNIFF_BYTES_MAX); `whole`: nothing follows them.
 * 0: all four UIDs found and valid.  -ENODATA: one of them is missing or malformed (ret holds those
 * found).  -EBADMSG: the bytes are not a data set in this syntax. */
int sniff_header(const void *head, size_t n, bool whole, enum sniff_syntax syntax, struct sniff *ret);

#endif
