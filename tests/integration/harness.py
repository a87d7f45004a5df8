"""What every integration test shares: a real platform process on a folder of its own, real peers, and plain HTTP.

Python's standard library only. BALM_BUILD names the build folder (default: build). Everything listens on loopback and is ended by its pid.
"""
import atexit
import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BALM_BUILD", "build"))
BALM = os.path.join(BUILD, "balm")
# Under sanitizers everything is slower; waits are for events and only their limits grow.
PATIENCE = float(os.environ.get("BALM_PATIENCE", "1"))
# AddressSanitizer reserves terabytes: its functions start only under a limit far beyond them.
MEMORY_LIMIT = "100Ti" if "ASAN_OPTIONS" in os.environ else "256Mi"


# One that functions may run: that of a virtual environment may lie where only we may look.
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def shared(folder, name=""):
    """FOLDER/shared, or the path of `name` in it: where functions, which have users of their own, may write."""
    path = os.path.join(folder, "shared")
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, 0o777)
        while folder not in ("/", ROOT, tempfile.gettempdir(), os.path.expanduser("~")):  # those are not ours to open
            if not os.stat(folder).st_mode & 1:
                os.chmod(folder, 0o755)
            folder = os.path.dirname(folder)
    return os.path.join(path, name) if name else path


def shared_file(folder, name):
    """The path of an empty file that all of them may write."""
    path = shared(folder, name)
    with open(path, "a"):
        os.chmod(path, 0o666)
    return path


def isolated_folder(platform):
    """Below it lies what functions may read of what the platform makes for them (gateway/isolation.h)."""
    if os.geteuid() != 0:
        return os.path.join(platform.data, "run")
    return "/run/balm-" + hashlib.sha256(os.path.realpath(platform.data).encode()).hexdigest()[:16]


def wait_until(condition, seconds, what):
    """The first true answer of condition(); AssertionError naming `what` after `seconds` (times PATIENCE)."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def free_port():
    return free_ports(1)[0]


def free_ports(n):
    """n that are not the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def rfc3339(unix_seconds):
    whole = int(unix_seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((unix_seconds - whole) * 1e9):09d}Z"


def alert(name, status="firing", starts_at=None, annotations=None, **labels):
    """One alert as Alertmanager sends it, without a fingerprint (it is computed at the intake)."""
    if starts_at is None:
        starts_at = time.time()
    return {
        "status": status,
        "labels": {"alertname": name, **labels},
        "annotations": annotations or {},
        "startsAt": rfc3339(starts_at),
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else rfc3339(time.time()),
        "generatorURL": "",
    }


def webhook(*alerts):
    firing = any(a["status"] == "firing" for a in alerts)
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "balm",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:9093",
        "alerts": list(alerts),
    }


