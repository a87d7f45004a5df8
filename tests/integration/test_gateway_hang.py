"""A bot that hangs: SIGSTOP leaves its socket open and answers nothing."""
import json
import os
import signal
import time

from harness import PlatformTest, alert, main, stack_file, wait_until

RUNBOOK = """
name: clean-disk
match: ['alertname="DiskFull"']
target: host/${labels.host}
mode: act
steps:
  - bot: disk-clean
    with: {root: "ROOT", older_than: 1h}
    verify: {resolve: {within: 60s}}
    timeout: 4s
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 4}
"""
RESTART = """
name: restart
match: ['alertname="Down"']
target: service/web
mode: act
steps:
  - bot: service-restart
    with: {unit: web}
    verify: {resolve: {within: 60s}}
    timeout: 4s
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 4}
"""


def descendants(pid):
    """{pid: executable's name} of everything below the process."""
    parents = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as f:
                parents[int(name)] = int(f.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, more = {}, [pid]
    while more:
        parent = more.pop()
        for child in [c for c, p in parents.items() if p == parent]:
            more.append(child)
            try:
                found[child] = os.path.basename(os.readlink(f"/proc/{child}/exe"))
            except OSError:
                continue
    return found


class Hang(PlatformTest):
    def bots(self, p, bot="disk-clean"):
        return [pid for pid, name in descendants(p.process.pid).items() if name == bot]

    def replicas(self, p):
        return json.loads(p.request("GET", "/system/function/disk-clean", headers=p.basic())[2])["availableReplicas"]

    def old_file(self, name):
        path = os.path.join(self.folder, "full", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("x" * 1000)
        os.utime(path, (time.time() - 7200,) * 2)
        return path

    def kill_by_file(self, path):
        with open(path) as f:
            os.kill(int(f.read()), signal.SIGKILL)

    def platform_with_bot(self):
        root = os.path.join(self.folder, "full")
        stack = stack_file("disk-clean") + f"    environment: {{disk_clean_roots: {root}}}\n"
        first = self.old_file("first")
        p = self.platform(runbooks={"disk.yaml": RUNBOOK.replace("ROOT", root)}, stack=stack)
        p.post_alerts(alert("DiskFull", host="a"))
        p.wait_record("outcome", state="done")
        self.assertFalse(os.path.exists(first))
        return p

    def test_the_next_attempt_gets_a_new_process(self):
        tool, pid = os.path.join(self.folder, "restart.sh"), os.path.join(self.folder, "pid")
        with open(tool, "w") as f:
            f.write(f"#!/bin/sh\nsetsid sleep 300 >/dev/null 2>&1 &\necho $! > {pid}\n")
        os.chmod(tool, 0o755)
        self.addCleanup(self.kill_by_file, pid)
        acts = f"services:\n  web: {{functions: [service-restart], restart: [{tool}], pid_file: {pid}}}\n"
        p = self.platform(runbooks={"r.yaml": RESTART}, stack=stack_file("service-restart"), host_acts=acts)
        p.post_alerts(alert("Down", n="0"))
        first = p.wait_record("outcome", state="done")
        p.post_alerts(alert("Down", status="resolved", n="0"))
        p.wait_record("closed", incident=first["incident"])
        [hung] = self.bots(p, "service-restart")
        os.kill(hung, signal.SIGSTOP)
        p.post_alerts(alert("Down", n="1"))
        outcome = p.wait_record("outcome", 40, attempt=2)
        self.assertEqual(outcome["state"], "done", outcome)
        self.assertNotIn(hung, self.bots(p, "service-restart"))
        self.assertEqual(p.find_log("function hangs: it is killed")["function"], "service-restart")

    def test_a_destructive_act_without_an_answer_goes_to_a_person(self):
        p = self.platform_with_bot()
        [hung] = self.bots(p)
        second = self.old_file("second")
        os.kill(hung, signal.SIGSTOP)
        p.post_alerts(alert("DiskFull", host="b"))
        outcome = p.wait_record("outcome", 40, target="host/b")
        self.assertEqual((outcome["state"], outcome["attempt"]), ("unknown", 1), outcome)
        self.assertTrue(os.path.exists(second))

    def test_a_bot_that_cannot_be_started_costs_no_attempt(self):
        p = self.platform_with_bot()
        [bot] = self.bots(p)
        run = os.readlink(os.path.join(p.data, "run", "temp"))  # where its folder for temporary files would be
        os.rename(run, run + ".away")
        os.symlink("/dev/null", run)
        os.kill(bot, signal.SIGKILL)
        # Until the platform knows: a call that meets the dying process is a lost answer, not one that was never sent.
        wait_until(lambda: self.replicas(p) == 0, 10, "the bot's end")
        p.post_alerts(alert("DiskFull", host="b"))
        retry = p.wait_record("retry", 20, code="UNAVAILABLE")
        self.assertIn("start function 'disk-clean': make folder", retry["reason"])  # what a person can mend
        os.unlink(run)
        os.rename(run + ".away", run)
        outcome = p.wait_record("outcome", 60, target="host/b")
        self.assertEqual((outcome["state"], outcome["attempt"]), ("unchanged", 1), outcome)


if __name__ == "__main__":
    main()
