#!/usr/bin/env python3
"""A function behind Knative's real queue-proxy: `make e2e-knative`.

queue-proxy is built once from its Go module (queue_proxy_build.py); where that cannot be, the tests are skipped and say why. All runs in a
network namespace of its own, because queue-proxy's ports are fixed.
"""
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
import go_build  # noqa: E402
import own_network  # noqa: E402
import queue_proxy_build  # noqa: E402
from harness import PATIENCE, request, wait_until  # noqa: E402
from knative_pod import QUEUE_PORT, UID, USER_PORT, Function, QueueProxy, http_probe, is_contained  # noqa: E402
from test_bots import KEY, sign  # noqa: E402

# A program that says when it is inside, and how many are there: O_APPEND keeps the lines whole.
SLOW = "echo + >>/tmp/inside; sleep $1; echo - >>/tmp/inside; cat"
# Sends a line at once and the next when somebody asks for /go.
STREAMS = """
import http.server, os, threading
go = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        if self.path == "/go":
            go.set()
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.part(b"data: one\\n\\n")
        go.wait(300)
        go.clear()
        self.part(b"data: two\\n\\n")
        self.part(b"")
    def part(self, line):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(line), line))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
PROBES = ("/_/health", "/_/ready", "/health/liveness", "/health/readiness")


def setUpModule():
    global PROGRAM
    try:
        PROGRAM = queue_proxy_build.queue_proxy()
        own_network.enter()
    except (go_build.Unavailable, own_network.Unavailable) as e:
        raise unittest.SkipTest(str(e).replace("'", "`"))


def slow(seconds):
    return ["/bin/sh", "-c", SLOW, "sh", str(seconds)]


def curl(*arguments, body=None):
    """(status, HTTP version, body)"""
    done = subprocess.run(["curl", "--silent", "--show-error", "--max-time", str(60 * PATIENCE), "--write-out", "\n%{http_code} %{http_version}",
                           *(["--data-binary", "@-"] if body is not None else []), *arguments], input=body, capture_output=True)
    if done.returncode != 0:
        raise AssertionError(f"curl {arguments}: {done.returncode} {done.stderr.decode()}")
    answer, _, numbers = done.stdout.rpartition(b"\n")
    status, version = numbers.decode().split()
    return int(status), version, answer


class Load:
    """Clients that post again and again over connections of their own, until told to stop; failures are kept."""

    def __init__(self, clients, pause=0.01):
        self.failures, self.served, self.is_over = [], 0, threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i, pause)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self, number, pause):
        n = 0
        while not self.is_over.is_set():
            n += 1
            body = f"client {number} request {n}".encode()
            try:
                status, _, answer = request(QUEUE_PORT, "POST", "/", body)
                failed = None if (status, answer) == (200, body) else f"{status} {answer[:100]}"
            except OSError as e:
                failed = repr(e)
            with self.lock:
                self.served += 1
                if failed is not None:
                    self.failures.append(f"{time.monotonic():.3f} {failed}")
            self.is_over.wait(pause)

    def wait_served(self, n):
        wait_until(lambda: self.served >= n, 30, f"{n} requests served")

    def stop(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


class Pod(unittest.TestCase):
    def start_function(self, name="echo", **arguments):
        self.function = Function(name, **arguments)
        self.addCleanup(self.function.close)
        return self.function

    def start_queue(self, **arguments):
        self.queue = QueueProxy(PROGRAM, **arguments)
        self.addCleanup(self.queue.close)
        return self.queue.wait_listening()

    def start(self, name="echo", queue=None, **arguments):
        self.start_function(name, **arguments).wait_ready()
        self.start_queue(**(queue or {}))
        wait_until(lambda: self.queue.probe() == 200, 20, "the pod is ready")

    def function_root(self):
        """The function's root folder, as it sees it."""
        return os.path.join("/proc", str(self.function.process.pid), "root")

    def post(self, body, headers=None, path="/", **more):
        return request(QUEUE_PORT, "POST", path, body, headers, **more)


