/* result.hh: what every object that we make about a study has in common: its sources, whose texts it
 * copies and in whose character set it speaks, and the modules around its own content.
 *
 * Job: patient and study elements as raw copies; series, equipment, algorithm and SOP common modules
 * out of struct sr_report; a File Meta that names us.  sr.cc and sc.cc put their content between.
 * Promise: as in sr.h: no clock, no generated UID, no file.
 */
#ifndef CARZEROD_DICOM_RESULT_HH
#define CARZEROD_DICOM_RESULT_HH

#include "dicom/header.hh"

#include <math.h>

#include <memory>
#include <string>
#include <vector>

#include "dcmtk/dcmdata/dcdeftag.h"
#include "dcmtk/dcmdata/dcfilefo.h"
#include "dcmtk/dcmsr/dsrcodvl.h"

#include "dicom/charset.h"
#include "dicom/sr.h"

#define SH_MAX 16 /* characters, PS3.5 6.2 */
#define LO_MAX 64

namespace result
{

struct concept_code {
	const char *value, *scheme, *meaning;

	operator DSRCodedEntryValue() const
	{
		return DSRCodedEntryValue(value, scheme, meaning, DSRTypes::CVT_auto, OFFalse);
	}
};

/* ---- the sources ---- */

/* One image of the report, or what can be known of it. */
struct source {
	DcmDataset header;
	bool readable = false; /* header holds its elements and the UIDs below are there */
	std::string sop_class, sop_uid, study_uid, series_uid;
};

typedef std::vector<std::unique_ptr<source>> sources;

/* Without the padding that UIDs and code strings may carry (PS3.5 6.2). */
std::string trimmed(const char *text);

/* ---- texts ---- */

/* What a site wrote (UTF-8), in the Specific Character Set of the object: see charset.h. */
class own_text {
public:
	own_text() = default;

	/* source: Specific Character Set of the copied elements; ascii: that is all they are. */
	own_text(const std::string &source, bool ascii, const std::vector<const char *> &texts)
		: set(charset_new(source.c_str(), ascii, texts.data(), texts.size()), charset_free)
	{
	}

	std::string operator()(const char *text) const
	{
		return encoded(text, SIZE_MAX);
	}

	/* For SH and LO, which are counted in characters and where a backslash would begin a second
	 * value (PS3.5 6.2). */
	std::string operator()(const char *text, size_t max) const
	{
		std::string one_value = text;

		for (char &c : one_value) {
			if (c == '\\')
				c = '/';
		}
		return encoded(one_value.c_str(), max);
	}

	/* Of (0008,0005); "" for none. */
	std::string value() const
	{
		return charset_value(set.get());
	}

	/* Characters that cannot be written. */
	size_t lacks() const
	{
		return charset_lacks(set.get());
	}

private:
	std::shared_ptr<struct charset> set;

	std::string encoded(const char *text, size_t max) const
	{
		std::unique_ptr<char, decltype(&free)> p(charset_encode(set.get(), text, max), free);

		return p.get();
	}
};

/* ---- what is known before anything is written ---- */

inline bool is_calibrated(const struct sr_score *s)
{
	return !isnan(s->probability);
}

/* A number that can be written; the rest is named in a comment (no empty Measured Value Sequence). */
inline bool is_scored(const struct sr_score *s)
{
	return is_calibrated(s) ? s->probability >= 0 && s->probability <= 1 : isfinite(s->logit);
}

struct outcome {
	size_t complete = 0;            /* images with every finding scored */
	size_t calibrated = 0, raw = 0; /* scores */
	bool present = false;
};

struct work {
	const struct sr_report *r;
	sources images;          /* as r->images */
	source *first;           /* whose patient and study elements the report has */
	own_text own;
	outcome o;

	bool analysed(size_t i) const
	{
		return r->images[i].analysed && images[i]->readable;
	}
};

/* Reads every image and fills the rest of `w` from it, w.r being set; the patient's and the study's elements
 * go into `to`.  They are those of the first analysed image, else of the first that can be read. */
int begin_result(work &w, DcmItem &to, struct err *e);

/* ---- modules ---- */

/* Elements one after another; the first failure is kept. */
class elements {
public:
	explicit elements(DcmItem &to) : item(to) {}

	void put(const DcmTagKey &tag, const std::string &value)
	{
		keep(item.putAndInsertString(tag, value.c_str(), OFTrue));
	}

	/* Type 2 of a source: as it was copied, or empty. */
	void keep_or_empty(const DcmTagKey &tag)
	{
		if (!item.tagExists(tag))
			keep(item.insertEmptyElement(tag));
	}

	/* As it is, if it is there. */
	void copy(const DcmTagKey &tag, DcmItem &from)
	{
		if (from.tagExists(tag))
			keep(from.findAndInsertCopyOfElement(tag, &item));
	}

	void empty(const DcmTagKey &tag)
	{
		keep(item.insertEmptyElement(tag, OFTrue));
	}

	/* A new item at the end of a sequence; NULL after a failure. */
	DcmItem *add(const DcmTagKey &sequence)
	{
		DcmItem *added = NULL;

		if (status.good())
			keep(item.findOrCreateSequenceItem(sequence, added, -2));
		return status.good() ? added : NULL;
	}

	/* The item of a sequence that has this UID, made if there is none; NULL after a failure. */
	DcmItem *named(const DcmTagKey &sequence, const DcmTagKey &tag, const std::string &uid)
	{
		DcmItem *found = NULL;

		for (long i = 0; item.findAndGetSequenceItem(sequence, found, i).good(); i++) {
			if (header_text(*found, tag) == uid)
				return found;
		}
		found = add(sequence);
		if (found != NULL)
			keep(found->putAndInsertString(tag, uid.c_str()));
		return found;
	}

	void keep(const OFCondition &c)
	{
		if (status.good())
			status = c;
	}

	OFCondition status = EC_Normal;

private:
	DcmItem &item;
};

OFCondition put_code(DcmItem &to, const DcmTagKey &sequence, const concept_code &code);

/* The algorithm, as every object with AI results must name it; the values are those of the observer
 * in the tree (PS3.3 C.12.1.1.5). */
OFCondition put_algorithm(DcmItem &to, const work &w);

void put_series(elements &e, const work &w, const char *modality);

void put_equipment(elements &e, const work &w);

/* Of General Study and Patient what copy_elements() did not find is there, empty: type 2. */
void put_missing(elements &e);

void put_common(elements &e, const work &w, const char *sop_class);

/* ---- the file ---- */

/* Explicit VR little endian with our File Meta. */
OFCondition encode(DcmFileFormat &file, memory_stream &out);

}

#endif
