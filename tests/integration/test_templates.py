"""Programs and templates through the real faas-cli: deploy by fprocess, and from `new` to a bot that a runbook calls."""
import json
import os
import re
import shutil
import subprocess
import unittest

from faas import FaasTest
from harness import MEMORY_LIMIT, PATIENCE, PYTHON, ROOT, alert, main, shared_file

TEMPLATES = os.path.join(ROOT, "templates")
RUNBOOK = """
name: look
match: ['alertname="FileGrew"']
target: host/${labels.instance}
mode: act
steps:
  - bot: my-bot
    with: {alertname: "${labels.alertname}", file: "${labels.file}"}
    timeout: 20s
guardrails: {cooldown: 1s, rate: {max: 1000, per: 1h}, max_in_flight: 8}
"""


class Programs(FaasTest):
    def test_deploy_invoke_logs_secrets_limits_remove(self):
        self.login()
        deploy = ("deploy", "--gateway", self.url)
        self.assertIn("202 Accepted", self.cli(*deploy, "--name", "cat", "--image", "any/image:1", "--fprocess", "cat", "--memory-limit", MEMORY_LIMIT))
        self.assertEqual(self.cli("invoke", "cat", input="through"), "through")
        self.assertRegex(self.cli("describe", "cat"), r"Function Process:\s+cat")
        self.assertIn("202", self.cli("secret", "create", "word", "--from-literal=sesame"))
        show = "import os; print(os.environ['colour'], open(os.environ['secret_mount_path'] + '/word').read())"
        self.cli(*deploy, "--name", "py", "--image", "any", "--fprocess", f'{PYTHON} -c "{show}"', "--env", "colour=red", "--secret", "word")
        self.assertEqual(self.cli("invoke", "py", input=""), "red sesame\n")
        self.cli(*deploy, "--name", "sh", "--image", "any", "--fprocess", "sh -c 'echo to the log >&2; exit 9'")
        self.assertIn("sh ended with exit 9", self.cli("invoke", "sh", input="", code=1))
        self.assertIn("to the log", self.cli("logs", "sh", "--tail=false"))
        self.cli(*deploy, "--name", "slow", "--image", "any", "--fprocess", "sleep 1000", "--env", "exec_timeout=1s")
        self.assertIn("504", self.cli("invoke", "slow", input="", code=1))
        for name in ("cat", "py", "sh", "slow"):
            self.cli("remove", name)
        self.assertEqual(self.cli("list", "-q").split(), [])

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "AddressSanitizer reserves terabytes: no limit of memory is small enough")
    def test_a_limit_of_memory_is_the_program_s(self):
        self.login()
        for name, limit, code in (("small", "128Mi", 1), ("large", "1Gi", 0)):
            self.cli("deploy", "--name", name, "--image", "any", "--fprocess", f"{PYTHON} -c 'print(len(bytearray(300000000)))'", "--memory-limit", limit)
            output = self.cli("invoke", name, input="", code=code)
            self.assertIn("300000000" if code == 0 else "ended with exit", output)
        self.assertIn("MemoryError", self.cli("logs", "small", "--tail=false"))

    def test_what_cannot_be_deployed_says_which_path_was_looked_for(self):
        self.login()
        deploy = ("deploy", "--gateway", self.url, "--name", "x")
        self.assertIn(f"no executable {self.p.functions}/none", self.cli(*deploy, "--image", "reg/none:1", code=1))
        self.assertIn("no program 'no-such' in /usr/local/sbin:", self.cli(*deploy, "--image", "x", "--fprocess", "no-such", code=1))
        self.assertIn("no executable /no/such", self.cli(*deploy, "--image", "x", "--fprocess", "/no/such", code=1))
        self.assertIn("leads out of the functions folder", self.cli(*deploy, "--image", "a/..", "--fprocess", "cat", code=1))
        self.assertIn("ended at its start", self.cli(*deploy, "--image", "x", "--fprocess", "cat", "--env", "mode=afterburn", code=1))
        self.assertEqual(self.cli("list", "-q").split(), [])


