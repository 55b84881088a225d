/* sc.cc: see sc.h.
 *
 * Job: what a page says, out of struct sr_report; and the modules of three SOP classes around it:
 * Secondary Capture (PS3.3 A.8.1), Encapsulated PDF (A.45.1), Grayscale Softcopy Presentation State (A.33.1).
 * Promise: patient and study are the source's raw elements, as in the report; nothing about the patient
 * is drawn or written by us.
 * Never: Pixel Spacing.  The page is no image to measure on.
 *
 * Burned In Annotation is NO only where the source says NO: we draw nothing about the patient, but the
 * radiograph may bear a name since it was made.
 */
#include "dicom/result.hh"

#include <math.h>
#include <stdio.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmdata/dcvrsl.h"

extern "C" {
#include "base/fdio.h"
#include "base/mem.h"
}

#include "dicom/page.h"
#include "dicom/sc.h"

#define LAYER "AI_RESULT"
#define REGION_FROM 0.5 /* of the highest attention: a field above it belongs to the region around it */
#define DIGEST_SHOWN 12
#define NOTES_MAX 12 /* of not analysed images, named one by one */
#define ST_MAX 1024

namespace
{

using namespace result;

/* ---- what a page says ---- */

/* A page and everything that it points to. */
struct page_text {
	std::vector<std::string> notes;
	std::vector<const char *> note;
	std::vector<struct page_finding> findings;
	std::string caption, identity;
	struct page page = {};
};

std::string plain(double v, const char *format)
{
	char text[64];

	(void)snprintf(text, sizeof(text), format, v);
	return text;
}

std::string image_of(const work &w, size_t i)
{
	return "Image " + std::to_string(i + 1) + " of " + std::to_string(w.r->n_images);
}

size_t analysed_images(const struct sr_report *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_images; i++)
		n += r->images[i].analysed;
	return n;
}

void collect_notes(const work &w, page_text &p)
{
	size_t analysed = analysed_images(w.r), left_out = 0;

	if (w.r->predecessor_sop_uid[0] != '\0')
		p.notes.push_back("Amended: replaces an earlier AI result of this study.");
	if (w.o.raw > 0)
		p.notes.push_back("A raw score is the model's output without calibration. It is no probability, and scores of "
				  "different findings cannot be compared.");
	if (analysed > 1)
		p.notes.push_back(std::to_string(analysed) + " images of this study were analysed; each has a page" +
				  (analysed > SC_PAGES_MAX ? ", from the ninth on in the structured report alone." : "."));
	for (size_t i = 0; i < w.r->n_images; i++) {
		if (w.analysed(i))
			continue;
		if (p.notes.size() >= NOTES_MAX)
			left_out++;
		else
			p.notes.push_back(image_of(w, i) + " was not analysed: " +
					  (!w.images[i]->readable	  ? "its header cannot be read" :
					   w.r->images[i].why[0] != '\0' ? w.r->images[i].why :
									   "no reason is known"));
	}
	if (left_out > 0)
		p.notes.push_back("and " + std::to_string(left_out) + " more, named in the structured report.");
	for (const std::string &text : p.notes)
		p.note.push_back(text.c_str());
}

void collect_findings(const work &w, const struct sr_image &image, page_text &p)
{
	for (size_t k = 0; k < w.r->n_findings; k++) {
		const struct sr_finding *f = &w.r->findings[k];
		const struct sr_score *s = &image.scores[k];
		struct page_finding shown = {};

		shown.name = f->name;
		shown.logit = s->logit;
		shown.probability = s->probability;
		shown.decision = s->decision;
		shown.absent_below = is_calibrated(s) ? f->absent_below : static_cast<double>(NAN);
		shown.present_from = is_calibrated(s) ? f->present_from : static_cast<double>(NAN);
		p.findings.push_back(shown);
	}
	p.page.findings = p.findings.data();
	p.page.n_findings = p.findings.size();
}

void collect_picture(const struct sr_picture *picture, page_text &p)
{
	p.page.gray = picture->image->window;
	p.page.width = picture->image->width;
	p.page.height = picture->image->height;
	p.page.map_x = picture->map_x;
	p.page.map_y = picture->map_y;
	p.page.map_width = picture->map_width;
	p.page.map_height = picture->map_height;
	p.page.n_maps = picture->n_maps;
	for (size_t i = 0; i < picture->n_maps; i++)
		p.page.map[i] = { picture->map[i].finding, picture->map[i].side, picture->map[i].shade };
}

