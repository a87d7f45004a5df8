"""What tells us of alerts fails: resolves that are lost, a Prometheus that dies, a pair of Alertmanagers of which one or the other is killed."""
import contextlib
import os
import random
import shutil
import tempfile
import time

from crash_storm import functions
from harness import Platform, alert, free_port, shared, stack_file, wait_until
from load import Ledger, metrics
from peers import MARGIN, Alertmanager, Line, Prometheus, Unavailable, ended, fires

RUNBOOK = """
name: sources
match: ['alertname=~"Lost|Pair|Dies"']
target: host/${labels.n}
mode: act
steps:
  - bot: ledger
    verify: VERIFY
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 20}
"""
BY_RESOLVE = "{resolve: {within: 10m}}"


class Stage:
    """A platform with the ledger bot, the way to it, and real sources; all of them end with it."""

    def __init__(self, verify):
        self.folder = tempfile.mkdtemp(prefix="balm-sources-")
        self.ending = contextlib.ExitStack()
        self.ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.ledger = shared(self.folder, "ledger")
        stack = stack_file("ledger") + f"    environment: {{ledger_file: {self.ledger}}}\n"
        self.p = Platform(self.folder, runbooks={"sources.yaml": RUNBOOK.replace("VERIFY", verify)}, stack=stack, functions=functions(self.folder))
        self.p.start()  # for its port and its secrets
        self.p.stop()
        self.line = Line(self.p.port)
        self.ending.callback(self.line.stop)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending.close()

    def alertmanager(self, **more):
        am = Alertmanager(self.folder, self.line.url, f"{self.p.data}/secrets/webhook-token", **more)
        am.start()
        self.ending.callback(am.stop)
        return am

    def start(self, *alertmanagers, arguments=MARGIN):
        if alertmanagers:
            self.p.arguments = ["--alertmanager", ",".join(am.url for am in alertmanagers), *arguments]
        self.p.start()
        self.ending.callback(self.p.stop)

    def acts(self):
        """How often each target was acted on, by what the bot wrote down."""
        counts = {}
        if os.path.exists(self.ledger):
            for _, _, _, target in Ledger(self.ledger).begun:
                counts[target] = counts.get(target, 0) + 1
        return counts

    def wait_acts(self, expected, seconds, what):
        wait_until(lambda: all(self.acts().get(target, 0) >= n for target, n in expected.items()), seconds, what)

    def closed(self):
        states = {}
        for r in self.p.records("closed"):
            states[r["state"]] = states.get(r["state"], 0) + 1
        return states


def lost_resolves_asked(n, table):
    """Deliveries of resolves vanish on the way; Alertmanager, asked, no longer lists them. The same alerts again: each acts again."""
    with Stage(BY_RESOLVE) as stage:
        am = stage.alertmanager()
        stage.start(am)
        first = [fires("Lost", n=str(i)) for i in range(n)]
        am.post(*first)
        stage.wait_acts({f"host/{i}": 1 for i in range(n)}, 60, "the first acts")
        stage.line.loses = True
        am.post(*(ended(a) for a in first))
        wait_until(lambda: stage.closed().get("unknown", 0) == n, 60, "the lists without them end them")
        stage.line.loses = False
        am.post(*(fires("Lost", since=time.time(), n=str(i)) for i in range(n)))
        stage.wait_acts({f"host/{i}": 2 for i in range(n)}, 60, "they act again")
        closed, wrong = stage.closed(), sum(count != 2 for count in stage.acts().values())
        table.row("sources: lost resolve, then the same alert; Alertmanager is asked", f"{n} alerts, each acted on twice; closed {closed}",
                  f"{wrong} acted on otherwise, {closed.get('healed', 0)} called healed", wrong == 0 and set(closed) == {"unknown"})


def lost_resolves_unasked(n, rng, table):
    """The same with nobody to ask: that it began later says that its resolve was lost."""
    with Stage(BY_RESOLVE) as stage:
        stage.start()
        began = time.time() - 3600
        alerts = [alert("Lost", starts_at=began + rng.random(), n=str(i)) for i in range(n)]
        stage.p.post_alerts(*alerts)
        stage.wait_acts({f"host/{i}": 1 for i in range(n)}, 60, "the first acts")
        stage.p.post_alerts(*alerts)  # Alertmanager repeats what fires: nothing new
        stage.p.post_alerts(*(alert("Lost", starts_at=began + 120 + 600 * rng.random(), n=str(i)) for i in range(n)))
        stage.wait_acts({f"host/{i}": 2 for i in range(n)}, 60, "they act again")
        closed, wrong = stage.closed(), sum(count != 2 for count in stage.acts().values())
        table.row("sources: lost resolve, then the same alert; nobody is asked", f"{n} alerts, each acted on twice; closed {closed}",
                  f"{wrong} acted on otherwise, {closed.get('healed', 0)} called healed", wrong == 0 and set(closed) == {"unknown"})


