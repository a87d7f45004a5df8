"""Senders that note what they were promised: alerts answered with 202, and calls of a function."""
import http.client
import json
import random
import threading
import time

from acts import BOTS
from harness import PATIENCE, alert, rfc3339, webhook

PAUSE_S = 0.1  # at most, between two requests of a sender: the alerts of a life shall come in all along
CALLS_PAUSE_S = 0.2
CALL_MS_MAX = 300
AGAIN_S = 0.01  # while nobody listens
ACTING = 11     # one alert of so many leads to an act
RESOLVING = 5   # one request of so many is followed by the resolves
ACT_MS_MAX = 150


class Senders:
    """Threads that each keep a connection, and send the same again until it is answered."""

    def __init__(self, platform, n):
        self.platform = platform
        self.lock = threading.Condition()
        self.surprises = []  # answers that nobody should get
        self.cut = 0         # requests that were sent and not answered
        self.is_over = False
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(n)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def end(self):
        with self.lock:
            self.is_over = True
            self.lock.notify_all()
        for thread in self.threads:
            if thread.is_alive():
                thread.join()

    def _ask(self, connection, path, body, headers):
        """(connection to go on with, status or None, body)"""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=30 * PATIENCE)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return connection, response.status, response.read()
        except (OSError, http.client.HTTPException) as e:
            with self.lock:
                self.cut += not isinstance(e, ConnectionRefusedError)
            connection.close()
            time.sleep(AGAIN_S)
            return None, None, b""


class Load(Senders):
    """Alerts, singly and in groups, as many as allow() allowed: each until it is accepted, as Alertmanager does."""

    def __init__(self, platform, seed, senders=6):
        super().__init__(platform, senders)
        self.seed = seed
        self.accepted, self.resolved = set(), set()  # numbers of alerts that were answered with 202, firing and over
        self.made = self.allowed = 0
        self.idle = 0  # senders that have nothing to send

    def allow(self, n):
        with self.lock:
            self.allowed += n
            self.lock.notify_all()

    def is_under_way(self):
        with self.lock:
            return self.made < self.allowed or self.idle < len(self.threads)

    def make(self, number, name=None):
        """The alert of that number: of one of the bots' names, or one that nobody acts on."""
        rng = random.Random(self.seed * 1000003 + number)
        drawn = rng.choice(list(BOTS)) if rng.randrange(ACTING) == 0 else "Noise"
        return alert(name or drawn, annotations={"ms": str(rng.randrange(ACT_MS_MAX))}, x=str(number))

    def _resolve(self, alerts):
        """Those that nobody acts on: whether an act is still right is another test's."""
        return [dict(a, status="resolved", endsAt=rfc3339(time.time())) for a in alerts if a["labels"]["alertname"] == "Noise"]

    def take(self, n):
        """The next n numbers: they are the caller's to send, and to note once they are accepted."""
        with self.lock:
            first = self.made
            self.made += n
            self.allowed = max(self.allowed, self.made)
        return range(first, first + n)

    def note(self, numbers):
        with self.lock:
            self.accepted.update(numbers)

    def say(self):
        return f"{len(self.accepted)} alerts and {len(self.resolved)} resolves"

    def _next(self, rng, most):
        with self.lock:
            self.idle += 1
            while not self.is_over and self.made >= self.allowed:
                self.lock.wait()
            self.idle -= 1
            first = self.made
            self.made += 0 if self.is_over else min(self.allowed - self.made, rng.randint(1, most))
            return range(first, self.made)

    def _run(self, i):
        rng, connection = random.Random(self.seed + i), None
        while numbers := self._next(rng, 1 if i % 2 else 20):
            alerts = list(map(self.make, numbers))
            connection = self._insist(connection, alerts, numbers, self.accepted)
            over = self._resolve(alerts) if rng.randrange(RESOLVING) == 0 else []
            if over:
                connection = self._insist(connection, over, [int(a["labels"]["x"]) for a in over], self.resolved)
            time.sleep(rng.uniform(0, PAUSE_S))

    def _insist(self, connection, alerts, numbers, accepted):
        body, status = json.dumps(webhook(*alerts)), None
        while status in (None, 503) and not self.is_over:
            connection, status, answer = self._ask(connection, "/function/alerts", body, self.platform.bearer())
        if status == 202:
            with self.lock:
                accepted.update(numbers)
        elif not self.is_over:
            self.surprises.append(f"alerts {numbers} were answered with {status}: {answer[:200]}")
        return connection


class Calls(Senders):
    """Calls of `callee` without end: half of the senders wait for its answer, the others for a 202."""

    def __init__(self, platform, seed, senders=4):
        super().__init__(platform, senders)
        self.seed = seed
        self.served, self.accepted = set(), set()  # ids answered with 200, with 202
        self.refused = 0                           # answered with an error

    def _run(self, i):
        rng, connection, serial, is_async = random.Random(self.seed + i), None, 0, i % 2 == 1
        while not self.is_over:
            serial += 1
            id_, path = f"call-{i}-{serial}", "/async-function/callee" if is_async else "/function/callee"
            connection, status, answer = self._ask(connection, path, str(rng.randrange(CALL_MS_MAX)), {"X-Call-Id": id_})
            with self.lock:
                self.served.update([id_] if status == 200 else [])
                self.accepted.update([id_] if status == 202 else [])
                self.refused += status is not None and status >= 500
            if status == 200 and answer.decode() != id_:
                self.surprises.append(f"call {id_} was answered with {answer[:100]}")
            time.sleep(rng.uniform(0, CALLS_PAUSE_S if is_async else 0))

    def say(self):
        return (f"{len(self.accepted)} asynchronous calls accepted, {len(self.served)} synchronous served, {self.refused} answered with an error, "
                f"{self.cut} cut")
