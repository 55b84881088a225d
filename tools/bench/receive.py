#!/usr/bin/python3
"""receive.py TOP BUILD FOLDER ROUNDS [bare]: objects a second, of this node and of others, on one disk and one machine.

The node and the yardsticks (sink: writes, fsyncs, renames, syncs the folder, answers; the same with SHA-256)
keep what they acknowledge; storescp syncs nothing, Orthanc is as Debian ships it.  All listen on loopback;
every round asks every contender for the same work in an order of chance, so that a noisy neighbour hurts all
alike.  Ratios are medians of the ratios inside a round.  FOLDER is where all of them write.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

SIZES = {"dx": ["--modality", "DX", "--size", "2048x2048", "--bits", "16"],
         "cr": ["--modality", "CR", "--size", "1024x1024", "--bits", "16"],
         "small": ["--modality", "CR", "--size", "64x64", "--bits", "8"]}
# a class of as many letters that the node keeps and sets aside
OTHER_CLASS = {"DX": (b"1.2.840.10008.5.1.4.1.1.1.1", b"1.2.840.10008.5.1.4.1.1.2.1"),
               "CR": (b"1.2.840.10008.5.1.4.1.1.1", b"1.2.840.10008.5.1.4.1.1.2")}
ASIDE = "carzerod, not analysing"
# title, what the sender does, how many at a time, size, objects
WORK = [("8 MB DX, 1 association", "store", 1, "dx", 24), ("8 MB DX, 4 associations", "store", 4, "dx", 40),
        ("2 MB CR, 4 associations", "store", 4, "cr", 80), ("associations with one small object", "assoc", 1, "small", 300)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(what, seconds=60):
    end = time.time() + seconds
    while not what():
        if time.time() > end:
            sys.exit("receive.py: waited for too long")
        time.sleep(0.05)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Server:
    durable = True

    def __init__(self, name, folder, kind="", env=None):
        self.name, self.folder, self.kind, self.port = name, folder, kind, free_port()
        os.makedirs(folder)
        self.log = open(folder + ".log", "w")
        self.process = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log, env=env)
        wait_until(lambda: answers(self.port))

    def idle(self):
        return True

    def forget(self):
        for f in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, f))

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class Sink(Server):
    def command(self):
        return [BUILD + "/tools/bench/sink", str(self.port), self.folder] + [self.kind][:len(self.kind)]


class Storescp(Server):
    durable = False

    def command(self):
        return ["storescp", "-od", self.folder, str(self.port)]


class Orthanc(Server):
    """Debian's file with other ports and folders, without plugins."""

    def command(self):
        text = open("/etc/orthanc/orthanc.json").read()
        for key, value in (("StorageDirectory", self.folder), ("IndexDirectory", self.folder), ("HttpPort", free_port()),
                           ("DicomPort", self.port)):
            text = re.sub(r'"%s" : [^,]*,' % key, '"%s" : %s,' % (key, json.dumps(value)), text)
        text = re.sub(r'"Plugins" : \[[^]]*\]', '"Plugins" : []', text)
        with open(self.folder + ".json", "w") as f:
            f.write(text)
        return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", self.folder + ".json"]

    def forget(self):
        pass  # its database would miss them


class Node(Server):
    """As installed, with the demonstration model: what it is given is analysed and reported beside."""

    def command(self):
        self.config = self.folder + ".yaml"
        with open(self.config, "w") as f:
            f.write("ae_title: CARZEROD\nlisten: [\"127.0.0.1:%d\"]\nstate_dir: %s\nmodel: %s/model/demo\nfindings: %s/etc/findings.yaml\n"
                    "storage: {min_free: 1000000, ballast: 0, unsafe: true} # the check of the kind of file system is not wanted here\n"
                    "access: [{calling_ae: \"*\", from: [127.0.0.0/8]}]\n" % (self.port, self.folder, TOP, TOP))
        return [BUILD + "/carzerod", "-c", self.config]

    def status(self, name):
        out = subprocess.run([BUILD + "/carzeroctl", "-c", self.config, "--json", "status"], capture_output=True, text=True).stdout
        found = re.search(r'"%s": (\d+)' % name, out)
        return int(found.group(1)) if found else -1

    def idle(self):
        return all(self.status(name) == 0 for name in ("waiting", "in_work", "collecting", "composing"))

    def forget(self):
        pass


