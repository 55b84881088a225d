/* test_sr.cc: reports through the C API, read back as a stranger would: the tree by DCMTK's
 * DSRDocument, the copied elements byte by byte, the whole by dciodvfy where it is installed.
 *
 * Sources are made here, element by element, so that each case says what is odd about it.
 */
#include "dicom/guard.hh"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "dcmtk/dcmdata/dcistrmb.h"
#include "dcmtk/dcmdata/dctk.h"
#include "dcmtk/dcmsr/dsrdoc.h"

extern "C" {
#include "base/clock.h"
#include "base/fdio.h"

#include "tests/tap.h"
}

#include "dicom/dicom.h"
#include "dicom/header.hh"
#include "dicom/sr.h"

#define ENHANCED "1.2.840.10008.5.1.4.1.1.88.22"
#define COMPREHENSIVE "1.2.840.10008.5.1.4.1.1.88.33"
#define COMPREHENSIVE_3D "1.2.840.10008.5.1.4.1.1.88.34"
#define WEIGHTS "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define LIST "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

/* is_str() of something that lives no longer than the line. */
#define is_text(got, want, ...)                                                                    \
	__extension__({                                                                            \
		std::string text_ = (got);                                                         \
		is_str(text_.c_str(), want, __VA_ARGS__);                                          \
	})

static const char *const classes[] = { ENHANCED, COMPREHENSIVE, COMPREHENSIVE_3D };

/* ---- sources ---- */

typedef std::function<void(DcmDataset &)> change;

static void put(DcmItem &item, const DcmTagKey &tag, const char *value)
{
	if (item.putAndInsertString(tag, value).bad())
		printf("# cannot put (%04x,%04x)\n", tag.getGroup(), tag.getElement());
}

static DcmItem &append(DcmItem &item, const DcmTagKey &sequence)
{
	DcmItem *added = NULL;

	if (item.findOrCreateSequenceItem(sequence, added, -2).bad())
		abort();
	return *added;
}

static void put_code(DcmItem &item, const DcmTagKey &sequence, const char *value, const char *scheme,
		     const char *meaning)
{
	DcmItem &code = append(item, sequence);

	put(code, DCM_CodeValue, value);
	put(code, DCM_CodingSchemeDesignator, scheme);
	put(code, DCM_CodeMeaning, meaning);
}

static void fill_dx(DcmDataset &d)
{
	static const Uint16 grey[4 * 6] = { 1, 2, 3, 4 };

	put(d, DCM_SpecificCharacterSet, "ISO_IR 100");
	put(d, DCM_ImageType, "ORIGINAL\\PRIMARY");
	put(d, DCM_SOPClassUID, UID_DigitalXRayImageStorageForPresentation);
	put(d, DCM_SOPInstanceUID, "1.2.3.1");
	put(d, DCM_StudyDate, "20260102");
	put(d, DCM_ContentDate, "20260103");
	put(d, DCM_AcquisitionDate, "20260104");
	put(d, DCM_StudyTime, "101112");
	put(d, DCM_ContentTime, "101113");
	put(d, DCM_AcquisitionTime, "101114.5");
	put(d, DCM_AccessionNumber, "A1");
	put(d, DCM_Modality, "DX");
	put(d, DCM_InstitutionName, "H\xf4pital"); /* Latin-1 */
	put(d, DCM_ReferringPhysicianName, "Who^Doctor");
	put(d, DCM_StudyDescription, "Thorax");
	put(d, DCM_PatientName, "M\xfcller^J\xfcrgen");
	put(d, DCM_PatientID, "P 1");
	put(d, DCM_PatientBirthDate, "19600101");
	put(d, DCM_PatientSex, "M");
	put(d, DCM_PatientAge, "066Y");
	put(d, DCM_BodyPartExamined, "CHEST");
	put(d, DCM_ImagerPixelSpacing, "0.143\\0.144");
	put(d, DCM_ViewPosition, "PA");
	put(d, DCM_StudyInstanceUID, "1.2.3");
	put(d, DCM_SeriesInstanceUID, "1.2.3.4");
	put(d, DCM_StudyID, "S1");
	put(d, DCM_PatientOrientation, "L\\F");
	put(d, DCM_ImageLaterality, "U");
	(void)d.putAndInsertUint16(DCM_SamplesPerPixel, 1);
	put(d, DCM_PhotometricInterpretation, "MONOCHROME2");
	(void)d.putAndInsertUint16(DCM_Rows, 4);
	(void)d.putAndInsertUint16(DCM_Columns, 6);
	(void)d.putAndInsertUint16(DCM_BitsAllocated, 16);
	(void)d.putAndInsertUint16(DCM_BitsStored, 12);
	(void)d.putAndInsertUint16(DCM_HighBit, 11);
	(void)d.putAndInsertUint16(DCM_PixelRepresentation, 0);
	(void)d.putAndInsertUint16Array(DCM_PixelData, grey, 4 * 6);
}

static std::string file_of(DcmDataset &d, E_TransferSyntax syntax)
{
	DcmFileFormat file(&d);
	memory_stream out;

	file.transferInit();
	if (file.write(out, syntax, EET_ExplicitLength, NULL, EGL_withoutGL).bad())
		abort();
	file.transferEnd();
	out.flush(); /* what a deflater holds back */
	return out.bytes();
}

static std::string dx(const change &odd = nullptr, E_TransferSyntax syntax = EXS_LittleEndianExplicit)
{
	DcmDataset d;

	fill_dx(d);
	if (odd)
		odd(d);
	return file_of(d, syntax);
}

/* A lateral CR of the same study. */
static std::string lateral(const char *sop_uid = "1.2.3.2")
{
	return dx([&](DcmDataset &d) {
		put(d, DCM_SOPClassUID, UID_ComputedRadiographyImageStorage);
		put(d, DCM_SOPInstanceUID, sop_uid);
		put(d, DCM_SeriesInstanceUID, "1.2.3.5");
		put(d, DCM_Modality, "CR");
		put(d, DCM_ViewPosition, "LL");
	});
}

/* ---- reports ---- */

