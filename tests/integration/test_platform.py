"""Start, stop, bad files, the gateway and the command line."""
import fcntl
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

from harness import BALM, BUILD, PATIENCE, ROOT, PlatformTest, alert, main, stack_file, wait_until, webhook

ECHO_RUNBOOK = "name: r\nmatch: ['alertname=\"X\"']\ntarget: t/${labels.x}\nsteps:\n  - {bot: notify, with: {}}\n"


class Lifecycle(PlatformTest):
    def test_second_platform_on_one_folder_is_refused_by_name(self):
        p = self.platform()
        other = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
        self.assertNotEqual(other.returncode, 0)
        self.assertIn(f"pid {p.process.pid}", other.stderr.decode())

    def test_a_start_waits_for_what_a_killed_platform_was_just_starting(self):
        # A child between fork and exec has its parent's lock; here somebody else holds it for as long.
        p = self.platform()
        p.kill()
        with open(os.path.join(p.data, "lock"), "r+") as lock:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            let_go = threading.Timer(0.5, lock.close)
            let_go.start()
            p.start()
            let_go.join()
        self.assertEqual(p.post_alerts(alert("A"))[0], 202)

    def test_sigint_and_sigterm_exit_0(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            p = self.platform()
            self.assertEqual(p.stop(sig), 0)
            self.assertFalse(os.path.exists(os.path.join(p.data, "run.json")))

    def test_the_same_wish_twice_at_once_is_one(self):
        # timeout(1) signals its child and then its group.
        for second in (signal.SIGTERM, signal.SIGINT):
            p = self.platform()
            p.request("POST", "/function/echo", "warm")
            p.process.send_signal(signal.SIGTERM)
            self.assertEqual(p.stop(second), 0)
            self.assertIsNotNone(p.find_log("stopped"))

    def test_a_later_second_signal_does_not_wait_for_work_under_way(self):
        p = self.platform()
        p.request("POST", "/function/echo", "warm")
        from test_heal import Heal
        stopped = [pid for pid in Heal.children(p.process.pid) if os.readlink(f"/proc/{pid}/exe").endswith("/echo")]
        self.assertEqual(len(stopped), 1)
        os.kill(stopped[0], signal.SIGSTOP)

        def hang():
            try:
                p.request("POST", "/function/echo", "never answered")
            except (OSError, http.client.HTTPException):
                pass
        request = threading.Thread(target=hang)
        request.start()
        time.sleep(0.3)
        p.process.send_signal(signal.SIGTERM)
        wait_until(lambda: p.find_log("stopping"), 10, "first signal seen")
        time.sleep(0.7)
        self.assertIsNone(p.process.poll())
        self.assertEqual(p.stop(seconds=5), 1)
        request.join()

    def test_a_data_folder_that_others_can_write_is_refused(self):
        for mode in (0o770, 0o707, 0o1777):
            p = self.platform(start=False)
            os.makedirs(p.data, exist_ok=True)
            os.chmod(p.data, mode)
            done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(f"chmod go-w '{p.data}'", done.stderr.decode())
            self.assertEqual(os.listdir(p.data), [])
        os.chmod(p.data, 0o755)
        self.assertEqual(p.start().stop(), 0)

    @unittest.skipIf(os.geteuid() != 0, "needs root to give a folder away")
    def test_a_data_folder_of_somebody_else_is_refused(self):
        p = self.platform(start=False)
        os.makedirs(p.data, 0o700)
        os.chown(p.data, 65534, 65534)
        done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"chown -R 0 '{p.data}'", done.stderr.decode())
        self.assertEqual(os.listdir(p.data), [])

    def test_a_bad_address_or_a_busy_port_leaves_nothing_written(self):
        p = self.platform(start=False)
        for address in ("nohost.example", "127.0.0.999", "localhost", ""):
            p.arguments = ["--listen", address]
            done = subprocess.run(p.command(), capture_output=True, text=True, timeout=20 * PATIENCE)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(f"--listen '{address}': not an IPv4 or IPv6 address", done.stderr)
            self.assertFalse(os.path.exists(p.data))
        p.arguments = []
        with socket.create_server(("127.0.0.1", 0)) as other:
            p.port = other.getsockname()[1]
            done = subprocess.run(p.command(), capture_output=True, text=True, timeout=20 * PATIENCE)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(f"listen on 127.0.0.1 port {p.port}: Address already in use", done.stderr)
        self.assertEqual(os.listdir(p.data), ["lock"])
        self.assertEqual(p.start().stop(), 0)

    def test_nothing_is_accepted_after_the_journal_is_removed(self):
        p = self.platform()
        self.assertEqual(p.post_alerts(alert("A"))[0], 202)
        status = lambda: json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])
        store = status()["store"]
        self.assertEqual((store["healthy"], store["pendingBytes"]), (True, 0))
        self.assertGreaterEqual(store["durable"], 1)
        self.assertNotIn("FAILING", p.cli("status")[1])
        shutil.rmtree(os.path.join(p.data, "journal"))
        self.assertEqual(p.request("POST", "/function/alerts", webhook(alert("B")), p.bearer())[0], 503)
        self.assertFalse(status()["store"]["healthy"])
        self.assertIn("store      FAILING: nothing is accepted until it is whole again", p.cli("status")[1])
        # What is known already adds nothing to the journal, and yet there is none any more.
        self.assertEqual(p.request("POST", "/function/alerts", webhook(alert("A")), p.bearer())[0], 503)
        self.assertFalse(os.path.exists(os.path.join(p.data, "journal")))

    def test_nothing_is_accepted_after_the_data_folder_is_removed_or_moved(self):
        for act in (shutil.rmtree, lambda data: os.rename(data, data + ".away")):
            p = self.platform()
            self.assertEqual(p.post_alerts(alert("A"))[0], 202)
            bearer = p.bearer()
            act(p.data)
            self.assertEqual(p.request("POST", "/function/alerts", webhook(alert("B")), bearer)[0], 503)
            self.assertEqual(p.stop(), 0)

    def test_healthz_needs_no_credentials(self):
        p = self.platform()
        self.assertEqual(p.request("GET", "/healthz")[0], 200)

    def test_drain_cuts_no_request(self):
        p = self.platform()
        p.request("POST", "/function/echo", "warm")
        answers, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                try:
                    answers.append(p.request("POST", "/function/echo", "x" * 100)[0])
                except ConnectionRefusedError:
                    return
                except OSError as e:
                    answers.append(repr(e))
                    return
        threads = [threading.Thread(target=load) for _ in range(4)]
        for t in threads:
            t.start()
        time.sleep(0.5)
        self.assertEqual(p.stop(), 0)
        stop.set()
        for t in threads:
            t.join()
        self.assertGreater(len(answers), 20)
        # A connection that the listener's end met before its request was read is no accepted request.
        unread = ("Connection reset", "RemoteDisconnected", "BrokenPipe")
        bad = [a for a in answers if a not in (200, 503) and not any(word in str(a) for word in unread)]
        self.assertEqual(bad, [])

    def test_restart_keeps_the_journal_and_goes_on(self):
        p = self.platform()
        p.post_alerts(alert("A"))
        before = p.records()
        p.stop()
        p.start()
        p.post_alerts(alert("B"))
        after = p.records()
        self.assertEqual(after[:len(before)], before)
        self.assertEqual(len([r for r in after if r["kind"] == "signal"]), 2)

    def test_bad_files_stop_the_start_with_file_line_and_reason(self):
        bad_runbooks = {
            "unknown field": (ECHO_RUNBOOK + "guardrails: {cooldwn: 5m}\n", "cooldown"),
            "unknown bot": (ECHO_RUNBOOK.replace("notify", "notfy"), "notfy"),
            "no match": ("name: r\ntarget: t\nsteps: [{bot: notify}]\n", "match"),
            "bad matcher": (ECHO_RUNBOOK.replace('alertname="X"', "alertname~X"), "r.yaml"),
            "bad regex": (ECHO_RUNBOOK.replace('alertname="X"', 'alertname=~"("'), "r.yaml"),
            "bad mode": (ECHO_RUNBOOK + "mode: maybe\n", "mode"),
            "not yaml": ("a: [", "r.yaml"),
            "parameter out of range": ("name: r\nmatch: [a=b]\ntarget: t\nsteps:\n  - {bot: disk-clean, verify: check, with: {root: /x, older_than: 1s}}\n",
                                       "parameter 'older_than': 1s is out of range (1m to 87600h)"),
        }
        for name, (text, word) in bad_runbooks.items():
            with self.subTest(name):
                p = self.platform(start=False, runbooks={"r.yaml": text}, stack=stack_file("echo", "notify", "disk-clean"))
                done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr.decode(), r"r\.yaml:\d+:\d+")
                self.assertIn(word, done.stderr.decode())
        bad_stacks = {"unknown image": stack_file("ecco"), "unknown field": stack_file("echo") + "    imagee: x\n", "empty": ""}
        for name, text in bad_stacks.items():
            with self.subTest(name):
                p = self.platform(start=False, runbooks={"r.yaml": ECHO_RUNBOOK}, stack="x")
                p.write("stack.yml", text)
                done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("stack.yml", done.stderr.decode())

    def test_a_stack_without_whom_to_tell_starts_and_says_so(self):
        """With the runbook that comes with balm; a step that is not there goes on refusing the start."""
        with open(os.path.join(ROOT, "functions", "dispatcher", "runbooks", "balm-itself.yaml")) as f:
            p = self.platform(runbooks={"balm-itself.yaml": f.read()}, stack=stack_file("echo"))
        told = p.find_log("a runbook tells nobody: its function is not deployed")
        self.assertEqual((told["level"], told["runbook"]), ("WARNING", "balm-itself"))
        self.assertIn("runbook balm-itself names notify, which is not deployed", p.cli("doctor")[1])
        p.write("runbooks/step.yaml", "name: s\nmatch: ['a=\"b\"']\ntarget: t\nsteps: [{bot: notify}]\n")
        status, _, text = p.request("POST", "/system/reload", "{}", p.basic())
        self.assertEqual(status, 400, text)
        self.assertIn(b"notify", text)

    def test_bad_reload_keeps_the_old_set(self):
        p = self.platform(runbooks={"r.yaml": ECHO_RUNBOOK}, stack=stack_file("echo", "notify"))
        before = len(p.records("activation"))
        p.write("runbooks/r.yaml", ECHO_RUNBOOK + "guardrails: {cooldwn: 5m}\n")
        code, _, err = p.cli("reload")
        self.assertNotEqual(code, 0)
        self.assertRegex(err, r"r\.yaml:\d+:\d+.*cooldwn.*cooldown")
        p.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("reload refused" in str(line.get("message")) for line in p.log), 10, "SIGHUP refused the file")
        self.assertEqual(len(p.records("activation")), before)
        p.post_alerts(alert("X", x="1"))
        self.assertEqual(p.wait_record("refusal")["mode"], "shadow")
        p.write("runbooks/r.yaml", ECHO_RUNBOOK + "guardrails: {cooldown: 5m}\n")
        self.assertEqual(p.cli("reload")[0], 0)
        wait_until(lambda: len(p.records("activation")) == before + 1, 10, "new activation")

    def refused_reload(self, p, word):
        """Everything is as it was: what may act, what is deployed, what the host's list allows."""
        def state():
            functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
            return len(p.records("activation")), sorted(f["name"] for f in functions)
        before = state()
        code, _, err = p.cli("reload")
        self.assertNotEqual(code, 0)
        self.assertIn(word, err)
        self.assertEqual(state(), before)
        self.assertIn(word, p.cli("status")[1])

    def test_a_reload_switches_all_parts_or_none(self):
        acts = "services:\n  x:\n    functions: [notify]\n    restart: [/bin/true]\n    pid_file: /x\n"
        p = self.platform(runbooks={"r.yaml": ECHO_RUNBOOK}, stack=stack_file("echo", "notify"), host_acts=acts)
        p.write("stack.yml", "version: 1.0\nprovider: {name: openfaas}\nfunctions: {}\n")
        self.refused_reload(p, "no function 'notify' is deployed")
        p.write("stack.yml", stack_file("echo", "notify", "disk-clean"))
        p.write("runbooks/r.yaml", ECHO_RUNBOOK + "guardrails: {cooldown: 7m}\n")
        p.write("host-acts.yaml", "services: 1\n", mode=0o600)
        self.refused_reload(p, "host-acts.yaml")
        p.write("host-acts.yaml", acts, mode=0o600)
        p.write("stack.yml", stack_file("echo", "notify", "ecco"))
        self.refused_reload(p, "ecco")
        # A runbook and the function that it names come, and go, together.
        p.write("stack.yml", stack_file("disk-clean"))
        p.write("runbooks/r.yaml", ECHO_RUNBOOK.replace("{bot: notify, with: {}}", "{bot: disk-clean, with: {root: /x}}"))
        self.assertEqual(p.cli("reload"), (0, "reloaded: runbooks, stack file and allow list\n", ""))
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        self.assertEqual([f["name"] for f in functions], ["disk-clean"])
        self.assertNotIn("refused", p.cli("status")[1])

    def test_started_without_any_standard_descriptor_no_file_takes_their_numbers(self):
        p = self.platform(start=False)
        closed = "import os, sys; os.closerange(0, 3); os.execv(sys.argv[1], sys.argv[1:])"
        process = subprocess.Popen([sys.executable, "-c", closed, *p.command()], cwd=self.folder)
        try:
            run = os.path.join(p.data, "run.json")
            wait_until(lambda: os.path.exists(run) or process.poll() is not None, 30, "platform ready")
            self.assertIsNone(process.poll(), "ended at start")
            self.assertEqual([os.readlink(f"/proc/{process.pid}/fd/{n}") for n in range(3)], ["/dev/null"] * 3)
            code, text, error = p.cli("status")
            self.assertEqual(code, 0, text + error)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(40 * PATIENCE)
        self.assertEqual(code, 0, "exit code after SIGTERM")
        closed_cli = [sys.executable, "-c", closed, BALM, "audit", "verify", "--data", p.data]
        self.assertEqual(subprocess.run(closed_cli, timeout=60 * PATIENCE).returncode, 0)

    def test_allow_list_that_others_can_write_is_refused(self):
        p = self.platform(start=False, host_acts="services:\n  x:\n    functions: [echo]\n    restart: [/bin/true]\n    pid_file: /x\n")
        os.chmod(p.host_acts, 0o666)
        done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("written by others", done.stderr.decode())


