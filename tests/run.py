#!/usr/bin/env python3
"""Runs test suites and ends in one line `N passed, N failed`.

    tests/run.py [--build DIR] [--asan | --valgrind] [--only WORD] [--jobs N] KIND...      KIND: unit property contract fuzz integration upgrade e2e tsan

A suite is a Criterion binary, a plain program (exit code 0 = one test passed) or a Python unittest file. Each has a time limit; a suite that
prints no result counts as one failure. With --asan a sanitizer report written by any process is a failure even if its suite says passed; with
--valgrind a suite passes by coming to its end under memcheck, and whatever that finds in any process is one failure.
"""
import argparse
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT_S = {"unit": 300, "property": 600, "contract": 300, "fuzz": 300, "integration": 900, "upgrade": 300, "e2e": 1200, "tsan": 300}

# Suites that wait for clocks.
LONGEST = ["test_schedule.py", "test_reload.py", "test_steer.py", "test_reconcile.py"]

# Programs of the system are not looked into.
VALGRIND = ["valgrind", "-q", "--trace-children=yes", "--trace-children-skip=/bin/*,/usr/bin/*,*/sleep", "--leak-check=full",
            "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite", f"--suppressions={ROOT}/tests/valgrind.supp"]


def suites(kind, build):
    if kind in ("unit", "property", "contract", "tsan"):
        programs = [p for p in sorted(glob.glob(f"{build}/tests/{kind}/*")) if os.access(p, os.X_OK) and os.path.isfile(p)]
        return programs + (sorted(glob.glob(f"{ROOT}/tests/tsan/test_*.py")) if kind == "tsan" else [])
    if kind == "fuzz":
        return [p for p in sorted(glob.glob(f"{build}/tests/fuzz/*")) if os.access(p, os.X_OK) and os.path.isfile(p)]
    return sorted(glob.glob(f"{ROOT}/tests/{kind}/test_*.py"))


def command(kind, path):
    if path.endswith(".py"):
        return [sys.executable, path, "-v"]
    if kind == "fuzz":
        corpus = sorted(glob.glob(f"{ROOT}/tests/fuzz/corpus/{os.path.basename(path)}/*"))
        return [path, *corpus]
    if kind == "tsan":
        return [path]
    return [path, "--timeout", "120", "-j1"]


def count(kind, path, code, text):
    """(passed, failed) from what the suite printed."""
    if path.endswith(".py"):
        ran = re.search(r"^Ran (\d+) tests?", text, re.M)
        bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", text))
        skipped = sum(int(n) for n in re.findall(r"skipped=(\d+)", text))
        if not ran:
            return 0, 1
        total = int(ran.group(1))
        if code != 0 and bad == 0:
            bad = 1
        return max(total - bad - skipped, 0), bad
    if kind in ("fuzz", "tsan"):
        return (1, 0) if code == 0 else (0, 1)
    found = re.search(r"Tested: .*?(\d+).*?Passing: .*?(\d+).*?Failing: .*?(\d+).*?Crashing: .*?(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", text))
    if not found:
        return 0, 1
    tested, passing, failing, crashing = (int(n) for n in found.groups())
    bad = failing + crashing
    if tested == 0:  # a binary that lost its tests while it was linked must not look green
        return 0, 1
    return passing, bad if bad or code == 0 else 1


