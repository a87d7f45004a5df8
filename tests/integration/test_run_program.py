"""run-program: an operator's list of programs, run on the host for a runbook; nothing else can be run, and nothing runs twice unseen."""
import json
import os
import signal
import time

from harness import PlatformTest, alert, main, stack_file, wait_until

RUNBOOK = """
name: cure
match: ['alertname="Ill"']
target: host/${labels.instance}
mode: act
steps:
  - bot: run-program
    with: {program: "${labels.program}", arguments: ["what=${labels.what}"], dry_run: "${labels.dry}"}
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}, max_in_flight: 8}
"""

ACTS = """
programs:
  say:
    functions: [run-program]
    command: [FOLDER/say, --fixed, "${what}", "x${level}"]
    timeout: 3s
    params:
      what: {type: text, required: true, pattern: line, max: 40}
      level: {type: integer, default: 1}
  only-two:
    functions: [run-program]
    command: [FOLDER/say, "${what}"]
    params: {what: {type: text, required: true, enum: [one, two]}}
  foreign:
    functions: [service-restart]
    command: [FOLDER/say, "${what}"]
    params: {what: {type: text}}
"""

SAY = """#!/bin/sh
printf '%s|' "$@" >>FOLDER/runs; echo >>FOLDER/runs
env | sort >FOLDER/env
echo "got $2"
case $2 in
fail) echo 'no such luck' >&2; exit 4 ;;
hang) echo $$ >FOLDER/pid; sleep 1000 & echo $! >>FOLDER/pid; wait ;;
hold) echo $$ >FOLDER/pid; while [ -e FOLDER/hold ]; do sleep 0.05; done ;;
esac
"""


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


