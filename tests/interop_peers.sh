#!/bin/sh
# interop_peers.sh: software that others wrote, both ways.
#
# Orthanc sends a study to the node and is the archive that its report goes to; DICOMweb (Orthanc's plugin)
# then lists the report under the study.  dcmjs-dimse, a DICOM stack in JavaScript, sends another one and is
# a second destination.  npm fetches dcmjs-dimse into the build directory once.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null || skip_all "dcmtk's tools are not installed"
command -v curl >/dev/null || skip_all "curl is not installed"
[ -x "$orthanc" ] || skip_all "orthanc is not installed"
dicomweb=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
[ -f "$dicomweb" ] || skip_all "orthanc-dicomweb is not installed"
begin
http=$extra_port

# ---- Orthanc -> node -> Orthanc ---------------------------------------------------------------------------
study=2.25.4712
phantom --seed 24 --finding effusion=left,large --study-uid $study -o "$work/pa.dcm"
phantom --seed 24 --view LL --study-uid $study -o "$work/ll.dcm"
write_config 'routes: [{from: "*", to: [ARCHIVE, MODALITY]}]'
start_orthanc <<END
	"HttpPort": $http, "DicomAlwaysAllowStore": true, "AuthenticationEnabled": false, "DicomCheckCalledAet": false,
	"Plugins": ["$dicomweb"], "DicomWeb": {"Root": "/dicom-web/", "EnableWado": true},
	"DicomModalities": {"node": ["CARZEROD", "127.0.0.1", $node_port]}
END
wait_for 60 curl -sf "http://127.0.0.1:$http/dicom-web/studies"
ok $? "Orthanc is up, with DICOMweb"
for f in pa ll; do
	curl -sf -o /dev/null -X POST --data-binary @"$work/$f.dcm" "http://127.0.0.1:$http/instances"
	ok $? "Orthanc has $f"
done

# ---- dcmjs-dimse: installed once for all runs of this build ----------------------------------------------------
js=$builddir/tests/npm
have_js=no
if [ -d "$js/node_modules/dcmjs-dimse" ]; then
	have_js=yes
elif ! command -v npm >/dev/null; then
	no_js="npm is not installed"
elif timeout 120 npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$js" dcmjs-dimse@0.3.3 \
		>"$work/npm.out" 2>&1; then
	have_js=yes
else
	no_js="npm cannot fetch dcmjs-dimse: $(head -c 100 "$work/npm.out" | tr '\n' ' ')"
fi
cat >"$work/peer.js" <<'END'
const fs = require('fs');
const d = require('dcmjs-dimse');
const { Client, Server, Scp } = d, { CEchoRequest, CStoreRequest } = d.requests, { CEchoResponse, CStoreResponse } = d.responses;
const { Status, SopClass, PresentationContextResult, TransferSyntax } = d.constants;
d.log.transports && d.log.transports.forEach(t => { t.silent = true; });
const [verb, port, path] = process.argv.slice(2);
const folder = path;
class Archive extends Scp {
	associationRequested(association) {
		for (const c of association.getPresentationContexts()) {
			const context = association.getPresentationContext(c.id);
			const wanted = context.getTransferSyntaxUids().find(t => t === TransferSyntax.ExplicitVRLittleEndian);
			if (wanted) context.setResult(PresentationContextResult.Accept, wanted);
			else context.setResult(PresentationContextResult.RejectTransferSyntaxesNotSupported);
		}
		this.sendAssociationAccept();
	}
	cEchoRequest(request, callback) {
		const response = CEchoResponse.fromRequest(request);
		response.setStatus(Status.Success);
		callback(response);
	}
	cStoreRequest(request, callback) {
		const set = request.getDataset(), response = CStoreResponse.fromRequest(request);
		fs.appendFileSync(folder, [set.getElement('Modality'), set.getElement('StudyInstanceUID'),
			set.getElement('SOPClassUID'), set.getElement('VerificationFlag')].join('\t') + '\n');
		response.setStatus(Status.Success);
		callback(response);
	}
	associationReleaseRequested() { this.sendAssociationReleaseResponse(); }
}
if (verb === 'serve') {
	const server = new Server(Archive);
	server.on('networkError', e => console.error('network:', e.message || e));
	server.listen(Number(port));
} else {
	const client = new Client();
	let failed = 0, answered = 0;
	const requests = [new CEchoRequest(), new CStoreRequest(path)];
	for (const r of requests) {
		r.on('response', a => { answered++; if (a.getStatus() !== Status.Success) failed++; });
		client.addRequest(r);
	}
	client.on('networkError', e => { console.error('network:', e.message || e); process.exit(1); });
	client.on('associationRejected', () => { console.error('rejected'); process.exit(1); });
	client.on('closed', () => process.exit(failed === 0 && answered === 2 ? 0 : 1));
	client.send('127.0.0.1', Number(port), 'DCMJS', 'CARZEROD');
}
END
received=$work/dcmjs.tsv
: >"$received"
if [ $have_js = yes ]; then
	NODE_PATH=$js/node_modules node "$work/peer.js" serve "$sender_port" "$received" >"$work/dcmjs.log" 2>&1 &
	other_pids="$other_pids $!"
	check "dcmjs-dimse listens" wait_for 20 not_free "$sender_port"
