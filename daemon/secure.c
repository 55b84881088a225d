/* secure.c: see secure.h. */
#include <stdlib.h>

#include "daemon/credential.h"
#include "daemon/secure.h"

int secure_open(const struct config *c, struct tls **ret, struct err *e)
{
	char *path[CREDENTIAL_FILES];
	struct tls_files files;
	size_t i;
	int r;

	*ret = NULL;
	if (!c->tls.on)
		return 0;
	r = credential_paths(c, path, e);
	files = (struct tls_files){ path[0], path[1], path[2], path[3] };
	if (r == 0)
		r = tls_open(&files, ret, e);
	for (i = 0; i < CREDENTIAL_FILES; i++)
		free(path[i]);
	return r;
}
