"""balm backup and balm restore: of a platform under load, cut short, on a full disk, damaged; and what a restored platform does."""
import glob
import hashlib
import http.server
import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
import unittest

import busy
from harness import BALM, PATIENCE, PlatformTest, alert, main, serve, stack_file, wait_until

RUNBOOK = """
name: tell
match: ['alertname="Tell"']
target: person/${labels.who}
mode: act
steps:
  - bot: notify
    with: {title: "hello"}
    verify: {resolve: {within: 10m}}
    timeout: TIMEOUT
guardrails: {cooldown: 10m, rate: {max: 100, per: 1h}}
"""


class Receiver:
    """What people get; it answers only once `answers` is set, and 500 to the title "broken"."""

    def __init__(self):
        self.messages, self.answers = [], threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.messages.append((self.headers["idempotency-key"], message))
                outer.answers.wait()
                try:
                    self.send_response(500 if message["title"] == "broken" else 200)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *arguments):
                pass
        self.server = serve(Handler)
        self.port = self.server.server_address[1]

    def close(self):
        self.answers.set()
        self.server.shutdown()
        self.server.server_close()


def balm(*arguments, timeout=120, **how):
    done = subprocess.run([BALM, *arguments], capture_output=True, text=True, timeout=timeout * PATIENCE, **how)
    return done.returncode, done.stdout, done.stderr


def records(data):
    code, text, error = balm("audit", "cat", "--data", data)
    if code != 0:
        raise AssertionError(error)
    return text.split("\n")[:-1]  # splitlines() also splits at U+2028, which may stand in a label


