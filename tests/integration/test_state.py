"""State that lives: starts from snapshots, through kills and damage. The harness decides every journal again from its first record, so a state
that came out of a snapshot and decided otherwise than the whole past would fails here."""
import glob
import json
import os
import random
import sqlite3
import time

from harness import PATIENCE, PlatformTest, alert, main, rfc3339, stack_file, wait_until
from small_disk import NotAllowed, SmallDisk

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
        wait_until(lambda: len(p.records("outcome")) == 20, 30, "decided, and tried to tell")
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
        wait_until(lambda: p.cli("audit", "verify")[0] == 0, 20, "genuine, and no act is under way any more")

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


class Retention(PlatformTest):
    refolds = False  # the beginning is gone

    SMALL = ["--retention-size", "1MiB", "--retention-interval", "200ms", "--snapshot-every", "500", "--log-level", "debug"]
    PADDING = "x" * 4000

    def send(self, p, n, start=0, name="Nobody"):
        for i in range(start, start + n):
            self.assertEqual(p.post_alerts(alert(name, annotations={"padding": self.PADDING}, x=str(i)))[0], 202)

    def first(self, p):
        return json.loads(p.cli("status", "--json")[1])["status"]["store"]["first"]

    def journal_bytes(self, p):
        total = 0
        for path in glob.glob(os.path.join(p.data, "journal", "0*")):
            try:
                total += 0 if path.endswith("-shm") else os.path.getsize(path)
            except FileNotFoundError:
                pass  # retention was faster
        return total

    def verify(self, p, code=0):
        got, text, error = p.cli("audit", "verify", "--json")
        self.assertEqual(got, code, text + error)
        return json.loads(text)

    def test_by_size_the_oldest_go_and_the_rest_stays_proven(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=self.SMALL)
        for round in range(6):
            self.send(p, 150, start=round * 150)
        wait_until(lambda: self.first(p) > 100, 30, "old records removed")
        wait_until(lambda: self.journal_bytes(p) < 2 << 20, 30, "small again")
        wait_until(lambda: p.records("cut")[-1]["detail"]["last"] == self.first(p) - 1, 20, "what is said is done")
        self.assertEqual({r["reason"] for r in p.records("cut")}, {"size"})
        report = self.verify(p)
        self.assertGreaterEqual(self.first(p) - 1, report["removed"])
        self.assertGreater(report["removed"], 100)
        code, text, error = p.cli("audit", "cat")
        self.assertEqual(code, 0, error)
        self.assertIn("removed by retention", error)
        self.assertIn("removed      records 1 to", p.cli("audit", "verify")[1])
        self.assertIn("of 1 MiB, the oldest record is of", p.cli("status")[1])
        for state in ("stopped", "killed", "without snapshots"):
            first, seen = self.first(p), what_is_known(p)
            if state == "killed":
                p.kill()
            else:
                self.assertEqual(p.stop(), 0)
            if state == "without snapshots":
                for path in snapshots(p):
                    os.unlink(path)
            p.start()
            self.assertGreaterEqual(self.first(p), first)
            self.assertEqual(p.find_log("journal read")["snapshot"] > 0, state != "without snapshots")
            if state != "without snapshots":
                self.assertEqual(what_is_known(p)[0:2], seen[0:2])
            # What it knows from records that are gone: runbooks, their activation, an epoch above all others.
            status = json.loads(p.cli("status", "--json")[1])["status"]
            self.assertEqual([r["name"] for r in status["runbooks"]], ["shadow", "person"])
            self.assertTrue(status["deciding"])
            p.post_alerts(alert("Shadow", x=state))
            p.wait_record("refusal", target="x/" + state)
        epochs = [r["epoch"] for r in p.records("epoch")]
        self.assertEqual(epochs, sorted(set(epochs)))
        self.verify(p)

    def test_by_age_even_with_little_traffic(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--retention-age", "4s", "--retention-interval", "200ms"])
        self.send(p, 5)
        end = time.monotonic() + 60 * PATIENCE
        n = 5
        while self.first(p) < 8 and time.monotonic() < end:
            self.send(p, 1, start=n)
            n += 1
            time.sleep(0.2)
        self.assertGreaterEqual(self.first(p), 8)
        self.assertEqual(p.records("cut")[-1]["reason"], "age")
        self.verify(p)

    def test_an_open_incident_keeps_its_records(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=self.SMALL)
        began = time.time()
        p.post_alerts(alert("Person", starts_at=began, x="keeper"))
        signal = p.wait_record("signal", source="alertmanager")
        p.wait_record("escalated")
        seq = next(i + 1 for i, r in enumerate(p.records()) if r == signal)
        self.send(p, 600)
        kept = wait_until(lambda: json.loads(p.cli("status", "--json")[1])["status"]["store"].get("keptFrom"), 30, "kept")
        self.assertLessEqual(kept, seq)
        self.assertEqual(self.first(p), 1)
        self.assertIn("balm incident list", p.cli("status")[1])
        self.assertIsNotNone(p.find_log("records that should be removed are still needed"))
        self.assertEqual(p.cli("why", signal["incident"])[0], 0)
        p.post_alerts(alert("Person", status="resolved", starts_at=began, x="keeper"))
        wait_until(lambda: self.first(p) > seq, 30, "gone with its incident")
        self.verify(p)

    def test_who_removes_records_without_saying_so_is_found(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--retention-size", "16MiB"])
        self.send(p, 900)
        self.assertEqual(p.stop(), 0)
        self.verify(p)
        segments = sorted(glob.glob(os.path.join(p.data, "journal", "0*.db")))
        self.assertGreater(len(segments), 2)
        os.unlink(segments[0])
        report = self.verify(p, code=1)
        self.assertEqual(report["firstBad"], 1)
        self.assertIn("no sealed record says that they were removed", report["reason"])

    def test_a_word_that_nobody_sealed_does_not_excuse_a_removal(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=["--retention-size", "16MiB"])
        self.send(p, 900)
        self.assertEqual(p.stop(), 0)
        segments = sorted(glob.glob(os.path.join(p.data, "journal", "0*.db")))
        last = int(os.path.basename(segments[1])[:20]) - 1
        with sqlite3.connect(segments[0]) as db:
            (bytes_,) = db.execute("SELECT bytes FROM records WHERE seq = 1").fetchone()
        forged = json.loads(bytes_)
        forged = {"cluster": forged["cluster"], "detail": {"first": 1, "last": last}, "format": 1, "kind": "cut",
                  "message": f"records 1 to {last} are removed by retention (size)", "reason": "size", "tenant": forged["tenant"],
                  "time": rfc3339(time.time())}
        os.unlink(segments[0])
        with sqlite3.connect(segments[-1]) as db:
            (seq,) = db.execute("SELECT max(seq) FROM records").fetchone()
            db.execute("INSERT INTO records VALUES(?, ?)", (seq + 1, json.dumps(forged, separators=(",", ":")).encode()))
        report = self.verify(p, code=1)
        self.assertIn("no sealed record says that they were removed", report["reason"])

    def test_what_is_open_is_made_from_what_is_kept_without_a_snapshot(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=self.SMALL)
        self.send(p, 450)
        wait_until(lambda: self.first(p) > 100, 30, "old records removed")
        person = alert("Person", x="late")
        self.assertEqual(p.post_alerts(person)[0], 202)
        p.wait_record("escalated")
        first = self.first(p)
        self.send(p, 450, start=450)
        wait_until(lambda: self.first(p) > first, 30, "more of them removed")
        before = json.loads(p.cli("status", "--json")[1])["status"]["incidents"]["phases"]
        self.assertEqual(before.get("escalated"), 1)
        self.assertEqual(p.stop(), 0)
        for path in snapshots(p):
            os.unlink(path)
        p.start()
        self.assertIsNotNone(p.find_log("no snapshot fits and older records were removed: the state is made from what is kept"))
        status = json.loads(p.cli("status", "--json")[1])["status"]["incidents"]
        self.assertEqual(status["phases"].get("escalated"), 1, status)
        self.assertEqual(p.post_alerts(person)[0], 202)
        self.assertEqual(len([r for r in p.records("signal") if r["labels"].get("x") == "late"]), 1)
        self.verify(p)

    def test_a_removed_record_has_still_its_hash(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=self.SMALL)
        self.send(p, 600)
        wait_until(lambda: self.first(p) > 100, 30, "old records removed")
        self.assertEqual(p.stop(), 0)
        self.verify(p)
        with open(os.path.join(p.data, "audit", "leaves"), "r+b") as f:
            f.seek(32 * 50)
            byte = f.read(1)
            f.seek(32 * 50)
            f.write(bytes([byte[0] ^ 1]))
        self.verify(p, code=1)

    def test_killed_at_any_moment_of_it(self):
        p = self.platform(runbooks=RUNBOOKS, stack=STACK, arguments=self.SMALL)
        sent = 0
        for _ in range(8):
            for _ in range(random.randrange(60, 140)):
                self.send(p, 1, start=sent)
                sent += 1
            p.kill()
            p.start()
        wait_until(lambda: self.first(p) > 100, 30, "old records removed")
        self.verify(p)
        self.assertEqual(glob.glob(os.path.join(p.data, "journal", "00000000000000000001*")), [])


class DiskFull(PlatformTest):
    def start(self, mib=160, arguments=(), kind="tmpfs"):
        try:
            disk = SmallDisk(self.folder, mib, kind)
        except NotAllowed as e:
            self.skipTest(str(e))
        self.addCleanup(disk.unmount)
        p = self.platform(start=False, runbooks={"clean.yaml": disk.runbook()}, stack=disk.stack(), arguments=list(arguments))
        p.data = disk.data
        p.start()
        return p, disk

    def test_the_disk_alert_is_accepted_healed_and_recorded(self):
        p, disk = self.start()
        reserve = os.path.join(p.data, "reserve")
        whole = os.path.getsize(reserve)
        self.assertGreater(whole, 30 << 20)
        disk.fill("old")
        # Whatever is written next finds the disk full.
        end = time.monotonic() + 30 * PATIENCE
        status = 0
        while status != 202 and time.monotonic() < end:
            status, _ = p.post_alerts(alert("DiskFull", host="here"))
            time.sleep(0.05)
        self.assertEqual(status, 202, p.log_text())
        p.wait_record("outcome", state="done")
        self.assertFalse(os.path.exists(os.path.join(disk.junk, "old")))
        p.wait_record("closed", state="healed")
        self.assertIsNotNone(p.find_log("the disk is full: a piece of the reserve is given up"))
        wait_until(lambda: os.path.getsize(reserve) >= whole, 20, "the reserve is whole again")
        self.assertEqual(p.cli("audit", "verify")[0], 0)

    def test_when_all_is_used_nothing_is_promised_until_there_is_room(self):
        p, disk = self.start(mib=64, arguments=["--reserve-size", "16MiB"])
        n = 0

        def post():
            nonlocal n
            n += 1
            return p.post_alerts(alert("Nobody", annotations={"padding": "y" * 8000}, n=str(n)))[0]
        accepted = 0
        end = time.monotonic() + 60 * PATIENCE
        status = 202
        while time.monotonic() < end:
            if status == 202:
                disk.fill(str(n))
            status = post()
            accepted += status == 202
            reserve = os.path.getsize(os.path.join(p.data, "reserve"))
            if status == 503 and reserve == 0:
                break
        self.assertEqual((status, reserve), (503, 0), p.log_text())
        self.assertIn("0 MiB of", p.cli("status")[1])
        # It does not open the store and fold everything again for each of those who go on to knock.
        def word():
            disk.fill(str(n))
            post()
            return p.find_log("the disk is full, nothing is accepted until there is room")
        wait_until(word, 20, "a clear word")
        opened = sum(line.get("message") == "store is whole again" for line in p.log)
        for _ in range(40):
            post()
            time.sleep(0.05)
        self.assertLessEqual(sum(line.get("message") == "store is whole again" for line in p.log), opened + 2)
        disk.clear()
        wait_until(lambda: post() == 202, 30, "accepted again without a restart")
        accepted += 1
        # While alerts go on to come, too.
        wait_until(lambda: post() == 202 and os.path.getsize(os.path.join(p.data, "reserve")) > 8 << 20, 20, "the reserve comes back")
        self.assertGreaterEqual(len(p.records("signal")), accepted)
        self.assertEqual(p.cli("audit", "verify")[0], 0)

    def test_started_on_a_full_disk(self):
        p, disk = self.start()
        self.assertEqual(p.stop(), 0)
        disk.fill("old")
        p.start()
        self.assertEqual(p.post_alerts(alert("DiskFull", host="here"))[0], 202)
        p.wait_record("closed", state="healed")

    def test_a_large_delivery_needs_no_room_for_temporary_files(self):
        try:
            disk = SmallDisk(self.folder, 4)
        except NotAllowed as e:
            self.skipTest(str(e))
        self.addCleanup(disk.unmount)
        p = self.platform(env={"TMPDIR": disk.place})
        alerts = [alert("Nobody", annotations={"padding": "y" * 4000}, n=str(n)) for n in range(1200)]
        self.assertEqual(p.post_alerts(*alerts)[0], 202)
        disk.fill("old")
        self.assertEqual(p.post_alerts(*alerts)[0], 202)

    def test_the_index_of_a_segment_has_its_place_on_the_disk(self):
        """SQLite maps the -shm file: a hole in it that is touched once no block is left is SIGBUS, the end of the platform or of who reads."""
        p, disk = self.start(mib=48, arguments=["--reserve-size", "0", "--retention-size", "4MiB"], kind="ext4")
        for n in range(24):
            alerts = [alert("Nobody", annotations={"padding": "y" * 600}, n=f"{n}-{i}") for i in range(50)]
            self.assertEqual(p.post_alerts(*alerts)[0], 202)
        self.assertGreater(len(glob.glob(os.path.join(p.data, "journal", "*.db"))), 3)
        self.assertEqual(p.stop(), 0)
        p.start()  # from an empty WAL little of the index is filled
        indexes = [os.stat(path) for path in glob.glob(os.path.join(p.data, "journal", "*-shm"))]
        self.assertTrue(indexes)
        self.assertEqual([index.st_blocks * 512 - index.st_size for index in indexes if index.st_blocks * 512 < index.st_size], [])
        for spare_kib in range(0, 36, 4):
            disk.fill("old")
            disk.give_back("old", spare_kib)
            self.assertGreaterEqual(p.cli("audit", "verify")[0], 0, f"ended by a signal, {spare_kib} KiB left")
            p.request("GET", "/function/audit/loki/api/v1/query_range?query=%7Bkind%3D%22signal%22%7D&start=0&direction=forward", headers=p.basic())
            self.assertIsNone(p.process.poll(), f"{spare_kib} KiB left: {p.log_text()}")
        disk.clear()
        wait_until(lambda: p.post_alerts(alert("Nobody", n="again"))[0] == 202, 30, "accepted again without a restart")


if __name__ == "__main__":
    main()
