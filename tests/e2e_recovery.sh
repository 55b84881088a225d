#!/bin/sh
# e2e_recovery.sh: what the node finds when it comes back: an unclean end, suspects, a log, ten thousand objects.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

write_config
start_archive
start_node
ok $? "the node is ready"
log_has() { # since the last start
	tail -n +"$((log_from + 1))" "$work/node.log" | grep -q -- "$1"
}
db() {
	sqlite3 "$work/state/carzerod.db" "$1"
}
! log_has "did not stop by itself"
ok $? "a first start is clean"
stop_node
is "$(stat -c %s "$work/state/carzerod.db-wal" 2>/dev/null || echo 0)" 0 "a clean end leaves no log"
start_node
! log_has "did not stop by itself"
ok $? "so is a start after a clean end"

# three films are caught in the workers by an unclean end
for i in 1 2 3 4; do
	phantom --seed $i --size 256x256 -o "$work/$i.dcm"
done
send MODALITY "$work/1.dcm" "$work/2.dcm" "$work/3.dcm" "$work/4.dcm"
check "four films are reported" wait_for 30 archive_has 4
kill_node
db "UPDATE instance SET state = 1, outcome = 0, attempt = 1, token = token + 1 WHERE id < 4;
	DELETE FROM score WHERE instance < 4; UPDATE study SET state = 0, settle_at = 0 WHERE id < 4"
start_node
log_has "did not stop by itself"
ok $? "an unclean end is noticed"
log_has "3 objects were being analysed"
ok $? "and what was in work then"
check "they are analysed again" wait_for 30 nothing_waits
# one at a time: each is done before the next is begun, so they end in order, whatever the workers do
is "$(tail -n +"$((log_from + 1))" "$work/node.log" | sed -n 's/.*object=\([0-9]*\) .*scored.*/\1/p' | tr '\n' ' ')" "1 2 3 " \
	"one after the other"
is "$(archive_count)" 4 "and nothing is reported twice"

# a parked study is tried again after a day
stop_node
db "UPDATE study SET state = 4, settle_at = 1, why = 'parked' WHERE id = 4"
start_node
log_has "1 parked studies are tried again"
ok $? "a parked study is tried again"
check "and done" wait_for 10 nothing_waits

# ---- files and rows that do not fit ------------------------------------------------------------------------------
check "verify finds all files as they were stored" ctl verify
object=$(find "$work/state/spool/objects" -type f | head -n 1)
cp -p "$object" "$work/object"
printf x | dd of="$object" bs=1 seek=$(($(stat -c %s "$object") - 100)) conv=notrunc 2>/dev/null
ctl verify >"$work/verify.txt"
is $? 1 "a byte that changed"
check "is found" grep -q "bytes have changed" "$work/verify.txt"
cp -p "$work/object" "$object"

# rows that are lost: as after a crash between rename and COMMIT, or with a database older than the spool
kill_node
gone=$(db "SELECT sop_uid FROM instance WHERE id = 4")
db "PRAGMA foreign_keys = OFF; DELETE FROM score WHERE instance = 4; DELETE FROM instance WHERE id = 4"
mkdir -p "$work/state/spool/objects/00"
head -c 5000 "$work/object" >"$work/state/spool/objects/00/0012345678abcdef"
start_node
check "an object without a row is taken as received" wait_for 20 log_has "1 objects without a row taken as received, 1 that are not whole"
is "$(db "SELECT count(*) FROM instance WHERE sop_uid = '$gone'")" 1 "and has a row again"
is "$(ls "$work/state/spool/quarantine")" 0012345678abcdef "half an object is set aside"
check "nothing waits" wait_for 30 nothing_waits
send MODALITY "$work/4.dcm"
is "$(db "SELECT repeats FROM instance WHERE sop_uid = '$gone'")" 1 "its sender's repeat is known"

