"""Requests that two HTTP parsers could read differently: refused and the connection closed, or read as what they say; what is smuggled behind or within
one must never run.

By hand: every shape that is known to have smuggled something. By the seed: heads put together from pieces that are right or wrong, where one wrong piece
is enough for a refusal.
"""
import json
import re

from hostile_peers import Others, report, reset_close
from harness import alert, webhook

CRLF = b"\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


def post(*lines, body=b"", version=b"HTTP/1.1", host=b"Host: h"):
    return CRLF.join([b"@METHOD@ @PATH@ " + version] + ([host] if host else []) + list(lines)) + b"\r\n\r\n" + body


# Refused: no handler sees anything of it, neither the first request nor the one behind.
REFUSED = {
    "two lengths": post(b"Content-Length: 0", b"Content-Length: @LEN@", body=b"@SMUGGLED@"),
    "two equal lengths": post(b"Content-Length: 0", b"Content-Length: 0", body=b"@SMUGGLED@"),
    "a list of lengths": post(b"Content-Length: 0, @LEN@", body=b"@SMUGGLED@"),
    "a signed length": post(b"Content-Length: +0", body=b"@SMUGGLED@"),
    "a negative length": post(b"Content-Length: -1", body=b"@SMUGGLED@"),
    "a hexadecimal length": post(b"Content-Length: 0x0", body=b"@SMUGGLED@"),
    "a fractional length": post(b"Content-Length: 0.0", body=b"@SMUGGLED@"),
    "a length with a blank in it": post(b"Content-Length: 0 0", body=b"@SMUGGLED@"),
    "an empty length": post(b"Content-Length:", body=b"@SMUGGLED@"),
    "a length of 2^64": post(b"Content-Length: 18446744073709551616", body=b"@SMUGGLED@"),
    "a length of 2^64-1": post(b"Content-Length: 18446744073709551615", body=b"@SMUGGLED@"),
    "a length of 2^63": post(b"Content-Length: 9223372036854775808", body=b"@SMUGGLED@"),
    "a length of 40 digits": post(b"Content-Length: " + b"9" * 40, body=b"@SMUGGLED@"),
    "a length with NUL": post(b"Content-Length: 0\0", body=b"@SMUGGLED@"),
    "length, then chunks": post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "chunks, then length": post(b"Transfer-Encoding: chunked", b"Content-Length: 6", body=b"0\r\n\r\n@SMUGGLED@"),
    "length and an unknown coding": post(b"Content-Length: 0", b"Transfer-Encoding: x", body=b"@SMUGGLED@"),
    "two codings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n@SMUGGLED@"),
    "chunked twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "a list of codings": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n@SMUGGLED@"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n@SMUGGLED@"),
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "chunked with NUL": post(b"Transfer-Encoding: chunked\0", body=b"0\r\n\r\n@SMUGGLED@"),
    "an empty coding": post(b"Transfer-Encoding:", body=b"0\r\n\r\n@SMUGGLED@"),
    "chunks in HTTP/1.0": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n@SMUGGLED@", version=b"HTTP/1.0"),
    "a blank before the colon of a coding": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "a blank before the colon of a length": post(b"Content-Length : @LEN@", body=b"@SMUGGLED@"),
    "a tab before the colon": post(b"Content-Length\t: @LEN@", body=b"@SMUGGLED@"),
    "a folded coding": post(b"X: y", b" Transfer-Encoding: chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "a folded value": post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n@SMUGGLED@"),
    "a folded first header": post(b"X: y", host=b" Host: h", body=b"@SMUGGLED@"),
    "a header without a colon": post(b"Content-Length", body=b"@SMUGGLED@"),
    "a header without a name": post(b": y", body=b"@SMUGGLED@"),
    "NUL in a name": post(b"X\0Y: z", body=b"@SMUGGLED@"),
    "NUL in a value": post(b"X: a\0b", body=b"@SMUGGLED@"),
    "a bare CR in a value": post(b"X: a\rContent-Length: 0", body=b"@SMUGGLED@"),
    "a bare CR in a name": post(b"X\r: a", body=b"@SMUGGLED@"),
    "a line that ends in LF alone": post(b"X: a\nContent-Length: 0", body=b"@SMUGGLED@"),
    "a head that ends in LF alone": b"@METHOD@ @PATH@ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\n@SMUGGLED@",
    "a request line that ends in LF alone": b"@METHOD@ @PATH@ HTTP/1.1\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "all lines end in LF alone": b"@METHOD@ @PATH@ HTTP/1.1\nHost: h\nContent-Length: 0\n\n@SMUGGLED@",
    "two hosts": post(b"Host: g", b"Content-Length: 0", body=b"@SMUGGLED@"),
    "no host": post(b"Content-Length: 0", host=None, body=b"@SMUGGLED@"),
    "a host with a blank": post(b"Content-Length: 0", host=b"Host: a b", body=b"@SMUGGLED@"),
    "a target as a proxy gets it": b"POST http://h@PATH@ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "CONNECT": b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n@SMUGGLED@",
    "a star": b"@METHOD@ * HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "a target with a blank": b"@METHOD@ @PATH@ x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "a target with NUL": b"@METHOD@ @PATH@\0 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "a method that is none": b"PU(T @PATH@ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "HTTP/0.9": b"GET @PATH@\r\n@SMUGGLED@",
    "HTTP/2.0": b"@METHOD@ @PATH@ HTTP/2.0\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "HTTP/1.1 in small letters": b"@METHOD@ @PATH@ http/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n@SMUGGLED@",
    "HTTP/2 without being asked for": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n@SMUGGLED@",
    "an expectation that is none": post(b"Expect: 200-maybe", b"Content-Length: 0", body=b"@SMUGGLED@"),
    "a chunk size of 2^64": post(b"Transfer-Encoding: chunked", body=b"10000000000000000\r\n@SMUGGLED@"),
    "a chunk size of 2^64-1": post(b"Transfer-Encoding: chunked", body=b"ffffffffffffffff\r\n@SMUGGLED@"),
    "a chunk size of 2^64 and a chunk": post(b"Transfer-Encoding: chunked", body=b"10000000000000002\r\nab\r\n0\r\n\r\n@SMUGGLED@"),
    "a negative chunk size": post(b"Transfer-Encoding: chunked", body=b"-1\r\n@SMUGGLED@"),
    "a chunk size with 0x": post(b"Transfer-Encoding: chunked", body=b"0x0\r\n\r\n@SMUGGLED@"),
    "an empty chunk size": post(b"Transfer-Encoding: chunked", body=b"\r\n0\r\n\r\n@SMUGGLED@"),
    "a blank before a chunk size": post(b"Transfer-Encoding: chunked", body=b" 0\r\n\r\n@SMUGGLED@"),
    "junk behind a chunk size": post(b"Transfer-Encoding: chunked", body=b"0 0\r\n\r\n@SMUGGLED@"),
    "letters behind a chunk size": post(b"Transfer-Encoding: chunked", body=b"0zz\r\n\r\n@SMUGGLED@"),
    "a chunk size that ends in LF alone": post(b"Transfer-Encoding: chunked", body=b"0\n\r\n@SMUGGLED@"),
    "a chunk extension that ends in LF alone": post(b"Transfer-Encoding: chunked", body=b"2;\nxx\r\n0\r\n\r\n@SMUGGLED@"),
    "a bare CR behind a chunk size": post(b"Transfer-Encoding: chunked", body=b"0\rx\r\n\r\n@SMUGGLED@"),
    "a chunk longer than it says": post(b"Transfer-Encoding: chunked", body=b"1\r\nab\r\n0\r\n\r\n@SMUGGLED@"),
    "a chunk without its end": post(b"Transfer-Encoding: chunked", body=b"1\r\na0\r\n\r\n@SMUGGLED@"),
    "a chunk that ends in LF alone": post(b"Transfer-Encoding: chunked", body=b"1\r\na\n0\r\n\r\n@SMUGGLED@"),
    "a trailer that ends in LF alone": post(b"Transfer-Encoding: chunked", body=b"0\r\nX: y\n\r\n@SMUGGLED@"),
    "NUL in a chunk extension": post(b"Transfer-Encoding: chunked", body=b"0;a\0b\r\n\r\n@SMUGGLED@"),
}
# Read as what they say: one request, and what looks like another is its body.
ONE = {
    "a length": post(b"Connection: close", b"Content-Length: @LEN@", body=b"@SMUGGLED@"),
    "chunks": post(b"Connection: close", b"Transfer-Encoding: chunked", body=b"@HEXLEN@\r\n@SMUGGLED@\r\n0\r\n\r\n"),
    "Chunked in large letters": post(b"Connection: close", b"Transfer-Encoding: CHUNKED", body=b"@HEXLEN@;x=y\r\n@SMUGGLED@\r\n000\r\nT: u\r\n\r\n"),
    "a length with zeros before it": post(b"Connection: close", b"Content-Length: 000@LEN@", body=b"@SMUGGLED@"),
    "HTTP/2 by an upgrade": post(b"Connection: close, Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
                                 b"Content-Length: @LEN@", body=b"@SMUGGLED@"),
}


