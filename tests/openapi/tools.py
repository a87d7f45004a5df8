"""What reads OpenAPI documents: openapi-spec-validator and schemathesis, from PyPI, in an environment of their own.

Made once for each content of requirements.txt, below ${XDG_CACHE_HOME:-~/.cache}/balm; nothing is installed on this host.
"""
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, "requirements.txt")


class Unavailable(Exception):
    """It cannot be had here; the sentence says why."""


def run(argv, what, seconds=600):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unavailable(f"{what}: {e}")
    if done.returncode != 0:
        raise Unavailable(f"{what}: {(done.stderr or done.stdout).strip()[-400:]}")


def environment():
    """Folder of the environment's programs, made if need be."""
    with open(REQUIREMENTS, "rb") as f:
        known = hashlib.sha256(f.read() + sys.version.encode()).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(base, "balm", "openapi-" + known)
    programs = os.path.join(folder, "bin")
    if os.path.exists(os.path.join(folder, "complete")):
        return programs
    lock = f"{folder}.{os.getpid()}"
    try:
        run([sys.executable, "-m", "venv", lock], "python3 -m venv (Debian: python3-venv)")
        run([os.path.join(lock, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS],
            "pip install of tests/openapi/requirements.txt")
        # Programs name their interpreter by its path: so they are run as modules, and the folder may be renamed.
        with open(os.path.join(lock, "complete"), "w"):
            pass
        try:
            os.rename(lock, folder)
        except OSError:
            pass  # another one was faster
    finally:
        shutil.rmtree(lock, ignore_errors=True)
    return programs


def python():
    return os.path.join(environment(), "python")
