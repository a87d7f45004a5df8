"""10 000 alerts in one second on 2 000 targets: memory stays bounded, no guardrail is exceeded, each alert is decided on within a second."""
import bisect
import collections
import json
import os
import random
import shutil
import tempfile
import time

from harness import BUILD, Platform, alert, shared, stack_file, wait_until, webhook
from load import JournalWatch, Ledger, buckets, cpu_seconds, forget_peak, memory, metrics, mib, percentile, send

NAME = "storm"
ALERTS, TARGETS = 10000, 2000
COOLDOWN_S, RATE, PER_S, IN_FLIGHT = 2, 2, 30, 8
DECIDED_WITHIN_S = 1
# What 10 000 open incidents may cost at most, and what may stay once they are over and the same comes again.
PEAK_BYTES, KEPT_BYTES = 96 << 20, 8 << 20
ONE_TARGET_US = 100

RUNBOOK = f"""
name: storm
match: ['alertname="Storm"']
target: host/${{labels.host}}
mode: act
steps:
  - bot: ledger
    verify: check
    timeout: 20s
guardrails: {{cooldown: {COOLDOWN_S}s, rate: {{max: {RATE}, per: {PER_S}s}}, max_in_flight: {IN_FLIGHT}}}
"""


def functions(folder):
    """A functions folder with the bots and the ledger."""
    path = os.path.join(folder, "functions")
    shutil.copytree(os.path.join(BUILD, "functions"), path)
    shutil.copy2(os.path.join(BUILD, "tests", "crash", "ledger"), path)
    return path


def start(folder):
    stack = stack_file("ledger") + f"    environment: {{ledger_file: {shared(folder, 'ledger')}, ledger_hold_ms: \"5\"}}\n"
    p = Platform(folder, runbooks={"storm.yaml": RUNBOOK}, stack=stack, functions=functions(folder))
    p.start()
    p.post_alerts(alert("Storm", host="warm-up"))
    p.wait_record("outcome", state="done")
    return p


def cpu_each(p, act):
    """What act() gives, and the platform's microseconds of CPU for each alert of it."""
    before = cpu_seconds(p.process.pid)
    return act(p), (cpu_seconds(p.process.pid) - before) / ALERTS * 1e6


