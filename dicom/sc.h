/* sc.h: a report's companions, for archives and viewers that show no Structured Report: the page of
 * page.h as Secondary Capture or PDF, and a presentation state that lies over the radiograph itself.
 *
 * The same struct sr_report as for sr_write(), with `picture` in every image that a page or a
 * presentation state shows; sop_class is not looked at.  The same input gives the same bytes.
 */
#ifndef CARZEROD_DICOM_SC_H
#define CARZEROD_DICOM_SC_H

#include <stddef.h>

#include "base/err.h"

#include "dicom/sr.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SC_PAGES_MAX 8 /* analysed images of a study that get a page; the others are in the report alone */

/* Index of the image that page 1.. shows: the analysed ones in the order of the report.  n_images when
 * no image was analysed: then there is one page, that says so. */
size_t sc_image_of_page(const struct sr_report *report, size_t page);

/* Each writes a Part 10 file (explicit VR little endian) to fd, which must be empty; does not fsync.
 * -EBADMSG with text when a source object cannot be used. */
int sc_write(const struct sr_report *report, size_t page, int fd, struct err *e);
int gsps_write(const struct sr_report *report, size_t page, int fd, struct err *e); /* of an analysed image only */
int pdf_write(const struct sr_report *report, int fd, struct err *e); /* all pages */

#ifdef __cplusplus
}
#endif
#endif
