/* image.cc: see image.h.
 *
 * Job: from the bytes of a Part 10 file to stored values, grey levels and facts.
 * The road: scan_file() walks the file without recursion and bounds it; the header becomes a
 * DcmDataset; pixels are unpacked by hand, or one checked frame goes through a codec; grey.c makes grey
 * levels of the stored values; orientation is made upright last.
 * Promise: the geometry used is the scan's; every size was checked before memory was taken for it;
 * the same bytes give the same arrays.
 * Never: opens a file after dicom_image_warm_up(), keeps text of the header beyond code strings.
 */
#include "dicom/guard.hh"

#include <memory>
#include <vector>

#include "dcmtk/dcmdata/dcdatset.h"
#include "dcmtk/dcmdata/dcdeftag.h"
#include "dcmtk/dcmdata/dcpixel.h"
#include "dcmtk/dcmdata/dcpixseq.h"
#include "dcmtk/dcmdata/dcpxitem.h"
#include "dcmtk/dcmdata/dcvrpobw.h"

#include "dicom/dicom.h"
#include "dicom/frame.h"
#include "dicom/gate.h"
#include "dicom/grey.h"
#include "dicom/header.hh"
#include "dicom/image.h"
#include "dicom/scan.h"

#define LUT_ENTRIES_MAX 65536
#define WARM_SIDE 64

/* ---- reasons ------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static bool reason(struct dicom_image *image, enum image_reason r,
							  const char *format, ...)
{
	va_list ap;

	image->reason = r;
	va_start(ap, format);
	(void)vsnprintf(image->why, sizeof(image->why), format, ap);
	va_end(ap);
	return false;
}

/* ---- facts --------------------------------------------------------------------------------------- */

/* A code string, trimmed; "" when it holds anything but printable ASCII. */
template <size_t N> static void code_string(char (&ret)[N], const char *value)
{
	while (*value == ' ')
		value++;
	for (const char *p = value; *p != '\0'; p++) {
		if (*p < 0x20 || *p > 0x7e) {
			ret[0] = '\0';
			return;
		}
	}
	(void)str_copy_padded(ret, N, value, strlen(value));
}

/* One component of a multi-valued string. */
template <size_t N> static void component(char (&ret)[N], DcmItem &item, const DcmTagKey &tag, unsigned long i)
{
	OFString value;

	ret[0] = '\0';
	if (item.findAndGetOFString(tag, value, i).good())
		code_string(ret, value.c_str());
}

static unsigned digits(const char *p, unsigned n, bool *good)
{
	unsigned v = 0;

	for (; n > 0; n--, p++) {
		if (*p < '0' || *p > '9') {
			*good = false;
			return 0;
		}
		v = v * 10 + (unsigned)(*p - '0');
	}
	return v;
}

/* PS3.5 6.2, VR AS: "nnnD", W, M, Y; some write years without the letter.  -1: not understood. */
static int age_from_string(const char *s)
{
	unsigned long n;
	char *end;

	if (*s < '0' || *s > '9')
		return -1;
	n = strtoul(s, &end, 10);
	if (n > 999)
		return -1;
	switch (*end) {
	case 'Y':
	case '\0':
	case ' ':
		return (int)n;
	case 'M':
		return (int)(n / 12);
	case 'W':
		return (int)(n / 52);
	case 'D':
		return (int)(n / 365);
	default:
		return -1;
	}
}

static int age_from_dates(const char *birth, const char *study)
{
	bool good = strlen(birth) >= 8 && strlen(study) >= 8;
	unsigned b, s;

	if (!good)
		return -1;
	b = digits(birth, 8, &good);
	s = digits(study, 8, &good);
	if (!good || s < b)
		return -1;
	return (int)((s - b) / 10000); /* YYYYMMDD: the difference's thousands are whole years */
}

