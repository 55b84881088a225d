/* notify_rules.h: `notify` of carzerod.yaml: whom to tell what, by webhook or mail.
 */
#ifndef CARZEROD_DAEMON_NOTIFY_RULES_H
#define CARZEROD_DAEMON_NOTIFY_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/yaml.h"

#define NOTIFY_MAX 8
#define NOTIFY_NAME_MAX 33
#define NOTIFY_URL_MAX 512
#define NOTIFY_TO_MAX 4
#define NOTIFY_MAIL_MAX 128

enum notify_event {
	NOTIFY_URGENT,	  /* a report with an urgent finding */
	NOTIFY_SET_ASIDE, /* an object was quarantined, a report or a delivery parked */
	NOTIFY_AWAY,	  /* a destination has not answered for a while; it is back */
	NOTIFY_REFUSING,  /* associations are refused: disk, queue */
	NOTIFY_DRIFT,	  /* a source's scores have moved */
	NOTIFY_EVENTS
};
const char *notify_event_name(enum notify_event e); /* "urgent", "set-aside", ... */

struct notify_rule {
	char name[NOTIFY_NAME_MAX];
	char url[NOTIFY_URL_MAX]; /* https://, or to this machine http:// and smtp:// */
	uint16_t port;		  /* of the url */
	unsigned events;	  /* bits 1 << enum notify_event */
	char *secret;		  /* path, or NULL: a webhook is not signed */
	char *ca;		  /* path, or NULL: the machine's authorities */
	bool study_uid;		  /* the Study Instance UID goes along */
	char from[NOTIFY_MAIL_MAX], to[NOTIFY_TO_MAX][NOTIFY_MAIL_MAX];
	size_t n_to;		  /* above 0: mail */
};

/* Reads the list at n into ret [NOTIFY_MAX]; texts are freed by notify_rules_release(). */
int notify_rules_read(struct yaml_node *n, const struct yaml_key *k, struct notify_rule *ret, size_t *ret_n);
void notify_rules_release(struct notify_rule *rules, size_t n);

#endif
