#!/usr/bin/env python3
"""Makes the state of this version, to be opened by all later ones: tests/upgrade/VERSION/{state.tar.gz,expected.json}.

    BALM_BUILD=build tests/upgrade/make.py [FOLDER]

Run once a release, and commit what it makes; what is there is never made again, or it would be no state of that release. A real platform goes
through acts that are done, refused by gates, held back in shadow, failed and escalated, through stop and resume, a note, a deployed function and a
kill -9, and is stopped. The archive holds its data folder, its runbooks and a backup of it; expected.json what its own commands said about it.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))

import busy  # noqa: E402
from harness import BALM, Platform, alert, stack_file, wait_until  # noqa: E402
from test_backup import Receiver  # noqa: E402

RUNBOOKS = """
- name: tell
  match: ['alertname="Tell"']
  target: person/${labels.who}
  mode: act
  steps:
    - bot: notify
      with: {title: "hello"}
      verify: {resolve: {within: 10m}}
      timeout: 20s
  guardrails: {cooldown: 10m, rate: {max: 100, per: 1h}}
- name: clean
  match: ['alertname="DiskFull"']
  target: host/${labels.host}
  mode: act
  steps:
    - bot: disk-clean
      with: {root: "/balm-upgrade-has-no-such-folder", older_than: 1h}
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
      with: {root: "/balm-upgrade-is-not-on-the-list", older_than: 1h}
      timeout: 20s
      verify: {resolve: {within: 1s}}
- name: broken
  match: ['alertname="Broken"']
  target: person/${labels.who}
  mode: act
  steps:
    - {bot: notify, with: {title: "broken"}, timeout: 20s}
- name: watched
  match: ['alertname="Shadowed"']
  target: host/${labels.host}
  steps:
    - bot: disk-clean
      with: {root: "/balm-upgrade-has-no-such-folder", older_than: 1h}
"""
STACK = busy.notify_stack() + stack_file("disk-clean", "echo").split("functions:\n")[1].replace(
    "image: disk-clean:latest\n", "image: disk-clean:latest\n    environment: {disk_clean_roots: /balm-upgrade-has-no-such-folder}\n")
# Of one process: what a data folder holds besides is its state.
NOT_STATE = ("lock", "run", "run.json")


def why(p, incident):
    """What does not depend on whether the platform runs."""
    return {k: v for k, v in json.loads(balm("why", incident, "--data", p.data, "--json")).items() if k != "platform"}


def balm(*arguments):
    done = subprocess.run([BALM, *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"balm {' '.join(arguments)}: {done.returncode} {done.stderr}")
    return done.stdout


def live(p):
    """Everything that a state of this version can hold."""
    began = time.time()
    p.start()
    p.post_alerts(alert("Tell", who="healed", starts_at=began, annotations={"summary": "größer als \u2028 gedacht"}),
                  alert("Tell", who="open", starts_at=began), alert("DiskFull", host="a", starts_at=began),
                  alert("Untidy", host="c", starts_at=began), alert("Shadowed", host="b", starts_at=began), alert("Broken", who="nobody", starts_at=began),
                  alert("Nobody", starts_at=began), {"status": "odd"})
    p.wait_record("outcome", target="person/open", state="done")
    p.wait_record("outcome", target="person/healed", state="done")
    p.wait_record("outcome", target="host/a", state="refused")
    p.wait_record("outcome", target="person/nobody", state="failed")
    p.wait_record("outcome", target="host/c", state="refused")
    incident = p.wait_record("escalated", runbook="clean")["incident"]
    p.wait_record("outcome", target="escalation/" + incident, state="done")
    p.post_alerts(alert("Tell", who="open", again="yes"))
    p.wait_record("refusal", target="person/open")
    p.post_alerts(alert("Tell", who="healed", status="resolved", starts_at=began))
    p.wait_record("closed", state="healed")
    p.request("POST", "/system/functions", {"service": "more", "image": "echo:latest"}, p.basic())
    p.request("POST", "/async-function/echo", "later")
    p.wait_record("outcome", function="echo")
    p.cli("stop")
    p.post_alerts(alert("Tell", who="frozen"))
    p.wait_record("refusal", gate="freeze")
    p.kill()
    p.start()
    incident = p.wait_record("refusal", gate="freeze")["incident"]
    p.request("POST", "/function/dispatcher/notes", {"incident": incident, "actor": "maker", "message": "seen"}, p.basic())
    p.wait_record("note")


def expected(p):
    """What the commands of this version say about the state on disk."""
    lines = p.records()
    incidents = sorted({r["incident"] for r in lines if r.get("incident")})
    return {
        "version": json.loads(balm("version", "--json"))["version"],
        "records": lines,
        "verify": json.loads(balm("audit", "verify", "--data", p.data, "--json")),
        "refold": json.loads(balm("audit", "refold", "--data", p.data, "--json")),
        "why": {incident: why(p, incident) for incident in incidents},
    }


def status(p):
    """Of the running platform: what no time that passes changes."""
    found = json.loads(balm("status", "--data", p.data, "--json"))
    kept = {k: found["status"][k] for k in ("frozen", "mayAct")}
    kept["runbooks"] = [{k: r[k] for k in ("name", "mode", "hash", "target", "bots")} for r in found["status"]["runbooks"]]
    kept["incidents"] = {"unmatched": found["status"]["incidents"]["unmatched"]}
    kept["sources"] = [{k: s[k] for k in ("name", "signals")} for s in found["status"]["sources"]]
    return {"status": kept, "functions": [{"name": f["name"]} for f in found["functions"]]}


def pack(folder, path):
    def state_only(member):
        parts = member.name.split("/")
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if parts[0] == "data" and len(parts) > 1 and parts[1] in NOT_STATE else member
    with tarfile.open(path, "w:gz") as tar:
        for name in ("backup", "data", "runbooks"):
            tar.add(os.path.join(folder, name), name, filter=state_only)


def main():
    version = json.loads(balm("version", "--json"))["version"]
    to = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, version)
    if os.path.exists(os.path.join(to, "state.tar.gz")):
        raise SystemExit(f"{to} is there already: the state of a release is made once")
    folder = tempfile.mkdtemp(prefix="balm-upgrade-")
    receiver = Receiver()
    receiver.answers.set()
    p = Platform(folder, runbooks={"all.yaml": RUNBOOKS}, stack=STACK)
    try:
        busy.secret(p, "notify-url", f"http://127.0.0.1:{receiver.port}/hook")
        busy.secret(p, "notify-hmac-key", "k3y")
        live(p)
        answers = status(p)
        p.stop()
        balm("backup", os.path.join(folder, "backup"), "--data", p.data)
        answers.update(expected(p))
        os.makedirs(to, exist_ok=True)
        pack(folder, os.path.join(to, "state.tar.gz"))
        with open(os.path.join(to, "expected.json"), "w") as f:
            json.dump(answers, f, indent=1, sort_keys=True, ensure_ascii=False)
            f.write("\n")
    finally:
        if p.process is not None:
            p.stop(signal.SIGKILL)
        receiver.close()
        shutil.rmtree(folder)
    print(f"{to}: {len(answers['records'])} records, {len(answers['why'])} incidents, "
          f"{os.path.getsize(os.path.join(to, 'state.tar.gz'))} bytes")


if __name__ == "__main__":
    main()
