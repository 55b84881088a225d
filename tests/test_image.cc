/* test_image.cc: from a stored object to stored values, grey levels and facts, or to a reason.
 *
 * Holds, through the C interface: stored values are bit-exact for every lossless syntax, polarity and
 * depth, and equal to DCMTK's own decoding for the lossy ones; grey levels equal the formulas of PS3.3
 * C.11.2 written down here once more; damage and contradiction are reasons, never half an image.
 */
#include "tests/made.hh"
#include "tests/made_j2k.hh"

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

/* Replaces the only occurrence of `from`. */
std::string patched(std::string bytes, const std::string &from, const std::string &to)
{
	size_t at = bytes.find(from);

	if (at == std::string::npos || bytes.find(from, at + 1) != std::string::npos)
		abort(); /* the test's own mistake */
	return bytes.replace(at, from.size(), to);
}

/* A frame of 12 bits whose header promises 10, black and white side by side: JPEG overshoots at the edges. */
void overshoot()
{
	for (E_TransferSyntax syntax : { EXS_JPEGProcess2_4, EXS_JPEGLSLossy }) {
		struct made m;
		size_t above = 0, wrong = 0;

		m.syntax = syntax;
		m.words.resize(m.rows * m.columns);
		for (size_t i = 0; i < m.words.size(); i++)
			m.words[i] = i % m.columns / 5 % 2 ? 1023 : 0;
		m.words[0] = syntax == EXS_JPEGLSLossy ? 1030 : 0;

		std::string bytes = made_file(m);
		decoded all(bytes);
		decoded d(patched(patched(bytes, "\x28\0\x01\x01US\2\0\x0c\0"s, "\x28\0\x01\x01US\2\0\x0a\0"s),
				  "\x28\0\x02\x01US\2\0\x0b\0"s, "\x28\0\x02\x01US\2\0\x09\0"s));

		if (!ok(all->reason == IMAGE_OK && d->reason == IMAGE_OK, "%s: both decode", syntax_name(syntax)))
			continue;
		for (size_t i = 0; i < m.words.size(); i++) {
			above += all->stored[i] > 1023;
			wrong += d->stored[i] != std::min(all->stored[i], 1023);
		}
		ok(above > 0 && wrong == 0, "%s: %zu values above Bits Stored are white, not black", syntax_name(syntax), above);
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

void preferred_windows()
{
	static const struct {
		const char *centers, *widths, *explanations;
		double center, width;
	} cases[] = {
		{ "900\\2000\\1200", "500\\4000\\1000", "HARDER\\NORMAL\\SOFTER", 2000, 4000 },
		{ "900\\2000", "500\\4000", "A\\ normal ", 2000, 4000 },
		{ "900\\2000", "500\\4000", "WINDOW1\\WINDOW2", 900, 500 },
		{ "900\\2000", "500\\4000", "NORMALISED\\ABNORMAL", 900, 500 },
		{ "900\\2000", "500", "HARDER\\NORMAL", 900, 500 }, /* no second window in fact */
		{ "900", "500", "X\\NORMAL", 900, 500 },
	};

	for (const auto &c : cases) {
		struct made m;

		m.also = [&](DcmDataset &d) {
			put(d, DCM_WindowCenter, c.centers);
			put(d, DCM_WindowWidth, c.widths);
			put(d, DCM_WindowCenterWidthExplanation, c.explanations);
		};
		check_grey(m, c.explanations, [&](int32_t v) { return linear(v, c.center, c.width); });
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

/* ---- pixels that are not square ----------------------------------------------------------------------- */

/* Mean of n values between two places, by cutting each into m parts; halves go up. */
int32_t mean_between(const std::function<int32_t(size_t)> &value, size_t n, size_t m, size_t i)
{
	int64_t sum = 0;

	for (size_t part = i * n; part < (i + 1) * n; part++)
		sum += value(part / m);
	return static_cast<int32_t>(floor(static_cast<double>(sum) / static_cast<double>(n) + 0.5));
}

void aspects()
{
	static const struct {
		DcmTagKey tag;
		const char *value;
		unsigned width, height; /* of 70 x 66 */
	} cases[] = {
		{ DCM_PixelAspectRatio, "2\\1", 35, 66 },      { DCM_PixelAspectRatio, "1\\2", 70, 33 },
		{ DCM_PixelAspectRatio, "4\\3", 53, 66 },      { DCM_ImagerPixelSpacing, "0.2\\0.15", 52, 66 },
		{ DCM_ImagerPixelSpacing, "0.1\\0.17", 70, 39 }, { DCM_PixelSpacing, "0.143\\0.139", 68, 66 },
	};
	struct made plain;
	decoded original(made_file(plain));

	for (const auto &c : cases) {
		for (bool is_signed : { false, true }) {
			struct made m;
			size_t wrong = 0;

			m.is_signed = is_signed;
			m.also = [&](DcmDataset &d) {
				put(d, DCM_WindowCenter, "1000");
				put(d, DCM_WindowWidth, "3000");
			};

			decoded before(made_file(m));

			m.also = [&](DcmDataset &d) {
				put(d, DCM_WindowCenter, "1000");
				put(d, DCM_WindowWidth, "3000");
				put(d, c.tag, c.value);
			};

			decoded d(made_file(m));
			bool narrow = c.width < m.columns;

			if (!ok(d->reason == IMAGE_OK && d->width == c.width && d->height == c.height, "%s: %zu x %zu square pixels",
				c.value, d->width, d->height))
				continue;
			for (size_t y = 0; y < d->height; y++) {
				for (size_t x = 0; x < d->width; x++) {
					auto at = [&](size_t i) { return narrow ? y * m.columns + i : i * m.columns + x; };
					size_t n = narrow ? m.columns : m.rows, to = narrow ? c.width : c.height, i = narrow ? x : y;

					wrong += d->stored[y * d->width + x] !=
						 mean_between([&](size_t j) { return before->stored[at(j)]; }, n, to, i);
					wrong += d->window[y * d->width + x] !=
						 mean_between([&](size_t j) { return static_cast<int32_t>(before->window[at(j)]); }, n, to, i);
				}
			}
			is_int(wrong, 0, "%s%s: means of the areas, of stored values and of grey levels", c.value,
			       is_signed ? ", signed" : "");
			ok(memcmp(d->facts.content, before->facts.content, DIGEST_SIZE) == 0, "%s: content is the original's", c.value);
			ok(d->facts.rows == 66 && d->facts.columns == 70, "%s: facts have the original matrix", c.value);
			ok(strstr(d->note, "square") != NULL, "%s: noted (%s)", c.value, d->note);
		}
	}

	struct made turned;

	turned.also = [](DcmDataset &d) {
		put(d, DCM_PixelAspectRatio, "2\\1");
		put(d, DCM_PatientOrientation, "F\\L");
	};

	decoded d(made_file(turned));

	ok(d->reason == IMAGE_OK && d->width == 66 && d->height == 35, "squared, then turned: %zu x %zu", d->width, d->height);
	turned.rows = 20;
	turned.also = [](DcmDataset &dataset) { put(dataset, DCM_PixelAspectRatio, "1\\2"); };
	is_int(decoded(made_file(turned))->reason, IMAGE_TOO_SMALL, "too small once it is square");
}

/* ---- from an upright picture back to the matrix ---------------------------------------------------------- */

/* One pixel is bright: the upright pixel that it became, taken back, covers it. */
void places()
{
	static const char *const orientations[] = { "L\\F", "R\\F", "L\\H", "R\\H", "F\\L", "F\\R", "H\\L", "H\\R" };

	for (const char *orientation : orientations) {
		for (const char *aspect : { "1\\1", "2\\1", "1\\2", "4\\3" }) {
			struct made m;
			double column[2], row[2];
			size_t at = 0;

			m.words.assign(m.rows * m.columns, 100);
			m.words[13 * m.columns + 50] = 4000;
			m.also = [&](DcmDataset &d) {
				put(d, DCM_PatientOrientation, orientation);
				put(d, DCM_PixelAspectRatio, aspect);
				put(d, DCM_WindowCenter, "2000");
				put(d, DCM_WindowWidth, "4000");
			};

			decoded d(made_file(m));

			if (!ok(d->reason == IMAGE_OK, "%s, %s: decoded", orientation, aspect))
				continue;
			for (size_t i = 0; i < d->width * d->height; i++)
				at = d->window[i] > d->window[at] ? i : at;
			for (size_t i = 0; i < 2; i++)
				dicom_image_to_source(d.image, static_cast<double>(at % d->width + i),
						      static_cast<double>(at / d->width + i), &column[i], &row[i]);
			if (column[0] > column[1])
				std::swap(column[0], column[1]);
			if (row[0] > row[1])
				std::swap(row[0], row[1]);
			ok(column[0] < 50.5 && column[1] > 50.5 && row[0] < 13.5 && row[1] > 13.5,
			   "%s, %s: column 50, row 13 is found again in %.2f..%.2f, %.2f..%.2f", orientation, aspect, column[0],
			   column[1], row[0], row[1]);
		}
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
	with(IMAGE_UNSUPPORTED, "nearly square", "aspect ratio", [](DcmDataset &d) { put(d, DCM_PixelAspectRatio, "5\\1"); });
	with(IMAGE_UNSUPPORTED, "nearly square", "spacing", [](DcmDataset &d) { put(d, DCM_ImagerPixelSpacing, "0.1\\1e300"); });
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

	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.93"), IMAGE_UNSUPPORTED, "JPEG 2000 part 2",
	       "JPEG 2000 part 2 is named");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.90"), IMAGE_BROKEN, "do not begin as a JPEG 2000",
	       "JPEG-LS is not JPEG 2000");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.99"), IMAGE_UNSUPPORTED, "1.2.840.10008.1.2.4.99",
	       "an unknown syntax is named");
	expect(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.70"), IMAGE_BROKEN, "coding process",
	       "JPEG-LS is not JPEG");
	expect(patched(encapsulated, jpegls_uid, std::string("1.2.840.10008.1.2.1\0\0\0", 22)), IMAGE_BROKEN, "encapsulated",
	       "encapsulated against its syntax");
	expect(patched(native, explicit_uid, std::string("1.2.840.10008.1.2.5\0", 20)), IMAGE_BROKEN, "not encapsulated",
	       "native against its syntax");

	decoded d(patched(encapsulated, jpegls_uid, "1.2.840.10008.1.2.4.93"));

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

/* ---- JPEG 2000 ------------------------------------------------------------------------------------ */

std::string j2k_frame(const struct made &m, struct j2k_how how)
{
	how.precision = m.stored;
	how.is_signed = m.is_signed;
	return made_j2k_frame(m.rows, m.columns, made_j2k_values(m), how);
}

struct made made_of_depth(unsigned bits, bool is_signed = false)
{
	struct made m;

	m.allocated = bits == 8 ? 8 : 16;
	m.stored = bits;
	m.high_bit = bits - 1;
	m.is_signed = is_signed;
	return m;
}

void j2k_lossless()
{
	static const struct {
		int tile_width, tile_height, precinct, layers;
	} cuts[] = { { 0, 0, 0, 1 }, { 32, 24, 0, 1 }, { 35, 16, 0, 1 }, { 0, 0, 64, 3 } };

	for (unsigned bits : { 8u, 9u, 10u, 12u, 15u, 16u }) {
		for (bool is_signed : { false, true }) {
			struct made m = made_of_depth(bits, is_signed);
			decoded native(made_file(m));

			for (const auto &c : cuts) {
				struct j2k_how how;

				how.tile_width = c.tile_width;
				how.tile_height = c.tile_height;
				how.precinct = c.precinct;
				how.layers = c.layers;

				decoded d(made_j2k_file(m, UID_JPEG2000LosslessOnlyTransferSyntax, j2k_frame(m, how)));

				ok(stored_equal(d, m, made_picture(m)), "JPEG 2000, %u bits%s, tiles of %d x %d: stored values %s", bits,
				   is_signed ? " signed" : "", c.tile_width, c.tile_height, d->why);
				ok(memcmp(d->facts.content, native->facts.content, DIGEST_SIZE) == 0 && !d->facts.lossy,
				   "and the content digest of native pixels");
			}
		}
	}
}

/* Signed frames without level shift: an unsigned one that is declared signed is 2^(bits-1) lower. */
void htj2k()
{
	for (unsigned bits : { 8u, 10u, 12u, 16u }) {
		struct made m = made_of_depth(bits);
		std::string frame = made_htj2k_frame("lossless", bits);

		if (!ok(!frame.empty(), "HTJ2K vector of %u bits", bits))
			continue;
		ok(stored_equal(decoded(made_j2k_file(m, HTJ2K_LOSSLESS, frame)), m, made_picture(m)), "HTJ2K, %u bits", bits);
		ok(stored_equal(decoded(made_j2k_file(m, HTJ2K_LOSSLESS_RPCL, frame)), m, made_picture(m)), "HTJ2K RPCL, %u bits",
		   bits);

		size_t size_at = frame.find("\xff\x51"), wrong = 0;
		std::vector<uint16_t> words = made_picture(m);

		frame[size_at + 40] = static_cast<char>(0x80 | (bits - 1));
		m.is_signed = true;

		decoded d(made_j2k_file(m, HTJ2K_LOSSLESS, frame));

		for (size_t i = 0; d->reason == IMAGE_OK && i < words.size(); i++)
			wrong += d->stored[i] != static_cast<int32_t>(words[i]) - (1 << (bits - 1));
		ok(d->reason == IMAGE_OK && wrong == 0, "HTJ2K, %u bits signed %s", bits, d->why);
	}
}

/* Frame and header that disagree about sign and depth. */
void j2k_contradictions()
{
	struct made m = made_of_depth(12, true);
	struct j2k_how how;
	std::string is_signed = j2k_frame(m, how);
	std::vector<uint16_t> picture = made_picture(m);
	struct made header = m;

	header.is_signed = false;

	decoded d(made_j2k_file(header, UID_JPEG2000TransferSyntax, is_signed));

	ok(stored_equal(d, m, picture), "a signed frame under Pixel Representation 0 has values below zero");
	ok(strstr(d->note, "contradicts") != NULL && d->facts.is_signed, "and that is noted");
	ok(stored_equal(decoded(made_j2k_file(m, UID_JPEG2000TransferSyntax, j2k_frame(header, how))), m, picture),
	   "an unsigned frame under Pixel Representation 1: sign of its own precision");

	/* 16 bits coded of 12: a lossless overlay in bit 15, a lossy overshoot */
	struct made wide = made_of_depth(16);

	wide.words = picture;
	for (size_t i = 0; i < wide.words.size(); i += 3)
		wide.words[i] |= 0x8000;
	ok(stored_equal(decoded(made_j2k_file(header, UID_JPEG2000LosslessOnlyTransferSyntax, j2k_frame(wide, how))), header, picture),
	   "lossless: bits above High Bit are masked");

	std::string frame = j2k_frame(wide, how);
	decoded clamped(made_j2k_file(header, UID_JPEG2000TransferSyntax, frame));
	size_t wrong = 0;

	for (size_t i = 0; clamped->reason == IMAGE_OK && i < picture.size(); i++)
		wrong += clamped->stored[i] != (i % 3 == 0 ? 4095 : picture[i]);
	ok(clamped->reason == IMAGE_OK && wrong == 0, "lossy: values above the stored bits are clamped");

	struct made shifted = made_of_depth(12);

	shifted.high_bit = 15; /* in the header only */
	ok(stored_equal(decoded(made_j2k_file(shifted, UID_JPEG2000LosslessOnlyTransferSyntax, j2k_frame(header, how))), header,
			picture),
	   "High Bit 15 of a frame with 12 bits");

	struct made narrow = made_of_depth(10);

	ok(stored_equal(decoded(made_j2k_file(header, UID_JPEG2000LosslessOnlyTransferSyntax, j2k_frame(narrow, how))), narrow,
			made_picture(narrow)),
	   "Bits Stored 12 of a frame with 10 bits");
}

std::string big_endian(uint32_t v, unsigned bytes)
{
	std::string text;

	while (bytes-- > 0)
		text += static_cast<char>(v >> (8 * bytes));
	return text;
}

std::string box(const char *type, const std::string &content)
{
	return big_endian(static_cast<uint32_t>(content.size() + 8), 4) + type + content;
}

void jp2_boxes()
{
	struct made m = made_of_depth(12);
	std::string frame = j2k_frame(m, {}), signature = box("jP  ", "\r\n\x87\n"), type = box("ftyp", "jp2 \0\0\0\0jp2 "s);
	std::string header = box("jp2h", box("ihdr", std::string(14, '\0')));
	const char *uid = UID_JPEG2000LosslessOnlyTransferSyntax;

	ok(stored_equal(decoded(made_j2k_file(m, uid, signature + type + header + box("jp2c", frame))), m, made_picture(m)),
	   "a JP2 file around the frame");
	ok(stored_equal(decoded(made_j2k_file(m, uid, signature + type + "\0\0\0\0jp2c"s + frame)), m, made_picture(m)),
	   "its last box open");
	ok(stored_equal(decoded(made_j2k_file(m, uid, signature + "\0\0\0\1jp2c\0\0\0\0"s +
					      big_endian(static_cast<uint32_t>(frame.size()) + 16, 4) + frame)),
			m, made_picture(m)),
	   "its length in 64 bits");
	expect(made_j2k_file(m, uid, signature + type + box("jp2h", box("pclr", "xx")) + box("jp2c", frame)), IMAGE_UNSUPPORTED,
	       "palette", "a palette");
	expect(made_j2k_file(m, uid, signature + type), IMAGE_BROKEN, "without a codestream", "boxes only");
	expect(made_j2k_file(m, uid, signature + "\0\0\0\7jp2c"s + frame), IMAGE_BROKEN, "without a codestream", "a box of 7 bytes");
	expect(made_j2k_file(m, uid, signature + "\0\0\0\1jp2c\xff\xff\xff\xff\xff\xff\xff\xff"s + frame), IMAGE_BROKEN,
	       "without a codestream", "a box of 2^64 bytes");
}

void j2k_damaged()
{
	struct made m = made_of_depth(12);
	struct j2k_how how;
	const char *uid = UID_JPEG2000LosslessOnlyTransferSyntax;
	std::string whole = j2k_frame(m, how), ht = made_htj2k_frame("lossless", 12), eoc("\xff\xd9");
	unsigned passed = 0, tried = 0;

	for (size_t i = 0; i < 60; i++) {
		size_t n = (whole.size() - 2) * i / 60, n_ht = (ht.size() - 2) * i / 60;

		passed += decoded(made_j2k_file(m, uid, whole.substr(0, n)))->reason == IMAGE_OK;
		passed += decoded(made_j2k_file(m, uid, whole.substr(0, n) + eoc))->reason == IMAGE_OK;
		passed += decoded(made_j2k_file(m, HTJ2K_LOSSLESS, ht.substr(0, n_ht)))->reason == IMAGE_OK;
		passed += decoded(made_j2k_file(m, HTJ2K_LOSSLESS, ht.substr(0, n_ht) + eoc))->reason == IMAGE_OK;
		tried += 4;
	}
	is_int(passed, 0, "%u cut JPEG 2000 frames are all refused", tried);
	expect(made_j2k_file(m, uid, whole.substr(0, whole.size() - 2)), IMAGE_BROKEN, "no end", "only the end is missing");

	how.tile_width = how.tile_height = 48;

	std::string tiles = j2k_frame(m, how), start("\xff\x90\x00\x0a", 4);
	size_t first = tiles.find(start), second = tiles.find(start, first + 1);

	expect(made_j2k_file(m, uid, tiles.substr(0, first) + tiles.substr(second)), IMAGE_BROKEN, "lacks tile 0 of 4", "a tile less");

	std::string open = whole;

	open.replace(whole.find(start) + 6, 4, std::string(4, '\0'));
	ok(stored_equal(decoded(made_j2k_file(m, uid, open)), m, made_picture(m)), "a last tile of unknown length");
	open.replace(whole.find(start) + 6, 4, "\xff\xff\xff\xff");
	expect(made_j2k_file(m, uid, open), IMAGE_BROKEN, "breaks off", "a tile of 4 GB");
	open.replace(whole.find(start) + 6, 4, big_endian(13, 4));
	expect(made_j2k_file(m, uid, open), IMAGE_BROKEN, "breaks off", "a tile of 13 bytes");
	open = whole;
	open.replace(whole.find(start) + 4, 2, big_endian(1, 2));
	expect(made_j2k_file(m, uid, open), IMAGE_BROKEN, "tile 1 of 1", "a tile beyond the last");
}

/* Numbers of the codestream's header, one after the other. */
void j2k_hostile()
{
	static const struct {
		size_t at; /* from the SIZ marker: T.800 table A.9 */
		unsigned bytes;
		uint32_t value;
		enum image_reason reason;
		const char *says, *name;
	} cases[] = {
		{ 6, 4, 0xffffffff, IMAGE_BROKEN, "x 4294967295", "4 billion columns" },
		{ 6, 4, 71, IMAGE_BROKEN, "66 x 71", "a column more" },
		{ 14, 4, 70, IMAGE_BROKEN, "66 x 0", "offset of the whole width" },
		{ 14, 4, 71, IMAGE_BROKEN, "66 x -1", "offset beyond the width" },
		{ 22, 4, 0, IMAGE_BROKEN, "impossible tiles", "tiles of no width" },
		{ 30, 4, 1, IMAGE_BROKEN, "impossible tiles", "tiles that begin inside" },
		{ 38, 2, 3, IMAGE_BROKEN, "3 components", "three components" },
		{ 38, 2, 16385, IMAGE_BROKEN, "16385 components", "16385 components" },
		{ 40, 1, 16, IMAGE_BROKEN, "17 bits", "17 bits" },
		{ 40, 1, 0x7f, IMAGE_BROKEN, "128 bits", "128 bits" },
		{ 41, 1, 2, IMAGE_UNSUPPORTED, "subsampled", "every second column" },
		{ 42, 1, 0, IMAGE_UNSUPPORTED, "subsampled", "rows of no height" },
	};
	struct made m = made_of_depth(12);
	const std::string whole = j2k_frame(m, {});
	const char *uid = UID_JPEG2000LosslessOnlyTransferSyntax;
	size_t coding = whole.find("\xff\x52\x00\x0c"s);

	for (const auto &c : cases) {
		std::string frame = whole;

		frame.replace(2 + c.at, c.bytes, big_endian(c.value, c.bytes));
		expect(made_j2k_file(m, uid, frame), c.reason, c.says, c.name);
	}
	auto put_bytes = [&](size_t at, const std::string &bytes) { return std::string(whole).replace(at, bytes.size(), bytes); };

	expect(made_j2k_file(m, uid, put_bytes(2 + 22, big_endian(1, 4) + big_endian(1, 4))), IMAGE_UNSUPPORTED, "4620 tiles",
	       "a tile for every pixel");
	expect(made_j2k_file(m, uid, put_bytes(coding + 6, "\0\0"s)), IMAGE_BROKEN, "does not decode", "no layers");
	expect(made_j2k_file(m, uid, put_bytes(coding + 9, "\x21"s)), IMAGE_BROKEN, "impossible coding", "33 levels");
	expect(made_j2k_file(m, uid, put_bytes(coding + 10, "\x08\x08"s)), IMAGE_BROKEN, "impossible coding", "blocks of 1024 x 1024");
	expect(made_j2k_file(m, uid, put_bytes(coding + 13, "\x02"s)), IMAGE_BROKEN, "impossible coding", "an unknown wavelet");
	expect(made_j2k_file(m, uid, put_bytes(coding, "\xff\x60"s)), IMAGE_UNSUPPORTED, "FF60", "packed packet headers");
	expect(made_j2k_file(m, uid, put_bytes(coding, "\xff\x3f"s)), IMAGE_BROKEN, "FF3F", "an unknown marker");
	expect(made_j2k_file(m, uid, put_bytes(coding + 2, "\xff\xff"s)), IMAGE_BROKEN, "breaks off", "a segment beyond the end");
	expect(made_j2k_file(m, uid, "\xff\x4f"s + whole), IMAGE_BROKEN, "its size", "two starts");
	expect(made_j2k_file(m, uid, ""), IMAGE_BROKEN, "do not begin", "empty frame");

	/* large enough that every pixel its own block is too much */
	struct made large = made_of_depth(12);
	struct dicom_limits wide = limits;

	large.rows = large.columns = 1024;

	struct j2k_how how;

	how.precinct = 512;

	std::string frame = j2k_frame(large, how);
	size_t at = frame.find("\xff\x52"s);

	expect(made_j2k_file(large, uid, frame), IMAGE_OK, "", "precincts of 512", wide);
	frame.replace(at + 14, 4, "\x11\x11\x11\x11");
	expect(made_j2k_file(large, uid, frame), IMAGE_UNSUPPORTED, "more blocks", "precincts of 2", wide);
	frame.replace(at + 14, 4, "\x44\x44\x44\x44");
	frame.replace(at + 6, 2, "\xff\xff");
	expect(made_j2k_file(large, uid, frame), IMAGE_UNSUPPORTED, "more packets", "65535 layers of precincts", wide);
}

/* RGB, by pixel and by plane, in every uncompressed syntax: grey when the channels are equal. */
void grey_rgb()
{
	for (E_TransferSyntax syntax : { EXS_LittleEndianImplicit, EXS_LittleEndianExplicit, EXS_BigEndianExplicit,
					 EXS_DeflatedLittleEndianExplicit }) {
		for (bool planar : { false, true }) {
			for (bool colour : { false, true }) {
				struct made m = made_of_depth(8);
				std::vector<uint16_t> picture = made_picture(m);

				m.syntax = syntax;
				m.also = [&](DcmDataset &d) {
					std::vector<uint8_t> rgb(picture.size() * 3);

					for (size_t i = 0; i < picture.size(); i++)
						for (size_t c = 0; c < 3; c++)
							rgb[planar ? c * picture.size() + i : 3 * i + c] = static_cast<uint8_t>(picture[i]);
					if (colour)
						rgb[rgb.size() / 2] ^= 1;
					d.putAndInsertUint16(DCM_SamplesPerPixel, 3);
					d.putAndInsertUint16(DCM_PlanarConfiguration, planar);
					put(d, DCM_PhotometricInterpretation, "RGB");
					put(d, DCM_SOPClassUID, UID_SecondaryCaptureImageStorage);
					d.putAndInsertUint8Array(DCM_PixelData, rgb.data(), rgb.size());
				};

				std::string bytes = made_file(m);

				if (colour)
					expect(bytes, IMAGE_UNSUPPORTED, "colour", "one channel of one pixel differs");
				else
					ok(stored_equal(decoded(bytes), m, picture), "grey RGB %s, %s", planar ? "by plane" : "by pixel",
					   syntax_name(syntax));
			}
		}
	}
	with(IMAGE_BROKEN, "three channels", "RGB of one channel", [](DcmDataset &d) {
		std::vector<uint8_t> one(66 * 70);

		d.putAndInsertUint16(DCM_SamplesPerPixel, 3);
		put(d, DCM_PhotometricInterpretation, "RGB");
		d.putAndInsertUint16(DCM_BitsAllocated, 8);
		d.putAndInsertUint16(DCM_BitsStored, 8);
		d.putAndInsertUint16(DCM_HighBit, 7);
		d.putAndInsertUint8Array(DCM_PixelData, one.data(), one.size());
	});
}

/* ---- the table: every transfer syntax, class, polarity and depth ------------------------------------- */

/* Largest difference of a lossy decoding from what was encoded, in stored values, as stated to users;
 * -1: not coded at that depth. */
struct syntax_row {
	const char *uid;
	E_TransferSyntax syntax; /* EXS_Unknown: see tests/made_j2k.hh */
	int within[4];           /* for 8, 10, 12, 16 bits */
};

const struct syntax_row syntax_rows[] = {
	{ UID_LittleEndianImplicitTransferSyntax, EXS_LittleEndianImplicit, { 0, 0, 0, 0 } },
	{ UID_LittleEndianExplicitTransferSyntax, EXS_LittleEndianExplicit, { 0, 0, 0, 0 } },
	{ UID_BigEndianExplicitTransferSyntax, EXS_BigEndianExplicit, { 0, 0, 0, 0 } },
	{ UID_DeflatedExplicitVRLittleEndianTransferSyntax, EXS_DeflatedLittleEndianExplicit, { 0, 0, 0, 0 } },
	{ UID_RLELosslessTransferSyntax, EXS_RLELossless, { 0, 0, 0, 0 } },
	{ UID_JPEGProcess1TransferSyntax, EXS_JPEGProcess1, { 12, -1, -1, -1 } },
	{ UID_JPEGProcess2_4TransferSyntax, EXS_JPEGProcess2_4, { 12, -1, 12, -1 } }, /* DCMTK scales 10 bits to 12 */
	{ UID_JPEGProcess14TransferSyntax, EXS_JPEGProcess14, { 0, 0, 0, 0 } },
	{ UID_JPEGProcess14SV1TransferSyntax, EXS_JPEGProcess14SV1, { 0, 0, 0, 0 } },
	{ UID_JPEGLSLosslessTransferSyntax, EXS_JPEGLSLossless, { 0, 0, 0, 0 } },
	{ UID_JPEGLSLossyTransferSyntax, EXS_JPEGLSLossy, { 2, 2, 2, 2 } },
	{ UID_JPEG2000LosslessOnlyTransferSyntax, EXS_Unknown, { 0, 0, 0, 0 } },
	{ UID_JPEG2000TransferSyntax, EXS_Unknown, { 32, 64, 128, 16 } },
	{ HTJ2K_LOSSLESS, EXS_Unknown, { 0, 0, 0, 0 } },
	{ HTJ2K_LOSSLESS_RPCL, EXS_Unknown, { 0, 0, 0, 0 } },
	{ HTJ2K_LOSSY, EXS_Unknown, { 2, 4, 16, 256 } },
};

std::string row_file(const struct syntax_row &row, struct made m)
{
	struct j2k_how how;

	if (row.syntax != EXS_Unknown) {
		m.syntax = row.syntax;
		return made_file(m);
	}
	if (strncmp(row.uid, HTJ2K_LOSSLESS, strlen(HTJ2K_LOSSLESS) - 1) == 0) /* .20x */
		return made_j2k_file(m, row.uid, made_htj2k_frame(strcmp(row.uid, HTJ2K_LOSSY) == 0 ? "lossy" : "lossless", m.stored));
	how.ratio = strcmp(row.uid, UID_JPEG2000TransferSyntax) == 0 ? 4 : 0;
	return made_j2k_file(m, row.uid, j2k_frame(m, how));
}

/* What it said: "exact", "+-n", or the reason. */
std::string row_cell(const struct syntax_row &row, const struct made &m, int within)
{
	decoded d(row_file(row, m));
	std::vector<uint16_t> picture = made_picture(m);
	int largest = 0;

	if (d->reason != IMAGE_OK)
		return image_reason_name(d->reason);
	for (size_t i = 0; i < picture.size(); i++)
		largest = std::max(largest, abs(d->stored[i] - expected_stored(m, picture[i])));
	if (d->facts.lossy != (within > 0) || d->monochrome1 != m.monochrome1)
		return "wrong facts";
	return largest == 0 ? "exact" : "+-" + std::to_string(largest);
}

void every_syntax()
{
	static const struct {
		const char *modality, *sop_class;
	} classes[] = {
		{ "CR", UID_ComputedRadiographyImageStorage },
		{ "DX", UID_DigitalXRayImageStorageForPresentation },
		{ "SC", UID_SecondaryCaptureImageStorage },
	};
	static const unsigned depths[4] = { 8, 10, 12, 16 };

	printf("# %-24s bits  allowed  CR M1    CR M2    DX M1    DX M2    SC M1    SC M2\n", "transfer syntax");
	for (const auto &row : syntax_rows) {
		for (size_t i = 0; i < 4; i++) {
			std::string line;
			bool good = true;

			if (row.within[i] < 0)
				continue;
			for (const auto &c : classes) {
				for (bool monochrome1 : { true, false }) {
					struct made m = made_of_depth(depths[i]);

					m.monochrome1 = monochrome1;
					m.also = [&](DcmDataset &d) {
						put(d, DCM_SOPClassUID, c.sop_class);
						put(d, DCM_Modality, strcmp(c.modality, "SC") == 0 ? "OT" : c.modality);
					};

					std::string cell = row_cell(row, m, row.within[i]);

					good = good && (cell == "exact" || (cell[0] == '+' && std::stoi(cell.substr(2)) <= row.within[i]));
					line += cell + std::string(cell.size() < 9 ? 9 - cell.size() : 1, ' ');
				}
			}
			printf("# %-24s %4u  %-7s  %s\n", row.uid, depths[i],
			       row.within[i] == 0 ? "exact" : ("+-" + std::to_string(row.within[i])).c_str(), line.c_str());
			ok(good, "%s, %u bits: CR, DX and SC, both polarities", row.uid, depths[i]);
		}
	}
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
	every_syntax();
	j2k_lossless();
	htj2k();
	j2k_contradictions();
	jp2_boxes();
	j2k_damaged();
	j2k_hostile();
	overshoot();
	unused_bits();
	swapped_bytes();
	windows();
	preferred_windows();
	percentile_windows();
	luts();
	polarity_notes();
	padding();
	orientations();
	aspects();
	places();
	header_reasons();
	grey_rgb();
	syntax_reasons();
	damaged_frames();
	hostile_frames();
	ages();
	descriptions();
	digests();
	return done();
}
