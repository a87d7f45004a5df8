"""Many clients that send alerts and remember which were accepted. Each alert has a label n that no other one has."""
import json
import random
import socket
import threading
import time

from harness import alert, webhook

PADDING = "x" * 3000


class Load:
    """Runs from start() to stop(). accepted: {n: when it was sent}; refused counts answers that were no 202."""

    def __init__(self, platform, rng, first=0, acting=0.1, clients=12, group=20, padding=0.3, pause=0):
        self.platform, self.acting, self.group, self.padding, self.pause = platform, acting, group, padding, pause
        self.seeds = [rng.getrandbits(32) for _ in range(clients)]
        self.lock = threading.Lock()
        self.next = first
        self.accepted, self.statuses, self.wrong = {}, {}, []
        self.is_over = threading.Event()
        self.threads = []

    def start(self):
        self.token = self.platform.secret("webhook-token")
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed),), daemon=True) for seed in self.seeds]
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        return self

    @property
    def refused(self):
        return sum(n for status, n in self.statuses.items() if status != 202)

    def take_numbers(self, n):
        with self.lock:
            first, self.next = self.next, self.next + n
        return range(first, first + n)

    def body(self, rng, numbers):
        alerts = []
        for n in numbers:
            name = "Tell" if rng.random() < self.acting else "Nobody"
            padding = {"padding": PADDING[:rng.randrange(3000)]} if rng.random() < self.padding else None
            alerts.append(alert(name, annotations=padding, n=str(n)))
        return json.dumps(webhook(*alerts)).encode()

    def run(self, rng):
        connection = None
        while not self.is_over.is_set():
            numbers = self.take_numbers(rng.choice((1, 1, 1, self.group)))
            body, sent = self.body(rng, numbers), time.time()
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self.platform.port), timeout=30)
                status, answer = self.post(connection, body)
            except OSError:
                connection = connection.close() if connection else None
                self.is_over.wait(0.005)  # the power is gone, or it is not up yet
                continue
            self.note(numbers, sent, status, answer)
            self.is_over.wait(self.pause if status == 202 else 0.01)

    def note(self, numbers, sent, status, answer):
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status != 202:
                return
            self.accepted.update((n, sent) for n in numbers)
            if json.loads(answer)["accepted"] != len(numbers):
                self.wrong.append(answer)

    def post(self, connection, body):
        """(status, body) of one request; OSError where the connection ends before the answer has."""
        connection.sendall(b"POST /function/alerts HTTP/1.1\r\nHost: balm\r\nContent-Type: application/json\r\nAuthorization: Bearer "
                           + self.token.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self.receive(connection)
        head, _, rest = got.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(rest) < length:
            rest += self.receive(connection)
        return int(head.split(b" ", 2)[1]), rest

    @staticmethod
    def receive(connection):
        got = connection.recv(65536)
        if not got:
            raise ConnectionError("closed before the answer")
        return got
