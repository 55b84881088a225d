#!/bin/sh
# long_full_size.sh: the published size, every tensor, against PyTorch.  Run with CHECK_LONG=yes only.
#
# $CARZEROD_SHARED/model/make_ckpt.py writes a checkpoint of chance weights in the published structure (883 MB);
# it is imported as a published one would be, tools/reference/model_vectors.py computes every intermediate
# tensor in float64, and test_model compares: 4 pictures with the 14 prompts of etc/findings.yaml, then one with
# every 8th of the 192 of etc/findings/padchest192.yaml.  Needs python3-torch, 6 GB of memory, 5 GB of disk in
# $TMPDIR, a quarter of an hour.
set -u
skip() {
	echo "1..0 # SKIP $1"
	exit 0
}
make_ckpt=${CARZEROD_SHARED:-/nonexistent}/model/make_ckpt.py
[ -f "$make_ckpt" ] || skip "CARZEROD_SHARED does not name a folder with model/make_ckpt.py"
python=/usr/bin/python3
$python -c 'import torch, numpy' 2>/dev/null || skip "python3-torch is not installed"

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
. "$srcdir/tests/tap.sh"
prompts() { # prompts LIST: one cleaned prompt a line
	sed -n 's/^  prompt: //p' "$1" | tr 'A-Z' 'a-z'
}
tool=$builddir/carzero-model

$python "$make_ckpt" --size full --out "$work/ckpt" >/dev/null
ok $? "a checkpoint of the published size"
$python -c 'import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)' "$tool" import "$work/ckpt/model.ckpt" --vocab "$work/ckpt/vocab.txt" --out "$work/bundle" >"$work/out" 2>"$work/rss"
ok $? "is imported"
sed 's/^/# /' "$work/out"
rss=$(tail -n 1 "$work/rss")
echo "# import: $rss KB resident at most"
[ "$rss" -gt 0 ] && [ "$rss" -lt 150000 ]
ok $? "within 150 MB"
grep -q '"family": "carzero-unverified"' "$work/bundle/model.json" && grep -q '"domain": "untrained"' "$work/bundle/model.json"
ok $? "as nobody's model yet"
rm -rf "$work/ckpt/model.ckpt"

# two phantoms, and two real films where they are
phantom="$builddir/tools/phantom/phantom --size 256x256 -o $work/p.dcm --raw"
$phantom "$work/0.raw" --seed 7 && $phantom "$work/1.raw" --seed 8 --finding pneumothorax=right,large
ok $? "two phantoms"
set -- "${CARZEROD_SHARED}"/data/nih_256/*.png
if [ -f "$1" ] && $python -c 'import cv2' 2>/dev/null; then
	$python -c 'import cv2, sys
for p in sys.argv[1:3]: sys.stdout.buffer.write(cv2.imread(p, 0).tobytes())' "$1" "$2" >"$work/films.raw"
else
	$phantom "$work/2.raw" --view AP && $phantom "$work/3.raw" --seed 9 --finding mass && cat "$work/2.raw" "$work/3.raw" >"$work/films.raw"
fi
cat "$work/0.raw" "$work/1.raw" "$work/films.raw" >"$work/squares"
[ "$(wc -c <"$work/squares")" -eq 262144 ]
ok $? "four squares"

against() { # against NAME SQUARES PROMPTS
	$python "$srcdir/tools/reference/model_vectors.py" "$work/bundle" "$3" "$work/vectors" "$2"
	ok $? "$1: PyTorch's tensors"
	"$builddir/tests/test_model" "$work/bundle" "$work/vectors" "$3" "$2" >"$work/out"
	ok $? "$1: the same within the tolerances"
	sed 's/^/# /' "$work/out"
	rm -f "$work/vectors"
}
prompts "$srcdir/etc/findings.yaml" >"$work/14"
against "4 pictures, 14 prompts" "$work/squares" "$work/14"
prompts "$srcdir/etc/findings/padchest192.yaml" | sed -n '1~8p' >"$work/24"
head -c 65536 "$work/squares" >"$work/one"
against "1 picture, every 8th of 192 prompts" "$work/one" "$work/24"

# the 24 among all 192: no prompt's logit depends on its company
lists() { # lists FILE: logits of the first phantom
	"$tool" score --model "$work/bundle" --findings "$1" "$work/p.dcm" 2>/dev/null | cut -f 2,3
}
lists "$srcdir/etc/findings/padchest192.yaml" >"$work/all"
[ "$(wc -l <"$work/all")" -eq 192 ]
ok $? "192 prompts are scored together"
awk '/^- id:/ { n++ } n % 8 == 1 || n == 0' "$srcdir/etc/findings/padchest192.yaml" >"$work/some.yaml"
lists "$work/some.yaml" >"$work/some"
[ "$(wc -l <"$work/some")" -eq 24 ] && awk 'NR == FNR { all[$1] = $2; next } { d = $2 - all[$1]; if (d < 0) d = -d; if (d > worst) worst = d }
	END { print "# 24 alone and among 192: max difference " worst + 0; exit worst > 1e-4 }' "$work/all" "$work/some"
ok $? "as they are alone"

echo "1..$count"
exit $((failed > 0))
