"""Functions that try to get out, of a platform that root runs and of one that an ordinary user runs: each attempt must fail, and what functions need must
work. breakout.py makes the attempts."""
import ctypes
import glob
import json
import os
import shutil
import socket
import subprocess
import unittest

from harness import BUILD, PATIENCE, PYTHON, ROOT, Platform, PlatformTest, alert, main, stack_file, wait_until

ORDINARY = 61234  # a user that nobody is
BREAKOUT = os.path.join(ROOT, "tests", "integration", "breakout.py")
REFUSED = ("Permission denied", "Operation not permitted")
MARK = "a-variable-of-the-platform"
LITTER = [f"{folder}/balm-breakout" for folder in ("/tmp", "/var/tmp", "/dev/shm", "/etc")]
CLEAN = """name: clean
match: ['alertname="Full"']
target: disk/x
mode: act
steps:
  - bot: disk-clean
    with: {root: ROOT, older_than: 1m}
    verify: check
"""


class OrdinaryPlatform(Platform):
    """Run by a user of no rights at all, as somebody would at home."""

    def command(self):
        return ["setpriv", "--reuid", str(ORDINARY), "--regid", str(ORDINARY), "--clear-groups", "--"] + super().command()


def landlock_abi():
    return max(ctypes.CDLL(None).syscall(ctypes.c_long(444), 0, 0, 1), 0)


class IsolationTest(PlatformTest):
    kind, refolds = Platform, False

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can be both root and an ordinary user")
        os.chmod(self.folder, 0o755)
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        for name in ("echo", "disk-clean"):
            shutil.copy(os.path.join(BUILD, "functions", name), self.functions)
        shutil.copy(BREAKOUT, self.functions)
        self.setuid_id = os.path.join(self.functions, "setuid-id")
        shutil.copy("/usr/bin/id", self.setuid_id)
        os.chmod(self.setuid_id, 0o4755)

    def start(self, stack, **more):
        p = self.kind(self.folder, stack=stack, functions=self.functions, env={"BALM_TEST_MARK": MARK}, **more)
        os.mkdir(p.data)
        if self.kind is OrdinaryPlatform:
            os.chown(p.data, ORDINARY, ORDINARY)
            if subprocess.run(["setpriv", "--reuid", str(ORDINARY), "--clear-groups", "--regid", str(ORDINARY), "test", "-x", os.path.join(BUILD, "balm")],
                              check=False).returncode != 0:
                self.skipTest(f"an ordinary user may not run {BUILD}/balm")
        self.platforms.append(p)
        self.addCleanup(self._end, p)
        self.p = p.start()
        return p

    def deploy(self, name, code=202, **more):
        body = {"service": name, "image": "any", **more}
        status, _, text = self.p.request("POST", "/system/functions", body, self.p.basic(), timeout=40)
        self.assertEqual(status, code, text.decode() + self.p.log_text())
        return text.decode()

    def deploy_breakout(self, name="breakout", **more):
        self.deploy(name, envProcess=f"{PYTHON} {self.functions}/breakout.py", **more)

    def ask(self, targets, name="breakout"):
        status, _, text = self.p.request("POST", "/function/" + name, targets, timeout=60)
        self.assertEqual(status, 200, text.decode() + self.p.log_text())
        return json.loads(text)

    def assert_refused(self, got):
        self.assertGreater(len(got), 0)
        done = {k: v for k, v in got.items() if v == "done"}
        self.assertEqual(done, {}, json.dumps(got, indent=1))

    def secret(self, name, value="shhh"):
        status, _, text = self.p.request("POST", "/system/secrets", {"name": name, "value": value}, self.p.basic())
        self.assertIn(status, (200, 201, 202), text)

    def processes_of(self, executable):
        found = []
        for path in glob.glob("/proc/[0-9]*/exe"):
            try:
                if os.readlink(path) == os.path.join(self.functions, executable):
                    found.append(int(path.split("/")[2]))
            except OSError:
                pass
        return found


