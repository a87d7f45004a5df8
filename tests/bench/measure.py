"""What every figure shares: the table, load from wrk, interleaved pairs, programs on a core of their own, their CPU and memory."""
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time

from harness import BUILD, free_port, request, wait_until

SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
PAIRS = int(os.environ.get("BENCH_PAIRS", "7"))
# The measured server has one core, the load (and what stands behind the server) another.
SERVER_CPU, LOAD_CPU = ("0", "1") if (os.cpu_count() or 1) > 1 else ("0", "0")


class Missing(Exception):
    """What a figure needs cannot be had here; the sentence says what."""


class Table:
    """Figures as they come, and in the end as the README has them."""

    def __init__(self):
        self.rows, self.failures, self.missing = [], [], []

    def row(self, figure, value, floor, ratio, target, ok):
        self.rows.append((figure, value, floor, ratio, target, "yes" if ok else "**no**"))
        if not ok:
            self.failures.append(figure)
        print(f"  {figure}: {value} | {floor} | {ratio} | {target} | {'met' if ok else 'NOT MET'}", flush=True)

    def skip(self, figure, why):
        self.missing.append(f"{figure}: {why}")
        print(f"  {figure}: SKIPPED: {why}", flush=True)

    def markdown(self):
        lines = ["| figure | measured | floor or peer, same run | ratio | target | met |", "|---|---|---|---|---|---|"]
        return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in self.rows])


def bench_program(name):
    return os.path.join(BUILD, "tests", "bench", name)


def fdatasync_p50_ms(folder, n=200):
    """What one 4 KiB page costs to be on this disk."""
    path = os.path.join(folder, "fdatasync.probe")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    times = []
    for i in range(n):
        os.pwrite(fd, b"x" * 4096, i * 4096)
        began = time.perf_counter()
        os.fdatasync(fd)
        times.append(time.perf_counter() - began)
    os.close(fd)
    os.unlink(path)
    return statistics.median(times) * 1000


# ---- load ----

LUA_POST_1K = """
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
wrk.headers["Content-Type"] = "application/octet-stream"
"""


class Load:
    """What wrk saw: requests a second, p99 in ms, answers that were no success."""

    def __init__(self, text):
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
        if not rate or not p99:
            raise RuntimeError("wrk: " + text)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        cut = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        self.rate = float(rate.group(1))
        self.p99_ms = float(p99.group(1)) * {"us": 1e-3, "ms": 1, "s": 1000}[p99.group(2)]
        self.bad = (int(bad.group(1)) if bad else 0) + (sum(int(n) for n in cut.groups()) if cut else 0)


def wrk(url, script, connections, seconds=SECONDS):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(script)
        f.flush()
        done = subprocess.run(["taskset", "-c", LOAD_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", f.name, url],
                              capture_output=True, text=True, timeout=seconds + 60)
    return Load(done.stdout + done.stderr)


def median(values):
    return statistics.median(values)


def in_pairs(*measures):
    """Each of `measures` PAIRS times, interleaved: a list of results for each."""
    results = [[] for _ in measures]
    for _ in range(PAIRS):
        for measure, got in zip(measures, results):
            got.append(measure())
    return results


def ratio(ours, peer):
    """Median of the pairs' own ratios: what disturbs the machine for seconds disturbs both halves of a pair."""
    return median(a / b for a, b in zip(ours, peer))


# ---- programs ----

class Program:
    """A program that prints its port, on a core."""

    def __init__(self, *argv, cpu=SERVER_CPU, env=None):
        self.process = subprocess.Popen(["taskset", "-c", cpu, *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        env=dict(os.environ, **(env or {})))
        self.pid = self.process.pid
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


class Function:
    """A function's own executable on a port of its own, with all that the runtime does."""

    def __init__(self, path, folder, cpu=SERVER_CPU, env=None):
        self.port = free_port()
        env = {"PATH": os.environ["PATH"], "port": str(self.port), "metrics_port": str(free_port()), "TMPDIR": folder,
               "healthcheck_interval": "0s", "log_level": "error", **(env or {})}
        self.process = subprocess.Popen(["taskset", "-c", cpu, path], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid

        def is_up():
            try:
                return request(self.port, "GET", "/_/health")[0] == 200
            except OSError:
                return False
        wait_until(is_up, 10, f"{path} serves")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def go_program(folder, source):
    """Built by Go's own tool; Missing where there is none."""
    if not shutil.which("go"):
        raise Missing("no go")
    program = os.path.join(folder, "go-peer")
    if not os.path.exists(program):
        env = dict(os.environ, CGO_ENABLED="0", GOFLAGS="", GO111MODULE="off", GOCACHE=os.path.join(folder, "go-cache"))
        done = subprocess.run(["go", "build", "-o", program, source], capture_output=True, text=True, env=env, timeout=300)
        if done.returncode != 0:
            raise Missing("go build: " + done.stderr.strip()[-200:])
    return program


# ---- what a process uses ----

def cpu_seconds(pid):
    """CPU of all its threads."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid, what="Private_Dirty"):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(what + r":\s+(\d+)", f.read()).group(1))


def pin(pid, cpu):
    """All threads of a process that runs already; later ones inherit it."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {int(cpu)})
