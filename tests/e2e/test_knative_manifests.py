#!/usr/bin/env python3
"""Knative takes our manifests and faas-cli's: part of `make e2e-knative`.

Judged by Knative's own defaulting and validation, which its admission webhook runs (knative_go/main.go), and by a real kube-apiserver with
Knative's own definition of a Service. Where one cannot be had the tests that want it are skipped and say why.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
import go_build  # noqa: E402
import kube_apiserver  # noqa: E402
import queue_proxy_build  # noqa: E402
from faas import FAAS_CLI  # noqa: E402
from harness import BALM  # noqa: E402

OURS = os.path.join(ROOT, "charts", "balm", "knative", "functions.yaml")
NAMES = sorted(os.path.basename(os.path.dirname(f)) for f in glob.glob(f"{ROOT}/functions/*/bot.yaml"))


def read(path):
    with open(path) as f:
        return f.read()


def run(*argv, given=None, cwd=ROOT):
    """(exit code, stdout, stderr)"""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, cwd=cwd, timeout=300)
    return done.returncode, done.stdout, done.stderr


def generated_by_faas_cli():
    if FAAS_CLI is None:
        raise unittest.SkipTest("SKIPPED: no faas-cli (FAAS_CLI, PATH, ~/.cache/balm/bin)")
    code, out, err = run(FAAS_CLI, "generate", "--api=serving.knative.dev/v1", "--namespace", "default", "-f", "stack.yml")
    if code != 0:
        raise AssertionError(err)
    return out


def deployed(text):
    return sorted(line.split()[1] for line in text.splitlines() if line.startswith("  name: "))


class Webhook(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.program = queue_proxy_build.webhook()
        except go_build.Unavailable as e:
            raise unittest.SkipTest(str(e).replace("'", "`"))

    def judge(self, text):
        code, out, err = run(self.program, given=text)
        self.assertEqual(code, 0, err)
        return dict(line.split(": ", 1) for line in out.splitlines())

    def test_ours_are_valid_and_nothing_is_warned_of(self):
        text = read(OURS)
        self.assertEqual(self.judge(text), {name: "ok" for name in deployed(text)})
        self.assertLessEqual({"echo", "notify"}, set(deployed(text)))
        self.assertLessEqual(set(deployed(text)), set(NAMES))

    def test_ours_are_those_that_faas_cli_makes_of_the_same_stack(self):
        theirs = generated_by_faas_cli()
        self.assertEqual(deployed(theirs), deployed(read(OURS)))
        for name, verdict in self.judge(theirs).items():
            self.assertRegex(verdict, "^ok", name)

    def test_it_would_find_what_is_wrong(self):
        text = read(OURS)
        for right, wrong, words in (("name: http1", "name: grpc", "grpc"), ("timeoutSeconds: 40", "timeoutSeconds: 4000", "timeoutSeconds"),
                                    ("path: /_/ready", "paht: /_/ready", "paht")):
            self.assertIn(right, text)
            self.assertIn(words, "".join(v for v in self.judge(text.replace(right, wrong)).values() if not v.startswith("ok")))

    def test_as_json_it_is_a_list_of_the_same(self):
        code, out, err = run(BALM, "generate", "knative", "functions/echo/bot.yaml", "functions/notify/bot.yaml", "--json",
                             "--image-prefix", "registry.example/balm/")
        self.assertEqual(code, 0, err)
        self.assertIn('"image":"registry.example/balm/echo:latest"', out)
        self.assertTrue(out.startswith('{"apiVersion":"v1","items":['), out[:100])


class Applied(unittest.TestCase):
    """`kubectl apply` to a real kube-apiserver."""

    @classmethod
    def setUpClass(cls):
        try:
            cls.definition = os.path.join(queue_proxy_build.source(), "config", "core", "300-resources", "service.yaml")
            cls.cluster = kube_apiserver.Cluster()
        except go_build.Unavailable as e:
            raise unittest.SkipTest(str(e).replace("'", "`"))
        cls.addClassCleanup(cls.cluster.stop)
        cls.cluster.start()
        cls.cluster.apply_definition(cls.definition, "services.serving.knative.dev")

    def tearDown(self):
        self.cluster.kubectl("delete", "services.serving.knative.dev", "--all")

    def apply(self, text, *more):
        code, out, err = self.cluster.kubectl("apply", "--validate=strict", "-f", "-", *more, given=text)
        self.assertEqual((code, err), (0, ""), out)
        return out

    def test_ours_apply_and_come_back_as_they_are(self):
        text = read(OURS)
        self.apply(text, "--dry-run=server")
        out = self.apply(text)
        self.assertEqual(out.count("service.serving.knative.dev/"), len(deployed(text)))
        self.assertEqual(self.cluster.kubectl("diff", "-f", "-", given=text), (0, "", ""))  # nothing was pruned
        code, out, _ = self.cluster.kubectl("get", "services.serving.knative.dev", "echo", "-o",
                                            "jsonpath={.spec.template.spec.containers[0].securityContext.runAsUser}")
        self.assertEqual((code, out), (0, "12000"))

    def test_those_of_faas_cli_apply(self):
        text = generated_by_faas_cli()
        self.assertEqual(self.apply(text).count(" created"), len(deployed(text)))

    def test_unknown_members_do_not(self):
        code, _, err = self.cluster.kubectl("apply", "--validate=strict", "--dry-run=server", "-f", "-",
                                            given=read(OURS).replace("path: /_/ready", "paht: /_/ready"))
        self.assertNotEqual(code, 0)
        self.assertIn("paht", err)


if __name__ == "__main__":
    unittest.main()
