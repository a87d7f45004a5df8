#!/usr/bin/env python3
"""Knative's own code, built once from its Go module: `tests/e2e/queue_proxy_build.py` prints queue-proxy's path. Cold: about a minute."""
import hashlib
import os
import shutil
import sys
import tempfile

import go_build
from go_build import Unavailable

VERSION = "0.49.0"
MODULE = "knative.dev/serving"
HERE = os.path.dirname(os.path.abspath(__file__))
SUMS = f"{MODULE} v{VERSION} h1:5B1JsytwZ+5bh9vOCNnu4GQJ/m6oj61Z/rVKziAY6MA=\n"


def write_module(folder):
    go_build.write_module(folder, f"module balm.dev/tests/knative\n\nrequire {MODULE} v{VERSION}\n", SUMS)


def make_webhook(folder, path):
    write_module(folder)
    shutil.copy(os.path.join(HERE, "knative_go", "main.go"), folder)
    go_build.compile_package(folder, ".", path, ["-ldflags", "-s -w"])


def webhook():
    """Path of a program that judges Services as Knative's admission webhook does (knative_go/main.go)."""
    with open(os.path.join(HERE, "knative_go", "main.go"), "rb") as f:
        known = hashlib.sha256(f.read() + VERSION.encode()).hexdigest()[:16]
    return go_build.program(f"knative-webhook-{known}", make_webhook)


def source():
    """Folder of the module's own files (manifests among them)."""
    if shutil.which("go") is None:
        raise Unavailable(f"no go here to fetch {MODULE} with")
    with tempfile.TemporaryDirectory(prefix="balm-go-") as folder:
        go_build.write_module(folder, "module balm.dev/tests/knative\n", SUMS)
        return go_build.module_dir(folder, MODULE, f"v{VERSION}")


def make(folder, path):
    write_module(folder)
    go_build.compile_package(folder, f"{MODULE}/cmd/queue", path, ["-ldflags", "-s -w"])


def queue_proxy():
    """Path of queue-proxy, built if it is not there. Unavailable: the tests that want it skip, and say why."""
    return go_build.program(f"queue-proxy-{VERSION}", make)


if __name__ == "__main__":
    try:
        print(queue_proxy())
    except Unavailable as e:
        sys.exit(str(e))
