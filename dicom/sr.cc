/* sr.cc: see sr.h.  One study's results as an Imaging Measurement Report (PS3.16 TID 1500).
 *
 * Job: the content tree through DCMTK's DSRDocumentTree, which knows what relationships each of the
 * three SR classes allows; every module around it element by element.
 * Promise: no clock, no generated UID, no file: the same struct sr_report gives the same bytes, in
 * any process.  That is why DSRDocument is not used: it makes UIDs and dates of its own, and its
 * UIDs need gethostid(), which may open files at each call.
 * Never: re-encodes, trims or checks a patient's or a study's element; refuses a report because of
 * a strange value in a source.  A descriptor that DICOM does not allow is left out instead.
 *
 * Our own texts are ASCII, so that they are right in every Specific Character Set; what a site wrote
 * into its findings list may be more, see charset.h.
 */
#include "dicom/result.hh"

#include <stdio.h>

#include <algorithm>
#include <set>

#include "dcmtk/dcmdata/dcuid.h"
#include "dcmtk/dcmdata/dcvrda.h"
#include "dcmtk/dcmdata/dcvrds.h"
#include "dcmtk/dcmdata/dcvrtm.h"
#include "dcmtk/dcmsr/cmr/cid29e.h"
#include "dcmtk/dcmsr/dsrdoctr.h"
#include "dcmtk/dcmsr/dsrimgvl.h"
#include "dcmtk/dcmsr/dsrnumvl.h"
#include "dcmtk/dcmsr/dsrscovl.h"

extern "C" {
#include "base/fdio.h"
}

#define DS_MAX 16
#define MEANING_BYTES_MAX (4 * LO_MAX)

#define REQUESTS_MAX 16 /* more orders behind one image are no orders */

#define LOCAL_SCHEME "99CXRZS"
#define LOCAL_SCHEME_UID "2.25.195000788339835311453065584184026576707"
#define LOCAL_SCHEME_NAME "Carzerod local codes"

namespace
{

using namespace result;

typedef DSRTypes T;

/* ---- the content tree ---- */

/* What a number was measured on: the image, or its outline, as one of `of` that begin side by side. */
struct place {
	source &image;
	size_t at, of; /* of: 0 for the image itself */
};

/* The cursor stands on a container; every item goes below it, after its other children.  The first
 * refusal is kept and later calls do nothing, so that a tree reads as a list of its rows. */
class content {
public:
	explicit content(T::E_DocumentType type) : tree(type) {}

	void root(const concept_code &name, const char *template_id)
	{
		if (tree.addContentItem(T::RT_isRoot, T::VT_Container) == 0)
			keep(EC_IllegalCall);
		keep(item().setConceptName(name, OFFalse));
		keep(item().setTemplateIdentification(template_id, "DCMR", UID_DICOMContentMappingResource));
	}

	/* Goes into the new container; up() leaves it. */
	void container(const concept_code &name, const char *template_id = NULL)
	{
		if (!below(T::RT_contains, T::VT_Container, name))
			return;
		if (template_id != NULL)
			keep(item().setTemplateIdentification(template_id, "DCMR", UID_DICOMContentMappingResource));
	}

	void up()
	{
		if (good())
			tree.goUp();
	}

	void code(T::E_RelationshipType rel, const concept_code &name, const DSRCodedEntryValue &value)
	{
		if (!below(rel, T::VT_Code, name))
			return;
		keep(item().setCodeValue(value, OFFalse));
		up();
	}

	void text(T::E_RelationshipType rel, const concept_code &name, const std::string &value)
	{
		string(rel, T::VT_Text, name, value);
	}

	void uid(T::E_RelationshipType rel, const concept_code &name, const std::string &value)
	{
		string(rel, T::VT_UIDRef, name, value);
	}

	/* PS3.16 TID 300 and 320: never without what it was measured on, some viewers fail then. */
	void measurement(const concept_code &name, const char *value, const concept_code &unit,
			 const struct place &place)
	{
		static const concept_code source_of_measurement = { "121112", "DCM", "Source of Measurement" };

		if (!below(T::RT_contains, T::VT_Num, name))
			return;
		keep(item().setNumericValue(DSRNumericMeasurementValue(value, unit, OFFalse), OFFalse));
		if (place.of > 0)
			outline(source_of_measurement, place);
		else
			reference(T::RT_inferredFrom, &source_of_measurement, place.image);
		up();
	}

