#!/bin/sh
# e2e_companions.sh: what goes with a report: Secondary Capture, presentation state, PDF; who gets which; and
# that they are valid, say nothing about the patient in pixels, and are the same bytes after a crash.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

study=2.25.71
phantom --seed 7 --finding effusion=left,large --study-uid $study --patient-name 'Planted^Name' --patient-id PlantedID \
	--accession PlantedA -o "$work/pa.dcm"
phantom --seed 7 --view LL --study-uid $study --patient-name 'Planted^Name' --patient-id PlantedID \
	--accession PlantedA -o "$work/ll.dcm"

of_class() { # of_class NAME [FOLDER]: the file of this class
	for f in $(find "${2:-$work/archive}" -type f | sort); do
		[ "$(tag "$f" 0008,0016)" != "UI =$1" ] || echo "$f"
	done
}
valid() { # valid FILE NAME
	if command -v dciodvfy >/dev/null; then
		dciodvfy "$1" >"$work/dciodvfy.out" 2>&1
		is "$(grep -c '^Error' "$work/dciodvfy.out")" 0 "$2: dciodvfy finds no error"
		grep '^Error' "$work/dciodvfy.out" | sed 's/^/# /'
	else
		skip "$2: dciodvfy finds no error" "dicom3tools is not installed"
	fi
}
same_patient() { # same_patient FILE NAME
	bad=
	for t in 0008,0005 0010,0010 0010,0020 0010,0030 0010,0040 0010,1010 0020,000d 0008,0020 0008,0030 0008,0050 0008,0090 0020,0010 0008,1030; do
		[ "$(tag "$1" $t)" = "$(tag "$work/pa.dcm" $t)" ] || bad="$bad $t"
	done
	is "$bad" "" "$2: patient and study are the source's"
}

# ---- everything, to one archive ------------------------------------------------------------------------
archive_objects="sr, sc, gsps, pdf"
write_config
start_archive
start_node
ok $? "the node is ready"
send MODALITY "$work/pa.dcm" "$work/ll.dcm"
check "four objects arrive" wait_for 30 archive_has 4
check "nothing waits any more" wait_for 10 nothing_waits
sc=$(of_class SecondaryCaptureImageStorage)
pr=$(of_class GrayscaleSoftcopyPresentationStateStorage)
pdf=$(of_class EncapsulatedPDFStorage)
for f in "$sc" "$pr" "$pdf"; do
	name=$(tag "$f" 0008,0060)
	valid "$f" "$name"
	same_patient "$f" "$name"
	is "$(tag "$f" 0018,0015)" "CS [CHEST]" "$name: chest"
	is "$(tag "$f" 0018,a001)" "$(tag "$(of_class ComprehensiveSRStorage)" 0018,a001)" "$name: names the algorithm as the report does"
done
series=$(for f in $(archive_files); do tag "$f" 0020,000e; done | sort -u | wc -l)
is "$series" 4 "each object has a series of its own"
is "$(tag "$sc" 0028,0004) $(tag "$sc" 0028,0002) $(tag "$sc" 0028,0100)" "CS [RGB] US 3 US 8" "SC: RGB of 8 bits"
is "$(tag "$sc" 0028,0301)" "$(tag "$work/pa.dcm" 0028,0301)" "SC: burned in annotation as the source says"
dcmdump -q "$sc" 2>/dev/null | grep -q "$(tag "$work/pa.dcm" 0008,0018 | sed 's/UI //')"
ok $? "SC: names its source image"
is "$(tag "$sc" 0028,0030)" "" "SC: nothing to measure on"
check "SC: dcmtk renders it" dcm2pnm "$sc" "$work/sc.ppm"
check "GSPS: dcmpschk accepts it" dcmpschk "$pr"
dcmdump -q +L "$pr" 2>/dev/null >"$work/pr.txt"
grep -q 'Pleural effusion: present' "$work/pr.txt" && grep -q 'not a lesion outline' "$work/pr.txt"
ok $? "GSPS: says what is present and what the lines are not"
grep -q 'POLYLINE' "$work/pr.txt"
ok $? "GSPS: an outline"
grep -q "$(tag "$work/pa.dcm" 0008,0018 | sed 's/UI //')" "$work/pr.txt"
ok $? "GSPS: over the film that was analysed"
dcm2pdf "$pdf" "$work/page.pdf" >/dev/null 2>&1
if command -v pdftotext >/dev/null; then
	pdftotext -layout "$work/page.pdf" "$work/page.txt"
	grep -q 'AI result, not verified' "$work/page.txt" && grep -q 'Pleural effusion' "$work/page.txt" &&
		grep -q 'DEMONSTRATION MODEL' "$work/page.txt" && grep -q 'not a frontal chest radiograph' "$work/page.txt"
	ok $? "PDF: says what it must"
	grep -iE 'Planted|Phantom' "$work/page.txt"
	is $? 1 "PDF: no word of the patient"
