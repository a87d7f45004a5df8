"""kill -9 of the platform at random instants and at every boundary of what it writes, of bots in the middle of acts, and of the gateway while
functions run.

The bots write down by themselves what they do (actor.c), and the senders note what they were promised (senders.py); at the end both are held against
the journal: no accepted alert is lost, no bot acts without an intent, none is asked again once its outcome is recorded, interrupted acts end as
their bot's on_unknown says, nothing is left behind, the log is genuine and complete, and folding it again gives the same.
"""
import collections
import concurrent.futures
import os
import random
import shutil
import signal
import struct
import tempfile
import time

import acts
from harness import BUILD, alert, wait_until, webhook
from lives import Lives, report, say
from senders import Calls

# ---- the platform, at random instants ----


def live_and_die(lives, share):
    """One life: most are killed while alerts come in and acts run, some while they start, some only once all work is done. Whether it was killed
    while alerts came in."""
    chance = lives.rng.random()
    lives.start(wait=chance > 0.15)
    lives.load.allow(share)
    time.sleep(lives.rng.uniform(0, 0.3))
    if chance > 0.9:
        lives.p.wait_quiet()
        lives.keep_checkpoint()
    is_busy = lives.load.is_under_way()
    lives.kill()
    return is_busy


def random_instants(scale, seed, table):
    kills, alerts = (200, 20000) if scale == "whole" else (15, 1500)
    with Lives(seed, ["--snapshot-every", "300"]) as lives:
        lives.p.start()
        lives.load.start()
        lives.kill()
        busy = 0
        while lives.kills < kills:
            busy += live_and_die(lives, alerts // kills)
        lives.load.allow(alerts - lives.load.allowed)
        lives.start()
        lives.insist(lambda: lives.load.surprises or not lives.load.is_under_way())
        lives.p.wait_quiet()
        found = lives.hold_to_promises()
        report(table, "kill -9 of the platform at random instants",
               f"{lives.kills} kills, {busy} of them while alerts came in; {lives.load.say()}, {say(found)}", lives.wrongs)


# ---- the platform, at every call that changes a file ----

SCENARIOS = {  # what: arguments, and how many alerts of before it starts on
    "a first start": (["--retention-size", "1MiB", "--retention-interval", "24h"], 0),
    "a start that removes old records": (["--retention-size", "1MiB", "--retention-interval", "100ms"], 90),
}
SMALL = ["--snapshot-every", "10", "--reserve-size", "1MiB"]
PADDING = "x" * 15000


class Counter:
    """The file that preload_kill.c counts in."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(4096))

    def read(self):
        with open(self.path, "rb") as f:
            content = f.read()
        return struct.unpack("<Q", content[:8])[0], content[8:].split(b"\0")[0].decode()


def post(lives, n, name=None, **annotations):
    """One request of n alerts, until it is accepted."""
    numbers = lives.load.take(n)
    alerts = [lives.load.make(number, name) for number in numbers]
    for one in alerts:
        one["annotations"].update(annotations)
    lives.insist(lambda: lives.p.request("POST", "/function/alerts", webhook(*alerts), lives.p.bearer())[0] == 202)
    lives.load.note(numbers)


def is_ready(lives):
    line = lives.p.find_log("ready")
    if line:
        lives.p.port = line["port"]
    return line


def go_through(lives, is_cut):
    """Start, forget old records, accept, decide, act, record, snapshot, change the segment, serve a call, stop. Returns the exit code."""
    lives.p.start(wait=False)
    lives.insist(lambda: is_ready(lives))
    lives.insist(lambda: not is_cut or lives.p.status()["store"]["first"] > 1)
    for name in (*acts.BOTS, "Noise"):
        post(lives, 1, name)
    lives.insist(lives.p.is_quiet)
    post(lives, 6, "Noise", padding=PADDING)
    post(lives, 20)
    lives.insist(lambda: lives.p.request("POST", "/async-function/callee", "5", {"X-Call-Id": "call-0"})[0] == 202)
    lives.insist(lives.p.is_quiet)
    return lives.p.stop()


def go_on(lives, is_whole):
    """Without the library, to the end."""
    lives.p.env.pop("LD_PRELOAD", None)
    lives.start()
    lives.p.wait_quiet()
    lives.hold_to_promises(is_whole)
    lives.wrongs += acts.wrong_calls(lives.p.records(), lives.p.steps(), ["call-0"])


def die_at(seed, at, when, arguments, template):
    """(what went wrong, calls that were counted, kills) of a platform that is killed at that call; at 0: of one that lives."""
    with Lives(seed + at, SMALL + arguments, template=template) as lives:
        counter = Counter(os.path.join(lives.folder, "count"))
        lives.p.env.update(LD_PRELOAD=os.path.join(BUILD, "tests", "crash", "preload_kill.so"), KILL_DIR=lives.p.data, KILL_COUNT=counter.path,
                           KILL_AT=str(at), KILL_WHEN=when, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        try:
            code = go_through(lives, template is not None)
            if code != 0:
                lives.kill(code)
            go_on(lives, template is None)
        except AssertionError as e:
            lives.wrongs.append(str(e))
        calls, what = counter.read()
        if lives.kills != (0 < at <= calls):
            lives.wrongs.append(f"died {lives.kills} times")
        return [f"killed {when} call {at} ({what}): {wrong}" for wrong in lives.wrongs], calls, lives.kills


def make_template(folder, seed, n):
    """A journal of n alerts that fill more than it may hold, on which a platform was stopped."""
    with Lives(seed, SMALL + ["--retention-size", "16MiB"]) as lives:
        lives.p.start()
        for i in range(n):
            lives.p.post_alerts(alert("Old", annotations={"padding": PADDING}, old=str(i)))
        lives.p.stop()
        return shutil.copytree(lives.p.data, os.path.join(folder, "template"))


def boundaries(what, scale, seed, table):
    arguments, n_old = SCENARIOS[what]
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="balm-kill-") as folder:
        template = make_template(folder, seed, n_old) if n_old else None
        wrongs, calls, _ = die_at(seed, 0, "before", arguments, template)
        # Between two calls: once as the end of the first, and at each second one as the beginning of, or in the middle of, the next.
        whole = [(at, when) for at in range(1, calls + 1) for when in ("after", ("before", "within")[(at + seed) % 2])]
        chosen = whole if scale == "whole" else rng.sample(whole, 12)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda one: die_at(seed, *one, arguments, template), chosen))
    for result in results:
        wrongs += result[0]
    report(table, f"kill -9 before, within or after each call that changes a file: {what}",
           f"{calls} calls, {sum(kills for *_, kills in results)} kills", wrongs)


# ---- bots, in the middle of acts ----


def held_calls(lives, calls, runs_max):
    steps = lives.p.steps()
    return [*calls.surprises, *acts.wrong_calls(lives.p.records(), steps, calls.accepted, runs_max), *acts.wrong_answers(steps, calls.served)]


def is_at_work(p, bot, since_ns):
    """Since then it has ended something, and is at something else: a bot that dies at once each time is not started again at once."""
    words = collections.Counter((s.word, s.id, s.attempt) for s in p.steps() if s.bot == bot and s.ns > since_ns)
    open_ = [key for key in words if key[0] == "begin" and not words[("end", *key[1:])]]
    return open_ and any(word == "end" for word, *_ in words)


def kill_at_work(lives, bot, since_ns):
    """The function's process or its shim, once something of it is under way. Whether there was something."""
    wait_until(lambda: is_at_work(lives.p, bot, since_ns) or lives.p.is_quiet(bot), 120, f"{bot} is at work")
    if not is_at_work(lives.p, bot, since_ns):
        return False
    time.sleep(lives.rng.uniform(0, 0.1))
    victims = sorted(lives.p.others(bot))
    if victims:
        os.kill(lives.rng.choice(victims)[0], signal.SIGKILL)
    return bool(victims)


def kill_bots(scale, seed, table):
    kills = 200 if scale == "whole" else 12
    with Lives(seed) as lives:
        lives.p.start()
        calls = Calls(lives.p, seed)
        calls.start()
        killed = collections.Counter()
        since_ns = collections.Counter()
        while killed.total() < kills:
            name, bot = lives.rng.choice((*acts.BOTS.items(), (None, "callee")))
            for _ in range(5 if name else 0):
                post(lives, 1, name, ms=str(lives.rng.randrange(800)))
            if kill_at_work(lives, bot, since_ns[bot]):
                since_ns[bot] = time.time_ns()
                killed[bot] += 1
        calls.end()
        lives.p.wait_quiet(300)
        wrongs = held_calls(lives, calls, runs_max=1)
        found = lives.hold_to_promises()
        report(table, "kill -9 of bots and functions at work",
               f"{killed.total()} kills ({', '.join(f'{n} {bot}' for bot, n in sorted(killed.items()))}); {say(found)}; {calls.say()}", lives.wrongs + wrongs)


# ---- the gateway, while functions run ----


def kill_gateway(scale, seed, table):
    kills = 100 if scale == "whole" else 8
    with Lives(seed) as lives:
        lives.p.start()
        calls = Calls(lives.p, seed)
        calls.start()
        while lives.kills < kills:
            post(lives, 3, lives.rng.choice(list(acts.BOTS)))
            time.sleep(lives.rng.uniform(0, 0.4))
            lives.kill()
            lives.start()
        calls.end()
        lives.insist(lambda: lives.p.request("POST", "/function/callee", "1")[0] == 200)
        lives.p.wait_quiet(300)
        wrongs = held_calls(lives, calls, acts.ATTEMPTS_MAX)
        found = lives.hold_to_promises()
        report(table, "kill -9 of the gateway while functions run",
               f"{lives.kills} kills; {calls.say()}; {say(found)}", lives.wrongs + wrongs)


def campaign(scale, seed, table):
    random_instants(scale, seed, table)
    for what in SCENARIOS:
        boundaries(what, scale, seed, table)
    kill_bots(scale, seed, table)
    kill_gateway(scale, seed, table)
