/* test_image.cc: from a stored object to stored values, grey levels and facts, or to a reason.
 *
 * Holds, through the C interface: stored values are bit-exact for every lossless syntax, polarity and
 * depth, and equal to DCMTK's own decoding for the lossy ones; grey levels equal the formulas of PS3.3
 * C.11.2 written down here once more; damage and contradiction are reasons, never half an image.
 */
#include "tests/made.hh"

#include <math.h>

#include <algorithm>

#include "dicom/scan.h"
#include "tests/tap.h"

namespace
{

using namespace std::string_literals;

const struct dicom_limits limits = { 4096, 1u << 24, 16, 16, 10000, 4096 };

/* A decoded image that frees itself. */
struct decoded {
	struct dicom_image *image = NULL;

	explicit decoded(const std::string &bytes, const struct dicom_limits &l = limits)
	{
		int r = dicom_image_decode(bytes.data(), bytes.size(), &l, &image);

		if (r < 0)
			abort(); /* memory */
	}
	decoded(const decoded &) = delete;
	decoded &operator=(const decoded &) = delete;
	~decoded()
	{
		dicom_image_free(image);
	}

	const struct dicom_image *operator->() const
	{
		return image;
	}
};

int32_t expected_stored(const struct made &m, uint16_t word)
{
	int32_t v = (word >> (m.high_bit + 1 - m.stored)) & ((1 << m.stored) - 1);

	return m.is_signed && v >= 1 << (m.stored - 1) ? v - (1 << m.stored) : v;
}

bool stored_equal(const decoded &d, const struct made &m, const std::vector<uint16_t> &words, int tolerance = 0)
{
	if (d->reason != IMAGE_OK || d->width != m.columns || d->height != m.rows)
		return false;
	for (size_t i = 0; i < words.size(); i++)
		if (abs(d->stored[i] - expected_stored(m, words[i])) > tolerance)
			return false;
	return true;
}

const char *syntax_name(E_TransferSyntax syntax)
{
	return DcmXfer(syntax).getXferName();
}

/* ---- stored values ------------------------------------------------------------------------------ */

void lossless_syntaxes()
{
	static const E_TransferSyntax syntaxes[] = {
		EXS_LittleEndianImplicit, EXS_LittleEndianExplicit, EXS_BigEndianExplicit,
		EXS_DeflatedLittleEndianExplicit, EXS_RLELossless, EXS_JPEGProcess14, EXS_JPEGProcess14SV1,
		EXS_JPEGLSLossless,
	};

	for (unsigned bits : { 8u, 10u, 12u, 16u }) {
		for (bool monochrome1 : { false, true }) {
			for (bool is_signed : { false, true }) {
				uint8_t content[DIGEST_SIZE] = { 0 };
				bool first = true;

				for (E_TransferSyntax syntax : syntaxes) {
					struct made m;

					/* DCMTK's encoder asserts there. */
					if (syntax == EXS_JPEGLSLossless && is_signed && bits != 8 && bits != 16)
						continue;
					m.allocated = bits == 8 ? 8 : 16;
					m.stored = bits;
					m.high_bit = bits - 1;
					m.monochrome1 = monochrome1;
					m.is_signed = is_signed;
					m.syntax = syntax;

					decoded d(made_file(m));
					bool good = stored_equal(d, m, made_picture(m)) && d->monochrome1 == monochrome1;

					ok(good, "%s, %u bits%s, MONOCHROME%d: stored values%s%s", syntax_name(syntax), bits,
					   is_signed ? " signed" : "", monochrome1 ? 1 : 2, good ? "" : ": ", d->why);
					if (first)
						memcpy(content, d->facts.content, DIGEST_SIZE);
					first = false;
					ok(memcmp(content, d->facts.content, DIGEST_SIZE) == 0,
					   "%s, %u bits: content digest does not depend on the encoding",
					   syntax_name(syntax), bits);
				}
			}
		}
	}
}

/* DCMTK's own decoding of the same file is the oracle. */
void lossy_syntaxes()
{
	static const struct {
		E_TransferSyntax syntax;
		unsigned bits;
	} cases[] = {
		{ EXS_JPEGProcess1, 8 },    { EXS_JPEGProcess2_4, 8 }, { EXS_JPEGProcess2_4, 12 },
		{ EXS_JPEGLSLossy, 8 }, { EXS_JPEGLSLossy, 12 }, { EXS_JPEGLSLossy, 16 },
	};

	for (const auto &c : cases) {
		struct made m;

		m.allocated = c.bits == 8 ? 8 : 16;
		m.stored = c.bits;
		m.high_bit = c.bits - 1;
		m.syntax = c.syntax;

		std::string bytes = made_file(m);
		decoded d(bytes);
		DcmInputBufferStream in;
		DcmFileFormat file;
		const Uint8 *p8 = NULL;
		const Uint16 *p16 = NULL;
		bool good = d->reason == IMAGE_OK;

		in.setBuffer(bytes.data(), static_cast<offile_off_t>(bytes.size()));
		in.setEos();
		file.transferInit();
		good = good && file.read(in).good();
		file.transferEnd();
		good = good && file.getDataset()->chooseRepresentation(EXS_LittleEndianExplicit, NULL).good();
		if (good && c.bits == 8)
			good = file.getDataset()->findAndGetUint8Array(DCM_PixelData, p8).good();
		else if (good)
			good = file.getDataset()->findAndGetUint16Array(DCM_PixelData, p16).good();
		for (size_t i = 0; good && i < m.rows * m.columns; i++)
			good = d->stored[i] == (c.bits == 8 ? p8[i] : p16[i]);
		ok(good, "%s, %u bits: as DCMTK decodes it %s", syntax_name(c.syntax), c.bits, d->why);
		is_int(d->facts.lossy, true, "%s is known to be lossy", syntax_name(c.syntax));
	}
}

void unused_bits()
{
	struct made m;

	m.words = made_picture(m);
	for (size_t i = 0; i < m.words.size(); i += 3)
		m.words[i] |= 0x8000; /* an overlay in bit 15, as CR did */
	ok(stored_equal(decoded(made_file(m)), m, m.words), "bits above High Bit are masked");
	m.is_signed = true;
	ok(stored_equal(decoded(made_file(m)), m, m.words), "signed too");

	struct made high;

	high.high_bit = 15;
	ok(stored_equal(decoded(made_file(high)), high, made_picture(high)), "High Bit 15 with 12 bits stored");

	struct made without;

	without.also = [](DcmDataset &d) { delete d.remove(DCM_HighBit); };
	ok(stored_equal(decoded(made_file(without)), without, made_picture(without)), "High Bit missing");

	struct made odd;

	odd.rows = 17;
	odd.columns = 19;
	odd.allocated = odd.stored = 8;
	odd.high_bit = 7;
	for (E_TransferSyntax syntax : { EXS_LittleEndianExplicit, EXS_BigEndianExplicit, EXS_RLELossless, EXS_JPEGLSLossless,
					 EXS_JPEGProcess14SV1 }) {
		odd.syntax = syntax;
		ok(stored_equal(decoded(made_file(odd)), odd, made_picture(odd)), "%s: odd number of 8-bit pixels",
		   syntax_name(syntax));
	}
}

/* PS3.5 annex A.3: 8-bit pixels of VR OW, big endian. */
void swapped_bytes()
{
	struct made m;

	m.allocated = m.stored = 8;
	m.high_bit = 7;
	m.syntax = EXS_BigEndianExplicit;

	std::vector<uint16_t> picture = made_picture(m);

	m.also = [&](DcmDataset &d) {
		std::vector<Uint16> pairs(picture.size() / 2);
		DcmPixelData *e = new DcmPixelData(DcmTag(DCM_PixelData, EVR_OW));

		for (size_t i = 0; i < pairs.size(); i++)
			pairs[i] = static_cast<Uint16>(picture[2 * i] | picture[2 * i + 1] << 8);
		e->putUint16Array(pairs.data(), pairs.size());
		d.insert(e, OFTrue);
	};
	ok(stored_equal(decoded(made_file(m)), m, picture), "8-bit OW in big endian");
}

/* ---- grey levels -------------------------------------------------------------------------------- */

/* PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with ymin 0, ymax 1. */
double linear(double x, double c, double w)
{
	if (x <= c - 0.5 - (w - 1) / 2)
		return 0;
	if (x > c - 0.5 + (w - 1) / 2)
		return 1;
	return (x - (c - 0.5)) / (w - 1) + 0.5;
}

double linear_exact(double x, double c, double w)
{
	if (x <= c - w / 2)
		return 0;
	if (x > c + w / 2)
		return 1;
	return (x - c) / w + 0.5;
}

double sigmoid(double x, double c, double w)
{
	return 1 / (1 + exp(-4 * (x - c) / w));
}

uint8_t rounded(double share, bool invert)
{
	share = std::min(1.0, std::max(0.0, share));
	return static_cast<uint8_t>(floor((invert ? 1 - share : share) * 255 + 0.5));
}

void check_grey(const struct made &m, const char *name, const std::function<double(int32_t)> &share)
{
	std::vector<uint16_t> words = m.words.empty() ? made_picture(m) : m.words;
	decoded d(made_file(m));
	size_t wrong = 0;

	if (!ok(d->reason == IMAGE_OK, "%s: decodes %s", name, d->why))
		return;
	for (size_t i = 0; i < words.size(); i++)
		wrong += d->window[i] != rounded(share(expected_stored(m, words[i])), m.monochrome1);
	is_int(wrong, 0, "%s: grey levels (%s)", name, d->note);
}

void put(DcmDataset &d, const DcmTagKey &tag, const char *value)
{
	d.putAndInsertString(tag, value);
}

void windows()
{
	for (bool monochrome1 : { false, true }) {
		for (bool is_signed : { false, true }) {
			struct made m;

			m.monochrome1 = monochrome1;
			m.is_signed = is_signed;
			m.also = [](DcmDataset &d) {
				put(d, DCM_WindowCenter, "1200.5\\40");
				put(d, DCM_WindowWidth, "900\\400");
			};
			check_grey(m, "LINEAR, first of two", [](int32_t v) { return linear(v, 1200.5, 900); });
			m.also = [](DcmDataset &d) {
				put(d, DCM_WindowCenter, "100");
				put(d, DCM_WindowWidth, "1");
			};
			check_grey(m, "LINEAR, width 1", [](int32_t v) { return linear(v, 100, 1); });
			m.also = [](DcmDataset &d) {
				put(d, DCM_WindowCenter, "700");
				put(d, DCM_WindowWidth, "1500");
				put(d, DCM_VOILUTFunction, "LINEAR_EXACT");
			};
			check_grey(m, "LINEAR_EXACT", [](int32_t v) { return linear_exact(v, 700, 1500); });
			m.also = [](DcmDataset &d) {
				put(d, DCM_WindowCenter, "700");
				put(d, DCM_WindowWidth, "1500");
				put(d, DCM_VOILUTFunction, "SIGMOID");
			};
			check_grey(m, "SIGMOID", [](int32_t v) { return sigmoid(v, 700, 1500); });
			m.also = [](DcmDataset &d) {
				put(d, DCM_RescaleSlope, "0.25");
				put(d, DCM_RescaleIntercept, "-1000");
				put(d, DCM_RescaleType, "US");
				put(d, DCM_WindowCenter, "-500");
				put(d, DCM_WindowWidth, "700");
			};
			check_grey(m, "rescale and window", [](int32_t v) { return linear(v * 0.25 - 1000, -500, 700); });
			m.also = [](DcmDataset &d) {
				put(d, DCM_RescaleSlope, "-2");
				put(d, DCM_RescaleIntercept, "10");
				put(d, DCM_WindowCenter, "-2000");
				put(d, DCM_WindowWidth, "3000");
			};
			check_grey(m, "falling rescale", [](int32_t v) { return linear(v * -2.0 + 10, -2000, 3000); });
		}
	}
}

/* The rule of grey.h in another way: sorted values instead of counts. */
void percentile_windows()
{
	static const struct {
		const char *center, *width, *name;
	} missing[] = {
		{ NULL, NULL, "no window" },
		{ "100", "0", "width 0" },
		{ "100", "-5", "width below 0" },
		{ "abc", "100", "no number" },
		{ "100000", "10", "a window beside the image" },
	};

	for (const auto &c : missing) {
		for (bool is_signed : { false, true }) {
			struct made m;

			m.is_signed = is_signed;
			if (c.center != NULL)
				m.also = [&](DcmDataset &d) {
					put(d, DCM_WindowCenter, c.center);
					put(d, DCM_WindowWidth, c.width);
				};

			std::vector<int32_t> sorted;

			for (uint16_t w : made_picture(m))
				sorted.push_back(expected_stored(m, w));
			std::sort(sorted.begin(), sorted.end());

			double low = sorted[static_cast<size_t>(ceil(0.005 * sorted.size())) - 1];
			double high = sorted[static_cast<size_t>(ceil(0.995 * sorted.size())) - 1];

			check_grey(m, c.name, [=](int32_t v) { return (v - low) / (high - low); });
		}
	}
}

DcmItem *lut_item(DcmDataset &d, const DcmTagKey &sequence, int entries, int first, int bits, const std::vector<Uint16> &data)
{
	Uint16 descriptor[3] = { static_cast<Uint16>(entries), static_cast<Uint16>(first), static_cast<Uint16>(bits) };
	DcmItem *item = NULL;

	d.findOrCreateSequenceItem(sequence, item, -2);
	item->putAndInsertUint16Array(DCM_LUTDescriptor, descriptor, 3);
	item->putAndInsertUint16Array(DCM_LUTData, data.data(), data.size());
	return item;
}

void luts()
{
	std::vector<Uint16> curve(2000), other(2000, 0);

	for (size_t i = 0; i < curve.size(); i++)
		curve[i] = static_cast<Uint16>(4095.0 * i * i / (1999.0 * 1999.0));

	auto lookup = [&](double x, int first) {
		double i = std::min(1999.0, std::max(0.0, floor(x + 0.5) - first));

		return static_cast<double>(curve[static_cast<size_t>(i)]);
	};

	for (bool monochrome1 : { false, true }) {
		struct made m;

		m.monochrome1 = monochrome1;
		m.also = [&](DcmDataset &d) {
			lut_item(d, DCM_VOILUTSequence, 2000, 500, 12, curve);
			lut_item(d, DCM_VOILUTSequence, 2000, 0, 12, other);
			put(d, DCM_WindowCenter, "10");
			put(d, DCM_WindowWidth, "20");
		};
		check_grey(m, "VOI LUT, first item, before the window", [&](int32_t v) { return lookup(v, 500) / 4095; });
		m.is_signed = true;
		m.also = [&](DcmDataset &d) { lut_item(d, DCM_VOILUTSequence, 2000, -700, 12, curve); };
		check_grey(m, "VOI LUT of signed values", [&](int32_t v) { return lookup(v, -700) / 4095; });
		m.is_signed = false;
		m.also = [&](DcmDataset &d) {
			lut_item(d, DCM_VOILUTSequence, 2000, -700, 12, curve);
			put(d, DCM_RescaleSlope, "1");
			put(d, DCM_RescaleIntercept, "-1024");
		};
		check_grey(m, "VOI LUT of values that rescale made signed", [&](int32_t v) { return lookup(v - 1024.0, -700) / 4095; });
		m.also = [&](DcmDataset &d) {
			lut_item(d, DCM_ModalityLUTSequence, 2000, 300, 12, curve)->putAndInsertString(DCM_ModalityLUTType, "US");
			put(d, DCM_RescaleSlope, "7");
			put(d, DCM_RescaleIntercept, "7");
			put(d, DCM_WindowCenter, "2048");
			put(d, DCM_WindowWidth, "4096");
		};
		check_grey(m, "Modality LUT, not rescale", [&](int32_t v) { return linear(lookup(v, 300), 2048, 4096); });
		m.also = [&](DcmDataset &d) {
			lut_item(d, DCM_VOILUTSequence, 1999, 0, 12, curve); /* its length is not its data's */
			put(d, DCM_WindowCenter, "2048");
			put(d, DCM_WindowWidth, "4096");
		};
		check_grey(m, "impossible VOI LUT: the window", [&](int32_t v) { return linear(v, 2048, 4096); });
	}
}

void polarity_notes()
{
	struct made m;

	for (bool monochrome1 : { false, true }) {
		for (const char *shape : { "IDENTITY", "INVERSE" }) {
			bool contradicts = monochrome1 == (strcmp(shape, "IDENTITY") == 0);

			m.monochrome1 = monochrome1;
			m.also = [&](DcmDataset &d) {
				put(d, DCM_PresentationLUTShape, shape);
				put(d, DCM_WindowCenter, "2048");
				put(d, DCM_WindowWidth, "4096");
			};
			check_grey(m, shape, [](int32_t v) { return linear(v, 2048, 4096); });

			decoded d(made_file(m));

			is_int(strstr(d->note, "contradicts") != NULL, contradicts, "MONOCHROME%d and %s: noted when contradictory",
			       monochrome1 ? 1 : 2, shape);
		}
	}
}

void padding()
{
	for (bool monochrome1 : { false, true }) {
		for (bool is_signed : { false, true }) {
			struct made m;
			int32_t pad = is_signed ? -2048 : 4095, limit = is_signed ? -2000 : 4000;
			std::vector<int32_t> inside;
			size_t wrong = 0;

			m.monochrome1 = monochrome1;
			m.is_signed = is_signed;
			m.words = made_picture(m);
			for (size_t i = 0; i < m.words.size(); i += 4)
				m.words[i] = static_cast<uint16_t>(pad & 0x0fff);
			m.also = [&](DcmDataset &d) {
				if (is_signed) {
					d.putAndInsertSint16(DcmTag(DCM_PixelPaddingValue, EVR_SS), static_cast<Sint16>(pad));
					d.putAndInsertSint16(DcmTag(DCM_PixelPaddingRangeLimit, EVR_SS), static_cast<Sint16>(limit));
				} else {
					d.putAndInsertUint16(DcmTag(DCM_PixelPaddingValue, EVR_US), static_cast<Uint16>(pad));
					d.putAndInsertUint16(DcmTag(DCM_PixelPaddingRangeLimit, EVR_US), static_cast<Uint16>(limit));
				}
			};

			decoded d(made_file(m));
			int32_t low = std::min(pad, limit), high = std::max(pad, limit);

			for (uint16_t w : m.words) {
				int32_t v = expected_stored(m, w);

				if (v < low || v > high)
					inside.push_back(v);
			}
			std::sort(inside.begin(), inside.end());

			double from = inside[static_cast<size_t>(ceil(0.005 * inside.size())) - 1];
			double to = inside[static_cast<size_t>(ceil(0.995 * inside.size())) - 1];

			for (size_t i = 0; d->reason == IMAGE_OK && i < m.words.size(); i++) {
				int32_t v = expected_stored(m, m.words[i]);
				uint8_t want = v >= low && v <= high ? 0 : rounded((v - from) / (to - from), monochrome1);

				wrong += d->window[i] != want;
			}
			ok(d->reason == IMAGE_OK && wrong == 0, "padding is black and not counted: MONOCHROME%d%s", monochrome1 ? 1 : 2,
			   is_signed ? " signed" : "");
		}
	}
}

/* ---- orientation -------------------------------------------------------------------------------- */

void orientations()
{
	static const struct {
		const char *value;
		bool transpose, mirror, upside_down;
	} cases[] = {
		{ "L\\F", false, false, false },  { "R\\F", false, true, false }, { "L\\H", false, false, true },
		{ "R\\H", false, true, true },	  { "F\\L", true, false, false }, { "F\\R", true, true, false },
		{ "H\\L", true, false, true },	  { "H\\R", true, true, true },	  { "LF\\FR", false, false, false },
		{ "R", false, false, false },	  { "", false, false, false },	  { "R\\", false, false, false },
		{ "\\H", false, false, false },	  { "A\\H", false, false, false }, { "L\\R", false, false, false },
	};

	for (const auto &c : cases) {
		struct made m;
		size_t wrong = 0;

		m.also = [&](DcmDataset &d) { put(d, DCM_PatientOrientation, c.value); };

		std::vector<uint16_t> words = made_picture(m);
		decoded d(made_file(m));
		size_t width = c.transpose ? m.rows : m.columns, height = c.transpose ? m.columns : m.rows;

		if (!ok(d->reason == IMAGE_OK && d->width == width && d->height == height, "%s: size", c.value))
			continue;
		for (size_t y = 0; y < height; y++) {
			for (size_t x = 0; x < width; x++) {
				size_t fx = c.mirror ? width - 1 - x : x, fy = c.upside_down ? height - 1 - y : y;
				size_t from = c.transpose ? fx * m.columns + fy : fy * m.columns + fx;

				wrong += d->stored[y * width + x] != expected_stored(m, words[from]);
			}
		}
		is_int(wrong, 0, "\"%s\" is turned upright", c.value);
	}
}

/* ---- reasons ------------------------------------------------------------------------------------ */

void expect(const std::string &bytes, enum image_reason reason, const char *says, const char *name,
	    const struct dicom_limits &l = limits)
{
	decoded d(bytes, l);

	is_str(image_reason_name(d->reason), image_reason_name(reason), "%s", name);
	ok(strstr(d->why, says) != NULL, "%s: \"%s\" has \"%s\"", name, d->why, says);
	ok((d->stored != NULL) == (d->reason == IMAGE_OK), "%s: pixels only when it is fine", name);
}

void with(enum image_reason reason, const char *says, const char *name, const std::function<void(DcmDataset &)> &also)
{
	struct made m;

	m.also = also;
	expect(made_file(m), reason, says, name);
}

/* Replaces the only occurrence of `from`. */
std::string patched(std::string bytes, const std::string &from, const std::string &to)
{
	size_t at = bytes.find(from);

	if (at == std::string::npos || bytes.find(from, at + 1) != std::string::npos)
		abort(); /* the test's own mistake */
	return bytes.replace(at, from.size(), to);
}

void header_reasons()
{
	with(IMAGE_NO_PIXELS, "(7FE0,0010)", "no pixels", [](DcmDataset &d) { delete d.remove(DCM_PixelData); });
	with(IMAGE_UNSUPPORTED, "(0028,0002)", "colour", [](DcmDataset &d) { d.putAndInsertUint16(DCM_SamplesPerPixel, 3); });
	with(IMAGE_UNSUPPORTED, "(0028,0004)", "palette",
	     [](DcmDataset &d) { put(d, DCM_PhotometricInterpretation, "PALETTE COLOR"); });
	with(IMAGE_UNSUPPORTED, "(0028,0008)", "two frames", [](DcmDataset &d) { put(d, DCM_NumberOfFrames, "2"); });
	with(IMAGE_OK, "", "one frame, said", [](DcmDataset &d) { put(d, DCM_NumberOfFrames, "1 "); });
	with(IMAGE_UNSUPPORTED, "(0028,0100)", "32 bits", [](DcmDataset &d) { d.putAndInsertUint16(DCM_BitsAllocated, 32); });
	with(IMAGE_UNSUPPORTED, "(0028,0101)", "4 bits", [](DcmDataset &d) {
		d.putAndInsertUint16(DCM_BitsStored, 4);
		d.putAndInsertUint16(DCM_HighBit, 3);
	});
	with(IMAGE_BROKEN, "(0028,0102)", "high bit below", [](DcmDataset &d) { d.putAndInsertUint16(DCM_HighBit, 4); });
	with(IMAGE_BROKEN, "(0028,0101)", "more stored than allocated",
	     [](DcmDataset &d) { d.putAndInsertUint16(DCM_BitsStored, 17); });
	with(IMAGE_BROKEN, "(0028,0010)", "no rows", [](DcmDataset &d) { delete d.remove(DCM_Rows); });
	with(IMAGE_BROKEN, "bytes", "too few pixels", [](DcmDataset &d) { d.putAndInsertUint16(DCM_Rows, 67); });
	with(IMAGE_BROKEN, "bytes", "too many pixels", [](DcmDataset &d) { d.putAndInsertUint16(DCM_Rows, 65); });
	with(IMAGE_TOO_LARGE, "limits", "too large a side", [](DcmDataset &d) { d.putAndInsertUint16(DCM_Rows, 4097); });
	with(IMAGE_TOO_SMALL, "at least", "too small", [](DcmDataset &d) { d.putAndInsertUint16(DCM_Rows, 15); });
	with(IMAGE_UNSUPPORTED, "square", "aspect ratio", [](DcmDataset &d) { put(d, DCM_PixelAspectRatio, "2\\1"); });
	with(IMAGE_UNSUPPORTED, "square", "spacing", [](DcmDataset &d) { put(d, DCM_ImagerPixelSpacing, "0.2\\0.1"); });
	with(IMAGE_OK, "", "square enough", [](DcmDataset &d) { put(d, DCM_ImagerPixelSpacing, "0.1432\\0.143"); });
	with(IMAGE_OK, "", "no spacing in fact", [](DcmDataset &d) { put(d, DCM_PixelSpacing, "0.000\\0.000"); });
	with(IMAGE_BROKEN, "longer than any report", "a name of 300 KB", [](DcmDataset &d) {
		put(d, DCM_PatientName, std::string(300000, 'A').c_str());
	});

	{
		struct made m;
		std::string bytes = made_file(m);

		bytes.erase(bytes.find("\x08\x00\x05\x00"s), bytes.rfind("\xe0\x7f\x10\x00"s) - bytes.find("\x08\x00\x05\x00"s));
		expect(bytes, IMAGE_BROKEN, "no elements", "nothing but pixels");
	}

	struct made flat;

	flat.words.assign(flat.rows * flat.columns, 7);
	expect(made_file(flat), IMAGE_CONSTANT, "one grey level", "constant");
	flat.also = [](DcmDataset &d) { d.putAndInsertUint16(DcmTag(DCM_PixelPaddingValue, EVR_US), 9); };
	flat.words[5] = 9;
	expect(made_file(flat), IMAGE_CONSTANT, "one grey level", "constant but for padding");

	struct made large;
	struct dicom_limits few = limits;

	few.pixels = 66 * 70 - 1;
	expect(made_file(large), IMAGE_TOO_LARGE, "limits", "too many pixels together", few);
}

void syntax_reasons()
{
	struct made m;
	std::string native = made_file(m);
	const std::string explicit_uid("1.2.840.10008.1.2.1\0", 20);

	m.syntax = EXS_JPEGLSLossless;

	std::string encapsulated = made_file(m);
	const std::string jpegls_uid("1.2.840.10008.1.2.4.80", 22);

	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.91"), IMAGE_UNSUPPORTED, "JPEG 2000", "JPEG 2000 is named");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.90"), IMAGE_UNSUPPORTED, "JPEG 2000 lossless",
	       "JPEG 2000 lossless is named");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.99"), IMAGE_UNSUPPORTED, "1.2.840.10008.1.2.4.99",
	       "an unknown syntax is named");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.70"), IMAGE_BROKEN, "coding process",
	       "JPEG-LS is not JPEG");
	expect(patched(encapsulated, jpegls_uid, std::string("1.2.840.10008.1.2.1\0\0\0", 22)), IMAGE_BROKEN, "encapsulated",
	       "encapsulated against its syntax");
	expect(patched(native, explicit_uid, std::string("1.2.840.10008.1.2.5\0", 20)), IMAGE_BROKEN, "not encapsulated",
	       "native against its syntax");

	decoded d(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.91"));

	is_str(d->facts.body_part, "CHEST", "facts are there although it cannot be decoded");
	is_str(d->facts.sop_uid, "2.25.1001", "its UID too");
	is_int(d->facts.content[0] | d->facts.content[31], 0, "but no content digest");
}

