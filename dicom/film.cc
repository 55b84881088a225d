/* film.cc: see film.h.
 *
 * Job: one drawn film, shipped once, becomes a new study each time that it is sent: else the node would
 * know it and have nothing to do.
 * Never: reads what a stranger has sent.
 */
#include "dicom/result.hh"

#include "dcmtk/dcmdata/dcistrmb.h"

#include "dicom/film.h"

using namespace result;

static int renew(const void *file, size_t n, struct film_names *names, void **ret, size_t *ret_n, struct err *e)
{
	static const DcmTagKey dates[] = { DCM_StudyDate, DCM_SeriesDate, DCM_AcquisitionDate, DCM_ContentDate };
	static const DcmTagKey times[] = { DCM_StudyTime, DCM_SeriesTime, DCM_AcquisitionTime, DCM_ContentTime };
	DcmInputBufferStream in;
	memory_stream out;
	DcmFileFormat film;
	DcmDataset &d = *film.getDataset();
	elements to(d);

	in.setBuffer(file, static_cast<offile_off_t>(n));
	in.setEos();
	film.transferInit();
	to.keep(film.read(in));
	film.transferEnd();
	to.put(DCM_StudyInstanceUID, names->study_uid);
	to.put(DCM_SeriesInstanceUID, names->series_uid);
	to.put(DCM_SOPInstanceUID, names->sop_uid);
	to.put(DCM_StudyDescription, names->study_description);
	for (const DcmTagKey &tag : dates)
		to.put(tag, names->date);
	for (const DcmTagKey &tag : times)
		to.put(tag, names->time);
	to.keep(encode(film, out));
	if (to.status.bad())
		return condition_err(e, -EBADMSG, "the self-test's film", to.status);
	if (!str_copy(names->sop_class, UID_MAX, trimmed(header_text(d, DCM_SOPClassUID)).c_str()))
		return err_set(e, -EBADMSG, "the self-test's film has no SOP class");
	*ret = malloc(out.bytes().size());
	if (*ret == NULL)
		return err_set(e, -ENOMEM, "the self-test's film: not enough memory");
	*ret_n = out.bytes().size();
	memcpy(*ret, out.bytes().data(), *ret_n);
	return 0;
}

int dicom_film_renew(const void *file, size_t n, struct film_names *names, void **ret, size_t *ret_n, struct err *e)
{
	return guarded(e, "dicom_film_renew", [&]() -> int { return renew(file, n, names, ret, ret_n, e); });
}