/* i: of an analysed image, or n_images. */
void fill_page(const work &w, size_t i, page_text &p)
{
	const struct sr_report *r = w.r;
	const char *subtitle = r->disclaimer;

	p.page.stamp = r->stamp;
	p.page.title = "AI result, not verified";
	for (const char *said : { r->stamp, p.page.title }) { /* large already, so not once more */
		const char *stop = strstr(subtitle, ". ");

		if (said[0] != '\0' && strncmp(subtitle, said, strlen(said)) == 0 && stop != NULL)
			subtitle = stop + 2;
	}
	p.page.subtitle = subtitle;
	p.identity = std::string(r->manufacturer) + " " + r->software + ", model " + r->model_name + ", weights " +
		     std::string(r->weights_sha256).substr(0, DIGEST_SHOWN) + ", findings list " +
		     std::string(r->findings_sha256).substr(0, DIGEST_SHOWN) + ", recipe " + r->recipe + ", precision " +
		     r->precision;
	p.page.identity = p.identity.c_str();
	collect_notes(w, p);
	p.page.notes = p.note.data();
	p.page.n_notes = p.note.size();
	if (i == r->n_images)
		return;
	p.caption = image_of(w, i) + ", as its own window shows it";
	if (r->images[i].picture->image->facts.lossy)
		p.caption += "; was compressed with loss";
	p.page.caption = p.caption.c_str();
	collect_findings(w, r->images[i], p);
	collect_picture(r->images[i].picture, p);
}

/* ---- modules that several have ---- */

void begin(elements &e, const work &w, const char *modality, const char *sop_class)
{
	put_missing(e);
	put_series(e, w, modality);
	put_equipment(e, w);
	put_common(e, w, sop_class);
	e.put(DCM_BodyPartExamined, "CHEST");
	e.put(DCM_ContentDate, w.r->date);
	e.put(DCM_ContentTime, w.r->time);
}

void put_burned_in(elements &e, const work &w, const std::vector<size_t> &shown)
{
	bool clean = true;

	for (size_t i : shown)
		clean = clean && trimmed(header_text(w.images[i]->header, DCM_BurnedInAnnotation)) == "NO";
	e.put(DCM_BurnedInAnnotation, clean ? "NO" : "YES");
}

OFCondition put_source(DcmItem &to, const DcmTagKey &sequence, const source &image)
{
	elements e(to);
	DcmItem *item = e.add(sequence);

	if (item == NULL)
		return e.status;
	elements in(*item);
	in.put(DCM_ReferencedSOPClassUID, image.sop_class);
	in.put(DCM_ReferencedSOPInstanceUID, image.sop_uid);
	return in.status;
}

OFCondition put_bytes(DcmItem &to, const DcmTagKey &tag, const uint8_t *p, size_t n)
{
	std::vector<uint8_t> even(p, p + n);

	if (even.size() % 2 != 0)
		even.push_back(0);
	return to.putAndInsertUint8Array(tag, even.data(), static_cast<unsigned long>(even.size()));
}

/* ---- Secondary Capture ---- */

OFCondition put_derivation(DcmItem &to, const source &image)
{
	elements e(to);
	DcmItem *item;

	e.put(DCM_DerivationDescription, "The radiograph, smaller, beside the scores and decisions of a model and where its "
					 "attention went");
	e.keep(put_code(to, DCM_DerivationCodeSequence, { "113085", "DCM", "Spatial resampling" }));
	e.keep(put_source(to, DCM_SourceImageSequence, image));
	item = header_item(to, DCM_SourceImageSequence);
	if (item == NULL || e.status.bad())
		return e.status;
	elements in(*item);
	in.put(DCM_SpatialLocationsPreserved, "NO");
	in.keep(put_code(*item, DCM_PurposeOfReferenceCodeSequence,
			 { "121322", "DCM", "Source image for image processing operation" }));
	e.keep(in.status);
	return e.status;
}

OFCondition put_pixels(DcmItem &to, const struct page_drawn *d)
{
	elements e(to);

	e.keep(to.putAndInsertUint16(DCM_SamplesPerPixel, 3));
	e.put(DCM_PhotometricInterpretation, "RGB");
	e.keep(to.putAndInsertUint16(DCM_PlanarConfiguration, 0));
	e.keep(to.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(d->height)));
	e.keep(to.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(d->width)));
	e.keep(to.putAndInsertUint16(DCM_BitsAllocated, 8));
	e.keep(to.putAndInsertUint16(DCM_BitsStored, 8));
	e.keep(to.putAndInsertUint16(DCM_HighBit, 7));
	e.keep(to.putAndInsertUint16(DCM_PixelRepresentation, 0));
	e.keep(put_bytes(to, DCM_PixelData, d->rgb, static_cast<size_t>(d->width) * d->height * 3));
	return e.status;
}