static int age_of(DcmItem &header)
{
	int age = age_from_string(header_text(header, DCM_PatientAge));

	if (age >= 0)
		return age;
	return age_from_dates(header_text(header, DCM_PatientBirthDate), header_text(header, DCM_StudyDate));
}

static void search_descriptions(DcmItem &header, struct image_facts *f)
{
	static const DcmTagKey tags[] = { DCM_SeriesDescription, DCM_StudyDescription, DCM_ProtocolName,
					  DCM_AcquisitionDeviceProcessingDescription,
					  DCM_PerformedProcedureStepDescription };

	for (const DcmTagKey &tag : tags) {
		const char *text = header_text(header, tag);

		f->description_chest |= gate_text_is_chest(text);
		f->description_lateral |= gate_text_is_lateral(text);
		f->animal |= gate_text_is_animal(text);
	}
	f->animal |= gate_text_is_animal(header_text(header, DCM_PatientSpeciesDescription));
	f->animal |= header_item(header, DCM_PatientBreedCodeSequence) != NULL;
	/* one series may hold both views: then its description says nothing about this image */
	if (f->view_position[0] != '\0' || f->view_code[0] != '\0')
		f->description_lateral = false;
}

static void digest_patient(DcmItem &header, struct image_facts *f)
{
	const char *id = header_text(header, DCM_PatientID);
	const char *issuer = header_text(header, DCM_IssuerOfPatientID);
	struct digest *d = digest_new();

	digest_update(d, id, strlen(id) + 1);
	digest_update(d, issuer, strlen(issuer));
	digest_final(d, f->patient);
	digest_free(d);
}

static OFCondition digest_copied(DcmItem &header, struct image_facts *f)
{
	DcmDataset copied;
	memory_stream stream;
	OFCondition c = copy_elements(header, copied);

	if (c.bad())
		return c;
	copied.transferInit();
	c = copied.write(stream, EXS_LittleEndianExplicit, EET_ExplicitLength, NULL);
	copied.transferEnd();
	if (c.good())
		digest_of(stream.bytes().data(), stream.bytes().size(), f->copied);
	return c;
}

static void first_code(char (&ret)[17], DcmItem &header, const DcmTagKey &sequence)
{
	DcmItem *item = header_item(header, sequence);

	if (item != NULL)
		code_string(ret, header_text(*item, DCM_CodeValue));
}

static bool fill_facts(struct dicom_image *image, DcmItem &header, const struct scan &scan)
{
	struct image_facts *f = &image->facts;

	code_string(f->sop_class, header_text(header, DCM_SOPClassUID));
	code_string(f->sop_uid, header_text(header, DCM_SOPInstanceUID));
	code_string(f->study_uid, header_text(header, DCM_StudyInstanceUID));
	code_string(f->series_uid, header_text(header, DCM_SeriesInstanceUID));
	code_string(f->modality, header_text(header, DCM_Modality));
	code_string(f->body_part, header_text(header, DCM_BodyPartExamined));
	code_string(f->view_position, header_text(header, DCM_ViewPosition));
	first_code(f->view_code, header, DCM_ViewCodeSequence);
	first_code(f->anatomic_code, header, DCM_AnatomicRegionSequence);
	code_string(f->photometric, header_text(header, DCM_PhotometricInterpretation));
	code_string(f->presentation_intent, header_text(header, DCM_PresentationIntentType));
	component(f->orientation[0], header, DCM_PatientOrientation, 0);
	component(f->orientation[1], header, DCM_PatientOrientation, 1);
	code_string(f->laterality, header_text(header, DCM_ImageLaterality));
	code_string(f->image_type, header_text(header, DCM_ImageType));
	f->quality_control = strncmp(header_text(header, DCM_QualityControlImage), "YES", 3) == 0;
	f->lossy = strncmp(header_text(header, DCM_LossyImageCompression), "01", 2) == 0;
	f->age_years = age_of(header);
	f->rows = scan.rows;
	f->columns = scan.columns;
	f->frames = scan.frames;
	f->samples = scan.samples;
	f->bits_allocated = scan.bits_allocated;
	f->bits_stored = scan.bits_stored;
	f->is_signed = scan.is_signed;
	search_descriptions(header, f);
	digest_patient(header, f);
	if (digest_copied(header, f).bad())
		return reason(image, IMAGE_BROKEN, "the patient and study elements cannot be copied");
	return true;
}

