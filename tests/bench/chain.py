"""Figures of the whole chain: webhook, decision, intent, a bot that does nothing, outcome, resolve, verification."""
import calendar
import collections
import json
import os
import shutil
import socket
import time

from durable import Floor, metrics, row_bytes
from harness import Platform, alert, stack_file, wait_until, webhook
from measure import LOAD_CPU, PAIRS, SERVER_CPU, bench_program, fdatasync_p50_ms, median, memory_kib, pin
from test_gateway_hang import descendants

MINUTES = float(os.environ.get("BENCH_MINUTES", "10"))
TARGETS = 20_000
GROUP = 20
SHARDS = 10     # runbooks: each may have 100 acts in flight at most
WINDOW = 800    # alerts that were sent and whose act has no outcome yet
SLACK = 500     # acts may end in another order than they were sent in

RUNBOOK = """
name: bench-SHARD
match: ['alertname="Chain"', 'shard="SHARD"']
target: bench/${labels.n}
mode: act
steps:
  - bot: nothing
    verify: {resolve: {within: 10m}}
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}, max_in_flight: 100}
"""


def unix_ns(text):
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(text[20:29])


class Webhook:
    """One connection to the intake that sends a delivery in one write."""

    def __init__(self, p):
        self.sock = socket.create_connection(("127.0.0.1", p.port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"POST /function/alerts HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {p.secret('webhook-token')}\r\n" \
                    "Content-Type: application/json\r\nContent-Length: "

    def send(self, alerts):
        """When the first byte left, in ns; returns once it is durable."""
        body = json.dumps(webhook(*alerts))
        message = (self.head + f"{len(body)}\r\n\r\n" + body).encode()
        sent = time.time_ns()
        self.sock.sendall(message)
        answer = self.sock.recv(65536)
        if not answer.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(answer[:200])
        return sent


def platform(folder, name):
    """With a functions folder that holds the bot that does nothing."""
    inside = os.path.join(folder, name)
    functions = os.path.join(inside, "functions")
    os.makedirs(functions)
    shutil.copy(bench_program("nothing"), functions)
    return Platform(inside, runbooks={f"bench-{i}.yaml": RUNBOOK.replace("SHARD", str(i)) for i in range(SHARDS)}, stack=stack_file("nothing"), functions=functions,
                    arguments=["--idle", "0s", "--retention-size", "16GiB"])


def idle(folder, table, n=400):
    p = platform(folder, "chain")
    p.start()
    sent = {}
    try:
        intake = Webhook(p)
        for i in range(n + 20):
            sent[str(i)] = intake.send([alert("Chain", n=str(i), shard="0")])
            time.sleep(0.01)
        wait_until(lambda: len(p.records("outcome")) >= n + 20, 60, "all acts are done")
        number_of = {r["intent"]: r["target"].split("/")[1] for r in p.records("intent")}
        times = sorted((unix_ns(r["stages"]["entered"]) - sent[number_of[r["intent"]]]) / 1e6
                       for r in p.records("outcome") if int(number_of[r["intent"]]) >= 20)
        sync_ms = fdatasync_p50_ms(folder)
    finally:
        p.stop()
    p50, p99, target = times[len(times) // 2], times[int(len(times) * 0.99)], 2 * sync_ms + 0.8
    table.row("webhook byte → bot's handler entered, idle and warm", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms", f"fdatasync p50 {sync_ms:.2f} ms", "–",
              f"p50 < 2 × fdatasync + 0.8 ms = {target:.2f} ms, p99 < 5 ms", p50 < target and p99 < 5)


class Chain:
    """Keeps WINDOW alerts under way: as many firings as there were outcomes, and a resolve for each alert whose act is done."""

    def __init__(self, p):
        self.p, self.intake, self.sent, self.open = p, None, 0, collections.deque()

    def outcomes(self):
        text = self.p.request("GET", "/metrics", headers=self.p.basic())[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("balm_outcomes_total{"))

    @staticmethod
    def alert(i):
        return alert("Chain", n=str(i % TARGETS), run=str(i // TARGETS), shard=str(i % SHARDS))

    def step(self):
        """How many acts have an outcome by now."""
        done = int(self.outcomes())
        while self.sent - done < WINDOW:
            firing = [self.alert(self.sent + i) for i in range(GROUP)]
            self.intake.send(firing)
            self.open.extend(firing)
            self.sent += GROUP
        while self.sent - len(self.open) + SLACK + GROUP < done:
            ended = [self.open.popleft() for _ in range(GROUP)]
            for one in ended:
                one["status"], one["endsAt"] = "resolved", alert("Chain")["startsAt"]
            self.intake.send(ended)
        return done

    def run(self, seconds):
        """(acts/s, records an act, mean group, mean row) of so many seconds."""
        self.intake = Webhook(self.p)  # anew: the platform closes what has been idle
        before, done, began = metrics(self.p), self.step(), time.monotonic()
        while time.monotonic() - began < seconds:
            acts = self.step() - done
        took, after = time.monotonic() - began, metrics(self.p)
        records = after["balm_journal_records"] - before["balm_journal_records"]
        commits = after["balm_journal_commits_total"] - before["balm_journal_commits_total"]
        return acts / took, records / acts, records / commits, row_bytes(self.p, before["balm_journal_records"])


def sustained(folder, table):
    """First pairs with the floor, then MINUTES at full rate with an eye on the memory."""
    p = platform(folder, "sustained")
    p.start()
    try:
        chain = Chain(p)
        chain.run(5)
        pin(p.process.pid, SERVER_CPU)
        for pid in descendants(p.process.pid):
            pin(pid, LOAD_CPU)
        rates, ratios, floors, parts = [], [], [], None
        for _ in range(PAIRS):
            rate, per_act, group, length = parts = chain.run(4)
            floors.append(Floor(folder, 100_000, length, round(group)).rate)
            rates.append(rate)
            ratios.append(rate / (floors[-1] / per_act))
        memory = [memory_kib(p.process.pid, "Rss") / 1024]
        acts = chain.outcomes()
        for _ in range(4):
            chain.run(MINUTES * 60 / 4)
            memory.append(memory_kib(p.process.pid, "Rss") / 1024)
        acts = chain.outcomes() - acts
        refused = len(p.records("refusal"))
    finally:
        p.stop()
    table.row("sustained chain: decided, acted by an empty bot, resolved, recorded", f"{median(rates):,.0f} acts/s, {parts[1]:.1f} records each",
              f"bare SQLite, rows of {parts[3]} bytes in groups of {parts[2]:.0f}: {median(floors):,.0f}/s", f"{median(ratios):.2f}", "≥ 0.4",
              median(ratios) >= 0.4 and refused == 0)
    growth = (memory[-1] - memory[2]) * 2**20 / max(1, acts / 2)
    table.row(f"its memory over {MINUTES:g} minutes at full rate", " → ".join(f"{m:.0f}" for m in memory) + " MB resident",
              f"{acts:,.0f} acts on {TARGETS:,} targets", f"{growth:.0f} bytes an act in the second half", "< 64 bytes an act (24 are kept for the guardrails)",
              growth < 64)
