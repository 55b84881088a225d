#!/bin/sh
# e2e_why.sh: support cases.  For each, what a person is told, word by word (tests/golden/why_*.txt).
# GOLDEN_WRITE=yes writes the texts anew; read the difference before believing it.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

# What differs between two runs, and between two machines, goes.
plain() {
	sed -e "s,$work,WORK,g" -e "s,$srcdir,SRC,g" -e "s/\\b$node_port\\b/NODE_PORT/g" -e "s/\\b$archive_port\\b/ARCHIVE_PORT/g" \
		-e "s/\\b$sender_port\\b/SENDER_PORT/g" -e 's/20[0-9][0-9]-[01][0-9]-[0-3][0-9] [0-9:]\{8\}/TIME/g' \
		-e 's/^20[-0-9]*T[0-9:.]*Z //' -e 's/\[[0-9]*\] error/[PID] error/' \
		-e 's/logit -\{0,1\}[0-9][0-9.]*, [0-9.]* %/logit N, N %/' -e 's/logit -\{0,1\}[0-9][0-9.]*/logit N/' \
		-e 's/ ([0-9]* times since TIME)//' -e 's/after [0-9]* attempts/after N attempts/' \
		-e 's/carzerod [0-9][0-9.a-z]*)/carzerod VERSION)/' -e 's/[0-9][0-9]* bytes/N bytes/' \
		-e 's/; [0-9]* presentation contexts accepted/; N presentation contexts accepted/'
}
# The end of an association and the work on what it brought are told in the order in which they come to the keeper,
# which is nobody's promise: the first end stands behind what was received.
in_order() {
	awk '/association from .* released/ && end == "" { end = $0 "\n"; next } { line[++n] = $0 } / received from / { last = n }
		END { for (i = 1; i <= n; i++) { print line[i]; if (i == last) printf "%s", end } if (!last) printf "%s", end }'
}
golden() { # golden CASE: $work/said.txt is what tests/golden/why_CASE.txt says
	plain <"$work/said.txt" | in_order >"$work/plain.txt"
	if [ "${GOLDEN_WRITE:-}" = yes ]; then
		cp "$work/plain.txt" "$srcdir/tests/golden/why_$1.txt"
	fi
	if diff -u "$srcdir/tests/golden/why_$1.txt" "$work/plain.txt" >"$work/diff.txt" 2>&1; then
		ok 0 "$1: word by word"
	else
		ok 1 "$1: word by word"
		sed 's/^/# /' "$work/diff.txt"
	fi
}
why() { # why CASE STUDY_UID
	ctl why "$2" >"$work/said.txt" 2>&1
	why_status=$?
	golden "$1"
}
said() { # said STUDY_UID PATTERN
	ctl why "$1" 2>&1 | grep -q -- "$2"
}
restart() { # restart [LINES...]: the node with another configuration and nothing kept
	stop_node
	rm -rf "$work/state"
	write_config "$@"
	sed -i "s/^storage: .*/$limits/" "$work/carzerod.yaml"
	start_node
}

limits='storage: {min_free: 1000000, ballast: 0, unsafe: true}'
phantom --seed 7 --study-uid 2.25.101 -o "$work/pa.dcm"
phantom --seed 8 --view LL --study-uid 2.25.102 -o "$work/lateral.dcm"

# ---- archive down: the report waits, and says for whom --------------------------------------------------
write_config
start_node
ok $? "the node is ready"
send MODALITY "$work/pa.dcm"
check "the archive is away" wait_for 30 said 2.25.101 "not sent"
why archive_down 2.25.101
is $why_status 1 "which is worth a look"
ctl --json why 2.25.101 >"$work/why.json"
grep -q '"fix": "'"$work"'/carzerod.yaml:[0-9]*: ARCHIVE is at host' "$work/why.json"
ok $? "JSON says the same"
start_archive
ctl flush ARCHIVE >/dev/null
check "it is back" wait_for 30 archive_has 1

# ---- a duplicate -------------------------------------------------------------------------------------------
send MODALITY "$work/pa.dcm"
check "the same again" wait_for 10 said 2.25.101 "came again"
check "nothing waits" wait_for 10 nothing_waits
why duplicate 2.25.101
is $why_status 0 "nothing is left to do"

