#!/bin/sh
# e2e_lanes.sh: forty old films are sent, then one of today with an urgent finding: who is served first, and that all are.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null || skip_all "dcmtk's tools are not installed"
command -v sqlite3 >/dev/null || skip_all "sqlite3 is not installed"
begin
row() { # row SQL
	sqlite3 -readonly "$work/state/carzerod.db" "$1"
}
rows() { # rows N SQL
	[ "$(row "$2")" = "$1" ]
}
film() { # film NUMBER DATE: film-NUMBER.dcm, a study of its own
	phantom --seed $((70 + $1)) --size 64x64 --study-uid "2.25.70$1" -o "$work/film-$1.dcm" &&
		dcmodify -nb -m "0008,0020=$2" "$work/film-$1.dcm" >/dev/null 2>&1
}

# every film has this finding: its threshold is no threshold
cat >"$work/urgent.yaml" <<END
name: urgent
findings:
- id: pneumothorax
  name: Pneumothorax
  prompt: There is pneumothorax
  urgency: urgent
  calibration: {a: 1, b: 60, prompt: There is pneumothorax, family: $(sed -n 's/.*"family": *"\([^"]*\)".*/\1/p' "$bundle/model.json"), recipe: window,
    precision: f32, prevalence: 0.1, origin: made up for a test}
  thresholds: {hi: 0.1, hi_sensitivity: 0.9, hi_ppv: 0.5, hi_alarm_rate: 0.1, origin: made up for a test}
END
configure() {
	slow_lane=$1
	write_config 'limits: {queue: 60}' "metrics: 127.0.0.1:$extra_port" 'routes: [{from: "*", to: [ARCHIVE]}]'
	sed -i "s,^findings: .*,findings: $work/urgent.yaml," "$work/carzerod.yaml"
}
configure '{older_than_days: 30}'
line=$(grep -n '^slow_lane' "$work/carzerod.yaml" | cut -d: -f1)
today=$(date +%Y%m%d)
i=0
while [ $i -lt 40 ]; do
	film $i 20200101 || ok 1 "film $i"
	i=$((i + 1))
done
film 40 "$today"
start_archive
start_node
ok $? "the node is ready"

# ---- a migration: half of the queue, and no more --------------------------------------------------------------------
infer=$(pgrep -P "$node_pid" carzerod-infer)
kill -STOP "$infer" # nothing is scored until all is here
storescu -nh -aet OLDPACS -aec CARZEROD 127.0.0.1 "$node_port" "$work"/film-[0-9].dcm "$work"/film-[123][0-9].dcm >"$work/storescu.out" 2>&1
is "$(row 'SELECT count(*) FROM study WHERE lane = 1')" 30 "of forty old studies thirty have a place: half of limits.queue"
is "$(row 'SELECT count(*) FROM instance WHERE slow = 1 AND state IN (0, 1)')" 30 "in the slow lane"
is "$(ls "$work/state/spool/incoming" | wc -l)" 0 "and nothing is left of the others"
check "the rest was answered A700, says the history" wait_for 10 rows 1 \
	"SELECT count(DISTINCT text) FROM event WHERE text LIKE '%10 refused%answered A700, half of limits.queue waits in the slow lane%'"
send CR1 "$work/film-40.dcm"
ok $? "a film of today is accepted"
is "$(row "SELECT lane FROM study WHERE study_uid = '2.25.7040'")" 0 "in the normal lane"
ctl status >"$work/status.txt"
check "status tells of the lane" grep -q '^slow lane    30 of these images, the oldest waits' "$work/status.txt"
ctl why 2.25.7020 >"$work/why.txt"
check "why names the lane and the line that decides" \
	grep -qF "in the slow lane: its Study Date was more than \`slow_lane.older_than_days\` ago when it came ($work/carzerod.yaml:$line)" "$work/why.txt"
check "and what would change it" \
	grep -qF -- "-> $work/carzerod.yaml:$line: \`slow_lane.older_than_days\` says from which age on" "$work/why.txt"
