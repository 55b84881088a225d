// Peer of ./run bench: the file of peer_vit.py --export in ONNX Runtime.
//   node peer_ort.js MODULE FILE THREADS    "ready TEXT", then for each line of stdin one picture: wall and CPU seconds
// MODULE: the folder of onnxruntime-node.
const [module_, file, threads] = process.argv.slice(2);
const ort = require(module_);

(async () => {
  const session = await ort.InferenceSession.create(file,
    { intraOpNumThreads: +threads, interOpNumThreads: 1, graphOptimizationLevel: 'all' });
  const x = new ort.Tensor('float32', Float32Array.from({ length: 3 * 224 * 224 }, (_, i) => Math.sin(i)),
    [1, 3, 224, 224]);
  await session.run({ x });
  console.log(`ready ONNX Runtime ${require(module_ + '/package.json').version}`);
  for await (const _ of require('readline').createInterface({ input: process.stdin })) {
    const wall = process.hrtime.bigint(), cpu = process.cpuUsage();
    await session.run({ x });
    const used = process.cpuUsage(cpu);
    console.log(`${(Number(process.hrtime.bigint() - wall) / 1e9).toFixed(6)} ${((used.user + used.system) / 1e6).toFixed(6)}`);
  }
})();