/* Every codec, its stream cut anywhere: a reason, never an image. */
void damaged_frames()
{
	static const E_TransferSyntax syntaxes[] = { EXS_RLELossless, EXS_JPEGProcess1, EXS_JPEGProcess2_4, EXS_JPEGProcess14SV1,
						     EXS_JPEGLSLossless };
	const std::string fragment("\xfe\xff\x00\xe0", 4);

	for (E_TransferSyntax syntax : syntaxes) {
		struct made m;
		unsigned passed = 0, tried = 0;

		m.allocated = syntax == EXS_JPEGProcess1 ? 8 : 16;
		m.stored = syntax == EXS_JPEGProcess1 ? 8 : 12;
		m.high_bit = m.stored - 1;
		m.syntax = syntax;

		std::string bytes = made_file(m);
		size_t table = bytes.rfind(fragment, bytes.rfind(fragment) - 1);
		size_t at = bytes.rfind(fragment) + 8, end = bytes.size() - 8;

		if (!ok(table != std::string::npos && decoded(bytes)->reason == IMAGE_OK, "%s: whole", syntax_name(syntax)))
			continue;
		for (size_t cut = 0; cut < 40; cut++) {
			size_t n = (end - at) * cut / 40 & ~static_cast<size_t>(1);
			std::string damaged = bytes.substr(0, at + n) + bytes.substr(end);

			for (unsigned i = 0; i < 4; i++)
				damaged[at - 4 + i] = static_cast<char>(n >> (8 * i));
			tried++;
			passed += decoded(damaged)->reason == IMAGE_OK;
		}
		is_int(passed, 0, "%s: %u cut frames are all refused", syntax_name(syntax), tried);
		/* An end marker does not help a JPEG frame that lost its middle. */
		if (syntax == EXS_JPEGProcess1 || syntax == EXS_JPEGProcess2_4 || syntax == EXS_JPEGProcess14SV1) {
			size_t n = ((end - at) / 2 & ~static_cast<size_t>(1)) + 2;
			std::string damaged = bytes.substr(0, at + n - 2) + "\xff\xd9" + bytes.substr(end);

			for (unsigned i = 0; i < 4; i++)
				damaged[at - 4 + i] = static_cast<char>(n >> (8 * i));
			expect(damaged, IMAGE_BROKEN, "does not decode", "half a frame with an end");
		}
	}
}

