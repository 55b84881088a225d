/* ipc.c: see ipc.h.  The table says everything that is fixed about a type; check_*() functions say
 * what their fields may hold.  Nothing here acts on a message.
 */
#include <errno.h>
#include <string.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "daemon/config.h"
#include "daemon/ipc.h"

#define IPC_MAGIC 0x307a7263u /* "crz0" */

#define FROM(role) (1u << (role))

static bool text_ok(const char *s, size_t size)
{
	size_t n = strnlen(s, size), i;

	if (n == size)
		return false;
	for (i = 0; i < n; i++) {
		if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] == 0x7f)
			return false;
	}
	return true;
}
#define TEXT_OK(field) text_ok((field), sizeof(field))

static bool uid_ok(const char uid[UID_MAX])
{
	return memchr(uid, 0, UID_MAX) != NULL && uid_valid(uid);
}

static bool uid_or_empty(const char uid[UID_MAX])
{
	return uid[0] == '\0' || uid_ok(uid);
}

static bool ae_ok(const char title[AE_TITLE_MAX])
{
	return memchr(title, 0, AE_TITLE_MAX) != NULL && ae_title_valid(title);
}

static bool check_admit(const union ipc_message *m)
{
	return TEXT_OK(m->admit.host);
}

static bool check_object(const union ipc_message *m)
{
	const struct ipc_object *o = &m->object;

	return uid_ok(o->sop_class) && uid_ok(o->sop_uid) && uid_ok(o->study_uid) &&
	       uid_ok(o->series_uid) && uid_ok(o->syntax) && ae_ok(o->calling_ae) &&
	       ae_ok(o->called_ae) && o->analysed_class <= 1 && o->size <= INT64_MAX && o->study_date <= 99991231 &&
	       o->h.token != 0;
}

static bool check_ended(const union ipc_message *m)
{
	const struct ipc_ended *d = &m->ended;

	return d->end < 16 && d->bytes <= INT64_MAX && TEXT_OK(d->calling_ae) && TEXT_OK(d->detail) && TEXT_OK(d->contexts);
}

static bool check_decoded(const union ipc_message *m)
{
	const struct ipc_decoded *d = &m->decoded;

	return d->reason < 64 && d->quality_control <= 1 && TEXT_OK(d->why) &&
	       uid_or_empty(d->sop_uid) && uid_or_empty(d->study_uid);
}

static bool check_composed(const union ipc_message *m)
{
	return m->composed.result <= 0 && TEXT_OK(m->composed.why);
}

static bool check_model(const union ipc_message *m)
{
	return TEXT_OK(m->model.name) && TEXT_OK(m->model.family) && m->model.domain <= 2 &&
	       m->model.n_findings <= FINDINGS_MAX && m->model.side >= 1 &&
	       m->model.side <= IPC_SIDE_MAX && m->model.crop >= 1 && m->model.crop <= m->model.side &&
	       m->model.map_side >= 1 && m->model.map_side <= IPC_MAP_SIDE_MAX;
}

static bool check_scored(const union ipc_message *m)
{
	return m->scored.result <= 0 && m->scored.n <= FINDINGS_MAX && m->scored.kept <= 1;
}

static bool check_chose(const union ipc_message *m)
{
	return m->chose.index < IPC_CLASSES_MAX;
}

static bool check_notice(const union ipc_message *m)
{
	return TEXT_OK(m->notice.event) && TEXT_OK(m->notice.body);
}

static bool check_told(const union ipc_message *m)
{
	return m->told.good <= 1 && TEXT_OK(m->told.why);
}

static bool check_sent(const union ipc_message *m)
{
	return m->sent.failure < 16 && m->sent.status >= -1 && m->sent.status <= 0xffff &&
	       TEXT_OK(m->sent.why);
}

static bool check_ask(const union ipc_message *m)
{
	return uid_ok(m->ask.transaction) && uid_ok(m->ask.sop_class) && uid_ok(m->ask.sop_uid) && m->ask.wait <= 1;
}

static bool check_committed(const union ipc_message *m)
{
	return uid_ok(m->committed.transaction) && uid_ok(m->committed.sop_uid) && TEXT_OK(m->committed.calling_ae) &&
	       m->committed.failed <= 1;
}

