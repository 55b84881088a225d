/* image.cc: see image.h.
 *
 * Job: scan, parse, decode, render, turn: one object to grey levels, or to a reason.
 * Promise: geometry comes from scan.c alone and sizes every buffer here; codecs get buffers of
 * exactly that size, for frames whose own header was compared with it.  Values are computed by
 * grey.c, never by DicomImage.
 * Never: asks DCMTK's data set for pixels, decodes more than one frame, or passes on a frame that a
 * decoder only warned about: libjpeg paints the missing half of a damaged image grey and goes on,
 * and half a lung is not an image.
 */
#include "dicom/guard.hh"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "dcmtk/dcmdata/dcdeftag.h"
#include "dcmtk/dcmdata/dcpixel.h"
#include "dcmtk/dcmdata/dcpixseq.h"
#include "dcmtk/dcmdata/dcpxitem.h"
#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmjpeg/djcparam.h"
#include "dcmtk/dcmjpeg/djdijg12.h"
#include "dcmtk/dcmjpeg/djdijg16.h"
#include "dcmtk/dcmjpeg/djdijg8.h"

#include "dicom/frame.h"
#include "dicom/gate.h"
#include "dicom/grey.h"
#include "dicom/header.hh"
#include "dicom/image.h"
#include "dicom/j2k.h"
#include "dicom/scan.h"
#include "dicom/square.h"

#define LUT_ENTRIES_MAX 65536
#define WINDOWS_MAX 64
#define WARM_SIDE 64
#define ASPECT_TOLERANCE 0.01 /* pixels that differ less count as square */
#define ASPECT_MAX 4          /* no detector and no film scanner has more: a wrong value */

namespace
{

/* ---- memory whose size came from outside --------------------------------------------------- */

struct free_it {
	void operator()(void *p) const
	{
		free(p);
	}
};

template <typename T> using outside = std::unique_ptr<T[], free_it>;

/* n is at most limits->pixels; throws, and guarded() makes that -ENOMEM. */
template <typename T> outside<T> allocate(size_t n)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, sizeof(T), &bytes))
		throw std::bad_alloc();

	outside<T> p(static_cast<T *>(malloc(bytes)));

	if (p == nullptr)
		throw std::bad_alloc();
	return p;
}

