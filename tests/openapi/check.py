#!/usr/bin/env python3
"""Every function's OpenAPI document against the standard, and every function against its document: schemathesis makes calls from it, valid ones
and others, and any reply that the document does not allow is a failure. Functions that act run as they are, with a broker, folders and a
receiver of this test's own.

    tests/openapi/check.py [--build DIR] [--seed N] [--examples N] [NAME...]

The seed repeats the choices; it is printed. Ends in `N passed, N failed`.
"""
import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
LIMIT_S = 240  # of one function, and of the platform
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
          "negative_data_rejection", "unsupported_method", "allow_header_conformance", "ignored_auth", "valid_parameters_are_taken"]
# A function that does not act is asked by any method, as a watchdog's is: only its handler can say no.
PLAIN_CHECKS = [c for c in CHECKS if c not in ("unsupported_method", "allow_header_conformance")]


class Scene:
    """A function's process and what it needs to act. known: parameters with which it does."""

    def __init__(self, name, folder):
        import test_bots
        self.name, self.folder, self.known = name, folder, {}
        self.closers = []
        arguments = getattr(self, "make_" + name.replace("-", "_"), dict)()
        self.bot = test_bots.Bot(name, folder, **arguments)
        self.acts = self.bot.manifest["acts"]

    def make_disk_clean(self):
        root = os.path.join(self.folder, "root")
        os.makedirs(root)
        then = time.time() - 10 * 365 * 86400
        for i in range(50):
            with open(os.path.join(root, f"old-{i}"), "wb") as f:
                f.write(b"x" * 1000)
            os.utime(f.name, (then, then))
        self.known = {"root": root}
        return {"env": {"disk_clean_roots": root}}

    def make_service_restart(self):
        import test_bots
        broker = test_bots.Broker()
        broker.services = {"nginx": test_bots.down()}
        broker.on_restart = lambda service: (service.update(test_bots.up(42)), {"exit": 0, "output": "started\n"})[1]
        self.closers.append(broker.end)
        self.known = {"unit": "nginx", "settle": "1ms"}
        return {"broker": broker.theirs}

    def make_run_program(self):
        import test_bots
        broker = test_bots.Broker()
        broker.answer = lambda question: ({"ok": True, "exit": 0, "output": "said\n", "argv": ["/bin/say", "x"]} if question["subject"] == "say"
                                          else {"ok": False, "code": "PERMISSION_DENIED", "message": "it is not on the list"})
        self.closers.append(broker.end)
        self.known = {"program": "say"}
        return {"broker": broker.theirs}

    def make_notify(self):
        import test_bots
        receiver = test_bots.Receiver()
        self.closers.append(receiver.close)
        return {"secrets": {"notify-url": f"http://127.0.0.1:{receiver.port}/hook\n", "notify-hmac-key": "k\n"}}

    def close(self):
        code = self.bot.stop()
        for close in self.closers:
            close()
        return code


def validate(python, document):
    done = subprocess.run([python, "-m", "openapi_spec_validator", "-"], input=json.dumps(document), capture_output=True, text=True, timeout=60)
    return done.returncode == 0, done.stdout + done.stderr


def schemathesis(python, options, what, checks, folder, env, examples, seed):
    command = [python, "-m", "schemathesis.cli", *options, "run", *what, "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples),
               "--seed", str(seed), "--workers", "1", "--checks", ",".join(checks), "--generation-with-security-parameters", "false",
               "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off", "--no-color", "--request-timeout", "60"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env, cwd=folder, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as e:
        return False, (e.stdout or b"").decode(errors="replace") + f"\nnot within {LIMIT_S} s"
    return done.returncode == 0, done.stdout


def hooks(name, key, known):
    return dict(os.environ, BALM_OPENAPI=json.dumps({"name": name, "key": key, "known": known}),
                SCHEMATHESIS_HOOKS=os.path.join(ROOT, "tests", "openapi", "hooks.py"))


def calls_of(text):
    found = re.search(r"(\d+) generated", text)
    return f"{found.group(1) if found else 'no'} calls"


def fuzz(python, scene, args):
    import test_bots
    env = hooks(scene.name, test_bots.KEY if scene.acts else "", scene.known)
    url = f"http://127.0.0.1:{scene.bot.port}"
    return schemathesis(python, [], [url + "/openapi.json", "--url", url], CHECKS if scene.acts else PLAIN_CHECKS, scene.folder, env, args.examples,
                        args.seed)


# The platform's own document is written by hand. As in OpenFaaS, more is taken than it says, and methods of /function/NAME are the function's.
PLATFORM_CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
                   "response_schema_conformance", "allow_header_conformance", "ignored_auth"]


