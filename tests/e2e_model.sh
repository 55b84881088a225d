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

finish
