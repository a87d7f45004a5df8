"""State that lives: starts from snapshots, through kills and damage. The harness decides every journal again from its first record, so a state
that came out of a snapshot and decided otherwise than the whole past would fails here."""
import glob
import json
import os
import random
import time

from harness import PATIENCE, PlatformTest, alert, main, stack_file, wait_until

RUNBOOKS = {"b.yaml": """
- name: shadow
  match: [alertname=Shadow]
  target: x/${labels.x}
  steps: [{bot: notify, with: {text: "${labels.x}"}, verify: check}]
- name: person
  mode: act
  match: [alertname=Person]
  target: x/${labels.x}
  escalate: {bot: notify, with: {text: "${labels.x}"}}
"""}
STACK = stack_file("echo", "notify")


def snapshots(p):
    return sorted(glob.glob(os.path.join(p.data, "snapshots", "*.snapshot")))


def what_is_known(p):
    """What people see of the folded state, but for ages."""
    code, text, error = p.cli("status", "--json")
    assert code == 0, error
    answer = json.loads(text)
    status = answer["status"]
    sources = [(s["name"], s["signals"], s["last"]) for s in status["sources"]]
    incidents = [{k: v for k, v in i.items() if k != "ageSeconds"} for i in answer["incidents"]]
    return [incidents, sources] + [status[k] for k in ("incidents", "runbooks", "queues", "backlog", "frozen", "mayAct")]


class Snapshots(PlatformTest):
    def send(self, p, n, start=0):
        for i in range(start, start + n):
            name = ("Shadow", "Person", "Nobody")[i % 3]
            self.assertEqual(p.post_alerts(alert(name, x=str(i)))[0], 202)

    def test_a_start_goes_on_from_the_snapshot_of_the_last_stop(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK)
        self.send(p, 60)
        wait_until(lambda: len(p.records("escalated")) == 20, 20, "decided")
        before = what_is_known(p)
        self.assertEqual(p.stop(), 0)
        self.assertEqual(len(snapshots(p)), 1)
        p.start()
        read = p.find_log("journal read")
        self.assertGreater(read["snapshot"], 0)
        self.assertLess(read["records"] - read["snapshot"], 20)
        self.assertEqual(what_is_known(p), before)
        self.send(p, 30)  # known ones: no news
        self.assertEqual(len([r for r in p.records("signal") if r["source"] == "alertmanager"]), 60)
        self.send(p, 3, start=60)
        p.wait_record("refusal", mode="shadow")
        self.assertEqual(p.cli("audit", "verify")[0], 0)

    def test_killed_at_any_moment_it_starts_from_what_is_whole(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--snapshot-every", "20"])
        sent = used = 0
        for _ in range(8):
            for _ in range(random.randrange(5, 40)):
                self.send(p, 1, start=sent)
                sent += 1
            time.sleep(random.random() * 0.02)
            p.kill()
            p.start()
            used += p.find_log("journal read")["snapshot"] > 0
        self.assertGreater(used, 3)
        signals = [r for r in p.records("signal") if r["source"] == "alertmanager"]
        self.assertEqual(len({r["labels"]["x"] for r in signals}), sent)
        self.assertEqual(len(signals), sent)

    def test_a_damaged_snapshot_is_passed_over(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--snapshot-every", "20"])
        self.send(p, 30)
        wait_until(lambda: len(snapshots(p)) > 0, 20, "a snapshot")
        self.assertEqual(p.stop(), 0)
        for damage in ("cut", "flip", "empty", "newer"):
            for path in snapshots(p):
                with open(path, "r+b") as f:
                    size = os.path.getsize(path)
                    if damage == "cut":
                        f.truncate(size // 2)
                    elif damage == "empty":
                        f.truncate(0)
                    elif damage == "newer":
                        f.seek(14)
                        f.write(b"7")
                    else:
                        f.seek(size // 2)
                        byte = f.read(1)
                        f.seek(size // 2)
                        f.write(bytes([byte[0] ^ 1]))
            p.start()
            self.assertEqual(p.find_log("journal read")["snapshot"], 0, damage)
            warning = p.find_log("snapshot not used")
            self.assertIsNotNone(warning, damage)
            self.assertIn("newer balm" if damage == "newer" else "torn", warning["reason"])
            self.send(p, 30)
            self.assertEqual(len([r for r in p.records("signal") if r["source"] == "alertmanager"]), 30)
            self.assertEqual(p.stop(), 0)
            self.assertGreater(len(snapshots(p)), 0, "a new one")

    def test_its_writer_does_not_keep_the_data_folder(self):
        """The child that writes a snapshot must hold neither lock nor port, whatever becomes of the parent."""
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--snapshot-every", "10"])
        for round in range(5):
            self.send(p, 40, start=round * 40)
            p.kill()
            p.start()


if __name__ == "__main__":
    main()
