#!/bin/sh
# e2e_rescore.sh: embeddings are kept where they are asked for, score again what was scored, and go with their patient.
# The demonstration model, so that logits mean something.  How much faster that is: long_rescore.sh.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin
bundle=$srcdir/model/demo
list=$srcdir/model/demo/findings.yaml

embeddings() {
	find "$work/state/spool/embeddings" -type f | wc -l
}
db() {
	sqlite3 "$work/state/carzerod.db" "$1"
}
rescore() {
	ctl rescore "$@" >"$work/rescore.out" 2>"$work/rescore.err"
}
number() { # number KEY: first of that name in the last answer
	sed -n "s/.*\"$1\": \(-\{0,1\}[0-9.e-]*\).*/\1/p" "$work/rescore.out" | head -n 1
}
configure() {
	write_config
	sed -i "s,^findings:.*,findings: $list," "$work/carzerod.yaml"
}

# ---- not asked for: nothing is kept ----
configure
start_archive
start_node
ok $? "the node is ready"
for i in 1 2 3 4 5 6; do
	case $i in
	2 | 4) phantom --seed $i --size 320x256 --finding pneumothorax=right,large -o "$work/$i.dcm" ;;
	*) phantom --seed $i --size 320x256 -o "$work/$i.dcm" ;;
	esac
done
send MODALITY "$work/1.dcm"
check "a film is reported" wait_for 30 archive_has 1
is "$(embeddings) $(db 'SELECT count(*) FROM instance WHERE embedding <> 0')" "0 0" "no embedding is kept unless it is asked for"
rescore --findings "$list"
is $? 0 "rescore with nothing kept"
check "says what to do" grep -q 'storage.keep_embeddings' "$work/rescore.out"

# ---- asked for, by a reload ----
storage_more='keep_embeddings: true'
configure
check "reload" ctl reload
send MODALITY "$work/2.dcm" "$work/3.dcm" "$work/4.dcm" "$work/5.dcm"
check "four more are reported" wait_for 60 archive_has 5
check "and that is recorded" wait_for 30 nothing_waits
is "$(embeddings) $(db 'SELECT count(*) FROM instance WHERE embedding <> 0')" "4 4" "their embeddings are kept"
is "$(find "$work/state/spool/embeddings" -type f -perm 600 | wc -l)" 4 "for nobody else to read"
is "$(find "$work/state/spool/incoming" -type f | wc -l)" 0 "and nothing is left beside them"
check "verify knows them" ctl verify
db 'SELECT instance, finding, logit, decision FROM score WHERE instance > 1 ORDER BY 1, place' >"$work/stored"

# ---- the same list: the stored scores ----
sums() { # what must not change
	db 'SELECT * FROM instance; SELECT * FROM score; SELECT * FROM report; SELECT * FROM delivery' | sha256sum
}
before=$(sums)
rescore --findings "$list" --csv "$work/scores.csv" --json
is $? 0 "rescore with the same list"
sed 's/^/# /' "$work/rescore.err"
is "$(number scored) $(number of_other_weights) $(number missing) $(number broken)" "4 0 0 0" "scores all four"
is "$(stat -c %a "$work/scores.csv")" 600 "the scores are for nobody else"
is "$(head -n 1 "$work/scores.csv")" "object,finding,logit,probability,decision" "and name nobody"
ok "$(grep -c "$(tag "$work/2.dcm" 0020,000d | sed 's/[^0-9.]//g')" "$work/scores.csv")" "not even by a UID"
paste -d ' ' "$work/stored" "$work/scores.csv" >/dev/null
tail -n +2 "$work/scores.csv" | tr , '|' | awk -F '|' 'NR == FNR { logit[$1 $2] = $3; decision[$1 $2] = $4; n++; next }
	{ d = $3 - logit[$1 $2]; if (d < 0) d = -d; if (d > worst) worst = d; m++; sum += d; number["absent"] = 1; number["undetermined"] = 2
	  number["present"] = 3; changed += number[$5] + 0 != decision[$1 $2] }
	END { printf "# %d logits, from fp16 at most %.2g, in the mean %.2g from those of the pictures\n", m, worst, sum / m
	      exit !(m == n && m > 0 && worst <= 0.01 && changed == 0) }' "$work/stored" -
ok $? "every logit within 0.01 of the stored one, every decision the same"
is "$(sums)" "$before" "nothing of the record has changed"
rescore --findings "$list"
check "the table is for people" grep -q "4 images" "$work/rescore.out"
check "and says whose model that is" grep -q "DEMONSTRATION MODEL" "$work/rescore.out"

# ---- another list: its own scores ----
cat >"$work/new.yaml" <<-END
	name: A new question
	language: eng
	findings:
	- id: pneumothorax
	  name: Pneumothorax
	  prompt: There is pneumothorax
	- id: new_finding
	  name: Something new
	  prompt: There is a foreign body
