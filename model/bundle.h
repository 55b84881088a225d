/* bundle.h: the inside of a model: a directory opened, checked and bound to its network.
 *
 * DIR/model.json, DIR/weights.safetensors, DIR/vocab.txt.  After bundle_map() every tensor has its place and
 * the vocabulary has as many pieces as the embedding has rows.  That the digest is the one that
 * model.json names is another 0.6 s of work for the published size: bundle_verify(), once, before
 * anything is computed from the file.  What a cache holds was computed from the verified file, and a
 * file that was touched since is another key.
 */
#ifndef CARZEROD_MODEL_BUNDLE_H
#define CARZEROD_MODEL_BUNDLE_H

#include "base/err.h"

#include "model/bert.h"
#include "model/cache.h"
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
	bool verified;
	struct pool *pool; /* own: packed weights, NULL before bundle_pack() */
};

int bundle_map(const char *dir, struct bundle **ret, struct err *e);
int bundle_verify(struct bundle *b, struct err *e);
/* Both. */
int bundle_open(const char *dir, struct bundle **ret, struct err *e);
/* Packs what a picture needs in this precision, or takes it from the cache, where `c` is not NULL; then
 * `note` says in a few words what the cache gave.  -EBADMSG (the digest), -ENOTSUP, -ENOMEM.  At most once. */
int bundle_pack(struct bundle *b, enum kernels_precision precision, struct cache *c, struct err *note, struct err *e);
/* The same of what comes behind the image tower alone, never through a cache. */
int bundle_pack_fusion(struct bundle *b, struct err *e);
/* Begins a key of something that is computed from these weights by this program. */
int bundle_key(const struct bundle *b, struct digest *d, struct err *e);
void bundle_close(struct bundle *b); /* NULL allowed */

#endif