/* ---- pixels --------------------------------------------------------------------------------------- */

static bool check_shape(struct dicom_image *image, const struct scan &s, const struct dicom_limits &limits)
{
	const struct image_facts &f = image->facts;

	if (s.rows == 0 || s.columns == 0)
		return reason(image, IMAGE_BROKEN, "Rows (0028,0010) or Columns (0028,0011) is 0 or missing");
	if (s.rows > limits.side || s.columns > limits.side || (uint64_t)s.rows * s.columns > limits.pixels)
		return reason(image, IMAGE_TOO_LARGE, "%u x %u pixels: more than limits.image_side or limits.image_pixels allow",
			      s.columns, s.rows);
	if (s.rows < limits.min_side || s.columns < limits.min_side)
		return reason(image, IMAGE_TOO_SMALL, "%u x %u pixels: at least %u a side are needed", s.columns, s.rows,
			      limits.min_side);
	if (s.frames > 1)
		return reason(image, IMAGE_UNSUPPORTED, "Number of Frames (0028,0008) is %u: single images only", s.frames);
	if (s.samples != 1)
		return reason(image, IMAGE_UNSUPPORTED, "Samples per Pixel (0028,0002) is %u: grey images only", s.samples);
	if (strcmp(f.photometric, "MONOCHROME1") != 0 && strcmp(f.photometric, "MONOCHROME2") != 0)
		return reason(image, IMAGE_UNSUPPORTED, "Photometric Interpretation (0028,0004) is %s: MONOCHROME1 or 2 is needed",
			      f.photometric[0] != '\0' ? f.photometric : "missing");
	if (s.bits_allocated != 8 && s.bits_allocated != 16)
		return reason(image, IMAGE_UNSUPPORTED, "Bits Allocated (0028,0100) is %u: 8 or 16 are supported", s.bits_allocated);
	if (s.bits_stored < 2 || s.bits_stored > s.bits_allocated)
		return reason(image, IMAGE_BROKEN, "Bits Stored (0028,0101) is %u of %u allocated", s.bits_stored, s.bits_allocated);
	if (s.has_high_bit && (s.high_bit + 1 < s.bits_stored || s.high_bit >= s.bits_allocated))
		return reason(image, IMAGE_BROKEN, "High Bit (0028,0102) is %u with %u bits stored of %u", s.high_bit,
			      s.bits_stored, s.bits_allocated);
	return true;
}

static bool unpack_native(struct dicom_image *image, const struct scan &s, std::vector<uint16_t> &raw)
{
	size_t n = raw.size(), bytes = s.bits_allocated / 8;
	/* PS3.5 8.1.1 and annex A.3: 8-bit values in OW of a big endian data set are swapped in pairs */
	bool big = s.encoding == SCAN_EXPLICIT_BE;

	if (s.pixels_size < n * bytes)
		return reason(image, IMAGE_BROKEN, "Pixel Data holds %zu bytes, Rows x Columns need %zu", s.pixels_size, n * bytes);
	for (size_t i = 0; i < n; i++) {
		if (bytes == 2) {
			const uint8_t *p = s.pixels + 2 * i;

			raw[i] = (uint16_t)(big ? p[0] << 8 | p[1] : p[1] << 8 | p[0]);
		} else {
			size_t at = big && s.words && (i ^ 1) < s.pixels_size ? i ^ 1 : i;

			raw[i] = s.pixels[at];
		}
	}
	return true;
}

