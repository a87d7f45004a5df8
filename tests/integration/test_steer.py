#!/usr/bin/env python3
"""What an operator does about incidents and dead letters: real bots that fail against a real receiver, the commands as they are typed, kills
between the answer and its effect."""
import http.server
import json
import subprocess
import threading
import time
import unittest
import urllib.parse

import busy
from harness import BALM, PATIENCE, PlatformTest, alert, free_port, main, stack_file, wait_until

DEAD_S = 90  # five attempts with their backoff, and a busy machine

RUNBOOK = """
- name: NAME
  match: ['alertname="ALERT"']
  target: service/${labels.service}
  mode: act
  steps: [{bot: notify, with: {title: act, text: "${incident}"}, timeout: TIMEOUT, verify: {resolve: {within: 10m}}}]
  guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}
  escalate: {bot: notify, with: {title: told}}
"""


def runbook(name, alertname, timeout):
    return RUNBOOK.replace("NAME", name).replace("ALERT", alertname).replace("TIMEOUT", timeout)


# A bot repeats by itself until its timeout: five attempts of a second each are soon over, and one of a minute can be watched.
RUNBOOKS = runbook("quick", "Broken", "1s") + runbook("slow", "Slow", "60s")


class Receiver:
    """Refuses what has a title in `refuses`, and keeps those in `holds` waiting."""

    def __init__(self):
        self.messages, self.refuses, self.holds = [], set(), set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.messages.append(message)
                try:
                    wait_until(lambda: message["title"] not in receiver.holds, 60, "let go")
                    self.send_response(503 if message["title"] in receiver.refuses else 200)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except (OSError, AssertionError):
                    pass  # the bot was killed

            def log_message(self, *arguments):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def intents(self, title):
        return [message["intent"] for message in list(self.messages) if message["title"] == title]

    def close(self):
        self.holds.clear()
        self.server.shutdown()
        self.server.server_close()


