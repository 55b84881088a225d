#!/usr/bin/python3
"""curves.py BUILD THREADS ROUNDS: how our costs grow: prompts 1 to 192 (image tower, fusion and head), film 1 to 16 megapixels.

Prompt counts are asked in turn, as in bench.py; a ratio is the median of the ratios to 14 prompts inside a round,
with its quartiles.  Films: the least CPU time of some repeats, beside reading the same bytes once.
"""
import statistics
import subprocess
import sys
import time

PROMPTS = (14, 1, 64, 128, 192)


def main():
    build, threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    children = [subprocess.Popen([build + "/tools/bench/score", build + "/bench/full", threads, "best", "f32", str(n)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in PROMPTS]
    core = [c.stdout.readline()[6:].strip() for c in children][0]
    wall, cpu = [[[] for _ in PROMPTS] for _ in range(2)]
    for r in range(-1, rounds):
        for i, c in enumerate(children):
            c.stdin.write("\n")
            c.stdin.flush()
            times = map(float, c.stdout.readline().split())
            if r >= 0:
                for to, t in zip((wall, cpu), times):
                    to[i].append(t)
            time.sleep(0.02)
    print("# %s  threads %s  rounds %d  load %s  %s" % (time.strftime("%Y-%m-%d"), threads, rounds,
                                                        open("/proc/loadavg").read().split()[0], core))
    print("%8s %9s %9s   %s" % ("prompts", "wall ms", "cpu ms", "wall / 14 prompts (quartiles), cpu / 14 prompts"))
    for i in sorted(range(len(PROMPTS)), key=lambda i: PROMPTS[i]):
        w = [x / y for x, y in zip(wall[i], wall[0])]
        q = statistics.quantiles(w, n=4)
        print("%8d %9.1f %9.1f   %.2f (%.2f-%.2f)  %.2f" % (
            PROMPTS[i], 1e3 * statistics.median(wall[i]), 1e3 * statistics.median(cpu[i]), q[1], q[0], q[2],
            statistics.median(x / y for x, y in zip(cpu[i], cpu[0]))))
    print("%12s %14s %18s" % ("film", "square, cpu ms", "reading it once"))
    for line in subprocess.check_output([build + "/tools/bench/square"], text=True).splitlines():
        print("%12s %14s %18s" % tuple(line.split()))
    for c in children:
        c.stdin.close()
        c.wait()


main()
