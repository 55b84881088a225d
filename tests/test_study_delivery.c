/* test_study_delivery.c: every arrow of studies, reports and deliveries, and every refusal
 * (store/study.c, store/delivery.c). */
#include <errno.h>

#include "tests/store_rows.h"

/* ---- studies -------------------------------------------------------------------------------- */

static void test_next_study(void)
{
	struct store *s = open_fresh("next");
	struct instance a, b;
	struct study st;
	int64_t due_i, due_s, due_d;

	(void)add(s, 1, 1); /* settle_at 100 */
	(void)add(s, 1, 2);
	a = claim(s, 1);
	b = claim(s, 1);
	is_int(next_study(s, 5000).id, -ENOENT, "no study while instances are claimed");
	settle(s, &a);
	is_int(next_study(s, 5000).id, -ENOENT, "nor while one is");
	is_int(store_retry_instance(s, &b, 50, "", false), 0, "retry");
	is_int(next_study(s, 5000).id, -ENOENT, "nor while one waits");
	b = claim(s, 50);
	is_int(store_quarantine_instance(s, &b, 60, "x"), 0, "a quarantined one");
	is_int(next_study(s, 99).id, -ENOENT, "does not hold it up, but the time is not reached");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_s, 100, "that is when it is due");
	st = next_study(s, 100);
	is_int(st.id, a.study, "then it is claimed");
	is_int(st.state, STUDY_COMPOSING, "COMPOSING");
	is_int(st.attempt, 1, "the attempt is counted");
	is_int(st.lease, 160, "the lease is kept");
	is_int(next_study(s, 5000).id, -ENOENT, "and by nobody else");
	is_int(store_retry_study(s, &st, 300, "disk full", false), 0, "retry");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "COLLECTING");
	is_str(study_row(s, 1).why, "disk full", "with the reason");
	is_int(next_study(s, 299).id, -ENOENT, "not before it is due");
	st = next_study(s, 300);
	is_int(st.attempt, 2, "second attempt");
	is_int(store_retry_study(s, &st, 400, "", true), 0, "interrupted");
	is_int(study_row(s, 1).attempt, 1, "does not count");

	(void)add(s, 2, 3);
	a = claim(s, 1);
	settle(s, &a);
	is_int(next_study(s, 350).id, a.study, "a later study passes one that is not due");
	is_int(next_study(s, 400).id, st.id, "which comes in its time");
	store_close(s);
}

static void test_settle_study(void)
{
	static const struct {
		int64_t at, want;
	} cases[] = { { 200, 100 }, { 100, 100 }, { 60, 60 }, { 80, 60 }, { 0, 0 } };
	struct store *s = open_fresh("settle-study");
	struct instance a = add(s, 1, 1);
	struct study st;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		is_int(store_settle_study(s, a.study, cases[i].at), 0, "settle at %lld", (long long)cases[i].at);
		is_int(study_row(s, 1).settle_at, cases[i].want, "gives %lld", (long long)cases[i].want);
	}
	a = claim(s, 1);
	settle(s, &a);
	st = next_study(s, 10);
	is_int(store_settle_study(s, a.study, -5), 0, "a composing study");
	is_int(study_row(s, 1).settle_at, 0, "is left alone");
	is_int(store_close_study(s, &st, STUDY_SILENT, "no chest image"), 0, "close");
	is_int(store_settle_study(s, a.study, -5), 0, "a closed study");
	is_int(study_row(s, 1).settle_at, 0, "is left alone");
	is_int(study_row(s, 1).state, STUDY_SILENT, "and stays closed");
	is_str(study_row(s, 1).why, "no chest image", "with its reason");
	is_int(store_settle_study(s, 999, 5), 0, "an unknown study is no error");
	store_close(s);
}

