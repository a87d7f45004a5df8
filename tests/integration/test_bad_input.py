"""What nobody should send to the management API: each is answered 4xx with a sentence, changes nothing, and the next request is served. And many
at once: of the same name, and of several while the platform is killed.
"""
import http.client
import json
import os
import random
import threading

from harness import PlatformTest, main

PLAIN = {"service": "x", "image": "echo"}
HUGE = "x" * (1 << 20)


class ApiTest(PlatformTest):
    refolds = False

    def setUp(self):
        super().setUp()
        self.p = self.platform(stack="version: 1.0\nfunctions: {}\n")

    def api(self, method, path, body=None, headers=None):
        status, _, answer = self.p.request(method, path, body, dict(self.p.basic(), **(headers or {})), timeout=60)
        return status, answer.decode(errors="replace")

    def deploy(self, method="POST", **members):
        return self.api(method, "/system/functions", {**PLAIN, **members})

    def functions(self):
        return sorted(f["name"] for f in json.loads(self.api("GET", "/system/functions")[1]))

    def stored(self):
        folder = os.path.join(self.p.data, "functions")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


class BadInputTest(ApiTest):
    def refused(self, says, method, path, body, headers=None):
        status, text = self.api(method, path, body, headers)
        self.assertTrue(400 <= status < 500, f"{method} {path} {str(body)[:200]}: {status} {text}")
        self.assertIn(says, text)
        self.assertLess(len(text), 600)
        self.assertTrue(text[:-1].isprintable(), text)

    def test_deploy(self):
        self.assertEqual(self.deploy(service="there")[0], 202)
        before = self.stored()
        deploy = [
            ("line 1", '{"service": "x"'), ("", "{}{}"), ("", "[" * 100000), ("object", "[]"), ("object", "[1]"), ("", "\xff\xfe"), ("", ""),
            ("did you mean 'envVars'", {**PLAIN, "envvars": {"a": "b"}}),
            ("no member 'surprise'", {**PLAIN, "surprise": 1}),
            ("no member", {**PLAIN, "a\nb\x1b[31m" + "c" * 5000: 1}),
            ("image must be text", {"service": "x", "image": 5}),
            ("labels", {**PLAIN, "labels": {"a": 1}}), ("labels", {**PLAIN, "labels": ["a"]}), ("labels", {**PLAIN, "labels": "a"}),
            ("labels", {**PLAIN, "labels": {"bad\nname": 1}}),
            ("constraints", {**PLAIN, "constraints": [1]}), ("limits", {**PLAIN, "limits": "1Gi"}), ("limits", {**PLAIN, "limits": {"memory": 5}}),
            ("readOnlyRootFilesystem", {**PLAIN, "readOnlyRootFilesystem": "yes"}),
            ("envProcess must be text", {**PLAIN, "envProcess": ["cat"]}),
            ("namespace", {**PLAIN, "namespace": "other"}), ("namespace must be text", {**PLAIN, "namespace": 3}),
            ("larger than", {**PLAIN, "labels": {"a": HUGE}}), ("larger than", {**PLAIN, "annotations": {"a": HUGE}}),
            ("larger than", {**PLAIN, "labels": {f"l{i}": "x" * 100 for i in range(10000)}}),
            ("service", {"image": "echo"}), ("image", {"service": "x"}),
        ]
        deploy += [("lower-case", {**PLAIN, "service": name}) for name in
                   ("X", "a_b", "a.b", "-a", "a-", "a/b", "../a", "a b", "ä", "x" * 64, HUGE[:200000])]
        deploy += [("u0000", {**PLAIN, "service": "a\x00b"})]
        deploy += [("", {**PLAIN, "image": image}) for image in
                   ("..", "a/..", "../../bin/sh", "../echo", "a/../echo", "/echo", "a/.hidden", "echo/", "a\x00b", "%2e%2e", HUGE[:200000])]
        deploy += [("secrets", {**PLAIN, "secrets": [name]}) for name in ("../basic-auth-password", "a/b", "..", "", ".x", "x" * 300)]
        deploy += [("secrets", {**PLAIN, "secrets": "one"}), ("secrets", {**PLAIN, "secrets": [5]}),
                   ("environment", {**PLAIN, "envVars": {"LD_PRELOAD": "x.so"}}), ("environment", {**PLAIN, "envVars": {"a=b": "c"}})]
        for says, body in deploy:
            for method in ("POST", "PUT"):
                if method == "POST" or not isinstance(body, dict) or not isinstance(body.get("service"), str):
                    self.refused(says, method, "/system/functions", body)
                else:
                    status = self.api(method, "/system/functions", body)[0]
                    self.assertTrue(400 <= status < 500, (body, status))
        self.refused("application/json", "POST", "/system/functions", PLAIN, {"Content-Type": "text/plain"})
        self.refused("already exists", "POST", "/system/functions", {**PLAIN, "service": "there"})
        self.assertEqual((self.functions(), self.stored()), (["there"], before))
        self.assertEqual(self.p.request("POST", "/function/there", b"served")[2], b"served")

    def test_the_others(self):
        self.assertEqual(self.deploy(service="there")[0], 202)
        for body in ("{", "[]", {}, {"functionName": 5}, {"functionName": "../there"}, {"functionName": "no"}, {"functionName": HUGE}):
            self.refused("", "DELETE", "/system/functions", body)
        for body in ("{", "[]", {}, {"replicas": -1}, {"replicas": 1.5}, {"replicas": "2"}, {"replicas": 10**30}, {"replicas": 10000},
                     {"serviceName": "other", "replicas": 1}):
            self.refused("", "POST", "/system/scale-function/there", body)
        for path in ("/system/scale-function/no", "/system/scale-function/..%2fthere"):
            self.refused("no such function", "POST", path, {"replicas": 1})
        for body in ("{", "[]", {}, {"name": "../x", "value": "v"}, {"name": "a/b", "value": "v"}, {"name": "..", "value": "v"},
                     {"name": "Upper", "value": "v"}, {"name": "a\x00b", "value": "v"}, {"name": "x" * 300, "value": "v"}, {"name": 5},
                     {"name": "x", "rawValue": "=="}, {"name": "x", "value": "v", "namespace": "other"}, {"name": "x", "value": HUGE * 2}):
            self.refused("", "POST", "/system/secrets", body)
        for path in ("/system/function/..", "/system/function/%2e%2e", "/system/function/" + "x" * 5000, "/system/logs?name=..&follow=false",
                     "/system/logs", "/system/logs?name=there&tail=x", "/system/logs?name=there&since=now", "/function/no", "/function/"):
            self.refused("", "GET", path, None)
        self.assertEqual(self.functions(), ["there"])
        self.assertEqual(json.loads(self.api("GET", "/system/secrets")[1]), [])
        self.assertEqual(self.p.request("POST", "/function/there", b"served")[2], b"served")

    def test_the_largest_that_is_taken_comes_back(self):
        for size in range(262144 - 400, 262144 + 400, 40):
            status, text = self.deploy(service=f"x{size}", labels={"a": "x" * size})
            self.assertIn(status, (202, 400), text)
        before = self.functions()
        self.assertTrue(0 < len(before) < 20, before)
        self.p.kill()
        self.p.start()
        self.assertEqual(self.functions(), before)