struct report {
	std::deque<std::string> kept; /* what the struct's pointers point to */
	std::deque<std::vector<sr_score>> scores;
	std::vector<sr_finding> findings;
	std::vector<sr_image> images;
	sr_report r = {};
	uint8_t name_space[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

	report()
	{
		r.sop_class = COMPREHENSIVE;
		r.sop_uid = "2.25.11";
		r.series_uid = "2.25.12";
		r.predecessor_sop_uid = r.predecessor_series_uid = "";
		r.date = "20261124";
		r.time = "091011.120000";
		r.timezone = "+0100";
		r.language = "eng";
		r.manufacturer = "Maker";
		r.model_name = "Model";
		r.serial = "SN1";
		r.software = "1.0";
		r.device_uid = "2.25.13";
		r.station = "NODE";
		r.institution = "";
		r.series_description = "AI CXR results (unverified)";
		r.series_number = 9001;
		r.weights_sha256 = WEIGHTS;
		r.findings_sha256 = LIST;
		r.recipe = "window";
		r.precision = "f32";
		r.disclaimer = "AI result, not verified.";
	}

	report(const report &) = delete;

	const char *keep(const std::string &s)
	{
		kept.push_back(s);
		return kept.back().c_str();
	}

	void find(const char *id, const char *name, const sr_code &code, const char *parameters = "")
	{
		sr_finding f = {};

		f.id = id;
		f.name = f.prompt = name;
		f.code = code;
		f.parameters = parameters;
		findings.push_back(f);
	}

	/* `n` findings with codes of their own. */
	void find_many(size_t n)
	{
		for (size_t i = 0; i < n; i++) {
			const char *name = keep("Finding " + std::to_string(i));

			find(keep("finding_" + std::to_string(i)), name,
			     { keep("F" + std::to_string(i)), "99CXRZS", name },
			     "calibration=2,000 films of another hospital, 2026\n"
			     "absent_below=0.0500 sensitivity=0.970\n"
			     "present_from=0.6000 sensitivity=0.800 ppv=0.500 alarm_rate=0.100");
			findings.back().has_site = true;
			findings.back().site = { "39607008", "SCT", "Lung" };
		}
	}

	void image(const std::string &file, const char *why)
	{
		sr_image im = {};

		kept.push_back(file);
		im.file = kept.back().data();
		im.file_size = kept.back().size();
		im.why = why;
		images.push_back(im);
	}

	void image(const std::string &file, const std::vector<sr_score> &of)
	{
		image(file, static_cast<const char *>(NULL));
		scores.push_back(of);
		images.back().analysed = true;
		images.back().scores = scores.back().data();
	}

	/* Decisions in turn, or logits without. */
	void image_scored(const std::string &file, bool calibrated = true)
	{
		std::vector<sr_score> of;

		for (size_t i = 0; i < findings.size(); i++) {
			sr_score s = {};

			s.logit = static_cast<float>(i) * 0.5f - 2;
			s.probability = calibrated ? static_cast<double>(i + 1) / static_cast<double>(findings.size() + 1) :
						     static_cast<double>(NAN);
			s.decision = calibrated ? static_cast<sr_decision>(1 + i % 3) : SR_NONE;
			of.push_back(s);
		}
		image(file, of);
	}

	int write(int fd, struct err *e)
	{
		r.uid_namespace = name_space;
		r.findings = findings.data();
		r.n_findings = findings.size();
		r.images = images.data();
		r.n_images = images.size();
		return sr_write(&r, fd, e);
	}

	/* The file, or "" after a failed check. */
	std::string bytes(const char *what)
	{
		struct err e = { "" };
		int fd = fd_memory("report");
		void *p = NULL;
		size_t n = 0;
		std::string ret;
		int result = write(fd, &e);

		if (is_int(result, 0, "%s: is written", what) && read_file(fd, 64 << 20, &p, &n) == 0)
			ret.assign(static_cast<const char *>(p), n);
		else
			printf("# %s\n", e.text);
		free(p);
		(void)close(fd);
		return ret;
	}

	int result(struct err *e)
	{
		int fd = fd_memory("report");
		int ret = write(fd, e);
		struct stat st;

		ok(fstat(fd, &st) == 0 && (ret == 0 || st.st_size == 0), "a refused report leaves nothing behind");
		(void)close(fd);
		return ret;
	}
};

/* Three findings: a code of their own, a site, none of both. */
static void find_three(report &r)
{
	r.find("pneumothorax", "Pneumothorax", { "36118008", "SCT", "Pneumothorax" },
	       "calibration=test set A\npresent_from=0.5000 ppv=0.400");
	r.findings.back().has_site = true;
	r.findings.back().site = { "3120008", "SCT", "Pleura" };
	r.find("cardiomegaly", "Cardiomegaly", { "8186001", "SCT", "Cardiomegaly" });
	r.find("odd_thing", "Odd thing", { "ZS832c99e8a766", "99CXRZS", "Odd thing" });
}

/* ---- reading back ---- */

static bool parse(const std::string &bytes, DcmFileFormat &ret)
{
	DcmInputBufferStream in;
	OFCondition c;

	in.setBuffer(bytes.data(), static_cast<offile_off_t>(bytes.size()));
	in.setEos();
	ret.transferInit();
	c = ret.read(in);
	ret.transferEnd();
	return c.good();
}

/* The tree as dsrdump prints it: one line a row, two spaces a level. */
static std::vector<std::string> rows(const std::string &bytes)
{
	std::vector<std::string> ret;
	std::ostringstream out;
	std::istringstream in;
	std::string line;
	DcmFileFormat file;
	DSRDocument document;

	/* as readers have it, who did not switch it off to copy padding as it is */
	dcmEnableAutomaticInputDataCorrection.set(OFTrue);
	if (parse(bytes, file) && document.read(*file.getDataset()).good() && document.isValid())
		(void)document.getTree().print(out, DSRTypes::PF_printAllCodes |
							    DSRTypes::PF_printTemplateIdentification |
							    DSRTypes::PF_printSOPInstanceUID);
	dcmEnableAutomaticInputDataCorrection.set(OFFalse);
	in.str(out.str());
	while (std::getline(in, line))
		ret.push_back(line);
	return ret;
}

static void same_rows(const std::vector<std::string> &got, const std::vector<std::string> &want, const char *what)
{
	size_t i = 0;

	while (i < got.size() && i < want.size() && got[i] == want[i])
		i++;
	if (ok(i == got.size() && i == want.size(), "%s", what))
		return;
	printf("# row %zu\n# got      %s\n# expected %s\n", i, i < got.size() ? got[i].c_str() : "the end",
	       i < want.size() ? want[i].c_str() : "the end");
}

static size_t count(const std::vector<std::string> &lines, const char *part)
{
	size_t n = 0;

	for (const std::string &line : lines)
		n += line.find(part) != std::string::npos;
	return n;
}

/* Top-level elements of an explicit VR little endian file, heads and all, by a reader of its own. */
static std::map<unsigned, std::string> raw_elements(const std::string &file)
{
	std::map<unsigned, std::string> ret;
	const uint8_t *p = reinterpret_cast<const uint8_t *>(file.data());
	size_t at = 132;

	while (at + 12 <= file.size()) {
		unsigned tag = (p[at] | p[at + 1] << 8) * 0x10000u + (p[at + 2] | p[at + 3] << 8);
		std::string vr(file, at + 4, 2);
		bool is_long = std::set<std::string>{ "OB", "OW", "SQ", "UN", "UT" }.count(vr) > 0;
		size_t length = is_long ? p[at + 8] | p[at + 9] << 8 | p[at + 10] << 16 : p[at + 6] | p[at + 7] << 8;
		size_t whole = (is_long ? 12 : 8) + length;

		ret[tag] = file.substr(at, whole);
		at += whole;
	}
	return ret;
}

/* Value of a top-level element of the report, or "-" when it is not there. */
static std::string value(const std::string &bytes, const DcmTagKey &tag)
{
	DcmFileFormat file;
	OFString text;

	if (!parse(bytes, file) || !file.getDataset()->tagExists(tag))
		return "-";
	(void)file.getDataset()->findAndGetOFStringArray(tag, text);
	return text.c_str();
}

/* The same, deeper: pairs of sequence and item number, then the tag. */
static std::string value_in(const std::string &bytes, const std::vector<std::pair<DcmTagKey, long>> &path,
			    const DcmTagKey &tag)
{
	DcmFileFormat file;
	DcmItem *item;
	OFString text;

	if (!parse(bytes, file))
		return "-";
	item = file.getDataset();
	for (const auto &step : path) {
		if (item->findAndGetSequenceItem(step.first, item, step.second).bad())
			return "-";
	}
	return item->findAndGetOFStringArray(tag, text).good() ? text.c_str() : "-";
}

/* ---- the tree ---- */

/* Up to the measurements, for dx() alone. */
static const char *const head_rows[] = {
	"<CONTAINER:(126000,DCM,\"Imaging Measurement Report\")=SEPARATE>  # TID 1500 (DCMR, 1.2.840.10008.8.1.1)",
	"  <has concept mod CODE:(121049,DCM,\"Language of Content Item and Descendants\")=(eng,RFC5646,\"English\")>",
	"  <has obs context CODE:(121005,DCM,\"Observer Type\")=(121007,DCM,\"Device\")>",
	"  <has obs context UIDREF:(121012,DCM,\"Device Observer UID\")=\"2.25.13\">",
	"  <has obs context TEXT:(121013,DCM,\"Device Observer Name\")=\"NODE\">",
	"  <has obs context TEXT:(121014,DCM,\"Device Observer Manufacturer\")=\"Maker\">",
	"  <has obs context TEXT:(121015,DCM,\"Device Observer Model Name\")=\"Model\">",
	"  <has obs context TEXT:(121016,DCM,\"Device Observer Serial Number\")=\"SN1\">",
	"  <has concept mod CODE:(121058,DCM,\"Procedure reported\")=(363679005,SCT,\"Imaging procedure\")>",
	"  <contains CONTAINER:(111028,DCM,\"Image Library\")=SEPARATE>  # TID 1600 (DCMR, 1.2.840.10008.8.1.1)",
	"    <contains CONTAINER:(126200,DCM,\"Image Library Group\")=SEPARATE>",
	"      <has acq context CODE:(121139,DCM,\"Modality\")=(DX,DCM,\"Digital Radiography\")>",
	"      <has acq context DATE:(111060,DCM,\"Study Date\")=\"20260102\">",
	"      <has acq context TIME:(111061,DCM,\"Study Time\")=\"101112\">",
	"      <has acq context DATE:(111018,DCM,\"Content Date\")=\"20260103\">",
	"      <has acq context TIME:(111019,DCM,\"Content Time\")=\"101113\">",
	"      <has acq context DATE:(126201,DCM,\"Acquisition Date\")=\"20260104\">",
	"      <has acq context TIME:(126202,DCM,\"Acquisition Time\")=\"101114.5\">",
	"      <has acq context NUM:(110910,DCM,\"Pixel Data Rows\")=\"4\" ({pixels},UCUM,\"pixels\")>",
	"      <has acq context NUM:(110911,DCM,\"Pixel Data Columns\")=\"6\" ({pixels},UCUM,\"pixels\")>",
	"      <has acq context CODE:(111031,DCM,\"Image View\")=(272479007,SCT,\"postero-anterior\")>",
	"      <has acq context TEXT:(111044,DCM,\"Patient Orientation Row\")=\"L\">",
	"      <has acq context TEXT:(111043,DCM,\"Patient Orientation Column\")=\"F\">",
	"      <has acq context NUM:(111026,DCM,\"Horizontal Pixel Spacing\")=\"0.144\" (mm,UCUM,\"millimeter\")>",
	"      <has acq context NUM:(111066,DCM,\"Vertical Pixel Spacing\")=\"0.143\" (mm,UCUM,\"millimeter\")>",
	"      <contains IMAGE:=(DX image,\"1.2.3.1\")>",
	"  <contains CONTAINER:(126010,DCM,\"Imaging Measurements\")=SEPARATE>",
};

static const char *const present_rows[] = {
	"    <contains CONTAINER:(125007,DCM,\"Measurement Group\")=SEPARATE>  # TID 1501 (DCMR, 1.2.840.10008.8.1.1)",
	"      <has obs context TEXT:(112039,DCM,\"Tracking Identifier\")=\"Pneumothorax\">",
	"      <has obs context UIDREF:(112040,DCM,\"Tracking Unique Identifier\")=\"2.25.76583497391389002084479796261436464539\">",
	"      <contains CODE:(121071,DCM,\"Finding\")=(36118008,SCT,\"Pneumothorax\")>",
	"      <has concept mod CODE:(363698007,SCT,\"Finding Site\")=(3120008,SCT,\"Pleura\")>",
	"      <has concept mod TEXT:(111001,DCM,\"Algorithm Name\")=\"Model\">",
	"      <has concept mod TEXT:(111003,DCM,\"Algorithm Version\")=\"1.0\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"prompt=\"Pneumothorax\"\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"calibrated=yes\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"calibration=test set A\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"present_from=0.5000 ppv=0.400\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"weights_sha256=" WEIGHTS "\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"findings_sha256=" LIST "\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"recipe=window\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"precision=f32\">",
	"      <contains NUM:(111012,DCM,\"Certainty of Finding\")=\"91.3\" (%,UCUM,\"Percent\")>",
	"        <inferred from IMAGE:(121112,DCM,\"Source of Measurement\")=(DX image,\"1.2.3.1\")>",
	"      <contains CODE:(36118008,SCT,\"Pneumothorax\")=(52101004,SCT,\"Present\")>",
};

static const char *const absent_rows[] = {
	"    <contains CONTAINER:(125007,DCM,\"Measurement Group\")=SEPARATE>  # TID 1501 (DCMR, 1.2.840.10008.8.1.1)",
	"      <has obs context TEXT:(112039,DCM,\"Tracking Identifier\")=\"Cardiomegaly\">",
	"      <has obs context UIDREF:(112040,DCM,\"Tracking Unique Identifier\")=\"2.25.177714751247658799999508411486535275620\">",
	"      <has concept mod TEXT:(111001,DCM,\"Algorithm Name\")=\"Model\">",
	"      <has concept mod TEXT:(111003,DCM,\"Algorithm Version\")=\"1.0\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"prompt=\"Cardiomegaly\"\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"calibrated=yes\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"weights_sha256=" WEIGHTS "\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"findings_sha256=" LIST "\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"recipe=window\">",
	"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"precision=f32\">",
	"      <contains NUM:(111012,DCM,\"Certainty of Finding\")=\"3.1\" (%,UCUM,\"Percent\")>",
	"        <inferred from IMAGE:(121112,DCM,\"Source of Measurement\")=(DX image,\"1.2.3.1\")>",
	"      <contains CODE:(8186001,SCT,\"Cardiomegaly\")=(272519000,SCT,\"Absent\")>",
};

/* Its code is the local one; with or without a calibration. */
static std::vector<std::string> odd_rows(bool calibrated)
{
	std::vector<std::string> want = {
		"    <contains CONTAINER:(125007,DCM,\"Measurement Group\")=SEPARATE>  # TID 1501 (DCMR, 1.2.840.10008.8.1.1)",
		"      <has obs context TEXT:(112039,DCM,\"Tracking Identifier\")=\"Odd thing\">",
		"      <has obs context UIDREF:(112040,DCM,\"Tracking Unique Identifier\")=\"2.25.297454592529900510642221134289034884565\">",
		"      <has concept mod TEXT:(111001,DCM,\"Algorithm Name\")=\"Model\">",
		"      <has concept mod TEXT:(111003,DCM,\"Algorithm Version\")=\"1.0\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"prompt=\"Odd thing\"\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"calibrated=" +
			std::string(calibrated ? "yes" : "no") + "\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"weights_sha256=" WEIGHTS "\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"findings_sha256=" LIST "\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"recipe=window\">",
		"      <has concept mod TEXT:(111002,DCM,\"Algorithm Parameters\")=\"precision=f32\">",
	};

	want.push_back(calibrated ?
		"      <contains NUM:(111012,DCM,\"Certainty of Finding\")=\"50.0\" (%,UCUM,\"Percent\")>" :
		"      <contains NUM:(RAWSCORE,99CXRZS,\"CARZero raw score\")=\"-1.2346\" (1,UCUM,\"no units\")>");
	want.push_back("        <inferred from IMAGE:(121112,DCM,\"Source of Measurement\")=(DX image,\"1.2.3.1\")>");
	if (calibrated)
		want.push_back("      <contains CODE:(ZS832c99e8a766,99CXRZS,\"Odd thing\")=(373068000,SCT,\"Undetermined\")>");
	return want;
}

static std::vector<std::string> end_rows(const char *summary, const std::vector<std::string> &comments)
{
	std::vector<std::string> want = {
		"  <contains CONTAINER:(C0034375,UMLS,\"Qualitative Evaluations\")=SEPARATE>",
		std::string("    <contains CODE:(111017,DCM,\"CAD Processing and Findings Summary\")=(") + summary + "\")>",
		"    <contains TEXT:(121106,DCM,\"Comment\")=\"AI result, not verified.\">",
	};

	for (const std::string &c : comments)
		want.push_back("    <contains TEXT:(121106,DCM,\"Comment\")=\"" + c + "\">");
	return want;
}

static void add(std::vector<std::string> &to, const std::vector<std::string> &more)
{
	to.insert(to.end(), more.begin(), more.end());
}

static const char all_raw[] = "All scores are raw model outputs without calibration: nothing was decided from "
			      "them, neither presence nor absence.";
static const char some_raw[] = "Some scores are raw model outputs without calibration: nothing was decided "
			       "from them, neither presence nor absence.";

static void test_tree()
{
	report r;
	std::vector<std::string> want(std::begin(head_rows), std::end(head_rows));

	add(want, { std::begin(present_rows), std::end(present_rows) });
	add(want, { std::begin(absent_rows), std::end(absent_rows) });
	add(want, odd_rows(true));
	add(want, end_rows("111242,DCM,\"All algorithms succeeded; with findings", {}));
	find_three(r);
	r.image(dx(), { { 2.0f, 0.9126, SR_PRESENT }, { -3.0f, 0.031, SR_ABSENT }, { 0.0f, 0.5, SR_UNDETERMINED } });
	for (const char *sop_class : classes) {
		r.r.sop_class = sop_class;
		same_rows(rows(r.bytes(sop_class)), want, "every row of a calibrated report");
	}
}

static std::set<std::string> errors_of(const std::string &bytes)
{
	std::set<std::string> ret;
	std::istringstream in;
	std::string line;
	char path[32];
	int fd = fd_memory("object"), out = fd_memory("errors"), status = -1;
	void *p = NULL;
	size_t n = 0;
	pid_t pid;

	(void)write_full(fd, bytes.data(), bytes.size());
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", dup(fd)); /* stays open in the child */
	pid = fork();
	if (pid == 0) {
		(void)dup2(out, STDOUT_FILENO);
		(void)dup2(out, STDERR_FILENO);
		(void)execlp("dciodvfy", "dciodvfy", path, static_cast<char *>(NULL));
		_exit(127);
	}
	(void)waitpid(pid, &status, 0);
	if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1 || read_file(out, 1 << 20, &p, &n) < 0)
		ret.insert("?");
	else
		in.str(std::string(static_cast<const char *>(p), n));
	while (std::getline(in, line)) {
		if (line.find("Error") != std::string::npos)
			ret.insert(line);
	}
	free(p);
	(void)close(atoi(strrchr(path, '/') + 1));
	(void)close(fd);
	(void)close(out);
	return ret;
}