int sc_compose(const work &w, size_t page, DcmItem &to, struct err *e)
{
	size_t i = sc_image_of_page(w.r, page);
	bool lossy = i < w.r->n_images && w.r->images[i].picture->image->facts.lossy;
	struct page_drawn *drawn = NULL;
	elements x(to);
	page_text p;
	int r;

	fill_page(w, i, p);
	r = page_draw(&p.page, &drawn, e);
	if (r < 0)
		return r;
	begin(x, w, "OT", UID_SecondaryCaptureImageStorage);
	x.put(DCM_ConversionType, "WSD");
	x.put(DCM_InstanceNumber, std::to_string(page));
	x.put(DCM_ImageType, "DERIVED\\SECONDARY\\OTHER");
	x.empty(DCM_PatientOrientation);
	x.put(DCM_RecognizableVisualFeatures, "NO");
	put_burned_in(x, w, i < w.r->n_images ? std::vector<size_t>{ i } : std::vector<size_t>{});
	x.put(DCM_LossyImageCompression, lossy ? "01" : "00");
	if (lossy) {
		x.copy(DCM_LossyImageCompressionRatio, w.images[i]->header);
		x.copy(DCM_LossyImageCompressionMethod, w.images[i]->header);
	}
	if (i < w.r->n_images)
		x.keep(put_derivation(to, *w.images[i]));
	x.keep(put_pixels(to, drawn));
	page_free(drawn);
	return x.status.good() ? 0 : condition_err(e, -EBADMSG, "secondary capture", x.status);
}

/* ---- PDF ---- */

/* DA and TM as ISO 8601, which cairo wants. */
std::string iso_time(const struct sr_report *r)
{
	const std::string d = r->date, t = r->time;

	return d.substr(0, 4) + "-" + d.substr(4, 2) + "-" + d.substr(6, 2) + "T" + t.substr(0, 2) + ":" + t.substr(2, 2) + ":" +
	       t.substr(4, 2);
}

int pdf_compose(const work &w, DcmItem &to, struct err *e)
{
	size_t n = std::min<size_t>(std::max<size_t>(analysed_images(w.r), 1), SC_PAGES_MAX), n_bytes = 0;
	std::vector<page_text> texts(n);
	std::vector<struct page> pages;
	std::vector<size_t> shown;
	uint8_t *bytes = NULL;
	elements x(to);
	int r;

	for (size_t page = 1; page <= n; page++) {
		size_t i = sc_image_of_page(w.r, page);

		fill_page(w, i, texts[page - 1]);
		pages.push_back(texts[page - 1].page);
		if (i < w.r->n_images)
			shown.push_back(i);
	}
	r = page_write_pdf(pages.data(), n, "AI result, not verified", iso_time(w.r).c_str(), &bytes, &n_bytes, e);
	if (r < 0)
		return r;
	begin(x, w, "DOC", UID_EncapsulatedPDFStorage);
	x.put(DCM_ConversionType, "WSD");
	x.put(DCM_InstanceNumber, "1");
	x.empty(DCM_AcquisitionDateTime);
	put_burned_in(x, w, shown);
	x.put(DCM_DocumentTitle, "AI result, not verified");
	x.empty(DCM_ConceptNameCodeSequence);
	x.put(DCM_MIMETypeOfEncapsulatedDocument, "application/pdf");
	x.put(DCM_VerificationFlag, "UNVERIFIED");
	for (size_t i : shown)
		x.keep(put_source(to, DCM_SourceInstanceSequence, *w.images[i]));
	x.keep(to.putAndInsertUint32(DCM_EncapsulatedDocumentLength, static_cast<Uint32>(n_bytes)));
	x.keep(put_bytes(to, DCM_EncapsulatedDocument, bytes, n_bytes));
	free(bytes);
	return x.status.good() ? 0 : condition_err(e, -EBADMSG, "PDF", x.status);
}

/* ---- presentation state ---- */

struct corner {
	double x, y;
};

/* The fields around the one with most attention that have at least half of it and touch one another,
 * as a rectangle of fields. */
