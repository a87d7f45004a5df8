"""Replicas: as many as the load asks for, the same after kill -9, replaced without a failed request."""
import json
import os
import shutil
import time

from harness import BUILD, PATIENCE, PlatformTest, main, wait_until
from pace import Pace

PER_SECOND = 2000 / PATIENCE
STACK = """version: 1.0
provider:
  name: openfaas
functions:
  echo:
    image: {image}:latest
    environment: {{generation: "{generation}"}}
    labels: {{com.openfaas.scale.min: "{minimum}"}}
"""
# It says what it is, and then does not start.
DEAD = "#!/bin/sh\ntest \"$1\" = --describe && echo '{}' && exit 0\necho out of order\nexit 5\n"
# It starts and does not answer.
MUTE = "#!/bin/sh\ntest \"$1\" = --describe && echo '{}' && exit 0\nexec sleep 1000\n"


class ScaleTest(PlatformTest):
    refolds = False

    def functions(self):
        folder = os.path.join(self.folder, "functions")
        os.mkdir(folder)
        for name in ("echo", "other"):
            shutil.copy(os.path.join(BUILD, "functions", "echo"), os.path.join(folder, name))
        for name, text in (("dead", DEAD), ("mute", MUTE)):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
            os.chmod(os.path.join(folder, name), 0o755)
        return folder

    def start(self, stack="version: 1.0\nfunctions: {}\n", **arguments):
        self.p = self.platform(stack=stack, functions=self.functions(), **arguments)

    def api(self, method, path, body=None):
        status, _, answer = self.p.request(method, path, body, self.p.basic(), timeout=60)
        return status, answer.decode()

    def deploy(self, image="echo", expect=202, method="PUT", name="echo", **more):
        status, text = self.api(method, "/system/functions", {"service": name, "image": image, **more})
        self.assertEqual(status, expect, text + "\n" + self.p.log_text())
        return text

    def function(self, name="echo"):
        return json.loads(self.api("GET", "/system/function/" + name)[1])

    def available(self, name="echo"):
        return self.function(name)["availableReplicas"]

    def scale(self, n, name="echo"):
        return self.api("POST", "/system/scale-function/" + name, {"serviceName": name, "replicas": n})[0]

    def assert_steady(self, pace, seconds):
        self.assertEqual(pace.failures, {}, self.p.log_text())
        self.assertGreater(pace.sent, PER_SECOND * seconds * 0.5)  # or there was no such load


class RedeployTest(ScaleTest):
    def test_redeploys_under_load_fail_no_request(self):
        self.start()
        self.deploy(method="POST", labels={"com.openfaas.scale.min": "2"})
        with Pace(self.p.port, "/function/echo", PER_SECOND) as pace:
            for generation in range(12):
                time.sleep(0.25)
                self.deploy(image=("echo", "other")[generation % 2], envVars={"generation": str(generation)}, labels={"com.openfaas.scale.min": "2"})
        self.assert_steady(pace, 3)
        self.assertEqual(self.function()["envVars"], {"generation": "11"})
        self.assertEqual(self.available(), 2)

    def test_a_version_that_does_not_start_leaves_the_old_one(self):
        self.start()
        self.deploy(method="POST", envVars={"generation": "1"})
        with Pace(self.p.port, "/function/echo", PER_SECOND) as pace:
            time.sleep(0.5)
            self.assertIn("out of order", self.deploy(image="dead", expect=400))
            self.assertIn("no executable", self.deploy(image="nothing", expect=400))
            self.assertIn("did not come up", self.deploy(image="mute", expect=400))
            time.sleep(0.5)
        self.assert_steady(pace, 10)
        now = self.function()
        self.assertEqual((now["image"], now["envVars"]), ("echo", {"generation": "1"}))
        self.p.kill()
        self.p.start()
        self.assertEqual(self.function()["image"], "echo")

    def reload(self, **values):
        self.p.write("stack.yml", STACK.format(**values))
        return self.api("POST", "/system/reload", {})

    def test_reloads_under_load_fail_no_request(self):
        first = {"image": "echo", "generation": 0, "minimum": 2}
        self.start(STACK.format(**first))
        with Pace(self.p.port, "/function/echo", PER_SECOND) as pace:
            for generation in range(1, 7):
                time.sleep(0.25)
                self.assertEqual(self.reload(**dict(first, generation=generation))[0], 200)
            status, text = self.reload(**dict(first, image="dead"))
            self.assertEqual(status, 400, text)
            self.assertIn("out of order", text)
            time.sleep(0.5)
        self.assert_steady(pace, 2)
        now = self.function()
        self.assertEqual((now["image"], now["envVars"]), ("echo:latest", {"generation": "6"}))


class KilledTest(ScaleTest):
    def names(self):
        return sorted(f["name"] + ":" + str(f["replicas"]) for f in json.loads(self.api("GET", "/system/functions")[1]))

    def test_functions_secrets_and_scale_come_back(self):
        self.start(STACK.format(image="echo", generation=0, minimum=0).replace("echo:\n", "fromfile:\n", 1))
        self.assertIn(self.api("POST", "/system/secrets", {"name": "token", "value": "s3cret"})[0], (200, 201, 202))
        for name in ("a", "b", "c"):
            self.deploy(method="POST", name=name, secrets=["token"], envVars={"who": name})
        self.assertEqual(self.scale(3, "a"), 202)
        self.assertEqual(self.scale(0, "b"), 202)
        self.assertEqual(self.scale(2, "fromfile"), 202)
        before = ["a:3", "b:0", "c:1", "fromfile:2"]
        wait_until(lambda: self.names() == before, 10, before)
        for _ in range(3):
            self.p.kill()
            self.p.start()
            wait_until(lambda: self.names() == before, 10, before)
            self.assertEqual(self.p.request("POST", "/function/a", b"back")[2], b"back")
        self.assertEqual([s["name"] for s in json.loads(self.api("GET", "/system/secrets")[1])], ["token"])
        self.assertEqual(self.function("a")["envVars"], {"who": "a"})


if __name__ == "__main__":
    main()
