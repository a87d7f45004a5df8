#!/usr/bin/env python3
"""The package on a machine of its own: `make e2e-systemd`.

A Debian with systemd as PID 1 is booted by systemd-nspawn without a network. The .deb is installed there, a real unit is killed and revived by an
alert, the port speaks TLS, the platform itself is killed, upgraded, removed and purged. The Debian is made once by debootstrap and kept in
${XDG_CACHE_HOME:-~/.cache}/balm/systemd; each run works on a copy. Where this machine cannot do it, the test says why and is skipped.
"""
import contextlib
import ctypes
import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from faas import FAAS_CLI  # noqa: E402
from harness import BUILD, alert, request, wait_until, webhook  # noqa: E402
from pki import Authority  # noqa: E402

NEWER = "9.0.0"  # than whatever is in runtime/base/version.h
CLONE_NEWNET, CAP_SYS_RESOURCE = 0x40000000, 24  # linux/sched.h, linux/capability.h
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"  # systemd-nspawn keeps them from what it boots
EXPOSURE_MAX = 3.5  # of systemd-analyze security, 0 (none) to 10: a root service without sandbox has 9.6
RUNBOOK = """name: revive-nginx
match: ['alertname="NginxDown"']
target: service/${labels.service}
mode: act
steps:
  - bot: service-restart
    with: {unit: "${labels.service}"}
    verify: {resolve: {within: 5m}}
"""
CLEAN = """name: clean-tmp
match: ['alertname="DiskFull"']
target: disk/tmp
mode: act
steps:
  - bot: disk-clean
    with: {root: /var/tmp/spool, older_than: 24h}
    verify: check
"""
HOST_ACTS = "services:\n  nginx:\n    functions: [service-restart]\n    unit: nginx.service\n"


class Unavailable(Exception):
    """It cannot be done here; the sentence says why."""


def say(text):
    print(text, flush=True)


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=900, **kwargs)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:3])} …: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


# ---- packages ----

def make_deb(build, **env):
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "--no-print-directory", "-j2", f"B={os.path.relpath(build, ROOT)}", "deb"], cwd=ROOT, env=dict(clean, **env),
                          capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise AssertionError(done.stdout[-2000:] + done.stderr[-2000:])
    return os.path.join(ROOT, done.stdout.splitlines()[-1])


def newer_deb():
    """A rebuild of all that knows the version, from a copy of the objects."""
    build = os.path.join(BUILD, "e2e-newer")
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree(os.path.join(BUILD, "obj"), os.path.join(build, "obj"), ignore=shutil.ignore_patterns("tests"))
    for rule in glob.glob(os.path.join(build, "obj", "**", "*.d"), recursive=True):
        with open(rule) as f:
            if "runtime/base/version.h" in f.read():
                os.unlink(rule[:-2] + ".o")
        os.unlink(rule)  # it names the objects it was copied from
    try:
        return make_deb(build, CPPFLAGS=f"-DBALM_VERSION='\"{NEWER}\"'")
    finally:
        shutil.rmtree(os.path.join(build, "obj"), ignore_errors=True)


# ---- the machine ----

def apt_source():
    """(codename, address) that apt here uses for Debian itself."""
    with open("/etc/os-release") as f:
        found = re.search(r"^VERSION_CODENAME=(\S+)$", f.read(), re.M)
    codename = found.group(1) if found else "stable"
    for line in run("apt-get", "indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(REPO_URI)").splitlines():
        created_by, name, address = line.split(" ", 2)
        if created_by == "Packages" and name == codename:
            return codename, address
    raise Unavailable(f"apt has no source for {codename}")


