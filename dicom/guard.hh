/* guard.hh: the wall between DCMTK's C++ and our C.  The first include of every .cc file here.
 *
 * Job: brings DCMTK's configuration and our base headers into one translation unit in an order that
 * works, and turns whatever C++ throws into a negative errno.
 * Promise: nothing that runs inside guarded() leaves it as an exception.  DCMTK 3.6.7 in Debian is
 * built on std::string and std::vector, so bad_alloc, length_error and out_of_range are possible
 * from inputs alone.
 * Never: catches around code that ends threads (pthread_exit unwinds with an exception of its own).
 *
 * An exported function is therefore one line around its body:
 *
 *	int thing(struct err *e)
 *	{
 *		return guarded(e, "thing", [&]() -> int { ... });
 *	}
 */
#ifndef CARZEROD_DICOM_GUARD_HH
#define CARZEROD_DICOM_GUARD_HH

/* osconfig.h defines these for DCMTK itself; ours may have come with -D. */
#undef PACKAGE
#undef PACKAGE_BUGREPORT
#undef PACKAGE_NAME
#undef PACKAGE_STRING
#undef PACKAGE_TARNAME
#undef PACKAGE_URL
#undef PACKAGE_VERSION
#undef VERSION

#include "dcmtk/config/osconfig.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <exception>
#include <new>

#include "dcmtk/ofstd/ofcond.h"

extern "C" {
#include "base/digest.h"
#include "base/err.h"
#include "base/log.h"
#include "base/str.h"
}

/* Runs f, which returns 0 or a negative errno; `what` names it in the error text.  Texts of
 * exceptions are not passed on: they can quote the input. */
template <typename F> static inline int guarded(struct err *e, const char *what, F f) noexcept
{
	try {
		return f();
	} catch (const std::bad_alloc &) {
		return err_set(e, -ENOMEM, "%s: not enough memory", what);
	} catch (const std::exception &) {
		return err_set(e, -EBADMSG, "%s: the DICOM library gave up on this input", what);
	} catch (...) {
		return err_set(e, -EIO, "%s: unknown exception in the DICOM library", what);
	}
}

/* Error text for a failed condition; its text is quoted, since some of DCMTK's name peers' bytes. */
static inline int condition_err(struct err *e, int code, const char *what, const OFCondition &c)
{
	char quoted[160];

	return err_set(e, code, "%s: %s", what, str_quote(quoted, sizeof(quoted), c.text()));
}

#endif
