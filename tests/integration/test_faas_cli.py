"""The real faas-cli against the platform: functions, secrets, logs and info (contracts: faas-cli's own exit codes and messages)."""
import glob
import json
import os
import subprocess

from faas import FAAS_CLI, FaasTest
from harness import MEMORY_LIMIT, isolated_folder, main

STACK = """version: 1.0
provider:
  name: openfaas
  gateway: {gateway}
functions:
  hello:
    lang: c-balm
    handler: ./hello
    image: team/echo:latest
    fprocess: ./echo
    environment:
      colour: red
    labels:
      com.openfaas.scale.max: "3"
      team: ours
    annotations:
      topic: greetings
  second:
    lang: c-balm
    handler: ./second
    image: echo
    fprocess: ./echo
"""


class FaasCliTest(FaasTest):
    def setUp(self):
        super().setUp()
        self.file = self.p.write("deploy.yml", STACK.format(gateway=self.url))

    def deploy(self, *more):
        return self.cli("deploy", "-f", self.file, "--read-template=false", *more)

    def invocations(self, name):
        for f in json.loads(self.p.request("GET", "/system/functions", headers=self.p.basic())[2]):
            if f["name"] == name:
                return f["invocationCount"]
        return None

    # ---- login ----

    def test_login_and_its_absence(self):
        self.assertIn("unauthorized", self.cli("list", code=1).lower())
        self.assertIn("unauthorized", self.deploy_refused().lower())
        self.cli("login", "-u", "admin", "--password-stdin", input="wrong", code=1)
        self.assertIn("credentials saved", self.login())
        self.cli("list")

    def deploy_refused(self):
        return self.cli("deploy", "-f", self.file, "--read-template=false", code=1)

    # ---- functions ----

    def test_deploy_list_describe_remove(self):
        self.login()
        first = self.deploy()
        self.assertEqual(first.count("202 Accepted"), 2, first)
        second = self.deploy()  # an update
        self.assertEqual(second.count("202 Accepted"), 2, second)
        self.deploy("--update=false", "--replace")
        listed = self.cli("list")
        self.assertRegex(listed, r"hello\s+0\s+1")
        self.assertRegex(self.cli("list", "-v"), r"hello\s+team/echo:latest\s+0\s+1")
        self.assertEqual(self.cli("list", "-q").split(), ["hello", "second"])
        functions = json.loads(self.cli("list", "--json"))
        hello = [f for f in functions if f["name"] == "hello"][0]
        self.assertEqual(hello["labels"]["team"], "ours")
        self.assertEqual(hello["annotations"]["topic"], "greetings")
        self.assertEqual(hello["envVars"], {"colour": "red"})
        described = self.cli("describe", "hello")
        for pattern in (r"Name:\s+hello", r"Status:\s+Ready", r"Replicas:\s+1", r"Available Replicas:\s+1", r"Image:\s+team/echo:latest"):
            self.assertRegex(described, pattern)
        self.assertEqual(json.loads(self.cli("describe", "hello", "--json"))["name"], "hello")
        self.cli("describe", "nothing", code=1)
        self.assertIn("Removing old function.", self.cli("remove", "hello"))
        self.cli("remove", "hello", code=1)
        self.assertEqual(self.cli("list", "-q").split(), ["second"])
        self.cli("remove", "-f", self.file)
        self.assertEqual(self.cli("list", "-q").split(), [])

    def test_what_cannot_be_deployed_is_said(self):
        self.login()
        output = self.cli("deploy", "--name", "x", "--image", "no-such-program", code=1)
        self.assertIn("no executable", output)
        self.assertIn("lower-case", self.cli("deploy", "--name", "Not_a_name", "--image", "echo", code=1))
        self.assertIn("secret 'missing'", self.cli("deploy", "--name", "x", "--image", "echo", "--secret", "missing", code=1))
        self.assertEqual(self.cli("list", "-q").split(), [])
        self.cli("deploy", "--name", "x", "--image", "echo", "--env", "a=b", "--label", "c=d", "--annotation", "e=f", "--memory-limit", MEMORY_LIMIT)

    def test_deployed_functions_survive_a_restart(self):
        self.login()
        self.deploy()
        self.assertEqual(self.p.stop(), 0)
        self.p.start()
        self.assertEqual(self.cli("list", "-q").split(), ["hello", "second"])
        self.assertIn("back", self.cli("invoke", "hello", input="back"))

    # ---- calls ----

    def test_invoke(self):
        self.login()
        self.deploy()
        self.assertEqual(self.cli("invoke", "hello", input="from stdin"), "from stdin")
        self.assertEqual(self.cli("invoke", "hello", "-n", "openfaas-fn", input="x"), "x")
        self.assertEqual(self.cli("invoke", "hello", "--method", "PUT", "--query", "a=b", "-H", "X-A: b", "--content-type", "application/json",
                                  input="{}"), "{}")
        self.assertIn("404", self.cli("invoke", "nothing", input="x", code=1))
        self.assertEqual(self.invocations("hello"), 3)
        self.assertRegex(self.cli("list", "--sort", "invocations"), r"hello\s+3\s+1")

    def test_invoke_async_is_recorded_and_run(self):
        self.login()
        self.deploy()
        self.assertIn("submitted asynchronously", self.cli("invoke", "hello", "--async", input="later"))
        call = self.p.wait_record("call", function="hello")
        self.p.wait_record("outcome", intent=call["intent"], state="done")
        self.assertIn("404", self.cli("invoke", "nothing", "--async", input="x", code=1))

    def test_ready(self):
        self.cli("ready", "--attempts", "3")
        self.login()
        self.deploy()
        self.assertIn("ready", self.cli("ready", "hello", "--attempts", "3").lower())

    # ---- logs, version ----

    def test_logs(self):
        self.login()
        self.deploy()
        output = self.cli("logs", "hello", "--tail=false", "--lines", "5")
        self.assertIn('"message":"ready"', output)  # the function's own line
        self.cli("logs", "hello", "--tail=false", "--since", "1m")
        self.assertIn("404", self.cli("logs", "nothing", "--tail=false", code=1))
        follow = subprocess.Popen([FAAS_CLI, "logs", "hello"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env, cwd=self.home)
        try:
            self.assertIn(b"ready", follow.stdout.readline())
            self.assertIsNone(follow.poll())  # it follows
        finally:
            follow.terminate()
            follow.wait(10)
            follow.stdout.close()

    def test_version(self):
        self.login()
        output = self.cli("version", "--warn-update=false")
        self.assertRegex(output, r"provider:\s+name:\s+balm|name:\s+balm")
        self.assertRegex(output, r"orchestration:\s+balm")

    def test_namespaces(self):
        self.login()
        self.assertIn("openfaas-fn", self.cli("namespaces"))

    # ---- secrets ----

    def secrets(self):
        return self.cli("secret", "list").split()[1:]

    def stored(self, name):
        path = os.path.join(self.p.data, "secrets", "functions", name)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path) as f:
            return f.read()

    def test_secrets(self):
        self.assertIn("unauthorized", self.cli("secret", "list", code=1).lower())
        self.login()
        self.assertIn("202", self.cli("secret", "create", "one", "--from-literal=first"))
        self.assertIn("already exists", self.cli("secret", "create", "one", "--from-literal=second"))
        self.assertEqual(self.stored("one"), "first")
        self.assertIn("Updated: 202", self.cli("secret", "create", "one", "--from-literal=second", "--replace"))
        self.assertEqual(self.stored("one"), "second")
        file = self.p.write("file", "  as it is\n")
        self.assertIn("202", self.cli("secret", "create", "two", "--from-file", file))
        self.assertEqual(self.stored("two"), "  as it is\n")
        self.assertIn("202", self.cli("secret", "create", "three", input="from stdin"))
        self.assertEqual(self.stored("three"), "from stdin")
        self.assertEqual(self.secrets(), ["one", "three", "two"])
        self.assertIn("202", self.cli("secret", "update", "one", "--from-literal=third"))
        self.assertEqual(self.stored("one"), "third")
        self.assertIn("unable to find secret", self.cli("secret", "update", "none", "--from-literal=x"))
        self.assertIn("OK", self.cli("secret", "remove", "three"))
        self.assertIn("Unable to find secret", self.cli("secret", "remove", "three", code=1))
        self.assertEqual(self.secrets(), ["one", "two"])
        for value in ("first", "second", "third", "as it is"):
            self.assertNotIn(value, self.p.log_text() + self.cli("secret", "list"))

    def test_a_changed_secret_counts_from_the_next_start_on(self):
        self.login()
        self.cli("secret", "create", "one", "--from-literal=first")
        self.cli("deploy", "--name", "x", "--image", "echo", "--secret", "one")
        self.assertEqual(self.in_use("one"), ["first"])
        self.cli("secret", "update", "one", "--from-literal=second")
        self.assertEqual(self.in_use("one"), ["first"])
        self.p.stop()
        self.p.start()
        self.assertEqual(self.cli("invoke", "x", input="start it"), "start it")
        self.assertEqual(self.in_use("one"), ["second"])

    def in_use(self, name):
        """What the functions that run were given."""
        found = []
        for path in glob.glob(os.path.join(isolated_folder(self.p), "secrets", "*", name)):
            with open(path) as f:
                found.append(f.read())
        return found


if __name__ == "__main__":
    main()