class RunProgram(PlatformTest):
    def start(self):
        path = os.path.join(self.folder, "say")
        with open(path, "w") as f:
            f.write(SAY.replace("FOLDER", self.folder))
        os.chmod(path, 0o755)
        self.p = self.platform(runbooks={"r.yaml": RUNBOOK}, stack=stack_file("run-program"), host_acts=ACTS.replace("FOLDER", self.folder))

    def send(self, what, program="say", dry="false", instance=None):
        instance = instance or f"{program}-{len(what)}-{abs(hash((what, dry)))}"
        self.assertEqual(self.p.post_alerts(alert("Ill", instance=instance, program=program, what=what, dry=dry))[0], 202)
        return instance

    def outcome(self, what, **more):
        instance = self.send(what, **more)
        intent = self.p.wait_record("intent", target="host/" + instance)
        return self.p.wait_record("outcome", intent=intent["intent"], seconds=40)

    def runs(self):
        try:
            with open(os.path.join(self.folder, "runs")) as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def pids(self):
        try:
            with open(os.path.join(self.folder, "pid")) as f:
                return [int(line) for line in f.read().split()]
        except FileNotFoundError:
            return []

    def test_a_program_of_the_list_runs_with_its_arguments_as_they_are(self):
        self.start()
        done = self.outcome("a b; $(id) `id` * ${level}")
        self.assertEqual((done["state"], done["message"]), ("done", "'say' was run and ended with exit 0"), done)
        self.assertEqual(self.runs(), ["--fixed|a b; $(id) `id` * ${level}|x1|"])
        self.assertEqual(done["detail"]["argv"][1:], ["--fixed", "a b; $(id) `id` * ${level}", "x1"])
        self.assertEqual(done["detail"]["output"], "got a b; $(id) `id` * ${level}")
        with open(os.path.join(self.folder, "env")) as f:
            names = {line.split("=")[0] for line in f.read().splitlines()}
        self.assertLessEqual(names, {"LANG", "PATH", "PWD", "SHLVL", "_", "OLDPWD"})
        failed = self.outcome("fail")
        self.assertEqual((failed["state"], failed["message"]), ("failed", "'say' ended with exit 4; it said: got fail\nno such luck"))

    def test_a_dry_run_says_the_argv_and_runs_nothing(self):
        self.start()
        dry = self.outcome("word's", dry="true")
        self.assertEqual(dry["state"], "unchanged")
        self.assertEqual(dry["message"], f"dry run: would run '{self.folder}/say' '--fixed' 'word's' 'x1'")
        self.assertEqual((dry["detail"]["dryRun"], dry["detail"]["argv"][3]), (True, "x1"))
        self.assertEqual(self.runs(), [])

    def test_what_the_list_does_not_allow_is_refused(self):
        self.start()
        cases = [("x", {"program": "none"}, "not on the allow list"), ("x", {"program": "foreign"}, "not on the allow list"),
                 ("three", {"program": "only-two"}, "none of one, two"), ("x" * 41, {}, "'what'"), ("--help", {}, "begins with '-'"),
                 ("-rf", {"dry": "true"}, "begins with '-'")]
        for what, more, part in cases:
            got = self.outcome(what, **more)
            self.assertEqual(got["state"], "refused", got)
            self.assertIn(part, got["message"])
        self.assertEqual(self.runs(), [])
        self.assertEqual(self.outcome("two", program="only-two")["state"], "done")

    def test_a_reload_counts_and_a_bad_list_does_not(self):
        self.start()
        self.assertEqual(self.outcome("three", program="only-two")["state"], "refused")
        self.p.write("host-acts.yaml", ACTS.replace("FOLDER", self.folder).replace("[one, two]", "[three]"), mode=0o600)
        self.assertEqual(self.p.request("POST", "/system/reload", "{}", self.p.basic())[0], 200)
        self.assertEqual(self.outcome("three", program="only-two", instance="again")["state"], "done")
        self.p.write("host-acts.yaml", "programs:\n  say: {functions: [run-program], command: [sh, -c, x]}\n", mode=0o600)
        status, _, text = self.p.request("POST", "/system/reload", "{}", self.p.basic())
        self.assertGreaterEqual(status, 400)
        self.assertIn("absolute path", text.decode())
        self.assertEqual(self.outcome("still")["state"], "done")

    def test_one_that_hangs_is_killed_with_its_session_and_nobody_repeats_it(self):
        self.start()
        got = self.outcome("hang")
        self.assertEqual(got["state"], "unknown", got)
        self.assertIn("run of 'program:say'", got["message"])
        self.assertEqual(len(self.pids()), 2)
        for pid in self.pids():
            wait_until(lambda pid=pid: not is_alive(pid), 10, f"{pid} is gone")
        self.assertEqual(len(self.runs()), 1)

    def test_a_platform_killed_in_the_middle_leaves_one_run_and_an_outcome_that_says_so(self):
        self.start()
        self.p.write("hold", "")
        instance = self.send("hold")
        wait_until(self.pids, 20, "it runs")
        intent = self.p.wait_record("intent", target="host/" + instance)
        self.p.kill()
        self.assertTrue(is_alive(self.pids()[0]))  # half a run is worse than one nobody waits for
        self.p.start()
        got = self.p.wait_record("outcome", intent=intent["intent"], seconds=60)
        self.assertEqual(got["state"], "unknown", got)
        os.unlink(os.path.join(self.folder, "hold"))
        wait_until(lambda: not is_alive(self.pids()[0]), 20, "it has ended")
        self.assertEqual(len(self.runs()), 1)
        self.assertEqual(self.outcome("after")["state"], "done")

    def test_stop_waits_for_what_runs_and_begins_nothing(self):
        self.start()
        self.p.write("hold", "")
        self.send("hold")
        wait_until(self.pids, 20, "it runs")
        started = time.monotonic()
        self.p.process.send_signal(signal.SIGUSR1)
        os.unlink(os.path.join(self.folder, "hold"))
        wait_until(lambda: self.p.find_log("the stop is recorded and no bot acts"), 60, "the stop is in force")
        self.assertFalse(is_alive(self.pids()[0]), f"{time.monotonic() - started} s")
        instance = self.send("more")
        self.p.wait_record("refusal", gate="freeze", target="host/" + instance)
        self.assertEqual(len(self.runs()), 1)

    def test_the_doctor_knows_what_it_may_run(self):
        self.start()
        status, _, text = self.p.request("POST", "/system/check-function/run-program", "{}", self.p.basic())
        self.assertEqual((status, json.loads(text)["hostServices"]), (200, ["say", "only-two"]))
        self.p.write("host-acts.yaml", "programs: {}\n", mode=0o600)
        self.p.request("POST", "/system/reload", "{}", self.p.basic())
        output = self.p.cli("doctor")[1]
        self.assertIn("run-program may run no program of the host", output)
        self.assertNotIn("no service", output)


if __name__ == "__main__":
    main()
