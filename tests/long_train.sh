#!/bin/sh
# long_train.sh: training from nothing goes as it went.  Run with CHECK_LONG=yes only.
#
# The first 200 steps of tools/train/train.py, with films that it renders anew, against the losses of the run that
# made the demonstration model (tools/train/first200.tsv).  Needs python3-torch, 300 MB in $TMPDIR, some minutes
# of one core.
set -u
skip() {
	echo "1..0 # SKIP $1"
	exit 0
}
python=/usr/bin/python3
$python -c 'import torch, numpy' 2>/dev/null || skip "python3-torch is not installed"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

OPENBLAS_NUM_THREADS=1 $python "$srcdir/tools/train/train.py" --films "$builddir/tools/train/films" --cache "$work/films" \
	--out "$work/run" --stop 200 >"$work/out.txt" 2>&1
if [ $? -eq 0 ]; then echo "ok 1 - 200 steps"; else echo "not ok 1 - 200 steps"; sed 's/^/# /' "$work/out.txt"; fi
sed 's/^/# /' "$work/out.txt"
cut -f1,2 "$work/run/loss.tsv" | paste - "$srcdir/tools/train/first200.tsv" |
	awk '$1 != $3 { lost = 1 } { d = $2 - $4; d = d < 0 ? -d : d; if (d > most) most = d }
	END { printf "# %d steps, the largest difference of the loss is %g\n", NR, most; exit !(NR == 200 && !lost && most <= 1e-4) }'
if [ $? -eq 0 ]; then echo "ok 2 - their losses within 1e-4"; else echo "not ok 2 - their losses within 1e-4"; fi
echo "1..2"