def files_of(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


def hashes(folder):
    """{path: SHA-256} of a tree, folders among them."""
    found = {os.path.relpath(at, folder) + "/": "" for at, _, _ in os.walk(folder)}
    for name in files_of(folder):
        with open(os.path.join(folder, name), "rb") as f:
            found[name] = hashlib.sha256(f.read()).hexdigest()
    return found


def rewrite_manifest(folder, change):
    """backup.json, changed by somebody who knows how its own hash is made."""
    path = os.path.join(folder, "backup.json")
    with open(path) as f:
        manifest = json.load(f)
    change(manifest)
    del manifest["sha256"]
    dump = json.dumps(manifest, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    manifest["sha256"] = hashlib.sha256(dump.encode()).hexdigest()
    with open(path, "w") as f:
        f.write(json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def tamper(data, was, becomes):
    """In every record that has the label."""
    with sqlite3.connect(glob.glob(os.path.join(data, "journal", "0*.db"))[0]) as db:
        changed = db.execute("UPDATE records SET bytes = CAST(replace(CAST(bytes AS TEXT), ?1, ?2) AS BLOB) "
                             "WHERE instr(CAST(bytes AS TEXT), ?1)", (f'"{was}"', f'"{becomes}"')).rowcount
    if changed < 1:
        raise AssertionError(f"no record has {was}")


class BackupTest(PlatformTest):
    def path(self, name):
        return os.path.join(self.folder, name)

    def backup(self, p, name, *arguments):
        code, text, error = balm("backup", self.path(name), "--data", p.data, "--json", *arguments)
        self.assertEqual(code, 0, error)
        return json.loads(text)

    def restore(self, name, to, *arguments):
        code, text, error = balm("restore", self.path(name), "--data", self.path(to), "--json", *arguments)
        self.assertEqual(code, 0, error)
        return json.loads(text)

    def verified(self, data, code=0):
        got, text, error = balm("audit", "verify", "--data", data, "--json")
        self.assertEqual(got, code, text + error)
        return json.loads(text)

    def filled(self, groups=20, **arguments):
        p = self.platform(**arguments)
        for i in range(groups):
            self.assertEqual(p.post_alerts(*[alert(f"Fill{k}", i=str(i)) for k in range(50)])[0], 202)
        return p

    def load(self, p):
        """Alerts without end, each another one; ended by the test."""
        stop, sent = threading.Event(), []

        def post(who):
            i = 0
            while not stop.is_set():
                status, _ = p.post_alerts(*[alert(f"Load{k}", who=str(who), i=str(i)) for k in range(20)])
                sent.append(status)
                i += 1
        threads = [threading.Thread(target=post, args=(n,)) for n in range(3)]
        for t in threads:
            t.start()

        def end():
            stop.set()
            for t in threads:
                t.join()
            return sent
        self.addCleanup(end)
        return end

    def on(self, p, folder):
        """The same platform, on another data folder."""
        p.data = self.path(folder)
        return p.start()


class UnderLoad(BackupTest):
    def test_each_backup_verifies_and_the_restored_log_goes_on(self):
        p = self.filled(4, arguments=["--snapshot-every", "1000"])
        end = self.load(p)
        made = []
        for i in range(5):
            before = json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])["store"]["durable"]
            made.append(self.backup(p, f"b{i}"))
            self.assertGreaterEqual(made[-1]["last"], before, "what was durable before it began is in it")
            self.assertEqual(self.verified(self.path(f"b{i}"))["records"], made[-1]["last"])
        sent = end()
        self.assertEqual(set(sent), {202})
        ends = [b["last"] for b in made]
        self.assertEqual(ends, sorted(set(ends)), "the load went on")
        self.assertGreater(len(sent) * 20, 1000)
        every = records(p.data)
        self.assertEqual(p.stop(), 0)

        told = self.restore("b4", "again")
        self.assertEqual((told["last"], told["seq"]), (ends[4], ends[4] + 1))
        restored = records(self.path("again"))
        self.assertEqual(restored[:-1], every[:ends[4]])
        self.assertEqual((json.loads(restored[-1])["kind"], json.loads(restored[-1])["detail"]["last"]), ("restored", ends[4]))
        self.assertEqual([name for name in files_of(self.path("b4")) if name.startswith("snapshots") and int(name[10:30]) > ends[4]], [])
        self.on(p, "again")
        self.assertEqual(p.post_alerts(alert("After"))[0], 202)
        self.assertEqual(self.verified(p.data)["firstBad"], 0)
        self.assertEqual(p.stop(), 0)
        report = self.verified(p.data)
        self.assertEqual((report["unsealed"], report["lateSeals"]), (0, []))
        self.assertEqual(len(report["restores"]), 1)
        self.assertIn("is not in this log", report["restores"][0])
        self.assertEqual(records(p.data)[:ends[4] + 1], restored)

    def test_what_retention_removes_meanwhile_is_no_tampering(self):
        """Signatures, leaves and journal are read one after the other: what is cut in between is announced by a record that those read before
        do not cover."""
        self.refolds = False  # its past is gone
        p = self.filled(20, arguments=["--retention-size", "1MiB", "--retention-interval", "100ms", "--reserve-size", "0", "--snapshot-every", "2000"])

        def burst(i):
            for k in range(8):
                p.post_alerts(*[alert(f"Burst{n}", i=str(i), k=str(k), text="x" * 300) for n in range(50)])
        first, i = set(), 0
        while i < 8 or len(first) <= 2:  # a few segments come and go meanwhile
            self.assertLess(i, 100, "retention goes on")
            writer = threading.Thread(target=burst, args=(i,))
            writer.start()
            try:
                first.add(self.backup(p, f"b{i}")["first"])
                self.assertEqual(self.verified(p.data)["firstBad"], 0)
            finally:
                writer.join()
            self.assertEqual(self.verified(self.path(f"b{i}"))["firstBad"], 0)
            i += 1

    def test_an_input_and_what_was_decided_on_it_stay_together(self):
        shadow = RUNBOOK.replace("TIMEOUT", "5s").replace("mode: act", "mode: shadow")
        p = self.platform(runbooks={"tell.yaml": shadow}, stack=stack_file("notify"))
        stop = threading.Event()

        def post():
            i = 0
            while not stop.is_set():
                p.post_alerts(*[alert("Tell", who=f"{i}-{k}") for k in range(10)])
                i += 1
        thread = threading.Thread(target=post)
        thread.start()
        try:
            for i in range(5):
                self.backup(p, f"b{i}")
        finally:
            stop.set()
            thread.join()
        for i in range(5):
            found = [json.loads(line) for line in records(self.path(f"b{i}"))]
            caused = {r["cause"] for r in found if r["kind"] == "refusal"}
            self.assertEqual([r["seq"] for r in found if r["kind"] == "signal" and r["seq"] not in caused], [])


class Restored(BackupTest):
    def told(self, timeout="60s", runbook=RUNBOOK):
        receiver = Receiver()
        self.addCleanup(receiver.close)
        p = self.platform(start=False, runbooks={"tell.yaml": runbook.replace("TIMEOUT", timeout)}, stack=busy.notify_stack())
        busy.secret(p, "notify-url", f"http://127.0.0.1:{receiver.port}/hook")
        busy.secret(p, "notify-hmac-key", "k3y")
        return p.start(), receiver

    def incidents(self, p):
        found = json.loads(p.request("GET", "/function/dispatcher/incidents?state=all&limit=100", headers=p.basic())[2])
        for incident in found:
            incident.pop("ageSeconds", None)
        return found

    def state(self, p):
        status = json.loads(p.cli("status", "--json")[1])["status"]
        return {k: status[k] for k in ("incidents", "runbooks", "mayAct", "frozen", "deciding")}, self.incidents(p)

    def test_the_folded_state_is_the_same(self):
        p, receiver = self.told()
        receiver.answers.set()
        began = time.time()
        p.post_alerts(alert("Tell", starts_at=began, who="a"), alert("Tell", starts_at=began, who="b"), alert("Nobody"))
        wait_until(lambda: len(p.records("outcome")) == 2, 20, "both are told")
        p.post_alerts(alert("Tell", status="resolved", starts_at=began, who="a"))
        p.wait_record("closed", state="healed")
        self.assertEqual(p.cli("stop")[0], 0)
        before = self.state(p)
        self.assertEqual((before[0]["incidents"]["open"], before[0]["incidents"]["closed"]), (1, 1))
        self.backup(p, "b")
        p.stop()
        self.restore("b", "again")
        self.on(p, "again")
        self.assertEqual(self.state(p), before)
        self.assertEqual(p.find_log("journal read")["snapshot"], 0)
        p.stop()
        # The stop has left a snapshot; it comes along, and is what a restored start goes on from.
        last = self.backup(p, "c")["last"]
        self.restore("c", "once-more")
        self.on(p, "once-more")
        self.assertEqual((p.find_log("journal read")["snapshot"], p.find_log("journal read")["records"]), (last, last + 1))
        self.assertEqual(self.state(p), before)
        self.assertEqual(p.secret("webhook-token"), p.bearer()["Authorization"].split()[1])
        # The cooldown of what was done before the backup still counts.
        self.assertEqual(p.cli("resume")[0], 0)
        p.post_alerts(alert("Tell", who="b", again="yes"))
        self.assertIn(p.wait_record("refusal")["gate"], ("in_flight", "cooldown"))

    def test_an_act_under_way_in_the_backup_runs_again_under_its_intent(self):
        p, receiver = self.told()
        p.post_alerts(alert("Tell", who="a"))
        wait_until(lambda: receiver.messages, 20, "the act is under way")
        self.assertEqual(self.backup(p, "b")["last"], p.records()[-1]["seq"])
        receiver.answers.set()
        p.wait_record("outcome", state="done")
        p.stop()
        self.assertEqual(self.verified(self.path("b"), code=4)["openIntentCount"], 1)
        code, text, _ = balm("restore", self.path("b"), "--data", self.path("again"))
        self.assertEqual(code, 0)
        self.assertIn("1 without outcome at that time", text)
        self.on(p, "again")
        p.wait_record("outcome", 60, state="done")
        self.assertEqual(len(receiver.messages), 2)
        self.assertEqual(receiver.messages[0][0], receiver.messages[1][0], "its idempotency key is the same: the receiver can tell")
        self.assertEqual(len(p.records("intent")), 1)

    def test_stopped_means_that_nothing_acts_until_resume(self):
        p, receiver = self.told()
        receiver.answers.set()
        self.backup(p, "b")
        p.stop()
        self.assertTrue(self.restore("b", "again", "--stopped")["stopped"])
        self.on(p, "again")
        self.assertIn("STOPPED", p.cli("status")[1])
        p.post_alerts(alert("Tell", who="a"))
        self.assertEqual(p.wait_record("refusal")["gate"], "freeze")
        self.assertEqual(p.cli("resume")[0], 0)
        p.wait_record("outcome", state="done")

    def test_without_secrets_the_past_stays_proved_and_a_new_key_goes_on(self):
        p = self.filled(2)
        wait_until(lambda: json.loads(p.cli("audit", "verify", "--json")[1])["unsealed"] == 0, 20, "all is sealed")
        with open(os.path.join(p.data, "audit", "key.pub")) as f:
            old = f.read().strip()
        token = p.secret("webhook-token")
        self.assertTrue(self.backup(p, "b", "--without-secrets")["withoutSecrets"])
        p.stop()
        self.assertEqual([name for name in files_of(self.path("b")) if name.startswith("secrets") or name == "audit/key"], [])
        for at, _, names in os.walk(self.path("b")):
            for name in names:
                with open(os.path.join(at, name), "rb") as f:
                    content = f.read()
                self.assertNotIn(token.encode(), content)
                self.assertNotIn(b"PRIVATE KEY", content)
        told = self.restore("b", "again")
        with open(self.path("again/audit/key.pub")) as f:
            new = f.read().strip()
        self.assertEqual((told["newKey"], old.split("+")[0]), (new, new.split("+")[0]))
        self.assertNotEqual(old, new)
        announced = [json.loads(line) for line in records(self.path("again"))][-1]
        self.assertEqual((announced["kind"], announced["detail"]["key"], announced["detail"]["keyBefore"]), ("restored", new, old))
        self.on(p, "again")
        self.assertNotEqual(p.secret("webhook-token"), token)
        self.assertEqual(p.post_alerts(alert("After"))[0], 202)
        p.stop()
        report = self.verified(p.data)
        self.assertEqual((report["firstBad"], report["unsealed"], report["lateSeals"]), (0, 0, []))
        self.assertEqual(len(report["restores"]), 1)
        # The past is still proved by the old key, which its owner may have kept elsewhere.
        before, kept = self.path("again/" + told["before"]), self.path("kept.pub")
        with open(kept, "w") as f:
            f.write(old + "\n")
        code, text, error = balm("audit", "verify", "--data", p.data, "--before", before, "--public-key", kept)
        self.assertEqual(code, 0, text + error)
        self.assertIn(f"genuine and complete up to record {told['last']}", text)
        self.assertIn("restored     record ", text)
        self.assertEqual(balm("audit", "verify", "--data", p.data, "--public-key", kept)[0], 1)
        tamper(p.data, "Fill7", "Fall7")
        self.assertEqual(balm("audit", "verify", "--data", p.data, "--before", before)[0], 1)
        tamper(p.data, "Fall7", "Fill7")
        # And it can be backed up again, the old signatures as well.
        self.backup(p, "c")
        self.assertEqual(len([name for name in files_of(self.path("c")) if "/before-" in name]), 2)


class Damaged(BackupTest):
    def refused(self, name, words, to="again"):
        code, text, error = balm("restore", self.path(name), "--data", self.path(to))
        self.assertEqual((code, text), (1, ""), error)
        self.assertEqual(error.count("\n"), 1, error)
        self.assertIn(words, error)
        self.assertFalse(os.path.exists(self.path(to)), error)
        self.assertFalse(os.path.exists(self.path(to) + ".partial"), error)
        return error

    def test_one_flipped_byte_in_any_file_is_found(self):
        p = self.filled(2, stack=stack_file("echo"))
        busy.secret(p, "some-secret", "s3cret")
        p.request("POST", "/system/functions", {"service": "more", "image": "echo:latest"}, p.basic())
        self.backup(p, "b")
        p.stop()
        names = files_of(self.path("b"))
        self.assertTrue({"backup.json", "audit/key", "audit/key.pub", "audit/leaves", "audit/checkpoints", "functions/more.json",
                         "journal/00000000000000000001.db", "secrets/webhook-token", "secrets/functions/some-secret"} <= set(names), names)
        chance = random.Random(7)
        for name in names:
            path = self.path(f"b/{name}")
            with open(path, "rb") as f:
                whole = f.read()
            for at in {0, len(whole) // 2, len(whole) - 1, chance.randrange(len(whole))} if whole else ():
                with self.subTest(file=name, at=at):
                    with open(path, "wb") as f:
                        f.write(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1:])
                    self.refused("b", name)
            with open(path, "wb") as f:
                f.write(whole[:-1])
            self.refused("b", name)
            os.unlink(path)
            if name == "backup.json":
                code, _, error = balm("restore", self.path("b"), "--data", self.path("again"))
                self.assertEqual(code, 3)
                self.assertIn("is no backup", error)
            else:
                self.refused("b", name + " is missing")
            with open(path, "wb") as f:
                f.write(whole)
        self.assertEqual(self.restore("b", "again")["first"], 1)

    def test_what_the_manifest_must_not_say(self):
        p = self.filled(1)
        self.backup(p, "b")
        p.stop()
        rewrite_manifest(self.path("b"), lambda m: None)
        self.assertEqual(self.restore("b", "first")["first"], 1)
        for path in ("../../etc/passwd", "/etc/passwd", "journal/../../x", "journal", "run/x", "", "journal//x"):
            rewrite_manifest(self.path("b"), lambda m: m["files"][0].update(path=path))
            self.refused("b", f"lists '{path}', which no backup has")
        shutil.rmtree(self.path("b"))
        p.data = self.path("first")
        self.backup(p, "b")
        rewrite_manifest(self.path("b"), lambda m: m.update(root="0" * 64))
        self.refused("b", "backup.json says " + "0" * 64)
        rewrite_manifest(self.path("b"), lambda m: m.update(format=2, balm="9.9.9"))
        self.assertIn("has format 2, made by balm 9.9.9; this is balm ", self.refused("b", "which reads up to 1"))

    def test_a_log_that_is_not_the_sealed_one_is_not_backed_up(self):
        p = self.filled(1)
        wait_until(lambda: json.loads(p.cli("audit", "verify", "--json")[1])["unsealed"] == 0, 20, "all is sealed")
        p.stop()
        self.refolds = False
        tamper(p.data, "Fill7", "Fall7")
        code, text, error = balm("backup", self.path("b"), "--data", p.data)
        self.assertEqual((code, text), (1, ""))
        self.assertIn("nothing was kept: its log is not the one that was sealed, from record ", error)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("b")], [])


