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
	struct kernels_pool *pool; /* own: packed weights, NULL before bundle_pack() */
};

int bundle_open(const char *dir, struct bundle **ret, struct err *e);
/* Packs what a picture needs in this precision; -ENOTSUP, -ENOMEM.  At most once. */
int bundle_pack(struct bundle *b, enum kernels_precision precision, struct err *e);
/* The same of what comes behind the image tower alone. */
int bundle_pack_fusion(struct bundle *b, struct err *e);
void bundle_close(struct bundle *b); /* NULL allowed */

#endif
