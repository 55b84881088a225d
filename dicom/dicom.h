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

/* Loads the data dictionary (refuses to go on without it: implicit VR would read wrong values in
 * silence), registers the decoders that are asked for, sends DCMTK's own log to base/log at debug
 * level (its texts hold patient data), switches reverse DNS off, sets TCP_NODELAY for DCMTK.
 * Call once, before any other thread or any other call of dicom/. */
int dicom_init(bool codecs, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
