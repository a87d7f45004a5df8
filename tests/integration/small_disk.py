"""A file system of its own for data and junk, which can be filled to the last byte; and the runbook that makes room on it."""
import os
import subprocess

from harness import stack_file

MIB = 1024 * 1024


class NotAllowed(Exception):
    """Mounting is refused here."""


class SmallDisk:
    """`kind` is "tmpfs", or "ext4" in a file of its own. place/data is for the platform, place/junk for what is in its way."""

    def __init__(self, folder, mib, kind="tmpfs"):
        self.place, self.image = os.path.join(folder, "small-disk"), os.path.join(folder, "small-disk.img")
        os.makedirs(self.place)
        if kind == "tmpfs":
            self.mount("-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs")
        else:
            with open(self.image, "wb") as f:
                f.truncate(mib * MIB)
            # Blocks smaller than a page, as mkfs makes them by itself below 512 MiB.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "4096", "-b", "1024", self.image], check=True, capture_output=True)
            self.mount("-o", "loop", self.image)
            os.chmod(self.place, 0o700)
        self.data, self.junk = os.path.join(self.place, "data"), os.path.join(self.place, "junk")
        os.makedirs(self.junk)

    def mount(self, *arguments):
        try:
            subprocess.run(["mount", *arguments, self.place], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as e:
            raise NotAllowed(f"mount {' '.join(arguments)}: {getattr(e, 'stderr', e)}") from e

    def unmount(self):
        subprocess.run(["umount", "-l", self.place], capture_output=True)
        if os.path.exists(self.image):
            os.unlink(self.image)

    def fill(self, name, old=True):
        """To the last byte, and no more: what is given up meanwhile stays free. disk-clean takes only what is old."""
        path = os.path.join(self.junk, name)
        for size, times in ((MIB, 1 << 20), (4096, 256), (1, 4096)):
            try:
                with open(path, "ab", buffering=0) as f:
                    for _ in range(times):
                        f.write(b"x" * size)
            except OSError:
                pass  # not even room for the name, it may be
        if old:
            os.utime(path, (0, 0))

    def give_back(self, name, kib):
        with open(os.path.join(self.junk, name), "ab") as f:
            f.truncate(f.tell() - kib * 1024)
            os.fsync(f.fileno())  # only then may others have it

    def clear(self):
        for name in os.listdir(self.junk):
            os.unlink(os.path.join(self.junk, name))

    def runbook(self):
        return f"""
name: clean
match: [alertname=DiskFull]
target: host/${{labels.host}}
mode: act
steps:
  - bot: disk-clean
    with: {{root: "{self.junk}", older_than: 1h}}
    verify: check
    timeout: 20s
guardrails: {{cooldown: 1s, rate: {{max: 100, per: 1h}}}}
"""

    def stack(self):
        return stack_file("echo", "disk-clean") + f"    environment:\n      disk_clean_roots: {self.junk}\n"
