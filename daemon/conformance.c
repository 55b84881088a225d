/* conformance.c: see conformance.h.
 *
 * Each row is read from the table that the code itself uses, so that the statement cannot say what the
 * node does not do; tests/conformance.sh compares it with doc/conformance.md.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#include "dicom/commitment.h"
#include "dicom/dicom.h"
#include "dicom/scp.h"
#include "dicom/scu.h"
#include "dicom/spooled.h"
#include "dicom/tls.h"

#include "daemon/config.h"
#include "daemon/conformance.h"

#define VERIFICATION "1.2.840.10008.1.1"

static void head(const char *title, const char *columns)
{
	const char *p;

	printf("\n### %s\n\n| %s |\n|", title, columns);
	for (p = columns; p != NULL; p = strchr(p + 1, '|'))
		printf("---|");
	printf("\n");
}

static void class_row(const char *uid, const char *role, const char *what)
{
	printf("| %s | %s | %s | %s |\n", dicom_uid_name(uid), uid, role, what);
}

static void classes(void)
{
	const char *uid;
	size_t i;

	head("Accepted associations", "SOP class | UID | Role | Extent");
	class_row(VERIFICATION, "SCP", "C-ECHO");
	for (i = 0; (uid = spooled_analysed_class(i)) != NULL; i++)
		class_row(uid, "SCP", "C-STORE; analysed");
	printf("| every other Storage SOP class | %s* | SCP | C-STORE; kept and set aside; refused with `other_storage: refuse` |\n",
	       dicom_scp_storage_prefix());
	class_row(COMMITMENT_SOP_CLASS, "SCU", "N-EVENT-REPORT, of peers with `commitment`; only with the SCP role proposed");
	head("Proposed associations", "SOP class | UID | Role | Extent");
	class_row(VERIFICATION, "SCU", "proposed with the others");
	for (i = 0; i < SR_CLASS_COUNT; i++)
		class_row(sr_class_uid((enum sr_class)i), "SCU", "C-STORE; reports, `sr_classes` of the peer");
	for (i = 0; i < OBJECT_COUNT; i++)
		if (object_class_uid((enum result_object)i) != NULL)
			class_row(object_class_uid((enum result_object)i), "SCU", "C-STORE; `objects` of the peer");
	class_row(COMMITMENT_SOP_CLASS, "SCU", "N-ACTION, N-EVENT-REPORT; `commitment` of the peer");
	class_row(QUERY_FIND_CLASS, "SCU", "C-FIND at the level of studies, `carzeroctl fetch`; of one object, `selftest`");
	class_row(QUERY_MOVE_CLASS, "SCU", "C-MOVE to the node itself; `carzeroctl fetch`");
}

static void syntaxes(void)
{
	const char *uid;
	size_t i;

	head("Transfer syntaxes of accepted associations, most preferred first", "Transfer syntax | UID | For");
	for (i = 0; (uid = dicom_scp_syntax(i)) != NULL; i++)
		printf("| %s | %s | %s |\n", dicom_uid_name(uid), uid, i < 2 ? "all" : "Storage");
	head("Transfer syntaxes of proposed associations", "Transfer syntax | UID");
	for (i = 0; i < 2; i++)
		printf("| %s | %s |\n", dicom_uid_name(dicom_scp_syntax(i)), dicom_scp_syntax(i));
}

static void limits(void)
{
	static const char text[] = "{ae_title: A, model: m, findings: f}";
	struct config *c;
	struct err e;

	if (config_parse("defaults", NULL, text, strlen(text), &c, &e) < 0)
		fatal(FATAL_SOFTWARE, "%s", e.text);
	head("Association policies", "What | Default | Key");
	printf("| Maximum PDU length, receiving | %u | `pdu_bytes` |\n", c->limits.pdu_bytes);
	printf("| Associations at a time, accepted | %u | `associations` |\n", c->limits.associations);
	printf("| ... from one address | %u | `associations_per_host` |\n", c->limits.associations_per_host);
	printf("| Associations at a time to one peer | 1 | |\n");
	printf("| Objects in one association | %u | `association_objects` |\n", c->limits.association_objects);
	printf("| Bytes of one object | %llu | `object_bytes` |\n", (unsigned long long)c->limits.object_bytes);
	printf("| Seconds to the whole association request | %u | `request_seconds` |\n", c->limits.arttim_seconds);
	printf("| Seconds without a whole PDU | %u | `idle_seconds` |\n", c->limits.idle_seconds);
	printf("| Seconds of one association | %u | `association_seconds` |\n", c->limits.association_seconds);
	printf("| Asynchronous operations | none | |\n");
	printf("| Port, plain | %u | `listen` |\n", c->listen[0].port);
	printf("| Implementation Class UID | %s | |\n", DICOM_IMPLEMENTATION_UID);
	printf("| Implementation Version Name | %s | |\n", DICOM_IMPLEMENTATION_VERSION);
	config_free(c);
}

static void security(void)
{
	const char *name;
	size_t i;

	head("TLS cipher suites", "Suite");
	for (i = 0; (name = tls_suite(i)) != NULL; i++)
		printf("| %s |\n", name);
}

void conformance_print(void)
{
	classes();
	syntaxes();
	limits();
	security();
}
