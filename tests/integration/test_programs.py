"""Programs in the place of functions: one process a request or one behind a port, as functions and as bots of a runbook."""
import concurrent.futures
import json
import os
import time

from harness import BUILD, PATIENCE, PYTHON, PlatformTest, alert, free_port, main, shared, stack_file, wait_until

RUNBOOK = """
name: NAME
match: ['alertname="NAME"']
target: host/${labels.instance}
mode: act
steps:
  - bot: fixer
    with: {how: "${labels.how}"}
    timeout: 4s
guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}, max_in_flight: 8}
"""

BOT = """
name: fixer
summary: Does what the alert says
acts: true
on_unknown: ON_UNKNOWN
timeout: 20s
params:
  how: {type: text, required: true, enum: [done, unchanged, refused, failed, again, unknown, mute, garbage, exit, late, crash]}
  times: {type: integer, default: 3}
touches: {hosts: [the one of the alert]}
verify: it says so
undo: "none"
detail: {times: {type: integer, description: the parameter}}
"""

FIXER = """#!/bin/sh
input=$(cat)
echo "$input $BALM_INTENT $BALM_TARGET" >>"$calls"
how=$(echo "$input" | sed 's/.*"how":"\\([a-z]*\\)".*/\\1/')
case $how in
done) echo '{"state": "done", "message": "was done", "detail": {"times": 3}, "undo": "undo it"}' ;;
again) if [ "$(grep -c again "$calls")" -gt 1 ]; then echo '{"state": "done", "message": "second time"}'
    else echo '{"state": "failed", "message": "not yet", "retry": true}'; fi ;;
mute) ;;
garbage) echo 'I did it, believe me' ;;
exit) echo 'cannot open the thing' >&2; exit 3 ;;
late) echo $$ >"$calls.late"; sleep 1000 & wait ;;
crash) kill -9 $$ ;;
*) echo "{\\"state\\": \\"$how\\", \\"message\\": \\"is $how\\"}" ;;
esac
"""

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/die"):
            os._exit(7)
        self.send_response(201)
        self.send_header("Content-Type", "text/x-own")
        self.send_header("X-Own", "yes")
        self.end_headers()
        self.wfile.write(b"%d %s %s " % (os.getpid(), self.path.encode(), self.headers["X-Asked"].encode()) + body)
    def log_message(self, *a):
        print("served", self.path)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class ProgramTest(PlatformTest):
    """A folder of functions of its own beside those of the build."""

    def setUp(self):
        super().setUp()
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        os.symlink(os.path.join(BUILD, "functions", "echo"), os.path.join(self.functions, "echo"))

    def start(self, **arguments):
        self.p = self.platform(functions=self.functions, **{"stack": stack_file("echo"), **arguments})
        return self.p

    def put(self, path, text, mode=0o644):
        path = os.path.join(self.functions, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def deploy(self, name, image="any", code=202, **more):
        body = {"service": name, "image": image, **more}
        status, _, text = self.p.request("POST", "/system/functions", body, self.p.basic(), timeout=40)
        self.assertEqual(status, code, text.decode() + "\n" + self.p.log_text())
        return text.decode()

    def call(self, name, body="", path="", headers=None, timeout=60):
        status, headers, text = self.p.request("POST", f"/function/{name}{path}", body, headers or {"Content-Type": "text/plain"}, timeout)
        return status, headers, text.decode()

    def said(self, name):
        text = self.p.request("GET", f"/system/logs?name={name}&follow=false", headers=self.p.basic())[2].decode()
        return [json.loads(line)["text"] for line in text.splitlines()]


class OneProcessARequest(ProgramTest):
    def test_body_on_stdin_answer_on_stdout_and_the_request_in_the_environment(self):
        self.start()
        self.deploy("cat", envProcess="cat")
        big = "x" * 3_000_000
        self.assertEqual(self.call("cat", big)[2], big)
        status, headers, text = self.call("cat", "{}", headers={"Content-Type": "application/json"})
        self.assertEqual((status, headers["content-type"], text), (200, "application/json", "{}"))
        show = "import os, json; print(json.dumps(dict(os.environ)))"
        self.deploy("env", envProcess=f"{PYTHON} -c '{show}'", envVars={"own": "value", "content_type": "application/json"})
        headers = {"X-One-Two": "three", "Content-Type": "text/plain", "Method": "not the method", "ce-balmsignature": "no"}
        status, reply, text = self.call("env", "abc", "/a/b?c=d&e=$(id)", headers)
        self.assertEqual((status, reply["content-type"]), (200, "application/json"))
        env = json.loads(text)
        expected = {"Http_Method": "POST", "Http_Path": "/a/b", "Http_Query": "c=d&e=$(id)", "Http_X_One_Two": "three", "Http_Content_Type": "text/plain",
                    "Http_Content_Length": "3", "own": "value", "OPENFAAS_NAME": "env"}
        self.assertEqual({k: env.get(k) for k in expected}, expected)
        self.assertEqual([k for k in env if k.startswith("BALM_") or "SIGNATURE" in k.upper()], [])
        self.assertNotIn(self.p.secret("basic-auth-password"), text)

    def test_words_are_cut_by_quotes_and_no_shell_sees_them(self):
        self.start()
        self.deploy("words", envProcess="printf '%s|' '$HOME' \"a b\" c\\ d '' ; * `id` $(id) > /tmp/x")
        self.assertEqual(self.call("words")[2], "$HOME|a b|c d||;|*|`id`|$(id)|>|/tmp/x|")

    def test_an_exit_code_is_500_and_what_was_said_is_in_the_log(self):
        self.start()
        self.deploy("bad", envProcess="sh -c 'echo one >&2; echo half; printf two >&2; exit 3'")
        status, _, text = self.call("bad")
        self.assertEqual((status, json.loads(text)["error"]), (500, "sh ended with exit 3"))
        self.assertEqual([line for line in self.said("bad") if not line.startswith("{")], ["one", "two"])
        self.deploy("joined", envProcess="sh -c 'echo one >&2; echo two'", envVars={"combine_output": "true"})
        self.assertEqual(self.call("joined")[2], "one\ntwo\n")

    def test_limits_of_time_output_body_and_number(self):
        self.start()
        pids = shared(self.folder, "pids")
        self.deploy("slow", envProcess=f"sh -c 'sleep 1000 & echo $$ $! >{pids}; (trap \"\" TERM; sleep 1000) & wait'",
                    envVars={"exec_timeout": "1s"})
        started = time.monotonic()
        self.assertEqual(self.call("slow")[0], 504)
        self.assertLess(time.monotonic() - started, 8 * PATIENCE)
        with open(pids) as f:
            for pid in f.read().split():
                wait_until(lambda: not is_alive(int(pid)), 10, f"{pid} of the killed session has ended")
        self.deploy("much", envProcess="head -c 5000 /dev/zero", envVars={"max_output": "4999"})
        self.assertEqual(self.call("much")[0], 500)
        self.deploy("enough", envProcess="head -c 5000 /dev/zero", envVars={"max_output": "5000"})
        self.assertEqual(len(self.call("enough")[2]), 5000)
        self.deploy("small", envProcess="cat", envVars={"max_body": "1024"})
        self.assertEqual(self.call("small", "x" * 1025)[0], 413)
        hold = shared(self.folder, "hold")
        self.deploy("few", envProcess=f"sh -c 'echo >>{hold}; while [ -e {hold} ]; do sleep 0.05; done'", envVars={"max_inflight": "2"})
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            two = [pool.submit(self.call, "few") for _ in range(2)]
            wait_until(lambda: os.path.exists(hold) and os.path.getsize(hold) == 2, 20, "two run")
            self.assertEqual(self.call("few")[0], 429)
            os.unlink(hold)
            self.assertEqual([f.result()[0] for f in two], [200, 200])

    def test_a_stop_lets_a_request_end_and_a_kill_leaves_nothing(self):
        self.start()
        pid_file = shared(self.folder, "pid")
        self.deploy("work", envProcess=f"sh -c 'echo $$ >{pid_file}; sleep 1; cat'")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.call, "work", "to the end")
            wait_until(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), 20, "it runs")
            self.assertEqual(self.p.stop(), 0)
            self.assertEqual(call.result()[2], "to the end")
        self.p.start()
        os.unlink(pid_file)
        self.deploy("longer", envProcess=f"sh -c 'echo $$ >{pid_file}; sleep 1000'")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.call, "longer")
            wait_until(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file), 20, "it runs")
            with open(pid_file) as f:
                pid = int(f.read())
            self.p.kill()
            wait_until(lambda: not is_alive(pid), 20, "the program is gone with its platform")
            self.assertIsNotNone(call.exception())
        self.p.start()
        self.assertEqual(self.call("work", "again")[2], "again")  # both were deployed for good


