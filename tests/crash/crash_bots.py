"""Bots that hang, crash, answer garbage or without end, fork, fill memory and log, ignore SIGTERM; and a good one beside them that must not notice.

Each misbehaviour is a function of its own (bad_bot.c), reached through a runbook. Every act must end in an outcome: after its deadline, its retries, as a
dead letter where nothing helps. The good bot is acted on all the time; its latency (alert sent -> act over, by the bot's own word) is compared with what
it was before.
"""
import http.client
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time

import bots
from harness import PATIENCE, Platform, alert, wait_until, webhook

NAME = "bots"
TIMEOUT = 2
DEAD, DONE = "dead", "done"
# What becomes of an act, by what its bot does. A bot that answers 200 has done it, whatever it says (a function may be any HTTP service).
MODES = {
    "hang": DEAD, "spin": DEAD, "segv": DEAD, "exit": DEAD, "memory": DEAD, "bomb": DEAD, "fork": DONE, "log": DONE,
    "refuse-term": DONE, "not-http": DEAD, "bad-status": DEAD, "bad-json": DONE, "bad-schema": DONE, "bad-length": DEAD, "two-lengths": DEAD,
    "bad-chunk": DEAD, "close-at-once": DEAD, "close-in-head": DEAD, "close-in-body": DEAD, "close-in-chunk": DEAD, "no-answer": DEAD, "long-head": DEAD,
    "big-length": DEAD, "big-chunked": DEAD, "big-until-close": DEAD, "drip": DEAD,
}
# Each end by itself makes the next start wait longer, until the intent's deadline may come first: whether a lost answer meant something is unknown then.
SLOW = ("segv", "exit", "memory", "abort")
LATE, LEEWAY = "unknown", 5
# Never comes up: that takes minutes.
ENDLESS = {"abort": DEAD}
GROUPS = [
    ("bots that hang or spin", ["hang", "spin", "no-answer", "drip"]),
    ("bots that crash (SIGSEGV, exit, out of memory)", ["segv", "exit", "memory"]),
    ("bots that abort before they listen", ["abort"]),
    ("bots that answer garbage", ["not-http", "bad-status", "bad-json", "bad-schema", "bad-length", "two-lengths", "bad-chunk"]),
    ("bots that answer 100 MB (head, length, chunks, until close)", ["long-head", "big-length", "big-chunked", "big-until-close"]),
    ("bots that close early", ["close-at-once", "close-in-head", "close-in-body", "close-in-chunk"]),
    ("bots that fork (children, daemons, a bomb)", ["fork", "bomb"]),
    ("bots that write 2 MB of lines and 2 MB of one line to stderr", ["log"]),
    ("bots that ignore SIGTERM", ["refuse-term"]),
]
REDEPLOYS = 12
MEMORY_GROWTH_MAX_MIB = 128
GOOD_PER_SECOND = 8


class Good(threading.Thread):
    """Alerts for the good bot at a steady rate, each on a target of its own."""

    def __init__(self, platform, prefix):
        super().__init__(daemon=True)
        self.platform, self.prefix, self.sent, self.refused, self.over = platform, prefix, {}, 0, threading.Event()
        self.headers = platform.bearer()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=30 * PATIENCE)
        while not self.over.wait(1 / GOOD_PER_SECOND):
            n = f"{self.prefix}{len(self.sent)}"
            self.sent[n] = time.monotonic()
            connection.request("POST", "/function/alerts", json.dumps(webhook(alert("good", n=n))), self.headers)
            response = connection.getresponse()
            response.read()
            self.refused += response.status != 202
        connection.close()