static void test_plan(void)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 }, other[DIGEST_SIZE] = { 2 };
	struct store *s = open_fresh("plan");
	struct instance a;
	struct study st, old;
	int64_t at = 111;

	(void)add(s, 1, 1);
	a = claim(s, 1);
	settle(s, &a);
	old = study_row(s, 1);
	is_int(store_plan_study(s, &old, key, &at), -ESTALE, "no plan without a claim");
	st = next_study(s, 100);
	is_int(store_plan_study(s, &st, key, &at), 0, "plan");
	is_int(at, 111, "the time given is taken");
	at = 222;
	is_int(store_plan_study(s, &st, key, &at), 0, "plan again");
	is_int(at, 111, "the stored time comes back");
	is_int(store_retry_study(s, &st, 0, "", false), 0, "the attempt fails");
	store_close(s);
	s = open_again();
	old = st;
	st = next_study(s, 100);
	at = 333;
	is_int(store_plan_study(s, &old, key, &at), -ESTALE, "an old claim cannot plan");
	is_int(at, 333, "nor learn");
	is_int(store_plan_study(s, &st, key, &at), 0, "the second attempt");
	is_int(at, 111, "has the first one's time");
	at = 444;
	is_int(store_plan_study(s, &st, other, &at), 0, "other inputs");
	is_int(at, 444, "have a new time");
	store_close(s);
}

static void test_reopen(void)
{
	struct store *s = open_fresh("reopen");
	int64_t id = report_study(s, 1);
	struct instance in = instance_of(1, 101, 1);
	struct study st, late;
	bool duplicate;

	is_int(study_row(s, 1).state, STUDY_REPORTED, "REPORTED");
	is_int(study_row(s, 1).revision, 1, "revision 1");
	is_str(study_row(s, 1).why, "scored", "why");
	(void)store_add_instance(s, &in, 4000, &duplicate);
	ok(duplicate && study_row(s, 1).state == STUDY_REPORTED, "a duplicate does not re-open it");
	in = instance_of(1, 2, 1);
	is_int(store_add_instance(s, &in, 4000, &duplicate), 0, "a late image");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "re-opens it");
	is_int(study_row(s, 1).settle_at, 4000, "with a new time");
	is_int(study_row(s, 1).revision, 1, "the revision stays");
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 4000);
	is_int(st.id, id, "it is composed again");
	is_int(st.attempt, 1, "from attempt 1");
	is_int(st.revision, 1, "knowing the revision before");

	in = instance_of(1, 3, 1);
	is_int(store_add_instance(s, &in, 5000, &duplicate), 0, "an image in the middle of it");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "voids the claim");
	is_int(store_finish_study(s, &st, 2, ""), -ESTALE, "which cannot finish");
	is_int(store_close_study(s, &st, STUDY_PARKED, ""), -ESTALE, "nor close");
	is_int(store_retry_study(s, &st, 1, "", false), -ESTALE, "nor retry");
	is_int(study_row(s, 1).settle_at, 5000, "nor change anything");
	in = claim(s, 1);
	settle(s, &in);
	late = next_study(s, 5000);
	ok(late.token > st.token, "the next claim has a higher token");
	is_int(store_finish_study(s, &st, 2, ""), -ESTALE, "the old one is void for ever");
	is_int(store_finish_study(s, &late, 2, "amended"), 0, "the new one finishes");
	is_int(study_row(s, 1).revision, 2, "revision 2");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_lists(void)
{
	struct store *s = open_fresh("lists");
	struct instance in[4];
	struct study st[3];
	size_t n = 0;

	for (unsigned i = 0; i < 5; i++)
		(void)add(s, i, i);
	for (unsigned i = 5; i < 8; i++)
		(void)add(s, 4, i);
	is_int(store_find_study(s, "1.2.9.77", st), -ENOENT, "no such study");
	is_int(store_study_instances(s, study_row(s, 4).id, in, 4, &n), 0, "instances of a study");
	is_int(n, 4, "four");
	ok(in[0].id < in[1].id && in[1].id < in[2].id && in[2].id < in[3].id, "by id");
	is_int(store_study_instances(s, study_row(s, 4).id, in, 2, &n), -E2BIG, "too little room");
	is_int(n, 4, "and how much is needed");
	is_int(store_list_studies(s, INT64_MAX, st, 3, &n), 0, "the newest studies");
	is_int(n, 3, "three");
	is_str(st[0].study_uid, "1.2.9.4", "the newest first");
	is_int(store_list_studies(s, st[2].id, st, 3, &n), 0, "the page after");
	is_int(n, 2, "two more");
	is_str(st[1].study_uid, "1.2.9.0", "to the oldest");
	is_int(store_list_studies(s, st[1].id, st, 3, &n), 0, "and the end");
	is_int(n, 0, "none");
	store_close(s);
}