enum image_reason set_reason(struct dicom_image *image, enum image_reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

enum image_reason set_reason(struct dicom_image *image, enum image_reason reason, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(image->why, sizeof(image->why), format, ap); /* cut texts are fine */
	va_end(ap);
	image->reason = reason;
	return reason;
}

void add_note(struct dicom_image *image, const char *text)
{
	size_t n = strlen(image->note);

	(void)snprintf(image->note + n, sizeof(image->note) - n, "%s%s", n > 0 ? "; " : "", text);
}

/* ---- facts ------------------------------------------------------------------------------------ */

/* Without the spaces around it, which mean nothing (PS3.5 6.2). */
std::string trimmed(const char *value)
{
	std::string text(value);

	while (!text.empty() && text.back() == ' ')
		text.pop_back();
	while (!text.empty() && text.front() == ' ')
		text.erase(0, 1);
	return text;
}

/* A code string without its padding; dropped when a byte is not printable ASCII: then it is no code
 * string, but might be a name. */
void take_code(char *ret, size_t size, const char *value)
{
	std::string text = trimmed(value);

	for (char c : text)
		if (c < 0x20 || c > 0x7e)
			text.clear();
	(void)str_copy(ret, size, text.c_str()); /* longer than its VR allows: the beginning serves */
}

template <size_t N> void take(char (&ret)[N], DcmItem &item, const DcmTagKey &tag)
{
	take_code(ret, N, header_text(item, tag));
}

template <size_t N> void take_uid(char (&ret)[N], DcmItem &item, const DcmTagKey &tag)
{
	take(ret, item, tag);
	if (!uid_valid(ret))
		ret[0] = '\0';
}

template <size_t N> void take_first_code(char (&ret)[N], DcmItem &item, const DcmTagKey &sequence)
{
	DcmItem *first = header_item(item, sequence);

	if (first != NULL)
		take(ret, *first, DCM_CodeValue);
}

/* "YYYYMMDD", or ACR-NEMA's "YYYY.MM.DD", as a number; 0 when it is none. */
unsigned date_number(const char *text)
{
	unsigned n = 0, digits = 0;

	for (; *text != '\0' && *text != ' ' && digits < 8; text++) {
		if (*text == '.')
			continue;
		if (*text < '0' || *text > '9')
			return 0;
		n = n * 10 + static_cast<unsigned>(*text - '0');
		digits++;
	}
	return digits == 8 && n > 18000000 ? n : 0;
}

/* Patient's Age is "nnnD|W|M|Y" (PS3.5 6.2).  Some writers leave the letter out and mean years. */
int age_years(DcmItem &header)
{
	const char *text = header_text(header, DCM_PatientAge);
	unsigned born, now, n = 0, digits = 0;

	while (*text == ' ')
		text++;
	for (; *text >= '0' && *text <= '9' && digits < 3; text++, digits++)
		n = n * 10 + static_cast<unsigned>(*text - '0');
	if (digits > 0) {
		switch (*text) {
		case 'Y':
		case ' ':
		case '\0':
			return static_cast<int>(n);
		case 'M':
			return static_cast<int>(n / 12);
		case 'W':
			return static_cast<int>(n / 52);
		case 'D':
			return static_cast<int>(n / 365);
		default:
			break;
		}
	}
	born = date_number(header_text(header, DCM_PatientBirthDate));
	now = date_number(header_text(header, DCM_StudyDate));
	if (now == 0)
		now = date_number(header_text(header, DCM_ContentDate));
	if (born == 0 || now < born)
		return -1;
	return static_cast<int>((now - born) / 10000); /* dates as numbers: the year turns on the birthday */
}

/* Texts about this exposure may name its view; texts about the study may cover several. */
void take_descriptions(struct image_facts *f, DcmItem &header)
{
	static const DcmTagKey of_image[] = { DCM_SeriesDescription, DCM_ProtocolName,
					      DCM_AcquisitionDeviceProcessingDescription };
	static const DcmTagKey of_study[] = { DCM_StudyDescription, DCM_RequestedProcedureDescription,
					      DCM_PerformedProcedureStepDescription };
	static const DcmTagKey coded_of_image[] = { DCM_PerformedProtocolCodeSequence };
	static const DcmTagKey coded_of_study[] = { DCM_ProcedureCodeSequence, DCM_RequestedProcedureCodeSequence };

	for (const DcmTagKey &tag : of_image) {
		const char *text = header_text(header, tag);

		f->description_chest |= gate_text_is_chest(text);
		f->description_lateral |= gate_text_is_lateral(text);
		f->animal |= gate_text_is_animal(text);
	}
	for (const DcmTagKey &tag : of_study)
		f->description_chest |= gate_text_is_chest(header_text(header, tag));
	for (const DcmTagKey &tag : coded_of_image) {
		DcmItem *first = header_item(header, tag);

		if (first != NULL) {
			f->description_chest |= gate_text_is_chest(header_text(*first, DCM_CodeMeaning));
			f->description_lateral |= gate_text_is_lateral(header_text(*first, DCM_CodeMeaning));
		}
	}
	for (const DcmTagKey &tag : coded_of_study) {
		DcmItem *first = header_item(header, tag);

		if (first != NULL)
			f->description_chest |= gate_text_is_chest(header_text(*first, DCM_CodeMeaning));
	}
}

bool is_animal(DcmItem &header)
{
	char species[65];
	DcmItem *code = header_item(header, DCM_PatientSpeciesCodeSequence);

	take(species, header, DCM_PatientSpeciesDescription);
	if (species[0] != '\0' && strncasecmp(species, "homo", 4) != 0 && strncasecmp(species, "human", 5) != 0)
		return true;
	if (code == NULL)
		return false;
	take(species, *code, DCM_CodeValue);
	/* Homo sapiens in SNOMED CT and SRT */
	return species[0] != '\0' && strcmp(species, "337915000") != 0 && strcmp(species, "L-85B00") != 0;
}

/* SHA-256 of the encoded elements; false when they are larger than a report takes. */
bool digest_copied(DcmItem &header, uint8_t ret[DIGEST_SIZE])
{
	DcmDataset copied;
	memory_stream stream;

	if (copy_elements(header, copied).bad())
		return false;
	copied.transferInit();
	if (copied.write(stream, EXS_LittleEndianExplicit, EET_ExplicitLength, NULL, EGL_withoutGL).bad())
		return false;
	copied.transferEnd();
	digest_of(stream.bytes().data(), stream.bytes().size(), ret);
	return true;
}

void digest_patient(DcmItem &header, uint8_t ret[DIGEST_SIZE])
{
	std::string text = trimmed(header_text(header, DCM_PatientID));

	text += '\0';
	text += trimmed(header_text(header, DCM_IssuerOfPatientID));
	digest_of(text.data(), text.size(), ret);
}

bool lossy_syntax(const char *syntax)
{
	return strcmp(syntax, UID_JPEGProcess1TransferSyntax) == 0 ||
	       strcmp(syntax, UID_JPEGProcess2_4TransferSyntax) == 0 ||
	       strcmp(syntax, UID_JPEGLSLossyTransferSyntax) == 0;
}

void take_facts(struct dicom_image *image, const struct scan &scan, DcmItem &header)
{
	struct image_facts *f = &image->facts;
	char orientation[65], flag[17];
	char *second;

	take_uid(f->sop_class, header, DCM_SOPClassUID);
	take_uid(f->sop_uid, header, DCM_SOPInstanceUID);
	take_uid(f->study_uid, header, DCM_StudyInstanceUID);
	take_uid(f->series_uid, header, DCM_SeriesInstanceUID);
	take(f->modality, header, DCM_Modality);
	take(f->body_part, header, DCM_BodyPartExamined);
	take(f->view_position, header, DCM_ViewPosition);
	take_first_code(f->view_code, header, DCM_ViewCodeSequence);
	take_first_code(f->anatomic_code, header, DCM_AnatomicRegionSequence);
	take(f->photometric, header, DCM_PhotometricInterpretation);
	take(f->presentation_intent, header, DCM_PresentationIntentType);
	take(f->laterality, header, DCM_ImageLaterality);
	if (f->laterality[0] == '\0')
		take(f->laterality, header, DCM_Laterality);
	take(f->image_type, header, DCM_ImageType);
	take(orientation, header, DCM_PatientOrientation);
	second = strchr(orientation, '\\');
	if (second != NULL) {
		*second = '\0';
		take_code(f->orientation[0], sizeof(f->orientation[0]), orientation);
		take_code(f->orientation[1], sizeof(f->orientation[1]), second + 1);
	}
	take(flag, header, DCM_QualityControlImage);
	f->quality_control = strcmp(flag, "YES") == 0;
	take(flag, header, DCM_LossyImageCompression);
	f->lossy = strcmp(flag, "01") == 0 || lossy_syntax(scan.syntax);
	f->animal = is_animal(header);
	take_descriptions(f, header);
	f->age_years = age_years(header);
	digest_patient(header, f->patient);
	f->rows = scan.rows;
	f->columns = scan.columns;
	f->frames = scan.frames;
	f->samples = scan.samples;
	f->bits_allocated = scan.bits_allocated;
	f->bits_stored = scan.bits_stored;
	f->is_signed = scan.is_signed;
	image->monochrome1 = strcmp(f->photometric, "MONOCHROME1") == 0;
}

/* ---- what can be analysed at all --------------------------------------------------------------- */

struct pixel_size {
	double vertical, horizontal; /* equal, and 1, when square */
};

/* PS3.3 C.7.6.3.1.7: vertical and horizontal size of a pixel, by ratio or spacing. */
struct pixel_size pixel_size_of(DcmItem &header)
{
	static const DcmTagKey tags[] = { DCM_PixelAspectRatio, DCM_PixelSpacing, DCM_ImagerPixelSpacing };

	for (const DcmTagKey &tag : tags) {
		Float64 vertical = 0, horizontal = 0;
		Sint32 v, h;

		if (tag == DCM_PixelAspectRatio) {
			if (header.findAndGetSint32(tag, v, 0).good() && header.findAndGetSint32(tag, h, 1).good()) {
				vertical = v;
				horizontal = h;
			}
		} else if (header.findAndGetFloat64(tag, vertical, 0).bad() ||
			   header.findAndGetFloat64(tag, horizontal, 1).bad())
			continue;
		if (!isfinite(vertical) || !isfinite(horizontal) || !(vertical > 0) || !(horizontal > 0))
			continue;
		if (fabs(vertical / horizontal - 1) <= ASPECT_TOLERANCE)
			break;
		return { vertical, horizontal };
	}
	return { 1, 1 };
}

enum image_reason check_aspect(struct dicom_image *image, const struct scan &s, const struct dicom_limits *limits,
			       DcmItem &header)
{
	struct pixel_size size = pixel_size_of(header);
	double ratio = size.vertical / size.horizontal;
	struct square square = square_of(s.columns, s.rows, size.vertical, size.horizontal);

	if (!(ratio <= ASPECT_MAX) || !(ratio >= 1.0 / ASPECT_MAX))
		return set_reason(image, IMAGE_UNSUPPORTED, "pixels are not nearly square (Pixel Aspect Ratio (0028,0034) or "
				  "spacing)");
	if (square.width < limits->min_side || square.height < limits->min_side)
		return set_reason(image, IMAGE_TOO_SMALL, "%zu x %zu square pixels, at least %u a side are needed",
				  square.height, square.width, limits->min_side);
	return IMAGE_OK;
}

enum image_reason check_geometry(struct dicom_image *image, const struct scan &s,
				 const struct dicom_limits *limits, DcmItem &header)
{
	const struct image_facts *f = &image->facts;
	unsigned high_bit = s.has_high_bit ? s.high_bit : s.bits_stored - 1;

	if (s.rows == 0 || s.columns == 0)
		return set_reason(image, IMAGE_BROKEN, "Rows (0028,0010) or Columns (0028,0011) is missing or zero");
	if (s.rows > limits->side || s.columns > limits->side || static_cast<uint64_t>(s.rows) * s.columns > limits->pixels)
		return set_reason(image, IMAGE_TOO_LARGE, "%u x %u pixels, more than image limits allow", s.rows, s.columns);
	if (s.rows < limits->min_side || s.columns < limits->min_side)
		return set_reason(image, IMAGE_TOO_SMALL, "%u x %u pixels, at least %u a side are needed", s.rows, s.columns,
				  limits->min_side);
	if (s.frames > 1)
		return set_reason(image, IMAGE_UNSUPPORTED, "Number of Frames (0028,0008) is %u, expected a single image", s.frames);
	if (s.samples == 3 && strcmp(f->photometric, "RGB") == 0 && s.bits_allocated == 8 && s.bits_stored == 8 &&
	    !s.encapsulated)
		return check_aspect(image, s, limits, header); /* may be grey: decode_grey_rgb() looks */
	if (s.samples > 1)
		return set_reason(image, IMAGE_UNSUPPORTED, "Samples per Pixel (0028,0002) is %u, expected a grey image", s.samples);
	if (!image->monochrome1 && strcmp(f->photometric, "MONOCHROME2") != 0)
		return set_reason(image, IMAGE_UNSUPPORTED, "Photometric Interpretation (0028,0004) is not MONOCHROME1 or "
				  "MONOCHROME2");
	if (s.bits_allocated != 8 && s.bits_allocated != 16)
		return set_reason(image, IMAGE_UNSUPPORTED, "Bits Allocated (0028,0100) is %u, expected 8 or 16", s.bits_allocated);
	if (s.bits_stored == 0 || s.bits_stored > s.bits_allocated || high_bit >= s.bits_allocated ||
	    high_bit + 1 < s.bits_stored)
		return set_reason(image, IMAGE_BROKEN, "Bits Allocated (0028,0100), Bits Stored (0028,0101) and High Bit "
				  "(0028,0102) contradict each other: %u, %u, %u", s.bits_allocated, s.bits_stored, high_bit);
	if (s.bits_stored < 8)
		return set_reason(image, IMAGE_UNSUPPORTED, "Bits Stored (0028,0101) is %u, expected 8 to 16", s.bits_stored);
	return check_aspect(image, s, limits, header);
}

/* ---- decoding: to one 16-bit word a pixel ------------------------------------------------------- */

/* A codec's result: raw words and how many bits of them count. */
struct raw_image {
	outside<uint16_t> words; /* [rows * columns] */
	size_t n;
	unsigned bits_stored, high_bit;
};

/* PS3.5 8.1.1, annex A.  8-bit pixels of VR OW in big endian are swapped in pairs. */
enum image_reason decode_native(struct dicom_image *image, const struct scan &s, struct raw_image *raw)
{
	size_t bytes = s.bits_allocated / 8, size = raw->n * bytes;
	bool big = s.encoding == SCAN_EXPLICIT_BE;
	const uint8_t *p = s.pixels;

	if (s.encapsulated)
		return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) is encapsulated, its transfer syntax is not");
	/* One byte more is the padding to even length. */
	if (s.pixels_size != size && s.pixels_size != size + 1)
		return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) has %zu bytes, %u x %u pixels of %u bits need %zu",
				  s.pixels_size, s.columns, s.rows, s.bits_allocated, size);
	if (bytes == 1) {
		bool swapped = big && s.words;

		/* An odd last pixel of swapped words lies in the padding byte. */
		if (swapped && s.pixels_size < size + (size & 1))
			return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) has no padding to even length");
		for (size_t i = 0; i < raw->n; i++)
			raw->words[i] = p[swapped ? i ^ 1 : i];
		return IMAGE_OK;
	}
	for (size_t i = 0; i < raw->n; i++)
		raw->words[i] = static_cast<uint16_t>(big ? p[2 * i] << 8 | p[2 * i + 1] : p[2 * i + 1] << 8 | p[2 * i]);
	return IMAGE_OK;
}