# ---- a damaged database ------------------------------------------------------------------------------------------
check "backup" ctl backup
is "$(sqlite3 "$(ctl backup)" 'PRAGMA integrity_check')" ok "which is whole"
phantom --seed 5 --size 256x256 -o "$work/5.dcm"
send MODALITY "$work/5.dcm"
is $? 0 "a film after the backup"
check "is reported" wait_for 30 archive_has 5
stop_node
printf 'this is not a database' | dd of="$work/state/carzerod.db" conv=notrunc 2>/dev/null
start_node
ok $? "with a damaged database the node starts"
log_has "restored from carzerod-20"
ok $? "from the newest backup"
ls "$work/state" | grep -q 'carzerod.db-damaged'
ok $? "the damaged one is kept"
newest=$(tag "$work/5.dcm" 0008,0018 | sed 's/[^0-9.]//g')
is "$(db "SELECT count(*) FROM instance WHERE sop_uid = '$newest'")" 1 "the film that came after the backup is there"
check "nothing waits" wait_for 40 nothing_waits
is "$(ctl --json status | sed -n 's/.*"lost_objects": \([0-9]*\).*/\1/p')" 0 "no object is lost"

# ---- the database is gone ----------------------------------------------------------------------------------------
what() { # studies, their objects, scores, reports, deliveries, without our own numbers and times
	db "SELECT s.study_uid, s.state, s.revision, i.sop_uid, i.state, i.outcome, i.why, hex(i.content),
		(SELECT group_concat(finding || logit || ifnull(probability, '-') || decision) FROM score c WHERE c.instance = i.id)
		FROM study s JOIN instance i ON i.study = s.id ORDER BY i.sop_uid"
	db "SELECT r.kind, r.sop_class, r.sop_uid, r.series_uid, r.predecessor, r.file, hex(r.digest), r.created FROM report r ORDER BY r.sop_uid"
	db "SELECT s.study_uid, d.revision, d.kind, d.destination, d.state, d.status FROM delivery d JOIN study s ON s.id = d.study
		ORDER BY 1, 2, 3, 4"
}
# a study with two films, the second of them late: two revisions
phantom --seed 6 --size 256x256 --study-uid 2.25.66 --patient-id P6 -o "$work/6.dcm"
phantom --seed 7 --size 256x256 --study-uid 2.25.66 --patient-id P6 -o "$work/7.dcm"
send MODALITY "$work/6.dcm"
check "a study" wait_for 30 archive_has 6
send MODALITY "$work/7.dcm"
check "and a late film of it" wait_for 30 archive_has 7
check "nothing waits" wait_for 30 nothing_waits
what >"$work/before.txt"
"$builddir/carzerod" --rebuild -c "$work/carzerod.yaml" >"$work/rebuild.out" 2>&1
is $? 75 "no rebuild while a node runs"
stop_node
rm -f "$work/archive"/*
"$builddir/carzerod" --rebuild -c "$work/carzerod.yaml" >"$work/rebuild.out" 2>&1
is $? 0 "rebuild"
what >"$work/after.txt"
is "$(wc -l <"$work/after.txt")" "$(wc -l <"$work/before.txt")" "as many rows as before"
cmp -s "$work/before.txt" "$work/after.txt"
ok $? "the same studies, results, reports and deliveries"
diff "$work/before.txt" "$work/after.txt" | head -n 10 | cut -c1-300 | sed 's/^/# /'
rm -f "$work/state"/carzerod.db*
start_node
ok $? "with the database deleted the node starts by itself"
check "nothing waits" wait_for 30 nothing_waits
sleep 1
what >"$work/after.txt"
cmp -s "$work/before.txt" "$work/after.txt"
ok $? "and knows the same"
send MODALITY "$work/6.dcm"
sleep 1.5
check "nothing waits" wait_for 30 nothing_waits
is "$(archive_count)" 0 "nothing is sent a second time"
check "verify" ctl verify

# ---- many objects -----------------------------------------------------------------------------------------------
many=1000
[ "${CHECK_LONG:-no}" = yes ] && many=10000
stop_node
"$builddir/tests/fill_spool" "$work/state" $many
is $? 0 "$many objects more in the spool"
start_node
stop_node
start_node
kill_node
from=$(date +%s%N)
start_node
ms=$((($(date +%s%N) - from) / 1000000))
recovered=$(tail -n +"$((log_from + 1))" "$work/node.log" | sed -n 's/.*recovered in \([0-9]*\) ms.*/\1/p')
is "$(db 'SELECT count(*) > 0 FROM instance WHERE state = 4')" 1 "they are there"
[ "$recovered" -lt 2000 ]
ok $? "recovery with $(db 'SELECT count(*) FROM instance') objects after an unclean end takes $recovered ms, the whole start $ms ms"
is "$(ctl --json status | sed -n 's/.*"lost_objects": \([0-9]*\).*/\1/p')" 0 "no object is lost"
finish
