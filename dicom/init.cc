/* init.cc: see dicom.h.  The global state of DCMTK, set once.
 *
 * Job: dictionary, decoders, log, and the few OFGlobal switches whose defaults are wrong for us.
 * Promise: after dicom_init() no call of dicom/ reads a file or an environment variable on our
 * behalf, and nothing of DCMTK is printed but through base/log at debug level.
 * Never: logs a text of DCMTK above debug level.  Its warnings quote attribute values, hence
 * patients; and one hostile object can draw hundreds of thousands of them, hence the rate limit.
 */
#include "dicom/guard.hh"

#include "dcmtk/dcmdata/dcdict.h"
#include "dcmtk/dcmdata/dcobject.h"
#include "dcmtk/dcmdata/dctag.h"
#include "dcmtk/dcmjpls/djdecode.h"
#include "dcmtk/dcmnet/dul.h"
#include "dcmtk/oflog/appender.h"
#include "dcmtk/oflog/oflog.h"
#include "dcmtk/oflog/spi/logevent.h"

extern "C" {
#include "base/clock.h"
}

#include "dicom/dicom.h"

#define LOG_LINES_PER_SECOND 20
#define LOG_TEXT_MAX 256

namespace
{

using namespace dcmtk::log4cplus;

class base_log_appender : public Appender {
public:
	~base_log_appender() override
	{
		destructorImpl();
	}

	void close() override
	{
		closed = true;
	}

protected:
	/* DCMTK calls this under the appender's own mutex. */
	void append(const spi::InternalLoggingEvent &event) override
	{
		char quoted[LOG_TEXT_MAX];
		int64_t second = clock_boot_ms() / 1000;

		if (!log_enabled(LOG_LEVEL_DEBUG))
			return;
		if (second != window) {
			if (written > LOG_LINES_PER_SECOND)
				log_debug("dcmtk: lines=%u left out", written - LOG_LINES_PER_SECOND);
			window = second;
			written = 0;
		}
		if (written++ >= LOG_LINES_PER_SECOND)
			return;
		log_debug("dcmtk: %s", str_quote(quoted, sizeof(quoted), event.getMessage().c_str()));
	}

private:
	int64_t window = -1;
	unsigned written = 0;
};

/* With debug off nothing is even formatted: DCMTK would spend seconds on the texts of one hostile
 * object.  Switching debug on later needs a new process. */
void route_log()
{
	OFLog::configure(OFLogger::OFF_LOG_LEVEL);

	Logger root = Logger::getRoot();
	root.removeAllAppenders();
	root.addAppender(SharedAppenderPtr(new base_log_appender()));
	root.setLogLevel(log_enabled(LOG_LEVEL_DEBUG) ? WARN_LOG_LEVEL : OFF_LOG_LEVEL);
}

/* Without the dictionary an implicit VR data set is read with status "normal" and wrong values, so
 * one element of each kind that we rely on is looked up, not only the flag. */
bool dictionary_works()
{
	return dcmDataDict.isDictionaryLoaded() &&
	       DcmTag(0x0028, 0x0010).getEVR() == EVR_US &&
	       DcmTag(0x0010, 0x0010).getEVR() == EVR_PN &&
	       DcmTag(0x0040, 0xa730).getEVR() == EVR_SQ;
}

}

int dicom_init(bool codecs, struct err *e)
{
	return guarded(e, "dicom_init", [&]() -> int {
		route_log();
		if (!dictionary_works())
			return err_set(e, -ENOENT,
				       "DICOM data dictionary not found: install DCMTK's dicom.dic "
				       "(package libdcmtk17) or set DCMDICTPATH");
		/* A reverse DNS query per association, and a time-out where there is no DNS. */
		dcmDisableGethostbyaddr.set(OFTrue);
		/* "Correction" strips padding from values that reports must copy as they are. */
		dcmEnableAutomaticInputDataCorrection.set(OFFalse);
		/* JPEG needs no registration: image.cc drives its decoders itself; RLE is frame.c's. */
		if (codecs)
			DJLSDecoderRegistration::registerCodecs(EJLSUC_never);
		return 0;
	});
}
