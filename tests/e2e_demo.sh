#!/bin/sh
# e2e_demo.sh: a bundle that never saw a patient: what it refuses, and what bears its stamp.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

stamp="DEMONSTRATION MODEL, NOT VALID ON PATIENTS"
phantom --seed 51 --study-uid 2.25.51 -o "$work/tagged.dcm"
phantom --seed 52 --study-uid 2.25.52 --no-tag -o "$work/untagged.dcm"
holds() { # holds FILE NAME: the stamp stands in it
	grep -qF "$stamp" "$1"
	ok $? "$2"
}
report_of() { # report_of STUDY: its text into $work/report.txt
	for f in $(archive_files); do
		[ "$(tag "$f" 0020,000d)" = "UI [$1]" ] && dsrdump +Pl "$f" >"$work/report.txt" 2>/dev/null && return
	done
	return 1
}

# ---- the films that it is trained on and measured with ---------------------------------------------------
films=$builddir/tools/train/films
for i in 1 2; do
	"$films" --set 9 --first 4 --count 2 --pixels "$work/$i.px" --labels "$work/$i.lb"
done
cmp -s "$work/1.px" "$work/2.px" && cmp -s "$work/1.lb" "$work/2.lb"
ok $? "the same set has the same films and labels"
"$films" --set 9 --first 5 --count 1 --pixels "$work/3.px" --labels "$work/3.lb"
tail -c 65536 "$work/1.px" | cmp -s - "$work/3.px"
ok $? "a film does not depend on those before it"
"$films" --set 9 --count 1 --pixels "$work/4.px" 2>"$work/films.err"
is $? 2 "pixels without labels are refused"

# ---- as installed --------------------------------------------------------------------------------------
write_config
start_archive
start_node
holds "$work/node.log" "the log says so when the node starts"
ctl status >"$work/status.txt"
holds "$work/status.txt" "carzeroctl status says so"
send MODALITY "$work/tagged.dcm" && send MODALITY "$work/untagged.dcm"
ok $? "a tagged and an untagged film are acknowledged"
check "one report" wait_for 30 archive_has 1
check "nothing waits" wait_for 20 nothing_waits
is "$(archive_count)" 1 "and no second one"
report_of 2.25.51
ok $? "it is of the tagged film"
holds "$work/report.txt" "its comment bears the stamp"
ctl show 2.25.51 >"$work/show.txt"
holds "$work/show.txt" "carzeroctl show bears it"
is "$(ctl --json show 2.25.51 | grep -c "\"stamp\": \"$stamp\"")" 1 "so does its JSON"
ctl show 2.25.52 | grep -q 'out of domain: .*Quality Control Image'
ok $? "the untagged one has no report, and the reason is said"

# ---- allow_out_of_domain --------------------------------------------------------------------------------
stop_node
rm -rf "$work/state"
write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'allow_out_of_domain: true'
start_node
grep -q "$stamp: allow_out_of_domain is set" "$work/node.log"
ok $? "the log says what is allowed"
send MODALITY "$work/untagged.dcm"
ok $? "the untagged film again"
check "now it has a report" wait_for 30 archive_has 2
report_of 2.25.52
ok $? "of it"
holds "$work/report.txt" "with the stamp"
ctl show 2.25.52 >"$work/show.txt"
holds "$work/show.txt" "carzeroctl show bears it"
stop_node

# ---- the demonstration model that ships ------------------------------------------------------------------
bundle=$srcdir/model/demo
if [ -f "$bundle/weights.safetensors" ]; then
	rm -rf "$work/state" "$work/archive"
	phantom --seed 61 --study-uid 2.25.61 -o "$work/normal.dcm"
	phantom --seed 62 --study-uid 2.25.62 --finding effusion=left,moderate -o "$work/effusion.dcm"
	phantom --seed 63 --study-uid 2.25.63 --finding pneumothorax=right,large -o "$work/pneumothorax.dcm"
	write_config
	sed -i "s,^findings: .*,findings: $bundle/findings.yaml," "$work/carzerod.yaml"
	stop_archive
	start_archive
	start_node
	send MODALITY "$work/normal.dcm" && send MODALITY "$work/effusion.dcm" && send MODALITY "$work/pneumothorax.dcm"
	ok $? "a normal film, a left effusion and a right pneumothorax"
	check "three reports" wait_for 30 archive_has 3
	check "nothing waits" wait_for 20 nothing_waits
	present() { # present STUDY: what is called present there
		ctl --json show "$1" | tr -d ' \t\n' | grep -o '"finding":"[a-z_-]*","logit":[^,]*,"probability":[^,]*,"decision":"present"' |
			sed 's/"finding":"\([a-z_-]*\)".*/\1/' | tr '\n' ' '
	}
	is "$(present 2.25.61)" "" "nothing on the normal one"
	is "$(present 2.25.62)" "effusion left-effusion " "the left effusion"
	is "$(present 2.25.63)" "pneumothorax right-pneumothorax " "the right pneumothorax"
else
	skip "the demonstration model's reports" "model/demo has no weights in this tree"
fi
finish