/* Bytes of a frame in place of the made one's. */
std::string with_frame(const std::string &bytes, const std::string &frame)
{
	const std::string fragment("\xfe\xff\x00\xe0", 4);
	size_t at = bytes.rfind(fragment);
	std::string n(4, '\0');

	for (unsigned i = 0; i < 4; i++)
		n[i] = static_cast<char>(frame.size() >> (8 * i));
	return bytes.substr(0, at + 4) + n + frame + bytes.substr(bytes.size() - 8);
}

void hostile_frames()
{
	struct made m;

	m.syntax = EXS_JPEGProcess14SV1;

	std::string jpeg = made_file(m);

	m.syntax = EXS_JPEGLSLossless;

	std::string jpegls = made_file(m);
	const std::string soi("\xff\xd8", 2), sos("\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00", 10);

	expect(with_frame(jpeg, soi + std::string("\xff\x01\xff\x01", 4)), IMAGE_BROKEN, "marker 01", "TEM marker");
	expect(with_frame(jpeg, soi + std::string("\xff\xc3\x00\x0b\x0c\xff\xff\xff\xff\x01\x01\x11\x00", 13) + sos),
	       IMAGE_BROKEN, "65535 x 65535", "JPEG frame header of 65535 x 65535");
	expect(with_frame(jpegls, soi + std::string("\xff\xf7\x00\x0b\x0c\xff\xff\xff\xff\x01\x01\x11\x00", 13) + sos),
	       IMAGE_BROKEN, "65535 x 65535", "JPEG-LS frame header of 65535 x 65535");
	expect(with_frame(jpegls, soi + std::string("\xff\xf8\x00\x06\x04\x02\xff\xff", 8)), IMAGE_UNSUPPORTED, "32-bit",
	       "JPEG-LS oversize parameters");
	expect(with_frame(jpeg, soi + std::string("\xff\xc3\x00\x0b\x0c\x00\x42\x00\x46\x03\x01\x11\x00", 13) + sos),
	       IMAGE_BROKEN, "components", "three components");
	expect(with_frame(jpeg, soi + std::string("\xff\xc3\x00\x0b\x11\x00\x42\x00\x46\x01\x01\x11\x00", 13) + sos),
	       IMAGE_BROKEN, "17 bits", "17 bits");
	expect(with_frame(jpeg, soi + std::string("\xff\xc2\x00\x0b\x0c\x00\x42\x00\x46\x01\x01\x11\x00", 13) + sos),
	       IMAGE_BROKEN, "coding process", "progressive");
	expect(with_frame(jpeg, soi + std::string("\xff\xfe\xff\xff", 4)), IMAGE_BROKEN, "breaks off", "a segment beyond the end");
	expect(with_frame(jpeg, soi + std::string("\xff\xfe\x00\x01", 4)), IMAGE_BROKEN, "breaks off", "a segment of length 1");
	expect(with_frame(jpeg, ""), IMAGE_BROKEN, "do not begin", "empty frame");
}

