"""The bots as they are run: real processes over HTTP, signed invocations, a broker at descriptor 3 where one is needed."""
import contextlib
import hashlib
import hmac
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

from harness import BUILD, PATIENCE, PlatformTest, alert, free_port, main, request, rfc3339, stack_file, wait_until

KEY = "5e" * 32
# Python's own pipe to a child may be descriptor 3, so the child moves the socket there itself.
AT_THREE = "import os,sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"


def sign(function, body, intent="i-1", target="t", began=None, seconds=20, key=KEY):
    """Headers of an invocation as the platform makes them (runtime/function/invocation.h)."""
    t = time.time() if began is None else began
    times = rfc3339(t), rfc3339(time.time() + seconds * PATIENCE)
    fields = [function, intent, "inc-1", target, "7", "1", *times]
    text = "\n".join(["balm-invocation-v1", *fields, hashlib.sha256(body).hexdigest()])
    return {"content-type": "application/json", "ce-specversion": "1.0", "ce-type": "dev.balm.invocation", "ce-id": intent,
            "ce-source": "/balm/test", "ce-subject": target, "ce-time": times[0], "ce-balmincident": "inc-1",
            "ce-balmfunction": function, "ce-balmepoch": "7", "ce-balmattempt": "1", "ce-balmdeadline": times[1],
            "ce-balmsignature": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}