class Folders(ProgramTest):
    def test_an_image_may_be_a_folder_with_template_and_handler(self):
        self.put("own/template.yml", "language: shell-balm\nfprocess: ./handler.sh 'a b'\n")
        self.put("own/function/handler.sh", "#!/bin/sh\necho \"$1 $(pwd) $(cat)\"\n", 0o755)
        self.put("flat/run", "#!/bin/sh\necho flat\n", 0o755)
        stack = "version: 1.0\nprovider: {name: openfaas}\nfunctions:\n  own: {image: team/own:latest}\n  flat: {image: flat, fprocess: ./run}\n"
        self.start(stack=stack)
        self.assertEqual(self.call("own", "x")[2], f"a b {os.path.realpath(self.functions)}/own/function x\n")
        self.assertEqual(self.call("flat")[2], "flat\n")

    def test_a_parameter_is_one_of_the_function_not_of_its_program(self):
        self.put("bot/bot.yaml", "name: x\nsummary: y\nacts: false\nparams:\n  file: {type: text, required: true, description: a file}\n")
        self.start()
        self.deploy("sizes", image="bot", envProcess="cat")
        self.assertIn("parameter 'file' of sizes is missing", self.call("sizes", "{}")[2])

    def test_what_cannot_be_run_says_where_it_was_looked_for_and_changes_nothing(self):
        self.put("empty/readme", "")
        self.put("broken/template.yml", "fprocess: [a\n")
        self.put("nobot/bot.yaml", "name: x\nsummary: y\nacts: maybe\n")
        self.start()
        cases = [({"image": "none"}, f"no executable {self.functions}/none"),
                 ({"image": "../../etc/none"}, "leads out of the functions folder"),
                 ({"image": "empty"}, "has no template.yml that says fprocess"), ({"image": "broken"}, "template.yml:"),
                 ({"image": "empty", "envProcess": "./run"}, f"no executable {os.path.realpath(self.functions)}/empty/./run"),
                 ({"image": "none", "envProcess": "./run"}, f"no executable and no folder {self.functions}/none"),
                 ({"image": "none", "envProcess": "no-such-program"}, "no program 'no-such-program' in /usr/local/sbin:"),
                 ({"image": "none", "envProcess": "/etc/passwd"}, "no executable /etc/passwd"),
                 ({"image": "none", "envProcess": "cat 'x"}, "an open quote"), ({"image": "none", "envProcess": "x" * 5000}, "5000 bytes"),
                 ({"image": "none", "envProcess": "a " * 65}, "more than 64 words"),
                 ({"image": "..", "envProcess": "cat"}, "leads out of the functions folder"), ({"image": "nobot", "envProcess": "cat"}, "bot.yaml:3:"),
                 ({"image": "none", "envProcess": "cat", "envVars": {"mode": "inproc"}}, "mode: 'inproc' is not offered"),
                 ({"image": "none", "envProcess": "cat", "envVars": {"max_output": "1TiB"}}, "max_output"),
                 ({"image": "none", "envProcess": "cat", "envVars": {"mode": "http", "upstream_url": "http://example.org"}}, "upstream_url"),
                 ({"image": "none", "envProcess": "cat", "envVars": {"mode": "http"}}, "program ended by itself")]
        for body, part in cases:
            self.assertIn(part, self.deploy("x", code=400, **body), body)
        self.assertIn("lower-case", self.deploy("../x", code=400, image="none", envProcess="cat"))
        self.assertIn("no secret's name", self.deploy("x", code=400, image="none", envProcess="cat", secrets=["../webhook-token"]))
        names = [f["name"] for f in json.loads(self.p.request("GET", "/system/functions", headers=self.p.basic())[2])]
        self.assertEqual(names, ["echo"])
        self.deploy("x", image="none", envProcess="cat")
        self.assertEqual(self.call("x", "now")[2], "now")


