/* instance.c: images that somebody sent, from the row that acknowledges one to its scores.
 *
 * Job: the INSTANCE arrows of schema.sql, one function each.
 *
 * Promise: an attempt is counted before anybody works on the image, and only the holder of the
 * latest claim can end it.  The same bytes sent again make no new work, ever.  A claim finds the
 * lowest id that is due by index alone, however many rows wait or are finished.
 *
 * Never: touches a file; decides how many attempts are enough, or when the next one is due.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/spool.h"
#include "store/store-private.h"

#define SELECT_INSTANCE                                                                            \
	"SELECT i.id, i.study, i.file, i.sop_class, i.sop_uid, s.study_uid, i.series_uid, i.syntax, "  \
	"i.calling_ae, i.called_ae, i.peer, i.digest, i.size, i.received, i.revision, i.repeats, "     \
	"i.state, i.outcome, i.why, i.attempt, i.token, i.lease, i.due, i.patient, i.content, "        \
	"i.recipe, i.precision, i.version, i.weights, i.findings, i.settled, i.kept, i.embedding, s.lane "                  \
	"FROM instance i JOIN study s ON s.id = i.study "

/* The columns of SELECT_INSTANCE, in its order. */
static void read_instance(struct query *q, struct instance *in)
{
	memset(in, 0, sizeof(*in));
	in->id = query_int(q);
	in->study = query_int(q);
	in->file = (uint64_t)query_int(q);
	query_field(q, in->sop_class);
	query_field(q, in->sop_uid);
	query_field(q, in->study_uid);
	query_field(q, in->series_uid);
	query_field(q, in->syntax);
	query_field(q, in->calling_ae);
	query_field(q, in->called_ae);
	query_field(q, in->peer);
	query_digest(q, in->digest);
	in->size = (uint64_t)query_int(q);
	in->received = query_int(q);
	in->revision = (unsigned)query_int(q);
	in->repeats = (unsigned)query_int(q);
	in->state = (enum instance_state)query_int(q);
	in->outcome = (enum instance_outcome)query_int(q);
	query_field(q, in->why);
	in->attempt = (unsigned)query_int(q);
	in->token = query_int(q);
	in->lease = query_int(q);
	in->due = query_int(q);
	query_digest(q, in->patient);
	query_digest(q, in->content);
	query_field(q, in->recipe);
	query_field(q, in->precision);
	query_field(q, in->version);
	query_digest(q, in->weights);
	query_digest(q, in->findings);
	in->settled = query_int(q);
	in->kept = query_int(q) != 0;
	in->embedding = (uint64_t)query_int(q);
	in->lane = (enum study_lane)query_int(q);
}

static int get_instance(struct store *s, int64_t id, struct instance *ret)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_INSTANCE "WHERE i.id = ?");
	int r;

	query_bind_int(&q, id);
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	read_instance(&q, ret);
	return 0;
}

/* ---- add ------------------------------------------------------------------------------------ */

static int find_same(struct store *s, const struct instance *in, int64_t *ret_id, int64_t *ret_study)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT id, study FROM instance WHERE sop_uid = ? AND digest = ?");
	int r;

	query_bind_field(&q, in->sop_uid);
	query_bind_blob(&q, in->digest, sizeof(in->digest));
	r = query_value(&q, ret_id);
	if (r < 0)
		return r;
	*ret_study = query_int(&q);
	return 0;
}

static int count_repeat(struct store *s, int64_t id)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET repeats = repeats + 1 WHERE id = ?");

	query_bind_int(&q, id);
	return query_run_one(&q);
}

static int next_revision(struct store *s, const char *sop_uid, unsigned *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT ifnull(max(revision), 0) + 1 FROM instance WHERE sop_uid = ?");
	int64_t revision;
	int r;

	query_bind_text(&q, sop_uid, UID_MAX);
	r = query_value(&q, &revision);
	if (r < 0)
		return r;
	*ret = (unsigned)revision;
	return 0;
}

