"""balm stop from everywhere: API, signal and file; with a bot that really removes files, so that what it did can be seen on disk."""
import json
import os
import signal
import subprocess
import time
import unittest

from harness import PlatformTest, alert, main, stack_file, wait_until

RUNBOOK = """
name: clean
match: ['alertname="DiskFull"']
target: disk/${labels.disk}
mode: act
steps:
  - bot: disk-clean
    with: {root: "ROOT/${labels.disk}", older_than: 1m}
    verify: check
guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}, max_in_flight: 8}
"""


class Stop(PlatformTest):
    def cleaning(self, disks, start=True):
        """A platform that would clean each of these folders of self.root as soon as somebody alerts on it."""
        self.root = os.path.join(os.path.realpath(self.folder), "disks")
        os.makedirs(self.root, exist_ok=True)
        roots = ":".join(os.path.join(self.root, disk) for disk in disks)
        stack = stack_file("disk-clean") + f"    environment: {{disk_clean_roots: '{roots}'}}\n"
        return self.platform(start=start, runbooks={"r.yaml": RUNBOOK.replace("ROOT", self.root)}, stack=stack)

    def fill(self, disk):
        os.makedirs(os.path.join(self.root, disk), exist_ok=True)
        path = os.path.join(self.root, disk, "old.log")
        with open(path, "w") as f:
            f.write("x" * 100)
        os.utime(path, (time.time() - 7200, time.time() - 7200))
        return path

    def frozen(self, p):
        return json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])["frozen"]

    def expect_nothing_is_removed(self, p, disk):
        path = self.fill(disk)
        self.assertEqual(p.post_alerts(alert("DiskFull", disk=disk))[0], 202)
        p.wait_record("refusal", gate="freeze", target="disk/" + disk)
        self.assertTrue(os.path.exists(path))

    def expect_removal(self, p, disk):
        path = self.fill(disk)
        self.assertEqual(p.post_alerts(alert("DiskFull", disk=disk))[0], 202)
        wait_until(lambda: not os.path.exists(path), 30, f"{path} is removed\n" + p.log_text())

    def test_a_signal_stops_and_only_resume_lets_bots_act_again(self):
        p = self.cleaning("abc")
        self.expect_removal(p, "a")
        p.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: p.find_log("the stop is recorded and no bot acts"), 60, "the stop is in force")
        self.assertEqual([(r["actor"], r.get("on")) for r in p.records("freeze")], [("SIGUSR1", True)])
        self.expect_nothing_is_removed(p, "b")
        self.assertIn("by SIGUSR1", p.cli("status")[1])
        self.assertEqual(p.cli("resume", "--reason", "looked at it")[0], 0)
        self.assertEqual(p.records("freeze")[-1]["reason"], "looked at it")
        self.expect_removal(p, "c")

    def test_a_file_stops_and_its_removal_resumes_nothing(self):
        p = self.cleaning("abcd")
        self.expect_removal(p, "a")
        p.write("data/stop", "storage is being moved\n")
        wait_until(lambda: p.find_log("the stop is recorded and no bot acts"), 60, "the stop is in force")
        self.expect_nothing_is_removed(p, "b")
        code, text, _ = p.cli("status")
        self.assertIn("by stop file: storage is being moved", text)
        code, _, err = p.cli("resume")
        self.assertEqual(code, 1)
        self.assertIn(os.path.join(p.data, "stop"), err)
        os.unlink(os.path.join(p.data, "stop"))
        wait_until(lambda: not self.frozen(p)["file"], 20, "its removal is seen")
        self.assertTrue(self.frozen(p)["on"])
        self.expect_nothing_is_removed(p, "c")
        self.assertEqual(p.cli("resume")[0], 0)
        self.expect_removal(p, "d")

    def test_a_platform_that_starts_with_the_file_never_acts(self):
        p = self.cleaning(["y", "z"] + [f"w{i}" for i in range(100)])
        paths = [self.fill(f"w{i}") for i in range(100)]
        p.post_alerts(*[alert("DiskFull", disk=f"w{i}") for i in range(100)])
        wait_until(lambda: not all(map(os.path.exists, paths)), 30, "it acts")
        p.kill()  # with intents in the queue and some of them handed out
        p.write("data/stop", "")
        left = [path for path in paths if os.path.exists(path)]
        self.assertGreater(len(left), 0, "nothing was left to be stopped: this shows nothing")
        p.start()
        self.expect_nothing_is_removed(p, "z")
        self.assertEqual([path for path in paths if os.path.exists(path)], left)
        self.assertTrue(p.records("freeze")[-1]["on"])
        p.stop()
        os.unlink(os.path.join(p.data, "stop"))
        p.start()
        self.expect_nothing_is_removed(p, "z")
        self.assertEqual(p.cli("resume")[0], 0)
        self.expect_removal(p, "y")

    def test_no_removal_begins_once_the_stop_is_in_force_under_load(self):
        p = self.cleaning(["z"] + [f"d{i}" for i in range(300)])
        paths = [self.fill(f"d{i}") for i in range(300)]
        for first in range(0, 300, 50):
            p.post_alerts(*[alert("DiskFull", disk=f"d{i}") for i in range(first, first + 50)])
        wait_until(lambda: not all(map(os.path.exists, paths)), 30, "it acts")
        p.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: p.find_log("the stop is recorded and no bot acts"), 100, "the stop is in force")
        left = [path for path in paths if os.path.exists(path)]
        self.expect_nothing_is_removed(p, "z")
        self.assertEqual([path for path in paths if os.path.exists(path)], left)
        self.assertGreater(len(left), 0, "nothing was left to be stopped: this shows nothing")

    @unittest.skipIf(os.geteuid() != 0, "needs root to mount a small disk")
    def test_with_a_full_disk_it_stops_all_the_same_and_is_recorded_when_there_is_room(self):
        p = self.cleaning("abc", start=False)
        os.makedirs(p.data, mode=0o700, exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", p.data], capture_output=True).returncode != 0:
            self.skipTest("no disk can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", p.data])
        self.addCleanup(self._end, p)
        p.arguments += ["--reserve-size", "0"]
        p.start()
        self.expect_removal(p, "a")
        filler = os.path.join(p.data, "filler")
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 65536)
            except OSError:
                pass
            try:
                while True:
                    f.write(b"x")
            except OSError:
                pass
        p.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: p.find_log("acting is stopped, but that is not recorded: a restart would resume"), 60, "the stop is in force")
        self.assertEqual((self.frozen(p)["on"], self.frozen(p)["recorded"]), (True, False))
        self.assertIn("NOT RECORDED", p.cli("status")[1])
        path = self.fill("b")
        p.post_alerts(alert("DiskFull", disk="b"))
        os.unlink(filler)
        wait_until(lambda: p.find_log("the stop is recorded and no bot acts"), 60, "and recorded when there is room")
        self.assertTrue(os.path.exists(path))
        self.assertEqual(p.records("freeze")[-1]["actor"], "SIGUSR1")
        self.expect_nothing_is_removed(p, "c")


if __name__ == "__main__":
    main()