/* Secondary Captures of grey films are often RGB (PS3.3 C.7.6.3.1.2).  One whose three channels are equal
 * is as grey as any other; a colour image is none of ours. */
enum image_reason decode_grey_rgb(struct dicom_image *image, const struct scan &s, bool planar, struct raw_image *raw)
{
	bool swapped = s.encoding == SCAN_EXPLICIT_BE && s.words;
	size_t step = planar ? 1 : 3, next = planar ? raw->n : 1, size = raw->n * 3;

	if (s.pixels_size != size && s.pixels_size != size + 1)
		return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) has %zu bytes, %u x %u pixels of three channels need "
				  "%zu", s.pixels_size, s.columns, s.rows, size);
	if (swapped && s.pixels_size < size + (size & 1))
		return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) has no padding to even length");
	for (size_t i = 0; i < raw->n; i++) {
		uint8_t channel[3];

		for (size_t c = 0; c < 3; c++) {
			size_t at = i * step + c * next;

			channel[c] = s.pixels[swapped ? at ^ 1 : at];
		}
		if (channel[0] != channel[1] || channel[0] != channel[2])
			return set_reason(image, IMAGE_UNSUPPORTED, "a colour image: its three channels are not equal");
		raw->words[i] = channel[0];
	}
	add_note(image, "RGB with equal channels");
	return IMAGE_OK;
}

