"""Asynchronous calls whose answer is posted to the caller (X-Callback-Url): durable, retried, a dead letter at last, and not to every address."""
import http.server
import os
import shutil
import subprocess
import threading

from faas import FAAS_CLI, FaasTest
from harness import BALM, BUILD, PYTHON, PlatformTest, free_port, main, request, serve, shared, stack_file, wait_until

# Answers what it got, with a header of its own; "hold PATH" waits until PATH is there.
PROGRAM = """#!/bin/sh
read -r word path
echo "$word" >> "$calls"
while [ "$word" = hold ] && [ ! -e "$path" ]; do sleep 0.05; done
case "$word" in big) head -c 600000 /dev/zero | tr '\\0' x;; *) echo "done: $word";; esac
"""


# Asks for its answer to be posted to the gateway again, whatever it says of how often that was.
CIRCLE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open(os.environ["calls"], "a") as f:
            f.write("x\\n")
        self.send_response(200)
        self.send_header("X-Callback-Url", body.decode())
        self.send_header("X-Balm-Hops", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Receiver:
    """What is posted to it; answers what `answers` says, 204 when that is used up. While `gate` is cleared it answers nobody."""

    def __init__(self, test, answers=()):
        self.got, self.answers, self.gate = [], list(answers), threading.Event()
        self.gate.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body, self.path))
                receiver.gate.wait(30)
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = serve(Handler)
        test.addCleanup(self.close)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook/secret"

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()

    def wait(self, n=1, seconds=30):
        wait_until(lambda: len(self.got) >= n, seconds, f"{n} callbacks")
        return self.got[n - 1]


