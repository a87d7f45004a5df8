"""SIGTERM under load: no accepted request is cut, the drain keeps within its limit, and what was under way is found by the next start.

Clients with kept connections tell four ends of a request apart: a whole answer; a connection that ended before a byte of an answer came (then it must not
have been read: an alert is not in the journal); a part of an answer (never); refused, since nobody listens any more.
"""
import collections
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import bots
from harness import BUILD, PATIENCE, Platform, alert, free_port, wait_until, webhook

NAME = "term"
CLIENTS = 12
# Small segments and many snapshots, so that the signal meets both.
BUSY = ["--snapshot-every", "50", "--retention-size", "1MiB", "--retention-age", "1h"]
SLOW_MS = 300


class Client(threading.Thread):
    """One kept connection; `make(n)` gives a request's (path, body, headers), `ends` what became of each."""

    def __init__(self, port, number, make):
        super().__init__(daemon=True)
        self.port, self.number, self.make = port, number, make
        self.ends, self.sent, self.over = [], 0, threading.Event()

    def run(self):
        connection = None
        while not self.over.is_set():
            try:
                connection = connection or socket.create_connection(("127.0.0.1", self.port), timeout=60 * PATIENCE)
            except ConnectionRefusedError:
                return
            except OSError:
                continue
            name = f"{self.number}-{self.sent}"
            self.sent += 1
            end = self.ask(connection, name)
            self.ends.append((name, end))
            if end == "cut" or isinstance(end, str) or end[1]:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def ask(self, connection, name):
        """(status, is it closed), "unread" or "cut"."""
        path, body, headers = self.make(name)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in headers.items()) + "\r\n"
        got = b""
        try:
            connection.sendall(head.encode() + body)
        except OSError:
            pass  # an answer may be there all the same
        try:
            while not (whole := whole_answer(got)):
                more = connection.recv(65536)
                if not more:
                    break
                got += more
        except OSError:
            whole = whole_answer(got)
        if whole:
            return int(got.split(b" ", 2)[1]), b"connection: close" in got.split(b"\r\n\r\n", 1)[0].lower()
        return "cut" if got else "unread"


def whole_answer(got):
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if lengths:
        return len(body) >= lengths[0]
    return b"transfer-encoding: chunked" in head.lower() and body.endswith(b"0\r\n\r\n") or b" 204 " in head


def load(port, make, clients=CLIENTS):
    threads = [Client(port, i, make) for i in range(clients)]
    for thread in threads:
        thread.start()
    return threads


def ends_of(threads):
    for thread in threads:
        thread.over.set()
    for thread in threads:
        thread.join()
    return [end for thread in threads for end in thread.ends]


def count(ends):
    return collections.Counter(end if isinstance(end, str) else end[0] for _, end in ends)


