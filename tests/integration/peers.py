"""Real neighbours on loopback: nginx, Prometheus, Alertmanager.

They are fetched once with `apt-get download` and unpacked with `dpkg-deb -x` into ${XDG_CACHE_HOME:-~/.cache}/balm/peers: nothing is
installed, enabled or started as a service on this host. Each runs on ports that were free a moment ago, with a config of ours, in a folder of its own.
"""
import base64
import datetime
import glob
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

from harness import free_port, rfc3339, wait_until

PACKAGES = {"nginx": ["nginx", "nginx-common"], "prometheus": ["prometheus"], "promtool": ["prometheus"],
            "alertmanager": ["prometheus-alertmanager"], "amtool": ["prometheus-alertmanager"],
            "dockerd": ["docker.io", "containerd", "runc", "libdevmapper1.02.1"], "etcd": ["etcd-server"]}
BINARIES = {"nginx": "usr/sbin/nginx", "prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool",
            "alertmanager": "usr/bin/prometheus-alertmanager", "amtool": "usr/bin/amtool",
            "dockerd": "usr/sbin/dockerd", "etcd": "usr/bin/etcd"}


# How soon balm asks Alertmanager, in tests.
MARGIN = ["--group-interval", "1s", "--reconcile-interval", "1s", "--reconcile-margin", "2s"]


class Unavailable(Exception):
    """A peer cannot be had here; the sentence says why."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "balm", "peers")


def binary(name):
    """Path of the peer's program, fetched if need be."""
    path = os.path.join(cache_dir(), BINARIES[name])
    if not os.path.exists(path):
        fetch(PACKAGES[name])
    if not os.path.exists(path):
        raise Unavailable(f"{name}: the Debian packages {' '.join(PACKAGES[name])} hold no {BINARIES[name]}")
    return path


def fetch(packages):
    folder = cache_dir()
    os.makedirs(folder, exist_ok=True)
    try:
        done = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, timeout=300)
    except FileNotFoundError:
        raise Unavailable("apt-get is not here; put " + ", ".join(BINARIES.values()) + f" below {folder}")
    if done.returncode != 0:
        raise Unavailable("apt-get download " + " ".join(packages) + ": " + done.stderr.decode().strip().replace("\n", "; "))
    for package in packages:
        for deb in glob.glob(os.path.join(folder, f"{package}_*.deb")):
            subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
            os.unlink(deb)


# Debian's Alertmanager reads its templates from this folder only. Nothing is installed here, so a copy of the program is made that looks in
# a folder of the same name length below its working directory.
TEMPLATES = b"/usr/share/prometheus/alertmanager"
TEMPLATES_HERE = b"./" * 13 + b"am-share"


def relocated_alertmanager(working_dir):
    path = binary("alertmanager")
    if os.path.exists(TEMPLATES.decode() + "/default.tmpl"):
        return path
    relocated = path + ".relocated"
    if not os.path.exists(relocated):
        with open(path, "rb") as f:
            program = f.read()
        with open(f"{relocated}.{os.getpid()}", "wb") as f:
            f.write(program.replace(TEMPLATES, TEMPLATES_HERE))
        os.chmod(f.name, 0o755)
        os.rename(f.name, relocated)
    link = os.path.join(working_dir, "am-share")
    if not os.path.lexists(link):
        os.symlink(cache_dir() + TEMPLATES.decode(), link)
    return relocated


def get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as response:
        return response.read()