class Bot:
    """One function's process with a secrets folder of its own."""

    def __init__(self, name, folder, secrets=None, env=None, broker=None):
        self.name, self.port = name, free_port()
        self.executable = os.path.join(BUILD, "functions", name)
        self.secrets = os.path.join(folder, "secrets")
        os.makedirs(self.secrets, exist_ok=True)
        for secret, text in {"balm-invocation-key": KEY, **(secrets or {})}.items():
            with open(os.path.join(self.secrets, secret), "w") as f:
                f.write(text)
        self.env = {"port": str(self.port), "BALM_HOST": "127.0.0.1", "BALM_METRICS": "off", "suppress_lock": "true", "healthcheck_interval": "100ms",
                    "secret_mount_path": self.secrets, "PATH": os.environ["PATH"], **(env or {})}
        for name_of in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name_of in os.environ:
                self.env[name_of] = os.environ[name_of]
        self.log = open(os.path.join(folder, name + ".log"), "w+b")
        command, fds = [self.executable], ()
        if broker is not None:
            command, fds = [sys.executable, "-c", AT_THREE, str(broker.fileno()), self.executable], (broker.fileno(),)
        self.process = subprocess.Popen(command, env=self.env, pass_fds=fds, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_until(self.is_ready, 10, f"{name} answers")
        self.manifest = json.loads(subprocess.run([self.executable, "--describe"], env=self.env, capture_output=True, check=True).stdout)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended at start:\n{self.log_text()}")
        try:
            return request(self.port, "GET", "/_/ready")[0] == 200
        except OSError:
            return False

    def log_text(self):
        self.log.flush()
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def headers(self, body, function=None, **signed):
        return sign(function or self.name, body, **signed)

    def act(self, params, **signed):
        """(HTTP status, answer) of one signed invocation; a reply outside the manifest's schema fails."""
        body = json.dumps(params).encode()
        status, _, answer = request(self.port, "POST", "/", body, self.headers(body, **signed), timeout=60)
        answer = json.loads(answer)
        check_schema(self.manifest["reply"], answer.get("detail", {}))
        return status, answer

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(20 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.close()
        return code


JSON_TYPES = {"string": str, "integer": int, "boolean": bool, "array": list}


def check_schema(schema, detail):
    for name, value in detail.items():
        if name not in schema["properties"]:
            raise AssertionError(f"detail.{name} is not in the manifest")
        expected = JSON_TYPES[schema["properties"][name]["type"]]
        if type(value) is not expected:
            raise AssertionError(f"detail.{name} is {value!r}, not {expected.__name__}")


class BotTest(unittest.TestCase):
    def setUp(self):
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="balm-bots-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def bot(self, name, **arguments):
        b = Bot(name, self.folder, **arguments)
        self.addCleanup(self._stop, b)
        return b

    def _stop(self, b):
        self.assertEqual(b.stop(), 0, "exit code after SIGTERM")


class Signing(BotTest):
    def test_only_invocations_signed_for_this_bot_and_body_are_taken(self):
        b = self.bot("notify")
        body = b"{}"
        good = b.headers(body)
        refused = [{}, {**good, "ce-balmsignature": "0" * 64}, b.headers(body, key="ab" * 32), b.headers(body, function="disk-clean"),
                   b.headers(b'{"title":"x"}'), {**good, "ce-subject": "other"}]
        for headers in refused:
            self.assertEqual(request(b.port, "POST", "/", body, headers)[0], 403, headers)
        self.assertEqual(request(b.port, "POST", "/", body, b.headers(body, seconds=-1))[0], 504)

    def test_parameters_outside_the_manifest_are_refused_by_name(self):
        cases = {"notify": [({"titel": "x"}, "did you mean 'title'?"), ({"link": "javascript:alert(1)"}, "'link'"),
                            ({"title": "a\nb"}, "'title'"), ({"title": "x" * 301}, "301"), ({"text": "x" * 8193}, "8193")],
                 "disk-clean": [({}, "'root'"), ({"root": "tmp"}, "'root'"), ({"root": "/a/../b"}, "'root'"), ({"root": "/"}, "'root'"),
                                ({"root": "/a", "older_than": "1s"}, "1s is out of range"), ({"root": "/a", "max_files": 0}, "max_files")],
                 "service-restart": [({}, "'unit'"), ({"unit": "--now"}, "'unit'"), ({"unit": "a/b"}, "'unit'"),
                                     ({"unit": "nginx; reboot"}, "'unit'"), ({"unit": "nginx", "settle": "2h"}, "'settle'")],
                 "run-program": [({}, "'program'"), ({"program": "../x"}, "'program'"), ({"program": "-x"}, "'program'"),
                                 ({"program": "x", "arguments": "a=b"}, "'arguments'"), ({"program": "x", "arguments": ["a=\n"]}, "'arguments'"),
                                 ({"program": "x", "arguments": ["a=b"] * 33}, "33"), ({"program": "x", "dry_run": "maybe"}, "'dry_run'")]}
        for name, params in cases.items():
            b = self.bot(name)
            for bad, part in params:
                status, answer = b.act(bad)
                self.assertEqual((status, answer["state"], answer["code"]), (400, "failed", "INVALID_ARGUMENT"), bad)
                self.assertIn(part, answer["message"])
                self.assertFalse(answer["retry"])

    def test_manifest_says_what_the_platform_needs(self):
        for name, destructive in {"notify": False, "disk-clean": True, "service-restart": False, "run-program": False}.items():
            m = self.bot(name).manifest
            # Files cannot be removed a second time within the limits of the first, and of a program nobody knows what it does.
            on_unknown = "escalate" if name in ("disk-clean", "run-program") else "rerun"
            self.assertEqual((m["name"], m["acts"], m["auth"], m["on_unknown"]), (name, True, "signed", on_unknown))
            self.assertEqual((m["destructive"], m["removes_series"]), (destructive, False))
            self.assertFalse(m["schema"]["additionalProperties"])
            self.assertEqual(set(m["schema"]["properties"]), set(m["params"]))
            self.assertTrue(m["verify"] and m["undo"] and m["touches"])


class Broker(threading.Thread):
    """The platform's end of the socket pair, from a script: what `services` say, and what a restart does to them."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.asked = []
        self.services = {}
        self.on_restart = lambda service: {"exit": 0, "output": ""}
        self.on_status = lambda service: None
        self.start()

    def run(self):
        while True:
            try:
                message = self.ours.recv(65536)
            except OSError:
                return
            if not message:
                return
            question = json.loads(message)
            self.asked.append(question["act"])
            self.ours.send(json.dumps({"id": question["id"], **self.answer(question)}).encode())

    def end(self):
        """Its thread first: one that still reads would read what comes on the next one's descriptor of the same number."""
        with contextlib.suppress(OSError):
            self.ours.shutdown(socket.SHUT_RDWR)
        self.join()
        self.ours.close()

    def answer(self, question):
        service = self.services.get(question["subject"])
        if service is None:
            return {"ok": False, "code": "PERMISSION_DENIED", "message": f"'{question['subject']}' is not on the list"}
        if question["act"] == "service-restart":
            return {"ok": True, "manager": "argv", **self.on_restart(service)}
        self.on_status(service)
        return {"ok": True, "manager": "argv", **service}


def down():
    return {"active": False, "startedAt": "", "pid": 0, "state": "inactive"}


def up(pid, started=None):
    return {"active": True, "startedAt": rfc3339(started or time.time()), "pid": pid, "state": "active"}


class ServiceRestart(BotTest):
    def start_bot(self, **services):
        self.broker = Broker()
        self.broker.services = services
        self.addCleanup(self.broker.end)
        b = self.bot("service-restart", broker=self.broker.theirs)
        self.broker.theirs.close()
        return b

    def test_restarts_what_is_down_and_sees_it_stay_up(self):
        b = self.start_bot(nginx=down())

        def restart(service):
            service.update(up(42))
            return {"exit": 0, "output": "started\n"}
        self.broker.on_restart = restart
        began = time.monotonic()
        status, answer = b.act({"unit": "nginx", "settle": "200ms"})
        self.assertEqual((status, answer["state"]), (200, "done"), answer)
        self.assertGreaterEqual(time.monotonic() - began, 0.2, "it watched for the settle time")
        detail = answer["detail"]
        self.assertEqual((detail["pid"], detail["stateBefore"], detail["manager"], detail["output"]), (42, "inactive", "argv", "started"))
        self.assertEqual(self.broker.asked.count("service-restart"), 1)
        self.assertGreaterEqual(self.broker.asked.count("service-status"), 3)

    def test_second_run_of_one_intent_does_nothing(self):
        began = time.time()
        b = self.start_bot(nginx=down())
        self.broker.on_restart = lambda service: (service.update(up(42)), {"exit": 0, "output": ""})[1]
        self.assertEqual(b.act({"unit": "nginx"}, began=began)[1]["state"], "done")
        status, answer = b.act({"unit": "nginx"}, began=began)
        self.assertEqual((status, answer["state"]), (200, "unchanged"), answer)
        self.assertIn("after the intent", answer["message"])
        self.assertEqual(self.broker.asked.count("service-restart"), 1)

    def test_running_service_that_is_older_than_the_intent_is_restarted(self):
        b = self.start_bot(nginx=up(7, time.time() - 3600))
        self.broker.on_restart = lambda service: (service.update(up(8)), {"exit": 0, "output": ""})[1]
        self.assertEqual(b.act({"unit": "nginx"})[1]["state"], "done")

    def test_process_that_dies_at_once_is_not_up(self):
        b = self.start_bot(nginx=down())
        looks = []

        def restart(service):
            service.update(up(100))
            return {"exit": 0, "output": ""}

        def status(service):  # a crash loop: each look after the restart finds another process
            if service["active"]:
                looks.append(1)
                service.update(up(100 + len(looks)))
        self.broker.on_restart, self.broker.on_status = restart, status
        code, answer = b.act({"unit": "nginx", "settle": "300ms"}, seconds=2)
        self.assertEqual((answer["state"], answer["code"]), ("failed", "INTERNAL"), answer)
        self.assertIn("did not stay up", answer["message"])
        self.assertGreater(len(looks), 3)
        self.assertEqual(self.broker.asked.count("service-restart"), 1, "one restart an invocation, whatever comes")

    def test_old_process_that_still_runs_is_not_taken_for_a_new_one(self):
        old = up(7, time.time() - 3600)
        b = self.start_bot(nginx=old)
        _, answer = b.act({"unit": "nginx"}, seconds=1.5)
        self.assertEqual((answer["state"], answer["code"]), ("failed", "INTERNAL"), answer)

    def test_tool_that_fails_is_quoted(self):
        b = self.start_bot(nginx=down())
        self.broker.on_restart = lambda service: {"exit": 1, "output": "nginx: [emerg] unknown directive \"sever\"\n"}
        _, answer = b.act({"unit": "nginx"})
        self.assertEqual((answer["state"], answer["retry"]), ("failed", False), answer)
        self.assertIn("exit 1", answer["message"])
        self.assertIn('unknown directive "sever"', answer["message"])
        self.assertIn("inactive", answer["message"])

    def test_service_that_is_not_on_the_list_is_refused(self):
        b = self.start_bot(nginx=down())
        status, answer = b.act({"unit": "sshd"})
        self.assertEqual((status, answer["state"]), (200, "refused"), answer)
        self.assertNotIn("service-restart", self.broker.asked)

    def test_without_a_broker_it_fails_with_the_reason(self):
        b = self.bot("service-restart")
        _, answer = b.act({"unit": "nginx"})
        self.assertEqual((answer["state"], answer["code"]), ("failed", "FAILED_PRECONDITION"), answer)
        self.assertIn("broker", answer["message"])

    def test_stopped_platform_restarts_nothing(self):
        b = self.start_bot(nginx=down())
        b.process.send_signal(signal.SIGUSR1)

        def is_stopped():
            _, answer = b.act({"unit": "nginx"}, seconds=2)
            return answer if answer.get("code") == "CANCELLED" else None
        self.broker.on_restart = lambda service: {"exit": 1, "output": ""}
        answer = wait_until(is_stopped, 10, "the stop switch counts")
        self.assertTrue(answer["retry"], answer)
        n = self.broker.asked.count("service-restart")
        b.act({"unit": "nginx"})
        self.assertEqual(self.broker.asked.count("service-restart"), n)


class DiskClean(BotTest):
    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "root")
        os.makedirs(self.root)

    def start_bot(self, roots=None):
        return self.bot("disk-clean", env={"disk_clean_roots": self.root if roots is None else roots})

    def file(self, name, size, hours):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(os.urandom(size))
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
        return path

    def test_removes_old_files_and_reports_what_was_freed(self):
        old, older, young = self.file("a/old", 100000, 48), self.file("older", 50000, 96), self.file("young", 1000, 1)
        b = self.start_bot()
        status, answer = b.act({"root": self.root})
        self.assertEqual((status, answer["state"]), (200, "done"), answer)
        d = answer["detail"]
        self.assertEqual((d["filesRemoved"], d["filesMatched"], d["filesFailed"], d["isPartial"], d["dryRun"]), (2, 2, 0, False, False))
        self.assertGreaterEqual(d["bytesFreed"], 150000)
        self.assertLess(d["bytesFreed"], 200000)
        self.assertGreater(d["bytesLeftFree"], 0)
        self.assertEqual([os.path.exists(p) for p in (old, older, young)], [False, False, True])
        status, answer = b.act({"root": self.root})
        self.assertEqual((status, answer["state"]), (200, "unchanged"), "a second run finds nothing")

    def test_dry_run_says_the_same_and_touches_nothing(self):
        old = self.file("old", 100000, 48)
        _, answer = self.start_bot().act({"root": self.root, "dry_run": True})
        self.assertEqual((answer["state"], answer["detail"]["filesRemoved"], answer["detail"]["dryRun"]), ("unchanged", 1, True))
        self.assertGreaterEqual(answer["detail"]["bytesFreed"], 100000)
        self.assertTrue(os.path.exists(old))

    def test_limits_of_files_bytes_and_free_share_are_kept_oldest_first(self):
        paths = [self.file(f"f{i}", 10000, 100 - i) for i in range(10)]
        b = self.start_bot()
        _, answer = b.act({"root": self.root, "max_files": 3})
        self.assertEqual(answer["detail"]["filesRemoved"], 3)
        self.assertEqual([os.path.exists(p) for p in paths], [False] * 3 + [True] * 7)
        _, answer = b.act({"root": self.root, "max_bytes": 15000})
        self.assertEqual(answer["detail"]["filesRemoved"], 2)
        _, answer = b.act({"root": self.root, "until_free_percent": 1})
        self.assertEqual((answer["state"], os.path.exists(paths[9])), ("unchanged", True), answer)
        self.assertIn("free already", answer["message"])
        _, answer = b.act({"root": self.root, "max_scan": 2})
        self.assertEqual((answer["detail"]["entriesScanned"], answer["detail"]["isPartial"]), (2, True))

    def test_folders_that_are_not_listed_are_refused(self):
        other = os.path.join(self.folder, "other")
        os.makedirs(os.path.join(self.root, "sub"))
        os.makedirs(other)
        b = self.start_bot(f"{self.root}:/nonexistent-folder")
        for root, part in [(other, "not on the list"), (self.folder, "not on the list"), (os.path.join(self.root, "sub"), "not on the list"),
                           ("/nonexistent-folder", "No such file")]:
            status, answer = b.act({"root": root})
            self.assertEqual((status, answer["state"]), (200, "refused"), answer)
            self.assertIn(part, answer["message"])

    def test_without_a_list_everything_is_refused_and_a_secret_can_be_the_list(self):
        self.file("old", 10, 48)
        b = self.start_bot("")
        _, answer = b.act({"root": self.root})
        self.assertEqual(answer["state"], "refused")
        self.assertIn("disk_clean_roots", answer["message"])
        with open(os.path.join(b.secrets, "disk-clean-roots"), "w") as f:
            f.write(f"/nonexistent-folder\n{self.root}\n")
        self.assertEqual(b.act({"root": self.root})[1]["state"], "done")

    def test_links_lead_nowhere(self):
        outside = os.path.join(self.folder, "outside")
        os.makedirs(outside)
        precious = os.path.join(outside, "precious")
        with open(precious, "w") as f:
            f.write("x")
        os.utime(precious, (0, 0))
        os.symlink(outside, os.path.join(self.root, "link"))
        os.symlink(self.root, os.path.join(self.folder, "alias"))
        b = self.start_bot(f"{self.root}:{self.folder}/alias")
        _, answer = b.act({"root": self.root})
        self.assertEqual((answer["state"], answer["detail"]["skippedOther"]), ("unchanged", 1), answer)
        _, answer = b.act({"root": self.folder + "/alias"})
        self.assertEqual(answer["state"], "refused", answer)
        self.assertIn("symbolic link", answer["message"])
        self.assertTrue(os.path.exists(precious))

    def test_race_of_folders_and_links_never_reaches_outside(self):
        """One thread swaps a folder of old files and a link to another without end, while the bot cleans again and again."""
        outside, spare, trap = (os.path.join(self.folder, n) for n in ("outside", "spare", "trap"))
        os.makedirs(outside)
        os.makedirs(spare)
        for i in range(40):
            with open(os.path.join(outside, f"f{i}"), "w") as f:
                f.write("precious")
            os.utime(f.name, (0, 0))
        target, stop = os.path.join(self.root, "d"), threading.Event()
        os.symlink(outside, trap)

        def swap():
            while not stop.is_set():
                for i in range(40):
                    path = os.path.join(spare, f"f{i}")
                    with open(path, "w"):
                        pass
                    os.utime(path, (0, 0))
                for _ in range(20):
                    for source in (spare, trap):
                        os.rename(source, target)
                        os.rename(target, source)
        b = self.start_bot()
        thread = threading.Thread(target=swap)
        thread.start()
        removed = 0
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                status, answer = b.act({"root": self.root})
                self.assertEqual(status, 200, answer)
                removed += answer["detail"]["filesRemoved"]
        finally:
            stop.set()
            thread.join()
        self.assertEqual(len(os.listdir(outside)), 40)
        self.assertGreater(removed, 0, "the race was run at all")

    def test_stop_switch_ends_the_removal(self):
        self.file("old", 10, 48)
        b = self.start_bot()
        b.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: b.act({"root": self.root, "dry_run": True})[1].get("code") == "CANCELLED", 10, "the stop switch counts")
        self.assertEqual(b.act({"root": self.root})[1]["code"], "CANCELLED")
        self.assertTrue(os.path.exists(os.path.join(self.root, "old")))