class Round:
    """One storm: five alerts on each target, in an order given by chance; they resolve in another one. Each time the same ones, begun anew."""

    def __init__(self, rng, grouped, targets=TARGETS):
        began = time.time()
        self.alerts = [alert("Storm", starts_at=began, host=f"h{i % targets}", n=str(i // targets), severity="warning",
                             summary="what is wrong with this host, in as many words as are usual") for i in range(ALERTS)]
        rng.shuffle(self.alerts)
        self.rng, self.group, self.connections = rng, 20 if grouped else 1, 16 if grouped else 64

    def _bodies(self, alerts):
        return [json.dumps(webhook(*alerts[i:i + self.group])).encode() for i in range(0, len(alerts), self.group)]

    def fire(self, p):
        return send(p.port, self._bodies(self.alerts), p.bearer(), self.connections)

    def resolve(self, p):
        now = self.alerts[0]["startsAt"]
        over = [dict(a, status="resolved", endsAt=now[:-2] + "9Z") for a in self.alerts]
        self.rng.shuffle(over)
        return send(p.port, self._bodies(over), p.bearer(), self.connections)


def opened(p):
    return sum(v for k, v in metrics(p).items() if k.startswith("balm_incidents_open{"))


def moving(p):
    """Incidents that still go on by themselves: not those that wait for the alert's end or a person."""
    return sum(v for k, v in metrics(p).items()
               if k.startswith("balm_incidents_open{") and not any(f'"{phase}"' in k for phase in ("escalated", "refused")))


def decision_times(records, seen):
    """Seconds until what was decided on each alert was on disk, from its acceptance (it is on disk itself) and from its receipt; and how many were not
    decided on."""
    first, accepted, received, undecided, at = {}, [], [], 0, [seq for _, seq in seen]
    for seq, r in enumerate(records, 1):
        if r["kind"] in ("intent", "refusal"):
            first.setdefault(r.get("cause"), seq)
    for seq, r in enumerate(records, 1):
        if r["kind"] != "signal" or r["status"] != "firing" or r["labels"]["host"] == "warm-up":
            continue
        look, undecided = bisect.bisect_left(at, first.get(seq, 0)), undecided + (seq not in first)
        if seq in first and look < len(seen):
            accepted.append((seen[look][0] - seen[bisect.bisect_left(at, seq)][0]) / 1e9)
            received.append((seen[look][0] - unix_ns(r["time"])) / 1e9)
    return accepted, received, undecided


def unix_ns(text):
    import calendar
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(text[20:-1].ljust(9, "0"))


def check_journal(records, table):
    """Acts between intent and outcome, in the journal's order."""
    under_way, at_once, overlaps, targets = {}, 0, 0, collections.Counter()
    for r in records:
        if r["kind"] == "intent":
            overlaps += targets[r["target"]]
            under_way[r["intent"]] = r["target"]
            targets[r["target"]] += 1
            at_once = max(at_once, len(under_way))
        elif r["kind"] == "outcome":
            targets[under_way.pop(r["intent"])] -= 1
    table.row("storm: max_in_flight and one act a target, by the journal", f"limit {IN_FLIGHT}, most {at_once}; {overlaps} on a busy target",
              f"{len(under_way)} without an outcome", at_once <= IN_FLIGHT and overlaps == 0 and not under_way)


def check_ledger(path, records, table):
    ledger = Ledger(path)
    at_once, intents = ledger.most_at_once(), {r["intent"] for r in records if r["kind"] == "intent"}
    table.row("storm: max_in_flight, by what the bot wrote down", f"{len(ledger.begun)} acts, limit {IN_FLIGHT}, most {at_once}",
              f"{ledger.overlaps()} on a busy target", at_once <= IN_FLIGHT and ledger.overlaps() == 0)
    table.row("storm: cooldown of each target", f"{COOLDOWN_S} s between acts", f"{ledger.too_soon(COOLDOWN_S)} too soon",
              ledger.too_soon(COOLDOWN_S) == 0)
    table.row("storm: rate of each target", f"{RATE} acts in {PER_S} s", f"{ledger.too_many(RATE, PER_S)} too many", ledger.too_many(RATE, PER_S) == 0)
    unknown = sum(e[2] not in intents for e in ledger.begun)
    acted = len({e[3] for e in ledger.begun} - {"host/warm-up"})
    table.row("storm: acts without intent, intents acted on twice, targets never acted on",
              f"{len(ledger.begun)} acts for {len(intents)} intents on {acted} targets", f"{unknown}, {ledger.twice()}, {TARGETS - acted}",
              unknown == 0 and ledger.twice() == 0 and acted == TARGETS)


def storms(p, rounds, rng, table):
    """[(peak, after)] of each round's memory."""
    costs = []
    for number in range(rounds):
        r = Round(rng, grouped=number % 2 == 0)
        forget_peak(p.process.pid)
        (statuses, took), cpu_us = cpu_each(p, r.fire)
        wait_until(lambda: moving(p) == 0, 120, "every incident has come to its rest")
        peak = memory(p.process.pid)["peak"]
        table.row(f"storm {number + 1}: {ALERTS} alerts {'in groups of 20' if r.group > 1 else 'one by one'}",
                  f"{TARGETS} targets, accepted in {took:.2f} s, {cpu_us:.0f} µs of CPU an alert", f"{sum(n for s, n in statuses.items() if s != 202)} refused",
                  set(statuses) == {202})
        r.resolve(p)
        wait_until(lambda: opened(p) == 0, 60, "all incidents are closed")
        costs.append((peak, memory(p.process.pid)["rss"]))
    return costs


def one_target(p, rng, table):
    """All on one target, as with a runbook for a whole cluster: what one alert costs must not grow with their number."""
    r = Round(rng, grouped=True, targets=1)
    (statuses, _), fired_us = cpu_each(p, r.fire)
    wait_until(lambda: moving(p) == 0, 60, "all on one target have come to their rest")
    (resolved, _), resolved_us = cpu_each(p, r.resolve)
    wait_until(lambda: opened(p) == 0, 60, "all on one target are closed")
    table.row(f"storm: {ALERTS} alerts on one target", f"{fired_us:.0f} µs of CPU an alert, {resolved_us:.0f} µs a resolve",
              f"more than {ONE_TARGET_US} µs: {'no' if max(fired_us, resolved_us) <= ONE_TARGET_US else 'yes'}",
              set(statuses) == set(resolved) == {202} and max(fired_us, resolved_us) <= ONE_TARGET_US)


def campaign(scale, seed, table):
    rng = random.Random(seed)
    folder = tempfile.mkdtemp(prefix="balm-storm-")
    p = start(folder)
    try:
        watch = JournalWatch(p)
        before = memory(p.process.pid)["rss"]
        try:
            costs = storms(p, 2 if scale == "sample" else 6, rng, table)
            one_target(p, rng, table)
        finally:
            seen = watch.stop()
        check_memory(before, costs, table)
        records, series = p.records(), metrics(p)
        check_times(records, seen, series, table)
        check_journal(records, table)
        check_ledger(shared(folder, "ledger"), records, table)
        code, text, error = p.cli("audit", "refold", timeout=300)
        table.row("storm: deciding again gives the same", f"{len(records)} records", (text + error).strip().splitlines()[-1], code == 0)
    finally:
        p.stop()
        shutil.rmtree(folder, ignore_errors=True)


def check_memory(before, costs, table):
    peak, after = max(c[0] for c in costs), [c[1] for c in costs]
    kept = after[-1] - after[0]
    table.row("storm: memory", f"RSS before {mib(before)}, peak {mib(peak)}, after each {', '.join(mib(a) for a in after)}",
              f"peak {mib(peak - before)} more (at most {mib(PEAK_BYTES)}), last against first {mib(kept)} (at most {mib(KEPT_BYTES)})",
              peak - before <= PEAK_BYTES and kept <= KEPT_BYTES)


def check_times(records, seen, series, table):
    times, received, undecided = decision_times(records, seen)
    late = sum(t > DECIDED_WITHIN_S for t in times)
    table.row("storm: from acceptance to the decision on disk, by a reader of the journal",
              f"{len(times)} alerts: p99 {percentile(times, .99) * 1e3:.0f} ms, max {max(times) * 1e3:.0f} ms; from the receipt, with the disk's time: "
              f"p50 {percentile(received, .5) * 1e3:.0f} ms, p99 {percentile(received, .99) * 1e3:.0f} ms, max {max(received) * 1e3:.0f} ms",
              f"{undecided} undecided, {late} later than {DECIDED_WITHIN_S} s", undecided == 0 and late == 0)
    steps = buckets(series, "balm_stage_seconds", 'stage="decided"')
    total = steps[-1][1] if steps else 0
    within = next((n for bound, n in steps if bound >= DECIDED_WITHIN_S), 0)
    p99 = next((bound for bound, n in steps if n >= total * .99), float("inf"))
    table.row("storm: the same by balm_stage_seconds{stage=\"decided\"}", f"{total:.0f} alerts, p99 at most {p99 * 1e3:.0f} ms",
              f"{total - within:.0f} later than {DECIDED_WITHIN_S} s", total == len(times) + 1 and within == total)