def answers(url):
    try:
        get(url, 1)
        return True
    except OSError:
        return False


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Peer:
    process = None

    def _start(self, argv, log_name):
        with open(os.path.join(self.folder, log_name), "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Nginx:
    """Daemonised as a distribution would run it: `restart` is the argv for the allow list, pid_file says who it is."""

    def __init__(self, folder, port=None):
        self.folder = os.path.join(folder, "nginx")
        self.port = port or free_port()
        os.makedirs(os.path.join(self.folder, "tmp"), exist_ok=True)
        self.pid_file = os.path.join(self.folder, "nginx.pid")
        self.config = os.path.join(self.folder, "nginx.conf")
        tmp = os.path.join(self.folder, "tmp")
        with open(self.config, "w") as f:
            f.write(f"""worker_processes 1;
pid {self.pid_file};
error_log {self.folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp}; scgi_temp_path {tmp};
    server {{
        listen 127.0.0.1:{self.port};
        location /metrics {{ default_type text/plain; return 200 "demo_up 1\\n"; }}
        location / {{ return 200 "hello\\n"; }}
    }}
}}
""")
        self.start_argv = [binary("nginx"), "-c", self.config, "-p", self.folder]

    def start(self):
        subprocess.run(self.start_argv, check=True, timeout=20, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/"), 10, "nginx answers")

    def pid(self):
        try:
            with open(self.pid_file) as f:
                return int(f.read())
        except (OSError, ValueError):
            return 0

    def stop(self):
        """SIGTERM to the master: a killed master would leave a worker serving."""
        pid = self.pid()
        if pid:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                return
            wait_until(lambda: not answers(f"http://127.0.0.1:{self.port}/"), 10, "nginx is gone")

    def allow_list(self, functions=("service-restart",)):
        argv = ", ".join(json.dumps(a) for a in self.start_argv)
        return (f"services:\n  nginx:\n    functions: [{', '.join(functions)}]\n    unit: nginx.service\n"
                f"    restart: [{argv}]\n    pid_file: {json.dumps(self.pid_file)}\n")


class Alertmanager(Peer):
    """One Alertmanager with one receiver, "balm". Several in one folder have names; cluster_peers are ports of others of its mesh."""

    def __init__(self, folder, webhook_url, token_file, port=None, group_interval="1s", repeat_interval="1h", name="alertmanager", max_alerts=0,
                 group_by="'...'", cluster_port=None, cluster_peers=(), login=None):
        self.folder = os.path.join(folder, name)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = {"Content-Type": "application/json"}
        self.arguments = ["--cluster.listen-address=" + (f"127.0.0.1:{cluster_port}" if cluster_port else "")]
        self.arguments += [f"--cluster.peer=127.0.0.1:{peer}" for peer in cluster_peers]
        if cluster_peers:
            self.arguments += ["--cluster.peer-timeout=1s", "--cluster.gossip-interval=100ms"]
        os.makedirs(self.folder, exist_ok=True)
        self.config = os.path.join(self.folder, "alertmanager.yml")
        with open(self.config, "w") as f:
            f.write(f"""route:
  receiver: balm
  group_by: [{group_by}]
  group_wait: 0s
  group_interval: {group_interval}
  repeat_interval: {repeat_interval}
receivers:
  - name: balm
    webhook_configs:
      - url: {webhook_url}
        send_resolved: true
        max_alerts: {max_alerts}
        http_config:
          authorization: {{type: Bearer, credentials_file: {token_file}}}
""")
        if login:
            self._ask_for_login(*login)

    def _ask_for_login(self, user, bcrypt, plain):
        path = os.path.join(self.folder, "web.yml")
        with open(path, "w") as f:
            f.write(f"basic_auth_users:\n  {user}: {bcrypt}\n")
        self.arguments.append(f"--web.config.file={path}")
        self.headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{plain}".encode()).decode()

    def start(self, login_file=None):
        """login_file: its web configuration, by which every request needs a login."""
        arguments = [f"--web.config.file={login_file}"] if login_file else []
        self._start([relocated_alertmanager(self.folder), f"--config.file={self.config}", f"--storage.path={self.folder}/data",
                     f"--web.listen-address=127.0.0.1:{self.port}", *self.arguments, *arguments], "alertmanager.log")
        wait_until(lambda: login_file and is_open(self.port) or self._is_ready(), 20, "Alertmanager is ready")

    def _is_ready(self):
        try:
            self.call("GET", "/-/ready")
            return True
        except OSError:
            return False

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, self.headers, method=method), timeout=5) as response:
            text = response.read()
        return json.loads(text) if text[:1] in (b"[", b"{") else text

    def post(self, *alerts):
        """As Prometheus would: each {"labels", "startsAt", "endsAt"}."""
        self.call("POST", "/api/v2/alerts", list(alerts))

    def listed(self):
        return [a["labels"]["alertname"] for a in self.call("GET", "/api/v2/alerts")]

    def mesh(self):
        """(how many it sees, in what state)"""
        cluster = self.call("GET", "/api/v2/status")["cluster"]
        return len(cluster["peers"]), cluster["status"]

    def started(self):
        """Since when it runs, by its own clock; Unix time."""
        uptime = self.call("GET", "/api/v2/status")["uptime"].replace("Z", "+00:00")
        return datetime.datetime.fromisoformat(uptime[:19] + "+00:00").timestamp()

    def forget(self):
        """Everything it has on its disk; while it is stopped."""
        shutil.rmtree(os.path.join(self.folder, "data"), ignore_errors=True)


class Line:
    """The way of a webhook to the platform, with a load balancer's bad habits: while `loses`, it answers 200 and passes nothing on; while
    `fails`, it answers 503. `senders` are those who came while it failed, `delivered` those who were passed on."""

    def __init__(self, port):
        self.loses, self.fails, self.lost, line = False, False, 0, self
        self.senders, self.delivered = set(), set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sender, status = json.loads(body)["externalURL"], 200
                if line.fails:
                    line.senders.add(sender)
                    status = 503
                elif line.loses:
                    line.lost += 1
                else:
                    status = line.pass_on(port, body, self.headers)
                    line.delivered.add(sender)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @staticmethod
    def pass_on(port, body, headers):
        head = {name: headers[name] for name in ("Authorization", "Content-Type")}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/function/alerts", body, head), timeout=10) as response:
                return response.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return 503

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def fires(name, since=None, **labels):
    return {"labels": {"alertname": name, **labels}, "startsAt": rfc3339(since or time.time() - 30), "endsAt": rfc3339(time.time() + 3600)}


def ended(alert):
    return dict(alert, endsAt=rfc3339(time.time()))


class Prometheus(Peer):
    def __init__(self, folder, rules, scrape_port, alertmanager_port, job="nginx", port=None, arguments=()):
        self.folder = os.path.join(folder, "prometheus")
        self.arguments = arguments
        self.port = port or free_port()
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "rules.yml"), "w") as f:
            f.write(rules)
        self.config = os.path.join(self.folder, "prometheus.yml")
        with open(self.config, "w") as f:
            f.write(f"""global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{self.folder}/rules.yml]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager_port}']}}]}}]
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: ['127.0.0.1:{scrape_port}']}}]
""")

    def start(self):
        self._start([binary("prometheus"), f"--config.file={self.config}", f"--storage.tsdb.path={self.folder}/data",
                     f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=1h", *self.arguments], "prometheus.log")
        wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"), 20, "Prometheus is ready")

    def query(self, expression, at=None):
        from urllib.parse import urlencode
        parameters = {"query": expression}
        if at is not None:
            parameters["time"] = f"{at:.3f}"
        answer = json.loads(get(f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode(parameters)}"))
        return answer["data"]["result"]

    def first_zero(self, expression, since):
        """Unix time of the first raw sample of `expression` that is 0 at or after `since`, or None."""
        span = int(time.time() - since) + 5
        for series in self.query(f"{expression}[{span}s]"):
            for at, value in series["values"]:
                if float(at) >= since and float(value) == 0:
                    return float(at)
        return None
