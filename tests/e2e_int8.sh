#!/bin/sh
# e2e_int8.sh: `precision`: a node that scores in int8 behind its walls says so with every score and in the
# report, and applies no calibration of f32; one whose CPU lacks the precision does not start, and says what it needs.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

phantom --seed 7 --finding effusion=left,large -o "$work/pa.dcm"
start_archive

write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'precision: int8'
if start_node; then
	ok 0 "the node is ready"
	check "the worker says what it computes with" grep -q 'scoring core=.* precision=int8 .* fallbacks=0' "$work/node.log"
	send MODALITY "$work/pa.dcm"
	check "a report arrives" wait_for 30 archive_has 1
	sr=$(archive_files | head -n 1)
	dsrdump +Pl "$sr" >"$work/tree.txt" 2>/dev/null
	check "it names the precision" grep -q 'precision=int8' "$work/tree.txt"
	is "$(grep -cF 'CARZero raw score' "$work/tree.txt")" 5 "a calibration of f32 does not apply: raw scores"
	is "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT DISTINCT precision FROM instance')" int8 "it is stored with the scores"
	stop_node
	is "$node_status" 0 "the node ends in order"
	check "nothing was refused by the filter" sh -c "! grep -q 'sandbox: system call' '$work/node.log'"
elif grep -q 'precision int8 needs a CPU with AVX512_VNNI or AVX2 and a build with oneDNN' "$work/node.log"; then
	skip "int8" "not on this CPU, or built without oneDNN"
else
	ok 1 "the node is ready"
fi

write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'precision: bf16'
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
	skip "bf16 is refused" "this CPU has it"
else
	says_what_it_needs() {
		grep -q 'precision bf16 needs a CPU with AVX512_BF16 or AMX' "$work/node.log"
	}
	setsid "$builddir/carzerod" -c "$work/carzerod.yaml" 2>>"$work/node.log" &
	node_pid=$!
	check "bf16 on a CPU without it: what it needs" wait_for 60 says_what_it_needs
	kill_node
fi
finish
