"""Power cuts and syncs that fail, below the whole platform: on a disk that keeps what POSIX promises and nothing more (preload_power.c).

One series is one installation through many power cuts: clients send alerts, a bot acts on some, secrets and functions are made; the power goes at a
random instant, also while the platform starts; what the disk had is looked at and started from. The canary has fdatasync in the journal's folder do
nothing, as synchronous=OFF does: a test that does not see that lose alerts proves nothing.
"""
import os
import random
import tempfile
import threading
import time

from power_disk import LIE_DATA, LIE_FOLDER
from power_series import Journal, Series, Tally

NAME = "power"
CUTS_A_SERIES = 10
SMALL = ["--retention-size", "8MiB", "--retention-interval", "200ms", "--snapshot-every", "2000"]


def cut_many(where, rng, tally, name, instants):
    """A disk that is slow, one that often has what it need not have, small segments that come and go, or none of it."""
    arguments = SMALL if rng.random() < 0.5 else []
    series = Series(where, name, rng, tally, arguments)
    try:
        for _ in range(instants):
            control = {"early": rng.choice((0, 0, 30, 500)), "delay_us": rng.choice((0, 500, 3000))}
            if rng.random() < 0.15:
                series.start_and_cut(rng.random() * 0.3, **control)
                continue
            if not series.start(**control):
                return
            series.begin_load()
            after = rng.random() * 1.2
            time.sleep(after * rng.random())
            promising = threading.Thread(target=series.promise)
            promising.start()
            time.sleep(after * 0.5)
            series.cut()
            promising.join()
        series.finish()
    finally:
        series.close()


def power_cuts(where, scale, rng, table):
    tally = Tally()
    left = 200 if scale == "whole" else 5
    while left > 0:
        instants = min(left, CUTS_A_SERIES)
        cut_many(where, rng, tally, f"cuts-{left}", instants)
        left -= instants
    table.row("power cut", f"{tally.instants} instants, {tally.accepted:,} alerts accepted, {tally.acts} acts, {tally.promises} functions deployed",
              tally.what_is_lost(), not tally.violations and tally.accepted > 0)


def canary(where, scale, rng, table, lie, what):
    """Must lose, at each instant, also where most of it gets to the disk in time."""
    instants, accepted, lost, silent = 10 if scale == "whole" else 2, 0, 0, 0
    for i in range(instants):
        series = Series(where, f"canary-{lie}-{i}", rng, Tally())
        try:
            series.platform.start(lies=lie, early=rng.choice((0, 500, 950)) if lie == LIE_DATA else 0)
            series.begin_load()
            time.sleep(0.2 + rng.random() * 0.5)
            series.platform.cut()
            series.end_load()
            here = len(Journal(series.platform.data).lacks(series.accepted))
            silent += here == 0
            accepted, lost = accepted + len(series.accepted), lost + here
        finally:
            series.close()
    table.row(f"canary: {what}", f"{instants} instants, {accepted:,} alerts accepted", f"{lost:,} lost (as it must)", silent == 0)


def fail_syncs(series, rng):
    """Once, or for a while; of files, of folders, or writes."""
    kind = rng.choice(("once", "files", "folders", "writes", "all"))
    disk = series.platform.disk
    if kind == "once":
        disk.control(sync_once=rng.randrange(1, 4))
        time.sleep(rng.random() * 0.3)
        disk.control(sync_once=0)
        return
    disk.control(sync_faults=rng.choice((50, 500, 1000)) if kind in ("files", "all") else 0,
                 folder_faults=rng.choice((300, 1000)) if kind in ("folders", "all") else 0,
                 write_faults=rng.choice((5, 300)) if kind in ("writes", "all") else 0)
    end = time.monotonic() + rng.random() * 0.6
    while time.monotonic() < end:
        series.promise()
        time.sleep(0.05)
    disk.control(sync_faults=0, folder_faults=0, write_faults=0)


def failing_syncs(where, scale, rng, table):
    tally, faults, reopened = Tally(), 0, 0
    for number in range(12 if scale == "whole" else 2):
        series = Series(where, f"faults-{number}", rng, tally, SMALL if number % 2 else [])
        try:
            for _ in range(4 if scale == "whole" else 2):
                if not series.start(delay_us=500):
                    break
                series.begin_load()
                for _ in range(5):
                    time.sleep(rng.random() * 0.3)
                    fail_syncs(series, rng)
                    series.accepts_again()
                faults += series.platform.disk.count("n_sync_faults") + series.platform.disk.count("n_write_faults")
                reopened += sum(line.get("message") == "store is whole again" for line in series.platform.log)
                series.cut()
            series.finish()
        finally:
            series.close()
    table.row("fsync and writes fail, then the power cut", f"{faults} faults, the store reopened {reopened} times, {tally.accepted:,} alerts accepted, "
              f"{tally.refused:,} refused", tally.what_is_lost(),
              not tally.violations and faults > 0 and reopened > 0)


def campaign(scale, seed, table):
    rng = random.Random(seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="balm-power-", dir=memory) as where:
        power_cuts(where, scale, rng, table)
        canary(where, scale, rng, table, LIE_DATA, "fdatasync does nothing, as with synchronous=OFF")
        canary(where, scale, rng, table, LIE_FOLDER, "fsync of folders does nothing")
        failing_syncs(where, scale, rng, table)