/* Errors about values that were copied are the source's; none may be added. */
static void no_new_errors(const std::string &bytes, const std::set<std::string> &of_source, const char *what)
{
	std::set<std::string> errors = errors_of(bytes);

	for (const std::string &line : of_source)
		errors.erase(line);
	if (ok(errors.empty(), "dciodvfy: %s", what))
		return;
	for (const std::string &line : errors)
		printf("# %s\n", line.c_str());
}

/* For OHIF: the outline of the whole image instead of the image, in every class. */
static void test_regions()
{
	report r;

	find_three(r);
	r.image(dx(), { { 2.0f, 0.9126, SR_PRESENT }, { -3.0f, 0.031, SR_ABSENT }, { 0.0f, static_cast<double>(NAN), SR_NONE } });
	r.r.whole_image_regions = true;
	for (const char *sop_class : classes) {
		std::string bytes;
		std::vector<std::string> lines;

		r.r.sop_class = sop_class;
		bytes = r.bytes(sop_class);
		lines = rows(bytes);
		is_int(count(lines, "<inferred from SCOORD:(121112,DCM,\"Source of Measurement\")=(POLYLINE,"), 3,
		       "%s: an outline under every number", sop_class);
		is_int(count(lines, "=(POLYLINE,0/1.33333337,0/2.66666675,0/4,6/4,6/0,0/0,0/1.33333337)"), 1,
		       "%s: of the whole image, each from another place on", sop_class);
		is_int(count(lines, "Comment\")=\"Pneumothorax: present\""), 1, "%s: named again", sop_class);
		is_int(count(lines, "<selected from IMAGE:=(DX image,\"1.2.3.1\")>"), 3, "%s: of the image", sop_class);
		is_int(count(lines, "<inferred from IMAGE"), 0, "%s: and nothing else", sop_class);
		no_new_errors(bytes, {}, "with regions");
	}
}

