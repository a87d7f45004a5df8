"""balm runbook check, list, show: by the command line alone, the last two of a real platform."""
import json
import os
import subprocess

from harness import BALM, BUILD, PATIENCE, ROOT, PlatformTest, alert, main, stack_file

GOOD = "name: NAME\nmatch: ['alertname=\"NAME\"']\ntarget: t/${labels.x}\nsteps:\n  - {bot: notify, with: {title: a, text: b}}\n"
BAD = """- name: one two
  match: ['alertname~"X"']
  target: t/${label.x}
  mode: maybe
  steps:
    - {bot: notfy, with: {title: x}}
    - bot: disk-clean
      with: {rot: /x, older_than: 1s}
    - {bot: notify, timeout: 9h, wth: {}}
  guardrails: {cooldwn: 5m, rate: {max: 0, per: 1h}}
- name: two
  target: t
  steps: [{bot: disk-clean, with: {root: /x, max_files: many}}]
  escalate: {bot: service-restart, with: {unit: x}}
"""
# line, column, field, the nearest known name
FAULTS = [(1, 9, "[0].name", None), (2, 11, "[0].match[0]", None), (3, 11, "[0].target", None), (4, 9, "[0].mode", None),
          (6, 7, "[0].steps[0]", "notify"), (7, 7, "[0].steps[1]", None), (8, 19, "[0].steps[1].with.rot", "root"),
          (9, 30, "[0].steps[2].timeout", None), (9, 34, "[0].steps[2].wth", "with"), (10, 16, "[0].guardrails.cooldwn", "cooldown"),
          (10, 41, "[0].guardrails.rate.max", None), (11, 3, "[1].match", None), (13, 57, "[1].steps[0].with.max_files", None),
          (14, 13, "[1].escalate", None)]

SCHEDULED = """- name: zone
  schedule: '0 3 * * *'
  time_zone: Europe/Berlim
  target: t
  guardrails: {cooldown: 0s}
  steps:
    - {bot: notify, verify: resolve, with: {title: '${labels.instance}', text: '${labels.alertname}'}}
    - {bot: notify, verify: maybe}
  follow_up: {bot: notfy, after: 1m}
- name: one two
  schedule: '0 25 * * *'
  start_deadline: 9d
  target: t/${labels.x}
  steps: [{bot: notify, with: {title: '${labels.alertname}', text: x}}]
  follow_up: {bot: notify, with: {titel: x}}
- name: both
  schedule: '@evry 5m'
  match: [x]
  target: t/${labels.x}
  steps: [{bot: notify, with: {title: a, text: b}}]
- name: often
  schedule: '*/5 * * * *'
  target: t
  steps: [{bot: notfy}]
- name: neither
  time_zone: UTC
  start_deadline: 1m
  target: t
  follow_up: {bot: notify, after: 1m, with: {title: a, text: b}}
  escalate: {bot: notify, with: {title: a, text: b}}
- name: every
  schedule: '@every 5m'
  time_zone: UTC
  target: t
  guardrails: {cooldown: 1m, rate: {max: 1, per: 1h}}
  steps: [{bot: notify, with: {title: a, text: b}}]
"""
SCHEDULED_FAULTS = [(3, "[0].time_zone"), (5, "[0].guardrails.cooldown"), (7, "[0].steps[0].verify"), (7, "[0].steps[0].with.title"), (8, "[0].steps[1].verify"),
                    (9, "[0].follow_up"), (10, "[1].name"), (11, "[1].schedule"), (12, "[1].start_deadline"), (13, "[1].target"), (15, "[1].follow_up.after"),
                    (17, "[2].schedule"), (17, "[2].schedule"), (18, "[2].match[0]"), (22, "[3].schedule"), (24, "[3].steps[0]"), (25, "[4].match"),
                    (26, "[4].time_zone"), (27, "[4].start_deadline"), (29, "[4].follow_up"), (32, "[5].schedule"), (33, "[5].time_zone")]