/* ---- reports and findings ------------------------------------------------------------------- */

static void test_reports(void)
{
	struct store *s = open_fresh("reports");
	int64_t study = report_study(s, 1), id = 0;
	struct report rep = report_of(study, 2, 5), same, got[3];
	size_t n = 0;

	(void)snprintf(rep.predecessor, sizeof(rep.predecessor), "2.25.101");
	is_int(store_add_report(s, &rep), 0, "add");
	ok(rep.id > 0, "it has an id");
	same = report_of(study, 3, 5);
	is_int(store_add_report(s, &same), -EEXIST, "the same SOP Instance UID is refused");
	is_int(same.id, 0, "and gets no id");
	same = report_of(999, 1, 6);
	is_int(store_add_report(s, &same), -EINVAL, "so is a report of no study");
	is_int(store_study_reports(s, study, got, 3, &n), 0, "list");
	is_int(n, 2, "both revisions");
	ok(memcmp(&got[1], &rep, sizeof(rep)) == 0, "the report comes back as it was");
	is_int(store_study_reports(s, study, got, 1, &n), -E2BIG, "too little room");
	is_int(store_find_report_file(s, rep.file, &id), 0, "a file finds its report");
	is_int(id, rep.id, "the right one");
	is_int(store_find_report_file(s, 1, &id), -ENOENT, "no such file");
	store_close(s);
}

static void test_findings(void)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 }, empty[DIGEST_SIZE] = { 2 }, none[DIGEST_SIZE] = { 3 };
	struct store *s = open_fresh("findings");
	void *text = NULL;
	size_t n = 0;

	is_int(store_keep_findings(s, key, "edema\0x", 7), 0, "keep");
	is_int(store_keep_findings(s, key, "edema\0x", 7), 0, "keep again");
	is_int(store_get_findings(s, key, &text, &n), 0, "get");
	ok(n == 7 && memcmp(text, "edema\0x", 8) == 0, "the bytes, and a NUL after them");
	free(text);
	is_int(store_keep_findings(s, empty, NULL, 0), 0, "an empty text");
	is_int(store_get_findings(s, empty, &text, &n), 0, "comes back");
	is_int(n, 0, "empty");
	free(text);
	is_int(store_get_findings(s, none, &text, &n), -ENOENT, "no such text");
	store_close(s);
}

/* ---- deliveries ----------------------------------------------------------------------------- */

