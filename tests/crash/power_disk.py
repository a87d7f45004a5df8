"""The switch of preload_power.c: a platform whose data folder is on the worst disk POSIX allows, and what is left of it when the power is cut."""
import mmap
import os
import shutil
import struct

from harness import BUILD, Platform

LIBRARY = os.path.join(BUILD, "tests", "crash", "preload_power.so")
# As struct control has them.
FIELDS = ("sync_faults", "folder_faults", "write_faults", "sync_once", "write_once", "early", "lies", "delay_us",
          "n_syncs", "n_sync_faults", "n_write_faults", "n_lies", "is_on")
LIE_DATA, LIE_FOLDER = 1, 2
ROOT_NUMBER = 0


class PowerDisk:
    """The disk below one run of a program on the folder `data`. control(early=100) sets, count("n_syncs") reads."""

    def __init__(self, place, data):
        self.place, self.data = place, os.path.realpath(data)
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        os.makedirs(self.data, mode=0o700, exist_ok=True)
        path = os.path.join(place, "control")
        with open(path, "wb") as f:
            f.write(bytes(4 * len(FIELDS)))
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4 * len(FIELDS))

    def environment(self):
        return {"LD_PRELOAD": LIBRARY, "BALM_POWER_FOLDER": self.data, "BALM_POWER_DISK": self.place}

    def control(self, **values):
        for name, value in values.items():
            struct.pack_into("=I", self.map, 4 * FIELDS.index(name), value)

    def count(self, name):
        return struct.unpack_from("=I", self.map, 4 * FIELDS.index(name))[0]

    def copy_to(self, path, number=ROOT_NUMBER):
        """What a start after the power cut finds; the program must have been killed."""
        os.makedirs(path, mode=0o700)
        names = os.path.join(self.place, f"{number}.names")
        if not os.path.exists(names):
            return  # a folder that was never synced is empty
        with open(names, encoding="utf-8", errors="surrogateescape") as f:
            for line in f:
                kind, below, name = line.rstrip("\n").split(" ", 2)
                self.copy_one(kind, int(below), os.path.join(path, name))

    def copy_one(self, kind, number, to):
        if kind == "d":
            self.copy_to(to, number)
            return
        source = os.path.join(self.place, str(number))
        if os.path.exists(source):
            shutil.copyfile(source, to)
        else:
            open(to, "wb").close()  # its bytes were never synced
        os.chmod(to, 0o600)


class PowerPlatform(Platform):
    """`balm up` on such a disk; cut() is the power cut, after which the data folder is what the disk had."""

    disk = None

    def start(self, wait=True, **control):
        self.disk = PowerDisk(os.path.join(self.folder, "disk"), self.data)
        self.disk.control(**control)
        self.env = dict(os.environ, **self.disk.environment())
        return super().start(wait)

    def cut(self):
        self.kill()
        shutil.rmtree(self.data)
        self.disk.copy_to(self.data)
