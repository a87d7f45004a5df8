"""`balm why` on each kind of incident, from real runs: one screen that says what happened, why, what comes next and what to run, in this order."""
import json
import os
import re
import time

from harness import PlatformTest, alert, main, stack_file, wait_until

# A service by a script: it waits while FOLDER/hold is there, fails while FOLDER/fail is there, and else comes up.
RESTART = """#!/bin/sh
echo begin >> FOLDER/runs
while test -e FOLDER/hold; do sleep 0.05; done
if test -e FOLDER/fail; then echo 'cannot bind to port 80' >&2; exit 1; fi
setsid sleep 1000 >/dev/null 2>&1 &
echo $! > FOLDER/pid
"""
RUNBOOK = """
name: restart-NAME
match: ['alertname="NAME"']
target: TARGET
mode: MODE
steps:
  - bot: BOT
    with: {unit: "UNIT"}
    verify: {resolve: {within: WITHIN}}
    timeout: TIMEOUT
guardrails: {cooldown: COOLDOWN, rate: {max: RATE, per: 1h}, max_in_flight: FLIGHT}
"""
SET = dict(NAME="Down", TARGET="service/${labels.service}", MODE="act", BOT="service-restart", UNIT="${labels.service}", WITHIN="60s", TIMEOUT="30s",
           COOLDOWN="1s", RATE="100", FLIGHT="5")
LINES, COLUMNS = 24, 100


def runbook(**more):
    text = RUNBOOK
    for name, value in {**SET, **more}.items():
        text = text.replace(name, value)
    return text


