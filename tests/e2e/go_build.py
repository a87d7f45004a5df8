"""Programs that the tests want and that exist as Go modules: built once, kept in ${XDG_CACHE_HOME:-~/.cache}/balm/bin.

Everything comes through the ordinary `go` client with its settings of this host (proxy, checksum database), is built in a folder of its own
that is removed again, and nothing of it goes into the repository.
"""
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time

FETCH_S, BUILD_S = 300, 840


class Unavailable(Exception):
    """It cannot be had here (no go, its modules out of reach); the sentence says why. Whatever else goes wrong is an error."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "balm", "bin")


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


def module_dir(folder, module, version):
    """Where the module's own files stand; they are fetched."""
    fetch(folder, f"{module} {version} could not be fetched", "mod", "download", f"{module}@{version}")
    return fetch(folder, f"{module} {version} was not found", "list", "-m", "-f", "{{.Dir}}", f"{module}@{version}").strip()


def write_module(folder, text, sums=""):
    with open(os.path.join(folder, "go.mod"), "w") as f:
        f.write(text)
    with open(os.path.join(folder, "go.sum"), "w") as f:
        f.write(sums)


def compile_package(folder, package, path, flags=(), seconds=BUILD_S):
    """The program of `package`, as the module in `folder` has it, at `path`; whole or not at all."""
    fetch(folder, f"modules that {package} needs could not be fetched", "list", "-deps", package)
    made = f"{path}.{os.getpid()}"
    code, out, err = go(folder, seconds, "build", "-trimpath", *flags, "-o", made, package)
    if code != 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        raise RuntimeError(f"go build {package}: {out}{err}"[-4000:])
    os.rename(made, path)


def program(name, make, is_built=lambda path: os.access(path, os.X_OK)):
    """Path of `name` in the cache; make(folder, path) builds it in an empty folder where it is not there (as is_built(path) judges)."""
    path = os.path.join(cache_dir(), name)
    if is_built(path):
        return path
    if shutil.which("go") is None:
        raise Unavailable(f"no go here to build {name} with")
    os.makedirs(cache_dir(), exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs of one user: the second waits and finds it
        if not is_built(path):
            print(f"building {name} from its Go module, once", file=sys.stderr, flush=True)
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="balm-go-") as folder:
                make(folder, path)
            print(f"built {path} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if not is_built(path):
        raise RuntimeError(f"{path} is not what was to be built")
    return path
