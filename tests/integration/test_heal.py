"""From alert to verified repair, with a real nginx, and everything that may come between."""
import json
import os
import signal
import time
import unittest

from harness import PATIENCE, PlatformTest, alert, main, stack_file, wait_until, webhook
from peers import Nginx, Unavailable

RUNBOOK = """
name: restart-nginx
match: ['alertname="NginxDown"']
target: service/${labels.service}
mode: MODE
steps:
  - bot: service-restart
    with: {unit: "${labels.service}"}
    verify: {resolve: {within: WITHIN}}
    timeout: 20s
guardrails: {cooldown: COOLDOWN, rate: {max: 100, per: 1h}, max_in_flight: 1}
"""
STACK = stack_file("echo", "service-restart")


def runbook(mode="act", within="60s", cooldown="1s"):
    return {"nginx.yaml": RUNBOOK.replace("MODE", mode).replace("WITHIN", within).replace("COOLDOWN", cooldown)}


class Heal(PlatformTest):
    def nginx(self):
        try:
            n = Nginx(self.folder)
        except Unavailable as e:
            self.skipTest(str(e))
        n.start()
        self.addCleanup(n.stop)
        return n

    def test_alert_to_verified_repair(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list())
        first_pid = nginx.pid()
        nginx.stop()
        began = time.time()
        self.assertEqual(p.post_alerts(alert("NginxDown", starts_at=began, service="nginx"))[0], 202)
        outcome = p.wait_record("outcome", state="done")
        self.assertNotIn(nginx.pid(), (0, first_pid))
        stages = outcome["stages"]
        order = [stages[k] for k in ("received", "durable", "decided", "invoked", "entered", "healed")]
        self.assertEqual(len([o for o in order if o]), 6, stages)
        self.assertLessEqual(stages["received"], stages["durable"])
        self.assertLessEqual(stages["durable"], stages["entered"])
        self.assertLessEqual(stages["entered"], stages["healed"])
        p.post_alerts(alert("NginxDown", status="resolved", starts_at=began, service="nginx"))
        self.assertTrue(p.wait_record("verified")["ok"])
        self.assertEqual(p.wait_record("closed")["state"], "healed")
        intent = p.records("intent")[0]
        self.assertEqual((intent["function"], intent["target"]), ("service-restart", "service/nginx"))
        self.assertEqual(intent["intent"], outcome["intent"])
        code, text, _ = p.cli("why", intent["incident"])
        self.assertEqual(code, 0)
        for word in ("NginxDown", "restart-nginx", "service-restart", "cooldown", "healed"):
            self.assertIn(word, text)
        code, text, _ = p.cli("why", "last", "--json")
        self.assertEqual(json.loads(text)["incident"], intent["incident"])
        code, text, _ = p.cli("status")
        self.assertEqual(code, 0, text)
        self.assertIn("service-restart", text)
        code, text, _ = p.cli("audit", "verify")
        self.assertEqual(code, 0, text)

    def test_shadow_decides_and_does_not_act(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(mode="shadow"), stack=STACK, host_acts=nginx.allow_list())
        nginx.stop()
        p.post_alerts(alert("NginxDown", service="nginx"))
        refusal = p.wait_record("refusal")
        self.assertEqual((refusal["gate"], refusal["mode"], refusal["function"]), ("mode", "shadow", "service-restart"))
        time.sleep(0.5)
        self.assertEqual(p.records("intent"), [])
        self.assertEqual(nginx.pid(), 0)

    def test_cooldown_refuses_a_second_act_on_the_target(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(cooldown="10m"), stack=STACK, host_acts=nginx.allow_list())
        p.post_alerts(alert("NginxDown", service="nginx", instance="a"))
        p.wait_record("outcome")
        p.post_alerts(alert("NginxDown", service="nginx", instance="b"))
        self.assertEqual(p.wait_record("refusal")["gate"], "cooldown")
        self.assertEqual(len(p.records("intent")), 1)

    def test_stop_and_resume(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list())
        nginx.stop()
        self.assertEqual(p.cli("stop")[0], 0)
        p.post_alerts(alert("NginxDown", service="nginx", instance="a"))
        refusal = p.wait_record("refusal")
        self.assertEqual(refusal["gate"], "freeze")
        # Stopped is a state of the journal, not of the process.
        p.stop()
        p.start()
        p.post_alerts(alert("NginxDown", service="nginx", instance="b"))
        wait_until(lambda: len(p.records("refusal")) == 2, 10, "second refusal")
        self.assertEqual(p.records("intent"), [])
        self.assertEqual(p.cli("resume")[0], 0)
        p.post_alerts(alert("NginxDown", service="nginx", instance="c"))
        p.wait_record("outcome", state="done")
        self.assertEqual([bool(r.get("on")) for r in p.records("freeze")], [True, False])

    def test_service_that_is_not_on_the_allow_list(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list())
        p.post_alerts(alert("NginxDown", service="sshd"))
        outcome = p.wait_record("outcome")
        self.assertIn(outcome["state"], ("failed", "refused"))
        self.assertIn("allow list", outcome.get("message", "") + outcome.get("reason", ""))

    def test_an_act_that_never_resolves_is_escalated(self):
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(within="1s"), stack=STACK, host_acts=nginx.allow_list())
        nginx.stop()
        p.post_alerts(alert("NginxDown", service="nginx"))
        p.wait_record("outcome", state="done")
        verified = p.wait_record("verified")
        self.assertFalse(verified.get("ok", False))
        p.wait_record("escalated")

    def test_direct_call_of_an_acting_bot_is_403(self):
        p = self.platform(stack=STACK)
        status, _, body = p.request("POST", "/function/service-restart", {"unit": "nginx"}, {"Content-Type": "application/json"})
        self.assertEqual(status, 403, body)
        status, _, body = p.request("POST", "/async-function/service-restart", {"unit": "nginx"}, {"Content-Type": "application/json"})
        self.assertEqual(status, 403, body)

    def test_kill_9_between_intent_and_outcome(self):
        """The act runs again under the same intent; one whose outcome was recorded does not."""
        nginx = self.nginx()
        p = self.platform(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list(), start=False)
        for round_ in range(6):
            p.start()
            nginx.stop()
            began = time.time()
            p.post_alerts(alert("NginxDown", starts_at=began, service="nginx", round=str(round_)))
            if round_ % 2 == 0:
                wait_until(lambda: len(p.records("intent")) > round_, 10, "intent")
            time.sleep(0.02 * round_)
            p.kill()
            p.start()
            wait_until(lambda: len(p.records("outcome")) > round_, 30, "outcome after the restart\n" + p.log_text())
            wait_until(lambda: nginx.pid() != 0, 10, "nginx is up")
            # While an act on the target waits for its verification no other one is decided.
            p.post_alerts(alert("NginxDown", status="resolved", starts_at=began, service="nginx", round=str(round_)))
            wait_until(lambda: len(p.records("closed")) > round_, 10, "closed")
            time.sleep(1.1)  # the runbook's cooldown
            self.assertEqual(p.stop(), 0)
        intents = [r["intent"] for r in p.records("intent")]
        outcomes = [r["intent"] for r in p.records("outcome")]
        self.assertEqual(sorted(intents), sorted(outcomes))
        self.assertEqual(len(set(outcomes)), len(outcomes))

    def test_nothing_is_left_behind_after_kill_9(self):
        p = self.platform(stack=STACK)
        self.assertEqual(p.request("POST", "/function/echo", "hi")[0], 200)
        children = set(self.children(p.process.pid))
        self.assertTrue(children)
        p.kill()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children), 5, "children are gone")

    @staticmethod
    def children(pid):
        found, parents = [], [pid]
        while parents:
            parent = parents.pop()
            try:
                with open(f"/proc/{parent}/task/{parent}/children") as f:
                    below = [int(c) for c in f.read().split()]
            except OSError:
                continue
            found += below
            parents += below
        return found


if __name__ == "__main__":
    main()
