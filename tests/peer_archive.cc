/* peer_archive.cc: an archive for the tests, on DCMTK's own classes: it stores nothing but counts, commits
 * to what it has, and can lose the first object after it has answered 0000H.
 *
 *	peer_archive PORT AE_TITLE LOG [lose] [same | new HOST PORT AE_TITLE] [silent]
 *	peer_archive tell AE_TITLE LOG HOST PORT AE_TITLE TRANSACTION SOP_UID
 *
 * silent: asked for the first time, it tells nothing.  tell: only that, once, as this AE title.
 * LOG gets one line for each thing that happened: "stored UID", "asked TRANSACTION UID",
 * "told STATUS-OF-THE-ANSWER committed|failed".
 */
#include "dcmtk/config/osconfig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <set>
#include <string>

#include "dcmtk/dcmdata/dctk.h"
#include "dcmtk/dcmnet/dimse.h"
#include "dcmtk/dcmnet/scp.h"
#include "dcmtk/dcmnet/scu.h"

namespace
{

bool lose, same = true, silent;
const char *host, *our_title, *their_title;
unsigned short their_port;
FILE *out;
std::set<std::string> kept;

void say(const char *what, const char *a, const char *b)
{
	fprintf(out, "%s %s %s\n", what, a, b);
	fflush(out);
}

/* What was asked for, as we know it now. */
DcmDataset *answer_to(DcmDataset *asked, Uint16 *ret_type)
{
	DcmDataset *d = new DcmDataset;
	OFString transaction, sop_class, sop_uid;
	DcmSequenceOfItems *list = nullptr;
	bool all = true;

	asked->findAndGetOFString(DCM_TransactionUID, transaction);
	d->putAndInsertOFStringArray(DCM_TransactionUID, transaction);
	asked->findAndGetSequence(DCM_ReferencedSOPSequence, list);
	for (unsigned long i = 0; list != nullptr && i < list->card(); i++) {
		DcmItem *item = nullptr;

		list->getItem(i)->findAndGetOFString(DCM_ReferencedSOPClassUID, sop_class);
		list->getItem(i)->findAndGetOFString(DCM_ReferencedSOPInstanceUID, sop_uid);
		say("asked", transaction.c_str(), sop_uid.c_str());
		bool have = kept.count(sop_uid.c_str()) != 0;
		d->findOrCreateSequenceItem(have ? DCM_ReferencedSOPSequence : DCM_FailedSOPSequence, item, -2);
		item->putAndInsertOFStringArray(DCM_ReferencedSOPClassUID, sop_class);
		item->putAndInsertOFStringArray(DCM_ReferencedSOPInstanceUID, sop_uid);
		if (!have)
			item->putAndInsertUint16(DCM_FailureReason, 0x0112);
		all = all && have;
	}
	*ret_type = all ? 1 : 2;
	return d;
}

void told(OFCondition c, Uint16 status, Uint16 type)
{
	char text[16];

	snprintf(text, sizeof(text), "%04x", status);
	say("told", c.good() ? text : "nobody", type == 1 ? "committed" : "failed");
}

/* Annex J.3.3: on an association of our own, in the role of the SCP. */
void tell_anew(DcmDataset *d, Uint16 type)
{
	DcmSCU scu;
	OFList<OFString> syntaxes;
	Uint16 status = 0xffff;

	syntaxes.push_back(UID_LittleEndianImplicitTransferSyntax);
	scu.setAETitle(our_title);
	scu.setPeerHostName(host);
	scu.setPeerPort(their_port);
	scu.setPeerAETitle(their_title);
	scu.addPresentationContext(UID_StorageCommitmentPushModelSOPClass, syntaxes, ASC_SC_ROLE_SCP);
	OFCondition c = scu.initNetwork();
	if (c.good())
		c = scu.negotiateAssociation();
	if (c.good())
		c = scu.sendEVENTREPORTRequest(scu.findAnyPresentationContextID(UID_StorageCommitmentPushModelSOPClass,
										UID_LittleEndianImplicitTransferSyntax),
					       UID_StorageCommitmentPushModelSOPInstance, type, d, status);
	told(c, status, type);
	if (scu.isConnected())
		scu.releaseAssociation();
}

class archive : public DcmSCP {
	OFCondition handleIncomingCommand(T_DIMSE_Message *m, const DcmPresentationContextInfo &info) override
	{
		OFCondition c;

		if (m->CommandField == DIMSE_C_STORE_RQ) {
			DcmDataset *d = nullptr;

			c = receiveSTORERequest(m->msg.CStoreRQ, info.presentationContextID, d);
			if (c.good()) {
				c = sendSTOREResponse(info.presentationContextID, m->msg.CStoreRQ, STATUS_Success);
				say("stored", m->msg.CStoreRQ.AffectedSOPInstanceUID, lose ? "and lost" : "");
				if (!lose)
					kept.insert(m->msg.CStoreRQ.AffectedSOPInstanceUID);
				lose = false;
			}
			delete d;
			return c;
		}
		if (m->CommandField == DIMSE_N_ACTION_RQ) {
			DcmDataset *asked = nullptr, *d;
			Uint16 action = 0, type = 0, status = 0xffff;

			c = receiveACTIONRequest(m->msg.NActionRQ, info.presentationContextID, asked, action);
			if (c.bad())
				return c;
			d = answer_to(asked, &type);
			delete asked;
			c = sendACTIONResponse(info.presentationContextID, m->msg.NActionRQ.MessageID,
					       m->msg.NActionRQ.RequestedSOPClassUID,
					       m->msg.NActionRQ.RequestedSOPInstanceUID, STATUS_Success);
			if (c.good() && !silent && same) {
				c = sendEVENTREPORTRequest(info.presentationContextID,
							   UID_StorageCommitmentPushModelSOPInstance,
							   m->msg.NActionRQ.MessageID, type, d, status);
				told(c, status, type);
			} else if (c.good() && !silent) {
				tell_anew(d, type);
			}
			silent = false;
			delete d;
			return c;
		}
		return DcmSCP::handleIncomingCommand(m, info);
	}
};

}

