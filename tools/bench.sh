#!/bin/sh
# bench.sh TOP BUILD [ROUNDS]: sets up the contenders of ./run bench and starts tools/bench/bench.py.
#
# Everything goes to BUILD/bench: an untrained bundle of the published size (800 MB), the peers' network in
# ONNX form, ONNX Runtime from npm (no install script is run).  Remove the folder to get the space back.
set -eu
top=$1 build=$2 rounds=${3:-15}
work=$build/bench
threads=${THREADS:-$(nproc)}
# libraries choose their own code, ours and the peers'
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS OMP_NUM_THREADS

mkdir -p "$work"
if [ ! -f "$work/full/model.json" ]; then
	echo "making an untrained bundle of the published size" >&2
	"$build/tools/bench/mkfull" --seed 1 --out "$work/full"
fi
[ -f "$work/vit.onnx" ] || /usr/bin/python3 "$top/tools/bench/peer_vit.py" --export "$work/vit.onnx"
if [ ! -d "$work/node_modules/onnxruntime-node" ]; then
	echo "npm: onnxruntime-node" >&2
	npm install --prefix "$work" --ignore-scripts --no-audit --no-fund --silent onnxruntime-node >&2
fi
exec /usr/bin/python3 "$top/tools/bench/bench.py" "$top" "$build" "$threads" "$rounds"
