"""What the attacks of crash_hostile.py share: whom they attack, who else is served meanwhile, and what is looked at."""
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from harness import BUILD, PATIENCE, Platform, free_port, request, stack_file, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
TCP_REPAIR = 19
LOOK_S = 1.5
SLOW = "ASAN_OPTIONS" in os.environ
# On a machine of two cores that others use as well; without the limits of runtime/server it is 3 to 16 s.
P99_LIMIT_MS = 2000 * PATIENCE * (3 if SLOW else 1)
MIB = 1024 * 1024
# Of anonymous memory, beyond what it had before. Sanitizers keep freed memory for a while.
GROWTH_LIMIT_MB = 450 * (3 if SLOW else 1)


def raise_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Target:
    """`balm up`, or a function's own executable: a process on a port."""

    def __init__(self, name, port, pid, method, path, platform=None, metrics_port=0):
        self.name, self.port, self.pid, self.method, self.path = name, port, pid, method, path
        self.platform, self.metrics_port = platform, metrics_port

    def is_alive(self):
        with open(f"/proc/{self.pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"

    def anonymous_mb(self):
        with open(f"/proc/{self.pid}/status") as f:
            lines = dict(line.split(":", 1) for line in f)
        return (int(lines["RssAnon"].split()[0]) + int(lines["RssShmem"].split()[0])) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def dial(self, host="127.0.0.1", timeout=30):
        s = socket.socket()
        s.settimeout(timeout * PATIENCE)
        s.connect((host, self.port))
        return s

    def handled(self, method):
        """How many requests of that method have reached the function, as it says itself."""
        text = request(self.metrics_port, "GET", "/metrics")[2].decode()
        return sum(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("http_requests_total") and f'method="{method}"' in line)


class Function:
    """build/functions/NAME by itself, as Knative or a container would start it."""

    def __init__(self, name="echo", limits=(), **settings):
        self.port, self.metrics_port = free_port(), free_port()
        env = dict(os.environ, port=str(self.port), metrics_port=str(self.metrics_port), BALM_HOST="127.0.0.1", suppress_lock="true",
                   **{k: str(v) for k, v in settings.items()})
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([os.path.join(BUILD, "functions", name)], env=env, stderr=self.log, stdout=subprocess.DEVNULL,
                                        stdin=subprocess.DEVNULL, preexec_fn=lambda: [resource.setrlimit(kind, (n, n)) for kind, n in limits])
        self.target = Target(f"function {name}", self.port, self.process.pid, "POST", "/", metrics_port=self.metrics_port)

    def __enter__(self):
        def is_up():
            if self.process.poll() is not None:
                raise AssertionError("the function ended at its start:\n" + self.text())
            try:
                return request(self.port, "GET", "/_/health")[0] == 200
            except OSError:
                return False
        wait_until(is_up, 20, "function ready")
        return self.target

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def __exit__(self, *_):
        code = self.process.poll()
        if code is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60 * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        text = self.text()
        self.log.close()
        if code is not None or "Sanitizer" in text:
            raise AssertionError(f"the function ended by itself ({code}):\n{text}")


class Up:
    """`balm up` on a folder of its own, with echo deployed; `limits` as for setrlimit."""

    def __init__(self, limits=(), arguments=(), prefix=()):
        self.folder = tempfile.mkdtemp(prefix="balm-crash-")
        self.platform = Platform(self.folder, stack=stack_file("echo"), arguments=arguments)
        self.limits, self.prefix = list(limits), list(prefix)

    def __enter__(self):
        command = self.platform.command
        limit = [f"--{kind}={n}:{n}" for kind, n in self.limits]
        if limit:
            self.platform.command = lambda: ["prlimit", *limit, *command()]
        try:
            self.platform.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return Target("balm up", self.platform.port, self.platform.process.pid, "GET", "/healthz", platform=self.platform)

    def __exit__(self, *_):
        p = self.platform
        try:
            code = p.process.poll()
            if code is None:
                code = p.stop(seconds=90)
            if code != 0:
                raise AssertionError(f"the platform ended with {code}:\n{p.log_text()}")
        finally:
            if p.process is not None:
                p.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


class Others:
    """Other clients meanwhile, and what the target uses: `with Others(target) as o: attack`, then o.verdict()."""

    runs = 0

    def __init__(self, target, growth_mb=GROWTH_LIMIT_MB, p99_ms=P99_LIMIT_MS, descriptors=5000):
        self.target, self.growth_limit, self.p99_limit, self.descriptor_limit = target, growth_mb, p99_ms, descriptors
        self.peak_mb = self.peak_descriptors = 0

    def __enter__(self):
        t = self.target
        Others.runs += 1
        alerts = None
        if t.platform is not None:
            alerts = {"path": "/function/alerts", "token": t.platform.secret("webhook-token"), "run": Others.runs}
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "hostile_probe.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        body = "x" * 1000 if t.method == "POST" else None
        self.process.stdin.write(json.dumps({"port": t.port, "path": t.path, "method": t.method, "body": body, "alerts": alerts}) + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()
        self.before_mb, self.before_cpu, self.began = t.anonymous_mb(), t.cpu_seconds(), time.monotonic()
        self.is_over = threading.Event()
        self.sampler = threading.Thread(target=self._sample, daemon=True)
        self.sampler.start()
        return self

    def _sample(self):
        while not self.is_over.wait(0.05):
            try:
                self.peak_mb = max(self.peak_mb, self.target.anonymous_mb())
                self.peak_descriptors = max(self.peak_descriptors, self.target.descriptors())
            except OSError:
                return

    def __exit__(self, kind, *_):
        time.sleep(max(0, LOOK_S - (time.monotonic() - self.began)))  # an attack that is over at once may have effects for longer
        self.cpu = (self.target.cpu_seconds() - self.before_cpu) / (time.monotonic() - self.began)
        self.is_over.set()
        self.sampler.join()
        text = self.process.communicate("\n", timeout=120)[0]
        self.result = json.loads(text)

    def lost_alerts(self):
        """Answered 2xx and not in the journal."""
        if self.target.platform is None:
            return 0
        known = {a["labels"].get("alertname") for r in self.target.platform.records("signal") for a in r.get("alerts", [r]) if "labels" in a}
        return sum(name not in known for name in self.result["alerts"])

    def verdict(self):
        """(text of what was seen, list of what does not hold)."""
        r = self.result
        ms = sorted(r["ms"]) or [float("inf")]
        p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
        growth = max(0, self.peak_mb - self.before_mb)
        failed, lost = sum(r["failed"].values()), self.lost_alerts()
        seen = (f"{r['tried']} requests of others, p50 {ms[len(ms) // 2]:.1f} ms, p99 {p99:.0f} ms, memory {self.before_mb:.0f} to {self.peak_mb:.0f} MB, "
                f"{self.peak_descriptors} descriptors, {self.cpu * 100:.0f} % of a core")
        if self.target.platform is not None:
            seen += f", {len(r['alerts'])} alerts accepted"
        wrong = []
        if failed:
            wrong.append(f"{failed} of others' requests failed: {r['failed']}")
        if r["tried"] < 3 or p99 > self.p99_limit:
            wrong.append(f"p99 of others {p99:.0f} ms > {self.p99_limit:.0f} ms ({r['tried']} requests)")
        if growth > self.growth_limit:
            wrong.append(f"memory grew by {growth:.0f} MB > {self.growth_limit} MB")
        if self.peak_descriptors > self.descriptor_limit:
            wrong.append(f"{self.peak_descriptors} descriptors > {self.descriptor_limit}")
        if lost:
            wrong.append(f"{lost} accepted alerts lost")
        if not self.target.is_alive():
            wrong.append("it died")
        return seen, wrong


def report(table, target, what, others, wrong=(), more=""):
    seen, failures = others.verdict()
    failures += list(wrong)
    table.row(f"{what} ({target.name})", f"{more}{'; ' if more else ''}{seen}", "; ".join(failures) or "0", not failures)


def reset_close(s):
    """Gone at once, without TIME_WAIT."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def vanish(s):
    """Gone without a word: neither FIN nor reset, as when the cable is pulled. False where that is not permitted."""
    try:
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except OSError:
        reset_close(s)
        return False
    s.close()
    return True


def close_all(sockets):
    for s in sockets:
        try:
            reset_close(s)
        except OSError:
            pass


def is_cut(s):
    """Has the peer closed or reset it? What it said before is thrown away."""
    s.setblocking(False)
    try:
        while True:
            if not s.recv(65536):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True
