"""What the campaigns with bots share: functions that are bad_bot by other names, runbooks for them, and an observer outside the platform."""
import calendar
import collections
import os
import shutil
import time

from harness import BUILD, MEMORY_LIMIT, shared_file, wait_until

BAD_BOT = os.path.join(BUILD, "tests", "crash", "bad_bot")
RUNBOOK = """
- name: NAME
  match: ['alertname="NAME"']
  target: NAME/${labels.n}
  mode: act
  steps:
    - {bot: NAME, timeout: TIMEOUT, verify: check}
  guardrails: {cooldown: COOLDOWN, rate: RATE, max_in_flight: 10}
"""
Mark = collections.namedtuple("Mark", "intent attempt at function what")


def functions_folder(folder, names):
    path = os.path.join(folder, "functions")
    os.makedirs(path, exist_ok=True)
    for name in names:
        shutil.copy(BAD_BOT, os.path.join(path, name))  # a link would be run by the name of what it leads to
    return path


def stack(folder, names, **environment):
    environment = {"BALM_TEST_MARKS": marks_file(folder), **environment}
    text = "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n"
    for name in names:
        text += f"  {name}:\n    lang: c-balm\n    handler: ./{name}\n    image: {name}:latest\n"
        text += f"    limits: {{memory: {MEMORY_LIMIT}}}\n    environment:\n"
        text += "".join(f"      {key}: '{value}'\n" for key, value in environment.items())
    return text


def runbook(name, timeout="2s", cooldown="1s", rate="{max: 10000, per: 24h}"):
    return RUNBOOK.replace("NAME", name).replace("TIMEOUT", timeout).replace("COOLDOWN", cooldown).replace("RATE", rate)


def marks_file(folder):
    return shared_file(folder, "marks")


def marks(folder):
    """What bots really did, in the order of the machine's monotonic clock (seconds)."""
    try:
        with open(marks_file(folder)) as f:
            lines = [line.split() for line in f.read().split("\n")[:-1]]  # the last one may be under way
    except FileNotFoundError:
        return []
    return [Mark(intent, int(attempt), int(at) / 1e9, function, what) for intent, attempt, at, function, what in lines]


def processes(text):
    """{pid: command line} of every process that was started with `text` in its command line."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(pid) != os.getpid():
            found[int(pid)] = line
    return found


def left_behind(folder, seconds=10):
    """How many processes of this folder are there once they have had the time to end."""
    try:
        wait_until(lambda: not processes(folder), seconds, "no process is left")
    except AssertionError:
        pass
    return len(processes(folder))


def journal_faults(platform):
    """What audit verify and refold have against the journal of a platform that has stopped; "" where it is genuine and folds to its decisions. That an
    act has no outcome yet is for others to judge."""
    _, text, error = platform.cli("audit", "verify")
    code, more, wrong = platform.cli("audit", "refold")
    return "" if "genuine" in text and code == 0 else text + error + more + wrong


def memory_peak_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def unix_seconds(record_time):
    """RFC 3339 as records have it."""
    whole, _, fraction = record_time.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))
