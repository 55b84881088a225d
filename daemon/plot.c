/* plot.c: see plot.h. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#include "daemon/plot.h"

enum { SQUARE = 200, CELL_WIDTH = 260, CELL_HEIGHT = 275, LEFT = 45, TOP = 25, PER_LINE = 4 };
#define DISC 14.0 /* radius of a share of 1 */
#define LESS_THAN_SEEN 0.0025 /* half a pixel */

struct plot {
	FILE *o;
	const char *x_axis, *y_axis; /* the caller's, until plot_close() */
	size_t n;		     /* squares begun */
	bool in_square, in_line;
	double x, y; /* of the line */
};

static void text(FILE *o, const char *s)
{
	for (; *s != '\0'; s++)
		switch (*s) {
		case '&': fputs("&amp;", o); break;
		case '<': fputs("&lt;", o); break;
		case '>': fputs("&gt;", o); break;
		default: putc(*s, o);
		}
}

int plot_open(const char *path, size_t n, const char *x_axis, const char *y_axis, struct plot **ret,
	      struct err *e)
{
	size_t lines = (n + PER_LINE - 1) / PER_LINE, columns = n < PER_LINE ? n : PER_LINE;
	FILE *o = fopen(path, "wxe");

	if (o == NULL)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	*ret = xcalloc(1, sizeof(**ret));
	**ret = (struct plot){ .o = o, .x_axis = x_axis, .y_axis = y_axis };
	fprintf(o, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%zu\" height=\"%zu\" "
		   "font-family=\"sans-serif\" font-size=\"12\">\n"
		   "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
		columns * CELL_WIDTH, lines * CELL_HEIGHT);
	return 0;
}

static void end_line(struct plot *p)
{
	if (p->in_line)
		fputs("\"/>\n", p->o);
	p->in_line = false;
}

static void end_square(struct plot *p)
{
	end_line(p);
	if (p->in_square)
		fputs("</g>\n", p->o);
	p->in_square = false;
}

void plot_square(struct plot *p, const char *title, const char *note)
{
	end_square(p);
	fprintf(p->o, "<g transform=\"translate(%zu,%zu)\">\n<text y=\"-6\" font-weight=\"bold\">",
		p->n % PER_LINE * CELL_WIDTH + LEFT, p->n / PER_LINE * CELL_HEIGHT + TOP);
	text(p->o, title);
	fprintf(p->o, "</text>\n<rect width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n"
		      "<line x1=\"0\" y1=\"%d\" x2=\"%d\" y2=\"0\" stroke=\"#ccc\"/>\n",
		SQUARE, SQUARE, SQUARE, SQUARE);
	for (int k = 0; k <= 2; k++)
		fprintf(p->o, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\" font-size=\"10\">%.1f</text>\n"
			      "<text x=\"-4\" y=\"%d\" text-anchor=\"end\" font-size=\"10\">%.1f</text>\n",
			k * SQUARE / 2, SQUARE + 12, k / 2.0, SQUARE - k * SQUARE / 2 + 4, k / 2.0);
	fprintf(p->o, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", SQUARE / 2, SQUARE + 26);
	text(p->o, p->x_axis);
	fprintf(p->o, "</text>\n<text transform=\"translate(-28,%d) rotate(-90)\" text-anchor=\"middle\">", SQUARE / 2);
	text(p->o, p->y_axis);
	fprintf(p->o, "</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", SQUARE - 6, SQUARE - 8);
	text(p->o, note);
	fputs("</text>\n", p->o);
	p->in_square = true;
	p->n++;
}

void plot_line(struct plot *p, double x, double y)
{
	bool end = x == 0 || x == 1 || y == 0 || y == 1; /* corners are never left out */

	if (!p->in_line)
		fputs("<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\" points=\"", p->o);
	else if (!end && fabs(x - p->x) < LESS_THAN_SEEN && fabs(y - p->y) < LESS_THAN_SEEN)
		return;
	fprintf(p->o, "%s%.1f,%.1f", p->in_line ? " " : "", SQUARE * x, SQUARE * (1 - y));
	p->in_line = true;
	p->x = x;
	p->y = y;
}

void plot_disc(struct plot *p, double x, double y, double share)
{
	end_line(p);
	fprintf(p->o, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"#1f5fa8\" fill-opacity=\"0.5\"/>\n", SQUARE * x,
		SQUARE * (1 - y), fmax(1.5, DISC * sqrt(share)));
}

int plot_close(struct plot *p)
{
	bool bad;

	end_square(p);
	fputs("</svg>\n", p->o);
	bad = ferror(p->o) != 0;
	bad |= fclose(p->o) != 0;
	free(p);
	return bad ? -EIO : 0;
}
