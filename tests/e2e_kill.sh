#!/bin/sh
# e2e_kill.sh: kill -9 of the whole process group while films are being sent, again and again.
# Every film that was acknowledged must end in exactly one report; nobody lifts a finger.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

rounds=20 films=50
[ "${CHECK_LONG:-no}" = yes ] && rounds=100

i=1
mkdir "$work/films"
while [ $i -le $films ]; do
	phantom --seed $i --size 256x256 -o "$work/films/$i.dcm"
	i=$((i + 1))
done
write_config
start_archive
start_node
ok $? "the node is ready"

# one process a film, so that its exit code is the acknowledgement of that film
sender() {
	while :; do
		for f in "$work"/films/*.dcm; do
			[ -f "$f.acknowledged" ] && continue
			if storescu -to 5 -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$f" >/dev/null 2>&1; then
				: >"$f.acknowledged"
			fi
		done
		[ "$(ls "$work"/films/*.acknowledged 2>/dev/null | wc -l)" = $films ] && break
		sleep 0.05
	done
}
sender &
sender_pid=$!
other_pids="$other_pids $sender_pid"

round=1
while [ $round -le $rounds ]; do
	# 0.05 .. 0.95 s, another moment every round
	sleep "0.$((5 + (round * 37) % 90))"
	kill_node
	setsid "$builddir/carzerod" -c "$work/carzerod.yaml" 2>>"$work/node.log" &
	node_pid=$!
	round=$((round + 1))
done
all_acknowledged() {
	[ "$(ls "$work"/films/*.acknowledged 2>/dev/null | wc -l)" = $films ]
}
check "all $films films are acknowledged in the end" wait_for 120 all_acknowledged
check "$rounds kills later nothing waits" wait_for 120 nothing_waits
kill $sender_pid 2>/dev/null

studies() { # the Study Instance UID of every report in the archive
	for f in $(archive_files); do
		tag "$f" 0020,000d
	done | sort
}
studies >"$work/reported"
is "$(wc -l <"$work/reported")" $films "as many reports as films"
is "$(uniq -d "$work/reported" | wc -l)" 0 "no study reported twice"
for f in "$work"/films/*.dcm; do
	tag "$f" 0020,000d
done | sort >"$work/wanted"
is "$(cmp "$work/reported" "$work/wanted" && echo same)" same "every acknowledged film is reported"
ctl --json status >"$work/status.json"
is "$(field quarantined)" 0 "nothing was quarantined"
is "$(sqlite3 "$work/state/carzerod.db" 'PRAGMA integrity_check')" ok "the database is whole"
finish
