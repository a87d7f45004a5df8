"""One installation through many power cuts: what it promised (202s, acts, secrets, functions), what is left of it, and what of that is wrong."""
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time

from harness import BALM, PATIENCE, stack_file, wait_until
from power_disk import PowerPlatform
from power_load import Load

RUNBOOKS = {"tell.yaml": """
name: tell
match: ['alertname="Tell"']
target: x/${labels.n}
mode: act
steps:
  - bot: notify
    with: {text: "${labels.n}"}
    verify: check
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}, max_in_flight: 64}
"""}
STACK = stack_file("echo", "notify").rstrip("\n") + "\n    secrets: [notify-url, notify-hmac-key]\n"
WITH_OPEN_ACTS = 4  # exit code of `balm audit verify`: genuine, and acts were under way
# What a start says of a disk that has less than it should.
ALARMS = ("snapshot not used", "the leaves were damaged and the journal is not: leaves are made anew",
          "a deployed function could not be started again", "acknowledged records are lost, staying closed")
# A record's time is taken when the request is read, its place in the journal a moment later.
ORDER_SECONDS = 0.2


class Receiver:
    """Whom the bot tells: remembers every act by its intent, outside of the platform and its disk. hold.clear(): answers when it is set again."""

    def __init__(self):
        receiver = self
        self.told, self.waiting = [], 0
        self.hold = threading.Event()
        self.hold.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                receiver.told.append(self.headers["Idempotency-Key"])
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.waiting += 1
                receiver.hold.wait(60)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *arguments: None  # a bot was killed in the middle of it
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Journal:
    """What `balm audit cat` and `verify` say of a data folder without a platform."""

    def __init__(self, data):
        cat = subprocess.run([BALM, "audit", "cat", "--data", data], capture_output=True, timeout=300 * PATIENCE)
        verify = subprocess.run([BALM, "audit", "verify", "--data", data], capture_output=True, timeout=300 * PATIENCE)
        lines = cat.stdout.splitlines()
        bad = verify.returncode not in (0, WITH_OPEN_ACTS)
        self.error = ((cat.stderr if cat.returncode else b"") + (verify.stdout + verify.stderr if bad else b"")).decode()
        self.begins = unix_seconds(json.loads(lines[0])["time"]) if lines else 0.0
        self.is_cut = b"removed by retention" in cat.stderr
        self.alerts = {int(n) for line in lines if b'"kind":"signal"' in line for n in re.findall(rb'"n":"(\d+)"', line)}
        self.intents = self.of_kind(lines, b"intent")
        self.outcomes = self.of_kind(lines, b"outcome")

    @staticmethod
    def of_kind(lines, kind):
        return {json.loads(line)["intent"] for line in lines if b'"kind":"' + kind + b'"' in line}

    def lacks(self, accepted):
        """Accepted alerts that are not there, but for those that retention has removed."""
        return [n for n, sent in accepted.items() if n not in self.alerts and not (self.is_cut and sent < self.begins + ORDER_SECONDS)]


def unix_seconds(text):
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float("0" + text[19:-1])


def files_of(folder):
    """{relative path: bytes} of what must outlive everything."""
    found = {}
    for below in ("secrets", "audit/key", "audit/key.pub", "functions"):
        top = os.path.join(folder, below)
        paths = [top] if os.path.isfile(top) else [os.path.join(at, name) for at, _, names in os.walk(top) for name in names]
        for path in paths:
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = f.read()
    return found


class Tally:
    """What is summed up over all series."""

    def __init__(self):
        self.instants = self.accepted = self.refused = self.acts = self.promises = self.lost = 0
        self.violations = []

    def violated(self, what):
        self.violations.append(" ".join(what.split())[:200])
        print("  " + what, flush=True)

    def what_is_lost(self):
        return self.lost or (self.violations[0] if self.violations else 0)


