/* header.cc: see header.hh.
 *
 * Job: the one place where a foreign header becomes a DcmDataset.
 * Promise: only bytes that scan_file() walked to their end come here, so depth, items and lengths
 * are bounded before DCMTK recurses into them.
 * Never: changes a value.
 */
#include "dicom/header.hh"

#include "dcmtk/dcmdata/dcdeftag.h"
#include "dcmtk/dcmdata/dcistrmb.h"
#include "dcmtk/dcmdata/dcsequen.h"

/* Everything is in memory: nothing may be left to be loaded later from a stream that is gone. */
#define READ_ALL 0xffffffffu

OFCondition header_read(const struct scan &scan, DcmDataset &ret)
{
	DcmInputBufferStream stream;
	OFCondition c;
	E_TransferSyntax syntax = scan.encoding == SCAN_IMPLICIT_LE ? EXS_LittleEndianImplicit :
				  scan.encoding == SCAN_EXPLICIT_BE ? EXS_BigEndianExplicit :
								      EXS_LittleEndianExplicit;

	stream.setBuffer(scan.data_set, OFstatic_cast(offile_off_t, scan.header_size));
	stream.setEos();
	ret.transferInit();
	c = ret.read(stream, syntax, EGL_noChange, READ_ALL);
	ret.transferEnd();
	return c;
}

/* Age and weight are optional (PS3.3 C.7.2.2, type 3) and have a strict form: one that breaks it ("81" for
 * "081Y") would make our object invalid and tell no reader more than its absence does. */
static bool unusable(DcmElement &element)
{
	DcmEVR vr = element.ident();

	return (vr == EVR_AS || vr == EVR_DS) && element.checkValue("1", OFFalse).bad();
}

OFCondition copy_elements(DcmItem &from, DcmItem &to)
{
	static const DcmTagKey tags[] = {
		DCM_SpecificCharacterSet,
		/* Patient */
		DCM_PatientName, DCM_PatientID, DCM_IssuerOfPatientID, DCM_IssuerOfPatientIDQualifiersSequence,
		DCM_PatientBirthDate, DCM_PatientSex, DCM_RETIRED_OtherPatientIDs, DCM_OtherPatientIDsSequence,
		DCM_PatientIdentityRemoved, DCM_DeidentificationMethod, DCM_DeidentificationMethodCodeSequence,
		/* Patient Study */
		DCM_PatientAge, DCM_PatientWeight,
		/* General Study */
		DCM_StudyInstanceUID, DCM_StudyDate, DCM_StudyTime, DCM_ReferringPhysicianName, DCM_StudyID,
		DCM_AccessionNumber, DCM_IssuerOfAccessionNumberSequence, DCM_StudyDescription,
		DCM_ProcedureCodeSequence,
		/* Clinical Trial Subject and Study */
		DCM_ClinicalTrialSponsorName, DCM_ClinicalTrialProtocolID, DCM_ClinicalTrialProtocolName,
		DCM_ClinicalTrialSiteID, DCM_ClinicalTrialSiteName, DCM_ClinicalTrialSubjectID,
		DCM_ClinicalTrialSubjectReadingID, DCM_ClinicalTrialTimePointID,
		DCM_ClinicalTrialTimePointDescription,
	};
	size_t bytes = 0;

	for (const DcmTagKey &tag : tags) {
		DcmElement *element = NULL;
		OFCondition c;

		if (from.findAndGetElement(tag, element).bad() || element == NULL || unusable(*element))
			continue;
		bytes += element->getLength(EXS_LittleEndianExplicit, EET_ExplicitLength);
		if (bytes > COPIED_BYTES_MAX)
			return EC_CorruptedData;
		element = OFstatic_cast(DcmElement *, element->clone());
		c = to.insert(element, OFTrue);
		if (c.bad()) {
			delete element;
			return c;
		}
	}
	return EC_Normal;
}

const char *header_text(DcmItem &item, const DcmTagKey &tag)
{
	const char *text = NULL;

	return item.findAndGetString(tag, text).good() && text != NULL ? text : "";
}

DcmItem *header_item(DcmItem &item, const DcmTagKey &sequence)
{
	DcmItem *first = NULL;

	return item.findAndGetSequenceItem(sequence, first, 0).good() ? first : NULL;
}

OFBool memory_consumer::good() const
{
	return OFTrue;
}

OFCondition memory_consumer::status() const
{
	return EC_Normal;
}

OFBool memory_consumer::isFlushed() const
{
	return OFTrue;
}

offile_off_t memory_consumer::avail() const
{
	return 1 << 20; /* DCMTK asks before each tag and length; there is always room */
}

offile_off_t memory_consumer::write(const void *p, offile_off_t n)
{
	bytes.append(OFstatic_cast(const char *, p), OFstatic_cast(size_t, n));
	return n;
}

void memory_consumer::flush()
{
}
