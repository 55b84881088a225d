#!/bin/sh
# conformance.sh: the tables of doc/conformance.md are what the program prints, and what it prints is so.
. "$srcdir/tests/e2e.sh"
rm -rf "$work"
mkdir -p "$work"
"$builddir/carzeroctl" conformance >"$work/printed.md"
is $? 0 "carzeroctl conformance"
sed -n '/^<!-- carzeroctl conformance -->$/,/^<!-- end -->$/p' "$srcdir/doc/conformance.md" | sed '1d;$d' >"$work/stated.md"
check "doc/conformance.md says the same (else: put the new tables between its marks)" diff -u "$work/stated.md" "$work/printed.md"
is "$(grep -c '| ?' "$work/printed.md")" 0 "every UID has a name"

# spot checks against a real negotiation, where dcmtk is at hand
if command -v storescu >/dev/null; then
	begin
	"$builddir/carzeroctl" conformance >"$work/printed.md"
	write_config
	start_node
	for syntax in '-xe:LittleEndianExplicit' '-xb:BigEndianExplicit' '-xi:LittleEndianImplicit'; do
		phantom --seed 5 -o "$work/a.dcm"
		storescu -d "${syntax%%:*}" -aec CARZEROD 127.0.0.1 "$node_port" "$work/a.dcm" >"$work/store.txt" 2>&1
		grep -q "Accepted Transfer Syntax: =${syntax#*:}" "$work/store.txt" && grep -q "^| ${syntax#*:} " "$work/printed.md"
		ok $? "${syntax#*:} is accepted, and stated"
	done
	version=$(sed -n 's/.*Their Implementation Version Name: *//p' "$work/store.txt" | tail -n 1)
	grep -q "^| Implementation Version Name | $version |" "$work/printed.md"
	ok $? "the implementation version is $version"
	finish
fi
echo "1..$count"
[ "$failed" = 0 ]