	/* PS3.3 C.18.6.1.2: 0\0 is the outer corner of the first pixel.  The outline begins at a part of the
	 * left edge of its own: viewers write beside where it begins, and would write all in one place. */
	void outline(const concept_code &name, const struct place &place)
	{
		source &image = place.image;
		Uint16 rows = 0, columns = 0;
		DSRSpatialCoordinatesValue region(T::GT_Polyline);

		(void)image.header.findAndGetUint16(DCM_Rows, rows); /* scored: it has them */
		(void)image.header.findAndGetUint16(DCM_Columns, columns);

		Float32 width = columns, height = rows, from = height * static_cast<Float32>(place.at) / static_cast<Float32>(place.of),
			to = height * static_cast<Float32>(place.at + 1) / static_cast<Float32>(place.of);

		for (const auto &point : { std::pair<Float32, Float32>{ 0, from }, { 0, to }, { 0, height }, { width, height },
					   { width, 0 }, { 0, 0 }, { 0, from } })
			region.getGraphicDataList().addItem(point.first, point.second);
		if (!below(T::RT_inferredFrom, T::VT_SCoord, name))
			return;
		keep(item().setSpatialCoordinates(region, OFFalse));
		reference(T::RT_selectedFrom, NULL, image);
		up();
	}

	void reference(T::E_RelationshipType rel, const concept_code *name, const source &image)
	{
		if (!below(rel, T::VT_Image, name != NULL ? DSRCodedEntryValue(*name) : DSRCodedEntryValue()))
			return;
		keep(item().setImageReference(DSRImageReferenceValue(image.sop_class.c_str(),
								     image.sop_uid.c_str(), OFFalse),
					      OFFalse));
		up();
	}

	void date(T::E_RelationshipType rel, const concept_code &name, const std::string &value)
	{
		string(rel, T::VT_Date, name, value);
	}

	void time(T::E_RelationshipType rel, const concept_code &name, const std::string &value)
	{
		string(rel, T::VT_Time, name, value);
	}

	void number(T::E_RelationshipType rel, const concept_code &name, const std::string &value,
		    const concept_code &unit)
	{
		if (!below(rel, T::VT_Num, name))
			return;
		keep(item().setNumericValue(DSRNumericMeasurementValue(value.c_str(), unit, OFFalse), OFFalse));
		up();
	}

	OFCondition write(DcmItem &to)
	{
		return good() ? tree.write(to) : status;
	}

private:
	DSRDocumentTree tree;
	OFCondition status = EC_Normal;

	bool good() const
	{
		return status.good();
	}

	DSRContentItem &item()
	{
		return tree.getCurrentContentItem();
	}

	void keep(const OFCondition &c)
	{
		if (good())
			status = c;
	}

	bool below(T::E_RelationshipType rel, T::E_ValueType type, const DSRCodedEntryValue &name)
	{
		if (!good())
			return false;
		if (tree.addContentItem(rel, type, T::AM_belowCurrent) == 0) {
			keep(EC_IllegalCall); /* not in this SR class: a mistake of ours */
			return false;
		}
		if (!name.isEmpty())
			keep(item().setConceptName(name, OFFalse));
		return good();
	}

