/* conformance.h: the tables of doc/conformance.md, from what this program does.
 */
#ifndef CARZEROD_DAEMON_CONFORMANCE_H
#define CARZEROD_DAEMON_CONFORMANCE_H

/* Markdown on standard output. */
void conformance_print(void);

#endif
