/* audit_message.c: see audit_message.h.
 *
 * Everything that comes from outside passes escape(): what is no character of XML 1.0, or not ASCII, becomes '?'
 * (AE titles and addresses are ASCII; the institution's name is ours and may be UTF-8: it is kept).
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/audit_message.h"

#define FACILITY 10 /* security/authorization, PS3.15 A.6 */
#define SEVERITY_GOOD 5
#define SEVERITY_BAD 4
#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* RFC 5424 6.4: MSG is UTF-8 */
#define FIND_CLASS "1.2.840.10008.5.1.4.1.2.2.1" /* Study Root, all that we query */
#define EXPLICIT_LITTLE_ENDIAN "1.2.840.10008.1.2.1"

/* PS3.16 CID 400, 401, 403 */
static const struct {
	const char *code, *name;	   /* of the event */
	const char *type_code, *type_name; /* NULL: none */
	char action;
} kinds[AUDIT_KINDS] = {
	[AUDIT_START] = { "110100", "Application Activity", "110120", "Application Start", 'E' },
	[AUDIT_STOP] = { "110100", "Application Activity", "110121", "Application Stop", 'E' },
	[AUDIT_RECEIVED] = { "110104", "DICOM Instances Transferred", NULL, NULL, 'C' },
	[AUDIT_SENT] = { "110104", "DICOM Instances Transferred", NULL, NULL, 'R' },
	[AUDIT_QUERY] = { "110112", "Query", NULL, NULL, 'E' },
	[AUDIT_REFUSED] = { "110113", "Security Alert", "110126", "Node Authentication", 'E' },
	[AUDIT_OPERATOR] = { "110113", "Security Alert", "110132", "Use of Restricted Function", 'E' },
	[AUDIT_CONFIGURED] = { "110113", "Security Alert", "110131", "Software Configuration", 'E' },
	[AUDIT_INTERRUPTED] = { "110113", "Security Alert", "110133", "Audit Recording Stopped", 'E' },
	[AUDIT_RESUMED] = { "110113", "Security Alert", "110134", "Audit Recording Started", 'E' },
	[AUDIT_FILES_DELETED] = { "110103", "DICOM Instances Accessed", NULL, NULL, 'D' },
	[AUDIT_STUDY_DELETED] = { "110105", "DICOM Study Deleted", NULL, NULL, 'D' },
};

const char *audit_kind_name(enum audit_kind k)
{
	return kinds[k].name;
}

/* ---- a text that grows into a buffer ---- */

struct text {
	char *p;
	size_t n, size;
	bool full;
};

static void put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *format, ...)
{
	va_list ap;
	int n;

	if (t->full)
		return;
	va_start(ap, format);
	n = vsnprintf(t->p + t->n, t->size - t->n, format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->size - t->n)
		t->full = true;
	else
		t->n += (size_t)n;
}

/* As the value of an attribute or an element. */
static void escape(struct text *t, const char *value, bool utf8)
{
	for (; *value != '\0'; value++) {
		unsigned char c = (unsigned char)*value;

		switch (c) {
		case '&':
			put(t, "&amp;");
			break;
		case '<':
			put(t, "&lt;");
			break;
		case '>':
			put(t, "&gt;");
			break;
		case '"':
			put(t, "&quot;");
			break;
		default:
			put(t, "%c", c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8) ? '?' : c);
		}
	}
}

static void attribute(struct text *t, const char *name, const char *value)
{
	put(t, " %s=\"", name);
	escape(t, value, false);
	put(t, "\"");
}

static void coded(struct text *t, const char *element, const char *code, const char *scheme, const char *meaning)
{
	put(t, "<%s csd-code=\"%s\" codeSystemName=\"%s\" originalText=\"%s\"/>", element, code, scheme, meaning);
}

static void base64(struct text *t, const char *value)
{
	const uint8_t *p = (const uint8_t *)value;
	size_t n = strlen(value), i;
	char four[STR_BASE64_MAX(3)];

	for (i = 0; i < n; i += 3) {
		str_base64(four, p + i, n - i < 3 ? n - i : 3);
		put(t, "%s", four);
	}
}

/* ---- the parts of A.5.1, in its order ---- */

static void event(struct text *t, const struct audit_message *m)
{
	char stamp[CLOCK_STAMP_MAX];

	clock_stamp(m->at, stamp);
	put(t, "<EventIdentification EventActionCode=\"%c\" EventDateTime=\"%s\" EventOutcomeIndicator=\"%u\">",
	    kinds[m->kind].action, stamp, m->outcome);
	coded(t, "EventID", kinds[m->kind].code, "DCM", kinds[m->kind].name);
	if (kinds[m->kind].type_code != NULL)
		coded(t, "EventTypeCode", kinds[m->kind].type_code, "DCM", kinds[m->kind].type_name);
	put(t, "</EventIdentification>");
}

static bool is_address(const char *at)
{
	return at[strspn(at, "0123456789.")] == '\0' || strchr(at, ':') != NULL;
}

