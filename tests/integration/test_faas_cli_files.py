"""What of faas-cli works on files, stores and its own configuration: login, version, namespaces, new, generate, template, store, build, push."""
import http.server
import json
import os
import shutil
import subprocess
import time

from faas import FaasTest
from harness import PATIENCE, ROOT, free_port, main, serve


class Stores(http.server.BaseHTTPRequestHandler):
    """A store of functions, one of templates, and what a server may do instead."""

    def do_GET(self):
        known = {"/functions.json": {"version": "2.0.0", "functions": [
                    {"title": "Echo", "name": "store-echo", "description": "says it again", "images": {"x86_64": "store/echo:1"}, "author": "balm"},
                    {"title": "None", "name": "store-none", "description": "is not here", "images": {"x86_64": "store/none:1"}, "author": "balm"}]},
                 "/templates.json": [{"template": "c-balm", "platform": "x86_64", "language": "C", "source": "balm", "description": "A bot in C",
                                      "repo": "https://127.0.0.1:1/none", "official": "true", "recommended": True}]}
        body = json.dumps(known[self.path]).encode() if self.path in known else b"not JSON"
        self.send_response(200 if self.path != "/gone" else 410)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class AccountTest(FaasTest):
    def test_login_and_logout(self):
        password = self.p.secret("basic-auth-password")
        self.assertIn("credentials saved", self.cli("login", "--password-stdin", input=password + "\n").lower())
        self.cli("list")
        with open(os.path.join(self.folder, "openfaas", "config.yml")) as f:
            self.assertNotIn(password, f.read())  # base64 there
        self.assertIn("credentials removed", self.cli("logout", "-g", self.url).lower())
        self.assertIn("unauthorized", self.cli("list", code=1).lower())
        for user, word in (("admin", "mistaken"), ("root", password), ("admin", password[:-1]), ("admin", password + "x")):
            output = self.cli("login", "-u", user, "--password-stdin", input=word, code=1)
            self.assertIn("either username or password is incorrect", output)
            self.assertNotIn(word, output)
        self.assertIn("must provide", self.cli("login", "--password-stdin", input="", code=1).lower())
        self.assertIn("unauthorized", self.cli("list", code=1).lower())
        began = time.monotonic()
        self.assertIn("cannot connect", self.cli("login", "-g", f"http://127.0.0.1:{free_port()}", "--password-stdin", input="x", code=1).lower())
        self.assertLess(time.monotonic() - began, 10 * PATIENCE)
        for line in self.p.log:
            self.assertNotIn(password, json.dumps(line))

    def test_version(self):
        self.login()
        text = self.cli("version", "--warn-update=false")
        for line in (r"commit:\s+\S+", rf"uri:\s+{self.url}", r"version:\s+\d+\.\d+\.\d+", r"name:\s+balm", r"orchestration:\s+balm"):
            self.assertRegex(text, line)
        info = json.loads(self.cli("version", "--json"))
        self.assertEqual((info["provider"]["name"], info["provider"]["orchestration"], info["gateway"]["uri"]), ("balm", "balm", self.url))
        self.assertTrue(self.cli("version", "--short-version").strip())

    def test_namespaces(self):
        self.assertIn("status code: 401", self.cli("namespaces", code=1))
        self.login()
        self.assertIn("openfaas-fn", self.cli("namespaces"))
        self.assertIn("openfaas-fn", self.cli("namespace", "list"))
        self.assertIn("openfaas-fn", self.cli("namespace", "get", "openfaas-fn"))
        self.cli("namespace", "get", "other", code=1)
        for command in (("create", "other"), ("update", "openfaas-fn", "--label", "a=b"), ("remove", "other")):
            self.assertIn("one namespace, openfaas-fn", self.cli("namespace", *command, code=1))

    def test_ready(self):
        self.assertIn("ready", self.cli("ready", "--attempts", "1").lower())
        self.login()
        self.cli("deploy", "--name", "x", "--image", "echo")
        self.assertIn("ready", self.cli("ready", "x", "--attempts", "2").lower())
        self.cli("ready", "none", "--attempts", "2", "--interval", "10ms", code=1)

    def test_secrets(self):
        self.login()
        for name in ("Upper", "a_b", "../x", "a/b", "-a"):
            self.cli("secret", "create", name, "--from-literal=v", code=1)
        self.assertIn("empty", self.cli("secret", "create", "x", "--from-literal=", input="", code=1).lower())
        self.cli("secret", "create", "x", "--from-file", "/no/such", code=1)
        folder = os.path.join(self.home, ".secrets")
        os.mkdir(folder)
        for name, text in (("one", "1\n"), ("two", "2\n")):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        self.cli("secret", "apply")
        self.assertEqual([s["name"] for s in json.loads(self.cli("secret", "list", "--json"))], ["one", "two"])
        with open(os.path.join(folder, "two"), "w") as f:
            f.write("changed")
        self.cli("secret", "apply")
        with open(os.path.join(self.p.data, "secrets", "functions", "two")) as f:
            self.assertEqual(f.read().strip(), "changed")
        self.assertIn("one, openfaas-fn", self.cli("secret", "create", "x", "-n", "other", "--from-literal=v"))
        self.cli("secret", "remove", "one", "-n", "other", code=1)
        self.cli("logout", "-g", self.url)
        self.assertIn("unauthorized", self.cli("secret", "create", "x", "--from-literal=v").lower())
        self.assertIn("unauthorized", self.cli("secret", "remove", "one", code=1).lower())
        self.login()
        self.assertEqual([s["name"] for s in json.loads(self.cli("secret", "list", "--json"))], ["one", "two"])


