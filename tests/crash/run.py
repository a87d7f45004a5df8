#!/usr/bin/env python3
"""`make crash`: what balm must survive, tried on real processes; a table of what was tried and what was lost.

    tests/crash/run.py [--sample] [--seed N] [--build DIR] [CAMPAIGN...]

A campaign is a file crash_NAME.py here with `def campaign(scale, seed, table)`. `scale` is "whole" (as long as it takes) or, with --sample, "sample"
(CI: about a minute each); the seed repeats a run's choices (not its timing). Each table.row() counts as one passed or failed. A campaign that ends
by an exception is one more failure, and the others go on.
"""
import argparse
import glob
import importlib
import os
import random
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


class Table:
    """What was tried and what was lost, printed as it comes."""

    def __init__(self):
        self.rows = []

    def row(self, what, tried, lost, ok):
        self.rows.append((what, str(tried), str(lost), ok))
        print(f"{'ok  ' if ok else 'FAIL'} {what}: {tried}; lost or violated: {lost}", flush=True)

    def markdown(self):
        lines = ["| what | tried | lost or violated |", "|---|---|---|"]
        lines += [f"| {what} | {tried} | {lost}{'' if ok else ' **NOT HELD**'} |" for what, tried, lost, ok in self.rows]
        return "\n".join(lines)


def names():
    return [os.path.basename(path)[len("crash_"):-len(".py")] for path in sorted(glob.glob(os.path.join(HERE, "crash_*.py")))]


def run(name, scale, seed, table):
    began = time.monotonic()
    print(f"---- {name} ({scale}, seed {seed})", flush=True)
    try:
        importlib.import_module("crash_" + name).campaign(scale, seed, table)
    except Exception:
        table.row(name, "did not come to its end", traceback.format_exc().strip().splitlines()[-1], False)
        traceback.print_exc()
    print(f"---- {name}: {time.monotonic() - began:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", action="store_true", help="a seeded sample in minutes instead of the whole")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's choices (default: BALM_SEED, or drawn and printed)")
    parser.add_argument("--build", default=os.environ.get("BALM_BUILD", "build"))
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(names())} (default: all)")
    args = parser.parse_args()
    unknown = [name for name in args.campaigns if name not in names()]
    if unknown:
        parser.error(f"no campaign {unknown[0]}: there are {', '.join(names())}")
    os.environ["BALM_BUILD"] = args.build
    sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "integration")]
    seed = args.seed if args.seed is not None else int(os.environ.get("BALM_SEED", random.randrange(1 << 31)))
    table = Table()
    for name in args.campaigns or names():
        run(name, "sample" if args.sample else "whole", seed, table)
    print("\n" + table.markdown() + "\n")
    failed = sum(not ok for *_, ok in table.rows)
    print(f"{len(table.rows) - failed} passed, {failed} failed")
    return 1 if failed or not table.rows else 0


if __name__ == "__main__":
    sys.exit(main())