/* One of DCMTK's three libjpeg wrappers, remembering that it warned. */
template <class decompressor> class strict : public decompressor {
public:
	explicit strict(const DJCodecParameter &parameter) : decompressor(parameter, OFFalse) {}

	void emitMessage(int level) const override
	{
		if (level < 0)
			warned = true;
	}

	mutable bool warned = false;
};

/* The frame knows better how many bits count; matters for the sign. */
void settle_depth(struct raw_image *raw, unsigned precision)
{
	if (raw->high_bit < precision)
		return;
	raw->high_bit = precision - 1;
	if (raw->bits_stored > precision)
		raw->bits_stored = precision;
}

/* A lossy frame of more bits than are stored: what lies beyond them overshot, and would be masked to its
 * opposite.  Not for signed values: words of their frames do not say where the sign is. */
void clamp_overshoot(struct raw_image *raw, unsigned precision)
{
	uint16_t most = static_cast<uint16_t>((1u << raw->bits_stored) - 1);

	if (precision <= raw->bits_stored || raw->high_bit != raw->bits_stored - 1)
		return;
	for (size_t i = 0; i < raw->n; i++)
		raw->words[i] = std::min(raw->words[i], most);
}

/* A compressed frame; writable, since the wrappers ask for that. */
struct compressed {
	outside<uint8_t> p;
	size_t n;
};

struct compressed gather(const struct scan &s)
{
	struct compressed frame;
	uint8_t *p;

	if (scan_gather(&s, &p, &frame.n) < 0) /* the walk has seen these bytes: only memory can lack */
		throw std::bad_alloc();
	frame.p.reset(p);
	return frame;
}

template <class decompressor> bool run_jpeg(const struct compressed &frame, void *ret, size_t size)
{
	const DJCodecParameter parameter(ECC_lossyYCbCr, EDC_never, EUC_never, EPC_default);
	strict<decompressor> decoder(parameter);

	if (decoder.init().bad())
		throw std::bad_alloc();
	return decoder.decode(frame.p.get(), static_cast<Uint32>(frame.n), static_cast<Uint8 *>(ret),
			      static_cast<Uint32>(size), OFFalse).good() && !decoder.warned;
}

bool decode_jpeg(const struct compressed &frame, unsigned precision, struct raw_image *raw)
{
	if (precision > 12)
		return run_jpeg<DJDecompressIJG16Bit>(frame, raw->words.get(), raw->n * 2);
	if (precision > 8)
		return run_jpeg<DJDecompressIJG12Bit>(frame, raw->words.get(), raw->n * 2);

	outside<uint8_t> bytes = allocate<uint8_t>(raw->n);

	if (!run_jpeg<DJDecompressIJG8Bit>(frame, bytes.get(), raw->n))
		return false;
	for (size_t i = 0; i < raw->n; i++)
		raw->words[i] = bytes[i];
	return true;
}

/* CharLS has no installed header; DCMTK's codec is driven with a data set made for this frame. */
bool decode_jpeg_ls(const struct scan &s, const struct compressed &frame, unsigned precision, struct raw_image *raw)
{
	E_TransferSyntax syntax = strcmp(s.syntax, UID_JPEGLSLossyTransferSyntax) == 0 ? EXS_JPEGLSLossy :
											  EXS_JPEGLSLossless;
	size_t bytes = precision > 8 ? 2 : 1;
	DcmPixelSequence *sequence = new DcmPixelSequence(DCM_PixelSequenceTag);
	DcmPixelItem *fragment;
	DcmPixelData pixels(DCM_PixelData);
	DcmDataset data_set;
	OFString color;
	Uint32 first = 0;

	pixels.putOriginalRepresentation(syntax, NULL, sequence); /* owns it from here */
	sequence->insert(new DcmPixelItem(DCM_PixelItemTag)); /* an empty offset table */
	fragment = new DcmPixelItem(DCM_PixelItemTag);
	sequence->insert(fragment);
	if (fragment->putUint8Array(frame.p.get(), static_cast<unsigned long>(frame.n)).bad())
		throw std::bad_alloc();
	data_set.putAndInsertUint16(DCM_SamplesPerPixel, 1);
	data_set.putAndInsertString(DCM_PhotometricInterpretation, "MONOCHROME2");
	data_set.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(s.rows));
	data_set.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(s.columns));
	data_set.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(8 * bytes));
	data_set.putAndInsertUint16(DCM_BitsStored, static_cast<Uint16>(precision));
	data_set.putAndInsertUint16(DCM_HighBit, static_cast<Uint16>(precision - 1));
	data_set.putAndInsertUint16(DCM_PixelRepresentation, 0);

	/* The codec asks for an even number of bytes. */
	size_t size = raw->n * bytes + (raw->n * bytes & 1);
	outside<uint8_t> out = allocate<uint8_t>(size);

	if (pixels.getUncompressedFrame(&data_set, 0, first, out.get(), static_cast<Uint32>(size), color).bad())
		return false;
	for (size_t i = 0; i < raw->n; i++) {
		if (bytes == 1)
			raw->words[i] = out[i];
		else
			memcpy(&raw->words[i], &out[2 * i], 2); /* the codec writes host words */
	}
	return true;
}

