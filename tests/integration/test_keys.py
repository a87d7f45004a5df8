"""API keys: a function whose bot.yaml asks for one, behind the gateway and alone, with keys that come late, change, are wrong and are guessed at."""
import json
import os
import subprocess
import unittest

from faas import FAAS_CLI
from harness import BUILD, PATIENCE, PlatformTest, free_port, main, request, shared, shared_file, wait_until

BOT = "name: guarded\nsummary: Answers those who have a key\nacts: false\nauth: api-key\n"
# Says what it is asked for with, and what of it a handler could give away. "hold PATH" waits until PATH is there.
PROGRAM = """#!/bin/sh
read -r word path
echo "$word" >>"$calls"
while [ "$word" = hold ] && [ ! -e "$path" ]; do sleep 0.05; done
echo "$word for $$, mine $Http_X_Mine, key $Http_X_Api_Key"
"""
STACK = "version: 1.0\nfunctions:\n  guarded: {image: guarded, fprocess: ./run.sh, secrets: [guarded-api-key], environment: {calls: CALLS}}\n  bare: {image: guarded, fprocess: ./run.sh, environment: {calls: CALLS}}\n"
OLD, NEW, OTHER = "old-" + "a" * 40, "new-" + "b" * 40, "other-" + "c" * 40


class KeysTest(PlatformTest):
    def setUp(self):
        super().setUp()
        self.functions = os.path.join(self.folder, "functions")
        self.image = os.path.join(self.functions, "guarded")
        os.makedirs(self.image)
        self.program = os.path.join(self.image, "run.sh")
        for name, text, mode in (("bot.yaml", BOT, 0o644), ("run.sh", PROGRAM, 0o755)):
            with open(os.path.join(self.image, name), "w") as f:
                f.write(text)
            os.chmod(f.name, mode)

    def start(self, **more):
        return self.platform(functions=self.functions, stack=STACK.replace("CALLS", shared_file(self.folder, "calls")), **more)

    def put(self, p, value, method="PUT"):
        body = json.dumps({"name": "guarded-api-key", "namespace": "openfaas-fn", "value": value})
        status, _, text = p.request(method, "/system/secrets", body, p.basic())
        self.assertEqual(status, 202, text)

    def call(self, p, key=None, name="guarded", body="hello", prefix="/function/", **headers):
        headers = {**headers, **({"X-Api-Key": key} if key is not None else {})}
        status, got, text = p.request("POST", prefix + name, body, headers)
        return status, got, text.decode()

    def calls(self):
        try:
            with open(shared(self.folder, "calls")) as f:
                return f.read().split()
        except OSError:
            return []

    def everything_written(self, p):
        """What a key must not be found in: the log, the journal and all other files but the secret itself."""
        text = p.log_text() + json.dumps(p.records())
        for folder, _, names in os.walk(p.data):
            for name in names:
                path = os.path.join(folder, name)
                if name == "guarded-api-key" or not os.path.isfile(path):  # it, and the copy of a function that lists it
                    continue
                with open(path, "rb") as f:
                    text += f.read().decode(errors="replace")
        return text


