#!/bin/sh
# e2e_model.sh: carzero-model's longer ways: verify, maps, alignment, evaluation, calibration.
. "$srcdir/tests/e2e.sh"
begin
tool=$builddir/carzero-model

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

# ---- calibrations made for a family apply to it, whatever its domain -------------------------------------------
phantom --seed 3 --finding pneumothorax=right,large -o "$work/p.dcm"
"$tool" score --model "$bundle" --findings "$srcdir/tests/findings-test.yaml" "$work/p.dcm" >"$work/scores" 2>/dev/null
is "$(awk -F '\t' '$4 != "-"' "$work/scores" | wc -l)" 3 "the three calibrated findings have probabilities"
"$tool" score --model "$bundle" --findings "$srcdir/etc/findings.yaml" "$work/p.dcm" >"$work/scores" 2>/dev/null
is "$(awk -F '\t' '$4 != "-"' "$work/scores" | wc -l)" 0 "those of the published weights do not apply to others"

# ---- verify: a bundle against its own logits, as recorded ones of the published weights would be -------------
cp -r "$bundle" "$work/unverified"
sed -i 's/"family": *"[^"]*"/"family": "carzero-unverified"/' "$work/unverified/model.json"
mkdir "$work/images"
for i in 1 2 3; do
	phantom --seed $i --size 300x$((280 + 20 * i)) -o "$work/x.dcm"
	"$tool" score --model "$bundle" --map "$work/m$i" --prompt "There is x" "$work/x.dcm" >/dev/null 2>&1
	mv "$work/m$i/x.dcm.there_is_x.png" "$work/images/$i.png" # any PNG does
done
labels="Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax Consolidation Edema Emphysema Fibrosis Pleural_Thickening Hernia"
{
	echo "image more $labels" | tr ' ' '\t'
	for i in 1 2 3; do
		printf '%s.png\tx' $i
		"$tool" score --model "$bundle" --findings "$srcdir/etc/findings.yaml" "$work/images/$i.png" 2>/dev/null |
			cut -f 3 | tr '\n' '\t' | sed 's/\t$//; s/^/\t/'
		echo
	done
	echo "absent.png more $labels" | tr ' ' '\t' | sed 's/[A-Z][A-Za-z_]*/0/g'
} >"$work/recorded.tsv"
sed '3s/\t[^\t]*$/\t99/' "$work/recorded.tsv" >"$work/other.tsv"
before=$(cksum <"$work/unverified/model.json")
says "verify against other logits" 1 "2.png: Hernia: recorded 99.000000, computed" \
	"$tool" verify "$work/unverified" --images "$work/images" --logits "$work/other.tsv"
is "$(cksum <"$work/unverified/model.json")" "$before" "and nothing was changed"
says "verify without films" 1 "at least 2 are needed" "$tool" verify "$work/unverified" --images "$work" --logits "$work/recorded.tsv"
says "verify with the built-in logits" 1 "00011997_000.png" "$tool" verify "$work/unverified" --images "$work/images"
says "verify of another family" 1 "untrained-tiny, not carzero-unverified" \
	"$tool" verify "$bundle" --images "$work/images" --logits "$work/recorded.tsv"
sed '1s/Edema/Oedema/' "$work/recorded.tsv" >"$work/other.tsv"
says "verify with a label missing" 1 "no column Edema" "$tool" verify "$work/unverified" --images "$work/images" --logits "$work/other.tsv"
sed '2s/1.png/..\/1.png/' "$work/recorded.tsv" >"$work/other.tsv"
says "verify with a path for a name" 1 "not the name of an image" \
	"$tool" verify "$work/unverified" --images "$work/images" --logits "$work/other.tsv"
