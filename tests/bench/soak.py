#!/usr/bin/env python3
"""`make soak`: hours at half the sustained rate; does anything grow?

First the sustained rate of the whole chain is measured (alert in, decided, acted by an empty bot, recorded; guardrails evaluated, with raised limits),
then half of it runs for SOAK_MINUTES (120). Each alert resolves RESOLVE_S later. Retention is small enough to cut many times, and what is bounded by
a number (closed episodes, 500 000 of them) is filled before the clock starts, so that what grows after that is a leak.

Flat means, for each series of the second half: a straight line through it rises by no more over that half than the larger of its tolerance and
twice its noise (the standard deviation around that line). Ends in `N passed, N failed`.
"""
import calendar
import collections
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import BUILD, Platform, alert, rfc3339, stack_file, wait_until, webhook  # noqa: E402
from load import cpu_seconds, descriptors, memory, metrics, mib, percentile, send, threads  # noqa: E402
from test_gateway_hang import descendants  # noqa: E402

MINUTES = float(os.environ.get("SOAK_MINUTES", "120"))
MEASURE_S = 15      # how long the sustained rate is measured
MEASURE_TARGETS = 5000
RESOLVE_S = 5
CLOSED = 500000     # EPISODES_CLOSED_MAX of runtime/store/episode.h
BACKLOG = 1000      # alerts without outcome while the rate is measured
SAMPLE_S = 10
TICK_S = 0.05

RUNBOOK = """
name: soak
match: ['alertname="Soak"']
target: host/${labels.host}
mode: act
steps:
  - bot: ledger
    verify: check
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1m}, max_in_flight: 100}
"""
ARGUMENTS = ["--retention-size", "64MiB", "--retention-interval", "5s"]
# name, unit, tolerance as a share of the mean and at least so much; what is only shown has none.
SERIES = [("rss", "MiB", .05, 1), ("private_dirty", "MiB", .05, 1), ("descriptors", "", .05, 4), ("threads", "", 0, 2), ("bot_rss", "MiB", .05, .5),
          ("bot_descriptors", "", 0, 2), ("p50_ms", "ms", .5, 2), ("p99_ms", "ms", 1, 10), ("backlog", "", 0, 200), ("journal", "MiB", .25, 8),
          ("snapshots", "MiB", .25, 2), ("cpu_share", "", .2, .05), ("cuts", "", None, None)]


def start(folder):
    functions = os.path.join(folder, "functions")
    os.makedirs(functions)
    shutil.copy2(os.path.join(BUILD, "tests", "crash", "ledger"), functions)
    p = Platform(folder, runbooks={"soak.yaml": RUNBOOK}, stack=stack_file("ledger"), functions=functions, arguments=ARGUMENTS)
    return p.start()


def outcomes(p):
    return metrics(p).get('balm_outcomes_total{function="ledger",state="done"}', 0)


def ended_incidents(p):
    """Healed, or over before the act came to it: that is right too, on a machine that stands still for a while."""
    return sum(metrics(p).get(f'balm_incidents_closed_total{{state="{state}"}}', 0) for state in ("healed", "resolved"))


def fill_closed_episodes(p):
    """Resolves of what never fired: each is remembered for a while, CLOSED of them."""
    def body(first):
        return json.dumps(webhook(*(alert("Past", status="resolved", starts_at=time.time() - 60, n=str(n)) for n in range(first, first + 50)))).encode()
    for first in range(0, CLOSED, 10000):
        statuses, _ = send(p.port, [body(n) for n in range(first, min(first + 10000, CLOSED), 50)], p.bearer(), 4)
        if set(statuses) != {202}:
            raise AssertionError(f"not taken: {statuses}")


class Source:
    """Alerts at a rate, each on the next target, and the resolve of each RESOLVE_S later, in groups of 50 on up to 8 connections."""

    def __init__(self, p, name, targets):
        self.p, self.name, self.targets, self.sent, self.refused, self.firing = p, name, targets, 0, 0, collections.deque()
        self.headers = p.bearer()

    def fire(self, n, now):
        over = []
        while self.firing and self.firing[0][0] <= now:
            over.append(dict(self.firing.popleft()[1], status="resolved", endsAt=rfc3339(time.time())))
        fresh = [alert("Soak", host=f"h{i % self.targets}", n=str(i), source=self.name, severity="warning") for i in range(self.sent, self.sent + n)]
        self.sent += n
        self.firing += [(now + RESOLVE_S, a) for a in fresh]
        groups = [(over + fresh)[i:i + 50] for i in range(0, len(over) + n, 50)]
        statuses, _ = send(self.p.port, [json.dumps(webhook(*group)).encode() for group in groups], self.headers, 8)
        self.refused += sum(count for status, count in statuses.items() if status != 202)

    def end(self):
        self.fire(0, float("inf"))


