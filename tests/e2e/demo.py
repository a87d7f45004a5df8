#!/usr/bin/env python3
"""The main job on real parts, told stage by stage: `make demo`.

A real nginx is scraped by a real Prometheus, whose alert a real Alertmanager posts to `balm up`; the bot service-restart brings nginx back,
the platform verifies it by the resolve and closes the incident. Every time is measured by the part named beside it. KEEP=1 leaves all running.
"""
import calendar
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import BALM, Platform, free_port, stack_file, wait_until  # noqa: E402
from peers import Alertmanager, Nginx, Prometheus, Unavailable  # noqa: E402

RULES = """groups:
  - name: demo
    rules:
      - alert: NginxDown
        expr: up{job="nginx"} == 0
        labels: {severity: critical, service: nginx}
        annotations: {summary: "nginx does not answer"}
"""
RUNBOOKS = os.path.join(ROOT, "functions", "dispatcher", "runbooks")
# How long each part may take before the demo gives up and says which stage is missing.
FIRING_S, HEALED_S, CLOSED_S = 30, 30, 60


def say(text):
    print(text, flush=True)


def unix(text):
    """RFC 3339 to seconds."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    seconds = calendar.timegm(time.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S")) + float(found.group(2) or 0)
    zone = found.group(3)
    if zone != "Z":
        sign = -1 if zone[0] == "+" else 1
        seconds += sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return seconds


class Demo:
    def __init__(self, folder):
        self.folder = folder
        self.parts = []

    def up(self):
        say("starting  nginx, balm, Alertmanager, Prometheus on loopback …")
        self.nginx = Nginx(self.folder)
        self.nginx.start()
        self.parts.append(self.nginx)
        runbooks = {}
        for name in sorted(os.listdir(RUNBOOKS)):
            with open(os.path.join(RUNBOOKS, name)) as f:
                runbooks[name] = f.read()
        self.balm = Platform(self.folder, runbooks=runbooks, stack=stack_file("echo", "service-restart", "disk-clean", "notify"),
                             host_acts=self.nginx.allow_list())
        self.balm.start()
        self.parts.append(self.balm)
        token_file = os.path.join(self.balm.data, "secrets", "webhook-token")
        self.alertmanager = Alertmanager(self.folder, f"http://127.0.0.1:{self.balm.port}/function/alerts", token_file)
        self.alertmanager.start()
        self.parts.append(self.alertmanager)
        self.prometheus = Prometheus(self.folder, RULES, self.nginx.port, self.alertmanager.port, port=free_port())
        self.prometheus.start()
        self.parts.append(self.prometheus)
        wait_until(lambda: any(s["value"][1] == "1" for s in self.prometheus.query('up{job="nginx"}')), 30, "Prometheus sees nginx up")

    def break_and_watch(self):
        say("breaking  nginx is stopped")
        fault = time.time()
        self.nginx.stop()
        first = {}
        # A cursor over the journal: what each record says, at the moment it is there.
        self.balm.wait_record("signal", FIRING_S, status="firing")
        self.balm.wait_record("outcome", HEALED_S)
        self.balm.wait_record("closed", CLOSED_S)
        for record in self.balm.records():
            key = record["kind"] + ("." + record["status"] if record["kind"] == "signal" else "")
            first.setdefault(key, record)
        return fault, first

    def timeline(self, fault, first):
        signal, outcome = first["signal.firing"], first["outcome"]
        stages = outcome["stages"]
        scrape = self.prometheus.first_zero('up{job="nginx"}', fault - 0.001)
        rows = [
            ("fault", fault, "the demo's clock"),
            ("scrape", scrape, "Prometheus: first sample with up == 0"),
            ("firing", unix(signal["startsAt"]), "the alert's startsAt"),
            ("received", unix(stages["received"]), "journal"),
            ("durable", unix(stages["durable"]), "journal"),
            ("decided", unix(stages["decided"]), "journal"),
            ("invoked", unix(stages["invoked"]), "journal"),
            ("entered", unix(stages["entered"]), "journal: the bot's own clock"),
            ("healed", unix(stages["healed"]), "journal: the bot saw it up"),
            ("verified", unix(first["verified"]["time"]), "journal: the alert resolved"),
            ("resolved", unix(first["closed"]["time"]), "journal: incident closed"),
        ]
        return rows

    def down(self):
        for part in reversed(self.parts):
            try:
                part.stop()
            except Exception as e:  # a part that is gone already must not keep the others
                say(f"stopping  {e}")


def check(rows, first, demo):
    missing = [name for name, at, _ in rows if at is None]
    if missing:
        raise AssertionError("stage missing: " + ", ".join(missing))
    if first["outcome"].get("state") != "done":
        raise AssertionError("the bot did not heal: " + json.dumps(first["outcome"]))
    if not first["verified"].get("ok"):
        raise AssertionError("not verified: " + json.dumps(first["verified"]))
    if first["closed"].get("state") != "healed":
        raise AssertionError("not closed as healed: " + json.dumps(first["closed"]))
    if not demo.nginx.pid():
        raise AssertionError("nginx is not running")


def show(rows):
    say("\n  stage         after fault      step   measured by")
    start, before = rows[0][1], rows[0][1]
    # By time: deciding runs on what is appended and not yet on disk, so it may come before durable. Acting never does.
    for name, at, source in sorted(rows, key=lambda r: r[1]):
        say(f"  {name:<10} {1000 * (at - start):10.1f} ms {1000 * (at - before):7.1f} ms   {source}")
        before = at


def main():
    keep = os.environ.get("KEEP") == "1"
    folder = tempfile.mkdtemp(prefix="balm-demo-")
    demo = Demo(folder)
    try:
        demo.up()
        fault, first = demo.break_and_watch()
        rows = demo.timeline(fault, first)
        check(rows, first, demo)
        show(rows)
        incident = first["closed"]["incident"]
        say(f"\n$ balm why {incident} --data {demo.balm.data}\n")
        subprocess.run([BALM, "why", incident, "--data", demo.balm.data], check=True)
        say("\nhealed    nginx is up again, verified, recorded")
        if keep:
            say(f"KEEP=1    everything stays: balm :{demo.balm.port}, nginx :{demo.nginx.port}, Prometheus :{demo.prometheus.port}, "
                f"Alertmanager :{demo.alertmanager.port}, data {demo.balm.data}")
        return 0
    except (AssertionError, Unavailable, subprocess.SubprocessError, OSError, KeyError) as e:
        say(f"\nFAILED    {type(e).__name__}: {e}")
        return 1
    finally:
        if not keep:
            demo.down()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
