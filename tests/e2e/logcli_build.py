#!/usr/bin/env python3
"""Loki's own client, built once from its Go module: `tests/e2e/logcli_build.py` prints the program's path.

It is kept in ${XDG_CACHE_HOME:-~/.cache}/balm/bin. The module that builds it has Loki's `require` and `replace` lines, but for the replacement
that points into Loki's own checkout (pkg/push), and Loki's go.sum; everything comes through the ordinary `go` client with its settings of this
host. Cold: minutes (pkg/logcli needs most of Loki).
"""
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

VERSION = "3.7.8"
MODULE = "github.com/grafana/loki/v3"
# What the module's zip and go.mod must hash to, beside what the checksum database says: a go.sum of ours would be as long as Loki's.
SUMS = (f"{MODULE} v{VERSION} h1:bJ0WFWVOjgvG/jYmT9fIX15SYXXDwuEu/IMgTwMA97U=\n"
        f"{MODULE} v{VERSION}/go.mod h1:SubN2HoviBLMmtr/jiMLom/3l3I9CIl8NvWIAEVa2C0=\n")
FETCH_S, BUILD_S = 300, 840


class Unavailable(Exception):
    """It cannot be had here (no go, its modules out of reach); the sentence says why. Whatever else goes wrong is an error."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "balm", "bin")


def is_built(path):
    """Is the program there, and of the version that the tests were written for?"""
    if not os.access(path, os.X_OK):
        return False
    done = subprocess.run([path, "--version"], capture_output=True, timeout=60)
    return f"version {VERSION}" in (done.stdout + done.stderr).decode(errors="replace")


def go(folder, seconds, *arguments):
    """(exit code, stdout, stderr). CGO and workspaces of this host are left out: the program is to be the same everywhere."""
    env = dict(os.environ, CGO_ENABLED="0", GOWORK="off", GOFLAGS="-mod=mod -buildvcs=false", NO_COLOR="1")
    try:
        done = subprocess.run(["nice", "go", *arguments], cwd=folder, env=env, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return 124, "", f"not within {seconds} s"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def last_line(text):
    """The end of what go said, as part of a sentence: one line, and no quote that would end the sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no word").replace("'", "`")[:300]


def fetch(folder, what, *arguments):
    """Stdout of a step that needs the module proxy. What was fetched and is not what was published is no reason to skip: it fails."""
    code, out, err = go(folder, FETCH_S, *arguments)
    if code != 0 and ("SECURITY ERROR" in err or "checksum mismatch" in err):
        raise RuntimeError(err)
    if code != 0:
        raise Unavailable(f"{what}: {last_line(err or out)}")
    return out


def write_module(folder):
    """go.mod and go.sum of a module whose only content is that it requires Loki."""
    with open(os.path.join(folder, "go.mod"), "w") as f:
        f.write("module balm.dev/tests/logcli\n")
    with open(os.path.join(folder, "go.sum"), "w") as f:
        f.write(SUMS)
    fetch(folder, f"{MODULE} v{VERSION} could not be fetched", "mod", "download", f"{MODULE}@v{VERSION}")
    loki = fetch(folder, f"{MODULE} v{VERSION} was not found", "list", "-m", "-f", "{{.Dir}}", f"{MODULE}@v{VERSION}").strip()
    with open(os.path.join(loki, "go.mod")) as f:
        lines = f.read()
    lines = re.sub(r"^module .*$", "module balm.dev/tests/logcli", lines, count=1, flags=re.M)
    lines = re.sub(r"^replace \S+ => \./.*$", "", lines, flags=re.M)
    with open(os.path.join(folder, "go.mod"), "w") as f:
        f.write(f"{lines}\nrequire {MODULE} v{VERSION}\n")
    with open(os.path.join(loki, "go.sum")) as f, open(os.path.join(folder, "go.sum"), "a") as out:
        out.write(f.read())


def build(path):
    package = f"{MODULE}/cmd/logcli"
    with tempfile.TemporaryDirectory(prefix="balm-logcli-") as folder:
        write_module(folder)
        fetch(folder, "modules that logcli needs could not be fetched", "list", "-deps", package)
        made = f"{path}.{os.getpid()}"
        version = f"-X {MODULE}/pkg/util/build.Version={VERSION}"
        code, out, err = go(folder, BUILD_S, "build", "-trimpath", "-ldflags", f"-s -w {version}", "-o", made, package)
        if code != 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made)
            raise RuntimeError(f"go build {package}: {out}{err}"[-4000:])
        os.rename(made, path)


def logcli():
    """Path of logcli, built if it is not there. Unavailable: the tests that want it skip, and say why."""
    path = os.path.join(cache_dir(), "logcli")
    if is_built(path):
        return path
    if shutil.which("go") is None:
        raise Unavailable("no go here to build logcli with")
    os.makedirs(cache_dir(), exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs of one user: the second waits and finds it
        if not is_built(path):
            print(f"building logcli {VERSION} from its Go module, once", file=sys.stderr, flush=True)
            began = time.monotonic()
            build(path)
            print(f"built {path} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if not is_built(path):
        raise RuntimeError(f"{path} --version does not say {VERSION}")
    return path


if __name__ == "__main__":
    try:
        print(logcli())
    except Unavailable as e:
        sys.exit(str(e))
