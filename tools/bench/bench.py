#!/usr/bin/python3
"""bench.py TOP BUILD THREADS ROUNDS: asks every contender for one picture in turn, ROUNDS times.

A contender is a process that prints "ready TEXT" and then, for each line it reads, the wall and CPU seconds
of one picture.  Turns are interleaved, so that a noisy neighbour hurts all alike; ratios are medians of the
ratios inside a round, with the quartiles beside them.  The peers compute the image tower alone, ours with
fusion and head for 14 findings.
"""
import statistics
import subprocess
import sys
import time

TOWER, OURS = 2 * 17.486, 2 * (17.486 + 14 * (20.83 + 7.93) / 1000)  # 10^9 operations a picture (MODEL.md 6)
PAUSE = 0.05  # seconds: spinning threads of the one before go to sleep


class Contender:
    def __init__(self, name, operations, kind, command):
        self.name, self.operations, self.kind, self.wall, self.cpu = name, operations, kind, [], []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        self.text = first[6:].strip() if first.startswith("ready ") else None

    def picture(self, keep):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu = map(float, self.process.stdout.readline().split())
        if keep:
            self.wall.append(wall)
            self.cpu.append(cpu)


def spread(values):
    q = statistics.quantiles(values, n=4)
    return statistics.median(values), q[0], q[2]


def main():
    top, build, threads, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    work = build + "/bench"
    ours = [build + "/tools/bench/score", work + "/full", threads]
    peaks = [dict(l.split() for l in subprocess.check_output([build + "/tools/bench/peak"], text=True).splitlines())]
    contenders = [c for c in (
        Contender("openblas f32", OURS, "f32", ours + ["openblas", "f32", "14"]),
        Contender("onednn f32", OURS, "f32", ours + ["onednn", "f32", "14"]),
        Contender("avx2 f32", OURS, "f32", ours + ["avx2", "f32", "14"]),
        Contender("onednn bf16", OURS, "bf16", ours + ["onednn", "bf16", "14"]),
        Contender("best int8", OURS, "int8", ours + ["best", "int8", "14"]),
        Contender("pytorch f32", TOWER, "f32", ["/usr/bin/python3", top + "/tools/bench/peer_vit.py", threads]),
        Contender("onnxruntime f32", TOWER, "f32", ["node", top + "/tools/bench/peer_ort.js",
                                                    work + "/node_modules/onnxruntime-node", work + "/vit.onnx", threads]),
    ) if c.text is not None]
    mine = [c for c in contenders if c.operations == OURS]
    for r in range(-2, rounds):  # two rounds to warm up
        for c in contenders:
            c.picture(r >= 0)
            time.sleep(PAUSE)
    peaks.append(dict(l.split() for l in subprocess.check_output([build + "/tools/bench/peak"], text=True).splitlines()))
    peak = {k: max(float(p[k]) for p in peaks) for k in peaks[0]}

    model = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    load = open("/proc/loadavg").read().split()[0]
    print("# %s  %s  threads %s  rounds %d  load %s" % (time.strftime("%Y-%m-%d"), model, threads, rounds, load))
    print("# bound: peak of one core, registers only: " + ", ".join("%s %.0f G/s" % (k, v) for k, v in peak.items()))
    print("# 'of peak': operations / seconds / peak; wall counts all threads, cpu the seconds really used")
    print("%-16s %9s %19s %9s %9s %9s  %s" % ("", "wall ms", "quartiles", "least", "of peak", "cpu ms", "of peak"))
    for c in contenders:
        m, low, high = spread(c.wall)
        cpu = statistics.median(c.cpu)
        print("%-16s %9.1f %9.1f %9.1f %9.1f %9.2f %9.1f  %.2f   %s" % (
            c.name, 1e3 * m, 1e3 * low, 1e3 * high, 1e3 * min(c.wall),
            c.operations / m / (peak[c.kind] * int(threads)), 1e3 * cpu, c.operations / cpu / peak[c.kind], c.text))
    print("ratios (less is faster)  wall, quartiles; least wall; cpu")
    for a in mine:
        for b in contenders:
            if a is b or (b in mine and b.name != "openblas f32"):
                continue
            m, low, high = spread([x / y for x, y in zip(a.wall, b.wall)])
            cpu = statistics.median(x / y for x, y in zip(a.cpu, b.cpu))
            print("%-14s / %-16s %.2f  %.2f-%.2f  %.2f  %.2f" % (a.name, b.name, m, low, high, min(a.wall) / min(b.wall), cpu))
    for c in contenders:
        c.process.stdin.close()
        c.process.wait()


main()