class Scene:
    """What is smuggled, and how it would be seen to have run."""

    def __init__(self, target):
        self.target, self.n = target, 0
        self.path = b"/" if target.platform is None else b"/function/alerts"
        self.name = None

    def smuggled(self):
        self.n += 1
        self.name = f"Smuggled{self.n}"
        if self.target.platform is None:
            return b"PUT /smuggled HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
        body = json.dumps(webhook(alert(self.name))).encode()
        token = self.target.platform.secret("webhook-token").encode()
        return (b"POST /function/alerts HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + b"\r\nContent-Type: application/json\r\nContent-Length: "
                + str(len(body)).encode() + CRLF + CRLF + body)

    def fill(self, shape):
        inner = self.smuggled()
        length = str(len(inner)).encode()
        text = shape.replace(b"@LEN@", length).replace(b"@HEXLEN@", b"%x" % len(inner))
        return text.replace(b"@METHOD@", b"PUT" if self.target.platform is None else b"POST").replace(b"@PATH@", self.path).replace(b"@SMUGGLED@", inner)

    def exchange(self, text, pieces=1):
        """Statuses until the end of the connection; -1 at the end if it stays open."""
        s = self.target.dial(timeout=15)
        answer = b""
        try:
            step = max(1, len(text) // pieces)
            for i in range(0, len(text), step):
                s.sendall(text[i:i + step])
            while True:
                part = s.recv(65536)
                if not part:
                    break
                answer += part
        except TimeoutError:
            return [int(code) for code in STATUS.findall(answer)] + [-1]
        except OSError:
            pass
        finally:
            reset_close(s)
        return [int(code) for code in STATUS.findall(answer)]

    def handled(self):
        """Requests that reached the function; the other clients' are POST."""
        return self.target.handled("put")


def refusal_faults(scene, name, shape, pieces):
    before = scene.handled() if scene.target.platform is None else 0
    codes = scene.exchange(scene.fill(shape), pieces)
    faults = []
    if any(code < 400 for code in codes) or len(codes) > 1:
        faults.append(f"{name}: answered {codes}")
    if scene.target.platform is None and scene.handled() != before:
        faults.append(f"{name}: {scene.handled() - before} requests reached the handler")
    return faults


def shapes(table, target, rng):
    scene = Scene(target)
    faults, tried = [], 0
    with Others(target) as o:
        for name, shape in REFUSED.items():
            for pieces in (1, rng.choice((2, 3, 5, 50))):
                faults += refusal_faults(scene, name, shape, pieces)
                tried += 1
        for name, shape in ONE.items():
            before = scene.handled() if target.platform is None else 0
            codes = scene.exchange(scene.fill(shape), rng.choice((1, 3, 50)))
            tried += 1
            wanted = 200 if target.platform is None else 401
            if codes != [wanted]:
                faults.append(f"{name}: answered {codes}")
            if target.platform is None and scene.handled() != before + 1:
                faults.append(f"{name}: {scene.handled() - before} requests reached the handler")
    faults += ran_smuggled(target)
    report(table, target, "smuggling shapes", o, faults, f"{tried} requests of {len(REFUSED) + len(ONE)} shapes")


def ran_smuggled(target):
    if target.platform is None:
        return []
    names = [r["labels"]["alertname"] for r in target.platform.records("signal") if r["labels"]["alertname"].startswith("Smuggled")]
    return [f"a smuggled request ran: {name}" for name in names]


# (text, is it right?) of each part of a head.
NAMES = [(b"%s", True), (b"%s ", False), (b" %s", False), (b"%s\t", False), (b"\x0b%s", False), (b"%s\0", False), (b"%s\r", False)]
COLONS = [(b": ", True), (b":", True), (b":\t", True), (b" : ", False), (b"\n: ", False)]
ENDS = [(CRLF, True), (b"\n", False), (b"\r", False), (b"\r\r\n", False), (b"\r\n ", False), (b"\0\r\n", False)]
FRAMINGS = [([b"Content-Length", b"@LEN@"], True), ([b"Transfer-Encoding", b"chunked"], True), ([b"Content-Length", b"0@"], False),
            ([b"Transfer-Encoding", b"chunked;q=1"], False), ([b"Transfer-Encoding", b"chunked,chunked"], False), ([b"Content-Length", b"@LEN@,@LEN@"], False)]


def choose(rng, options):
    """The right one most of the time, so that there is often one fault and no more."""
    return options[0] if rng.random() < 0.95 else rng.choice(options)


def random_head(rng):
    """(request, is every part of it right?)"""
    is_right, text = True, b"@METHOD@ @PATH@ HTTP/1.1"
    framings = [rng.choice(FRAMINGS)] if rng.random() < 0.8 else rng.sample(FRAMINGS, 2)
    fields = [([b"Host", b"h"], True), ([b"Connection", b"close"], True), ([b"X-Pad", b"y" * rng.randrange(20)], True)] + framings
    is_right &= len(framings) == 1
    rng.shuffle(fields)
    for (name, value), is_known in fields:
        end, colon, form = choose(rng, ENDS), choose(rng, COLONS), choose(rng, NAMES)
        is_right &= end[1] and colon[1] and form[1] and is_known
        text += end[0] + form[0] % name + colon[0] + value
    end = choose(rng, ENDS)
    is_right &= end[1]
    is_chunked = any(f[0][0] == b"Transfer-Encoding" for f in framings)
    body = b"@HEXLEN@\r\n@SMUGGLED@\r\n0\r\n\r\n" if is_chunked else b"@SMUGGLED@"
    return text + end[0] + CRLF + body, is_right


def random_heads(table, target, rng, n):
    scene = Scene(target)
    faults, right = [], 0
    with Others(target) as o:
        for _ in range(n):
            text, is_right = random_head(rng)
            right += is_right
            before = scene.handled() if target.platform is None else 0
            codes = scene.exchange(scene.fill(text) + b"\r\n\r\n")
            good = [c for c in codes if 0 < c < 400 or c == 401]
            if is_right != (len(good) == 1 and len(codes) == 1):
                faults.append(f"{text[:200]!r}, {'right' if is_right else 'wrong'}: answered {codes}")
            if target.platform is None and scene.handled() - before != is_right:
                faults.append(f"{text[:200]!r}: {scene.handled() - before} handled")
    faults += ran_smuggled(target)
    report(table, target, "heads of right and wrong parts", o, faults[:3] + ([f"and {len(faults) - 3} more"] if len(faults) > 3 else []), f"{n} heads, {right} of them right")


def attack(table, target, rng, n):
    shapes(table, target, rng)
    random_heads(table, target, rng, n)
