/* dicom.h: what every program with DCMTK does first.  Plain C outside; no exception and no
 * OFCondition leaves dicom/.
 */
#ifndef CARZEROD_DICOM_DICOM_H
#define CARZEROD_DICOM_DICOM_H

#include <stdbool.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Who we are, in associations and in the File Meta of everything that we write (PS3.7 D.3.3.2). */
#define DICOM_IMPLEMENTATION_UID "2.25.235286750229824285294557881491574354309"
#define DICOM_IMPLEMENTATION_VERSION "CARZEROD_1"

/* Loads the data dictionary (refuses to go on without it: implicit VR would read wrong values in
 * silence), registers the decoders that are asked for, sends DCMTK's own log to base/log at debug
 * level (its texts hold patient data), switches reverse DNS off.  Call once, before any other thread
 * or any other call of dicom/. */
int dicom_init(bool codecs, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
