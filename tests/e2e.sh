# e2e.sh: what the end-to-end tests share.  Sourced; POSIX sh.
#
# A test has a folder of its own under $builddir/tests, ports of its own on loopback, one node started
# from the build tree, and archives that are real DCMTK or Orthanc.  Everything that it started is
# ended by process id.  Output is TAP.

set -u
: "${srcdir:?}" "${builddir:?}"

name=$(basename "$0" .sh)
work=$builddir/tests/$name.work
node_port= archive_port= sender_port= extra_port=
node_pid= archive_pid= other_pids=
export CARZEROD_LIBEXECDIR=$builddir
export TZ=UTC LC_ALL=C
# the sanitizers' own reports fail a test through the exit code and the log
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:log_path="$work/sanitizer"
export UBSAN_OPTIONS=print_stacktrace=1:log_path="$work/sanitizer"

# ---- TAP ----------------------------------------------------------------------------------------
. "$srcdir/tests/tap.sh"
check() { # check NAME COMMAND...
	check_name=$1
	shift
	if "$@" >"$work/check.out" 2>&1; then
		ok 0 "$check_name"
	else
		ok 1 "$check_name"
		sed 's/^/# /' "$work/check.out" | head -n 20
	fi
}
is() { # is GOT WANTED NAME
	if [ "$1" = "$2" ]; then
		ok 0 "$3"
	else
		ok 1 "$3"
		echo "# got '$1' expected '$2'"
	fi
}
skip() { # skip NAME REASON
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}
skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}
finish() {
	stop_node
	stop_archive
	for p in $other_pids; do
		kill "$p" 2>/dev/null
	done
	no_patient_data_in_logs
	no_refused_calls
	if ls "$work"/sanitizer* >/dev/null 2>&1; then
		ok 1 "no sanitizer report"
		head -n 40 "$work"/sanitizer* | sed 's/^/# /'
	fi
	if [ "$failed" != 0 ] && [ -f "$work/node.log" ]; then
		tail -n 30 "$work/node.log" | sed 's/^/# /'
	fi
	echo "1..$count"
	[ "$failed" = 0 ]
	exit
}

# ---- ports and processes --------------------------------------------------------------------------
port_is_free() {
	! grep -qi ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null
}
free_port() { # sets $port to one that nobody listens on
	while :; do
		port_try=$((port_try + 1))
		if port_is_free $port_try; then
			port=$port_try
			return
		fi
	done
}

begin() {
	rm -rf "$work"
	mkdir -p "$work"
	# below 32768: above it the kernel hands out numbers to connections that go out
	port_try=$((12000 + ($$ % 1030) * 20))
	free_port; node_port=$port
	free_port; archive_port=$port
	free_port; sender_port=$port
	free_port; extra_port=$port
	trap 'stop_node; stop_archive; for p in $other_pids; do kill $p 2>/dev/null; done' EXIT INT TERM
	make_bundle
}

wait_for() { # wait_for SECONDS COMMAND...: until it succeeds
	tries=$(($1 * 20))
	shift
	while [ $tries -gt 0 ]; do
		if "$@" >/dev/null 2>&1; then
			return 0
		fi
		sleep 0.05
		tries=$((tries - 1))
	done
	return 1
}

make_bundle() { # once for all tests of this build
	bundle=$builddir/tests/untrained-bundle
	if [ ! -f "$bundle/model.json" ]; then
		"$builddir/tools/bundle/mkbundle" --seed 1 --out "$bundle.$$" >/dev/null || exit 1
		mv "$bundle.$$" "$bundle" 2>/dev/null || rm -rf "$bundle.$$"
	fi
}

