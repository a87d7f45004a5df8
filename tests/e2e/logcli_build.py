#!/usr/bin/env python3
"""Loki's own client, built once from its Go module: `tests/e2e/logcli_build.py` prints the program's path.

The module that builds it has Loki's `require` and `replace` lines, but for the replacement that points into Loki's own checkout (pkg/push), and
Loki's go.sum. Cold: minutes (pkg/logcli needs most of Loki).
"""
import os
import re
import subprocess
import sys

import go_build
from go_build import Unavailable

VERSION = "3.7.8"
MODULE = "github.com/grafana/loki/v3"
# What the module's zip and go.mod must hash to, beside what the checksum database says: a go.sum of ours would be as long as Loki's.
SUMS = (f"{MODULE} v{VERSION} h1:bJ0WFWVOjgvG/jYmT9fIX15SYXXDwuEu/IMgTwMA97U=\n"
        f"{MODULE} v{VERSION}/go.mod h1:SubN2HoviBLMmtr/jiMLom/3l3I9CIl8NvWIAEVa2C0=\n")


def is_built(path):
    """Is the program there, and of the version that the tests were written for?"""
    if not os.access(path, os.X_OK):
        return False
    done = subprocess.run([path, "--version"], capture_output=True, timeout=60)
    return f"version {VERSION}" in (done.stdout + done.stderr).decode(errors="replace")


def write_module(folder):
    """go.mod and go.sum of a module whose only content is that it requires Loki."""
    go_build.write_module(folder, "module balm.dev/tests/logcli\n", SUMS)
    loki = go_build.module_dir(folder, MODULE, f"v{VERSION}")
    with open(os.path.join(loki, "go.mod")) as f:
        lines = f.read()
    lines = re.sub(r"^module .*$", "module balm.dev/tests/logcli", lines, count=1, flags=re.M)
    lines = re.sub(r"^replace \S+ => \./.*$", "", lines, flags=re.M)
    with open(os.path.join(loki, "go.sum")) as f:
        sums = f.read()
    go_build.write_module(folder, f"{lines}\nrequire {MODULE} v{VERSION}\n", SUMS + sums)


def make(folder, path):
    write_module(folder)
    version = f"-X {MODULE}/pkg/util/build.Version={VERSION}"
    go_build.compile_package(folder, f"{MODULE}/cmd/logcli", path, ["-ldflags", f"-s -w {version}"])


def logcli():
    """Path of logcli, built if it is not there. Unavailable: the tests that want it skip, and say why."""
    return go_build.program("logcli", make, is_built)


if __name__ == "__main__":
    try:
        print(logcli())
    except Unavailable as e:
        sys.exit(str(e))