class Contract(Pod):
    def test_it_runs_as_nobody_with_nothing_to_write_but_tmp(self):
        if not is_contained():
            self.skipTest("SKIPPED: it takes root, unshare and setpriv")
        self.start()
        with open(f"/proc/{self.function.process.pid}/status") as f:
            status = f.read()
        self.assertIn(f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n", status)
        self.assertIn("\nCapEff:\t0000000000000000\n", status)
        with open(f"/proc/{self.function.process.pid}/mounts") as f:
            mounts = {line.split()[1]: line.split()[3].split(",") for line in f}
        self.assertEqual([("ro" in mounts[m]) for m in ("/", "/mnt", "/var", "/tmp")], [True, True, True, False])
        self.assertEqual(os.listdir(os.path.join(self.function_root(), "tmp")), [".lock"])
        self.assertEqual(self.post(b"x" * (6 << 20))[0], 200)  # large bodies are spooled to /tmp

    def test_readiness_is_what_queue_proxy_finds_by_any_probe(self):
        self.start_queue(probe=http_probe("/_/ready"), timeout_s=10)
        self.assertEqual(self.queue.probe(), 503)  # no function yet
        self.start_function()
        wait_until(lambda: self.queue.probe() == 200, 20, "queue-proxy finds it ready")
        self.function.signal(signal.SIGTERM)
        wait_until(lambda: self.queue.probe() == 503, 20, "queue-proxy finds it draining")
        self.assertEqual([request(USER_PORT, "GET", path)[0] for path in PROBES], [503] * 4)
        self.assertEqual(self.function.wait(20), 0)
        self.assertEqual(self.queue.probe(), 503)
        self.queue.close()
        for probe in (None, *map(http_probe, PROBES)):
            with self.subTest(probe=probe):
                queue = QueueProxy(PROGRAM, probe=probe, detects_http2=probe is not None)
                function = Function("echo")
                try:
                    queue.wait_listening()
                    wait_until(lambda: queue.probe() == 200, 20, "ready")
                finally:
                    function.close()
                    queue.close()

    def test_one_port_speaks_http1_upgraded_and_prior_knowledge_http2(self):
        self.start()
        direct, through = f"http://127.0.0.1:{USER_PORT}/", f"http://127.0.0.1:{QUEUE_PORT}/"
        for url in (direct, through):
            self.assertEqual(curl("--http1.1", url, body=b"one"), (200, "1.1", b"one"))
            # Port named h2c: prior knowledge all the way, queue-proxy takes to the function what it was spoken to.
            self.assertEqual(curl("--http2-prior-knowledge", url, body=b"two"), (200, "2", b"two"))
        self.assertEqual(curl("--http2", direct), (200, "2", b""))
        self.assertEqual(curl("--http2", "--request", "OPTIONS", direct)[:2], (200, "2"))
        big = os.urandom(6 << 20)
        self.assertEqual(curl("--http2-prior-knowledge", through, body=big), (200, "2", big))

    def test_h2c_can_be_switched_off(self):
        self.start(http2="false")
        self.assertEqual(curl("--http1.1", f"http://127.0.0.1:{QUEUE_PORT}/", body=b"one"), (200, "1.1", b"one"))
        self.assertEqual(curl("--http2-prior-knowledge", f"http://127.0.0.1:{QUEUE_PORT}/", body=b"two")[0], 502)
        self.assertEqual(curl("--http2", f"http://127.0.0.1:{USER_PORT}/", body=b"three"), (200, "1.1", b"three"))

    def test_bodies_of_any_framing_and_size_pass(self):
        self.start()
        big = os.urandom(7 << 20)
        self.assertEqual(self.post(big)[2], big)
        self.assertEqual(curl("--http1.1", "--header", "Transfer-Encoding: chunked", f"http://127.0.0.1:{QUEUE_PORT}/", body=big)[::2], (200, big))
        self.assertEqual(curl("--http1.1", f"http://127.0.0.1:{QUEUE_PORT}/", body=b"x" * (9 << 20))[0], 413)
        status, headers, body = self.post(b"", {"Content-Type": "text/x-own", "X-Call-Id": "7"}, path="/a%2fb?c=d")
        self.assertEqual((status, headers["content-type"], body), (200, "text/x-own", b""))

    def test_whoever_limits_the_time_it_is_504_and_the_next_request_is_served(self):
        self.start("echo", queue={"timeout_s": 2}, program=slow(60), exec_timeout="1s")
        status, headers, _ = self.post(b"")
        self.assertEqual((status, headers.get("x-openfaas-internal")), (504, "of-watchdog"))
        self.function.close()
        self.start_function(program=slow(6), exec_timeout="10s").wait_ready()
        began = time.monotonic()
        status, headers, body = self.post(b"")
        self.assertEqual((status, "x-openfaas-internal" in headers, body.strip()), (504, False, b"request timeout"))
        self.assertLess(time.monotonic() - began, 5 * PATIENCE)
        self.assertEqual(self.queue.probe(), 200)

    def test_a_stream_arrives_part_by_part(self):
        if not os.access("/usr/bin/python3", os.X_OK):
            self.skipTest("SKIPPED: no /usr/bin/python3 to stream from")
        self.start(program=["/usr/bin/python3", "-c", STREAMS], mode="http")
        for protocol in ("--http1.1", "--http2-prior-knowledge"):
            with self.subTest(protocol=protocol):
                stream = subprocess.Popen(["curl", "--silent", "--no-buffer", "--max-time", str(60 * PATIENCE), protocol,
                                           f"http://127.0.0.1:{QUEUE_PORT}/events"], stdout=subprocess.PIPE)
                self.addCleanup(stream.stdout.close)
                self.addCleanup(stream.kill)
                self.assertEqual(stream.stdout.readline(), b"data: one\n")  # the second has not been sent
                self.assertEqual(request(QUEUE_PORT, "GET", "/go")[0], 200)
                self.assertEqual(stream.stdout.read(), b"\ndata: two\n\n")
                self.assertEqual(stream.wait(), 0)

    def test_secrets_are_read_as_files_and_as_folders(self):
        for layout in ({"balm-invocation-key": KEY}, {"balm-invocation-key": {"balm-invocation-key": KEY}},
                       {"balm-invocation-key": {"token": KEY + "\n"}}):
            with self.subTest(layout=layout):
                function = Function("disk-clean", secrets=dict(layout, **{"disk-clean-roots": {"roots": "/mnt"}}))
                try:
                    function.wait_ready()
                    body = json.dumps({"root": "/mnt", "dry_run": True}).encode()
                    status, _, answer = request(USER_PORT, "POST", "/", body, sign("disk-clean", body))
                    self.assertEqual((status, json.loads(answer)["state"]), (200, "unchanged"), answer)
                finally:
                    function.close()


class Concurrency(Pod):
    """containerConcurrency is queue-proxy's to keep; ours is to answer as many at once as it lets in, and not fewer."""

    def peak(self, requests, **queue):
        """How many were inside at once while `requests` were made at once."""
        self.start("echo", queue=queue, program=slow(0.15))
        with concurrent.futures.ThreadPoolExecutor(requests) as pool:
            answers = list(pool.map(lambda i: self.post(b"%d" % i), range(requests)))
        self.assertEqual([a[::2] for a in answers], [(200, b"%d" % i) for i in range(requests)])
        with open(os.path.join(self.function_root() if is_contained() else "/", "tmp", "inside")) as f:
            marks = f.read().split()
        inside = peak = 0
        for mark in marks:
            inside += 1 if mark == "+" else -1
            peak = max(peak, inside)
        self.assertEqual((inside, len(marks)), (0, 2 * requests))
        self.queue.close()
        self.function.close()
        return peak

    def test_no_more_than_container_concurrency_are_inside_and_the_others_wait(self):
        if not is_contained():
            self.skipTest("SKIPPED: it takes root, for a /tmp of its own")
        for n in (1, 2, 5):
            with self.subTest(n=n):
                self.assertEqual(self.peak(6 * n, concurrency=n), n)

    def test_without_a_limit_all_are_inside(self):
        if not is_contained():
            self.skipTest("SKIPPED: it takes root, for a /tmp of its own")
        self.assertGreater(self.peak(12, concurrency=0), 6)

    def test_max_inflight_below_it_answers_429_which_senders_try_again(self):
        self.start("echo", queue={"concurrency": 8}, program=slow(1), max_inflight="2")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: self.post(b""), range(8)))
        self.assertEqual(sorted(a[0] for a in answers), [200] * 2 + [429] * 6)
        self.assertTrue(all(a[1].get("retry-after") == "1" for a in answers if a[0] == 429))