static int insert_instance(struct store *s, struct instance *in)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO instance (study, file, sop_class, sop_uid, series_uid, syntax, "
			    "calling_ae, called_ae, peer, digest, size, received, revision, state, slow) "
			    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	int r;

	query_bind_int(&q, in->study);
	query_bind_int(&q, (int64_t)in->file);
	query_bind_field(&q, in->sop_class);
	query_bind_field(&q, in->sop_uid);
	query_bind_field(&q, in->series_uid);
	query_bind_field(&q, in->syntax);
	query_bind_field(&q, in->calling_ae);
	query_bind_field(&q, in->called_ae);
	query_bind_field(&q, in->peer);
	query_bind_blob(&q, in->digest, sizeof(in->digest));
	query_bind_int(&q, (int64_t)in->size);
	query_bind_int(&q, in->received);
	query_bind_int(&q, in->revision);
	query_bind_int(&q, in->state);
	query_bind_int(&q, in->lane != LANE_NORMAL);
	r = query_run(&q);
	if (r < 0)
		return r;
	in->id = sqlite3_last_insert_rowid(s->db);
	return 0;
}

static int add_new(struct store *s, struct instance *in, int64_t settle_at)
{
	int r;

	r = study_for_instance(s, in, settle_at, &in->study, &in->lane);
	if (r < 0)
		return r;
	r = next_revision(s, in->sop_uid, &in->revision);
	if (r < 0)
		return r;
	return insert_instance(s, in);
}

static int add(struct store *s, struct instance *in, int64_t settle_at, bool *ret_duplicate)
{
	int r;

	r = find_same(s, in, &in->id, &in->study);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_duplicate = r == 0;
	return r == 0 ? count_repeat(s, in->id) : add_new(s, in, settle_at);
}

int store_add_instance(struct store *s, struct instance *in, int64_t settle_at, bool *ret_duplicate)
{
	struct instance row = *in;
	bool duplicate = false;
	int r;

	assert(in->state == INSTANCE_READY || in->state == INSTANCE_ASIDE);
	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, add(s, &row, settle_at, &duplicate));
	if (r < 0)
		return r;
	in->id = row.id;
	in->study = row.study;
	if (!duplicate) {
		in->revision = row.revision;
		in->lane = row.lane;
	}
	*ret_duplicate = duplicate;
	return 0;
}

/* ---- claim ---------------------------------------------------------------------------------- */

/* Two seeks: the fresh rows (due 0) lie in the index in order of id; of the retried ones only those
 * that have come due are looked at. */
static int find_due_of(struct store *s, bool slow, int64_t now, int64_t *ret_id)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT min(id) FROM (SELECT * FROM ("
			    "SELECT id FROM instance INDEXED BY instance_due "
			    "WHERE state = 0 AND slow = ?1 AND due = 0 ORDER BY id LIMIT 1) UNION ALL "
			    "SELECT min(id) FROM instance INDEXED BY instance_due "
			    "WHERE state = 0 AND slow = ?1 AND due > 0 AND due <= ?2)");

	query_bind_int(&q, slow);
	query_bind_int(&q, now);
	return query_value(&q, ret_id);
}

static int claim(struct store *s, int64_t id, int64_t lease, struct instance *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET state = 1, attempt = attempt + 1, token = token + 1, lease = ? "
			    "WHERE id = ? AND state = 0");
	int r;

	r = turn_count(s, "instance", "");
	if (r < 0)
		return r;
	query_bind_int(&q, lease);
	query_bind_int(&q, id);
	r = query_run_one(&q);
	if (r < 0)
		return r;
	return get_instance(s, id, ret);
}

int store_claim_instance(struct store *s, int64_t now, int64_t lease, struct instance *ret)
{
	struct instance row;
	int64_t id;
	int r;

	r = turn_find(s, "instance", find_due_of, now, &id); /* before the transaction: most questions find nothing */
	if (r < 0)
		return r;
	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, claim(s, id, lease, &row));
	if (r < 0)
		return r;
	*ret = row;
	return 0;
}

/* ---- the ends of a claim -------------------------------------------------------------------- */

