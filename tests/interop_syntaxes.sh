#!/bin/sh
# interop_syntaxes.sh: every transfer syntax x {CR, DX, SC} x polarity x depth, through a real association into
# the real node: accepted, decoded as a second decoder does, scored, reported.  Prints the table.
#
# By default a selection; CHECK_LONG=yes makes all of it.  DCMTK's dcmsend sends what DCMTK knows; HTJ2K,
# which it has no names for, by raw_scu.py.
#
# Bit-exact means: the node's content digest (patient, matrix and stored values) of the coded film equals that
# of its twin in the same study, whose pixels GDCM or OpenJPH decoded; and so do all logits.
. "$srcdir/tests/e2e.sh"
command -v dcmsend >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
command -v sqlite3 >/dev/null || skip_all "sqlite3 is not installed"
begin

all=
[ "${CHECK_LONG:-no}" = yes ] && all=all
films=$work/films
sh "$srcdir/tests/make_syntaxes.sh" "$films" $all >"$work/make.out" 2>&1
made=$?
[ $made != 77 ] || skip_all "$(tail -n 1 "$work/make.out")"
ok $made "the films are made: $(wc -l <"$films/table.tsv")"
[ $made = 0 ] || sed 's/^/# /' "$work/make.out" | tail -n 20

write_config
start_archive
start_node
ok $? "the node is ready"
began=$(date +%s)
films_of() { # films_of LABEL...: the coded ones with these labels; "rest": all others, and all twins
	for f in "$films"/*.dcm; do
		case $1-$f in
		rest-*.twin.dcm) echo "$f" ;;
		*.twin.dcm | rest-*/HTJ2K* | rest-*/implicit_LE* | rest-*/explicit_BE*) ;;
		rest-* | HTJ2K-*/HTJ2K* | implicit_LE-*/implicit_LE* | explicit_BE-*/explicit_BE*) echo "$f" ;;
		esac
	done
}
# dcmsend prefers explicit VR where it may choose; storescu insists
check "implicit LE, by storescu" storescu -xi -aet DCMTK -aec CARZEROD 127.0.0.1 "$node_port" $(films_of implicit_LE)
check "explicit BE, by storescu" storescu -xb -aet DCMTK -aec CARZEROD 127.0.0.1 "$node_port" $(films_of explicit_BE)
check "all others that DCMTK knows, and the twins, by dcmsend" dcmsend -dn -nh -aet DCMTK -aec CARZEROD \
	127.0.0.1 "$node_port" $(films_of rest)
check "HTJ2K, by PS3.8" /usr/bin/python3 "$srcdir/tests/raw_scu.py" "$node_port" $(films_of HTJ2K)
check "nothing waits" wait_for 600 nothing_waits
echo "# $(($(date +%s) - began)) s from the first association to the last report"

# ---- the table ------------------------------------------------------------------------------------------
# one line a film: name|accepted|decoded|scored|reported
sqlite3 -separator '	' "$work/state/carzerod.db" >"$work/node.tsv" <<-'END'
	SELECT i.sop_uid, i.syntax, i.state, i.outcome, hex(i.content), i.why,
		(SELECT group_concat(logit, ' ') FROM score WHERE instance = i.id),
		(SELECT count(*) FROM delivery d WHERE d.study = i.study AND d.state = 2 AND d.status = 0)
	FROM instance i;
END
for f in $(archive_files); do
	tag "$f" 0020,000d | sed 's/.*\[\(.*\)\].*/\1/'
done >"$work/reported.txt"
awk -F '\t' -v OFS='\t' '
	FILENAME ~ /node.tsv$/ { syntax[$1] = $2; outcome[$1] = $4; content[$1] = $5; why[$1] = $6; logits[$1] = $7; sent[$1] = $8; next }
	FILENAME ~ /reported.txt$/ { reports[$1]++; next }
	{
		a = $8; b = $9
		said = "exact"
		if (!(a in outcome) || syntax[a] != $2) said = "refused"
		else if (outcome[a] != 1) said = "not scored: " why[a]
		else if (outcome[b] != 1) said = "twin not scored: " why[b]
		else if (content[a] == "" || content[a] != content[b]) said = "other pixels"
		else if (logits[a] == "" || logits[a] != logits[b]) said = "other logits"
		else if (reports[$7] == 0 || reports[$7] != sent[a]) said = "not reported"
		row = $3 "\t" $2 "\t" $6 "\t" $10
		if (!(row in seen)) { seen[row] = ++n; rows[n] = row }
		cell[row, $4 substr($5, 11)] = said
	}
	END {
		print "# " sprintf("%-18s %-24s %-5s %-7s", "transfer syntax", "", "depth", "coded") " CR1    CR2    DX1    DX2    SC1    SC2"
		for (i = 1; i <= n; i++) {
			split(rows[i], r, "\t")
			line = sprintf("%-18s %-24s %-5s %-7s", r[1], r[2], r[3], r[4] == 0 ? "exactly" : "+-" r[4])
			good = 1
			for (k = 1; k <= 6; k++) {
				split("CR1 CR2 DX1 DX2 SC1 SC2", names, " ")
				c = cell[rows[i], names[k]]
				line = line sprintf(" %-6s", c == "" ? "-" : c)
				if (c != "" && c != "exact") good = 0
			}
			print "# " line
			print good "\t" r[1] ", " r[3]
		}
	}' "$work/node.tsv" "$work/reported.txt" "$films/table.tsv" >"$work/table.txt"
grep '^#' "$work/table.txt"
grep -v '^#' "$work/table.txt" >"$work/rows.txt"
while IFS='	' read -r good row; do
	ok $((1 - good)) "$row: accepted, decoded as the second decoder does, scored, reported"
done <"$work/rows.txt"
is "$(cut -f 2 "$films/table.tsv" | sort -u | wc -l)" 16 "sixteen transfer syntaxes"
is "$(sort -u "$work/reported.txt" | wc -l)" "$(wc -l <"$films/table.tsv")" "every study is reported"
finish
