/* reason.c: why an image is not analysed and how an association ended, for people.
 *
 * Apart from image.cc and scp.cc so that programs without DCMTK (the keeper) can say it too.
 */
#include "dicom/commitment.h"
#include "dicom/image.h"
#include "dicom/scp.h"

const char *image_reason_name(enum image_reason r)
{
	switch (r) {
	case IMAGE_OK:
		return "analysed";
	case IMAGE_NOT_DICOM:
		return "not a readable DICOM object";
	case IMAGE_NO_PIXELS:
		return "no image in the object";
	case IMAGE_UNSUPPORTED:
		return "unsupported kind of image";
	case IMAGE_BROKEN:
		return "broken image";
	case IMAGE_TOO_LARGE:
		return "image too large";
	case IMAGE_TOO_SMALL:
		return "image too small";
	case IMAGE_CONSTANT:
		return "constant image";
	case IMAGE_NOT_FRONTAL_CHEST:
		return "not a frontal chest radiograph";
	case IMAGE_FOR_PROCESSING:
		return "raw image (for processing)";
	case IMAGE_TOO_YOUNG:
		return "patient too young for this model";
	case IMAGE_OUT_OF_DOMAIN:
		return "outside the model's domain";
	}
	return "not analysed";
}

const char *scp_end_name(enum scp_end end)
{
	switch (end) {
	case SCP_RELEASED:
		return "released";
	case SCP_ABORTED_BY_PEER:
		return "aborted-by-peer";
	case SCP_REJECTED:
		return "rejected";
	case SCP_TIMED_OUT:
		return "timed-out";
	case SCP_PROTOCOL_ERROR:
		return "protocol-error";
	case SCP_LIMIT:
		return "limit";
	case SCP_CLOSED:
		return "closed";
	case SCP_TLS:
		return "tls-refused";
	}
	return "unknown";
}

const char *commitment_reason(uint16_t reason)
{
	switch (reason) {
	case 0x0110:
		return "processing failure there";
	case 0x0112:
		return "the archive does not have the object";
	case 0x0119:
		return "the archive has another class under this UID";
	case 0x0122:
		return "the archive does not commit to this SOP class";
	case 0x0131:
		return "duplicate transaction UID";
	case 0x0213:
		return "out of resources there";
	default:
		return "see PS3.3 C.14.1.1";
	}
}
