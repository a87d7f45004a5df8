"""A disk that is filled to its last byte at each step, on real small file systems; and writes that find no room, anywhere, anytime.

At each step the same has to come: the alert about the disk is accepted, disk-clean runs and is recorded. Then the disk is filled with what nobody may
remove until the reserve is used up: 503, a log line that says why, and alerts are accepted again without a restart once there is room. No 202 is lost.
"""
import glob
import os
import random
import shutil
import tempfile
import threading
import time

from harness import Platform, alert, wait_until
from power_load import Load
from power_series import RUNBOOKS, STACK, Journal, Receiver, Series, Tally
from small_disk import NotAllowed, SmallDisk

NAME = "disk"
MIB = 1024 * 1024
DISK_MIB = 192
# Small segments and frequent snapshots: both come again and again.
ARGUMENTS = ["--reserve-size", "32MiB", "--retention-size", "64MiB", "--snapshot-every", "400"]
WAL_BYTES = SEGMENT_BYTES = 8 * MIB


class Scene:
    """A platform on a small disk with a light load, which remembers every 202."""

    def __init__(self, folder, kind, rng, arguments):
        self.rng, self.disk = rng, SmallDisk(folder, DISK_MIB, kind)
        self.receiver = Receiver()
        stack = self.disk.stack() + STACK.split("functions:\n")[1].replace("  echo:", "  echo-2:")
        self.platform = Platform(folder, runbooks={"clean.yaml": self.disk.runbook(), **RUNBOOKS}, stack=stack, arguments=arguments)
        self.platform.data = self.disk.data
        self.load, self.accepted, self.next, self.refused = None, {}, 0, 0
        self.hosts = 0

    def start(self):
        self.platform.start()
        return self

    def begin_load(self, **how):
        self.load = Load(self.platform, self.rng, first=self.next, **{"acting": 0.05, "clients": 3, "pause": 0.005, **how}).start()

    def end_load(self):
        load, self.load = self.load.stop(), None
        self.next, self.refused = load.next, self.refused + load.refused
        self.accepted.update(load.accepted)

    def secrets(self):
        for name, value in (("notify-url", self.receiver.url), ("notify-hmac-key", "k3y")):
            assert self.platform.request("POST", "/system/secrets", {"name": name, "value": value}, self.platform.basic())[0] in (201, 202)

    def bad_news(self):
        return "\n".join(str(line) for line in list(self.platform.log) if line.get("level") not in ("INFO", "DEBUG"))

    def log_has(self, *words):
        return any(all(word in str(line) for word in words) for line in list(self.platform.log))

    def heal(self):
        """What goes on to come is little: it must not be what uses up the reserve. The alert gets in, the bot makes room, both are recorded."""
        if self.load:
            self.end_load()
        self.begin_load(clients=2, pause=0.02)
        self.hosts += 1
        host = f"h{self.hosts}"
        wait_until(lambda: self.platform.post_alerts(alert("DiskFull", host=host))[0] == 202, 30, "the disk alert is accepted")
        self.platform.wait_record("closed", 60, target="host/" + host, state="healed")
        assert not os.listdir(self.disk.junk), "disk-clean left something"

    def exhaust(self):
        """Filled with what is too young to be removed, until all is used."""
        self.end_load()
        self.begin_load(padding=1)
        reserve, n = os.path.join(self.platform.data, "reserve"), 0

        def is_over():
            nonlocal n
            n += 1
            self.disk.fill(f"young-{n}", old=False)
            return os.path.getsize(reserve) == 0 and self.platform.post_alerts(alert("Nobody", annotations={"p": "y" * 9000}, last=str(n)))[0] == 503
        wait_until(is_over, 120, "503 once the reserve is used up")
        assert self.log_has("a piece of the reserve is given up")
        wait_until(lambda: is_over() and self.log_has("the disk is full, nothing is accepted until there is room"), 60, "a clear word")

    def recover(self):
        self.disk.clear()
        before = len(self.load.accepted)
        wait_until(lambda: len(self.load.accepted) > before, 60, "accepted again without a restart")
        wait_until(lambda: os.path.getsize(os.path.join(self.platform.data, "reserve")) > 8 * MIB, 60, "the reserve comes back")
        self.end_load()

    def finish(self, tally, what):
        code = self.platform.stop()
        journal = Journal(self.platform.data)
        lost = journal.lacks(self.accepted)
        tally.accepted, tally.refused = tally.accepted + len(self.accepted), tally.refused + self.refused
        tally.lost += len(lost)
        if lost or code != 0 or journal.error:
            tally.violated(f"{what}: {len(lost)} lost, exit code {code}, {journal.error}")
        self.start()  # on what is left

    def close(self):
        if self.load:
            self.load.stop()
        self.platform.kill()
        self.receiver.close()
        self.disk.unmount()


# ---- the steps: each ends with a disk that is full ----

def at_start(scene):
    assert scene.platform.stop() == 0
    scene.disk.fill("old")
    scene.start()
    scene.begin_load()