if command -v curl >/dev/null; then
	lane_of_metrics() {
		curl -s "http://127.0.0.1:$extra_port/metrics" | grep -q '^carzerod_waiting_images{lane="slow"} 30$'
	}
	check "so do the figures" wait_for 20 lane_of_metrics
else
	skip "so do the figures" "curl is not installed"
fi

# ---- who is first ---------------------------------------------------------------------------------------------------
kill -CONT "$infer"
check "all are reported and delivered" wait_for 120 nothing_waits
is "$(archive_count)" 31 "the archive has every report"
before=$(row "SELECT count(*) FROM delivery WHERE finished < (SELECT finished FROM delivery d JOIN study s ON s.id = d.study WHERE s.study_uid = '2.25.7040')")
[ "$before" -lt 15 ]
ok $? "today's was accepted before most of the old ones ($before of 30 were earlier)"
is "$(row "SELECT rank FROM delivery d JOIN study s ON s.id = d.study WHERE s.study_uid = '2.25.7040'")" 0 "it was urgent"
is "$(row "SELECT group_concat(DISTINCT rank) FROM delivery d JOIN study s ON s.id = d.study WHERE s.lane = 1")" 1 \
	"an urgent finding of the slow lane is a routine one"
check "why says what was urgent" sh -c "'$builddir/carzeroctl' -c '$work/carzerod.yaml' why 2.25.7040 | grep -q '; urgent: pneumothorax'"
storescu -nh -aet OLDPACS -aec CARZEROD 127.0.0.1 "$node_port" "$work"/film-[0-9].dcm "$work"/film-[123][0-9].dcm >"$work/storescu.out" 2>&1
ok $? "sent again, the rest is taken too"
check "and delivered" wait_for 120 nothing_waits
is "$(archive_count)" 41 "every old study has its report"

# ---- in the queue: an urgent one passes what waits ------------------------------------------------------------------
ctl hold ARCHIVE >/dev/null
film 50 "$today" && film 51 20200101 && film 52 "$today"
sed -i 's/urgency: urgent/urgency: routine/' "$work/urgent.yaml"
ctl reload >/dev/null
send CR1 "$work/film-50.dcm"
send CR1 "$work/film-51.dcm"
check "two routine reports wait, one of an old study" wait_for 30 rows '1 2' \
	"SELECT group_concat(rank, ' ') FROM (SELECT rank FROM delivery WHERE state = 0 ORDER BY rank)"
sed -i 's/urgency: routine/urgency: urgent/' "$work/urgent.yaml"
ctl reload >/dev/null
send CR1 "$work/film-52.dcm"
check "an urgent one comes" wait_for 30 rows '0 1 2' \
	"SELECT group_concat(rank, ' ') FROM (SELECT rank FROM delivery WHERE state = 0 ORDER BY rank)"
ctl queue >"$work/queue.txt"
is "$(awk '/ARCHIVE/ { printf "%s ", $6 }' "$work/queue.txt")" "routine slow urgent " "carzeroctl queue shows it"
ctl release ARCHIVE >/dev/null
check "all are sent" wait_for 30 nothing_waits

# ---- a sender that floods -------------------------------------------------------------------------------------------
configure '{older_than_days: 0, images_per_hour: 2}'
ctl reload >/dev/null
for i in 60 61 62 63; do
	film $i 20200101
done
send ROOM1 "$work/film-60.dcm" "$work/film-61.dcm" "$work/film-62.dcm"
send ROOM2 "$work/film-63.dcm"
is "$(row "SELECT group_concat(lane, ' ') FROM (SELECT lane FROM study WHERE study_uid LIKE '2.25.706_' ORDER BY id)")" "0 0 2 0" \
	"more than its share of the hour lets others go before; another sender's does not"
check "all are delivered" wait_for 30 nothing_waits
is "$(archive_count)" 48 "none was lost"
is "$(grep -c "20200101\|$today" "$work/node.log")" 0 "no Study Date in the log"
finish
