#!/usr/bin/env python3
"""Runs the fuzz targets, and says what has been run so far: `make fuzz`, `make fuzz-merge`, `make fuzz-coverage`.

    tests/fuzz/fuzz.py run BUILD        each target for FUZZ_SECONDS (60), FUZZ_JOBS (one a core) at a time. What it learns stays in
                                        build/fuzz/NAME/corpus, what it finds in build/fuzz/NAME/findings; a line a target is added to hours.tsv.
    tests/fuzz/fuzz.py merge BUILD      of what was learned, the inputs that reach new edges go to tests/fuzz/corpus/NAME
    tests/fuzz/fuzz.py coverage BUILD   lines that the corpora in the repository reach, of the files that a target is for

FUZZ_TARGET="NAME …" takes some of them. Words that a target's inputs are made of may stand in tests/fuzz/NAME.dict. A target says in its first comment which files it is for ("Reads: store/record.c …").
"""
import concurrent.futures
import datetime
import fcntl
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "fuzz")
WORK = os.path.join(ROOT, "build", "fuzz")
HOURS = os.path.join(HERE, "hours.tsv")
COLUMNS = ["target", "date", "seconds", "cpu", "executions", "commit", "findings"]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
JOBS = int(os.environ.get("FUZZ_JOBS", str(os.cpu_count() or 1)))
# Per input and process. A real input takes milliseconds; a machine that is busy may take a hundred times as long.
LIMITS = ["-timeout=30", "-rss_limit_mb=1024", "-max_len=65536"]
# What the repository takes of one target.
CORPUS_BYTES_MAX, INPUT_BYTES_MAX = 512 << 10, 16 << 10
AIM_H = 8
INTERRUPTED = 72  # how libFuzzer ends when it is told to


def targets():
    """Those asked for, in order; a wrong name ends the program."""
    known = sorted(os.path.basename(p)[:-2] for p in glob.glob(f"{HERE}/*.c"))
    asked = os.environ.get("FUZZ_TARGET", "").split() or known
    for name in asked:
        if name not in known:
            sys.exit(f"no target '{name}'; there are: {' '.join(known)}")
    return asked


def files_read(name):
    """What the target is for: the patterns behind "Reads:" in its first comment, up to its end."""
    with open(f"{HERE}/{name}.c") as f:
        comment = f.read().split("*/")[0]
    words = comment.split("Reads:")[1].replace("*\n", "").split() if "Reads:" in comment else []
    found = []
    for word in [w.strip(" *") for w in words]:
        found += sorted(glob.glob(f"{ROOT}/{word}")) or sorted(glob.glob(f"{ROOT}/runtime/{word}"))
    return [os.path.relpath(p, ROOT) for p in found if p.endswith(".c")]


def files_of(folder):
    return [os.path.join(folder, n) for n in sorted(os.listdir(folder))] if os.path.isdir(folder) else []


def commit():
    head = subprocess.run(["git", "rev-parse", "--short=9", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "--", "runtime", "functions", "tests/fuzz/*.[ch]"], cwd=ROOT, capture_output=True,
                             text=True).stdout.strip()
    return (head or "none") + ("+" if changed else "")


# ---- hours ----

