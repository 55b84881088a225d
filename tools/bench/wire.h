/* wire.h: as much of PS3.7 and PS3.8 as load and sink need: bytes in and out of one buffer. */
#ifndef CARZEROD_TOOLS_BENCH_WIRE_H
#define CARZEROD_TOOLS_BENCH_WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define APPLICATION "1.2.840.10008.3.1.1.1"
#define VERIFICATION "1.2.840.10008.1.1"
#define IMPLICIT "1.2.840.10008.1.2"
#define PDU_BYTES 131072

enum { ASSOCIATE_RQ = 1, ASSOCIATE_AC = 2, P_DATA = 4, RELEASE_RQ = 5, RELEASE_RP = 6 };
enum { C_STORE_RQ = 0x0001, C_STORE_RSP = 0x8001, C_ECHO_RQ = 0x0030, C_ECHO_RSP = 0x8030 };

struct bytes {
	uint8_t p[4096];
	size_t n;
};

static inline void put(struct bytes *b, const void *p, size_t n)
{
	if (n > sizeof(b->p) - b->n)
		abort(); /* nothing that is sent from here comes near */
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

static inline void put_be(struct bytes *b, uint64_t v, unsigned width)
{
	while (width-- > 0)
		put(b, &(uint8_t){ (uint8_t)(v >> (8 * width)) }, 1);
}

static inline void put_le(struct bytes *b, uint64_t v, unsigned width)
{
	for (; width-- > 0; v >>= 8)
		put(b, &(uint8_t){ (uint8_t)v }, 1);
}

static inline void set_be32(uint8_t *p, size_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * (3 - i)));
}

static inline uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t get_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void put_item(struct bytes *b, unsigned type, const char *text)
{
	put_be(b, type << 8, 2);
	put_be(b, strlen(text), 2);
	put(b, text, strlen(text));
}

/* What PS3.8 9.3.2 calls the user information: our largest PDU and a class UID. */
static inline void put_user(struct bytes *b)
{
	static const char implementation[] = "2.25.290186340213455";

	put_be(b, 0x5000, 2);
	put_be(b, 8 + 4 + sizeof(implementation) - 1, 2);
	put_be(b, 0x51000004, 4);
	put_be(b, PDU_BYTES, 4);
	put_item(b, 0x52, implementation);
}

static inline size_t begin_pdu(struct bytes *b, unsigned type)
{
	size_t at = b->n;

	put_be(b, type << 8, 2);
	put_be(b, 0, 4);
	return at;
}

static inline void end_pdu(struct bytes *b, size_t at)
{
	set_be32(b->p + at + 2, b->n - at - 6);
}

/* An element of a command set (PS3.7 6.3.1): implicit VR, group 0000. */
static inline void put_number(struct bytes *b, unsigned element, uint64_t v, unsigned width)
{
	put_le(b, element << 16, 4);
	put_le(b, width, 4);
	put_le(b, v, width);
}

static inline void put_uid(struct bytes *b, unsigned element, const char *uid)
{
	size_t n = strlen(uid);

	put_le(b, element << 16, 4);
	put_le(b, n + n % 2, 4);
	put(b, uid, n);
	put(b, "", n % 2);
}

struct message {
	unsigned field, id, to; /* `to`: the message that is answered */
	unsigned status;
	char sop_class[65], sop_uid[65];
};

/* One P-DATA PDU with a whole command. */
static inline void put_command(struct bytes *b, unsigned context, const struct message *m)
{
	size_t pdu = begin_pdu(b, P_DATA), pdv = b->n, group;
	bool answer = (m->field & 0x8000) != 0;

	put_be(b, 0, 4);
	put_be(b, context, 1);
	put_be(b, 3, 1); /* a command, its last fragment */
	put_number(b, 0x0000, 0, 4);
	group = b->n;
	put_uid(b, 0x0002, m->sop_class);
	put_number(b, 0x0100, m->field, 2);
	put_number(b, answer ? 0x0120 : 0x0110, answer ? m->to : m->id, 2);
	if (m->field == C_STORE_RQ)
		put_number(b, 0x0700, 0, 2);
	put_number(b, 0x0800, m->field == C_STORE_RQ ? 0 : 0x0101, 2);
	if (answer)
		put_number(b, 0x0900, m->status, 2);
	if (m->sop_uid[0] != '\0')
		put_uid(b, 0x1000, m->sop_uid);
	for (unsigned i = 0; i < 4; i++)
		b->p[group - 4 + i] = (uint8_t)((b->n - group) >> (8 * i));
	set_be32(b->p + pdv, b->n - pdv - 4);
	end_pdu(b, pdu);
}

static inline void take_uid(char ret[65], const uint8_t *p, size_t n)
{
	n = n < 64 ? n : 64;
	memcpy(ret, p, n);
	ret[n] = '\0';
}

static inline bool read_command(const uint8_t *p, size_t n, struct message *ret)
{
	memset(ret, 0, sizeof(*ret));
	while (n >= 8) {
		unsigned element = p[2] | (unsigned)p[3] << 8;
		size_t length = get_le32(p + 4);
		unsigned v;

		if (length > n - 8)
			return false;
		v = length >= 2 ? p[8] | (unsigned)p[9] << 8 : 0;
		if (element == 0x0100)
			ret->field = v;
		else if (element == 0x0110)
			ret->id = v;
		else if (element == 0x0120)
			ret->to = v;
		else if (element == 0x0900)
			ret->status = v;
		else if (element == 0x0002)
			take_uid(ret->sop_class, p + 8, length);
		else if (element == 0x1000)
			take_uid(ret->sop_uid, p + 8, length);
		p += 8 + length;
		n -= 8 + length;
	}
	return n == 0;
}

static inline bool say_all(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n > 0) {
		ssize_t put_n = send(fd, at, n, MSG_NOSIGNAL);

		if (put_n < 0 && errno == EINTR)
			continue;
		if (put_n <= 0)
			return false;
		at += put_n;
		n -= (size_t)put_n;
	}
	return true;
}

#endif