static int update_settled(struct store *s, const struct instance *in)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET state = 2, lease = 0, outcome = ?, why = ?, patient = ?, "
			    "content = ?, recipe = ?, precision = ?, version = ?, weights = ?, findings = ?, "
			    "settled = ?, embedding = ? WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, in->outcome);
	query_bind_field(&q, in->why);
	query_bind_blob(&q, in->patient, sizeof(in->patient));
	query_bind_blob(&q, in->content, sizeof(in->content));
	query_bind_field(&q, in->recipe);
	query_bind_field(&q, in->precision);
	query_bind_field(&q, in->version);
	query_bind_blob(&q, in->weights, sizeof(in->weights));
	query_bind_blob(&q, in->findings, sizeof(in->findings));
	query_bind_int(&q, in->settled);
	query_bind_int(&q, (int64_t)in->embedding);
	query_bind_int(&q, in->id);
	query_bind_int(&q, in->token);
	return query_run_one(&q);
}

static int insert_score(struct store *s, int64_t instance, size_t place, const struct score *score)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO score (instance, place, finding, logit, probability, decision) "
			    "VALUES (?, ?, ?, ?, ?, ?)");

	query_bind_int(&q, instance);
	query_bind_int(&q, (int64_t)place);
	query_bind_field(&q, score->finding);
	query_bind_real(&q, score->logit);
	query_bind_real(&q, score->probability);
	query_bind_int(&q, score->decision);
	return query_run(&q);
}

static int settle(struct store *s, const struct instance *in, const struct score *scores, size_t n)
{
	int r;

	r = update_settled(s, in);
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = insert_score(s, in->id, i, &scores[i]);
	return r;
}

int store_settle_instance(struct store *s, const struct instance *in, const struct score *scores, size_t n)
{
	int r;

	assert(in->outcome == OUTCOME_SCORED || in->outcome == OUTCOME_NOT_ANALYSED ||
	       in->outcome == OUTCOME_SILENT);
	if (n > STORE_SCORES_MAX)
		return -E2BIG;
	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, settle(s, in, scores, n));
}

static int update_map(struct store *s, int64_t instance, const struct score_map *map)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE score SET map = ? WHERE instance = ? AND place = ?");
	int r;

	query_bind_blob(&q, map->shade, map->n);
	query_bind_int(&q, instance);
	query_bind_int(&q, (int64_t)map->place);
	r = query_run_one(&q);
	return r == -ESTALE ? store_refuse(s, -ENOENT, "no such score") : r;
}

int store_add_map(struct store *s, int64_t instance, const struct score_map *map)
{
	int r;

	assert(map->n <= sizeof(map->shade));
	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_map(s, instance, map));
}

static int update_retried(struct store *s, const struct instance *in, int64_t due, const char *why,
			  bool uncount)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET state = 0, lease = 0, due = ?, why = ?, attempt = attempt - ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, due);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, uncount);
	query_bind_int(&q, in->id);
	query_bind_int(&q, in->token);
	return query_run_one(&q);
}

int store_retry_instance(struct store *s, const struct instance *in, int64_t due, const char *why, bool uncount)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_retried(s, in, due, why, uncount));
}

static int update_quarantined(struct store *s, const struct instance *in, int64_t now, const char *why)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET state = 3, lease = 0, outcome = 3, why = ?, settled = ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, now);
	query_bind_int(&q, in->id);
	query_bind_int(&q, in->token);
	return query_run_one(&q);
}

int store_quarantine_instance(struct store *s, const struct instance *in, int64_t now, const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_quarantined(s, in, now, why));
}

/* ---- requeue -------------------------------------------------------------------------------- */

static int delete_scores(struct store *s, int64_t id)
{
	CLEANUP(query) struct query q = query_on(s, "DELETE FROM score WHERE instance = ?");

	query_bind_int(&q, id);
	return query_run(&q);
}

