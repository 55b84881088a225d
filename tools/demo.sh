#!/bin/sh
# demo.sh TOP BUILD: the node and an archive on loopback, four studies of phantoms, the reports as a person reads them.
# Called by ./run demo, which has built everything.
set -eu
top=$1 build=$2
work=$build/demo
started=$(date +%s)
node= archive=
export CARZEROD_LIBEXECDIR="$build"

end() {
	[ -z "$node" ] || kill "$node" 2>/dev/null || true
	[ -z "$archive" ] || kill "$archive" 2>/dev/null || true
	wait 2>/dev/null || true
}
trap end EXIT INT TERM

fail() {
	echo "demo: $*" >&2
	[ ! -f "$work/node.log" ] || tail -n 20 "$work/node.log" >&2
	exit 1
}
wait_for() { # SECONDS WHAT COMMAND...
	tries=$(($1 * 20)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "waited in vain for $what"
		sleep 0.05
	done
}
listens() {
	grep -qi ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6
}
free_port() { # sets $port
	port=$((${port:-21100} + 1))
	while listens $port; do port=$((port + 1)); done
}
arrived() { # N: so many reports and pages
	[ "$(find "$work/archive" -type f | wc -l)" -ge "$1" ]
}
film() { # NAME STUDY OPTIONS...
	name=$1 uid=$2
	shift 2
	"$build/tools/phantom/phantom" --study-uid "$uid" -o "$work/$name.dcm" "$@"
}

rm -rf "$work"
mkdir -p "$work/archive"
free_port; node_port=$port
free_port; archive_port=$port

root=2.25.32980073569858662929564197851150617
film normal ${root}1 --seed 61
film normal-lateral ${root}1 --seed 61 --view LL
film effusion ${root}2 --seed 62 --finding effusion=left,moderate
film pneumothorax ${root}3 --seed 63 --finding pneumothorax=right,large
film untagged ${root}4 --seed 64 --no-tag
model=$top/model/demo findings=$top/model/demo/findings.yaml
if [ ! -f "$model/weights.safetensors" ]; then
	model=$work/model findings=$top/etc/findings.yaml
	"$build/tools/bundle/mkbundle" --seed 1 --out "$model" >/dev/null
fi

cat >"$work/carzerod.yaml" <<END
ae_title: CARZEROD
listen: ["127.0.0.1:$node_port"]
state_dir: $work/state
model: $model
findings: $findings
settle: 0.2
access: [{calling_ae: "*", from: [127.0.0.0/8]}]
peers: [{ae_title: ARCHIVE, host: 127.0.0.1, port: $archive_port}]
routes: [{from: "*", to: [ARCHIVE]}]
END

TCP_NODELAY=1 storescp -aet ARCHIVE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
archive=$!
"$build/carzerod" -c "$work/carzerod.yaml" 2>"$work/node.log" &
node=$!
wait_for 60 "the node" grep -q 'ready: receiving' "$work/node.log"
wait_for 60 "the archive" listens "$archive_port"

echo "sending four studies of phantoms to CARZEROD on port $node_port: a normal chest (with a lateral film), a left effusion,"
echo "a right pneumothorax, and one that is not tagged as a phantom"
storescu -aet MODALITY -aec CARZEROD 127.0.0.1 "$node_port" "$work"/normal.dcm "$work"/normal-lateral.dcm "$work"/effusion.dcm \
	"$work"/pneumothorax.dcm "$work"/untagged.dcm || fail "the node refused the studies"
wait_for 60 "three reports and their pages" arrived 6
wait_for 10 "the record" sh -c "'$build/carzeroctl' -c '$work/carzerod.yaml' queue | grep -q 'the queue is empty'"

for f in "$work"/archive/*; do
	uid=$(dcmdump -q +L +P 0020,000d "$f" 2>/dev/null | sed -n 's/.*\[\([0-9.]*\)\].*/\1/p' | head -n 1)
	case $uid in
	${root}1) name=normal ;;
	${root}2) name=effusion ;;
	*) name=pneumothorax ;;
	esac
	if [ "$(dcmdump -q +P 0008,0060 "$f" 2>/dev/null | sed 's|.*\[\([A-Z]*\)\].*|\1|')" = OT ]; then # a Secondary Capture
		mv "$f" "$work/$name-page.dcm"
		dcm2pnm +on -il "$work/$name-page.dcm" "$work/$name-page.png" 2>/dev/null
		continue
	fi
	mv "$f" "$work/$name-report.dcm"
	dsr2html +Xf /dev/null "$work/$name-report.dcm" "$work/$name.html" 2>/dev/null || dsr2html "$work/$name-report.dcm" "$work/$name.html" 2>/dev/null
	dsrdump "$work/$name-report.dcm" >"$work/$name.txt" 2>/dev/null
done
for i in 1 2 3 4; do
	echo
	"$build/carzeroctl" -c "$work/carzerod.yaml" show ${root}$i | sed "/^reports (/,\$d"
done
if [ -f "$top/model/demo/weights.safetensors" ]; then
	mkdir "$work/maps"
	"$build/carzero-model" score --model "$model" --prompt 'There is left pleural effusion' --prompt 'There is right pneumothorax' \
		--map "$work/maps" "$work/effusion.dcm" "$work/pneumothorax.dcm" >/dev/null 2>&1
	cat <<-END

	The numbers above come from the DEMONSTRATION MODEL: it was trained on drawn phantoms, is right about those and knows
	nothing of patients (model/demo/CARD.md).  A site imports the published weights with carzero-model(1).
	Every report says: AI result, not verified.

	  where it looked      $work/maps/*.png (attention, not the outline of a lesion)
	END
else
	cat <<-END

	The numbers above come from an UNTRAINED model of random weights: they mean nothing.  A site imports the
	published weights with carzero-model(1).  Every report says: AI result, not verified.

	END
fi
cat <<END
  reports as DICOM SR  $work/*-report.dcm
  pages to look at     $work/normal-page.png, effusion-page.png, pneumothorax-page.png
                       (Secondary Captures, as the archive got them: *-page.dcm)
  reports for people   $work/normal.html, effusion.html, pneumothorax.html (and .txt)
  database             $work/state/carzerod.db
  node's log           $work/node.log
  done in $(($(date +%s) - started)) s
END
