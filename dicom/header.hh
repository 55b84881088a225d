/* header.hh: what image.cc and sr.cc share: a header that has passed the scan, as a DcmDataset; the
 * elements that reports copy from it; and writing to memory.
 */
#ifndef CARZEROD_DICOM_HEADER_HH
#define CARZEROD_DICOM_HEADER_HH

#include "dicom/guard.hh"

#include <string>

#include "dcmtk/dcmdata/dcdatset.h"
#include "dcmtk/dcmdata/dcostrma.h"

#include "dicom/scan.h"

/* A report's patient elements together; more is no name and no description. */
#define COPIED_BYTES_MAX (256u << 10)

/* Parses the elements before Pixel Data; the pixels never enter DCMTK's data set. */
OFCondition header_read(const struct scan &scan, DcmDataset &ret);

/* Clones the Patient, Patient Study, General Study and Clinical Trial elements that a report takes
 * over from its source (results keep the patient's identity exactly as it was sent: no trimming, no
 * re-encoding), with the Specific Character Set that they are written in. */
OFCondition copy_elements(DcmItem &from, DcmItem &to);

/* Value of a string element as it stands, or "" (absent, empty, another kind of VR). */
const char *header_text(DcmItem &item, const DcmTagKey &tag);

/* First item of a sequence, or NULL. */
DcmItem *header_item(DcmItem &item, const DcmTagKey &sequence);

/* A DcmOutputStream that ends in a std::string. */
class memory_consumer : public DcmConsumer {
public:
	OFBool good() const override;
	OFCondition status() const override;
	OFBool isFlushed() const override;
	offile_off_t avail() const override;
	offile_off_t write(const void *p, offile_off_t n) override;
	void flush() override;

	std::string bytes;
};

class memory_stream : public DcmOutputStream {
public:
	/* The base class only keeps the pointer. */
	memory_stream() : DcmOutputStream(&consumer) {}

	const std::string &bytes() const
	{
		return consumer.bytes;
	}

private:
	memory_consumer consumer;
};

#endif
