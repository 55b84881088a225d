#!/bin/sh
# e2e_metrics.sh: what Prometheus would see of a node at work, over TCP and over a UNIX socket.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null && command -v curl >/dev/null ||
	skip_all "dcmtk's tools or curl are not installed"
begin

get() { # get PATH
	curl -s -m 5 "http://127.0.0.1:$extra_port$1"
}
value() { # value SAMPLE: of the last answer
	grep -v '^#' "$work/metrics" | grep -F "$1 " | awk '{ print $NF }'
}
settled() { # all that was made is with the archive, and it is something
	get /metrics >"$work/metrics" && [ "$(value 'carzerod_outbox{destination="ARCHIVE",state="waiting"}')" = 0 ] &&
		[ "$(value carzerod_scored_total)" = 3 ] && [ "$(value carzerod_reported_total)" = 3 ] &&
		[ "$(value carzerod_delivered_total)" -ge 3 ]
}
for i in 1 2 3; do
	phantom --seed 5$i --study-uid 2.25.50$i --patient-id "SECRET$i" --patient-name "GEHEIM^NAME$i" -o "$work/$i.dcm"
done
# promtool comes with Debian's prometheus, which `./run check --long` installs
write_config "metrics: 127.0.0.1:$extra_port" 'routes: [{from: "*", to: [ARCHIVE]}]'
start_archive
start_node
ok $? "the node is ready"
check "healthy once a model is loaded" wait_for 30 sh -c "[ \"\$(curl -s -m 5 http://127.0.0.1:$extra_port/health)\" = healthy ]"
send CR1 "$work/1.dcm" "$work/2.dcm"
send CR1 "$work/1.dcm"
send CR2 "$work/3.dcm"
check "three studies are scored, reported and delivered" wait_for 30 settled
is "$(value 'carzerod_scored_total')" 3 "three images scored"
is "$(value 'carzerod_store_total{status="0000"}')" 4 "four objects answered 0000"
is "$(value 'carzerod_store_repeats_total')" 1 "one of them here already"
is "$(value 'carzerod_source_images_total{source="CR1",outcome="scored"}')" 2 "by source"
is "$(value 'carzerod_stage_seconds_count{stage="decode"}')" 3 "decoding is timed"
is "$(value 'carzerod_stage_seconds_count{stage="infer"}')" 3 "inference too"
is "$(value 'carzerod_associations_total')" 3 "three associations"
is "$(value 'carzerod_lost_objects')" 0 "nothing lost"
is "$(value 'carzerod_destination_available{destination="ARCHIVE"}')" 1 "the archive answers"
is "$(awk '$1 == "carzerod_stage_seconds_sum{stage=\"result\"}" { print ($2 > 0.05 && $2 < 60) }' "$work/metrics")" 1 \
	"from the last image to the accepted report"
is "$(grep -c 'SECRET\|GEHEIM\|2\.25\.' "$work/metrics")" 0 "no identifier of a patient, no UID"
if command -v promtool >/dev/null; then
	promtool check metrics <"$work/metrics" >"$work/promtool" 2>&1
	is "$? $(wc -l <"$work/promtool")" "0 0" "promtool has nothing to say"
	check "nor to the alert rules" promtool check rules "$srcdir/etc/monitoring/carzerod.rules.yaml"
fi
is "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$extra_port/other")" 404 "another path"
is "$(curl -s -m 5 -o /dev/null -w '%{http_code}' -X DELETE "http://127.0.0.1:$extra_port/metrics")" 405 "another method"
head -c 100000 /dev/urandom | curl -s -m 5 -o /dev/null --data-binary @- "http://127.0.0.1:$extra_port/metrics"
check "still there after what it does not want" wait_for 10 sh -c "curl -s -f -m 5 http://127.0.0.1:$extra_port/metrics"

# ---- a destination that is away, on a UNIX socket; the drift state survives --------------------------------
stop_node
stop_archive
write_config "metrics: $work/metrics.sock" 'routes: [{from: "*", to: [ARCHIVE]}]'
start_node
phantom --seed 54 --study-uid 2.25.504 --patient-id SECRET4 -o "$work/4.dcm"
send CR1 "$work/4.dcm"
unix() {
	curl -s -f -m 5 --unix-socket "$work/metrics.sock" http://node/metrics >"$work/metrics" &&
		[ "$(value 'carzerod_destination_available{destination="ARCHIVE"}')" = 0 ]
}
check "the destination rests" wait_for 30 unix
is "$(value 'carzerod_send_total{destination="ARCHIVE",status="none"}' | awk '{ print ($1 >= 1) }')" 1 "attempts without an answer"
is "$(sqlite3 "$work/state/carzerod.db" 'SELECT group_concat(source) FROM drift')" CR1,CR2 "score histories were kept"
finish