struct syntax_row {
	const char *uid, *name;
	bool rle;
	enum frame_coding coding;
	E_TransferSyntax dcmtk;
};

static const struct syntax_row *compressed_syntax(const char *uid)
{
	static const struct syntax_row rows[] = {
		{ "1.2.840.10008.1.2.5", "RLE", true, FRAME_JPEG_BASELINE, EXS_RLELossless },
		{ "1.2.840.10008.1.2.4.50", "JPEG baseline", false, FRAME_JPEG_BASELINE, EXS_JPEGProcess1 },
		{ "1.2.840.10008.1.2.4.51", "JPEG extended", false, FRAME_JPEG_EXTENDED, EXS_JPEGProcess2_4 },
		{ "1.2.840.10008.1.2.4.57", "JPEG lossless", false, FRAME_JPEG_LOSSLESS, EXS_JPEGProcess14 },
		{ "1.2.840.10008.1.2.4.70", "JPEG lossless", false, FRAME_JPEG_LOSSLESS, EXS_JPEGProcess14SV1 },
		{ "1.2.840.10008.1.2.4.80", "JPEG-LS", false, FRAME_JPEG_LS, EXS_JPEGLSLossless },
		{ "1.2.840.10008.1.2.4.81", "JPEG-LS", false, FRAME_JPEG_LS, EXS_JPEGLSLossy },
	};

	for (const struct syntax_row &row : rows) {
		if (strcmp(row.uid, uid) == 0)
			return &row;
	}
	return NULL;
}

static const char *known_syntax_name(const char *uid)
{
	static const struct {
		const char *uid, *name;
	} names[] = {
		{ "1.2.840.10008.1.2.4.90", "JPEG 2000 lossless" }, { "1.2.840.10008.1.2.4.91", "JPEG 2000" },
		{ "1.2.840.10008.1.2.4.53", "JPEG process 6, 8" },  { "1.2.840.10008.1.2.4.55", "JPEG process 10, 12" },
		{ "1.2.840.10008.1.2.4.201", "HTJ2K lossless" },    { "1.2.840.10008.1.2.4.202", "HTJ2K lossless RPCL" },
		{ "1.2.840.10008.1.2.4.203", "HTJ2K" },
	};

	for (const auto &row : names) {
		if (strcmp(row.uid, uid) == 0)
			return row.name;
	}
	return "unknown";
}

/* A data set with nothing but what a codec asks for: its geometry is the scan's, its frame is checked. */
static OFCondition describe_frame(DcmDataset &d, const struct scan &s, unsigned precision)
{
	/* codecs decide by Bits Stored which of their variants runs; the frame's own word counts */
	OFCondition c = d.putAndInsertUint16(DCM_Rows, (Uint16)s.rows);

	if (c.good())
		c = d.putAndInsertUint16(DCM_Columns, (Uint16)s.columns);
	if (c.good())
		c = d.putAndInsertUint16(DCM_SamplesPerPixel, 1);
	if (c.good())
		c = d.putAndInsertString(DCM_PhotometricInterpretation, "MONOCHROME2");
	if (c.good())
		c = d.putAndInsertUint16(DCM_BitsAllocated, (Uint16)s.bits_allocated);
	if (c.good())
		c = d.putAndInsertUint16(DCM_BitsStored, (Uint16)precision);
	if (c.good())
		c = d.putAndInsertUint16(DCM_HighBit, (Uint16)(precision - 1));
	if (c.good())
		c = d.putAndInsertUint16(DCM_PixelRepresentation, 0);
	return c;
}

