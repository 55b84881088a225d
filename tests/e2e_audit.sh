#!/bin/sh
# e2e_audit.sh: the audit trail, read back from a real repository: rsyslog, which takes syslog over TLS with certificates on
# both sides.  Every record is held against the schema; none is lost while the repository or the node is away.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v openssl >/dev/null || skip_all "dcmtk's tools or openssl are not installed"
command -v xmllint >/dev/null && command -v sqlite3 >/dev/null || skip_all "xmllint or sqlite3 is not installed"
rsyslogd=$(command -v rsyslogd || echo /usr/sbin/rsyslogd)
gtls=$(find /usr/lib -name lmnsd_gtls.so 2>/dev/null | head -n 1)
[ -x "$rsyslogd" ] && [ -n "$gtls" ] || skip_all "rsyslog-gnutls is not installed"
begin
free_port; tls_port=$port
free_port; repository_port=$port
pki=$work/pki
mkdir "$pki"

# ---- certificates ------------------------------------------------------------------------------------------------
authority() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$1" -keyout "$pki/$1.key" -out "$pki/$1.pem" 2>/dev/null
}
sign() { # sign AUTHORITY NAME
	openssl req -newkey rsa:2048 -nodes -subj "/CN=$2" -keyout "$pki/$2.key" -out "$pki/$2.csr" 2>/dev/null
	printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >"$pki/$2.ext"
	openssl x509 -req -in "$pki/$2.csr" -CA "$pki/$1.pem" -CAkey "$pki/$1.key" -CAcreateserial -days 20 \
		-extfile "$pki/$2.ext" -out "$pki/$2.pem" 2>/dev/null
	chmod 600 "$pki/$2.key"
}
authority hospital
authority stranger
sign hospital node
sign hospital repository
sign stranger impostor
sign stranger intruder

# ---- the repository ----------------------------------------------------------------------------------------------
arr=$work/arr.log
repository_pid=
start_repository() { # start_repository [CERTIFICATE]
	cat >"$work/rsyslog.conf" <<-END
	global(workDirectory="$work" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
	       defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="$pki/hospital.pem"
	       defaultNetstreamDriverCertFile="$pki/${1:-repository}.pem" defaultNetstreamDriverKeyFile="$pki/${1:-repository}.key")
	module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
	template(name="record" type="string" string="%PRI% %APP-NAME% %MSGID% %STRUCTURED-DATA% %HOSTNAME% %TIMESTAMP:::date-rfc3339% %msg%\\n")
	input(type="imtcp" port="$repository_port" address="127.0.0.1")
	action(type="omfile" file="$arr" template="record")
	END
	"$rsyslogd" -n -f "$work/rsyslog.conf" -i "$work/rsyslog.pid" >>"$work/rsyslog.out" 2>&1 &
	repository_pid=$!
	other_pids="$other_pids $repository_pid"
	wait_for 20 not_free "$repository_port"
}
stop_repository() {
	kill "$repository_pid" 2>/dev/null
	wait "$repository_pid" 2>/dev/null
}
of_code() { # of_code CODE: records of this event or event type
	grep -c "csd-code=\"$1\"" "$arr" 2>/dev/null
}
has() { # has N CODE
	[ "$(of_code "$2")" = "$1" ]
}
recorded() { # recorded N CODE NAME
	check "$3" wait_for 40 has "$1" "$2"
}
waiting() {
	sqlite3 "$work/state/carzerod.db" 'SELECT count(*) FROM audit'
}
none_waits() {
	[ "$(waiting)" = 0 ]
}
configure() { # configure [LINES...]
	write_config 'routes: [{from: "*", to: [ARCHIVE]}]' "tls: {listen: [\"127.0.0.1:$tls_port\"], certificate: $pki/node.pem, key: $pki/node.key, ca: $pki/hospital.pem}" \
		"audit: {host: 127.0.0.1, port: $repository_port}" "$@"
	sed -i 's|^- {calling_ae: "\*", from.*|- {calling_ae: MODALITY, from: [127.0.0.0/8]}|' "$work/carzerod.yaml"
}

# ---- what is recorded ------------------------------------------------------------------------------------------------
for i in 1 2 3 4 5 6; do
	phantom --seed 7$i --study-uid 2.25.70$i --patient-id "GEHEIM-$i" --patient-name "Planted^Name$i" --accession "PLANTEDACC$i" -o "$work/$i.dcm"
