#!/usr/bin/env python3
"""Images of functions in a Docker Engine of its own: `make e2e-images`.

The engine is Debian's, unpacked into balm's cache and started here with a folder and a socket of its own, without a bridge and without touching
the firewall. Its one base image is a Debian made by debootstrap, kept in ${XDG_CACHE_HOME:-~/.cache}/balm/docker. Containers share this host's
loopback. Where this machine cannot do it, the test says why and is skipped.
"""
import concurrent.futures
import contextlib
import glob
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
import peers  # noqa: E402
from faas import FAAS_CLI  # noqa: E402
from harness import BUILD, PATIENCE, free_port, request, wait_until  # noqa: E402
from test_systemd import Unavailable, apt_source, run, say  # noqa: E402

BASE = "debian:bookworm-slim"  # what templates/c-balm/Dockerfile begins with
SUITE = "bookworm"
IMAGE_MAX = 25 * 1000 * 1000  # bytes
BASE_MAX_DAYS = 30  # older: its packages have had updates
BUILD_S = 900
PREFIX = "e2e/"
# Put into the template's handler, so that a request is under way when SIGTERM comes.
LOOKS = "    if (stat(file, &st) != 0 && errno == ENOENT)"
WAITS = '    if (sv_eq(p->alertname, SV("Slow")) && sleep_ms(2000) != STATUS_OK) return error_set(err, STATUS_CANCELLED, "cut short");\n'


# ---- the engine ----

def base_archive():
    """A tar of a minimal Debian; made by debootstrap where there is none that is young."""
    folder = os.path.join(os.path.dirname(peers.cache_dir()), "docker")
    path = os.path.join(folder, SUITE + ".tar")
    if os.path.exists(path) and time.time() - os.path.getmtime(path) < BASE_MAX_DAYS * 86400:
        return path
    codename, address = apt_source()
    if codename != SUITE:
        raise Unavailable(f"apt here knows {codename}, the image is made from {SUITE}")
    os.makedirs(folder, exist_ok=True)
    say(f"making    {path} by debootstrap …")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="balm-base-") as root:
        run("debootstrap", "--variant=minbase", SUITE, root, address)
        run("tar", "-C", root, "-cf", path + ".part", ".")
    os.rename(path + ".part", path)
    say(f"made      in {time.monotonic() - began:.0f} s")
    return path


class Engine:
    def __init__(self):
        self.process = None
        self.folder = tempfile.mkdtemp(prefix="balm-docker-")
        unpacked = os.path.dirname(os.path.dirname(os.path.dirname(peers.binary("dockerd"))))
        bins = os.path.join(self.folder, "bin")
        os.mkdir(bins)
        # The engine has no bridge: a build gets the host's network, of which faas-cli knows nothing.
        with open(os.path.join(bins, "docker"), "w") as f:
            f.write(f'#!/bin/sh\nif [ "$1" = build ]; then shift; set -- build --network host "$@"; fi\nexec {unpacked}/usr/bin/docker "$@"\n')
        os.chmod(f.name, 0o755)
        self.env = dict(os.environ, PATH=f"{bins}:{unpacked}/usr/bin:{unpacked}/usr/sbin:{os.environ['PATH']}",
                        LD_LIBRARY_PATH=":".join(glob.glob(f"{unpacked}/lib/*-linux-gnu") + glob.glob(f"{unpacked}/usr/lib/*-linux-gnu")),
                        DOCKER_HOST=f"unix://{self.folder}/sock", DOCKER_BUILDKIT="0", HOME=self.folder)
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
            self.env.pop(name, None)

    def start(self):
        argv = ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid",
                "-H", f"unix://{self.folder}/sock", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        self.log = os.path.join(self.folder, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._is_up, 60, "dockerd answers")
        except AssertionError as e:
            with open(self.log, errors="replace") as f:
                raise Unavailable(f"dockerd does not run here: {e}: {f.read()[-500:]}")
        self("import", base_archive(), BASE)

    def _is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}")
        return self.run("docker", "version")[0] == 0

    def run(self, *command, cwd=ROOT, timeout=BUILD_S):
        """(exit code, stdout, both)"""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout * PATIENCE)
        return done.returncode, done.stdout, done.stdout + done.stderr

    def do(self, *command, cwd=ROOT):
        code, out, both = self.run(*command, cwd=cwd)
        if code != 0:
            raise AssertionError(f"{' '.join(command)}: exit {code}\n{both[-4000:]}")
        return out

    def __call__(self, *arguments):
        return self.do("docker", *arguments)

    def files(self, image):
        """{path: content or None} of what the image itself holds."""
        name = self("create", image).strip()
        try:
            archive = subprocess.run(["docker", "export", name], env=self.env, capture_output=True, check=True).stdout
        finally:
            self("rm", name)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            made_by_docker = re.compile(r"\.dockerenv|(dev|proc|sys)/.*|etc/(hosts|hostname|resolv\.conf|mtab)")
            return {m.name: tar.extractfile(m).read() for m in tar if m.isfile() and not made_by_docker.fullmatch(m.name)}

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for namespace in glob.glob(f"{self.folder}/exec/netns/*"):  # of containers that shared this host's; it stays mounted
            subprocess.run(["umount", namespace], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder)