static void test_next_delivery(void)
{
	struct store *s = open_fresh("delivery");
	int64_t one = report_study(s, 1), two = report_study(s, 2), due_i, due_s, due_d;
	struct delivery d, other;

	is_int(store_add_delivery(s, one, 1, "SR", "PACS", RANK_ROUTINE, 77), 0, "the same delivery again");
	is_int(number(s, "SELECT count(*) FROM delivery"), 2, "is no second row");
	is_int(store_add_delivery(s, one, 1, "SC", "PACS", RANK_ROUTINE, 78), 0, "another kind is");
	is_int(store_add_delivery(s, two, 1, "SR", "ARCHIVE", RANK_ROUTINE, 79), 0, "another destination is");
	is_int(store_add_delivery(s, two, 1, "SR", "A NAME OF MORE THAN 16", RANK_ROUTINE, 79), -EINVAL, "a bad one is not");
	is_int(next_delivery(s, "NOBODY", 1000).id, -ENOENT, "nothing for somebody unknown");

	d = next_delivery(s, "PACS", 1000);
	is_int(d.study, one, "the lowest id first");
	is_str(d.kind, "SR", "its kind");
	is_str(d.destination, "PACS", "its destination");
	is_int(d.state, DELIVERY_SENDING, "SENDING");
	is_int(d.attempt, 1, "the attempt is counted");
	is_int(d.lease, 1060, "the lease is kept");
	is_int(d.status, -1, "no status yet");
	is_int(d.report, 0, "no class yet");
	is_int(d.created, 50, "created");
	is_int(store_defer_delivery(s, &d, 2000, 0xa700, "out of resources", 1, false), 0, "defer");
	other = delivery_row(s, one, d.id);
	is_int(other.state, DELIVERY_QUEUED, "QUEUED");
	is_int(other.due, 2000, "due then");
	is_int(other.status, 0xa700, "with the status");
	is_int(other.permanent, 1, "and the count of refusals");
	is_str(other.why, "out of resources", "and the reason");
	is_int(next_delivery(s, "PACS", 1999).study, two, "then the next id");
	other = next_delivery(s, "PACS", 1999);
	is_str(other.kind, "SC", "then the third");
	is_int(next_delivery(s, "PACS", 1999).id, -ENOENT, "then none");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	ok(due_d <= 1000, "the other destination has something at once");
	is_int(next_delivery(s, "ARCHIVE", 1000).study, two, "namely this");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_d, 2000, "next due is the deferred one's");
	is_int(store_defer_delivery(s, &other, 3000, -1, "stopped", 0, true), 0, "an interruption");
	is_int(delivery_row(s, one, other.id).attempt, 0, "does not count");
	d = next_delivery(s, "PACS", 2500);
	is_int(d.attempt, 2, "second attempt");
	is_int(store_close_delivery(s, &d, 2600, 0, "accepted"), 0, "close");
	other = delivery_row(s, one, d.id);
	is_int(other.state, DELIVERY_DONE, "DONE");
	is_int(other.finished, 2600, "then");
	is_int(other.status, 0, "with its status");
	store_close(s);
}

static int mid_choose(struct store *s, const struct delivery *d)
{
	return store_choose_report(s, d, 1);
}

static void test_stale_deliveries(void)
{
	static const struct {
		const char *name;
		int (*call)(struct store *s, const struct delivery *d);
		enum delivery_state leads_to;
	} calls[] = {
		{ "choose", mid_choose, DELIVERY_SENDING }, { "reject", store_reject_report, DELIVERY_SENDING },
		{ "defer", end_defer, DELIVERY_QUEUED }, { "park", end_park, DELIVERY_PARKED },
		{ "close", end_close, DELIVERY_DONE },
	};
	struct store *s = open_fresh("stale-delivery");
	int64_t study = report_study(s, 1);
	struct delivery old, now, free_row = delivery_row(s, study, 1);
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		is_int(calls[i].call(s, &free_row), -ESTALE, "%s: a row that nobody claimed", calls[i].name);
		old = next_delivery(s, "PACS", 1000);
		is_int(store_recover(s, 1000, &n), 0, "restart");
		is_int(n, 1, "one claim is taken back");
		is_int(calls[i].call(s, &old), -ESTALE, "%s: a claim that was taken back", calls[i].name);
		now = next_delivery(s, "PACS", 1000);
		ok(now.token > old.token, "the token grows");
		is_int(calls[i].call(s, &old), -ESTALE, "%s: somebody else's claim", calls[i].name);
		is_int(delivery_row(s, study, now.id).state, DELIVERY_SENDING, "nothing changed");
		if (calls[i].call == store_reject_report)
			(void)store_choose_report(s, &now, 1);
		is_int(calls[i].call(s, &now), 0, "%s: the latest claim", calls[i].name);
		is_int(delivery_row(s, study, now.id).state, calls[i].leads_to, "leads to its state");
		if (calls[i].leads_to == DELIVERY_SENDING)
			is_int(end_defer(s, &now), 0, "and back");
		free_row = delivery_row(s, study, 1);
	}
	free_row.id = 999;
	is_int(store_choose_report(s, &free_row, 1), -ESTALE, "a row that is not there");
	store_close(s);
}

