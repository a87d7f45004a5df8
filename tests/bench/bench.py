#!/usr/bin/env python3
"""`make bench`: a table of figures beside their floors, all from one run on this machine.

Each ratio is the median of interleaved pairs (ours, floor, ours, floor …). The data folder must be on a real disk: tmpfs is refused, because there
fdatasync costs nothing and every figure about durability would be a lie. A peer that is missing is named. BENCH_SECONDS (default 3), BENCH_PAIRS (5).
"""
import json
import os
import platform as host
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import BUILD, Platform, alert, stack_file, wait_until  # noqa: E402

SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
SERVER_CPU, LOAD_CPU = ("0", "1") if (os.cpu_count() or 1) > 1 else ("0", "0")
rows, failures = [], []


def row(figure, value, floor, ratio, target, ok):
    rows.append((figure, value, floor, ratio, target, "yes" if ok else "NO"))
    if not ok:
        failures.append(figure)
    print(f"  {figure}: {value} | {floor} | {ratio} | {target} | {'yes' if ok else 'NO'}", flush=True)


def filesystem(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True).stdout.strip()


def fdatasync_p50_ms(folder, n=200):
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

LUA_ECHO = """
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
wrk.headers["Content-Type"] = "application/octet-stream"
"""

# Random labels, so random fingerprints; startsAt is the script's own start: one new episode a request.
LUA_ALERT = """
math.randomseed(os.time() * 1000 + math.floor(os.clock() * 1e6))
local head = '{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"balm","groupLabels":{},"commonLabels":{},' ..
  '"commonAnnotations":{},"externalURL":"http://127.0.0.1:9093","alerts":['
local function one()
  return string.format('{"status":"firing","labels":{"alertname":"Bench","namespace":"shop","severity":"warning","pod":"checkout-%08x-%08x"},' ..
    '"annotations":{"summary":"Pod shop/checkout is restarting 1.2 times every 5 minutes"},"startsAt":"STARTS","endsAt":"0001-01-01T00:00:00Z",' ..
    '"generatorURL":"http://prometheus.example/graph?g0.expr=up"}', math.random(0, 2^31 - 1), math.random(0, 2^31 - 1))
end
request = function()
  local alerts = {}
  for i = 1, GROUP do alerts[i] = one() end
  return wrk.format("POST", "/function/alerts", HEADERS, head .. table.concat(alerts, ",") .. "]}")
end
HEADERS = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer TOKEN"}
"""


def wrk(url, script, connections, seconds=SECONDS):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(script)
        f.flush()
        done = subprocess.run(["taskset", "-c", LOAD_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", f.name, url],
                              capture_output=True, text=True, timeout=seconds + 60)
    text = done.stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if not rate:
        raise RuntimeError("wrk: " + text + done.stderr)
    unit = {"us": 1e-3, "ms": 1, "s": 1000}
    return float(rate.group(1)), float(p99.group(1)) * unit[p99.group(2)] if p99 else 0.0, int(bad.group(1)) if bad else 0


class Server:
    """A program that prints its port, pinned to the server's core."""

    def __init__(self, *argv, env=None):
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CPU, *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        env=dict(os.environ, **(env or {})))
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


class Function:
    """A function's own executable on a port of its own."""

    def __init__(self, name, folder):
        from harness import free_port, request
        self.port = free_port()
        env = {"PATH": os.environ["PATH"], "port": str(self.port), "metrics_port": str(free_port()), "TMPDIR": folder, "healthcheck_interval": "0s",
               "log_level": "error"}
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CPU, os.path.join(BUILD, "functions", name)], env=env, stderr=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL)

        def up():
            try:
                return request(self.port, "GET", "/_/health")[0] == 200
            except OSError:
                return False
        wait_until(up, 10, f"function {name} serves")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


# ---- figures ----

def bench_echo(folder):
    ours, floor, p99_ours, p99_floor = [], [], [], []
    function, bare = Function("echo", folder), Server(os.path.join(BUILD, "tests", "bench", "h2o_bare"))
    try:
        for _ in range(PAIRS):
            r, p, _ = wrk(f"http://127.0.0.1:{function.port}/", LUA_ECHO, 64)
            ours.append(r), p99_ours.append(p)
            r, p, _ = wrk(f"http://127.0.0.1:{bare.port}/", LUA_ECHO, 64)
            floor.append(r), p99_floor.append(p)
    finally:
        function.stop()
        bare.stop()
    ratio = statistics.median(a / b for a, b in zip(ours, floor))
    row("echo behind the full runtime, 1 KB POST, 64 connections, one core", f"{statistics.median(ours):,.0f}/s, p99 {statistics.median(p99_ours):.2f} ms",
        f"bare h2o-evloop {statistics.median(floor):,.0f}/s, p99 {statistics.median(p99_floor):.2f} ms", f"{ratio:.2f}", "≥ 0.85", ratio >= 0.85)