class Check(PlatformTest):
    def put(self, name, text):
        path = os.path.join(self.folder, "rb", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def check(self, *paths, options=()):
        """(exit code, stdout, stderr), with all functions deployed that were built."""
        stack = os.path.join(self.folder, "stack.yml")
        with open(stack, "w") as f:
            f.write(stack_file("notify", "disk-clean", "service-restart", "echo"))
        line = [BALM, "runbook", "check", "-f", stack, "--functions", os.path.join(BUILD, "functions"), *options, *paths]
        done = subprocess.run(line, capture_output=True, timeout=60 * PATIENCE, cwd=self.folder)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_every_fault_of_every_file_is_named_in_one_run(self):
        bad, worse = self.put("bad.yaml", BAD), self.put("worse.yaml", "name: three\nsteps: [\n")
        self.put("good.yaml", GOOD.replace("NAME", "good"))
        self.put(".hidden.yaml", "not: read")
        code, text, err = self.check(os.path.join(self.folder, "rb"), options=["--json"])
        self.assertEqual((code, err), (2, ""))
        said = json.loads(text)
        self.assertEqual([said["ok"], said["files"], said["faultCount"]], [False, 3, len(said["faults"])])
        of_bad = [(f["line"], f["column"], f.get("field"), f.get("nearest")) for f in said["faults"] if f["file"] == bad]
        self.assertEqual(of_bad, FAULTS)
        self.assertEqual([f["file"] for f in said["faults"] if f["file"] != bad], [worse])
        code, text, _ = self.check(os.path.join(self.folder, "rb"))
        self.assertEqual(code, 2)
        self.assertIn(f"{bad}:10:16: [0].guardrails.cooldwn: unknown field 'cooldwn' in guardrails (did you mean 'cooldown'?)\n", text)
        self.assertIn(f"{bad}:6:7: [0].steps[0]: no function 'notfy' is deployed (did you mean 'notify'?); stack.yml lists them\n", text)
        self.assertEqual(text.splitlines()[-1], f"{len(FAULTS) + 1} faults in 3 files")

    def test_every_fault_of_schedules_and_follow_ups_is_named_and_none_twice(self):
        path = self.put("scheduled.yaml", SCHEDULED)
        code, text, _ = self.check(path, options=["--json"])
        self.assertEqual(code, 2)
        self.assertEqual([(f["line"], f.get("field")) for f in json.loads(text)["faults"]], SCHEDULED_FAULTS, text)

    def test_what_check_takes_the_platform_takes_and_the_other_way_round(self):
        for name, text, fits in (("good", GOOD.replace("NAME", "good"), True), ("bad", GOOD.replace("NAME", "bad").replace("title", "titel"), False)):
            with self.subTest(name):
                self.assertEqual(self.check(self.put("r.yaml", text))[0], 0 if fits else 2)
                p = self.platform(start=False, runbooks={"r.yaml": text}, stack=stack_file("notify"))
                if fits:
                    p.start().stop()
                else:
                    self.assertEqual(subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE).returncode, 2)

    def test_a_step_that_can_remove_the_series_must_not_rely_on_the_resolve(self):
        bots = os.path.join(self.folder, "bots")
        os.makedirs(os.path.join(bots, "cordon"))
        with open(os.path.join(bots, "cordon", "bot.yaml"), "w") as f:
            f.write("name: cordon\nsummary: s\nacts: true\nremoves_series: true\non_unknown: rerun\ntouches: {api: [nodes]}\nverify: v\nundo: u\n"
                    "params:\n  node: {type: text, required: true, max: 50, description: d, example: n}\n")
        text = GOOD.replace("NAME", "n").replace("{bot: notify, with: {title: a, text: b}}", "{bot: cordon, with: {node: '${labels.node}'}VERIFY}")
        relying, checking = self.put("a.yaml", text.replace("VERIFY", "")), self.put("b.yaml", text.replace("VERIFY", ", verify: {check: {hold: 5m}}"))
        code, out, _ = self.check(relying, options=["--bots", bots])
        self.assertEqual(code, 2)
        self.assertIn(f"{relying}:5:5: steps[0]: runbook 'n': an act of 'cordon' can itself remove the alerting series, so a resolve proves nothing", out)
        self.assertEqual(self.check(checking, options=["--bots", bots])[0], 0)
        with open(os.path.join(bots, "cordon", "bot.yaml"), "a") as f:
            f.write("parms: {}\n")
        code, out, _ = self.check(checking, options=["--bots", bots])
        self.assertEqual(code, 2)
        self.assertRegex(out, r"cordon/bot\.yaml:11:1: .*unknown field 'parms'.*did you mean 'params'")

    def test_odd_files_are_faults_and_hold_nobody(self):
        folder = os.path.dirname(self.put("good.yaml", GOOD.replace("NAME", "good")))
        os.mkfifo(os.path.join(folder, "fifo.yaml"))
        os.mkdir(os.path.join(folder, "dir.yaml"))
        os.symlink("loop.yaml", os.path.join(folder, "loop.yaml"))
        self.put("empty.yaml", "")
        self.put("big.yaml", "#" * (2 << 20))
        self.put("twice.yaml", GOOD.replace("NAME", "good"))
        code, text, _ = self.check(folder)
        self.assertEqual(code, 2)
        for word in ("fifo.yaml: not a regular file", "dir.yaml: not a regular file", "loop.yaml: Too many levels of symbolic links", "empty.yaml:1:1: the file is empty",
                     "big.yaml", "twice.yaml:1:1: runbook 'good' is there already, at"):
            self.assertIn(word, text)
        self.assertEqual(text.splitlines()[-1], "6 faults in 7 files")
        self.assertEqual(self.check("/nonexistent")[0], 3)
        for i in range(10000):
            with open(os.path.join(folder, f"{i}.yaml"), "w"):
                pass
        code, _, err = self.check(folder)
        self.assertNotEqual(code, 0)
        self.assertIn("more than 1000 files", err)

    def test_a_file_of_many_faults_ends_with_how_many_are_left_out(self):
        many = self.put("many.yaml", "".join(f"- {{name: n{i}, match: [a=b], target: t, stpes: x, escalate: {{bot: echo}}}}\n" for i in range(1000)))
        more = self.put("more.yaml", "".join(f"- {{name: m{i}, match: [a=b], target: t, stpes: x}}\n" for i in range(50)))
        code, text, _ = self.check(many, more)
        self.assertEqual(code, 2)
        self.assertIn("more\n", text)
        self.assertLess(len(text.splitlines()), 1010)

    def test_a_bad_stack_file_is_a_fault_too(self):
        code, text, _ = self.check(self.put("r.yaml", GOOD.replace("NAME", "good")), options=["--functions", "/nonexistent"])
        self.assertEqual(code, 2)
        self.assertIn("no executable /nonexistent/notify", text)
        self.assertIn("the steps were not held against their functions", text)

    def test_the_shipped_ones_are_right_by_their_bots_alone(self):
        line = [BALM, "runbook", "check", "--bots", os.path.join(ROOT, "functions"), os.path.join(ROOT, "functions/dispatcher/runbooks")]
        done = subprocess.run(line, capture_output=True, timeout=60 * PATIENCE, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_unknown_words_name_the_nearest(self):
        for arguments, word in ((["chekc"], "did you mean 'check'?"), ([], "check, list, show"), (["list", "x"], "takes no argument"), (["show"], "name"),
                                (["check", "--botss", "x"], "--bots")):
            done = subprocess.run([BALM, "runbook", *arguments], capture_output=True, timeout=20 * PATIENCE)
            self.assertEqual(done.returncode, 2)
            self.assertIn(word, done.stderr.decode())


class InForce(PlatformTest):
    def test_list_and_show_say_what_is_in_force(self):
        act = "name: clean\nmatch: 'alertname=\"Full\"'\ntarget: d/${labels.x}\nmode: act\nsteps: [{bot: disk-clean, verify: check, with: {root: /nonexistent}}]\n"
        p = self.platform(runbooks={"a.yaml": GOOD.replace("NAME", "told"), "b.yaml": act}, stack=stack_file("notify", "disk-clean"))
        p.post_alerts(alert("told", x="1"), alert("told", x="2"), alert("Full", x="1"))
        p.wait_record("outcome", function="disk-clean")
        code, text, _ = p.cli("runbook", "list", "--json")
        self.assertEqual(code, 0)
        told, clean = json.loads(text)
        self.assertEqual([told[k] for k in ("name", "mode", "acts", "lastActed", "shadowed", "match", "steps", "line")],
                         ["told", "shadow", 0, None, 2, ['alertname="told"'], ["notify"], 1])
        self.assertEqual([clean[k] for k in ("name", "mode", "acts", "shadowed")], ["clean", "act", 1, 0])
        self.assertEqual(clean["file"], os.path.join(p.runbooks, "b.yaml"))
        self.assertEqual(clean["lastActed"], p.records("intent")[0]["time"])
        code, text, _ = p.cli("runbook", "list")
        self.assertRegex(text, r"told +shadow .* acted 0 times; in shadow 2\n  match   alertname=\"told\"\n  steps   notify\n")
        code, text, _ = p.cli("runbook", "show", "clean", "--json")
        shown = json.loads(text)
        self.assertEqual(shown["guardrails"], {"cooldown": "15m", "rate": {"max": 3, "per": "24h"}, "max_in_flight": 10})
        self.assertEqual(shown["steps"], [{"bot": "disk-clean", "timeout": "30s", "verify": {"check": {"hold": "0s"}}, "with": {"root": "/nonexistent"}}])
        activation = p.records("activation")[0]
        self.assertEqual(shown["activated"], {"seq": activation["seq"], "time": activation["time"], "actor": activation["actor"]})
        # What stays as it was keeps its date; what changed has a new one, and who did it.
        p.write("runbooks/a.yaml", GOOD.replace("NAME", "told").replace("title: a", "title: c"))
        self.assertEqual(p.cli("reload", "--actor", "alice")[0], 0)
        show = lambda name: json.loads(p.cli("runbook", "show", name, "--json")[1])["activated"]
        self.assertEqual(show("clean"), shown["activated"])
        self.assertEqual(show("told")["actor"], "alice")
        p.stop()
        p.start()
        self.assertEqual(json.loads(p.cli("runbook", "list", "--json")[1])[1]["acts"], 1, "counted by the journal, not by the process")
        self.assertEqual(show("told")["actor"], "alice")

    def test_what_show_prints_is_a_runbook_again(self):
        p = self.platform(runbooks={"a.yaml": GOOD.replace("NAME", "told") + "summary: 'why: \"so\"'\nescalate: {bot: notify, with: {title: x, text: '${reason}'}}\n"},
                          stack=stack_file("notify"))
        code, text, _ = p.cli("runbook", "show", "told")
        self.assertEqual(code, 0)
        self.assertIn("# in force since record", text)
        path = p.write("again.yaml", text)
        done = subprocess.run([BALM, "runbook", "check", "-f", p.stack, "--functions", p.functions, path], capture_output=True, timeout=20 * PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout.decode() + text)
        code, _, err = p.cli("runbook", "show", "tolt")
        self.assertEqual(code, 3)
        self.assertIn("did you mean 'told'?", err)

    def test_a_schedule_and_a_follow_up_are_shown_and_can_be_given_back(self):
        step = "{bot: notify, with: {title: a, text: b}}"
        nightly = f"name: nightly\nschedule: '0 3 * * *'\ntime_zone: Europe/Berlin\ntarget: t\nsteps: [{step}]\nfollow_up: {{bot: notify, after: 90s, with: {{title: c, text: d}}}}\n"
        often = f"name: often\nschedule: '@every 1h'\ntarget: t\nguardrails: {{rate: {{max: 30, per: 1d}}}}\nsteps: [{step}]\n"
        p = self.platform(runbooks={"a.yaml": nightly, "b.yaml": often}, stack=stack_file("notify"))
        code, text, _ = p.cli("runbook", "list")
        self.assertEqual(code, 0)
        self.assertRegex(text, r"nightly .*\n  at      0 3 \* \* \*, Europe/Berlin\n  steps   notify, later notify\n")
        self.assertRegex(text, r"often .*\n  at      @every 1h\n")
        shown = json.loads(p.cli("runbook", "show", "nightly", "--json")[1])
        self.assertEqual([shown[k] for k in ("schedule", "time_zone", "start_deadline")], ["0 3 * * *", "Europe/Berlin", "5m"])
        self.assertEqual(shown["follow_up"], {"bot": "notify", "after": "1m30s", "timeout": "30s", "with": {"title": "c", "text": "d"}})
        self.assertNotIn("match", shown)
        for name in ("nightly", "often"):
            text = p.cli("runbook", "show", name)[1]
            done = subprocess.run([BALM, "runbook", "check", "-f", p.stack, "--functions", p.functions, p.write(f"{name}.yaml", text)], capture_output=True, timeout=20 * PATIENCE)
            self.assertEqual(done.returncode, 0, done.stdout.decode() + text)

    def test_a_platform_elsewhere(self):
        p = self.platform(runbooks={"a.yaml": GOOD.replace("NAME", "told")}, stack=stack_file("notify"))
        token = p.write("token", p.secret("basic-auth-password"), mode=0o600)
        for arguments in (["list"], ["show", "told"]):
            line = [BALM, "runbook", *arguments, "--url", f"http://127.0.0.1:{p.port}", "--token-file", token]
            done = subprocess.run(line, capture_output=True, timeout=20 * PATIENCE, cwd=self.folder, env=dict(os.environ, BALM_DATA="/nonexistent"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"told", done.stdout)
        p.stop()
        self.assertEqual(p.cli("runbook", "list")[0], 3)


if __name__ == "__main__":
    main()
