"""Load on a platform and what it costs, seen from outside: many requests at once, a process's memory, the journal's growth, a bot's ledger."""
import collections
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time

from harness import PATIENCE, wait_until


# ---- sending ----

class _Connection:
    """One request after the other, each sent when the one before is answered."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.out, self.answer = b"", b""

    def step(self):
        """Sends and reads what can be; the status once an answer is whole, else None."""
        if self.out:
            try:
                self.out = self.out[self.socket.send(self.out):]
            except BlockingIOError:
                return None
        try:
            got = self.socket.recv(65536)
        except BlockingIOError:
            return None
        if not got:
            raise ConnectionError("the platform hung up")
        self.answer += got
        head, end, rest = self.answer.partition(b"\r\n\r\n")
        if not end or len(rest) < int(re.search(rb"content-length: *(\d+)", head, re.I).group(1)):
            return None
        self.answer = b""
        return int(head.split(b" ", 2)[1])


def send(port, bodies, headers, connections, path="/function/alerts", seconds=60):
    """POSTs all bodies (bytes), as fast as they are answered. ({status: how often}, seconds that it took)."""
    head = f"POST {path} HTTP/1.1\r\nHost: balm\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    requests = collections.deque((head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body for body in bodies)
    statuses, selector, began = collections.Counter(), selectors.DefaultSelector(), time.monotonic()
    end = began + seconds * PATIENCE
    for _ in range(min(connections, len(requests))):
        c = _Connection(port)
        c.out = requests.popleft()
        selector.register(c.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, c)
    while selector.get_map():
        ready = selector.select(1)
        if time.monotonic() > end:
            raise AssertionError(f"not answered within {seconds} s: {len(selector.get_map())} requests")
        for key, _ in ready:
            c = key.data
            status = c.step()
            if status is not None:
                statuses[status] += 1
                if requests:
                    c.out = requests.popleft()
                else:
                    selector.unregister(c.socket)
                    c.socket.close()
                    continue
            selector.modify(c.socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if c.out else 0), c)
    return dict(statuses), time.monotonic() - began


# ---- what a process costs ----

def memory(pid):
    """{"rss", "peak", "private_dirty"} in bytes."""
    with open(f"/proc/{pid}/status") as f:
        status = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", f.read(), re.M))
    with open(f"/proc/{pid}/smaps_rollup") as f:
        dirty = re.search(r"^Private_Dirty:\s+(\d+) kB", f.read(), re.M).group(1)
    return {"rss": int(status["VmRSS"]) * 1024, "peak": int(status["VmHWM"]) * 1024, "private_dirty": int(dirty) * 1024}


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mib(n):
    return f"{n / (1 << 20):.1f} MiB"


# ---- metrics ----

def metrics(platform):
    """{'name{labels}': value} of /metrics."""
    found = {}
    for line in platform.request("GET", "/metrics")[2].decode().splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def buckets(series, name, label=""):
    """[(upper bound, how many so far)] of a histogram's series, e.g. label 'stage="decided"'."""
    found = []
    for key, value in series.items():
        bound = re.search(r'le="([^"]+)"', key)
        if key.startswith(name + "_bucket{") and label in key and bound:
            found.append((float(bound.group(1)), value))
    return sorted(found)


# ---- when was what on disk? ----

WATCHER = """
import os, sqlite3, sys, time
folder, every = sys.argv[1], float(sys.argv[2])
name, db, last = "", None, 0
print("ready", flush=True)
while True:
    newest = max(n for n in os.listdir(folder) if n.endswith(".db") and n[0].isdigit())
    if newest != name:
        name, db = newest, sqlite3.connect(f"file:{folder}/{newest}?mode=ro", uri=True, isolation_level=None)
    seq = db.execute("SELECT max(seq) FROM records").fetchone()[0]
    if seq and seq != last:
        print(time.time_ns(), seq, flush=True)
        last = seq
    time.sleep(every)
"""


class JournalWatch:
    """A process that looks every 2 ms up to which record the journal is on disk, as any reader from outside sees it."""

    def __init__(self, platform):
        self.seen = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([sys.executable, "-c", WATCHER, os.path.join(platform.data, "journal"), "0.002"], stdout=self.seen)
        wait_until(lambda: os.fstat(self.seen.fileno()).st_size > 0, 20, "the watcher looks")

    def stop(self):
        """[(unix ns, sequence that was on disk then)]"""
        self.process.terminate()
        self.process.wait()
        with self.seen as f:
            f.seek(0)
            return [tuple(int(n) for n in line.split()) for line in f if line.count(" ") == 1]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


# ---- the ledger bot (tests/crash/ledger.c) ----

class Ledger:
    """What the bot wrote down: its acts, in the order in which they began and ended."""

    def __init__(self, path):
        self.events = []
        with open(path) as f:
            for line in f.read().split("\n")[:-1]:  # the last one may be under way
                word, ns, intent, target = line.split()
                self.events.append((word, int(ns), intent, target))
        self.begun = [e for e in self.events if e[0] == "begin"]

    def most_at_once(self):
        open_acts, most = set(), 0
        for word, _, intent, _ in self.events:
            (open_acts.add if word == "begin" else open_acts.discard)(intent)
            most = max(most, len(open_acts))
        return most

    def overlaps(self):
        """How often an act began on a target while another one was under way there."""
        busy, n = collections.Counter(), 0
        for word, _, _, target in self.events:
            n += word == "begin" and busy[target] > 0
            busy[target] += 1 if word == "begin" else -1
        return n

    def too_soon(self, cooldown_s):
        """How often an act began on a target sooner after the end of the one before."""
        ended, n = {}, 0
        for word, ns, _, target in self.events:
            if word == "end":
                ended[target] = ns
            else:
                n += target in ended and ns - ended[target] < cooldown_s * 10**9
        return n

    def too_many(self, most, per_s):
        """How often an act began on a target with `most` or more others in the window before."""
        times, n = collections.defaultdict(list), 0
        for word, ns, _, target in self.events:
            if word != "begin":
                continue
            recent = [t for t in times[target] if ns - t < per_s * 10**9]
            n += len(recent) >= most
            times[target] = recent + [ns]
        return n

    def twice(self):
        """Intents that were acted on more than once."""
        return sum(n > 1 for n in collections.Counter(e[2] for e in self.begun).values())