else
	write_config
fi
start_node
ok $? "the node is ready"

id=$(curl -sf "http://127.0.0.1:$http/studies" | grep -o '[0-9a-f]\{8\}-[0-9a-f-]*' | head -n 1)
check "Orthanc sends its study to the node" curl -sf -X POST -d "$id" "http://127.0.0.1:$http/modalities/node/store"
has_series() { # has_series STUDY MODALITY: by QIDO-RS
	curl -sf "http://127.0.0.1:$http/dicom-web/studies/$1/series" | grep -q "\"$2\""
}
check "the report comes back to Orthanc" wait_for 40 has_series $study SR
check "nothing waits" wait_for 20 nothing_waits
has_series $study DX
ok $? "listed beside the films, under their study"

# the report as DICOMweb gives it
curl -sf "http://127.0.0.1:$http/dicom-web/studies/$study/metadata" >"$work/metadata.json"
ok $? "WADO-RS gives the study's metadata"
/usr/bin/python3 - "$work/metadata.json" "$study" >"$work/sr.txt" <<-'END'
import json, sys
objects = json.load(open(sys.argv[1]))
srs = [o for o in objects if o["00080060"]["Value"] == ["SR"]]
print(len(srs), "reports")
sr = srs[0]
print("study", sr["0020000D"]["Value"][0])
print("title", sr["0040A043"]["Value"][0]["00080100"]["Value"][0])
films = {o["00080018"]["Value"][0] for o in objects if o["00080060"]["Value"] == ["DX"]}
evidence = {i["00081155"]["Value"][0] for s in sr["0040A375"]["Value"] for e in s["00081115"]["Value"] for i in e["00081199"]["Value"]}
print("evidence", "complete" if films == evidence else "differs")
def walk(item, depth=0):
    for c in item.get("0040A730", {}).get("Value", []):
        name = c.get("0040A043", {}).get("Value", [{}])[0].get("00080104", {}).get("Value", [""])[0]
        if c["0040A040"]["Value"] == ["NUM"]:
            print("number", name, c["0040A300"]["Value"][0]["0040A30A"]["Value"][0])
        if c["0040A040"]["Value"] == ["CODE"] and c["0040A168"]["Value"][0]["00080104"]["Value"][0] in ("Present", "Absent", "Undetermined"):
            print("decision", name, c["0040A168"]["Value"][0]["00080104"]["Value"][0])
        walk(c, depth + 1)
walk(sr)
END
ok $? "its report is read from JSON"
sed 's/^/# /' "$work/sr.txt"
for want in "1 reports" "study $study" "title 126000" "evidence complete" "decision Pleural effusion Present" \
		"decision Pneumothorax Absent" "decision Cardiomegaly Undetermined"; do
	grep -qx "$want" "$work/sr.txt"
	ok $? "it says: $want"
done
is "$(grep -c '^number Certainty of Finding' "$work/sr.txt")" 3 "three probabilities"
is "$(grep -c '^number CARZero raw score' "$work/sr.txt")" 2 "two raw scores"

# what Orthanc sends a second time, it has sent before
check "Orthanc sends the study again" curl -sf -X POST -d "$id" "http://127.0.0.1:$http/modalities/node/store"
check "nothing waits" wait_for 20 nothing_waits
sleep 1
is "$(curl -sf "http://127.0.0.1:$http/dicom-web/studies/$study/series" | grep -o '"SR"' | wc -l)" 1 "and has one report series"

# the node's own results come back to it when a whole study is routed: no loop
before=$(curl -sf "http://127.0.0.1:$http/statistics" | sed -n 's/.*"CountInstances" : \([0-9]*\).*/\1/p')
sleep 1
is "$(curl -sf "http://127.0.0.1:$http/statistics" | sed -n 's/.*"CountInstances" : \([0-9]*\).*/\1/p')" "$before" "its own results are not analysed"

# ---- dcmjs-dimse -> node -> dcmjs-dimse ------------------------------------------------------------------------
if [ $have_js = yes ]; then
	got() { # got STUDY
		grep -q "^SR	$1	1.2.840.10008.5.1.4.1.1.88.[0-9]*	UNVERIFIED" "$received"
	}
	check "dcmjs-dimse, too, got the report of Orthanc's study" wait_for 20 got $study
	phantom --seed 25 --size 512x512 --study-uid 2.25.4713 -o "$work/js.dcm"
	NODE_PATH=$js/node_modules node "$work/peer.js" send "$node_port" "$work/js.dcm" >"$work/dcmjs-send.log" 2>&1
	ok $? "dcmjs-dimse: C-ECHO and C-STORE are answered with success"
	check "dcmjs-dimse receives the report" wait_for 30 got 2.25.4713
	check "and so does Orthanc" wait_for 30 has_series 2.25.4713 SR
	sed 's/^/# /' "$received"
else
	skip "dcmjs-dimse sends and receives" "$no_js"
fi
finish
