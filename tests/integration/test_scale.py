"""Replicas: as many as the load asks for, the same after kill -9, replaced without a failed request."""
import json
import os
import shutil
import time
import unittest

from harness import BUILD, PATIENCE, PlatformTest, main, wait_until
from pace import Pace
from test_gateway_hang import descendants

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


BURN = "#!/bin/sh\ntest \"$1\" = --describe && echo '{}' && exit 0\nwhile :; do :; done\n"
# Four processes, each well below the limit of one process.
GROW = """#!/bin/sh
test "$1" = --describe && echo '{}' && exit 0
for i in 1 2 3 4; do
    (python3 -c 'import time; x = b"x" * (30 << 20); print("grown", flush=True); time.sleep(1000)'; echo gone) &
done
wait
exec sleep 1000
"""
LIMITED = """version: 1.0
provider:
  name: openfaas
functions:
  {name}:
    image: {name}
    limits: {{{limits}}}
    labels: {{com.openfaas.scale.min: "1"}}
"""


class LimitsTest(ScaleTest):
    """A function cannot have more than its limit, whatever it starts."""

    def start_limited(self, name, text, limits, controller):
        functions = self.functions()
        with open(os.path.join(functions, name), "w") as f:
            f.write(text)
        os.chmod(os.path.join(functions, name), 0o755)
        self.p = self.platform(stack=LIMITED.format(name=name, limits=limits), functions=functions)
        if json.loads(self.api("GET", "/system/info")[1])["limits"][controller] == 0:
            self.assertTrue(self.function(name).get("warnings") or controller != "cpuCgroup")
            self.skipTest("SKIPPED: the platform may make no control groups here")

    def of_function(self, name):
        """Processes below the platform whose control group is one of the function's."""
        found = []
        for pid in descendants(self.p.process.pid):
            try:
                with open(f"/proc/{pid}/cgroup") as f:
                    if f"balm-{self.p.process.pid}-{name}-" in f.read():
                        found.append(pid)
            except OSError:
                pass
        return found

    def groups(self):
        with open("/proc/self/mounts") as f:
            points = [line.split()[1] for line in f if line.split()[2] in ("cgroup", "cgroup2")]
        return [os.path.join(top, n) for point in points for top, names, _ in os.walk(point) for n in names if f"balm-{self.p_pid}-" in n]

    def cpu_seconds(self, pids):
        ticks = 0
        for pid in pids:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def test_cpu(self):
        self.start_limited("burn", BURN, "cpu: 200m", "cpuCgroup")
        pids = wait_until(lambda: self.of_function("burn"), 10, "it runs in its group")
        self.p_pid = self.p.process.pid
        self.assertTrue(self.groups())
        before, began = self.cpu_seconds(pids), time.monotonic()
        time.sleep(3)
        share = (self.cpu_seconds(pids) - before) / (time.monotonic() - began)
        print(f"\nlimit 0.2 cores, used {share:.2f}", flush=True)
        self.assertLess(share, 0.3)
        self.assertIn("enforced", self.p.cli("doctor")[1])
        self.p.kill()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10, "the function is gone")
        self.p.start()  # removes what was left
        self.assertEqual(self.groups(), [])

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "AddressSanitizer's functions need terabytes of address space")
    def test_memory_of_all_that_it_starts(self):
        self.start_limited("grow", GROW, "memory: 64Mi", "memoryCgroup")
        wait_until(lambda: self.lines("grow").count("grown") + self.lines("grow").count("gone") >= 4, 30, "all have tried")
        held = 0
        for pid in self.of_function("grow"):
            with open(f"/proc/{pid}/status") as f:
                held += sum(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))
        print(f"\nlimit 64 MiB, held {held / 1024:.0f} MiB", flush=True)
        self.assertLess(held, 80 * 1024)  # what was held before they were moved into the group is not counted; 140 without a limit
        self.assertGreater(self.lines("grow").count("gone"), 0)

    def lines(self, name):
        return self.api("GET", f"/system/logs?name={name}&follow=false")[1]

    def test_limits_that_say_nothing_are_refused(self):
        self.start()
        for limits, says in (({"cpu": "much"}, "limits.cpu 'much'"), ({"cpu": "0"}, "limits.cpu"), ({"cpu": "-1"}, "limits.cpu"), ({"memory": "x"}, "limits.memory")):
            self.assertIn(says, self.deploy(method="POST", expect=400, limits=limits))
        self.deploy(method="POST", limits={"cpu": "1.5"})
        self.assertEqual(self.p.request("POST", "/function/echo", b"x")[2], b"x")


if __name__ == "__main__":
    main()