class AsyncTest(PlatformTest):
    def setUp(self):
        super().setUp()
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        shutil.copy(os.path.join(BUILD, "functions", "echo"), self.functions)
        program = os.path.join(self.functions, "prog")
        os.mkdir(program)
        self.program = os.path.join(program, "run.sh")
        with open(self.program, "w") as f:
            f.write(PROGRAM)
        os.chmod(self.program, 0o755)

    def start(self, *arguments, **more):
        stack = stack_file("echo") + f"  prog: {{image: prog, fprocess: ./run.sh, environment: {{calls: '{shared(self.folder, 'calls')}'}}}}\n"
        return self.platform(functions=self.functions, stack=stack, arguments=arguments, **more)

    def call(self, p, body, url, name="echo", headers=None, code=202):
        headers = {"X-Callback-Url": url, "Content-Type": "text/x-own", **(headers or {})}
        status, got, text = p.request("POST", f"/async-function/{name}", body, headers)
        self.assertEqual(status, code, text)
        return got.get("x-call-id") or text.decode()

    def callbacks(self, p):
        return [r for r in p.records("call") if r.get("purpose") == "callback"]

    def begun(self):
        """How many calls the program has begun."""
        if not os.path.exists(shared(self.folder, "calls")):
            return 0
        with open(shared(self.folder, "calls")) as f:
            return f.read().count("\n")

    # ---- delivery ----

    def test_the_answer_is_posted_with_its_headers(self):
        p, r = self.start(), Receiver(self)
        call_id = self.call(p, "hello", r.url)
        headers, body, path = r.wait()
        self.assertEqual((body, path), (b"hello", "/hook/secret"))
        self.assertEqual(headers["content-type"], "text/x-own")
        self.assertEqual((headers["x-call-id"], headers["x-function-name"], headers["x-function-status"]), (call_id, "echo", "200"))
        self.assertGreaterEqual(float(headers["x-duration-seconds"]), 0)
        self.assertGreater(int(headers["x-start-time"]), 1_600_000_000_000_000_000)
        callback = p.wait_record("call", purpose="callback", callback=r.url)
        self.assertEqual(callback["detail"]["call"], p.wait_record("call", path="/")["intent"])
        outcome = p.wait_record("outcome", intent=callback["intent"], state="done")
        self.assertEqual(outcome["message"], f"127.0.0.1:{r.port} answered 204")
        self.call(p, "x", r.url, headers={"X-Call-Id": "mine"})
        self.assertEqual(r.wait(2)[0]["x-call-id"], "mine")
        self.assertNotIn("/hook/secret", p.log_text())

    def test_it_is_posted_again_until_it_is_taken(self):
        p, r = self.start(), Receiver(self, [500, 302, 404])
        self.call(p, "again", r.url)
        r.wait(4, 60)
        self.assertEqual({path for _, _, path in r.got}, {"/hook/secret"})  # no redirect was followed
        self.assertEqual([body for _, body, _ in r.got], [b"again"] * 4)
        callback = self.callbacks(p)[0]
        self.assertEqual(p.wait_record("outcome", intent=callback["intent"], state="done")["attempt"], 4)

    def test_what_nobody_takes_is_a_dead_letter(self):
        p, r = self.start(), Receiver(self, [500] * 5)
        self.call(p, "nobody", r.url)
        dead = p.wait_record("outcome", 90, state="dead")
        code, text, error = p.cli("dead", "list", "--json")
        self.assertEqual(code, 0, error)
        self.assertIn('"kind":"callback"', text.replace(" ", ""))
        self.assertIn(dead["intent"], text)
        self.assertNotIn("/hook/secret", text)
        self.assertEqual(len(r.got), 5)
        code, text, error = p.cli("dead", "retry", dead["intent"])
        self.assertEqual(code, 0, error)
        p.wait_record("outcome", intent=dead["intent"], state="done")
        self.assertEqual(len(r.got), 6)

    def test_who_gets_no_answer_is_told(self):
        p, r = self.start(), Receiver(self)
        self.call(p, "big", r.url, "prog")
        headers, body, _ = r.wait()
        self.assertEqual((headers["x-function-status"], body), ("200", b""))
        self.assertIn("600000 bytes", headers["x-balm-error"])
        os.unlink(self.program)  # it cannot start any more
        p.request("POST", "/system/scale-function/prog", {"serviceName": "prog", "replicas": 0}, p.basic())
        self.call(p, "gone", r.url, "prog")
        headers, body, _ = r.wait(2, 120)
        self.assertIn(headers["x-function-status"], ("500", "502", "503"))
        self.assertEqual(headers["x-function-name"], "prog")

    # ---- one function's answer is another one's call ----

    def test_functions_are_chained_by_callbacks_to_the_gateway(self):
        p = self.start()
        for prefix, host in (("function", "127.0.0.1"), ("async-function", "localhost")):
            before = self.begun()
            self.call(p, "one", f"http://{host}:{p.port}/{prefix}/prog", "prog")
            wait_until(lambda: self.begun() == before + 2, 30, f"{prefix}: called with the answer of the first")
        with open(shared(self.folder, "calls")) as f:
            self.assertEqual(f.read().split(), ["one", "done:", "one", "done:"])
        for url in (f"http://127.0.0.1:{p.port}/function/alerts", f"http://127.0.0.1:{p.port}/function/dispatcher/freeze",
                    f"http://127.0.0.1:{p.port}/function/none", f"http://127.0.0.1:{p.port}/function/prog/../../system/reload",
                    f"http://127.0.0.1:{p.port}/function/prog/%2e%2e/x", f"http://127.0.0.1:{p.port}/function/", f"http://127.0.0.1:{p.port}/function/prog\\x"):
            self.assertIn("not posted", self.call(p, "x", url, code=400), url)

    def test_a_circle_of_callbacks_ends(self):
        with open(self.program, "w") as f:
            f.write(CIRCLE)
        env = f"{{calls: {shared(self.folder, 'calls')}, mode: http, upstream_url: 'http://127.0.0.1:{free_port()}'}}"
        stack = stack_file("echo") + f"  prog: {{image: prog, fprocess: '{PYTHON} {self.program}', environment: {env}}}\n"
        p = self.platform(functions=self.functions, stack=stack)
        url = f"http://127.0.0.1:{p.port}/async-function/prog"
        self.call(p, url, url, "prog")
        dead = p.wait_record("outcome", 60, state="dead")
        self.assertIn("in a circle", dead["message"])
        self.assertEqual(self.begun(), 8)

    # ---- our own death ----

    def test_a_kill_while_it_is_posted_loses_nothing(self):
        p, r = self.start(), Receiver(self)
        r.gate.clear()
        self.call(p, "held", r.url)
        r.wait()
        p.kill()
        r.gate.set()
        p.start()
        headers, body, _ = r.wait(2, 60)
        self.assertEqual((body, headers["x-call-id"]), (b"held", r.got[0][0]["x-call-id"]))
        p.wait_record("outcome", intent=self.callbacks(p)[0]["intent"], state="done")
        self.assertEqual(len(self.callbacks(p)), 1)

    def test_a_kill_while_the_function_works_loses_nothing(self):
        p, r = self.start(), Receiver(self)
        release = os.path.join(self.folder, "release")
        self.call(p, f"hold {release}\n", r.url, "prog")
        wait_until(self.begun, 30, "the function works")
        p.kill()
        with open(release, "w"):
            pass
        p.start()
        headers, body, _ = r.wait(1, 60)
        self.assertEqual((headers["x-function-status"], body), ("200", b"done: hold\n"))

    def test_five_kills_are_told_as_well(self):
        p, r = self.start(), Receiver(self)
        self.call(p, f"hold {self.folder}/never\n", r.url, "prog")
        for n in range(1, 6):
            wait_until(lambda: self.begun() >= n, 30, "at work")
            p.kill()
            p.start()
        headers, body, _ = r.wait(1, 60)
        self.assertEqual((headers["x-function-status"], body), ("502", b""))
        self.assertIn("stopped during each attempt", headers["x-balm-error"])
        self.assertEqual(p.wait_record("outcome", state="dead")["code"], "UNKNOWN")

    # ---- where to ----

    def test_urls_that_are_refused_at_once(self):
        p = self.start()
        for url, why in (("ftp://127.0.0.1/x", "http:// or https://"), ("file:///etc/passwd", "http:// or https://"), ("http://", "no host"),
                         ("http://a:b@127.0.0.1/", "user or password"), ("http://127.0.0.1/" + "x" * 3000, "at most 2048"),
                         ("http://169.254.169.254/latest/meta-data", "not posted to that address"),
                         ("http://[fe80::1]/", "not posted to that address"), ("http://[::ffff:169.254.169.254]/", "not posted to that address"),
                         ("http://0.0.0.0:1/", "not posted to that address"), (f"http://127.0.0.1:{p.port}/system/functions", "not posted"),
                         (f"http://[::1]:{p.port}/", "not posted")):
            self.assertIn(why, self.call(p, "x", url, code=400), url)
        self.assertEqual(p.records("call"), [])

    def test_what_a_name_resolves_to_is_what_counts(self):
        p = self.start()
        self.call(p, "x", f"http://localhost:{p.port}/system/functions")
        self.call(p, "x", f"http://2130706433:{p.port}/")  # 127.0.0.1 for some resolvers: no literal address
        wait_until(lambda: len([o for o in p.records("outcome") if o["state"] == "dead"]) == 2, 60, "both refused")
        for outcome in p.records("outcome"):
            if outcome["state"] == "dead":
                self.assertEqual(outcome["code"], "PERMISSION_DENIED", outcome)
                self.assertIn("may be connected to", outcome["message"])

    def test_networks_of_the_operator(self):
        r = Receiver(self)
        p = self.start("--callback-networks", "10.0.0.0/8, 127.0.0.2")
        self.assertIn("not posted", self.call(p, "x", r.url, code=400))
        self.call(p, "x", f"http://localhost:{r.port}/")
        p.wait_record("outcome", state="dead", code="PERMISSION_DENIED")
        self.assertEqual(r.got, [])
        for wrong in ("10.0.0.0/33", "nonsense", "::/129", "1.2.3.4/"):
            done = subprocess.run([BALM, "up", "--callback-networks", wrong, "--data", self.folder + "/d"], capture_output=True)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(b"not an address or network", done.stderr)

    def test_loopback_is_for_callers_on_this_machine(self):
        p, r = self.start("--listen", "0.0.0.0"), Receiver(self)
        self.assertIn("not posted", self.call(p, "x", r.url, code=400))
        p.stop()
        p.arguments += ["--callback-networks", "127.0.0.0/8"]
        p.start()
        self.call(p, "x", r.url)
        r.wait()


class FaasAsyncTest(FaasTest):
    def test_invoke_async_with_a_callback(self):
        r = Receiver(self)
        self.login()
        self.cli("deploy", "--name", "hello", "--image", "echo")
        output = self.cli("invoke", "hello", "--async", "-H", f"X-Callback-Url: {r.url}", input="later")
        self.assertIn("submitted asynchronously", output)
        headers, body, _ = r.wait()
        self.assertEqual((body, headers["x-function-name"], headers["x-function-status"]), (b"later", "hello", "200"))


if __name__ == "__main__":
    main()