int main(int argc, char **argv)
{
	archive a;
	OFList<OFString> syntaxes;

	if (argc < 4 || (out = fopen(argv[3], "a")) == nullptr)
		return 64;
	setenv("TCP_NODELAY", "1", 1);
	our_title = argv[2];
	for (int i = 4; i < argc; i++) {
		lose |= strcmp(argv[i], "lose") == 0;
		silent |= strcmp(argv[i], "silent") == 0;
		if (strcmp(argv[i], "new") == 0 && i + 3 < argc) {
			same = false;
			host = argv[i + 1];
			their_port = static_cast<unsigned short>(atoi(argv[i + 2]));
			their_title = argv[i + 3];
			i += 3;
		}
	}
	OFLog::configure(OFLogger::ERROR_LOG_LEVEL);
	if (strcmp(argv[1], "tell") == 0 && argc == 9) {
		DcmDataset d;
		DcmItem *item = nullptr;

		host = argv[4];
		their_port = static_cast<unsigned short>(atoi(argv[5]));
		their_title = argv[6];
		d.putAndInsertString(DCM_TransactionUID, argv[7]);
		d.findOrCreateSequenceItem(DCM_ReferencedSOPSequence, item, -2);
		item->putAndInsertString(DCM_ReferencedSOPClassUID, UID_ComprehensiveSRStorage);
		item->putAndInsertString(DCM_ReferencedSOPInstanceUID, argv[8]);
		tell_anew(&d, 1);
		return 0;
	}
	syntaxes.push_back(UID_LittleEndianExplicitTransferSyntax);
	a.setPort(static_cast<Uint16>(atoi(argv[1])));
	a.setAETitle(our_title);
	a.setConnectionBlockingMode(DUL_BLOCK);
	a.addPresentationContext(UID_ComprehensiveSRStorage, syntaxes);
	a.addPresentationContext(UID_StorageCommitmentPushModelSOPClass, syntaxes);
	a.addPresentationContext(UID_VerificationSOPClass, syntaxes);
	return a.listen().good() ? 0 : 1;
}
