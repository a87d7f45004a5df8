"""The whole platform under ThreadSanitizer, everything at once that hands work to another thread: group commits, full segments and their removal,
snapshots by a child, sealing, queries with expressions, backups, large bodies, deploys, secrets, reloads, Alertmanager's lists, a bot that cleans a
disk and one that looks names up. A race makes the process that has it exit with 66 once it ends, and so fails the test."""
import http.server
import json
import os
import sys
import threading
import time
from urllib.parse import quote

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))
import busy  # noqa: E402
from harness import PlatformTest, alert, main, rfc3339, serve, stack_file, wait_until, webhook  # noqa: E402
from load import metrics, send  # noqa: E402

SECONDS = 20
RUNBOOKS = """
- name: clean
  match: ['alertname="DiskFull"']
  target: host/${labels.n}
  mode: act
  steps:
    - bot: disk-clean
      with: {root: "ROOT", older_than: 1m}
      verify: check
      timeout: 20s
  guardrails: {cooldown: 1s, rate: {max: 1000, per: 1m}, max_in_flight: 20}
- name: tell
  match: ['alertname="Tell"']
  target: person/${labels.n}
  mode: act
  steps:
    - bot: notify
      with: {title: "hello"}
      verify: check
      timeout: 20s
  guardrails: {cooldown: 1s, rate: {max: 1000, per: 1m}, max_in_flight: 20}
"""
SETTINGS = ["--retention-size", "1MiB", "--retention-interval", "200ms", "--snapshot-every", "500", "--reserve-size", "1MiB", "--reconcile-interval", "1s",
            "--group-interval", "1s"]


class Neighbour:
    """Who gets what notify sends, and an Alertmanager that always lists the same alerts."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, value):
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                self._answer({})

            def do_GET(self):
                self._answer(STATUS if "status" in self.path else [listed(n) for n in range(2000)])

            def log_message(self, *arguments):
                pass
        self.server = serve(Handler)
        self.port = self.server.server_address[1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


STATUS = {"uptime": "2020-01-01T00:00:00.000Z", "config": {"original": ""}, "cluster": {"status": "disabled", "peers": []}, "versionInfo": {}}


def listed(n):
    now = time.time()
    return {"labels": {"alertname": "Listed", "n": str(n)}, "annotations": {}, "fingerprint": f"{n:016x}", "receivers": [{"name": "balm"}],
            "status": {"state": "active", "silencedBy": [], "inhibitedBy": []}, "startsAt": rfc3339(now - 600), "updatedAt": rfc3339(now - 60),
            "endsAt": rfc3339(now + 600), "generatorURL": ""}


class PlatformUnderTsan(PlatformTest):
    refolds = False  # its past is cut

    def started(self):
        self.root, self.neighbour = os.path.join(self.folder, "full"), Neighbour()
        self.addCleanup(self.neighbour.close)
        os.makedirs(self.root)
        stack = busy.notify_stack() + stack_file("disk-clean", "echo").split("functions:\n")[1].replace(
            "image: disk-clean:latest\n", f"image: disk-clean:latest\n    environment: {{disk_clean_roots: {self.root}}}\n")
        p = self.platform(start=False, runbooks={"all.yaml": RUNBOOKS.replace("ROOT", self.root)}, stack=stack,
                          arguments=["--alertmanager", f"http://localhost:{self.neighbour.port}", *SETTINGS])
        busy.secret(p, "notify-url", f"http://localhost:{self.neighbour.port}/hook")
        busy.secret(p, "notify-hmac-key", "k3y")
        return p.start()

    # ---- what goes on at once; each once ----

    def alerts(self, p, n):
        """Small ones, a body that is decoded on a worker, acts of both bots, and their ends."""
        fresh = [alert("Fill", n=f"{n}-{i}", text="x" * 500) for i in range(200)] + [alert("DiskFull", n=str(n)), alert("Tell", n=str(n))]
        groups = [fresh, *([a] for a in fresh[150:])]
        for status in ("firing", "resolved"):
            bodies = [json.dumps(webhook(*[dict(a, status=status) for a in group])).encode() for group in groups]
            self.assertEqual(set(send(p.port, bodies, p.bearer(), 16)[0]), {202})

    def junk(self, _, n):
        for i in range(20):
            path = os.path.join(self.root, f"{n}-{i}")
            with open(path, "w") as f:
                f.write("x" * 1000)
            os.utime(path, (1, 1))

    def queries(self, p, n):
        query = quote('{app="balm"} |~ "n[a-z]+x.*[0-9]" != "never"')
        status, _, _ = p.request("GET", f"/function/audit/loki/api/v1/query_range?query={query}&limit=100", headers=p.basic())
        self.assertEqual(status, 200)
        self.assertEqual(p.request("GET", "/metrics")[0], 200)

    def management(self, p, n):
        self.assertIn(p.request("POST", "/system/functions", {"service": "more", "image": "echo:latest"}, p.basic())[0], (200, 202))
        self.assertEqual(p.request("POST", "/function/more", "x" * 100000)[0], 200)
        self.assertIn(p.request("POST", "/system/secrets", {"name": f"s{n}", "value": "v"}, p.basic())[0], (200, 202))
        p.request("GET", "/system/secrets", headers=p.basic())
        self.assertIn(p.request("DELETE", "/system/functions", {"functionName": "more"}, p.basic())[0], (200, 202))

    def reloads(self, p, n):
        p.write(os.path.join("runbooks", "more.yaml"), RUNBOOKS.replace("ROOT", self.root).split("- name: tell")[0].replace("clean", f"again{n}")
                .replace("bot: again" + str(n), "bot: disk-clean").replace(f"disk-again{n}", "disk-clean"))
        p.cli("reload")

    def backups(self, p, n):
        code, _, error = p.cli("backup", os.path.join(self.folder, f"backup{n}"), timeout=300)
        self.assertEqual(code, 0, error)
        code, text, error = p.cli("audit", "verify", timeout=300)
        self.assertIn(code, (0, 4), text + error)  # 4: acts are under way

    def stops(self, p, n):
        self.assertEqual(p.cli("stop")[0], 0)
        self.assertEqual(p.cli("resume")[0], 0)
        time.sleep(1)

    def test_no_race_while_everything_happens_at_once(self):
        p = self.started()
        end, errors, counts = time.monotonic() + SECONDS, [], {}

        def repeat(what):
            while time.monotonic() < end and not errors:
                try:
                    what(p, counts.setdefault(what.__name__, 0))
                    counts[what.__name__] += 1
                except Exception as e:  # of any thread: the test's own
                    errors.append(f"{what.__name__}: {e!r}")
        threads = [threading.Thread(target=repeat, args=(what,)) for what in
                   (self.alerts, self.junk, self.queries, self.management, self.reloads, self.backups, self.stops)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [], p.log_text())
        series = metrics(p)
        wait_until(lambda: metrics(p)["balm_journal_removed_records_total"] > 0, 60, "retention has cut")
        for bot in ("disk-clean", "notify"):
            self.assertGreater(sum(v for k, v in series.items() if k.startswith("balm_outcomes_total{") and f'"{bot}"' in k), 0, bot)
        self.assertTrue(all(counts.values()), counts)
        print(f"each so often: {counts}", flush=True)
        self.assertEqual(p.stop(), 0, "66 is a race:\n" + "\n".join(str(line.get("message")) for line in p.log if line.get("raw"))[:6000])


if __name__ == "__main__":
    main()