class AsRoot(IsolationTest):
    """Every attempt against the platform and a neighbour, who has a secret and a process."""

    def start_with_victim(self):
        p = self.start(stack_file("echo"))
        self.secret("token")
        self.deploy("victim", image="echo", secrets=["token"])
        self.assertEqual(p.request("POST", "/function/victim", "x")[0], 200)
        self.victim = wait_until(lambda: self.processes_of("echo"), 10, "a process of the victim")[0]
        with open(f"/proc/{self.victim}/environ") as f:
            environment = dict(item.split("=", 1) for item in f.read().split("\0") if item)
        self.secrets_of_victim, self.temp_of_victim = environment["secret_mount_path"], environment["TMPDIR"]
        self.assertTrue(os.path.exists(self.secrets_of_victim + "/token"))
        self.deploy_breakout()
        return p

    def test_nothing_of_the_platform_or_of_a_neighbour_is_within_reach(self):
        p = self.start_with_victim()
        abstract = socket.socket(socket.AF_UNIX)
        self.addCleanup(abstract.close)
        abstract.bind("\0balm-test-%d" % os.getpid())
        abstract.listen()
        self.addCleanup(self.sweep)
        journal = glob.glob(p.data + "/journal/*")
        sockets = glob.glob(p.data + "/run/*.sock")
        self.assertTrue(journal and sockets)
        with open(f"/proc/{self.victim}/stat") as f:
            shim = int(f.read().rsplit(")", 1)[1].split()[1])
        answer = self.ask({
            "secret": [self.secrets_of_victim + "/token", p.data + "/secrets/functions/token"],
            "journal": journal, "password": [p.data + "/secrets/" + name for name in ("basic-auth-password", "invocation-key", "webhook-token")],
            "memory": [f"/proc/{pid}/mem" for pid in (self.victim, p.process.pid)],
            "environ": [f"/proc/{pid}/environ" for pid in (self.victim, p.process.pid, shim)],
            "root_of": [os.path.join("/proc", str(self.victim), "root", "etc", "hostname")],
            "folders": [p.data, p.data + "/run", os.path.dirname(self.secrets_of_victim), self.secrets_of_victim, self.temp_of_victim,
                        os.path.dirname(self.temp_of_victim), "/root", "/home", "/tmp"],
            "writes": [*LITTER, self.folder + "/x", self.functions + "/breakout.py", p.data + "/x", self.temp_of_victim + "/x",
                       "/proc/sys/kernel/domainname"],
            "pids": [p.process.pid, self.victim, shim, 1],
            "sockets": sockets, "abstract": ["balm-test-%d" % os.getpid()], "setuid": [self.setuid_id, "/usr/bin/id"], "uids": [0, 1, ORDINARY + 1],
        })
        got = answer["got"]
        if "ASAN_OPTIONS" in os.environ:
            del got["call ptrace"]  # a sanitizer's leak checker traces itself; nobody else, see "trace"
        self.assert_refused(got)
        for name in [k for k in got if k.startswith("call ")]:
            self.assertEqual(got[name], "Operation not permitted", name)
        self.assertEqual(os.listdir(self.temp_of_victim), [])
        self.assertEqual([path for path in LITTER if os.path.exists(path)], [])

    @staticmethod
    def sweep():
        for path in LITTER:
            if os.path.exists(path):
                os.unlink(path)

    def test_a_process_has_what_it_needs_and_no_more(self):
        self.start_with_victim()
        facts = self.ask({"keep": True})["facts"]
        self.assertEqual((facts["temporary"], facts["inet"], facts["core"][1], facts["clone3"]), (True, True, 1, "Function not implemented"))
        self.assertEqual(facts["groups"], [])
        self.assertTrue(0 < facts["processes"] <= 4096, facts["processes"])  # -1: any number
        zero = {name: "0000000000000000" for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        self.assertEqual({k: facts["status"][k] for k in zero}, zero)
        self.assertEqual((facts["status"]["NoNewPrivs"], facts["status"]["Seccomp"]), ("1", "2"))
        self.assertLessEqual({int(fd) for fd in facts["fds"]}, {0, 1, 2, 3})  # 3: the listing itself
        self.assertNotIn(MARK, json.dumps(facts["environment"]))
        self.assertNotIn(self.p.secret("basic-auth-password"), json.dumps(facts["environment"]))
        self.check_user(facts)
        self.assertTrue(os.path.exists(facts["kept"]))
        self.assertEqual(os.stat(os.path.dirname(facts["kept"])).st_mode & 0o777, 0o700)
        self.assertEqual(self.p.request("DELETE", "/system/functions", {"functionName": "breakout"}, self.p.basic())[0], 202)
        wait_until(lambda: not os.path.exists(os.path.dirname(facts["kept"])), 30, "its temporary folder is removed")

    def check_user(self, facts):
        self.assertEqual((facts["uid"], facts["gid"]), (facts["uid"], facts["uid"]))
        self.assertTrue(50000 <= facts["uid"] <= 59999, facts["uid"])
        self.assertEqual(facts["status"]["CapBnd"], "0000000000000000")
        self.assertNotEqual(facts["uid"], os.stat(f"/proc/{self.victim}").st_uid)
        self.assertEqual(os.stat(self.secrets_of_victim + "/token").st_mode & 0o777, 0o440)
        self.p.stop()
        self.p.start()  # it stays the same user
        self.deploy_breakout("other")
        self.assertEqual(self.ask({"keep": True})["facts"]["uid"], facts["uid"])
        self.assertNotEqual(self.ask({}, "other")["facts"]["uid"], facts["uid"])
        facts.update(self.ask({"keep": True})["facts"])

    def test_a_native_function_has_its_descriptors_and_no_others(self):
        self.start_with_victim()
        fds = {}
        for fd in os.listdir(f"/proc/{self.victim}/fd"):
            try:
                fds[int(fd)] = os.readlink(f"/proc/{self.victim}/fd/{fd}")
            except FileNotFoundError:
                pass
        with open(f"/proc/{self.victim}/stat") as f:
            shim = int(f.read().rsplit(")", 1)[1].split()[1])
        lifeline = os.readlink(f"/proc/{shim}/fd/5")
        self.assertNotIn(lifeline, fds.values())
        self.assertEqual([t for t in fds.values() if t.startswith("/") and t not in ("/dev/null", "/memfd:manifest (deleted)")], [])
        with open(f"/proc/{self.victim}/status") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines())
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"], status["CapEff"]), ("1", "2", "0000000000000000"))

    def test_paths_that_a_deployment_names_are_given_and_no_others(self):
        p = self.start(stack_file("echo"))
        for name in ("in", "out", "else"):
            os.mkdir(os.path.join(self.folder, name))
            os.chmod(os.path.join(self.folder, name), 0o777)
        with open(self.folder + "/in/x", "w") as f:
            f.write("x")
        self.deploy_breakout(annotations={"balm.dev/read-paths": self.folder + "/in", "balm.dev/write-paths": self.folder + "/out"})
        got = self.ask({"journal": [self.folder + "/in/x"], "writes": [self.folder + "/in/x", self.folder + "/out/x", self.folder + "/else/x"]})["got"]
        self.assertEqual(got[f"read {self.folder}/in/x"], "done")
        self.assertEqual(got[f"write {self.folder}/out/x"], "done")
        self.assertIn(got[f"write {self.folder}/in/x"], REFUSED)
        self.assertIn(got[f"write {self.folder}/else/x"], REFUSED)
        os.symlink(p.data, self.folder + "/link")
        for path in (self.folder, p.data, p.data + "/secrets", "/", self.folder + "/link"):
            for annotation in ("balm.dev/read-paths", "balm.dev/write-paths"):
                text = self.deploy("greedy", 400, envProcess="true", annotations={annotation: path})
                self.assertIn("would open the platform's own folder", text)
        self.assertIn("no absolute path", self.deploy("vague", 400, envProcess="true", annotations={"balm.dev/read-paths": "in"}))

    def clean(self, root, days):
        old = os.path.join(root, "old")
        with open(old, "w") as f:
            f.write("x" * 5000)
        os.utime(old, (0, os.stat(old).st_mtime - days * 86400))
        return old

    def test_disk_clean_removes_below_its_roots_whoever_owns_them(self):
        root = os.path.join(self.folder, "junk")
        os.mkdir(root)
        old = self.clean(root, 9)
        owner = ORDINARY if self.kind is OrdinaryPlatform else ORDINARY + 7
        os.chown(root, owner, owner)
        os.chown(old, owner, owner)
        os.chmod(root, 0o700)
        stack = stack_file("disk-clean").replace("image: disk-clean:latest\n", f"image: disk-clean:latest\n    environment: {{disk_clean_roots: {root}}}\n")
        p = self.start(stack, runbooks={"clean.yaml": CLEAN.replace("ROOT", root)})
        self.assertEqual(p.post_alerts(alert("Full"))[0], 202)
        outcome = p.wait_record("outcome", seconds=40)
        self.assertEqual((outcome["state"], outcome["detail"]["filesRemoved"]), ("done", 1), outcome)
        self.assertFalse(os.path.exists(old))
        self.check_cleaner(self.processes_of("disk-clean"))

    def check_cleaner(self, pids):
        with open(f"/proc/{pids[0]}/status") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines())
        self.assertEqual(int(status["CapEff"], 16), 1 << 1 | 1 << 3 | 1 << 28)  # CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_LEASE
        self.assertNotEqual(status["Uid"].split()[0], "0")

    def test_disk_clean_is_refused_a_root_that_holds_the_journal(self):
        p = self.start(stack_file("echo"))
        for root in (self.folder, p.data + "/journal"):
            text = self.deploy("cleaner", 400, image="disk-clean", envVars={"disk_clean_roots": root})
            self.assertIn("would open the platform's own folder", text)