static OFCondition decode_frame(const struct scan &s, const struct syntax_row &syntax, unsigned precision,
				const std::vector<uint8_t> &frame, std::vector<uint16_t> &raw)
{
	DcmDataset d;
	OFCondition c = describe_frame(d, s, precision);
	size_t bytes = s.bits_allocated / 8;
	std::vector<uint8_t> out((raw.size() * bytes + 1) & ~(size_t)1);
	Uint32 fragment = 0;
	OFString color;

	if (c.bad())
		return c;
	auto pixels = std::make_unique<DcmPixelData>(DCM_PixelData);
	auto sequence = std::make_unique<DcmPixelSequence>(DcmTag(DCM_PixelData, EVR_OB));
	auto table = std::make_unique<DcmPixelItem>(DcmTag(DCM_Item, EVR_OB));
	auto item = std::make_unique<DcmPixelItem>(DcmTag(DCM_Item, EVR_OB));

	c = item->putUint8Array(frame.data(), (unsigned long)frame.size());
	if (c.good())
		c = sequence->insert(table.get());
	if (c.good()) {
		(void)table.release();
		c = sequence->insert(item.get());
	}
	if (c.bad())
		return c;
	(void)item.release();
	pixels->putOriginalRepresentation(syntax.dcmtk, NULL, sequence.release());
	DcmPixelData *p = pixels.get();
	c = d.insert(p);
	if (c.bad())
		return c;
	(void)pixels.release();
	c = p->getUncompressedFrame(&d, 0, fragment, out.data(), (Uint32)out.size(), color);
	if (c.bad())
		return c;
	for (size_t i = 0; i < raw.size(); i++) {
		uint16_t v;

		if (bytes == 1) {
			raw[i] = out[i];
			continue;
		}
		memcpy(&v, out.data() + 2 * i, 2); /* local byte order */
		raw[i] = v;
	}
	return c;
}

static bool unpack_compressed(struct dicom_image *image, const struct scan &s, std::vector<uint16_t> &raw)
{
	const struct syntax_row *syntax = compressed_syntax(s.syntax);
	unsigned precision = 0;
	enum image_reason r;
	uint8_t *gathered = NULL;
	size_t n = 0;

	if (syntax == NULL)
		return reason(image, IMAGE_UNSUPPORTED, "transfer syntax %s (%s) cannot be decoded by this version", s.syntax,
			      known_syntax_name(s.syntax));
	if (scan_gather(&s, &gathered, &n) < 0)
		throw std::bad_alloc();
	std::vector<uint8_t> frame(gathered, gathered + n);
	free(gathered);
	if (syntax->rle) {
		r = frame_decode_rle(frame.data(), frame.size(), raw.size(), s.bits_allocated / 8, raw.data(), image->why);
		image->reason = r;
		return r == IMAGE_OK;
	}
	r = frame_check(syntax->coding, frame.data(), frame.size(), s.rows, s.columns, s.bits_allocated, &precision, image->why);
	if (r != IMAGE_OK) {
		image->reason = r;
		return false;
	}
	if (frame.size() % 2 != 0)
		frame.push_back(0); /* PS3.5 8.2: fragments have even length */
	if (decode_frame(s, *syntax, precision, frame, raw).bad())
		return reason(image, IMAGE_BROKEN, "the %s decoder gave up on the pixel data", syntax->name);
	return true;
}

/* PS3.5 8.1.1: the value is Bits Stored wide and ends at High Bit; above it old systems keep overlays. */
static void mask_values(const struct scan &s, const std::vector<uint16_t> &raw, int32_t *ret)
{
	unsigned shift = s.has_high_bit ? s.high_bit + 1 - s.bits_stored : 0;
	uint32_t mask = (1u << s.bits_stored) - 1, sign = 1u << (s.bits_stored - 1);

	for (size_t i = 0; i < raw.size(); i++) {
		uint32_t v = (uint32_t)raw[i] >> shift & mask;

		ret[i] = s.is_signed && (v & sign) != 0 ? (int32_t)v - (int32_t)(mask + 1) : (int32_t)v;
	}
}

/* ---- grey levels ----------------------------------------------------------------------------------- */

struct lut_storage {
	std::vector<uint16_t> data;
};