struct coding {
	const char *syntax, *name;
	enum frame_coding frame;
};

const struct coding codings[] = {
	{ UID_JPEGProcess1TransferSyntax, "JPEG baseline", FRAME_JPEG_BASELINE },
	{ UID_JPEGProcess2_4TransferSyntax, "JPEG extended", FRAME_JPEG_EXTENDED },
	{ UID_JPEGProcess14TransferSyntax, "JPEG lossless", FRAME_JPEG_LOSSLESS },
	{ UID_JPEGProcess14SV1TransferSyntax, "JPEG lossless", FRAME_JPEG_LOSSLESS },
	{ UID_JPEGLSLosslessTransferSyntax, "JPEG-LS", FRAME_JPEG_LS },
	{ UID_JPEGLSLossyTransferSyntax, "JPEG-LS", FRAME_JPEG_LS },
};

enum image_reason decode_frame(struct dicom_image *image, const struct scan &s, const struct coding &coding,
			       struct raw_image *raw)
{
	struct compressed frame = gather(s);
	unsigned precision;
	enum image_reason r;
	bool good;

	if (frame.n > UINT32_MAX)
		return set_reason(image, IMAGE_TOO_LARGE, "%s frame of more than 4 GB", coding.name);
	r = frame_check(coding.frame, frame.p.get(), frame.n, s.rows, s.columns, s.bits_allocated, &precision, image->why);
	if (r != IMAGE_OK) {
		image->reason = r;
		return r;
	}
	good = coding.frame == FRAME_JPEG_LS ? decode_jpeg_ls(s, frame, precision, raw) :
					       decode_jpeg(frame, precision, raw);
	if (!good)
		return set_reason(image, IMAGE_BROKEN, "%s frame does not decode without errors", coding.name);
	if (lossy_syntax(s.syntax) && !image->facts.is_signed)
		clamp_overshoot(raw, precision);
	settle_depth(raw, precision);
	return IMAGE_OK;
}

struct j2k_coding {
	const char *syntax, *name;
	bool lossless;
};

const struct j2k_coding j2k_codings[] = { /* 3.6.7 has no names for HTJ2K */
	{ UID_JPEG2000LosslessOnlyTransferSyntax, "JPEG 2000", true },
	{ UID_JPEG2000TransferSyntax, "JPEG 2000", false },
	{ "1.2.840.10008.1.2.4.201", "HTJ2K", true },
	{ "1.2.840.10008.1.2.4.202", "HTJ2K", true },
	{ "1.2.840.10008.1.2.4.203", "HTJ2K", false },
};

/* Encoders code as many bits as are allocated, or as are stored.  Beyond the stored ones a lossless
 * frame may hold an overlay, which is masked; a lossy one holds what overshot, which is clamped. */
enum image_reason decode_j2k(struct dicom_image *image, const struct scan &s, const struct j2k_coding &coding,
			     struct raw_image *raw)
{
	struct compressed frame = gather(s);
	struct j2k_frame checked;
	bool clamp = !coding.lossless && raw->high_bit == raw->bits_stored - 1;
	int r;

	image->reason = j2k_check(frame.p.get(), frame.n, s.rows, s.columns, s.bits_allocated, &checked, image->why);
	if (image->reason != IMAGE_OK)
		return image->reason;
	r = j2k_decode(&checked, clamp ? raw->bits_stored : checked.precision, raw->words.get());
	if (r == -ENOMEM)
		throw std::bad_alloc();
	if (r < 0)
		return set_reason(image, IMAGE_BROKEN, "%s frame does not decode without errors", coding.name);
	settle_depth(raw, checked.precision);
	image->facts.lossy |= checked.irreversible;
	/* Unsigned frames of signed values are usual; the other way round the frame has values below zero. */
	if (checked.is_signed && !image->facts.is_signed) {
		image->facts.is_signed = true;
		add_note(image, "Pixel Representation (0028,0103) contradicts the JPEG 2000 frame, which was followed");
	}
	return IMAGE_OK;
}

enum image_reason decode_rle(struct dicom_image *image, const struct scan &s, struct raw_image *raw)
{
	struct compressed frame = gather(s);

	image->reason = frame_decode_rle(frame.p.get(), frame.n, raw->n, s.bits_allocated / 8, raw->words.get(),
					 image->why);
	return image->reason;
}

bool is_native(const char *syntax)
{
	return strcmp(syntax, UID_LittleEndianImplicitTransferSyntax) == 0 ||
	       strcmp(syntax, UID_LittleEndianExplicitTransferSyntax) == 0 ||
	       strcmp(syntax, UID_BigEndianExplicitTransferSyntax) == 0 ||
	       strcmp(syntax, UID_DeflatedExplicitVRLittleEndianTransferSyntax) == 0;
}

/* Syntaxes that sites ask for get their names. */
const char *syntax_name(const char *syntax)
{
	static const struct {
		const char *uid, *name;
	} names[] = {
		{ UID_JPEGProcess6_8TransferSyntax, "JPEG spectral selection" },
		{ UID_JPEGProcess10_12TransferSyntax, "JPEG full progression" },
		{ UID_JPEG2000Part2MulticomponentImageCompressionLosslessOnlyTransferSyntax, "JPEG 2000 part 2 lossless" },
		{ UID_JPEG2000Part2MulticomponentImageCompressionTransferSyntax, "JPEG 2000 part 2" },
	};

	for (const auto &n : names)
		if (strcmp(syntax, n.uid) == 0)
			return n.name;
	return "unknown here";
}

enum image_reason decode_pixels(struct dicom_image *image, const struct scan &s, DcmItem &header, struct raw_image *raw)
{
	Uint16 planar = 0;

