#!/usr/bin/env python3
"""`make install` into a folder, and the platform that runs from there; what systemd is told."""
import os
import re
import shutil
import socket
import subprocess
import unittest

import harness
from harness import BUILD, PATIENCE, ROOT, Platform, PlatformTest, stack_file


def make(*arguments):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    build = "SAN=asan" if "ASAN_OPTIONS" in os.environ else "SAN="
    return subprocess.run(["make", "--no-print-directory", f"B={os.path.relpath(BUILD, ROOT)}", build, *arguments], cwd=ROOT, env=env,
                          capture_output=True, text=True, timeout=600 * PATIENCE)


class Installed(Platform):
    """The balm of an installed tree, that finds by itself what came with it."""

    def command(self):
        return [self.balm, "up", "--data", self.data, "--port", str(self.port)] + self.arguments


class Install(PlatformTest):
    def install(self, *arguments):
        done = make("install", f"DESTDIR={self.root}", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)

    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "root")

    def files(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.root) for folder, _, names in os.walk(self.root) for name in names)

    def read(self, path):
        with open(os.path.join(self.root, path)) as f:
            return f.read()

    def test_prefix_moves_everything_but_the_configuration(self):
        self.install("PREFIX=/opt/balm")
        files = self.files()
        self.assertEqual({f.split("/")[0] for f in files}, {"opt", "etc"})
        for path in ("opt/balm/bin/balm", "opt/balm/lib/balm/balm-shim", "opt/balm/lib/balm/functions/service-restart",
                     "opt/balm/share/man/man1/balm.1", "opt/balm/share/man/man5/balm-runbook.5",
                     "opt/balm/share/man/man7/balm-troubleshooting.7", "etc/balm/runbooks/service-down.yaml",
                     "opt/balm/share/balm/docs/docs.js"):
            self.assertIn(path, files)
        unit = self.read("opt/balm/lib/systemd/system/balm.service")
        self.assertIn("ExecStart=/opt/balm/bin/balm up\n", unit)
        self.assertNotIn("@", re.sub(r"SystemCallFilter=.*", "", unit))

    def test_templates_come_with_it(self):
        self.install()
        at = "usr/local/share/balm/templates/c-balm/"
        files = {f[len(at):] for f in self.files() if f.startswith(at)}
        self.assertLessEqual({"Dockerfile", "template.yml", "sdk/Makefile", "sdk/runtime/balm.h", "function/handler.c", "function/test/test_handler.c"},
                             files)
        self.assertTrue(os.access(os.path.join(self.root, at, "image.sh"), os.X_OK))

    def test_swagger_ui_comes_with_it(self):
        self.install()
        files = [f for f in self.files() if "/share/balm/docs/" in f]
        if not shutil.which("npm") and not any("swagger-ui" in f for f in files):
            self.skipTest("npm is not here to fetch Swagger UI")
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui.LICENSE", "swagger-ui.NOTICE"):
            self.assertIn("usr/local/share/balm/docs/" + name, files)

    def test_installing_again_keeps_what_was_configured(self):
        self.install()
        with open(os.path.join(self.root, "etc/balm/host-acts.yaml"), "w") as f:
            f.write("services: {}  # mine\n")
        os.unlink(os.path.join(self.root, "etc/balm/runbooks/disk-filling.yaml"))
        self.install()
        self.assertEqual(self.read("etc/balm/host-acts.yaml"), "services: {}  # mine\n")
        self.assertNotIn("etc/balm/runbooks/disk-filling.yaml", self.files())

    def test_uninstall_leaves_configuration_alone(self):
        self.install()
        done = make("uninstall", f"DESTDIR={self.root}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({f.split("/")[0] for f in self.files()}, {"etc"})

    def test_what_is_shipped_as_configuration_acts_on_nothing(self):
        self.install()
        for name in os.listdir(os.path.join(self.root, "etc/balm/runbooks")):
            text = self.read("etc/balm/runbooks/" + name)
            if "steps:" in text:  # one without only tells a person
                self.assertNotIn("mode: act", re.sub("`mode: act`", "", text))
        self.assertIn("\nservices: {}\n", self.read("etc/balm/host-acts.yaml"))

    def test_the_installed_platform_finds_what_came_with_it(self):
        self.install()
        # Sanitized functions start only without a memory limit (harness): their stack file is given.
        arguments = ["-f", self.write_stack()] if "ASAN_OPTIONS" in os.environ else []
        p = Installed(self.folder, arguments=arguments)
        p.balm = os.path.join(self.root, "usr/local/bin/balm")
        self.addCleanup(self._end, p)
        os.unlink(p.stack)  # what lies in the current folder would be taken first
        if arguments:
            self.write_stack()
        p.start()
        status, _, body = p.request("POST", "/function/echo", b"through the shim", {"Content-Type": "text/plain"})
        self.assertEqual((status, body), (200, b"through the shim"))
        self.assertEqual(p.request("GET", "/docs/ui/docs.js", headers=p.basic())[0], 200)
        code, text, error = p.cli("status")
        self.assertEqual(code, 0, error)
        self.assertIn("systemd-service-failed", text)

    def write_stack(self):
        path = os.path.join(self.folder, "given.yml")
        with open(path, "w") as f:
            f.write(stack_file("disk-clean", "echo", "notify", "service-restart"))
        return path

    def test_a_part_that_is_missing_is_named(self):
        self.install()
        os.unlink(os.path.join(self.root, "usr/local/lib/balm/balm-shim"))
        done = subprocess.run([os.path.join(self.root, "usr/local/bin/balm"), "up", "--data", os.path.join(self.folder, "data")],
                              cwd=self.folder, capture_output=True, text=True, timeout=60 * PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("bin/balm-shim: No such file", done.stderr)

    def test_the_unit_has_no_mistakes(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed: balm.service was not verified")
        # It looks for the program where the unit says.
        self.install(f"PREFIX={self.root}/usr", "DESTDIR=", f"sysconfdir={self.root}/etc")
        unit = os.path.join(self.root, "usr/lib/systemd/system/balm.service")
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=120 * PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Service(PlatformTest):
    def test_systemd_hears_when_it_is_ready_alive_and_stopping(self):
        path = os.path.join(self.folder, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(path)
            ear.settimeout(30 * PATIENCE)
            p = self.platform(start=False, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"})
            p.start()
            self.assertEqual(ear.recv(64), b"READY=1")
            self.assertEqual([ear.recv(64), ear.recv(64)], [b"WATCHDOG=1"] * 2)
            self.assertEqual(p.stop(), 0)
            ear.settimeout(0)
            heard = []
            try:
                while True:
                    heard.append(ear.recv(64))
            except BlockingIOError:
                pass
            self.assertIn(b"STOPPING=1", heard)

    def test_a_watchdog_of_another_process_is_not_ours(self):
        path = os.path.join(self.folder, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(path)
            ear.settimeout(30 * PATIENCE)
            p = self.platform(start=False, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"})
            p.start()
            self.assertEqual(p.stop(), 0)
            self.assertEqual([ear.recv(64), ear.recv(64)], [b"READY=1", b"STOPPING=1"])


if __name__ == "__main__":
    harness.main()