class Scene:
    """A platform with the good bot, a slow one and echo; its load is half alerts, half calls."""

    def __init__(self, names=("good", "hang"), arguments=(), **environment):
        self.folder = tempfile.mkdtemp(prefix="balm-term-")
        functions = bots.functions_folder(self.folder, names)
        shutil.copy(os.path.join(BUILD, "functions", "echo"), functions)
        stack = bots.stack(self.folder, names, **environment)
        stack += "  echo:\n    lang: c-balm\n    handler: ./echo\n    image: echo:latest\n"
        self.platform = Platform(self.folder, runbooks={"r.yaml": "".join(bots.runbook(name, "20s") for name in names)}, functions=functions, stack=stack,
                                 arguments=list(arguments))

    def make(self, turn):
        bearer = self.platform.bearer()

        def request(name):
            if int(name.split("-")[0]) % 2:
                return "/function/echo", b"x" * 1000, {"Content-Type": "text/plain"}
            return "/function/alerts", json.dumps(webhook(alert("good", n=f"{turn}-{name}"))).encode(), bearer
        return request

    def end(self):
        if self.platform.process is not None:
            self.platform.kill()
        bots.left_behind(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def journal_faults(records, turn, ends):
    """Alerts with 202 that are not in the journal, and alerts in it whose connection ended without an answer."""
    there = {r["labels"].get("n") for r in records if r["kind"] == "signal"}
    lost = ghosts = 0
    for name, end in ends:
        if int(name.split("-")[0]) % 2:
            continue
        lost += end == (202, True) and f"{turn}-{name}" not in there or end == (202, False) and f"{turn}-{name}" not in there
        ghosts += end == "unread" and f"{turn}-{name}" in there
    return lost, ghosts


def acts_cut(records, folder, settled):
    """Acts that began without having ended, or that ended without an outcome on record. `settled`: intents that were whole at an earlier look; retention may
    have removed them since."""
    ended = {m.intent for m in bots.marks(folder) if m.what == "ended"}
    settled |= ended & {r["intent"] for r in records if r["kind"] == "outcome"}
    return sum(m.what == "began" and m.intent not in settled for m in bots.marks(folder))


def under_load(table, chance, turns):
    scene = Scene(arguments=BUSY, BALM_TEST_ACT_MS=SLOW_MS)
    totals, took, problems, settled = collections.Counter(), [], collections.Counter(), set()
    try:
        for turn in range(turns):
            p = scene.platform.start()
            threads = load(p.port, scene.make(turn))
            time.sleep(chance.uniform(0.5, 2.5))
            began = time.monotonic()
            problems["exit codes"] += p.stop(chance.choice([signal.SIGTERM, signal.SIGINT]), seconds=60) != 0
            took.append(time.monotonic() - began)
            ends = ends_of(threads)
            records = p.records()
            totals += count(ends)
            lost, ghosts = journal_faults(records, turn, ends)
            problems.update({"alerts lost": lost, "alerts taken without an answer": ghosts, "acts cut": acts_cut(records, scene.folder, settled)})
        problems["answers cut"] = totals["cut"]
        problems["server errors"] = sum(n for status, n in totals.items() if isinstance(status, int) and status >= 500 and status != 503)
        problems["left behind"] = bots.left_behind(scene.folder)
        segments = len([name for name in os.listdir(os.path.join(p.data, "journal")) if name.endswith(".db")])
        snapshots = sum(r["kind"] == "epoch" for r in records)
        bad = +problems
        table.row("SIGTERM or SIGINT to the platform under load (alerts, calls, acts, snapshots, segment changes)",
                  f"{turns} stops, {sum(totals.values())} requests ({totals['unread']} closed unread, {totals[503]} answered 503), {segments} segments, "
                  f"{snapshots} epochs, longest drain {max(took):.1f} s", ", ".join(f"{n} {what}" for what, n in bad.items()) or "0", not bad)
    finally:
        scene.end()


def start_up(table, chance, turns):
    """At random instants of a start that has a journal to read."""
    scene = Scene(arguments=BUSY)
    try:
        p = scene.platform.start()
        threads = load(p.port, scene.make("first"))
        time.sleep(3)
        p.stop()
        accepted = [f"first-{name}" for name, end in ends_of(threads) if not isinstance(end, str) and end[0] == 202]
        codes = collections.Counter()
        for _ in range(turns):
            p.start(wait=False)
            time.sleep(chance.uniform(0, 0.25))
            codes[p.stop(chance.choice([signal.SIGTERM, signal.SIGINT]), seconds=60)] += 1
        left = bots.left_behind(scene.folder)
        there = {r["labels"].get("n") for r in p.records("signal")}
        lost = sum(n not in there for n in accepted)
        wrong = sum(n for code, n in codes.items() if code not in (0, -signal.SIGTERM, -signal.SIGINT))
        p.start()
        wrong += p.stop() != 0
        faults = bots.journal_faults(p)
        table.row("SIGTERM or SIGINT at random instants of a start", f"{turns} starts, {len(accepted)} alerts before ({codes[0]} exit 0, the others before "
                  "it could be caught)", f"{lost} lost, {wrong} wrong exits, {left} left behind {faults}" if lost + wrong + left or faults else "0",
                  not (lost + wrong + left or faults))
    finally:
        scene.end()


def hanging(table, second):
    """A bot hangs: the drain ends at its limit, or at once by a second signal; the next start counts the attempt and goes by on_unknown."""
    limit = 2
    scene = Scene(arguments=["--drain-timeout", f"{limit}s"])
    try:
        p = scene.platform.start()
        p.post_alerts(alert("hang", n="1"))
        wait_until(lambda: [m for m in bots.marks(scene.folder) if m.function == "hang"], 20, "the act has begun")
        began = time.monotonic()
        p.process.send_signal(signal.SIGTERM)
        if second:
            wait_until(lambda: p.find_log("stopping"), 20, "the first signal is seen")
            time.sleep(0.7)  # sooner it would count as the same wish
            began = time.monotonic()
        code = p.stop(second or signal.SIGTERM, seconds=60)
        took = time.monotonic() - began
        left = bots.left_behind(scene.folder)
        p.start()
        again = p.wait_record("retry", 30, state="interrupted")
        wait_until(lambda: [m for m in bots.marks(scene.folder) if m.attempt == 2], 30, "the second attempt")
        p.kill()
        bound = 2 if second else limit + 3 * PATIENCE  # the drain; a second each for acts and processes that go beyond it
        bad = code != (1 if second else 0) or left or took > bound or again["attempt"] != 1
        what = f"SIGTERM, then {signal.Signals(second).name}" if second else f"SIGTERM with --drain-timeout {limit}s"
        table.row(f"{what}, while a bot hangs", f"exit code {code} after {took:.1f} s (bound {bound:.0f} s); the act is interrupted and run again (rerun)",
                  f"{left} left behind" if bad else "0", not bad)
    finally:
        scene.end()


def single(table, chance, turns):
    """One function's process by itself, as a container has it."""
    totals, wrong, took = collections.Counter(), 0, []
    for _ in range(turns):
        port = free_port()
        env = dict(os.environ, port=str(port), BALM_HOST="127.0.0.1", BALM_METRICS="off", suppress_lock="true", healthcheck_interval="300ms")
        process = subprocess.Popen([os.path.join(BUILD, "functions", "echo")], env=env, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_until(lambda: is_open(port), 20, "echo listens")
        threads = load(port, lambda name: ("/", b"x" * 1000, {}))
        time.sleep(chance.uniform(0.2, 1))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wrong += process.wait(60 * PATIENCE) != 0
        took.append(time.monotonic() - began)
        totals += count(ends_of(threads))
    bad = totals["cut"] + wrong + sum(n for status, n in totals.items() if status not in ("unread", 200))
    table.row("SIGTERM to a single function under load", f"{turns} stops, {sum(totals.values())} requests ({totals['unread']} closed unread), longest drain "
              f"{max(took):.1f} s", f"{totals['cut']} answers cut, {wrong} wrong exits, {dict(totals)}" if bad else "0", not bad)


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def campaign(scale, seed, table):
    chance = random.Random(seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would a platform until it listens
    few = scale == "sample"
    under_load(table, chance, 4 if few else 40)
    start_up(table, chance, 8 if few else 100)
    single(table, chance, 3 if few else 30)
    hanging(table, None)
    for second in (signal.SIGTERM, signal.SIGINT):
        hanging(table, second)