class Steering(PlatformTest):
    def start(self, stack=None):
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)
        p = self.platform(start=False, runbooks={"act.yaml": RUNBOOKS}, stack=stack or busy.notify_stack())
        busy.secret(p, "notify-url", f"http://127.0.0.1:{self.receiver.port}/hook")
        busy.secret(p, "notify-hmac-key", "k3y")
        return p.start()

    def ok(self, p, *arguments, code=0):
        done = p.cli(*arguments)
        self.assertEqual(done[0], code, done)
        return done[1]

    def sentence(self, p, code, *arguments, has):
        """One clear sentence on stderr, nothing on stdout, and this exit code."""
        done = p.cli(*arguments)
        self.assertEqual((done[0], done[1], done[2].count("\n")), (code, "", 1), (arguments, done))
        self.assertIn(has, done[2])

    def dead_act(self, p, **labels):
        """Its outcome record; a person has been told."""
        self.receiver.refuses.add("act")
        p.post_alerts(alert("Broken", **labels))
        outcome = p.wait_record("outcome", DEAD_S, state="dead", target="service/" + labels["service"])
        p.wait_record("outcome", 30, state="done", incident=outcome["incident"], purpose="escalate")
        self.receiver.refuses.clear()
        return outcome

    def test_a_dead_act_is_listed_retried_and_heals(self):
        p = self.start()
        began = time.time()
        dead = self.dead_act(p, service="nginx")
        text = self.ok(p, "dead", "list")
        for part in (dead["intent"], "act of notify on service/nginx", dead["incident"], "5 attempts", "503"):
            self.assertIn(part, text)
        self.assertIn("balm dead retry " + dead["intent"] + "  # or drop it: balm dead list", self.ok(p, "why", dead["incident"]))
        listed = json.loads(self.ok(p, "dead", "list", "--function", "notify", "--json"))
        self.assertEqual((listed["total"], listed["dead"][0]["incident"]), (1, dead["incident"]))
        self.assertEqual(self.ok(p, "dead", "list", "--function", "echo"), "no dead letters\n")
        n_sent = len(self.receiver.intents("act"))
        text = self.ok(p, "dead", "retry", dead["intent"][-12:], "--actor", "alice")
        self.assertIn(": decided anew, as intent " + dead["incident"], text)
        outcome = p.wait_record("outcome", 30, state="done", incident=dead["incident"], step=1, target="service/nginx")
        self.assertNotEqual(outcome["intent"], dead["intent"])
        self.assertEqual(self.receiver.intents("act")[n_sent:], [outcome["intent"]])
        self.assertEqual(p.wait_record("retry", intent=dead["intent"], state="anew")["actor"], "alice")
        self.assertEqual(self.ok(p, "dead", "list"), "no dead letters\n")
        self.sentence(p, 3, "dead", "retry", dead["intent"], has="no dead letter")
        p.post_alerts(alert("Broken", "resolved", starts_at=began, service="nginx"))
        p.wait_record("closed", incident=dead["incident"], state="healed")
        self.assertIn("retried by alice at ", self.ok(p, "why", dead["incident"]))

    def test_a_retry_that_was_answered_survives_a_kill(self):
        p = self.start()
        dead = self.dead_act(p, service="nginx")
        self.ok(p, "stop")  # so that nothing comes of it before the kill
        self.assertIn("nothing of it begins before balm resume", self.ok(p, "dead", "retry", "--all"))
        p.kill()
        p.start()
        self.assertEqual(self.ok(p, "dead", "list"), "no dead letters\n")
        n_sent = len(self.receiver.intents("act"))
        self.ok(p, "resume")
        outcome = p.wait_record("outcome", 30, state="done", incident=dead["incident"], step=1, target="service/nginx")
        self.assertEqual(self.receiver.intents("act")[n_sent:], [outcome["intent"]])

    def test_a_dead_call_is_put_back_even_if_the_platform_is_killed_at_once(self):
        # It does not start without its secret.
        p = self.start(stack=busy.notify_stack() + stack_file("echo").split("functions:\n")[1] + "    secrets: [late]\n")
        self.assertEqual(p.request("POST", "/async-function/echo", "later")[0], 202)
        dead = p.wait_record("outcome", DEAD_S, state="dead", function="echo")
        wait_until(lambda: dead["intent"] in self.ok(p, "dead", "list"), 10, "it is listed")
        self.assertIn("call of echo", self.ok(p, "dead", "list"))
        busy.secret(p, "late", "x")
        self.assertIn(dead["intent"] + ": put back", self.ok(p, "dead", "retry", "--all", "--function", "echo"))
        p.kill()
        p.start()
        outcome = p.wait_record("outcome", DEAD_S, state="done", function="echo")
        self.assertEqual((outcome["intent"], outcome["message"]), (dead["intent"], "later"))
        self.assertEqual(self.ok(p, "dead", "retry", "--all"), "no dead letters\n")

    def test_what_is_over_is_not_retried_but_dropped(self):
        p = self.start()
        began = time.time()
        dead = self.dead_act(p, starts_at=began, service="nginx")
        self.sentence(p, 2, "dead", "drop", dead["intent"], has="--reason TEXT")
        p.post_alerts(alert("Broken", "resolved", starts_at=began, service="nginx"))
        p.wait_record("closed", incident=dead["incident"], state="escalated")
        n_intents = len(p.records("intent"))
        self.sentence(p, 1, "dead", "retry", dead["intent"], has="its incident is closed; see balm why " + dead["incident"])
        self.assertIn("NOT retried: its incident is closed", self.ok(p, "dead", "retry", "--all", code=1))
        self.assertEqual(self.ok(p, "dead", "drop", dead["intent"], "--reason", "mended by hand"), dead["intent"] + ": dropped\n")
        p.kill()
        p.start()
        self.assertEqual(self.ok(p, "dead", "list"), "no dead letters\n")
        self.assertEqual(p.wait_record("outcome", state="dropped")["reason"], "mended by hand")
        self.assertEqual(len(p.records("intent")), n_intents)
        self.assertIn(": mended by hand", self.ok(p, "why", dead["incident"]))
        self.assertEqual(self.ok(p, "audit", "verify")[:7], "records")

    def test_an_incident_is_listed_noted_and_closed(self):
        p = self.start()
        began = time.time()
        self.receiver.holds.add("act")
        p.post_alerts(alert("Slow", starts_at=began, service="nginx"))
        intent = p.wait_record("intent", target="service/nginx")
        wait_until(lambda: self.receiver.intents("act"), 30, "the act is under way")
        text = self.ok(p, "incident", "list")
        for part in (intent["incident"], "acting", "Slow", "service/nginx", "slow"):
            self.assertIn(part, text)
        self.assertNotIn("STUCK", text)
        self.assertEqual(self.ok(p, "incident", "list", "--closed"), "no incident has been closed\n")
        half = intent["incident"][:12]
        self.assertEqual(self.ok(p, "incident", "note", half, "looking \u2013 \"at\" it\nand on", "--actor", "alice"), f"noted on {intent['incident']}\n")
        text = self.ok(p, "incident", "show", half)
        for part in ("service/nginx", "under way", "alice: looking \u2013 \"at\" it and on", "balm why " + intent["incident"]):
            self.assertIn(part, text)
        self.assertIn("alice at ", self.ok(p, "why", intent["incident"]))
        query = urllib.parse.urlencode({"query": '{kind="note"} |= "looking"', "since": "1h"})
        found = json.loads(p.request("GET", "/function/audit/loki/api/v1/query_range?" + query, headers=p.basic())[2])
        self.assertIn(intent["incident"], json.dumps(found["data"]["result"]))
        text = self.ok(p, "incident", "close", half, "--reason", "mine", "--actor", "alice")
        self.assertIn("as soon as its act has ended: " + intent["intent"], text)
        self.assertIn("closing", self.ok(p, "incident", "list"))
        self.sentence(p, 1, "incident", "close", half, "--reason", "mine", has="being closed already")
        self.receiver.holds.clear()
        p.wait_record("closed", incident=intent["incident"], state="manual")
        self.assertEqual(self.ok(p, "incident", "list"), "no incident is open\n")
        self.assertIn("manual", self.ok(p, "incident", "list", "--closed"))
        self.sentence(p, 1, "incident", "close", half, "--reason", "mine", has="is not open")
        p.kill()
        p.start()
        # The episode goes on and opens nothing; the next one acts as ever.
        p.post_alerts(alert("Slow", starts_at=began, service="nginx"))
        p.post_alerts(alert("Slow", "resolved", starts_at=began, service="nginx"))
        time.sleep(1.1)  # cooldown
        p.post_alerts(alert("Slow", service="nginx"))
        wait_until(lambda: len(p.records("intent")) == 2, 30, "the next episode acts")
        self.assertNotEqual(p.records("intent")[1]["incident"], intent["incident"])

    def test_a_close_that_was_answered_survives_a_kill_under_the_act(self):
        p = self.start()
        self.receiver.holds.add("act")
        p.post_alerts(alert("Slow", service="nginx"))
        intent = p.wait_record("intent", target="service/nginx")
        wait_until(lambda: self.receiver.intents("act"), 30, "the act is under way")
        self.ok(p, "incident", "close", intent["incident"], "--reason", "mine")
        p.kill()
        self.receiver.holds.clear()
        p.start()
        p.wait_record("closed", 30, incident=intent["incident"], state="manual")
        self.assertEqual(p.wait_record("outcome", intent=intent["intent"])["state"], "unknown")
        self.assertEqual(len(self.receiver.intents("act")), 1)
        self.assertEqual(len(p.records("intent")), 1)

    def test_a_platform_elsewhere_is_steered_as_well(self):
        p = self.start()
        self.receiver.refuses.add("act")
        p.post_alerts(alert("Broken", service="nginx"))
        dead = p.wait_record("outcome", DEAD_S, state="dead")
        url = f"http://127.0.0.1:{p.port}"
        right, wrong = p.write("right", p.secret("basic-auth-password"), 0o600), p.write("wrong", "no", 0o600)
        commands = (("incident", "list"), ("incident", "show", dead["incident"]), ("incident", "note", dead["incident"], "x"), ("dead", "list"),
                    ("dead", "retry", dead["intent"]), ("incident", "close", dead["incident"], "--reason", "x"), ("dead", "drop", "--all", "--reason", "x"))
        for command in commands:
            for arguments, code in ((["--url", url, "--token-file", wrong], 1), (["--url", url], 2),
                                    (["--url", f"http://127.0.0.1:{free_port()}", "--token-file", right], 3), (["--url", url, "--token-file", right], 0)):
                done = subprocess.run([BALM, *command, *arguments], capture_output=True, text=True, timeout=60 * PATIENCE)
                self.assertEqual(done.returncode, code, (command, arguments, done))
                self.assertEqual(done.stderr.count("\n"), code != 0, done)
        self.receiver.refuses.clear()

    def test_bad_input_is_one_sentence_and_changes_nothing(self):
        p = self.start()
        p.post_alerts(alert("Broken", service="nginx"))
        incident = p.wait_record("outcome", 30, state="done")["incident"]
        near = incident[:-1] + ("0" if incident[-1] != "0" else "1")
        n_records = len(p.records())
        for code, has, *arguments in (
                (2, "say one of list, show, note, close", "incident"),
                (2, "did you mean 'close'?", "incident", "clse"),
                (2, "show takes INCIDENT", "incident", "show"),
                (2, "note takes INCIDENT TEXT", "incident", "note", incident),
                (2, "got 'two' as well; quote", "incident", "note", incident, "one", "two"),
                (2, "--reason TEXT", "incident", "close", incident),
                (2, "did you mean --closed?", "incident", "list", "--closd"),
                (2, "1 to 1000", "incident", "list", "--limit", "0"),
                (2, "control characters", "incident", "note", incident, "a\x1b[31mb"),
                (2, "1 to 4096 bytes", "incident", "note", incident, "x" * 4097),
                (2, "1 to 4096 bytes", "incident", "note", incident, "  "),
                (2, "1 to 1000 bytes", "incident", "close", incident, "--reason", "x" * 1001),
                (2, "1 to 200 bytes", "incident", "note", incident, "x", "--actor", "x" * 201),
                (2, "not UTF-8", "incident", "note", incident, b"\xff\xfe"),
                (3, "nearest: " + incident, "incident", "note", near, "x"),
                (3, "nearest: " + incident, "incident", "show", near),
                (3, "no incident", "incident", "show", "../../status"),
                (3, "no incident 'a/b'", "incident", "close", "a/b", "--reason", "x"),
                (3, "no incident", "incident", "note", "x" * 500, "x"),
                (3, "no incident 'zzz'; balm incident list has them", "incident", "close", "zzz", "--reason", "x"),
                (2, "say one of list, retry, drop", "dead"),
                (2, "did you mean 'retry'?", "dead", "rety", "x"),
                (2, "by its ID from balm dead list, or --all", "dead", "retry"),
                (2, "by its ID from balm dead list, or --all", "dead", "retry", "x", "--all"),
                (2, "--reason is for drop", "dead", "retry", "x", "--reason", "y"),
                (3, "no dead letter", "dead", "retry", incident),
                (3, "no dead letter", "dead", "drop", "a/../b", "--reason", "y")):
            self.sentence(p, code, *arguments, has=has)
        self.assertEqual(len(p.records()), n_records)
        p.stop()
        self.sentence(p, 3, "incident", "list", has="no platform is running")
        self.sentence(p, 3, "dead", "list", has="no platform is running")


if __name__ == "__main__":
    main()