static bool check_decode(const union ipc_message *m)
{
	return m->decode.side >= 1 && m->decode.side <= IPC_SIDE_MAX;
}

static bool check_listening(const union ipc_message *m)
{
	return m->listening.certificate_ends >= 0 && m->listening.ca_ends >= 0 && m->listening.crl_ends >= 0;
}

static bool check_compose(const union ipc_message *m)
{
	const struct ipc_compose *c = &m->compose;

	return c->n_images >= 1 && c->n_images <= IPC_IMAGES_MAX && c->object < OBJECT_COUNT && c->page >= 1 &&
	       c->page <= IPC_PAGES_MAX && c->domain <= 2 && c->side >= 1 && c->side <= IPC_SIDE_MAX && c->crop >= 1 &&
	       c->crop <= c->side && c->map_side >= 1 && c->map_side <= IPC_MAP_SIDE_MAX && uid_ok(c->sop_class) &&
	       uid_ok(c->sop_uid) && uid_ok(c->series_uid) && uid_or_empty(c->predecessor_sop_uid) &&
	       uid_or_empty(c->predecessor_series_uid) && uid_ok(c->device_uid) && TEXT_OK(c->date) && TEXT_OK(c->time) &&
	       TEXT_OK(c->timezone) && TEXT_OK(c->serial) && TEXT_OK(c->model_name) && TEXT_OK(c->weights) &&
	       TEXT_OK(c->recipe) && TEXT_OK(c->precision);
}

static bool check_deliver(const union ipc_message *m)
{
	uint32_t i;

	if (m->deliver.n < 1 || m->deliver.n > IPC_CLASSES_MAX)
		return false;
	for (i = 0; i < m->deliver.n; i++) {
		if (!uid_ok(m->deliver.sop_class[i]))
			return false;
	}
	return true;
}

static const struct {
	const char *name;
	unsigned from; /* roles that may send it */
	size_t size;
	size_t min_fds, max_fds;
	bool (*check)(const union ipc_message *m);
} types[IPC_TYPE_COUNT] = {
	[IPC_LISTENING] = { "LISTENING", FROM(IPC_RECEIVER), sizeof(struct ipc_listening), 0, IPC_SOCKETS_MAX, check_listening },
	[IPC_ADMIT] = { "ADMIT", FROM(IPC_RECEIVER), sizeof(struct ipc_admit), 0, 0, check_admit },
	[IPC_CREATE] = { "CREATE", FROM(IPC_ASSOCIATION), sizeof(struct ipc_plain), 0, 0, NULL },
	[IPC_STORED] = { "STORED", FROM(IPC_ASSOCIATION), sizeof(struct ipc_object), 0, 0, check_object },
	[IPC_ABANDON] = { "ABANDON", FROM(IPC_ASSOCIATION), sizeof(struct ipc_status), 0, 0, NULL },
	[IPC_READY] = { "READY", FROM(IPC_IMAGE) | FROM(IPC_SEND) | FROM(IPC_EXPORT) | FROM(IPC_HOOK), sizeof(struct ipc_plain), 0, 0, NULL },
	[IPC_DECODED] = { "DECODED", FROM(IPC_IMAGE), sizeof(struct ipc_decoded), 0, 0, check_decoded },
	[IPC_COMPOSED] = { "COMPOSED", FROM(IPC_IMAGE), sizeof(struct ipc_composed), 0, 0, check_composed },
	[IPC_DIED] = { "DIED", FROM(IPC_IMAGE), sizeof(struct ipc_died), 0, 0, NULL },
	[IPC_MODEL] = { "MODEL", FROM(IPC_INFER), sizeof(struct ipc_model), 0, 0, check_model },
	[IPC_SCORED] = { "SCORED", FROM(IPC_INFER), sizeof(struct ipc_scored), 0, 0, check_scored },
	[IPC_CHOSE] = { "CHOSE", FROM(IPC_SEND), sizeof(struct ipc_chose), 0, 0, check_chose },
	[IPC_SENT] = { "SENT", FROM(IPC_SEND), sizeof(struct ipc_sent), 0, 0, check_sent },
	[IPC_ENDED] = { "ENDED", FROM(IPC_ASSOCIATION), sizeof(struct ipc_ended), 0, 0, check_ended },
	[IPC_ASKED] = { "ASKED", FROM(IPC_SEND), sizeof(struct ipc_sent), 0, 0, check_sent },
	[IPC_COMMITTED] = { "COMMITTED", FROM(IPC_SEND) | FROM(IPC_ASSOCIATION), sizeof(struct ipc_committed), 0, 0,
			    check_committed },
	[IPC_ASK] = { "ASK", FROM(IPC_KEEPER), sizeof(struct ipc_ask), 0, 0, check_ask },
	[IPC_CHANNEL] = { "CHANNEL", FROM(IPC_KEEPER), sizeof(struct ipc_channel), 0, 1, NULL },
	[IPC_FILE] = { "FILE", FROM(IPC_KEEPER), sizeof(struct ipc_status), 0, 1, NULL },
	[IPC_ANSWER] = { "ANSWER", FROM(IPC_KEEPER), sizeof(struct ipc_status), 0, 0, NULL },
	[IPC_DECODE] = { "DECODE", FROM(IPC_KEEPER), sizeof(struct ipc_decode), 2, 2, check_decode },
	[IPC_COMPOSE] = { "COMPOSE", FROM(IPC_KEEPER), sizeof(struct ipc_compose), 4, IPC_FDS_MAX, check_compose },
	[IPC_SCORE] = { "SCORE", FROM(IPC_KEEPER), sizeof(struct ipc_score), 2, 3, NULL },
	[IPC_DELIVER] = { "DELIVER", FROM(IPC_KEEPER), sizeof(struct ipc_deliver), 1, IPC_CLASSES_MAX, check_deliver },
	[IPC_GO] = { "GO", FROM(IPC_KEEPER), sizeof(struct ipc_go), 0, 0, NULL },
	[IPC_NOTICE] = { "NOTICE", FROM(IPC_KEEPER), sizeof(struct ipc_notice), 0, 0, check_notice },
	[IPC_AUDIT] = { "AUDIT", FROM(IPC_KEEPER), sizeof(struct ipc_plain), 1, 1, NULL },
	[IPC_TOLD] = { "TOLD", FROM(IPC_HOOK), sizeof(struct ipc_told), 0, 0, check_told },
};

