/* commitment.c: see commitment.h. */
#include <errno.h>
#include <string.h>

#include "dicom/commitment.h"
#include "dicom/flat.h"

#define TRANSACTION_UID 0x00081195u
#define FAILED_SEQUENCE 0x00081198u
#define REFERENCED_SEQUENCE 0x00081199u
#define FAILURE_REASON 0x00081197u
#define REFERENCED_CLASS 0x00081150u
#define REFERENCED_UID 0x00081155u

size_t commitment_write(const struct commitment *c, bool explicit_vr, uint8_t out[COMMITMENT_WRITE_MAX])
{
	struct flat_out o = { .p = out, .size = COMMITMENT_WRITE_MAX, .explicit_vr = explicit_vr };
	size_t i;

	flat_put_text(&o, TRANSACTION_UID, "UI", c->transaction);
	flat_put_sequence(&o, REFERENCED_SEQUENCE);
	for (i = 0; i < c->n; i++) {
		flat_put_item(&o);
		flat_put_text(&o, REFERENCED_CLASS, "UI", c->item[i].sop_class);
		flat_put_text(&o, REFERENCED_UID, "UI", c->item[i].sop_uid);
		flat_put_item_end(&o);
	}
	flat_put_sequence_end(&o);
	return o.full ? 0 : o.n;
}

/* NULL: there are as many as we keep. */
static struct commitment_item *next_item(struct commitment *c, bool failed)
{
	struct commitment_item *item;

	if (c->n == COMMITMENT_ITEMS_MAX)
		return NULL;
	item = &c->item[c->n++];
	memset(item, 0, sizeof(*item));
	item->failed = failed;
	return item;
}

static void get_uid(const struct flat_element *e, char ret[UID_MAX])
{
	if (!flat_text(e, ret, UID_MAX) || !uid_valid(ret))
		ret[0] = '\0';
}

static void drop_incomplete(struct commitment *c)
{
	size_t i, kept = 0;

	for (i = 0; i < c->n; i++)
		if (c->item[i].sop_uid[0] != '\0')
			c->item[kept++] = c->item[i];
	c->n = kept;
}

/* Inside a sequence items are told apart by what they contain: class, UID, reason come once in each
 * and in ascending order of tags (PS3.5 7.1). */
int commitment_read(const void *p, size_t n, bool explicit_vr, struct commitment *ret)
{
	struct flat f = flat_of(p, n, explicit_vr);
	struct commitment c = { .transaction = "" };
	struct commitment_item *item = NULL;
	bool inside = false, failed = false;
	uint32_t last = 0;
	struct flat_element e;
	int r;

	if (n > COMMITMENT_BYTES_MAX)
		return -EBADMSG;
	while ((r = flat_next(&f, &e)) > 0) {
		switch (e.tag) {
		case TRANSACTION_UID:
			get_uid(&e, c.transaction);
			break;
		case FAILED_SEQUENCE:
		case REFERENCED_SEQUENCE:
			inside = true;
			failed = e.tag == FAILED_SEQUENCE;
			item = NULL;
			last = 0;
			flat_enter(&f);
			continue;
		case REFERENCED_CLASS:
		case REFERENCED_UID:
		case FAILURE_REASON:
			if (!inside)
				break;
			if (item == NULL || e.tag <= last)
				item = next_item(&c, failed);
			last = e.tag;
			if (item == NULL)
				break;
			if (e.tag == REFERENCED_CLASS)
				get_uid(&e, item->sop_class);
			else if (e.tag == REFERENCED_UID)
				get_uid(&e, item->sop_uid);
			else
				(void)buf_get_u16(&e.value, false, &item->reason); /* 0 when malformed */
			break;
		default:
			break;
		}
	}
	if (r < 0 || c.transaction[0] == '\0')
		return -EBADMSG;
	drop_incomplete(&c);
	*ret = c;
	return 0;
}
