#!/bin/sh
# e2e_retention.sh: what is sent goes by itself, rows and files; what is not sent stays; purge.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

storage_more='retention: {images: 1s, failed: 1s, reports: 3s}'
write_config
start_archive
start_node
ok $? "the node is ready"
db() {
	sqlite3 -readonly "$work/state/carzerod.db" "$1"
}
files() { # files BOX
	find "$work/state/spool/$1" -type f | wc -l
}
empty() { # empty BOX...
	for b in "$@"; do
		[ "$(files "$b")" = 0 ] || return 1
	done
}
phantom --seed 1 --size 256x256 -o "$work/1.dcm"
phantom --seed 2 --size 256x256 -o "$work/2.dcm"
uid2=$(tag "$work/2.dcm" 0020,000d | sed 's/[^0-9.]//g')
send MODALITY "$work/1.dcm"
check "a film is reported" wait_for 20 archive_has 1
check "a second after its delivery the image's file goes" wait_for 20 empty objects
is "$(db 'SELECT count(*) FROM instance WHERE kept = 0')" 1 "its row stays"
is "$(files reports)" 3 "so do the reports"
send MODALITY "$work/1.dcm"
is $? 0 "the same film again is accepted"
is "$(db 'SELECT repeats FROM instance')" 1 "and known"
check "three seconds later rows and reports go too" wait_for 20 empty objects reports
no_rows() {
	[ "$(db 'SELECT (SELECT count(*) FROM study) + (SELECT count(*) FROM instance) + (SELECT count(*) FROM score) +
		(SELECT count(*) FROM delivery) + (SELECT count(*) FROM doomed)')" = 0 ]
}
check "no row is left, and nothing to remove" wait_for 10 no_rows
cp "$(archive_files | head -n 1)" "$work/first.dcm"

rm -f "$work/archive"/*
send MODALITY "$work/1.dcm"
check "sent again after it was forgotten, it is reported again" wait_for 20 archive_has 1
check "with the same bytes under the same UID" cmp "$work/first.dcm" "$(archive_files | head -n 1)"

stop_archive
check "rows go again" wait_for 20 empty objects reports
send MODALITY "$work/2.dcm"
made() {
	[ "$(db 'SELECT count(*) FROM report')" = 3 ]
}
check "a film whose report cannot be sent" wait_for 20 made
sleep 4
is "$(files objects) $(files reports)" "1 3" "stays as long as that"

# killed between the commit that dooms files and their removal: the start finishes it
kill_node
sqlite3 "$work/state/carzerod.db" "PRAGMA foreign_keys = ON; BEGIN;
	INSERT INTO doomed SELECT 1, file FROM instance; INSERT INTO doomed SELECT 2, file FROM report;
	DELETE FROM score; DELETE FROM instance; DELETE FROM refused; DELETE FROM delivery; DELETE FROM report;
	DELETE FROM event; DELETE FROM study; COMMIT"
start_node
is "$(files objects) $(files reports) $(files quarantine)" "0 0 0" "a removal that was under way is finished at the start"
is "$(db 'SELECT count(*) FROM doomed')" 0 "and forgotten"

send MODALITY "$work/2.dcm"
check "the film again" wait_for 20 made
not_in_work() { # a delivery that is being tried at this moment refuses for a moment
	ctl purge "$uid2"
}
check "purge" wait_for 10 not_in_work
check "removes it though it is not sent" wait_for 10 empty objects reports
is "$(db 'SELECT count(*) FROM study')" 0 "with its rows"
ctl purge "$uid2" >/dev/null 2>&1
is $? 2 "it is not there a second time"

storage_more='retention: {images: 1d, failed: 1d, reports: 1d}'
write_config
stop_node
rm -f "$work/archive"/*
start_archive
start_node
send MODALITY "$work/1.dcm"
check "a film is kept for a day" wait_for 20 archive_has 1
check "nothing waits" wait_for 20 nothing_waits
sleep 1.2
check "purge --older-than" ctl purge --older-than 1s
check "removes it now" wait_for 20 empty objects reports
is "$(db 'PRAGMA integrity_check')" ok "the database is whole"
finish