static void test_parked(void)
{
	struct store *s = open_fresh("parked");
	int64_t one = report_study(s, 1), two = report_study(s, 2), due_i, due_s, due_d;
	struct delivery d = next_delivery(s, "PACS", 1), got;
	struct destination to[2];
	unsigned flushed = 9;
	size_t n;

	(void)store_defer_delivery(s, &d, 10, 0xc000, "refused", 2, false);
	d = next_delivery(s, "PACS", 10);
	is_int(d.attempt, 2, "second attempt");
	is_int(store_park_delivery(s, &d, 90000, 0xc000, "refused"), 0, "park");
	got = delivery_row(s, one, d.id);
	is_int(got.state, DELIVERY_PARKED, "PARKED");
	is_int(got.attempt, 0, "attempts restart");
	is_int(got.permanent, 2, "refusals stay counted");
	d = next_delivery(s, "PACS", 50000);
	is_int(d.study, two, "the next one is not held up");
	(void)store_defer_delivery(s, &d, 60000, -1, "silent", 0, false);
	is_int(next_delivery(s, "PACS", 59999).id, -ENOENT, "nothing before it is due");
	is_int(store_destinations(s, to, 2, &n), 0, "destinations");
	is_int(n, 1, "one");
	is_str(to[0].ae_title, "PACS", "this one");
	ok(to[0].queued == 1 && to[0].parked == 1 && to[0].due == 60000, "with its counts and earliest time");
	d = next_delivery(s, "PACS", 60000);
	is_int(store_close_delivery(s, &d, 60001, 0, ""), 0, "the waiting one goes");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_d, 90000, "next due is the parked one's");
	is_int(next_delivery(s, "PACS", 89999).id, -ENOENT, "parked until its day");
	d = next_delivery(s, "PACS", 90000);
	ok(d.study == one && d.attempt == 1 && d.permanent == 2, "then it is tried again");
	is_int(store_park_delivery(s, &d, 180000, 0xc000, "refused"), 0, "and parked again");

	is_int(store_add_delivery(s, one, 1, "SR", "ARCHIVE", RANK_ROUTINE, 5), 0, "a fresh one elsewhere");
	is_int(store_flush_deliveries(s, "ARCHIVE", 100000, &flushed), 0, "flush another destination");
	is_int(flushed, 0, "its fresh row needs no flush");
	is_int(next_delivery(s, "PACS", 100000).id, -ENOENT, "and this one is still parked");
	is_int(store_flush_deliveries(s, "PACS", 100000, &flushed), 0, "flush this destination");
	is_int(flushed, 1, "one row");
	got = delivery_row(s, one, d.id);
	ok(got.state == DELIVERY_QUEUED && got.attempt == 0 && got.permanent == 0 && got.due <= 100000,
	   "it is queued, at once, counts restarted");
	d = next_delivery(s, "PACS", 100000);
	(void)store_defer_delivery(s, &d, 500000, -1, "", 0, false);
	d = next_delivery(s, "ARCHIVE", 100000);
	(void)store_park_delivery(s, &d, 600000, -1, "");
	is_int(store_flush_deliveries(s, "", 100000, &flushed), 0, "flush all");
	is_int(flushed, 2, "two rows");
	is_int(store_destinations(s, to, 2, &n), 0, "destinations");
	ok(n == 2 && to[0].queued == 1 && to[1].queued == 1 && to[0].parked + to[1].parked == 0, "both queued");
	is_int(store_destinations(s, to, 1, &n), 0, "room for one");
	is_int(n, 1, "one");
	store_close(s);
}

