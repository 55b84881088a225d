/* test_research_image.c: grey levels of PNG and JPEG files equal those of the reference's loader.
 *
 * tests/vectors/research/ was written by tools/reference/research_vectors.py with OpenCV 4.6.0, its
 * gray.tsv says what must come of each file.  DICOM files are test_image.cc's matter.
 */
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "base/mem.h"

#include "daemon/research_image.h"
#include "tests/tap.h"

static void check_file(const char *folder, char *line)
{
	char *rest = line, *name = strsep(&rest, "\t"), *width = strsep(&rest, "\t"), *height = strsep(&rest, "\t");
	char *want = strsep(&rest, "\t"), *says = strsep(&rest, "\n"), path[4200], hex[DIGEST_HEX_MAX];
	struct research_image image;
	uint8_t digest[DIGEST_SIZE];
	struct err e = { "" };
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	r = research_image_load(path, RECIPE_MIMIC, &image, &e);
	if (strcmp(want, "-") == 0) {
		ok(r < 0 && strstr(e.text, says) != NULL, "%s: %s", name, r < 0 ? e.text : "was read");
		if (r == 0)
			research_image_free(&image);
		return;
	}
	if (!ok(r == 0, "%s is read", name)) {
		printf("# %s\n", e.text);
		return;
	}
	is_int(image.width, strtol(width, NULL, 10), "  its width");
	is_int(image.height, strtol(height, NULL, 10), "  its height");
	is_int(image.recipe, RECIPE_WINDOW, "  recipes are for DICOM");
	digest_of(image.gray, image.width * image.height, digest);
	str_hex(hex, digest, DIGEST_SIZE);
	is_str(hex, want, "  its grey levels");
	research_image_free(&image);
}

int main(void)
{
	const char *top = getenv("srcdir");
	CLEANUP(fclose) FILE *f = NULL;
	CLEANUP(free) char *line = NULL;
	struct research_image image;
	char folder[4096], path[4200];
	size_t size = 0;
	struct err e;

	(void)snprintf(folder, sizeof(folder), "%s/tests/vectors/research", top != NULL ? top : ".");
	(void)snprintf(path, sizeof(path), "%s/gray.tsv", folder);
	f = fopen(path, "re");
	if (!ok(f != NULL, "%s opens", path))
		return done();
	while (getline(&line, &size, f) > 0)
		check_file(folder, line);
	is_int(research_image_load("/nonexistent.png", RECIPE_WINDOW, &image, &e), -ENOENT, "no file");
	return done();
}