class Why(PlatformTest):
    def service(self, *names, start=True, **more):
        tool = os.path.join(self.folder, "restart.sh")
        with open(tool, "w") as f:
            f.write(RESTART.replace("FOLDER", self.folder))
        os.chmod(tool, 0o755)
        acts = "services:\n" + "".join(f"  {n}: {{functions: [service-restart], restart: [{tool}], pid_file: {self.folder}/pid}}\n" for n in ("web", "api"))
        p = self.platform(start=start, runbooks={f"{i}.yaml": text for i, text in enumerate(names or (runbook(**more),))},
                             stack=stack_file("echo", "service-restart"), host_acts=acts)
        self.addCleanup(self.end_service)  # before the platform ends: it waits for what is under way
        return p

    def path(self, name):
        return os.path.join(self.folder, name)

    def touch(self, name):
        with open(self.path(name), "w"):
            pass

    def end_service(self):
        for name in ("hold", "fail"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        if os.path.exists(self.path("pid")):
            with open(self.path("pid")) as f:
                try:
                    os.kill(int(f.read()), 9)
                except ProcessLookupError:
                    pass

    def fire(self, p, name="Down", **labels):
        since = time.time() - 5
        self.assertEqual(p.post_alerts(alert(name, starts_at=since, annotations={"summary": f"{name} does not answer"}, **labels))[0], 202)
        return since

    def resolve(self, p, since, name="Down", **labels):
        self.assertEqual(p.post_alerts(alert(name, "resolved", since, **labels))[0], 202)

    def why(self, p, *parts, incident="last", lines=LINES):
        """The text: within one screen, and with these parts, each behind the one before."""
        code, text, error = p.cli("why", incident)
        self.assertEqual((code, error), (0, ""))
        if os.environ.get("SHOW"):
            print("\n" + text)
        rows = text.rstrip("\n").split("\n")
        self.assertLessEqual(len(rows), lines, text)
        self.assertLessEqual(max(map(len, rows)), COLUMNS, text)
        flat, at = re.sub(r"\n {12}", " ", text), 0
        for part in parts:
            found = flat.find(part, at)
            self.assertGreaterEqual(found, 0, f"'{part}' is not there, or not behind what was before it:\n{text}")
            at = found + len(part)
        said = json.loads(p.cli("why", incident, "--json")[1])
        for member in ("what", "next"):
            self.assertTrue(said[member], said)
        return flat


class Done(Why):
    def test_an_act_that_helped(self):
        p = self.service()
        since = self.fire(p, service="web", severity="critical")
        p.wait_record("outcome", state="done")
        self.why(p, "open\n", "what      service-restart acted on service/web; whether it helped is not verified yet", "alert     Down from alertmanager",
                 "service=web", "summary: Down does not answer", "runbook   restart-Down, mode act, for service/web", "act       step 1: service-restart",
                 "ok: mode act", "cooldown no act before (1s)", "done at", "next      verified when the alert resolves", "undo      none: a restart cannot",
                 "signal", "intent", "outcome")
        self.resolve(p, since, service="web", severity="critical")
        self.assertEqual(p.wait_record("closed")["state"], "healed")
        self.why(p, ": healed\n", "what      service-restart acted on service/web, and the alert resolved", "verified  yes, by resolve",
                 "next      nothing: closed as healed", "undo      none", "closed")

    def test_it_resolved_by_itself(self):
        p = self.service(MODE="shadow")
        since = self.fire(p, service="web")
        p.wait_record("refusal")
        self.resolve(p, since, service="web")
        p.wait_record("closed")
        self.why(p, ": resolved\n", "what      the alert resolved by itself after", "no bot acted", "undo      nothing to take back: no bot acted")


class Refused(Why):
    def refused(self, p, gate, *parts, n=1):
        wait_until(lambda: len([r for r in p.records("refusal") if r["gate"] == gate]) >= n, 20, f"refused by {gate}")
        return self.why(p, "what      nothing was done: ", *parts)

    def test_shadow(self):
        p = self.service(MODE="shadow")
        self.fire(p, service="web")
        self.refused(p, "mode", "runbook restart-Down is in shadow, and would have run service-restart on service/web", "refused   gate mode",
                     'service-restart on service/web with {"unit":"web"}', "STOP mode               shadow  (limit act)", "ok: freeze off",
                     "next      nothing: runbook restart-Down is in shadow; 'mode: act' in it",
                     "run       balm reload  # after 'mode: act' was written into runbook restart-Down", "undo      nothing to take back", "would run service-restart")

    def test_stopped(self):
        p = self.service()
        self.assertEqual(p.cli("stop")[0], 0)
        self.fire(p, service="web")
        self.refused(p, "freeze", "gate freeze keeps service-restart from acting on service/web", "STOP freeze", "next      it is decided on again after balm resume",
                     "run       balm resume  # acting is stopped since 20", "undo      nothing")
        p.stop()  # and from the folder alone, where the stop is an older record
        self.why(p, "run       balm up  # no platform runs on this journal", "balm resume  # acting is stopped since 20")
        p.start()
        self.assertEqual(p.cli("resume")[0], 0)
        p.wait_record("outcome", state="done")
        self.assertNotIn("run       ", self.why(p, "what      service-restart acted", "refused   gate freeze", "act       step 1"))

    def test_target_and_params(self):
        p = self.service(runbook(), runbook(NAME="Other", TARGET="service/web", UNIT="${labels.unit}"))
        self.fire(p)
        self.refused(p, "target", "gate target keeps service-restart from acting", "STOP target", "next      nothing until the alert ends: no target",
                     "run       balm reload  # after runbook restart-Down")
        self.fire(p, "Other")
        self.refused(p, "params", "gate params keeps", "STOP params", "labels.unit", "run       balm reload")

    def test_cooldown_and_rate(self):
        p = self.service(runbook(COOLDOWN="10m"), runbook(NAME="Other", RATE="1"))
        since = self.fire(p, service="web", n="1")
        p.wait_record("outcome", state="done")
        self.resolve(p, since, service="web", n="1")
        p.wait_record("closed")
        self.fire(p, service="web", n="2")
        self.refused(p, "cooldown", "gate cooldown keeps service-restart", "10m must lie between", "STOP cooldown", "(limit 10m)",
                     "next      it is decided on again at 20", "undo      nothing to take back")
        since = self.fire(p, "Other", service="api")
        wait_until(lambda: len(p.records("outcome")) == 2, 20, "the second act")
        self.resolve(p, since, "Other", service="api")
        wait_until(lambda: len(p.records("closed")) == 2, 20, "the second one closed")
        time.sleep(1.1)  # its cooldown
        self.fire(p, "Other", service="api", n="2")
        p.wait_record("escalated")
        self.why(p, "what      it needs a person: 1 acts on this target within 1h", "refused   gate rate", "STOP rate", "next      a person",
                 "run       balm incident close ", "--reason TEXT  # once it is repaired")

    def test_in_flight(self):
        p = self.service(runbook(FLIGHT="1"))
        self.touch("hold")
        self.fire(p, service="web")
        p.wait_record("intent")
        self.fire(p, service="web", n="2")
        self.refused(p, "in_flight", "gate in_flight keeps", "another incident's act on this target is under way", "STOP in_flight", "next      it is decided on again when")
        self.fire(p, service="api")
        self.refused(p, "in_flight_runbook", "gate in_flight_runbook keeps", "at most 1 may be", "STOP in_flight_runbook", "next      it is decided on again when")
        os.unlink(self.path("hold"))

    def test_the_bot_refused(self):
        p = self.service()
        self.fire(p, service="sshd")
        p.wait_record("escalated")
        self.why(p, "what      it needs a person: ", "act       step 1: service-restart on service/sshd", "refused at", "allow list", "next      a person, and nobody was told",
                 "run       balm incident close")


class Failed(Why):
    def test_the_act_failed_and_a_person_is_told(self):
        p = self.service(runbook() + 'escalate: {bot: notify, with: {title: "${labels.service} is still down"}}\n', start=False)
        p.write("stack.yml", stack_file("echo", "service-restart", "notify"))
        p.start()
        self.touch("fail")
        self.fire(p, service="web")
        p.wait_record("escalated", 60)
        p.wait_record("intent", purpose="escalate")
        text = self.why(p, ": open\n", "what      it needs a person: the act failed after step 1 of 1, the last", "act       step 1: service-restart on service/web",
                        "failed at", "told      notify", "next      a person, who is told by notify", "run       balm incident close ",
                        "undo      the bot named nothing", "escalated")
        self.assertIn("cannot bind to port 80", text)

    def test_the_alert_went_on(self):
        p = self.service(WITHIN="1s")
        self.fire(p, service="web")
        p.wait_record("escalated")
        self.why(p, "what      it needs a person: the alert went on after step 1 of 1", "done at", "verified  no, timeout", "next      a person",
                 "run       balm incident close")


class Stuck(Why):
    def test_no_runbook(self):
        p = self.service()
        self.fire(p, "Nobody", service="web")
        self.why(p, "what      nothing was done and nobody was told: no runbook takes this alert", "alert     Nobody", "runbook   none takes this alert",
                 "next      nothing: no runbook", "run       balm plan", "undo      nothing")

    def test_an_act_under_way_and_a_platform_that_died(self):
        p = self.service(TIMEOUT="3s")
        self.touch("hold")
        self.fire(p, service="web")
        p.wait_record("intent")
        wait_until(lambda: os.path.exists(self.path("runs")), 20, "it has begun")
        self.why(p, "what      service-restart has been acting on service/web for", "outcome none yet, to end by", "next      service-restart is to act on",
                 "run       balm stop  #", "undo      not known before the act has ended")
        p.kill()
        text = self.why(p, "outcome none yet, to end by", "run       balm up  # no platform runs on this journal", "undo      not known")
        self.assertNotIn("balm stop", text)
        os.unlink(self.path("hold"))
        p.start()
        p.wait_record("outcome")

    def without_bot(self):
        """The bot that the runbook names is taken away: nobody can be invoked."""
        p = self.service()
        status, _, answer = p.request("DELETE", "/system/functions", {"functionName": "service-restart"}, p.basic())
        self.assertEqual(status, 202, answer)
        self.fire(p, service="web")
        p.wait_record("retry", 30)
        return p

    def test_a_dead_letter(self):
        p = self.without_bot()
        self.why(p, "what      service-restart has not acted on service/web yet, attempt ", "outcome none yet", "run       balm stop")
        p.wait_record("outcome", 120, state="dead")
        p.wait_record("escalated")
        self.why(p, "what      it needs a person", "act       step 1: service-restart", "dead at", "4 attempts before: ", "run       balm dead retry ", "or drop it: balm dead list", "balm incident close")

    def test_an_act_that_waits_for_resume(self):
        p = self.without_bot()
        self.assertEqual(p.cli("stop")[0], 0)
        self.why(p, "what      acting is stopped: service-restart has been waiting to act on service/web", "next      after balm resume it acts, if the alert still",
                 "run       balm resume")


if __name__ == "__main__":
    main()
