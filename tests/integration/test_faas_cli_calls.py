"""faas-cli invoke and logs against functions that show what they get, and what each says where something is wrong."""
import hashlib
import hmac
import http.server
import json
import os
import queue
import re
import signal
import subprocess
import time

from faas import FAAS_CLI, FaasTest
from harness import PATIENCE, PYTHON, main, rfc3339, serve, wait_until

# Answers what it got, as JSON; in a header what the exit code is to be.
SHOW = """
import json, os, sys
body = sys.stdin.buffer.read()
e = os.environ
print(json.dumps({"method": e["Http_Method"], "path": e["Http_Path"], "query": e.get("Http_Query", ""), "body": body.decode("latin-1"),
                  "headers": {k: v for k, v in e.items() if k.startswith("Http_")}}))
"""
# As a function behind `--sign` does it: the digest of the body, with a key that is its secret.
VERIFY = """
import hashlib, hmac, os, sys
body = sys.stdin.buffer.read()
key = open(os.environ["secret_mount_path"] + "/signing-key", "rb").read()
good = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
if not hmac.compare_digest(os.environ.get("Http_X_Hub_Signature_256", ""), good):
    sys.exit("signature does not match")
print("genuine: " + body.decode())
"""
TALK = """
import sys, time
for line in sys.stdin:
    print(line.strip(), file=sys.stderr, flush=True)
"""


class CallsTest(FaasTest):
    def setUp(self):
        super().setUp()
        self.login()

    def program(self, name, text, *flags):
        path = self.p.write(name + ".py", text)
        self.cli("deploy", "--name", name, "--image", "any", "--fprocess", f"{PYTHON} {path}", *flags)

    def echo(self, name="echo", *flags):
        self.cli("deploy", "--name", name, "--image", "echo", *flags)

    def show(self, *arguments, input=""):
        return json.loads(self.cli("invoke", "show", *arguments, input=input))


