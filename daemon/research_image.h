/* research_image.h: an image file to the grey levels that the model's letterbox takes.
 *
 * PNG and JPEG give the grey levels of the reference's loader (cv2.imread(path, 0)): grey as it is,
 * colour by 0.299, 0.587, 0.114 (JPEG: its own Y), alpha dropped.  DICOM goes through dicom/image.h with
 * a recipe.  For the person at the command line, never for the node: no seccomp, no limits on time.
 *
 * Refused, because the reference would quietly compute nonsense or something else: 16-bit PNG (only the
 * high byte counts there: 12-bit pictures become black), JPEG turned by EXIF, CMYK, a cut file.
 */
#ifndef CARZEROD_DAEMON_RESEARCH_IMAGE_H
#define CARZEROD_DAEMON_RESEARCH_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#include "daemon/config.h"

#define RESEARCH_FILE_MAX ((size_t)1024 * 1024 * 1024)
#define RESEARCH_PIXELS_MAX ((size_t)256 * 1024 * 1024)

struct research_image {
	size_t width, height;
	uint8_t *gray;	     /* [height][width] malloc'd */
	enum recipe recipe;  /* what a calibration must have been fitted with */
	char note[256];	     /* "" or what a person should know (DICOM that the node would not score) */
};

/* `recipe` counts for DICOM only; other files are taken as they are, which is `window`. */
int research_image_load(const char *path, enum recipe recipe, struct research_image *ret, struct err *e);
void research_image_free(struct research_image *image); /* also of a zeroed one */

#endif