class Series:
    """One installation. `where` is on a disk of memory: the real one's syncs are not what is tested."""

    def __init__(self, where, name, rng, tally, arguments=(), acting=0.02):
        self.rng, self.tally, self.acting = rng, tally, acting
        self.receiver = Receiver()
        self.folder = os.path.join(where, name)
        self.platform = PowerPlatform(self.folder, runbooks=RUNBOOKS, stack=STACK, arguments=["--reserve-size", "4MiB", *arguments])
        self.accepted, self.promised, self.done = {}, {}, set()
        self.next, self.n_promises, self.n_told_seen = 0, 0, 0
        self.load = None

    # ---- one life of the platform ----

    def start(self, **control):
        """True when it is up; a start that needs a person is a violation."""
        try:
            self.platform.start(**control)
        except AssertionError as e:
            self.tally.violated(f"no start after a power cut: {e}")
            return False
        if not self.promised:
            self.promise_secrets()
        self.promised.update(files_of(self.platform.data))
        return True

    def start_and_cut(self, seconds, **control):
        """The power goes while it starts."""
        self.platform.start(wait=False, **control)
        wait_until(lambda: self.platform.disk.count("is_on"), 30, "the program has begun")
        time.sleep(seconds)
        self.cut()

    def begin_load(self):
        self.load = Load(self.platform, self.rng, first=self.next, acting=self.acting).start()

    def end_load(self):
        load, self.load = self.load.stop(), None
        self.next = load.next
        self.accepted.update(load.accepted)
        self.tally.accepted += len(load.accepted)
        self.tally.refused += load.refused
        for answer in load.wrong:
            self.tally.violated(f"a 202 that took only a part: {answer}")

    def promise_secrets(self):
        for name, value in (("notify-url", self.receiver.url), ("notify-hmac-key", "k3y")):
            status = self.platform.request("POST", "/system/secrets", {"name": name, "value": value}, self.platform.basic())[0]
            assert status in (201, 202), status

    def promise(self):
        """A secret and a function, answered: they are there from now on. The power may go meanwhile."""
        self.n_promises += 1
        name = f"promise-{self.n_promises}"
        try:
            headers = self.platform.basic()
            status = self.platform.request("POST", "/system/secrets", {"name": name, "value": name}, headers)[0]
            if status in (201, 202):
                self.promised["secrets/functions/" + name] = name.encode()
            status = self.platform.request("POST", "/system/functions", {"service": name, "image": "echo:latest"}, headers)[0]
            if status in (200, 202):
                self.promised["functions/" + name + ".json"] = None  # whatever is in it
                self.tally.promises += 1
        except OSError:
            pass  # no answer, no promise

    def accepts_again(self):
        """A 202 for what was sent from now on."""
        now = time.time()
        try:
            wait_until(lambda: next(reversed(self.load.accepted.values()), 0) > now, 60, "alerts are accepted again without a restart")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.platform.log_text()}") from e

    # ---- the power cut ----

    def cut(self):
        self.platform.cut()
        self.look_at_log()
        if self.load:
            self.end_load()
        self.tally.instants += 1
        self.look()

    def look(self):
        """At a copy: a reader of SQLite's files changes them."""
        copy = os.path.join(self.folder, "look")
        shutil.copytree(self.platform.data, copy)
        journal = Journal(copy)
        if journal.error and self.accepted:
            self.tally.violated(f"the journal does not verify: {journal.error}")
        lost = journal.lacks(self.accepted)
        self.tally.lost += len(lost)
        if lost:
            self.tally.violated(f"{len(lost)} accepted alerts are lost, such as {lost[0]}")
        self.look_at_acts(journal)
        self.look_at_promises(files_of(copy))
        shutil.rmtree(copy)

    def look_at_log(self):
        """Of the life that has just ended."""
        for line in self.platform.log:
            if line.get("message") in ALARMS or line.get("advice") == "run balm audit verify":
                self.tally.violated(f"it says: {json.dumps(line)}")

    def look_at_acts(self, journal):
        told = list(self.receiver.told)
        again = [intent for intent in told[self.n_told_seen:] if intent in self.done]
        if again:
            self.tally.violated(f"acts were run again whose outcome was recorded: {again[:3]}")
        orphans = set(told) - journal.intents
        if orphans and not journal.is_cut:
            self.tally.violated(f"acts without an intent: {list(orphans)[:3]}")
        self.tally.acts += len(told) - self.n_told_seen
        self.n_told_seen = len(told)
        self.done |= journal.outcomes

    def look_at_promises(self, found):
        for path, content in self.promised.items():
            if path not in found or content not in (None, found[path]):
                self.tally.violated(f"{path} is not what it was")

    # ---- the end ----

    def finish(self):
        """It goes on by itself: what was interrupted is brought to an end, and deciding again gives what was decided."""
        if not self.start():
            return
        p = self.platform
        wait_until(lambda: not {r["intent"] for r in p.records("intent")} - {r["intent"] for r in p.records("outcome")}, 120, "every intent has an outcome")
        self.look_at_acts(Journal(p.data))
        code = p.stop()
        self.look_at_log()
        if code != 0:
            self.tally.violated(f"exit code {code} at the end")
        if not Journal(p.data).is_cut:
            code, text, error = p.cli("audit", "refold", timeout=300)
            if code != 0:
                self.tally.violated(f"another decision: {text}{error}")

    def close(self):
        if self.load:
            self.load.stop()
        self.platform.kill()
        self.receiver.close()
        shutil.rmtree(self.folder)
