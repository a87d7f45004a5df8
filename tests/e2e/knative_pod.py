"""What a Knative pod is made of, as processes: a function that knows nothing but what the platform sets, and Knative's own queue-proxy before it.

The function runs as the strictest pod lets it: UID 12000, no capability, nothing to write but /tmp, secrets as folders below
/var/openfaas/secrets. That takes root; without it the function runs as it is started.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import BUILD, PATIENCE, request, wait_until  # noqa: E402

# What queue-proxy listens at. The function's port is the pod's business, and Knative's default is 8080.
QUEUE_PORT, TLS_PORT, ADMIN_PORT, USER_PORT = 8012, 8112, 8022, 8080
UID = 12000

# $1: a folder with what goes into the container; the rest: the command. Nothing that this does is seen outside of its mount namespace.
CONTAINER = """set -e
mount -t tmpfs -o mode=755 none /mnt
cp -r "$1"/. /mnt
mount -t tmpfs -o mode=755 none /var
mkdir -p /var/openfaas/secrets
cp -rP /mnt/secrets/. /var/openfaas/secrets
chown -R UID:UID /var/openfaas/secrets
mount -o remount,ro /mnt
mount -o remount,ro /var
mount -t tmpfs -o mode=1777 none /tmp
mount -o remount,bind,ro /
shift
cd /
exec setpriv --reuid=UID --regid=UID --clear-groups --no-new-privs --bounding-set=-all -- "$@"
""".replace("UID", str(UID))


def is_contained():
    return os.geteuid() == 0 and shutil.which("setpriv") is not None and shutil.which("unshare") is not None


class Process:
    """Something with a log, ended by its pid."""

    def __init__(self, argv, env):
        self.log = tempfile.NamedTemporaryFile(prefix="balm-log-")
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/")

    def log_text(self):
        with open(self.log.name, errors="replace") as f:
            return f.read()

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """Its exit code."""
        try:
            return self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("did not end:\n" + self.log_text()[-3000:])

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Function(Process):
    """A function's executable (or, with `program`, balm-watchdog before one). secrets: {NAME: {KEY: text}}, as Knative mounts them, or
    {NAME: text}, as OpenFaaS does. Exactly PORT and K_… are set, and what `settings` adds."""

    def __init__(self, name, program=None, secrets=None, **settings):
        self.folder = tempfile.mkdtemp(prefix="balm-pod-")
        self.executable = os.path.join(BUILD, "functions", name) if program is None else os.path.join(BUILD, "balm-watchdog")
        os.makedirs(os.path.join(self.folder, "secrets"))
        for secret, content in (secrets or {}).items():
            self.write_secret(secret, content)
        command = [os.path.join("/mnt" if is_contained() else self.folder, "function")]
        if program is not None:
            command += ["--", *program]
        shutil.copy(self.executable, os.path.join(self.folder, "function"))
        env = {"PORT": str(USER_PORT), "K_SERVICE": name, "K_REVISION": name + "-00001", "K_CONFIGURATION": name, **settings}
        if not is_contained():
            env["secret_mount_path"] = os.path.join(self.folder, "secrets")
        for sanitizer in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if sanitizer in os.environ:
                env[sanitizer] = os.environ[sanitizer]
        if is_contained():
            command = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", CONTAINER, "sh", self.folder, *command]
        super().__init__(command, dict(env, PATH="/usr/sbin:/usr/bin:/sbin:/bin"))

    def write_secret(self, name, content):
        path = os.path.join(self.folder, "secrets", name)
        files = {path: content}
        if isinstance(content, dict):
            os.mkdir(path)
            files = {os.path.join(path, key): text for key, text in content.items()}
        for path, text in files.items():
            with open(path, "w") as f:
                f.write(text)

    def wait_ready(self):
        def is_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log_text()}")
            try:
                return request(USER_PORT, "GET", "/_/ready")[0] == 200
            except OSError:
                return False
        wait_until(is_ready, 20, "the function is ready")
        return self

    def close(self):
        super().close()
        shutil.rmtree(self.folder, ignore_errors=True)  # twice does no harm


def tcp_probe():
    """What Knative makes of a Service without a probe."""
    return {"tcpSocket": {"port": USER_PORT, "host": "127.0.0.1"}, "successThreshold": 1}


def http_probe(path):
    return {"httpGet": {"path": path, "port": USER_PORT, "host": "127.0.0.1", "scheme": "HTTP",
                        "httpHeaders": [{"name": "K-Kubelet-Probe", "value": "queue"}]}, "successThreshold": 1, "periodSeconds": 1,
            "timeoutSeconds": 1}


class QueueProxy(Process):
    """Knative's sidecar with the environment that its controller gives it (pkg/reconciler/revision/resources/queue.go)."""

    def __init__(self, program, concurrency=0, timeout_s=300, probe=None, detects_http2=False):
        env = {"CONTAINER_CONCURRENCY": str(concurrency), "QUEUE_SERVING_PORT": str(QUEUE_PORT), "QUEUE_SERVING_TLS_PORT": str(TLS_PORT),
               "USER_PORT": str(USER_PORT), "REVISION_TIMEOUT_SECONDS": str(timeout_s), "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "0",
               "REVISION_IDLE_TIMEOUT_SECONDS": "0", "SERVING_READINESS_PROBE": json.dumps(probe or tcp_probe()),
               "ENABLE_HTTP2_AUTO_DETECTION": str(detects_http2).lower(), "ENABLE_HTTP_FULL_DUPLEX": "false",
               "ENABLE_MULTI_CONTAINER_PROBES": "false", "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "", "OBSERVABILITY_CONFIG": "",
               "SERVING_NAMESPACE": "default", "SERVING_SERVICE": "echo", "SERVING_CONFIGURATION": "echo", "SERVING_REVISION": "echo-00001",
               "SERVING_POD": "echo-00001-deployment-0", "SERVING_POD_IP": "127.0.0.1", "ROOT_CA": "",
               "PATH": os.environ["PATH"]}
        super().__init__([program], env)

    def wait_listening(self):
        def listens():
            if self.process.poll() is not None:
                raise AssertionError(f"queue-proxy ended with {self.process.returncode}:\n{self.log_text()}")
            try:
                return self.probe() is not None
            except OSError:
                return False
        wait_until(listens, 20, "queue-proxy listens")
        return self

    def probe(self):
        """HTTP status of the kubelet's readiness probe, for which queue-proxy runs the function's."""
        return request(QUEUE_PORT, "GET", "/", headers={"User-Agent": "kube-probe/1.33", "K-Network-Probe": "queue"})[0]

    def wait_drained(self, seconds):
        """The preStop hook that Knative gives the function's container: it returns once the sidecar has heard nothing for 30 s."""
        return request(ADMIN_PORT, "GET", "/wait-for-drain", timeout=seconds)[0]

    def terminate(self):
        self.signal(signal.SIGTERM)