class CutShort(BackupTest):
    def cut(self, command, partial, event):
        """Kills the command once event(partial) is true; False if it was over before."""
        process = subprocess.Popen([BALM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None and not event(partial):
                pass
            over = process.poll() is not None
        finally:
            process.kill()
            process.wait()
        return not over

    def test_kill_9_leaves_nothing_half_under_the_name(self):
        p = self.filled(100)
        events = [os.path.isdir, lambda d: os.path.exists(f"{d}/journal/next.tmp"), lambda d: glob.glob(f"{d}/journal/0*.db"),
                  lambda d: os.path.exists(f"{d}/journal/leases.db"), lambda d: os.path.isdir(f"{d}/secrets"),
                  lambda d: os.path.exists(f"{d}/backup.json")]
        n_cut = 0
        for event in events:
            n_cut += self.cut(["backup", self.path("b"), "--data", p.data], self.path("b.partial"), event)
            if os.path.exists(self.path("b")):
                self.assertEqual(self.verified(self.path("b"))["firstBad"], 0)
                shutil.rmtree(self.path("b"))
        self.assertGreaterEqual(n_cut, 4)
        self.backup(p, "b")
        self.assertFalse(os.path.exists(self.path("b.partial")))
        p.stop()
        n_cut = 0
        for event in [os.path.isdir, lambda d: glob.glob(f"{d}/journal/0*.db"), lambda d: os.path.isdir(f"{d}/secrets"),
                      lambda d: glob.glob(f"{d}/journal/*-wal")]:
            n_cut += self.cut(["restore", self.path("b"), "--data", self.path("again")], self.path("again.partial"), event)
            if os.path.exists(self.path("again")):
                shutil.rmtree(self.path("again"))
        self.assertGreaterEqual(n_cut, 2)
        self.restore("b", "again")
        self.assertEqual(sorted(os.listdir(self.folder)), ["again", "b", "data", "runbooks", "shared", "stack.yml"])

    @unittest.skipIf(os.geteuid() != 0, "needs root to mount a small disk")
    def test_a_full_disk_is_one_sentence_and_leaves_nothing(self):
        p = self.filled(60)
        small = self.path("small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k,mode=700", "none", small], capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs is not allowed here")
        self.addCleanup(subprocess.run, ["umount", small], capture_output=True)
        code, text, error = balm("backup", os.path.join(small, "b"), "--data", p.data)
        self.assertEqual((code, text), (1, ""))
        self.assertIn("No space left on device", error)
        self.assertEqual(error.count("\n"), 1, error)
        self.assertEqual(os.listdir(small), [])
        self.backup(p, "b")
        code, text, error = balm("restore", self.path("b"), "--data", os.path.join(small, "again"))
        self.assertEqual((code, text), (1, ""))
        self.assertIn("No space left on device", error)
        self.assertEqual(os.listdir(small), [])
        code, _, error = balm("backup", small, "--data", p.data)
        self.assertEqual(code, 1)
        self.assertIn("is a mount point", error)

    @unittest.skipIf(os.geteuid() != 0, "needs root to become nobody")
    def test_what_may_not_be_read_is_named(self):
        p = self.filled(1)
        p.stop()
        out = self.path("out")
        os.mkdir(out)
        for at, _, names in os.walk(self.folder):
            for path in [at] + [os.path.join(at, name) for name in names]:
                os.chown(path, 65534, 65534)
        for name in ("secrets/webhook-token", "audit/key", "audit/leaves", "journal/00000000000000000001.db", "journal/leases.db"):
            path = os.path.join(p.data, name)
            os.chmod(path, 0)
            code, text, error = balm("backup", os.path.join(out, "b"), "--data", p.data, user=65534, group=65534)
            self.assertEqual((code, text), (1, ""), error)
            self.assertIn(path, error)
            self.assertIn("Permission denied", error)
            self.assertEqual(os.listdir(out), [])
            os.chmod(path, 0o600)
        code, _, error = balm("backup", os.path.join(out, "b"), "--data", p.data, user=65534, group=65534)
        self.assertEqual(code, 0, error)


class Refused(BackupTest):
    def test_bad_places_are_one_sentence_and_nothing_is_written(self):
        p = self.filled(1)
        self.backup(p, "b")
        os.mkdir(self.path("full"))
        with open(self.path("full/x"), "w"):
            pass
        os.mkdir(self.path("odd.partial"))
        with open(self.path("odd.partial/letter.txt"), "w"):
            pass
        before = hashes(self.path("b"))
        cases = [
            (1, ["backup", self.path("full"), "--data", p.data], "is not empty"),
            (1, ["backup", self.path("full/x"), "--data", p.data], "exists and is no folder"),
            (1, ["backup", self.path("odd"), "--data", p.data], "holds what is not ours"),
            (3, ["backup", self.path("none/b"), "--data", p.data], "No such file or directory"),
            (3, ["backup", self.path("c"), "--data", self.path("full")], "there is no journal in it"),
            (3, ["backup", self.path("c"), "--data", self.path("none")], "there is no journal in it"),
            (1, ["backup", self.path("c"), "--data", self.path("b")], "is a backup itself"),
            (2, ["backup", os.path.join(p.data, "b"), "--data", p.data], "lies in the data folder"),
            (2, ["backup", "--data", p.data], "say one folder"),
            (2, ["backup", self.path("c"), "--with-secrets"], "did you mean --without-secrets"),
            (1, ["restore", self.path("b"), "--data", p.data], f"is in use by a running balm (pid {p.process.pid}"),
            (1, ["restore", self.path("b"), "--data", self.path("full")], "is not empty"),
            (3, ["restore", self.path("full"), "--data", self.path("c")], "is no backup"),
            (3, ["restore", self.path("none"), "--data", self.path("c")], "is no backup"),
            (2, ["restore", "--data", self.path("c")], "say one folder that balm backup made"),
            (1, ["up", "-f", p.stack, "--data", self.path("b"), "--port", "0"], "is a backup: balm restore makes a data folder of it"),
        ]
        for code, command, words in cases:
            with self.subTest(command=command):
                got, text, error = balm(*command)
                self.assertEqual((got, text), (code, ""), error)
                self.assertIn(words, error)
                self.assertEqual(error.count("\n"), 1, error)
        self.assertEqual(hashes(self.path("b")), before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["b", "data", "full", "odd.partial", "runbooks", "shared", "stack.yml"])

    def test_an_empty_folder_a_link_and_two_at_once(self):
        p = self.filled(1)
        os.mkdir(self.path("real"))
        os.symlink("real", self.path("link"))
        self.backup(p, "link/")
        self.assertTrue(os.path.islink(self.path("link")))
        self.assertIn("backup.json", os.listdir(self.path("real")))
        both = [subprocess.Popen([BALM, "backup", self.path("b"), "--data", p.data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for _ in range(2)]
        told = [process.communicate() for process in both]
        codes = sorted(process.returncode for process in both)
        self.assertEqual(codes, [0, 1], told)
        self.assertEqual(self.verified(self.path("b"))["firstBad"], 0)

    def test_what_belongs_to_one_process_stays_behind_and_the_newest_snapshot_goes_along(self):
        p = self.filled(1)
        os.makedirs(os.path.join(p.data, "snapshots"), exist_ok=True)
        for name in ("snapshots/00000000000000000009.snapshot", "snapshots/00000000000000000030.snapshot", "snapshots/next.tmp", "reserve"):
            with open(os.path.join(p.data, name), "w") as f:
                f.write(name)
        self.backup(p, "b")
        found = files_of(self.path("b"))
        self.assertEqual([name for name in found if name.startswith("snapshots")], ["snapshots/00000000000000000030.snapshot"])
        self.assertEqual({name.split("/")[0] for name in found}, {"audit", "backup.json", "journal", "secrets", "snapshots"})
        self.assertTrue({"lock", "run", "run.json"} <= set(os.listdir(p.data)))

    def test_a_backup_is_private_and_can_be_verified_where_nothing_can_be_written(self):
        p = self.filled(1)
        self.backup(p, "b")
        for at, folders, names in os.walk(self.path("b")):
            self.assertEqual(os.stat(at).st_mode & 0o777, 0o700, at)
            for name in names:
                self.assertEqual(os.stat(os.path.join(at, name)).st_mode & 0o777, 0o600, name)
        before = hashes(self.path("b"))
        self.verified(self.path("b"))
        self.assertEqual(hashes(self.path("b")), before, "verifying leaves no trace")


if __name__ == "__main__":
    main()
