"""A direct call of a bot that acts (faas-cli invoke service-restart): an intent with the caller as actor, through all gates, and its outcome."""
import json
import os
import threading

from faas import FaasTest
from harness import main, stack_file, wait_until

RUNBOOK = """
name: direct-restart
match: ['alertname="DirectCall"', 'bot="service-restart"']
target: service/${labels.unit}
mode: MODE
steps:
  - bot: service-restart
    with: {unit: "${labels.unit}"}
    verify: check
    timeout: TIMEOUT
guardrails: {cooldown: COOLDOWN}
"""
RESTART = """#!/bin/sh
echo begin >> FOLDER/runs
test ! -e FOLDER/broken || exit 1
while test -e FOLDER/hold; do sleep 0.05; done
setsid sleep 1000 &
echo $! > FOLDER/pid
"""


class DirectTest(FaasTest):
    mode, timeout, cooldown = "act", "10s", "1s"

    def start_platform(self):
        tool = os.path.join(self.folder, "restart.sh")
        with open(tool, "w") as f:
            f.write(RESTART.replace("FOLDER", self.folder))
        os.chmod(tool, 0o755)
        self.addCleanup(self.end_service)
        acts = f"services:\n  web: {{functions: [service-restart], restart: [{tool}], pid_file: {self.folder}/pid}}\n"
        return self.platform(runbooks={"r.yaml": self.runbook()}, stack=stack_file("service-restart"), host_acts=acts)

    def runbook(self):
        return RUNBOOK.replace("MODE", self.mode).replace("TIMEOUT", self.timeout).replace("COOLDOWN", self.cooldown)

    def end_service(self):
        self.touch("hold", False)
        if os.path.exists(os.path.join(self.folder, "pid")):
            with open(os.path.join(self.folder, "pid")) as f:
                try:
                    os.kill(int(f.read()), 9)
                except ProcessLookupError:
                    pass

    def touch(self, name, is_there=True):
        path = os.path.join(self.folder, name)
        if is_there:
            open(path, "w").close()
        elif os.path.exists(path):
            os.unlink(path)

    def runs(self):
        path = os.path.join(self.folder, "runs")
        if not os.path.exists(path):
            return 0
        with open(path) as f:
            return f.read().count("begin")

    def invoke(self, code=0, unit="web", login=True, **params):
        """What faas-cli shows of a call that must end with `code`."""
        more = ("-H", "Authorization: " + self.p.basic()["Authorization"]) if login else ()
        return self.cli("invoke", "service-restart", *more, input=json.dumps({"unit": unit, **params}), code=code)

    def outcome(self, text):
        return json.loads(text[text.index("{"):])

    # ---- allowed ----

    def test_a_parameter_that_the_bot_refuses_is_the_callers_fault(self):
        o = self.outcome(self.invoke(unit="u" * 256, code=1))
        self.assertEqual((o["state"], o["code"]), ("failed", "INVALID_ARGUMENT"), o)
        body = json.dumps({"unit": "u" * 257})
        self.assertEqual(self.p.request("POST", "/function/service-restart", body, self.p.basic())[0], 400)

    def test_an_allowed_call_acts_and_shows_its_outcome(self):
        o = self.outcome(self.invoke())
        self.assertIn(o["state"], ("done", "unchanged"), o)
        self.assertEqual(self.runs(), 1)
        signal = self.p.wait_record("signal", incident=o["incident"], status="firing")
        self.assertRegex(signal["actor"], r"^admin from 127\.0\.0\.1")
        self.assertEqual((signal["source"], signal["labels"]["unit"]), ("direct", "web"))
        intent = self.p.wait_record("intent", intent=o["intent"])
        self.assertEqual((intent["target"], intent["params"], intent["cause"] > 0), ("service/web", {"unit": "web"}, True))
        self.assertTrue(all(gate["ok"] for gate in intent["gates"]), intent)
        self.p.wait_record("closed", incident=o["incident"], state="healed")

    # ---- refused ----

    def test_without_the_login_it_is_refused(self):
        self.assertIn("403", self.invoke(1, login=False))
        status, _, body = self.p.request("POST", "/function/service-restart", '{"unit":"web"}', {"Authorization": "Basic d3Jvbmc6eA=="})
        self.assertEqual(status, 401, body)
        self.assertEqual((self.runs(), self.p.records("signal")), (0, []))

    def test_a_gate_refuses_the_second(self):
        self.p.stop()
        self.cooldown = "10m"
        self.p.write("runbooks/r.yaml", self.runbook())
        self.p.start()
        self.invoke()
        o = self.outcome(self.invoke(1))
        self.assertEqual((o["state"], o["gate"]), ("refused", "cooldown"), o)
        self.p.wait_record("closed", incident=o["incident"])  # it does not wait for its time
        self.assertEqual(self.runs(), 1)

    def test_shadow_and_no_runbook(self):
        self.p.stop()
        self.mode = "shadow"
        self.p.write("runbooks/r.yaml", self.runbook())
        self.p.start()
        o = self.outcome(self.invoke(1))
        self.assertEqual((o["state"], o["gate"]), ("refused", "mode"), o)
        self.p.stop()
        self.p.write("runbooks/r.yaml", self.runbook().replace("DirectCall", "Other"))
        self.p.start()
        self.assertIn("no runbook takes direct calls", self.invoke(1))
        self.assertEqual(self.runs(), 0)

    def test_labels_of_a_caller_start_no_other_runbook(self):
        self.p.stop()
        self.p.write("runbooks/r.yaml", self.runbook().replace("""'alertname="DirectCall"', 'bot="service-restart"'""", """'severity="critical"'""")
                     .replace("bot: service-restart", "bot: notify").replace('with: {unit: "${labels.unit}"}', "with: {title: x}"))
        self.p.write("stack.yml", stack_file("service-restart", "notify"))
        self.p.start()
        self.assertIn("no runbook takes direct calls", self.invoke(1, severity="critical"))
        self.assertIn("cannot be the name", self.invoke(1, alertname="Other"))
        self.assertEqual(self.p.records("signal"), [])

    def test_frozen(self):
        self.assertEqual(self.p.cli("stop", "--reason", "test")[0], 0)
        o = self.outcome(self.invoke(1))
        self.assertEqual((o["state"], o["gate"]), ("refused", "freeze"), o)
        self.p.wait_record("closed", incident=o["incident"])
        self.assertEqual(self.p.cli("resume", "--reason", "test")[0], 0)
        self.assertEqual([r for r in self.p.records("intent")], [])
        self.assertEqual(self.runs(), 0)

    # ---- failed, late ----

    def test_what_failed_is_shown(self):
        self.touch("broken")
        text = self.invoke(1)
        o = self.outcome(text)
        self.assertIn(o["state"], ("failed", "refused", "unknown", "dead"), text)
        self.assertRegex(text, "50[0-4]|403")
        o = self.outcome(self.invoke(1, unit="not-in-the-list"))
        self.assertIn(o["state"], ("failed", "refused"), o)

    def test_what_takes_too_long_is_pending(self):
        self.p.stop()
        self.timeout = "2s"
        self.p.write("runbooks/r.yaml", self.runbook())
        self.p.start()
        self.touch("hold")
        text = self.invoke(1)
        self.assertIn("504", text)
        o = self.outcome(text)
        self.assertEqual((o["state"], self.runs()), ("pending", 1), o)
        self.touch("hold", False)
        ended = self.p.wait_record("outcome", 60, intent=o["intent"])
        self.assertIn(ended["state"], ("done", "unchanged", "unknown", "failed"), ended)  # as the bot finds it, or not asked again
        self.assertEqual(self.runs(), 1)  # nobody waits for it: nothing is begun again

    def test_a_kill_in_the_middle_is_one_act(self):
        self.touch("hold")
        caller = threading.Thread(target=lambda: self.cli_of_killed(), daemon=True)
        caller.start()
        wait_until(self.runs, 30, "it acts")
        self.p.kill()
        caller.join(30)
        self.touch("hold", False)
        self.p.start()
        intent = self.p.wait_record("intent")
        self.p.wait_record("outcome", 60, intent=intent["intent"])
        self.assertEqual(len(self.p.records("intent")), 1)

    def cli_of_killed(self):
        try:
            self.invoke(1)
        except AssertionError:
            pass


if __name__ == "__main__":
    main()