# ---- the node -------------------------------------------------------------------------------------
# write_config [LINES...]: the usual node; more top-level lines may be given.  One file for each study, the
# report, unless archive_objects and sender_objects say otherwise.
write_config() {
	cat >"$work/carzerod.yaml" <<-END
	ae_title: CARZEROD
	listen: ["127.0.0.1:$node_port"]
	state_dir: $work/state
	model: $bundle
	findings: $srcdir/tests/findings-test.yaml
	threads: 1
	settle: 0.3
	settle_max: 5
	storage: {min_free: 1000000, ballast: 0, unsafe: true${storage_more:+, $storage_more}}
	access:
	- {calling_ae: "*", from: [127.0.0.0/8, "::1"]}
	peers:
	- {ae_title: ARCHIVE, host: 127.0.0.1, port: $archive_port, objects: [${archive_objects:-sr}]}
	- {ae_title: MODALITY, host: 127.0.0.1, port: $sender_port, objects: [${sender_objects:-sr}]}
	END
	if [ $# = 0 ]; then
		set -- 'routes: [{from: "*", to: [ARCHIVE]}]'
	fi
	for l in "$@"; do
		printf '%s\n' "$l" >>"$work/carzerod.yaml"
	done
	# phantoms have dates of long ago
	echo "slow_lane: ${slow_lane:-{older_than_days: 0\}}" >>"$work/carzerod.yaml"
}

ctl() {
	"$builddir/carzeroctl" -c "$work/carzerod.yaml" "$@"
}

node_is_ready() {
	tail -n +"$((log_from + 1))" "$work/node.log" | grep -q "ready: receiving" &&
		tail -n +"$((log_from + 1))" "$work/node.log" | grep -q 'model .* ready'
}

start_node() { # in a process group of its own, so that a test can kill all of it
	touch "$work/node.log"
	log_from=$(wc -l <"$work/node.log")
	setsid "$builddir/carzerod" -c "$work/carzerod.yaml" 2>>"$work/node.log" &
	node_pid=$!
	wait_for 60 node_is_ready
}

stop_node() {
	[ -n "$node_pid" ] || return 0
	kill -TERM "$node_pid" 2>/dev/null
	wait "$node_pid" 2>/dev/null
	node_status=$?
	node_pid=
}

kill_node() { # kill -9 of the whole group
	kill -KILL -"$node_pid" 2>/dev/null
	wait "$node_pid" 2>/dev/null
	node_pid=
}

send() { # send CALLING_AE FILE...
	calling=$1
	shift
	storescu -aet "$calling" -aec CARZEROD 127.0.0.1 "$node_port" "$@" >"$work/storescu.out" 2>&1
}

nothing_waits() { # all settled, reported and delivered
	ctl --json status >"$work/status.json" 2>/dev/null
	[ -s "$work/status.json" ] &&
		[ "$(field waiting) $(field in_work) $(field collecting) $(field composing) $(field queued) $(field sending)" = "0 0 0 0 0 0" ]
}
field() { # field NAME: first number of that name in status.json
	sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$work/status.json" | head -n 1
}

# ---- archives ---------------------------------------------------------------------------------------
start_archive() { # storescp that keeps what it gets in $work/archive
	mkdir -p "$work/archive"
	TCP_NODELAY=1 storescp -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
	archive_pid=$!
	wait_for 10 not_free "$archive_port"
}
not_free() {
	! port_is_free "$1"
}
orthanc=$(command -v Orthanc || echo /usr/sbin/Orthanc) # in Debian a daemon's
start_orthanc() { # start_orthanc <CONFIGURATION: Orthanc as the archive, with these lines of JSON beside what all have; not awaited
	mkdir "$work/orthanc"
	{
		cat <<-END
		{ "Name": "archive", "StorageDirectory": "$work/orthanc", "IndexDirectory": "$work/orthanc",
		  "DicomPort": $archive_port, "DicomAet": "ARCHIVE", "RemoteAccessAllowed": false,
		END
		cat
		echo "}"
	} >"$work/orthanc.json"
	run_orthanc
}
run_orthanc() { # again, with what its configuration is by now
	"$orthanc" "$work/orthanc.json" >>"$work/orthanc.log" 2>&1 &
	archive_pid=$!
}
stop_archive() {
	[ -n "$archive_pid" ] || return 0
	kill "$archive_pid" 2>/dev/null
	wait "$archive_pid" 2>/dev/null
	archive_pid=
}
archive_files() {
	find "$work/archive" -type f 2>/dev/null | sort
}
archive_count() {
	archive_files | wc -l
}
archive_has() { # archive_has N
	[ "$(archive_count)" = "$1" ]
}

phantom() {
	"$builddir/tools/phantom/phantom" "$@"
}

# value of a tag as dcmdump prints it, without the comment
tag() { # tag FILE GGGG,EEEE
	dcmdump -q +L +P "$2" "$1" 2>/dev/null | sed -e 's/ *#.*//' -e 's/^([0-9a-f,]*) //' | head -n 1
}

# A locked worker that needs a call which its list does not have is a bug, whatever else the test shows.
no_refused_calls() {
	hits=$(grep -E 'sandbox: system call|signal 31' "$work"/node.log 2>/dev/null | head -n 3)
	is "$hits" "" "no system call was refused"
}

# Planted in every fixture; none may be in any log.
no_patient_data_in_logs() {
	hits=$(grep -lE 'Phantom\^|PHANTOM-|Planted|19[0-9]{6}' "$work"/node.log 2>/dev/null)
	is "$hits" "" "no patient data in the node's log"
}
