#!/bin/sh
# e2e_reload.sh: another configuration without another node: tried first, refused whole, applied without dropping anybody.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

log_since() { # log_since PATTERN: in the log since the last mark
	tail -n +"$((mark + 1))" "$work/node.log" | grep -q -- "$1"
}
set_mark() {
	mark=$(wc -l <"$work/node.log")
}
edit() { # edit SED_EXPRESSION: the file, as an editor writes it
	sed "$1" "$work/carzerod.yaml" >"$work/carzerod.yaml.tmp" && mv "$work/carzerod.yaml.tmp" "$work/carzerod.yaml"
	set_mark
}
reload() {
	ctl reload >"$work/reload.txt" 2>&1
	reload_status=$?
}
pid_of() { # pid_of PROGRAM: its number
	ctl --json status | grep -A1 "\"$1\"" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p' | head -n 1
}
one_more() { # one_more SEED: a study of its own
	phantom --seed "$1" --study-uid "2.25.50$1" -o "$work/$1.dcm"
	send MODALITY "$work/$1.dcm"
}

phantom --seed 7 --study-uid 2.25.501 -o "$work/pa.dcm"
cp "$srcdir/tests/findings-test.yaml" "$work/findings.yaml"
write_config 'routes: []'
sed -i "s,^findings: .*,findings: findings.yaml," "$work/carzerod.yaml"
start_node
ok $? "the node is ready"
keeper=$node_pid

# ---- routes and peers, with an association open all the while ------------------------------------------------
start_archive
echoscu --repeat 20000 -aec CARZEROD 127.0.0.1 "$node_port" >"$work/echo.out" 2>&1 &
echo_pid=$!
serving() {
	ctl --json status | grep -q '"associations": 1'
}
check "an association is open" wait_for 10 serving
edit 's/^routes: .*/routes: [{from: "*", to: [ARCHIVE]}]/'
reload
is $reload_status 0 "a reload succeeds"
kill -0 $echo_pid
ok $? "while the association goes on"
send MODALITY "$work/pa.dcm"
ok $? "a new association is taken at once"
check "and its report goes where the new route says" wait_for 30 archive_has 1
wait $echo_pid
is $? 0 "the old association was never disturbed"
is "$(grep -c 'end=released.*echoes=20000' "$work/node.log")" 1 "nor cut short"
no_retired() {
	[ "$(pgrep -P "$keeper" -f carzerod-receive | wc -l)" = 1 ]
}
check "the old receiver ends with it" wait_for 10 no_retired

# ---- who may come -------------------------------------------------------------------------------------------------
edit 's/calling_ae: "\*"/calling_ae: MODALITY/'
kill -HUP "$node_pid"
check "SIGHUP does the same" wait_for 30 log_since "reloaded:"
echoscu -aet STRANGER -aec CARZEROD 127.0.0.1 "$node_port" >/dev/null 2>&1
is $? 1 "a stranger is refused now"
check "and MODALITY is not" echoscu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port"

# ---- findings ---------------------------------------------------------------------------------------------------------
sed 's/id: pacemaker/id: wire/; s/name: Pacemaker/name: Wire/; s/There is a pacemaker/There is a wire/' "$srcdir/tests/findings-test.yaml" \
	>"$work/findings.yaml"
set_mark
reload
is $reload_status 0 "another findings list"
one_more 2
has_wire() {
	ctl show 2.25.502 | grep -q wire
}
check "is what the next image is scored by" wait_for 30 has_wire
check "nothing waits" wait_for 20 nothing_waits

