"""A platform whose acts are counted outside of it (actor.c), and what it promises held against that count and its own journal."""
import calendar
import collections
import json
import os
import shutil
import time

from harness import BUILD, Platform, shared, shared_file, stack_file, wait_until

BOTS = {"Rerun": "rerunner", "Reread": "rereader", "Escalate": "escalator"}
RUNBOOK = """
- name: BOT
  match: ['alertname="ALERT"']
  target: thing/${labels.x}
  mode: act
  steps: [{bot: BOT, with: {ms: "${annotations.ms}"}, verify: check, timeout: 20s}]
  guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 100}
"""
ATTEMPTS_MAX = 5  # of the queue
Step = collections.namedtuple("Step", "word bot id attempt ns")


class ActingPlatform(Platform):
    """With the bots of actor.c, which write down what they do; its executables lie in its own folder, so its processes are known by that path."""

    def __init__(self, folder, arguments=(), env=None):
        functions, self.marks, self.acts = os.path.join(folder, "functions"), shared(folder, "marks"), shared_file(folder, "acts")
        os.makedirs(functions)
        os.makedirs(self.marks)
        os.chmod(self.marks, 0o777)
        for name in (*BOTS.values(), "callee"):
            shutil.copy(os.path.join(BUILD, "tests", "crash", "actor"), os.path.join(functions, name))
        stack = stack_file(*BOTS.values(), "callee").replace(
            ":latest\n", f":latest\n    environment: {{acts_log: {self.acts}, acts_marks: {self.marks}}}\n")
        runbooks = "".join(RUNBOOK.replace("BOT", bot).replace("ALERT", name) for name, bot in BOTS.items())
        super().__init__(folder, runbooks={"acts.yaml": runbooks}, stack=stack, functions=functions, arguments=arguments, env=env)

    def steps(self):
        """What the bots wrote down, in order."""
        if not os.path.exists(self.acts):
            return []
        with open(self.acts) as f:
            lines = f.read().split("\n")[:-1]  # the last one may be under way: a write that crosses a page is seen in parts
        return [Step(word, bot, id_, int(attempt), int(ns)) for word, bot, id_, attempt, ns in map(str.split, lines)]

    def others(self, name=""):
        """{(pid, start time): command} of the processes of this folder, but for the platform itself: functions (of that name), their shims, and
        writers of snapshots."""
        found = {}
        mine = self.process.pid if self.process is not None else 0
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    command = f.read().replace(b"\0", b" ").decode(errors="replace")
                with open(f"/proc/{pid}/stat") as f:
                    stat = f.read().rpartition(")")[2].split()
            except OSError:
                continue
            if pid != mine and stat[0] not in "ZX" and os.path.join(self.functions, name) in command:
                found[pid, stat[19]] = command
        return found

    def status(self):
        status, _, body = self.request("GET", "/function/dispatcher/status", headers=self.basic())
        if status != 200:
            raise OSError(f"status: {status} {body}")
        return json.loads(body)

    def is_quiet(self, function=None):
        """No work is pending, of that function or at all."""
        status = self.status()
        counted = [q for q in status["queues"] if q["function"] == function] if function else [status["backlog"]]
        return not any(q[word] for q in counted for word in ("ready", "leased", "waiting"))

    def wait_quiet(self, seconds=120):
        wait_until(self.is_quiet, seconds, "all work has its end")


def lost_alerts(records, load):
    """What was answered with 202 and is not in the journal exactly once."""
    for status, accepted in (("firing", load.accepted), ("resolved", load.resolved)):
        signals = collections.Counter(int(r["labels"]["x"]) for r in records
                                      if r["kind"] == "signal" and r["status"] == status and "x" in r.get("labels", ()))
        yield from (f"alert {x} ({status}) was answered with 202 and is lost" for x in accepted if x not in signals)
        yield from (f"alert {x} ({status}) is in the journal {n} times" for x, n in signals.items() if n != 1)


def nanoseconds(rfc3339):
    whole, _, fraction = rfc3339.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(fraction.ljust(9, "0"))