static void test_choose(void)
{
	struct store *s = open_fresh("choose");
	int64_t study = report_study(s, 1), other = report_study(s, 2), first = 1;
	struct report second = add_report(s, study, 1, 3), got[3];
	struct delivery d = next_delivery(s, "PACS", 1);
	size_t n = 0;

	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	ok(n == 2 && got[0].id == first && got[1].id == second.id, "both classes of the revision");
	is_int(store_reject_report(s, &d), -ENOENT, "nothing to reject before the choice");
	is_int(store_choose_report(s, &d, 2), -ENOENT, "another study's report is no candidate");
	is_int(store_choose_report(s, &d, first), 0, "choose");
	is_int(store_choose_report(s, &d, first), 0, "the same choice again is no error");
	is_int(store_choose_report(s, &d, second.id), -EEXIST, "another one is");
	(void)store_defer_delivery(s, &d, 5, -1, "connection lost", 0, false);
	d = next_delivery(s, "PACS", 5);
	is_int(d.report, first, "the choice outlives the attempt");
	is_int(store_choose_report(s, &d, second.id), -EEXIST, "and binds the next one");
	is_int(store_reject_report(s, &d), 0, "the peer refuses the class for good");
	is_int(delivery_row(s, study, d.id).report, 0, "the choice is open again");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	ok(n == 1 && got[0].id == second.id, "without the refused class");
	is_int(store_choose_report(s, &d, first), -ENOENT, "which cannot be chosen again");
	is_int(store_choose_report(s, &d, second.id), 0, "the next class can");
	is_int(store_reject_report(s, &d), 0, "and be refused");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	is_int(n, 0, "none left");
	(void)store_park_delivery(s, &d, 1000, 0x122, "no class accepted");
	d = next_delivery(s, "PACS", 1000);
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "after parking");
	is_int(n, 2, "every class may be tried again");
	is_int(store_choose_report(s, &d, first), 0, "choose");
	is_int(store_reject_report(s, &d), 0, "reject");
	(void)store_defer_delivery(s, &d, 2000, -1, "", 0, false);
	is_int(store_flush_deliveries(s, "PACS", 1000, &(unsigned){ 0 }), 0, "flush");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "after a flush");
	is_int(n, 2, "every class may be tried again");
	ok(other > 0 && is_sound(s), "the database is sound");
	store_close(s);
}

/* A delivery that the archive has taken and must now commit to. */
static struct delivery awaiting(struct store *s, int64_t study, int64_t now, const char *transaction)
{
	struct delivery d = next_delivery(s, "PACS", now);

	if (d.report == 0)
		is_int(store_choose_report(s, &d, 1), 0, "choose");
	is_int(store_await_commitment(s, &d, transaction, now + 1000, 0, "waits"), 0, "await");
	return delivery_row(s, study, d.id);
}

