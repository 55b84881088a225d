#!/bin/sh
# e2e_selftest.sh: carzeroctl selftest against Orthanc, against an archive without C-FIND, one that is down, one
# that does not know the title, and a node that is not configured for it.
. "$srcdir/tests/e2e.sh"
command -v storescp >/dev/null && command -v dcmdump >/dev/null || skip_all "dcmtk's tools are not installed"
begin

selftest() { # selftest CODE NAME: the page in $work/page.txt
	ctl selftest --peer ARCHIVE >"$work/page.txt" 2>"$work/page.err"
	got=$?
	is "$got" "$1" "$2: exit code $1"
	[ "$got" = "$1" ] || sed 's/^/# /' "$work/page.txt" "$work/page.err"
}
line() { # line VERDICT TEXT: a line of the page
	grep -q "^$1 .*$2" "$work/page.txt"
	good=$?
	ok $good "$1: $2"
	[ $good = 0 ] || sed 's/^/# /' "$work/page.txt"
}
todo() { # todo TEXT
	grep -q -e "-> .*$1" "$work/page.txt"
	good=$?
	ok $good "what to do: $1"
	[ $good = 0 ] || sed 's/^/# /' "$work/page.txt"
}
study() {
	sed -n 's/^It leaves study //p' "$work/page.txt"
}

# ---- the film that ships -------------------------------------------------------------------------------------
film=$builddir/selftest.dcm
is "$(tag "$film" 0010,0010) $(tag "$film" 0010,0020) $(tag "$film" 0028,0300)" \
	"PN [SELFTEST^CARZEROD] LO [CARZEROD-SELFTEST] CS [YES]" "the film says what it is"
[ "$(wc -c <"$film")" -lt 70000 ]
ok $? "and is small"

# ---- storescp: no C-FIND ---------------------------------------------------------------------------------------
archive_objects="sr, sc"
write_config
start_archive
start_node
selftest 0 "an archive without C-FIND"
head -n 1 "$work/page.txt" | grep -q '^carzerod self-test with ARCHIVE: PASSED: 8 ok, 0 not ok, 1 not offered, 0 not tried'
ok $? "its first line says so"
line ok "C-ECHO to ARCHIVE: answered 0000H"
line ok "C-ECHO to us, as ARCHIVE: from this machine to 127.0.0.1:$node_port; .* own way here was not tried"
line ok "ARCHIVE may call us: by .access."
line ok "sent to ARCHIVE: SR 0000H, SC 0000H"
line "not offered" "found there by C-FIND"
[ "$(wc -l <"$work/page.txt")" -le 24 ]
ok $? "one screen"
check "both objects are there" archive_has 2
for f in $(archive_files); do
	is "$(tag "$f" 0010,0010) $(tag "$f" 0020,000d)" "PN [SELFTEST^CARZEROD] UI [$(study)]" "of the self-test's patient and study"
done
is "$(archive_files | wc -l) $(for f in $(archive_files); do tag "$f" 0008,1030; done | sort -u)" \
	"2 LO [CARZEROD SELF-TEST, DRAWN, NO PATIENT]" "and they say that it is a drawing"
first=$(study)
selftest 0 "a second time"
[ "$(study)" != "$first" ]
ok $? "it is another study, and so goes the whole way again"
check "purge removes what it left here" ctl purge "$(study)"

# ---- JSON ----------------------------------------------------------------------------------------------------------
ctl --json selftest --peer ARCHIVE >"$work/page.json"
is $? 0 "as JSON"
for have in '"passed":true,"ok":8,"not_ok":0,"not_offered":1,"not_tried":0' '"left_at":{"ARCHIVE":true}' \
	'"step":"find","title":"foundtherebyC-FIND","result":"notoffered"'; do
	tr -d ' \t\n' <"$work/page.json" | grep -qF "$have"
	ok $? "it has $have"
done

# ---- one that refuses our title --------------------------------------------------------------------------------------
stop_archive
storescp --refuse -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
archive_pid=$!
wait_for 10 not_free "$archive_port"
selftest 2 "an archive that refuses us"
head -n 1 "$work/page.txt" | grep -q 'NOT PASSED'
ok $? "its first line says so"
line "not ok" "C-ECHO to ARCHIVE: .*rejected"
todo "is its AE title ARCHIVE?"
line ok "the film scored"
line "not ok" "sent to ARCHIVE: SR not taken"
line "not tried" "found there by C-FIND"
grep -q 'on its way to ARCHIVE' "$work/page.txt"
ok $? "it says what is on its way"

# ---- one that is down ----------------------------------------------------------------------------------------------------
stop_archive
selftest 2 "an archive that is down"
line "not ok" "C-ECHO to ARCHIVE: .*Connection refused"
todo "is 127.0.0.1:$archive_port right"
line ok "a report made of it"
line "not ok" "sent to ARCHIVE"

# ---- a node that is not configured for it --------------------------------------------------------------------------------
start_archive
reconfigure() { # reconfigure LINES...
	stop_node
	rm -rf "$work/state"
	write_config "$@"
}
reconfigure 'routes: [{from: CT1, to: [MODALITY]}]'
start_node
selftest 2 "no route"
line "not ok" "sent to ARCHIVE: no route leads to ARCHIVE"
todo 'routes: - {from: "\*", to: \[ARCHIVE\]}'
reconfigure 'routes: [{from: ROOM1, to: [ARCHIVE]}]'
sed -i 's|calling_ae: "\*", from: \[127.0.0.0/8, "::1"\]|calling_ae: ROOM1, from: [127.0.0.0/8]|' "$work/carzerod.yaml"
start_node
selftest 2 "a title that is not let in"
line "not ok" "C-ECHO to us, as ARCHIVE"
todo "add a rule to .access. with this calling_ae"
line ok "a drawn film stored here: C-STORE as ROOM1"
line ok "sent to ARCHIVE"
line "not offered" "ARCHIVE may call us: by .access., ARCHIVE is turned away"
reconfigure
sed -i 's/\(ae_title: ARCHIVE.*\)}/\1, shadow: true}/' "$work/carzerod.yaml"
start_node
selftest 1 "a peer in shadow"
line "not tried" "sent to ARCHIVE: .shadow: true."
stop_node
selftest 2 "no node"
line "not ok" "the node runs: carzerod does not answer"
ctl selftest --peer NOBODY >/dev/null 2>"$work/page.err"
is $? 64 "a peer that nobody knows is wrong usage"

# ---- Orthanc: found again ---------------------------------------------------------------------------------------------------
if [ -x "$orthanc" ]; then
	stop_archive
	start_orthanc <<-END
		"HttpServerEnabled": false, "DicomAlwaysAllowStore": true, "DicomAlwaysAllowFind": true, "DicomCheckCalledAet": true
	END
	wait_for 60 not_free "$archive_port"
	reconfigure
	start_node
	selftest 0 "Orthanc"
	line ok "found there by C-FIND: C-FIND names it"
	head -n 1 "$work/page.txt" | grep -q 'PASSED: 9 ok'
	ok $? "all nine"
	sed 's/^/# /' "$work/page.txt"
	stop_node
	sed -i 's/ae_title: ARCHIVE/ae_title: PACS/; s/to: \[ARCHIVE\]/to: [PACS]/' "$work/carzerod.yaml"
	start_node
	ctl selftest --peer PACS >"$work/page.txt" 2>&1
	is $? 2 "under another title Orthanc refuses"
	line "not ok" "C-ECHO to PACS: .*called AE title not recognised"
else
	skip "Orthanc" "orthanc is not installed"
fi
finish