def sustained(p, source):
    """Acts a second with a backlog that never runs dry."""
    def keep_busy(until):
        while time.monotonic() < until:
            source.fire(int(max(0, BACKLOG - (source.sent - outcomes(p)))), time.monotonic())
            time.sleep(0.02)
    keep_busy(time.monotonic() + 3)
    began, done, cpu = time.monotonic(), outcomes(p), cpu_seconds(p.process.pid)
    keep_busy(began + MEASURE_S)
    seconds, n, cpu = time.monotonic() - began, outcomes(p) - done, cpu_seconds(p.process.pid) - cpu
    source.end()
    print(f"sustained: {n / seconds:.0f} acts/s, {cpu / n * 1e6:.0f} µs of CPU an act, {cpu / seconds:.2f} of a core", flush=True)
    return n / seconds


def pace(source, rate, end, stop):
    """At `rate` a second until `end`; what one tick is late by, the next makes up for."""
    began, sent = time.monotonic(), 0
    while time.monotonic() < end and not stop.is_set():
        now = time.monotonic()
        n = int((now - began) * rate) - sent
        source.fire(n, now)
        sent += n
        stop.wait(max(0, TICK_S - (time.monotonic() - now)))
    source.end()


def unix_ns(text):
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(text[20:-1].ljust(9, "0"))


def latencies(p, n=3000):
    """From the alert's receipt to the bot's handler, in ms, of the newest acts, as far as they lie in the two newest segments."""
    folder, rows = os.path.join(p.data, "journal"), []
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".db") and name[0].isdigit())[-2:]:
        db = sqlite3.connect(f"file:{folder}/{name}?mode=ro", uri=True)
        try:
            rows += db.execute("SELECT bytes FROM records ORDER BY seq DESC LIMIT ?", (n,)).fetchall()
        finally:
            db.close()
    found = []
    for (line,) in rows:
        stages = json.loads(line).get("stages", {}) if b'"outcome"' in line else {}
        if "entered" in stages and "received" in stages:
            found.append((unix_ns(stages["entered"]) - unix_ns(stages["received"])) / 1e6)
    return found


def folder_mib(path):
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total / (1 << 20)


def bots(p):
    return [pid for pid, name in descendants(p.process.pid).items() if name == "ledger"]


def backlog(series):
    return sum(v for k, v in series.items() if k.startswith("balm_queue_depth{"))


def snapshot_child(p):
    return "balm" in descendants(p.process.pid).values()


def sample(p, cpu_before, seconds):
    p.log.clear()  # fifty lines a second would grow here
    wait_until(lambda: not snapshot_child(p), 60, "no snapshot is being written: its child shares our pages, which look clean then")
    now, series, below, times = memory(p.process.pid), metrics(p), bots(p), latencies(p)
    return {
        "rss": now["rss"] / (1 << 20), "private_dirty": now["private_dirty"] / (1 << 20), "descriptors": descriptors(p.process.pid),
        "threads": threads(p.process.pid), "bot_rss": sum(memory(pid)["rss"] for pid in below) / (1 << 20),
        "bot_descriptors": sum(descriptors(pid) for pid in below),
        "p50_ms": percentile(times, .5), "p99_ms": percentile(times, .99),
        "backlog": backlog(series),
        "journal": series["balm_journal_bytes"] / (1 << 20), "snapshots": folder_mib(os.path.join(p.data, "snapshots")),
        "cpu_share": (cpu_seconds(p.process.pid) - cpu_before) / seconds, "cuts": series.get("balm_journal_removed_records_total", 0),
    }