class Container:
    """As safe as one can be asked to run: nothing to write, no root, no capability."""

    def __init__(self, engine, image, user="12000", **environment):
        self.engine, self.port = engine, free_port()
        settings = dict(environment, port=self.port, metrics_port=0, BALM_HOST="127.0.0.1")
        self.id = engine("run", "--detach", "--read-only", "--user", user, "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host",
                         *[f"--env={name}={value}" for name, value in settings.items()], image).strip()

    def show(self, what):
        return self.engine("inspect", "--format", "{{json " + what + "}}", self.id).strip()

    def state(self):
        return json.loads(self.show(".State"))

    def log(self):
        return self.engine.run("docker", "logs", self.id)[2]

    def wait_serving(self):
        def answers():
            state = self.state()
            if not state["Running"]:
                raise AssertionError(f"it ended: {state}\n{self.log()}")
            with contextlib.suppress(OSError):
                return request(self.port, "GET", "/_/health")[0] == 200
        wait_until(answers, 60, "the container serves")

    def remove(self):
        self.engine("rm", "--force", self.id)


# ---- the tests ----

class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            if os.geteuid() != 0:
                raise Unavailable("it takes root to run a Docker Engine")
            if shutil.which("debootstrap") is None:
                raise Unavailable("debootstrap is not installed (make deps-images)")
            cls.engine = Engine()
            cls.addClassCleanup(cls.engine.stop)
            cls.engine.start()
        except (Unavailable, peers.Unavailable) as e:
            raise unittest.SkipTest(str(e).replace("'", "`"))  # tests/run.py looks for it between quotes

    def container(self, image, **settings):
        container = Container(self.engine, image, **settings)
        self.addCleanup(container.remove)
        container.wait_serving()
        return container

    def check_contents(self, image):
        """The executable and shared objects, all that they need among them, and no program beside."""
        size = int(self.engine("image", "inspect", "--format", "{{.Size}}", image))
        files = self.engine.files(image)
        objects = {os.path.basename(path): content for path, content in files.items() if ".so" in path}
        others = sorted(set(files) - {p for p in files if ".so" in p})
        say(f"image     {image}: {size / 1e6:.1f} MB, {len(objects)} shared objects, {', '.join(others)}")
        self.assertLess(size, IMAGE_MAX)
        self.assertLessEqual(set(others), {"bot", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt"})
        for name, content in dict(objects, bot=files["bot"]).items():
            self.assertLessEqual(self.needed(content), set(objects), f"{name} in {image}")
        for shell in ("/bin/sh", "/bin/bash", "/bin/busybox"):
            code, _, both = self.engine.run("docker", "run", "--rm", "--entrypoint", shell, image)
            self.assertNotEqual(code, 0)
            self.assertIn("no such file or directory", both)
        return objects

    def needed(self, content):
        with tempfile.NamedTemporaryFile() as f:
            f.write(content)
            f.flush()
            return set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", f.name)))

    def check_running(self, container):
        """Not root, and healthy by the image's own check."""
        with open(f"/proc/{container.state()['Pid']}/status") as f:
            ids = re.search(r"^Uid:\s*(\d+)\s+(\d+)", f.read(), re.M).groups()
        self.assertNotIn("0", ids)
        wait_until(lambda: container.state()["Health"]["Status"] == "healthy", 60, "Docker calls it healthy")

    def test_1_faas_cli_builds_what_new_made(self):
        if FAAS_CLI is None:
            self.skipTest("SKIPPED: no faas-cli (FAAS_CLI, PATH, ~/.cache/balm/bin)")
        home = os.path.join(self.engine.folder, "home")
        self.engine.do("make", f"B={self.engine.folder}/balm", "templates")
        shutil.copytree(os.path.join(self.engine.folder, "balm", "templates", "template"), os.path.join(home, "template"))
        self.engine.do(FAAS_CLI, "new", "my-bot", "--lang", "c-balm", cwd=home)
        path = os.path.join(home, "my-bot", "handler.c")
        with open(path) as f:
            text = f.read()
        self.assertIn(LOOKS, text)
        with open(path, "w") as f:
            f.write(text.replace(LOOKS, WAITS + LOOKS))
        began = time.monotonic()
        output = self.engine.do(FAAS_CLI, "build", "-f", "stack.yaml", cwd=home)
        self.assertRegex(output, r"image of my-bot: \d+ bytes")
        say(f"built     my-bot by faas-cli in {time.monotonic() - began:.0f} s")
        self.check_contents("my-bot:latest")

    def test_2_it_runs_read_only_and_drains(self):
        if self.engine.run("docker", "image", "inspect", "my-bot:latest")[0] != 0:
            self.skipTest("SKIPPED: no image of the template was built")
        self.assertEqual(json.loads(self.engine("image", "inspect", "--format", "{{json .Config.User}}", "my-bot:latest")), "12000:12000")
        container = self.container("my-bot:latest")
        self.check_running(container)
        status, _, body = request(container.port, "POST", "/", json.dumps({"alertname": "A", "file": "/bot"}))
        answer = json.loads(body)
        self.assertEqual((status, answer["state"], answer["detail"]["bytes"] > 100000), (200, "unchanged", True), answer)
        self.assertEqual(request(container.port, "POST", "/", '{"file": "etc"}')[0], 400)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(request, container.port, "POST", "/", json.dumps({"alertname": "Slow", "file": "/bot"}))
            wait_until(lambda: container.log().count("looking for a file") == 2, 30, "a request is under way")
            self.engine("kill", "--signal", "TERM", container.id)
            wait_until(lambda: request(container.port, "GET", "/_/health")[0] == 503, 10, "health says that it goes")
            self.assertNotEqual(self.engine.run("docker", "exec", container.id, "/bot", "-run-healthcheck")[0], 0)
            self.assertEqual(slow.result()[0], 200)
        wait_until(lambda: not container.state()["Running"], 30, "the container has ended")
        self.assertEqual(container.state()["ExitCode"], 0, container.log())

    def test_3_any_user_will_do(self):
        if self.engine.run("docker", "image", "inspect", "my-bot:latest")[0] != 0:
            self.skipTest("SKIPPED: no image of the template was built")
        self.check_running(self.container("my-bot:latest", user="1000730000:0"))

    def test_4_make_images_builds_every_function(self):
        began = time.monotonic()
        output = self.engine.do("make", "--no-print-directory", f"B={os.path.relpath(BUILD, ROOT)}", f"IMAGE_PREFIX={PREFIX}", "images")
        images = re.findall(r"^built +(\S+)", output, re.M)
        say(f"built     {len(images)} images by make in {time.monotonic() - began:.0f} s")
        self.assertEqual({i.split("/")[1].split(":")[0] for i in images},
                         {os.path.basename(os.path.dirname(p)) for p in glob.glob(f"{ROOT}/functions/*/bot.yaml")} - {"alerts", "audit", "dispatcher", "scaler"})
        for image in images:
            objects = self.check_contents(image)
            # Only what calls out has the client's library.
            self.assertEqual(any(name.startswith("libcurl.") for name in objects), image.startswith(PREFIX + "notify:"))
            self.check_running(self.container(image))

    def test_5_an_image_of_make_images_answers(self):
        container = self.container(PREFIX + "echo:latest")
        self.assertEqual(request(container.port, "POST", "/", b"hello", {"Content-Type": "text/plain"})[::2], (200, b"hello"))


if __name__ == "__main__":
    unittest.main()
