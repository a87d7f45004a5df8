"""Requests at a steady rate, whatever becomes of them: a sender in a process of its own, which counts what did not come back as it should.

    with Pace(port, "/function/echo", per_second=2000) as pace: …
    pace.sent, pace.failures, pace.late
"""
import collections
import json
import os
import selectors
import socket
import subprocess
import sys
import time

CONNECTIONS = 64
ANSWER_S = 20


class _Connection:
    def __init__(self, port):
        self.port, self.socket, self.since = port, None, None
        self.answer = b""

    def send(self, request):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer, self.since = b"", time.monotonic()
        self.socket.sendall(request)

    def read(self):
        """What is wrong with the answer, "" if nothing is, None if it is not whole yet."""
        got = self.socket.recv(65536)
        if not got:
            return "hung up"
        self.answer += got
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return None
        length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if len(body) < length[0]:
            return None
        if b" 200 " in head[:16]:
            return "" if body == b"x" * 64 else "another body"
        return (head[9:12] + b" " + body[:120]).decode(errors="replace").strip()


def run(port, path, per_second):
    """Until standard input ends."""
    request = f"POST {path} HTTP/1.1\r\nHost: balm\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n".encode() + b"x" * 64
    free, selector = [_Connection(port) for _ in range(CONNECTIONS)], selectors.DefaultSelector()
    failures, latencies, busy = collections.Counter(), [], 0
    sent = late = 0
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    began, is_over = time.monotonic(), False
    while not is_over or busy:
        now = time.monotonic()
        while not is_over and sent < (now - began) * per_second and free:
            c = free.pop()
            fresh = c.socket is None
            c.send(request)
            if fresh:
                selector.register(c.socket, selectors.EVENT_READ, c)
            sent, busy = sent + 1, busy + 1
        if not free and (now - began) * per_second - sent > per_second / 10:  # not behind by more than 100 ms, or it is no steady rate
            began, late = now - sent / per_second, late + 1
        for key, _ in selector.select(0.0005):
            c = key.data
            if c is None:
                is_over = True
                selector.unregister(sys.stdin)
                continue
            wrong = c.read()
            if wrong is None:
                continue
            latencies.append(time.monotonic() - c.since)
            if wrong:
                failures[wrong] += 1
                selector.unregister(c.socket)
                c.socket.close()
                c.socket = None
            free.append(c)
            busy -= 1
        if is_over and time.monotonic() - now > ANSWER_S:
            failures["no answer"] += busy
            break
    latencies.sort()
    print(json.dumps({"sent": sent, "failures": dict(failures), "late": late, "seconds": now - began,
                      "p99_ms": latencies[len(latencies) * 99 // 100] * 1000 if latencies else 0,
                      "max_ms": latencies[-1] * 1000 if latencies else 0}))


class Pace:
    def __init__(self, port, path, per_second):
        self.command = [sys.executable, os.path.abspath(__file__), str(port), path, str(per_second)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_):
        out, _ = self.process.communicate()
        told = json.loads(out)
        self.sent, self.failures, self.late, self.seconds = told["sent"], told["failures"], told["late"], told["seconds"]
        self.p99_ms, self.max_ms = told["p99_ms"], told["max_ms"]
        print(f"\n{self.sent} requests in {self.seconds:.1f} s, {self.sent / max(self.seconds, 0.001):.0f}/s, p99 {self.p99_ms:.1f} ms, "
              f"max {self.max_ms:.0f} ms, failed: {self.failures or 'none'}", flush=True)


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
