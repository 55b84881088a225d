/* command.h: DIMSE command sets (PS3.7 6.3 and annex E) of the services that we speak: C-ECHO,
 * C-STORE, C-FIND, C-MOVE, Storage Commitment's N-ACTION and N-EVENT-REPORT, and their answers.  Pure C, bounded, no dictionary.
 *
 * A command set is implicit VR little endian, whatever the context's transfer syntax.  DCMTK parses
 * it as a data set: any length, any nesting, recursively.  This reader takes flat elements of group
 * 0000 in ascending order and nothing else.
 */
#ifndef CARZEROD_DICOM_COMMAND_H
#define CARZEROD_DICOM_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMMAND_BYTES_MAX 16384 /* of a command that we read; real ones have about 200 */
#define COMMAND_WRITE_MAX 512   /* of a command that we write */
#define COMMAND_COMMENT_MAX 65  /* LO: 64 characters, and our NUL */

enum {
	COMMAND_C_STORE_RQ = 0x0001,
	COMMAND_C_STORE_RSP = 0x8001,
	COMMAND_C_FIND_RQ = 0x0020,
	COMMAND_C_FIND_RSP = 0x8020,
	COMMAND_C_MOVE_RQ = 0x0021,
	COMMAND_C_MOVE_RSP = 0x8021,
	COMMAND_N_EVENT_RQ = 0x0100,
	COMMAND_N_EVENT_RSP = 0x8100,
	COMMAND_N_ACTION_RQ = 0x0130,
	COMMAND_N_ACTION_RSP = 0x8130,
	COMMAND_C_ECHO_RQ = 0x0030,
	COMMAND_C_ECHO_RSP = 0x8030,
	COMMAND_RSP = 0x8000, /* the bit that makes an answer */
};

struct command {
	uint16_t field;
	uint16_t message_id;      /* (0000,0110) of a request, (0000,0120) of an answer */
	uint16_t status;          /* answers only */
	uint16_t kind;            /* (0000,1002) of an event, (0000,1008) of an action */
	bool data_set;            /* a data set follows */
	uint16_t remaining, completed, failed, warned; /* (0000,1020) and following, of a C-MOVE's answer; never written */
	char destination[AE_TITLE_MAX]; /* (0000,0600) of a C-MOVE; never read */
	char sop_class[UID_MAX];  /* affected or requested; "" when missing or malformed */
	char sop_uid[UID_MAX];    /* "" when missing or malformed */
	char comment[COMMAND_COMMENT_MAX]; /* (0000,0902), written when not ""; never read */
};

/* -EBADMSG when the bytes are no command set or lack what every command has. */
int command_read(const void *bytes, size_t n, struct command *ret);
/* Returns the length. */
size_t command_write(const struct command *c, uint8_t out[COMMAND_WRITE_MAX]);

#ifdef __cplusplus
}
#endif
#endif