	raw->n = static_cast<size_t>(s.rows) * s.columns;
	raw->bits_stored = s.bits_stored;
	raw->high_bit = s.has_high_bit ? s.high_bit : s.bits_stored - 1;
	raw->words = allocate<uint16_t>(raw->n);
	if (s.samples == 3 && is_native(s.syntax)) {
		(void)header.findAndGetUint16(DCM_PlanarConfiguration, planar);
		return decode_grey_rgb(image, s, planar == 1, raw);
	}
	if (is_native(s.syntax))
		return decode_native(image, s, raw);
	if (!s.encapsulated)
		return set_reason(image, IMAGE_BROKEN, "Pixel Data (7FE0,0010) is not encapsulated, its transfer syntax is");
	if (strcmp(s.syntax, UID_RLELosslessTransferSyntax) == 0)
		return decode_rle(image, s, raw);
	for (const struct coding &coding : codings)
		if (strcmp(s.syntax, coding.syntax) == 0)
			return decode_frame(image, s, coding, raw);
	for (const struct j2k_coding &coding : j2k_codings)
		if (strcmp(s.syntax, coding.syntax) == 0)
			return decode_j2k(image, s, coding, raw);
	return set_reason(image, IMAGE_UNSUPPORTED, "transfer syntax %s (%s) is not decoded", s.syntax, syntax_name(s.syntax));
}

/* ---- grey levels ---------------------------------------------------------------------------------- */

/* PS3.3 C.7.6.3.1.2: the bits above High Bit may hold old overlays, those below nothing. */
outside<int32_t> stored_values(const struct raw_image &raw, bool is_signed)
{
	outside<int32_t> stored = allocate<int32_t>(raw.n);
	unsigned shift = raw.high_bit + 1 - raw.bits_stored;
	int32_t mask = (1 << raw.bits_stored) - 1, sign = is_signed ? 1 << (raw.bits_stored - 1) : 0;

	for (size_t i = 0; i < raw.n; i++) {
		int32_t v = (raw.words[i] >> shift) & mask;

		stored[i] = (v ^ sign) - sign;
	}
	return stored;
}

struct lut {
	std::vector<uint16_t> data;
	struct grey_lut grey;
};

/* One of three 16-bit descriptor values, whose VR may be US, SS or, in implicit VR, either. */
bool descriptor_value(DcmItem &item, unsigned long at, bool is_signed, int32_t *ret)
{
	DcmElement *e = NULL;
	Uint16 u;
	Sint16 s;

	if (item.findAndGetElement(DCM_LUTDescriptor, e).bad() || e == NULL)
		return false;
	if (e->getSint16(s, at).good())
		*ret = is_signed || s >= 0 ? s : s + 65536;
	else if (e->getUint16(u, at).good())
		*ret = is_signed && u >= 32768 ? u - 65536 : u;
	else
		return false;
	return true;
}

/* PS3.3 C.11.1.1 and C.11.2.1.1; false when there is none or it makes no sense. */
bool read_lut(DcmItem &header, const DcmTagKey &sequence, bool signed_input, struct lut *ret)
{
	DcmItem *item = header_item(header, sequence);
	DcmElement *e = NULL;
	Uint16 *words = NULL;
	int32_t entries, first, bits;
	size_t size;
	uint16_t largest = 0;

	if (item == NULL || !descriptor_value(*item, 0, false, &entries) ||
	    !descriptor_value(*item, 1, signed_input, &first) || !descriptor_value(*item, 2, false, &bits))
		return false;
	if (entries == 0)
		entries = LUT_ENTRIES_MAX;
	if (bits < 8 || bits > 16 || item->findAndGetElement(DCM_LUTData, e).bad() || e == NULL ||
	    e->getUint16Array(words).bad() || words == NULL)
		return false;
	size = e->getLength(EXS_LittleEndianExplicit);
	if (size == static_cast<size_t>(entries) * 2)
		ret->data.assign(words, words + entries);
	else if (bits == 8 && size == static_cast<size_t>(entries) + (entries & 1)) /* packed: low byte first */
		for (int32_t i = 0; i < entries; i++)
			ret->data.push_back(i & 1 ? words[i / 2] >> 8 : words[i / 2] & 0xff);
	else
		return false;
	for (uint16_t v : ret->data)
		largest = v > largest ? v : largest;
	while (bits < 16 && largest >> bits != 0) /* more than was promised: take it at its word */
		bits++;
	ret->grey = { ret->data.size(), first, static_cast<unsigned>(bits), ret->data.data() };
	return true;
}

/* US or SS by Pixel Representation, whatever VR it came with. */
bool padding_value(DcmItem &header, const DcmTagKey &tag, bool is_signed, int32_t *ret)
{
	DcmElement *e = NULL;
	Uint16 u;
	Sint16 s;

	if (header.findAndGetElement(tag, e).bad() || e == NULL)
		return false;
	if (e->getUint16(u, 0).good())
		*ret = is_signed ? static_cast<Sint16>(u) : u;
	else if (e->getSint16(s, 0).good())
		*ret = is_signed ? s : static_cast<Uint16>(s);
	else
		return false;
	return true;
}

/* PS3.3 C.7.5.1.1.2: one value, or a range in either order. */
void take_padding(DcmItem &header, struct grey *g)
{
	int32_t value, limit;

	if (!padding_value(header, DCM_PixelPaddingValue, g->is_signed, &value))
		return;
	if (!padding_value(header, DCM_PixelPaddingRangeLimit, g->is_signed, &limit))
		limit = value;
	g->has_padding = true;
	g->padding_low = value < limit ? value : limit;
	g->padding_high = value < limit ? limit : value;
}

/* Which of several windows: the one that is explained as NORMAL ("HARDER", "SOFTER" are its usual
 * neighbours), else the first. */
unsigned long preferred_window(DcmItem &header)
{
	OFString explanation;
	Float64 number;

	for (unsigned long i = 0; i < WINDOWS_MAX && header.findAndGetFloat64(DCM_WindowCenter, number, i).good() &&
				  header.findAndGetFloat64(DCM_WindowWidth, number, i).good(); i++)
		if (header.findAndGetOFString(DCM_WindowCenterWidthExplanation, explanation, i).good() &&
		    strcasecmp(trimmed(explanation.c_str()).c_str(), "NORMAL") == 0)
			return i;
	return 0;
}