/* PS3.3 C.11.1.1.  An impossible LUT counts as absent. */
static void read_lut(DcmItem *item, const struct scan &s, struct lut_storage &storage, struct grey_lut *ret)
{
	Uint16 entries = 0, first = 0, bits = 0;
	unsigned long n_data = 0;
	DcmElement *element = NULL;

	if (item == NULL || item->findAndGetUint16(DCM_LUTDescriptor, entries, 0).bad() ||
	    item->findAndGetUint16(DCM_LUTDescriptor, bits, 2).bad())
		return;
	if (item->findAndGetUint16(DCM_LUTDescriptor, first, 1).bad()) {
		Sint16 negative = 0;

		if (item->findAndGetSint16(DCM_LUTDescriptor, negative, 1).bad())
			return;
		first = (Uint16)negative;
	}
	size_t n = entries == 0 ? LUT_ENTRIES_MAX : entries;
	if (bits < 1 || bits > 16 || item->findAndGetElement(DCM_LUTData, element).bad() || element == NULL)
		return;
	Uint16 *words = NULL;
	if (element->getUint16Array(words).bad() || words == NULL)
		return;
	n_data = element->getLength() / 2;
	if (n_data >= n)
		storage.data.assign(words, words + n);
	else if (n_data * 2 >= n && bits <= 8) { /* two 8-bit entries a word, as some write them */
		storage.data.resize(n);
		for (size_t i = 0; i < n; i++)
			storage.data[i] = (uint16_t)(words[i / 2] >> (8 * (i % 2)) & 0xff);
	} else
		return;
	ret->n = n;
	ret->first = s.is_signed ? (int32_t)(Sint16)first : (int32_t)first;
	ret->bits = bits;
	ret->data = storage.data.data();
}

static bool number_of(DcmItem &item, const DcmTagKey &tag, double *ret)
{
	Float64 v;

	if (item.findAndGetFloat64(tag, v).bad() || !(v == v) || v - v != 0.0)
		return false;
	*ret = v;
	return true;
}

static void read_window(DcmItem &header, struct grey *g)
{
	const char *function = header_text(header, DCM_VOILUTFunction);

	g->has_window = number_of(header, DCM_WindowCenter, &g->center) && number_of(header, DCM_WindowWidth, &g->width);
	if (strncmp(function, "LINEAR_EXACT", 12) == 0)
		g->function = GREY_LINEAR_EXACT;
	else if (strncmp(function, "SIGMOID", 7) == 0)
		g->function = GREY_SIGMOID;
	else
		g->function = GREY_LINEAR;
}

/* Pixel Padding Value and Range Limit (0028,0120), (0028,0121), in the type of the stored values. */
static void read_padding(DcmItem &header, const struct scan &s, struct grey *g)
{
	int32_t value[2];
	const DcmTagKey tags[2] = { DCM_PixelPaddingValue, DCM_PixelPaddingRangeLimit };
	unsigned n = 0;

	for (; n < 2; n++) {
		Uint16 u;
		Sint16 i;

		if (header.findAndGetUint16(tags[n], u).good())
			value[n] = s.is_signed ? (int32_t)(Sint16)u : (int32_t)u;
		else if (header.findAndGetSint16(tags[n], i).good())
			value[n] = s.is_signed ? (int32_t)i : (int32_t)(Uint16)i;
		else
			break;
	}
	if (n == 0)
		return;
	g->has_padding = true;
	g->padding_low = n == 2 && value[1] < value[0] ? value[1] : value[0];
	g->padding_high = n == 2 && value[1] > value[0] ? value[1] : value[0];
}

