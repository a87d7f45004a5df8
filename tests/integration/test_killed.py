"""A platform that is killed while acts wait: what nobody had taken was not begun, however often it happens."""
import os
import re
import signal

from harness import PlatformTest, alert, main, stack_file, wait_until
from test_gateway_hang import descendants

WAITING = 40
BOT_MAX = 9  # of one bot in hands: half of the places, and one (queue.h)
RUNBOOK = """
name: clean-disk
match: ['alertname="DiskFull"']
target: host/${labels.host}
mode: act
steps:
  - bot: disk-clean
    with: {root: "ROOT", older_than: 1h}
    verify: {resolve: {within: 60s}}
    timeout: 60s
guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}, max_in_flight: 100}
"""


class Killed(PlatformTest):
    def in_hands(self, p):
        depth = re.search(r'balm_queue_depth\{function="disk-clean",state="leased"\} (\d+)', p.request("GET", "/metrics")[2].decode())
        return int(depth.group(1)) if depth else 0

    def stop_bots(self, p):
        for pid in [pid for pid, name in descendants(p.process.pid).items() if name == "disk-clean"]:
            os.kill(pid, signal.SIGSTOP)

    def outcomes(self, p):
        return {r["target"]: r["state"] for r in p.records("outcome") if r["function"] == "disk-clean"}

    def test_acts_that_wait_survive_kills_of_the_platform(self):
        """disk-clean must not be asked again (on_unknown: escalate): whatever counts as begun ends as unknown."""
        root = os.path.join(self.folder, "full")
        os.makedirs(root)
        stack = stack_file("disk-clean").replace("image: disk-clean:latest\n", f"image: disk-clean:latest\n    environment: {{disk_clean_roots: {root}}}\n")
        p = self.platform(runbooks={"clean.yaml": RUNBOOK.replace("ROOT", root)}, stack=stack)
        p.post_alerts(alert("DiskFull", host="first"))
        p.wait_record("outcome", target="host/first")
        self.stop_bots(p)
        p.post_alerts(*[alert("DiskFull", host=f"h{i}") for i in range(WAITING)])
        wait_until(lambda: self.in_hands(p) > 0, 20, "some of them are taken")
        stop = os.path.join(p.data, "stop")
        for _ in range(3):  # lives in which nothing is handed out
            p.kill()
            open(stop, "w").close()
            p.start()
        os.unlink(stop)
        p.kill()
        p.start()
        self.assertEqual(p.cli("resume")[0], 0)
        wait_until(lambda: len(self.outcomes(p)) == WAITING + 1, 60, "an outcome each")
        unknown = [target for target, state in self.outcomes(p).items() if state == "unknown"]
        self.assertIn(len(unknown), range(1, BOT_MAX + 1), unknown)
        self.assertEqual(set(self.outcomes(p).values()), {"unknown", "unchanged"}, self.outcomes(p))
        interrupted = [r["target"] for r in p.records("retry") if r["state"] == "interrupted"]
        self.assertEqual(sorted(interrupted), sorted(unknown), "each of them once, and no other")


if __name__ == "__main__":
    main()
