/* fuzz_ipc.c: no bytes of a packet may make the judge read outside it or accept an open end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ipc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static union ipc_message m;
	enum ipc_role role;

	if (size > sizeof(m))
		return 0;
	memset(&m, 0xff, sizeof(m)); /* what a shorter packet leaves is not zero */
	memcpy(&m, data, size);
	for (role = IPC_RECEIVER; role <= IPC_KEEPER; role++) {
		if (ipc_check(role, &m, size, 0) == 0 && m.h.type == IPC_STORED &&
		    (strlen(m.object.sop_uid) >= UID_MAX || strlen(m.object.calling_ae) >= AE_TITLE_MAX))
			abort();
	}
	return 0;
}
