"""Attacks by connections: slow ones, silent ones, thousands of them, and requests by the thousand on one."""
import socket
import time

from hostile_peers import MIB, Others, close_all, is_cut, report, reset_close, vanish
from harness import PATIENCE, wait_until

HEAD = b"POST /function/echo HTTP/1.1\r\nHost: h\r\n"
BODY_LIMIT = 8 * MIB


def quietly(step):
    """What an attacker's own socket may say is not of interest."""
    try:
        return step()
    except OSError:
        return None


def all_cut(sockets, seconds):
    """How many of them are still open at the end."""
    left = list(sockets)
    end = time.monotonic() + seconds * PATIENCE
    while left and time.monotonic() < end:
        left = [s for s in left if not is_cut(s)]
        time.sleep(0.05)
    return len(left)


def drip(sockets, texts, seconds, pace_s):
    """One byte of texts[i] to sockets[i] at each beat, for so long or until all are cut."""
    at, left = 0, list(zip(sockets, texts))
    end = time.monotonic() + seconds * PATIENCE
    for s in sockets:
        s.setblocking(False)
    while left and time.monotonic() < end:
        left = [(s, text) for s, text in left if not is_cut(s) and quietly(lambda s=s, text=text: s.send(text[at % len(text):at % len(text) + 1])) is not None]
        at += 1
        time.sleep(pace_s)
    return len(left)


def slow_senders(table, target, n, limit_s):
    """Header, body, and chunks one byte at a time: each ends at the time limit however busily it drips."""
    with Others(target) as o:
        sockets = [quietly(target.dial) for _ in range(n)]
        texts = []
        for i, s in enumerate(sockets):
            started = [b"", HEAD + b"Content-Length: 5000\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"][i % 3]
            quietly(lambda s=s, started=started: s.sendall(started))
            texts.append([b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"a" * 5000, b"b" * 5000, b"1\r\nc\r\n"][i % 3])
        left = drip(sockets, texts, limit_s + 10, 0.1)
    close_all(sockets)
    report(table, target, "header, body or chunks one byte at a time", o, [f"{left} connections still open after the limit"] if left else [],
           f"{n} connections, all cut at the {limit_s:.0f} s limit")


def slow_readers(table, target, n, limit_s, echo_path):
    """Large answers taken one byte at a time, or not at all."""
    with Others(target) as o:
        sockets = []
        for _ in range(n):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(10 * PATIENCE)
            sockets.append(s)
            body = b"z" * (BODY_LIMIT - 1)
            head = f"POST {echo_path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            quietly(lambda s=s: s.connect(("127.0.0.1", target.port)))
            quietly(lambda s=s, head=head, body=body: s.sendall(head + body))
        readers, silent = sockets[::2], sockets[1::2]
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            for s in readers:
                s.setblocking(False)
                quietly(lambda s=s: s.recv(1))
            time.sleep(0.2)
        left = all_cut(silent + readers, limit_s + 20)
    close_all(sockets)
    report(table, target, "answers of 8 MB read one byte at a time or never", o, [f"{left} connections still open"] if left else [], f"{n} connections")


def hold_bodies(table, target, n):
    """Bodies of 7 MB that never end."""
    with Others(target) as o:
        sockets = []
        part = b"y" * (7 * MIB)
        for _ in range(n):
            s = quietly(target.dial)
            if s is None:
                continue
            s.settimeout(2 * PATIENCE)
            sockets.append(s)
            quietly(lambda s=s: s.sendall(HEAD + f"Content-Length: {BODY_LIMIT}\r\n\r\n".encode() + part))
    close_all(sockets)
    report(table, target, "unfinished bodies of 7 MB", o, [], f"{len(sockets)} connections, {len(sockets) * 7} MB sent")


def open_many(target, n, first_bytes=b""):
    """n connections that have said only first_bytes; how many could be made."""
    sockets = []
    for _ in range(n):
        s = socket.socket()
        s.settimeout(20 * PATIENCE)
        try:
            s.connect(("127.0.0.1", target.port))
            if first_bytes:
                s.sendall(first_bytes)
        except OSError:
            pass
        sockets.append(s)
    return sockets


