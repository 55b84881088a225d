/* made_j2k.hh: JPEG 2000 and HTJ2K objects for tests.  JPEG 2000 frames are encoded here by OpenJPEG;
 * HTJ2K frames are those of tests/vectors/htj2k (made_picture() of the default size, encoded by
 * OpenJPH 0.9: `ojph_compress -reversible true` and `-qstep 0.002`), since OpenJPEG has no encoder.
 */
#ifndef CARZEROD_TESTS_MADE_J2K_HH
#define CARZEROD_TESTS_MADE_J2K_HH

#include "tests/made.hh"

#include <openjpeg.h>

#include "dcmtk/dcmdata/dcpixel.h"
#include "dcmtk/dcmdata/dcpixseq.h"
#include "dcmtk/dcmdata/dcpxitem.h"

extern "C" {
#include "base/fdio.h"
}

#define HTJ2K_LOSSLESS "1.2.840.10008.1.2.4.201"
#define HTJ2K_LOSSLESS_RPCL "1.2.840.10008.1.2.4.202"
#define HTJ2K_LOSSY "1.2.840.10008.1.2.4.203"

struct j2k_how {
	unsigned precision = 12;
	bool is_signed = false;
	float ratio = 0; /* 0: lossless; else about this compression, by the irreversible wavelet */
	int tile_width = 0, tile_height = 0;
	int precinct = 0; /* side, 0: the whole */
	int layers = 1;
};

static inline OPJ_SIZE_T made_j2k_write(void *p, OPJ_SIZE_T n, void *user)
{
	static_cast<std::string *>(user)->append(static_cast<const char *>(p), n);
	return n;
}

/* values: as the codestream shall hold them. */
static inline std::string made_j2k_frame(unsigned rows, unsigned columns, const std::vector<int32_t> &values,
					 const struct j2k_how &how)
{
	opj_cparameters_t parameters;
	opj_image_cmptparm_t component = {};
	opj_codec_t *codec = opj_create_compress(OPJ_CODEC_J2K);
	opj_stream_t *stream = opj_stream_create(1 << 20, OPJ_FALSE); /* larger than any frame here: no seeking back */
	std::string bytes;

	component.dx = component.dy = 1;
	component.w = columns;
	component.h = rows;
	component.prec = how.precision;
	component.sgnd = how.is_signed;

	opj_image_t *image = opj_image_create(1, &component, OPJ_CLRSPC_GRAY);

	image->x1 = columns;
	image->y1 = rows;
	std::copy(values.begin(), values.end(), image->comps[0].data);
	opj_set_default_encoder_parameters(&parameters);
	parameters.tcp_numlayers = how.layers;
	for (int i = 0; i < how.layers; i++)
		parameters.tcp_rates[i] = how.ratio * static_cast<float>(how.layers - i);
	parameters.cp_disto_alloc = 1;
	parameters.irreversible = how.ratio > 0;
	parameters.numresolution = 4;
	if (how.tile_width > 0) {
		parameters.tile_size_on = OPJ_TRUE;
		parameters.cp_tdx = how.tile_width;
		parameters.cp_tdy = how.tile_height;
	}
	if (how.precinct > 0) {
		parameters.csty |= 1;
		parameters.res_spec = 1;
		parameters.prcw_init[0] = parameters.prch_init[0] = how.precinct;
	}
	opj_stream_set_user_data(stream, &bytes, NULL);
	opj_stream_set_write_function(stream, made_j2k_write);
	if (!opj_setup_encoder(codec, &parameters, image) || !opj_start_compress(codec, image, stream) ||
	    !opj_encode(codec, stream) || !opj_end_compress(codec, stream))
		bytes.clear();
	opj_stream_destroy(stream);
	opj_destroy_codec(codec);
	opj_image_destroy(image);
	return bytes;
}

static inline std::vector<int32_t> made_j2k_values(const struct made &m)
{
	std::vector<int32_t> values;

	for (uint16_t w : m.words.empty() ? made_picture(m) : m.words)
		values.push_back(m.is_signed && w >> (m.stored - 1) ? static_cast<int32_t>(w) - (1 << m.stored) : w);
	return values;
}

/* The same file under another transfer syntax, whose name may be longer (and unknown to DCMTK). */
static inline std::string made_syntax(std::string bytes, const std::string &uid)
{
	const std::string tag("\x02\x00\x10\x00UI", 6);
	size_t at = bytes.find(tag) + tag.size(), old = static_cast<uint8_t>(bytes[at]), length_at = 140;
	std::string padded = uid + std::string(uid.size() & 1, '\0');

	bytes.replace(at + 2, old, padded);
	bytes[at] = static_cast<char>(padded.size());
	bytes[length_at] = static_cast<char>(static_cast<uint8_t>(bytes[length_at]) + padded.size() - old);
	return bytes;
}

/* The header of `m` around a frame, as it would be stored. */
static inline std::string made_j2k_file(const struct made &m, const std::string &uid, std::string frame)
{
	DcmFileFormat file;
	DcmDataset &d = *file.getDataset();
	DcmPixelSequence *sequence = new DcmPixelSequence(DCM_PixelSequenceTag);
	DcmPixelItem *fragment = new DcmPixelItem(DCM_PixelItemTag);
	DcmPixelData *pixels = new DcmPixelData(DCM_PixelData);

	frame.append(frame.size() & 1, '\0');
	fragment->putUint8Array(reinterpret_cast<const Uint8 *>(frame.data()), static_cast<unsigned long>(frame.size()));
	sequence->insert(new DcmPixelItem(DCM_PixelItemTag));
	sequence->insert(fragment);
	pixels->putOriginalRepresentation(EXS_JPEG2000LosslessOnly, NULL, sequence);
	made_header(m, d);
	d.insert(pixels, OFTrue);
	if (m.also)
		m.also(d);
	return made_syntax(made_bytes(file, EXS_JPEG2000LosslessOnly), uid);
}

/* A frame of tests/vectors/htj2k; "" when it cannot be read. */
static inline std::string made_htj2k_frame(const char *kind, unsigned bits)
{
	const char *top = getenv("srcdir");
	std::string path = std::string(top != NULL ? top : ".") + "/tests/vectors/htj2k/" + kind + "_" + std::to_string(bits) + ".j2c";
	struct err e;
	void *p = NULL;
	size_t n = 0;

	if (read_path(path.c_str(), 1 << 20, &p, &n, &e) < 0)
		return "";

	std::string frame(static_cast<char *>(p), n);

	free(p);
	return frame;
}

#endif