class Gateway(PlatformTest):
    def test_echo_headers_and_paths(self):
        p = self.platform()
        status, headers, body = p.request("POST", "/function/echo", "hello", {"Content-Type": "text/plain"})
        self.assertEqual((status, body, headers["content-type"]), (200, b"hello", "text/plain"))
        self.assertRegex(headers["x-call-id"], "^[0-9a-f-]{36}$")
        self.assertTrue(headers["x-start-time"].isdigit())
        self.assertEqual(p.request("POST", "/function/echo.openfaas-fn/a/b?q=1", "x")[0], 200)
        status, headers, _ = p.request("POST", "/function/echo", "hello", {"X-Call-Id": "mine"})
        self.assertNotIn("x-call-id", headers)
        status, headers, body = p.request("POST", "/function/nope", "x")
        self.assertEqual(status, 404, body)
        self.assertEqual(headers["x-openfaas-internal"], "proxy")

    def test_system_api(self):
        p = self.platform()
        self.assertEqual(p.request("GET", "/system/functions")[0], 401)
        status, headers, _ = p.request("GET", "/system/functions", headers={"Authorization": "Basic eDp5"})
        self.assertEqual((status, headers["www-authenticate"]), (401, 'Basic realm="Restricted"'))
        status, _, body = p.request("GET", "/system/functions", headers=p.basic())
        self.assertEqual((status, [f["name"] for f in json.loads(body)]), (200, ["echo"]))
        deployment = {"service": "second", "image": "registry/x/echo:1.0", "labels": None, "annotations": {}}
        self.assertEqual(p.request("PUT", "/system/functions", deployment, p.basic())[0], 404)
        self.assertEqual(p.request("POST", "/system/functions", deployment, p.basic())[0], 202)
        self.assertEqual(p.request("POST", "/system/functions", deployment, p.basic())[0], 409)
        self.assertEqual(p.request("PUT", "/system/functions", deployment, p.basic())[0], 202)
        status, _, body = p.request("GET", "/system/function/second", headers=p.basic())
        self.assertEqual((status, json.loads(body)["availableReplicas"]), (200, 1))
        self.assertEqual(p.request("POST", "/function/second", "two")[2], b"two")
        # What was deployed by the API is there after a restart.
        p.stop()
        p.start()
        self.assertEqual(p.request("POST", "/function/second", "two")[2], b"two")
        self.assertEqual(p.request("DELETE", "/system/functions", {"functionName": "second"}, p.basic())[0], 202)
        self.assertEqual(p.request("POST", "/function/second", "two")[0], 404)
        self.assertEqual(p.request("DELETE", "/system/functions", {"functionName": "second"}, p.basic())[0], 404)
        status, _, body = p.request("POST", "/system/functions", {"service": "x", "image": "missing"}, p.basic())
        self.assertEqual(status, 400)
        self.assertIn(b"functions/missing", body)
        status, _, body = p.request("GET", "/system/info", headers=p.basic())
        self.assertIn("release", json.loads(body)["version"])

    def test_logs(self):
        p = self.platform()
        p.request("POST", "/function/echo", "x")
        status, headers, body = p.request("GET", "/system/logs?name=echo&follow=false&tail=-1", headers=p.basic())
        self.assertEqual((status, headers["content-type"]), (200, "application/x-ndjson"))
        lines = [json.loads(line) for line in body.splitlines()]
        self.assertTrue(all(line["name"] == "echo" for line in lines))

    def test_scale_to_zero_and_back(self):
        p = self.platform(arguments=["--idle", "1s"])
        p.request("POST", "/function/echo", "x")
        replicas = lambda: json.loads(p.request("GET", "/system/function/echo", headers=p.basic())[2])["replicas"]
        self.assertEqual(replicas(), 1)
        wait_until(lambda: replicas() == 0, 10, "scaled to zero")
        self.assertEqual(p.request("POST", "/function/echo", "again")[2], b"again")

    def test_async_call_is_durable_and_done(self):
        p = self.platform()
        status, headers, body = p.request("POST", "/async-function/echo", "later")
        self.assertEqual((status, body), (202, b""))
        outcome = p.wait_record("outcome")
        self.assertEqual((outcome["state"], outcome["intent"]), ("done", headers["x-call-id"]))
        self.assertEqual(p.request("POST", "/async-function/nope", "x")[0], 404)

    def test_metrics(self):
        p = self.platform()
        p.post_alerts(alert("A"))
        text = p.request("GET", "/metrics")[2].decode()
        self.assertIn("balm_stage_seconds", text)
        self.assertIn("balm_alerts_total", text)

    def test_a_function_that_dies_is_started_again(self):
        p = self.platform()
        p.request("POST", "/function/echo", "x")
        from test_heal import Heal
        for pid in Heal.children(p.process.pid):
            try:
                name = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if name.endswith("/echo"):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: p.request("POST", "/function/echo", "y")[0] == 200, 10, "echo serves again")


