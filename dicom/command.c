/* command.c: see command.h.
 *
 * Job: a command set to a struct and back.
 * Promise: reads every byte through base/buf.h; a malformed UID comes out as "", so that the caller
 * can answer 0117H instead of ending the association, and is never echoed to the peer.
 * Never: allocates, recurses, keeps text of the peer other than valid UIDs.
 */
#include <errno.h>
#include <string.h>

#include "base/buf.h"

#include "dicom/command.h"

enum {
	E_GROUP_LENGTH = 0x0000,
	E_SOP_CLASS = 0x0002,
	E_REQUESTED_CLASS = 0x0003,
	E_FIELD = 0x0100,
	E_MESSAGE_ID = 0x0110,
	E_RESPONDED_ID = 0x0120,
	E_DESTINATION = 0x0600,
	E_PRIORITY = 0x0700,
	E_DATA_SET_TYPE = 0x0800,
	E_STATUS = 0x0900,
	E_COMMENT = 0x0902,
	E_SOP_UID = 0x1000,
	E_REQUESTED_UID = 0x1001,
	E_EVENT_TYPE = 0x1002,
	E_ACTION_TYPE = 0x1008,
	E_REMAINING = 0x1020,
	E_COMPLETED = 0x1021,
	E_FAILED = 0x1022,
	E_WARNED = 0x1023,
};

#define NO_DATA_SET 0x0101 /* PS3.7 E.1: this value alone means that none follows */
#define DATA_SET 0x0001

static int get_short(struct buf *value, uint16_t *ret)
{
	return value->left == 2 ? buf_get_u16(value, false, ret) : -EBADMSG;
}

static void get_uid(const struct buf *value, char ret[UID_MAX])
{
	size_t n = value->left;

	/* More than 64 bytes is malformed, not something to cut: a cut UID names another object. */
	if (n > UID_MAX - 1 || !str_copy_padded(ret, UID_MAX, value->p, n) || !uid_valid(ret))
		ret[0] = '\0';
}

int command_read(const void *bytes, size_t n, struct command *ret)
{
	struct buf b = buf_of(bytes, n);
	struct command c = { 0 };
	bool field = false, id = false, type = false, status = false;
	int last = -1;

	if (n > COMMAND_BYTES_MAX)
		return -EBADMSG;
	while (b.left > 0) {
		struct buf value;
		const uint8_t *span;
		uint16_t group, element, short_value = 0;
		uint32_t length;
		int r = 0;

		if (buf_get_u16(&b, false, &group) < 0 || buf_get_u16(&b, false, &element) < 0 ||
		    buf_get_u32(&b, false, &length) < 0 || buf_get_span(&b, &span, length) < 0)
			return -EBADMSG;
		if (group != 0 || element <= last)
			return -EBADMSG;
		last = element;
		value = buf_of(span, length);
		switch (element) {
		case E_SOP_CLASS:
		case E_REQUESTED_CLASS:
			get_uid(&value, c.sop_class);
			break;
		case E_SOP_UID:
		case E_REQUESTED_UID:
			get_uid(&value, c.sop_uid);
			break;
		case E_FIELD:
			r = get_short(&value, &c.field);
			field = true;
			break;
		case E_MESSAGE_ID:
		case E_RESPONDED_ID:
			r = get_short(&value, &c.message_id);
			id = true;
			break;
		case E_DATA_SET_TYPE:
			r = get_short(&value, &short_value);
			c.data_set = short_value != NO_DATA_SET;
			type = true;
			break;
		case E_STATUS:
			r = get_short(&value, &c.status);
			status = true;
			break;
		case E_EVENT_TYPE:
		case E_ACTION_TYPE:
			r = get_short(&value, &c.kind);
			break;
		case E_REMAINING:
			r = get_short(&value, &c.remaining);
			break;
		case E_COMPLETED:
			r = get_short(&value, &c.completed);
			break;
		case E_FAILED:
			r = get_short(&value, &c.failed);
			break;
		case E_WARNED:
			r = get_short(&value, &c.warned);
			break;
		default:
			break;
		}
		if (r < 0)
			return r;
	}
	if (!field || !id || !type || ((c.field & COMMAND_RSP) != 0 && !status))
		return -EBADMSG;
	*ret = c;
	return 0;
}

static size_t put_u16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	return 2;
}

static size_t put_head(uint8_t *p, unsigned element, size_t length)
{
	(void)put_u16(p, 0);
	(void)put_u16(p + 2, element);
	(void)put_u16(p + 4, (unsigned)length & 0xffff);
	(void)put_u16(p + 6, (unsigned)(length >> 16));
	return 8;
}

static size_t put_short(uint8_t *p, unsigned element, unsigned v)
{
	size_t n = put_head(p, element, 2);

	return n + put_u16(p + n, v);
}

/* Padded to even length: UIDs with NUL, text with a space (PS3.5 6.2). */
static size_t put_text(uint8_t *p, unsigned element, const char *text, uint8_t pad)
{
	size_t length = strlen(text), n = put_head(p, element, length + length % 2);

	memcpy(p + n, text, length);
	n += length;
	if (length % 2 != 0)
		p[n++] = pad;
	return n;
}

size_t command_write(const struct command *c, uint8_t out[COMMAND_WRITE_MAX])
{
	bool answer = (c->field & COMMAND_RSP) != 0, requested = c->field == COMMAND_N_ACTION_RQ;
	bool ranked = c->field == COMMAND_C_STORE_RQ || c->field == COMMAND_C_FIND_RQ || c->field == COMMAND_C_MOVE_RQ;
	size_t n = 12; /* group length: known at the end */

	if (c->sop_class[0] != '\0')
		n += put_text(out + n, requested ? E_REQUESTED_CLASS : E_SOP_CLASS, c->sop_class, '\0');
	n += put_short(out + n, E_FIELD, c->field);
	n += put_short(out + n, answer ? E_RESPONDED_ID : E_MESSAGE_ID, c->message_id);
	if (c->destination[0] != '\0')
		n += put_text(out + n, E_DESTINATION, c->destination, ' ');
	if (ranked)
		n += put_short(out + n, E_PRIORITY, 0); /* medium */
	n += put_short(out + n, E_DATA_SET_TYPE, c->data_set ? DATA_SET : NO_DATA_SET);
	if (answer)
		n += put_short(out + n, E_STATUS, c->status);
	if (answer && c->comment[0] != '\0')
		n += put_text(out + n, E_COMMENT, c->comment, ' ');
	if (c->sop_uid[0] != '\0')
		n += put_text(out + n, requested ? E_REQUESTED_UID : E_SOP_UID, c->sop_uid, '\0');
	if (c->kind != 0)
		n += put_short(out + n, requested ? E_ACTION_TYPE : E_EVENT_TYPE, c->kind);
	(void)put_head(out, E_GROUP_LENGTH, 4);
	(void)put_u16(out + 8, (unsigned)(n - 12));
	(void)put_u16(out + 10, 0);
	return n;
}
