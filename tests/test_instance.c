/* test_instance.c: every arrow of an instance, and every refusal (store/instance.c). */
#include <errno.h>
#include <math.h>

#include "tests/store_rows.h"

/* ---- instances ------------------------------------------------------------------------------ */

static void test_add(void)
{
	struct store *s = open_fresh("add");
	struct instance a = instance_of(1, 1, 1), b, got;
	int64_t id = 0;
	bool duplicate = true;

	is_int(store_add_instance(s, &a, 500, &duplicate), 0, "add");
	ok(!duplicate && a.id > 0 && a.study > 0, "it is new and has ids");
	is_int(a.revision, 1, "revision 1");
	got = row(s, &a);
	is_str(got.sop_uid, a.sop_uid, "sop_uid comes back");
	is_str(got.study_uid, a.study_uid, "study_uid");
	is_str(got.series_uid, a.series_uid, "series_uid");
	is_str(got.sop_class, a.sop_class, "sop_class");
	is_str(got.syntax, a.syntax, "syntax");
	is_str(got.calling_ae, a.calling_ae, "calling_ae");
	is_str(got.called_ae, a.called_ae, "called_ae");
	is_str(got.peer, a.peer, "peer");
	ok(memcmp(got.digest, a.digest, DIGEST_SIZE) == 0, "digest");
	ok(got.file == a.file && got.size == a.size && got.received == 777, "file, size, received");
	is_int(got.state, INSTANCE_READY, "READY");
	is_int(got.outcome, OUTCOME_NONE, "no outcome");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "its study collects");
	is_int(study_row(s, 1).settle_at, 500, "until the time given");

	b = instance_of(1, 1, 1);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "the same bytes again");
	ok(duplicate && b.id == a.id && b.study == a.study, "are a duplicate of the row");
	is_int(row(s, &a).repeats, 1, "that counts the repeat");
	is_int(study_row(s, 1).settle_at, 500, "and does nothing to its study");
	is_int(store_find_file(s, b.file, &id), -ENOENT, "its own file has no row");

	b = instance_of(1, 1, 2);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "other bytes under the same UID");
	ok(!duplicate && b.id != a.id, "are a new row");
	is_int(b.revision, 2, "revision 2");
	is_int(study_row(s, 1).settle_at, 500, "a collecting study keeps its time");
	b = instance_of(1, 1, 3);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "once more");
	is_int(row(s, &b).revision, 3, "revision 3");
	b = instance_of(1, 1, 2);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "the bytes of revision 2 again");
	ok(duplicate, "are a duplicate");

	is_int(store_find_file(s, a.file, &id), 0, "a file finds its row");
	is_int(id, a.id, "the right one");
	b = instance_of(1, 7, 1);
	b.file = a.file;
	is_int(store_add_instance(s, &b, 900, &duplicate), -EEXIST, "one file cannot have two rows");
	is_int(b.id, 0, "a failure sets no result");
	b = instance_of(1, 8, 1);
	b.sop_uid[0] = '\0';
	is_int(store_add_instance(s, &b, 900, &duplicate), -EINVAL, "no UID, no row");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_aside(void)
{
	struct store *s = open_fresh("aside");
	struct instance a = instance_of(1, 1, 1);
	bool duplicate;

	a.state = INSTANCE_ASIDE;
	is_int(store_add_instance(s, &a, 100, &duplicate), 0, "an object that we do not analyse");
	is_int(row(s, &a).state, INSTANCE_ASIDE, "stands aside");
	is_int(claim(s, 1000).id, -ENOENT, "is never claimed");
	is_int(study_row(s, 1).state, STUDY_SILENT, "its study is silent");
	ok(study_row(s, 1).why[0] != '\0', "and says why");
	is_int(next_study(s, 1000).id, -ENOENT, "and is never due");
	is_int(store_requeue_instance(s, a.id, 0), -ENOTSUP, "it cannot be requeued");
	(void)add(s, 1, 2);
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "an image wakes the study");
	is_str(study_row(s, 1).why, "", "the reason is gone");
	is_int(study_row(s, 1).settle_at, 100, "it has a time");
	a = instance_of(1, 3, 1);
	a.state = INSTANCE_ASIDE;
	is_int(store_add_instance(s, &a, 5, &duplicate), 0, "another object aside");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "changes nothing");
	is_int(study_row(s, 1).settle_at, 100, "nor the time");
	store_close(s);
}

