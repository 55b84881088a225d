/* secure.h: the TLS material that the configuration names, opened.
 */
#ifndef CARZEROD_DAEMON_SECURE_H
#define CARZEROD_DAEMON_SECURE_H

#include "dicom/tls.h"

#include "daemon/config.h"

/* Before the sandbox.  *ret is NULL without the key `tls` in the configuration. */
int secure_open(const struct config *c, struct tls **ret, struct err *e);

#endif
