/* command.h: DIMSE command sets (PS3.7 6.3 and annex E) of the three services that we speak: C-ECHO,
 * C-STORE, and their answers.  Pure C, bounded, no dictionary.
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
	COMMAND_C_ECHO_RQ = 0x0030,
	COMMAND_C_ECHO_RSP = 0x8030,
	COMMAND_RSP = 0x8000, /* the bit that makes an answer */
};

struct command {
	uint16_t field;
	uint16_t message_id;      /* (0000,0110) of a request, (0000,0120) of an answer */
	uint16_t status;          /* answers only */
	bool data_set;            /* a data set follows */
	char sop_class[UID_MAX];  /* "" when missing or malformed */
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