class InvokeTest(CallsTest):
    def test_what_the_function_gets(self):
        self.program("show", SHOW)
        got = self.show(input="from stdin")
        self.assertEqual((got["method"], got["path"], got["query"], got["body"]), ("POST", "/", "", "from stdin"))
        self.assertEqual(got["headers"]["Http_Content_Type"], "text/plain")
        self.assertRegex(got["headers"]["Http_User_Agent"], r"^faas-cli/\S+ \(openfaas; linux; ")
        got = self.show("-H", "X-One: 1", "-H", "X-Two: a: b", "--header", "x-three: 3", "--query", "a=b c", "--query", "d=ä",
                        "--content-type", "application/json", input="{}")
        self.assertEqual([got["headers"][k] for k in ("Http_X_One", "Http_X_Two", "Http_X_Three", "Http_Content_Type")], ["1", "a: b", "3", "application/json"])
        self.assertEqual(got["query"], "a=b+c&d=%C3%A4")
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            self.assertEqual(self.show("--method", method)["method"], method)
        self.assertEqual(self.show("-n", "openfaas-fn", input="x")["body"], "x")

    def test_bytes_go_through_as_they_are(self):
        self.echo()
        body = bytes(range(256)) * 4096
        done = subprocess.run([FAAS_CLI, "invoke", "echo", "--content-type", "application/octet-stream"], input=body, capture_output=True,
                              env=self.env, cwd=self.home, timeout=60 * PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (0, body))

    def test_what_is_no_success_exits_1(self):
        self.assertRegex(self.cli("invoke", "none", input="x", code=1), "404 - .*none.* not deployed")
        self.assertRegex(self.cli("invoke", "none", "--async", input="x", code=1), "404 - .*none.* not deployed")
        self.echo()
        self.assertIn("404", self.cli("invoke", "echo", "-n", "other", input="x", code=1))
        self.program("fails", "import sys; sys.exit('no such luck')")
        self.assertIn("ended with exit 1", self.cli("invoke", "fails", code=1))
        self.program("slow", "import time; time.sleep(100)", "--env", "exec_timeout=1s")
        began = time.monotonic()
        self.assertIn("504", self.cli("invoke", "slow", code=1))
        self.assertLess(time.monotonic() - began, 20 * PATIENCE)
        self.assertIn("both --sign", self.cli("invoke", "echo", "--sign", "X-Sig", code=1))
        self.assertIn("Key: Value", self.cli("invoke", "echo", "-H", "nothing", code=1))
        self.assertIn("key=value", self.cli("invoke", "echo", "--query", "nothing", code=1))
        self.assertIn("413", self.cli("invoke", "echo", input="x" * (9 << 20), code=1))
        self.assertEqual(self.cli("invoke", "echo", input="served"), "served")

    def test_a_gateway_that_is_gone(self):
        self.echo()
        self.p.kill()
        for command in (("list",), ("invoke", "echo"), ("describe", "echo"), ("logs", "echo"), ("secret", "list"), ("namespaces",), ("remove", "echo"),
                        ("deploy", "--name", "x", "--image", "echo"), ("ready", "--attempts", "2", "--interval", "10ms")):
            began = time.monotonic()
            output = self.cli(*command, code=1)
            self.assertRegex(output, "(?i)cannot connect|connection refused|failed to|unable|not ready", command)
            self.assertLess(time.monotonic() - began, 10 * PATIENCE)
        self.p.start()

    def test_signed(self):
        self.cli("secret", "create", "signing-key", "--from-literal=sesame")
        self.program("verify", VERIFY, "--secret", "signing-key")
        sign = ("invoke", "verify", "--sign", "X-Hub-Signature-256", "--key")
        self.assertEqual(self.cli(*sign, "sesame", input="hello"), "genuine: hello\n")
        self.assertIn("ended with exit 1", self.cli(*sign, "wrong", input="hello", code=1))
        self.assertIn("ended with exit 1", self.cli("invoke", "verify", input="hello", code=1))
        self.assertIn("signature does not match", self.cli("logs", "verify", "--tail=false"))

    def test_async_with_a_callback(self):
        got = queue.Queue()

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                got.put((dict((k.lower(), v) for k, v in self.headers.items()), self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass
        server = serve(Receiver)
        try:
            self.program("show", SHOW)
            url = f"http://127.0.0.1:{server.server_port}/here"
            self.assertIn("submitted asynchronously", self.cli("invoke", "show", "--async", "--query", "a=b", "-H", "X-Callback-Url: " + url,
                                                               "-H", "X-Call-Id: mine", "-H", "X-One: 1", input="later"))
            headers, body = got.get(timeout=30 * PATIENCE)
            answer = json.loads(body)
            self.assertEqual((answer["body"], answer["query"], answer["method"], answer["headers"]["Http_X_One"]), ("later", "a=b", "POST", "1"))
            self.assertEqual((headers["x-function-name"], headers["x-function-status"], headers["x-call-id"]), ("show", "200", "mine"))
            self.program("fails", "import sys; sys.exit(3)")
            self.cli("invoke", "fails", "--async", "-H", "X-Callback-Url: " + url, input="later")
            headers, body = got.get(timeout=30 * PATIENCE)
            self.assertEqual(headers["x-function-status"], "500")
            self.assertIn("400", self.cli("invoke", "show", "--async", "-H", "X-Callback-Url: ftp://x/", code=1))
        finally:
            server.shutdown()
            server.server_close()

    def test_an_acting_bot_asks_for_the_login(self):
        self.cli("deploy", "--name", "disk-clean", "--image", "disk-clean")
        text = self.cli("invoke", "disk-clean", input="{}", code=1)
        self.assertIn("403", text)
        self.assertIn("-H 'Authorization: Basic ...'", text)  # it sends none of its own


class LogsTest(CallsTest):
    def setUp(self):
        super().setUp()
        self.program("talk", TALK)

    def say(self, *lines):
        self.cli("invoke", "talk", input="\n".join(lines))
        wait_until(lambda: lines[-1] in self.logs(), 10, lines[-1])

    def logs(self, *flags, name="talk"):
        return self.cli("logs", name, "--tail=false", *flags)

    def test_which_lines(self):
        self.say(*(f"line {i}" for i in range(20)))
        self.assertEqual(re.findall(r"line \d+", self.logs("--lines", "3")), ["line 17", "line 18", "line 19"])
        self.assertEqual(len(re.findall(r"line \d+", self.logs("--lines", "-1"))), 20)
        time.sleep(1.1)
        middle = time.time()
        time.sleep(1.1)
        self.say("new 1", "new 2")
        self.assertEqual(re.findall(r"(?:line|new) \d+", self.logs("--since", f"{int((time.time() - middle) * 1000)}ms")), ["new 1", "new 2"])
        self.assertEqual(re.findall(r"(?:line|new) \d+", self.logs("--since-time", rfc3339(middle).split(".")[0] + "Z", "--lines", "1")), ["new 2"])
        self.assertEqual(self.logs("--since-time", "2040-01-01T00:00:00Z"), "")
        self.assertEqual(len(re.findall(r"line \d+", self.logs("--since-time", "2020-01-01T00:00:00+02:00"))), 20)

    def test_formats(self):
        self.say("a \"quoted\" <line>")
        plain = self.logs("--lines", "1")
        self.assertRegex(plain, r'^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ a "quoted" <line>\n$')
        self.assertRegex(self.logs("--lines", "1", "--name", "--instance"), r'Z talk \(talk-\d+\) a "quoted" <line>\n$')
        self.assertRegex(self.logs("--lines", "1", "--time-format", ""), r'^a "quoted" <line>\n$')
        self.assertRegex(self.logs("--lines", "1", "--time-format", "15:04"), r'^\d\d:\d\d a "quoted"')
        self.assertRegex(self.logs("--lines", "1", "-o", "keyvalue", "--name", "--instance"), r'^timestamp="20\S+Z" name="talk" instance="talk-\d+" text="a "quoted" <line>" \n$')
        for flag in (("-o", "json"), ("--json",)):
            line = json.loads(self.logs("--lines", "1", *flag))
            self.assertEqual((line["name"], line["namespace"], line["text"]), ("talk", "openfaas-fn", 'a "quoted" <line>'))
            self.assertRegex(line["instance"], r"^talk-\d+$")
            self.assertRegex(line["timestamp"], r"^20\S+Z$")

    def test_one_instance_by_its_name(self):
        self.say("hello")
        line = json.loads(self.logs("--lines", "1", "--json"))
        path = "/system/logs?name=talk&follow=false&instance="
        self.assertIn(b"hello", self.p.request("GET", path + line["instance"], headers=self.p.basic())[2])
        self.assertEqual(self.p.request("GET", path + "talk-999", headers=self.p.basic())[2], b"")

    def test_what_is_wrong(self):
        self.assertIn("404", self.cli("logs", "none", "--tail=false", code=1))
        self.assertIn("404", self.cli("logs", "none", code=1))
        self.assertIn("404", self.cli("logs", "talk", "-n", "other", "--tail=false", code=1))
        self.assertIn("unction name is required", self.cli("logs", code=1))
        self.cli("logs", "talk", "--since", "yesterday", code=1)
        self.cli("logs", "talk", "-o", "xml", code=1)
        self.cli("deploy", "--name", "quiet", "--image", "any", "--fprocess", "cat")
        self.assertEqual(self.logs("--since-time", "2040-01-01T00:00:00Z", name="quiet"), "")
        self.cli("logout")
        self.assertIn("unauthorized", self.cli("logs", "talk", code=1).lower())

    def follow(self, *flags):
        process = subprocess.Popen([FAAS_CLI, "logs", "talk", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env, cwd=self.home, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # whoever started us may ignore it
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.wait(), process.stdout.close()))
        return process

    def read_until(self, process, word):
        line = process.stdout.readline()
        while line and word not in line:
            line = process.stdout.readline()
        self.assertIn(word, line)

    def test_follow_and_its_ends(self):
        self.say("before")
        followers = [self.follow("--lines", "1") for _ in range(3)]
        for f in followers:
            self.read_until(f, "before")
        self.say("while")
        for f in followers:
            self.read_until(f, "while")
        followers[0].send_signal(signal.SIGINT)  # Ctrl-C
        self.assertEqual(followers[0].wait(10 * PATIENCE), -signal.SIGINT)
        self.say("after")
        for f in followers[1:]:
            self.read_until(f, "after")
        self.program("talk", TALK, "--env", "version=2")
        self.say("of the next version")
        for f in followers[1:]:
            self.read_until(f, "of the next version")
        self.cli("remove", "talk")
        for f in followers[1:]:
            self.assertEqual(f.wait(20 * PATIENCE), 0, self.p.log_text())

    def test_follow_ends_with_the_platform(self):
        self.say("before")
        follower = self.follow()
        self.read_until(follower, "before")
        self.assertEqual(self.p.stop(), 0)
        self.assertIsNotNone(follower.wait(20 * PATIENCE))
        self.p.start()


if __name__ == "__main__":
    main()
