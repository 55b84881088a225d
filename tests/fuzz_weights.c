/* fuzz_weights.c: a safetensors file, and model.json where the first byte says so.
 *
 * Holds: whatever opens, every tensor in it can be read with its own shape from its first element to
 * its last, and a name that is not in it cannot.  Input: 'J' and a model.json, or any other first byte
 * and a weights file.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#include "model/manifest.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile float sink; /* the reads are the test and must happen */

static void read_all(struct weights *w)
{
	const size_t *shape;
	const char *name;
	size_t rank;

	for (size_t i = 0; (name = weights_at(w, i, &shape, &rank)) != NULL; i++) {
		const float *p;
		size_t n = 1;

		assert(weights_has(w, name) && weights_same(w, name, name));
		if (weights_get(w, name, shape, rank, &p, NULL) < 0)
			continue;
		for (size_t j = 0; j < rank; j++)
			n *= shape[j];
		for (size_t j = 0; j < n; j++)
			sink = p[j];
	}
	assert(!weights_has(w, "no such tensor"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* An exact copy, so that a read past the end is seen. */
	CLEANUP(free) uint8_t *copy = xcalloc(size, 1);
	struct manifest m;
	struct weights *w;
	struct err e;

	if (size == 0)
		return 0;
	memcpy(copy, data, size);
	if (copy[0] == 'J') {
		if (manifest_parse((const char *)copy + 1, size - 1, "fuzz", &m, &e) == 0)
			assert(m.dims.tokens == m.dims.grid * m.dims.grid + 1 &&
			       m.dims.dim % m.dims.vit_heads == 0);
		return 0;
	}
	if (weights_open_memory(copy + 1, size - 1, "fuzz", &w, &e) == 0) {
		uint8_t digest[DIGEST_SIZE];

		weights_digest(w, digest);
		read_all(w);
		weights_close(w);
	} else {
		assert(strncmp(e.text, "fuzz: ", 6) == 0);
	}
	return 0;
}