	void string(T::E_RelationshipType rel, T::E_ValueType type, const concept_code &name,
		    const std::string &value)
	{
		if (value.empty() || !below(rel, type, name))
			return;
		keep(item().setStringValue(value.c_str(), OFFalse));
		up();
	}
};

/* ---- texts ---- */

bool is_printable_ascii(const std::string &text)
{
	for (unsigned char c : text) {
		if (c < ' ' || c > '~')
			return false;
	}
	return true;
}

/* Of a code: at most SH_MAX characters of ASCII, one value. */
bool is_code_string(const std::string &text)
{
	return text.size() <= SH_MAX && is_printable_ascii(text) && text.find('\\') == std::string::npos;
}

/* A meaning in another character set has its bytes copied, uncounted: they say the same there. */
bool is_code_meaning(const std::string &text, bool ascii)
{
	if (!is_printable_ascii(text))
		return !ascii && text.size() <= MEANING_BYTES_MAX;
	return text.size() <= LO_MAX && text.find('\\') == std::string::npos;
}

/* The first item of a code sequence, if it is a code (PS3.3 8.8); `ascii`: only one whose bytes mean
 * the same in every character set. */
bool source_code(DcmItem &header, const DcmTagKey &sequence, bool ascii, DSRCodedEntryValue &ret)
{
	DcmItem *item = header_item(header, sequence);
	std::string value, scheme, version, meaning;

	if (item == NULL)
		return false;
	value = trimmed(header_text(*item, DCM_CodeValue));
	scheme = trimmed(header_text(*item, DCM_CodingSchemeDesignator));
	version = trimmed(header_text(*item, DCM_CodingSchemeVersion));
	meaning = trimmed(header_text(*item, DCM_CodeMeaning));
	if (value.empty() || scheme.empty() || meaning.empty() || !is_code_string(value) ||
	    !is_code_string(scheme) || !is_code_string(version) || !is_code_meaning(meaning, ascii))
		return false;
	ret = DSRCodedEntryValue(value.c_str(), scheme.c_str(), version.c_str(), meaning.c_str(),
				 T::CVT_auto, OFFalse);
	return true;
}

/* One component of a multi-valued string, or "". */
std::string component(DcmItem &item, const DcmTagKey &tag, unsigned long i)
{
	OFString value;

	if (item.findAndGetOFString(tag, value, i).bad())
		return "";
	return trimmed(value.c_str());
}

/* ---- what is known before a row is written ---- */

/* ---- image library (TID 1600 to 1603) ---- */

const concept_code pixels = { "{pixels}", "UCUM", "pixels" };
const concept_code millimeter = { "mm", "UCUM", "millimeter" };

void describe_date(content &t, DcmItem &header, const DcmTagKey &tag, const concept_code &name)
{
	std::string value = trimmed(header_text(header, tag));

	if (!value.empty() && DcmDate::checkStringValue(value.c_str(), "1").good())
		t.date(T::RT_hasAcqContext, name, value);
}

void describe_time(content &t, DcmItem &header, const DcmTagKey &tag, const concept_code &name)
{
	std::string value = trimmed(header_text(header, tag));

	if (!value.empty() && DcmTime::checkStringValue(value.c_str(), "1").good())
		t.time(T::RT_hasAcqContext, name, value);
}

void describe_text(content &t, const std::string &value, const concept_code &name)
{
	if (is_printable_ascii(value))
		t.text(T::RT_hasAcqContext, name, value);
}

void describe_count(content &t, DcmItem &header, const DcmTagKey &tag, const concept_code &name)
{
	Uint16 n = 0;

	if (header.findAndGetUint16(tag, n).good() && n > 0)
		t.number(T::RT_hasAcqContext, name, std::to_string(n), pixels);
}

void describe_spacing(content &t, DcmItem &header, unsigned long i, const concept_code &name)
{
	std::string value = component(header, DCM_ImagerPixelSpacing, i);

	if (value.empty())
		value = component(header, DCM_PixelSpacing, i);
	if (value.empty() || value.size() > DS_MAX ||
	    DcmDecimalString::checkStringValue(value.c_str(), "1").bad())
		return;
	if (strtod(value.c_str(), NULL) > 0)
		t.number(T::RT_hasAcqContext, name, value, millimeter);
}

/* As the source codes it.  A Body Part alone is not turned into a code: 816094009 for CHEST is right by
 * PS3.16 since 2021, and an error to validators made before. */
void describe_region(content &t, DcmItem &header)
{
	static const concept_code name = { "123014", "DCM", "Target Region" };
	DSRCodedEntryValue region;

	if (source_code(header, DCM_AnatomicRegionSequence, true, region))
		t.code(T::RT_hasAcqContext, name, region);
}

void describe_view(content &t, DcmItem &header)
{
	static const concept_code name = { "111031", "DCM", "Image View" };
	static const struct {
		const char *position;
		concept_code view; /* CID 4010 */
	} views[] = {
		{ "PA", { "272479007", "SCT", "postero-anterior" } },
		{ "AP", { "399348003", "SCT", "antero-posterior" } },
		{ "LL", { "399173006", "SCT", "left lateral" } },
		{ "RL", { "399198007", "SCT", "right lateral" } },
	};
	std::string position = trimmed(header_text(header, DCM_ViewPosition));
	DSRCodedEntryValue view;

	if (!source_code(header, DCM_ViewCodeSequence, true, view)) {
		for (const auto &v : views) {
			if (position == v.position)
				view = v.view;
		}
	}
	if (view.isValid())
		t.code(T::RT_hasAcqContext, name, view);
}

/* One group an image, so that its descriptors are common to the group by construction. */
void describe_image(content &t, source &image)
{
	DcmItem &h = image.header;
	DSRCodedEntryValue modality = CMR_CID29e().mapModality(trimmed(header_text(h, DCM_Modality)).c_str());

	t.container({ "126200", "DCM", "Image Library Group" });
	if (modality.isValid())
		t.code(T::RT_hasAcqContext, { "121139", "DCM", "Modality" }, modality);
	describe_region(t, h);
	/* Image Laterality is left out: its "unpaired" has no code in CID 244 */
	describe_date(t, h, DCM_StudyDate, { "111060", "DCM", "Study Date" });
	describe_time(t, h, DCM_StudyTime, { "111061", "DCM", "Study Time" });
	describe_date(t, h, DCM_ContentDate, { "111018", "DCM", "Content Date" });
	describe_time(t, h, DCM_ContentTime, { "111019", "DCM", "Content Time" });
	describe_date(t, h, DCM_AcquisitionDate, { "126201", "DCM", "Acquisition Date" });
	describe_time(t, h, DCM_AcquisitionTime, { "126202", "DCM", "Acquisition Time" });
	describe_count(t, h, DCM_Rows, { "110910", "DCM", "Pixel Data Rows" });
	describe_count(t, h, DCM_Columns, { "110911", "DCM", "Pixel Data Columns" });
	describe_view(t, h);
	describe_text(t, component(h, DCM_PatientOrientation, 0),
		      { "111044", "DCM", "Patient Orientation Row" });
	describe_text(t, component(h, DCM_PatientOrientation, 1),
		      { "111043", "DCM", "Patient Orientation Column" });
	describe_spacing(t, h, 1, { "111026", "DCM", "Horizontal Pixel Spacing" });
	describe_spacing(t, h, 0, { "111066", "DCM", "Vertical Pixel Spacing" });
	t.reference(T::RT_contains, NULL, image);
	t.up();
}

/* ---- findings ---- */

/* The list's code, with a meaning that fits its VR.  (A finding without a code of its own has got a local
 * one when the list was read.) */
struct finding_code {
	std::string value, scheme, meaning;