/* ---- facts -------------------------------------------------------------------------------------- */

void ages()
{
	static const struct {
		const char *age, *birth, *study;
		int years;
	} cases[] = {
		{ "066Y", "", "", 66 },	     { "81", "", "", 81 },	    { "018M", "", "", 1 },  { "003W", "", "", 0 },
		{ "120D", "", "", 0 },	     { "", "19500124", "20200124", 70 }, { "", "19500125", "20200124", 69 },
		{ "", "1950.01.25", "2020.01.24", 69 }, { "", "", "20200101", -1 }, { "", "19500124", "", -1 },
		{ "YYYY", "19500124", "20200124", 70 }, { "", "2020", "20200124", -1 }, { "", "20210101", "20200101", -1 },
		{ "", "00000000", "20200101", -1 },
	};

	for (const auto &c : cases) {
		struct made m;

		m.also = [&](DcmDataset &d) {
			put(d, DCM_PatientAge, c.age);
			put(d, DCM_PatientBirthDate, c.birth);
			put(d, DCM_StudyDate, c.study);
		};
		is_int(decoded(made_file(m))->facts.age_years, c.years, "age \"%s\", born \"%s\", study \"%s\"", c.age, c.birth,
		       c.study);
	}
}

void descriptions()
{
	struct made m;

	{
		decoded d(made_file(m));

		is_int(d->facts.description_chest, true, "the study description says chest");
		is_str(d->facts.modality, "DX", "modality");
		is_str(d->facts.view_position, "PA", "view position");
		is_int(d->facts.rows, 66, "rows");
		is_int(d->facts.columns, 70, "columns");
	}
	m.also = [](DcmDataset &d) { put(d, DCM_StudyDescription, "Thorax lateral"); };
	is_int(decoded(made_file(m))->facts.description_lateral, false, "a study description is not about one view");
	m.also = [](DcmDataset &d) { put(d, DCM_SeriesDescription, "Thorax lateral"); };
	is_int(decoded(made_file(m))->facts.description_lateral, true, "a series description is");
	m.also = [](DcmDataset &d) {
		DcmItem *item = NULL;

		d.findOrCreateSequenceItem(DCM_ViewCodeSequence, item, -2);
		item->putAndInsertString(DCM_CodeValue, "399348003 ");
		d.findOrCreateSequenceItem(DCM_AnatomicRegionSequence, item, -2);
		item->putAndInsertString(DCM_CodeValue, "51185008");
		put(d, DCM_BodyPartExamined, "BR\xdcST");
		put(d, DCM_ImageType, "ORIGINAL\\PRIMARY\\");
	};
	{
		decoded d(made_file(m));

		is_str(d->facts.view_code, "399348003", "view code, trimmed");
		is_str(d->facts.anatomic_code, "51185008", "anatomic region code");
		is_str(d->facts.body_part, "", "a body part that is no code string is dropped");
		is_str(d->facts.image_type, "ORIGINAL\\PRIMARY\\", "image type");
	}
	for (const char *species : { "", "HOMO SAPIENS", "Human" }) {
		m.also = [&](DcmDataset &d) { put(d, DCM_PatientSpeciesDescription, species); };
		is_int(decoded(made_file(m))->facts.animal, false, "species \"%s\"", species);
	}
	m.also = [](DcmDataset &d) { put(d, DCM_PatientSpeciesDescription, "Canis lupus"); };
	is_int(decoded(made_file(m))->facts.animal, true, "a dog");
}

