"""A platform on which everything has happened once: every metric of it has a series, with the labels that occur."""
import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time

from harness import BALM, PATIENCE, alert, stack_file, wait_until
from test_gateway_hang import descendants

RUNBOOKS = """
- name: clean
  match: ['alertname="DiskFull"']
  target: host/${labels.host}
  mode: act
  steps:
    - bot: disk-clean
      with: {root: "ROOT", older_than: 1h}
      verify: {resolve: {within: 1s}}
      timeout: 20s
  guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}
  escalate: {bot: notify, with: {title: "${labels.host} is full", text: "${reason}"}}
- name: tidy
  match: ['alertname="Untidy"']
  target: host/${labels.host}
  mode: act
  steps:
    - bot: disk-clean
      with: {root: "ROOT", older_than: 1h}
      verify: {check: {hold: 0s}}
      timeout: 20s
  guardrails: {cooldown: 1h, rate: {max: 100, per: 1h}}
- name: tell
  match: ['alertname="Tell"']
  target: person/${labels.who}
  mode: act
  steps:
    - bot: notify
      with: {title: "hello"}
      timeout: 1s
  guardrails: {cooldown: 1s, rate: {max: 100, per: 1h}}
- name: nightly
  schedule: "@every 3s"
  target: host/z
  steps:
    - bot: disk-clean
      with: {root: "ROOT", older_than: 1h}
  guardrails: {cooldown: 1s, rate: {max: 10000, per: 1h}}
- name: watched
  match: ['alertname="Shadowed"']
  target: host/${labels.host}
  steps:
    - bot: disk-clean
      with: {root: "ROOT", older_than: 1h}
"""


class UntrustedReceiver:
    """HTTPS on loopback with a certificate that nobody vouches for."""

    def __init__(self, folder):
        key, certificate = os.path.join(folder, "tls.key"), os.path.join(folder, "tls.crt")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                        "-out", certificate, "-subj", "/CN=127.0.0.1", "-days", "1"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        self.server.handle_error = lambda *arguments: None  # the client hangs up: that is what is wanted
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def secret(platform, name, text):
    """A function's secret, before the start."""
    folder = os.path.join(platform.data, "secrets", "functions")
    for path in (platform.data, os.path.dirname(folder), folder):
        os.makedirs(path, mode=0o700, exist_ok=True)
    with open(os.path.join(folder, name), "w") as f:
        f.write(text)
    os.chmod(f.name, 0o600)


def notify_stack():
    return stack_file("notify") + "    secrets: [notify-url, notify-hmac-key]\n"


def start(test):
    """The platform, started and exercised; `test` is a PlatformTest."""
    root = os.path.join(test.folder, "full")
    os.makedirs(root)
    receiver = UntrustedReceiver(test.folder)
    stack = notify_stack() + stack_file("disk-clean", "echo").split("functions:\n")[1].replace(
        "image: disk-clean:latest\n", f"image: disk-clean:latest\n    environment: {{disk_clean_roots: {root}}}\n")
    p = test.platform(start=False, runbooks={"all.yaml": RUNBOOKS.replace("ROOT", root)}, stack=stack,
                      arguments=["--alertmanager", "http://127.0.0.1:1"])  # nobody answers there
    secret(p, "notify-url", f"https://127.0.0.1:{receiver.port}/hook")
    secret(p, "notify-hmac-key", "k3y")
    p.start()
    began = time.time()
    p.post_alerts(alert("Watchdog"), alert("DiskFull", host="a"), alert("Untidy", host="b"), alert("Shadowed", host="c"),
                  alert("Unknown", status="resolved"), {"status": "odd"})
    p.request("POST", "/function/alerts", "no json", p.bearer())
    p.request("POST", "/function/alerts", "{}", {"Authorization": "Bearer wrong"})
    p.wait_record("closed", state="healed")
    p.wait_record("escalated")
    p.wait_record("outcome", function="notify", state="failed")
    receiver.close()
    p.post_alerts(alert("Untidy", host="b", again="yes"))
    p.wait_record("refusal", gate="cooldown")
    p.post_alerts(alert("Tell", who="me"))
    p.wait_record("outcome", 90, function="notify", state="dead")
    p.post_alerts(alert("Gone", starts_at=began, host="d"), alert("DiskFull", host="d", starts_at=began))
    p.wait_record("outcome", target="host/d")
    p.post_alerts(alert("DiskFull", status="resolved", host="d", starts_at=began))
    p.wait_record("tick")
    p.request("POST", "/function/echo", "x")
    crash(p, "echo")
    wait_until(lambda: p.request("POST", "/function/echo", "y")[0] == 200, 30, "echo serves again")
    p.request("POST", "/async-function/echo", "later")
    p.wait_record("outcome", function="echo")
    p.request("GET", "/function/audit/loki/api/v1/labels", headers=p.basic())
    return p


def crash(platform, name):
    for pid, found in descendants(platform.process.pid).items():
        if found == name:
            os.kill(pid, signal.SIGKILL)


def scrape(platform):
    return platform.request("GET", "/metrics")[2].decode()


def families(text):
    """{name: {"type", "help", "labels": set of names}} of an exposition, buckets' `le` left out."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            found.setdefault(name, {"labels": set()})[word.lower()] = rest
        elif line:
            name = re.match(r"\w+", line).group()
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            family = found.get(name) or found[base]
            family["labels"] |= set(re.findall(r'[{,](\w+)="', line)) - ({"le"} if family["type"] == "histogram" else set())
    return found


def catalog():
    """{name: entry} of `balm metrics --json`."""
    done = subprocess.run([BALM, "metrics", "--json"], capture_output=True, timeout=60 * PATIENCE, check=True)
    return {entry["name"]: entry for entry in json.loads(done.stdout)}