KEY = "k" * 40
STACK = """version: 1.0
functions:
  echo: {image: echo}
  service-restart: {image: service-restart}
  guarded: {image: guarded, fprocess: ./run.sh, secrets: [guarded-api-key]}
"""
GUARDED = "name: guarded\nsummary: Answers those who have a key\nacts: false\nauth: api-key\n"
DIRECT = """
name: direct
match: ['alertname="DirectCall"', 'bot="service-restart"']
target: service/${labels.unit}
mode: act
steps: [{bot: service-restart, with: {unit: "${labels.unit}", settle: 1ms}, verify: check}]
guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}}
"""
# What is asked of the whole platform: an acting function by its login, one that asks for a key, the core functions (the last of them stops acting),
# and itself, which removes functions.
PARTS = [("direct call", "/function/service-restart", {"unit": "web"}), ("API key", "/function/guarded", {}), ("alerts", "/function/alerts", {}),
         ("audit", "/function/audit", {}), ("scaler", "/function/scaler", {}), ("dispatcher", "/function/dispatcher", {}), ("platform", "", {})]


def start_platform(folder):
    from harness import BUILD, Platform
    functions, tool = os.path.join(folder, "functions"), os.path.join(folder, "restart.sh")
    shutil.copytree(os.path.join(BUILD, "functions"), functions)
    os.mkdir(os.path.join(functions, "guarded"))
    os.makedirs(os.path.join(folder, "data", "secrets", "functions"), mode=0o700)
    for path, text, mode in ((os.path.join(functions, "guarded", "bot.yaml"), GUARDED, 0o644),
                             (os.path.join(functions, "guarded", "run.sh"), "#!/bin/sh\nexec cat\n", 0o755), (tool, f"#!/bin/sh\nsetsid sleep {LIMIT_S} &\necho $! >{folder}/pid\n", 0o755),
                             (os.path.join(folder, "data", "secrets", "functions", "guarded-api-key"), KEY + "\n", 0o600)):
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
    acts = f"services:\n  web: {{functions: [service-restart], restart: [{tool}], pid_file: {folder}/pid}}\n"
    return Platform(folder, stack=STACK, functions=functions, runbooks={"direct.yaml": DIRECT}, host_acts=acts).start()


def check_part(python, args, p, folder, config, part):
    from harness import request
    name, below, known = part
    status, _, body = request(p.port, "GET", below + "/openapi.json", headers=p.basic())
    if status != 200:
        return [(f"{name}: document", False, f"{status} {body.decode()}")]
    document = json.loads(body)
    is_fine, text = validate(python, document)
    results = [(f"{name}: document", is_fine, text)]
    path = p.write("openapi.json", json.dumps(document))
    is_fine, text = schemathesis(python, ["--config-file", config], [path, "--url", f"http://127.0.0.1:{p.port}{below}"], PLATFORM_CHECKS,
                                 folder, hooks(name, "", known), max(args.examples // 6, 1), args.seed)
    return [*results, (f"{name}: " + calls_of(text), is_fine, text)]


def check_platform(python, args):
    folder = os.path.realpath(tempfile.mkdtemp(prefix="balm-openapi-"))
    results, p = [], None
    try:
        p = start_platform(folder)
        config = p.write("schemathesis.toml", f"""[auth.openapi]
login = {{ username = "{p.secret("basic-auth-user")}", password = "{p.secret("basic-auth-password")}" }}
token = {{ bearer = "{p.secret("webhook-token")}" }}
apiKey = {{ api_key = "{KEY}" }}
""", mode=0o600)
        for part in PARTS:
            results += check_part(python, args, p, folder, config, part)
        done = sum(r["state"] == "done" for r in p.records("outcome"))
        results.append((f"direct call: {done} acts done", done > 0, p.log_text()))
        code = p.stop()
        results.append((f"platform: ended with exit code {code}", code == 0, p.log_text()))
    finally:
        if p is not None and p.process is not None:
            p.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return results


def check(python, name, args):
    """[(what, is it fine)]"""
    from harness import request
    folder = os.path.realpath(tempfile.mkdtemp(prefix="balm-openapi-"))
    results = []
    try:
        scene = Scene(name, folder)
        try:
            status, _, body = request(scene.bot.port, "GET", "/openapi.json")
            document = json.loads(body) if status == 200 else {}
            is_fine, text = validate(python, document)
            results.append((f"{name}: document", is_fine, text))
            is_fine, text = fuzz(python, scene, args)
            results.append((f"{name}: {calls_of(text)}", is_fine, text))
        finally:
            code = scene.close()
        results.append((f"{name}: ended with exit code {code}", code == 0, scene.bot.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("BALM_SEED") or random.randrange(2**31)))
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    os.environ["BALM_BUILD"] = args.build
    import tools
    python = tools.python()
    print(f"seed {args.seed}", flush=True)
    passed = failed = 0
    for name in args.names or [*sorted(os.listdir(os.path.join(ROOT, args.build, "functions"))), "platform"]:
        for what, is_fine, text in check_platform(python, args) if name == "platform" else check(python, name, args):
            print(f"{'ok  ' if is_fine else 'FAIL'} {what}", flush=True)
            if not is_fine:
                print(text[-6000:], flush=True)
            passed, failed = passed + is_fine, failed + (not is_fine)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
