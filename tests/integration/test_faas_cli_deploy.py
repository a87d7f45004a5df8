"""faas-cli deploy, flag by flag, and what list, describe, diff and remove show of it."""
import json
import os
import time

from faas import FaasTest
from harness import MEMORY_LIMIT, PYTHON, main

STACK = """version: 1.0
provider:
  name: openfaas
  gateway: {gateway}
functions:
  one-a:
    lang: c-balm
    handler: ./one
    image: reg.example:5000/team/echo:1.2
    fprocess: ./echo
    environment:
      colour: red
      size: 5
      flag: true
    environment_file: [more.yml]
    secrets: [first]
    labels: {{team: ours, com.openfaas.scale.max: "3"}}
    annotations: {{topic: greetings}}
    constraints: ["node.platform.os == linux"]
    limits: {{memory: {memory}, cpu: 500m}}
    requests: {{memory: 16Mi, cpu: 10m}}
    readonly_root_filesystem: true
  one-b:
    lang: c-balm
    handler: ./one
    image: echo
  two:
    lang: c-balm
    handler: ./two
    image: ${{IMAGE:-echo}}:latest
    namespace: openfaas-fn
"""
MANY = "version: 1.0\nprovider:\n  name: openfaas\n  gateway: {gateway}\nfunctions:\n"


