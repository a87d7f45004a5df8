"""Who has no credentials, wrong ones, or guesses; and a browser that was told to do something here by somebody's page."""
import base64
import http.client
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time

from hostile_peers import Others, Target, Up, report
from harness import BALM, BUILD, PATIENCE, Platform, alert, request, stack_file, webhook

MANAGEMENT = [("GET", "/system/functions"), ("POST", "/system/functions"), ("PUT", "/system/functions"), ("DELETE", "/system/functions"),
              ("GET", "/system/function/echo"), ("POST", "/system/scale-function/echo"), ("POST", "/system/check-function/echo"), ("GET", "/system/logs?name=echo"),
              ("GET", "/system/info"), ("GET", "/system/namespaces"), ("GET", "/system/secrets"), ("POST", "/system/secrets"), ("PUT", "/system/secrets"),
              ("DELETE", "/system/secrets"), ("POST", "/system/reload"), ("GET", "/system/nothing"), ("POST", "/function/dispatcher/stop"),
              ("GET", "/function/dispatcher/incidents"), ("GET", "/function/audit/records"), ("GET", "/function/audit/loki/api/v1/labels")]
WEBHOOKS = [("POST", "/function/alerts"), ("POST", "/function/alerts.openfaas-fn"), ("POST", "/function/alerts/events"), ("POST", "/function/alerts/")]
DEPLOY = {"service": "page", "image": "echo:latest"}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def answer(target, method, path, credentials=None, body=None, **headers):
    if credentials is not None:
        headers["Authorization"] = credentials
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
        body = json.dumps(body)
    return request(target.port, method, path, body, headers)


def refused_without(table, target):
    """401 on every route, and nothing was done."""
    faults, tried = [], 0
    token = target.platform.secret("webhook-token")
    password = target.platform.secret("basic-auth-password")
    for routes, wrong in ((MANAGEMENT, [None, basic("admin", "wrong"), basic("root", password), "Bearer " + token, "Basic !"]),
                          (WEBHOOKS, [None, "Bearer wrong", "Bearer " + token[:-1], basic("admin", password), "bearer"])):
        for method, path in routes:
            for credentials in wrong:
                status = answer(target, method, path, credentials, webhook(alert("Smuggled0")) if method != "GET" else None)[0]
                tried += 1
                if status != 401:
                    faults.append(f"{method} {path} with {credentials and credentials[:12]}: {status}")
    known = {r["labels"]["alertname"] for r in target.platform.records("signal")}
    if "Smuggled0" in known:
        faults.append("an alert without credentials was recorded")
    table.row(f"missing and wrong credentials ({target.name})", f"{tried} requests on {len(MANAGEMENT) + len(WEBHOOKS)} routes, each 401", "; ".join(faults) or "0", not faults)


def timed(connection, credentials):
    began = time.perf_counter()
    connection.request("GET", "/system/info", headers={"Authorization": credentials})
    response = connection.getresponse()
    response.read()
    return (time.perf_counter() - began) * 1e6, response.status


def same_time(table, target, rng, rounds):
    """Is it told by time what is wrong? The same few wrong logins over and over, beside one that has nothing right, in random order and each
    batch from an address of its own, so that no budget is used up."""
    user, password = "admin", target.platform.secret("basic-auth-password")
    kinds = {"a wrong user": basic("nobody", password), "a wrong password": basic(user, "x" * len(password)), "half of the password": basic(user, password[:24]),
             "all but its last character": basic(user, password[:-1] + "x"), "one character": basic(user, "x"), "300 characters": basic(user, "x" * 300)}
    reference = basic("nobody", "y" * len(password))
    times = {name: [] for name in [*kinds, "nothing right"]}
    faults = []
    for batch in range(rounds):
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30 * PATIENCE, source_address=(f"127.0.1.{batch + 1}", 0))
        order = [*kinds.items(), ("nothing right", reference)] * 12
        rng.shuffle(order)
        for name, credentials in order:
            microseconds, status = timed(connection, credentials)
            times[name].append(microseconds)
            if status != 401:
                faults.append(f"{name}: {status}")
        connection.close()
    # The fastest of each: what was not disturbed by whoever else uses this machine.
    least = {name: min(values) for name, values in times.items()}
    spread = max(least.values()) - min(least.values())
    limit = 0.25 * least["nothing right"] + 15
    if spread > limit:
        faults.append(f"they differ by {spread:.0f} us > {limit:.0f} us: " + ", ".join(f"{name} {value:.0f}" for name, value in least.items()))
    table.row(f"time of the answer to wrong logins ({target.name})", f"{sum(map(len, times.values()))} logins of {len(times)} kinds, the fastest of each within {min(least.values()):.0f} to "
              f"{max(least.values()):.0f} us", "; ".join(faults[:3]) or "0", not faults)


