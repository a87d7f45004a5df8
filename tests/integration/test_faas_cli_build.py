"""faas-cli up, publish and build through the platform's own builder: from sources to a function that runs, without Docker; and what it refuses."""
import hashlib
import hmac
import http.client
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import threading
import time
import unittest

from faas import FaasTest
from harness import BUILD, PATIENCE, ROOT, main, wait_until
from test_gateway_hang import descendants

SECRET = "a payload secret of thirty-two chars"
CONFIG = "com.openfaas.docker.config"
TEMPLATE = "language: x\nfprocess: cat\n"


def archive(*entries, image="made", config=None):
    """Entries are (name, content) or TarInfo; the config comes last, as faas-cli sends it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for e in entries:
            info, content = (e, None) if isinstance(e, tarfile.TarInfo) else (tarfile.TarInfo(e[0]), e[1])
            if content is None:
                info.type = tarfile.DIRTYPE if info.type == tarfile.REGTYPE else info.type
                t.addfile(info)
            else:
                data = content.encode()
                info.size, info.mode = len(data), 0o755
                t.addfile(info, io.BytesIO(data))
        if config is not False:
            data = (config or json.dumps({"image": image})).encode()
            info = tarfile.TarInfo(CONFIG)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def program(process="cat", image="made", **files):
    entries = [("context", None), ("context/template.yml", f"language: x\nfprocess: {process}\n"), ("context/function", None)]
    return archive(*entries, *((f"context/function/{k}", v) for k, v in files.items()), image=image)


def made_by(makefile, image="made", name="thing"):
    return archive(("context", None), ("context/Makefile", makefile), ("context/function", None),
                   ("context/function/bot.yaml", f"name: {name}\n"), image=image)


def special(kind, name, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class BuilderTest(FaasTest):
    def start_platform(self):
        self.functions = os.path.join(self.folder, "functions")
        os.mkdir(self.functions)
        shutil.copy(os.path.join(BUILD, "functions", "echo"), self.functions)
        self.secret_file = os.path.join(self.folder, "payload-secret")
        with open(self.secret_file, "w") as f:
            f.write(SECRET + "\n")
        return self.platform(stack="version: 1.0\nfunctions: {}\n", functions=self.functions, arguments=["--builder-secret", self.secret_file])

    def install(self, *languages):
        for language in languages:
            source = os.path.join(BUILD, "templates", "template", language) if language == "c-balm" else os.path.join(ROOT, "templates", language)
            shutil.copytree(source, os.path.join(self.home, "template", language))

    def remote(self, command, *more, secret=None, **keywords):
        return self.cli(command, "-f", "stack.yaml", "--remote-builder", self.url, "--payload-secret", secret or self.secret_file, *more,
                        timeout=400, **keywords)

    def post(self, body, key=SECRET, timeout=120, headers=None):
        signature = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Build-Signature": signature, "Accept": "application/x-ndjson", "Content-Type": "application/octet-stream", **(headers or {})}
        return self.p.request("POST", "/build", body, headers, timeout=timeout)

    def build(self, body, says=None):
        """Status of its last line, and all that was logged; `says` is part of the error of one that fails."""
        status, _, text = self.post(body)
        self.assertEqual(status, 200, text)
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual({line["status"] for line in lines[:-1]} - {"in_progress"}, set())
        if says is None:
            self.assertEqual(lines[-1]["status"], "success", lines[-1])
        else:
            self.assertEqual(lines[-1]["status"], "failed")
            self.assertIn(says, lines[-1]["error"])
        return "\n".join(word for line in lines for word in line["log"])

    def images(self):
        return sorted(os.listdir(self.functions))

    def edit(self, name, old, new):
        path = os.path.join(self.home, name)
        with open(path) as f:
            text = f.read()
        self.assertIn(old, text)
        with open(path, "w") as f:
            f.write(text.replace(old, new))


class UpTest(BuilderTest):
    def test_programs(self):
        self.install("shell-balm", "python3-balm")
        self.login()
        self.cli("new", "my-sh", "--lang", "shell-balm", "--prefix", "reg.example/team")
        self.cli("new", "my-py", "--lang", "python3-balm", "--append", "stack.yaml")
        output = self.remote("up")
        self.assertIn("success building and pushing image: reg.example/team/my-sh:latest", output)
        self.assertEqual(output.count("202 Accepted"), 2)
        file = self.p.write("shared/file", "12345")  # where functions may look
        for name in ("my-sh", "my-py"):
            self.assertIn("has 5 bytes", self.cli("invoke", name, input=json.dumps({"alertname": "A", "file": file})))
        # Another version under the same name, by publish, by build, and by what the environment says.
        self.edit("my-sh/handler.sh", "bytes", "octets")
        self.remote("publish", "--filter", "my-sh")
        self.cli("deploy", "-f", "stack.yaml")
        self.assertIn("has 5 octets", self.cli("invoke", "my-sh", input=json.dumps({"alertname": "A", "file": file})))
        self.env.update(OPENFAAS_REMOTE_BUILDER=self.url, OPENFAAS_PAYLOAD_SECRET=self.secret_file)
        self.assertIn("success building", self.cli("build", "-f", "stack.yaml"))
        self.assertIn("success building", self.cli("up", "--publish", "-f", "stack.yaml", "--parallel", "2"))
        self.assertEqual(self.images(), ["echo", "my-py", "my-sh"])
        self.assertNotIn(SECRET, self.p.log_text())

    @unittest.skipIf("ASAN_OPTIONS" in os.environ, "its processes have a limit of memory")
    def test_a_bot_in_c(self):
        subprocess.run(["make", "templates"], cwd=ROOT, check=True, capture_output=True,
                       env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")})
        self.install("c-balm")
        self.login()
        self.cli("new", "my-bot", "--lang", "c-balm")
        began = time.monotonic()
        output = self.remote("up")
        print(f"\nfaas-cli up of a bot in C, without Docker: {time.monotonic() - began:.1f} s", flush=True)
        for words in ("LD\tfunctions/my-bot", "has 5 bytes", "success building and pushing image: my-bot:latest", "202 Accepted"):
            self.assertIn(words, output)
        file = self.p.write("file", "123")
        call = json.dumps({"alertname": "A", "file": file})
        self.assertIn("has 3 bytes", self.cli("invoke", "my-bot", input=call))
        self.assertEqual(self.images(), ["echo", "my-bot"])
        self.p.kill()
        self.p.start()
        self.assertIn("has 3 bytes", self.cli("invoke", "my-bot", input=call))

    def test_what_exits_1(self):
        self.install("shell-balm")
        self.login()
        self.cli("new", "my-sh", "--lang", "shell-balm")
        wrong = self.p.write("wrong", "another secret of many characters")
        self.assertIn("status code 401", self.remote("up", secret=wrong, code=1))
        self.assertIn("failed to read payload secret", self.remote("up", secret="/no/such", code=1))
        with open(os.path.join(self.home, "template", "shell-balm", "Dockerfile"), "w") as f:
            f.write("FROM scratch\n")
        self.assertIn("needs a container engine", self.remote("up", code=1))
        os.unlink(os.path.join(self.home, "template", "shell-balm", "Dockerfile"))
        self.edit("stack.yaml", "image: my-sh:latest", "image: echo:latest")
        self.assertIn(f"{self.functions}/echo was not built here and is not replaced", self.remote("up", code=1))
        self.edit("stack.yaml", "image: echo:latest", "image: a/..:latest")
        self.assertIn("names no executable", self.remote("up", code=1))
        self.assertEqual(self.images(), ["echo"])
        self.assertEqual(self.cli("list", "-q").split(), [])

    def test_off_unless_asked_for(self):
        self.install("shell-balm")
        self.cli("new", "my-sh", "--lang", "shell-balm")
        self.p.stop()
        self.p.arguments = []
        self.p.start()
        self.assertIn("status code 404", self.remote("up", code=1))
        self.assertIn(b"--builder-secret", self.post(program())[2])
        for content in ("short", ""):
            self.p.stop()
            self.p.write("payload-secret", content)
            self.p.arguments = ["--builder-secret", self.secret_file]
            with self.assertRaisesRegex(AssertionError, "at least 16 characters"):
                self.p.start()
        self.p.arguments = ["--builder-secret", self.secret_file + ".none"]
        with self.assertRaisesRegex(AssertionError, "builder-secret"):
            self.p.start()
        self.p.write("payload-secret", SECRET)
        self.p.arguments = ["--builder-secret", self.secret_file]
        self.p.start()
        self.assertEqual(os.stat(self.secret_file).st_mode & 0o777, 0o600)


class ArchiveTest(BuilderTest):
    """What a client other than faas-cli could send."""

    def test_only_who_has_signed(self):
        body = program()
        bare = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        for signature in ("", "sha256=", "sha256=" + "0" * 64, bare, "sha1=" + bare, "sha256=" + bare.upper()):
            self.assertEqual(self.post(body, headers=dict(self.p.basic(), **{"X-Build-Signature": signature}))[0], 401)
        self.assertEqual(self.post(body, key="wrong")[0], 401)
        self.assertEqual(self.p.request("GET", "/build")[0], 405)
        self.assertEqual(self.p.request("GET", "/publickey")[0], 404)
        self.assertEqual(self.images(), ["echo"])
        self.build(body)
        self.assertEqual(self.images(), ["echo", "made"])
        one = json.loads(self.post(body, headers={"Accept": "application/json"})[2])
        self.assertEqual((one["status"], one["image"], one["log"]), ("success", "made", []))

    def test_archives_that_are_refused(self):
        context = (("context", None), ("context/template.yml", TEMPLATE))
        bad = program()
        refused = [
            ("broken", b"not a tar at all"), ("broken", bad[:700]), ("checksum", bad[:130] + b"7" + bad[131:]), ("no " + CONFIG, b""),
            ("no " + CONFIG, archive(*context, config=False)), ("no image", archive(*context, config="{}")), (CONFIG, archive(*context, config="{")),
            ("no image", archive(*context, config='{"image": 5}')),
            ("downwards", archive(*context, ("context/../../x", "x"))), ("downwards", archive(*context, ("context/./x", "x"))),
            ("downwards", archive(*context, ("context//x", "x"))), ("more than a context", archive(*context, ("etc/passwd", "x"))),
            ("absolute", archive(*context, ("/etc/passwd", "x"))), ("control", archive(*context, ("context/a\nb", "x"))),
            ("neither", archive(*context, special(tarfile.SYMTYPE, "context/x", "/etc/passwd"))),
            ("neither", archive(*context, special(tarfile.LNKTYPE, "context/x", "context/template.yml"))),
            ("neither", archive(*context, special(tarfile.CHRTYPE, "context/x"))), ("neither", archive(*context, special(tarfile.FIFOTYPE, "context/x"))),
            ("order of names", archive(*context, ("context/x", "1"), ("context/x", "2"))), ("order of names", archive(*context, ("context/a/b", "1"))),
            ("too deep", archive(*context, ("context/" + "a/" * 40 + "x", "1"))), ("too long", archive(*context, ("context/" + "a" * 300, "1"))),
            ("too many", archive(*context, *((f"context/{i}", "") for i in range(10001)))),
            ("template.yml", archive(("context", None))), ("fprocess", archive(("context", None), ("context/template.yml", "language: x\n"))),
            ("template.yml", archive(("context", None), ("context/template.yml", "\t{"))),
            ("bot.yaml", archive(("context", None), ("context/Makefile", "all:\n"))),
            ("no name", made_by("all:\n", name="../x")), ("no name", made_by("all:\n", name="''")),
        ]
        refused += [("image", program(image=name)) for name in ("..", "a/..", ".hidden", "a/", "UPPER", "a b", "x" * 64, "x" * 100000, "a\\b", "-x")]
        for says, body in refused:
            self.build(body, says)
            self.assertEqual(self.images(), ["echo"])
        self.assertEqual(self.post(b"x" * (9 << 20))[0], 413)
        self.assertEqual(os.listdir(self.work()), [])
        self.build(program())

    def work(self):
        name = "balm-build-" + hashlib.sha256(os.path.realpath(self.p.data).encode()).hexdigest()[:16]
        return os.path.join(os.environ.get("TMPDIR") or "/tmp", name)

    # ---- what a Makefile may do ----

    def test_what_make_can_reach(self):
        makefile = ("all:\n\t@id -u; env; cat $(SECRETS)/* || echo cannot; touch /etc/balm-was-here $(FUNCTIONS)/x || echo cannot either\n"
                    "\t@grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status; ls /proc/self/fd | wc -l\n"
                    "\t@mkdir -p $(OUT) && printf '\\#!/bin/sh\\n' > $(OUT)/thing\n")
        makefile = makefile.replace("$(SECRETS)", self.p.data + "/secrets").replace("$(FUNCTIONS)", self.functions)
        log = self.build(made_by(makefile))
        self.assertRegex(log, r"NoNewPrivs:\s+1")
        for secret in (SECRET, self.p.secret("basic-auth-password"), "BALM_", "OPENFAAS"):
            self.assertTrue(secret not in log or os.geteuid() != 0)
        self.assertNotIn("OPENFAAS_CONFIG", log)
        if os.geteuid() == 0:
            self.assertRegex(log, r"(?m)^64998$")
            self.assertRegex(log, r"CapEff:\s+0+\n")
            self.assertRegex(log, r"CapBnd:\s+0+\n")
            self.assertIn("cannot either", log)
        self.assertRegex(log, r"(?m)^cannot$")
        self.assertEqual(self.images(), ["echo", "made"])
        self.assertEqual(os.stat(os.path.join(self.functions, "made")).st_mode & 0o7777, 0o755)
        self.assertEqual(os.stat(os.path.join(self.functions, "made")).st_uid, os.geteuid())

    def test_what_make_makes_in_the_place_of_a_file(self):
        secret = self.p.write("secret", "only ours", mode=0o600)
        link = f"all:\n\t@mkdir -p $(OUT); ln -s {secret} $(OUT)/thing\n"
        folder = f"all:\n\t@ln -s {self.folder} $(OUT)\n"
        for makefile, name in ((link, "thing"), (folder, "secret"), ("all:\n\t@mkdir -p $(OUT)/thing\n", "thing"),
                               ("all:\n\t@mkdir -p $(OUT); mkfifo $(OUT)/thing\n", "thing"),
                               ("all:\n\t@mkdir -p $(OUT); truncate -s 100M $(OUT)/thing\n", "thing"), ("all:\n", "thing")):
            if name == "secret" and os.geteuid() != 0:
                continue  # then it is our own file that we give ourselves
            self.build(made_by(makefile, name=name), "make has made")
            self.assertEqual(self.images(), ["echo"])

    def test_limits(self):
        self.build(made_by("all:\n\t@head -c 300M /dev/zero > file\n"), "exit 2")
        self.build(made_by("all:\n\t@python3 -c 'bytearray(3 << 30)'\n"), "exit 2")
        if os.geteuid() == 0:
            log = self.build(made_by("SHELL = /bin/bash\nall:\n\t@for i in {1..1000}; do sleep 1000 & done; exit 1\n"), "exit 2")
            self.assertIn("Resource temporarily unavailable", log)
        wait_until(lambda: "sleep" not in descendants(self.p.process.pid).values(), 20, "all are gone")
        self.build(program())

    def test_a_log_without_end(self):
        log = self.build(made_by("all:\n\t@yes 'a line' | head -c 8000000; head -c 100000 /dev/zero | tr '\\\\0' x; echo; exit 3\n"), "exit 2")
        self.assertIn("more than is passed on", log)
        self.assertLess(len(log), 2 << 20)

    def test_nobody_waits_for_it_any_more(self):
        self.login()
        body = made_by("all:\n\t@echo sleeping; sleep 1000 & sleep 1000\n")
        signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        client = http.client.HTTPConnection("127.0.0.1", self.p.port, timeout=30 * PATIENCE)
        try:
            client.request("POST", "/build", body, {"X-Build-Signature": signature, "Accept": "application/x-ndjson"})
            response = client.getresponse()
            self.assertIn(b"in_progress", response.readline())
            answers = []
            second = threading.Thread(target=lambda: answers.append(self.post(program())))
            second.start()  # waits for its turn
            time.sleep(0.3)
            self.assertEqual(answers, [])
        finally:
            response.close()
            client.close()
        second.join(60 * PATIENCE)
        self.assertEqual(answers[0][0], 200)
        lines = [json.loads(line) for line in answers[0][2].splitlines()]
        self.assertEqual((lines[0]["log"][0].split(":")[0], lines[-1]["status"]), ("another build is under way", "success"))
        wait_until(lambda: "sleep" not in descendants(self.p.process.pid).values(), 10, "what it started is gone")

    # ---- kill -9 ----

    def version(self, n, files=20):
        return program(image="made", **{f"file{i}": f"version {n}\n" * 2000 for i in range(files)})

    def whole(self):
        """Which version is there, all of it."""
        folder = os.path.join(self.functions, "made", "function")
        if not os.path.isdir(folder):
            return None
        texts = set()
        for i in range(20):
            with open(os.path.join(folder, f"file{i}")) as f:
                texts.add(f.read())
        self.assertEqual(len(texts), 1, "two versions in one")
        text = texts.pop()
        self.assertEqual(text.count("version"), 2000)
        return int(text.split()[1])

    def test_killed_at_any_time(self):
        rng = random.Random(11)
        began = time.monotonic()
        self.build(self.version(0))
        usual = time.monotonic() - began
        last, cut, new = 0, 0, 0
        for n in range(1, 16):
            timer = threading.Timer(rng.uniform(0, usual * 2), lambda: self.p.process.kill())
            timer.start()
            try:
                answered = b'"success"' in self.post(self.version(n))[2]
            except Exception:  # noqa: BLE001 - whatever the client sees of it
                answered = False
            timer.join()
            self.p.kill()
            now = self.whole()
            self.assertIn(now, (last, n) if not answered else (n,))
            cut, new = cut + (not answered), new + (now == n)
            last = now
            self.p.start()
            self.assertEqual((self.images(), os.listdir(self.work())), (["echo", "made"], []))
        print(f"\n15 builds, {cut} cut by kill -9, {new} in their place: always one whole version", flush=True)
        self.build(self.version(99))
        self.assertEqual(self.whole(), 99)

    def test_killed_while_make_runs(self):
        thread = threading.Thread(target=lambda: self.post_and_forget(made_by("all:\n\t@sleep 4321\n")))
        thread.start()
        wait_until(lambda: "sleep" in descendants(self.p.process.pid).values(), 10, "it runs")
        pids = [pid for pid, name in descendants(self.p.process.pid).items() if name in ("sleep", "make")]
        self.p.kill()
        thread.join()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10, "make is gone")
        self.assertEqual(self.images(), ["echo"])
        self.p.start()
        self.assertEqual(os.listdir(self.work()), [])

    def post_and_forget(self, body):
        try:
            self.post(body)
        except Exception:  # noqa: BLE001 - its server is killed
            pass


if __name__ == "__main__":
    main()