void take_window(DcmItem &header, struct grey *g)
{
	char function[17];
	unsigned long i = preferred_window(header);

	g->has_window = header.findAndGetFloat64(DCM_WindowCenter, g->center, i).good() &&
			header.findAndGetFloat64(DCM_WindowWidth, g->width, i).good();
	take(function, header, DCM_VOILUTFunction);
	if (strcmp(function, "SIGMOID") == 0)
		g->function = GREY_SIGMOID;
	else if (strcmp(function, "LINEAR_EXACT") == 0)
		g->function = GREY_LINEAR_EXACT;
}

/* Two statements about one inversion (PS3.3 C.11.6): Photometric Interpretation is followed, as
 * viewers do; the other is noted. */
void check_polarity(struct dicom_image *image, DcmItem &header)
{
	char shape[17];

	take(shape, header, DCM_PresentationLUTShape);
	if ((image->monochrome1 && strcmp(shape, "IDENTITY") == 0) ||
	    (!image->monochrome1 && strcmp(shape, "INVERSE") == 0))
		add_note(image, "Presentation LUT Shape (2050,0020) contradicts Photometric Interpretation, which was followed");
}

bool render(struct dicom_image *image, const struct raw_image &raw, DcmItem &header, const int32_t *stored, uint8_t *ret)
{
	static const char *const names[] = { "VOI LUT", "window", "percentile window" };
	struct grey g = {};
	struct lut modality, voi;
	enum grey_how how;
	double lowest;

	g.bits = raw.bits_stored;
	g.is_signed = image->facts.is_signed;
	g.slope = 1;
	g.invert = image->monochrome1;
	lowest = g.is_signed ? -ldexp(1, static_cast<int>(g.bits) - 1) : 0;
	if (read_lut(header, DCM_ModalityLUTSequence, g.is_signed, &modality)) {
		g.modality = modality.grey;
		lowest = 0;
		add_note(image, "Modality LUT");
	} else {
		double slope, intercept;

		if (header.findAndGetFloat64(DCM_RescaleSlope, slope).good() &&
		    header.findAndGetFloat64(DCM_RescaleIntercept, intercept).good() && isfinite(slope) &&
		    isfinite(intercept) && slope != 0) {
			g.slope = slope;
			g.intercept = intercept;
			lowest = lowest * slope + intercept;
		}
	}
	if (read_lut(header, DCM_VOILUTSequence, lowest < 0, &voi))
		g.voi = voi.grey;
	take_window(header, &g);
	take_padding(header, &g);
	if (grey_render(&g, stored, raw.n, ret, &how) < 0)
		return false;
	add_note(image, names[how]);
	add_note(image, image->monochrome1 ? "MONOCHROME1" : "MONOCHROME2");
	check_polarity(image, header);
	return true;
}

/* ---- orientation ------------------------------------------------------------------------------------ */

struct turn {
	bool transpose, mirror, upside_down; /* in the order of reading */
};

/* PS3.3 C.7.6.1.1.1.  Rows of an upright frontal image run to the patient's left, columns to the
 * feet (L\F): everything else that says both is turned to that. */
struct turn turn_of(const struct image_facts &f)
{
	char row = f.orientation[0][0], column = f.orientation[1][0];
	bool row_is_side = row == 'L' || row == 'R', row_is_length = row == 'H' || row == 'F';
	bool column_is_side = column == 'L' || column == 'R', column_is_length = column == 'H' || column == 'F';

	if (row_is_side && column_is_length)
		return { false, row == 'R', column == 'H' };
	if (row_is_length && column_is_side)
		return { true, column == 'R', row == 'H' };
	return { false, false, false };
}

template <typename T> outside<T> turned(outside<T> from, size_t width, size_t height, struct turn t)
{
	if (!t.transpose && !t.mirror && !t.upside_down)
		return from;

	size_t to_width = t.transpose ? height : width, to_height = t.transpose ? width : height;
	outside<T> to = allocate<T>(width * height);

	for (size_t y = 0; y < to_height; y++) {
		size_t from_y = t.upside_down ? to_height - 1 - y : y;

		for (size_t x = 0; x < to_width; x++) {
			size_t from_x = t.mirror ? to_width - 1 - x : x;

			to[y * to_width + x] = t.transpose ? from[from_x * width + from_y] : from[from_y * width + from_x];
		}
	}
	return to;
}

/* ---- square pixels ---------------------------------------------------------------------------------- */

/* Grey levels are averaged, not rendered from averaged values: padding that was averaged with its
 * neighbours would not be padding any more, but a bright edge. */
template <typename T> outside<T> squared(outside<T> from, const struct square &s)
{
	outside<int32_t> wide = allocate<int32_t>(s.from_width * s.from_height);
	outside<int32_t> narrow = allocate<int32_t>(s.width * s.height);

	std::copy_n(from.get(), s.from_width * s.from_height, wide.get());
	square_average(&s, wide.get(), narrow.get());
	wide.reset();

	outside<T> to = allocate<T>(s.width * s.height);

	for (size_t i = 0; i < s.width * s.height; i++)
		to[i] = static_cast<T>(narrow[i]); /* between values of that type */
	return to;
}

/* ---- the whole -------------------------------------------------------------------------------------- */

void digest_content(struct dicom_image *image, const int32_t *stored, size_t n)
{
	struct image_facts *f = &image->facts;
	char shape[64];
	struct digest *d = digest_new();

	(void)snprintf(shape, sizeof(shape), "%u %u\n", f->rows, f->columns);
	digest_update(d, f->copied, DIGEST_SIZE);
	digest_update(d, shape, strlen(shape));
	digest_update(d, stored, n * sizeof(*stored)); /* little endian on every machine that we run on */
	digest_final(d, f->content);
	digest_free(d);
}