static void test_uncalibrated()
{
	report r;
	std::vector<std::string> want(std::begin(head_rows), std::end(head_rows));

	add(want, odd_rows(false));
	add(want, end_rows("111241,DCM,\"All algorithms succeeded; without findings", { all_raw }));
	/* what the list says about calibration does not count where there is none */
	r.find("odd_thing", "Odd thing", { "ZS832c99e8a766", "99CXRZS", "Odd thing" }, "");
	r.image(dx(), { { -1.23456f, static_cast<double>(NAN), SR_NONE } });
	for (const char *sop_class : classes) {
		r.r.sop_class = sop_class;
		same_rows(rows(r.bytes(sop_class)), want, "every row of an uncalibrated report");
	}
	/* a decision about a raw score would be a mistake of the caller's, and is not written */
	r.scores[0][0].decision = SR_PRESENT;
	same_rows(rows(r.bytes("raw score with a decision")), want, "nothing is decided from a raw score");
}

/* Summary and comments for what was analysed and what came out. */
static void test_outcomes()
{
	static const struct {
		const char *what;
		bool second_analysed;
		sr_decision decision[2]; /* SR_NONE: raw */
		const char *summary;
		size_t groups, findings;
		std::vector<std::string> comments;
	} cases[] = {
		{ "two images, nothing present", true, { SR_ABSENT, SR_UNDETERMINED }, "111241", 2, 0, {} },
		{ "two images, one present", true, { SR_ABSENT, SR_PRESENT }, "111242", 2, 1, {} },
		{ "one of two, nothing present", false, { SR_ABSENT, SR_NONE }, "111243", 1, 0,
		  { "Image 2 of 2 (ComputedRadiographyImageStorage) was not analysed: lateral view" } },
		{ "one of two, present", false, { SR_PRESENT, SR_NONE }, "111244", 1, 1,
		  { "Image 2 of 2 (ComputedRadiographyImageStorage) was not analysed: lateral view" } },
		{ "one score raw", true, { SR_ABSENT, SR_NONE }, "111241", 2, 0, { some_raw } },
	};

	for (const auto &c : cases) {
		report r;
		std::vector<std::string> lines;

		r.find("pneumothorax", "Pneumothorax", { "36118008", "SCT", "Pneumothorax" });
		for (size_t i = 0; i < 2; i++) {
			double p = c.decision[i] == SR_NONE ? static_cast<double>(NAN) : 0.5;

			if (i == 0 || c.second_analysed)
				r.image(i == 0 ? dx() : lateral(), { { 0.5f, p, c.decision[i] } });
			else
				r.image(lateral(), "lateral view");
		}
		lines = rows(r.bytes(c.what));
		is_int(count(lines, (std::string("Findings Summary\")=(") + c.summary).c_str()), 1, "%s: %s",
		       c.what, c.summary);
		is_int(count(lines, "(125007,DCM"), c.groups, "%s: a group for each score", c.what);
		is_int(count(lines, "(121071,DCM,\"Finding\")"), c.findings, "%s: Finding rows", c.what);
		is_int(count(lines, "(126200,DCM"), 2, "%s: both in the library", c.what);
		is_int(count(lines, "(121106,DCM,\"Comment\")"), 1 + c.comments.size(), "%s: comments", c.what);
		for (const std::string &comment : c.comments)
			is_int(count(lines, ("=\"" + comment + "\"").c_str()), 1, "%s: %s", c.what, comment.c_str());
	}
}

static void test_not_scored()
{
	report r;
	std::vector<std::string> lines;

	find_three(r);
	r.image(dx(), { { 2.0f, 1.5, SR_PRESENT },
			{ static_cast<float>(NAN), static_cast<double>(NAN), SR_NONE },
			{ 1e12f, static_cast<double>(NAN), SR_NONE } });
	lines = rows(r.bytes("scores that are no scores"));
	is_int(count(lines, "(125007,DCM"), 1, "a group for the one that is a number");
	is_int(count(lines, "=\"1e+12\" (1,UCUM"), 1, "a large one still fits a Decimal String");
	is_int(count(lines, "Image 1 of 1 (DigitalXRayImageStorageForPresentation) was not analysed for: "), 2,
	       "the others are named");
	is_int(count(lines, "(111243,DCM"), 1, "and the summary says that not all succeeded");
}

static void test_rejected()
{
	report r;
	std::vector<std::string> want(std::begin(head_rows), std::end(head_rows));
	std::string bytes;

	add(want, end_rows("111245,DCM,\"No algorithms succeeded; without findings",
			   { "Image 1 of 1 (DigitalXRayImageStorageForPresentation) was not analysed: not a chest" }));
	find_three(r);
	r.image(dx(), "not a chest");
	bytes = r.bytes("nothing analysed");
	same_rows(rows(bytes), want, "every row: no group, the container stays");
	is_text(value_in(bytes, { { DCM_CodingSchemeIdentificationSequence, 0 } }, DCM_CodingSchemeDesignator),
	       "-", "no local code, so none declared");
}

/* ---- sources that cannot be used ---- */