class AtOnceTest(ApiTest):
    def at_once(self, *calls):
        answers = [None] * len(calls)

        def one(i, call):
            try:
                answers[i] = call()
            except (OSError, http.client.HTTPException) as e:
                answers[i] = (0, repr(e))
        threads = [threading.Thread(target=one, args=item) for item in enumerate(calls)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return answers

    def test_the_same_name(self):
        for turn in range(5):
            name = f"same{turn}"
            answers = self.at_once(*[lambda i=i: self.deploy(service=name, envVars={"n": str(i)}) for i in range(12)])
            self.assertEqual(sorted(s for s, _ in answers), [202] + [409] * 11, answers)
            winner = [i for i, (s, _) in enumerate(answers) if s == 202][0]
            now = json.loads(self.api("GET", "/system/function/" + name)[1])
            self.assertEqual(now["envVars"], {"n": str(winner)})
            answers = self.at_once(*[lambda i=i: self.deploy("PUT", service=name, envVars={"n": str(i)}) for i in range(8)],
                                   lambda: self.api("DELETE", "/system/functions", {"functionName": name}))
            self.assertTrue(all(s in (202, 404) for s, _ in answers), answers)
            self.assertEqual(name in self.functions(), f"{name}.json" in self.stored())
            self.assertNotIn(name, self.functions(), "an update brought back what was removed")
        self.assertEqual(self.deploy(service="next")[0], 202)

    def test_several_while_the_platform_is_killed(self):
        rng = random.Random(7)
        answered = {}
        for turn in range(4):
            names = [f"f{turn}-{i}" for i in range(10)]
            timer = threading.Timer(rng.uniform(0.005, 0.15), lambda: self.p.process.kill())
            timer.start()
            answers = self.at_once(*[lambda n=n: self.deploy(service=n, envVars={"who": n}) for n in names],
                                   *[lambda n=n: self.api("POST", "/system/secrets", {"name": n, "value": n}) for n in names])
            timer.join()
            self.p.kill()
            self.p.start()
            for name, (status, text) in zip(names, answers):
                self.assertIn(status, (202, 0), text)
                answered[name] = answered.get(name) or status == 202
            secrets = {s["name"] for s in json.loads(self.api("GET", "/system/secrets")[1])}
            self.assertLessEqual({n for n, (s, _) in zip(names, answers[len(names):]) if s == 202}, secrets)
            there = set(self.functions())
            self.assertLessEqual({n for n, ok in answered.items() if ok}, there)
            self.assertLessEqual(there, set(answered))
            self.assertLessEqual(secrets, set(answered), "half a secret is none")
            self.assertEqual(set(os.listdir(os.path.join(self.p.data, "secrets", "functions"))), secrets)
            self.assertEqual([f for f in self.stored() if not f.endswith((".json", ".scale"))], [])
            for name in there:
                self.assertEqual(json.loads(self.api("GET", "/system/function/" + name)[1])["envVars"], {"who": name})
        print(f"\n{len(answered)} deployed at once with 4 kills, {sum(map(bool, answered.values()))} answered, none lost", flush=True)
        self.assertEqual(self.deploy(service="next")[0], 202)
        self.assertEqual(self.p.request("POST", "/function/next", b"served")[2], b"served")


if __name__ == "__main__":
    main()
