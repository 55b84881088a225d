#!/bin/sh
# e2e_fetch.sh: studies that an archive has, by C-FIND and C-MOVE, from Orthanc.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null || skip_all "dcmtk's tools are not installed"
[ -x "$orthanc" ] && command -v curl >/dev/null || skip_all "orthanc or curl is not installed"
begin

start_orthanc <<-END
	"HttpPort": $extra_port, "DicomAlwaysAllowStore": true, "DicomAlwaysAllowFind": true, "DicomAlwaysAllowMove": true,
	"ConcurrentJobs": 1, "AuthenticationEnabled": false, "DicomCheckCalledAet": false,
	"DicomModalities": { "node": ["CARZEROD", "127.0.0.1", $node_port] }
END
wait_for 30 not_free "$archive_port"

uid_of() {
	tag "$1" 0020,000d | sed 's/.*\[\(.*\)\]/\1/'
}
for i in 1 2 3; do
	phantom --seed $((60 + i)) -o "$work/$i.dcm"
	dcmodify -nb -m '0008,0020=20220303' "$work/$i.dcm" >/dev/null 2>&1
	storescu -aet ANY -aec ARCHIVE 127.0.0.1 "$archive_port" "$work/$i.dcm" >/dev/null 2>&1
done
# of another modality, on the same day
cp "$work/3.dcm" "$work/ct.dcm"
dcmodify -nb -m "0008,0060=CT" -gst -gse -gin "$work/ct.dcm" >/dev/null 2>&1
storescu -aet ANY -aec ARCHIVE 127.0.0.1 "$archive_port" "$work/ct.dcm" >/dev/null 2>&1
date=20220303
write_config
start_node
ok $? "the node is ready, the archive has four studies"
row() { # row SQL
	sqlite3 -readonly "$work/state/carzerod.db" "$1"
}
reported() {
	[ "$(row "SELECT count(*) FROM study WHERE state = 2")" = "$1" ]
}

# ---- one study by its UID: scored, not sent -------------------------------------------------------------
check "fetch of one study" ctl fetch ARCHIVE "$(uid_of "$work/1.dcm")"
grep -q ': 1 objects sent, 0 failed' "$work/check.out"
ok $? "it says what came: $(tail -n 1 "$work/check.out" | sed 's/^[0-9.]* //')"
check "it is analysed and reported" wait_for 20 reported 1
is "$(row 'SELECT count(*) FROM delivery')" 0 "nothing is sent"
is "$(row "SELECT why FROM study")" "fetched: its reports are kept and not sent" "and the study says why"
before=$(curl -s "http://127.0.0.1:$extra_port/instances" | tr -cd '"' | wc -c)
is "$before" 8 "the archive has what it had"

# ---- with --send ---------------------------------------------------------------------------------------------
check "fetch --send" ctl fetch ARCHIVE --send "$(uid_of "$work/2.dcm")"
check "reported" wait_for 20 reported 2
sent() {
	[ "$(row 'SELECT count(*) FROM delivery WHERE state = 2')" = 1 ]
}
check "and sent to the archive" wait_for 20 sent

is "$(row 'SELECT group_concat(DISTINCT lane) FROM study')" 3 "both were in the slow lane"

# ---- by date, radiographs alone; again is no work -----------------------------------------------------------------
ctl fetch ARCHIVE --date "$date" --dry-run >"$work/dry.txt"
ok $? "--dry-run"
is "$(sed -n 1p "$work/dry.txt")" "3 studies found, 1 of other modalities left out" "CT is left out"
is "$(wc -l <"$work/dry.txt")" 4 "and the studies are listed"
check "fetch by date" ctl fetch ARCHIVE --date "$date" --rate 600
check "the third is reported" wait_for 20 reported 3
is "$(row 'SELECT count(*) FROM instance WHERE state <> 4')" 3 "what was here is here once"
is "$(row 'SELECT count(*) FROM instance WHERE state = 4')" 1 "our own report, fetched along, is set aside: no circle"
is "$(row 'SELECT count(*) FROM delivery')" 1 "nothing more is sent"
check "an accession number that nobody has" ctl fetch ARCHIVE --accession NOBODY-HAS-THIS
grep -q '^0 studies found' "$work/check.out"
ok $? "none found"

# ---- an image of a fetched study that a modality sends is the modality's ---------------------------------------------
cp "$work/1.dcm" "$work/late.dcm"
dcmodify -nb -gin "$work/late.dcm" >/dev/null 2>&1
send MODALITY "$work/late.dcm"
amended() {
	[ "$(row 'SELECT count(*) FROM delivery WHERE state = 2')" = 2 ]
}
check "its report is sent" wait_for 20 amended

# ---- what cannot be ----------------------------------------------------------------------------------------------
refuses() { # refuses TEXT ARGUMENTS...
	text=$1
	shift
	ctl fetch "$@" >"$work/refused.txt" 2>&1
	status=$?
	[ $status != 0 ] && grep -qF -e "$text" "$work/refused.txt"
	good=$?
	ok $good "refused: $text"
	[ $good = 0 ] || sed 's/^/# /' "$work/refused.txt"
}
refuses "no peer is called" NOBODY 1.2.3
refuses "wants a peer, and one of" ARCHIVE
refuses "is not a Study Instance UID" ARCHIVE 1.2..3
refuses "--date wants" ARCHIVE --date yesterday
refuses "without wildcards" ARCHIVE --accession "*"
stop_node
refuses "does not answer" ARCHIVE --date "$date"
sed -i 's/"CARZEROD"/"ELSEWHERE"/' "$work/orthanc.json"
stop_archive
run_orthanc
wait_for 30 not_free "$archive_port"
start_node
refuses "C-MOVE answered" ARCHIVE "$(uid_of "$work/1.dcm")"
finish