static void test_unreadable()
{
	static const char *const comment = "Image 2 of 3 was not analysed: its header cannot be read";
	std::string whole = dx();
	struct err e = { "" };

	for (const std::string &bad : { std::string(), std::string(300, 'x'), whole.substr(0, 700) }) {
		report r;
		std::vector<std::string> lines;

		find_three(r);
		r.image(lateral(), "lateral view");
		r.image(bad, "broken");
		r.image_scored(whole);
		lines = rows(r.bytes("one image of three is unreadable"));
		is_int(count(lines, comment), 1, "it is named, %zu bytes", bad.size());
		is_int(count(lines, "(126200,DCM"), 2, "the others are in the library");
		is_int(count(lines, "(125007,DCM"), 3, "the good one has its groups");
	}
	{
		report r;

		find_three(r);
		r.image("DICM", "broken");
		is_int(r.result(&e), -EBADMSG, "no image at all that can be read");
		ok(e.text[0] != '\0', "says: %s", e.text);
		is_int(r.result(NULL), -EBADMSG, "also to nobody");
	}
	{
		report r;

		find_three(r);
		r.image_scored(whole);
		r.image_scored(dx([](DcmDataset &d) { put(d, DCM_StudyInstanceUID, "1.2.4"); }));
		is_int(r.result(&e), -EBADMSG, "two studies in one report");
		ok(e.text[0] != '\0', "says: %s", e.text);
		r.images.pop_back();
		r.r.sop_class = "1.2.840.10008.5.1.4.1.1.88.11";
		is_int(r.result(&e), -ENOTSUP, "Basic Text SR");
		ok(e.text[0] != '\0', "says: %s", e.text);
		r.images.clear();
		r.r.sop_class = COMPREHENSIVE;
		is_int(r.result(&e), -EBADMSG, "no image");
	}
}

/* ---- what is copied ---- */

static const DcmTagKey copied[] = {
	DCM_SpecificCharacterSet, DCM_StudyDate, DCM_StudyTime, DCM_AccessionNumber,
	DCM_IssuerOfAccessionNumberSequence, DCM_InstitutionName, DCM_ReferringPhysicianName,
	DCM_StudyDescription, DCM_ProcedureCodeSequence, DCM_PatientName, DCM_PatientID,
	DCM_IssuerOfPatientID, DCM_IssuerOfPatientIDQualifiersSequence, DCM_PatientBirthDate, DCM_PatientSex,
	DCM_RETIRED_OtherPatientIDs, DCM_OtherPatientIDsSequence, DCM_PatientAge, DCM_PatientWeight,
	DCM_StudyInstanceUID, DCM_StudyID, DCM_ClinicalTrialProtocolID,
};

static const DcmTagKey type_2[] = {
	DCM_StudyDate, DCM_StudyTime, DCM_AccessionNumber, DCM_ReferringPhysicianName, DCM_PatientName,
	DCM_PatientID, DCM_PatientBirthDate, DCM_PatientSex, DCM_StudyID,
};

static void drop(DcmDataset &d, const DcmTagKey &tag)
{
	(void)d.findAndDeleteElement(tag);
}

struct odd_source {
	const char *what;
	change odd;
};

/* As they come from real modalities. */
static const std::vector<odd_source> odd_sources = {
	{ "an ordinary source", nullptr },
	{ "padding on both sides", [](DcmDataset &d) {
		put(d, DCM_PatientName, "  Doe^John   ");
		put(d, DCM_PatientID, "   007");
		put(d, DCM_AccessionNumber, "A 1 ");
		put(d, DCM_StudyDescription, "  ");
	} },
	{ "dates and times out of form", [](DcmDataset &d) {
		put(d, DCM_PatientBirthDate, "1960.01.01");
		put(d, DCM_StudyDate, "2026-01-02");
		put(d, DCM_StudyTime, "25:61:00");
		put(d, DCM_ContentDate, "today");
		put(d, DCM_AcquisitionTime, "9999");
	} },
	{ "long names and numbers", [](DcmDataset &d) {
		put(d, DCM_PatientName, (std::string(70, 'N') + "^" + std::string(70, 'G')).c_str());
		put(d, DCM_PatientID, std::string(80, '7').c_str());
		put(d, DCM_AccessionNumber, "ACCESSION-NUMBER-OF-29-LETTERS");
		put(d, DCM_StudyID, "STUDY-ID-OF-24-CHARACTERS");
		put(d, DCM_StudyDescription, std::string(200, 'd').c_str());
		put(d, DCM_PatientSex, "unknown");
	} },
	{ "UTF-8", [](DcmDataset &d) {
		put(d, DCM_SpecificCharacterSet, "ISO_IR 192");
		put(d, DCM_PatientName, "Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1");
		put(d, DCM_InstitutionName, "\xe5\x8c\xbb\xe9\x99\xa2");
		put_code(d, DCM_ProcedureCodeSequence, "TX1", "99RIS", "R\xc3\xb6ntgen-Thorax");
	} },
	{ "Japanese, ISO 2022", [](DcmDataset &d) {
		put(d, DCM_SpecificCharacterSet, "\\ISO 2022 IR 87");
		put(d, DCM_PatientName, "Yamada^Tarou=\033$B;3ED\033(B^\033$BB@O:\033(B=\033$B$d$^$@\033(B^\033$B$?$m$&\033(B");
		put(d, DCM_InstitutionName, "\033$BIB1!\033(B");
	} },
	{ "Chinese, GB18030", [](DcmDataset &d) {
		put(d, DCM_SpecificCharacterSet, "GB18030");
		put(d, DCM_PatientName, "Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab");
		put(d, DCM_InstitutionName, "\xd2\xbd\xd4\xba");
	} },
	{ "bytes beyond ASCII and no character set", [](DcmDataset &d) { drop(d, DCM_SpecificCharacterSet); } },
	{ "no type 2 element", [](DcmDataset &d) {
		for (const DcmTagKey &tag : type_2)
			drop(d, tag);
	} },
	{ "empty type 2 elements", [](DcmDataset &d) {
		for (const DcmTagKey &tag : type_2)
			(void)d.insertEmptyElement(tag, OFTrue);
	} },
	{ "sequences and further identifiers", [](DcmDataset &d) {
		put(append(d, DCM_IssuerOfAccessionNumberSequence), DCM_LocalNamespaceEntityID, "RIS");
		put(append(d, DCM_IssuerOfPatientIDQualifiersSequence), DCM_UniversalEntityID, "1.2.3.99");
		put(append(d, DCM_OtherPatientIDsSequence), DCM_PatientID, "OTHER");
		put(d, DCM_IssuerOfPatientID, "HOSPITAL");
		put(d, DCM_RETIRED_OtherPatientIDs, "A\\B ");
		put(d, DCM_PatientWeight, "70.5");
		put(d, DCM_ClinicalTrialProtocolID, "TRIAL");
		put_code(d, DCM_ProcedureCodeSequence, "36643-5", "LN", "XR Chest 2 Views");
	} },
};

static void test_copied()
{
	for (const odd_source &o : odd_sources) {
		for (E_TransferSyntax syntax : { EXS_LittleEndianExplicit, EXS_LittleEndianImplicit,
						 EXS_DeflatedLittleEndianExplicit }) {
			report r;
			std::map<unsigned, std::string> from, to;
			std::string differing, bytes;

			find_three(r);
			r.image_scored(dx(o.odd, syntax));
			bytes = r.bytes(o.what);
			to = raw_elements(bytes);
			from = raw_elements(dx(o.odd));
			for (const DcmTagKey &key : copied) {
				unsigned tag = key.getGroup() * 0x10000u + key.getElement();

				if (from.count(tag) > 0 && to[tag] != from[tag])
					differing += key.toString().c_str();
			}
			is_str(differing.c_str(), "", "%s, syntax %d: copied byte by byte", o.what,
			       static_cast<int>(syntax));
			for (const DcmTagKey &key : type_2) {
				unsigned tag = key.getGroup() * 0x10000u + key.getElement();

				if (from.count(tag) == 0 && (to.count(tag) == 0 || to[tag].size() != 8))
					differing += key.toString().c_str();
			}
			is_str(differing.c_str(), "", "%s: what is not known is empty", o.what);
			is_text(value(bytes, DCM_BodyPartExamined), "-", "%s: no Body Part Examined", o.what);
			ok(!rows(bytes).empty(), "%s: reads back", o.what);
		}
	}
}

/* Optional, and of no use to anybody in another form. */
static void test_left_out()
{
	report r;
	std::string bytes;

	find_three(r);
	r.image_scored(dx([](DcmDataset &d) {
		put(d, DCM_PatientAge, "66");
		put(d, DCM_PatientWeight, "70 kg");
	}));
	bytes = r.bytes("age and weight out of form");
	is_text(value(bytes, DCM_PatientAge), "-", "an age out of form is left out");
	is_text(value(bytes, DCM_PatientWeight), "-", "so is a weight");
}

