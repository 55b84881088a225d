#!/bin/sh
# e2e_tools.sh: the command lines that people meet, and the refusals at start.
. "$srcdir/tests/e2e.sh"
begin

says() { # says NAME WANTED_STATUS PATTERN COMMAND...
	says_name=$1 wanted=$2 pattern=$3
	shift 3
	"$@" >"$work/out" 2>&1
	status=$?
	is $status "$wanted" "$says_name: exit code"
	if grep -q -- "$pattern" "$work/out"; then
		ok 0 "$says_name: says '$pattern'"
	else
		ok 1 "$says_name: says '$pattern'"
		sed 's/^/# /' "$work/out" | head -n 10
	fi
}
for p in carzerod carzeroctl carzero-model; do
	says "$p --help" 0 "Usage\|usage" "$builddir/$p" --help
	says "$p --version" 0 "$p" "$builddir/$p" --version
	says "$p --nonsense" 64 "help" "$builddir/$p" --nonsense
done

write_config
says "--check-config" 0 "AE title CARZEROD" "$builddir/carzerod" --check-config -c "$work/carzerod.yaml"
write_config 'routes: []' 'lisen: [":104"]'
says "unknown key" 78 "carzerod.yaml:[0-9]*:.*did you mean.*listen" "$builddir/carzerod" --check-config -c "$work/carzerod.yaml"
says "no such file" 78 "nowhere.yaml" "$builddir/carzerod" -c "$work/nowhere.yaml"
write_config
says "status of a node that never ran" 2 "carzerod.db" ctl status

# ---- bad bundles: refused at start, file, tensor and both shapes named -----------------------------------
refused() { # refused NAME PATTERN
	timeout 60 "$builddir/carzerod" -c "$work/carzerod.yaml" >"$work/out" 2>&1
	is $? 78 "$1: the node refuses to start"
	if grep -q -- "$2" "$work/out"; then
		ok 0 "$1: says '$2'"
	else
		ok 1 "$1: says '$2'"
		sed 's/^/# /' "$work/out" | head -n 10
	fi
	rm -rf "$work/state"
}
good=$bundle
bundle=$work/bundle
write_config
refused "no bundle" "$work/bundle"
cp -r "$good" "$bundle"
head -c 100000 "$good/weights.safetensors" >"$bundle/weights.safetensors"
refused "truncated weights" "weights.safetensors"
rm -rf "$bundle"
cp -r "$good" "$bundle"
echo extra >>"$bundle/vocab.txt"
refused "wrong vocabulary" "vocab"
rm -rf "$bundle"
cp -r "$good" "$bundle"
sed -i 's/"vit_mlp": *\([0-9]*\)/"vit_mlp": 999/' "$bundle/model.json"
refused "wrong shapes" "\[.*\].*\[.*\]\|999"
rm -rf "$bundle"
bundle=$good

# ---- a second node on the same state ------------------------------------------------------------------------
write_config
start_node
ok $? "the node is ready"
says "a second node on the same state_dir" 75 "lock" timeout 20 "$builddir/carzerod" -c "$work/carzerod.yaml"
says "status" 0 "all good" ctl status
says "status as JSON" 0 '"good": true' ctl --json status
says "studies" 0 "STUDY" ctl studies
ctl disktest >"$work/disktest" 2>&1
is "$(grep -c '^4 KiB and fsync: median [0-9.]* ms' "$work/disktest") $(ls "$work/state" | grep -c disktest)" "1 0" "disktest: figures, and nothing is left behind"
# what this disk is and how fast it is today is not ours to say: the verdict is held against the figures beside it
ctl --json disktest >"$work/disktest.json" 2>&1
disk=$?
is "$disk $(awk '{ gsub(/[",]/, "") } $1 == "plausible:" { print $2 }' "$work/disktest.json") $(grep -c '"trouble": ' "$work/disktest.json")" \
	"$(awk '{ gsub(/[",]/, ""); v[$1] = $2 }
		END {
			bad = v["turning:"] == "true" && v["small_median_ms:"] < 1.0 || v["volatile_cache:"] == "true" && v["small_median_ms:"] < 0.03
			figures = v["small_median_ms:"] > 0 && v["large_median_ms:"] > 0
			print (!figures ? "no figures" : bad ? "1 false 1" : "0 true 0")
		}' "$work/disktest.json")" "disktest as JSON: exit code, verdict and trouble follow from its figures"
says "queue" 0 "the queue is empty" ctl queue
says "show of an unknown study" 2 "no such study" ctl show 1.2.3
says "show of what is no UID" 64 "not a UID" ctl show ../x
says "unknown command" 64 "not a command" ctl fly
stop_node

# ---- carzero-model ---------------------------------------------------------------------------------------------
phantom --seed 3 -o "$work/p.dcm"
says "info" 0 "untrained" "$builddir/carzero-model" info "$bundle"
"$builddir/carzero-model" score --model "$bundle" --findings "$srcdir/tests/findings-test.yaml" "$work/p.dcm" >"$work/scores" 2>"$work/err"
is $? 0 "score of a DICOM file"
is "$(wc -l <"$work/scores")" 5 "a line for each finding"
is "$(awk -F '\t' 'NF != 4' "$work/scores" | wc -l)" 0 "tab-separated: image, finding, logit, probability"
says "score of a lateral" 0 "" "$builddir/carzero-model" score --model "$bundle" --prompt "There is effusion" "$work/p.dcm"
says "score of a one-word prompt" 1 "There is" "$builddir/carzero-model" score --model "$bundle" --prompt "Nodule" "$work/p.dcm"
finish