static int update_requeued(struct store *s, int64_t id)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET state = 0, outcome = 0, why = '', attempt = 0, due = 0, "
			    "slow = (SELECT lane > 0 FROM study WHERE study.id = instance.study), "
			    "patient = NULL, content = NULL, recipe = NULL, precision = NULL, version = NULL, "
			    "weights = NULL, findings = NULL, settled = NULL, embedding = 0 WHERE id = ?");

	query_bind_int(&q, id);
	return query_run_one(&q);
}

static int requeue(struct store *s, const struct instance *in, int64_t settle_at)
{
	int r;

	r = delete_scores(s, in->id);
	if (r >= 0 && in->embedding != 0)
		r = doom_file(s, SPOOL_EMBEDDINGS, in->embedding);
	if (r >= 0)
		r = update_requeued(s, in->id);
	if (r >= 0)
		r = study_reopen(s, in->study, settle_at);
	return r;
}

int store_requeue_instance(struct store *s, int64_t id, int64_t settle_at)
{
	struct instance in;
	int r;

	r = get_instance(s, id, &in);
	if (r < 0)
		return r;
	if (in.state == INSTANCE_ASIDE)
		return store_refuse(s, -ENOTSUP, "its class is not analysed");
	if (!in.kept)
		return store_refuse(s, -ENODATA, "its file has expired: send the image again, then ask again");
	if (in.state != INSTANCE_SETTLED && in.state != INSTANCE_QUARANTINED)
		return store_refuse(s, -EBUSY, "it waits already or is being worked on");
	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, requeue(s, &in, settle_at));
}

/* ---- a file that came again ------------------------------------------------------------------- */

int store_instance_file(struct store *s, int64_t id, uint64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT file, kept FROM instance WHERE id = ?");
	int64_t file;
	int r;

	query_bind_int(&q, id);
	r = query_value(&q, &file);
	if (r < 0)
		return r;
	if (query_int(&q) == 0)
		return -ENODATA;
	*ret = (uint64_t)file;
	return 0;
}

static int set_file(struct store *s, int64_t id, uint64_t file)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE instance SET file = ?, kept = 1 WHERE id = ?");

	query_bind_int(&q, (int64_t)file);
	query_bind_int(&q, id);
	return query_run(&q);
}

static int touch_study_of(struct store *s, int64_t id, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET quiet = max(quiet, ?) WHERE id = (SELECT study FROM instance WHERE id = ?)");

	query_bind_int(&q, now);
	query_bind_int(&q, id);
	return query_run(&q);
}

int store_adopt_file(struct store *s, int64_t id, uint64_t file, int64_t now)
{
	int r = change_begin(s);

	if (r < 0)
		return r;
	r = set_file(s, id, file);
	if (r >= 0)
		r = touch_study_of(s, id, now);
	return change_end(s, r);
}

/* ---- embeddings ------------------------------------------------------------------------------- */

int store_list_embeddings(struct store *s, int64_t after, int64_t since, int64_t until, struct instance *ret, size_t max,
			  size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, SELECT_INSTANCE "WHERE i.id > ? AND i.embedding <> 0 AND i.outcome = 1 AND i.received >= ? AND "
			 "i.received < ? ORDER BY i.id LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, after);
	query_bind_int(&q, since);
	query_bind_int(&q, until);
	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0)
		read_instance(&q, &ret[n++]);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int store_count_embeddings(struct store *s, int64_t since, int64_t until, uint64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT count(*) FROM instance WHERE embedding <> 0 AND outcome = 1 AND "
						    "received >= ? AND received < ?");
	int64_t n = 0;
	int r;

	query_bind_int(&q, since);
	query_bind_int(&q, until);
	r = query_value(&q, &n);
	if (r < 0)
		return r;
	*ret = (uint64_t)n;
	return 0;
}

