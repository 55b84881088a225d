/* banned.h: functions that have hurt others.  Force-included into every C file of ours, so that a use
 * does not compile.  Each line says what to use instead.
 */
#ifndef CARZEROD_BASE_BANNED_H
#define CARZEROD_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#pragma GCC poison strcpy strcat strncpy strncat /* str_copy, snprintf */
#pragma GCC poison sprintf vsprintf              /* snprintf */
#undef alloca /* glibc makes it a macro; a macro cannot be poisoned */
#pragma GCC poison gets                           /* bounded reads; alloca is a macro: -Walloca */
#pragma GCC poison strtok atoi atol atof atoll   /* str_to_u64 */
#pragma GCC poison system popen                  /* we start nothing through a shell */
#pragma GCC poison gmtime localtime ctime asctime /* the _r forms, or clock.h */
#pragma GCC poison tmpnam mktemp                  /* mkstemp, O_TMPFILE, memory files */

#endif