class DeployTest(FaasTest):
    def setUp(self):
        super().setUp()
        self.login()
        self.cli("secret", "create", "first", "--from-literal=1")
        self.file = self.p.write("deploy.yml", STACK.format(gateway=self.url, memory=MEMORY_LIMIT))
        with open(os.path.join(self.home, "more.yml"), "w") as f:
            f.write("environment:\n  from_file: yes it is\n")

    def deploy(self, *more, **keywords):
        return self.cli("deploy", "-f", self.file, "--read-template=false", *more, **keywords)

    def one(self, *more, name="x", image="echo", **keywords):
        return self.cli("deploy", "--name", name, "--image", image, *more, **keywords)

    def names(self):
        return self.cli("list", "-q").split()

    def function(self, name):
        return json.loads(self.cli("describe", name, "--json"))

    # ---- a stack file ----

    def test_a_stack_file_arrives_whole(self):
        self.assertEqual(self.deploy().count("202 Accepted"), 3)
        f = self.function("one-a")
        expected = {"name": "one-a", "image": "reg.example:5000/team/echo:1.2", "namespace": "openfaas-fn", "envProcess": "./echo",
                    "envVars": {"colour": "red", "size": "5", "flag": "true", "from_file": "yes it is"}, "secrets": ["first"],
                    "labels": {"team": "ours", "com.openfaas.scale.max": "3"}, "annotations": {"topic": "greetings"},
                    "constraints": ["node.platform.os == linux"], "limits": {"memory": MEMORY_LIMIT, "cpu": "500m"},
                    "requests": {"memory": "16Mi", "cpu": "10m"}, "readOnlyRootFilesystem": True, "availableReplicas": 1, "replicas": 1}
        self.assertEqual({k: f.get(k) for k in expected}, expected)
        self.assertIn("no differences", self.cli("diff", "-f", self.file).lower())
        self.cli("deploy", "--name", "one-a", "--image", "echo", "--label", "team=theirs")
        self.assertRegex(self.cli("diff", "-f", self.file, code=1), r"- label\S*team:\s+ours\s+\| \+ label\S*team:\s+theirs")

    def test_filter_and_regex_choose(self):
        self.deploy("--filter", "one-*")
        self.assertEqual(self.names(), ["one-a", "one-b"])
        self.deploy("--regex", "^t.o$")
        self.assertEqual(self.names(), ["one-a", "one-b", "two"])
        self.assertIn("no functions matching", self.deploy("--filter", "three*", code=1).lower())
        self.deploy("--filter", "a", "--regex", "b", code=1)
        self.cli("remove", "-f", self.file, "--filter", "one-a")
        self.assertEqual(self.names(), ["one-b", "two"])

    def test_flags_win_over_the_file(self):
        self.deploy("--filter", "one-a", "--label", "team=theirs", "--annotation", "a=b", "--env", "colour=green", "--secret", "first")
        f = self.function("one-a")
        self.assertEqual((f["labels"]["team"], f["annotations"], f["envVars"]["colour"]), ("theirs", {"topic": "greetings", "a": "b"}, "green"))

    def test_variables_are_put_in(self):
        self.env["IMAGE"] = "team/echo"
        self.deploy("--filter", "two")
        self.assertEqual(self.function("two")["image"], "team/echo:latest")
        self.env["IMAGE"] = "nobody/none"
        output = self.deploy("--filter", "two", code=1)
        self.assertIn(f"no executable {self.p.functions}/none", output)
        self.assertEqual(self.function("two")["image"], "team/echo:latest")  # as it was

    def test_a_template_is_asked_for(self):
        self.assertIn("template", self.cli("deploy", "-f", self.file, code=1).lower())
        self.assertLessEqual(set(self.names()), {"one-a"})  # its fprocess is in the file

    def test_what_is_broken_is_said_and_the_others_are_deployed(self):
        with open(self.file, "a") as f:
            f.write("  three:\n    lang: c-balm\n    handler: ./x\n    image: none\n  Bad_name:\n    lang: c-balm\n    handler: ./x\n    image: echo\n")
        output = self.deploy(code=1)
        self.assertIn("no executable", output)
        self.assertIn("lower-case", output)
        self.assertEqual(self.names(), ["one-a", "one-b", "two"])

    # ---- one function by flags ----

    def test_every_flag(self):
        self.one("--env", "a=b", "--env", "c=d=e", "-l", "l=1", "--annotation", "n=2", "--secret", "first", "--constraint", "x == y",
                 "--memory-limit", MEMORY_LIMIT, "--cpu-limit", "250m", "--memory-request", "8Mi", "--cpu-request", "5m", "--readonly",
                 "--fprocess", "./echo", "--network", "func_functions", "--namespace", "openfaas-fn", "--timeout", "30s")
        f = self.function("x")
        self.assertEqual((f["envVars"], f["labels"], f["annotations"], f["secrets"], f["constraints"], f["limits"], f["requests"],
                          f["readOnlyRootFilesystem"], f["envProcess"]),
                         ({"a": "b", "c": "d=e"}, {"l": "1"}, {"n": "2"}, ["first"], ["x == y"], {"memory": MEMORY_LIMIT, "cpu": "250m"},
                          {"memory": "8Mi", "cpu": "5m"}, True, "./echo"))
        described = self.cli("describe", "x", "-v")
        for line in (r"Constraints:\n\s+- x == y", r"Environment:\n\s+a: b\n\s+c: d=e", r"Secrets:\n\s+- first",
                     rf"Requests:\n\s+CPU: 5m\n\s+Memory: 8Mi", rf"Limits:\n\s+CPU: 250m\n\s+Memory: {MEMORY_LIMIT}", r"Labels:\n\s+l: 1",
                     rf"URL:\s+{self.url}/function/x\n", rf"Async URL:\s+{self.url}/async-function/x\n"):
            self.assertRegex(described, line)
        self.assertEqual(self.cli("invoke", "x", input="all of them"), "all of them")

    def test_a_program_by_fprocess(self):
        self.one("--fprocess", f"{PYTHON} -c 'print(42)'", image="any/thing:1")
        self.assertEqual(self.cli("invoke", "x"), "42\n")

    def test_update_and_replace(self):
        self.one("--env", "n=1")
        created = self.function("x")["createdAt"]
        self.one("--env", "n=2")
        self.assertEqual((self.function("x")["envVars"], self.function("x")["createdAt"]), ({"n": "2"}, created))
        self.assertIn("already exists", self.one("--env", "n=3", "--update=false", code=1))
        self.assertEqual(self.function("x")["envVars"], {"n": "2"})
        self.assertIn("Removing old function", self.one("--env", "n=4", "--update=false", "--replace"))
        self.assertEqual(self.function("x")["envVars"], {"n": "4"})
        self.assertNotEqual(self.function("x")["createdAt"], created)
        self.one("--replace", code=1)  # --update is on, too: faas-cli refuses

    def test_what_is_wrong_exits_1_and_says_so(self):
        for flags, says in ((("--label", "nothing"), "label"), (("--memory-limit", "much"), "limits.memory"), (("--cpu-limit", "much"), "limits.cpu"),
                            (("--secret", "missing"), "secret 'missing'"), (("--secret", "../first"), "secrets"),
                            (("--namespace", "other"), "one, openfaas-fn"), (("--env", "LD_PRELOAD=x"), "LD_PRELOAD")):
            self.assertIn(says, self.one(*flags, code=1))
        for image in ("..", "a/..", "../../bin/sh"):
            self.assertIn("leads out of the functions folder", self.one(image=image, code=1))
        self.assertIn("executable", self.one(image="a/.hidden", code=1))
        for name in ("Upper", "a_b", "a.b", "../x", "x" * 64):
            self.assertIn("lower-case", self.one(name=name, code=1))
        self.assertIn("core function", self.one(name="alerts", code=1))
        self.assertEqual(self.names(), [])

    # ---- looking and removing ----

    def test_list_sorts(self):
        for name in ("b", "a", "c"):
            self.one(name=name)
            time.sleep(0.01)
        for name in ("c", "c", "a"):
            self.cli("invoke", name, input="x")
        self.assertEqual(self.names(), ["a", "b", "c"])
        self.assertEqual(self.cli("list", "-q", "--sort", "name").split(), ["a", "b", "c"])
        self.assertEqual(self.cli("list", "-q", "--sort", "invocations").split(), ["c", "a", "b"])
        self.assertEqual(self.cli("list", "-q", "--sort", "creation").split(), ["b", "a", "c"])
        self.assertRegex(self.cli("list", "-v"), r"Function\s+Image\s+Invocations\s+Replicas\s+CreatedAt\n")
        self.assertRegex(self.cli("list", "-v"), r"c\s+echo\s+2\s+1\s+20\d\d-\d\d-\d\d ")
        self.assertEqual(self.cli("list", "-q", "-n", "openfaas-fn").split(), ["a", "b", "c"])
        self.assertEqual(self.cli("list", "-q", "-n", "other").split(), [])

    def test_remove(self):
        self.deploy()
        self.assertIn("Removing old function", self.cli("remove", "two"))
        self.assertIn("No existing function to remove", self.cli("remove", "two", code=1))
        self.assertIn("No existing function to remove", self.cli("remove", "one-a", "-n", "other", code=1))
        self.assertIn("please provide", self.cli("remove", code=1).lower())
        self.cli("remove", "-f", self.file)  # two is gone already: faas-cli says so and goes on
        self.assertEqual(self.names(), [])

    def test_twenty_functions_in_one_deploy(self):
        names = [f"f{i:02}" for i in range(20)]
        text = MANY.format(gateway=self.url) + "".join(f"  {n}:\n    lang: c-balm\n    handler: ./x\n    image: echo\n" for n in names)
        self.file = self.p.write("twenty.yml", text)
        began = time.monotonic()
        self.assertEqual(self.deploy().count("202 Accepted"), 20)
        spent = time.monotonic() - began
        self.assertEqual(self.names(), names)
        print(f"\n20 functions by one faas-cli deploy: {spent:.2f} s", flush=True)
        self.assertLess(spent, 3 * float(os.environ.get("BALM_PATIENCE", "1")))


if __name__ == "__main__":
    main()
