#!/usr/bin/env python3
"""`make bench`: a table of figures beside their floors and peers, all from one run on this machine.

    tests/bench/bench.py [FIGURE...]

Each ratio is the median of interleaved pairs (ours, peer, ours, peer …). The data folder must be on a real disk: tmpfs is refused, because there
fdatasync costs nothing and every figure about durability would be a lie. A peer that is missing is named and its figure skipped. BENCH_SECONDS (4)
and BENCH_PAIRS (7) make a run shorter; BENCH_DIR is where its files go.
"""
import os
import platform as host
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "integration")]
from harness import BUILD  # noqa: E402
from measure import PAIRS, SECONDS, Table, fdatasync_p50_ms  # noqa: E402
import chain  # noqa: E402
import durable  # noqa: E402
import keda  # noqa: E402
import process  # noqa: E402
import serve  # noqa: E402
import watchdog  # noqa: E402

FIGURES = {
    "echo": serve.echo,
    "direct": watchdog.direct,
    "outbound": serve.outbound,
    "gateway": serve.gateway,
    "alerts": durable.alerts,
    "chain": chain.idle,
    "sustained": chain.sustained,
    "grpc": keda.scaler,
    "start": process.start,
    "first": process.first_invocation,
    "idle": process.idle,
    "hundred": process.hundred,
}


def machine(folder):
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    return kind, (f"{os.cpu_count()} × {model}, Linux {host.release()}, {kind}, fdatasync p50 {fdatasync_p50_ms(folder):.2f} ms, "
                  f"{PAIRS} pairs of {SECONDS:g} s, commit {commit or 'unknown'}")


def run(names, folder, table):
    for name in names:
        inside = os.path.join(folder, name)
        os.makedirs(inside)
        try:
            FIGURES[name](inside, table)
        except Exception:
            table.row(name, "could not be measured", "–", "–", "–", False)
            traceback.print_exc()
        shutil.rmtree(inside, ignore_errors=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = sys.argv[1:] or list(FIGURES)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"no figure {unknown[0]}: there are {', '.join(FIGURES)}")
        return 2
    for tool in ("wrk", "taskset"):
        if not shutil.which(tool):
            print(f"missing: {tool}")
            return 1
    base = os.environ.get("BENCH_DIR") or os.path.join(BUILD, "bench-data")
    os.makedirs(base, exist_ok=True)
    folder, table = tempfile.mkdtemp(dir=base), Table()
    os.chmod(folder, 0o755)  # functions have users of their own
    try:
        kind, text = machine(folder)
        if kind in ("tmpfs", "ramfs"):
            print(f"refused: {base} is on {kind}, where fdatasync costs nothing; set BENCH_DIR to a folder on a disk")
            return 1
        print(text, flush=True)
        run(names, folder, table)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{text}\n\n{table.markdown()}")
    for line in table.missing:
        print("skipped: " + line)
    print(f"{len(table.rows) - len(table.failures)} passed, {len(table.failures)} failed")
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
