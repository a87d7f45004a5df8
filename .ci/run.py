#!/usr/bin/env python3
"""The project's own check, on a fresh clone: the core parts always, the heavy targets that the changed paths touch.

Prints used and allowed minutes per part and ends in one line `N passed, N failed` over all parts. CI_ALL=1 runs every heavy target as well.
CI_BASE names the commit to compare with (default: the parent of HEAD).
"""
import os
import re
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# part, allowed minutes. Together under 40.
CORE = [("test", 13), ("demo", 1), ("check-asan", 16), ("check-tsan", 4), ("lint", 5)]
# heavy target, allowed minutes, the paths that call for it.
HEAVY = [
    ("crash-sample", 15, ["runtime/", "functions/", "tests/crash/", "tests/integration/harness.py", "Makefile"]),
    ("check-valgrind", 12, ["runtime/base/", "runtime/fiber/", "runtime/loop/", "runtime/server/", "runtime/client/", "tests/valgrind"]),
    ("e2e-logcli", 15, ["functions/audit/", "runtime/server/", "tests/e2e/test_logcli.py", "tests/e2e/logcli_build.py",
                       "tests/e2e/go_build.py"]),
    ("e2e-knative", 20, ["runtime/function/", "runtime/server/", "runtime/cloudevents/", "runtime/cli/generate", "charts/", "stack.yml",
                        "functions/echo/", "tests/e2e/events", "tests/e2e/go_build.py", "tests/e2e/queue_proxy_build.py", "tests/e2e/knative", "tests/e2e/kube_",
                        "tests/e2e/test_knative", "tests/e2e/own_network.py", "Makefile", ".ci/"]),
    ("check-openapi", 10, ["functions/", "runtime/base/json", "runtime/cli/generate", "runtime/config/", "runtime/function/", "runtime/gateway/", "runtime/server/",
                          "tests/openapi/", "tests/integration/test_bots.py", "Makefile", ".ci/"]),
    ("e2e-docs", 8, ["functions/", "runtime/function/openapi", "runtime/gateway/", "runtime/cli/package/swagger-ui.sh", "tests/e2e/browser.py",
                     "tests/e2e/test_docs.py", "Makefile", ".ci/"]),
    ("e2e-images", 20, ["templates/c-balm/", "runtime/cli/package/images.sh", "runtime/function/healthcheck.c", "tests/e2e/test_images.py",
                        "Makefile", ".ci/"]),
    ("e2e-systemd", 10, ["Makefile", "runtime/cli/", "runtime/gateway/broker", "runtime/gateway/shim.c", "functions/service-restart/",
                         "tests/e2e/test_systemd.py", ".ci/"]),
]


def changed_paths():
    base = os.environ.get("CI_BASE", "HEAD~1")
    done = subprocess.run(["git", "diff", "--name-only", base, "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else None  # None: unknown, so all of them


def run(target, minutes):
    print(f"==== make {target} (at most {minutes} minutes)", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(["make", "--no-print-directory", target], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", start_new_session=True)
    tail = ""
    timed_out = False

    def stop():
        nonlocal timed_out
        timed_out = True
        os.killpg(process.pid, 9)
    timer = threading.Timer(minutes * 60, stop)
    timer.start()
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        if re.fullmatch(r"\d+ passed, \d+ failed\n?", line):
            tail = line
    code = process.wait()
    timer.cancel()
    used = (time.monotonic() - began) / 60
    found = re.match(r"(\d+) passed, (\d+) failed", tail)
    passed, failed = (int(found.group(1)), int(found.group(2))) if found else (int(code == 0), 0)
    if code != 0 and failed == 0:
        failed = 1
    print(f"==== make {target}: {used:.1f} of {minutes} minutes, {passed} passed, {failed} failed{', TIME LIMIT' if timed_out else ''}", flush=True)
    return target, used, minutes, passed, failed


def main():
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    results = [run(target, minutes) for target, minutes in CORE]
    changed = changed_paths()
    skipped = []
    for target, minutes, paths in HEAVY:
        if os.environ.get("CI_ALL") == "1" or changed is None or any(c.startswith(p) for c in changed for p in paths):
            results.append(run(target, minutes))
        else:
            skipped.append(target)
    print("\npart           used / allowed minutes")
    for target, used, minutes, passed, failed in results:
        print(f"{target:<14} {used:5.1f} / {minutes:<4} {passed} passed, {failed} failed")
    for target in skipped:
        print(f"{target:<14} skipped: no changed path touches it")
    print(f"{sum(r[3] for r in results)} passed, {sum(r[4] for r in results)} failed")
    return 1 if any(r[4] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
