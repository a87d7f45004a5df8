"""Functions that run elsewhere, behind a URL (annotation balm.dev/url): acts and calls reach them, wait for them, and are judged when they die."""
import hashlib
import hmac
import os
import shutil
import signal
import subprocess
import time

from harness import BUILD, PlatformTest, alert, free_port, main, request, stack_file, wait_until

RUNBOOK = """
name: elsewhere
match: ['alertname="Elsewhere"']
target: host/${labels.host}
mode: act
steps:
  - bot: ledger
    verify: {check: {}}
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 20}
"""


class Elsewhere:
    """A function's own process, as a container would run it: its port, its secrets, nothing of the platform's."""

    def __init__(self, test, executable, port, key=None, **env):
        secrets = os.path.join(test.folder, f"secrets-{port}")
        os.makedirs(secrets, exist_ok=True)
        if key is not None:
            with open(os.path.join(secrets, "balm-invocation-key"), "w") as f:
                f.write(key)
        env.update({"port": str(port), "secret_mount_path": secrets, "PATH": os.environ["PATH"], "healthcheck_interval": "0s"})
        self.process = subprocess.Popen([executable], env=env, stderr=subprocess.DEVNULL)
        test.addCleanup(self.stop, signal.SIGKILL)
        wait_until(lambda: self.is_up(port), 20, "the function answers")

    @staticmethod
    def is_up(port):
        try:
            return request(port, "GET", "/_/health")[0] == 200
        except OSError:
            return False

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        self.process.wait()


class RemoteTest(PlatformTest):
    def setUp(self):
        super().setUp()
        self.port, self.ledger = free_port(), os.path.join(self.folder, "ledger.txt")
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        shutil.copy2(os.path.join(BUILD, "tests", "crash", "ledger"), self.functions)
        shutil.copy2(os.path.join(BUILD, "functions", "echo"), self.functions)
        self.p = self.platform(runbooks={"elsewhere.yaml": RUNBOOK}, functions=self.functions, stack=self.stack("ledger"))

    def stack(self, *names, url=None):
        text = stack_file()
        for name in names:
            text += stack_file(name).split("functions:\n", 1)[1]
            text += f"    annotations: {{balm.dev/url: '{url or f'http://127.0.0.1:{self.port}'}'}}\n"
        return text

    def key(self):
        label = b"balm-invocation-key-v1:ledger"
        return hmac.new(self.p.secret("invocation-key").encode(), label, hashlib.sha256).hexdigest()

    def start_ledger(self, **env):
        return Elsewhere(self, os.path.join(self.functions, "ledger"), self.port, self.key(), ledger_file=self.ledger, **env)

    def begun(self):
        """Intents in the order in which their acts began."""
        if not os.path.exists(self.ledger):
            return []
        with open(self.ledger) as f:
            return [line.split()[2] for line in f if line.startswith("begin ")]

    def depth(self):
        text = self.p.request("GET", "/metrics")[2].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("balm_queue_depth{") and 'function="ledger"' in line and 'state="dead"' not in line)

    def test_an_act_is_done_elsewhere(self):
        self.start_ledger()
        self.p.post_alerts(alert("Elsewhere", host="a"))
        outcome = self.p.wait_record("outcome", state="done")
        self.assertEqual(self.begun(), [outcome["intent"]])

    def test_an_act_waits_for_a_function_that_is_at_zero(self):
        self.p.post_alerts(alert("Elsewhere", host="a"))
        wait_until(lambda: self.depth() == 1, 10, "it waits")
        time.sleep(4)  # longer than it waits between two attempts to reach it
        self.assertEqual(self.depth(), 1)
        self.start_ledger()
        outcome = self.p.wait_record("outcome", state="done")
        self.assertEqual(self.begun(), [outcome["intent"]])
        self.assertEqual(outcome["attempt"], 1, "nobody there is no attempt")

    def test_a_function_that_dies_in_its_act_gets_the_same_intent_again(self):
        first = self.start_ledger(ledger_hold_ms="60000")
        self.p.post_alerts(alert("Elsewhere", host="a"))
        wait_until(lambda: len(self.begun()) == 1, 20, "it has begun")
        first.stop(signal.SIGKILL)
        self.start_ledger()
        outcome = self.p.wait_record("outcome", seconds=40, state="done")
        self.assertEqual(self.begun(), [outcome["intent"]] * 2, "on_unknown: rerun")

    def test_a_stop_waits_for_what_is_under_way(self):
        self.start_ledger(ledger_hold_ms="1500")
        self.p.post_alerts(alert("Elsewhere", host="a"))
        wait_until(lambda: len(self.begun()) == 1, 20, "it has begun")
        code, _, error = self.p.cli("stop", "--reason", "test")
        self.assertEqual(code, 0, error)
        with open(self.ledger) as f:
            self.assertIn("end ", f.read(), "it had ended when the stop said that nothing acts any more")
        self.p.post_alerts(alert("Elsewhere", host="b"))
        time.sleep(2)
        self.assertEqual(len(self.begun()), 1)

    def test_a_stop_that_cannot_wait_says_so(self):
        self.start_ledger(ledger_hold_ms="18000")
        self.p.post_alerts(alert("Elsewhere", host="a"))
        wait_until(lambda: len(self.begun()) == 1, 20, "it has begun")
        code, out, error = self.p.cli("stop", "--reason", "test")
        self.assertNotEqual(code, 0, out)
        self.assertIn("runs elsewhere and has not answered", error + out)

    def test_plain_calls_go_there_and_back(self):
        port = free_port()
        self.p.write("stack.yml", self.stack("ledger") + self.stack("echo", url=f"http://127.0.0.1:{port}/").split("functions:\n", 1)[1])
        self.assertEqual(self.p.request("POST", "/system/reload", {}, self.p.basic())[0], 200)
        status, headers, _ = self.p.request("POST", "/function/echo", b"hello")
        self.assertEqual((status, headers.get("retry-after")), (503, "1"), "nobody is there")
        Elsewhere(self, os.path.join(self.functions, "echo"), port)
        status, headers, body = self.p.request("POST", "/function/echo/path?a=b", b"hello" * 1000, {"Content-Type": "text/x-test"})
        self.assertEqual((status, body), (200, b"hello" * 1000))
        self.assertIn("x-call-id", headers)
        self.assertEqual(self.p.request("POST", "/async-function/echo", b"later")[0], 202)
        self.p.wait_record("outcome", state="done", function="echo")

    def test_it_is_scaled_by_somebody_else(self):
        status, _, body = self.p.request("POST", "/system/scale-function/ledger", {"serviceName": "ledger", "replicas": 3}, self.p.basic())
        self.assertEqual(status, 400, body)
        self.assertIn(b"runs elsewhere", body)
        self.assertEqual([], [name for name in os.listdir(os.path.join(self.p.data, "run")) if name.endswith(".sock")])

    def test_what_is_no_url_is_refused(self):
        for url in ("ftp://host", "http://", "http://user:pw@host", "http://host/path", "http://ho st", "x" * 600):
            body = {"service": "echo", "image": "echo", "annotations": {"balm.dev/url": url}}
            status, _, text = self.p.request("POST", "/system/functions", body, self.p.basic())
            self.assertEqual(status, 400, (url, text))
            self.assertIn(b"balm.dev/url", text)


if __name__ == "__main__":
    main()
