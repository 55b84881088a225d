/* credential.c: see credential.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/credential.h"

/* Where the file is that a key of `tls` names; NULL stays NULL. */
static int place(const char *key, const char *path, char **ret, struct err *e)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");

	*ret = NULL;
	if (path == NULL)
		return 0;
	if (strncmp(path, CONFIG_CREDENTIAL, strlen(CONFIG_CREDENTIAL)) != 0) {
		*ret = xstrdup(path);
		return 0;
	}
	path += strlen(CONFIG_CREDENTIAL);
	if (path[0] == '\0' || strchr(path, '/') != NULL)
		return err_set(e, -EINVAL, "tls.%s: " CONFIG_CREDENTIAL " wants the name of a credential", key);
	if (folder == NULL)
		return err_set(e, -ENOENT, "tls.%s: credential %s: the service manager has handed over none "
			       "(LoadCredential=%s:/path/of/the/file in the unit)", key, path, path);
	if (asprintf(ret, "%s/%s", folder, path) < 0)
		abort(); /* as xcalloc */
	return 0;
}

int credential_paths(const struct config *c, char *ret[CREDENTIAL_FILES], struct err *e)
{
	const struct {
		const char *key, *path;
	} files[CREDENTIAL_FILES] = { { "certificate", c->tls.certificate }, { "key", c->tls.key },
				      { "ca", c->tls.ca }, { "crl", c->tls.crl } };
	size_t i;
	int r = 0;

	memset(ret, 0, CREDENTIAL_FILES * sizeof(*ret));
	for (i = 0; r == 0 && i < CREDENTIAL_FILES; i++)
		r = place(files[i].key, files[i].path, &ret[i], e);
	return r;
}