def while_accepting(scene):
    scene.begin_load()
    time.sleep(scene.rng.random() * 0.5)
    scene.disk.fill("old")


def while_deciding(scene):
    """Alerts for which there is a runbook, so that every one is decided."""
    scene.begin_load(acting=1, clients=6, pause=0)
    time.sleep(scene.rng.random() * 0.5)
    scene.disk.fill("old")


def while_acting(scene):
    """Acts are under way: their outcomes come when there is no room."""
    scene.receiver.hold.clear()
    scene.begin_load(acting=0.5)
    wait_until(lambda: scene.receiver.waiting > 0, 30, "an act is under way")
    scene.disk.fill("old")
    scene.receiver.hold.set()


def at_checkpoint(scene):
    """The WAL has its full length by then and takes more; the file it is copied to has no room to grow."""
    scene.begin_load(clients=6, pause=0, padding=1)
    wait_until(lambda: wal_bytes(scene) >= WAL_BYTES, 60, "a WAL of full length")
    scene.disk.fill("old")


def at_snapshot(scene):
    scene.begin_load()
    before = len(snapshots(scene))
    wait_until(lambda: len(snapshots(scene)) > before or len(snapshots(scene)) == 2, 30, "a snapshot")
    filling = threading.Thread(target=scene.disk.fill, args=("old",))
    filling.start()
    filling.join()
    time.sleep(0.5)  # in which one more is due


def at_segment_change(scene):
    scene.begin_load(clients=6, pause=0, padding=1)
    before = len(segments(scene))
    wait_until(lambda: len(segments(scene)) > before, 60, "a new segment")
    wait_until(lambda: wal_bytes(scene) > SEGMENT_BYTES / 2, 60, "the next one is near")
    scene.disk.fill("old")


def files(scene, folder, suffix):
    return sorted(glob.glob(os.path.join(scene.platform.data, folder, "0*" + suffix)))


def segments(scene):
    return files(scene, "journal", ".db")


def wal_bytes(scene):
    path = segments(scene)[-1] + "-wal"
    return os.path.getsize(path) if os.path.exists(path) else 0  # just made


def snapshots(scene):
    return files(scene, "snapshots", ".snapshot")


STEPS = (at_start, while_accepting, while_deciding, while_acting, at_checkpoint, at_snapshot, at_segment_change)


def fill_at(step, kind, where, rng, tally):
    what = f"{step.__name__.replace('_', ' ')} on {kind}"
    folder = os.path.join(where, f"{step.__name__}-{kind}")
    os.makedirs(folder)
    # The WAL reaches its full length only in a segment that is longer.
    scene = Scene(folder, kind, rng, ARGUMENTS + (["--retention-size", "1GiB"] if step is at_checkpoint else []))
    try:
        scene.start().secrets()
        step(scene)
        scene.heal()
        scene.exhaust()
        scene.recover()
        scene.finish(tally, what)
    except AssertionError as e:
        tally.violated(f"{what}: {e}\n{scene.bad_news()}")
    finally:
        scene.close()
        shutil.rmtree(folder, ignore_errors=True)


def full_disks(where, scale, rng, table):
    kinds = ("tmpfs", "ext4")
    for step in STEPS if scale == "whole" else rng.sample(STEPS, 4):
        tally = Tally()
        tried = kinds * 3 if scale == "whole" else (rng.choice(kinds),)
        try:
            for n, kind in enumerate(tried):
                fill_at(step, kind, os.path.join(where, str(n)), rng, tally)
        except NotAllowed as e:
            table.row(f"disk full {step.__name__.replace('_', ' ')}", f"SKIPPED: {e}", 0, True)
            return
        table.row(f"disk full {step.__name__.replace('_', ' ')}", f"{len(tried)} times ({', '.join(dict.fromkeys(tried))}), {tally.accepted:,} alerts "
                  f"accepted, {tally.refused:,} answered 503", tally.what_is_lost(), not tally.violations and tally.accepted > 0)


def failing_writes(where, scale, rng, table):
    """One write at a time finds no room: of the journal, the seal, a snapshot, a secret. At the end the power is cut."""
    tally, faults = Tally(), 0
    for number in range(10 if scale == "whole" else 1):
        series = Series(where, f"writes-{number}", rng, tally, ["--snapshot-every", "2000"])
        try:
            if not series.start():
                break
            series.begin_load()
            for _ in range(8):
                series.platform.disk.control(write_once=rng.randrange(1, 4))
                series.promise()
                time.sleep(rng.random() * 0.3)
                series.platform.disk.control(write_once=0)
                series.accepts_again()
            faults += series.platform.disk.count("n_write_faults")
            series.cut()
            series.finish()
        finally:
            series.close()
    table.row("ENOSPC at random writes, then the power cut", f"{faults} writes, {tally.accepted:,} alerts accepted, {tally.refused:,} refused",
              tally.what_is_lost(), not tally.violations and faults > 0)


def campaign(scale, seed, table):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="balm-disk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as where:
        full_disks(where, scale, rng, table)
        failing_writes(where, scale, rng, table)