def make_files(work):
    """The same bytes twice: under their class, and under one that the node sets aside unanalysed."""
    files = {}
    for name, options in SIZES.items():
        path = "%s/%s.dcm" % (work, name)
        subprocess.check_call([BUILD + "/tools/phantom/phantom", "--seed", "1"] + options + ["-o", path])
        data = open(path, "rb").read()
        ours, other = OTHER_CLASS[options[1]]
        with open("%s/%s-aside.dcm" % (work, name), "wb") as f:
            f.write(data.replace(ours, other))
        files[name] = path
    return files


def load(server, what, at_a_time, n, path):
    out = subprocess.run([BUILD + "/tools/bench/load", what, str(server.port), "CARZEROD", str(at_a_time), str(n), path],
                         capture_output=True, text=True).stdout
    found = dict(w.split("=") for w in out.split())
    if int(found.get("failed", 1)) > 0:
        print("# %s: %s %s" % (server.name, what, out.strip() or "nothing"), file=sys.stderr)
    return float(found["per_second"])


def stock_echo_ms(server, n=100):
    """DCMTK's echoscu, one association: what a further C-ECHO costs."""
    took = []
    for k in (1, n + 1):
        start = time.monotonic()
        subprocess.check_call(["echoscu", "-aec", "CARZEROD", "--repeat", str(k), "127.0.0.1", str(server.port)])
        took.append(time.monotonic() - start)
    return (took[1] - took[0]) / n * 1e3


def spread(values):
    q = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return "%9.1f %9.1f-%-9.1f" % (statistics.median(values), q[0], q[2])


def ratio(a, b):
    r = [x / y for x, y in zip(a, b)]
    q = statistics.quantiles(r, n=4) if len(r) > 1 else r * 3
    return "%6.2f (%.2f-%.2f)" % (statistics.median(r), q[0], q[2])


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    work = FOLDER + "/receive"
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    files = make_files(work)
    node = Node("carzerod", work + "/node")
    servers = [node, Sink("sink", work + "/sink"), Sink("sink with SHA-256", work + "/hash", "hash")]
    if not BARE:
        servers += [Storescp("storescp", work + "/storescp"), Orthanc("orthanc", work + "/orthanc")]
    rates = {}
    echoes = {s.name: [] for s in servers}
    try:
        wait_until(lambda: node.status("waiting") == 0)
        for r in range(ROUNDS):
            for title, what, at_a_time, size, n in WORK:
                turns = [(s, s.name, files[size]) for s in servers]
                turns.append((node, ASIDE, files[size].replace(".dcm", "-aside.dcm")))
                random.shuffle(turns)
                for server, name, path in turns:
                    if size != "dx" and name == node.name:
                        continue  # of many small images that is the rate of the decoder
                    os.sync()
                    slow = not server.durable or server.name == "orthanc"
                    rates.setdefault((title, name), []).append(load(server, what, at_a_time, n // 2 if slow else n, path))
                    server.forget()
                    wait_until(server.idle, 600)
            for s in servers:
                if s.name != "sink with SHA-256":
                    echoes[s.name].append(stock_echo_ms(s, 10 if s.name in ("storescp", "orthanc") else 100))
    finally:
        for s in servers:
            s.stop()
    report(servers, rates, echoes)
    shutil.rmtree(work)


def report(servers, rates, echoes):
    model = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
    print("# %s  %s  %d cores  rounds %d  load %s  %s" % (time.strftime("%Y-%m-%d"), model, os.cpu_count(), ROUNDS,
                                                         open("/proc/loadavg").read().split()[0], FOLDER))
    for title, what, *_ in WORK:
        print("%s, a second: median, quartiles; carzerod / it" % title)
        for name in ["carzerod", ASIDE] + [s.name for s in servers[1:]]:
            if (title, name) not in rates:
                continue
            line = "  %-26s %s" % (name, spread(rates[title, name]))
            for ours in ("carzerod", ASIDE):
                if name not in ("carzerod", ASIDE) and (title, ours) in rates:
                    line += "  %s" % ratio(rates[title, ours], rates[title, name])
            print(line)
    print("C-ECHO of echoscu, ms")
    for name, values in echoes.items():
        if values:
            print("  %-26s %9.2f" % (name, statistics.median(values)))


if __name__ == "__main__":
    TOP, BUILD, FOLDER, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    BARE = len(sys.argv) > 5 # only ours and the yardsticks
    os.environ["CARZEROD_LIBEXECDIR"] = BUILD
    main()