class FilesTest(FaasTest):
    def install(self):
        shutil.copytree(os.path.join(ROOT, "templates"), os.path.join(self.home, "template"))

    def read(self, name):
        with open(os.path.join(self.home, name)) as f:
            return f.read()

    # ---- new ----

    def test_new(self):
        self.install()
        self.assertEqual(set(self.cli("new", "--list").split()[3:]) & {"c-balm", "python3-balm", "shell-balm"}, {"c-balm", "python3-balm", "shell-balm"})
        for language in ("c-balm", "python3-balm", "shell-balm"):
            name = "my-" + language[:-5]
            more = ("--append", "stack.yaml") if language != "c-balm" else ()
            self.assertIn("bot.yaml", self.cli("new", name, "--lang", language, *more, "--memory-limit", "64Mi", "--prefix", "reg.example/team"))
            self.assertTrue({"bot.yaml", "README.md"} <= set(os.listdir(os.path.join(self.home, name))))
        stack = self.read("stack.yaml")
        for name in ("my-c", "my-python3", "my-shell"):
            self.assertIn(f"image: reg.example/team/{name}:latest", stack)
        self.assertIn("build", self.read(".gitignore"))
        self.login()
        for name in ("my-shell", "my-c"):  # it is there; a name that is none
            self.cli("new", name, "--lang", "shell-balm", code=1)
        for name in ("Upper", "a_b", "a.b", "../x", "a/b", "-a"):
            self.cli("new", name, "--lang", "shell-balm", code=1)
            self.assertFalse(os.path.exists(os.path.join(self.home, name)) and name != "../x")
        self.assertEqual(self.read("stack.yaml"), stack)
        self.env["OPENFAAS_TEMPLATE_STORE_URL"] = f"http://127.0.0.1:{free_port()}/templates.json"
        self.cli("new", "other", "--lang", "no-such-language", code=1)
        self.assertFalse(os.path.exists(os.path.join(self.home, "other")))

    # ---- generate ----

    def test_generate(self):
        shutil.copy(os.path.join(ROOT, "stack.yml"), os.path.join(self.home, "ours.yml"))
        crds = self.cli("generate", "-f", "ours.yml", "--namespace", "bots")
        self.assertEqual(crds.count("kind: Function"), crds.count("apiVersion: openfaas.com/v1"))
        self.assertRegex(crds, r"name: disk-clean\n\s+namespace: bots")
        self.assertIn("balm.dev/acts: \"true\"", crds)
        services = self.cli("generate", "-f", "ours.yml", "--api", "serving.knative.dev/v1")
        self.assertEqual(services.count("kind: Service"), crds.count("kind: Function"))
        self.assertIn("image: disk-clean:latest", services)
        self.cli("generate", "-f", "none.yml", code=1)
        with open(os.path.join(self.home, "bad.yml"), "w") as f:
            f.write("provider: {name: other}\nfunctions: {}\n")
        self.assertIn("openfaas", self.cli("generate", "-f", "bad.yml", code=1))

    # ---- templates and stores ----

    def test_template_pull(self):
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        subprocess.run(["make", f"B={self.folder}/balm", "templates"], cwd=ROOT, env=env, check=True, capture_output=True)
        repository = os.path.join(self.folder, "balm", "templates")
        self.cli("template", "pull", "file://" + repository, code=1)  # faas-cli takes a path, and no such URL
        self.assertFalse(os.path.exists(os.path.join(self.home, "template", "c-balm")))
        self.cli("template", "pull", repository)
        self.assertTrue({"c-balm", "python3-balm", "shell-balm"} <= set(os.listdir(os.path.join(self.home, "template"))))
        self.cli("template", "pull", repository, "--overwrite=false", code=1)
        self.cli("template", "pull", repository)
        for wrong in (os.path.join(self.folder, "none"), self.p.runbooks, f"http://127.0.0.1:{free_port()}/x.git"):
            self.cli("template", "pull", wrong, code=1)
        self.cli("new", "mine", "--lang", "c-balm")
        self.assertIn("shrink-wrapped to build/mine", self.cli("build", "--shrinkwrap", "-f", "stack.yaml"))
        self.assertTrue({"Dockerfile", "Makefile", "sdk", "function"} <= set(os.listdir(os.path.join(self.home, "build", "mine"))))

    def test_stores(self):
        self.login()
        nobody = f"http://127.0.0.1:{free_port()}/store.json"
        server = serve(Stores)
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            self.assertRegex(self.cli("store", "list", "--url", url + "/functions.json", "--platform", "x86_64"), r"store-echo\s+balm\s+Echo")
            self.assertIn("says it again", self.cli("store", "describe", "store-echo", "--url", url + "/functions.json", "--platform", "x86_64"))
            deploy = ("store", "deploy", "--url", url + "/functions.json", "--platform", "x86_64")
            self.assertIn("202 Accepted", self.cli(*deploy, "store-echo", "--name", "mine", "--label", "a=b"))
            self.assertEqual(self.cli("invoke", "mine", input="from the store"), "from the store")
            self.assertIn(f"no executable {self.p.functions}/none", self.cli(*deploy, "store-none", code=1))
            self.assertIn("not found", self.cli(*deploy, "no-such", code=1).lower())
            self.assertRegex(self.cli("template", "store", "list", "--url", url + "/templates.json"), r"c-balm\s+.*A bot in C")
            for wrong in (nobody, url + "/gone", url + "/garbage"):
                began = time.monotonic()
                for command in (("store", "list"), ("store", "describe", "x"), ("store", "deploy", "x"), ("template", "store", "list")):
                    output = self.cli(*command, "--url", wrong, code=1)
                    self.assertRegex(output, "(?i)cannot|can't|unexpected status code|error", command)
                self.assertLess(time.monotonic() - began, 20 * PATIENCE)
        finally:
            server.shutdown()
            server.server_close()
        self.assertEqual(self.cli("list", "-q").split(), ["mine"])

    # ---- what needs Docker says so ----

    def test_without_docker(self):
        self.install()
        self.cli("new", "mine", "--lang", "shell-balm")
        self.env["PATH"] = os.path.join(self.folder, "nothing")
        for command in (("build",), ("push",), ("publish",), ("up",)):
            output = self.cli(*command, "-f", "stack.yaml", code=1)
            self.assertRegex(output, "docker|Unable to push", command)
        self.assertIn("shrink-wrapped", self.cli("build", "--shrinkwrap", "-f", "stack.yaml"))
        self.login()
        self.assertEqual(self.cli("list", "-q").split(), [])


if __name__ == "__main__":
    main()