def log_hours(row):
    """Several may run at once."""
    with open(HOURS, "a+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        if f.tell() == 0:
            f.write("\t".join(COLUMNS) + "\n")
        f.write("\t".join(str(row[c]) for c in COLUMNS) + "\n")


def hours_so_far(name):
    """(hours of processor time, executions) of all runs."""
    cpu, executions = 0.0, 0
    if os.path.exists(HOURS):
        with open(HOURS) as f:
            for line in f.read().splitlines()[1:]:
                row = dict(zip(COLUMNS, line.split("\t")))
                if row["target"] == name:
                    cpu, executions = cpu + float(row["cpu"]), executions + int(row["executions"])
    return cpu / 3600, executions


# ---- run ----

def environment(tmp):
    """tmp: for targets that read files; one that was found wanting leaves its behind."""
    return dict(os.environ, ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1", UBSAN_OPTIONS="print_stacktrace=1",
                LSAN_OPTIONS=f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0", TMPDIR=tmp)


def folder_in_memory():
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None, prefix="balm-fuzz-")


def fuzz(name, build, revision):
    """One target for its time; libFuzzer ends at the first finding."""
    learned, findings = f"{WORK}/{name}/corpus", f"{WORK}/{name}/findings"
    os.makedirs(learned, exist_ok=True)
    os.makedirs(findings, exist_ok=True)
    before = set(os.listdir(findings))
    log = f"{WORK}/{name}/log"
    began = time.monotonic()
    with open(log, "wb") as out, folder_in_memory() as tmp:
        words = [f"-dict={HERE}/{name}.dict"] if os.path.exists(f"{HERE}/{name}.dict") else []
        process = subprocess.Popen([f"{build}/tests/fuzz/{name}", f"-max_total_time={SECONDS}", "-print_final_stats=1", *LIMITS, *words,
                                    f"-artifact_prefix={findings}/", learned, f"{HERE}/corpus/{name}"], stdout=out, stderr=out,
                                   env=environment(tmp), cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(log, errors="replace") as f:
        text = f.read()
    new = sorted(n for n in set(os.listdir(findings)) - before if not n.startswith("slow-unit"))  # by the wall clock: the machine's, mostly
    found = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)", text)
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    row = {"target": name, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
           "seconds": round(time.monotonic() - began), "cpu": round(used.ru_utime + used.ru_stime), "commit": revision,
           "executions": int(executed.group(1)) if executed else 0, "findings": len(new) or int(process.returncode not in (0, INTERRUPTED))}
    log_hours(row)
    edges, features, inputs, _ = found[-1] if found else ("?", "?", "?", "")
    return dict(row, edges=edges, features=features, inputs=inputs, new=new, log=log, memory_mb=used.ru_maxrss // 1024)


def run(build):
    os.makedirs(WORK, exist_ok=True)
    revision, failed = commit(), 0
    print(f"{'target':<12} {'s':>5} {'cpu s':>6} {'executions':>11} {'a second':>9} {'edges':>6} {'features':>8} {'inputs':>6} {'MiB':>5} {'found':>5}"
          f"   so far: cpu h (aim {AIM_H}), executions", flush=True)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for r in pool.map(lambda name: fuzz(name, build, revision), targets()):
            hours, executions = hours_so_far(r["target"])
            print(f"{r['target']:<12} {r['seconds']:>5} {r['cpu']:>6} {r['executions']:>11} {r['executions'] / max(r['seconds'], 1):>9.0f} "
                  f"{r['edges']:>6} {r['features']:>8} {r['inputs']:>6} {r['memory_mb']:>5} {r['findings']:>5}   {hours:.2f}, {executions}", flush=True)
            if r["findings"]:
                failed += 1
                print("\n".join(f"    {WORK}/{r['target']}/findings/{n}" for n in r["new"]) + f"\n    what was said: {r['log']}", flush=True)
    print(f"{len(targets()) - failed} passed, {failed} failed")
    return 1 if failed else 0


# ---- merge ----

def merge(build):
    """Into the repository: only inputs that reach an edge that none there reaches, the small ones first."""
    for name in targets():
        kept, learned = f"{HERE}/corpus/{name}", f"{WORK}/{name}/corpus"
        os.makedirs(kept, exist_ok=True)
        before = set(files_of(kept))
        with tempfile.TemporaryDirectory(dir=WORK) as small, folder_in_memory() as tmp:
            for path in files_of(learned):
                if os.path.getsize(path) <= INPUT_BYTES_MAX:
                    os.link(path, os.path.join(small, os.path.basename(path)))
            done = subprocess.run([f"{build}/tests/fuzz/{name}", "-merge=1", "-use_counters=0", *LIMITS, kept, small], cwd=ROOT, env=environment(tmp),
                                  capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{name}: {done.stderr.decode(errors='replace')[-2000:]}")
        new = [p for p in files_of(kept) if p not in before]
        total = sum(os.path.getsize(p) for p in files_of(kept))
        for path in sorted(new, key=os.path.getsize, reverse=True):
            if total <= CORPUS_BYTES_MAX:
                break
            total -= os.path.getsize(path)
            os.unlink(path)
        print(f"{name:<12} {len(files_of(kept)) - len(before):>5} added, {len(files_of(kept))} inputs, {total / 1024:.0f} KiB", flush=True)
    return 0


# ---- coverage ----

def covered(name, build, folder):
    """[(file, lines, reached)]"""
    program, raw, profile = f"{build}/tests/fuzz/{name}", f"{folder}/{name}.raw", f"{folder}/{name}.profile"
    subprocess.run([program, *files_of(f"{HERE}/corpus/{name}")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
                   env=dict(os.environ, LLVM_PROFILE_FILE=raw))
    subprocess.run(["llvm-profdata", "merge", "-sparse", raw, "-o", profile], check=True)
    report = subprocess.run(["llvm-cov", "export", "-summary-only", program, f"-instr-profile={profile}", *files_read(name)], check=True,
                            capture_output=True, cwd=ROOT)
    files = json.loads(report.stdout)["data"][0]["files"]
    return [(os.path.relpath(f["filename"], ROOT), f["summary"]["lines"]["count"], f["summary"]["lines"]["covered"]) for f in files]


def coverage(build):
    print("lines that the corpora in the repository reach, of the files that each target is for")
    total, total_reached = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in targets():
            files = covered(name, build, folder)
            lines, reached = sum(f[1] for f in files), sum(f[2] for f in files)
            total, total_reached = total + lines, total_reached + reached
            print(f"{name:<12} {reached:>5} of {lines:>5}  {100 * reached / max(lines, 1):5.1f} %", flush=True)
            for path, of, n in files:
                print(f"    {path:<52} {n:>5} of {of:>5}  {100 * n / max(of, 1):5.1f} %", flush=True)
    print(f"{'all':<12} {total_reached:>5} of {total:>5}  {100 * total_reached / max(total, 1):5.1f} %")
    return 0


if __name__ == "__main__":
    commands = {"run": run, "merge": merge, "coverage": coverage}
    if len(sys.argv) != 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](os.path.abspath(sys.argv[2])))