const char *ipc_type_name(uint32_t type)
{
	return type < IPC_TYPE_COUNT && types[type].name != NULL ? types[type].name : "?";
}

void ipc_begin(union ipc_message *m, enum ipc_type type, uint64_t token)
{
	memset(m, 0, sizeof(*m)); /* padding travels too: nothing of ours may leak in it */
	m->h.magic = IPC_MAGIC;
	m->h.type = type;
	m->h.token = token;
}

int ipc_send(int sock, const union ipc_message *m, const int *fds, size_t n_fds)
{
	return fd_send(sock, m, types[m->h.type].size, fds, n_fds);
}

int ipc_check(enum ipc_role from, const union ipc_message *m, size_t n, size_t n_fds)
{
	uint32_t type;

	if (n < sizeof(m->h) || m->h.magic != IPC_MAGIC)
		return -EPROTO;
	type = m->h.type;
	if (type >= IPC_TYPE_COUNT || (types[type].from & FROM(from)) == 0)
		return -EPROTO;
	if (n != types[type].size || n_fds < types[type].min_fds || n_fds > types[type].max_fds)
		return -EPROTO;
	if (types[type].check != NULL && !types[type].check(m))
		return -EPROTO;
	return 0;
}

int ipc_receive(int sock, enum ipc_role from, union ipc_message *m, int *fds, size_t *ret_n_fds)
{
	size_t n_fds = 0;
	ssize_t n = fd_receive(sock, m, sizeof(*m), fds, IPC_FDS_MAX, &n_fds);
	int r;

	if (n == -ECONNRESET)
		return 0; /* the peer died with our packets unread: an end like any other */
	if (n <= 0)
		return (int)n;
	r = ipc_check(from, m, (size_t)n, n_fds);
	if (r < 0) {
		while (n_fds > 0)
			(void)close(fds[--n_fds]);
		return r;
	}
	*ret_n_fds = n_fds;
	return 1;
}