void region_of(const struct sr_map &map, size_t ret_from[2], size_t ret_to[2])
{
	size_t side = map.side, at = static_cast<size_t>(std::max_element(map.shade, map.shade + side * side) - map.shade);
	std::vector<bool> in(side * side);
	std::vector<size_t> open{ at };

	ret_from[0] = ret_to[0] = at % side;
	ret_from[1] = ret_to[1] = at / side;
	while (!open.empty()) {
		size_t i = open.back(), x = i % side, y = i / side;

		open.pop_back();
		if (in[i] || map.shade[i] < REGION_FROM * map.shade[at])
			continue;
		in[i] = true;
		ret_from[0] = std::min(ret_from[0], x);
		ret_to[0] = std::max(ret_to[0], x);
		ret_from[1] = std::min(ret_from[1], y);
		ret_to[1] = std::max(ret_to[1], y);
		if (x > 0)
			open.push_back(i - 1);
		if (x + 1 < side)
			open.push_back(i + 1);
		if (y > 0)
			open.push_back(i - side);
		if (y + 1 < side)
			open.push_back(i + side);
	}
}

/* A corner of a field in the matrix of the file, kept within it. */
struct corner corner_of(const struct sr_picture *p, const struct sr_map &map, size_t column, size_t row)
{
	const struct dicom_image *image = p->image;
	double x = p->map_x + static_cast<double>(column) * p->map_width / static_cast<double>(map.side);
	double y = p->map_y + static_cast<double>(row) * p->map_height / static_cast<double>(map.side);
	struct corner c;

	x = std::min(std::max(x, 0.0), static_cast<double>(image->width));
	y = std::min(std::max(y, 0.0), static_cast<double>(image->height));
	dicom_image_to_source(image, x, y, &c.x, &c.y);
	return c;
}

/* A closed polyline in pixels of the image; PS3.3 C.10.5.1.2: 1\1 is the middle of the first one. */
OFCondition put_region(DcmItem &annotation, const struct sr_picture *p, const struct sr_map &map)
{
	size_t from[2], to[2];
	elements e(annotation);
	DcmItem *item = e.add(DCM_GraphicObjectSequence);
	std::vector<Float32> data;

	if (item == NULL)
		return e.status;
	region_of(map, from, to);
	for (const auto &f : { std::pair<bool, bool>{ false, false }, { true, false }, { true, true }, { false, true },
			       { false, false } }) {
		struct corner c = corner_of(p, map, f.first ? to[0] + 1 : from[0], f.second ? to[1] + 1 : from[1]);

		data.push_back(static_cast<Float32>(c.x + 0.5));
		data.push_back(static_cast<Float32>(c.y + 0.5));
	}
	elements in(*item);
	in.put(DCM_GraphicAnnotationUnits, "PIXEL");
	in.keep(item->putAndInsertUint16(DCM_GraphicDimensions, 2));
	in.keep(item->putAndInsertUint16(DCM_NumberOfGraphicPoints, static_cast<Uint16>(data.size() / 2)));
	in.keep(item->putAndInsertFloat32Array(DCM_GraphicData, data.data(), static_cast<unsigned long>(data.size())));
	in.put(DCM_GraphicType, "POLYLINE");
	in.put(DCM_GraphicFilled, "N");
	return in.status;
}

/* What lies over the upper left corner: that it is not verified, what is present, what the lines are. */
std::string overlay_text(const work &w, const struct sr_image &image)
{
	std::string text = "AI result, not verified", lines;
	size_t present = 0;

	if (w.r->stamp[0] != '\0')
		text += std::string("\r\n") + w.r->stamp;
	for (size_t k = 0; k < w.r->n_findings; k++) {
		const struct sr_score *s = &image.scores[k];

		if (!is_calibrated(s) || s->decision != SR_PRESENT)
			continue;
		present++;
		if (lines.size() < ST_MAX / 2)
			lines += "\r\n" + w.own(w.r->findings[k].name, LO_MAX) + ": present, " +
				 plain(s->probability * 100, "%.1f %%");
		else if (lines.back() != '.')
			lines += "\r\nand more, see the structured report ...";
	}
	if (present == 0)
		lines = w.o.calibrated > 0 ? "\r\nNo finding reaches its threshold" : "\r\nRaw scores only: nothing was decided";
	text += lines;
	if (image.picture->n_maps > 0)
		text += "\r\nLines: attention for " + w.own(w.r->findings[image.picture->map[0].finding].name, LO_MAX) +
			", not a lesion outline";
	return text;
}

