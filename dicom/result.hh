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

/* What a site wrote (UTF-8) in the Specific Character Set that the copied elements have: verbatim
 * for ISO_IR 192, one byte a character for ISO_IR 100, else ASCII with '?' for every other
 * character.  Converting the copied elements instead would change the patient's name. */
class own_text {
public:
	explicit own_text(const std::string &character_set)
		: utf8(character_set == "ISO_IR 192"), latin1(character_set == "ISO_IR 100")
	{
	}

	std::string operator()(const char *text) const
	{
		return cut(text, SIZE_MAX);
	}

	/* For SH and LO, which are counted in characters and where a backslash would begin a second
	 * value (PS3.5 6.2). */
	std::string operator()(const char *text, size_t max) const
	{
		std::string ret = cut(text, max);

		for (char &c : ret) {
			if (c == '\\')
				c = '/';
		}
		return ret;
	}

private:
	bool utf8, latin1;

	std::string cut(const char *text, size_t max) const
	{
		std::string ret;

		for (size_t n = 0; *text != '\0' && n < max; n++) {
			const char *from = text++;

			while ((*text & 0xc0) == 0x80)
				text++;
			ret += character(from, static_cast<size_t>(text - from));
		}
		return ret;
	}

	std::string character(const char *p, size_t n) const
	{
		unsigned char first = static_cast<unsigned char>(*p);

		if (n == 1 && first < 0x80)
			return first < ' ' || first == 0x7f ? " " : std::string(p, 1);
		if (utf8)
			return std::string(p, n);
		/* U+0080 to U+00FF; the first 32 are control characters */
		if (latin1 && n == 2 && (first == 0xc3 || (first == 0xc2 && (p[1] & 0x20) != 0)))
			return std::string(1, static_cast<char>((first & 3) << 6 | (p[1] & 0x3f)));
		return "?";
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
	own_text own{ "" };
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
