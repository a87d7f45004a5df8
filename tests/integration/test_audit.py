"""The audit function of a running platform: Loki's query API as its clients use it, sealing, and `balm audit verify`.

The requests are those of contracts' chapter on Loki clients: Grafana's health check, Explore, logcli's paging.
"""
import gzip
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import time
import unittest
from urllib.parse import quote, urlencode

import harness

API = "/function/audit/loki/api/v1/"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "balm", "bin")


class AuditTest(harness.PlatformTest):
    @classmethod
    def setUpClass(cls):
        cls.started_ns = time.time_ns()

    def fill(self, alerts=30, **arguments):
        p = self.platform(**arguments)
        status, _ = p.post_alerts(*[harness.alert(f"Audit{i}", service=f"s{i}") for i in range(alerts)])
        self.assertEqual(status, 202)
        return p

    def get(self, p, path, headers=None, **parameters):
        query = "?" + urlencode(parameters, doseq=True) if parameters else ""
        return p.request("GET", API + path + query, headers={**p.basic(), **(headers or {})})

    def data(self, p, path, **parameters):
        status, headers, body = self.get(p, path, **parameters)
        self.assertEqual(status, 200, body)
        self.assertEqual(headers["content-type"], "application/json; charset=UTF-8")
        answer = json.loads(body)
        self.assertEqual(answer["status"], "success")
        return answer["data"]

    def lines(self, p, query, **parameters):
        """[(ns, line)] of all streams in the answer's direction."""
        data = self.data(p, "query_range", query=query, **parameters)
        self.assertEqual(data["resultType"], "streams")
        lines = [(int(ns), line) for stream in data["result"] for ns, line in stream["values"]]
        return sorted(lines, key=lambda entry: entry[0], reverse=parameters.get("direction", "backward").lower() == "backward")

    def refused(self, p, status, words, path="query_range", **parameters):
        got, headers, body = self.get(p, path, **parameters)
        self.assertEqual(got, status, body)
        self.assertTrue(headers["content-type"].startswith("text/plain"), headers)
        self.assertIn(words, body.decode())
        self.assertTrue(body.endswith(b"\n"))

    # ---- who may ----

    def test_ready_is_open_and_all_else_wants_credentials(self):
        p = self.platform()
        self.assertEqual(p.request("GET", "/function/audit/ready")[::2], (200, b"ready\n"))
        for path in ("labels", "query_range?query=%7Bapp%3D%22balm%22%7D", "series", "push"):
            self.assertEqual(p.request("GET", API + path)[0], 401, path)

    # ---- shapes ----

    def test_lines_are_the_stored_bytes_with_labels_of_their_record(self):
        p = self.fill()
        data = self.data(p, "query_range", query='{app="balm",kind="signal"}', limit=1000)
        self.assertEqual(len(data["result"]), 1)
        stream = data["result"][0]
        self.assertEqual(stream["stream"], {"app": "balm", "function": "alerts", "kind": "signal"})
        self.assertEqual(len(stream["values"]), 30)
        stored = {}
        for name in sorted(os.listdir(os.path.join(p.data, "journal"))):
            if not name[:20].isdigit() or not name.endswith(".db"):
                continue
            db = sqlite3.connect(os.path.join(p.data, "journal", name))
            for seq, line in db.execute("SELECT seq, bytes FROM records"):
                stored[bytes(line).decode()] = seq
            db.close()
        for ns, line in stream["values"]:
            self.assertIsInstance(ns, str)
            self.assertIn(line, stored)
            self.assertEqual(harness.rfc3339(int(ns) // 10**9)[:19], json.loads(line)["time"][:19])
            self.assertEqual(f"{int(ns) % 10**9:09d}Z", json.loads(line)["time"][20:])
        summary = data["stats"]["summary"]
        self.assertGreaterEqual(summary["totalLinesProcessed"], 30)
        self.assertEqual(summary["totalEntriesReturned"], 30)

    def test_categories_are_sent_to_whoever_asks_for_them(self):
        p = self.fill(3)
        flags = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
        status, _, body = self.get(p, "query_range", headers=flags, query='{app="balm"}')
        self.assertEqual(status, 200)
        self.assertLess(body.index(b'"encodingFlags":["categorize-labels"]'), body.index(b'"result":['))
        for stream in json.loads(body)["data"]["result"]:
            for value in stream["values"]:
                self.assertEqual(len(value), 3)
                self.assertEqual(value[2], {})

    def test_gzip_is_used_if_offered(self):
        p = self.fill()
        plain = self.get(p, "query_range", query='{kind="signal"}')
        status, headers, body = self.get(p, "query_range", headers={"Accept-Encoding": "deflate, gzip"}, query='{kind="signal"}')
        self.assertEqual((status, headers.get("content-encoding")), (200, "gzip"))
        self.assertLess(len(body), len(plain[2]))
        self.assertEqual(json.loads(gzip.decompress(body))["data"]["result"], json.loads(plain[2])["data"]["result"])
        self.assertNotIn("content-encoding", self.get(p, "query_range", headers={"Accept-Encoding": "gzip;q=0"}, query='{kind="signal"}')[1])

    # ---- what is found ----

    def test_selectors_and_line_filters(self):
        p = self.fill()
        every = self.lines(p, '{app="balm"}', limit=5000)
        self.assertEqual(len(self.lines(p, '{kind=~"sig.*"}')), 30)
        self.assertEqual(len(self.lines(p, '{kind=~"sig"}')), 0)
        self.assertEqual(len(self.lines(p, '{app="balm",kind!="signal"}', limit=5000)), len(every) - 30)
        self.assertEqual(len(self.lines(p, '{kind="signal",nowhere=""}')), 30)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= "\\"alertname\\":\\"Audit7\\""')), 1)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= `Audit1` != `Audit1"`')), 10)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |~ "Audit(3|4)\\""')), 2)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |~ "Audit" !~ "Audit[0-9]\\""')), 20)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= "Audit7\\"" or "Audit8\\""')), 2)
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= ``')), 30)

    def test_range_limit_and_direction(self):
        p = self.fill()
        every = self.lines(p, '{kind="signal"}', direction="forward", start=self.started_ns)
        self.assertEqual(len(every), 30)
        self.assertEqual([ns for ns, _ in every], sorted(ns for ns, _ in every))
        self.assertEqual(self.lines(p, '{kind="signal"}', direction="forward", limit=7), every[:7])
        self.assertEqual(self.lines(p, '{kind="signal"}', direction="BACKWARD", limit=7), every[::-1][:7])
        first, last = every[0][0], every[-1][0]
        self.assertEqual(len(self.lines(p, '{kind="signal"}', start=first, end=last)), len([1 for ns, _ in every if ns < last]), "end is exclusive")
        self.assertEqual(len(self.lines(p, '{kind="signal"}', start=first, end=last + 1)), 30, "start is inclusive")
        self.assertEqual(self.lines(p, '{kind="signal"}', start=last + 1), [])
        whole = f"{first // 10**9}"
        self.assertEqual(len(self.lines(p, '{kind="signal"}', start=whole, end=int(whole) + 60)), 30, "ten digits are seconds")
        self.assertEqual(len(self.lines(p, '{kind="signal"}', start=harness.rfc3339(int(whole)), end=harness.rfc3339(int(whole) + 60))), 30)
        self.assertEqual(len(self.lines(p, '{kind="signal"}', since="5m")), 30)

    def test_paging_as_logcli_does_it_finds_each_line_once(self):
        p = self.fill(45)
        for direction in ("backward", "forward"):
            start, end, seen = self.started_ns, time.time_ns() + 10**9, []
            while True:
                page = self.lines(p, '{kind="signal"}', direction=direction, limit=10, start=start, end=end)
                fresh = [line for line in page if line not in seen]
                seen += fresh
                if len(page) < 10 or not fresh:
                    break
                if direction == "backward":
                    end = page[-1][0] + 1
                else:
                    start = page[-1][0]
                if len({ns for ns, _ in page}) == 1:
                    break  # more than a page within one nanosecond: logcli gives up here as well
            self.assertGreaterEqual(len(seen), 10)
            self.assertEqual(len(seen), len(set(seen)))

    def test_many_records_over_many_blocks(self):
        p = self.platform()
        for batch in range(6):
            self.assertEqual(p.post_alerts(*[harness.alert(f"B{batch}", n=str(i)) for i in range(500)])[0], 202)
        self.assertEqual(len(self.lines(p, '{kind="signal"}', limit=5000)), 3000)
        newest = self.data(p, "query_range", query='{kind="signal"}', limit=5)
        self.assertEqual({json.loads(line)["labels"]["alertname"] for _, line in newest["result"][0]["values"]}, {"B5"})
        self.assertLessEqual(newest["stats"]["summary"]["totalLinesProcessed"], 4000, "blocks that cannot be better are not read")
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= `"B2"`', limit=5000)), 500)

    # ---- labels and series ----

    def test_labels_values_and_series(self):
        p = self.fill(2)
        self.assertLessEqual({"app", "kind"}, set(self.data(p, "labels")))
        self.assertEqual(self.data(p, "label"), self.data(p, "labels"))
        self.assertEqual(self.data(p, "label/app/values"), ["balm"])
        kinds = self.data(p, "label/kind/values")
        self.assertIn("signal", kinds)
        self.assertEqual(kinds, sorted(kinds))
        self.assertEqual(self.data(p, "label/kind/values", query='{kind="signal"}'), ["signal"])
        self.assertEqual(self.data(p, "label/nothing/values"), [])
        self.assertEqual(self.data(p, "label/ki%6Ed/values"), kinds)
        self.assertEqual(self.data(p, "label/kind/values", start=1, end=2), [])
        for name in ("match", "match[]"):
            self.assertEqual(self.data(p, "series", **{name: '{kind="signal"}'}), [{"app": "balm", "function": "alerts", "kind": "signal"}])
        self.assertEqual(self.data(p, "series", match=['{kind="signal"}', '{kind="nothing"}']), [{"app": "balm", "function": "alerts", "kind": "signal"}])
        self.assertEqual(len(self.data(p, "series")), len(self.data(p, "series", match="{}")))
        self.assertEqual(len(self.data(p, "series", start=1, end=2)), 0)

    # ---- requests as clients send them ----

    def test_grafanas_health_check(self):
        p = self.platform()
        data = self.data(p, "query", direction="backward", query="vector(1)+vector(1)", time="4000000000")
        self.assertEqual(data["resultType"], "vector")
        self.assertEqual(len(data["result"]), 1)
        self.assertEqual(data["result"][0]["metric"], {})
        self.assertEqual(data["result"][0]["value"][1], "2")
        self.assertIsInstance(data["result"][0]["value"][0], (int, float))

    def test_explore_and_a_posted_form(self):
        p = self.fill(4)
        now = time.time_ns()
        self.assertEqual(len(self.lines(p, '{kind="signal"} |= ``', start=now - 3600 * 10**9, end=now + 10**9, step="2000ms", limit=1000)), 4)
        form = urlencode({"query": '{kind="signal"}', "limit": 2})
        headers = {**p.basic(), "Content-Type": "application/x-www-form-urlencoded"}
        status, _, body = p.request("POST", API + "query_range", form, headers)
        self.assertEqual(status, 200, body)
        self.assertEqual(sum(len(s["values"]) for s in json.loads(body)["data"]["result"]), 2)

    def test_what_loki_refuses_is_refused_in_its_words(self):
        p = self.platform()
        self.refused(p, 400, "parse error at line 1, col 1", query="")
        self.refused(p, 400, "empty-compatible value", query="{}")
        self.refused(p, 400, "empty-compatible value", query='{app=~".*"}')
        self.refused(p, 400, "parse error", query='{app="balm"')
        self.refused(p, 400, "error parsing regexp", query='{app=~"("}')
        self.refused(p, 400, "limit must be a positive value", query='{app="balm"}', limit=0)
        self.refused(p, 400, "max entries limit per query exceeded", query='{app="balm"}', limit=5001)
        self.refused(p, 400, "invalid direction", query='{app="balm"}', direction="up")
        self.refused(p, 400, "end timestamp must not be before", query='{app="balm"}', start=10, end=5)
        self.refused(p, 400, "11,000 points", query='{app="balm"}', start=1, end=1000000, step=1)
        self.refused(p, 400, "metric queries", query='count_over_time({app="balm"}[5m])')
        self.refused(p, 400, "| json", query='{app="balm"} | json')
        self.refused(p, 400, "log queries are not supported as an instant query type", path="query", query='{app="balm"}')
        self.refused(p, 404, "404", path="detected_labels")
        self.refused(p, 404, "404", path="index/stats", query='{app="balm"}')
        self.refused(p, 405, "read only", path="push")
        self.assertEqual(p.request("POST", API + "push", b'{"streams":[]}', p.basic())[0], 405)
        self.assertEqual(p.request("DELETE", API + "labels", headers=p.basic())[0], 405)
        self.assertEqual(p.request("GET", "/function/audit/", headers=p.basic())[0], 404)

    def test_a_pattern_that_takes_for_ever_ends_with_a_sentence(self):
        p = self.fill(1)
        p.post_alerts(harness.alert("Long", annotations={"x": "a" * 5000}))
        began = time.monotonic()
        self.refused(p, 400, "given up", query='{kind="signal"} |~ "(a+)+(a+)+(a+)+[^a\\",}]$"')
        self.assertLess(time.monotonic() - began, 10 * harness.PATIENCE)

    def test_many_queries_at_once_are_answered(self):
        p = self.fill(10)
        connections = [http.client.HTTPConnection("127.0.0.1", p.port, timeout=60 * harness.PATIENCE) for _ in range(20)]
        for c in connections:
            c.request("GET", API + "query_range?query=" + quote('{kind="signal"}'), headers=p.basic())
        for c in connections:
            answer = c.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertEqual(sum(len(s["values"]) for s in json.loads(answer.read())["data"]["result"]), 10)
            c.close()

    # ---- sealing ----

    def verify(self, p, *arguments):
        code, out, err = p.cli("audit", "verify", "--json", *arguments)
        self.assertEqual(err, "")
        return code, json.loads(out)

    def test_a_running_platform_seals_and_verifies(self):
        p = self.fill(10)
        harness.wait_until(lambda: self.verify(p)[1]["sealed"] >= 10, 10, "sealed")
        self.assertEqual(self.verify(p)[1]["firstBad"], 0)
        status, _, metrics = p.request("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertIn(b"\nbalm_audit_verify_failures_total 0\n", metrics)
        self.assertIn(b"\nbalm_audit_last_seq ", metrics)
        self.assertEqual(p.stop(), 0)
        code, report = self.verify(p)
        self.assertEqual((code, report["firstBad"]), (0, 0))
        records = report["records"]
        p.start()
        harness.wait_until(lambda: self.verify(p)[1]["sealed"] >= records, 10, "all sealed after the next start")

    def test_kills_leave_a_log_that_verifies(self):
        p = self.fill(5)
        for round in range(5):
            p.post_alerts(harness.alert(f"Kill{round}"))
            time.sleep(0.3 * round)
            p.kill()
            self.assertEqual(self.verify(p)[1]["firstBad"], 0)
            p.start()
        self.assertEqual(p.stop(), 0)
        self.assertEqual(self.verify(p)[0], 0)

    def test_a_changed_record_is_found_and_the_platform_serves_on(self):
        p = self.fill(10)
        harness.wait_until(lambda: self.verify(p)[1]["sealed"] >= 10, 10, "sealed")
        self.assertEqual(p.stop(), 0)
        victim = [r["seq"] for r in p.records("signal")][4]
        name = [n for n in os.listdir(os.path.join(p.data, "journal")) if n[:20].isdigit() and n.endswith(".db")][0]
        db = sqlite3.connect(os.path.join(p.data, "journal", name))
        with db:
            line = bytes(db.execute("SELECT bytes FROM records WHERE seq = ?", (victim,)).fetchone()[0])
            db.execute("UPDATE records SET bytes = ? WHERE seq = ?", (line.replace(b'"firing"', b'"fired!"'), victim))
        db.close()
        code, report = self.verify(p)
        self.assertEqual((code, report["firstBad"]), (1, victim))
        p.start()
        harness.wait_until(lambda: p.find_log("a record is not the one that was sealed"), 10, "error in the log")
        self.assertIn(b"\nbalm_audit_verify_failures_total 1\n", p.request("GET", "/metrics")[2])
        self.assertEqual(p.post_alerts(harness.alert("StillServing"))[0], 202)

    def test_a_past_signed_after_the_seal_was_removed_is_never_called_genuine(self):
        p = self.fill(10)
        harness.wait_until(lambda: self.verify(p)[1]["sealed"] >= 10, 10, "sealed")
        self.assertEqual(p.stop(), 0)
        code, kept, err = p.cli("audit", "checkpoint")
        self.assertEqual((code, err), (0, ""))
        kept_file = os.path.join(os.path.dirname(p.data), "kept")
        with open(kept_file, "w") as f:
            f.write(kept + kept)
        self.assertEqual(self.verify(p, "--checkpoint", kept_file)[0], 0)
        name = [n for n in os.listdir(os.path.join(p.data, "journal")) if n[:20].isdigit() and n.endswith(".db")][0]
        db = sqlite3.connect(os.path.join(p.data, "journal", name))
        with db:
            victim = [r["seq"] for r in p.records("signal")][4]
            line = bytes(db.execute("SELECT bytes FROM records WHERE seq = ?", (victim,)).fetchone()[0])
            db.execute("UPDATE records SET bytes = ? WHERE seq = ?", (line.replace(b'"firing"', b'"fired!"'), victim))
        db.close()
        for file in ("leaves", "checkpoints"):
            os.remove(os.path.join(p.data, "audit", file))
        p.start()
        harness.wait_until(lambda: p.find_log("checkpoints are missing or do not hold"), 10, "error in the log")
        self.assertIn(b"\nbalm_audit_verify_failures_total 1\n", p.request("GET", "/metrics")[2])
        self.assertEqual(p.post_alerts(harness.alert("StillServing"))[0], 202)
        self.assertEqual(p.stop(), 0)
        code, report = self.verify(p)
        self.assertEqual((code, report["ok"], report["firstBad"], report["unsealed"]), (5, False, 0, 0))
        self.assertIn("there are records, a key and no checkpoint", report["lateSeals"][0])
        self.assertIn("NOT PROVEN", p.cli("audit", "verify")[1])
        code, report = self.verify(p, "--checkpoint", kept_file)
        self.assertEqual(code, 1)
        self.assertIn("not the past that was sealed then", report["reason"])
        self.assertEqual(p.cli("audit", "verify", "--checkpoint", os.path.join(p.data, "audit", "key.pub"))[0], 2)

    def test_checkpoints_open_with_the_published_implementation_of_signed_notes(self):
        tool = note_tool()
        if tool is None:
            self.skipTest("no go, or its module proxy is out of reach: golang.org/x/mod/sumdb/note was not asked")
        p = self.fill(5)
        self.assertEqual(p.stop(), 0)
        with open(os.path.join(p.data, "audit", "checkpoints")) as f:
            parts = f.read().split("\n\n")
        notes = [f"{parts[i]}\n\n{parts[i + 1]}\n" for i in range(0, len(parts) - 1, 2)]
        self.assertGreaterEqual(len(notes), 2)
        for note in notes:
            done = subprocess.run([tool, os.path.join(p.data, "audit", "key.pub")], input=note.encode(), capture_output=True, timeout=30)
            self.assertEqual((done.returncode, done.stdout.decode()), (0, note.split("\n\n")[0] + "\n"), done.stderr)
            done = subprocess.run([tool, os.path.join(p.data, "audit", "key.pub")], input=note.replace("\ntime ", "\ntime  ").encode(),
                                  capture_output=True, timeout=30)
            self.assertNotEqual(done.returncode, 0, "the tool does refuse a changed one")

    # ---- Loki's own client ----

    def logcli(self, p, *arguments):
        env = dict(os.environ, LOKI_ADDR=f"http://127.0.0.1:{p.port}/function/audit", LOKI_USERNAME=p.secret("basic-auth-user"),
                   LOKI_PASSWORD=p.secret("basic-auth-password"))
        done = subprocess.run([os.path.join(CACHE, "logcli"), "--quiet", *arguments], env=env, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().splitlines()

    def test_logcli_reads_it(self):
        if not os.access(os.path.join(CACHE, "logcli"), os.X_OK):
            self.skipTest(f"no logcli in {CACHE}: the requests that it sends are replayed by the other tests")
        p = self.fill(1)
        for i in range(44):
            p.post_alerts(harness.alert(f"Paged{i}"))
        self.assertEqual(self.logcli(p, "labels"), ["app", "function", "kind"])
        self.assertIn("signal", self.logcli(p, "labels", "kind"))
        self.assertEqual(self.logcli(p, "series", '{kind="signal"}'), ['{app="balm", function="alerts", kind="signal"}'])
        for order in ((), ("--forward",)):
            lines = self.logcli(p, "query", *order, "--limit=1000", "--batch=10", "--output=raw", '{kind="signal"}')
            self.assertEqual(len(lines), 45, "over five pages, each once")
            times = [json.loads(line)["time"] for line in lines]
            self.assertEqual(times, sorted(times, reverse=not order))
        self.assertEqual(len(self.logcli(p, "query", "--output=raw", '{kind="signal"} |= "Paged7"')), 1)
        self.assertEqual(len(self.logcli(p, "query", "--since=5m", "--limit=3", "--output=jsonl", '{app="balm"}')), 3)
        self.assertEqual(json.loads("".join(self.logcli(p, "instant-query", "vector(1)+vector(1)")))[0]["value"][1], "2")


def note_tool():
    """The small program of tests/integration/note, built once; None where that cannot be."""
    path = os.path.join(CACHE, "note-open")
    if not os.access(path, os.X_OK) and shutil.which("go") is not None:
        os.makedirs(CACHE, exist_ok=True)
        subprocess.run(["go", "build", "-o", path, "."], cwd=os.path.join(harness.ROOT, "tests", "integration", "note"), capture_output=True,
                       env=dict(os.environ, GOFLAGS="-p=1"), timeout=300)
    return path if os.access(path, os.X_OK) else None


if __name__ == "__main__":
    harness.main()
