/* test_embedding.c: a kept embedding comes back bit for bit or not at all; its row's life (store/embedding.c, instance.c,
 * retention.c).
 */
#include <errno.h>
#include <fcntl.h>

#include "base/fdio.h"

#include "store/embedding.h"
#include "store/spool.h"

#include "tests/store_rows.h"

#define ROWS 5
#define COLUMNS 7
#define SIZE (EMBEDDING_HEAD + ROWS * COLUMNS * 2)

static struct embedding sample(void)
{
	struct embedding e = { .object = 4711, .recipe = "window", .precision = "f32", .version = "0.1.0", .rows = ROWS,
			       .columns = COLUMNS };

	memset(e.digest, 3, sizeof(e.digest));
	memset(e.weights, 4, sizeof(e.weights));
	return e;
}

static int file_with(const void *bytes, size_t n)
{
	int fd = fd_memory("embedding");

	if (fd < 0 || pwrite_full(fd, bytes, n, 0) < 0)
		exit(1);
	return fd;
}

static int read_both(const void *bytes, size_t n)
{
	CLEANUP(close) int fd = file_with(bytes, n);
	uint16_t values[ROWS * COLUMNS];
	struct embedding e;
	int r = embedding_read_head(fd, &e);

	if (r == 0 && (e.rows != ROWS || e.columns != COLUMNS))
		return -ERANGE; /* a caller knows what it wants */
	return r < 0 ? r : embedding_read_values(fd, &e, values);
}

static void test_form(void)
{
	CLEANUP(close) int fd = fd_memory("embedding");
	struct embedding e = sample(), got;
	uint16_t values[ROWS * COLUMNS], back[ROWS * COLUMNS];
	uint8_t whole[SIZE + 1] = { 0 };
	unsigned good = 0;

	for (size_t i = 0; i < ROWS * COLUMNS; i++)
		values[i] = (uint16_t)(i * 1021);
	is_int(embedding_write(fd, &e, values), 0, "an embedding is written");
	is_int(embedding_read_head(fd, &got), 0, "its head is read");
	ok(got.object == 4711 && got.rows == ROWS && got.columns == COLUMNS && memcmp(got.digest, e.digest, DIGEST_SIZE) == 0 &&
		   memcmp(got.weights, e.weights, DIGEST_SIZE) == 0,
	   "it says which object, which weights, how many numbers");
	is_str(got.recipe, "window", "recipe");
	is_str(got.precision, "f32", "precision");
	is_str(got.version, "0.1.0", "program");
	is_int(embedding_read_values(fd, &got, back), 0, "its numbers are read");
	ok(memcmp(values, back, sizeof(values)) == 0, "bit for bit");
	got.columns++;
	is_int(embedding_read_values(fd, &got, back), -EBADMSG, "not under the head of another");

	is_int(pread_full(fd, whole, SIZE, 0), 0, "the file as bytes");
	is_int(read_both(whole, SIZE), 0, "is the embedding");
	for (size_t n = 0; n < SIZE; n++)
		good += read_both(whole, n) == -EBADMSG;
	is_int(good, SIZE, "torn anywhere it is none");
	is_int(read_both(whole, SIZE + 1), -EBADMSG, "nor with a byte more");
	good = 0;
	for (size_t i = 0; i < SIZE; i++) {
		whole[i] ^= 0x10;
		good += read_both(whole, SIZE) == -EBADMSG;
		whole[i] ^= 0x10;
	}
	is_int(good, SIZE, "nor with any byte changed: magic, version, digest, numbers");
}

/* A row's file from its birth to each way of its going. */
static void test_row(void)
{
	struct store *s = open_fresh("row");
	struct instance in, list[ROOM];
	struct doomed d[ROOM];
	size_t n = 9;

	(void)add(s, 1, 1);
	(void)add(s, 1, 2);
	in = claim(s, 1);
	in.embedding = 501;
	memset(in.weights, 6, sizeof(in.weights));
	(void)snprintf(in.recipe, sizeof(in.recipe), "window");
	(void)snprintf(in.precision, sizeof(in.precision), "f32");
	settle(s, &in);
	is_int((intmax_t)row(s, &in).embedding, 501, "the row names it");
	is_int(store_list_embeddings(s, 0, 0, INT64_MAX, list, ROOM, &n), 0, "listed");
	ok(n == 1 && list[0].id == in.id && list[0].embedding == 501, "alone: the other has none");
	is_int(store_list_embeddings(s, in.id, 0, INT64_MAX, list, ROOM, &n), 0, "behind it");
	is_int((intmax_t)n, 0, "nothing");
	is_int(store_list_embeddings(s, 0, 778, INT64_MAX, list, ROOM, &n), 0, "received later");
	is_int((intmax_t)n, 0, "nothing");
	is_int(store_list_embeddings(s, 0, 777, 778, list, ROOM, &n), 0, "received then");
	is_int((intmax_t)n, 1, "it");

	is_int(store_requeue_instance(s, in.id, 0), 0, "analysed again");
	is_int((intmax_t)row(s, &in).embedding, 0, "it is the old one no more");
	is_int(store_list_doomed(s, d, ROOM, &n), 0, "what goes");
	ok(n == 1 && d[0].box == SPOOL_EMBEDDINGS && d[0].file == 501, "is the old file");
	is_int(store_forget_doomed(s, &d[0]), 0, "gone");

	in = claim(s, 1);
	in.embedding = 502;
	memset(in.weights, 6, sizeof(in.weights));
	(void)snprintf(in.recipe, sizeof(in.recipe), "window");
	(void)snprintf(in.precision, sizeof(in.precision), "f32");
	settle(s, &in);
	in = row(s, &in);
	is_int(store_adopt_embedding(s, &in, 503), -ENOENT, "a file without a row is not taken where there is one");
	is_int(store_forget_embedding(s, in.id), 0, "a file that is not there any more");
	in.weights[0]++;
	is_int(store_adopt_embedding(s, &in, 503), -ENOENT, "nor one of other weights");
	in.weights[0]--;
	in.digest[0]++;
	is_int(store_adopt_embedding(s, &in, 503), -ENOENT, "nor one of another object");
	in.digest[0]--;
	in.file++;
	is_int(store_adopt_embedding(s, &in, 503), -ENOENT, "nor one whose object nobody knows");
	in.file--;
	is_int(store_adopt_embedding(s, &in, 503), 0, "but that object's is");
	is_int((intmax_t)row(s, &in).embedding, 503, "the row names it");

	in = claim(s, 1);
	settle(s, &in);
	is_int(store_purge_study(s, "1.2.9.1", &n), 0, "the patient's study is purged");
	is_int(number(s, "SELECT count(*) FROM doomed WHERE box = 5 AND file = 503"), 1, "and the embedding with it");
	is_int(number(s, "SELECT count(*) FROM doomed"), 3, "as the images");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

int main(void)
{
	make_dir("test_embedding");
	test_form();
	test_row();
	return done();
}