static void test_claim_order(void)
{
	struct store *s = open_fresh("order");
	struct instance in[5], got;
	int64_t due_i, due_s, due_d;

	is_int(claim(s, 1000).id, -ENOENT, "nothing to claim");
	is_int(store_next_due(s, &due_i, &due_s, &due_d), 0, "next due");
	ok(due_i == INT64_MAX && due_s == INT64_MAX && due_d == INT64_MAX, "is never");
	for (unsigned i = 0; i < 5; i++)
		in[i] = add(s, i, i);
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	ok(due_i <= 1000, "there is something at once");
	is_int(due_s, INT64_MAX, "but no study while its instances wait");
	got = claim(s, 1000);
	is_int(got.id, in[0].id, "the lowest id first");
	is_int(got.state, INSTANCE_CLAIMED, "CLAIMED");
	is_int(got.attempt, 1, "the attempt is counted");
	is_int(got.lease, 1060, "the lease is kept");
	ok(got.token > 0, "there is a token");
	is_str(got.study_uid, "1.2.9.0", "with its study");
	is_int(store_retry_instance(s, &got, 2000, "worker died", false), 0, "retry in the future");
	is_str(row(s, &got).why, "worker died", "with its reason");
	is_int(claim(s, 1000).id, in[1].id, "then the next id");
	is_int(claim(s, 1999).id, in[2].id, "and the next");
	got = claim(s, 2000);
	is_int(got.id, in[0].id, "a retried one comes back when due, before higher ids");
	is_int(got.attempt, 2, "its attempt is the second");
	is_int(claim(s, 2000).id, in[3].id, "then the rest");
	got = claim(s, 2000);
	is_int(got.id, in[4].id, "to the last");
	is_int(claim(s, 2000).id, -ENOENT, "and no more");
	is_int(store_retry_instance(s, &got, 3000, "", true), 0, "an interruption");
	is_int(row(s, &got).attempt, 0, "does not count");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_i, 3000, "next due is the retry's");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_settle(void)
{
	struct store *s = open_fresh("settle");
	struct score scores[3] = { { "edema", -1.25f, 0.125f, 1 }, { "effusion", 7.5f, NAN, 2 },
				   { "abscess", 0.1f, 0.3f, 255 } }, back[3];
	struct instance in, got;
	size_t n = 0;

	(void)add(s, 1, 1);
	in = claim(s, 1);
	in.outcome = OUTCOME_NOT_ANALYSED;
	in.settled = 4711;
	memset(in.why, 'w', sizeof(in.why)); /* without an end */
	memset(in.patient, 1, DIGEST_SIZE);
	memset(in.content, 2, DIGEST_SIZE);
	memset(in.weights, 3, DIGEST_SIZE);
	memset(in.findings, 4, DIGEST_SIZE);
	(void)snprintf(in.recipe, sizeof(in.recipe), "window");
	(void)snprintf(in.precision, sizeof(in.precision), "f32");
	(void)snprintf(in.version, sizeof(in.version), "0.1");
	is_int(store_settle_instance(s, &in, scores, STORE_SCORES_MAX + 1), -E2BIG, "too many scores");
	is_int(store_settle_instance(s, &in, scores, 3), 0, "settle");
	got = row(s, &in);
	is_int(got.state, INSTANCE_SETTLED, "SETTLED");
	is_int(got.outcome, OUTCOME_NOT_ANALYSED, "with its outcome");
	is_int(strlen(got.why), STORE_WHY_MAX - 1, "and reason");
	ok(memcmp(got.patient, in.patient, DIGEST_SIZE) == 0 && memcmp(got.content, in.content, DIGEST_SIZE) == 0 &&
	   memcmp(got.weights, in.weights, DIGEST_SIZE) == 0 &&
	   memcmp(got.findings, in.findings, DIGEST_SIZE) == 0, "and digests");
	is_str(got.recipe, "window", "and recipe");
	is_str(got.precision, "f32", "and precision");
	is_str(got.version, "0.1", "and version");
	is_int(got.settled, 4711, "and time");
	is_int(store_instance_scores(s, in.id, back, 3, &n), 0, "scores come back");
	is_int(n, 3, "all of them");
	for (size_t i = 0; i < 3; i++) {
		is_str(back[i].finding, scores[i].finding, "score %zu in the order given", i);
		ok(back[i].logit == scores[i].logit, "bit for bit");
		ok(back[i].probability == scores[i].probability ||
		   (isnan(back[i].probability) && isnan(scores[i].probability)), "uncalibrated stays so");
		is_int(back[i].decision, scores[i].decision, "with its decision");
	}
	is_int(store_instance_scores(s, in.id, back, 2, &n), -E2BIG, "too little room for scores");
	is_int(n, 3, "and how much is needed");

	(void)add(s, 1, 2);
	in = claim(s, 1);
	in.outcome = OUTCOME_SCORED;
	scores[1].logit = NAN;
	is_int(store_settle_instance(s, &in, scores, 3), -EINVAL, "a logit that is not a number is refused");
	is_int(row(s, &in).state, INSTANCE_CLAIMED, "and nothing of the call stays");
	is_int(store_instance_scores(s, in.id, back, 3, &n), 0, "no score");
	is_int(n, 0, "at all");

	is_int(store_quarantine_instance(s, &in, 99, "killed three workers"), 0, "quarantine");
	got = row(s, &in);
	is_int(got.state, INSTANCE_QUARANTINED, "QUARANTINED");
	is_int(got.outcome, OUTCOME_FAILED, "FAILED");
	is_int(got.settled, 99, "with the time");
	is_str(got.why, "killed three workers", "and the reason");
	store_close(s);
}

