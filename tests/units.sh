#!/bin/sh
# units.sh: what is installed: every file under DESTDIR, units that systemd can read, and how much they expose.
: "${srcdir:?}" "${builddir:?}"
work=$builddir/tests/units.work
. "$srcdir/tests/tap.sh"
if ! grep -q '^prefix = /usr$' "$builddir/Makefile"; then
	echo "1..0 # SKIP configured for another place than /usr, where the units look"
	exit 0
fi
rm -rf "$work"
mkdir -p "$work/root"
make -C "$builddir" -s install DESTDIR="$work/root" >"$work/install.log" 2>&1
ok $? "make install honours DESTDIR"
root=$work/root
for f in usr/sbin/carzerod usr/sbin/carzeroctl usr/bin/carzero-model etc/carzerod/carzerod.yaml etc/carzerod/findings.yaml \
	usr/lib/sysusers.d/carzerod.conf usr/lib/tmpfiles.d/carzerod.conf usr/share/bash-completion/completions/carzeroctl \
	usr/share/man/man8/carzerod.8; do
	[ -s "$root/$f" ]
	ok $? "$f is there"
done
bash -n "$root/usr/share/bash-completion/completions/carzeroctl" 2>/dev/null
ok $? "bash reads the completion"
units=$root/usr/lib/systemd/system
grep -rl '@[a-z]*@' "$units" >/dev/null
[ $? = 1 ]
ok $? "no place holder is left in a unit"
if ! command -v systemd-analyze >/dev/null; then
	count=$((count + 1))
	echo "ok $count - systemd-analyze # SKIP systemd is not installed"
	echo "1..$count"
	[ $failed = 0 ]
	exit
fi
# what our units refer to
cp -n /lib/systemd/system/*.target /lib/systemd/system/systemd-*.service /lib/systemd/system/*.slice "$units/" 2>/dev/null
systemd-analyze verify --man=no --root="$root" "$units"/carzerod.service "$units"/carzerod*.socket >"$work/verify.txt" 2>&1
ok $? "systemd-analyze verify"
sed 's/^/# /' "$work/verify.txt"
[ ! -s "$work/verify.txt" ]
ok $? "without a word"
systemd-analyze security --offline=true --threshold=15 --no-pager "$units/carzerod.service" >"$work/security.txt" 2>&1
ok $? "exposure at most 1.5: $(sed -n 's/.*exposure level[^:]*: \([0-9.]*\).*/\1/p' "$work/security.txt")"
echo "1..$count"
[ $failed = 0 ]
