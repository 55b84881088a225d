/* embedding.h: what the network made of one picture, as a file that explains itself:
 * spool/embeddings/XX/ID, named by the column instance.embedding.
 *
 * A head of EMBEDDING_HEAD bytes (which object, which weights, recipe, precision and program, rows and columns,
 * SHA-256 of the numbers, SHA-256 of the head), then rows x columns numbers of model/half.h's form.  All in
 * the machine's byte order: on another machine the magic does not fit, as with any other file.
 *
 * A file that is torn, of another version or another form is -EBADMSG: not an error but a miss, an object that cannot be
 * scored again without its picture.  It is derived from a patient's picture and goes when the object's row goes.
 */
#ifndef CARZEROD_STORE_EMBEDDING_H
#define CARZEROD_STORE_EMBEDDING_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

#define EMBEDDING_HEAD 240
#define EMBEDDING_ROWS_MAX 4097 /* a map of 64 x 64, and one for the whole */
#define EMBEDDING_COLUMNS_MAX 4096

struct embedding {
	uint64_t object;               /* spool id of the object's file, */
	uint8_t digest[DIGEST_SIZE];   /* SHA-256 of its data set */
	uint8_t weights[DIGEST_SIZE];  /* what made the numbers: bundle, */
	char recipe[16], precision[8]; /* how the picture was prepared, how the tower computed, */
	char version[32];              /* and the program */
	uint32_t rows, columns;
};

/* values: [rows][columns].  Writes the whole file from its start; the caller syncs it. */
int embedding_write(int fd, const struct embedding *e, const uint16_t *values);
/* The head alone, its digest checked, and the file's length.  -EBADMSG; a negative errno when reading fails. */
int embedding_read_head(int fd, struct embedding *ret);
/* The numbers that belong to a head, their digest checked. */
int embedding_read_values(int fd, const struct embedding *e, uint16_t *ret);

#endif