is "$(cksum <"$work/unverified/model.json")" "$before" "still nothing was changed"
says "verify" 0 "3 images, 14 findings" "$tool" verify "$work/unverified" --images "$work/images" --logits "$work/recorded.tsv"
says "info of a verified bundle" 0 "domain *clinical" "$tool" info "$work/unverified"
says "its family" 0 "family *carzero\$" "$tool" info "$work/unverified"
is "$(ls "$work/unverified" | tr '\n' ' ')" "model.json vocab.txt weights.safetensors " "nothing is left beside it"
"$tool" score --model "$work/unverified" --findings "$srcdir/etc/findings.yaml" "$work/p.dcm" >"$work/scores" 2>/dev/null
is "$(awk -F '\t' '$4 != "-"' "$work/scores" | wc -l)" 14 "now the published calibrations apply"
says "verify again" 0 "family carzero" "$tool" verify "$work/unverified" --images "$work/images" --logits "$work/recorded.tsv"

# ---- maps: the same film written otherwise has the same overlay ------------------------------------------------
overlay() { # overlay NAME PHANTOM_OPTIONS...: its sum
	overlay_name=$1
	shift
	phantom --seed 5 --finding pneumothorax=right,large --size 500x640 "$@" -o "$work/f.dcm"
	"$tool" score --model "$bundle" --prompt "There is pneumothorax" --map "$work/$overlay_name" --threads 1 "$work/f.dcm" >/dev/null 2>&1
	cksum <"$work/$overlay_name/f.dcm.there_is_pneumothorax.png"
}
plain=$(overlay plain)
is "$(overlay inverted --photometric MONOCHROME1)" "$plain" "MONOCHROME1: the same overlay"
is "$(overlay implicit --syntax implicit)" "$plain" "implicit VR: the same overlay"
is "$(awk -F '\t' 'NF == 14' "$work/plain/f.dcm.there_is_pneumothorax.tsv" | wc -l)" 14 "14 x 14 numbers"
is "$(awk -F '\t' '{ for (i = 1; i <= NF; i++) s += $i } END { print (s > 0.3 && s < 1) }' "$work/plain/f.dcm.there_is_pneumothorax.tsv")" 1 \
	"which are shares"
says "maps are not overwritten" 1 "exists" "$tool" score --model "$bundle" --prompt "There is pneumothorax" --map "$work/plain" "$work/f.dcm"

# ---- alignment ----------------------------------------------------------------------------------------------------
align() {
	"$tool" prompts --synonyms "$srcdir/etc/synonyms.yaml" "$@"
}
says "align" 0 "prompt *There is Cardiomegaly" align --findings "$srcdir/etc/findings.yaml" --align "heart enlargement"
says "align says why" 0 "because .*it is 'cardiomegaly'" align --align "an enlarged heart"
says "align nothing" 1 "nothing is guessed" align --align "left pleural effusion"
says "align a negation" 1 "'no' turns" align --align "no pneumothorax"
says "align with --explain" 64 "goes without" align --align x --explain y

# ---- evaluation and calibration: made-up logits, three films a patient ---------------------------------------
awk 'BEGIN {
	print "effusion,pneumothorax" >"'"$work"'/logits.csv"
	print "image,effusion,pneumothorax,patient" >"'"$work"'/labels.csv"
	for (i = 0; i < 600; i++) {
		a = i * 7919 % 601 / 601; b = i * 104729 % 607 / 607
		print 4 * a - 2 "," 3 * b - 4 >"'"$work"'/logits.csv"
		print "i" i "," (a + 0.6 * (i % 5 / 4 - 0.5) > 0.6) "," (b + (i % 7 / 6 - 0.5) > 1.1) ",p" int(i / 3) >"'"$work"'/labels.csv"
	}
}'
set -- --findings "$work/two.yaml" --logits "$work/logits.csv" --labels "$work/labels.csv"
cat >"$work/two.yaml" <<-END
	name: Doctor's two
	findings:
	- {id: effusion, name: Pleural effusion, prompt: There is pleural effusion, synonyms: [pleural fluid]}
	- {id: pneumothorax, name: "It's air", prompt: There is pneumothorax}