OFCondition put_text(DcmItem &annotation, const std::string &text)
{
	static const Float32 upper[2] = { 0.01f, 0.01f }, lower[2] = { 0.5f, 0.25f };
	elements e(annotation);
	DcmItem *item = e.add(DCM_TextObjectSequence);

	if (item == NULL)
		return e.status;
	elements in(*item);
	in.put(DCM_BoundingBoxAnnotationUnits, "DISPLAY");
	in.put(DCM_UnformattedTextValue, text);
	in.keep(item->putAndInsertFloat32Array(DCM_BoundingBoxTopLeftHandCorner, upper, 2));
	in.keep(item->putAndInsertFloat32Array(DCM_BoundingBoxBottomRightHandCorner, lower, 2));
	in.put(DCM_BoundingBoxTextHorizontalJustification, "LEFT");
	return in.status;
}

OFCondition put_annotation(DcmItem &to, const work &w, size_t i)
{
	const struct sr_picture *p = w.r->images[i].picture;
	elements e(to);
	DcmItem *item = e.add(DCM_GraphicAnnotationSequence), *layer;

	if (item == NULL)
		return e.status;
	elements in(*item);
	in.keep(put_source(*item, DCM_ReferencedImageSequence, *w.images[i]));
	in.put(DCM_GraphicLayer, LAYER);
	in.keep(put_text(*item, overlay_text(w, w.r->images[i])));
	if (p->n_maps > 0)
		in.keep(put_region(*item, p, p->map[0]));
	e.keep(in.status);
	layer = e.add(DCM_GraphicLayerSequence);
	if (layer == NULL)
		return e.status;
	elements of_layer(*layer);
	of_layer.put(DCM_GraphicLayer, LAYER);
	of_layer.put(DCM_GraphicLayerOrder, "1");
	e.keep(of_layer.status);
	return e.status;
}

OFCondition put_corner(DcmItem &to, const DcmTagKey &tag, unsigned column, unsigned row)
{
	const Sint32 corner[2] = { static_cast<Sint32>(column), static_cast<Sint32>(row) };
	DcmSignedLong *element = new DcmSignedLong(tag);
	OFCondition c = element->putSint32Array(corner, 2);

	if (c.good())
		c = to.insert(element, OFTrue);
	if (c.bad())
		delete element;
	return c;
}

OFCondition put_displayed_area(DcmItem &to, DcmItem &header, const struct image_facts &facts)
{
	elements e(to);
	DcmItem *item = e.add(DCM_DisplayedAreaSelectionSequence);
	std::string aspect = "1\\1";
	OFString down, across;

	if (item == NULL)
		return e.status;
	if (header.findAndGetOFString(DCM_PixelAspectRatio, down, 0).good() &&
	    header.findAndGetOFString(DCM_PixelAspectRatio, across, 1).good() && !down.empty() && !across.empty())
		aspect = std::string(down.c_str()) + "\\" + across.c_str();
	elements in(*item);
	in.keep(put_corner(*item, DCM_DisplayedAreaTopLeftHandCorner, 1, 1));
	in.keep(put_corner(*item, DCM_DisplayedAreaBottomRightHandCorner, facts.columns, facts.rows));
	in.put(DCM_PresentationSizeMode, "SCALE TO FIT");
	if (header.tagExists(DCM_ImagerPixelSpacing))
		in.keep(header.findAndInsertCopyOfElement(DCM_ImagerPixelSpacing, item));
	if (item->tagExists(DCM_ImagerPixelSpacing)) { /* the same value under the name that it has here */
		OFString spacing;

		if (item->findAndGetOFStringArray(DCM_ImagerPixelSpacing, spacing).good())
			in.put(DCM_PresentationPixelSpacing, spacing.c_str());
		in.keep(item->findAndDeleteElement(DCM_ImagerPixelSpacing));
	} else {
		in.put(DCM_PresentationPixelAspectRatio, aspect);
	}
	return in.status;
}

/* The source's own grey scale, since a presentation state replaces it (PS3.3 C.11.6, C.11.8): an
 * image that is MONOCHROME1 is shown INVERSE. */
