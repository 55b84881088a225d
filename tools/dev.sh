#!/bin/sh
# dev.sh TOP BUILD: a node in the foreground on 127.0.0.1:11112, state in BUILD/dev, reports kept there.
# Called by ./run dev.  Send with: storescu -aec CARZEROD 127.0.0.1 11112 FILE...
set -eu
top=$1 build=$2
work=$build/dev
mkdir -p "$work"
[ -d "$work/model" ] || "$build/tools/bundle/mkbundle" --seed 1 --out "$work/model"
cat >"$work/carzerod.yaml" <<END
ae_title: CARZEROD
listen: ["127.0.0.1:11112"]
state_dir: $work/state
storage: {unsafe: true} # a container's file system will do here
model: $work/model
findings: $top/etc/findings.yaml
access: [{calling_ae: "*", from: [127.0.0.0/8]}]
peers: [{ae_title: ARCHIVE, host: 127.0.0.1, port: 11113}]
routes: [{from: "*", to: [ARCHIVE]}]
log_level: debug
END
echo "configuration: $work/carzerod.yaml; an archive for it: storescp -aet ARCHIVE -od /tmp 11113" >&2
CARZEROD_LIBEXECDIR=$build exec "$build/carzerod" -c "$work/carzerod.yaml"