def request(port, method, path, body=None, headers=None, timeout=30, host="127.0.0.1"):
    """(status, headers, body bytes) of one request on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout * PATIENCE)
    try:
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read()
    finally:
        connection.close()


def serve(handler):
    """An HTTP server on a port of its own, at work in threads until server.shutdown() and server_close()."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Platform:
    """`balm up` on a data folder; restartable on the same folder."""

    def __init__(self, folder, runbooks=None, stack=None, host_acts=None, functions=None, arguments=(), env=None):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.runbooks = os.path.join(folder, "runbooks")
        self.stack = os.path.join(folder, "stack.yml")
        self.host_acts = os.path.join(folder, "host-acts.yaml") if host_acts else None
        self.functions = functions or os.path.join(BUILD, "functions")
        self.arguments = list(arguments)
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.port = 0
        self.log = []
        self.shared = shared(folder)
        atexit.register(self._sweep)
        os.makedirs(self.runbooks, exist_ok=True)
        for name, text in (runbooks or {}).items():
            self.write(os.path.join("runbooks", name), text)
        self.scaler_port = 0  # off, unless a test is about it
        self.write("stack.yml", stack or stack_file("echo"))
        if host_acts:
            self.write("host-acts.yaml", host_acts, mode=0o600)

    def _sweep(self):
        """What a killed platform that nobody started again has left beside its folder."""
        for path in (isolated_folder(self), os.path.realpath(os.path.join(self.data, "run", "temp"))):
            if os.path.basename(path).startswith("balm-"):
                shutil.rmtree(path, ignore_errors=True)

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def command(self):
        line = [BALM, "up", "-f", self.stack, "--data", self.data, "--port", str(self.port), "--runbooks", self.runbooks,
                "--functions", self.functions, "--function-write-paths", self.shared, "--scaler-port", str(self.scaler_port)]
        if self.host_acts:
            line += ["--host-acts", self.host_acts]
        return line + self.arguments

    def start(self, wait=True):
        self.log = []
        self.process = subprocess.Popen(self.command(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                        env=self.env, cwd=self.folder)
        self.reader = threading.Thread(target=self._read_log, args=(self.process, self.log), daemon=True)
        self.reader.start()
        if wait:
            ready = wait_until(lambda: self.find_log("ready") or self.process.poll() is not None, 30, "platform ready")
            if ready is True:
                self.reader.join(5)
                self.process.stderr.close()
                self.process = None
                raise AssertionError("platform ended at start:\n" + self.log_text())
            self.port = ready["port"]
        return self

    @staticmethod
    def _read_log(process, log):
        for line in process.stderr:
            try:
                log.append(json.loads(line))
            except ValueError:
                log.append({"message": line.decode(errors="replace").rstrip(), "raw": True})

    def find_log(self, message):
        for line in list(self.log):
            if line.get("message") == message:
                return line
        return None

    def log_text(self):
        return "\n".join(json.dumps(line) for line in list(self.log)[-60:])

    def stop(self, sig=signal.SIGTERM, seconds=40):
        """Ends it and returns its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("did not stop:\n" + self.log_text())
        self.reader.join(5)
        self.process.stderr.close()
        self.process = None
        return code

    def kill(self):
        return self.stop(signal.SIGKILL)

    def secret(self, name):
        with open(os.path.join(self.data, "secrets", name)) as f:
            return f.read().strip()

    def bearer(self):
        return {"Authorization": "Bearer " + self.secret("webhook-token"), "Content-Type": "application/json"}

    def basic(self):
        login = self.secret("basic-auth-user") + ":" + self.secret("basic-auth-password")
        return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode(), "Content-Type": "application/json"}

    def request(self, method, path, body=None, headers=None, timeout=30):
        return request(self.port, method, path, body, headers, timeout)

    def post_alerts(self, *alerts):
        status, _, body = self.request("POST", "/function/alerts", webhook(*alerts), self.bearer())
        return status, json.loads(body) if body else None

    def records(self, kind=None):
        """The journal through `balm audit cat`, with or without a running platform."""
        line = [BALM, "audit", "cat", "--data", self.data] + (["--kind", kind] if kind else [])
        done = subprocess.run(line, capture_output=True, timeout=120 * PATIENCE)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(line)}: {done.returncode} {done.stderr.decode()}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_record(self, kind, seconds=20, **members):
        def look():
            for record in self.records(kind):
                if all(record.get(k) == v for k, v in members.items()):
                    return record
            return None
        try:
            return wait_until(look, seconds, f"{kind} {members}")
        except AssertionError as e:
            raise AssertionError(f"{e}\nlog:\n{self.log_text()}\nrecords:\n" + "\n".join(json.dumps(r)[:300] for r in self.records()[-20:]))

    def cli(self, *arguments, timeout=60):
        done = subprocess.run([BALM, arguments[0], *arguments[1:], "--data", self.data], capture_output=True, timeout=timeout * PATIENCE)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


def stack_file(*names):
    text = "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://127.0.0.1:8080\nfunctions:\n"
    for name in names:
        text += f"  {name}:\n    lang: c-balm\n    handler: ./functions/{name}\n    image: {name}:latest\n"
    return text


class PlatformTest(unittest.TestCase):
    """A folder of its own a test; whatever was started is stopped, a platform that crashed fails the test, and so does a journal that folds to
    other decisions than it records."""

    refolds = True

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="balm-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.platforms = []

    def platform(self, start=True, **arguments):
        p = Platform(self.folder, **arguments)
        self.platforms.append(p)
        self.addCleanup(self._end, p)
        return p.start() if start else p

    def _end(self, p):
        if p.process is not None:
            code = p.stop()
            self.assertEqual(code, 0, "exit code after SIGTERM\n" + p.log_text())
        if os.path.isdir(os.path.join(p.data, "journal")) and self.refolds:
            # Whatever this test did to it: deciding again on the recorded inputs gives the recorded decisions.
            code, text, error = p.cli("audit", "refold")
            self.assertEqual(code, 0, text + error)


def main():
    unittest.main(verbosity=2, module=sys.modules["__main__"])