void decode_into(struct dicom_image *image, const struct scan &scan, const struct dicom_limits *limits)
{
	DcmDataset header;
	struct raw_image raw;

	image->reason = scan.reason;
	(void)str_copy(image->why, sizeof(image->why), scan.why);
	if (scan.header_size == 0) {
		if (scan.reason == IMAGE_OK)
			set_reason(image, IMAGE_BROKEN, "no elements before Pixel Data (7FE0,0010)");
		return;
	}
	if (header_read(scan, header).bad()) {
		if (scan.reason == IMAGE_OK)
			set_reason(image, IMAGE_NOT_DICOM, "the header does not parse");
		return;
	}
	take_facts(image, scan, header);
	if (!digest_copied(header, image->facts.copied)) {
		set_reason(image, IMAGE_BROKEN, "patient and study elements are longer than any report can take");
		return;
	}
	if (scan.reason != IMAGE_OK)
		return;
	if (check_geometry(image, scan, limits, header) != IMAGE_OK || decode_pixels(image, scan, header, &raw) != IMAGE_OK)
		return;

	outside<int32_t> stored = stored_values(raw, image->facts.is_signed);
	outside<uint8_t> window = allocate<uint8_t>(raw.n);
	struct turn turn = turn_of(image->facts);
	struct pixel_size pixel = pixel_size_of(header);
	struct square square = square_of(scan.columns, scan.rows, pixel.vertical, pixel.horizontal);

	raw.words.reset();
	digest_content(image, stored.get(), raw.n);
	if (!render(image, raw, header, stored.get(), window.get())) {
		set_reason(image, IMAGE_CONSTANT, "the image has one grey level only");
		return;
	}
	if (turn.transpose || turn.mirror || turn.upside_down)
		add_note(image, "turned by Patient Orientation (0020,0020)");
	if (square.width < scan.columns || square.height < scan.rows) {
		stored = squared(std::move(stored), square);
		window = squared(std::move(window), square);
		add_note(image, "resampled to square pixels");
	}
	stored = turned(std::move(stored), square.width, square.height, turn);
	window = turned(std::move(window), square.width, square.height, turn);
	image->stored = stored.release();
	image->window = window.release();
	image->transposed = turn.transpose;
	image->mirrored = turn.mirror;
	image->upside_down = turn.upside_down;
	image->width = turn.transpose ? square.height : square.width;
	image->height = turn.transpose ? square.width : square.height;
}

}

int dicom_image_decode(const void *file, size_t n, const struct dicom_limits *limits, struct dicom_image **ret)
{
	struct dicom_image *image = static_cast<struct dicom_image *>(calloc(1, sizeof(*image)));
	struct scan scan;
	int r;

	if (image == NULL)
		return -ENOMEM;
	image->facts.age_years = -1;
	r = scan_file(file, n, limits, &scan);
	if (r == 0)
		r = guarded(NULL, "image", [&]() -> int {
			decode_into(image, scan, limits);
			return 0;
		});
	scan_free(&scan);
	if (r == -EBADMSG || r == -EIO) { /* an exception that the input provoked */
		set_reason(image, IMAGE_BROKEN, "the DICOM library gave up on this image");
		r = 0;
	}
	if (r < 0) {
		dicom_image_free(image);
		return r;
	}
	*ret = image;
	return 0;
}

void dicom_image_free(struct dicom_image *image)
{
	if (image == NULL)
		return;
	free(image->stored);
	free(image->window);
	free(image);
}

void dicom_image_to_source(const struct dicom_image *image, double x, double y, double *ret_column, double *ret_row)
{
	double width = static_cast<double>(image->transposed ? image->height : image->width); /* before it was turned */
	double height = static_cast<double>(image->transposed ? image->width : image->height);
	double across = image->mirrored ? static_cast<double>(image->width) - x : x;
	double down = image->upside_down ? static_cast<double>(image->height) - y : y;

	*ret_column = (image->transposed ? down : across) * image->facts.columns / width;
	*ret_row = (image->transposed ? across : down) * image->facts.rows / height;
}

/* A header through parsing, facts and rendering, and a broken frame through each codec (its error path
 * throws): what the library, the unwinder and libc set up at first use is there afterwards. */
void dicom_image_warm_up(void)
{
	(void)guarded(NULL, "warm-up", []() -> int {
		static const uint8_t broken[] = { 0xff, 0xd8, 0xff, 0xd9 };
		struct dicom_image image = {};
		struct compressed frame = { allocate<uint8_t>(sizeof(broken)), sizeof(broken) };
		struct raw_image raw = { allocate<uint16_t>(WARM_SIDE * WARM_SIDE), WARM_SIDE * WARM_SIDE, 16, 15 };
		outside<uint8_t> window = allocate<uint8_t>(raw.n);
		const struct j2k_frame j2k = { broken, sizeof(broken), WARM_SIDE, WARM_SIDE, 16, false, false };
		struct scan scan = {};
		memory_stream stream;
		DcmDataset header, no_window;

		header.putAndInsertString(DCM_PatientName, "WARM^UP");
		header.putAndInsertString(DCM_WindowCenter, "1.5");
		header.putAndInsertString(DCM_WindowWidth, "256");
		header.transferInit();
		if (header.write(stream, EXS_LittleEndianExplicit, EET_ExplicitLength, NULL).good()) {
			DcmDataset again;

			header.transferEnd();
			scan.data_set = reinterpret_cast<const uint8_t *>(stream.bytes().data());
			scan.header_size = stream.bytes().size();
			scan.encoding = SCAN_EXPLICIT_LE;
			(void)header_read(scan, again);
			take_facts(&image, scan, again);
			(void)digest_copied(again, image.facts.copied);
		}
		for (size_t i = 0; i < raw.n; i++)
			raw.words[i] = static_cast<uint16_t>(i);
		(void)render(&image, raw, header, stored_values(raw, false).get(), window.get());
		/* qsort() asks the kernel for the size of memory, once */
		(void)render(&image, raw, no_window, stored_values(raw, false).get(), window.get());
		memcpy(frame.p.get(), broken, sizeof(broken));
		scan.rows = scan.columns = WARM_SIDE;
		for (unsigned precision : { 8u, 12u, 16u })
			(void)decode_jpeg(frame, precision, &raw);
		(void)decode_jpeg_ls(scan, frame, 16, &raw);
		(void)j2k_decode(&j2k, 16, raw.words.get());
		return 0;
	});
}