# ---- refused whole ------------------------------------------------------------------------------------------------------
refused() { # refused NAME TEXT: by log, by answer, by exit code; and nothing has changed
	reload
	is $reload_status 2 "$1: refused"
	grep -q -- "$2" "$work/reload.txt"
	ok $? "$1: the operator reads why"
	sed 's/^/# /' "$work/reload.txt"
	check "$1: so does the log" wait_for 5 log_since "reload refused: .*$2.*the old configuration stays"
	check "$1: MODALITY is served as before" echoscu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port"
}
cp "$work/carzerod.yaml" "$work/good.yaml"
edit 's/calling_ae: MODALITY/calling_ae: OTHER/; s/^settle: .*/setle: 1/'
refused "a misspelt key" "carzerod.yaml:[0-9]*: unknown key 'setle', did you mean 'settle'"
kill -KILL "$(pid_of carzerod-infer)" "$(pid_of carzerod-image)"
sleep 0.3
one_more 3
check "helpers that die now start with the old one" wait_for 60 archive_has 3
cp "$work/good.yaml" "$work/carzerod.yaml"

edit 's,^model: .*,model: nowhere,'
refused "a model that is not there" "carzerod-infer cannot start"
cp "$work/good.yaml" "$work/carzerod.yaml"

echo 'findings: [{id: x, name: X}]' >"$work/findings.yaml"
set_mark
refused "a findings list without a prompt" "findings.yaml:1: "
cp "$srcdir/tests/findings-test.yaml" "$work/findings.yaml"

# ---- what only a restart changes -------------------------------------------------------------------------------------------
edit "s,^state_dir: .*,state_dir: $work/elsewhere,; s/127.0.0.1:$node_port/127.0.0.1:$extra_port/"
kill -HUP "$node_pid"
check "a new state_dir and address are no error" wait_for 30 log_since "reloaded:"
check "but that they need a restart is said" log_since 'only a restart changes state_dir listen'
[ ! -e "$work/elsewhere" ]
ok $? "nothing is written elsewhere"
cp "$work/good.yaml" "$work/carzerod.yaml"
reload
ctl why 2.25.777 | grep -q 'configuration reloaded'
ok $? "the history has it"

# ---- a peer that leaves while it is sent to ---------------------------------------------------------------------------------
stop_archive
one_more 4
check "a report for an archive that is away" wait_for 30 sh -c "'$builddir/carzeroctl' -c '$work/carzerod.yaml' queue | grep -q ARCHIVE"
edit 's/^- {ae_title: ARCHIVE.*//; s/^routes: .*/routes: []/'
reload
is $reload_status 0 "its peer leaves the configuration"
ctl why 2.25.504 | grep -q 'no peer has that AE title any more'
ok $? "why says so"
cp "$work/good.yaml" "$work/carzerod.yaml"
start_archive
reload
check "it is back, and the report goes out" wait_for 30 archive_has 4
is "$node_pid" "$keeper" "one keeper all the while"
kill -0 "$keeper"
ok $? "which lives"

# ---- what the service manager hears -----------------------------------------------------------------------------------------
if command -v python3 >/dev/null; then
	stop_node
	cat >"$work/notify.py" <<-END
	import os, socket, sys
	s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
	s.bind(sys.argv[1])
	while True:
	    print(s.recv(4096).decode().replace("\n", " "), flush=True)
	END
	python3 "$work/notify.py" "$work/notify.sock" >"$work/notify.txt" &
	other_pids="$other_pids $!"
	wait_for 5 test -S "$work/notify.sock"
	NOTIFY_SOCKET=$work/notify.sock
	export NOTIFY_SOCKET
	start_node
	reload
	unset NOTIFY_SOCKET
	is "$(grep -oE '^(READY=1|RELOADING=1 MONOTONIC_USEC=[1-9])' "$work/notify.txt" | tr '\n' ' ')" \
		"READY=1 RELOADING=1 MONOTONIC_USEC=$(sed -n 's/^RELOADING=1 MONOTONIC_USEC=\(.\).*/\1/p' "$work/notify.txt") READY=1 " \
		"systemd hears RELOADING with the time, then READY"
else
	skip "systemd hears RELOADING with the time, then READY" "python3 is not installed"
fi
finish