def brute_force(table, target, n):
    """n guesses from one address; meanwhile and afterwards the right ones, and senders of alerts, come in from it and from others."""
    password, token = target.platform.secret("basic-auth-password"), target.platform.secret("webhook-token")
    guesser = ("127.0.2.1", 0)
    faults, codes = [], {}
    with Others(target) as o:
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30 * PATIENCE, source_address=guesser)
        for i in range(n):
            path, credentials = [("/system/info", basic("admin", f"guess{i}")), ("/function/alerts", f"Bearer guess{i}")][i % 2]
            connection.request("GET" if i % 2 == 0 else "POST", path, headers={"Authorization": credentials})
            response = connection.getresponse()
            response.read()
            codes[response.status] = codes.get(response.status, 0) + 1
        seconds = time.monotonic() - began
        for source in ("127.0.0.1", "127.0.2.2"):
            other = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30 * PATIENCE, source_address=(source, 0))
            other.request("GET", "/system/info", headers={"Authorization": basic("admin", password)})
            status = other.getresponse().status
            if status != 200:
                faults.append(f"the right password from {source}: {status}")
            other.close()
        connection.request("POST", "/function/alerts", json.dumps(webhook(alert("Neighbour"))), {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
        status = connection.getresponse().status
        if status != 202:
            faults.append(f"an alert with the right token from the guesser's address: {status}")
    allowed = 30 + seconds / 5 + 2
    if set(codes) - {401, 429} or codes.get(401, 0) > allowed:
        faults.append(f"{codes} in {seconds:.1f} s, {allowed:.0f} guesses are allowed")
    report(table, target, "guessing passwords and tokens", o, faults, f"{n} guesses from one address: {codes.get(401, 0)} looked at, {codes.get(429, 0)} answered 429; the right ones let in")


def short_password(table):
    """One that somebody chose is not even looked at while its guesser has to wait, and is let in from elsewhere."""
    with Up() as target:
        pass_file = os.path.join(target.platform.data, "secrets", "basic-auth-password")
        target.platform.stop()
        with open(pass_file, "w") as f:
            f.write("hunter2\n")
        target.platform.start()
        port = target.platform.port
        def login(password, source):
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=30 * PATIENCE, source_address=(source, 0))
            try:
                c.request("GET", "/system/info", headers={"Authorization": basic("admin", password)})
                return c.getresponse().status
            finally:
                c.close()
        codes = [login(f"guess{i}", "127.0.2.1") for i in range(40)]
        right_there, right_elsewhere = login("hunter2", "127.0.2.1"), login("hunter2", "127.0.2.3")
        faults = [] if (codes[0], codes[-1], right_there, right_elsewhere) == (401, 429, 429, 200) else [f"{codes}, right one {right_there}, from elsewhere {right_elsewhere}"]
        table.row("guessing a short password (balm up)", "40 guesses, then the right one from the same address: not looked at; from another: let in", "; ".join(faults) or "0", not faults)


# ---- --insecure, and browsers ----

def run_balm(arguments, user=None, folder=None):
    command = (["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []) + [BALM, "up", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60 * PATIENCE, cwd=folder)


def refused_insecure(table, folder, stack, nobody):
    faults, base = [], ["-f", stack, "--port", "0", "--functions", os.path.join(BUILD, "functions")]
    if os.geteuid() == 0:
        done = run_balm([*base, "--data", os.path.join(folder, "root"), "--insecure"])
        if done.returncode == 0 or b"root" not in done.stderr:
            faults.append(f"as root: {done.returncode} {done.stderr[-200:]}")
    for listen in ("0.0.0.0", "::", "192.0.2.1"):
        done = run_balm([*base, "--data", os.path.join(folder, "other"), "--insecure", "--listen", listen], nobody)
        if done.returncode == 0:
            faults.append(f"on {listen}: {done.stderr[-200:]}")
    table.row("--insecure as root and on an address that is not loopback", "4 starts refused", "; ".join(faults) or "0", not faults)


PAGES = {
    "Origin of a page": {"Origin": "http://evil.example"},
    "Origin null": {"Origin": "null"},
    "its own Origin": {"Origin": "http://127.0.0.1"},
    "a name that was rebound": {"Host": "evil.example"},
    "a rebound name with the port": {"Host": "evil.example:8080"},
    "a name that begins like ours": {"Host": "127.0.0.1.evil.example"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "a file form": {"Content-Type": "multipart/form-data; boundary=x"},
    "plain text": {"Content-Type": "text/plain"},
    "no type": {"Content-Type": ""},
    "a type that begins like JSON": {"Content-Type": "application/jsonx"},
    "another site's request": {"Sec-Fetch-Site": "cross-site"},
}


def pages(table, target):
    faults, tried = [], 0
    for name, headers in PAGES.items():
        for method, path in (("POST", "/system/functions"), ("PUT", "/system/functions"), ("DELETE", "/system/functions"), ("POST", "/system/scale-function/echo"),
                             ("POST", "/system/check-function/echo"), ("POST", "/system/secrets")):
            status = answer(target, method, path, None, DEPLOY, **headers)[0]
            tried += 1
            if status != 403:
                faults.append(f"{name}: {method} {path}: {status}")
    before = [f["name"] for f in json.loads(answer(target, "GET", "/system/functions")[2])]
    if "page" in before:
        faults.append("a page's function was deployed")
    status = answer(target, "POST", "/system/functions", None, DEPLOY)[0]
    if status != 202:
        faults.append(f"without any of it a deploy is answered {status}")
    table.row("browser pages against --insecure (balm up)", f"{tried} requests of {len(PAGES)} kinds, each 403; a plain client deploys", "; ".join(faults[:5]) or "0", not faults)


def as_user(p, user):
    """That platform as somebody else, who owns its folder."""
    for root, _, files in os.walk(p.folder):
        for name in [root, *(os.path.join(root, name) for name in files)]:
            os.chown(name, user, user)
    command = p.command
    p.command = lambda: ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *command()]


def insecure(table):
    folder = tempfile.mkdtemp(prefix="balm-crash-")
    nobody = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    p = Platform(folder, stack=stack_file("echo"), arguments=["--insecure"])
    try:
        if nobody is not None:
            as_user(p, nobody)
        refused_insecure(table, folder, p.stack, nobody)
        p.start()
        pages(table, Target("balm up --insecure", p.port, p.process.pid, "GET", "/healthz"))
    finally:
        p.stop()
        shutil.rmtree(folder, ignore_errors=True)


def attack(table, target, is_whole, rng):
    refused_without(table, target)
    same_time(table, target, rng, 60 if is_whole else 8)
    brute_force(table, target, 5000 if is_whole else 500)
    short_password(table)
    insecure(table)
