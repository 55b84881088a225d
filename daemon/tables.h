/* tables.h: logits and labels of a test set, from the files that the sets are published with.
 *
 * Logits: CSV with one column a finding and one row an image.  A header of finding ids is matched by
 * name; a header of numbers (as the reference's scripts write) means the order of the findings list.
 *
 * Labels, told apart by their first line:
 *	NIH		"path 0 1 0 ...", blanks, no header; columns in the list's order
 *	Open-I		CSV with a column labels_automatic (and uid, the patient); a finding is there when
 *			the text holds one of the terms that belong to its prompt
 *	plain		CSV: image, finding ids (0 or 1), optionally patient
 *
 * Rows of both files belong together by their order.  A finding without labels has known[] false.
 */
#ifndef CARZEROD_DAEMON_TABLES_H
#define CARZEROD_DAEMON_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#include "daemon/findings.h"

#define TABLE_ROWS_MAX 2000000
#define TABLE_LINE_MAX 65536

struct logit_table {
	size_t rows, n;
	float *column[FINDINGS_MAX]; /* [rows] of each finding */
};

struct label_table {
	const char *kind; /* "NIH", "Open-I" or "CSV" */
	size_t rows, n;
	bool known[FINDINGS_MAX];
	uint8_t *column[FINDINGS_MAX]; /* [rows] 0 or 1 of each finding */
	uint64_t *patient;	       /* [rows] a number for each patient */
};

/* Errors name file, line and column. */
int logits_load(const char *path, const struct findings *f, struct logit_table *ret, struct err *e);
void logits_free(struct logit_table *t); /* also of a zeroed one */
int labels_load(const char *path, const struct findings *f, struct label_table *ret, struct err *e);
void labels_free(struct label_table *t); /* also of a zeroed one */

#endif
