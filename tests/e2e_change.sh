#!/bin/sh
# e2e_change.sh: what changes under way: findings lists, routes, recipes, revisions, films that come while a
# report is being made.  Each case once stopped the node or lost a report.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

alive() {
	kill -0 "$node_pid" 2>/dev/null
}
settled() { # settled N: all done, N reports in the archive
	nothing_waits && archive_has "$1"
}
cp "$srcdir/tests/findings-test.yaml" "$work/findings.yaml"
config() {
	write_config "$@"
	sed -i "s,^findings: .*,findings: $work/findings.yaml," "$work/carzerod.yaml"
}
restart() {
	stop_node
	start_node
	ok $? "$1"
}

# ---- a findings list changes, then a late film of a reported study comes ------------------------------
study=2.25.101
phantom --seed 41 --study-uid $study --patient-id P1 -o "$work/a1.dcm"
phantom --seed 42 --study-uid $study --patient-id P1 -o "$work/a2.dcm"
config
start_archive
start_node
ok $? "the node is ready"
send MODALITY "$work/a1.dcm"
check "first report" wait_for 30 settled 1
echo "# a comment makes another list" >>"$work/findings.yaml"
restart "restarted with another findings list"
send MODALITY "$work/a2.dcm"
check "a late film makes the amended report" wait_for 30 settled 2
check "the node lives" alive
is "$(sqlite3 "$work/state/carzerod.db" 'SELECT count(DISTINCT hex(findings)) FROM instance')" 1 "all scores are of one list"
is "$(sqlite3 "$work/state/carzerod.db" 'SELECT max(attempt) FROM instance')" 1 "no attempt was wasted"

# ---- a recipe changes ----------------------------------------------------------------------------------------
stop_node
config 'routes: [{from: "*", to: [ARCHIVE]}]' 'recipe: mimic'
start_node
ok $? "restarted with recipe mimic"
phantom --seed 43 --study-uid $study --patient-id P1 -o "$work/a3.dcm"
send MODALITY "$work/a3.dcm"
check "a third film" wait_for 30 settled 3
is "$(sqlite3 "$work/state/carzerod.db" 'SELECT group_concat(DISTINCT recipe) FROM instance')" mimic "no report mixes recipes"

# ---- a route comes later ---------------------------------------------------------------------------------------
stop_node
rm -rf "$work/state" "$work/archive"
mkdir "$work/archive"
config 'routes: []'
start_node
ok $? "a node without routes"
send MODALITY "$work/a1.dcm"
reported() {
	ctl studies | grep -q reported
}
check "its report is kept" wait_for 30 reported
stop_node
config
start_node
ok $? "restarted with a route"
check "requeue" ctl requeue 1
check "the report that exists goes to the new destination" wait_for 30 settled 1
check "the node lives" alive

# ---- films that come one by one while reports are being made ---------------------------------------------------
sed -i 's/^settle: .*/settle: 0/' "$work/carzerod.yaml"
restart "settle 0"
i=0
while [ $i -lt 12 ]; do
	phantom --seed $((60 + i)) --size 256x256 --study-uid 2.25.102 --patient-id P2 -o "$work/b$i.dcm"
	i=$((i + 1))
done
i=0
while [ $i -lt 12 ]; do
	send MODALITY "$work/b$i.dcm"
	i=$((i + 1))
done
check "all settled" wait_for 60 nothing_waits
check "the node lives" alive
ctl --json show 2.25.102 >"$work/show.json"
is "$(grep -c '"outcome": "scored"' "$work/show.json")" 12 "all twelve are scored"
last=$(ls -t "$work"/archive/* | while read -r f; do dsrdump +Pc "$f" 2>/dev/null | grep -c 'Measurement Group'; done | sort -n | tail -n 1)
is "$last" 60 "the last amendment covers all twelve films"

# ---- revisions: A, B, A again; and a corrected Patient ID ---------------------------------------------------------
uid=2.25.103.1
phantom --seed 71 --study-uid 2.25.103 --instance-uid $uid --patient-id P3 -o "$work/ra.dcm"
phantom --seed 72 --study-uid 2.25.103 --instance-uid $uid --patient-id P3 -o "$work/rb.dcm"
cp "$work/ra.dcm" "$work/rc.dcm"
dcmodify -nb -q -m '(0008,1030)=Another description' "$work/rc.dcm"
for f in ra rb rc; do
	send MODALITY "$work/$f.dcm"
	check "$f settles" wait_for 30 nothing_waits
done
is "$(sqlite3 "$work/state/carzerod.db" "SELECT state || ' ' || revision FROM study WHERE study_uid = '2.25.103'")" "2 3" \
	"three different contents, three reports"
phantom --seed 73 --study-uid 2.25.104 --instance-uid 2.25.104.1 --patient-id WRONG -o "$work/w.dcm"
phantom --seed 73 --study-uid 2.25.104 --instance-uid 2.25.104.1 --patient-id RIGHT -o "$work/r.dcm"
send MODALITY "$work/w.dcm"
check "with a wrong Patient ID" wait_for 30 nothing_waits
send MODALITY "$work/r.dcm"
check "and corrected" wait_for 30 nothing_waits
is "$(sqlite3 "$work/state/carzerod.db" "SELECT state || ' ' || revision FROM study WHERE study_uid = '2.25.104'")" "2 2" \
	"the correction is reported, not parked"

# ---- a lost file that comes again is kept -----------------------------------------------------------------------------
file=$(sqlite3 "$work/state/carzerod.db" "SELECT printf('%016x', file) FROM instance WHERE sop_uid = '2.25.104.1' AND revision = 2")
rm "$work/state/spool/objects/$(echo "$file" | cut -c 1-2)/$file"
send MODALITY "$work/r.dcm"
ok $? "bytes whose file was lost are acknowledged"
file=$(sqlite3 "$work/state/carzerod.db" "SELECT printf('%016x', file) FROM instance WHERE sop_uid = '2.25.104.1' AND revision = 2")
[ -s "$work/state/spool/objects/$(echo "$file" | cut -c 1-2)/$file" ]
ok $? "and kept"
is "$(grep -c 'restart recovers' "$work/node.log")" 0 "the node never stopped itself"

# ---- an archive that sends our own results back: kept, set aside, and no circle -------------------------------
stop_node
stop_archive
rm -rf "$work/archive" "$work/state"
archive_objects='sr, sc, gsps, pdf'
write_config
start_node
start_archive
phantom --seed 71 -o "$work/loop.dcm"
send MODALITY "$work/loop.dcm"
check "a report, a picture, a presentation state, a PDF" wait_for 20 archive_has 4
wait_for 10 nothing_waits
send ARCHIVE $(archive_files)
ok $? "the archive sends them back"
sleep 1
is "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT count(*) FROM instance WHERE state = 4')" 4 "they are set aside"
is "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT revision FROM study')" 1 "and make no further report"

finish
