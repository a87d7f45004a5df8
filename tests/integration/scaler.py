"""What the tests of the scaler share: a platform with work that stays as long as a test wants, grpcurl, KEDA's client, and HTTP/2 by hand."""
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading

import grpc_build
from harness import BUILD, PATIENCE, PlatformTest, free_ports, stack_file, wait_until

SERVICE = "externalscaler.ExternalScaler"
# "hold PATH" waits until PATH is there.
PROGRAM = """#!/bin/sh
read -r word path
while [ "$word" = hold ] && [ ! -e "$path" ]; do sleep 0.05; done
"""
RUNBOOK = """
name: work
match: ['alertname="Work"']
target: "service/${labels.n}"
mode: act
steps: [{bot: prog, with: {n: "${labels.n}"}, timeout: 10s}]
guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}, max_in_flight: 20}
"""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


class Keda:
    """tests/integration/keda at work; what it says, line by line."""

    def __init__(self, test, mode, port, *arguments, host="127.0.0.1"):
        try:
            program = grpc_build.keda()
        except grpc_build.Unavailable as e:
            test.skipTest(str(e))
        self.said = []
        self.process = subprocess.Popen([program, mode, f"{host}:{port}", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        test.addCleanup(self.end)

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def find(self, at):
        return next((line for line in list(self.said) if line.get("at") == at), None)

    def wait(self, at, seconds=60):
        return wait_until(lambda: self.find(at), seconds, f"KEDA's client says '{at}': {self.said[-3:]}")

    def told(self):
        return [line for line in list(self.said) if line.get("at") == "told"]

    def end(self, seconds=120):
        """Ends it, and returns its last word."""
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(seconds * PATIENCE)
            finally:
                self.process.kill()
                self.process.wait()
            self.reader.join(5)
            self.process.stdout.close()
            self.process = None
        return self.said[-1] if self.said else None


class ScalerTest(PlatformTest):
    refolds = False

    @classmethod
    def setUpClass(cls):
        """What is not built yet is built before any test: none of them holds a call for minutes meanwhile. A test that wants one skips by itself."""
        super().setUpClass()
        for build in (grpc_build.grpcurl, grpc_build.keda):
            with contextlib.suppress(grpc_build.Unavailable):
                build()

    def setUp(self):
        super().setUp()
        self.functions = os.path.join(self.folder, "functions")
        os.makedirs(os.path.join(self.functions, "prog"))
        shutil.copy(os.path.join(BUILD, "functions", "echo"), self.functions)
        path = os.path.join(self.functions, "prog", "run.sh")
        with open(path, "w") as f:
            f.write(PROGRAM)
        os.chmod(path, 0o755)
        self.holds = 0

    def start(self, *arguments, start=True, **more):
        stack = more.pop("stack", stack_file("echo") + "  prog: {image: prog, fprocess: ./run.sh}\n")
        p = self.platform(start=False, functions=self.functions, stack=stack, arguments=arguments, **more)
        p.port, p.scaler_port = free_ports(2)  # one that the platform picks might be the scaler's
        if start:
            p.start()
            wait_until(lambda: p.find_log("KEDA can ask"), 20, "the scaler listens")
        return p

    def hold(self, p):
        """A call of `prog` that is under way until what is returned is called."""
        self.holds += 1
        gate = os.path.join(self.folder, f"gate-{self.holds}")
        self.assertEqual(p.request("POST", "/async-function/prog", f"hold {gate}")[0], 202)

        def release():
            with open(gate, "w"):
                pass
        return release

    def grpcurl(self, p, method, body=None, arguments=("-plaintext",), host="127.0.0.1", service=SERVICE):
        """(exit code, the answer or None, what else was said)"""
        try:
            program = grpc_build.grpcurl()
        except grpc_build.Unavailable as e:
            self.skipTest(str(e))
        line = [program, "-max-time", str(30 * PATIENCE), "-emit-defaults", *arguments]
        if body is not None:
            line += ["-d", "@"]
        line += [f"{host}:{p.scaler_port}"] + ([f"{service}/{method}"] if service else [method])
        done = subprocess.run(line, capture_output=True, input=json.dumps(body).encode(), timeout=120 * PATIENCE)
        try:
            answer = json.loads(done.stdout) if done.stdout else None
        except ValueError:
            answer = done.stdout.decode()
        return done.returncode, answer, done.stderr.decode()

    def ask(self, p, method, body, **more):
        code, answer, error = self.grpcurl(p, method, body, **more)
        self.assertEqual(code, 0, error + p.log_text())
        return answer

    def depth(self, p, name, **metadata):
        answer = self.ask(p, "GetMetrics", {"scaledObjectRef": ref(name, **metadata), "metricName": "balm-all" if name == "*" else f"balm-{name}"})
        self.assertEqual(len(answer["metricValues"]), 1)
        value = answer["metricValues"][0]
        self.assertEqual(int(value["metricValue"]), value["metricValueFloat"])
        return int(value["metricValue"])


def ref(name, **metadata):
    return {"name": "so", "namespace": "bots", "scalerMetadata": {"function": name, "scalerAddress": "balm:9091", **metadata}}


# ---- HTTP/2 by hand ----

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def text(s):
    s = s.encode() if isinstance(s, str) else s
    assert len(s) < 127
    return bytes((len(s),)) + s


def head(path, *more):
    """HPACK without tables: POST, http, and the rest as literals that are never indexed."""
    pairs = [(":path", path), (":authority", "balm"), ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"\x83\x86" + b"".join(b"\x10" + text(name) + text(value) for name, value in pairs)


def field(number, value):
    return bytes((number << 3 | 2, len(value))) + value


def reference(function):
    """A ScaledObjectRef, as protobuf has it."""
    return field(3, field(1, b"function") + field(2, function.encode()))


def message(body):
    return b"\0" + struct.pack(">I", len(body)) + body


OPEN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)


class Wire:
    """A connection, its frames sent and read one by one."""

    def __init__(self, test, port, opening=OPEN):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30 * PATIENCE)
        test.addCleanup(self.sock.close)
        self.bytes = b""
        self.send(opening)

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def call(self, stream, rpc, body, *more, flags=END_STREAM):
        self.send(frame(HEADERS, END_HEADERS, stream, head(f"/{SERVICE}/{rpc}", *more)), frame(DATA, flags, stream, message(body)))

    def frame(self):
        """(kind, flags, stream, payload), or None at the end of the connection."""
        while len(self.bytes) < 9 or len(self.bytes) < 9 + int.from_bytes(self.bytes[:3], "big"):
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            self.bytes += more
        n = 9 + int.from_bytes(self.bytes[:3], "big")
        one, self.bytes = self.bytes[:n], self.bytes[n:]
        return one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:]

    def until(self, *kinds, stream=None):
        """The next frame of one of these kinds (of that stream), or None."""
        while True:
            f = self.frame()
            if f is None or (f[0] in kinds and (stream is None or f[2] == stream)):
                return f

    def is_cut(self):
        """Does the other side end it? What comes before is not looked at."""
        while self.frame() is not None:
            pass
        return True
