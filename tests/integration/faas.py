"""The real faas-cli against a platform. It is looked for in FAAS_CLI, on PATH and in balm's cache; where it is nowhere the test says so and is
skipped.
"""
import os
import shutil
import subprocess
import unittest

from harness import PATIENCE, PlatformTest

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "balm", "bin", "faas-cli")


def find_faas_cli():
    for path in (os.environ.get("FAAS_CLI"), shutil.which("faas-cli"), CACHE):
        if path and os.access(path, os.X_OK):
            return path
    return None


FAAS_CLI = find_faas_cli()


@unittest.skipUnless(FAAS_CLI, "SKIPPED: no faas-cli (FAAS_CLI, PATH, ~/.cache/balm/bin)")
class FaasTest(PlatformTest):
    """A platform without functions, and faas-cli with a home of its own that knows it."""

    def setUp(self):
        super().setUp()
        self.p = self.start_platform()
        self.url = f"http://127.0.0.1:{self.p.port}"
        self.home = os.path.join(self.folder, "home")  # faas-cli takes any stack.yml that lies where it runs
        os.mkdir(self.home)
        self.env = dict(os.environ, OPENFAAS_URL=self.url, OPENFAAS_CONFIG=os.path.join(self.folder, "openfaas"),
                        HOME=self.home, CI="false")

    def start_platform(self):
        return self.platform(stack="version: 1.0\nfunctions: {}\n")

    def cli(self, *arguments, input="", code=0, timeout=70):
        """Output of a call that must end with `code`."""
        done = subprocess.run([FAAS_CLI, *arguments], input=input.encode(), capture_output=True, env=self.env, cwd=self.home,
                              timeout=timeout * PATIENCE)
        output = done.stdout.decode() + done.stderr.decode()
        self.assertEqual(done.returncode, code, f"faas-cli {' '.join(arguments)}\n{output}\n{self.p.log_text()}")
        return output

    def login(self):
        return self.cli("login", "-u", self.p.secret("basic-auth-user"), "--password-stdin",
                        input=self.p.secret("basic-auth-password"))