else
	skip "PDF: says what it must" "poppler-utils is not installed"
fi

# ---- the same bytes ------------------------------------------------------------------------------------
archive_files | xargs sha256sum | awk '{print $1}' | sort >"$work/first"
kill_node
rm -rf "$work/archive.first" && mv "$work/archive" "$work/archive.first" && mkdir "$work/archive"
start_node
send MODALITY "$work/pa.dcm" "$work/ll.dcm"
sleep 1
check "nothing waits" wait_for 10 nothing_waits
is "$(archive_count)" 0 "nothing is sent twice"
if command -v sqlite3 >/dev/null; then
	# as after a crash before the reports were recorded: what was planned is composed again
	stop_node
	sqlite3 "$work/state/carzerod.db" "PRAGMA foreign_keys = OFF; DELETE FROM delivery; DELETE FROM report; UPDATE study SET state = 0, revision = 0, settle_at = 0"
	find "$work/state" \( -path '*/reports/*' -o -path '*/facts/*' \) -type f -delete
	start_node
	check "all four again" wait_for 30 archive_has 4
	archive_files | xargs sha256sum | awk '{print $1}' | sort >"$work/second"
	check "byte for byte" cmp "$work/first" "$work/second"
else
	skip "byte for byte" "sqlite3 is not installed"
fi
stop_node
stop_archive

# ---- by default a report and a page, each once for every analysed image ----------------------------------
rm -rf "$work/state" "$work/archive"
archive_objects="sr, sc"
write_config
start_archive
start_node
phantom --seed 9 --study-uid 2.25.72 --patient-name 'Planted^Name' --patient-id PlantedID -o "$work/a.dcm"
phantom --seed 10 --view AP --study-uid 2.25.72 --patient-name 'Planted^Name' --patient-id PlantedID -o "$work/b.dcm"
send MODALITY "$work/a.dcm" "$work/b.dcm"
check "two films: one report, two pages" wait_for 30 archive_has 3
is "$(of_class SecondaryCaptureImageStorage | wc -l)" 2 "a page for each"
is "$(for f in $(of_class SecondaryCaptureImageStorage); do tag "$f" 0020,000e; done | sort -u | wc -l)" 1 "in one series"
is "$(for f in $(of_class SecondaryCaptureImageStorage); do tag "$f" 0020,0013; done | sort | tr '\n' ' ')" "IS [1] IS [2] " "numbered"
stop_node
rm -rf "$work/archive" "$work/state" && mkdir "$work/archive"
start_node
send MODALITY "$work/ll.dcm"
check "a film that was not analysed: a report and a page" wait_for 30 archive_has 2
valid "$(of_class SecondaryCaptureImageStorage)" "not analysed"
stop_node
stop_archive

