/* fuzz_checkpoint.c: a checkpoint file of any format; or, after a first byte 'p', a pickle alone, so that
 * the zip archive's checksum does not stand in the fuzzer's way.
 *
 * Holds: nothing crashes; every tensor without a problem lies inside the file; every walk ends.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"

#include "model/checkpoint.h"
#include "model/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pickle(const uint8_t *data, size_t size)
{
	struct buf b = buf_of(data, size);
	struct pickle_item item;
	struct pickle *p;
	struct err e;

	if (pickle_read(&b, "fuzz", &p, &e) < 0)
		return;
	for (uint32_t i = 1; i < pickle_size(p); i++) {
		const struct pickle_node *n = pickle_node(p, i);
		uint32_t at = 0;

		assert(n->n == 0 || (n->text >= data && n->text + n->n <= data + size));
		while (pickle_next(p, i, &at, &item))
			assert(item.value > 0 && item.value < pickle_size(p));
	}
	pickle_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct checkpoint *c;
	struct err e;
	char text[64];

	if (size > 0 && data[0] == 'p') {
		check_pickle(data + 1, size - 1);
		return 0;
	}
	if (checkpoint_open_memory(data, size, "fuzz", &c, &e) < 0)
		return 0;
	for (size_t i = 0; i < checkpoint_count(c); i++) {
		const struct checkpoint_tensor *t = checkpoint_tensor(c, i);

		assert((t->data == NULL) == (t->problem != NULL));
		assert(t->data == NULL || (t->data >= data && t->bytes <= size && t->data + t->bytes <= data + size));
		(void)checkpoint_verify(c, i, &e); /* damaged bytes are what it is for */
	}
	(void)checkpoint_hyper(c, "model.text.norm", text, sizeof(text)); /* need not be there */
	checkpoint_close(c);
	return 0;
}
