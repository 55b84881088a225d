#!/bin/sh
# interop_corpora.sh: 788 files that other projects keep because they once broke something, through the real
# node.  Each ends in exactly one stated outcome; no process dies, nothing is quarantined, the node goes on.
#
# Prints how many ended how; with CHECK_LONG=yes all of them, otherwise every sixth.  The list of every file
# and its outcome stays in the work folder.
. "$srcdir/tests/e2e.sh"
corpora=${CARZEROD_SHARED:-}/data/corpora
[ -d "$corpora" ] || skip_all "CARZEROD_SHARED is not set"
command -v storescp >/dev/null && command -v sqlite3 >/dev/null || skip_all "dcmtk's tools or sqlite3 are not installed"
begin

every=6
[ "${CHECK_LONG:-no}" = yes ] && every=1
find "$corpora" -type f ! -name MANIFEST.tsv | sort | awk "NR % $every == 0" >"$work/files.txt"
write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'allow_out_of_domain: true' 'gate: off' 'min_age: 0'
start_archive
ok $? "the archive is there"
start_node
ok $? "the node is ready"
tr '\n' '\0' <"$work/files.txt" >"$work/files.0"
xargs -0 -a "$work/files.0" /usr/bin/python3 "$srcdir/tests/raw_scu.py" "$node_port" >"$work/sent.tsv"
is "$(wc -l <"$work/sent.tsv")" "$(wc -l <"$work/files.txt")" "every file was offered"
check "nothing waits" wait_for 300 nothing_waits

# what became of a file is known by the digest of its data set: several files share a UID
sqlite3 -separator '	' "$work/state/carzerod.db" \
	"SELECT lower(hex(digest)), CASE WHEN state = 4 THEN 'set aside' WHEN outcome = 1 THEN 'scored'
		WHEN outcome = 2 THEN 'not analysed: ' || why ELSE 'state ' || state || ', outcome ' || outcome END FROM instance" \
	>"$work/instances.tsv"
/usr/bin/python3 - "$srcdir/tests" "$work/sent.tsv" "$work/instances.tsv" "$corpora" >"$work/outcomes.tsv" <<'END'
import hashlib, sys
sys.argv[0], folder = "raw_scu", sys.argv.pop(1)
source = open(folder + "/raw_scu.py").read().replace("\nmain()\n", "\n")
exec(source)
sent, instances, corpora = sys.argv[1:]
known = dict(line.rstrip("\n").split("\t", 1) for line in open(instances))
for line in open(sent):
    path, said = line.rstrip("\n").split("\t")
    name = path[len(corpora) + 1:]
    if said == "0000":
        digest = hashlib.sha256(meta(open(path, "rb").read())[3]).hexdigest()
        print(name, "acknowledged", known.get(digest, "LOST"), sep="\t")
    else:
        print(name, "not acknowledged", said, sep="\t")
END
ok $? "outcomes are told apart"
echo "#   files  what the sender heard, and what became of it"
cut -f 2,3 "$work/outcomes.tsv" | sed 's/: .*: .*/&/; s/[0-9][0-9]* x [0-9][0-9]*/R x C/g; s/(\([0-9A-F]\{4\}\),\([0-9A-F]\{4\}\)) has/(element) has/' |
	cut -c 1-120 | sort | uniq -c | sort -rn | sed 's/^/# /'
is "$(wc -l <"$work/outcomes.tsv")" "$(wc -l <"$work/files.txt")" "every file has an outcome"
is "$(awk -F '\t' '$2 == "acknowledged" && $3 !~ /^(scored|set aside|not analysed: .+)$/' "$work/outcomes.tsv")" "" "and a stated one"
is "$(awk -F '\t' '$3 ~ /closed|aborted|A7/' "$work/outcomes.tsv")" "" "no association broke off, nothing was out of resources"
[ "$(awk -F '\t' '$3 == "scored"' "$work/outcomes.tsv" | wc -l)" -gt 0 ]
ok $? "some are images that can be scored"
is "$(grep -c 'ended by signal\|exit code 99' "$work/node.log")" 0 "no process died"
ctl --json status >"$work/status.json"
is "$(field quarantined)" 0 "nothing is quarantined"
check "and a good peer is served" echoscu -aec CARZEROD 127.0.0.1 "$node_port"
bad=
for r in $(archive_files); do
	dsrdump "$r" >/dev/null 2>&1 || bad="$bad $r"
done
is "$bad" "" "reports about them read back: $(archive_count)"

# most of the files are set aside for their class: the readers meet them all the same
for t in scan image; do
	if [ -x "$builddir/tests/fuzz_$t" ]; then
		check "fuzz_$t takes every file" xargs -0 -a "$work/files.0" "$builddir/tests/fuzz_$t"
	fi
done
finish