static void test_maps(void)
{
	struct store *s = open_fresh("maps");
	struct score scores[3] = { { .finding = "a" }, { .finding = "b" }, { .finding = "c" } };
	struct score_map map = { .place = 2, .n = 196 }, back[2];
	struct instance in;
	size_t n = 99;

	(void)add(s, 1, 1);
	in = claim(s, 1);
	in.outcome = OUTCOME_SCORED;
	is_int(store_add_map(s, in.id, &map), -ENOENT, "no map without a score");
	is_int(store_settle_instance(s, &in, scores, 3), 0, "settle");
	is_int(store_instance_maps(s, in.id, back, 2, &n), 0, "maps");
	is_int(n, 0, "none yet");
	for (size_t i = 0; i < map.n; i++)
		map.shade[i] = (uint8_t)(255 - i);
	is_int(store_add_map(s, in.id, &map), 0, "one for the third score");
	map.place = 0;
	map.n = STORE_MAP_BYTES_MAX;
	memset(map.shade, 7, sizeof(map.shade));
	is_int(store_add_map(s, in.id, &map), 0, "the largest for the first");
	map.place = 1;
	map.n = 0;
	is_int(store_add_map(s, in.id, &map), -EINVAL, "an empty one is refused");
	map.place = 3;
	map.n = 1;
	is_int(store_add_map(s, in.id, &map), -ENOENT, "no fourth score");
	is_int(store_instance_maps(s, in.id, back, 2, &n), 0, "maps");
	is_int(n, 2, "both");
	ok(back[0].place == 0 && back[0].n == STORE_MAP_BYTES_MAX && back[0].shade[1023] == 7, "in order of the list");
	ok(back[1].place == 2 && back[1].n == 196 && back[1].shade[195] == 60, "byte for byte");
	is_int(store_instance_maps(s, in.id, back, 1, &n), -E2BIG, "too little room");
	is_int(store_requeue_instance(s, in.id, 1), 0, "requeue");
	is_int(store_instance_maps(s, in.id, back, 2, &n), 0, "maps");
	is_int(n, 0, "are gone with the scores");
	store_close(s);
}