class BehindAPort(ProgramTest):
    def test_a_document_of_its_own_is_the_program_s(self):
        self.start()
        self.put("web/server.py", SERVER.replace("do_POST", "do_GET"))
        self.deploy("web", image="web", envProcess=f"{PYTHON} -u server.py", envVars={"mode": "http"})
        status, _, text = self.p.request("GET", "/function/web/openapi.json", headers={"X-Asked": "it"})
        self.assertEqual((status, text.decode().split()[1:]), (201, ["/openapi.json", "it"]))

    def server(self, name="web", **more):
        self.put("web/server.py", SERVER)
        self.deploy(name, image="web", envProcess=f"{PYTHON} -u server.py", **more)

    def test_requests_go_there_as_they_came_and_several_replicas_have_ports_of_their_own(self):
        self.start()
        self.server(envVars={"mode": "http", "upstream_url": "http://127.0.0.1:0/base/"}, labels={"com.openfaas.scale.min": "2"})
        status, headers, text = self.call("web", "body", "/x?y=z", {"X-Asked": "this"})
        self.assertEqual((status, headers["content-type"], headers["x-own"]), (201, "text/x-own", "yes"))
        self.assertEqual(text.split()[1:], ["/base/x?y=z", "this", "body"])
        pids = set()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            def all_answer():
                pids.update(r[2].split()[0] for r in pool.map(lambda _: self.call("web", "", "", {"X-Asked": "x"}), range(8)))
                return len(pids) == 2
            wait_until(all_answer, 20, "both replicas answer")
        self.assertIn("served /base/x?y=z", self.said("web"))

    def test_one_that_ends_is_started_again(self):
        self.start()
        self.server(envVars={"mode": "http"})
        before = self.call("web", "", "", {"X-Asked": "x"})[2].split()[0]
        self.assertGreaterEqual(self.call("web", "", "/die", {"X-Asked": "x"})[0], 500)
        def answers():
            status, _, text = self.call("web", "", "", {"X-Asked": "x"})
            return status == 201 and text.split()[0]
        self.assertNotEqual(wait_until(answers, 30, "it is back"), before)
        self.assertFalse(is_alive(int(before)))
        self.assertIn("function ended by itself", self.p.log_text())

    def test_a_port_that_is_taken_is_said(self):
        self.start()
        self.put("web/server.py", SERVER)
        port = free_port()
        env = {"mode": "http", "upstream_url": f"http://127.0.0.1:{port}"}
        self.server(envVars=env)
        self.assertEqual(self.call("web", "", "", {"X-Asked": "x"})[0], 201)
        text = self.deploy("other", code=400, image="web", envProcess=f"{PYTHON} -u server.py", envVars=env)
        self.assertIn(f"something listens at port {port} of upstream_url already", text)

    def test_a_stop_ends_the_program(self):
        self.start()
        self.server(envVars={"mode": "http"})
        pid = int(self.call("web", "", "", {"X-Asked": "x"})[2].split()[0])
        self.assertEqual(self.p.stop(), 0)
        self.assertFalse(is_alive(pid))
        self.p.start()