static int adopt_embedding(struct store *s, const struct instance *of, uint64_t file)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance SET embedding = ? WHERE file = ? AND digest = ? AND weights = ? AND recipe = ? AND "
			    "precision = ? AND outcome = 1 AND embedding = 0");
	int r;

	query_bind_int(&q, (int64_t)file);
	query_bind_int(&q, (int64_t)of->file);
	query_bind_blob(&q, of->digest, sizeof(of->digest));
	query_bind_blob(&q, of->weights, sizeof(of->weights));
	query_bind_field(&q, of->recipe);
	query_bind_field(&q, of->precision);
	r = query_run_one(&q);
	return r == -ESTALE ? store_refuse(s, -ENOENT, "no such object") : r;
}

int store_adopt_embedding(struct store *s, const struct instance *of, uint64_t file)
{
	int r = change_begin(s);

	return r < 0 ? r : change_end(s, adopt_embedding(s, of, file));
}

static int forget_embedding(struct store *s, int64_t instance)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE instance SET embedding = 0 WHERE id = ?");

	query_bind_int(&q, instance);
	return query_run(&q);
}

int store_forget_embedding(struct store *s, int64_t instance)
{
	int r = change_begin(s);

	return r < 0 ? r : change_end(s, forget_embedding(s, instance));
}

int instance_clamp(struct store *s, int64_t latest)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE instance INDEXED BY instance_due SET due = ?1 "
						    "WHERE state = 0 AND slow IN (0, 1) AND due > ?1");

	query_bind_int(&q, latest);
	return query_run(&q);
}

/* Suspects wait after every start, claimed or not: only a node that lives tries them. */
static int let_suspects_wait(struct store *s, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance INDEXED BY instance_due SET due = ? WHERE state = 0 AND slow IN (0, 1) AND attempt >= ? AND due < ?");

	query_bind_int(&q, now + STORE_SUSPECT_MS);
	query_bind_int(&q, STORE_SUSPECT_ATTEMPTS);
	query_bind_int(&q, now + STORE_SUSPECT_MS);
	return query_run(&q);
}

int instance_recover(struct store *s, int64_t now, unsigned *n)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE instance INDEXED BY instance_claimed SET state = 0, lease = 0, "
			    "due = min(due, ?) WHERE state = 1");
	int r;

	query_bind_int(&q, now);
	r = query_run(&q);
	if (r < 0)
		return r;
	*n += (unsigned)sqlite3_changes(s->db);
	return let_suspects_wait(s, now);
}

/* ---- looking -------------------------------------------------------------------------------- */

int store_instance_scores(struct store *s, int64_t instance, struct score *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT finding, logit, probability, decision FROM score "
			    "WHERE instance = ? ORDER BY place");
	size_t n = 0;
	int r;

	query_bind_int(&q, instance);
	for (; (r = query_step(&q)) > 0; n++) {
		if (n >= max)
			continue;
		query_field(&q, ret[n].finding);
		ret[n].logit = (float)query_real(&q);
		ret[n].probability = (float)query_real(&q);
		ret[n].decision = (uint8_t)query_int(&q);
	}
	return query_listed(&q, r, n, max, ret_n);
}

int store_instance_maps(struct store *s, int64_t instance, struct score_map *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT place, map FROM score WHERE instance = ? AND map IS NOT NULL ORDER BY place");
	size_t n = 0;
	int r;

	query_bind_int(&q, instance);
	for (; (r = query_step(&q)) > 0; n++) {
		if (n >= max)
			continue;
		ret[n].place = (size_t)query_int(&q);
		ret[n].n = query_blob(&q, ret[n].shade, sizeof(ret[n].shade));
	}
	return query_listed(&q, r, n, max, ret_n);
}

int store_study_instances(struct store *s, int64_t study, struct instance *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_INSTANCE "WHERE i.study = ? ORDER BY i.id");
	size_t n = 0;
	int r;

	query_bind_int(&q, study);
	for (; (r = query_step(&q)) > 0; n++)
		if (n < max)
			read_instance(&q, &ret[n]);
	return query_listed(&q, r, n, max, ret_n);
}

int store_find_file(struct store *s, uint64_t file, int64_t *ret_instance)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT id FROM instance WHERE file = ?");

	query_bind_int(&q, (int64_t)file);
	return query_value(&q, ret_instance);
}
