#!/bin/sh
# e2e_archive.sh: archives that are down, refuse, or are somebody else's software.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

phantom --seed 21 -o "$work/a.dcm"
phantom --seed 22 -o "$work/b.dcm"
phantom --seed 23 -o "$work/c.dcm"

# ---- down for a while, then up: delivered without help -------------------------------------------
down=12
[ "${CHECK_LONG:-no}" = yes ] && down=60
write_config
# by name: found out before the sender's walls close, anew after each failure
sed -i 's/ae_title: ARCHIVE, host: 127.0.0.1/ae_title: ARCHIVE, host: localhost/' "$work/carzerod.yaml"
start_node
ok $? "the node is ready, the archive is not"
send MODALITY "$work/a.dcm" "$work/b.dcm"
ok $? "films are taken all the same"
unavailable() {
	ctl status | grep -q UNAVAILABLE
}
check "the operator sees it" wait_for 20 unavailable
ctl status >/dev/null
is $? 1 "status wants attention"
ctl queue >"$work/queue.txt"
grep -q ARCHIVE "$work/queue.txt"
ok $? "the queue names the destination"
sleep $down
is "$(archive_count)" 0 "nothing could be delivered for $down s"
start_archive
check "up again: both reports come by themselves" wait_for 75 archive_has 2
check "nothing waits" wait_for 10 nothing_waits
ctl status >/dev/null
is $? 0 "status says all good"

# ---- an archive that does not know us: parked, told, and flushed by the operator --------------------
stop_archive
rm -rf "$work/archive"
mkdir "$work/archive"
storescp --refuse -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
archive_pid=$!
wait_for 10 not_free "$archive_port"
send MODALITY "$work/c.dcm"
ok $? "a film for an archive that rejects us"
rejected() {
	ctl queue | grep -qi 'reject\|refus'
}
check "the queue says so" wait_for 30 rejected
stop_archive
start_archive
check "flush" ctl flush ARCHIVE
check "delivered after the flush" wait_for 30 archive_has 1

# ---- an archive whose name nobody knows ------------------------------------------------------------------
stop_node
sed -i 's/ae_title: ARCHIVE, host: localhost/ae_title: ARCHIVE, host: nobody.invalid/' "$work/carzerod.yaml"
start_node
phantom --seed 24 -o "$work/d.dcm"
send MODALITY "$work/d.dcm"
ok $? "a film for an archive without an address"
no_address() {
	ctl queue | grep -q 'cannot be resolved'
}
check "the queue says so" wait_for 30 no_address
stop_node
sed -i 's/ae_title: ARCHIVE, host: nobody.invalid/ae_title: ARCHIVE, host: 127.0.0.1/' "$work/carzerod.yaml"
start_node
check "with an address it arrives" wait_for 30 archive_has 2

# ---- Orthanc ------------------------------------------------------------------------------------------
if [ -x "$orthanc" ] && command -v curl >/dev/null; then
	stop_archive
	http=$((extra_port))
	start_orthanc <<-END
		"HttpPort": $http, "DicomAlwaysAllowStore": true, "AuthenticationEnabled": false, "DicomCheckCalledAet": false
	END
	orthanc_up() {
		curl -sf "http://127.0.0.1:$http/system"
	}
	check "Orthanc is up" wait_for 60 orthanc_up
	study=2.25.4711
	phantom --seed 24 --study-uid $study -o "$work/d.dcm"
	check "the film goes to Orthanc too" storescu -aec ARCHIVE 127.0.0.1 "$archive_port" "$work/d.dcm"
	send MODALITY "$work/d.dcm"
	ok $? "the node takes it"
	series_of_study() {
		curl -sf "http://127.0.0.1:$http/tools/find" -d "{\"Level\": \"Series\", \"Query\": {\"StudyInstanceUID\": \"$study\"}, \"Expand\": true}" |
			grep -o '"Modality" : "[A-Z]*"' | sort | tr '\n' ' '
	}
	both_there() {
		series_of_study | grep -q 'DX.*SR'
	}
	check "the report arrives in Orthanc" wait_for 40 both_there
	is "$(series_of_study)" '"Modality" : "DX" "Modality" : "SR" ' "and is listed under its study"
else
	skip "Orthanc as the archive" "orthanc is not installed"
fi
finish