class Bots(ProgramTest):
    def bots(self, on_unknown="rerun", fixer=FIXER):
        self.put("fixer/template.yml", "fprocess: ./handler.sh\n")
        self.put("fixer/function/bot.yaml", BOT.replace("ON_UNKNOWN", on_unknown))
        self.put("fixer/function/handler.sh", fixer, 0o755)
        self.calls = shared(self.folder, "calls")
        stack = f"version: 1.0\nprovider: {{name: openfaas}}\nfunctions:\n  fixer: {{image: fixer, environment: {{calls: '{self.calls}'}}}}\n"
        return self.start(stack=stack, runbooks={"r.yaml": RUNBOOK.replace("NAME", "Broken")})

    def outcome(self, how, **members):
        self.assertEqual(self.p.post_alerts(alert("Broken", instance=how, how=how))[0], 202)
        intent = self.p.wait_record("intent", target="host/" + how)
        return self.p.wait_record("outcome", intent=intent["intent"], seconds=60, **members)

    def lines(self, how):
        with open(self.calls) as f:
            return [line for line in f.read().splitlines() if f'"{how}"' in line]

    def test_what_it_says_becomes_the_outcome(self):
        self.bots()
        done = self.outcome("done")
        self.assertEqual((done["state"], done["message"], done["detail"]["times"]), ("done", "was done", 3), done)
        call = self.lines("done")[0]
        self.assertEqual(call, '{"how":"done","times":3} ' + f"{done['intent']} host/done")
        for how in ("unchanged", "refused"):
            self.assertEqual(self.outcome(how)["message"], "is " + how)
        failed = self.outcome("failed")
        self.assertEqual((failed["state"], failed["message"]), ("failed", "is failed"))
        exited = self.outcome("exit")
        self.assertEqual((exited["state"], exited["message"]), ("failed", "handler.sh ended with exit 3: cannot open the thing"))
        self.assertEqual(self.outcome("again", state="done")["message"], "second time")
        self.assertEqual(len(self.lines("again")), 2)
        refused = self.outcome("sideways")
        self.assertEqual(refused["state"], "failed")
        self.assertIn("none of done, unchanged", refused["message"])
        self.assertEqual(self.lines("sideways"), [])

    def test_what_nobody_can_know_goes_by_on_unknown(self):
        self.bots(on_unknown="escalate")
        for how, part in (("unknown", "is unknown"), ("mute", "did not say what came of it"), ("garbage", "I did it, believe me"),
                          ("crash", "killed by signal 9"), ("late", "session was killed")):
            got = self.outcome(how)
            self.assertEqual(got["state"], "unknown", got)
            self.assertIn(part, got["message"])
            self.assertEqual(len(self.lines(how)), 1)
        with open(self.calls + ".late") as f:
            self.assertFalse(is_alive(int(f.read())))

    def test_only_signed_invocations_reach_it(self):
        self.bots()
        document = json.loads(self.p.request("GET", "/function/fixer/openapi.json", headers=self.p.basic())[2])
        self.assertIn("times", json.dumps(document))
        self.assertEqual(self.call("fixer", '{"how":"done"}', headers={"Content-Type": "application/json"})[0], 403)
        self.assertFalse(os.path.exists(self.calls))

    def test_a_changed_bot_file_counts_from_the_next_reload_on(self):
        self.bots()
        self.put("fixer/function/bot.yaml", BOT.replace("ON_UNKNOWN", "rerun").replace("default: 3", "default: 4"))
        self.assertEqual(self.p.request("POST", "/system/reload", "{}", self.p.basic())[0], 200)
        self.outcome("done")
        self.assertIn('"times":4', self.lines("done")[0])

    def test_a_bot_may_be_behind_a_port(self):
        self.put("fixer/bot.yaml", BOT.replace("ON_UNKNOWN", "escalate"))
        server = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        how = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["how"]
        assert self.headers["ce-id"] and self.path == "/"
        if how == "crash":
            os._exit(1)
        answer = json.dumps({"state": how, "message": "behind a port"}).encode()
        self.send_response(200 if how != "failed" else 500)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
        self.put("fixer/server.py", server)
        stack = ("version: 1.0\nprovider: {name: openfaas}\nfunctions:\n"
                 f"  fixer: {{image: fixer, fprocess: '{PYTHON} server.py', environment: {{mode: http}}}}\n")
        self.start(stack=stack, runbooks={"r.yaml": RUNBOOK.replace("NAME", "Broken")})
        self.assertEqual(self.outcome("done")["message"], "behind a port")
        self.assertIn("answered 500", self.outcome("failed")["message"])
        self.assertEqual(self.outcome("crash")["state"], "unknown")


if __name__ == "__main__":
    main()
