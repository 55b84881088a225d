/* result.cc: see result.hh.
 *
 * Never: re-encodes, trims or checks an element of a patient or a study.
 */
#include "dicom/result.hh"

#include "dcmtk/dcmdata/dcmetinf.h"

#include "dicom/dicom.h"

/* Of a source's header; it has passed the receiver and usually the decoder before. */
#define SOURCE_DEPTH_MAX 16
#define SOURCE_ITEMS_MAX 10000
#define SOURCE_FRAGMENTS_MAX 1000000
#define SOURCE_PIXELS_MAX (1u << 28)

namespace result
{

/* ---- the sources ---- */

std::string trimmed(const char *text)
{
	const std::string t(text);
	size_t from = t.find_first_not_of(' ');

	return from == std::string::npos ? "" : t.substr(from, t.find_last_not_of(' ') - from + 1);
}

/* 0 or -ENOMEM; an image that cannot be read is not readable, and named in a comment. */
static int source_read(const struct sr_image *image, source &ret)
{
	struct dicom_limits limits = {};
	struct scan scan;
	bool parsed = false;
	int r;

	limits.side = UINT16_MAX;
	limits.pixels = SOURCE_PIXELS_MAX;
	limits.depth = SOURCE_DEPTH_MAX;
	limits.items = SOURCE_ITEMS_MAX;
	limits.fragments = SOURCE_FRAGMENTS_MAX;
	r = scan_file(image->file, image->file_size, &limits, &scan);
	if (r < 0)
		return r;
	if (scan.data_set != NULL && scan.header_size > 0)
		parsed = header_read(scan, ret.header).good();
	scan_free(&scan); /* of a deflated file it holds pixels */
	if (!parsed)
		return 0;
	ret.sop_class = trimmed(header_text(ret.header, DCM_SOPClassUID));
	ret.sop_uid = trimmed(header_text(ret.header, DCM_SOPInstanceUID));
	ret.study_uid = trimmed(header_text(ret.header, DCM_StudyInstanceUID));
	ret.series_uid = trimmed(header_text(ret.header, DCM_SeriesInstanceUID));
	ret.readable = !ret.sop_class.empty() && !ret.sop_uid.empty() && !ret.study_uid.empty() &&
		       !ret.series_uid.empty();
	return 0;
}

static int read_sources(work &w, struct err *e)
{
	source *analysed = NULL, *other = NULL;

	for (size_t i = 0; i < w.r->n_images; i++) {
		source *image = new source;
		int r;

		w.images.emplace_back(image);
		r = source_read(&w.r->images[i], *image);
		if (r < 0)
			return err_set(e, r, "image %zu of the report: not enough memory", i + 1);
		if (!image->readable)
			continue;
		if (w.r->images[i].analysed && analysed == NULL)
			analysed = image;
		if (other == NULL)
			other = image;
		if (image->study_uid != other->study_uid)
			return err_set(e, -EBADMSG, "image %zu of the report is of another study", i + 1);
	}
	w.first = analysed != NULL ? analysed : other;
	if (w.first == NULL)
		return err_set(e, -EBADMSG, "no image of the report has a header that can be read");
	return 0;
}

static outcome count(const work &w)
{
	outcome o;

	for (size_t i = 0; i < w.r->n_images; i++) {
		bool complete = true;

		for (size_t k = 0; w.analysed(i) && k < w.r->n_findings; k++) {
			const struct sr_score *s = &w.r->images[i].scores[k];

			if (!is_scored(s)) {
				complete = false;
				continue;
			}
			o.calibrated += is_calibrated(s);
			o.raw += !is_calibrated(s);
			o.present |= is_calibrated(s) && s->decision == SR_PRESENT;
		}
		o.complete += w.analysed(i) && complete;
	}
	return o;
}

/* All that own() will be asked for. */
static std::vector<const char *> own_texts(const struct sr_report *r)
{
	std::vector<const char *> ret = { r->manufacturer, r->model_name,  r->serial,     r->software,
					  r->station,	   r->institution, r->series_description, r->disclaimer };

	for (size_t k = 0; k < r->n_findings; k++) {
		const struct sr_finding *f = &r->findings[k];

		ret.insert(ret.end(), { f->name, f->prompt, f->code.meaning, f->parameters });
		if (f->has_site)
			ret.push_back(f->site.meaning);
	}
	for (size_t i = 0; i < r->n_images; i++) {
		if (!r->images[i].analysed)
			ret.push_back(r->images[i].why);
	}
	return ret;
}

int begin_result(work &w, DcmItem &to, struct err *e)
{
	int r = read_sources(w, e);
	std::string set;
	OFCondition c;
	bool ascii;

	if (r < 0)
		return r;
	set = header_text(w.first->header, DCM_SpecificCharacterSet);
	/* procedure, institution and coding schemes are taken from the header, too; with extensions an escape
	 * may be anywhere */
	ascii = set.find('\\') == std::string::npos && !w.first->header.containsExtendedCharacters();
	w.own = own_text(set, ascii, own_texts(w.r));
	c = copy_elements(w.first->header, to);
	if (c.good() && w.own.value() != set)
		c = to.putAndInsertString(DCM_SpecificCharacterSet, w.own.value().c_str());
	if (c.bad())
		return condition_err(e, -EBADMSG, "patient and study elements of the source", c);
	w.o = count(w);
	return 0;
}

/* ---- modules ---- */

OFCondition put_code(DcmItem &to, const DcmTagKey &sequence, const concept_code &code)
{
	elements e(to);
	DcmItem *item = e.add(sequence);

	if (item == NULL)
		return e.status;
	elements c(*item);
	c.put(DCM_CodeValue, code.value);
	c.put(DCM_CodingSchemeDesignator, code.scheme);
	c.put(DCM_CodeMeaning, code.meaning);
	return c.status;
}

OFCondition put_algorithm(DcmItem &to, const work &w)
{
	elements e(to);
	DcmItem *item = e.add(DCM_ContributingEquipmentSequence);

	if (item == NULL)
		return e.status;
	elements in(*item);
	in.keep(put_code(*item, DCM_PurposeOfReferenceCodeSequence,
			 { "109102", "DCM", "Processing Equipment" }));
	in.put(DCM_Manufacturer, w.own(w.r->manufacturer, LO_MAX));
	in.put(DCM_ManufacturerModelName, w.own(w.r->model_name, LO_MAX));
	in.put(DCM_SoftwareVersions, w.own(w.r->software, LO_MAX));
	in.put(DCM_DeviceUID, w.r->device_uid);
	return in.status;
}

void put_series(elements &e, const work &w, const char *modality)
{
	const struct sr_report *r = w.r;

	e.put(DCM_Modality, modality);
	e.put(DCM_SeriesInstanceUID, r->series_uid);
	e.put(DCM_SeriesNumber, std::to_string(r->series_number));
	e.put(DCM_SeriesDescription, w.own(r->series_description, LO_MAX));
	e.put(DCM_SeriesDate, r->date);
	e.put(DCM_SeriesTime, r->time);
}

void put_equipment(elements &e, const work &w)
{
	const struct sr_report *r = w.r;

	e.put(DCM_Manufacturer, w.own(r->manufacturer, LO_MAX));
	e.put(DCM_ManufacturerModelName, w.own(r->model_name, LO_MAX));
	e.put(DCM_DeviceSerialNumber, w.own(r->serial, LO_MAX));
	e.put(DCM_SoftwareVersions, w.own(r->software, LO_MAX));
	e.put(DCM_StationName, w.own(r->station, SH_MAX));
	if (r->institution[0] != '\0')
		e.put(DCM_InstitutionName, w.own(r->institution, LO_MAX));
	else
		e.copy(DCM_InstitutionName, w.first->header);
}

void put_missing(elements &e)
{
	for (const DcmTagKey &tag : { DCM_PatientName, DCM_PatientID, DCM_PatientBirthDate, DCM_PatientSex,
				      DCM_StudyDate, DCM_StudyTime, DCM_ReferringPhysicianName, DCM_StudyID,
				      DCM_AccessionNumber })
		e.keep_or_empty(tag);
}

/* It speaks for every date and time of the object, the copied ones too (PS3.3 C.12.1). */
static bool may_say_timezone(const work &w)
{
	std::string theirs = trimmed(header_text(w.first->header, DCM_TimezoneOffsetFromUTC));

	return w.r->timezone[0] != '\0' && (theirs.empty() || theirs == w.r->timezone);
}

void put_common(elements &e, const work &w, const char *sop_class)
{
	e.put(DCM_SOPClassUID, sop_class);
	e.put(DCM_SOPInstanceUID, w.r->sop_uid);
	e.put(DCM_InstanceCreationDate, w.r->date);
	e.put(DCM_InstanceCreationTime, w.r->time);
	if (may_say_timezone(w))
		e.put(DCM_TimezoneOffsetFromUTC, w.r->timezone);
}

/* ---- the file ---- */

/* DCMTK's File Meta says that DCMTK made the file. */
static OFCondition sign(DcmFileFormat &file)
{
	OFCondition c = file.validateMetaInfo(EXS_LittleEndianExplicit, EWM_createNewMeta);
	elements e(*file.getMetaInfo());

	if (c.bad())
		return c;
	e.put(DCM_ImplementationClassUID, DICOM_IMPLEMENTATION_UID);
	e.put(DCM_ImplementationVersionName, DICOM_IMPLEMENTATION_VERSION);
	e.keep(file.getMetaInfo()->computeGroupLengthAndPadding(EGL_withGL, EPD_noChange,
								META_HEADER_DEFAULT_TRANSFERSYNTAX,
								EET_UndefinedLength));
	return e.status;
}

OFCondition encode(DcmFileFormat &file, memory_stream &out)
{
	OFCondition c = sign(file);

	if (c.bad())
		return c;
	file.transferInit();
	c = file.write(out, EXS_LittleEndianExplicit, EET_ExplicitLength, NULL, EGL_withoutGL,
		       EPD_noChange, 0, 0, 0, EWM_dontUpdateMeta);
	file.transferEnd();
	return c;
}

}