def dead_prometheus(n, rng, table):
    """Killed while its alerts fire, after the acts on them: Alertmanager lets them lapse and says resolved. That heals nothing."""
    rules = "groups: [{name: g, rules: [" + ", ".join(
        f"{{alert: Dies, expr: 'vector(1)', labels: {{n: \"{i}\"}}}}" for i in range(n)) + "]}]\n"
    with Stage(BY_RESOLVE) as stage:
        am = stage.alertmanager()
        stage.start(am)
        prometheus = Prometheus(stage.folder, rules, free_port(), am.port, arguments=["--rules.alert.resend-delay=1s"])
        prometheus.start()
        stage.ending.callback(prometheus.stop)
        stage.wait_acts({f"host/{i}": 1 for i in range(n)}, 60, "the acts")
        time.sleep(rng.random() * 2)  # some way into its rounds
        prometheus.process.kill()
        prometheus.process.wait()
        wait_until(lambda: sum(stage.closed().values()) == n, 90, "all of them have ended")
        closed, resolved = stage.closed(), sum(r["status"] == "resolved" for r in stage.p.records("signal"))
        verified = sum(r.get("ok", False) for r in stage.p.records("verified"))
        table.row("sources: Prometheus is killed while its alerts fire", f"{n} alerts, acted on; closed {closed}",
                  f"{closed.get('healed', 0)} healed, {resolved} resolved, {verified} verified", set(closed) == {"unknown"} and resolved == verified == 0)


class Pair:
    """Two Alertmanagers in a mesh, of which any may be killed and started again."""

    def __init__(self, stage, rng):
        ports = free_port(), free_port()
        self.stage, self.rng, self.dead, self.kills = stage, rng, None, 0
        self.both = [stage.alertmanager(name=f"am{i}", cluster_port=ports[i], cluster_peers=[ports[1 - i]]) for i in (0, 1)]
        for am in self.both:
            wait_until(lambda: am.mesh() == (2, "ready"), 60, "the mesh is whole and settled")

    def kill_one(self):
        if self.dead is None:
            self.dead = self.rng.choice(self.both)
            self.dead.process.kill()
            self.dead.process.wait()
            self.kills += 1

    def raise_it(self):
        if self.dead is not None:
            self.dead.start()
            self.dead = None

    def post(self, *alerts):
        """As Prometheus: to each of them that is there."""
        for am in self.both:
            if am is not self.dead:
                am.post(*alerts)

    def deliver_twice(self, *alerts):
        """While the receiver fails, both try; once it does not, both deliver: the doubles of a pair."""
        self.stage.line.fails, alive = True, 2 - (self.dead is not None)
        self.stage.line.senders.clear()
        self.post(*alerts)
        wait_until(lambda: len(self.stage.line.senders) >= alive, 60, "all of them try")
        self.stage.line.fails = False


def pair_round(pair, number, per_round):
    """Some alerts; one of the pair is killed before, between or after, or not at all, and comes back before or behind their end."""
    alerts = [fires("Pair", since=time.time(), n=f"{number}-{i}") for i in range(per_round)]
    when = pair.rng.choice(["before", "between", "after", "never"])
    if when == "before":
        pair.kill_one()
    pair.deliver_twice(*alerts)
    if when == "between":
        pair.kill_one()
    pair.stage.wait_acts({f"host/{a['labels']['n']}": 1 for a in alerts}, 90, f"the acts of round {number}")
    if when == "after":
        pair.kill_one()
    if pair.rng.random() < .5:
        pair.raise_it()
    pair.post(*(ended(a) for a in alerts))
    pair.raise_it()
    return len(alerts)


def killed_pair(rounds, rng, table):
    with Stage("check") as stage:
        pair = Pair(stage, rng)
        # An Alertmanager tries for 10 s at least, and its peer for 15 s more, with what it knew at first: a margin below that would end an alert
        # as unknown whose old "firing" is still on its way, and that would open it anew.
        stage.start(*pair.both, arguments=[*MARGIN[:-1], "60s"])
        sent = sum(pair_round(pair, number, 5) for number in range(rounds))
        wait_until(lambda: len({r["incident"] for r in stage.p.records("signal") if r["status"] == "firing"}) >= sent, 30, "all of them are recorded")
        time.sleep(3)  # two group intervals: whatever is still said twice is said now
        doubles = metrics(stage.p)['balm_alerts_total{result="duplicate"}']
        acts, firing = stage.acts(), [r for r in stage.p.records("signal") if r["status"] == "firing"]
        wrong = sum(count != 1 for count in acts.values())
        table.row("sources: a pair of Alertmanagers, each alert twice, one or the other killed",
                  f"{sent} alerts in {rounds} rounds, {pair.kills} kills, {doubles:.0f} doubles came",
                  f"{sent - len(acts)} not acted on, {wrong} acted on more than once, {len(firing) - sent} opened twice",
                  len(acts) == sent and wrong == 0 and len(firing) == sent and doubles > 0)


def attempt(scene, *arguments):
    """One that does not come to its end fails by itself, and the others go on."""
    table = arguments[-1]
    try:
        scene(*arguments)
    except (AssertionError, Unavailable) as e:
        table.row(f"sources: {scene.__name__}", "did not come to its end", str(e).splitlines()[0], False)


def campaign(scale, seed, table):
    rng, whole = random.Random(seed), scale == "whole"
    attempt(lost_resolves_unasked, 200 if whole else 50, rng, table)
    attempt(lost_resolves_asked, 100 if whole else 20, table)
    for _ in range(3 if whole else 1):
        attempt(dead_prometheus, 10, rng, table)
    attempt(killed_pair, 25 if whole else 4, rng, table)