class Shutdown(Pod):
    def test_the_hook_drains_the_sidecar_then_the_function_is_told_and_nothing_fails(self):
        """As the kubelet ends a pod: queue-proxy gets SIGTERM while the function's preStop hook waits for it to be quiet; then the function."""
        self.start()
        load = Load(8)
        self.addCleanup(load.stop)
        load.wait_served(100)
        self.queue.terminate()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            hook = pool.submit(self.queue.wait_drained, 90)
            load.wait_served(load.served + 200)  # endpoints take a moment to forget the pod
            load.stop()
            self.assertEqual(hook.result(), 200)
        self.assertEqual(load.failures, [])
        began = time.monotonic()
        self.function.signal(signal.SIGTERM)
        self.assertEqual(self.function.wait(20), 0)
        self.assertLess(time.monotonic() - began, 6 * PATIENCE)
        self.assertEqual(self.queue.wait(60), 0)

    def test_sigterm_to_both_at_once_under_load_fails_no_request(self):
        """Without the hook; the load goes on far beyond write_timeout, after which a function elsewhere closes its port."""
        self.start(write_timeout="1s")
        load = Load(8)
        self.addCleanup(load.stop)
        load.wait_served(100)
        self.queue.terminate()
        self.function.signal(signal.SIGTERM)
        time.sleep(4)  # the length of the load, not a wait for something
        load.stop()
        self.assertEqual(load.failures, [])
        self.assertGreater(load.served, 300)
        self.assertEqual(self.function.wait(20), 0)

    def test_long_requests_end_and_idle_connections_do_not_hold_it(self):
        self.start(program=slow(3), exec_timeout="20s")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            long = [pool.submit(self.post, b"%d" % i) for i in range(4)]
            wait_until(lambda: 'inflight' in self.metrics() and self.metrics()['inflight'] == 4, 20, "four requests are under way")
            self.queue.terminate()
            self.function.signal(signal.SIGTERM)
            self.assertEqual([f.result()[::2] for f in long], [(200, b"%d" % i) for i in range(4)])
        self.assertEqual(self.function.wait(20), 0)

    def metrics(self):
        text = request(8081, "GET", "/metrics")[2].decode()
        return {"inflight": int(line.split()[1]) for line in text.splitlines() if line.startswith("http_requests_in_flight ")}

    def test_http2_requests_survive_it_too(self):
        if shutil.which("h2load") is None:
            self.skipTest("SKIPPED: no h2load (Debian: nghttp2-client)")
        self.start()
        command = ["h2load", "--requests=6000", "--clients=4", "--max-concurrent-streams=4", "--data=/etc/hostname", f"http://127.0.0.1:{QUEUE_PORT}/"]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: 'status="200"' in self.served() or 'code="200"' in self.served(), 30, "the load has begun")
            self.function.signal(signal.SIGTERM)
            output = load.communicate(timeout=60 * PATIENCE)[0]
        finally:
            if load.poll() is None:
                load.kill()
                load.wait()
        self.assertIn("6000 succeeded, 0 failed, 0 errored, 0 timeout", output)
        self.assertEqual(self.function.wait(30), 0)

    def served(self):
        return request(8081, "GET", "/metrics")[2].decode()


if __name__ == "__main__":
    unittest.main()
