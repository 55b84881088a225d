#!/bin/sh
# demo.sh TOP BUILD: the node and an archive on loopback, a study of a phantom, the report as a person reads it.
# Called by ./run demo, which has built everything.
set -eu
top=$1 build=$2
work=$build/demo
started=$(date +%s)
node= archive=
export CARZEROD_LIBEXECDIR="$build"

end() {
	[ -z "$node" ] || kill "$node" 2>/dev/null || true
	[ -z "$archive" ] || kill "$archive" 2>/dev/null || true
	wait 2>/dev/null || true
}
trap end EXIT INT TERM

fail() {
	echo "demo: $*" >&2
	[ ! -f "$work/node.log" ] || tail -n 20 "$work/node.log" >&2
	exit 1
}
wait_for() { # SECONDS WHAT COMMAND...
	tries=$(($1 * 20)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "waited in vain for $what"
		sleep 0.05
	done
}
listens() {
	grep -qi ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6
}
free_port() { # sets $port
	port=$((${port:-21100} + 1))
	while listens $port; do port=$((port + 1)); done
}
arrived() {
	report=$(find "$work/archive" -type f -name '*SR*' -o -type f -path '*/archive/*' | head -n 1)
	[ -n "$report" ]
}

rm -rf "$work"
mkdir -p "$work/archive"
free_port; node_port=$port
free_port; archive_port=$port

"$build/tools/bundle/mkbundle" --seed 1 --out "$work/model" >/dev/null
study=2.25.329800735698586629295641978511506172918
"$build/tools/phantom/phantom" --seed 42 --finding effusion=left,large --study-uid $study -o "$work/phantom-PA.dcm"
"$build/tools/phantom/phantom" --seed 42 --view LL --study-uid $study -o "$work/phantom-lateral.dcm"

cat >"$work/carzerod.yaml" <<END
ae_title: CARZEROD
listen: ["127.0.0.1:$node_port"]
state_dir: $work/state
storage: {unsafe: true} # a container's file system will do here
model: $work/model
findings: $top/etc/findings.yaml
settle: 0.2
access: [{calling_ae: "*", from: [127.0.0.0/8]}]
peers: [{ae_title: ARCHIVE, host: 127.0.0.1, port: $archive_port}]
routes: [{from: "*", to: [ARCHIVE]}]
END

TCP_NODELAY=1 storescp -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
archive=$!
"$build/carzerod" -c "$work/carzerod.yaml" 2>"$work/node.log" &
node=$!
wait_for 60 "the node" grep -q 'ready: receiving' "$work/node.log"
wait_for 60 "the archive" listens "$archive_port"

echo "sending a study of two phantom films (PA and lateral) to CARZEROD on port $node_port"
storescu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$work/phantom-PA.dcm" "$work/phantom-lateral.dcm" ||
	fail "the node refused the study"
wait_for 60 "the report" arrived
wait_for 10 "the record" sh -c "'$build/carzeroctl' -c '$work/carzerod.yaml' queue | grep -q '^0 '"

dsr2html +Xf /dev/null "$report" "$work/report.html" 2>/dev/null || dsr2html "$report" "$work/report.html" 2>/dev/null
dsrdump "$report" >"$work/report.txt" 2>/dev/null
echo
"$build/carzeroctl" -c "$work/carzerod.yaml" show $study
cat <<END

The numbers above come from an UNTRAINED model of random weights: they mean nothing.  A site imports the
published weights with carzero-model(1).  Every report says: AI result, not verified.

  report as DICOM SR   $report
  report for people    $work/report.html (and report.txt)
  database             $work/state/carzerod.db
  node's log           $work/node.log
  done in $(($(date +%s) - started)) s
END
