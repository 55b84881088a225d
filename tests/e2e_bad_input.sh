#!/bin/sh
# e2e_bad_input.sh: what strangers send: the right refusal, a reason, and a node that goes on.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

write_config 'routes: [{from: "*", to: [ARCHIVE]}]'
sed -i '/^access:/,/^peers:/{/^- {calling_ae/d}' "$work/carzerod.yaml"
sed -i 's/^access:/access:\n- {calling_ae: MODALITY, from: [127.0.0.0\/8]}\n- {calling_ae: FARAWAY, from: [192.0.2.0\/24]}/' "$work/carzerod.yaml"
start_archive
start_node
ok $? "the node is ready"

log_has() {
	grep -q -- "$1" "$work/node.log"
}
refused() { # refused NAME REASON_SHOWN_TO_PEER LOG_PATTERN ECHOSCU_ARGS...
	r_name=$1 r_peer=$2 r_log=$3
	shift 3
	echoscu -v "$@" 127.0.0.1 "$node_port" >"$work/echo.out" 2>&1
	[ $? != 0 ]
	ok $? "$r_name: refused"
	grep -qi -- "$r_peer" "$work/echo.out"
	ok $? "$r_name: the peer is told '$r_peer'"
	check "$r_name: the log says which setting" wait_for 5 log_has "$r_log"
}
refused "wrong called AE title" "Called AE Title Not Recognized" 'association refused.*"WRONG".*ae_title' -aet MODALITY -aec WRONG
refused "unknown calling AE title" "Calling AE Title Not Recognized" 'access' -aet STRANGER -aec CARZEROD
refused "known title, wrong address" "Calling AE Title Not Recognized" 'calling="FARAWAY"' -aet FARAWAY -aec CARZEROD
check "a good peer is served" echoscu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port"

# ---- bytes that are no DICOM -------------------------------------------------------------------------
raw() { # raw NAME PRINTF_FORMAT: sends bytes, wants the connection closed by the node
	printf "$2" | timeout 20 sh -c "exec 3<>/dev/null; cat" >"$work/raw.bin"
	if command -v nc >/dev/null; then
		timeout 20 nc -w 15 127.0.0.1 "$node_port" <"$work/raw.bin" >/dev/null 2>&1
	else
		timeout 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$node_port; cat '$work/raw.bin' >&3; cat <&3 >/dev/null" 2>/dev/null
	fi
	[ $? != 124 ]
	ok $? "$1: the connection ends"
}
raw "HTTP" 'GET / HTTP/1.0\r\n\r\n'
raw "TLS hello" '\026\003\001\002\000\001\000\001\374\003\003'
raw "PDU of 4 GB" '\001\000\377\377\377\377\000\001'
raw "half an A-ASSOCIATE-RQ" '\001\000\000\000\000\300\000\001\000\000CARZEROD'
raw "unknown PDU" '\077\000\000\000\000\004abcd'
check "a good peer is served" echoscu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port"