def bench_alerts(folder):
    p = Platform(os.path.join(folder, "alerts"), stack=stack_file("echo"))
    p.arguments += ["--log-level", "error"]
    os.makedirs(p.folder, exist_ok=True)
    p.arguments = ["--log-level", "info"]
    p.start()
    os.sched_setaffinity(p.process.pid, {int(SERVER_CPU)})
    singles, groups = [], []
    script = LUA_ALERT.replace("TOKEN", p.secret("webhook-token")).replace("STARTS", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    try:
        for _ in range(PAIRS):
            cpu = cpu_seconds(p.process.pid)
            rate, p99, bad = wrk(f"http://127.0.0.1:{p.port}", script.replace("GROUP", "1"), 64)
            cpu = cpu_seconds(p.process.pid) - cpu
            singles.append((rate, p99, bad, cpu / (rate * SECONDS) * 1e6))
        for _ in range(2):
            rate, p99, bad = wrk(f"http://127.0.0.1:{p.port}", script.replace("GROUP", "20"), 32)
            groups.append((rate * 20, p99, bad))
    finally:
        p.stop()
    rate = statistics.median(s[0] for s in singles)
    bad = sum(s[2] for s in singles + groups)
    row("alerts accepted durably one by one, random fingerprints, 64 connections",
        f"{rate:,.0f}/s, p99 {statistics.median(s[1] for s in singles):.1f} ms, {statistics.median(s[3] for s in singles):.0f} µs CPU each, {bad} refused",
        "—", "—", "≥ 8,000/s", rate >= 8000 and bad == 0)
    row("alerts accepted durably in groups of 20, 32 connections", f"{statistics.median(g[0] for g in groups):,.0f}/s", "—", "—", "—", True)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


CHAIN_RUNBOOK = """
name: bench
match: ['alertname="Chain"']
target: bench/${labels.n}
mode: act
steps:
  - bot: disk-clean
    with: {root: "ROOT", dry_run: true}
    verify: check
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}, max_in_flight: 64}
"""


def unix_ns(text):
    import calendar
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(text[20:29])


def bench_chain(folder, sync_ms, n=200):
    root = os.path.join(folder, "clean-me")
    os.makedirs(root)
    stack = stack_file("disk-clean") + f"    environment:\n      disk_clean_roots: {root}\n"
    p = Platform(os.path.join(folder, "chain"), runbooks={"r.yaml": CHAIN_RUNBOOK.replace("ROOT", root)}, stack=stack)
    os.makedirs(p.folder, exist_ok=True)
    p.start()
    sent = {}
    try:
        for i in range(n + 5):
            sent[str(i)] = time.time_ns()
            p.post_alerts(alert("Chain", n=str(i)))
            time.sleep(0.01)
        wait_until(lambda: len(p.records("outcome")) >= n + 5, 60, "all acts done")
        target_of = {r["intent"]: r["target"].split("/")[1] for r in p.records("intent")}
        times = sorted((unix_ns(r["stages"]["entered"]) - sent[target_of[r["intent"]]]) / 1e6
                       for r in p.records("outcome") if int(target_of[r["intent"]]) >= 5)
    finally:
        p.stop()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    target = 2 * sync_ms + 2
    row("webhook byte → bot's handler entered, idle, warm", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", f"fdatasync p50 {sync_ms:.2f} ms", "—",
        f"p50 < 2 × fdatasync + 2 ms = {target:.2f} ms", p50 < target)


def bench_cold_start(folder):
    program = os.path.join(BUILD, "tests", "bench", "cold_start")
    if not os.path.exists(program):
        row("cold start of a bot to its first byte", "no tests/bench/cold_start", "—", "—", "< 5 ms", False)
        return
    done = subprocess.run([program, os.path.join(BUILD, "functions", "echo")], capture_output=True, text=True, timeout=120,
                          env=dict(os.environ, TMPDIR=folder))
    found = re.search(r"p50[ =:]*([\d.]+) ?ms", done.stdout)
    p50 = float(found.group(1)) if found else float("nan")
    row("cold start of a bot to its first byte", f"p50 {p50:.2f} ms", "—", "—", "< 5 ms", p50 < 5)


def bench_idle(folder):
    from harness import request
    subprocess.run(["sync"])  # a program that was linked a moment ago counts its unwritten file pages as private and dirty
    function = Function("echo", folder)
    try:
        request(function.port, "POST", "/", b"x" * 1024)
        time.sleep(1)
        with open(f"/proc/{function.process.pid}/smaps_rollup") as f:
            kib = int(re.search(r"Private_Dirty:\s+(\d+)", f.read()).group(1))
    finally:
        function.stop()
    row("idle bot after one invocation, Private_Dirty", f"{kib / 1024:.2f} MB", "—", "—", "< 1.5 MB", kib < 1.5 * 1024)


def main():
    base = os.environ.get("BENCH_DIR") or os.path.join(BUILD, "bench-data")
    os.makedirs(base, exist_ok=True)
    kind = filesystem(base)
    if kind in ("tmpfs", "ramfs"):
        print(f"refused: {base} is on {kind}, where fdatasync costs nothing; set BENCH_DIR to a folder on a disk")
        return 1
    for tool in ("wrk", "taskset"):
        if not shutil.which(tool):
            print(f"missing: {tool}")
            return 1
    folder = tempfile.mkdtemp(dir=base)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*:\s*(.*)", f.read())
    try:
        sync_ms = fdatasync_p50_ms(folder)
        print(f"machine: {os.cpu_count()} × {model.group(1) if model else host.machine()}, Linux {host.release()}, {kind}; fdatasync p50 {sync_ms:.2f} ms; "
              f"commit {commit}; {PAIRS} pairs of {SECONDS} s", flush=True)
        bench_echo(folder)
        bench_alerts(folder)
        bench_chain(folder, sync_ms)
        bench_cold_start(folder)
        bench_idle(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n| figure | measured | floor or peer | ratio | target | met |\n|---|---|---|---|---|---|")
    for r in rows:
        print("| " + " | ".join(r) + " |")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
