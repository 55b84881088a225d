/* shim.h: what shim.so, preloaded into every process of the node, shares with the test (shmat(2), id in FAULT_SHIM). */
#ifndef CARZEROD_TESTS_FAULT_SHIM_H
#define CARZEROD_TESTS_FAULT_SHIM_H

#include <stdint.h>

enum shim_kind { SHIM_OPEN, SHIM_WRITE, SHIM_SYNC, SHIM_RENAME, SHIM_REMOVE, SHIM_KINDS };
enum shim_action { SHIM_COUNT, SHIM_FAIL, SHIM_STOP };

struct shim {
	uint64_t dev[2];            /* only calls on these file systems count */
	char prefix[512];           /* and paths below it */
	uint32_t on;
	uint32_t action;
	uint32_t kind;              /* SHIM_KINDS: any */
	uint32_t at;                /* the n-th of them, from 1 */
	int32_t error;
	uint32_t passed[SHIM_KINDS + 1]; /* the last: of any kind */
	uint32_t hit;
};

#endif