# ---- objects -------------------------------------------------------------------------------------------
phantom --seed 31 -o "$work/good.dcm"
phantom --seed 32 --view LL -o "$work/lateral.dcm"
phantom --seed 33 --view hand -o "$work/hand.dcm"
phantom --seed 34 --view blank -o "$work/blank.dcm"
phantom --seed 35 --no-tag -o "$work/untagged.dcm"
phantom --seed 36 --wrong-rows -o "$work/rows.dcm"
variant() { # variant NAME DCMODIFY_ARGS...: a copy of good.dcm as a study of its own
	v=$1
	shift
	cp "$work/good.dcm" "$work/$v.dcm"
	dcmodify -nb -q -gst -gse -gin "$work/$v.dcm" >/dev/null 2>&1
	[ $# = 0 ] || dcmodify -nb -q -imt "$@" "$work/$v.dcm" >/dev/null 2>&1
}
variant noview -ea '(0018,5101)' -ea '(0054,0220)'
variant zero -m '(0028,0010)=0'
variant huge -m '(0028,0010)=65535' -m '(0028,0011)=65535'
variant rgb -m '(0028,0004)=RGB' -m '(0028,0002)=3'
variant nopixels -ea '(7fe0,0010)'
variant raw -m '(0008,0068)=FOR PROCESSING'
variant mfsc -m '(0008,0016)=1.2.840.10008.5.1.4.1.1.7.3' -i '(0028,0008)=1' -m '(0008,0060)=OT'
variant mfsc2 -m '(0008,0016)=1.2.840.10008.5.1.4.1.1.7.2' -i '(0028,0008)=2' -m '(0008,0060)=OT'
variant child -m '(0010,1010)=007Y'

n=0
outcome() { # outcome FILE PATTERN: acknowledged; reported once, with that reason
	n=$((n + 1))
	send MODALITY "$work/$1.dcm"
	ok $? "$1: acknowledged"
	check "$1: one report" wait_for 30 archive_has $n
	uid=$(dcmdump -q +P 0020,000d "$work/$1.dcm" 2>/dev/null | sed -n 's/.*\[\([0-9.]*\)\].*/\1/p')
	ctl show "$uid" >"$work/show.txt" 2>&1
	if grep -q -- "$2" "$work/show.txt"; then
		ok 0 "$1: '$2'"
	else
		ok 1 "$1: '$2'"
		sed 's/^/# /' "$work/show.txt" | head -n 12
	fi
	[ "$3" != scored ] || return
	said=1
	for f in $(archive_files); do
		[ "$(tag "$f" 0020,000d)" = "$(tag "$work/$1.dcm" 0020,000d)" ] || continue
		dsrdump +Pl "$f" 2>/dev/null | grep -q "Comment.*$2" && said=0
	done
	ok $said "$1: the report says so too"
}
outcome good scored scored
outcome lateral 'not a frontal chest radiograph: View Position' ''
outcome hand 'not a frontal chest radiograph: Body Part' ''
outcome blank 'constant\|scored' scored
outcome noview scored scored
outcome rows 'broken image: Pixel Data' ''
outcome zero 'broken image: Rows' ''
outcome huge 'image too large\|broken image' ''
outcome rgb 'unsupported kind of image' ''
outcome nopixels 'no image in the object' ''
outcome raw 'raw image' ''
outcome mfsc scored scored
outcome mfsc2 'unsupported kind of image: Number of Frames' ''
outcome child 'too young' ''

# an untagged film and a bundle that never saw a patient: kept, no report, the reason on demand
send MODALITY "$work/untagged.dcm"
ok $? "untagged: acknowledged"
uid=$(dcmdump -q +P 0020,000d "$work/untagged.dcm" 2>/dev/null | sed -n 's/.*\[\([0-9.]*\)\].*/\1/p')
out_of_domain() {
	ctl show "$uid" | grep -q 'out of domain'
}
check "untagged: the reason is there" wait_for 20 out_of_domain
check "nothing waits" wait_for 10 nothing_waits
is "$(archive_count)" $n "untagged: no report"

# ---- objects that must not be acknowledged -----------------------------------------------------------------
status_of() { # what storescu was answered
	storescu -v -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$1" >"$work/storescu.out" 2>&1
	sed -n 's/.*Received Store Response (\(.*\)).*/\1/p; s/.*\[Status=\(.*\)\].*/\1/p' "$work/storescu.out" | head -n 1
}
before=$(sqlite3 "$work/state/carzerod.db" 'SELECT count(*) FROM instance')
cp "$work/good.dcm" "$work/nostudy.dcm"
dcmodify -nb -q -imt -ea '(0020,000d)' "$work/nostudy.dcm" >/dev/null 2>&1
is "$(status_of "$work/nostudy.dcm" | grep -ciE 'success')" 0 "no Study Instance UID: not acknowledged"
cp "$work/good.dcm" "$work/dots.dcm"
dcmodify -nb -q -imt -m '(0020,000d)=1.2..3' "$work/dots.dcm" >/dev/null 2>&1
is "$(status_of "$work/dots.dcm" | grep -ciE 'success')" 0 "'..' in a UID: not acknowledged"
is "$(sqlite3 "$work/state/carzerod.db" 'SELECT count(*) FROM instance')" "$before" "and nothing of it is kept"
is "$(find "$work/state/spool/incoming" -type f | wc -l)" 0 "no file stays in incoming/"

# ---- and the node is as it was ---------------------------------------------------------------------------------
check "a good peer is served" echoscu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port"
is "$(grep -c 'ended by signal' "$work/node.log")" 0 "no process died"
is "$(find "$work/state/spool" -type f -path '*quarantine*' | wc -l)" 0 "nothing in quarantine/"
ctl --json status >"$work/status.json"
is "$(field quarantined)" 0 "nothing quarantined"
finish