static void participant(struct text *t, const struct audit_who *w)
{
	put(t, "<ActiveParticipant");
	attribute(t, "UserID", w->user);
	if (w->title != NULL) {
		put(t, " AlternativeUserID=\"AETITLES=");
		escape(t, w->title, false);
		put(t, "\"");
	}
	put(t, " UserIsRequestor=\"%s\"", w->requestor ? "true" : "false");
	if (w->at != NULL) {
		attribute(t, "NetworkAccessPointID", w->at);
		put(t, " NetworkAccessPointTypeCode=\"%d\"", is_address(w->at) ? 2 : 1);
	}
	put(t, ">");
	if (w->role == AUDIT_APPLICATION)
		coded(t, "RoleIDCode", "110150", "DCM", "Application");
	if (w->role == AUDIT_SOURCE)
		coded(t, "RoleIDCode", "110153", "DCM", "Source Role ID");
	if (w->role == AUDIT_DESTINATION)
		coded(t, "RoleIDCode", "110152", "DCM", "Destination Role ID");
	put(t, "</ActiveParticipant>");
}

static void source(struct text *t, const struct audit_source *from)
{
	put(t, "<AuditSourceIdentification");
	if (from->institution[0] != '\0') {
		put(t, " AuditEnterpriseSiteID=\"");
		escape(t, from->institution, true);
		put(t, "\"");
	}
	attribute(t, "AuditSourceID", from->ae_title);
	put(t, "><AuditSourceTypeCode csd-code=\"4\"/></AuditSourceIdentification>");
}

static void study(struct text *t, const struct audit_message *m)
{
	put(t, "<ParticipantObjectIdentification");
	attribute(t, "ParticipantObjectID", m->study_uid);
	put(t, " ParticipantObjectTypeCode=\"2\" ParticipantObjectTypeCodeRole=\"3\">");
	coded(t, "ParticipantObjectIDTypeCode", "110180", "DCM", "Study Instance UID");
	put(t, "<ParticipantObjectName>study</ParticipantObjectName>");
	if (m->objects > 0) {
		put(t, "<ParticipantObjectDescription><SOPClass");
		if (m->sop_class != NULL && m->sop_class[0] != '\0')
			attribute(t, "UID", m->sop_class);
		put(t, " NumberOfInstances=\"%u\"/></ParticipantObjectDescription>", m->objects);
	}
	put(t, "</ParticipantObjectIdentification>");
	/* the tables of A.5.3 want the patient too */
	put(t, "<ParticipantObjectIdentification ParticipantObjectID=\"unknown\" ParticipantObjectTypeCode=\"1\" "
	       "ParticipantObjectTypeCodeRole=\"1\">");
	coded(t, "ParticipantObjectIDTypeCode", "2", "RFC-3881", "Patient Number");
	put(t, "<ParticipantObjectName>unknown</ParticipantObjectName></ParticipantObjectIdentification>");
}

static void query(struct text *t, const struct audit_message *m)
{
	put(t, "<ParticipantObjectIdentification ParticipantObjectID=\"" FIND_CLASS "\" ParticipantObjectTypeCode=\"2\" "
	       "ParticipantObjectTypeCodeRole=\"3\">");
	coded(t, "ParticipantObjectIDTypeCode", "110181", "DCM", "SOP Class UID");
	put(t, "<ParticipantObjectQuery>");
	escape(t, m->query, false);
	put(t, "</ParticipantObjectQuery><ParticipantObjectDetail type=\"TransferSyntax\" value=\"");
	base64(t, EXPLICIT_LITTLE_ENDIAN);
	put(t, "\"/></ParticipantObjectIdentification>");
}

static void subject(struct text *t, const struct audit_message *m)
{
	put(t, "<ParticipantObjectIdentification");
	attribute(t, "ParticipantObjectID", m->node);
	put(t, " ParticipantObjectTypeCode=\"2\">");
	coded(t, "ParticipantObjectIDTypeCode", "110182", "DCM", "Node ID");
	put(t, "<ParticipantObjectName>node</ParticipantObjectName>"
	       "<ParticipantObjectDetail type=\"Alert Description\" value=\"");
	base64(t, m->detail);
	put(t, "\"/></ParticipantObjectIdentification>");
}

/* RFC 5424 6.2.4: printable ASCII, or the nil value. */
static const char *host_name(const char *host)
{
	for (const char *p = host; *p != '\0'; p++)
		if (!isgraph((unsigned char)*p))
			return "-";
	return host[0] != '\0' ? host : "-";
}

int audit_write(const struct audit_source *from, const struct audit_message *m, char *ret, size_t size, size_t *ret_n)
{
	struct text t = { .p = ret, .size = size };
	char stamp[CLOCK_STAMP_MAX];
	size_t i;

	clock_stamp(m->at, stamp);
	put(&t, "<%d>1 %s %s carzerod %ld DICOM+RFC3881 - " BYTE_ORDER_MARK, FACILITY * 8 + (m->outcome == 0 ? SEVERITY_GOOD : SEVERITY_BAD),
	    stamp, host_name(from->host), from->process);
	put(&t, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><AuditMessage>");
	event(&t, m);
	for (i = 0; i < m->n_who; i++)
		participant(&t, &m->who[i]);
	source(&t, from);
	if (m->study_uid != NULL)
		study(&t, m);
	if (m->query != NULL)
		query(&t, m);
	if (m->node != NULL)
		subject(&t, m);
	put(&t, "</AuditMessage>");
	if (t.full)
		return -E2BIG;
	*ret_n = t.n;
	return 0;
}
