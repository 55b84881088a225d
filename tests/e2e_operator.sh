#!/bin/sh
# e2e_operator.sh: what an operator does with carzeroctl, and its exit codes for a monitor.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

json_is_good() { # of the last answer in $work/out.json
	python3 -m json.tool "$work/out.json" >/dev/null 2>&1
}
says() { # says CODE PATTERN ARGS...: carzeroctl ARGS ends with CODE and prints PATTERN
	s_code=$1 s_pattern=$2
	shift 2
	ctl "$@" >"$work/out.txt" 2>&1
	s_got=$?
	is $s_got "$s_code" "$*: exit code $s_code"
	grep -q -- "$s_pattern" "$work/out.txt"
	s_got=$?
	ok $s_got "$*: '$s_pattern'"
	[ $s_got = 0 ] || sed 's/^/# /' "$work/out.txt"
}
waits_in_queue() {
	ctl queue | grep -q "ARCHIVE"
}
phantom --seed 7 --study-uid 2.25.801 -o "$work/pa.dcm"
phantom --seed 8 --study-uid 2.25.802 -o "$work/second.dcm"
write_config
start_node
ok $? "the node is ready"
start_archive

# ---- a monitor's exit codes, and JSON everywhere --------------------------------------------------------------
says 0 'all good' status
says 0 'the queue is empty' queue
says 0 'good: AE title CARZEROD' config check
says 0 'ae_title: CARZEROD' config show
says 0 'the node runs with what the files say' config diff
if command -v python3 >/dev/null; then
	for v in status studies queue "config check" "config show" "config diff" "top 1" "why 2.25.999" "hold ARCHIVE" "release ARCHIVE" drain \
		release flush reload; do
		ctl --json $v >"$work/out.json" 2>&1
		json_is_good
		ok $? "--json $v"
	done
else
	skip "--json of every command" "python3 is not installed"
fi
for v in status studies show why queue flush hold release drain top config reload requeue purge; do
	ctl --help | grep -q "^  $v "
	ok $? "--help has $v, and so the completion"
done

# ---- held back -----------------------------------------------------------------------------------------------------
says 0 'ARCHIVE is held' hold ARCHIVE
says 2 'no peer has that AE title' hold NOBODY
send MODALITY "$work/pa.dcm"
check "a report for a destination that is held" wait_for 30 waits_in_queue
sleep 1
is "$(archive_count)" 0 "does not go"
ctl --json status | grep -q '"state": "held"'
ok $? "status says held"
stop_node
start_node
sleep 1
is "$(archive_count)" 0 "nor after a restart"
says 0 'ARCHIVE is released' release ARCHIVE
check "released, it goes" wait_for 30 archive_has 1

# ---- drained ----------------------------------------------------------------------------------------------------------
send MODALITY "$work/second.dcm"
says 0 'drained: nobody is let in, nothing waits' drain
is "$(archive_count)" 2 "what was there has gone out"
echoscu -aec CARZEROD 127.0.0.1 "$node_port" >/dev/null 2>&1
is $? 1 "nobody is let in"
says 1 'an operator drains the node' status
says 0 'accepted again' release
check "and is again" echoscu -aec CARZEROD 127.0.0.1 "$node_port"

# ---- what a reload would change ------------------------------------------------------------------------------------------
sed -i 's/^settle: .*/settle: 0.4/' "$work/carzerod.yaml"
says 1 '^+settle: 0.4' config diff
says 0 reloaded reload
says 0 'the node runs with what the files say' config diff
sed -i 's/^settle: .*/setle: 0.4/' "$work/carzerod.yaml"
says 2 'unknown key .setle., did you mean .settle.' config check
sed -i 's/^setle: .*/settle: 0.3/' "$work/carzerod.yaml"

# ---- the queue of an archive that is away, and the node that is not there ---------------------------------------------------
stop_archive
phantom --seed 9 --study-uid 2.25.803 -o "$work/third.dcm"
send MODALITY "$work/third.dcm"
check "an archive that is away" wait_for 30 waits_in_queue
attempted() {
	ctl queue | grep -q '^ *(.*no connection'
}
check "the reason stands under it" wait_for 30 attempted
says 0 '^-- 1 deliveries wait, the oldest for' queue
says 1 'a destination is unavailable' status
stop_node
says 2 'carzerod is not running' status
says 64 'is not a command' nonsense
finish