	finding_code(const struct sr_finding *f, const own_text &own)
		: value(f->code.value), scheme(f->code.scheme), meaning(own(f->code.meaning, LO_MAX))
	{
	}

	operator concept_code() const
	{
		return { value.c_str(), scheme.c_str(), meaning.c_str() };
	}
};

/* TID 4019.  Whether it is calibrated is a matter of each score. */
void describe_algorithm(content &t, const work &w, const struct sr_finding *f, const struct sr_score *s)
{
	static const concept_code parameter = { "111002", "DCM", "Algorithm Parameters" };
	const struct sr_report *r = w.r;
	std::string lines = f->parameters;
	size_t end;
	auto put = [&](const std::string &line) { t.text(T::RT_hasConceptMod, parameter, line); };

	t.text(T::RT_hasConceptMod, { "111001", "DCM", "Algorithm Name" }, w.own(r->model_name));
	t.text(T::RT_hasConceptMod, { "111003", "DCM", "Algorithm Version" }, w.own(r->software));
	put("prompt=\"" + w.own(f->prompt) + "\"");
	put(is_calibrated(s) ? "calibrated=yes" : "calibrated=no");
	for (size_t at = 0; at < lines.size(); at = end + 1) {
		std::string line;

		end = std::min(lines.find('\n', at), lines.size());
		line = lines.substr(at, end - at);
		put(w.own(line.c_str()));
	}
	put(std::string("weights_sha256=") + r->weights_sha256);
	put(std::string("findings_sha256=") + r->findings_sha256);
	put(std::string("recipe=") + r->recipe);
	put(std::string("precision=") + r->precision);
}

void write_probability(content &t, const struct sr_score *s, const finding_code &code, const struct place &place)
{
	static const concept_code certainty = { "111012", "DCM", "Certainty of Finding" };
	static const concept_code percent = { "%", "UCUM", "Percent" };
	static const concept_code absent = { "272519000", "SCT", "Absent" };
	static const concept_code undetermined = { "373068000", "SCT", "Undetermined" };
	static const concept_code present = { "52101004", "SCT", "Present" };
	char value[DS_MAX + 1];

	(void)snprintf(value, sizeof(value), "%.1f", s->probability * 100);
	t.measurement(certainty, value, percent, place);
	t.code(T::RT_contains, code,
	       s->decision == SR_PRESENT ? present : s->decision == SR_ABSENT ? absent : undetermined);
}

void write_logit(content &t, const struct sr_score *s, const struct place &place)
{
	static const concept_code raw = { "RAWSCORE", LOCAL_SCHEME, "CARZero raw score" };
	static const concept_code no_units = { "1", "UCUM", "no units" };
	char value[64];

	(void)snprintf(value, sizeof(value), "%.4f", static_cast<double>(s->logit));
	if (strlen(value) > DS_MAX)
		(void)snprintf(value, sizeof(value), "%.8g", static_cast<double>(s->logit));
	t.measurement(raw, value, no_units, place);
}

const char *decision_text(const struct sr_score *s)
{
	if (!is_calibrated(s))
		return "raw score, nothing decided";
	return s->decision == SR_PRESENT ? "present" : s->decision == SR_ABSENT ? "absent" : "undetermined";
}

/* TID 1501, rows in the template's order. */
void write_group(content &t, const work &w, const struct sr_finding *f, const struct sr_score *s, const struct place &place)
{
	const source &image = place.image;
	finding_code code(f, w.own);
	std::string name = "tracking|" + image.sop_uid + "|" + f->id;
	char uid[UID_MAX];

	uid_from_name(w.r->uid_namespace, name.c_str(), uid);
	t.container({ "125007", "DCM", "Measurement Group" }, "1501");
	t.text(T::RT_hasObsContext, { "112039", "DCM", "Tracking Identifier" }, w.own(f->name));
	t.uid(T::RT_hasObsContext, { "112040", "DCM", "Tracking Unique Identifier" }, uid);
	/* mappers turn a Finding into an assertion, so only where it is one */
	if (is_calibrated(s) && s->decision == SR_PRESENT)
		t.code(T::RT_contains, { "121071", "DCM", "Finding" }, concept_code(code));
	if (f->has_site) {
		std::string meaning = w.own(f->site.meaning, LO_MAX);

		t.code(T::RT_hasConceptMod, { "363698007", "SCT", "Finding Site" },
		       concept_code{ f->site.value, f->site.scheme, meaning.c_str() });
	}
	describe_algorithm(t, w, f, s);
	if (is_calibrated(s))
		write_probability(t, s, code, place);
	else
		write_logit(t, s, place);
	if (place.of > 0) /* the same viewers show a number without the name of its group */
		t.text(T::RT_contains, { "121106", "DCM", "Comment" }, w.own(f->name) + ": " + decision_text(s));
	t.up();
}

/* ---- outcome ---- */

/* CID 6047 */
concept_code summary(const work &w)
{
	if (w.o.calibrated + w.o.raw == 0)
		return { "111245", "DCM", "No algorithms succeeded; without findings" };
	if (w.o.complete < w.r->n_images)
		return w.o.present ?
			       concept_code{ "111244", "DCM", "Not all algorithms succeeded; with findings" } :
			       concept_code{ "111243", "DCM", "Not all algorithms succeeded; without findings" };
	return w.o.present ? concept_code{ "111242", "DCM", "All algorithms succeeded; with findings" } :
			     concept_code{ "111241", "DCM", "All algorithms succeeded; without findings" };
}

/* "Image 2 of 3 (ComputedRadiographyImageStorage)" */
std::string image_name(const work &w, size_t i)
{
	const char *name = dcmFindNameOfUID(w.images[i]->sop_class.c_str(), NULL);

	return "Image " + std::to_string(i + 1) + " of " + std::to_string(w.r->n_images) +
	       (name != NULL ? " (" + std::string(name) + ")" : "");
}

std::string why_not(const work &w, size_t i)
{
	if (!w.images[i]->readable)
		return "its header cannot be read";
	return w.r->images[i].why[0] != '\0' ? w.own(w.r->images[i].why) : "no reason is known";
}

void write_comments(content &t, const work &w)
{
	auto put = [&](const std::string &text) {
		t.text(T::RT_contains, { "121106", "DCM", "Comment" }, text);
	};

	put(w.own(w.r->disclaimer));
	/* "without findings" above must not be read as "nothing there" */
	if (w.o.raw > 0)
		put(std::string(w.o.calibrated > 0 ? "Some" : "All") +
		    " scores are raw model outputs without calibration: nothing was decided from them, "
		    "neither presence nor absence.");
	if (w.own.lacks() > 0)
		put(std::to_string(w.own.lacks()) + " characters of this site's texts are not in the character set of "
		    "the source; they are written as '?'.");
	for (size_t i = 0; i < w.r->n_images; i++) {
		if (!w.analysed(i))
			put(image_name(w, i) + " was not analysed: " + why_not(w, i));
		for (size_t k = 0; w.analysed(i) && k < w.r->n_findings; k++) {
			if (!is_scored(&w.r->images[i].scores[k]))
				put(image_name(w, i) + " was not analysed for: " + w.own(w.r->findings[k].name));
		}
	}
}

/* ---- the whole tree ---- */

/* RFC 5646 tags as CID 5000 names them; a tag without a name here stands for itself. */
concept_code language_code(const char *tag)
{
	static const concept_code names[] = {
		{ "en", "RFC5646", "English" },	   { "eng", "RFC5646", "English" },
		{ "de", "RFC5646", "German" },	   { "deu", "RFC5646", "German" },
		{ "fr", "RFC5646", "French" },	   { "fra", "RFC5646", "French" },
		{ "it", "RFC5646", "Italian" },	   { "ita", "RFC5646", "Italian" },
		{ "es", "RFC5646", "Spanish" },	   { "spa", "RFC5646", "Spanish" },
		{ "pt", "RFC5646", "Portuguese" }, { "por", "RFC5646", "Portuguese" },
		{ "nl", "RFC5646", "Dutch" },	   { "nld", "RFC5646", "Dutch" },
		{ "zh", "RFC5646", "Chinese" },	   { "zho", "RFC5646", "Chinese" },
		{ "ja", "RFC5646", "Japanese" },   { "jpn", "RFC5646", "Japanese" },
	};

	for (const concept_code &n : names) {
		if (strcmp(n.value, tag) == 0)
			return n;
	}
	return { tag, "RFC5646", tag };
}

/* TID 1204 and 1001 to 1004 */
void write_observer(content &t, const work &w)
{
	const struct sr_report *r = w.r;

	t.code(T::RT_hasConceptMod, { "121049", "DCM", "Language of Content Item and Descendants" },
	       language_code(r->language));
	t.code(T::RT_hasObsContext, { "121005", "DCM", "Observer Type" },
	       concept_code{ "121007", "DCM", "Device" });
	t.uid(T::RT_hasObsContext, { "121012", "DCM", "Device Observer UID" }, r->device_uid);
	t.text(T::RT_hasObsContext, { "121013", "DCM", "Device Observer Name" }, w.own(r->station));
	t.text(T::RT_hasObsContext, { "121014", "DCM", "Device Observer Manufacturer" },
	       w.own(r->manufacturer));
	t.text(T::RT_hasObsContext, { "121015", "DCM", "Device Observer Model Name" },
	       w.own(r->model_name));
	t.text(T::RT_hasObsContext, { "121016", "DCM", "Device Observer Serial Number" }, w.own(r->serial));
}

void write_measurements(content &t, const work &w)
{
	/* empty when nothing was scored: some viewers fail where it is missing */
	t.container({ "126010", "DCM", "Imaging Measurements" });
	for (size_t i = 0; i < w.r->n_images; i++) {
		for (size_t k = 0; w.analysed(i) && k < w.r->n_findings; k++) {
			const struct sr_score *s = &w.r->images[i].scores[k];

			if (is_scored(s))
				write_group(t, w, &w.r->findings[k], s, { *w.images[i], k, w.r->whole_image_regions ? w.r->n_findings : 0 });
		}
	}
	t.up();
}

void write_tree(content &t, const work &w)
{
	DSRCodedEntryValue procedure = concept_code{ "363679005", "SCT", "Imaging procedure" }; /* of CID 100 */

	(void)source_code(w.first->header, DCM_ProcedureCodeSequence, false, procedure); /* else that */
	t.root({ "126000", "DCM", "Imaging Measurement Report" }, "1500");
	write_observer(t, w);
	t.code(T::RT_hasConceptMod, { "121058", "DCM", "Procedure reported" }, procedure);
	t.container({ "111028", "DCM", "Image Library" }, "1600");
	for (const auto &image : w.images) {
		if (image->readable)
			describe_image(t, *image);
	}
	t.up();
	write_measurements(t, w);
	t.container({ "C0034375", "UMLS", "Qualitative Evaluations" });
	t.code(T::RT_contains, { "111017", "DCM", "CAD Processing and Findings Summary" }, summary(w));
	write_comments(t, w);
	t.up();
}

/* ---- the modules around it ---- */

/* Study, series and instance, each level once, in the sequences that name documents and evidence
 * (PS3.3 C.17.2). */
OFCondition put_reference(DcmItem &to, const DcmTagKey &sequence, const std::string &study_uid,
			  const std::string &series_uid, const std::string &sop_class,
			  const std::string &sop_uid)
{
	elements e(to);
	DcmItem *study = e.named(sequence, DCM_StudyInstanceUID, study_uid);

	if (study == NULL)
		return e.status;
	elements in_study(*study);
	DcmItem *series = in_study.named(DCM_ReferencedSeriesSequence, DCM_SeriesInstanceUID, series_uid);

	if (series == NULL)
		return in_study.status;
	elements in_series(*series);
	DcmItem *sop = in_series.add(DCM_ReferencedSOPSequence);

	if (sop == NULL)
		return in_series.status;
	elements in_sop(*sop);
	in_sop.put(DCM_ReferencedSOPClassUID, sop_class);
	in_sop.put(DCM_ReferencedSOPInstanceUID, sop_uid);
	return in_sop.status;
}

OFCondition put_evidence(DcmItem &to, const sources &images)
{
	std::set<std::string> seen;
	OFCondition c = EC_Normal;

	for (const auto &image : images) {
		if (c.good() && image->readable && seen.insert(image->sop_uid).second)
			c = put_reference(to, DCM_CurrentRequestedProcedureEvidenceSequence, image->study_uid,
					  image->series_uid, image->sop_class, image->sop_uid);
	}
	return c;
}

std::set<std::string> schemes_used(const work &w)
{
	std::set<std::string> ret;
	DSRCodedEntryValue procedure;

	if (source_code(w.first->header, DCM_ProcedureCodeSequence, false, procedure))
		ret.insert(procedure.getCodingSchemeDesignator().c_str());
	for (size_t k = 0; w.o.calibrated + w.o.raw > 0 && k < w.r->n_findings; k++) {
		if (w.o.calibrated > 0)
			ret.insert(finding_code(&w.r->findings[k], w.own).scheme);
		if (w.r->findings[k].has_site)
			ret.insert(w.r->findings[k].site.scheme);
	}
	if (w.o.raw > 0)
		ret.insert(LOCAL_SCHEME);
	return ret;
}

/* What the source says about a scheme of its own; false: nothing. */
bool copy_scheme(DcmItem &from, const std::string &scheme, DcmItem &to)
{
	const DcmTagKey sequence = DCM_CodingSchemeIdentificationSequence;
	DcmItem *item = NULL;

	for (long i = 0; from.findAndGetSequenceItem(sequence, item, i).good(); i++) {
		if (trimmed(header_text(*item, DCM_CodingSchemeDesignator)) != scheme)
			continue;
		to = *item;
		return true;
	}
	return false;
}

/* PS3.3 C.12.1.1.1: the schemes that PS3.16 table 8-1 does not define. */
OFCondition put_schemes(DcmItem &to, const work &w)
{
	static const std::set<std::string> standard = {
		"ACR", "ASTM-sigpurpose", "BARI", "BI", "C4", "C5", "CD8", "CDT", "DCM", "FMA", "HPC",
		"I10", "I10P", "I9", "I9C", "IBSI", "ICDO3", "ISO3166_1", "ISO639_1", "ISO639_2",
		"ITIS_TSN", "LN", "MAYOASRG", "MDNS", "MSH", "NCIt", "NEU", "NICIP", "PUBCHEM_CID",
		"RADELEMENT", "RADLEX", "RFC3066", "RFC5646", "SCT", "SDM", "SNM3", "SRT", "UBERON",
		"UCUM", "UMLS", "UNS",
	};
	elements e(to);

	for (const std::string &scheme : schemes_used(w)) {
		DcmItem *item = standard.count(scheme) > 0 ?
					NULL : e.add(DCM_CodingSchemeIdentificationSequence);

		if (item == NULL)
			continue;
		elements in(*item);
		if (scheme == LOCAL_SCHEME) {
			in.put(DCM_CodingSchemeDesignator, scheme);
			in.put(DCM_CodingSchemeUID, LOCAL_SCHEME_UID);
			in.put(DCM_CodingSchemeName, LOCAL_SCHEME_NAME);
		} else if (!copy_scheme(w.first->header, scheme, *item))
			in.put(DCM_CodingSchemeDesignator, scheme);
		e.keep(in.status);
	}
	return e.status;
}

/* What was ordered, as the image that the report is about says it (PS3.3 C.17.2, type 1C): its request
 * attributes, or its accession number alone. */
OFCondition put_requests(DcmItem &to, const work &w)
{
	static const DcmTagKey of_request[] = {
		DCM_ReferencedStudySequence,  DCM_AccessionNumber,	      DCM_IssuerOfAccessionNumberSequence,
		DCM_PlacerOrderNumberImagingServiceRequest, DCM_FillerOrderNumberImagingServiceRequest,
		DCM_RequestedProcedureID,     DCM_RequestedProcedureDescription, DCM_RequestedProcedureCodeSequence,
	};
	static const DcmTagKey type_2[] = {
		DCM_ReferencedStudySequence, DCM_AccessionNumber, DCM_PlacerOrderNumberImagingServiceRequest,
		DCM_FillerOrderNumberImagingServiceRequest, DCM_RequestedProcedureID, DCM_RequestedProcedureDescription,
		DCM_RequestedProcedureCodeSequence,
	};
	DcmItem &from = w.first->header, *request = NULL;
	bool accession = header_text(from, DCM_AccessionNumber)[0] != '\0';
	elements e(to);

	for (long i = 0; i < REQUESTS_MAX; i++) {
		bool any = from.findAndGetSequenceItem(DCM_RequestAttributesSequence, request, i).good();
		DcmItem *added = any || (i == 0 && accession) ? e.add(DCM_ReferencedRequestSequence) : NULL;

		if (added == NULL)
			break;
		elements in(*added);
		in.put(DCM_StudyInstanceUID, w.first->study_uid);
		for (const DcmTagKey &tag : of_request)
			if (any)
				in.copy(tag, *request);
		if (!added->tagExists(DCM_AccessionNumber)) {
			in.copy(DCM_AccessionNumber, from);
			in.copy(DCM_IssuerOfAccessionNumberSequence, from);
		}
		for (const DcmTagKey &tag : type_2)
			in.keep_or_empty(tag);
		e.keep(in.status);
	}
	return e.status;
}

void put_document(elements &e, DcmItem &to, const work &w)
{
	const struct sr_report *r = w.r;

	e.put(DCM_InstanceNumber, "1");
	e.put(DCM_CompletionFlag, "COMPLETE");
	e.put(DCM_VerificationFlag, "UNVERIFIED");
	e.put(DCM_ContentDate, r->date);
	e.put(DCM_ContentTime, r->time);
	e.empty(DCM_PerformedProcedureCodeSequence);
	e.keep(put_evidence(to, w.images));
	e.keep(put_requests(to, w));
	if (r->predecessor_sop_uid[0] != '\0')
		e.keep(put_reference(to, DCM_PredecessorDocumentsSequence, w.first->study_uid,
				     r->predecessor_series_uid, r->sop_class, r->predecessor_sop_uid));
}

OFCondition put_modules(DcmItem &to, const work &w)
{
	elements e(to);

	put_missing(e);
	put_series(e, w, "SR");
	e.empty(DCM_ReferencedPerformedProcedureStepSequence);
	put_equipment(e, w);
	put_document(e, to, w);
	put_common(e, w, w.r->sop_class);
	e.keep(put_schemes(to, w));
	e.keep(put_algorithm(to, w));
	return e.status;
}

/* ---- the file ---- */

int document_type(const char *sop_class, T::E_DocumentType *ret, struct err *e)
{
	*ret = T::sopClassUIDToDocumentType(sop_class);
	if (*ret == T::DT_EnhancedSR || *ret == T::DT_ComprehensiveSR || *ret == T::DT_Comprehensive3DSR)
		return 0;
	return err_set(e, -ENOTSUP,
		       "report of SOP class %s: only Enhanced, Comprehensive and Comprehensive 3D SR",
		       sop_class);
}

int compose(const struct sr_report *report, memory_stream &out, struct err *e)
{
	T::E_DocumentType type;
	DcmFileFormat file;
	DcmDataset &to = *file.getDataset();
	work w{};
	OFCondition c;
	int r = document_type(report->sop_class, &type, e);

	w.r = report;
	if (r == 0)
		r = begin_result(w, to, e);
	if (r < 0)
		return r;

	content tree(type);
	write_tree(tree, w);
	c = tree.write(to);
	if (c.good())
		c = put_modules(to, w);
	if (c.good())
		c = encode(file, out);
	return c.good() ? 0 : condition_err(e, -EBADMSG, "report", c);
}

}

