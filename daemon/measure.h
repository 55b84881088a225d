/* measure.h: what carzero-model eval and calibrate share: their options, and logits beside labels.
 *
 * Row i of the logits and row i of the labels are the same image; column i of both is the finding i of
 * the list.  Both verbs tell patients apart, not images: two films of one person in both halves would
 * flatter a fit, and films of one person are no independent witnesses of an AUC.
 */
#ifndef CARZEROD_DAEMON_MEASURE_H
#define CARZEROD_DAEMON_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/findings.h"
#include "daemon/tables.h"

struct measure_job {
	const char *verb, *list, *logits_path, *labels_path;
	const char *svg_path; /* NULL for no drawing */
	const char *model_path, *images_path; /* instead of logits_path */
	bool json, split, table;
	double l2, prevalence;	     /* prevalence: 0 for that of the fit */
	unsigned replicates;	     /* of the bootstrap */
	double sensitivity, alarm;   /* wanted of thresholds; 0 for none */
	const char *family, *recipe, *precision, *origin;
	struct findings *f;
	struct logit_table logits;
	struct label_table labels;
};

/* Fills the job from the command line of the verb: eval's options, or calibrate's when `fit`.  TOOL_DONE;
 * TOOL_USAGE after a message; -1 after the help. */
int measure_options(struct measure_job *j, int argc, char **argv, bool fit, const char *help);
/* Reads or makes what the options name; TOOL_DONE, or TOOL_FAILED after a message. */
int measure_load(struct measure_job *j);
void measure_unload(struct measure_job *j);

size_t measure_count(const uint8_t *positive, size_t n); /* of ones */

#endif
