"""From a fresh platform to alerts that arrive: receiver, explain, plan, doctor, with the real Alertmanager and its amtool."""
import json
import os
import subprocess
import time

from harness import BALM, BUILD, PATIENCE, PlatformTest, alert, free_port, main, request, rfc3339, stack_file, wait_until, webhook
from peers import Alertmanager, Unavailable, binary

# What can be had of the kernel, and whether we are root, is the machine's affair.
MACHINES = ("limits", "user", "landlock", "seccomp", "no_new_privs")
BASE_CONFIG = """route:
  receiver: people
  group_wait: 30s
  routes:
ROUTE    - receiver: people
      matchers: ['team="database"']
receivers:
RECEIVER  - name: people
"""


# Nobody may restart anything here: an act would be refused by the host, but it would be recorded.
RUNBOOKS = """
- name: act
  match: ['alertname="Down"']
  target: service/${labels.service}
  mode: act
  steps: [{bot: service-restart, with: {unit: "${labels.service}"}}]
- name: quiet
  match: ['alertname="Quiet"']
  target: service/${labels.service}
  mode: shadow
  steps: [{bot: service-restart, with: {unit: "${labels.service}"}}]
"""
STACK = stack_file("echo", "service-restart")


def balm(*arguments, input=None, env=None):
    done = subprocess.run([BALM, *arguments], capture_output=True, input=input, timeout=60 * PATIENCE, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Connect(PlatformTest):
    def peer(self, name):
        try:
            return binary(name)
        except Unavailable as e:
            self.skipTest(str(e))

    def alertmanager(self, config, login_file=None):
        try:
            a = Alertmanager(self.folder, "http://127.0.0.1:9/", "/dev/null")
            with open(a.config, "w") as f:
                f.write(config)
            a.start(login_file)
        except Unavailable as e:
            self.skipTest(str(e))
        self.addCleanup(a.stop)
        return a

    def assertSentence(self, answer, code, *words):
        """One sentence on stderr that has these words, nothing on stdout, and the documented exit code."""
        self.assertEqual(answer[0], code, answer)
        self.assertEqual(answer[1], "", answer)
        self.assertEqual(answer[2].count("\n"), 1, answer)
        for word in words:
            self.assertIn(word, answer[2])


class Receiver(Connect):
    def check_config(self, text):
        path = os.path.join(self.folder, "alertmanager.yml")
        with open(path, "w") as f:
            f.write(text)
        done = subprocess.run([self.peer("amtool"), "check-config", path], capture_output=True, timeout=30 * PATIENCE)
        self.assertEqual(done.returncode, 0, text + done.stdout.decode() + done.stderr.decode())
        self.assertIn("2 receivers" if "people" in text else "1 receivers", done.stdout.decode())
        return path

    def route_of(self, path, *labels):
        done = subprocess.run([self.peer("amtool"), "config", "routes", "test", f"--config.file={path}", *labels], capture_output=True,
                              timeout=30 * PATIENCE)
        self.assertEqual(done.returncode, 0, done)
        return done.stdout.decode().strip()

    def test_full_configuration_is_accepted_by_amtool(self):
        p = self.platform(arguments=["--repeat-interval", "90m"])
        token = p.secret("webhook-token")
        for arguments in (["--full"], ["--full", "--inline-token"], ["--full", "--json"], ["--full", "--json", "--inline-token"]):
            code, text, error = p.cli("receiver", *arguments)
            self.assertEqual((code, error), (0, ""), arguments)
            self.check_config(text)
            for part in (f"http://127.0.0.1:{p.port}/function/alerts", "send_resolved", "max_alerts", "'...'" if "--json" not in arguments else
                         '"..."', "repeat_interval", "1h30m", "group_interval", "10s"):
                self.assertIn(part, text)
            self.assertEqual(token in text, "--inline-token" in arguments)
            self.assertEqual(os.path.join(p.data, "secrets", "webhook-token") in text, "--inline-token" not in arguments)

    def test_snippet_fits_into_a_configuration_and_sends_each_alert_on(self):
        p = self.platform()
        code, text, _ = p.cli("receiver")
        self.assertEqual(code, 0)
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
        receiver = "".join(lines[1:next(i for i, line in enumerate(lines) if line.startswith("route:"))])
        route = "".join(lines[next(i for i, line in enumerate(lines) if line.startswith("  routes:")) + 1:])
        path = self.check_config(BASE_CONFIG.replace("ROUTE", route).replace("RECEIVER", receiver))
        self.assertEqual(self.route_of(path, "alertname=X", "team=database"), "balm,people")

    def test_platform_elsewhere(self):
        p = self.platform()
        url = f"http://127.0.0.1:{p.port}/"
        password = os.path.join(p.data, "secrets", "basic-auth-password")
        code, text, error = balm("receiver", "--full", "--url", url, "--token-file", password, "--webhook-token-file", "/etc/alertmanager/balm-token")
        self.assertEqual((code, error), (0, ""))
        self.check_config(text)
        self.assertIn(f'"http://127.0.0.1:{p.port}/function/alerts"', text)
        self.assertIn('"/etc/alertmanager/balm-token"', text)
        arguments = ["--url", url, "--token-file", password]
        self.assertSentence(balm("receiver", *arguments), 2, "--webhook-token-file")
        self.assertSentence(balm("receiver", *arguments, "--webhook-token-file", "/no/such/file", "--inline-token"), 2, "/no/such/file")
        wrong = p.write("wrong", "not the password")
        self.assertSentence(balm("receiver", "--url", url, "--token-file", wrong, "--webhook-token-file", "x"), 1, "401")
        self.assertSentence(balm("receiver", "--url", "ftp://x", "--webhook-token-file", "x"), 2, "ftp://x", "http://")
        nobody = f"http://127.0.0.1:{free_port()}"
        self.assertSentence(balm("receiver", "--url", nobody, "--token-file", password, "--webhook-token-file", "x"), 3, nobody)

    def test_nothing_is_printed_without_a_platform(self):
        p = self.platform(start=False)
        self.assertSentence(p.cli("receiver"), 3, "no platform is running on " + p.data)
        self.assertSentence(p.cli("receiver", "x"), 2, "'x'")
        self.assertSentence(p.cli("receiver", "--inline-tokens"), 2, "--inline-token")


class Explain(Connect):
    def explain(self, p, body, *arguments):
        path = p.write("body.json", body if isinstance(body, str) else json.dumps(body))
        code, text, error = p.cli("explain", path, "--json", *arguments)
        self.assertEqual((code, error), (0, ""))
        return json.loads(text)

    def state_of(self, p):
        """Everything that an alert could change: journal, incidents, backlog, calls of functions, what the intake counts."""
        status, _, body = p.request("GET", "/function/dispatcher/status", headers=p.basic())
        self.assertEqual(status, 200)
        status = json.loads(body)
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        seen = {k: status[k] for k in ("seq", "incidents", "backlog", "queues", "runbooks", "frozen")}
        seen["sources"] = [(s["name"], s["signals"]) for s in status["sources"]]
        return seen, [f["invocationCount"] for f in functions], p.records()

    def test_says_what_would_follow_and_changes_nothing(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS}, stack=STACK)
        known = alert("Down", service="known")
        self.assertEqual(p.post_alerts(known)[0], 202)
        p.wait_record("escalated")  # nobody may restart it
        before = self.state_of(p)
        bad = alert("Down", service="x")
        bad["startsAt"] = "yesterday"
        body = webhook(alert("Down", service="a", instance="1"), alert("Down", service="a", instance="2"), known, alert("Quiet", service="b"),
                       alert("Strange"), alert("Down", status="resolved", service="c"), bad, alert("Down"))
        for _ in range(2):
            said = self.explain(p, body)
            self.assertEqual([a["result"] for a in said["alerts"]],
                             ["act", "refused", "open", "shadow", "no_runbook", "resolved", "rejected", "refused"])
        act, second, open_one, shadow, _, _, rejected, no_target = said["alerts"]
        self.assertEqual((act["function"], act["target"], act["params"]), ("service-restart", "service/a", {"unit": "a"}))
        self.assertEqual(second["gate"], "in_flight")
        self.assertEqual((open_one["incident"], open_one["phase"]), (p.records("escalated")[0]["incident"], "escalated"))
        self.assertEqual(shadow["refusals"], ["mode"])
        self.assertIn("yesterday", rejected["reason"])
        self.assertEqual((no_target["gate"], no_target["labels"]), ("target", {"alertname": "Down"}))
        self.assertEqual(said["counts"], {"act": 1, "refused": 2, "open": 1, "shadow": 1, "no_runbook": 1, "resolved": 1, "rejected": 1})
        self.assertEqual(self.state_of(p), before)
        # It was no promise broken: what was said is what happens.
        self.assertEqual(p.post_alerts(body["alerts"][0])[0], 202)
        self.assertEqual(p.wait_record("intent", target="service/a")["params"], act["params"])

    def test_text_names_runbook_target_act_and_refusal(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS}, stack=STACK)
        self.assertEqual(p.cli("stop")[0], 0)
        done = subprocess.run([BALM, "explain", "-", "--data", p.data], input=json.dumps(webhook(alert("Down", service="a\x1b[2J"))).encode(),
                              capture_output=True, timeout=60 * PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for words in (b"Down: refused", b"runbook   act, mode act", b"freeze: acting is stopped", b"service-restart with", b"balm resume", b"nothing recorded"):
            self.assertIn(words, done.stdout)
        self.assertNotIn(b"\x1b", done.stdout)

    def test_runbooks_alone_are_enough(self):
        p = self.platform(start=False, runbooks={"a.yaml": RUNBOOKS})
        said = self.explain(p, webhook(alert("Down", service="a"), alert("Strange")), "--runbooks", p.runbooks)
        self.assertEqual([a["result"] for a in said["alerts"]], ["act", "no_runbook"])
        self.assertFalse(os.path.exists(p.data))
        path = os.path.join(p.folder, "body.json")
        self.assertSentence(p.cli("explain", path), 3, "no platform is running on " + p.data)
        self.assertSentence(p.cli("explain", path, "--runbooks", "/no/such/folder"), 2, "/no/such/folder")
        p.write("runbooks/b.yaml", "name: x\nmatc: []\n")
        self.assertSentence(p.cli("explain", path, "--runbooks", p.runbooks), 2, "b.yaml:2:1", "'match'")

    def test_a_whole_outage_in_one_body(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS.replace("steps:", "guardrails: {max_in_flight: 3}\n  steps:", 1)}, stack=STACK)
        body = webhook(*[alert("Down", service=f"s{i}", starts_at=time.time()) for i in range(3000)])
        said = self.explain(p, body)
        self.assertEqual(said["counts"], {"act": 3, "refused": 2997})
        self.assertEqual({a["gate"] for a in said["alerts"][3:]}, {"in_flight_runbook"})
        self.assertEqual(p.records("signal"), [])

    def test_bad_bodies(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS}, stack=STACK)
        good = p.write("good.json", json.dumps(webhook(alert("Down", service="a"))))
        for text, words in (("", ["JSON"]), ("nonsense", ["JSON", "line 1"]), ("[]", ["JSON"]), ('{"alerts":[]}', ["version"]),
                            ('{"version":"3","alerts":[]}', ['"3"']), ('{"version":"4"}', ["alerts"]), ('{"version":"4","alerts":[]}', ["empty"]),
                            ('{"version":"4","alerts":[{"status":', ["JSON"])):
            self.assertSentence(p.cli("explain", p.write("bad.json", text)), 2, *words)
        self.assertSentence(p.cli("explain", "/no/such/file"), 2, "/no/such/file")
        self.assertSentence(p.cli("explain", p.folder), 2, p.folder)
        self.assertSentence(p.cli("explain"), 2, "standard input")
        self.assertSentence(p.cli("explain", good, good), 2, "standard input")
        self.assertSentence(p.cli("explain", good, "--runbook", "x"), 2, "--runbooks")
        huge = p.write("huge.json", " " * (8 * 1024 * 1024 + 1))
        self.assertSentence(p.cli("explain", huge), 2, "8388608")
        with open(huge, "rb") as f:
            self.assertSentence(balm("explain", "-", "--data", p.data, input=f.read()), 2, "8388608")
        url = ["--url", f"http://127.0.0.1:{p.port}"]
        self.assertSentence(balm("explain", good, *url), 2, "--token-file")
        self.assertSentence(balm("explain", good, *url, "--token-file", p.write("wrong", "x")), 1, "401")
        self.assertSentence(balm("explain", good, "--url", f"http://127.0.0.1:{free_port()}", "--token-file", p.write("wrong", "x")), 3, "no platform answers")
        password = os.path.join(p.data, "secrets", "basic-auth-password")
        self.assertEqual(balm("explain", good, *url, "--token-file", password)[0], 0)
        self.assertEqual(p.records("signal"), [])