int sr_write(const struct sr_report *report, int fd, struct err *e)
{
	return guarded(e, "sr_write", [&]() -> int {
		memory_stream out;
		int r = compose(report, out, e);

		if (r < 0)
			return r;
		r = write_full(fd, out.bytes().data(), out.bytes().size());
		return r < 0 ? err_set(e, r, "report: %s", strerror(-r)) : 0;
	});
}

/* The smallest source that has all that is looked at; explicit VR little endian. */
void sr_warm_up(void)
{
	static const char file[] =
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"DICM\2\0\0\0UL\4\0\34\0\0\0\2\0\20\0UI\24\0" "1.2.840.10008.1.2.1\0"
		"\x08\0\x05\0CS\x0a\0ISO_IR 100"
		"\x08\0\x16\0UI\x1a\0" UID_ComputedRadiographyImageStorage "\0"
		"\x08\0\x18\0UI\4\0" "1.2\0"
		"\x08\0\x20\0DA\x08\0" "20260101"
		"\x08\0\x30\0TM\6\0" "101010"
		"\x08\0\x60\0CS\2\0CR"
		"\x10\0\x10\0PN\4\0A^B "
		"\x18\0\x15\0CS\6\0CHEST "
		"\x18\0\x64\x11" "DS\4\0" "1\\1 "
		"\x20\0\x0d\0UI\4\0" "1.3\0"
		"\x20\0\x0e\0UI\4\0" "1.4\0";
	static const uint8_t name_space[16] = { 0 };
	struct sr_finding finding = {};
	struct sr_score scores[2] = { { 0.5f, 0.5, SR_PRESENT }, { 0.5f, static_cast<double>(NAN), SR_NONE } };
	struct sr_image images[3] = {};
	struct sr_report report = {};
	struct err e;
	int r;

	charset_warm_up();
	finding.id = finding.name = finding.prompt = finding.parameters = "warm-up";
	finding.code = { "", "", "" };
	for (struct sr_image &image : images) {
		image.file = file;
		image.file_size = sizeof(file) - 1;
	}
	images[0].analysed = images[1].analysed = true;
	images[0].scores = &scores[0];
	images[1].scores = &scores[1];
	images[2].why = "warm-up";
	report.sop_class = UID_ComprehensiveSRStorage;
	report.sop_uid = report.series_uid = report.device_uid = "1.2";
	report.predecessor_sop_uid = report.predecessor_series_uid = "1.2";
	report.date = "20260101";
	report.time = "101010";
	report.timezone = "+0000";
	report.language = "eng";
	report.manufacturer = report.model_name = report.serial = report.software = report.station =
		report.institution = report.series_description = report.disclaimer = "warm-up";
	report.weights_sha256 = report.findings_sha256 = report.recipe = report.precision = "";
	report.uid_namespace = name_space;
	report.findings = &finding;
	report.n_findings = 1;
	report.images = images;
	report.n_images = 3;
	r = guarded(&e, "sr_warm_up", [&]() -> int {
		memory_stream out;

		return compose(&report, out, &e);
	});
	if (r < 0)
		log_debug("warm-up: %s", e.text);
}