static bool make_grey(struct dicom_image *image, DcmItem &header, const struct scan &s)
{
	static const char *const how_names[] = { "VOI LUT", "window", "percentile window" };
	struct lut_storage modality, voi;
	struct grey g = {};
	enum grey_how how = GREY_BY_WINDOW;
	const char *shape = header_text(header, DCM_PresentationLUTShape);
	bool inverse = strncmp(shape, "INVERSE", 7) == 0;
	size_t n = (size_t)s.rows * s.columns;
	int r;

	g.bits = s.bits_stored;
	g.is_signed = s.is_signed;
	g.slope = 1.0;
	read_lut(header_item(header, DCM_ModalityLUTSequence), s, modality, &g.modality);
	if (!number_of(header, DCM_RescaleSlope, &g.slope) || g.slope == 0.0)
		g.slope = 1.0;
	if (!number_of(header, DCM_RescaleIntercept, &g.intercept))
		g.intercept = 0.0;
	read_lut(header_item(header, DCM_VOILUTSequence), s, voi, &g.voi);
	read_window(header, &g);
	read_padding(header, s, &g);
	/* Photometric Interpretation decides; a contradicting shape is noted, not obeyed (results differ
	 * between viewers there) */
	image->monochrome1 = strcmp(image->facts.photometric, "MONOCHROME1") == 0;
	g.invert = image->monochrome1;
	image->window = (uint8_t *)malloc(n);
	if (image->window == NULL)
		throw std::bad_alloc();
	r = grey_render(&g, image->stored, n, image->window, &how);
	if (r < 0)
		return reason(image, IMAGE_CONSTANT, "all pixels have one value");
	(void)snprintf(image->note, sizeof(image->note), "grey levels by %s%s", how_names[how],
		       shape[0] != '\0' && inverse != image->monochrome1
			       ? "; Presentation LUT Shape (2050,0020) contradicts Photometric Interpretation, which was followed"
			       : "");
	return true;
}

/* ---- orientation ------------------------------------------------------------------------------------- */

template <typename T> static void mirror_columns(T *p, size_t rows, size_t columns)
{
	for (size_t y = 0; y < rows; y++) {
		for (size_t x = 0; x < columns / 2; x++)
			std::swap(p[y * columns + x], p[y * columns + columns - 1 - x]);
	}
}

template <typename T> static void mirror_rows(T *p, size_t rows, size_t columns)
{
	for (size_t y = 0; y < rows / 2; y++) {
		for (size_t x = 0; x < columns; x++)
			std::swap(p[y * columns + x], p[(rows - 1 - y) * columns + x]);
	}
}

/* PS3.3 C.7.6.1.1.1: direction of rows and columns.  A frontal film is read as L\F: the patient's left
 * at the viewer's right, head up.  Only when both are stated is anything turned. */
static void make_upright(struct dicom_image *image)
{
	const char *row = image->facts.orientation[0], *column = image->facts.orientation[1];
	bool mirrored = row[0] == 'R', upside_down = column[0] == 'H';

	if ((row[0] != 'L' && row[0] != 'R') || (column[0] != 'F' && column[0] != 'H'))
		return;
	if (mirrored) {
		mirror_columns(image->stored, image->height, image->width);
		mirror_columns(image->window, image->height, image->width);
	}
	if (upside_down) {
		mirror_rows(image->stored, image->height, image->width);
		mirror_rows(image->window, image->height, image->width);
	}
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static void digest_content(struct dicom_image *image)
{
	struct digest *d = digest_new();
	uint32_t shape[2] = { image->facts.rows, image->facts.columns };

	digest_update(d, image->facts.copied, DIGEST_SIZE);
	digest_update(d, shape, sizeof(shape));
	digest_update(d, image->stored, image->width * image->height * sizeof(*image->stored));
	digest_final(d, image->facts.content);
	digest_free(d);
}

static bool is_constant(const int32_t *p, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		if (p[i] != p[0])
			return false;
	}
	return true;
}