class Plan(Connect):
    QUIET = "route: {receiver: nobody, routes: [{receiver: some.one, matchers: ['service=\"a\"']}]}\nreceivers: [{name: nobody}, {name: some.one}]\n"

    def post(self, am, *alerts):
        body = [{k: a[k] for k in ("labels", "annotations", "startsAt")} for a in alerts]
        self.assertEqual(request(am.port, "POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})[0], 200)

    def plan(self, p, am, *arguments):
        code, text, error = p.cli("plan", "--alertmanager", f"http://127.0.0.1:{am.port}/", "--json", *arguments)
        self.assertEqual((code, error), (0, ""))
        said = json.loads(text)
        return {a["labels"]["alertname"] + a["labels"].get("service", ""): a for a in said["alerts"]}

    def test_all_that_fires_now_with_the_real_alertmanager(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS}, stack=STACK)
        am = self.alertmanager(self.QUIET)
        code, text, _ = p.cli("plan", "--alertmanager", f"http://127.0.0.1:{am.port}")
        self.assertEqual((code, text), (0, "0 alerts; nothing was done and nothing recorded\n"))
        known = alert("Down", service="known")
        self.assertEqual(p.post_alerts(known)[0], 202)
        p.wait_record("escalated")
        self.post(am, alert("Down", service="a"), known, alert("Quiet", service="q", team="ü"), alert("Strange"), alert("Down", service="hush"))
        silence = {"matchers": [{"name": "service", "value": "hush", "isRegex": False}], "startsAt": rfc3339(time.time()),
                   "endsAt": rfc3339(time.time() + 3600), "createdBy": "test", "comment": "test"}
        self.assertEqual(request(am.port, "POST", "/api/v2/silences", silence, {"Content-Type": "application/json"})[0], 200)
        seq = len(p.records())
        said = wait_until(lambda: (lambda s: s if len(s) == 4 else None)(self.plan(p, am)), 20, "the silence counts")
        self.assertEqual({k: a["result"] for k, a in said.items()},
                         {"Downa": "act", "Downknown": "open", "Quietq": "shadow", "Strange": "no_runbook"})
        self.assertEqual(said["Quietq"]["labels"]["team"], "ü")
        self.assertEqual(said["Downknown"]["incident"], p.records("escalated")[0]["incident"])
        self.assertEqual(list(self.plan(p, am, "--receiver", "some.one")), ["Downa"])
        self.assertEqual(list(self.plan(p, am, "--receiver", "some.(one|body)&x=y")), [])
        alone = self.plan(p, am, "--runbooks", p.runbooks)
        self.assertEqual(alone["Downknown"]["result"], "act")
        self.assertEqual(len(p.records()), seq)
        code, text, _ = p.cli("plan", "--alertmanager", f"http://127.0.0.1:{am.port}")
        self.assertIn("4 alerts: 1 would act, 1 in shadow, 1 open already, 1 without a runbook", text)

    def test_alertmanager_that_wants_a_login(self):
        p = self.platform(runbooks={"a.yaml": RUNBOOKS}, stack=STACK)
        # bcrypt of "test", from the documentation of Prometheus's web configuration.
        login = p.write("web.yml", 'basic_auth_users: {admin: "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"}\n')
        am = self.alertmanager(self.QUIET, login)
        ask = ["plan", "--alertmanager", f"http://127.0.0.1:{am.port}"]
        self.assertSentence(p.cli(*ask), 1, "401")
        self.assertSentence(p.cli(*ask, "--alertmanager-login", p.write("am-login", "admin:wrong\n")), 1, "401")
        code, text, error = p.cli(*ask, "--alertmanager-login", p.write("am-login", "admin:test\n"))
        self.assertEqual((code, error), (0, ""), text)

    def test_what_cannot_be_asked(self):
        p = self.platform()
        am = f"http://127.0.0.1:{free_port()}"
        self.assertSentence(p.cli("plan"), 2, "--alertmanager URL")
        self.assertSentence(p.cli("plan", "--alertmanager", am), 3, "no Alertmanager answers at " + am)
        self.assertSentence(p.cli("plan", "--alertmanager", "127.0.0.1:9093"), 2, "http://")
        self.assertSentence(p.cli("plan", "--alertmanager", "http://u:secret@127.0.0.1"), 2, "--alertmanager-login")
        self.assertSentence(p.cli("plan", "--alertmanager", f"http://127.0.0.1:{p.port}"), 1, "404")  # a platform is no Alertmanager
        self.assertSentence(p.cli("plan", "--alertmanager", am, "--alertmanager-login", "/no/such/file"), 2, "/no/such/file")
        real = self.alertmanager(self.QUIET)
        self.assertSentence(p.cli("plan", "--alertmanager", f"http://127.0.0.1:{real.port}", "--receiver", "("), 1, "400", "receiver")
        self.assertEqual(p.stop(), 0)
        self.assertSentence(p.cli("plan", "--alertmanager", f"http://127.0.0.1:{real.port}"), 3, "no platform is running")


class Doctor(Connect):
    HOST_ACTS = "services:\n  svc:\n    functions: [service-restart]\n    restart: [/bin/true]\n    pid_file: /nonexistent/svc.pid\n"

    def healthy(self, **arguments):
        return self.platform(**dict({"runbooks": {"a.yaml": RUNBOOKS}, "stack": STACK, "host_acts": self.HOST_ACTS}, **arguments))

    def doctor(self, p, *arguments):
        """(exit code, {check: (result, message, next)}); a check that has several lines: the last that is not ok."""
        code, text, error = p.cli("doctor", "--json", *arguments)
        self.assertEqual(error, "")
        said = json.loads(text)
        lines = {}
        for c in said["checks"]:
            if c["check"] not in lines or c["result"] != "ok":
                lines[c["check"]] = (c["result"], c["message"], c.get("next", ""))
        failed = [c for c in said["checks"] if c["result"] == "FAIL"]
        self.assertEqual((said["ok"], code), (not failed, 1 if failed else 0), text)
        self.assertTrue(all(c.get("next") for c in failed), failed)
        return code, lines

    def failed(self, lines):
        return sorted(k for k, v in lines.items() if v[0] == "FAIL")

    def test_all_is_well_and_nothing_acts(self):
        p = self.healthy()
        code, lines = self.doctor(p)
        self.assertEqual(code, 0, lines)
        self.assertEqual([k for k, v in lines.items() if v[0] == "ok" and k not in MACHINES],
                         ["platform", "store", "clock", "disk", "acting", "runbooks", "host acts", "functions", "secrets", "token", "test alert"])
        for check in MACHINES:
            self.assertIn(lines[check][0], ("ok", "skip"))
        self.assertIn("may act: act", lines["runbooks"][1])
        self.assertIn("svc", lines["host acts"][1])
        signals = p.records("signal")
        self.assertEqual([(r["labels"]["alertname"], r["status"]) for r in signals], [("BalmDoctor", "firing"), ("BalmDoctor", "resolved")])
        self.assertEqual([r["kind"] for r in p.records() if r["kind"] in ("intent", "refusal", "escalated", "call")], [])
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        self.assertEqual([f["invocationCount"] for f in functions], [0, 0])
        self.doctor(p)
        runs = {r["labels"]["run"] for r in p.records("signal")}
        self.assertEqual(len(runs), 2)  # each an alert of its own: none is taken for one that is known
        code, text, _ = p.cli("doctor")
        self.assertEqual(code, 0)
        self.assertEqual([line.split()[0] for line in text.splitlines()[:-2] if line.split()[1] not in MACHINES], ["ok"] * 11 + ["skip"])

    def test_there_and_back_through_the_real_alertmanager(self):
        p = self.healthy()
        am = self.alertmanager(p.cli("receiver", "--full")[1])  # as it is printed
        code, lines = self.doctor(p, "--alertmanager", f"http://127.0.0.1:{am.port}")
        self.assertEqual(code, 0, lines)
        self.assertIn("came back", lines["alertmanager"][1])
        ways = [(r["labels"]["way"], r["status"], r.get("receiver")) for r in p.records("signal")]
        self.assertEqual(ways[2:], [("alertmanager", "firing", "balm"), ("alertmanager", "resolved", "balm")])

    def test_an_alertmanager_that_does_not_send_them_here(self):
        p = self.healthy()
        am = self.alertmanager("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        url = f"http://127.0.0.1:{am.port}"
        code, lines = self.doctor(p, "--alertmanager", url, "--timeout", "1s")
        self.assertEqual(self.failed(lines), ["alertmanager"])
        self.assertIn("balm receiver", lines["alertmanager"][2])
        active = json.loads(request(am.port, "GET", "/api/v2/alerts?active=true")[2])
        self.assertEqual([a["labels"]["alertname"] for a in active], [])  # resolved there all the same
        code, lines = self.doctor(p, "--alertmanager", f"http://127.0.0.1:{free_port()}")
        self.assertEqual(self.failed(lines), ["alertmanager"])
        self.assertIn("no Alertmanager answers", lines["alertmanager"][1])

    def test_an_alertmanager_that_does_not_send_the_resolve(self):
        p = self.healthy()
        config = p.cli("receiver", "--full")[1].replace("send_resolved: true", "send_resolved: false").replace("group_interval: 10s", "group_interval: 1s")
        am = self.alertmanager(config)
        code, lines = self.doctor(p, "--alertmanager", f"http://127.0.0.1:{am.port}", "--timeout", f"{int(8 * PATIENCE)}s")
        self.assertEqual(self.failed(lines), ["alertmanager"])
        self.assertIn("send_resolved", lines["alertmanager"][2])

    def test_a_runbook_that_takes_any_alert(self):
        p = self.healthy(runbooks={"a.yaml": RUNBOOKS + "- name: any\n  match: ['alertname=~\".+\"']\n  target: x\n  mode: act\n"
                                                        "  steps: [{bot: service-restart, with: {unit: svc}}]\n"})
        am = self.alertmanager(p.cli("receiver", "--full")[1])
        code, lines = self.doctor(p, "--alertmanager", f"http://127.0.0.1:{am.port}")
        self.assertEqual(self.failed(lines), ["alertmanager", "test alert"])
        for check in ("alertmanager", "test alert"):
            self.assertIn("runbook any would take it", lines[check][1])
        self.assertEqual(p.records("signal") + p.records("intent"), [])
        self.assertEqual(json.loads(request(am.port, "GET", "/api/v2/alerts")[2]), [])

    def test_what_stands_in_the_way_of_acting(self):
        p = self.healthy()
        self.assertEqual(p.cli("stop")[0], 0)
        p.write("runbooks/a.yaml", RUNBOOKS.replace("steps", "stepps", 1))
        self.assertNotEqual(p.cli("reload")[0], 0)
        code, lines = self.doctor(p)
        self.assertEqual(self.failed(lines), ["acting", "runbooks"])
        self.assertEqual(lines["acting"][2], "balm resume")
        self.assertIn("a.yaml", lines["runbooks"][1])

    def test_what_a_bot_lacks(self):
        runbooks = RUNBOOKS + ("- name: told\n  match: ['alertname=\"Told\"']\n  target: x\n  mode: act\n"
                               "  steps: [{bot: service-restart, with: {unit: x}}]\n  escalate: {bot: notify, with: {title: x}}\n")
        folder = os.path.join(self.folder, "functions")
        os.makedirs(folder)
        for name in ("echo", "service-restart", "notify"):
            os.symlink(os.path.join(BUILD, "functions", name), os.path.join(folder, name))
        with open(os.path.join(folder, "broken"), "w") as f:
            f.write("#!/bin/sh\n[ \"$1\" = --describe ] && { echo '{\"name\":\"broken\"}'; exit 0; }\necho not today >&2\nexit 3\n")
        os.chmod(f.name, 0o755)
        stack = stack_file("echo", "service-restart", "notify", "broken") + "  poor:\n    lang: c\n    handler: x\n    image: echo\n    secrets: [wallet]\n"
        p = self.platform(runbooks={"a.yaml": runbooks}, stack=stack, functions=folder)
        code, text, _ = p.cli("doctor")
        self.assertEqual(code, 1)
        fails = [line for line in text.splitlines() if line.startswith("FAIL")]
        self.assertEqual(len(fails), 4, text)
        for words in (("functions", "'broken' ended at its start with exit 3: not today"), ("secrets", "poor does not start without: wallet"),
                      ("secrets", "notify is not given what it reads: notify-url, notify-hmac-key"), ("host acts", "service-restart", "--host-acts FILE")):
            self.assertTrue(any(all(w in line for w in words) for line in fails), (words, text))
        self.assertEqual(p.request("DELETE", "/system/functions", {"functionName": "notify"}, p.basic())[0], 202)
        self.assertIn("runbook told names notify, which is not deployed", p.cli("doctor")[1])

    def test_a_wrong_token_and_a_platform_elsewhere(self):
        p = self.healthy()
        wrong = p.write("wrong", "not the token")
        code, lines = self.doctor(p, "--webhook-token-file", wrong)
        self.assertEqual(self.failed(lines), ["token"])
        self.assertIn("401", lines["token"][1])
        code, lines = self.doctor(p, "--webhook-token-file", "/no/such/file")
        self.assertEqual(self.failed(lines), ["token"])
        secrets = os.path.join(p.data, "secrets")
        url = ["--url", f"http://127.0.0.1:{p.port}"]

        def elsewhere(*arguments):
            code, text, error = balm("doctor", "--json", *arguments)
            self.assertEqual(error, "")
            return code, {c["check"]: c["result"] for c in json.loads(text)["checks"]}
        code, results = elsewhere(*url, "--token-file", os.path.join(secrets, "basic-auth-password"))
        self.assertEqual((code, results["token"], results["test alert"], results["disk"]), (0, "skip", "skip", "ok"))
        code, results = elsewhere(*url, "--token-file", os.path.join(secrets, "basic-auth-password"),
                                  "--webhook-token-file", os.path.join(secrets, "webhook-token"))
        self.assertEqual((code, results["token"], results["test alert"]), (0, "ok", "ok"))
        for arguments in ([*url, "--token-file", wrong], url, ["--url", f"http://127.0.0.1:{free_port()}", "--token-file", wrong]):
            self.assertEqual(elsewhere(*arguments), (1, {"platform": "FAIL", "the rest": "skip"}))

    def test_without_a_platform(self):
        p = self.platform(start=False)
        code, lines = self.doctor(p)
        self.assertEqual(self.failed(lines), ["disk", "platform"])
        self.assertIn("balm up", lines["platform"][2])
        self.assertSentence(p.cli("doctor", "x"), 2, "'x'")
        self.assertSentence(p.cli("doctor", "--timeout", "0s"), 2, "--timeout")
        self.assertSentence(p.cli("doctor", "--alertmanagr", "x"), 2, "--alertmanager")


if __name__ == "__main__":
    main()
