/* credential.h: where the files are that the keys of `tls` name.
 */
#ifndef CARZEROD_DAEMON_CREDENTIAL_H
#define CARZEROD_DAEMON_CREDENTIAL_H

#include "base/err.h"

#include "daemon/config.h"

#define CREDENTIAL_FILES 4

/* Certificate, key, authorities, revocation lists; NULL for what is not configured.  "credential:NAME" is
 * $CREDENTIALS_DIRECTORY/NAME (systemd's LoadCredential=).  Each is to be freed, also after an error. */
int credential_paths(const struct config *c, char *ret[CREDENTIAL_FILES], struct err *e);

#endif