class Templates(FaasTest):
    def start_platform(self):
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        return self.platform(stack="version: 1.0\nfunctions: {}\n", functions=self.functions)

    def install(self):
        """As `faas-cli template pull` leaves them."""
        shutil.copytree(TEMPLATES, os.path.join(self.home, "template"))

    def make(self, *arguments, cwd=ROOT):
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        done = subprocess.run(["make", "--no-print-directory", "-j2", *arguments], cwd=cwd, env=env, capture_output=True, text=True,
                              timeout=300 * PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:])
        return done.stdout

    def new(self, language):
        output = self.cli("new", "my-bot", "--lang", language, "--gateway", self.url)
        self.assertIn("README.md", output)
        made = os.listdir(os.path.join(self.home, "my-bot"))
        self.assertTrue({"README.md", "bot.yaml"} <= set(made), made)
        return os.path.join(self.home, "my-bot")

    def build(self):
        self.assertIn("shrink-wrapped", self.cli("build", "--shrinkwrap", "-f", "stack.yaml"))
        # faas-cli makes folders that only their owner reads, and started by root a function has a user of its own.
        subprocess.run(["chmod", "-R", "go+rX", os.path.join(self.home, "build")], check=True)
        shutil.rmtree(os.path.join(self.functions, "my-bot"), ignore_errors=True)
        shutil.copytree(os.path.join(self.home, "build", "my-bot"), os.path.join(self.functions, "my-bot"))

    def file(self, name, content):
        """One that functions may read."""
        path = shared_file(self.folder, name)
        with open(path, "w") as f:
            f.write(content)
        return path

    def run_own_test(self, handler):
        with open(os.path.join(handler, "README.md")) as f:
            command = re.search(r"the handler alone: `([^`]+)`", f.read()).group(1).split()
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        done = subprocess.run(command, cwd=handler, capture_output=True, timeout=300 * PATIENCE, env=dict(env, PYTHONDONTWRITEBYTECODE="1"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def make_it_act(self, handler):
        """As bot.yaml itself says: without the '#' in front."""
        path = os.path.join(handler, "bot.yaml")
        with open(path) as f:
            text = f.read().replace("acts: false\n", "")
        text = re.sub(r"^# (\w+: .*)$", r"\1", text, flags=re.M)
        with open(path, "w") as f:
            f.write(text)

    def from_new_to_runbook(self, language, logged="looking for {}"):
        self.login()
        handler = self.new(language)
        self.run_own_test(handler)
        self.build()
        self.assertIn("202 Accepted", self.cli("deploy", "-f", "stack.yaml"))
        file = self.file("a file with \"quotes\"", "12345")
        reply = json.loads(self.cli("invoke", "my-bot", input=json.dumps({"alertname": "A", "file": file})))
        self.assertEqual((reply["state"], reply["message"]), ("unchanged", f"A: {file} has 5 bytes"))
        self.assertIn(logged.format(file), self.cli("logs", "my-bot", "--tail=false"))
        self.assertIn("is not an absolute path", self.cli("invoke", "my-bot", input='{"file": "etc"}', code=1))
        self.assertIn("did you mean 'file'", self.cli("invoke", "my-bot", input='{"fil": "/etc"}', code=1))
        self.make_it_act(handler)
        self.build()
        self.cli("deploy", "-f", "stack.yaml", "--read-template=false")  # template.yml came along in the folder
        self.assertIn("403", self.cli("invoke", "my-bot", input="{}", code=1))
        self.p.write("runbooks/look.yaml", RUNBOOK)
        status, _, text = self.p.request("POST", "/system/reload", "{}", self.p.basic())
        self.assertEqual(status, 200, text)
        self.assertEqual(self.p.post_alerts(alert("FileGrew", instance="i-1", file=file))[0], 202)
        outcome = self.p.wait_record("outcome", state="unchanged")
        self.assertEqual(outcome["message"], f"FileGrew: {file} has 5 bytes")

    def test_shell_from_new_to_a_runbook(self):
        self.install()
        self.from_new_to_runbook("shell-balm")

    def test_python_from_new_to_a_runbook(self):
        self.install()
        self.from_new_to_runbook("python3-balm")

    def test_c_from_new_to_a_runbook(self):
        self.make(f"B={self.folder}/balm", "templates")
        shutil.copytree(os.path.join(self.folder, "balm", "templates", "template"), os.path.join(self.home, "template"))
        self.build = self.build_natively
        self.from_new_to_runbook("c-balm", logged='"looking for a file"')
        self.check_context()

    def build_natively(self):
        """As README.md says; what balm runs is changed in one step."""
        self.make("-C", "my-bot", cwd=self.home)
        shutil.copy(os.path.join(self.home, "my-bot", "build", "my-bot"), os.path.join(self.functions, "new"))
        os.rename(os.path.join(self.functions, "new"), os.path.join(self.functions, "my-bot"))

    def check_context(self):
        """What Docker would get: all that the build needs (`make e2e-images` builds it), and nothing of the build here."""
        self.assertIn("shrink-wrapped", self.cli("build", "--shrinkwrap", "-f", "stack.yaml"))
        context = os.path.join(self.home, "build", "my-bot")
        self.assertTrue({"Dockerfile", "Makefile", "image.sh", "sdk", "function"} <= set(os.listdir(context)))
        self.assertNotIn("build", os.listdir(os.path.join(context, "function")))
        image = os.path.join(self.folder, "image")
        printed = subprocess.run(["./image.sh", os.path.join(self.home, "my-bot", "build"), image], cwd=context, capture_output=True, text=True)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        self.assertRegex(printed.stdout, r"^image of my-bot: \d+ bytes in \d+ files$")  # it does not call out, so there is no libcurl
        if os.geteuid() == 0:
            described = subprocess.run(["chroot", image, "/bot", "--describe"], capture_output=True, text=True)
            self.assertIn('"name":"my-bot"', described.stdout, described.stderr)

    def test_templates_are_pulled_from_a_repository(self):
        if shutil.which("git") is None:
            self.skipTest("SKIPPED: no git")
        self.make(f"B={self.folder}/balm", "templates")
        self.cli("template", "pull", os.path.join(self.folder, "balm", "templates"))
        pulled = os.path.join(self.home, "template")
        self.assertEqual(set(os.listdir(pulled)), set(os.listdir(TEMPLATES)))
        self.assertTrue(os.path.exists(os.path.join(pulled, "c-balm", "sdk", "runtime", "balm.h")))
        self.new("python3-balm")

    def test_balm_up_takes_what_shrinkwrap_made(self):
        self.install()
        self.new("shell-balm")
        self.build()
        self.p.stop()
        shutil.copy(os.path.join(self.home, "stack.yaml"), self.p.stack)
        self.p.functions = os.path.join(self.home, "build")
        self.p.start()
        file = self.file("file", "123")
        status, headers, body = self.p.request("POST", "/function/my-bot", {"file": file})
        self.assertEqual((status, headers["content-type"], json.loads(body)["message"]), (200, "application/json", f"none: {file} has 3 bytes"))


if __name__ == "__main__":
    main()
