#!/bin/sh
# e2e_disk.sh: a real small file system, filled to the last block: refused early, no crash, deliveries go on,
# and all by itself again when there is space.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
[ "$(id -u)" = 0 ] || skip_all "mounting a file system wants root"
begin

truncate -s 96M "$work/disk.img"
mkfs.ext4 -q -F -m 0 "$work/disk.img" && mkdir "$work/state" && mount -o loop "$work/disk.img" "$work/state" 2>/dev/null ||
	skip_all "no loop device to mount"
trap 'stop_node; stop_archive; umount -l "$work/state"' EXIT INT TERM
storage_more='retention: {images: 1h, failed: 1h, reports: 1h}'
write_config
sed -i 's/min_free: [0-9]*, ballast: 0, unsafe: true/min_free: 8 MiB, ballast: 12 MiB/' "$work/carzerod.yaml"
start_node
ok $? "the node is ready on ext4"
pid=$node_pid
has_ballast() {
	[ "$(stat -c %s "$work/state/ballast" 2>/dev/null)" = 12582912 ]
}
check "the ballast is there" wait_for 5 has_ballast
for i in 1 2 3 4; do
	phantom --seed $i --size 256x256 -o "$work/$i.dcm"
done
reported() {
	[ "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT count(*) FROM study WHERE state = 2')" = "$1" ]
}
send MODALITY "$work/1.dcm" "$work/2.dcm"
is $? 0 "two films are accepted while the archive is away"
check "their reports are made" wait_for 30 reported 2

# ---- below the mark: refused before a byte, transient --------------------------------------------------------
dd if=/dev/zero of="$work/state/filler" bs=1M count=$(($(stat -f -c '%a * %S / 1048576' "$work/state" | sed 's/.*/$((&))/' | { read -r e; eval "echo $e"; }) - 5)) 2>/dev/null
send MODALITY "$work/3.dcm"
is $? 1 "below storage.min_free a film is refused"
grep -q "Rejected Transient" "$work/storescu.out" && grep -qi "local limit" "$work/storescu.out"
ok $? "as an association, transient, local limit exceeded"
is "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT count(*) FROM instance')" 2 "nothing of it was taken"
rm "$work/state/filler"
check "with space again it is accepted" wait_for 10 send MODALITY "$work/3.dcm"
check "and reported" wait_for 30 reported 3

# ---- the last block ------------------------------------------------------------------------------------------
full() { # every block, again and again: what is given up is taken as well
	dd if=/dev/zero of="$work/state/filler.$1" bs=64k 2>/dev/null
	dd if=/dev/zero of="$work/state/filler.$1.small" bs=512 2>/dev/null
}
full 1
send MODALITY "$work/4.dcm"
is $? 1 "on a full disk a film is refused"
# the log has the room that it has; a checkpoint or a growing log meets the end
i=0
while has_ballast && [ $i -lt 60 ]; do
	send MODALITY "$work/4.dcm"
	i=$((i + 1))
done
! has_ballast
ok $? "the ballast is given up"
grep -q "disk is full" "$work/node.log"
ok $? "and the operator told"
check "the node lives" kill -0 "$pid"
start_archive
ctl flush >/dev/null 2>&1
check "deliveries go on with what it held" wait_for 60 archive_has 3
send MODALITY "$work/4.dcm"
is $? 1 "films are refused all the same"
full 2
ctl flush >/dev/null 2>&1
sleep 1
check "without any room left at all it lives too" kill -0 "$pid"
rm "$work"/state/filler*
check "with space again the film is accepted" wait_for 20 send MODALITY "$work/4.dcm"
check "reported and delivered" wait_for 30 archive_has 4
check "the ballast comes back" wait_for 20 has_ballast
check "nothing waits" wait_for 20 nothing_waits
is "$node_pid" "$pid" "one process saw it all"
kill -0 "$pid"
ok $? "and lives"
stop_node
is "$(sqlite3 "$work/state/carzerod.db" 'PRAGMA integrity_check')" ok "the database is whole"

# ---- which file system -----------------------------------------------------------------------------------------
umount "$work/state"
if mount -t tmpfs -o size=64m tmpfs "$work/state" 2>/dev/null; then
	"$builddir/carzerod" -c "$work/carzerod.yaml" >"$work/unsafe.out" 2>&1
	is $? 78 "a state directory in memory is refused"
	check "with a word about why" grep -q "tmpfs.*power cut" "$work/unsafe.out"
else
	skip "a state directory in memory is refused" "no tmpfs"
fi
finish