static void test_requeue(void)
{
	static const struct score score = { "edema", 1, 1, 1 };
	struct store *s = open_fresh("requeue");
	struct instance a = add(s, 1, 1), b, got;
	struct score back[1];
	struct study st;
	size_t n = 9;

	is_int(store_requeue_instance(s, 12345, 0), -ENOENT, "no such instance");
	is_int(store_requeue_instance(s, a.id, 0), -EBUSY, "a waiting one cannot be requeued");
	b = claim(s, 1);
	is_int(store_requeue_instance(s, a.id, 0), -EBUSY, "nor a claimed one");
	b.outcome = OUTCOME_SCORED;
	(void)snprintf(b.recipe, sizeof(b.recipe), "window");
	is_int(store_settle_instance(s, &b, &score, 1), 0, "settle");
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_PARKED, "two patients"), 0, "the study is parked");
	is_int(store_requeue_instance(s, a.id, 700), 0, "a settled one can be requeued");
	got = row(s, &a);
	is_int(got.state, INSTANCE_READY, "READY");
	is_int(got.attempt, 0, "attempt 0");
	is_int(got.outcome, OUTCOME_NONE, "no outcome");
	is_str(got.recipe, "", "no facts");
	is_int(store_instance_scores(s, a.id, back, 1, &n), 0, "scores");
	is_int(n, 0, "gone");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "its study collects again");
	is_int(study_row(s, 1).settle_at, 700, "until then");
	is_int(study_row(s, 1).attempt, 0, "with attempt 0");
	is_int(store_settle_instance(s, &b, &score, 1), -ESTALE, "the old claim is void");
	got = claim(s, 1);
	is_int(store_settle_instance(s, &b, &score, 1), -ESTALE, "even when it is claimed again");
	is_int(store_quarantine_instance(s, &got, 5, "x"), 0, "quarantine");
	is_int(store_requeue_instance(s, a.id, 900), 0, "a quarantined one can be requeued");
	is_int(study_row(s, 1).settle_at, 700, "a collecting study keeps its time");
	got = claim(s, 1);
	is_int(got.attempt, 1, "it is tried from the start");
	settle(s, &got);
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_stale_instances(void)
{
	static const struct {
		const char *name;
		int (*end)(struct store *s, const struct instance *in);
		enum instance_state leads_to;
	} ends[] = {
		{ "settle", end_settle, INSTANCE_SETTLED },
		{ "retry", end_retry, INSTANCE_READY },
		{ "quarantine", end_quarantine, INSTANCE_QUARANTINED },
	};
	struct store *s = open_fresh("stale");
	struct instance in, old, again;
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		in = add(s, 1, (unsigned)i);
		is_int(ends[i].end(s, &in), -ESTALE, "%s: a row that nobody claimed", ends[i].name);
		old = claim(s, 1000);
		is_int(store_recover(s, 1000, &n), 0, "restart");
		is_int(n, 1, "one claim is taken back");
		is_int(ends[i].end(s, &old), -ESTALE, "%s: a claim that was taken back", ends[i].name);
		again = claim(s, 1000);
		ok(again.id == in.id && again.token > old.token, "the token grows");
		is_int(again.attempt, 2, "the attempt stays counted");
		is_int(ends[i].end(s, &old), -ESTALE, "%s: somebody else's claim", ends[i].name);
		is_str(store_error(s), "the claim was lost", "and the text says so");
		is_int(row(s, &in).state, INSTANCE_CLAIMED, "and nothing changed");
		is_int(ends[i].end(s, &again), 0, "%s: the latest claim", ends[i].name);
		is_int(row(s, &in).state, ends[i].leads_to, "leads to its state");
		is_int(ends[i].end(s, &again), -ESTALE, "%s: a second time", ends[i].name);
		if (ends[i].leads_to == INSTANCE_READY) {
			again = claim(s, 1000);
			settle(s, &again);
		}
	}
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* What was claimed at several deaths of the node may be their cause: it waits, and others pass. */
static void test_suspect(void)
{
	struct store *s = open_fresh("suspect");
	struct instance in = add(s, 1, 1), other, got;
	unsigned n;

	for (unsigned i = 1; i <= STORE_SUSPECT_ATTEMPTS; i++) {
		got = claim(s, 1000);
		is_int(got.attempt, i, "claimed, attempt %u", i);
		is_int(store_recover(s, 1000, &n), 0, "the node dies");
	}
	is_int(row(s, &in).due, 1000 + STORE_SUSPECT_MS, "now it waits");
	other = add(s, 2, 2);
	got = claim(s, 1000);
	is_int(got.id, other.id, "another one passes it");
	is_int(claim(s, 999 + STORE_SUSPECT_MS).id, -ENOENT, "it still waits");
	is_int(claim(s, 1000 + STORE_SUSPECT_MS).id, in.id, "and comes again");
	store_close(s);
}

int main(void)
{
	make_dir("test_instance");
	test_add();
	test_aside();
	test_claim_order();
	test_settle();
	test_maps();
	test_requeue();
	test_stale_instances();
	test_suspect();
	return done();
}