class Gateway(KeysTest):
    def test_only_who_shows_a_key_is_let_in(self):
        p = self.start()
        self.put(p, OLD, "POST")
        status, headers, text = self.call(p)
        self.assertEqual((status, text), (401, "function guarded asks for an API key: send it as X-Api-Key\n"))
        self.assertEqual(headers["www-authenticate"], 'ApiKey realm="guarded", header="X-Api-Key"')
        for wrong in (NEW, OLD[:-1], OLD + "x", "x", OLD.upper()):
            status, headers, text = self.call(p, wrong)
            self.assertEqual((status, text), (401, "function guarded does not take this API key\n"), wrong)
            self.assertIn("www-authenticate", headers)
        self.assertEqual(self.call(p, "", prefix="/async-function/")[0], 401)
        self.assertEqual(self.call(p, OTHER, prefix="/async-function/")[0], 401)
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(p.request(method, "/function/guarded/below?x=1")[0], 401, method)
        self.assertEqual(self.calls(), [])
        self.assertEqual(p.request("GET", "/function/guarded.openfaas-fn")[0], 401)
        for name in ("guarded", "bare", "guarded.openfaas-fn"):
            status, _, text = self.call(p, OLD, name, **{"X-Mine": "too"})
            self.assertEqual(status, 200, text)
            self.assertRegex(text, "^hello for [0-9]+, mine too, key $")  # the handler sees no key
        # The platform's login is no key, and a key no login.
        self.assertEqual(p.request("POST", "/function/guarded", "x", p.basic())[0], 401)
        self.assertEqual(p.request("GET", "/system/functions", headers={"X-Api-Key": OLD})[0], 401)
        metrics = p.request("GET", "/metrics")[2].decode()
        self.assertIn('balm_logins_refused_total{reason="wrong"} 6\n', metrics)

    def test_the_document_says_so_and_is_open(self):
        p = self.start()
        status, _, text = p.request("GET", "/function/guarded/openapi.json")
        document = json.loads(text)
        self.assertEqual(document["paths"]["/"]["post"]["security"], [{"apiKey": []}])
        scheme = document["components"]["securitySchemes"]["apiKey"]
        self.assertEqual((scheme["type"], scheme["in"], scheme["name"]), ("apiKey", "header", "X-Api-Key"))
        self.assertIn("401", document["paths"]["/"]["post"]["responses"])

    def test_keys_that_come_late_and_change(self):
        """Deployed before its secret exists; then several keys at once, the old one gone, and never a restart."""
        p = self.start()
        for name in ("guarded", "bare"):
            status, _, text = self.call(p, OLD, name)
            self.assertEqual((status, text), (503, f"function {name} cannot compare API keys now\n"))
            self.assertEqual(self.call(p, None, name)[0], 401)
        told = [line for line in p.log if line["message"].startswith("nobody can be let in")]
        self.assertEqual(len(told), 2, told)
        self.put(p, OLD, "POST")
        first = self.call(p, OLD)
        self.assertEqual(first[0], 200, first)
        shim = [line for line in p.log if line["message"] == "function started"]
        for text, good, bad in ((f"{OLD}\n\n  {NEW}  \n", (OLD, NEW), (OTHER,)), (NEW, (NEW,), (OLD,)), (f"{OTHER}\r\n{NEW}\r\n", (OTHER, NEW), (OLD,))):
            self.put(p, text)
            self.assertEqual([self.call(p, key)[0] for key in good], [200] * len(good), text)
            self.assertEqual([self.call(p, key)[0] for key in bad], [401] * len(bad), text)
        with open(os.path.join(p.data, "secrets", "functions", "guarded-api-key"), "w") as f:  # by hand
            f.write(OLD + "\n")
        self.assertEqual([self.call(p, key)[0] for key in (OLD, NEW)], [200, 401])
        self.assertEqual([line for line in p.log if line["message"] == "function started"], shim)
        for text in ("short", OLD + "\nshort\n", "two words " + "x" * 40, "x" * 513):  # a slip lets nobody in, and nobody sees why but the log
            self.put(p, text)
            self.assertEqual(self.call(p, OLD)[2], "function guarded cannot compare API keys now\n")
        p.request("DELETE", "/system/secrets", json.dumps({"name": "guarded-api-key"}), p.basic())
        self.assertEqual(self.call(p, OLD)[0], 503)

    def test_a_recorded_call_needs_its_key_when_it_comes_and_not_later(self):
        """Through kill -9 and a change of keys; no key is written anywhere."""
        p = self.start()
        self.put(p, OLD, "POST")
        gate = os.path.join(self.folder, "gate")
        status, headers, text = self.call(p, OLD, body=f"hold {gate}", prefix="/async-function/")
        self.assertEqual(status, 202, text)
        wait_until(lambda: self.calls(), 20, "it has begun")
        p.kill()
        p.start()
        self.put(p, NEW)
        with open(gate, "w"):
            pass
        call = p.wait_record("call")
        p.wait_record("outcome", 60, intent=call["intent"], state="done")
        self.assertEqual(set(self.calls()), {"hold"})
        self.assertGreaterEqual(len(self.calls()), 2)  # begun again after the death
        self.assertEqual(self.call(p, OLD)[0], 401)
        self.assertEqual(self.call(p, NEW)[0], 200)
        written = self.everything_written(p)
        for key in (OLD, NEW):
            self.assertFalse(key in written, "a key is in a file or a log")
        for pid in [e for e in os.listdir("/proc") if e.isdigit()]:
            for name in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{name}", "rb") as f:
                        self.assertNotIn(NEW.encode(), f.read(), f"{pid} {name}")
                except OSError:
                    pass

    def test_guessing_is_slowed_down_and_shuts_out_nobody_with_a_key(self):
        p = self.start()
        self.put(p, OLD, "POST")
        answers = [self.call(p, f"guess-{i}-" + "x" * 40) for i in range(40)]
        self.assertEqual(answers[0][0], 401)
        self.assertEqual(answers[-1][0], 429)
        self.assertGreater(int(answers[-1][1]["retry-after"]), 0)
        self.assertEqual(self.call(p, OLD)[0], 200)
        metrics = p.request("GET", "/metrics")[2].decode()
        self.assertRegex(metrics, r'balm_logins_refused_total\{reason="limited"\} [1-9]')

    def test_bad_manifests_and_names_are_refused(self):
        p = self.start()
        body = json.dumps({"name": "balm-gateway-key", "value": "x" * 64})
        self.assertEqual(p.request("POST", "/system/secrets", body, p.basic())[0], 400)
        with open(os.path.join(self.image, "bot.yaml"), "w") as f:
            f.write(BOT.replace("api-key", "apikey"))
        deploy = json.dumps({"service": "again", "image": "guarded", "envProcess": "./run.sh"})
        status, _, text = p.request("POST", "/system/functions", deploy, p.basic())
        self.assertEqual(status, 400, text)
        self.assertIn(b"auth in bot.yaml: 'apikey' is none of open, signed, api-key", text)

    @unittest.skipUnless(FAAS_CLI, "SKIPPED: no faas-cli (FAAS_CLI, PATH, ~/.cache/balm/bin)")
    def test_faas_cli(self):
        p = self.start()
        env = dict(os.environ, OPENFAAS_URL=f"http://127.0.0.1:{p.port}", OPENFAAS_CONFIG=os.path.join(self.folder, "openfaas"), HOME=self.folder)

        def cli(*arguments, input="hello", code=0):
            done = subprocess.run([FAAS_CLI, *arguments], input=input, capture_output=True, text=True, env=env, cwd=self.image, timeout=60 * PATIENCE)
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
            return done.stdout + done.stderr
        cli("login", "-u", "admin", "--password-stdin", input=p.secret("basic-auth-password"))
        cli("secret", "create", "guarded-api-key", input=OLD + "\n")
        self.assertIn("hello for", cli("invoke", "guarded", "-H", f"X-Api-Key: {OLD}"))
        self.assertIn("401 - function guarded asks for an API key", cli("invoke", "guarded", code=1))
        cli("invoke", "guarded", "-H", f"X-Api-Key: {NEW}", code=1)
        cli("secret", "update", "guarded-api-key", input=NEW + "\n")
        self.assertIn("hello for", cli("invoke", "guarded", "-H", f"X-Api-Key: {NEW}"))
        self.assertIn("submitted asynchronously", cli("invoke", "guarded", "--async", "-H", f"X-Api-Key: {NEW}"))


