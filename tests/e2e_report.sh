#!/bin/sh
# e2e_report.sh: the main job: a study in by C-STORE, one TID 1500 report out, valid, complete, once.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

study=2.25.17
phantom --seed 7 --finding effusion=left,large --study-uid $study --patient-name 'Planted^Name' --patient-id 'PlantedID' \
	--accession PlantedA -o "$work/pa.dcm"
phantom --seed 7 --view LL --study-uid $study --patient-name 'Planted^Name' --patient-id 'PlantedID' \
	--accession PlantedA -o "$work/ll.dcm"
phantom --seed 8 --modality CR --photometric MONOCHROME1 --bits 10 -o "$work/cr.dcm"
phantom --seed 9 --modality SC --bits 8 -o "$work/sc.dcm"

write_config
start_archive
start_node
ok $? "the node is ready"
check "C-ECHO" echoscu -aec CARZEROD 127.0.0.1 "$node_port"

send MODALITY "$work/pa.dcm" "$work/ll.dcm"
ok $? "both films are acknowledged"
check "a report arrives" wait_for 30 archive_has 1
sr=$(archive_files | head -n 1)
check "nothing waits any more" wait_for 10 nothing_waits

is "$(tag "$sr" 0008,0016)" "UI =ComprehensiveSRStorage" "it is a Comprehensive SR"
is "$(tag "$sr" 0040,a493)" "CS [UNVERIFIED]" "it is unverified"
if command -v dciodvfy >/dev/null; then
	dciodvfy "$sr" >"$work/dciodvfy.out" 2>&1
	is "$(grep -c '^Error' "$work/dciodvfy.out")" 0 "dciodvfy finds no error"
	grep '^Error' "$work/dciodvfy.out" | sed 's/^/# /'
else
	skip "dciodvfy finds no error" "dicom3tools is not installed"
fi

# ---- the tree -------------------------------------------------------------------------------------
dsrdump +Pc +Pl "$sr" >"$work/tree.txt" 2>"$work/dsrdump.err"
has() { # has NAME PATTERN
	grep -qF -- "$2" "$work/tree.txt"
	ok $? "$1"
}
how_many() { # how_many PATTERN WANTED NAME
	is "$(grep -cF -- "$1" "$work/tree.txt")" "$2" "$3"
}
has "root" '(126000,DCM,"Imaging Measurement Report")'
has "language" '(121049,DCM,"Language of Content Item and Descendants")=(eng,RFC5646'
has "observer is a device" '(121005,DCM,"Observer Type")=(121007,DCM,"Device")'
has "device UID" '(121012,DCM,"Device Observer UID")="2.25.'
has "image library" '(111028,DCM,"Image Library")'
how_many '(125007,DCM,"Measurement Group")' 5 "one group for each finding of the film that was analysed"
how_many 'inferred from IMAGE:(121112,DCM,"Source of Measurement")' 5 "an image under every NUM"
how_many '(111012,DCM,"Certainty of Finding")' 3 "a certainty for each calibrated finding"
how_many 'CARZero raw score' 2 "a raw score for each uncalibrated one"
has "present" '(60046008,SCT,"Pleural effusion")=(52101004,SCT,"Present")'
has "absent" '(36118008,SCT,"Pneumothorax")=(272519000,SCT,"Absent")'
has "undetermined" '(8186001,SCT,"Cardiomegaly")=(373068000,SCT,"Undetermined")'
how_many '(121071,DCM,"Finding")=' 1 "a Finding row only where present"
has "summary: partly analysed, with findings" '(111017,DCM,"CAD Processing and Findings Summary")=(111244,DCM'
has "the disclaimer" 'AI result, not verified'
has "the lateral film's reason" 'not a frontal chest radiograph'
has "the prompt" 'prompt='
has "the recipe" 'recipe=window'
has "the prevalence that a probability assumes" 'prevalence=0.1000'

# ---- patient and study are the source's, byte for byte ----------------------------------------------
element() { # value bytes of an element, in hex, by dcmdump's own reading
	dcmdump -q +L +P "$2" "$1" 2>/dev/null | head -n 1
}
for t in 0008,0005 0010,0010 0010,0020 0010,0030 0010,0040 0010,1010 0020,000d 0008,0020 0008,0030 0008,0050 0008,0090 0020,0010 0008,1030; do
	is "$(element "$sr" $t)" "$(element "$work/pa.dcm" $t)" "($t) equals the source's"
done
is "$(tag "$sr" 0018,0015)" "" "no Body Part Examined"

# ---- the operator's view -----------------------------------------------------------------------------
ctl show $study >"$work/show.txt"
ok $? "carzeroctl show"
grep -q 'Pleural\|effusion' "$work/show.txt"
ok $? "it lists the scores"
ctl --json show $study >"$work/show.json"
grep -q '"probability"' "$work/show.json"
ok $? "and so does its JSON"
if command -v sqlite3 >/dev/null; then
	is "$(sqlite3 "$work/state/carzerod.db" 'SELECT count(*) FROM score')" 5 "five scores in the database"
	is "$(sqlite3 "$work/state/carzerod.db" 'PRAGMA integrity_check')" ok "the database is whole"
fi
ctl status >/dev/null
is $? 0 "status says all good"