/* The patient comes from the first image that was analysed. */
static void test_whose_elements()
{
	report r;

	find_three(r);
	r.image(dx([](DcmDataset &d) { put(d, DCM_StudyDescription, "of the rejected"); }), "lateral view");
	r.image_scored(dx([](DcmDataset &d) { put(d, DCM_StudyDescription, "of the analysed"); }));
	is_text(value(r.bytes("two images"), DCM_StudyDescription), "of the analysed",
	       "elements are those of the first analysed image");
}

/* ---- modules ---- */

static void test_modules()
{
	static const struct {
		DcmTagKey tag;
		const char *want;
	} elements[] = {
		{ DCM_SOPClassUID, COMPREHENSIVE },
		{ DCM_SOPInstanceUID, "2.25.11" },
		{ DCM_SeriesInstanceUID, "2.25.12" },
		{ DCM_InstanceCreationDate, "20261124" },
		{ DCM_InstanceCreationTime, "091011.120000" },
		{ DCM_ContentDate, "20261124" },
		{ DCM_ContentTime, "091011.120000" },
		{ DCM_SeriesDate, "20261124" },
		{ DCM_TimezoneOffsetFromUTC, "+0100" },
		{ DCM_Modality, "SR" },
		{ DCM_SeriesNumber, "9001" },
		{ DCM_SeriesDescription, "AI CXR results (unverified)" },
		{ DCM_InstanceNumber, "1" },
		{ DCM_Manufacturer, "Maker" },
		{ DCM_ManufacturerModelName, "Model" },
		{ DCM_DeviceSerialNumber, "SN1" },
		{ DCM_SoftwareVersions, "1.0" },
		{ DCM_StationName, "NODE" },
		{ DCM_CompletionFlag, "COMPLETE" },
		{ DCM_VerificationFlag, "UNVERIFIED" },
		{ DCM_ImageLaterality, "-" },
		{ DCM_ImagerPixelSpacing, "-" },
		{ DCM_ViewPosition, "-" },
		{ DCM_PredecessorDocumentsSequence, "-" },
	};
	const std::pair<DcmTagKey, long> equipment = { DCM_ContributingEquipmentSequence, 0 };
	const std::pair<DcmTagKey, long> scheme = { DCM_CodingSchemeIdentificationSequence, 0 };
	DcmFileFormat file;
	OFString text;
	report r;
	std::string bytes;

	find_three(r);
	r.image_scored(dx());
	bytes = r.bytes("modules");
	for (const auto &e : elements)
		is_text(value(bytes, e.tag), e.want, "(%04x,%04x) is %s", e.tag.getGroup(),
			e.tag.getElement(), e.want);
	is_text(value_in(bytes, { equipment, { DCM_PurposeOfReferenceCodeSequence, 0 } }, DCM_CodeValue),
	       "109102", "contributing equipment: processing");
	is_text(value_in(bytes, { equipment }, DCM_Manufacturer), "Maker", "its manufacturer");
	is_text(value_in(bytes, { equipment }, DCM_ManufacturerModelName), "Model", "its model name");
	is_text(value_in(bytes, { equipment }, DCM_SoftwareVersions), "1.0", "its software");
	is_text(value_in(bytes, { equipment }, DCM_DeviceUID), "2.25.13", "its Device UID");
	is_text(value_in(bytes, { scheme }, DCM_CodingSchemeDesignator), "99CXRZS", "local scheme is declared");
	ok(value_in(bytes, { scheme }, DCM_CodingSchemeUID).compare(0, 5, "2.25.") == 0, "with a UID");
	is_text(value_in(bytes, { { scheme.first, 1 } }, DCM_CodingSchemeDesignator), "-", "and no other");
	ok(parse(bytes, file), "parses");
	(void)file.getMetaInfo()->findAndGetOFString(DCM_ImplementationClassUID, text);
	is_str(text.c_str(), DICOM_IMPLEMENTATION_UID, "written by our implementation");
	(void)file.getMetaInfo()->findAndGetOFString(DCM_TransferSyntaxUID, text);
	is_str(text.c_str(), UID_LittleEndianExplicitTransferSyntax, "in explicit VR little endian");
	(void)file.getMetaInfo()->findAndGetOFString(DCM_MediaStorageSOPInstanceUID, text);
	is_str(text.c_str(), "2.25.11", "the meta names the instance");
}

static void test_timezone()
{
	static const struct {
		const char *source, *ours, *want;
	} cases[] = {
		{ NULL, "+0100", "+0100" },
		{ "+0100", "+0100", "+0100" },
		{ "+0000", "+0100", "-" },
		{ "", "+0100", "+0100" },
		{ "+0100", "", "-" },
		{ NULL, "", "-" },
	};

	for (const auto &c : cases) {
		report r;

		find_three(r);
		r.r.timezone = c.ours;
		r.image_scored(dx([&](DcmDataset &d) {
			if (c.source != NULL)
				put(d, DCM_TimezoneOffsetFromUTC, c.source);
		}));
		is_text(value(r.bytes("time zone"), DCM_TimezoneOffsetFromUTC), c.want,
		       "source '%s', report '%s'", c.source != NULL ? c.source : "(none)", c.ours);
	}
}

static void test_evidence()
{
	const DcmTagKey evidence = DCM_CurrentRequestedProcedureEvidenceSequence;
	report r;
	std::string bytes, all;

	find_three(r);
	r.image(lateral(), "lateral view");
	r.image_scored(dx());
	r.image(lateral("1.2.3.3"), "lateral view");
	r.image(lateral("1.2.3.3"), "lateral view"); /* named twice, listed once */
	bytes = r.bytes("evidence");
	for (long series = 0; series < 3; series++) {
		const std::pair<DcmTagKey, long> in_series = { DCM_ReferencedSeriesSequence, series };

		all += value_in(bytes, { { evidence, 0 }, in_series }, DCM_SeriesInstanceUID) + ":";
		for (long i = 0; i < 3; i++)
			all += " " + value_in(bytes, { { evidence, 0 }, in_series, { DCM_ReferencedSOPSequence, i } },
					      DCM_ReferencedSOPInstanceUID);
		all += "\n";
	}
	is_str(all.c_str(), "1.2.3.5: 1.2.3.2 1.2.3.3 -\n1.2.3.4: 1.2.3.1 - -\n-: - - -\n",
	       "every image once, under its series");
	is_text(value_in(bytes, { { evidence, 0 } }, DCM_StudyInstanceUID), "1.2.3", "under its study");
	is_text(value_in(bytes, { { evidence, 1 } }, DCM_StudyInstanceUID), "-", "and no other study");
	is_text(value_in(bytes, { { evidence, 0 }, { DCM_ReferencedSeriesSequence, 0 },
				 { DCM_ReferencedSOPSequence, 0 } }, DCM_ReferencedSOPClassUID),
	       UID_ComputedRadiographyImageStorage, "with its class");
}

static void test_predecessor()
{
	const std::pair<DcmTagKey, long> study = { DCM_PredecessorDocumentsSequence, 0 };
	const std::pair<DcmTagKey, long> series = { DCM_ReferencedSeriesSequence, 0 };
	const std::pair<DcmTagKey, long> sop = { DCM_ReferencedSOPSequence, 0 };
	report r;
	std::string bytes;

	find_three(r);
	r.image_scored(dx());
	r.r.predecessor_sop_uid = "2.25.7";
	r.r.predecessor_series_uid = "2.25.8";
	bytes = r.bytes("a second report");
	is_text(value_in(bytes, { study }, DCM_StudyInstanceUID), "1.2.3", "predecessor: study");
	is_text(value_in(bytes, { study, series }, DCM_SeriesInstanceUID), "2.25.8", "series");
	is_text(value_in(bytes, { study, series, sop }, DCM_ReferencedSOPInstanceUID), "2.25.7", "instance");
	is_text(value_in(bytes, { study, series, sop }, DCM_ReferencedSOPClassUID), COMPREHENSIVE, "class");
	ok(!rows(bytes).empty(), "it reads back");
}

/* ---- codes and texts of sources and sites ---- */