class Alone(KeysTest):
    """Without our gateway: secrets as OpenFaaS and Kubernetes mount them (a file), and as Knative does (a folder)."""

    def function(self):
        self.mount, port = os.path.join(self.folder, "mounted"), free_port()
        os.mkdir(self.mount)
        env = {"port": str(port), "BALM_HOST": "127.0.0.1", "BALM_METRICS": "off", "suppress_lock": "true", "secret_mount_path": self.mount,
               "OPENFAAS_NAME": "guarded", "PATH": os.environ["PATH"], "TMPDIR": self.folder, "healthcheck_interval": "100ms"}
        env.update({k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")})
        manifest = os.path.join(self.folder, "manifest.json")
        with open(manifest, "w") as f:
            json.dump({"name": "guarded", "summary": "s", "acts": False, "auth": "api-key", "params": {}}, f)
        with open(manifest) as stdin, open(os.path.join(self.folder, "log"), "w") as log:
            process = subprocess.Popen([os.path.join(BUILD, "balm-watchdog"), "--", self.program], stdin=stdin, stderr=log, env=env)
        self.addCleanup(lambda: (process.terminate(), self.assertEqual(process.wait(20 * PATIENCE), 0)))

        def is_up():
            try:
                return request(port, "GET", "/_/health")[0] == 200
            except OSError:
                return False
        wait_until(is_up, 20, "the function answers")
        return port

    def ask(self, port, key=None):
        status, headers, text = request(port, "POST", "/", "hello", {"X-Api-Key": key} if key else {})
        return status, headers, text.decode()

    def test_the_function_looks_itself(self):
        port = self.function()
        self.assertEqual(self.ask(port)[0], 401)
        self.assertEqual(self.ask(port, OLD)[0], 503)  # mounted late
        path = os.path.join(self.mount, "guarded-api-key")
        with open(path, "w") as f:
            f.write(OLD + "\n")
        status, headers, text = self.ask(port, NEW)
        self.assertEqual((status, text), (401, "function guarded does not take this API key\n"))
        self.assertEqual(headers["www-authenticate"], 'ApiKey realm="guarded", header="X-Api-Key"')
        self.assertRegex(self.ask(port, OLD)[2], "^hello for [0-9]+, mine , key $")
        os.remove(path)
        os.makedirs(path)
        with open(os.path.join(path, "guarded-api-key"), "w") as f:
            f.write(f"{NEW}\n{OTHER}\n")
        self.assertEqual([self.ask(port, key)[0] for key in (OLD, NEW, OTHER)], [401, 200, 200])
        for probe in ("/_/health", "/_/ready"):
            self.assertEqual(request(port, "GET", probe)[0], 200, probe)
        with open(os.path.join(self.folder, "log")) as f:
            log = f.read()
        self.assertEqual(log.count("nobody can be let in"), 1, log)
        for key in (OLD, NEW, OTHER):
            self.assertNotIn(key, log)


if __name__ == "__main__":
    main()