class AsAnOrdinaryUser(AsRoot):
    kind = OrdinaryPlatform

    def check_user(self, facts):
        self.assertEqual((facts["uid"], facts["gid"]), (ORDINARY, ORDINARY))
        shared = {**facts["of user"], "priority of all": facts["priority of all"]}
        self.assertEqual(set(shared.values()), {"Operation not permitted"}, shared)

    def check_cleaner(self, pids):
        with open(f"/proc/{pids[0]}/status") as f:
            self.assertIn("CapEff:\t0000000000000000", f.read())

    def test_it_says_so(self):
        p = self.start(stack_file("echo"))
        isolation = json.loads(p.request("GET", "/system/info", headers=p.basic())[2])["isolation"]
        self.assertEqual((isolation["ownUser"], isolation["noOwnUser"]), (False, "the platform does not run as root"))
        code, text, _ = p.cli("doctor")
        self.assertIn("functions run as the platform's user: the platform does not run as root", text)


@unittest.skipIf(os.geteuid() != 0, "needs root")
class Confined(unittest.TestCase):
    """The shim alone: what passes over modes is held to its folder by Landlock."""

    def test_rights_over_files_count_below_the_root_alone(self):
        p = PlatformTest()
        p.setUp()
        self.addCleanup(p.doCleanups)
        os.chmod(p.folder, 0o755)
        root, other = os.path.join(p.folder, "root"), os.path.join(p.folder, "other")
        for path in (root, other):
            os.mkdir(path)
            with open(path + "/x", "w") as f:
                f.write("x")
            os.chmod(path, 0o700)
        script = shutil.copy(BREAKOUT, p.folder)
        shim = [os.path.join(BUILD, "balm-shim"), "--confined", "-u", "51999", "-l", str(landlock_abi()), "-s", "-d", root, "-r", script, "--", PYTHON, script]
        targets = {"secret": [root + "/x"], "journal": [other + "/x", "/etc/shadow"], "writes": [root + "/x", root + "/y", other + "/x"],
                   "removes": [root + "/x", other + "/x"]}
        done = subprocess.run(shim, input=json.dumps(targets), capture_output=True, text=True, timeout=60 * PATIENCE, env={"TMPDIR": p.folder}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        got = json.loads(done.stdout)["got"]
        worked = [k for k, v in got.items() if v == "done"]
        self.assertEqual(worked, [f"read {root}/x", f"remove {root}/x"], done.stdout)


if __name__ == "__main__":
    main()