static void test_requests()
{
	const DcmTagKey sequence = DCM_ReferencedRequestSequence;
	report alone, none, two;
	std::string bytes;

	find_three(alone);
	alone.image_scored(dx());
	bytes = alone.bytes("an accession number alone");
	is_text(value_in(bytes, { { sequence, 0 } }, DCM_AccessionNumber), "A1", "request: accession number");
	is_text(value_in(bytes, { { sequence, 0 } }, DCM_StudyInstanceUID), "1.2.3", "its study");
	is_text(value_in(bytes, { { sequence, 0 } }, DCM_PlacerOrderNumberImagingServiceRequest), "", "the rest empty");
	is_text(value_in(bytes, { { sequence, 1 } }, DCM_StudyInstanceUID), "-", "one");
	no_new_errors(bytes, {}, "a request");

	find_three(none);
	none.image_scored(dx([](DcmDataset &d) { put(d, DCM_AccessionNumber, ""); }));
	is_text(value_in(none.bytes("no order"), { { sequence, 0 } }, DCM_StudyInstanceUID), "-", "no order, no request");

	find_three(two);
	two.image_scored(dx([](DcmDataset &d) {
		for (const char *id : { "RP1", "RP2" }) {
			DcmItem &item = append(d, DCM_RequestAttributesSequence);

			put(item, DCM_RequestedProcedureID, id);
			put(item, DCM_RequestedProcedureDescription, "Thorax \xfc" "bersicht");
			put(item, DCM_ScheduledProcedureStepID, "SPS");
		}
		put(*[&] {
			DcmItem *item = NULL;

			(void)d.findAndGetSequenceItem(DCM_RequestAttributesSequence, item, 1);
			return item;
		}(), DCM_AccessionNumber, "A2");
	}));
	bytes = two.bytes("two orders");
	is_text(value_in(bytes, { { sequence, 0 } }, DCM_RequestedProcedureID), "RP1", "first order");
	is_text(value_in(bytes, { { sequence, 0 } }, DCM_AccessionNumber), "A1", "with the image's accession number");
	is_text(value_in(bytes, { { sequence, 1 } }, DCM_RequestedProcedureID), "RP2", "second order");
	is_text(value_in(bytes, { { sequence, 1 } }, DCM_AccessionNumber), "A2", "with its own");
	is_text(value_in(bytes, { { sequence, 1 } }, DCM_RequestedProcedureDescription), "Thorax \xfc" "bersicht",
		"copied as it stands");
	is_text(value_in(bytes, { { sequence, 1 } }, DCM_ScheduledProcedureStepID), "-", "and nothing that has no place there");
	no_new_errors(bytes, {}, "two requests");
}

static void test_procedure()
{
	static const char plain[] = "(363679005,SCT,\"Imaging procedure\")";
	static const struct {
		const char *what, *value, *scheme, *meaning, *row, *declared;
	} cases[] = {
		{ "well-formed", "36643-5", "LN", "XR Chest 2 Views", "(36643-5,LN,\"XR Chest 2 Views\")", "-" },
		{ "of the site", "TX 2 ", "99RIS ", "Thorax ", "(TX 2,99RIS,\"Thorax\")", "99RIS" },
		{ "of nobody", "TX", "L", "Thorax", "(TX,L,\"Thorax\")", "L" },
		{ "not ASCII", "TX", "SCT", "R\xf6ntgen", "(TX,SCT,\"R\xf6ntgen\")", "-" },
		{ "value too long", "12345678901234567", "LN", "Thorax", plain, "-" },
		{ "no scheme", "TX", "", "Thorax", plain, "-" },
		{ "no meaning", "TX", "LN", " ", plain, "-" },
		{ "meaning too long", "TX", "LN",
		  "12345678901234567890123456789012345678901234567890123456789012345", plain, "-" },
		{ "two values", "A\\B", "LN", "Thorax", plain, "-" },
	};

	for (const auto &c : cases) {
		report r;
		std::string bytes;

		r.find("pneumothorax", "Pneumothorax", { "36118008", "SCT", "Pneumothorax" });
		r.image_scored(dx([&](DcmDataset &d) {
			put_code(d, DCM_ProcedureCodeSequence, c.value, c.scheme, c.meaning);
		}));
		bytes = r.bytes(c.what);
		is_int(count(rows(bytes), (std::string("\"Procedure reported\")=") + c.row).c_str()), 1,
		       "procedure code %s", c.what);
		is_text(value_in(bytes, { { DCM_CodingSchemeIdentificationSequence, 0 } },
				DCM_CodingSchemeDesignator), c.declared, "scheme of a code %s", c.what);
	}
}

/* What a source says about its own scheme goes along. */
static void test_scheme_of_source()
{
	report r;
	std::string bytes;

	find_three(r);
	r.image_scored(dx([](DcmDataset &d) {
		put_code(d, DCM_ProcedureCodeSequence, "TX", "99RIS", "Thorax");
		put(append(d, DCM_CodingSchemeIdentificationSequence), DCM_CodingSchemeDesignator, "99OTHER");
		DcmItem &scheme = append(d, DCM_CodingSchemeIdentificationSequence);
		put(scheme, DCM_CodingSchemeDesignator, "99RIS");
		put(scheme, DCM_CodingSchemeResponsibleOrganization, "Hospital");
	}));
	bytes = r.bytes("scheme of the source");
	is_text(value_in(bytes, { { DCM_CodingSchemeIdentificationSequence, 0 } }, DCM_CodingSchemeDesignator),
	       "99CXRZS", "ours");
	is_text(value_in(bytes, { { DCM_CodingSchemeIdentificationSequence, 1 } },
			DCM_CodingSchemeResponsibleOrganization), "Hospital", "and what the source said of its own");
	is_text(value_in(bytes, { { DCM_CodingSchemeIdentificationSequence, 2 } }, DCM_CodingSchemeDesignator),
	       "-", "not of what is not used");
}

static void test_descriptors()
{
	static const struct {
		const char *what;
		change odd;
		const char *row;
		size_t want;
	} cases[] = {
		{ "odd dates", [](DcmDataset &d) {
			put(d, DCM_StudyDate, "2026-01-02");
			put(d, DCM_ContentDate, "today");
			put(d, DCM_AcquisitionDate, "20261301");
		}, " DATE:", 0 },
		{ "odd times", [](DcmDataset &d) {
			put(d, DCM_StudyTime, "10:11:12");
			put(d, DCM_ContentTime, "noon");
			put(d, DCM_AcquisitionTime, "250000");
		}, " TIME:", 0 },
		{ "odd spacing", [](DcmDataset &d) { put(d, DCM_ImagerPixelSpacing, "0\\0,143"); }, "Pixel Spacing", 0 },
		{ "spacing of 17 digits", [](DcmDataset &d) {
			put(d, DCM_ImagerPixelSpacing, "0.143000000000000\\0.1430000000000000");
		}, "Pixel Spacing", 0 },
		{ "no spacing", [](DcmDataset &d) { drop(d, DCM_ImagerPixelSpacing); }, "Pixel Spacing", 0 },
		{ "Pixel Spacing alone", [](DcmDataset &d) {
			drop(d, DCM_ImagerPixelSpacing);
			put(d, DCM_PixelSpacing, "0.2\\0.2");
		}, "Pixel Spacing\")=\"0.2\"", 2 },
		{ "a body part", [](DcmDataset &d) { put(d, DCM_BodyPartExamined, "CHEST"); }, "Target Region", 0 },
		{ "a region code", [](DcmDataset &d) {
			put_code(d, DCM_AnatomicRegionSequence, "51185008", "SCT", "Chest");
		}, "Target Region\")=(51185008,SCT,\"Chest\")", 1 },
		{ "a region code that is not ASCII", [](DcmDataset &d) {
			put_code(d, DCM_AnatomicRegionSequence, "51185008", "SCT", "Th\xf4rax");
		}, "Target Region", 0 },
		{ "a view code", [](DcmDataset &d) {
			put_code(d, DCM_ViewCodeSequence, "R-10206", "SRT", "antero-posterior");
		}, "Image View\")=(R-10206,SRT", 1 },
		{ "an unknown view", [](DcmDataset &d) { put(d, DCM_ViewPosition, "AP SUPINE"); }, "Image View", 0 },
		{ "an unknown modality", [](DcmDataset &d) { put(d, DCM_Modality, "XR"); }, "Modality", 0 },
		{ "one orientation", [](DcmDataset &d) { put(d, DCM_PatientOrientation, "L"); }, "Patient Orientation", 1 },
		{ "a laterality", nullptr, "Laterality", 0 },
	};

	for (const auto &c : cases) {
		report r;

		find_three(r);
		r.image(dx(c.odd), "not analysed"); /* only the library speaks */
		is_int(count(rows(r.bytes(c.what)), c.row), c.want, "%s", c.what);
	}
}