# ---- who takes what --------------------------------------------------------------------------------------
cat >"$work/storescp.cfg" <<END
[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[OnlySC]
PresentationContext1 = SecondaryCaptureImageStorage\\Uncompressed
[OnlyEnhanced]
PresentationContext1 = EnhancedSRStorage\\Uncompressed
[Nothing]
PresentationContext1 = CTImageStorage\\Uncompressed
[[Profiles]]
[OnlySC]
PresentationContexts = OnlySC
[OnlyEnhanced]
PresentationContexts = OnlyEnhanced
[Nothing]
PresentationContexts = Nothing
END
accepting() { # accepting PROFILE: a node and an archive that takes only this; a film is sent
	stop_node
	stop_archive
	rm -rf "$work/state" "$work/archive" && mkdir "$work/archive"
	TCP_NODELAY=1 storescp -xf "$work/storescp.cfg" "$1" -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
	archive_pid=$!
	wait_for 10 not_free "$archive_port"
	start_node
	send MODALITY "$work/a.dcm"
	wait_for 20 settled
	ctl --json show 2.25.72 >"$work/show.json"
}
settled() {
	[ "$(sqlite3 "$work/state/carzerod.db" "SELECT count(*) = 2 AND min(state) >= 2 FROM delivery")" = 1 ]
}
deliveries() { # kind, state, hours until a parked one is due
	sqlite3 "$work/state/carzerod.db" "SELECT kind || ' ' || state || ' ' ||
		iif(state = 3, (due - (SELECT max(created) FROM delivery) + 600000) / 3600000, 0) FROM delivery ORDER BY id"
}
if command -v sqlite3 >/dev/null; then
	archive_objects="sr, sc"
	write_config
	accepting OnlySC
	is "$(deliveries | tr '\n' ' ')" "SR 3 72 SC 2 0 " "a peer that takes only Secondary Capture gets it; the report rests 72 h"
	is "$(of_class SecondaryCaptureImageStorage | wc -l) $(archive_count)" "1 1" "and has it"
	ctl why 2.25.72 >"$work/why.txt"
	grep -q 'none of the SR classes' "$work/why.txt"
	ok $? "why says that the report was not taken"
	accepting OnlyEnhanced
	is "$(deliveries | tr '\n' ' ')" "SR 2 0 SC 3 72 " "a peer that takes only Enhanced SR gets that"
	is "$(tag "$(archive_files | head -n 1)" 0008,0016)" "UI =EnhancedSRStorage" "in this class"
	accepting Nothing
	is "$(deliveries | cut -c1-4 | tr '\n' ' ')" "SR 3 SC 3 " "a peer that takes nothing: both are parked"
	is "$(deliveries | tail -n 1)" "SC 3 24" "the last for a day"
	ctl why 2.25.72 | grep -q 'ARCHIVE'
	ok $? "and why names it"
	is "$(archive_count)" 0 "nothing was stored"
	ctl status >/dev/null
	is $? 1 "status wants attention"
else
	skip "who takes what" "sqlite3 is not installed"
fi

# ---- a list that no font can draw --------------------------------------------------------------------------
stop_node
stop_archive
sed 's/name: .*effusion.*/name: "Erguss \\U0010FFFD"/' "$srcdir/tests/findings-test.yaml" >"$work/strange.yaml"
sed "s|^findings:.*|findings: $work/strange.yaml|" "$work/carzerod.yaml" >"$work/strange-node.yaml"
"$builddir/carzerod" --check-config -c "$work/strange-node.yaml" >"$work/check.txt" 2>&1
ok $([ $? != 0 ] && echo 0 || echo 1) "--check-config refuses a name that no font can draw"
grep -q 'U+10FFFD' "$work/check.txt"
ok $? "and names the character"
"$builddir/carzerod" --check-config -c "$work/carzerod.yaml" >"$work/check.txt" 2>&1
is $? 0 "and takes the usual one"
is "$(grep -c Fontconfig "$work/node.log")" 0 "fontconfig has nothing to say: its caches can be read"
finish