void digests()
{
	struct made m;
	decoded a(made_file(m));
	uint8_t patient[DIGEST_SIZE];

	digest_of("P 4711\0", 7, patient);
	ok(memcmp(a->facts.patient, patient, DIGEST_SIZE) == 0, "patient digest: identifier without padding, NUL, issuer");
	m.syntax = EXS_LittleEndianImplicit;
	{
		decoded b(made_file(m));

		ok(memcmp(a->facts.copied, b->facts.copied, DIGEST_SIZE) == 0, "copied digest does not depend on the encoding");
	}
	m.also = [](DcmDataset &d) { put(d, DCM_PatientName, "Other"); };
	{
		decoded b(made_file(m));

		ok(memcmp(a->facts.copied, b->facts.copied, DIGEST_SIZE) != 0, "another name: another copied digest");
		ok(memcmp(a->facts.content, b->facts.content, DIGEST_SIZE) != 0, "and another content digest");
		ok(memcmp(a->facts.patient, b->facts.patient, DIGEST_SIZE) == 0, "but the same patient");
	}
	m.also = [](DcmDataset &d) { put(d, DCM_WindowCenter, "7"); };
	{
		decoded b(made_file(m));

		ok(memcmp(a->facts.content, b->facts.content, DIGEST_SIZE) == 0, "a window is not content");
	}
}

}

int main(void)
{
	struct err e;

	if (dicom_init(true, &e) < 0)
		plan_skip_all(e.text);
	made_codecs();
	dicom_image_warm_up();
	lossless_syntaxes();
	lossy_syntaxes();
	unused_bits();
	swapped_bytes();
	windows();
	percentile_windows();
	luts();
	polarity_notes();
	padding();
	orientations();
	header_reasons();
	syntax_reasons();
	damaged_frames();
	hostile_frames();
	ages();
	descriptions();
	digests();
	return done();
}
