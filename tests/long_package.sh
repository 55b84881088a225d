#!/bin/sh
# long_package.sh: the Debian package in a clean Debian 12: made without a word of lintian, installed, three lines edited, first
# report, upgraded over an older database, purged.  Needs root, debootstrap, a mirror ($DEBIAN_MIRROR) and some minutes;
# $CARZEROD_ROOT may name a root made before, $CARZEROD_DEB a package.
. "$srcdir/tests/e2e.sh"
[ "$(id -u)" = 0 ] || skip_all "not root"
command -v debootstrap >/dev/null || skip_all "debootstrap is not installed"
[ -n "${CARZEROD_DEB:-}" ] || git -C "$srcdir" rev-parse HEAD >/dev/null 2>&1 || skip_all "not a git repository: ./run package packs what is committed"
umount "$work/root/proc" 2>/dev/null # a run that was killed
begin

root=$work/root
if [ -d "${CARZEROD_ROOT:-}" ]; then
	cp -a "$CARZEROD_ROOT" "$root"
else
	debootstrap --variant=minbase bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" 2>&1 ||
		skip_all "debootstrap failed: see $work/debootstrap.log"
fi
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/tmp/deb"
if [ -z "${CARZEROD_DEB:-}" ]; then # what is installed is what is committed now
	check "./run package, and lintian without a warning" env BUILD="$builddir" "$srcdir/run" package
	CARZEROD_DEB=$(ls "$builddir"/package/carzerod_*.deb)
fi
cp "$CARZEROD_DEB" "$root/tmp/deb/carzerod.deb" || exit 1
mount -t proc proc "$root/proc"
trap 'stop_inside; stop_archive; for p in $other_pids; do kill $p 2>/dev/null; done; umount "$root/proc"' EXIT INT TERM
inside() { # with nothing of this machine's surroundings
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}
node=
stop_inside() {
	[ -n "$node" ] || return 0
	kill -TERM "$node" 2>/dev/null
	wait "$node" 2>/dev/null
	node=
}

# A network of its own, so that the ports of the README are free in it.  The package is fetched from outside.
unshare --net sh -c 'ip link set lo up && exec sleep 3600' &
holder=$!
other_pids="$other_pids $holder"
in_net() {
	nsenter --net="/proc/$holder/ns/net" "$@"
}
apart() { # not before it has left our own
	[ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ] && in_net ip link show lo | grep -q '[<,]UP[,>]'
}
wait_for 10 apart || skip_all "no network namespaces here"
node_port=11112 archive_port=4242

# ---- installed, three lines, and a report: what README.md says, and how long it takes -------------------------
inside apt-get update -q >"$work/apt.log" 2>&1
begun=$(date +%s)
check "installed with what it depends on" inside apt-get install -y -q /tmp/deb/carzerod.deb
installed=$(date +%s)
is "$(inside stat -c '%U %a' /var/lib/carzerod)" "carzerod 700" "its folder is its user's alone"
check "the configuration as shipped is good: the demonstration model" inside /usr/sbin/carzerod --check-config

settings=$root/etc/carzerod/carzerod.yaml
cp "$settings" "$work/shipped.yaml"
awk '/^```yaml$/ { on = 1; next } /^```/ { on = 0 } on' "$srcdir/README.md" | sed -e 's/192\.0\.2\.20/127.0.0.1/' >"$work/lines.yaml"
is "$(wc -l <"$work/lines.yaml")" 3 "README.md has three lines to edit"
for key in '^ae_title: ' '^  - {ae_title: ' '^  - {from: '; do # each takes the place of the line that is like it
	line=$(grep -e "$key" "$work/lines.yaml")
	sed -i "s|$key.*|$line|" "$settings"
done
is "$(diff "$work/shipped.yaml" "$settings" | grep -c '^>')" 3 "three lines are edited"
check "and they are good" inside /usr/sbin/carzerod --check-config
start_inside() { # as the unit does, without systemd
	touch "$work/node.log"
	log_from=$(wc -l <"$work/node.log")
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ nsenter --net="/proc/$holder/ns/net" chroot --userspec=carzerod:carzerod "$root" \
		$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/carzerod.service") 2>>"$work/node.log" &
	node=$!
	wait_for 60 node_is_ready
}
start_inside
ok $? "it starts as its own user, on port $node_port"
mkdir -p "$work/archive"
nsenter --net="/proc/$holder/ns/net" storescp -aet ORTHANC -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
archive_pid=$!
wait_for 10 in_net echoscu -aec ORTHANC 127.0.0.1 "$archive_port"
in_net env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ chroot "$root" /usr/sbin/carzeroctl selftest --peer ORTHANC >"$work/page.txt" 2>&1
ok $? "carzeroctl selftest is content"
sed 's/^/# /' "$work/page.txt"
has_report() {
	for f in $(archive_files); do
		tag "$f" 0008,0060 | grep -q '\[SR\]' && return
	done
	return 1
}
check "the report of its film is in the archive" has_report
now=$(date +%s)
[ $((now - begun)) -lt 300 ]
ok $? "from the package to the first report in $((now - begun)) s, $((installed - begun)) of them apt's: less than 5 minutes"
check "carzeroctl works inside" inside /usr/sbin/carzeroctl status
stop_inside

# ---- an upgrade over a database of the step before --------------------------------------------------------------
check "sqlite3, for what follows" inside apt-get install -y -q --no-install-recommends sqlite3
rm -f "$root"/var/lib/carzerod/carzerod.db*
{
	cat "$srcdir/store/schema.sql"
	echo "PRAGMA user_version = 1; PRAGMA application_id = 1668965424; PRAGMA journal_mode = WAL;"
	echo "INSERT INTO study (study_uid, state, settle_at, created) VALUES ('2.25.902', 2, strftime('%s') * 1000, strftime('%s') * 1000);"
} | inside sqlite3 /var/lib/carzerod/carzerod.db >/dev/null
inside chown carzerod:carzerod /var/lib/carzerod/carzerod.db
check "installed again" inside apt-get install -y -q --reinstall /tmp/deb/carzerod.deb
[ "$(diff "$work/shipped.yaml" "$settings" | grep -c '^>')" = 3 ]
ok $? "the configuration stays the operator's"
start_inside
ok $? "it starts over the older database"
is "$(inside sqlite3 /var/lib/carzerod/carzerod.db 'SELECT count(*) FROM study WHERE study_uid = "2.25.902"')" 1 "whose rows stay"
[ "$(inside sqlite3 /var/lib/carzerod/carzerod.db 'PRAGMA user_version')" -ge 2 ]
ok $? "brought up to the present schema"
stop_inside

# ---- gone, but not what senders were promised ---------------------------------------------------------------------
check "purged" inside apt-get purge -y -q carzerod
[ ! -e "$root/etc/carzerod/carzerod.yaml" ] && [ ! -e "$root/usr/sbin/carzerod" ]
ok $? "programs and configuration are gone"
[ -e "$root/var/lib/carzerod/carzerod.db" ]
ok $? "patient data are not"
umount "$root/proc"
trap - EXIT INT TERM
rm -rf --one-file-system "$root"
finish
