#!/bin/sh
# e2e_notify.sh: webhooks over HTTPS and mail over SMTP, told once, in spite of outages and restarts.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v openssl >/dev/null || skip_all "dcmtk's tools or openssl are not installed"
/usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null || skip_all "python3-aiosmtpd is not installed"
begin

free_port; https_port=$port
free_port; smtp_port=$port
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
	-keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
echo "a secret that both know" >"$work/secret"
receiver() {
	/usr/bin/python3 "$srcdir/tests/hook_receiver.py" $https_port "$work/cert.pem" "$work/key.pem" "a secret that both know" "$work/told" &
	receiver_pid=$!
	other_pids="$other_pids $receiver_pid"
}
listens() {
	! port_is_free "$1"
}
told() { # told N EVENT
	[ "$(grep -c "^$2 good" "$work/told" 2>/dev/null)" = "$1" ]
}
nothing_to_tell() {
	[ "$(sqlite3 "$work/state/carzerod.db" 'SELECT count(*) FROM notice WHERE ended = 0')" = 0 ]
}
/usr/bin/python3 -m aiosmtpd -n -l 127.0.0.1:$smtp_port -c aiosmtpd.handlers.Mailbox "$work/mail" >"$work/smtp.log" 2>&1 &
other_pids="$other_pids $!"
receiver
wait_for 20 listens $https_port && wait_for 20 listens $smtp_port
ok $? "an HTTPS and an SMTP server"

# every image has this finding: its threshold is no threshold
cat >"$work/urgent.yaml" <<'YAML'
name: urgent
findings:
- id: pneumothorax
  name: Pneumothorax
  prompt: There is pneumothorax
  urgency: urgent
  calibration: {a: 1, b: 60, prompt: There is pneumothorax, family: untrained-tiny-1, recipe: window, precision: f32, prevalence: 0.1, origin: made up for a test}
  thresholds: {hi: 0.1, hi_sensitivity: 0.9, hi_ppv: 0.5, hi_alarm_rate: 0.1, origin: made up for a test}
- {id: mass, name: Mass, prompt: There is a mass}
YAML
family=$(sed -n 's/.*"family": *"\([^"]*\)".*/\1/p' "$bundle/model.json")
sed -i "s/untrained-tiny-1/$family/" "$work/urgent.yaml"
configure() {
	write_config "notify:" \
		"- {name: oncall, url: \"https://127.0.0.1:$https_port/hook\", on: [urgent, set-aside, drift], secret: $work/secret, ca: $work/cert.pem}" \
		"- {name: mail, url: \"smtp://127.0.0.1:$smtp_port\", on: [urgent], from: node@example.org, to: [radiology@example.org], study_uid: true}" \
		'routes: [{from: "*", to: [ARCHIVE]}]'
	sed -i "s,^findings: .*,findings: $work/urgent.yaml," "$work/carzerod.yaml"
}
configure
start_archive
start_node || { ok 1 "the node is ready"; finish; }
ok 0 "the node is ready"
for i in 1 2 3; do
	phantom --seed 6$i --study-uid 2.25.60$i --patient-id "SECRET$i" --patient-name "GEHEIM^NAME$i" --accession "GEHEIMACC$i" -o "$work/$i.dcm"
done
send CR1 "$work/1.dcm"
check "an urgent finding is told by webhook, signed" wait_for 30 told 1 urgent
check "and by mail" wait_for 30 sh -c "[ \$(ls $work/mail/new | wc -l) = 1 ]"
is "$(grep -c '"findings":\["pneumothorax"\]' "$work/told")" 1 "which finding it was"
is "$(grep -c 'study_uid' "$work/told")" 0 "the webhook has no Study Instance UID"
is "$(grep -c '^study_uid: 2.25.601' "$work"/mail/new/*)" 1 "the mail has one: study_uid says so"
is "$(grep -c '^Subject: carzerod CARZEROD: urgent' "$work"/mail/new/*)" 1 "and a subject"
is "$(cat "$work/told" "$work"/mail/new/* | grep -c 'SECRET\|GEHEIM')" 0 "nothing of the patient in either"

# ---- the receiver is away, refuses, and comes back; a restart between ------------------------------------
touch "$work/told.down"
send CR1 "$work/2.dcm"
check "a refusal is tried again" wait_for 30 grep -q 'hook="oncall" cannot be told: HTTP status 503' "$work/node.log"
kill "$receiver_pid"
stop_node
start_node
rm "$work/told.down"
receiver
wait_for 20 listens $https_port
check "told after the restart" wait_for 60 told 2 urgent
check "nothing waits" wait_for 30 nothing_to_tell
stop_node
start_node
send CR1 "$work/2.dcm"
send CR1 "$work/3.dcm"
check "the next one" wait_for 30 told 3 urgent
is "$(grep -c bad "$work/told")" 0 "every signature was good"

# ---- what must not go out --------------------------------------------------------------------------------
stop_node
kill "$receiver_pid"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext 'subjectAltName=IP:127.0.0.1' \
	-keyout "$work/key.pem" -out "$work/other.pem" 2>/dev/null
cp "$work/cert.pem" "$work/right.pem"
mv "$work/other.pem" "$work/cert.pem"
receiver
wait_for 20 listens $https_port
sed -i "s,ca: $work/cert.pem,ca: $work/right.pem," "$work/carzerod.yaml"
start_node
phantom --seed 64 --study-uid 2.25.604 --patient-id SECRET4 -o "$work/4.dcm"
send CR1 "$work/4.dcm"
check "a receiver with another certificate is not told" wait_for 30 grep -q 'hook="oncall" cannot be told: .*certificate' "$work/node.log"
is "$(grep -c '^urgent' "$work/told")" 3 "and heard nothing"
finish
