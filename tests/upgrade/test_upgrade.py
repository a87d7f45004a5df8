"""Every release's state is opened by today's binary and goes on; a newer one's is refused and left as it is.

A state is tests/upgrade/VERSION/, made by make.py of that version. What its own commands said is what today's must say; members may have been
added to an answer since, none may be missing or another.
"""
import glob
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))

import busy  # noqa: E402
import make  # noqa: E402
from harness import alert, main  # noqa: E402
from test_backup import BackupTest, Receiver, balm, hashes, records, rewrite_manifest  # noqa: E402

VERSIONS = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(HERE, "*", "state.tar.gz")))


def differences(expected, got, where=""):
    """What of `expected` is not in `got`; objects may have more members, all else is the same."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return [d for k in expected for d in (differences(expected[k], got[k], f"{where}.{k}") if k in got else [f"{where}.{k} is missing"])]
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return [d for i, e in enumerate(expected) for d in differences(e, got[i], f"{where}[{i}]")]
    return [] if expected == got else [f"{where} is {got!r}, was {expected!r}"]


class UpgradeTest(BackupTest):
    def unpack(self, version):
        folder = os.path.join(self.folder, version)
        with tarfile.open(os.path.join(HERE, version, "state.tar.gz")) as tar:
            tar.extractall(folder)
        for at, _, names in os.walk(folder):
            for path in [at] + [os.path.join(at, name) for name in names]:
                os.chown(path, os.geteuid(), os.getegid())
        with open(os.path.join(HERE, version, "expected.json")) as f:
            return folder, json.load(f)

    def opened(self, folder):
        self.folder, before = folder, self.folder
        p = self.platform(start=False, stack=make.STACK)
        self.folder = before
        return p

    def same(self, expected, got, what):
        self.assertEqual(differences(expected, got), [], what)


class Opens(UpgradeTest):
    def answers(self, p, expected):
        """From the disk."""
        found = make.expected(p)
        for part in ("records", "verify", "refold", "why"):
            self.same(expected[part], found[part], part)

    def goes_on(self, p, expected, n_known):
        known = records(p.data)
        receiver = Receiver()
        receiver.answers.set()
        self.addCleanup(receiver.close)
        busy.secret(p, "notify-url", f"http://127.0.0.1:{receiver.port}/hook")
        p.start()
        self.same({k: expected[k] for k in ("status", "functions")}, make.status(p), "status")
        self.assertEqual(p.post_alerts(alert("Tell", who="new"))[0], 202)
        self.assertEqual(p.wait_record("refusal", target="person/new")["gate"], "freeze")
        self.assertEqual(p.cli("resume")[0], 0)
        p.wait_record("outcome", target="person/new", state="done")
        self.assertEqual(p.stop(), 0)
        after = records(p.data)
        self.assertEqual(len(known), n_known)
        self.assertEqual(after[:n_known], known)
        self.assertGreater(len(after), n_known + 3)
        report = self.verified(p.data)
        self.assertEqual((report["records"], report["unsealed"], report["lateSeals"]), (len(after), 0, []))

    def test_every_release_has_a_state(self):
        self.assertIn(json.loads(balm("version", "--json")[1])["version"], VERSIONS, "run tests/upgrade/make.py and commit what it makes")

    def test_the_state_of_every_release(self):
        for version in VERSIONS:
            with self.subTest(version=version):
                folder, expected = self.unpack(version)
                p = self.opened(folder)
                self.answers(p, expected)
                self.goes_on(p, expected, len(expected["records"]))

    def test_a_backup_of_every_release(self):
        for version in VERSIONS:
            with self.subTest(version=version):
                folder, expected = self.unpack(version)
                shutil.rmtree(os.path.join(folder, "data"))
                code, _, error = balm("restore", os.path.join(folder, "backup"), "--data", os.path.join(folder, "data"))
                self.assertEqual(code, 0, error)
                self.goes_on(self.opened(folder), expected, len(expected["records"]) + 1)


class Refuses(UpgradeTest):
    """The state of the newest release, as one that comes after it would leave it."""

    refolds = False

    def state(self):
        folder, _ = self.unpack(VERSIONS[-1])
        return folder

    def kept(self, folder):
        """What must not change: everything but SQLite's own memory of who reads, which a reader may make and is no state."""
        return {name: digest for name, digest in hashes(folder).items()
                if not name.endswith("-shm") and not (name.endswith("-wal") and os.path.getsize(os.path.join(folder, name)) == 0)}

    def refused(self, folder, commands, *words):
        before = self.kept(folder)
        for command in commands:
            with self.subTest(command=command[0], words=words):
                code, text, error = balm(*command)
                line = error.splitlines()[-1] if error else ""
                self.assertEqual((code, text), (1, ""), error)
                self.assertNotIn("ready", error)
                for word in words:
                    self.assertIn(word, line)
                self.assertEqual(error.count("\n"), 1, error)
                self.assertEqual(self.kept(folder), before)

    def commands(self, folder):
        data, stack = os.path.join(folder, "data"), os.path.join(self.folder, "stack.yml")
        with open(stack, "w") as f:
            f.write(make.STACK)
        return [["up", "-f", stack, "--data", data, "--port", "0", "--runbooks", os.path.join(folder, "runbooks")],
                ["audit", "cat", "--data", data], ["why", "last", "--data", data], ["backup", os.path.join(self.folder, "b"), "--data", data]]

    def change(self, folder, sql, *values):
        """Left in the WAL, as by a balm that was killed."""
        path = os.path.join(folder, "data", "journal", "00000000000000000001.db")
        code = "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.execute(sys.argv[2], sys.argv[3:])\ndb.commit()\nos._exit(0)\n"
        subprocess.run([sys.executable, "-c", code, path, sql, *values], check=True, timeout=60)

    def test_a_journal_of_a_newer_format(self):
        folder = self.state()
        path = os.path.join(folder, "data", "journal", "00000000000000000001.db")
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        self.refused(folder, self.commands(folder) + [["audit", "verify", "--data", os.path.join(folder, "data")]], "format 99", "reads up to 1")
        self.assertEqual(os.path.exists(os.path.join(folder, "data", "lock")), False)

    def test_a_record_of_a_newer_format(self):
        folder = self.state()
        self.change(folder, "INSERT INTO records SELECT max(seq) + 1, CAST(replace(CAST(bytes AS TEXT), '\"format\":1', '\"format\":77') AS BLOB) "
                            "FROM records WHERE seq = (SELECT max(seq) FROM records)")
        wal = os.path.join(folder, "data", "journal", "00000000000000000001.db-wal")
        self.assertGreater(os.path.getsize(wal), 0)
        self.refused(folder, self.commands(folder)[:1], "format 77", "reads up to 1")
        self.refused(folder, [["why", "last", "--data", os.path.join(folder, "data")]], "format 77", "reads up to 1")
        self.assertEqual(os.path.exists(os.path.join(folder, "data", "lock")), False)

    def test_a_record_of_a_newer_kind(self):
        folder = self.state()
        self.change(folder, "INSERT INTO records SELECT max(seq) + 1, CAST(replace(CAST(bytes AS TEXT), '\"kind\":\"', '\"kind\":\"later-') AS BLOB) "
                            "FROM records WHERE seq = (SELECT max(seq) FROM records)")
        self.refused(folder, self.commands(folder)[:1], "kind that this version does not know", "balm ")

    def test_a_backup_of_a_newer_format(self):
        folder = self.state()
        rewrite_manifest(os.path.join(folder, "backup"), lambda m: m.update(format=99, balm="99.0.0"))
        self.refused(folder, [["restore", os.path.join(folder, "backup"), "--data", os.path.join(self.folder, "again")]],
                     "format 99", "made by balm 99.0.0", "reads up to 1")
        self.assertFalse(os.path.exists(os.path.join(self.folder, "again")))


if __name__ == "__main__":
    main()
