/* commitment.h: the data sets of Storage Commitment, Push Model (PS3.4 annex J), pure C, bounded.
 *
 * We ask (N-ACTION) for one object in a transaction; an archive tells (N-EVENT-REPORT) about as many
 * as it likes, of which the first COMMITMENT_ITEMS_MAX are kept.
 */
#ifndef CARZEROD_DICOM_COMMITMENT_H
#define CARZEROD_DICOM_COMMITMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMMITMENT_SOP_CLASS "1.2.840.10008.1.20.1"
#define COMMITMENT_SOP_UID "1.2.840.10008.1.20.1.1" /* well-known instance */
#define COMMITMENT_ITEMS_MAX 16
#define COMMITMENT_BYTES_MAX 65536 /* of an N-EVENT-REPORT's data set */
#define COMMITMENT_WRITE_MAX 512
#define COMMITMENT_ACTION 1        /* Request Storage Commitment */

struct commitment_item {
	char sop_class[UID_MAX], sop_uid[UID_MAX];
	bool failed;
	uint16_t reason; /* (0008,1197) of one that failed */
};

struct commitment {
	char transaction[UID_MAX];
	size_t n; /* kept */
	struct commitment_item item[COMMITMENT_ITEMS_MAX];
};

/* The length written; what is asked for are the items. */
size_t commitment_write(const struct commitment *c, bool explicit_vr, uint8_t out[COMMITMENT_WRITE_MAX]);
/* -EBADMSG: no data set, or without a valid Transaction UID.  Items with malformed UIDs are left out. */
int commitment_read(const void *p, size_t n, bool explicit_vr, struct commitment *ret);
/* (0008,1197) in an operator's words: PS3.3 C.14.1.1. */
const char *commitment_reason(uint16_t reason);

#ifdef __cplusplus
}
#endif
#endif
