#!/usr/bin/env python3
"""Runs that a schedule starts, and what follows a repair later, on the real platform with a real bot: each time comes once, whatever happens around it."""
import calendar
import glob
import json
import os
import time

from harness import PlatformTest, alert, main, stack_file, wait_until
from peers import Unavailable, cache_dir, fetch

EVERY_S = 2
RUNBOOK = """
name: tidy
schedule: "@every 2s"
start_deadline: DEADLINE
target: disk/here
mode: MODE
steps:
  - bot: disk-clean
    with: {root: "ROOT", older_than: 1h}
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}}
"""


def seconds(text):
    """Unix seconds of an RFC 3339 time in UTC, whole ones."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def faketime():
    """Debian's libfaketime: the wall clock of a process that loads it is read from a file, the monotonic one is the machine's."""
    if "ASAN_OPTIONS" in os.environ:
        raise Unavailable("libfaketime and AddressSanitizer both want to be loaded first")
    pattern = os.path.join(cache_dir(), "usr/lib/*/faketime/libfaketimeMT.so.1")
    if not glob.glob(pattern):
        fetch(["libfaketime"])
    for path in glob.glob(pattern):
        return path
    raise Unavailable("the Debian package libfaketime holds no libfaketimeMT.so.1")


class Schedule(PlatformTest):
    def tidy(self, mode="act", deadline="5m", start=True, runbook=RUNBOOK):
        root = os.path.join(self.folder, "root")
        os.makedirs(root, exist_ok=True)
        self.text = runbook.replace("ROOT", root)
        stack = stack_file("disk-clean") + f"    environment: {{disk_clean_roots: {root}}}\n"
        return self.platform(start=start, stack=stack,
                             runbooks={"tidy.yaml": self.text.replace("MODE", mode).replace("DEADLINE", deadline)})

    def check_once(self, p):
        """Every recorded time is one of the schedule's and came once, in order; every run has one intent at most, and ended."""
        ticks = p.records("tick")
        due = [seconds(t["due"]) for t in ticks]
        self.assertEqual(due, sorted(set(due)))
        self.assertTrue(all(d % EVERY_S == 0 for d in due), due)
        for t in ticks:
            self.assertLessEqual(seconds(t["due"]), seconds(t["time"]), "never early")
        self.assertEqual(len({t["incident"] for t in ticks}), len(ticks))
        acted = [r["incident"] for r in p.records("intent")]
        self.assertEqual(len(set(acted)), len(acted))
        self.assertLessEqual(set(acted), {t["incident"] for t in ticks})
        return ticks

    def test_acts_on_time_and_ends_by_the_bots_own_check(self):
        p = self.tidy()
        wait_until(lambda: len(p.records("closed")) >= 3, 60, "three runs\n" + p.log_text())
        ticks = self.check_once(p)
        self.assertEqual({r["state"] for r in p.records("closed")[:3]}, {"done"})
        self.assertTrue(all(r["how"] == "check" and r["ok"] for r in p.records("verified")))
        # None is left out while the platform is up: each tick names the one before it.
        steps = [seconds(b["due"]) - seconds(a["due"]) for a, b in zip(ticks, ticks[1:])]
        self.assertEqual(sum(s // EVERY_S - 1 for s in steps), sum(t["detail"]["skipped"] for t in ticks[1:]))
        incident = p.records("closed")[0]["incident"]
        code, text, error = p.cli("why", incident)
        self.assertEqual(code, 0, text + error)
        for word in ("what      disk-clean acted on", "schedule  tidy, due at", "act       step 1: disk-clean", "the schedule's time", "closed as done"):
            self.assertIn(word, text)
        code, text, _ = p.cli("status")
        self.assertRegex(text, r"by '@every 2s' in UTC; next 20\d\d-.*Z, last 20\d\d-")
        status = json.loads(p.cli("status", "--json")[1])["status"]
        self.assertEqual(status["runbooks"][0]["schedule"]["expression"], "@every 2s")
        self.assertGreater(seconds(status["runbooks"][0]["schedule"]["next"]), seconds(ticks[0]["due"]))
        self.assertIn('balm_ticks_total{result="fired",runbook="tidy"}', p.request("GET", "/metrics")[2].decode())
        code, text, _ = p.cli("audit", "verify")
        self.assertEqual(code, 0, text)

    def test_kill_9_around_ticks(self):
        """Killed at times spread over the interval: no time comes twice, and none acts twice."""
        p = self.tidy()
        for round_ in range(8):
            n = len(p.records("tick"))
            wait_until(lambda: len(p.records("tick")) > n, 60, "a tick")
            # Just before, at and after the next time.
            at = (int(time.time()) // EVERY_S + 1) * EVERY_S + (round_ - 4) * 0.02
            time.sleep(max(0, at - time.time()))
            p.kill()
            p.start()
        n = len(p.records("closed"))
        wait_until(lambda: len(p.records("closed")) > n, 60, "it goes on")
        self.assertEqual(p.stop(), 0)
        ticks = self.check_once(p)
        self.assertGreaterEqual(len(ticks), 9)
        intents, outcomes = [r["intent"] for r in p.records("intent")], [r["intent"] for r in p.records("outcome")]
        self.assertEqual(len(set(outcomes)), len(outcomes))
        self.assertLessEqual(set(outcomes), set(intents))

    def test_what_was_missed_is_made_up_for_once_if_it_is_young(self):
        p = self.tidy()
        p.wait_record("tick")
        p.kill()
        n, before = len(p.records("tick")), seconds(p.records("tick")[-1]["due"])
        wait_until(lambda: time.time() > before + 4 * EVERY_S, 60, "four times pass")
        p.start()
        wait_until(lambda: len(p.records("tick")) > n, 60, "a tick after the start")
        first = p.records("tick")[n]
        self.assertEqual(first["detail"]["skipped"], (seconds(first["due"]) - before) // EVERY_S - 1)
        self.assertGreaterEqual(first["detail"]["skipped"], 3)
        self.assertLess(seconds(first["time"]) - seconds(first["due"]), EVERY_S + 1, "the newest of them")
        self.check_once(p)

    def test_what_was_missed_for_too_long_is_passed_over_and_said(self):
        p = self.tidy(deadline="1s", runbook=RUNBOOK.replace("@every 2s", "@every 10s"))
        p.kill()
        due = (int(time.time()) // 10 + 1) * 10
        wait_until(lambda: time.time() > due + 2, 60, "the time and its start deadline pass")
        p.start()
        wait_until(lambda: p.find_log("a schedule's times were missed and are too old to be made up for"), 30, p.log_text())
        p.wait_record("tick", 60)
        self.assertNotIn(due, [seconds(t["due"]) for t in p.records("tick")])

    def test_a_clock_that_is_set_brings_no_time_twice(self):
        try:
            library = faketime()
        except Unavailable as e:
            self.skipTest(str(e))
        p = self.tidy(start=False)
        offset = p.write("offset", "+0\n")

        def set_clock(seconds_off):
            os.rename(p.write("offset.new", f"{seconds_off}\n"), offset)

        p.env.update(LD_PRELOAD=library, FAKETIME_TIMESTAMP_FILE=offset, FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1")
        p.start()
        wait_until(lambda: len(p.records("tick")) >= 3, 60, "ticks")
        before = p.records("tick")
        set_clock("-20")
        wait_until(lambda: [r for r in p.records("clock") if not r.get("on")], 60, "the clock has settled")
        newest = before[-1]["due"]
        wait_until(lambda: p.records("tick")[-1]["due"] > newest, 90, "the schedule goes on behind what has come")
        back = p.records("tick")
        self.assertEqual([t for t in back if t["due"] == newest], before[-1:], "not again")
        n = len(back)
        set_clock("+600")
        wait_until(lambda: len(p.records("tick")) > n + 1, 90, "and after a clock that was set forward")
        self.assertGreater(seconds(p.records("tick")[-1]["due"]), seconds(newest) + 500)
        self.assertEqual([bool(r.get("on")) for r in p.records("clock")], [True, False, True, False])
        due = [t["due"] for t in p.records("tick")]
        self.assertEqual(len(set(due)), len(due))

    def test_shadow_stop_and_reload(self):
        p = self.tidy(mode="shadow")
        refusal = p.wait_record("refusal")
        self.assertEqual((refusal["gate"], refusal["mode"], refusal["function"]), ("mode", "shadow", "disk-clean"))
        self.assertEqual(p.wait_record("closed")["state"], "skipped")
        self.assertEqual(p.records("intent"), [])
        p.write("runbooks/tidy.yaml", self.text.replace("MODE", "act").replace("DEADLINE", "5m"))
        code, text, error = p.cli("reload")
        self.assertEqual(code, 0, text + error)
        p.wait_record("intent")
        self.assertEqual(p.cli("stop")[0], 0)
        p.wait_record("refusal", gate="freeze")
        n = len(p.records("intent"))
        self.assertEqual(p.cli("resume")[0], 0)
        wait_until(lambda: len(p.records("intent")) > n, 30, "acts again")
        # A bad schedule keeps the old set, and says where.
        p.write("runbooks/tidy.yaml", self.text.replace("MODE", "act").replace("DEADLINE", "5m").replace("@every 2s", "0 0 30 2 *"))
        code, text, error = p.cli("reload")
        self.assertNotEqual(code, 0)
        self.assertIn("tidy.yaml:3:11: schedule: day of month '30' never comes in month '2'", text + error)
        n = len(p.records("tick"))
        wait_until(lambda: len(p.records("tick")) > n, 30, "the old schedule goes on")
        p.write("runbooks/tidy.yaml", self.text.replace("MODE", "off").replace("DEADLINE", "5m"))
        self.assertEqual(p.cli("reload")[0], 0)
        n = len(p.records("tick"))
        time.sleep(2.5 * EVERY_S)
        self.assertEqual(len(p.records("tick")), n, "off is off")
        self.assertIn("next never", p.cli("status")[1])
        self.check_once(p)

    def test_start_refuses_what_cannot_hold(self):
        for text, says in ((RUNBOOK.replace("cooldown: 1s", "cooldown: 2s"), "comes as often as every 2s"),
                           (RUNBOOK.replace("@every 2s", "@daily\"\ntime_zone: \"Berlin"), "did you mean 'Europe/Berlin'?")):
            p = self.tidy(runbook=text, start=False)
            with self.assertRaisesRegex(AssertionError, "(?s)platform ended at start.*" + says.replace("?", r"\?")):
                p.start()


class FollowUp(PlatformTest):
    RUNBOOK = """
name: tidy
match: ['alertname="Untidy"']
target: disk/${labels.host}
mode: act
steps:
  - bot: disk-clean
    with: {root: "ROOT", older_than: 1h}
    verify: check
follow_up: {after: AFTER, bot: disk-clean, with: {root: "ROOT", older_than: 2h}}
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}
"""

    def tidy(self, after):
        root = os.path.join(self.folder, "root")
        os.makedirs(root, exist_ok=True)
        stack = stack_file("disk-clean") + f"    environment: {{disk_clean_roots: {root}}}\n"
        return self.platform(stack=stack, runbooks={"tidy.yaml": self.RUNBOOK.replace("ROOT", root).replace("AFTER", after)})

    def test_comes_after_its_time_across_kill_9(self):
        p = self.tidy("4s")
        p.post_alerts(alert("Untidy", host="a"))
        due = seconds(p.wait_record("timer", purpose="follow_up")["due"])
        p.kill()
        wait_until(lambda: time.time() > due + 1, 60, "its time passes")
        p.start()
        intent = p.wait_record("intent", purpose="follow_up")
        self.assertGreaterEqual(seconds(intent["time"]), due)
        self.assertEqual(intent["params"]["older_than"], "2h")
        self.assertEqual(p.wait_record("closed")["state"], "healed")
        p.kill()
        p.start()
        self.assertEqual(len(p.records("intent")), 2)
        self.assertEqual(len(p.records("outcome")), 2)
        code, text, _ = p.cli("why", intent["incident"])
        self.assertEqual(code, 0)
        flat = " ".join(text.split())  # its sentences are broken into lines
        for word in ("the follow-up disk-clean ended as unchanged", "follow-up disk-clean on disk/a with", "closed as healed"):
            self.assertIn(word, flat)
        self.assertIn("the follow-up comes at", p.cli("why", intent["incident"], "--json")[1])

    def test_not_if_the_alert_came_again(self):
        p = self.tidy("1h")
        began = time.time() - 120
        p.post_alerts(alert("Untidy", host="a", starts_at=began))
        first = p.wait_record("timer", purpose="follow_up")["incident"]
        self.assertIn("the follow-up at 20", p.cli("why", first)[1])
        self.assertRegex(p.cli("status")[1], first + r" +open +following")
        p.post_alerts(alert("Untidy", status="resolved", host="a", starts_at=began))
        time.sleep(1.1)  # the cooldown
        p.post_alerts(alert("Untidy", host="a"))
        refusal = p.wait_record("refusal", gate="returned")
        self.assertEqual((refusal["incident"], refusal["purpose"]), (first, "follow_up"))
        self.assertEqual(p.wait_record("closed", incident=first)["state"], "healed")
        wait_until(lambda: len(p.records("outcome")) == 2, 30, "the new alert is acted on")


if __name__ == "__main__":
    main()