OFCondition put_grey_scale(DcmItem &to, DcmItem &header, const struct dicom_image *image)
{
	static const DcmTagKey modality[] = { DCM_ModalityLUTSequence, DCM_RescaleIntercept, DCM_RescaleSlope, DCM_RescaleType };
	static const DcmTagKey voi[] = { DCM_VOILUTSequence, DCM_WindowCenter, DCM_WindowWidth, DCM_WindowCenterWidthExplanation,
					 DCM_VOILUTFunction };
	elements e(to);

	for (const DcmTagKey &tag : modality)
		e.copy(tag, header);
	if (to.tagExists(DCM_RescaleSlope) && !to.tagExists(DCM_RescaleType))
		e.put(DCM_RescaleType, "US");
	if (header.tagExistsWithValue(DCM_WindowCenter) || header.tagExists(DCM_VOILUTSequence)) {
		DcmItem *item = e.add(DCM_SoftcopyVOILUTSequence);

		if (item == NULL)
			return e.status;
		elements in(*item);
		for (const DcmTagKey &tag : voi)
			in.copy(tag, header);
		e.keep(in.status);
	}
	e.put(DCM_PresentationLUTShape, image->monochrome1 ? "INVERSE" : "IDENTITY");
	return e.status;
}

int gsps_compose(const work &w, size_t page, DcmItem &to, struct err *e)
{
	size_t i = sc_image_of_page(w.r, page);
	DcmItem *series;
	elements x(to);

	if (i == w.r->n_images)
		return err_set(e, -EBADMSG, "presentation state: no such image was analysed");
	const source &image = *w.images[i];

	begin(x, w, "PR", UID_GrayscaleSoftcopyPresentationStateStorage);
	x.put(DCM_InstanceNumber, std::to_string(page));
	x.put(DCM_ContentLabel, "AI_CXR");
	x.put(DCM_ContentDescription, "AI result, not verified");
	x.put(DCM_PresentationCreationDate, w.r->date);
	x.put(DCM_PresentationCreationTime, w.r->time);
	x.empty(DCM_ContentCreatorName);
	series = x.add(DCM_ReferencedSeriesSequence);
	if (series != NULL) {
		elements in(*series);

		in.put(DCM_SeriesInstanceUID, image.series_uid);
		in.keep(put_source(*series, DCM_ReferencedImageSequence, image));
		x.keep(in.status);
	}
	x.keep(put_displayed_area(to, w.images[i]->header, w.r->images[i].picture->image->facts));
	x.keep(put_grey_scale(to, w.images[i]->header, w.r->images[i].picture->image));
	x.keep(put_annotation(to, w, i));
	return x.status.good() ? 0 : condition_err(e, -EBADMSG, "presentation state", x.status);
}

/* ---- the file ---- */

/* A page shows a picture of every analysed image; those whose header cannot be read were not analysed. */
int check_pictures(const work &w, struct err *e)
{
	for (size_t i = 0; i < w.r->n_images; i++) {
		if (w.r->images[i].analysed && (!w.images[i]->readable))
			return err_set(e, -EBADMSG, "image %zu was analysed, but its header cannot be read", i + 1);
	}
	return 0;
}

template <typename F> int write_object(const struct sr_report *report, int fd, struct err *e, const char *what, F content)
{
	return guarded(e, what, [&]() -> int {
		DcmFileFormat file;
		DcmDataset &to = *file.getDataset();
		memory_stream out;
		work w{};
		OFCondition c;
		int r;

		w.r = report;
		r = begin_result(w, to, e);
		if (r == 0)
			r = check_pictures(w, e);
		if (r == 0)
			r = content(w, to);
		if (r < 0)
			return r;
		c = put_algorithm(to, w);
		if (c.good())
			c = encode(file, out);
		if (c.bad())
			return condition_err(e, -EBADMSG, what, c);
		r = write_full(fd, out.bytes().data(), out.bytes().size());
		return r < 0 ? err_set(e, r, "%s: %s", what, strerror(-r)) : 0;
	});
}

}

size_t sc_image_of_page(const struct sr_report *report, size_t page)
{
	size_t seen = 0;

	for (size_t i = 0; i < report->n_images; i++) {
		if (report->images[i].analysed && ++seen == page)
			return i;
	}
	return report->n_images;
}

int sc_write(const struct sr_report *report, size_t page, int fd, struct err *e)
{
	return write_object(report, fd, e, "secondary capture",
			    [&](const work &w, DcmItem &to) { return sc_compose(w, page, to, e); });
}

int gsps_write(const struct sr_report *report, size_t page, int fd, struct err *e)
{
	return write_object(report, fd, e, "presentation state",
			    [&](const work &w, DcmItem &to) { return gsps_compose(w, page, to, e); });
}

int pdf_write(const struct sr_report *report, int fd, struct err *e)
{
	return write_object(report, fd, e, "PDF", [&](const work &w, DcmItem &to) { return pdf_compose(w, to, e); });
}
