/* made.hh: DICOM objects made for a test, through DCMTK's encoders: what the tests of image and report
 * share.  Nothing here is about a real patient.
 */
#ifndef CARZEROD_TESTS_MADE_HH
#define CARZEROD_TESTS_MADE_HH

#include "dicom/guard.hh"

#include <functional>
#include <string>
#include <vector>

#include "dcmtk/dcmdata/dcdeftag.h"
#include "dcmtk/dcmdata/dcfilefo.h"
#include "dcmtk/dcmdata/dcistrmb.h"
#include "dcmtk/dcmdata/dcmetinf.h"
#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmdata/dcrleerg.h"
#include "dcmtk/dcmjpeg/djdecode.h"
#include "dcmtk/dcmjpeg/djencode.h"
#include "dcmtk/dcmjpeg/djrplol.h"
#include "dcmtk/dcmjpeg/djrploss.h"
#include "dcmtk/dcmjpls/djencode.h"
#include "dcmtk/dcmjpls/djrparam.h"

#include "dicom/dicom.h"
#include "dicom/header.hh"
#include "dicom/image.h"

struct made {
	unsigned rows = 66, columns = 70;
	unsigned allocated = 16, stored = 12, high_bit = 11;
	bool is_signed = false, monochrome1 = false;
	E_TransferSyntax syntax = EXS_LittleEndianExplicit;
	std::vector<uint16_t> words; /* [rows * columns], as they stand in the file */
	/* Last word on the data set, before it is compressed. */
	std::function<void(DcmDataset &)> also;
};

static inline void made_codecs(void)
{
	DcmRLEEncoderRegistration::registerCodecs();
	DJEncoderRegistration::registerCodecs(ECC_lossyYCbCr, EUC_never);
	DJLSEncoderRegistration::registerCodecs(OFFalse, EJLSUC_never);
	DJDecoderRegistration::registerCodecs(EDC_never, EUC_never); /* the oracle for lossy frames */
}

/* A ramp with a swirl and some noise over the whole range of the stored bits. */
static inline std::vector<uint16_t> made_picture(const struct made &m)
{
	std::vector<uint16_t> words(m.rows * m.columns);
	uint32_t noise = 12345, mask = (1u << m.stored) - 1;

	for (unsigned y = 0; y < m.rows; y++) {
		for (unsigned x = 0; x < m.columns; x++) {
			uint32_t v = (x * mask / (m.columns - 1) + y * y * 7) & mask;

			noise = noise * 1664525 + 1013904223;
			v = (v + (noise >> 28)) & mask;
			words[y * m.columns + x] = static_cast<uint16_t>(v << (m.high_bit + 1 - m.stored));
		}
	}
	words[0] = 0;
	words[1] = static_cast<uint16_t>(mask << (m.high_bit + 1 - m.stored));
	return words;
}

static inline void made_header(const struct made &m, DcmDataset &d)
{
	d.putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 100");
	d.putAndInsertString(DCM_SOPClassUID, UID_DigitalXRayImageStorageForPresentation);
	d.putAndInsertString(DCM_SOPInstanceUID, "2.25.1001");
	d.putAndInsertString(DCM_StudyInstanceUID, "2.25.1002");
	d.putAndInsertString(DCM_SeriesInstanceUID, "2.25.1003");
	d.putAndInsertString(DCM_StudyDate, "20200125");
	d.putAndInsertString(DCM_StudyTime, "104702.826");
	d.putAndInsertString(DCM_AccessionNumber, "A 77");
	d.putAndInsertString(DCM_Modality, "DX");
	d.putAndInsertString(DCM_StudyDescription, "Thorax stehend");
	d.putAndInsertString(DCM_PatientName, "M\xfcller^J\xf6rg");
	d.putAndInsertString(DCM_PatientID, "P 4711 ");
	d.putAndInsertString(DCM_PatientBirthDate, "19500124");
	d.putAndInsertString(DCM_PatientSex, "M");
	d.putAndInsertString(DCM_BodyPartExamined, "CHEST");
	d.putAndInsertString(DCM_ViewPosition, "PA");
	d.putAndInsertUint16(DCM_SamplesPerPixel, 1);
	d.putAndInsertString(DCM_PhotometricInterpretation, m.monochrome1 ? "MONOCHROME1" : "MONOCHROME2");
	d.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(m.rows));
	d.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(m.columns));
	d.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(m.allocated));
	d.putAndInsertUint16(DCM_BitsStored, static_cast<Uint16>(m.stored));
	d.putAndInsertUint16(DCM_HighBit, static_cast<Uint16>(m.high_bit));
	d.putAndInsertUint16(DCM_PixelRepresentation, m.is_signed ? 1 : 0);
}

static inline std::string made_bytes(DcmFileFormat &file, E_TransferSyntax syntax)
{
	memory_stream out;
	OFCondition c;

	file.validateMetaInfo(syntax);
	file.transferInit();
	c = file.write(out, syntax, EET_UndefinedLength, NULL);
	file.transferEnd();
	out.flush(); /* what the deflating filter still holds */
	return c.good() ? out.bytes() : std::string();
}

/* The whole file; "" when DCMTK cannot make it. */
static inline std::string made_file(const struct made &m)
{
	DcmFileFormat file;
	DcmDataset &d = *file.getDataset();
	std::vector<uint16_t> words = m.words.empty() ? made_picture(m) : m.words;
	const DJ_RPLossless predictor6(6, 0);
	const DJ_RPLossy lossy(95);
	const DJLSRepresentationParameter near_lossless(2, OFFalse);
	const DcmRepresentationParameter *parameter = NULL;

	made_header(m, d);
	if (m.allocated == 8) {
		std::vector<uint8_t> bytes(words.begin(), words.end());

		d.putAndInsertUint8Array(DCM_PixelData, bytes.data(), bytes.size());
	} else
		d.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
	if (m.also)
		m.also(d);
	if (m.syntax == EXS_JPEGProcess14)
		parameter = &predictor6;
	else if (m.syntax == EXS_JPEGProcess1 || m.syntax == EXS_JPEGProcess2_4)
		parameter = &lossy;
	else if (m.syntax == EXS_JPEGLSLossy)
		parameter = &near_lossless;
	if (d.chooseRepresentation(m.syntax, parameter).bad() || !d.canWriteXfer(m.syntax))
		return "";
	return made_bytes(file, m.syntax);
}

#endif