def run(kind, path, env):
    began = time.monotonic()
    try:
        done = subprocess.run(env.get("BALM_UNDER", "").split() + command(kind, path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=ROOT,
                              timeout=LIMIT_S[kind] * float(env.get("BALM_PATIENCE", "1")))
        code, text = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        code, text = 124, (e.stdout or b"").decode(errors="replace") + "\n(time limit)\n"
    passed, failed = count(kind, path, code, text)
    if "BALM_UNDER" in env:  # at a fiftieth of the speed some that hold a time limit against us fail: asked is what memcheck finds
        passed, failed = (1, 0) if "Synthesis" in text and code != 124 else (0, 1)
    skips = re.findall(r"skipped '([^']*)'", text)
    return kind, path, passed, failed, skips, text, time.monotonic() - began


def is_of_criterion(text):
    """Did Criterion 2.4.1 stumble over itself? It reads past a buffer of its own now and then while it tells its parent how a test ended: then
    every frame below its own main is its own or the sanitizer's."""
    frames = re.findall(r"^ +#\d+ 0x[0-9a-f]+ +(.*)$", text, re.M)
    below = []
    for frame in frames:
        if "criterion_internal_test_main" in frame:
            return all("libcriterion" in f or "libsanitizer" in f for f in below)
        below.append(frame)
    return False


def found_by_memcheck(text):
    """What is left of a log without valgrind's warnings and deaths by a signal, which are what some tests are about."""
    paragraphs = re.split(r"^==\d+== *\n", text, flags=re.M)
    return "\n".join(p for p in paragraphs if p.strip() and not re.search("Process terminating with default action of signal|== WARNING: ", p))


def memcheck_findings(reports):
    found = []
    for name in sorted(os.listdir(reports)):
        with open(os.path.join(reports, name), errors="replace") as f:
            text = found_by_memcheck(f.read())
        if text:
            found.append(name)
            if len(found) <= 5:
                print(f"---- memcheck, process {name}\n{text[:4000]}")
    return len(found)


def canary(build, env):
    """A deliberate leak on a fiber's stack must be found, and its absence must be silent: (passed, failed)."""
    quiet = dict(env, ASAN_OPTIONS="detect_leaks=1:exitcode=99")
    program = os.path.join(ROOT, build, "tests", "canary", "leak")
    runs = [subprocess.run([program, word], env=quiet, capture_output=True, timeout=120) for word in ("leak", "clean")]
    is_caught = runs[0].returncode != 0 and b"77 byte(s)" in runs[0].stderr
    is_silent = runs[1].returncode == 0
    print(f"{'ok  ' if is_caught and is_silent else 'FAIL'} canary: a deliberate leak is {'caught' if is_caught else 'NOT CAUGHT'}, "
          f"a clean run is {'silent' if is_silent else 'NOT SILENT'}", flush=True)
    return is_caught + is_silent, 2 - is_caught - is_silent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1 + (os.cpu_count() or 1))  # they wait more than they work
    parser.add_argument("kinds", nargs="+", choices=sorted(LIMIT_S))
    args = parser.parse_args()

    env = dict(os.environ, BALM_BUILD=args.build)
    reports = os.path.join(ROOT, args.build, "sanitizer-reports")
    if args.asan:
        shutil.rmtree(reports, ignore_errors=True)
        os.makedirs(reports)
        os.chmod(reports, 0o777)  # functions have users of their own
        env["ASAN_OPTIONS"] = f"log_path={reports}/asan:detect_leaks=1:abort_on_error=0:exitcode=99"
        env["UBSAN_OPTIONS"] = f"log_path={reports}/ubsan:print_stacktrace=1"
        env["LSAN_OPTIONS"] = f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0"
        env.setdefault("BALM_PATIENCE", "4")

    if "tsan" in args.kinds:
        env.setdefault("BALM_PATIENCE", "4")
    if args.valgrind:
        shutil.rmtree(reports, ignore_errors=True)
        os.makedirs(reports)
        env["BALM_UNDER"] = " ".join([*VALGRIND, f"--log-file={reports}/%p"])
        env.setdefault("BALM_PATIENCE", "4")

    # Suites in C run side by side, and so do those that start platforms, which mostly wait: the longest first, with twice the patience. End to
    # end tests run alone.
    work = [(k, p) for k in args.kinds for p in suites(k, args.build) if args.only in os.path.relpath(p, ROOT)]
    work.sort(key=lambda w: not any(name in w[1] for name in LONGEST))
    side_by_side = [[w for w in work if w[0] in ("unit", "property", "fuzz", "contract", "tsan")],
                    [w for w in work if w[0] in ("integration", "upgrade")]]
    results = []
    for several in side_by_side:
        if several and several[0][0] == "integration":
            env.setdefault("BALM_PATIENCE", "2")
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(run, k, p, env) for k, p in several]
            for future in concurrent.futures.as_completed(futures):
                results.append(report(future.result()))
    for kind, path in [w for w in work if not any(w in several for several in side_by_side)]:
        results.append(report(run(kind, path, env)))

    passed, failed = sum(r[2] for r in results), sum(r[3] for r in results)
    if args.asan:
        caught, missed = canary(args.build, env)
        passed, failed = passed + caught, failed + missed
        found = []
        for name in sorted(os.listdir(reports)):
            with open(os.path.join(reports, name), errors="replace") as f:
                text = f.read()
            if is_of_criterion(text):
                print(f"     {name}: inside libcriterion, not counted")
                continue
            found.append(name)
            if len(found) <= 5:
                print(f"---- {name}\n{text[:4000]}")
        failed += len(found)
    if args.valgrind:
        failed += memcheck_findings(reports)
    if not work:
        print("no suite found: build first")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def report(result):
    kind, path, passed, failed, skips, text, seconds = result
    name = os.path.relpath(path, ROOT)
    print(f"{'ok  ' if failed == 0 else 'FAIL'} {name}: {passed} passed, {failed} failed, {seconds:.1f} s", flush=True)
    for reason in skips:
        print(f"     SKIPPED: {reason}")
    if failed:
        print("\n".join(text.splitlines()[-120:]), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
