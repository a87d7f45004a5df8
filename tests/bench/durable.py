"""Figures of the journal: alerts accepted durably with 1 000 000 records already there, and the start with them."""
import glob
import os
import re
import shutil
import sqlite3
import subprocess
import time

from harness import BALM, Platform, request, stack_file, wait_until
from measure import PAIRS, SECONDS, SERVER_CPU, bench_program, cpu_seconds, median, pin, ratio, wrk

PRELOADED = 1_000_000

# Random labels, so random fingerprints; startsAt is the script's own start: one new episode an alert.
LUA_ALERTS = """
math.randomseed(SEED)
local head = '{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"balm","groupLabels":{},"commonLabels":{},' ..
  '"commonAnnotations":{},"externalURL":"http://127.0.0.1:9093","alerts":['
local function one()
  return string.format('{"status":"firing","labels":{"alertname":"Bench","namespace":"shop","severity":"warning","pod":"checkout-%08x-%08x"},' ..
    '"annotations":{"summary":"Pod shop/checkout is restarting 1.2 times every 5 minutes"},"startsAt":"STARTS","endsAt":"0001-01-01T00:00:00Z",' ..
    '"generatorURL":"http://prometheus.example/graph?g0.expr=up"}', math.random(0, 2^31 - 1), math.random(0, 2^31 - 1))
end
local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer TOKEN"}
request = function()
  local alerts = {}
  for i = 1, GROUP do alerts[i] = one() end
  return wrk.format("POST", "/function/alerts", headers, head .. table.concat(alerts, ",") .. "]}")
end
"""


def metrics(p):
    """{name: value} of the metrics without labels."""
    text = request(p.port, "GET", "/metrics", headers=p.basic())[2].decode()
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(\w+) ([-+.\deE]+)$", text, re.M)}


def script(p, group):
    starts = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = LUA_ALERTS.replace("TOKEN", p.secret("webhook-token")).replace("STARTS", starts).replace("GROUP", str(group))
    return text.replace("SEED", str(time.time_ns() % 2**52))


def row_bytes(p, after):
    """Mean length of the records behind a sequence, from the file itself."""
    newest = max(glob.glob(os.path.join(p.data, "journal", "[0-9]*.db")))
    db = sqlite3.connect(f"file:{newest}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT avg(length(bytes)) FROM records WHERE seq > ?", (after,)).fetchone()[0] or 0)
    finally:
        db.close()


class Floor:
    """A bare SQLite that appends rows of that length in groups of that size, as fast as it can, on the server's core."""

    def __init__(self, folder, rows, length, group):
        inside = os.path.join(folder, "floor")
        os.makedirs(inside, exist_ok=True)
        done = subprocess.run(["taskset", "-c", SERVER_CPU, bench_program("sqlite_floor"), inside, str(rows), str(length), str(group)],
                              capture_output=True, text=True, check=True)
        self.rate = float(re.search(r": (\d+) records/s", done.stdout).group(1))
        shutil.rmtree(inside)


class Accepted:
    """One run of wrk against the intake: what the client saw, and what it cost the platform."""

    def __init__(self, p, group, connections, seconds):
        before, cpu = metrics(p), cpu_seconds(p.process.pid)
        load = wrk(f"http://127.0.0.1:{p.port}", script(p, group), connections, seconds)
        cpu, after = cpu_seconds(p.process.pid) - cpu, metrics(p)
        self.bad, self.p99_ms, self.alerts_rate = load.bad, load.p99_ms, load.rate * group
        self.records = after["balm_journal_records"] - before["balm_journal_records"]
        self.group = max(1, round(self.records / (after["balm_journal_commits_total"] - before["balm_journal_commits_total"])))
        self.cpu_us = cpu / self.records * 1e6
        self.length = row_bytes(p, before["balm_journal_records"])


def accept(table, folder, p, figure, group, connections, seconds, target):
    ours, floors = [], []
    pin(p.process.pid, SERVER_CPU)
    for _ in range(PAIRS):
        ours.append(Accepted(p, group, connections, seconds))
        floors.append(Floor(folder, max(20_000, int(ours[-1].alerts_rate * seconds)), ours[-1].length, ours[-1].group))
    rate, floor = [a.alerts_rate for a in ours], [f.rate for f in floors]
    bad, cpu, times = sum(a.bad for a in ours), median([a.cpu_us for a in ours]), ratio(rate, floor)
    value = f"{median(rate):,.0f}/s, p99 {median([a.p99_ms for a in ours]):.1f} ms, {cpu:.0f} µs of CPU each" + (f", {bad} refused" if bad else "")
    table.row(figure, value, f"bare SQLite, rows of {ours[-1].length} bytes in groups of {median([a.group for a in ours]):.0f}: {median(floor):,.0f}/s",
              f"{times:.2f}", f"≥ {target:,}/s, ≥ 0.6, ≤ 25 µs", median(rate) >= target and times >= 0.6 and cpu <= 25 and bad == 0)


def preloaded(folder, name):
    """A platform with that many open episodes, all sealed."""
    p = Platform(os.path.join(folder, name), stack=stack_file("echo"), arguments=["--retention-size", "16GiB"]).start()
    while metrics(p)["balm_journal_records"] < PRELOADED:
        wrk(f"http://127.0.0.1:{p.port}", script(p, 100), 16, 1)
    wait_until(lambda: metrics(p)["balm_audit_lag_records"] == 0, 60, "all records are sealed")
    return p


def seconds_to_ready(p):
    began = time.monotonic()
    p.start()
    return time.monotonic() - began


def alerts(folder, table):
    """At most 2 000 000 alerts can be open: those that come in groups have a platform of their own, and less time."""
    p = preloaded(folder, "single")
    try:
        accept(table, folder, p, "alerts accepted durably, 1 000 000 records there, one per request, 64 connections", 1, 64, SECONDS, 12_000)
        p.stop()
        start_with(table, p)
    finally:
        p.stop()
    shutil.rmtree(p.folder)
    p = preloaded(folder, "groups")
    try:
        accept(table, folder, p, "the same, 20 per request, 32 connections", 20, 32, SECONDS / 4, 30_000)
    finally:
        p.stop()


def start_with(table, p):
    """Twice: from the newest snapshot, and by reading all records."""
    taken = seconds_to_ready(p)
    records = metrics(p)["balm_journal_records"]
    p.stop()
    shutil.rmtree(os.path.join(p.data, "snapshots"))
    folded = seconds_to_ready(p)
    p.stop()
    done = subprocess.run([BALM, "audit", "verify", "--data", p.data], capture_output=True, text=True, timeout=300)
    table.row(f"start with {records:,.0f} records, all of them open episodes", f"{taken:.2f} s", f"without a snapshot {folded:.2f} s", "–", "< 2 s",
              taken < 2 and done.returncode == 0)
