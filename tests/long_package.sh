#!/bin/sh
# long_package.sh: the Debian package in a clean Debian 12: installed, started, upgraded over an older database, purged.
# Needs root, debootstrap, a mirror ($DEBIAN_MIRROR) and some minutes; $CARZEROD_ROOT may name a root made before.
. "$srcdir/tests/e2e.sh"
[ "$(id -u)" = 0 ] || skip_all "not root"
command -v debootstrap >/dev/null || skip_all "debootstrap is not installed"
ls "$builddir"/package/carzerod_*.deb >/dev/null 2>&1 || (cd "$srcdir" && BUILD=$builddir ./run package >/dev/null) || skip_all "no package: ./run package"
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
cp "$builddir"/package/carzerod_*.deb "$root/tmp/deb/carzerod.deb"
mount -t proc proc "$root/proc"
trap 'stop_inside; umount "$root/proc"' EXIT INT TERM
inside() {
	DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}
node=
stop_inside() {
	[ -n "$node" ] || return 0
	kill -TERM "$node" 2>/dev/null
	wait "$node" 2>/dev/null
	node=
}

# ---- installed --------------------------------------------------------------------------------------------
inside apt-get update -q >"$work/apt.log" 2>&1
check "installed with what it depends on" inside apt-get install -y -q --no-install-recommends /tmp/deb/carzerod.deb sqlite3 dcmtk
is "$(inside stat -c '%U %a' /var/lib/carzerod)" "carzerod 700" "its folder is its user's alone"
check "the configuration as shipped is good: the demonstration model" inside /usr/sbin/carzerod --check-config

# ---- two lines, and a report ------------------------------------------------------------------------------
sed -i -e "s/^#listen: .*/listen: [\"127.0.0.1:$node_port\"]/" \
	-e "s/^ae_title: .*/ae_title: CARZEROD/" -e "s/{ae_title: ARCHIVE, host: archive.example.org, port: 104}/{ae_title: ARCHIVE, host: 127.0.0.1, port: $archive_port, objects: [sr]}/" \
	"$root/etc/carzerod/carzerod.yaml"
check "with an archive too" inside /usr/sbin/carzerod --check-config
start_inside() {
	touch "$work/node.log"
	log_from=$(wc -l <"$work/node.log")
	env -u CARZEROD_LIBEXECDIR -u CARZEROD_RUNNING chroot --userspec=carzerod:carzerod "$root" /usr/sbin/carzerod 2>>"$work/node.log" &
	node=$!
	wait_for 60 node_is_ready
}
start_inside
ok $? "it starts as its own user"
start_archive
phantom --seed 7 --study-uid 2.25.901 -o "$work/pa.dcm"
send MODALITY "$work/pa.dcm"
ok $? "it takes a film"
check "and answers with a report" wait_for 60 archive_has 1
check "carzeroctl works inside" inside /usr/sbin/carzeroctl status
stop_inside

# ---- an upgrade over a database of the step before --------------------------------------------------------------
rm -f "$root"/var/lib/carzerod/carzerod.db*
{
	cat "$srcdir/store/schema.sql"
	echo "PRAGMA user_version = 1; PRAGMA application_id = 1668965424; PRAGMA journal_mode = WAL;"
	echo "INSERT INTO study (study_uid, state, settle_at, created) VALUES ('2.25.902', 2, strftime('%s') * 1000, strftime('%s') * 1000);"
} | inside sqlite3 /var/lib/carzerod/carzerod.db >/dev/null
inside chown carzerod:carzerod /var/lib/carzerod/carzerod.db
check "installed again" inside apt-get install -y -q --reinstall /tmp/deb/carzerod.deb
grep -q "127.0.0.1:$node_port" "$root/etc/carzerod/carzerod.yaml"
ok $? "the configuration stays the operator's"
start_inside
ok $? "it starts over the older database"
is "$(inside sqlite3 /var/lib/carzerod/carzerod.db 'SELECT count(*) FROM study')" 1 "whose rows stay"
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