def is_flat(values, share, least):
    """(flat?, how much the line through the second half rises, its noise, what is allowed)"""
    half = [v for v in values[len(values) // 2:] if v == v]  # without minutes in which nothing was acted
    n = len(half)
    if n < 3:
        return False, float("nan"), float("nan"), 0
    mean_x, mean_y = (n - 1) / 2, statistics.mean(half)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(half)) / sum((x - mean_x) ** 2 for x in range(n))
    noise = statistics.pstdev([y - mean_y - slope * (x - mean_x) for x, y in enumerate(half)])
    rise, allowed = slope * (n - 1), max(share * mean_y, least, 2 * noise)
    return rise <= allowed, rise, noise, allowed


def show(minute, s):
    print(f"{minute:6.1f}  " + "  ".join(f"{name} {s[name]:.2f}" if unit or name == "cpu_share" else f"{name} {s[name]:.0f}" for name, unit, *_ in SERIES),
          flush=True)


def soak(p, rate):
    # Each target every two seconds: past its cooldown, and soon at the hundred acts that are remembered of it in any case.
    source, stop, samples = Source(p, "soak", int(2 * rate)), threading.Event(), []
    began = time.monotonic()
    end = began + MINUTES * 60
    sender = threading.Thread(target=pace, args=(source, rate, end, stop))
    sender.start()
    try:
        shown, cpu, at = 0, cpu_seconds(p.process.pid), began
        while sender.is_alive():
            sender.join(SAMPLE_S)
            now = time.monotonic()
            if now - at < SAMPLE_S * .9:
                continue
            samples.append(sample(p, cpu, now - at))
            cpu, at = cpu_seconds(p.process.pid), now
            if now - began >= shown * 60:
                show((now - began) / 60, samples[-1])
                shown += 1
    finally:
        stop.set()
        sender.join()
    wait_until(lambda: backlog(metrics(p)) == 0 and not any(v for k, v in metrics(p).items() if k.startswith("balm_incidents_open{")), 60, "all is done")
    return source, samples


def report(p, rate, full_rate, source, done, samples):
    results = []

    def row(what, text, ok):
        results.append(ok)
        print(f"{'ok  ' if ok else 'FAIL'} {what}: {text}", flush=True)
    print(f"\n{len(samples)} samples over {MINUTES:g} minutes at {rate:.0f} acts/s, half of {full_rate:.0f}/s; {source.sent} alerts")
    for name, unit, share, least in SERIES:
        values = [s[name] for s in samples]
        if share is None:
            continue
        flat, rise, noise, allowed = is_flat(values, share, least)
        row(name, f"{values[0]:.2f} first, {statistics.mean(values[len(values) // 2:]):.2f} mean of the second half, {values[-1]:.2f} last {unit}; "
            f"rises by {rise:.2f} over that half (noise {noise:.2f}, allowed {allowed:.2f})", flat)
    row("deliveries refused", source.refused, source.refused == 0)
    row("incidents", f"{done:.0f} of {source.sent} healed, or resolved before their act", done == source.sent)
    cuts = [s["cuts"] for s in samples]
    n_cuts = sum(b > a for a, b in zip(cuts, cuts[1:]))
    row("retention", f"cut in {n_cuts} of {len(cuts)} samples, {cuts[-1]:.0f} records removed", n_cuts >= min(3, len(cuts) // 4))
    code, text, error = p.cli("audit", "verify", timeout=600)
    row("audit verify", (text + error).strip().splitlines()[-1], code == 0)
    return results


def main():
    base = os.environ.get("BENCH_DIR") or os.path.join(BUILD, "bench-data")
    os.makedirs(base, exist_ok=True)
    folder = tempfile.mkdtemp(dir=base, prefix="soak-")
    p = start(folder)
    try:
        began = time.monotonic()
        fill_closed_episodes(p)
        print(f"{CLOSED} closed episodes in {time.monotonic() - began:.0f} s: RSS {mib(memory(p.process.pid)['rss'])}", flush=True)
        full_rate = sustained(p, Source(p, "measure", MEASURE_TARGETS))
        wait_until(lambda: not any(v for k, v in metrics(p).items() if k.startswith("balm_incidents_open{")), 60, "the measured ones are done")
        before = ended_incidents(p)
        print(f"{MINUTES:g} minutes at {full_rate / 2:.0f} acts/s", flush=True)
        source, samples = soak(p, full_rate / 2)
        results = report(p, full_rate / 2, full_rate, source, ended_incidents(p) - before, samples)
    finally:
        p.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