END
"$tool" eval "$@" >"$work/eval" 2>/dev/null
is $? 0 "eval"
"$tool" eval "$@" 2>/dev/null | cmp -s - "$work/eval"
ok $? "eval says the same again"
is "$(cut -f 1 "$work/eval" | tr '\n' ' ')" "finding effusion pneumothorax macro weighted head medium tail micro " "its lines"
is "$(awk -F '\t' '$4 != "-" && !($5 <= $4 && $4 <= $6 && $8 <= $7 && $7 <= $9) && NR > 1' "$work/eval" | wc -l)" 0 \
	"every figure lies in its interval"
is "$("$tool" eval "$@" --bootstrap 0 2>/dev/null | awk -F '\t' 'NR == 2 { print $4 $5 }')" "$(awk -F '\t' 'NR == 2 { print $4 "-" }' "$work/eval")" \
	"without bootstrap no interval"
says "eval as JSON" 0 '"auprc_95"' "$tool" eval "$@" --bootstrap 10 --json
# an image list, in another folder than this one: the same figures as of the logits that score prints
printf '%s\n' 1.png ./2.png "$work/images/3.png" >"$work/images/list"
printf '%s\n' image,effusion,pneumothorax 1,0,1 2,1,0 3,0,1 >"$work/three.csv"
{
	echo effusion,pneumothorax
	for i in 1 2 3; do
		"$tool" score --model "$bundle" --findings "$work/two.yaml" "$work/images/$i.png" 2>/dev/null | cut -f 3 | paste -s -d ,
	done
} >"$work/three-logits.csv"
"$tool" eval --findings "$work/two.yaml" --logits "$work/three-logits.csv" --labels "$work/three.csv" >"$work/want" 2>/dev/null
"$tool" eval --findings "$work/two.yaml" --model "$bundle" --images "$work/images/list" --labels "$work/three.csv" >"$work/got" 2>/dev/null
is $? 0 "eval of an image list"
cmp -s "$work/want" "$work/got"
ok $? "says what eval of its logits says"
echo absent.png >>"$work/images/list"
says "a list of another length" 1 "names 4 images and the labels have 3 rows" "$tool" eval --findings "$work/two.yaml" \
	--model "$bundle" --images "$work/images/list" --labels "$work/three.csv"
sed -i 2d "$work/images/list"
says "an image that is not there" 1 "absent.png" "$tool" eval --findings "$work/two.yaml" \
	--model "$bundle" --images "$work/images/list" --labels "$work/three.csv"
"$tool" eval "$@" --bootstrap 100 --threshold-sensitivity 0.9 --threshold-alarm 0.1 >"$work/thresholds" 2>/dev/null
is $? 0 "eval: thresholds"
is "$(awk -F '\t' 'NR > 1 && $4 <= $3 && $3 <= $5 && $4 < $5 && $6 == "-" { print $2 }' "$work/thresholds" | tr '\n' ' ')" \
	"sensitivity=0.9 alarm_rate=0.1 sensitivity=0.9 alarm_rate=0.1 " "each in its interval"
is "$(awk -F '\t' '$2 == "sensitivity=0.9" && $7 >= 0.9 && $7 < 0.92 || $2 == "alarm_rate=0.1" && $9 <= 0.1 && $9 > 0.09' "$work/thresholds" |
	wc -l)" 4 "and as wanted"
sed 's/Pleural eff/P < q \&amp eff/' "$work/two.yaml" >"$work/odd.yaml"
says "eval draws" 0 "macro" "$tool" eval "$@" --findings "$work/odd.yaml" --bootstrap 0 --svg "$work/roc.svg"
is "$(grep -c '<polyline' "$work/roc.svg") $(grep -c 'P &lt; q &amp;' "$work/roc.svg") $(tail -n 1 "$work/roc.svg")" "2 1 </svg>" \
	"a curve each, names escaped"