# ---- a lateral film ------------------------------------------------------------------------------------------
send MODALITY "$work/lateral.dcm"
check "a lateral film" wait_for 30 archive_has 2
check "nothing waits" wait_for 10 nothing_waits
why lateral 2.25.102
is $why_status 1 "its reason stays"

# ---- nothing comes: wrong AE title, wrong syntax ----------------------------------------------------------------
restart
echoscu -aet MODALITY -aec WRONG 127.0.0.1 "$node_port" >/dev/null 2>&1
check "the node was called WRONG" wait_for 10 said 2.25.999 WRONG
why ae_mismatch 2.25.999
is $why_status 1 "a study that never came"

restart
cat >"$work/syntax.cfg" <<-EOF
	[[TransferSyntaxes]]
	[JPIP]
	TransferSyntax1 = 1.2.840.10008.1.2.4.94
	[[PresentationContexts]]
	[DX]
	PresentationContext1 = DigitalXRayImageStorageForPresentation\\JPIP
	PresentationContext2 = 1.2.840.10008.5.1.1.1\\JPIP
	[[Profiles]]
	[Default]
	PresentationContexts = DX
EOF
storescu -xf "$work/syntax.cfg" Default -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$work/pa.dcm" >"$work/storescu.out" 2>&1
check "only syntaxes that we do not take" wait_for 10 said 2.25.101 "contexts refused"
why syntax 2.25.101

# ---- the disk is full -------------------------------------------------------------------------------------------
limits='storage: {min_free: 1024 GiB, ballast: 0, unsafe: true}'
restart
send MODALITY "$work/pa.dcm"
is "$?" 1 "a full disk acknowledges nothing"
check "and says so" wait_for 10 said 2.25.101 storage.min_free
why disk_full 2.25.101

# ---- no route for the sender ---------------------------------------------------------------------------------------
limits='storage: {min_free: 1000000, ballast: 0, unsafe: true}'
restart 'routes: [{from: CT1, to: [ARCHIVE]}]'
send MODALITY "$work/pa.dcm"
check "a sender without a route" wait_for 30 said 2.25.101 "sent nowhere"
why no_route 2.25.101

# ---- a destination in the shadow: scored, kept, not sent -------------------------------------------------------------
restart
stop_node
sed -i 's/{ae_title: ARCHIVE, .*}/{ae_title: ARCHIVE, host: 127.0.0.1, port: '"$archive_port"', shadow: true}/' "$work/carzerod.yaml"
start_node
before=$(archive_count)
send MODALITY "$work/pa.dcm"
check "a destination in the shadow" wait_for 30 said 2.25.101 "not sent to ARCHIVE"
why shadow 2.25.101
is "$(archive_count)" "$before" "nothing goes to it"

# ---- a poison image: the model hangs on it --------------------------------------------------------------------------
limits='limits: {infer_seconds: 1, attempts: 1}\nstorage: {min_free: 1000000, ballast: 0, unsafe: true}'
restart 'routes: []'
kill -STOP "$(ctl --json status | grep -A1 carzerod-infer | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
send MODALITY "$work/pa.dcm"
check "an image that ends its worker" wait_for 30 said 2.25.101 "given up"
check "its study is reported all the same" wait_for 30 nothing_waits
why poison 2.25.101
check "and the node goes on" wait_for 30 node_is_ready

# ---- what is wrong at start is said at start ---------------------------------------------------------------------------
stop_node
limits='storage: {min_free: 1000000, ballast: 0, unsafe: true}'
write_config
sed -i 's/port: '"$archive_port"'/prot: '"$archive_port"'/' "$work/carzerod.yaml"
"$builddir/carzerod" -c "$work/carzerod.yaml" >"$work/said.txt" 2>&1
is $? 78 "a configuration with a misspelt key ends the node with 78"
golden bad_configuration

cp -r "$bundle" "$work/bundle"
sed -i '$d' "$work/bundle/vocab.txt"
write_config
sed -i "s,^model: .*,model: $work/bundle," "$work/carzerod.yaml"
timeout 60 "$builddir/carzerod" -c "$work/carzerod.yaml" >"$work/log.txt" 2>&1
is $? 78 "a bundle with another vocabulary ends the node with 78"
grep -E 'vocab|cannot start' "$work/log.txt" >"$work/said.txt"
golden wrong_vocabulary
finish