def base_folder(deb):
    """A Debian with systemd and what the package depends on; made once."""
    codename, address = apt_source()
    depends = run("dpkg-deb", "-f", deb, "Depends")
    packages = sorted({re.split(r"[ (:]", d.strip())[0] for d in depends.split(",")} | {"systemd-sysv", "dbus", "nginx-light", "ca-certificates"})
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "balm", "systemd")
    folder = os.path.join(cache, codename + "-" + hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12])
    if os.path.isdir(folder):
        return folder
    shutil.rmtree(cache, ignore_errors=True)  # of other packages, or half made
    os.makedirs(cache)
    say(f"making    {folder} by debootstrap …")
    began = time.monotonic()
    run("debootstrap", "--variant=minbase", "--include=" + ",".join(packages), codename, folder + ".part", address)
    os.truncate(folder + ".part/etc/machine-id", 0)
    os.rename(folder + ".part", folder)
    say(f"made      in {time.monotonic() - began:.0f} s")
    return folder


class Machine:
    def __init__(self, base):
        self.folder = tempfile.mkdtemp(prefix="balm-systemd-")
        self.root = os.path.join(self.folder, "root")
        run("cp", "-a", "--reflink=auto", base, self.root)
        self.console = os.path.join(self.folder, "console")
        self.process = None

    def boot(self):
        with open(self.console, "wb") as log:
            self.process = subprocess.Popen(["systemd-nspawn", "--boot", "--private-network", "--register=no", "--keep-unit", "--quiet",
                                             f"--system-call-filter={LANDLOCK}",
                                             "-D", self.root], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._is_up, 120, "systemd is up")
        except AssertionError as e:
            with open(self.console, errors="replace") as f:
                last = re.sub(r"\x1b\[[0-9;]*m|[^ -~]", " ", f.read())[-500:]
            raise Unavailable(f"systemd-nspawn does not boot here: {e}: {last}")
        self._enter_network()

    def _is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}")
        self.leader = self._first_process()
        return self.leader and self("systemctl", "is-system-running")[1].strip() in ("running", "degraded")

    def _first_process(self):
        """Its pid here; None while the child of systemd-nspawn is still one that prepares. Commands must never run on this host instead."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            children = f.read().split()
        try:
            with open(f"/proc/{children[0]}/status") as f:
                pids = re.search(r"^NSpid:(.*)", f.read(), re.M).group(1).split()
        except (IndexError, OSError):
            return None
        return int(pids[0]) if len(pids) > 1 and pids[-1] == "1" else None

    def _enter_network(self):
        """From now on loopback, for this program, is the machine's."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.leader}/ns/net") as f:
            if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
                raise Unavailable("setns: " + os.strerror(ctypes.get_errno()))

    def __call__(self, *command, timeout=120):
        """(exit code, stdout, stderr) of a command there."""
        done = subprocess.run(["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--", *command], capture_output=True, text=True,
                              errors="replace", timeout=timeout, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive",
                                                                      "LANG": "C.UTF-8"})
        return done.returncode, done.stdout, done.stderr

    def do(self, *command):
        code, out, err = self(*command)
        if code != 0:
            raise AssertionError(f"{' '.join(command)}: exit {code}\n{out}{err}\n{self('journalctl', '-u', 'balm', '-n', '30', '--no-pager')[1]}")
        return out

    def show(self, unit, name):
        return self("systemctl", "show", "-p", name, "--value", unit)[1].strip()

    def path(self, path):
        return self.root + path

    def read(self, path):
        with open(self.path(path)) as f:
            return f.read()

    def write(self, path, text):
        with open(self.path(path), "w") as f:
            f.write(text)

    def install(self, deb):
        shutil.copy(deb, self.path("/mnt/balm.deb"))
        return self.do("dpkg", "-i", "/mnt/balm.deb")

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self("systemctl", "poweroff")
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Package(unittest.TestCase):
    """One story: each test goes on where the one before it ended."""

    @classmethod
    def setUpClass(cls):
        missing = [tool for tool in ("systemd-nspawn", "debootstrap", "nsenter", "dpkg-deb") if shutil.which(tool) is None]
        try:
            if missing:
                raise Unavailable(", ".join(missing) + " not installed (make deps-systemd)")
            if os.geteuid() != 0:
                raise Unavailable("it takes root to boot a container")
            cls.deb = make_deb(BUILD)
            cls.newer = newer_deb()
            cls.machine = Machine(base_folder(cls.deb))
            cls.addClassCleanup(cls.machine.stop)
            cls.machine.boot()
        except Unavailable as e:
            raise unittest.SkipTest(str(e).replace("'", "`"))  # tests/run.py looks for it between quotes

    def post(self, *alerts):
        token = self.machine.read("/var/lib/balm/secrets/webhook-token").strip()
        return request(8080, "POST", "/function/alerts", webhook(*alerts), {"Authorization": "Bearer " + token, "Content-Type": "application/json"})[0]

    def records(self, *arguments):
        return [json.loads(line) for line in self.machine.do("balm", "audit", "cat", *arguments).splitlines()]

    def wait_record(self, kind, **members):
        return wait_until(lambda: next((r for r in self.records("--kind", kind) if all(r.get(k) == v for k, v in members.items())), None),
                          60, f"{kind} {members}")

    @staticmethod
    def may_protect():
        with open("/proc/self/status") as f:
            return int(re.search(r"^CapEff:\s*(\w+)", f.read(), re.M).group(1), 16) >> CAP_SYS_RESOURCE & 1

    def is_active(self, unit):
        return self.machine("systemctl", "is-active", unit)[1].strip() == "active"

    def pid(self, unit="balm"):
        return int(self.machine.show(unit, "MainPID"))

    def test_1_it_installs_and_runs_protected(self):
        m = self.machine
        m.install(self.deb)
        self.assertTrue(self.is_active("balm"), m("journalctl", "-u", "balm")[1])
        self.assertEqual(m.show("balm", "UnitFileState"), "enabled")
        self.assertEqual(request(8080, "GET", "/healthz")[0], 200)
        self.assertEqual(os.stat(m.path("/var/lib/balm")).st_mode & 0o777, 0o700)
        self.assertEqual(m.show("balm", "MemoryMax"), str(1 << 30))
        self.assertEqual(m.show("balm", "OOMScoreAdjust"), "-900")
        if self.may_protect():
            self.assertEqual(m.do("cat", f"/proc/{self.pid()}/oom_score_adj"), "-900\n")
        else:
            say("not seen  oom_score_adj -900: this machine lacks CAP_SYS_RESOURCE")
        self.assertEqual(request(8080, "POST", "/function/echo", b"x")[0], 200)
        function = m.do("sh", "-c", "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" != /usr/lib/balm/functions/echo ] || cat $p/oom_score_adj; done")
        self.assertEqual(function.split(), ["0"], "a function is not protected")
        status = m.do("sh", "-c", "for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" != /usr/lib/balm/functions/echo ] || cat $p/status; done")
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        self.assertIn(int(fields["Uid"].split()[0]), range(50000, 60000))
        self.assertEqual((fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]), ("0" * 16, "0" * 16, "1"))
        self.assertGreaterEqual(int(fields["Seccomp_filters"]), 2)  # the unit's own, and ours
        checks = {line.split()[1]: line for line in m("balm", "doctor")[1].splitlines() if len(line.split()) > 2}
        for check in ("user", "seccomp", "no_new_privs"):
            self.assertTrue(checks[check].startswith("ok"), checks[check])
        say("isolated  " + "; ".join(checks[check] for check in ("user", "landlock", "limits")))
        self.assertIn("act", m.do("balm", "status"))

    def test_2_the_unit_verifies_and_is_sandboxed(self):
        self.assertEqual(self.machine("systemd-analyze", "verify", "--man=no", "balm.service"), (0, "", ""))
        table = self.machine("systemd-analyze", "security", "--no-pager", "balm.service")[1]
        exposure = re.search(r"Overall exposure level for balm.service: ([\d.]+) (\w+)", table)
        say("security  " + exposure.group(0))
        self.assertLessEqual(float(exposure.group(1)), EXPOSURE_MAX, table)

    def test_3_an_alert_revives_a_unit_through_systemd(self):
        m = self.machine
        m.write("/etc/balm/runbooks/nginx.yaml", RUNBOOK)
        m.write("/etc/balm/host-acts.yaml", HOST_ACTS)
        m.do("systemctl", "reload", "balm")
        self.assertTrue(self.is_active("nginx"))
        before = self.pid("nginx")
        # A worker alone would go on serving; once the first of them is gone, systemd ends what is left.
        m.do("sh", "-c", f"kill -9 $(cat /proc/{before}/task/{before}/children) {before}")
        wait_until(lambda: m.show("nginx", "ActiveState") == "failed", 30, "nginx has failed")
        down = alert("NginxDown", service="nginx")
        self.assertEqual(self.post(down), 202)
        outcome = self.wait_record("outcome", function="service-restart")
        self.assertEqual(outcome["state"], "done", outcome)
        self.assertEqual(outcome["detail"]["manager"], "systemd", outcome)
        self.assertTrue(self.is_active("nginx"))
        self.assertNotEqual(self.pid("nginx"), before)
        self.assertEqual(outcome["detail"]["pid"], self.pid("nginx"))
        self.assertEqual(self.post(dict(down, status="resolved", endsAt=alert("x", "resolved")["endsAt"])), 202)
        self.wait_record("verified", ok=True)
        self.wait_record("closed", state="healed")
        say("revived   " + outcome["message"])
        self.assertEqual(m("balm", "audit", "verify")[0], 0)

    def test_4_the_sandbox_lets_a_bot_clean_and_see_what_is_in_use(self):
        m = self.machine
        m.write("/etc/balm/runbooks/clean.yaml", CLEAN)
        stack = m.read("/etc/balm/stack.yml")
        m.write("/etc/balm/stack.yml", stack.replace("exec_timeout: 2m\n", "exec_timeout: 2m\n      disk_clean_roots: /var/tmp/spool\n", 1))
        m.do("sh", "-c", "install -d -o 65534 -m 700 /var/tmp/spool && cd /var/tmp/spool && echo x >old && echo x >held && "
             "chown 65534 old held && touch -d '3 days ago' old held")
        m.do("systemd-run", "--unit=holder", "--uid=65534", "tail", "-f", "/var/tmp/spool/held")
        m.do("systemctl", "reload", "balm")
        self.assertEqual(self.post(alert("DiskFull")), 202)
        outcome = self.wait_record("outcome", function="disk-clean")
        self.assertEqual((outcome["state"], outcome.get("detail", {}).get("filesRemoved")), ("done", 1), outcome)
        self.assertEqual(os.listdir(m.path("/var/tmp/spool")), ["held"], "of another user, and open")
        m.do("systemctl", "stop", "holder")

    def test_5_a_bad_file_fails_the_reload_and_nothing_else(self):
        m, before = self.machine, self.pid()
        m.write("/etc/balm/runbooks/bad.yaml", "name: bad\nmacth: []\n")
        self.assertNotEqual(m("systemctl", "reload", "balm")[0], 0)
        self.assertIn("bad.yaml:2:1", m("journalctl", "-u", "balm", "--no-pager")[1])
        os.unlink(m.path("/etc/balm/runbooks/bad.yaml"))
        m.do("systemctl", "reload", "balm")
        self.assertEqual((self.pid(), self.is_active("balm")), (before, True))

    # ---- HTTPS ----

    def curl(self, ca, path, login=True):
        """(status, body) by the real curl; the login goes through its standard input, not its arguments."""
        login = f'user = "admin:{self.machine.read("/var/lib/balm/secrets/basic-auth-password").strip()}"\n' if login else ""
        done = subprocess.run(["curl", "--silent", "--show-error", "--cacert", ca, "--config", "-", "--write-out", "\n%{http_code}", "https://localhost:8080" + path],
                              input=login, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def faas_cli(self, ca):
        env = dict(os.environ, HOME=self.machine.folder, OPENFAAS_CONFIG=os.path.join(self.machine.folder, "openfaas"), OPENFAAS_URL="https://localhost:8080",
                   SSL_CERT_FILE=ca)
        password = self.machine.read("/var/lib/balm/secrets/basic-auth-password")
        for arguments, text in ((("login", "-u", "admin", "--password-stdin"), password), (("list", "-q"), ""), (("invoke", "echo"), "through TLS")):
            done = subprocess.run([FAAS_CLI, *arguments], input=text, capture_output=True, text=True, env=env, cwd=self.machine.folder, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            if arguments[0] == "list":
                self.assertIn("echo", done.stdout.split())
        self.assertEqual(done.stdout, "through TLS")

    def serial(self, ca):
        with contextlib.closing(http.client.HTTPSConnection("localhost", 8080, context=ssl.create_default_context(cafile=ca), timeout=30)) as c:
            c.connect()
            return int(c.sock.getpeercert()["serialNumber"], 16)

    def ask_on(self, connection):
        connection.request("POST", "/function/echo", b"x" * 1000)
        answer = connection.getresponse()
        return answer.status == 200 and answer.read() == b"x" * 1000

    def test_5b_https_by_the_settings_file_and_its_renewal(self):
        m, authority = self.machine, Authority(os.path.join(self.machine.folder, "pki"))
        ca, there = authority.certificate, m.path("/etc/balm/tls")
        os.mkdir(there, 0o700)
        authority.issue(there, "balm", 1)
        settings = m.read("/etc/balm/balm.env")
        m.write("/etc/balm/balm.env", re.sub(r"^# (BALM_TLS_\w+=)", r"\1", settings, flags=re.M))
        m.do("systemctl", "restart", "balm")
        self.addCleanup(m.do, "systemctl", "restart", "balm")
        self.addCleanup(m.write, "/etc/balm/balm.env", settings)
        self.assertEqual(self.curl(ca, "/system/functions", login=False)[0], 401)
        status, body = self.curl(ca, "/system/functions")
        self.assertEqual(status, 200)
        self.assertIn("echo", [f["name"] for f in json.loads(body)])
        self.assertIn("act", m.do("balm", "status"))  # this machine's own clients come to an address: they know the key
        if FAAS_CLI:
            self.faas_cli(ca)
        else:
            say("not tried faas-cli over HTTPS: there is none (FAAS_CLI, PATH)")
        # The key is the service's alone: of its functions' not, and one that others may read is refused.
        self.assertNotEqual(m("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", "/etc/balm/tls/balm.key")[0], 0)

        before, ended, counts, failed = self.pid(), threading.Event(), [], []
        self.addCleanup(ended.set)

        def keep_asking(is_kept):
            """On one connection all the time, or on a new one each time."""
            connection = http.client.HTTPSConnection("localhost", 8080, context=ssl.create_default_context(cafile=ca), timeout=30)
            n = 0
            try:
                while not ended.is_set():
                    n += self.ask_on(connection)
                    if not is_kept:
                        connection.close()
            except (OSError, http.client.HTTPException) as e:
                failed.append(repr(e))
            connection.close()
            counts.append(n)
        askers = [threading.Thread(target=keep_asking, args=(i % 2 == 0,)) for i in range(4)]
        for thread in askers:
            thread.start()
        self.assertEqual(self.serial(ca), 1)
        authority.issue(there, "balm", 2)
        m.do("systemctl", "reload", "balm")
        wait_until(lambda: self.serial(ca) == 2, 20, "the new certificate is served")
        ended.set()
        for thread in askers:
            thread.join()
        self.assertEqual((failed, self.pid()), ([], before))
        self.assertGreater(min(counts), 1, counts)
        say(f"renewed   under {sum(counts)} requests, none of them failed")

        m.do("chmod", "o+r", "/etc/balm/tls/balm.key")
        self.assertNotEqual(m("systemctl", "restart", "balm")[0], 0)
        self.assertIn("everybody may read this key", m("journalctl", "-u", "balm", "--no-pager")[1])
        m.do("chmod", "o-r", "/etc/balm/tls/balm.key")
        wait_until(lambda: self.is_active("balm"), 60, "it is up again")
        self.assertEqual(self.curl(ca, "/healthz", login=False)[0], 200)

    def post_until_accepted(self, name, accepted):
        def attempt():
            try:
                return self.post(alert("Flood", instance=name)) == 202
            except (OSError, ValueError):  # nobody there, or it went away in the middle
                return False
        wait_until(attempt, 60, f"alert {name} accepted")
        accepted.append(name)

    def test_6_killed_it_comes_back_and_has_every_accepted_alert(self):
        accepted, before = [], self.pid()
        posters = [threading.Thread(target=lambda i=i: [self.post_until_accepted(f"{i}-{n}", accepted) for n in range(50)]) for i in range(4)]
        for thread in posters:
            thread.start()
        wait_until(lambda: len(accepted) >= 60, 60, "alerts are coming in")
        self.machine.do("sh", "-c", f"kill -9 {before}")
        for thread in posters:
            thread.join()
        self.assertEqual(len(accepted), 200)
        self.assertNotEqual(self.pid(), before)
        self.assertTrue(self.is_active("balm"))
        self.assertEqual(self.machine.show("balm", "NRestarts"), "1")
        recorded = {r["labels"]["instance"] for r in self.records("--kind", "signal") if r["labels"]["alertname"] == "Flood"}
        self.assertEqual(set(accepted) - recorded, set(), "accepted and lost")
        self.assertEqual(self.machine("balm", "audit", "verify")[0], 0)

    def test_7_an_upgrade_keeps_state_and_configuration(self):
        m = self.machine
        before, nginx, seq = self.pid(), self.pid("nginx"), self.records()[-1]["seq"]
        token = m.read("/var/lib/balm/secrets/webhook-token")
        healed = next(r["incident"] for r in self.records("--kind", "closed") if r["state"] == "healed")
        m.install(self.newer)
        self.assertEqual(m.do("balm", "version").strip(), "balm " + NEWER)
        wait_until(lambda: json.loads(m.read("/var/lib/balm/run.json"))["version"] == NEWER, 30, "the running one is the newer one")
        self.assertTrue(self.is_active("balm"))
        self.assertNotEqual(self.pid(), before)
        self.assertEqual(self.pid("nginx"), nginx, "what was healed is left alone")
        self.assertEqual((m.read("/etc/balm/host-acts.yaml"), m.read("/var/lib/balm/secrets/webhook-token")), (HOST_ACTS, token))
        self.assertGreaterEqual(self.records()[-1]["seq"], seq)
        self.assertIn("healed", m.do("balm", "why", healed))
        self.assertEqual(m("balm", "audit", "verify")[0], 0)
        self.assertEqual(m("balm", "audit", "refold")[0], 0)

    def test_8_what_somebody_stopped_stays_stopped(self):
        self.machine.do("systemctl", "stop", "balm")
        self.machine.install(self.newer)
        self.assertFalse(self.is_active("balm"))
        self.machine.do("systemctl", "start", "balm")
        self.assertTrue(self.is_active("balm"))

    def test_9_remove_keeps_what_purge_takes(self):
        m = self.machine
        m.do("dpkg", "-r", "balm")
        self.assertEqual(m.show("balm", "ActiveState"), "inactive")
        self.assertFalse(os.path.exists(m.path("/usr/bin/balm")))
        self.assertEqual(m("sh", "-c", "ls -l /proc/[0-9]*/exe 2>/dev/null | grep balm")[1], "", "nothing of it runs")
        self.assertTrue(os.path.isdir(m.path("/var/lib/balm/journal")))
        self.assertEqual(m.read("/etc/balm/host-acts.yaml"), HOST_ACTS)
        m.do("dpkg", "--purge", "balm")
        left = m.do("sh", "-c", "find / -xdev -name '*balm*' -not -path '/mnt/*' -not -path '/proc/*' -not -path '/tmp/*' "
                    "-not -path '/var/log/*'; systemctl list-unit-files | grep balm; :")
        self.assertEqual(left, "")
        self.assertTrue(self.is_active("nginx"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