class CommandLine(PlatformTest):
    def run_balm(self, *arguments):
        done = subprocess.run([BALM, *arguments], capture_output=True, timeout=30 * PATIENCE)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_help_everywhere(self):
        for arguments in ((), ("up",), ("status",), ("why",), ("audit",), ("stop",), ("resume",), ("reload",)):
            code, out, _ = self.run_balm(*arguments, "--help")
            self.assertEqual(code, 0)
            self.assertIn("usage: balm", out)

    def test_generate_says_in_json_what_it_says_in_text(self):
        files = [os.path.join(ROOT, "functions", name, "bot.yaml") for name in ("notify", "echo")]
        code, out, err = self.run_balm("generate", "stack", "--json", *files)
        self.assertEqual(code, 0, err)
        stack = json.loads(out)
        self.assertEqual((stack["provider"]["name"], list(stack["functions"])), ("openfaas", ["echo", "notify"]))
        self.assertEqual(stack["functions"]["notify"]["labels"]["com.openfaas.scale.zero"], "true")
        code, out, err = self.run_balm("generate", "readme", "--json", *files)
        self.assertEqual(code, 0, err)
        manifests = json.loads(out)
        self.assertEqual([m["name"] for m in manifests], ["echo", "notify"])
        described = subprocess.run([os.path.join(BUILD, "functions", "notify"), "--describe"], capture_output=True, timeout=30 * PATIENCE)
        self.assertEqual(manifests[1], json.loads(described.stdout))
        folder = os.path.join(self.folder, "out")
        code, out, err = self.run_balm("generate", "bot", files[1], "--out", folder, "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out), {"function": "echo", "files": [os.path.join(folder, "echo.gen.h"), os.path.join(folder, "echo.gen.c")]})
        self.assertTrue(all(os.path.exists(f) for f in json.loads(out)["files"]))
        self.assertEqual(self.run_balm("generate", "--json")[0], 2)

    def test_unknown_things_name_the_nearest(self):
        code, _, err = self.run_balm("statsu")
        self.assertEqual((code, "status" in err), (2, True))
        code, _, err = self.run_balm("up", "--prot", "1")
        self.assertEqual((code, "--port" in err), (2, True), err)
        code, _, err = self.run_balm("up", "--port", "70000")
        self.assertEqual((code, "65535" in err), (2, True), err)

    def test_a_cluster_name_is_one_plain_word(self):
        data = os.path.join(self.folder, "data")
        for name in ("", "a\nb", "a b", "ä", "a/b", "x" * 64):
            code, _, err = self.run_balm("up", "--data", data, "--port", "0", "--cluster", name)
            self.assertEqual(code, 2, err)
            self.assertRegex(err, r"^balm up: --cluster '.*': 1 to 63 letters, digits, '\.', '_' and '-'\n$")
            self.assertFalse(os.path.exists(data))
        p = self.platform(arguments=["--cluster", "A-1_b." + "x" * 57])
        p.post_alerts(alert("A"))
        self.assertEqual({r["cluster"] for r in p.records()}, {"A-1_b." + "x" * 57}, "every record says where it is from")

    def test_without_a_platform(self):
        code, _, err = self.run_balm("status", "--data", os.path.join(self.folder, "none"))
        self.assertEqual(code, 3, err)
        code, _, err = self.run_balm("audit", "cat", "--data", os.path.join(self.folder, "none"))
        self.assertEqual(code, 3, err)

    @unittest.skipIf(os.geteuid() != 0, "needs root to be somebody else")
    def test_without_home_the_data_folder_is_where_help_says_or_nowhere(self):
        env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_STATE_HOME", "BALM_DATA")}

        def as_user(uid, *arguments):
            try:
                done = subprocess.run([BALM, *arguments], capture_output=True, text=True, env=env, cwd="/", user=uid, group=uid, extra_groups=[],
                                      timeout=30 * PATIENCE)
            except PermissionError:
                self.skipTest("the build folder is for root alone")
            return done.returncode, done.stderr
        who = pwd.getpwnam("nobody")
        code, error = as_user(who.pw_uid, "status")
        self.assertEqual(code, 3, error)
        self.assertIn(os.path.join(who.pw_dir, ".local/state/balm"), error)
        nobody_at_all = max(p.pw_uid for p in pwd.getpwall()) + 1
        for command in (("up",), ("status",), ("why", "last"), ("audit", "cat"), ("stop",)):
            code, error = as_user(nobody_at_all, *command)
            self.assertEqual(code, 2, error)
            self.assertRegex(error, rf"^balm {command[0]}: user {nobody_at_all} has no home folder \(HOME is not set\): say --data DIR\n$")

    def test_a_platform_elsewhere_is_reached_by_url_and_token_file(self):
        p = self.platform(stack=stack_file("notify"))
        url = f"http://127.0.0.1:{p.port}"
        password = os.path.join(p.data, "secrets", "basic-auth-password")
        empty = os.path.join(self.folder, "nothing-here")

        def elsewhere(*arguments, code=0, token=password):
            done = subprocess.run([BALM, *arguments, "--data", empty, "--url", url + "/", "--token-file", token],
                                  capture_output=True, text=True, timeout=60 * PATIENCE)
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
            return done.stdout + done.stderr
        self.assertIn("notify", elsewhere("status"))
        self.assertIn("no incident yet", elsewhere("why", "last", code=3))
        self.assertIn("stopped", elsewhere("stop"))
        self.assertIn("STOPPED", elsewhere("status"))
        self.assertIn("resumed", elsewhere("resume"))
        self.assertIn("no incident", elsewhere("why", "../freeze", code=3))
        both = p.write("both", f"{p.secret('basic-auth-user')}:{p.secret('basic-auth-password')}\n", 0o600)
        self.assertIn("notify", elsewhere("status", token=both))
        self.assertIn("401", elsewhere("status", token=p.write("wrong", "wrong", 0o600), code=1))
        self.assertIn("is empty", elsewhere("status", token=p.write("void", "\n", 0o600), code=2))
        self.assertIn("token-file", elsewhere("status", token=empty, code=2))
        done = subprocess.run([BALM, "status", "--url", url], capture_output=True, text=True, timeout=60 * PATIENCE)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--token-file", done.stderr)

    def test_the_journal_is_read_from_elsewhere_as_on_the_spot(self):
        p = self.platform(runbooks={"r.yaml": ECHO_RUNBOOK}, stack=stack_file("echo", "notify"))
        for i in range(30):
            p.post_alerts(*[alert("X", x=f"{i}-{k}", text="\u00e4" * 2000) for k in range(100)])
        wait_until(lambda: len(p.records("refusal")) == 3000, 60, "all are decided on")
        token = p.write("token", p.secret("basic-auth-password"), mode=0o600)

        def elsewhere(*arguments):
            done = subprocess.run([BALM, "audit", *arguments, "--url", f"http://127.0.0.1:{p.port}", "--token-file", token], capture_output=True,
                                  timeout=60 * PATIENCE, env=dict(os.environ, BALM_DATA="/nonexistent"))
            return done.returncode, done.stdout.decode(), done.stderr.decode()
        for arguments in (["cat"], ["cat", "--from", "5990"], ["cat", "--kind", "activation"], ["tail"], ["tail", "-n", "2500"], ["tail", "-n", "0"],
                          ["tail", "-n", "3", "--kind", "activation"], ["tail", "--json", "-n", "7", "--kind", "signal"]):
            with self.subTest(arguments):
                there = elsewhere(*arguments)
                self.assertEqual(there[0], 0, there[2])
                self.assertTrue(there == p.cli("audit", *arguments), "the same bytes")
        code, _, err = elsewhere("verify")
        self.assertEqual(code, 2)
        self.assertIn("data folder", err)
        self.assertEqual(p.request("GET", "/function/audit/records")[0], 401)
        for query in ("from=0", "from=x", "limit=0", "limit=1001"):
            self.assertEqual(p.request("GET", "/function/audit/records?" + query, headers=p.basic())[0], 400)
        self.assertEqual(p.request("POST", "/function/audit/records", "", p.basic())[0], 405)
        p.stop()
        self.assertEqual(elsewhere("tail")[0], 3)

    def test_credentials_do_not_go_to_whoever_has_the_port_of_a_killed_platform(self):
        p = self.platform()
        port = p.port
        p.kill()
        with socket.create_server(("127.0.0.1", port)) as stranger:
            stranger.settimeout(0.5)
            for command in ("status", "stop", "reload"):
                code, _, error = p.cli(command)
                self.assertEqual(code, 3, error)
                self.assertIn("balm up", error)
            self.assertRaises(TimeoutError, stranger.accept)

    def test_output_that_cannot_be_written_is_no_success(self):
        p = self.platform()
        for command in ("status", "audit cat", "audit tail", "audit verify", "version", "--help"):
            with open("/dev/full", "w") as full:
                line = [BALM, *command.split()] + ([] if command in ("version", "--help") else ["--data", p.data])
                done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, timeout=20 * PATIENCE)
            self.assertEqual(done.returncode, 1, command)
            self.assertIn("output", done.stderr.decode(), command)

    def test_audit_tail_keeps_control_characters_from_the_terminal(self):
        p = self.platform()
        p.post_alerts(alert("A\x1b[31m\n      9  closed\x9b2J"))
        code, text, _ = p.cli("audit", "tail", "-n", "1")
        self.assertEqual(code, 0)
        self.assertEqual(text.count("\n"), 1, text)
        self.assertIn("A?[31m       9  closed?2J", text)

    def test_audit_cat_while_running_and_after(self):
        p = self.platform()
        p.post_alerts(alert("A"))
        running = p.records()
        for r in running:
            for key in ("seq", "time", "kind", "incident", "fingerprint", "function"):
                self.assertIn(key, r)
        self.assertTrue(all(r["kind"] == "signal" for r in p.records("signal")))
        p.kill()
        after = p.records()
        self.assertEqual(after[:len(running)], running)
        code, out, _ = p.cli("audit", "tail", "-n", "1")
        self.assertEqual((code, len(out.splitlines())), (0, 1))
        code, out, _ = p.cli("why", "nothing-like-it")
        self.assertEqual(code, 3)


if __name__ == "__main__":
    main()
