/* plot.h: a sheet of small square plots as SVG, one a finding, for eyes and for papers.
 *
 * Both axes go from 0 to 1 and the diagonal is drawn: ROC curves and reliability have that form.  A file
 * that exists is never overwritten.  Texts are escaped; an error in writing is told by plot_close().
 */
#ifndef CARZEROD_DAEMON_PLOT_H
#define CARZEROD_DAEMON_PLOT_H

#include <stddef.h>

#include "base/err.h"

struct plot;

/* A sheet of n squares with these names of axes, left to right, then down. */
int plot_open(const char *path, size_t n, const char *x_axis, const char *y_axis, struct plot **ret,
	      struct err *e);
/* Begins the next square.  note: a line inside it, below right. */
void plot_square(struct plot *p, const char *title, const char *note);
/* Draws from the last point of this square's line to here; the first call begins the line. */
void plot_line(struct plot *p, double x, double y);
/* A disc with an area in proportion to share (0 to 1). */
void plot_disc(struct plot *p, double x, double y, double share);
/* Ends the sheet and frees p; -EIO when it could not be written. */
int plot_close(struct plot *p);

#endif