def idle(table, target, n, hold_s):
    with Others(target) as o:
        sockets = open_many(target, n)
        time.sleep(hold_s)
    close_all(sockets)
    report(table, target, f"{n} idle connections", o, [], f"{len(sockets)} connections held {hold_s} s")


def unfinished_headers(table, target, n, kib, hold_s):
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"h" * 1000) for i in range(kib))
    with Others(target) as o:
        sockets = open_many(target, n, head)
        time.sleep(hold_s)
    close_all(sockets)
    report(table, target, f"{n} unfinished headers of {kib} KB", o, [], f"{len(sockets)} connections held {hold_s} s")


def half_open(table, target, n, limit_s):
    """Peers that vanish without a word, at three moments: before a request, in one, and before their answer."""
    with Others(target) as o:
        before = target.descriptors()
        silent = 0
        for i in range(n):
            s = quietly(target.dial)
            if s is None:
                continue
            quietly(lambda s=s, i=i: s.sendall([b"", HEAD, HEAD + b"Content-Length: 1\r\n\r\nx"][i % 3]))
            silent += vanish(s)
        wait_until(lambda: target.descriptors() <= before + 20, limit_s + 20, "their descriptors are free again")
    report(table, target, "half-open: peers that vanish without FIN or reset", o, [], f"{n} connections ({silent} without a word), descriptors back within the limit")


def churn(table, target, seconds):
    """Connected and reset as fast as one can."""
    n = 0
    with Others(target) as o:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            s = quietly(lambda: target.dial(timeout=5))
            if s is not None:
                reset_close(s)
                n += 1
    report(table, target, "connections made and reset at once", o, [], f"{n} in {seconds} s")


def answers_on(s, wanted):
    """Counts whole answers that begin here, until `wanted`, an end, or 30 s."""
    seen, text = 0, b""
    s.settimeout(30 * PATIENCE)
    try:
        while seen < wanted:
            part = s.recv(1 << 20)
            if not part:
                break
            text += part
            seen += text.count(b"HTTP/1.1 ")
            text = text[-8:] if b"HTTP/1.1 " not in text[-8:] else b""
    except OSError:
        pass
    return seen


def pipelining(table, target, n, connections):
    """Thousands of requests in one write: all are answered; or never read: bounded and cut."""
    line = f"GET {'/_/health' if target.platform is None else '/healthz'} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    with Others(target) as o:
        sockets = [target.dial() for _ in range(connections)]
        for s in sockets:
            s.sendall(line * n)
        answered = sum(answers_on(s, n) for s in sockets)
        deaf = []
        for _ in range(connections):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(1)
            deaf.append(s)
            s.connect(("127.0.0.1", target.port))
            quietly(lambda s=s: s.sendall(line * n * 20))
    close_all(sockets + deaf)
    wrong = [f"{connections * n - answered} requests without an answer"] if answered != connections * n else []
    report(table, target, f"{n} requests in one write", o, wrong, f"{connections} connections, {answered} answers; as many that never read")


def attack(table, target, limit_s, is_whole, rng, echo_path):
    """All of them, or a few: three that are over soon and, where the limit is short, one that takes as long as it."""
    soon = [lambda: idle(table, target, 10000, 5 if is_whole else 1),
            lambda: unfinished_headers(table, target, 10000, 8, 5 if is_whole else 1),
            lambda: unfinished_headers(table, target, 2000 if is_whole else 500, 60, 3 if is_whole else 1),
            lambda: hold_bodies(table, target, 300 if is_whole else 40),
            lambda: pipelining(table, target, 5000 if is_whole else 1000, 10),
            lambda: churn(table, target, 10 if is_whole else 2)]
    late = [lambda: slow_senders(table, target, 300 if is_whole else 60, limit_s),
            lambda: half_open(table, target, 600 if is_whole else 90, limit_s),
            lambda: slow_readers(table, target, 200 if is_whole else 30, limit_s, echo_path)]
    steps = soon + late if is_whole else rng.sample(soon, 3) + rng.sample(late, 1 if target.platform is None else 0)
    rng.shuffle(steps)
    for step in steps:
        step()
