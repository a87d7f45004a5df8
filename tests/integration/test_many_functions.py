"""As many functions as a platform takes, and ten thousand that are asked for: what lists, restarts and memory cost then."""
import concurrent.futures
import json
import os
import time

from harness import PATIENCE, PlatformTest, main, wait_until
from test_gateway_hang import descendants

ASKED, TAKEN = 10000, 1000


class ManyFunctionsTest(PlatformTest):
    refolds = False

    def api(self, method, path, body=None):
        status, _, answer = self.p.request(method, path, body, self.p.basic(), timeout=60)
        return status, answer.decode()

    def create(self, i):
        """Deployed, and at 0 replicas."""
        status, text = self.api("POST", "/system/functions", {"service": f"f{i:05}", "image": "echo", "labels": {"number": str(i)}})
        if status == 202:
            status, text = self.api("POST", f"/system/scale-function/f{i:05}", {"replicas": 0})
        return status, text

    def list(self):
        began = time.monotonic()
        functions = json.loads(self.api("GET", "/system/functions")[1])
        return functions, time.monotonic() - began

    def memory_mib(self):
        with open(f"/proc/{self.p.process.pid}/smaps_rollup") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("Private_Dirty:")) / 1024

    def check(self, functions, seconds):
        self.assertEqual(len(functions), TAKEN)
        self.assertLess(seconds, 0.5 * PATIENCE)
        self.assertEqual({f["name"]: f["labels"]["number"] for f in functions}, {f"f{int(f['name'][1:]):05}": str(int(f["name"][1:])) for f in functions})

    def test_ten_thousand(self):
        self.p = self.platform(stack="version: 1.0\nfunctions: {}\n")
        before = self.memory_mib()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(self.create, range(ASKED)))
        spent = time.monotonic() - began
        self.assertEqual(sum(s == 202 for s, _ in answers), TAKEN)
        self.assertEqual({a for a in answers if a[0] != 202}, {(429, f"{TAKEN} functions are deployed\n")})
        wait_until(lambda: not descendants(self.p.process.pid), 60, "all are at 0")
        functions, listed = self.list()
        self.check(functions, listed)
        memory = self.memory_mib()
        self.p.kill()
        began = time.monotonic()
        self.p.start()
        start = time.monotonic() - began
        again, listed_again = self.list()
        self.check(again, listed_again)
        self.assertEqual([f["replicas"] for f in again], [0] * TAKEN)
        name = again[-1]["name"]
        self.assertEqual(self.p.request("POST", "/function/" + name, b"served")[2], b"served")
        self.assertLess(start, 2 * PATIENCE)
        if "ASAN_OPTIONS" not in os.environ:  # which keeps what is freed
            self.assertLess(memory - before, 32)
        print(f"\n{ASKED} asked for in {spent:.1f} s, {TAKEN} taken; list {listed * 1000:.0f} ms, start after kill -9 {start:.2f} s, "
              f"Private_Dirty {before:.1f} MiB, with them {memory:.1f} MiB, after the start {self.memory_mib():.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