# ---- once is once --------------------------------------------------------------------------------------
sum=$(sha256sum <"$sr")
uid=$(tag "$sr" 0008,0018)
send MODALITY "$work/pa.dcm" "$work/ll.dcm"
ok $? "the same study again is acknowledged"
sleep 1.5
check "nothing waits" wait_for 10 nothing_waits
is "$(archive_count)" 1 "and makes no second report"
stop_node
is "$node_status" 0 "SIGTERM ends the node with 0"
start_node
send MODALITY "$work/ll.dcm" "$work/pa.dcm"
ok $? "again, after a restart, in another order"
sleep 1.5
check "nothing waits" wait_for 10 nothing_waits
is "$(archive_count)" 1 "still one report"
is "$(sha256sum <"$(archive_files | head -n 1)")" "$sum" "the same bytes"
is "$(tag "$(archive_files | head -n 1)" 0008,0018)" "$uid" "the same UID"

# ---- a late film amends --------------------------------------------------------------------------------
phantom --seed 7 --view AP --study-uid $study --patient-name 'Planted^Name' --patient-id 'PlantedID' \
	--accession PlantedA -o "$work/ap.dcm"
send MODALITY "$work/ap.dcm"
ok $? "a late film of the same study"
check "an amended report arrives" wait_for 30 archive_has 2
for f in $(archive_files); do
	[ "$(tag "$f" 0008,0018)" = "$uid" ] || amended=$f
done
dcmdump -q "$amended" 2>/dev/null | grep -q "$(echo "$uid" | sed 's/UI //')"
ok $? "it names its predecessor"
dsrdump +Pc "$amended" >"$work/tree.txt" 2>/dev/null
how_many '(125007,DCM,"Measurement Group")' 10 "and covers both films"

# ---- other kinds -----------------------------------------------------------------------------------------
send OTHER "$work/cr.dcm"
ok $? "CR, MONOCHROME1, 10 bits"
send OTHER "$work/sc.dcm"
ok $? "Secondary Capture, 8 bits"
check "one report each" wait_for 30 archive_has 4

# ---- two patients under one Study Instance UID ----------------------------------------------------------
phantom --seed 11 --study-uid 2.25.18 --patient-id PlantedB -o "$work/b1.dcm"
phantom --seed 12 --study-uid 2.25.18 --patient-id PlantedC -o "$work/b2.dcm"
send MODALITY "$work/b1.dcm" "$work/b2.dcm"
ok $? "two patients in one study are kept"
parked() {
	ctl studies | grep -q 'different Patient IDs'
}
check "and the study is parked for the operator" wait_for 20 parked
is "$(archive_count)" 4 "no report about them"
ctl status >/dev/null
is $? 1 "status wants attention"

# ---- back to the sender -----------------------------------------------------------------------------------
stop_node
rm -rf "$work/state"
write_config 'routes: [{from: "*", to: [sender]}]'
stop_archive
mkdir "$work/modality"
TCP_NODELAY=1 storescp -aet MODALITY -od "$work/modality" "$sender_port" >"$work/modality.log" 2>&1 &
other_pids="$other_pids $!"
start_node
send MODALITY "$work/cr.dcm"
ok $? "a node that answers its sender takes a film"
check "and the report comes back to the sender" wait_for 30 sh -c "[ \$(ls '$work/modality' | wc -l) = 1 ]"
send STRANGER "$work/sc.dcm"
ok $? "a sender that is not among peers is served"
unknown() {
	ctl studies | grep -q 'is not among peers'
}
check "and the operator is told that nothing is sent back" wait_for 20 unknown

# ---- real radiographs, where they are ---------------------------------------------------------------------
if [ -n "${CARZEROD_SHARED:-}" ] && [ -d "$CARZEROD_SHARED/data/radiographs" ]; then
	for f in "$CARZEROD_SHARED"/data/radiographs/*.dcm; do
		n=$(basename "$f")
		stop_node
		stop_archive
		rm -rf "$work/state" "$work/archive"
		write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'allow_out_of_domain: true'
		start_archive
		start_node
		syntax=
		[ "$n" != wg04_RG1_J2KI.dcm ] || syntax=-xw
		storescu $syntax -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$f" >"$work/storescu.out" 2>&1
		ok $? "$n is acknowledged"
		check "$n: one report" wait_for 30 archive_has 1
		check "$n: nothing waits" wait_for 10 nothing_waits
		is "$(archive_count)" 1 "$n: exactly one"
		sr=$(archive_files | head -n 1)
		dciodvfy "$sr" >"$work/dciodvfy.out" 2>&1
		is "$(grep -c '^Error' "$work/dciodvfy.out")" 0 "$n: dciodvfy finds no error"
		grep '^Error' "$work/dciodvfy.out" | sed 's/^/# /'
		dsrdump +Pc "$sr" >"$work/tree.txt" 2>/dev/null
		has "$n: the tree" '(126000,DCM,"Imaging Measurement Report")'
		bad=
		for t in 0008,0005 0010,0010 0010,0020 0010,0030 0010,0040 0010,1010 0020,000d 0008,0020 0008,0030 0008,0050 0008,0090 0020,0010 0008,1030; do
			want=$(element "$f" $t)
			case $t$want in # an age that breaks its form ("81") is left out: it would make the report invalid
			0010,1010*\[??\]*) want= ;;
			esac
			[ -z "$want" ] || [ "$(element "$sr" $t)" = "$want" ] || bad="$bad $t"
		done
		is "$bad" "" "$n: patient and study equal the source's"
		ctl studies | sed -n 's/^/# /p' | tail -n 1
	done
else
	skip "real radiographs" "CARZEROD_SHARED is not set"
fi
finish
