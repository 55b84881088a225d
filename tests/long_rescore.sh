#!/bin/sh
# long_rescore.sh: ten thousand kept embeddings of the published size, scored again with 14 and with 192 findings, beside the
# same from pixels.  Run with CHECK_LONG=yes only: a quarter of an hour, 5 GB of disk in $builddir.
#
# 200 phantoms go through a node with a bundle of chance weights; each one's embedding is then stored 50 times, with rows of its
# own.  From pixels is carzero-model score on the same films, its start taken off; rescoring is the whole command.  Judged by CPU
# seconds: rescoring gives way to everything else on the machine, so that its wall time is that of others.  The files
# are forgotten by the page cache first.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
command -v sqlite3 >/dev/null || skip_all "sqlite3 is not installed"
python=/usr/bin/python3
[ -x $python ] || skip_all "python3 is not installed"
begin
films=200 times=50
bundle=$work/full list=$srcdir/etc/findings.yaml threads=$(nproc)

make -C "$builddir" -s tools/bench/mkfull >"$work/make.out" 2>&1 && "$builddir/tools/bench/mkfull" --seed 1 --out "$bundle" >/dev/null
ok $? "a bundle of the published size"
db() {
	sqlite3 "$work/state/carzerod.db" "$1"
}
number() { # number KEY
	sed -n "s/.*\"$1\": \(-\{0,1\}[0-9.e-]*\).*/\1/p" "$work/rescore.json" | head -n 1
}
storage_more='keep_embeddings: true'
write_config
sed -i "s,^findings:.*,findings: $list,; s,^threads:.*,threads: $threads," "$work/carzerod.yaml"
start_archive
start_node
ok $? "the node is ready"
i=1
while [ $i -le $films ]; do
	phantom --seed $i --size 1024x1024 -o "$work/$i.dcm"
	i=$((i + 1))
done
send MODALITY "$work"/*.dcm
check "$films films are reported" wait_for 1800 archive_has $films
stop_node

# as many again, and again
db "CREATE TEMP TABLE k AS WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < $times - 1) SELECT k FROM n;
	SELECT printf('%02x/%016x %02x/%016x', embedding >> 56, embedding, embedding + k >> 56, embedding + k) FROM instance, k" |
	while read -r from to; do
		cp "$work/state/spool/embeddings/$from" "$work/state/spool/embeddings/$to" || exit 1
	done
ok $? "their embeddings are stored $times times"
db "CREATE TEMP TABLE k AS WITH RECURSIVE n(k) AS (VALUES (1) UNION ALL SELECT k + 1 FROM n WHERE k < $times - 1) SELECT k FROM n;
	CREATE TEMP TABLE old AS SELECT * FROM instance;
	INSERT INTO instance (id, study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, peer, digest, size, received,
		revision, state, outcome, patient, content, recipe, precision, version, weights, findings, settled, kept, embedding)
	SELECT id + 1000 * k, study, file + k, sop_class, sop_uid || '.' || k, series_uid, syntax, calling_ae, called_ae, peer, digest, size,
		received, revision, state, outcome, patient, content, recipe, precision, version, weights, findings, settled, 0, embedding + k
	FROM old, k;
	INSERT INTO score (instance, place, finding, logit, probability, decision)
	SELECT instance + 1000 * k, place, finding, logit, probability, decision FROM score, k"
is "$(db 'SELECT count(*) FROM instance WHERE embedding <> 0')" $((films * times)) "with rows of their own"

forget() { # what the page cache has of them
	$python -c 'import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for f in files:
        fd = os.open(os.path.join(folder, f), os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)' "$work/state/spool/embeddings"
}
cpu() { # cpu FILE COMMAND...: CPU seconds on stdout, its output into FILE
	$python -c 'import resource, subprocess, sys
code = subprocess.call(sys.argv[2:], stdout=open(sys.argv[1], "w"), stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
sys.exit(code)' "$@"
}
score() { # score LIST FILMS...: from pixels
	l=$1
	shift
	cpu /dev/null "$builddir/carzero-model" score --model "$bundle" --findings "$l" --threads "$threads" "$@"
}
against() { # against LIST NAME LEAST
	few=$(score "$1" "$work/1.dcm") && many=$(score "$1" "$work"/[2-9].dcm "$work"/[2-4]?.dcm)
	ok $? "$2: films from pixels"
	forget
	kept=$(cpu "$work/rescore.json" "$builddir/carzeroctl" -c "$work/carzerod.yaml" --json rescore --findings "$1")
	is "$? $(number scored)" "0 $((films * times))" "$2: $((films * times)) embeddings"
	echo "$many $few $kept $(number seconds)" | awk -v n=$((films * times)) -v name="$2" -v least="$3" '{ pixels = ($1 - $2) / 37; kept = $3 / n
		printf "# %s: CPU %.1f ms an image from pixels, %.2f ms from embeddings (%.0f s for %d, wall %.0f s): %.1f times\n", name, pixels * 1e3, kept * 1e3, $3, n, $4, pixels / kept
		exit !(pixels / kept >= least) }'
	ok $? "$2: at least $3 times faster"
	# of the list that scored them then, the logits are known
	sed -n 's/.*"max_difference": \([0-9.e-]*\).*/\1/p' "$work/rescore.json" | sort -g | tail -n 1 | sed 's/^/# logits differ from the stored ones by at most /'
}
uptime | sed 's/^/# /'
against "$list" "14 findings" 20
worst=$(sed -n 's/.*"max_difference": \([0-9.e-]*\).*/\1/p' "$work/rescore.json" | sort -g | tail -n 1)
awk -v w="$worst" 'BEGIN { exit !(w <= 0.01) }'
ok $? "every logit within 0.01 of that of the pixels"
# with so many the decoder itself is the work, and no embedding saves that (MODEL.md 6)
against "$srcdir/etc/findings/padchest192.yaml" "192 findings" 2
uptime | sed 's/^/# /'
finish
