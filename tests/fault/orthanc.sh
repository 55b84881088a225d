#!/bin/sh
# orthanc.sh: the node dies by kill -9 at every arrow of a delivery; Orthanc, as the archive, holds exactly one report
# of each study, with the bytes that the node keeps.  Wants a build with --enable-failpoints.
. "$srcdir/tests/e2e.sh"
[ -x "$orthanc" ] && command -v curl >/dev/null && command -v storescu >/dev/null || skip_all "Orthanc, curl or dcmtk's tools are not installed"
begin
arm() {
	/usr/bin/python3 "$srcdir/tests/fault/arm.py" "$@"
}
CARZEROD_FAILPOINTS=$(arm new)
export CARZEROD_FAILPOINTS
http=$extra_port
start_orthanc <<-END
	"HttpPort": $http, "DicomAlwaysAllowStore": true, "AuthenticationEnabled": false, "DicomCheckCalledAet": false
END
get() {
	curl -sf "http://127.0.0.1:$http$1"
}
wait_for 60 get /system
ok $? "Orthanc is up"
hit() {
	[ "$(arm "$CARZEROD_FAILPOINTS" "$1" hits)" -ge 1 ]
}
archive_objects=sr
write_config 'routes: [{from: "*", to: [ARCHIVE]}]'
start_node
ok $? "the node is ready"
n=0
for arrow in delivery.claimed send.opened send.chosen delivery.chosen send.stored delivery.closed; do
	n=$((n + 1))
	phantom --seed $((700 + n)) --study-uid 2.25.70$n -o "$work/$n.dcm"
	arm "$CARZEROD_FAILPOINTS" $arrow hang
	send MODALITY "$work/$n.dcm"
	check "at $arrow" wait_for 30 hit $arrow
	kill -9 "$node_pid"
	wait "$node_pid" 2>/dev/null
	node_pid=
	arm "$CARZEROD_FAILPOINTS" $arrow off
	start_node
	ok $? "killed there, and back"
	check "what waited is delivered" wait_for 60 nothing_waits
done
stop_node
get /instances | tr -d '[]," ' | grep . >"$work/instances"
is "$(grep -c . "$work/instances")" $n "Orthanc holds one report of each of $n studies"
same=0
while read -r id; do
	get "/instances/$id/file" >"$work/theirs.dcm"
	uid=$(tag "$work/theirs.dcm" 0008,0018 | tr -d '[]' | sed 's/^UI //')
	file=$(sqlite3 "$work/state/carzerod.db" "SELECT printf('%016x', file) FROM report WHERE sop_uid = '$uid'")
	ours=$work/state/spool/reports/$(echo "$file" | cut -c1-2)/$file
	for f in "$ours" "$work/theirs.dcm"; do # the head is each one's own
		dcmdump -q +L "$f" | sed '1,/^# Dicom-Data-Set/d' | cksum
	done >"$work/sums"
	[ "$(sort -u "$work/sums" | wc -l)" = 1 ] && [ -s "$ours" ] && same=$((same + 1))
done <"$work/instances"
is $same $n "with the bytes that the node keeps"
arm "$CARZEROD_FAILPOINTS" free
finish
