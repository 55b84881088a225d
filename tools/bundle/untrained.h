/* untrained.h: a small bundle of chance numbers, for tests and for trying the node.
 *
 * The same graph as the published model at tiny widths, with our own vocabulary.  It says of itself
 * that it is untrained (model.json "domain"), so nothing that it scores is ever reported of a patient.
 * The bytes depend on the seed and the vocabulary alone: integers from splitmix64, one rounding each.
 */
#ifndef BUNDLE_UNTRAINED_H
#define BUNDLE_UNTRAINED_H

#include <stdint.h>

#include "base/err.h"

/* Makes `dir` if it is not there and writes model.json, weights.safetensors and a copy of the
 * vocabulary into it.  A tool for people: an interrupted run leaves a directory that does not
 * open. */
int untrained_write(const char *dir, const char *vocab, uint64_t seed, struct err *e);

#endif
