/* bundle.h: the inside of a model: a directory opened, checked and bound to its network.
 *
 * DIR/model.json, DIR/weights.safetensors, DIR/vocab.txt.  After bundle_open() every tensor has its
 * place, the digest is the one that model.json names and the vocabulary has as many pieces as the
 * embedding has rows.  Read-only from then on.
 */
#ifndef CARZEROD_MODEL_BUNDLE_H
#define CARZEROD_MODEL_BUNDLE_H

#include "base/err.h"

#include "model/bert.h"
#include "model/fusion.h"
#include "model/manifest.h"
#include "model/tokenizer.h"
#include "model/vit.h"
#include "model/weights.h"

struct bundle {
	struct manifest manifest;
	struct weights *weights;
	struct tokenizer *tokenizer;
	struct vit vit;
	struct bert bert;
	struct fusion fusion;
};

int bundle_open(const char *dir, struct bundle **ret, struct err *e);
void bundle_close(struct bundle *b); /* NULL allowed */

#endif
