#!/usr/bin/python3
"""latency.py TOP BUILD FOLDER IMAGES [BUNDLE]: from the last C-STORE response to the report that the archive has accepted.

An idle node, `settle: 0`, one image at a time, its report and page to a storescp that keeps them.  Printed:
the inference alone, as the node logs it, the whole, and what the whole takes beyond it.  The end is the
moment that the node writes down for the last delivery of the study, a commit after the archive's answer.
"""
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

from receive import free_port, wait_until, answers


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    work = FOLDER + "/latency"
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work + "/archive")
    port, archive_port, log = free_port(), free_port(), work + "/node.log"
    image = work + "/image.dcm"
    subprocess.check_call([BUILD + "/tools/phantom/phantom", "--seed", "1", "--size", "2048x2048", "--bits", "16", "-o", image])
    with open(work + "/node.yaml", "w") as f:
        f.write("ae_title: CARZEROD\nlisten: [\"127.0.0.1:%d\"]\nstate_dir: %s/state\nmodel: %s\nfindings: %s/etc/findings.yaml\nsettle: 0\n"
                "storage: {min_free: 1000000, ballast: 0, unsafe: true}\naccess: [{calling_ae: \"*\", from: [127.0.0.0/8]}]\n"
                "peers: [{ae_title: ARCHIVE, host: 127.0.0.1, port: %d}]\nroutes: [{from: \"*\", to: [ARCHIVE]}]\nallow_out_of_domain: true\n"
                % (port, work, BUNDLE, TOP, archive_port))
    os.makedirs(work + "/state")
    archive = subprocess.Popen(["storescp", "-aet", "ARCHIVE", "-od", work + "/archive", str(archive_port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    node = subprocess.Popen([BUILD + "/carzerod", "-c", work + "/node.yaml"], stderr=open(log, "w"))
    whole, infer, beyond = [], [], []
    try:
        wait_until(lambda: answers(port) and "model \"" in open(log).read(), 300)
        db = sqlite3.connect("file:%s/state/carzerod.db?mode=ro" % work, uri=True)
        for i in range(IMAGES + 3):
            time.sleep(0.3)  # idle
            out = subprocess.check_output([BUILD + "/tools/bench/load", "assoc", str(port), "CARZEROD", "1", "1", image], text=True)
            last = float(re.search(r"last_ms=([\d.]+)", out).group(1))
            deadline = time.time() + 120
            while True:
                rows = db.execute("SELECT state, finished FROM delivery WHERE study = (SELECT max(id) FROM study)").fetchall()
                n = db.execute("SELECT count(DISTINCT study) FROM delivery").fetchone()[0]
                if n == i + 1 and rows and all(r[0] == 2 for r in rows):
                    break
                if time.time() > deadline:
                    sys.exit("latency.py: no report within two minutes")
                time.sleep(0.02)
            if i < 3:
                continue  # warm
            ms = float(re.findall(r"infer_ms=(\d+)", open(log).read())[-1])
            whole.append(max(r[1] for r in rows) - last)
            infer.append(ms)
            beyond.append(whole[-1] - ms)
    finally:
        node.terminate()
        archive.terminate()
        node.wait(60)
        archive.wait(60)
    model = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    print("# %s  %s  %d cores  load %s  %d images of 8 MB, %d objects to the archive each, %s" % (
        time.strftime("%Y-%m-%d"), model, os.cpu_count(), open("/proc/loadavg").read().split()[0], IMAGES, len(rows), BUNDLE))
    print("%-36s %8s %8s %8s" % ("ms", "p50", "p95", "most"))
    for name, v in (("last C-STORE response to accepted", whole), ("inference", infer), ("beyond the inference", beyond)):
        print("%-36s %8.1f %8.1f %8.1f" % (name, statistics.median(v), percentile(v, 0.95), max(v)))
    shutil.rmtree(work)


if __name__ == "__main__":
    TOP, BUILD, FOLDER, IMAGES = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    BUNDLE = sys.argv[5] if len(sys.argv) > 5 else TOP + "/model/demo"
    os.environ["CARZEROD_LIBEXECDIR"] = BUILD
    main()
