"""Restarts of a service on the host: slow ones, and what a bot or a platform that dies in the middle leaves."""
import os
import signal
import threading
import time

from harness import PATIENCE, PlatformTest, alert, main, stack_file, wait_until

# It waits while FOLDER/hold is there; then a service that writes to the outputs it was given whenever FOLDER/speak is there.
RESTART = """#!/bin/sh
echo begin >> FOLDER/runs
while test -e FOLDER/hold; do sleep 0.05; done
setsid python3 -c '
import os, signal, sys, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
while True:
    while not os.path.exists("FOLDER/speak"):
        time.sleep(0.05)
    for n in range(3000):
        print("a line of log that nobody reads", n, file=sys.stderr, flush=True)
    os.rename("FOLDER/speak", "FOLDER/spoken")' &
echo $! > FOLDER/pid
echo end >> FOLDER/runs
"""
RUNBOOK = """
name: restart
match: ['alertname="Down"']
target: service/web
mode: act
steps:
  - bot: service-restart
    with: {unit: web}
    timeout: TIMEOUT
"""


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


class Restarts(PlatformTest):
    def platform_with_service(self, timeout="30s", hold=True):
        tool = os.path.join(self.folder, "restart.sh")
        with open(tool, "w") as f:
            f.write(RESTART.replace("FOLDER", self.folder))
        os.chmod(tool, 0o755)
        if hold:
            self.touch("hold")
        self.addCleanup(self.end_service)
        acts = f"services:\n  web: {{functions: [service-restart], restart: [{tool}], pid_file: {self.folder}/pid}}\n"
        return self.platform(runbooks={"r.yaml": RUNBOOK.replace("TIMEOUT", timeout)}, stack=stack_file("service-restart"), host_acts=acts)

    def touch(self, name):
        with open(os.path.join(self.folder, name), "w"):
            pass

    def release(self):
        os.unlink(os.path.join(self.folder, "hold"))

    def end_service(self):
        if os.path.exists(os.path.join(self.folder, "hold")):
            self.release()
        if os.path.exists(os.path.join(self.folder, "pid")):
            os.kill(self.service(), signal.SIGKILL)

    def service(self):
        with open(os.path.join(self.folder, "pid")) as f:
            return int(f.read())

    def runs(self):
        path = os.path.join(self.folder, "runs")
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return f.read().split()

    def hear_service(self):
        self.touch("speak")
        spoken = os.path.join(self.folder, "spoken")
        wait_until(lambda: os.path.exists(spoken), 20, "the service has written its log")
        os.unlink(spoken)

    def bot(self, p):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe").endswith("/functions/service-restart") and parent_of(parent_of(pid)) == p.process.pid:
                    return int(pid)
            except OSError:
                continue
        raise AssertionError("no process of the bot\n" + p.log_text())

    def begin(self, p):
        p.post_alerts(alert("Down"))
        wait_until(self.runs, 20, "the restart begins")

    def test_a_restart_longer_than_the_step_s_timeout_runs_once_and_heals(self):
        p = self.platform_with_service(timeout="2s")
        self.begin(p)
        retry = p.wait_record("retry")
        self.assertEqual(retry["code"], "UNKNOWN", retry)
        self.assertIn("still running", retry["reason"])
        self.release()
        self.assertIn(p.wait_record("outcome", 40)["state"], ("done", "unchanged"))
        self.assertEqual(self.runs(), ["begin", "end"])

    def test_a_bot_killed_in_the_middle_leaves_one_restart_that_its_next_process_joins(self):
        p = self.platform_with_service()
        self.begin(p)
        os.kill(self.bot(p), signal.SIGKILL)
        p.wait_record("retry", code="UNKNOWN")
        self.release()
        self.assertIn(p.wait_record("outcome", 40)["state"], ("done", "unchanged"))
        self.assertEqual(self.runs(), ["begin", "end"])

    def test_a_platform_killed_in_the_middle_leaves_one_restart_that_the_next_one_waits_for(self):
        p = self.platform_with_service()
        self.begin(p)
        p.kill()
        p.start()
        self.assertTrue(p.find_log("the platform before was killed during a restart")["running"])
        p.wait_record("retry", state="interrupted")
        self.assertEqual(self.runs(), ["begin"])
        self.release()
        self.assertEqual(p.wait_record("outcome", 60)["state"], "unchanged")
        self.assertEqual(self.runs(), ["begin", "end"])
        self.assertFalse([name for name in os.listdir(os.path.join(p.data, "run")) if name.startswith("host-act-")])

    def test_a_service_may_write_to_its_outputs_for_ever_also_after_the_platform(self):
        p = self.platform_with_service(hold=False)
        self.begin(p)
        self.assertEqual(p.wait_record("outcome")["state"], "done")
        self.hear_service()
        self.assertEqual(p.stop(), 0)
        self.hear_service()
        os.kill(self.service(), 0)

    def test_stop_waits_for_a_slow_restart_and_kills_no_healthy_bot(self):
        p = self.platform_with_service(timeout="60s")
        self.begin(p)
        bot, answers = self.bot(p), []
        stop = threading.Thread(target=lambda: answers.append(p.cli("stop", timeout=150)))
        stop.start()
        wait_until(lambda: p.find_log("acting is stopped"), 20, "balm stop has arrived")
        time.sleep(11)  # longer than what a bot gets to notice it
        self.assertFalse(answers, "balm stop answered before the restart was over")
        self.release()
        stop.join(60 * PATIENCE)
        self.assertEqual(answers[0][0], 0, answers)
        self.assertEqual(self.bot(p), bot)
        self.assertFalse([line for line in p.log if "killed" in str(line.get("message"))])
        self.assertEqual(p.cli("resume")[0], 0)
        self.assertEqual(p.wait_record("outcome", 40)["state"], "unchanged")
        self.assertEqual(self.runs(), ["begin", "end"])


if __name__ == "__main__":
    main()