/* A site's own words, in UTF-8, in the source's character set. */
static void test_own_texts()
{
	static const struct {
		const char *character_set, *want, *becomes;
		bool lacks;
	} cases[] = { /* the patient's name is not ASCII */
		{ "ISO_IR 192", "Ergu\xc3\x9f \xc2\xa0\xe2\x82\xac", "ISO_IR 192", false },
		{ "ISO_IR 100", "Ergu\xdf \xa0?", "ISO_IR 100", true },
		{ "ISO_IR 101", "Ergu\xdf \xa0?", "ISO_IR 101", true },
		{ "\\ISO 2022 IR 87", "Ergu\x1b-A\xdf \xa0?", "ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 100", true },
		{ "GB18030", "Ergu\x81\x30\x89\x38 \x81\x30\x84\x32\xa2\xe3", "GB18030", false },
		{ "", "Ergu? ??", "", true },
	};
	static const char *const words = "Ergu\xc3\x9f \xc2\xa0\xe2\x82\xac";

	for (const auto &c : cases) {
		report r;
		std::vector<std::string> lines;
		std::string bytes;

		r.find("erguss", words, { "36118008", "SCT", words });
		r.r.institution = words;
		r.r.series_description = "A\\B";
		r.image(dx([&](DcmDataset &d) { put(d, DCM_SpecificCharacterSet, c.character_set); }),
			{ { 0.5f, 0.5, SR_PRESENT } });
		bytes = r.bytes(c.character_set);
		lines = rows(bytes);
		is_int(count(lines, (std::string("\"Tracking Identifier\")=\"") + c.want).c_str()), 1, "%s: name",
		       c.character_set);
		is_int(count(lines, (std::string("SCT,\"") + c.want).c_str()), 2, "%s: meaning", c.character_set);
		is_text(value(bytes, DCM_SpecificCharacterSet), c.becomes, "%s: becomes", c.character_set);
		is_int(count(lines, "are not in the character set of the source"), c.lacks, "%s: what is lacking is said",
		       c.character_set);
		is_text(value(bytes, DCM_InstitutionName), c.want, "%s: institution", c.character_set);
		is_text(value(bytes, DCM_SeriesDescription), "A/B", "one value stays one value");
	}
}

static void test_lengths()
{
	report r;
	std::string longer(100, 'x'), bytes;

	r.find("finding", r.keep(longer), { "LONG", "99CXRZS", r.keep(longer) });
	r.r.manufacturer = r.r.model_name = r.r.serial = r.r.software = r.r.institution = r.r.series_description =
		r.r.station = longer.c_str();
	r.image(dx(), { { 0.5f, 0.5, SR_PRESENT } });
	bytes = r.bytes("long texts");
	for (const DcmTagKey &tag : { DCM_Manufacturer, DCM_ManufacturerModelName, DCM_DeviceSerialNumber,
				      DCM_SoftwareVersions, DCM_InstitutionName, DCM_SeriesDescription })
		is_int(value(bytes, tag).size(), 64, "(%04x,%04x) is cut to what LO takes", tag.getGroup(),
		       tag.getElement());
	is_int(value(bytes, DCM_StationName).size(), 16, "Station Name to what SH takes");
	is_int(count(rows(bytes), (",99CXRZS,\"" + longer.substr(0, 64) + "\")").c_str()), 2, "and the meaning");
}

/* ---- same input, same bytes ---- */

static std::unique_ptr<report> study_of_two()
{
	std::unique_ptr<report> r(new report);

	find_three(*r);
	r->image_scored(dx());
	r->image(lateral(), "lateral view");
	return r;
}

/* Runs f in a child that writes into a memory file; its bytes, or "" when it did not end with 0. */
static std::string in_child(const std::function<int(int)> &f)
{
	int fd = fd_memory("child"), status = -1;
	pid_t pid = fork();
	std::string ret;
	void *p = NULL;
	size_t n = 0;

	if (pid == 0)
		_exit(f(fd) < 0);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && read_file(fd, 64 << 20, &p, &n) == 0)
		ret.assign(static_cast<const char *>(p), n);
	else
		printf("# child: status 0x%x\n", static_cast<unsigned>(status));
	free(p);
	(void)close(fd);
	return ret;
}

static void test_same_bytes()
{
	std::string once = study_of_two()->bytes("once"), child;

	ok(once == study_of_two()->bytes("twice"), "the same bytes");
	child = in_child([](int fd) {
		(void)setenv("TZ", "Asia/Tokyo", 1);
		tzset();
		(void)usleep(20000);
		return study_of_two()->write(fd, NULL);
	});
	ok(child == once, "the same bytes in another process, time zone and moment");
}

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
/* Kills at what could touch the world: opening, connecting. */
static int lock()
{
	static const struct sock_filter no[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_stat, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_uname, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(no) / sizeof(no[0]), const_cast<struct sock_filter *>(no) };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

static void test_locked_down()
{
	std::unique_ptr<report> r = study_of_two();
	std::string locked = in_child([&](int fd) {
		int result = lock();

		return result < 0 ? result : r->write(fd, NULL);
	});

	ok(locked == r->bytes("free"), "the same bytes where nothing can be opened");
}
#else
static void test_locked_down()
{
	/* a build without filters has nothing to try: the hardened one tries it */
}
#endif

/* ---- dciodvfy ---- */

/* Lines with "Error" that dciodvfy has about a file; "?" when it cannot be run. */
static void test_dciodvfy()
{
	std::set<std::string> plain = errors_of(dx());

	if (plain.count("?") > 0) {
		skip("dciodvfy is not installed");
		return;
	}
	for (const char *sop_class : classes) {
		for (const odd_source &o : odd_sources) {
			report r;
			std::string source = dx(o.odd);

			r.r.sop_class = sop_class;
			find_three(r);
			r.image_scored(source);
			no_new_errors(r.bytes(o.what), errors_of(source), o.what);
		}
		for (bool calibrated : { true, false }) {
			report one, two;

			one.r.sop_class = two.r.sop_class = sop_class;
			one.find_many(14);
			one.image_scored(dx(), calibrated);
			no_new_errors(one.bytes("14 findings"), {}, calibrated ? "14 calibrated" : "14 uncalibrated");
			two.find_many(14);
			two.image(lateral(), "lateral view");
			two.image_scored(dx(), calibrated);
			two.r.predecessor_sop_uid = two.r.predecessor_series_uid = "2.25.9";
			no_new_errors(two.bytes("two images"), {}, "two images, one not analysed, amended");
		}
		report none;

		none.r.sop_class = sop_class;
		none.find_many(14);
		none.image(dx(), "not a chest");
		none.image(lateral(), "lateral view");
		no_new_errors(none.bytes("nothing analysed"), {}, "nothing analysed");
	}
}

/* ---- limits ---- */

static void test_large(size_t n_images, size_t n_findings)
{
	report r;
	std::string bytes;
	int64_t before;

	r.find_many(n_findings);
	for (size_t i = 0; i < n_images; i++)
		r.image_scored(dx([&](DcmDataset &d) {
			put(d, DCM_SOPInstanceUID, ("1.2.3.1." + std::to_string(i)).c_str());
		}));
	before = clock_boot_ms();
	bytes = r.bytes("a large report");
	printf("# %zu images, %zu findings: %zu bytes in %lld ms\n", n_images, n_findings, bytes.size(),
	       static_cast<long long>(clock_boot_ms() - before));
	is_int(count(rows(bytes), "(125007,DCM"), n_images * n_findings, "%zu images of %zu findings", n_images,
	       n_findings);
}

int main()
{
	struct err e;

	log_open("test_sr", LOG_LEVEL_ERROR);
	if (dicom_init(false, &e) < 0)
		plan_skip_all(e.text);
	sr_warm_up();
	test_locked_down(); /* first: nothing but the warm-up has run */
	test_tree();
	test_regions();
	test_uncalibrated();
	test_outcomes();
	test_not_scored();
	test_rejected();
	test_unreadable();
	test_copied();
	test_left_out();
	test_whose_elements();
	test_modules();
	test_timezone();
	test_evidence();
	test_predecessor();
	test_procedure();
	test_requests();
	test_scheme_of_source();
	test_descriptors();
	test_own_texts();
	test_lengths();
	test_same_bytes();
	test_dciodvfy();
	test_large(64, 14);
	test_large(1, 256);
	return done();
}
