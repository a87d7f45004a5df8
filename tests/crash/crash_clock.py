"""The wall clock is set back, forward, stopped and turned at random while alerts come in and bots act; a preloaded library moves it for the platform and
its bots alike (preload_clock.c), as it moves for all of a machine. The observer counts by the monotonic clock, which no jump moves.
"""
import http.client
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import bots
from harness import BUILD, PATIENCE, Platform, alert, wait_until, webhook

NAME = "clock"
PRELOAD = os.path.join(BUILD, "tests", "crash", "preload_clock.so")
HOUR, YEARS = 3600, 10 * 365 * 86400
JUMP_MIN, SETTLE = 5, 10  # functions/dispatcher: a jump, and how long nothing acts after it
COOLDOWN, RATE_MAX, RATE_PER = 4, 4, 30
LOOK = 1.5  # the platform looks at the clock at least so often, with what a busy machine adds
LEEWAY = 0.5  # what had been sent before a jump may begin a moment after it
TARGETS = 4
TICKS = """
- name: ticks
  schedule: '@every 4s'
  target: tick/one
  mode: act
  steps: [{bot: good, timeout: 2s}]
  guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}}
"""


class Clock:
    """The platform's wall clock, by its distance from the real one; and when it jumped."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "clock")
        with open(self.path, "wb") as f:
            f.write(bytes(4096))
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)
        self.offset, self.since, self.jumps = 0.0, time.monotonic(), []
        self.moves = [(self.since, 0.0)]  # when it was set, and to which distance
        self.stood, self.left = 0.0, 0.0  # the offset that last stood for a while, and when it was left

    def env(self, variable):
        libraries = [PRELOAD]
        if "ASAN_OPTIONS" in os.environ:  # its runtime wants to be the first
            libraries.insert(0, subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip())
        return {variable: ":".join(libraries), "BALM_TEST_CLOCK": self.path}

    def set(self, offset):
        by, now = offset - self.offset, time.monotonic()
        if now - self.since > LOOK:
            self.stood, self.left = self.offset, now
        self.offset, self.since = offset, now
        self.moves.append((now, offset))
        self.map[0:16] = struct.pack("=qq", int(offset * 1e9), 0)
        if abs(offset - self.stood) <= JUMP_MIN:  # there and back before anybody had to look: nothing was dated by it
            self.jumps = [jump for jump in self.jumps if jump < self.left]
        elif abs(by) > JUMP_MIN:
            self.jumps.append(now)

    def stop_for(self, seconds):
        """It stands still, and goes on from there: in the end it is late by as much."""
        self.map[8:16] = struct.pack("=q", time.time_ns() + int(self.offset * 1e9))
        time.sleep(seconds)
        self.offset -= seconds
        self.map[0:16] = struct.pack("=qq", int(self.offset * 1e9), 0)
        self.moves.append((time.monotonic(), self.offset))
        self.jumps.append(time.monotonic())

    def crept(self, since, until):
        """By how much it went ahead in between without a jump: so much less is a cooldown, which is counted by it."""
        start = [offset for at, offset in self.moves if at <= since][-1]
        by = max([offset for at, offset in self.moves if since < at <= until], default=start) - start
        return by if 0 < by <= JUMP_MIN else 0


class Load(threading.Thread):
    """Alerts on a few targets, each an incident of its own, all the time; what was accepted is noted."""

    def __init__(self, platform, per_second=10):
        super().__init__(daemon=True)
        self.platform, self.per_second, self.over, self.accepted, self.n = platform, per_second, threading.Event(), [], 0

    def post(self, name, target):
        self.n += 1
        firing = alert(name, n=target, number=str(self.n))
        connection = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=20 * PATIENCE)
        try:
            connection.request("POST", "/function/alerts", json.dumps(webhook(firing)), self.platform.bearer())
            if connection.getresponse().status == 202:
                self.accepted.append(str(self.n))
        except OSError:
            pass  # a connection that the jump cut: nothing was accepted
        finally:
            connection.close()

    def run(self):
        while not self.over.wait(1 / self.per_second):
            self.post("good", f"t{self.n % TARGETS}")
            if self.n % 10 == 0:
                self.post("slow", f"s{self.n % TARGETS}")
            if self.n % 40 == 0:
                self.post("close-at-once", f"c{self.n}")

    def end(self):
        self.over.set()
        self.join()


class Scene:
    def __init__(self, arguments=()):
        self.folder = tempfile.mkdtemp(prefix="balm-clock-")
        self.clock = Clock(self.folder)
        names = ["good", "slow", "close-at-once"]
        rate = f"{{max: {RATE_MAX}, per: {RATE_PER}s}}"
        books = bots.runbook("good", "2s", f"{COOLDOWN}s") + bots.runbook("slow", "2s", "1s", rate) + bots.runbook("close-at-once", "2s") + TICKS
        self.platform = Platform(self.folder, runbooks={"r.yaml": books}, functions=bots.functions_folder(self.folder, names),
                                 stack=bots.stack(self.folder, names, **self.clock.env("BALM_TEST_PRELOAD")), arguments=list(arguments), env=self.clock.env("LD_PRELOAD"))

    def end(self):
        if self.platform.process is not None:
            self.platform.kill()
        bots.left_behind(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


class Findings:
    """What an observer counts: marks of bots (monotonic) against the journal (what they belong to)."""

    def __init__(self, scene, load, known=None):
        self.known = known  # the intents whose outcome is asked for; None: of all
        marks = bots.marks(scene.folder)  # first: what has begun is on record
        self.records = scene.platform.records()
        self.intents = {r["intent"]: r for r in self.records if r["kind"] == "intent"}
        self.began = sorted(((m.at, self.intents[m.intent]) for m in marks if m.what == "began" and m.intent in self.intents), key=lambda pair: pair[0])
        self.ended = {m.intent: m.at for m in marks if m.what == "ended"}
        self.strangers = sum(m.intent not in self.intents for m in marks)
        self.clock, self.jumps, self.load = scene.clock, scene.clock.jumps, load

    def lost(self):
        there = {r["labels"].get("number") for r in self.records if r["kind"] == "signal"}
        return sum(n not in there for n in self.load.accepted)

    def first_begun(self):
        """Without the repeated attempts of an act."""
        seen = set()
        for at, intent in self.began:
            if intent["intent"] not in seen:
                seen.add(intent["intent"])
                yield at, intent

    def unsettled(self):
        """Acts that began while the clock had not settled."""
        return sum(any(jump + LEEWAY < at < jump + SETTLE - LEEWAY for jump in self.jumps) for at, _ in self.began)

    def cooled_too_little(self, allowance=0.0):
        last, n = {}, 0
        for at, intent in self.first_begun():
            if intent["function"] != "good" or intent["target"].startswith("tick/"):
                continue
            before = last.get(intent["target"])
            if before is not None and before[1] != intent["incident"]:
                n += at - before[0] < COOLDOWN - max(allowance, self.clock.crept(before[0], at)) - 0.1
            last[intent["target"]] = (self.ended.get(intent["intent"], at), intent["incident"])
        return n

    def too_often(self):
        n, by_target = 0, {}
        for at, intent in self.first_begun():
            if intent["function"] == "slow":
                times = by_target.setdefault(intent["target"], [])
                times.append(at)
                n += len(times) > RATE_MAX and at - times[-1 - RATE_MAX] < RATE_PER - 0.5
        return n

    def open_acts(self):
        ended = {r["intent"] for r in self.records if r["kind"] == "outcome"}
        return sum(intent not in ended for intent in self.intents if self.known is None or intent in self.known)


def found_at_last(scene, load, seconds):
    """Once the clock is right again every act must come to its end; the schedule goes on, and what it begins from here on is not waited for."""
    known = set(Findings(scene, load).intents)

    def look():
        found = Findings(scene, load, known)
        return found if found.open_acts() == 0 else None
    try:
        return wait_until(look, seconds, "every act has its outcome")
    except AssertionError as e:
        print(e)
        return Findings(scene, load, known)


def judge(table, what, scene, load, allowance=0.0):
    found = found_at_last(scene, load, 60)
    violated = {"alerts lost": found.lost(), "acts while unsettled": found.unsettled(), "cooldowns cut short": found.cooled_too_little(allowance),
                "rates exceeded": found.too_often(), "acts without intent": found.strangers, "acts without outcome": found.open_acts()}
    code = scene.platform.stop(seconds=60)
    faults = bots.journal_faults(scene.platform)
    if faults:
        print(faults)
    violated.update({"exit code": code, "faults of the journal": len(faults.splitlines())})
    bad = {name: n for name, n in violated.items() if n}
    if bad:
        print("\n".join(f"{at:.3f} {intent['target']} {intent['intent']}" for at, intent in found.began), "\njumps", found.jumps)
    acts = len(found.began)
    table.row(what, f"{len(load.accepted)} alerts, {acts} acts, {len(found.jumps)} jumps",
              ", ".join(f"{n} {name}" for name, n in bad.items()) or "0", not bad and acts > 0)


def under_load(table, what, turns, arguments=(), allowance=0.0):
    """turns: what to do with the clock while the load goes on."""
    scene = Scene(arguments)
    try:
        scene.platform.start()
        load = Load(scene.platform)
        load.start()
        time.sleep(2)
        turns(scene.clock)
        load.end()
        judge(table, what, scene, load, allowance)
    except Exception:
        print(scene.platform.log_text())
        raise
    finally:
        scene.end()


def one_jump(by):
    def turns(clock):
        clock.set(by)
        time.sleep(SETTLE + 6)
        clock.set(0)
        time.sleep(SETTLE + 6)
    return turns


def small_steps(clock):
    """Each too small to be a jump: together they must not add up to one that nobody sees."""
    for i in range(1, 8):
        clock.set(4 * i)
        time.sleep(0.7)
    clock.jumps.append(time.monotonic())
    time.sleep(SETTLE + 4)


def stopped(clock):
    clock.stop_for(8)
    time.sleep(SETTLE + 6)
    clock.set(0)
    time.sleep(SETTLE + 4)


def at_random(chance, n):
    def turns(clock):
        for _ in range(n):
            clock.set(chance.choice([-HOUR, -1, 0, 1, HOUR, YEARS, -YEARS, chance.uniform(-30, 30)]))
            time.sleep(chance.choice([0.05, 0.3, 1.5, 4, SETTLE + 3]))
        clock.set(0)
        time.sleep(SETTLE + 4)
    return turns


def across_restart(table, by, sig):
    """It jumps while no platform runs."""
    scene = Scene()
    try:
        p = scene.platform.start()
        load = Load(p)
        load.start()
        time.sleep(3)
        load.end()
        p.stop(sig)
        bots.left_behind(scene.folder)
        scene.clock.set(by)
        p.start()
        again = Load(p)
        again.n, again.accepted = load.n + 1, load.accepted
        again.start()
        time.sleep(SETTLE + 6)
        again.end()
        judge(table, f"the clock is {named(by)} while the platform is down ({signal.Signals(sig).name})", scene, again)
    except Exception:
        print(scene.platform.log_text())
        raise
    finally:
        scene.end()


def records_stay(table, by):
    """It jumps while no platform runs, and retention looks often: nothing of what was accepted may go as too old by that."""
    scene = Scene(["--retention-interval", "200ms", "--retention-age", "1m"])  # a segment is closed at an eighth of it
    try:
        p = scene.platform.start()
        load = Load(p)
        load.post("nobody acts on it", "t0")
        wait_until(lambda: len(segments(scene)) > 1, 30, "a segment is closed")
        p.stop()
        scene.clock.set(by)
        p.start()
        wait_until(lambda: any("far ahead of the newest record" in line.get("message", "") for line in p.log), 20, "retention doubts the clock")
        load.post("nobody acts on it", "t0")
        time.sleep(3)  # some looks
        lost = Findings(scene, load).lost()
        table.row(f"the clock is {named(by)} while the platform is down, and records are removed after a minute", f"{len(load.accepted)} alerts", str(lost), lost == 0)
    except Exception:
        print(scene.platform.log_text())
        raise
    finally:
        scene.end()


def segments(scene):
    return [name for name in os.listdir(os.path.join(scene.platform.data, "journal")) if name.endswith(".db") and name[0].isdigit()]


def named(by):
    names = {-HOUR: "set back by 1 h", -1: "set back by 1 s", HOUR: "set forward by 1 h", YEARS: "set forward by 10 years", -YEARS: "set back by 10 years"}
    return names[by]


def campaign(scale, seed, table):
    chance = random.Random(seed)
    if scale == "sample":
        under_load(table, "the clock jumps back and forth at random under load", at_random(chance, 8))
        across_restart(table, chance.choice([-HOUR, HOUR]), chance.choice([signal.SIGKILL, signal.SIGTERM]))
        records_stay(table, YEARS)
        return
    for by in (-HOUR, -1, HOUR, YEARS, -YEARS):
        under_load(table, f"the clock is {named(by)}, and right again 16 s later", one_jump(by), ["--retention-interval", "1s"])
    under_load(table, "the clock stops for 8 s, goes on late, is set right", stopped)
    under_load(table, "the clock steps forward by 4 s, seven times in 5 s", small_steps, allowance=JUMP_MIN)
    for _ in range(6):
        under_load(table, "the clock jumps back and forth at random under load", at_random(chance, 20))
    records_stay(table, YEARS)
    for by in (-HOUR, -1, HOUR, YEARS):
        for sig in (signal.SIGKILL, signal.SIGTERM):
            across_restart(table, by, sig)
