/* test_commitment.c: the small data sets of storage commitment, both ways, in both VRs.
 */
#include <errno.h>

#include "base/mem.h"

#include "dicom/commitment.h"
#include "dicom/flat.h"

#include "tests/tap.h"

#define CLASS "1.2.840.10008.5.1.4.1.1.88.33"

static void test_round_trip(bool explicit_vr)
{
	struct commitment asked = { .transaction = "2.25.123", .n = 1 }, got;
	uint8_t bytes[COMMITMENT_WRITE_MAX];
	size_t n, i, bad = 0;

	(void)str_copy(asked.item[0].sop_class, UID_MAX, CLASS);
	(void)str_copy(asked.item[0].sop_uid, UID_MAX, "2.25.4567");
	n = commitment_write(&asked, explicit_vr, bytes);
	ok(n > 0 && n % 2 == 0, "written: %zu bytes", n);
	is_int(commitment_read(bytes, n, explicit_vr, &got), 0, "read again");
	is_str(got.transaction, asked.transaction, "the transaction");
	ok(got.n == 1 && strcmp(got.item[0].sop_uid, "2.25.4567") == 0 && strcmp(got.item[0].sop_class, CLASS) == 0 &&
	   !got.item[0].failed, "and its object");
	for (i = 0; i < n; i++) /* cut anywhere: an error, or fewer items, and never one that was not there */
		if (commitment_read(bytes, i, explicit_vr, &got) == 0 && got.n > 0 && strcmp(got.item[0].sop_uid, "2.25.4567") != 0)
			bad++;
	is_int(bad, 0, "cut anywhere");
	asked.n = COMMITMENT_ITEMS_MAX;
	for (i = 1; i < asked.n; i++)
		asked.item[i] = asked.item[0];
	is_int(commitment_write(&asked, explicit_vr, bytes), 0, "what does not fit is not written by half");
}

/* A sequence of defined lengths, as some archives write it. */
static size_t put(uint8_t *p, uint16_t element, const char *vr, const void *value, size_t n, bool explicit_vr)
{
	const uint8_t tag[4] = { 8, 0, (uint8_t)element, (uint8_t)(element >> 8) };
	size_t at = 4;

	memcpy(p, tag, 4);
	if (explicit_vr) {
		memcpy(p + at, vr, 2);
		at += 2;
		if (strcmp(vr, "SQ") == 0) {
			memset(p + at, 0, 2);
			at += 2;
		}
	}
	p[at++] = (uint8_t)n;
	p[at++] = (uint8_t)(n >> 8);
	if (!explicit_vr || strcmp(vr, "SQ") == 0) {
		p[at++] = 0;
		p[at++] = 0;
	}
	if (n > 0)
		memcpy(p + at, value, n);
	return at + n;
}

static size_t item(uint8_t *p, const char *uid, const uint8_t *reason, bool explicit_vr)
{
	uint8_t inside[256];
	size_t n = put(inside, 0x1150, "UI", CLASS "\0", sizeof(CLASS), explicit_vr);

	n += put(inside + n, 0x1155, "UI", uid, strlen(uid), explicit_vr);
	if (reason != NULL)
		n += put(inside + n, 0x1197, "US", reason, 2, explicit_vr);
	memcpy(p, "\xfe\xff\x00\xe0", 4);
	p[4] = (uint8_t)n;
	p[5] = p[6] = p[7] = 0;
	memcpy(p + 8, inside, n);
	return n + 8;
}

static void test_partial_failure(bool explicit_vr)
{
	static const uint8_t lost[] = { 0x12, 0x01 }, full[] = { 0x13, 0x02 };
	uint8_t failed[1024], kept[1024], bytes[4096];
	struct commitment got;
	size_t n, n_failed, n_kept;

	n_failed = item(failed, "1.2.34", lost, explicit_vr);
	n_failed += item(failed + n_failed, "1.2.35", full, explicit_vr);
	n_kept = item(kept, "1.2.36", NULL, explicit_vr);
	n_kept += item(kept + n_kept, "1.2.3..", NULL, explicit_vr); /* no UID */
	n = put(bytes, 0x1195, "UI", "2.25.99\0", 8, explicit_vr);
	n += put(bytes + n, 0x1198, "SQ", failed, n_failed, explicit_vr);
	n += put(bytes + n, 0x1199, "SQ", kept, n_kept, explicit_vr);
	is_int(commitment_read(bytes, n, explicit_vr, &got), 0, "some kept, some not");
	is_int(got.n, 3, "three objects with a UID");
	ok(got.item[0].failed && got.item[0].reason == 0x0112 && strcmp(got.item[0].sop_uid, "1.2.34") == 0, "lost");
	ok(got.item[1].failed && got.item[1].reason == 0x0213 && strcmp(got.item[1].sop_uid, "1.2.35") == 0, "no room");
	ok(!got.item[2].failed && strcmp(got.item[2].sop_uid, "1.2.36") == 0, "kept");
}

static void test_bad(void)
{
	static const char no_transaction[] = "\x08\x00\x18\x00UI\x04\x00" "1.2\0";
	struct commitment got;
	uint8_t many[8192];
	size_t n = put(many, 0x1195, "UI", "1.2\0", 4, true), i;

	is_int(commitment_read("", 0, true, &got), -EBADMSG, "nothing");
	is_int(commitment_read(no_transaction, sizeof(no_transaction) - 1, true, &got), -EBADMSG, "no transaction");
	memcpy(many + n, "\x08\x00\x99\x11SQ\0\0\xff\xff\xff\xff", 12);
	for (n += 12, i = 0; i < COMMITMENT_ITEMS_MAX + 5; i++)
		n += item(many + n, "1.2.34", NULL, true);
	is_int(commitment_read(many, n, true, &got), 0, "more than we keep");
	is_int(got.n, COMMITMENT_ITEMS_MAX, "the first of them");
}

int main(void)
{
	test_round_trip(true);
	test_round_trip(false);
	test_partial_failure(true);
	test_partial_failure(false);
	test_bad();
	return done();
}
