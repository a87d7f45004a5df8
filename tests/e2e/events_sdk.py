"""CloudEvents' SDKs of other languages as programs that send and read events: events_go/main.go and events_python.py say how."""
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys

import go_build
from go_build import Unavailable

HERE = os.path.dirname(os.path.abspath(__file__))
GO_MODULE, GO_VERSION = "github.com/cloudevents/sdk-go/v2", "v2.16.2"
GO_SUM = f"{GO_MODULE} {GO_VERSION} h1:ZYDFrYke4FD+jM8TZTJJO6JhKHzOQl2oqpFK1D+NnQM=\n"
PYPI = ["cloudevents==2.2.0", "python-dateutil==2.9.0.post0"]


def make_go(folder, path):
    go_build.write_module(folder, f"module balm.dev/tests/events\n\ngo 1.23\n\nrequire {GO_MODULE} {GO_VERSION}\n", GO_SUM)
    shutil.copy(os.path.join(HERE, "events_go", "main.go"), folder)
    go_build.compile_package(folder, ".", path)


def go_sender():
    """Its command."""
    with open(os.path.join(HERE, "events_go", "main.go"), "rb") as f:
        known = hashlib.sha256(f.read() + GO_VERSION.encode()).hexdigest()[:16]
    return [go_build.program(f"events-go-{known}", make_go)]


def run(argv, what):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise Unavailable(f"{what}: {go_build.last_line(done.stderr or done.stdout)}")


def python_sender():
    """Its command; the SDK is in an environment of its own, made once below balm's cache."""
    known = hashlib.sha256((" ".join(PYPI) + sys.version).encode()).hexdigest()[:16]
    folder = os.path.join(os.path.dirname(go_build.cache_dir()), "events-" + known)
    if not os.path.exists(os.path.join(folder, "complete")):
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", folder], "python3 -m venv (Debian: python3-venv)")
        run([os.path.join(folder, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYPI], "pip install cloudevents")
        with open(os.path.join(folder, "complete"), "w"):
            pass
    return [os.path.join(folder, "bin", "python"), os.path.join(HERE, "events_python.py")]


def plain(data=None, **attributes):
    """An event as the senders take it; data: bytes or None for none."""
    event = {"attributes": {"specversion": "1.0", "id": "1", "source": "/test", "type": "dev.balm.test", **attributes}}
    if data is not None:
        event["data_base64"] = base64.b64encode(data).decode()
    return event


def data_of(event):
    return base64.b64decode(event["data_base64"] or "")


def send(command, url, mode, events):
    """[{"status", "events", "error"}], one for each request."""
    done = subprocess.run([*command, url, mode], input=json.dumps(events), capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)