done
cp "$work/1.dcm" "$work/1b.dcm"
dcmodify -nb -gin "$work/1b.dcm" >/dev/null 2>&1
start_repository
ok $? "rsyslog listens"
configure
start_archive
start_node
ok $? "the node is ready"
recorded 1 110120 "Application Activity: start"
send MODALITY "$work/1.dcm" "$work/1b.dcm"
ok $? "two images of a study, in one association"
check "their report arrives" wait_for 30 archive_has 1
recorded 2 110104 "DICOM Instances Transferred: the study came, the report went"
is "$(grep 110104 "$arr" | grep -c 'EventActionCode="C".*UserID="MODALITY".*NetworkAccessPointID="127.0.0.1".*2.25.701.*NumberOfInstances="2"')" 1 "from whom, which study, how many: one record"
is "$(grep 110104 "$arr" | grep -c 'EventActionCode="R".*AETITLES=ARCHIVE.*2.25.701.*5.1.4.1.1.88.33.*NumberOfInstances="1"')" 1 "to whom, which study, what"
send 'A<&">B' "$work/2.dcm"
[ $? != 0 ]
ok $? "a title that is not let in, full of XML"
recorded 1 110126 "Security Alert: Node Authentication"
grep -qF 'UserID="A&lt;&amp;\x22&gt;B"' "$arr"
ok $? "the title is escaped"
storescu --enable-new-tls "$pki/intruder.key" "$pki/intruder.pem" +cf "$pki/hospital.pem" -aet MODALITY -aec CARZEROD 127.0.0.1 "$tls_port" "$work/2.dcm" >/dev/null 2>&1 ||
	storescu +tls "$pki/intruder.key" "$pki/intruder.pem" +cf "$pki/hospital.pem" -aet MODALITY -aec CARZEROD 127.0.0.1 "$tls_port" "$work/2.dcm" >/dev/null 2>&1
recorded 2 110126 "and a certificate of a strange authority"
check "hold" ctl hold ARCHIVE
check "release" ctl release ARCHIVE
recorded 2 110132 "operators' actions"
uid=$(id -u)
is "$(grep 110132 "$arr" | grep -c "UserID=\"uid=$uid\"")" 2 "with the user's number"
alert=$(grep 110132 "$arr" | head -n 1 | sed 's/.*Alert Description" value="\([^"]*\)".*/\1/')
is "$(echo "$alert" | base64 -d)" "hold ARCHIVE" "and what was done"
check "purge" ctl purge 2.25.701
recorded 1 110105 "DICOM Study Deleted: purge"
is "$(grep 110105 "$arr" | grep -c "UserID=\"uid=$uid\".*UserIsRequestor=\"true\".*2.25.701")" 1 "by whom, and which"
check "reload" ctl reload
recorded 1 110131 "reload"
check "none waits" wait_for 20 none_waits

# ---- away and back, over a stop and a death ------------------------------------------------------------------------------
stop_repository
send MODALITY "$work/2.dcm"
check "a report while the repository is away" wait_for 30 archive_has 2
check "the log says that records wait" wait_for 30 grep -q 'audit: .* records wait: 127.0.0.1: no connection' "$work/node.log"
ctl status >"$work/status.txt"
grep -q '^audit .*wait' "$work/status.txt"
ok $? "and so does status"
stop_node
start_node
send MODALITY "$work/3.dcm"
check "another one" wait_for 30 archive_has 3
kill_node
start_node
is "$(of_code 110104)" 2 "nothing has come in between"
start_repository
recorded 6 110104 "each of the two studies came and its report went: all four are there"
recorded 3 110120 "three starts"
recorded 1 110121 "one stop: the other was none"
check "none waits" wait_for 60 none_waits

# ---- a death between an object's answer and the end of its association ---------------------------------------------------
sed 's/s.sendall(pdu(5, b"\\0" \* 4))/open(sys.argv[3], "w"); import time; time.sleep(60)/; s/RAWSCU/MODALITY/' "$srcdir/tests/raw_scu.py" >"$work/hanging_scu.py"
before=$(of_code 110104)
/usr/bin/python3 "$work/hanging_scu.py" "$node_port" "$work/6.dcm" "$work/stored" >/dev/null 2>&1 &
other_pids="$other_pids $!"
check "an object is stored, its association stays open" wait_for 30 test -e "$work/stored"
is "$(of_code 110104)" "$before" "it is not recorded yet"
kill_node
start_node
recorded $((before + 1)) 110104 "after the death it is"
is "$(grep -c '2.25.706.*NumberOfInstances="1"' "$arr")" 1 "which study, and how many"
check "its report" wait_for 30 archive_has 4
recorded $((before + 2)) 110104 "and its report's way"

# ---- retention -----------------------------------------------------------------------------------------------------------
stop_node
storage_more="retention: {images: 1s, failed: 1s, reports: 1d}"
configure
storage_more=
start_node
recorded 3 110103 "the files of three studies expire"
is "$(grep 110103 "$arr" | grep -c 'EventActionCode="D".*UserID="[0-9]*".*UserIsRequestor="true".*NumberOfInstances="1"')" 3 "as deletions, by the node"
check "purge by age" ctl purge --older-than 1s
recorded 4 110105 "then the studies"
is "$(grep 110105 "$arr" | grep -c "UserID=\"uid=$uid\".*UserIsRequestor=\"true\".*2.25.70[236]")" 3 "by whom"
stop_node
configure
start_node

# ---- a repository that is somebody else ------------------------------------------------------------------------------------
stop_repository
start_repository impostor
before=$(wc -l <"$arr")
send MODALITY "$work/4.dcm"
check "another's certificate is refused" wait_for 40 grep -q 'audit: .*certificate.*is refused' "$work/node.log"
is "$(wc -l <"$arr")" "$before" "and it hears nothing"
stop_repository
start_repository
recorded 10 110104 "the right one gets what waited"