class Act:
    """One intent: what the journal says of it, and what its bot wrote down."""

    def __init__(self, intent):
        self.intent, self.bot = intent, intent["function"]
        self.retries, self.outcomes, self.steps = [], [], []
        self.is_escalated = False

    def attempts(self, word):
        return [s.attempt for s in self.steps if s.word == word]

    def wrongs(self, marks):
        """What of it breaks a promise."""
        if len(self.outcomes) != 1:
            return [f"{len(self.outcomes)} outcomes"]
        return [*self._wrongs_of_order(), *self._wrongs_of_attempts(), *self._wrongs_of_end(marks), *self._wrongs_by_on_unknown()]

    def _wrongs_of_order(self):
        runs = [s.ns for s in self.steps if s.word != "end"]
        if any(ns < nanoseconds(self.intent["time"]) for ns in runs):
            yield "run before it was intended"
        if any(ns > nanoseconds(self.outcomes[0]["time"]) for ns in runs):
            yield f"run again after its outcome ({self.outcomes[0]['state']}) was recorded"

    def _wrongs_of_attempts(self):
        """Each attempt that a bot saw is one of the journal, and was seen once."""
        recorded = {r["attempt"] for r in self.retries} | {self.outcomes[0]["attempt"]}
        for attempt, n in collections.Counter(self.attempts("begin") + self.attempts("found")).items():
            if n > 1:
                yield f"attempt {attempt} was run {n} times"
            if attempt not in recorded:
                yield f"attempt {attempt} is not in the journal"

    def _wrongs_of_end(self, marks):
        outcome = self.outcomes[0]
        if outcome["state"] in ("done", "unchanged"):
            is_there = self.intent["intent"] in marks if self.bot == "rereader" else outcome["attempt"] in self.attempts("end")
            if not is_there:
                yield "recorded as done, and it was not"
        elif outcome["state"] == "dead":
            if outcome.get("code") != "UNKNOWN" or outcome["attempt"] != ATTEMPTS_MAX:
                yield f"given up after attempt {outcome['attempt']} ({outcome.get('code')})"
        elif outcome["state"] != "unknown":
            yield f"ended as {outcome['state']}: {outcome.get('message')}"

    def _wrongs_by_on_unknown(self):
        """Dead: the platform was killed each time before it could say so."""
        state = self.outcomes[0]["state"]
        begun = self.attempts("begin")
        cut = set(begun) - set(self.attempts("end"))
        is_interrupted = bool(cut) or any(r.get("code") == "UNKNOWN" for r in self.retries)
        if self.bot != "rerunner" and len(begun) > 1:
            yield f"had its effect {len(begun)} times"
        if self.bot == "escalator" and is_interrupted and state not in ("unknown", "dead"):
            yield f"was interrupted, must not be asked again, and ended as {state}"
        if self.bot != "escalator" and state == "unknown":
            yield "was interrupted and not asked again"
        if self.is_escalated != (state in ("unknown", "dead")):
            yield f"ended as {state}, and a person was{'' if self.is_escalated else ' not'} asked"


def acts_of(records, steps):
    """({intent id: Act}, what bots did without an intent)."""
    acts = {r["intent"]: Act(r) for r in records if r["kind"] == "intent"}
    escalated = {r["incident"] for r in records if r["kind"] == "escalated"}
    for r in records:
        if r["kind"] in ("outcome", "retry") and r["intent"] in acts:
            (acts[r["intent"]].outcomes if r["kind"] == "outcome" else acts[r["intent"]].retries).append(r)
    for act in acts.values():
        act.is_escalated = act.intent["incident"] in escalated
    unasked = [f"{s.bot} acted for {s.id}, which nobody intended" for s in steps if s.bot in BOTS.values() and s.id not in acts]
    for s in steps:
        if s.id in acts:
            acts[s.id].steps.append(s)
    return acts, unasked


def wrong_acts(acts, marks):
    return [f"{act.bot} {id_}: {wrong}" for id_, act in acts.items() for wrong in act.wrongs(marks)]


def wrong_calls(records, steps, accepted, runs_max=ATTEMPTS_MAX):
    """Asynchronous calls of `callee`, by the id that the caller gave: each that was answered with 202 came to one end."""
    calls = {r["headers"]["x-call-id"]: r["intent"] for r in records if r["kind"] == "call"}
    ends = collections.defaultdict(list)
    for r in records:
        if r["kind"] == "outcome":
            ends[r["intent"]].append(r["state"])
    runs = collections.Counter(s.id for s in steps if s.word == "begin")
    ended = {s.id for s in steps if s.word == "end"}
    for id_ in accepted:
        states = ends[calls.get(id_)]
        if len(states) != 1 or states[0] not in ("done", "unknown", "dead"):
            yield f"call {id_} was answered with 202 and ended as {states or 'nothing'}"
        elif states[0] == "done" and id_ not in ended:
            yield f"call {id_} is recorded as done, and it was not"
        if runs[id_] > runs_max:
            yield f"call {id_} was run {runs[id_]} times"


def wrong_answers(steps, served):
    """Of synchronous calls: who was answered was served."""
    ended = {s.id for s in steps if s.word == "end"}
    return [f"call {id_} was answered with 200 and did not come to its end" for id_ in served - ended]