END
rescore --findings "$work/new.yaml" --csv "$work/new.csv" --uids --json
is $? 0 "rescore with a new list"
is "$(cut -d , -f 2 "$work/new.csv" | sort | uniq -c | tr -s ' \n' ' ')" " 1 finding 4 new_finding 4 pneumothorax " "a score of each finding"
is "$(grep -c "$(tag "$work/2.dcm" 0020,000d | sed 's/[^0-9.]//g')" "$work/new.csv")" 2 "and UIDs where they are asked for"
"$builddir/carzero-model" score --model "$bundle" --findings "$work/new.yaml" "$work/2.dcm" >"$work/pixels" 2>/dev/null
awk -F '[,\t]' 'NR == FNR { want[$2] = $3; next } $1 == 2 { d = $3 - want[$2]; if (d < 0) d = -d; n++; bad += d > 0.01 }
	END { exit !(n == 2 && bad == 0) }' "$work/pixels" "$work/new.csv"
ok $? "the scores that the picture has"
today=$(date +%Y-%m-%d)
rescore --findings "$list" --since "$today" --json && is "$(number scored)" 4 "those of today"
rescore --findings "$list" --until 2026-01-01 --json && is "$(number scored)" 0 "none of long ago"

# ---- what is wrong is said before anything is computed ----
sed 's/prompt: There is a foreign body/prompt: [/' "$work/new.yaml" >"$work/bad.yaml"
rescore --findings "$work/bad.yaml"
is $? 2 "a list that is no list"
check "is refused with its line" grep -q 'bad.yaml:[0-9]' "$work/rescore.err"
rescore --since 2026-01-01
is $? 64 "without a list"
rescore --findings "$list" --since yesterday
is $? 64 "a day that is none"
rescore --findings "$list" --csv "$work/no/such/folder"
is $? 2 "a file that cannot be made"

# ---- a miss is no error ----
stop_node # from here on rows are changed behind its back
set -- $(find "$work/state/spool/embeddings" -type f | sort)
cp -p "$1" "$work/kept1"
cp -p "$2" "$work/kept2"
printf x | dd of="$1" bs=1 seek=5000 conv=notrunc 2>/dev/null
truncate -s 100000 "$2"
rm "$3"
rescore --findings "$list" --json
is "$? $(number scored) $(number missing) $(number broken)" "0 1 1 2" "a changed, a torn and a missing file are left out and counted"
ctl verify >"$work/verify.txt"
is "$? $(grep -c 'spool/embeddings/' "$work/verify.txt")" "1 3" "verify names them"
db "UPDATE instance SET weights = zeroblob(32) WHERE id = (SELECT max(id) FROM instance)"
rescore --findings "$list" --json
is "$(number of_other_weights)" 1 "scores of other weights are not mixed in"
cp -p "$work/kept1" "$1"
cp -p "$work/kept2" "$2"

# ---- the start ----
db "UPDATE instance SET weights = (SELECT weights FROM instance WHERE id = 2)"
name1=$((0x$(basename "$1")))
db "UPDATE instance SET embedding = 0 WHERE embedding = $name1"
cp "$1" "$(dirname "$1")/$(basename "$1" | sed 's/.$/x/')" # no name of ours
cp "$work/kept2" "$work/state/spool/embeddings/7f/7f00000000000001" # nobody's: that object has one
start_node
is "$(db "SELECT count(*) FROM instance WHERE embedding = $name1")" 1 "a file without a row finds it by its head"
ok "$(test ! -e "$work/state/spool/embeddings/7f/7f00000000000001"; echo $?)" "one of nobody is removed"
is "$(db 'SELECT count(*) FROM instance WHERE embedding <> 0')" 3 "a row whose file is gone names none"
rm -f "$work"/state/spool/embeddings/*/*x
check "verify is content" ctl verify

# ---- rebuilt from the spool alone ----
stop_node
"$builddir/carzerod" --rebuild -c "$work/carzerod.yaml" >"$work/rebuild.out" 2>&1
is $? 0 "rebuild"
is "$(db 'SELECT count(*) FROM instance WHERE embedding <> 0')" 3 "embeddings are known to the new database"
# an image that waits, of a node that does not come: not for ever
waits=$(db 'SELECT min(id) FROM instance WHERE embedding = 0')
db "UPDATE instance SET state = 0, outcome = 0 WHERE id = $waits"
rescore --findings "$list" --json
number waited | awk '{ exit !($1 >= 4.9) }'
is "$? $(number scored)" "0 3" "live images come first, for a while"
db "UPDATE instance SET state = 2, outcome = 1 WHERE id = $waits"
start_node
check "and nothing is done twice" wait_for 20 nothing_waits
rescore --findings "$list" --json
is "$(number scored)" 3 "they are scored again"

# ---- requeue, purge ----
one=$(db 'SELECT min(id) FROM instance WHERE embedding <> 0')
old=$(db "SELECT embedding FROM instance WHERE id = $one")
check "an object is analysed again" ctl requeue "$one"
again() {
	[ "$(db "SELECT count(*) FROM instance WHERE id = $one AND state = 2 AND embedding NOT IN (0, $old)")" = 1 ] && [ "$(embeddings)" = 3 ]
}
check "its embedding is a new one, the old file is gone" wait_for 30 again
check "nothing waits" wait_for 20 nothing_waits
for u in $(db 'SELECT study_uid FROM study WHERE id IN (SELECT study FROM instance WHERE embedding <> 0)'); do
	check "a study is purged" wait_for 10 ctl purge "$u"
done
none() {
	[ "$(embeddings)" = 0 ]
}
check "with what was derived from its images" wait_for 20 none
finish