says "and does not overwrite" 1 "exists" "$tool" eval "$@" --bootstrap 0 --svg "$work/roc.svg"
says "a wrong share" 64 "expected a share" "$tool" eval "$@" --threshold-alarm 2
says "logits and a model" 64 "either --logits" "$tool" eval "$@" --model "$bundle" --images "$work/images/list"
says "an option of the other verb" 64 "--l2 is not an option" "$tool" eval "$@" --l2 5
says "calibrate without a family" 64 "--family NAME is missing" "$tool" calibrate "$@"
"$tool" calibrate "$@" --family untrained-tiny --origin "made up: it's noise" >"$work/calibrated.yaml" 2>/dev/null
is $? 0 "calibrate"
"$tool" score --model "$bundle" --findings "$work/calibrated.yaml" "$work/p.dcm" >"$work/scores" 2>"$work/err"
is $? 0 "its output is a findings list"
is "$(awk -F '\t' '$4 != "-"' "$work/scores" | wc -l)" 2 "whose calibrations apply"
is "$(grep -c 'expected calibration error' "$work/calibrated.yaml")" 2 "with a table of reliability each"
says "calibrate draws" 0 "expected calibration error" "$tool" calibrate "$@" --family x --svg "$work/reliability.svg"
is "$(grep -c '<polyline' "$work/reliability.svg") $(grep -c '<circle' "$work/reliability.svg") $(tail -n 1 "$work/reliability.svg")" \
	"2 $(grep -c '^  #   0\.' "$work/calibrated.yaml") </svg>" "a line each, and a disc for each tenth that the tables name"
says "and does not overwrite" 1 "exists" "$tool" calibrate "$@" --family x --svg "$work/reliability.svg"
b=$(awk '/^    b:/ { print $2; exit }' "$work/calibrated.yaml")
shifted=$("$tool" calibrate "$@" --family x --prevalence 0.01 2>/dev/null | awk '/^    b:/ { print $2; exit }')
share=$(awk '/^    prevalence:/ { print $2; exit }' "$work/calibrated.yaml")
is "$(awk "BEGIN { d = $b + log(0.01 / 0.99) - log($share / (1 - $share)) - $shifted; print (d < 0.002 && d > -0.002) }")" 1 \
	"--prevalence shifts b by the log odds"
if [ -d "${CARZEROD_SHARED:-/nonexistent}/model/real" ]; then
	real=$CARZEROD_SHARED/model/real
	is "$("$tool" eval --bootstrap 0 --findings "$srcdir/etc/findings.yaml" --logits "$real/logits-chestxray14.csv" \
		--labels "$real/labels-chestxray14.txt" 2>/dev/null | awk '$1 == "macro" { print $4 }')" 0.8113 "ChestXray14: macro AUC"
	is "$("$tool" eval --bootstrap 0 --findings "$srcdir/etc/findings/openi.yaml" --logits "$real/logits-openi.csv" \
		--labels "$real/labels-openi.csv" 2>/dev/null | awk '$1 == "macro" { print $4 }')" 0.8376 "Open-I: macro AUC"
	"$tool" calibrate --l2 0 --no-split --table --findings "$srcdir/etc/findings/openi.yaml" --logits "$real/logits-openi.csv" \
		--labels "$real/labels-openi.csv" 2>/dev/null | cut -f 6,7 | tail -n +2 >"$work/fits"
	grep '^openi' "$real/platt.tsv" | cut -f 6,7 | paste - "$work/fits" >"$work/both"
	is "$(awk '{ a = $1 - $3; b = $2 - $4; if (a * a > 2.5e-7 || b * b > 2.5e-7) print }' "$work/both" | wc -l)" 0 "Open-I: a and b as published"
	is "$(wc -l <"$work/both")" 18 "all 18"
else
	skip "the published weights' logits" "CARZEROD_SHARED does not name a folder with model/real"
fi

finish