static void test_commitment(void)
{
	struct store *s = open_fresh("commitment");
	int64_t study = report_study(s, 1);
	struct delivery d, found, late;
	unsigned n = 0;

	d = awaiting(s, study, 10, "1.2.77.1");
	ok(d.state == DELIVERY_QUEUED && d.due == 1010, "stored there: it waits until its time");
	is_int(next_delivery(s, "PACS", 500).id, -ENOENT, "before that it is not sent again");
	is_int(store_flush_deliveries(s, "PACS", 500, &n), 0, "flush");
	is_int(n, 0, "does not send it again either");
	is_int(store_find_commitment(s, "PACS", "1.2.77.2", "2.25.101", &found), -ENOENT, "another transaction");
	is_int(store_find_commitment(s, "OTHER", "1.2.77.1", "2.25.101", &found), -ENOENT, "another archive");
	is_int(store_find_commitment(s, "PACS", "1.2.77.1", "2.25.9", &found), -ENOENT, "another object");
	is_int(store_find_commitment(s, "PACS", "1.2.77.1", "2.25.101", &found), 0, "the transaction and its object");
	is_int(found.id, d.id, "its delivery");

	/* it failed there */
	is_int(store_resend_delivery(s, &found, 600, false, "lost", 1), 0, "resend");
	is_int(store_find_commitment(s, "PACS", "1.2.77.1", "2.25.101", &late), -ENOENT, "its transaction is over");
	is_int(next_delivery(s, "PACS", 599).id, -ENOENT, "due later");
	d = awaiting(s, study, 600, "1.2.77.3");
	ok(d.attempt == 2 && d.permanent == 1, "a second attempt, the failure counted");

	/* a restart before it is known that the archive was asked */
	is_int(store_recover(s, 700, &n), 0, "restart");
	is_int(delivery_row(s, study, d.id).due, 700, "sent again at once");
	late = delivery_row(s, study, d.id);
	d = awaiting(s, study, 700, "1.2.77.4");
	is_int(store_confirm_delivery(s, &late, 710, "committed"), -ESTALE, "an answer to the attempt before changes nothing");
	is_int(store_find_commitment(s, "PACS", "1.2.77.3", "2.25.101", &found), -ENOENT, "nor does its transaction");
	is_int(store_commitment_asked(s, &d, 720), 0, "the archive was asked");
	is_int(store_recover(s, 730, &n), 0, "restart");
	is_int(delivery_row(s, study, d.id).due, 1700, "after that it waits on");

	/* nothing came: sent again; what is told meanwhile waits for the new transaction */
	d = next_delivery(s, "PACS", 1700);
	is_int(store_find_commitment(s, "PACS", "1.2.77.4", "2.25.101", &found), 0, "the old transaction is still known");
	is_int(store_confirm_delivery(s, &found, 1710, "committed"), -ESTALE, "but the delivery is being sent");
	is_int(store_resend_delivery(s, &found, 1710, false, "lost", 0), -ESTALE, "in either way");
	is_int(store_await_commitment(s, &d, "1.2.77.5", 2700, 0, "waits"), 0, "await");
	is_int(store_await_commitment(s, &d, "1.2.77.6", 2700, 0, "waits"), -ESTALE, "once");
	is_int(store_find_commitment(s, "PACS", "1.2.77.5", "2.25.101", &found), 0, "the latest transaction");
	is_int(store_confirm_delivery(s, &found, 1720, "committed"), 0, "confirm");
	d = delivery_row(s, study, d.id);
	ok(d.state == DELIVERY_DONE && d.finished == 1720, "DONE then");
	is_int(number(s, "SELECT count(*) FROM commitment"), 0, "nothing is left of it");
	is_int(store_confirm_delivery(s, &found, 1730, "committed"), -ESTALE, "told twice");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_list_deliveries(void)
{
	struct store *s = open_fresh("list-deliveries");
	struct delivery d, all[2];
	size_t n;

	for (unsigned i = 1; i <= 4; i++)
		(void)report_study(s, i);
	d = next_delivery(s, "PACS", 1);
	is_int(end_close(s, &d), 0, "the first is done");
	d = next_delivery(s, "PACS", 1);
	is_int(store_list_deliveries(s, 0, all, 2, &n), 0, "list");
	ok(n == 2 && all[0].id == 2 && all[1].id == 3, "the open ones by id, SENDING too");
	is_int(store_list_deliveries(s, all[1].id, all, 2, &n), 0, "the page after");
	ok(n == 1 && all[0].id == 4, "the last");
	store_close(s);
}

int main(void)
{
	make_dir("test_study_delivery");
	test_next_study();
	test_settle_study();
	test_plan();
	test_reopen();
	test_lists();
	test_reports();
	test_findings();
	test_next_delivery();
	test_stale_deliveries();
	test_parked();
	test_choose();
	test_commitment();
	test_list_deliveries();
	return done();
}