class Control(threading.Thread):
    """What the machine itself takes meanwhile for a program's start and an fsync: it has other users."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.path, self.took, self.over = os.path.join(folder, "control"), [], threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            began = time.monotonic()
            subprocess.run(["true"], check=True)
            with open(self.path, "wb") as f:
                f.write(b"x")
                f.flush()
                os.fsync(f.fileno())
            self.took.append(time.monotonic() - began)


def latencies(folder, records, sent):
    """Seconds from each alert to the end of its act; and how many never ended."""
    incidents = {r["incident"]: r["labels"]["n"] for r in records if r["kind"] == "signal" and r["labels"]["alertname"] == "good"}
    intents = {r["intent"]: incidents.get(r["incident"]) for r in records if r["kind"] == "intent"}
    ended = {intents.get(m.intent): m.at for m in bots.marks(folder) if m.function == "good" and m.what == "ended"}
    return [ended[n] - at for n, at in sent.items() if n in ended], sum(n not in ended for n in sent)


def outcomes(records):
    """{function: {intent: outcome record or None}}"""
    found = {}
    for r in records:
        if r["kind"] == "intent":
            found.setdefault(r["function"], {}).setdefault(r["intent"], None)
        if r["kind"] == "outcome":
            found[r["function"]][r["intent"]] = r
    return found


def late_ends(folder, records, offset):
    """Attempts whose end was recorded later than the deadline, the health question and the kill allow (2 s, 1 s, and what a busy machine adds)."""
    began = {(m.intent, m.attempt): m.at for m in bots.marks(folder) if m.what == "began"}
    late = 0
    for r in records:
        at = began.get((r.get("intent"), r.get("attempt"))) if r["kind"] in ("retry", "outcome") else None
        late += at is not None and bots.unix_seconds(r["time"]) - offset - at > TIMEOUT + 1 + 4 * PATIENCE
    return late


def run_again(folder, records):
    """Acts that went on although their outcome was recorded."""
    offset = time.time() - time.monotonic()
    ended = {r["intent"]: bots.unix_seconds(r["time"]) - offset for r in records if r["kind"] == "outcome"}
    return sum(m.what == "began" and m.intent in ended and m.at > ended[m.intent] + 0.5 for m in bots.marks(folder))


def redeploy(p, times):
    """A function whose old process ignores SIGTERM, replaced again and again while it is acted on."""
    for i in range(times):
        p.post_alerts(alert("refuse-term", n=f"redeploy-{i}"))
        body = {"service": "refuse-term", "image": "refuse-term:latest", "envVars": {"turn": str(i), "BALM_TEST_MARKS": bots.marks_file(p.folder)}}
        status, _, text = p.request("PUT", "/system/functions", body, p.basic())
        assert status in (200, 202), (status, text)


def all_ended(p, modes, wanted):
    found = outcomes(p.records())
    return all(len(found.get(mode, {})) >= wanted[mode] and all(found[mode].values()) for mode in modes)


def is_late(outcome, deadlines):
    return outcome["state"] == LATE and bots.unix_seconds(outcome["time"]) > deadlines[outcome["intent"]] - LEEWAY


def judge(p, table, records, modes, wanted):
    found = outcomes(records)
    deadlines = {r["intent"]: bots.unix_seconds(r["deadline"]) for r in records if r["kind"] == "intent"}
    _, listed, _ = p.cli("dead", "list", "--limit", "1000")
    for title, names in GROUPS:
        names = [name for name in names if name in modes]
        wrong, n, attempts = [], 0, 0
        for name in names:
            for intent, outcome in found.get(name, {}).items():
                n += 1
                attempts += outcome["attempt"] if outcome else 0
                state = outcome["state"] if outcome else "no outcome"
                if name in SLOW and outcome and is_late(outcome, deadlines):
                    continue
                if state != modes[name]:
                    wrong.append(f"{name}: {state}")
                elif state == DEAD and intent not in listed:
                    wrong.append(f"{name}: not in balm dead list")
            if len(found.get(name, {})) < wanted[name]:
                wrong.append(f"{name}: {len(found.get(name, {}))} intents of {wanted[name]}")
        if names:
            table.row(title, f"{n} acts of {len(names)} bots, {attempts} attempts", ", ".join(wrong) or "0", not wrong)


def campaign(scale, seed, table):
    chance = random.Random(seed)
    modes = dict(MODES)
    if bots.MEMORY_LIMIT != "256Mi":
        del modes["memory"]  # sanitizers reserve terabytes: no limit that could be reached
    if scale == "whole":
        modes.update(ENDLESS)
    wanted = {mode: 1 if mode in SLOW and scale == "sample" else 3 if scale == "sample" else 8 for mode in modes}
    folder = tempfile.mkdtemp(prefix="balm-bots-")
    names = ["good", *modes]
    p = Platform(folder, runbooks={"r.yaml": "".join(bots.runbook(name, f"{TIMEOUT}s") for name in names)}, functions=bots.functions_folder(folder, names),
                 stack=bots.stack(folder, names))
    try:
        p.start()
        run(p, table, chance, modes, wanted)
    except Exception:
        print(f"platform's exit code: {p.process and p.process.poll()}, its last lines:\n{p.log_text()}")
        raise
    finally:
        if p.process is not None:
            p.kill()
        bots.left_behind(folder)
        shutil.rmtree(folder, ignore_errors=True)


def run(p, table, chance, modes, wanted):
    before = Good(p, "before-")
    before.start()
    time.sleep(4)
    before.over.set()
    before.join()
    memory_before = bots.memory_peak_mib(p.process.pid)
    during, control = Good(p, "during-"), Control(p.folder)
    during.start()
    control.start()
    order = [(mode, i) for mode in modes for i in range(wanted[mode])]
    chance.shuffle(order)
    offset = time.time() - time.monotonic()
    for mode, i in order:
        p.post_alerts(alert(mode, n=str(i)))
    redeploy(p, REDEPLOYS)
    try:
        wait_until(lambda: all_ended(p, modes, wanted), 90 if sum(wanted.values()) < 100 else 900, "every act has its outcome")
    except AssertionError as e:
        print(e)
    during.over.set()
    control.over.set()
    during.join()
    wait_until(lambda: latencies(p.folder, p.records(), during.sent)[1] == 0 or p.process.poll() is not None, 30, "the good bot's acts are over")
    records = p.records()
    judge(p, table, records, modes, wanted)
    judge_others(p, table, records, before, during, control, memory_before, offset)
    code = p.stop(seconds=90)
    table.row("refuse-term redeployed, then SIGTERM to the platform", f"{REDEPLOYS} redeploys", f"{bots.left_behind(p.folder)} left behind, exit code {code}",
              code == 0 and not bots.left_behind(p.folder))
    faults = bots.journal_faults(p)
    table.row("the journal afterwards (audit verify, refold)", f"{len(records)} records", faults or "0", not faults)


def judge_others(p, table, records, before, during, control, memory_before, offset):
    was, lost_before = latencies(p.folder, records, before.sent)
    now, lost = latencies(p.folder, records, during.sent)
    bound = max(0.5, 5 * bots.percentile(was, 0.99), 5 * bots.percentile(control.took, 0.99)) * PATIENCE
    p50, p99 = bots.percentile(now, 0.5), bots.percentile(now, 0.99)
    lost += lost_before + before.refused + during.refused
    table.row("the good bot meanwhile", f"{len(now)} acts; p50 {bots.percentile(was, 0.5) * 1e3:.0f} -> {p50 * 1e3:.0f} ms, p99 "
              f"{bots.percentile(was, 0.99) * 1e3:.0f} -> {p99 * 1e3:.0f} ms (bound {bound * 1e3:.0f})", f"{lost} lost", lost == 0 and p99 <= bound)
    late, again = late_ends(p.folder, records, offset), run_again(p.folder, records)
    table.row("deadlines of all these acts", f"{sum(r['kind'] in ('retry', 'outcome') for r in records)} ends", f"{late} late, {again} begun after their outcome",
              late + again == 0)
    grown = bots.memory_peak_mib(p.process.pid) - memory_before
    is_bounded = grown <= MEMORY_GROWTH_MAX_MIB or bots.MEMORY_LIMIT != "256Mi"
    table.row("the platform's memory meanwhile", f"peak {memory_before:.0f} MiB before", f"{grown:.0f} MiB more (bound {MEMORY_GROWTH_MAX_MIB})", is_bounded)
