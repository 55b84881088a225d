/* sniff.h: the four UIDs that the receiver must know, and the Study Date that it may, read in bounded pure C from a data set as it
 * streams by.  Nothing is decoded, nothing recursed, nothing kept: values that do not matter are
 * skipped by length, sequences of undefined length are walked with a counter.
 *
 * The reader is as strict as a receiver may be: ascending tags at the top level (a second Study
 * Instance UID would leave open which one counts), known VRs, proper nesting.
 */
#ifndef CARZEROD_DICOM_SNIFF_H
#define CARZEROD_DICOM_SNIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SNIFF_DEPTH_MAX 16           /* of sequences and items together */
#define SNIFF_ELEMENTS_MAX 20000     /* looked at before Series Instance UID is passed */
#define SNIFF_INFLATED_MAX (16 << 20) /* of a deflated data set */
#define SNIFF_BYTES_MAX 65536        /* what callers of sniff_header() usually hold */

struct sniff {
	char sop_class[UID_MAX], sop_uid[UID_MAX], study_uid[UID_MAX], series_uid[UID_MAX];
	uint32_t study_date; /* YYYYMMDD as a number; 0: none, or no date */
};

enum sniff_syntax { SNIFF_IMPLICIT_LE, SNIFF_EXPLICIT_LE, SNIFF_EXPLICIT_BE, SNIFF_DEFLATED };

/* How a transfer syntax writes its data set: everything encapsulated is explicit little endian. */
enum sniff_syntax sniff_syntax_of(const char *transfer_syntax_uid);

struct sniffer; /* one data set passing by */

struct sniffer *sniffer_new(enum sniff_syntax syntax); /* NULL: no memory */
void sniffer_free(struct sniffer *s);
/* The next n bytes.  True while more are wanted; after that feeding costs nothing. */
bool sniffer_feed(struct sniffer *s, const void *p, size_t n);
/* The verdict; `whole`: the data set has ended.
 * 0: all four UIDs found and valid.  -ENODATA: one of them is missing or malformed (ret holds those
 * found).  -EBADMSG: the bytes are not a data set in this syntax, or break off. */
int sniffer_end(const struct sniffer *s, bool whole, struct sniff *ret);

/* The same for n bytes from a data set's start; also -ENOMEM. */
int sniff_header(const void *head, size_t n, bool whole, enum sniff_syntax syntax, struct sniff *ret);

#ifdef __cplusplus
}
#endif
#endif
