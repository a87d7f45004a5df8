"""A real kube-apiserver on loopback, with etcd and kubectl: objects are checked, defaulted and stored; nothing runs them."""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import kube_build  # noqa: E402
import peers  # noqa: E402
from go_build import Unavailable  # noqa: E402
from harness import PATIENCE, free_port, wait_until  # noqa: E402

CONFIG = """apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:PORT", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: admin-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


class Cluster:
    def __init__(self):
        """Unavailable: one of the programs cannot be had."""
        self.programs = {name: kube_build.program(name) for name in ("kube-apiserver", "kubectl")}
        try:
            self.programs["etcd"] = peers.binary("etcd")
        except peers.Unavailable as e:
            raise Unavailable(str(e))
        self.folder = tempfile.mkdtemp(prefix="balm-kube-")
        self.processes = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def _spawn(self, name, *arguments):
        with open(self.path(name + ".log"), "wb") as log:
            process = subprocess.Popen([self.programs[name], *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def _is_up(self):
        for process in self.processes:
            if process.poll() is not None:
                raise AssertionError(f"{process.args[0]} ended with {process.returncode}: {self.log_text()}")
        return self.kubectl("get", "--raw", "/readyz")[0] == 0

    def log_text(self):
        with open(self.path("kube-apiserver.log"), errors="replace") as f:
            return f.read()[-3000:]

    def start(self):
        client, peer, port = free_port(), free_port(), free_port()
        urls = [f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"]
        self._spawn("etcd", "--data-dir", self.path("etcd"), "--listen-client-urls", urls[0], "--advertise-client-urls", urls[0],
                    "--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}",
                    "--unsafe-no-fsync")
        key = self.path("service-account.key")
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.write("tokens", 'admin-token,admin,admin,"system:masters"\n')
        self._spawn("kube-apiserver", "--etcd-servers", urls[0], "--secure-port", str(port), "--bind-address=127.0.0.1", "--cert-dir",
                    self.path("certs"), "--token-auth-file", self.path("tokens"), "--authorization-mode=RBAC",
                    "--service-account-issuer=https://balm.test", "--service-account-key-file", key, "--service-account-signing-key-file", key,
                    "--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount")
        self.config = self.write("kubeconfig", CONFIG.replace("PORT", str(port)))
        wait_until(self._is_up, 90, "kube-apiserver is ready")

    def kubectl(self, *arguments, given=None):
        """(exit code, stdout, stderr)"""
        done = subprocess.run([self.programs["kubectl"], "--kubeconfig", self.config, *arguments], input=given, capture_output=True, text=True,
                              timeout=120 * PATIENCE, cwd=self.folder, env=dict(os.environ, HOME=self.folder))
        return done.returncode, done.stdout, done.stderr

    def apply_definition(self, file, name):
        """A kind of objects, from its definition; it can be used then."""
        code, _, err = self.kubectl("apply", "--server-side", "-f", file)
        if code != 0:
            raise AssertionError(err)
        code, _, err = self.kubectl("wait", "--for=condition=Established", "crd/" + name, "--timeout=60s")
        if code != 0:
            raise AssertionError(err)

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20 * PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