class Receiver:
    """A webhook's other end: keeps what came, answers from a list of statuses (the last one for ever)."""

    def __init__(self, statuses=(200,), headers=()):
        received, left = [], list(statuses)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, dict((k.lower(), v) for k, v in self.headers.items()), body))
                status = left.pop(0) if len(left) > 1 else left[0]
                answer = b"no such hook \x1b[2J" if status >= 400 else b"ok"
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                pass
        self.received = received
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Notify(BotTest):
    PATH = "/services/T000/s3cret-path?token=s3cret-query"

    def receiver(self, *arguments, **named):
        r = Receiver(*arguments, **named)
        self.addCleanup(r.close)
        return r

    def start_bot(self, port):
        return self.bot("notify", secrets={"notify-url": f"http://127.0.0.1:{port}{self.PATH}\n", "notify-hmac-key": "k3y-of-us\n"})

    def test_posts_signed_json_once(self):
        r = self.receiver()
        b = self.start_bot(r.port)
        status, answer = b.act({"severity": "critical", "title": "nginx is down: ä", "text": "two\nlines", "link": "https://balm.example/i/1"},
                               intent="intent-77", target="service/nginx")
        self.assertEqual((status, answer["state"]), (200, "done"), answer)
        self.assertEqual(answer["detail"], {"host": f"127.0.0.1:{r.port}", "httpStatus": 200, "attempts": 1})
        self.assertEqual(len(r.received), 1)
        path, headers, body = r.received[0]
        self.assertEqual(path, self.PATH)
        self.assertEqual(headers["idempotency-key"], "intent-77")
        self.assertEqual(headers["content-type"], "application/json")
        self.assertLess(abs(int(headers["x-balm-timestamp"]) - time.time()), 30 * PATIENCE)
        expected = hmac.new(b"k3y-of-us", headers["x-balm-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
        self.assertEqual(headers["x-balm-signature"], "sha256=" + expected)
        sent = json.loads(body)
        self.assertTrue(sent.pop("time").endswith("Z"))
        self.assertEqual(sent, {"intent": "intent-77", "incident": "inc-1", "target": "service/nginx", "severity": "critical",
                                "title": "nginx is down: ä", "text": "two\nlines", "link": "https://balm.example/i/1"})

    def test_transient_failures_are_tried_again_with_the_same_key(self):
        r = self.receiver((503, 200))
        b = self.start_bot(r.port)
        _, answer = b.act({}, intent="same", seconds=30)
        self.assertEqual((answer["state"], answer["detail"]["attempts"]), ("done", 2), answer)
        self.assertEqual([h["idempotency-key"] for _, h, _ in r.received], ["same", "same"])
        self.assertEqual(r.received[0][2], r.received[1][2])

    def test_refusal_of_the_receiver_is_final_and_shows_no_secret(self):
        r = self.receiver((404,))
        b = self.start_bot(r.port)
        _, answer = b.act({})
        self.assertEqual((answer["state"], answer["code"], answer["retry"]), ("failed", "FAILED_PRECONDITION", False), answer)
        self.assertIn("answered 404", answer["message"])
        self.assertNotIn("\x1b", answer["message"])
        self.assertEqual(len(r.received), 1)
        self.expect_no_secret(b, answer)

    def test_redirects_are_not_followed(self):
        elsewhere = self.receiver()
        r = self.receiver((302,), headers=[("location", f"http://127.0.0.1:{elsewhere.port}/")])
        _, answer = self.start_bot(r.port).act({})
        self.assertEqual(answer["state"], "failed", answer)
        self.assertEqual(elsewhere.received, [])

    def test_receiver_that_is_gone_can_be_tried_later(self):
        b = self.start_bot(free_port())
        status, answer = b.act({}, seconds=3)
        self.assertEqual((answer["state"], answer["code"], answer["retry"]), ("failed", "UNAVAILABLE", True), answer)
        self.expect_no_secret(b, answer)

    def test_receiver_that_is_silent_ends_at_the_deadline(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            b = self.start_bot(silent.getsockname()[1])
            began = time.monotonic()
            _, answer = b.act({}, seconds=2)
            self.assertEqual((answer["state"], answer["retry"]), ("failed", True), answer)
            self.assertLess(time.monotonic() - began, 10 * PATIENCE)
            self.expect_no_secret(b, answer)

    def test_without_its_secrets_it_refuses(self):
        b = self.bot("notify")
        status, answer = b.act({"title": "x"})
        self.assertEqual((status, answer["state"]), (200, "refused"), answer)
        self.assertIn("notify-url", answer["message"])
        with open(os.path.join(b.secrets, "notify-url"), "w") as f:
            f.write("ftp://x/")
        self.assertIn("notify-hmac-key", b.act({})[1]["message"])
        with open(os.path.join(b.secrets, "notify-hmac-key"), "w") as f:
            f.write("k")
        self.assertIn("no http:// or https:// URL", b.act({})[1]["message"])

    def test_alert_cannot_choose_where_to_post(self):
        r, elsewhere = self.receiver(), self.receiver()
        b = self.start_bot(r.port)
        status, answer = b.act({"url": f"http://127.0.0.1:{elsewhere.port}/"})
        self.assertEqual((status, answer["code"]), (400, "INVALID_ARGUMENT"), answer)
        b.act({"link": f"http://127.0.0.1:{elsewhere.port}/"})
        self.assertEqual((len(r.received), elsewhere.received), (1, []))

    def expect_no_secret(self, b, answer):
        for text in (json.dumps(answer), b.log_text()):
            for secret in ("s3cret", "k3y-of-us", KEY):
                self.assertNotIn(secret, text)


class NotifyBehindThePlatform(PlatformTest):
    RUNBOOK = ("name: tell\nmatch: ['alertname=\"X\"']\ntarget: t/${labels.x}\nmode: act\n"
               "steps:\n  - {bot: notify, with: {title: \"${labels.x}\"}, timeout: 30s}\n")

    def make_secret(self, p, name, value):
        self.assertEqual(p.request("POST", "/system/secrets", {"name": name, "value": value}, p.basic())[0], 202)

    def test_missing_secrets_are_said_everywhere_and_once_made_people_are_told(self):
        p = self.platform(runbooks={"tell.yaml": self.RUNBOOK},
                          stack=stack_file("notify") + "    secrets: [notify-url, notify-hmac-key]\n")
        warned = [line["secret"] for line in p.log if "secret that a function lists is missing" in line["message"]]
        self.assertEqual(warned, ["notify-url", "notify-hmac-key"])
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        self.assertEqual(functions[0]["missingSecrets"], ["notify-url", "notify-hmac-key"])
        self.assertIn("CANNOT START: no secret notify-url (faas-cli secret create notify-url)", p.cli("status")[1])
        p.post_alerts(alert("X", x="1"))
        retry = p.wait_record("retry")
        self.assertIn("secret 'notify-url' of function 'notify' is not there: faas-cli secret create notify-url", retry["reason"])
        self.assertIn("secret 'notify-url'", p.cli("why", "last")[1])
        r = Receiver()
        self.addCleanup(r.close)
        self.make_secret(p, "notify-hmac-key", "k")
        self.make_secret(p, "notify-url", f"http://127.0.0.1:{r.port}/")
        self.assertEqual(p.wait_record("outcome")["state"], "done")
        self.assertEqual(len(r.received), 1)
        self.assertNotIn("CANNOT START", p.cli("status")[1])


if __name__ == "__main__":
    main()