# ---- a queue that is full ----------------------------------------------------------------------------------------------------
stop_repository
stop_node
max=100000
sqlite3 "$work/state/carzerod.db" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $max - 1 - (SELECT count(*) FROM audit))
	INSERT INTO audit (body) SELECT '<85>1 2026-01-01T00:00:00Z x carzerod 1 DICOM+RFC3881 - filler' FROM n"
start_node
send MODALITY "$work/5.dcm"
check "a report is made all the same" wait_for 30 archive_has 6
grep -q "audit: $max records wait for 127.0.0.1: new ones are left out" "$work/node.log"
ok $? "the log says that records are left out"
is "$(waiting)" $max "no more wait than may"
is "$(sqlite3 "$work/state/carzerod.db" "SELECT count(*) FROM audit WHERE body LIKE '%110133%'")" 1 "the last one says that recording has stopped"
ctl status >"$work/status.txt"
is $? 1 "status wants attention"
stop_node
sqlite3 "$work/state/carzerod.db" "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit WHERE body LIKE '%filler')"
start_repository
start_node
recorded 1 110133 "the repository hears that recording had stopped"
recorded 1 110134 "and that it goes on"
alert=$(grep 110134 "$arr" | sed 's/.*Alert Description" value="\([^"]*\)".*/\1/' | base64 -d)
echo "$alert" | grep -q '^[1-9][0-9]* audit records were left out'
ok $? "how many are missing: $alert"
check "none waits" wait_for 40 none_waits

# ---- a query ---------------------------------------------------------------------------------------------------------------
if [ -x "$orthanc" ]; then
	stop_archive
	start_orthanc <<-END
		"HttpServerEnabled": false, "DicomAlwaysAllowFind": true, "DicomAlwaysAllowMove": true, "DicomCheckCalledAet": false
	END
	wait_for 60 not_free "$archive_port"
	check "fetch by accession number" ctl fetch ARCHIVE --accession 4711
	recorded 1 110112 "Query"
	grep 110112 "$arr" | sed 's/.*<ParticipantObjectQuery>\([^<]*\)<.*/\1/' | base64 -d >"$work/query.bin"
	grep -aq 4711 "$work/query.bin"
	ok $? "with the query's data set"
	is "$(grep 110112 "$arr" | grep -c "UserID=\"uid=$uid\"")" 1 "and who asked"
else
	skip "a query" "orthanc is not installed"
fi

# ---- all of them ---------------------------------------------------------------------------------------------------------------
is "$(grep -vc '^8[45] carzerod DICOM+RFC3881 - [!-~]* 20[0-9T:.+Z-]* ' "$arr")" 0 "every header is as PS3.15 A.6 wants it"
mkdir "$work/xml"
sed 's/^[^<]*//' "$arr" | grep -v filler | awk -v d="$work/xml" '{ print > (d "/" NR ".xml") }'
xmllint --noout --relaxng "$srcdir/tests/audit-message.rng" "$work"/xml/*.xml >"$work/xmllint.out" 2>&1
ok $? "every record is valid against the schema: $(ls "$work/xml" | wc -l) of them"
grep -v validates "$work/xmllint.out" | head -n 10 | sed 's/^/# /'
first=$(ls "$work"/xml/*.xml | head -n 1)
sed 's/csd-code="1101[0-9]*" codeSystemName="DCM" originalText="[A-Za-z ]*"\/><EventType/x=""\/><EventType/; s/UserIsRequestor/UserWasRequestor/' "$first" >"$work/broken.xml"
xmllint --noout --relaxng "$srcdir/tests/audit-message.rng" "$work/broken.xml" >/dev/null 2>&1
[ $? != 0 ]
ok $? "and the schema refuses what is not"
is "$(grep -cE 'GEHEIM|Planted|PLANTED|Phantom|PHANTOM' "$arr")" 0 "no planted name, number or accession in the repository"
is "$(grep -c ' audit event=' "$work/node.log" | sed 's/^[1-9][0-9]*$/some/')" some "the journal has its lines"
is "$(grep ' audit event=' "$work/node.log" | grep -cE '2\.25\.|GEHEIM|Planted|PLANTED|4711')" 0 "without Study Instance UIDs, names or numbers of patients"
grep -q 'audit event="DICOM Study Deleted" outcome=0 by="CARZEROD" by="uid='"$uid"'" study=1 purged' "$work/node.log"
ok $? "they say who and what by our numbers"

# ---- configuration -----------------------------------------------------------------------------------------------------------------
refused() { # refused TEXT
	"$builddir/carzerod" --check-config -c "$work/carzerod.yaml" >"$work/refused.txt" 2>&1
	[ $? != 0 ] && grep -q "$1" "$work/refused.txt"
	ok $? "refused: $1"
}
write_config "audit: {host: 127.0.0.1}"
refused 'audit.host: wants the key .tls.'
write_config "audit: {journal: true}" "log_level: warning"
refused 'log_level: audit.journal writes at level info'
finish