static bool decode_pixels(struct dicom_image *image, DcmItem &header, const struct scan &s,
			  const struct dicom_limits &limits)
{
	if (!check_shape(image, s, limits))
		return false;
	size_t n = (size_t)s.rows * s.columns;
	std::vector<uint16_t> raw(n);

	if (!(s.encapsulated ? unpack_compressed(image, s, raw) : unpack_native(image, s, raw)))
		return false;
	image->width = s.columns;
	image->height = s.rows;
	image->stored = (int32_t *)malloc(n * sizeof(*image->stored));
	if (image->stored == NULL)
		throw std::bad_alloc();
	mask_values(s, raw, image->stored);
	digest_content(image);
	if (is_constant(image->stored, n))
		return reason(image, IMAGE_CONSTANT, "all pixels have one value");
	if (!make_grey(image, header, s))
		return false;
	make_upright(image);
	return true;
}

static void drop_arrays(struct dicom_image *image)
{
	free(image->stored);
	free(image->window);
	image->stored = NULL;
	image->window = NULL;
	image->width = image->height = 0;
}

static void decode_scanned(struct dicom_image *image, const struct scan &s, const struct dicom_limits &limits)
{
	DcmDataset header;
	bool good = false;

	if (s.header_size > 0) {
		if (header_read(s, header).bad()) {
			(void)reason(image, IMAGE_NOT_DICOM, "the header cannot be parsed");
			return;
		}
		good = fill_facts(image, header, s);
	}
	if (s.reason != IMAGE_OK) {
		(void)reason(image, s.reason, "%s", s.why);
		return;
	}
	if (!good) {
		if (image->reason == IMAGE_OK)
			(void)reason(image, IMAGE_NOT_DICOM, "no elements before the pixel data");
		return;
	}
	if (!decode_pixels(image, header, s, limits))
		drop_arrays(image);
}

int dicom_image_decode(const void *file, size_t n, const struct dicom_limits *limits, struct dicom_image **ret)
{
	struct dicom_image *image = (struct dicom_image *)calloc(1, sizeof(*image));
	struct scan s;
	int r;

	if (image == NULL)
		return -ENOMEM;
	image->facts.age_years = -1;
	r = scan_file(file, n, limits, &s);
	if (r < 0) {
		free(image);
		return r;
	}
	r = guarded(NULL, "decode", [&]() -> int {
		decode_scanned(image, s, *limits);
		return 0;
	});
	scan_free(&s);
	if (r == -ENOMEM) {
		dicom_image_free(image);
		return r;
	}
	if (r < 0) {
		drop_arrays(image);
		(void)reason(image, IMAGE_BROKEN, "the DICOM library gave up on this object");
	}
	*ret = image;
	return 0;
}

void dicom_image_free(struct dicom_image *image)
{
	if (image == NULL)
		return;
	drop_arrays(image);
	free(image);
}

/* ---- warm-up -------------------------------------------------------------------------------------------- */

/* A native image through the whole road, and a broken frame through each codec: dictionaries, locales
 * and lazy tables are then in memory. */
void dicom_image_warm_up(void)
{
	(void)guarded(NULL, "warm-up", []() -> int {
		static const E_TransferSyntax syntaxes[] = { EXS_JPEGProcess1, EXS_JPEGProcess2_4, EXS_JPEGProcess14SV1,
							     EXS_JPEGLSLossless };
		struct scan s = {};
		std::vector<uint16_t> raw(WARM_SIDE * WARM_SIDE);
		std::vector<uint8_t> frame = { 0xff, 0xd8, 0xff, 0xd9 };
		struct dicom_image image = {};
		DcmDataset header;

		s.rows = s.columns = WARM_SIDE;
		s.bits_allocated = 16;
		for (E_TransferSyntax syntax : syntaxes) {
			const struct syntax_row row = { "", "", false, FRAME_JPEG_BASELINE, syntax };

			(void)decode_frame(s, row, 8, frame, raw);
		}
		(void)header.putAndInsertString(DCM_PatientName, "WARM^UP");
		(void)header.putAndInsertString(DCM_WindowCenter, "1.5");
		(void)fill_facts(&image, header, s);
		return 0;
	});
}
