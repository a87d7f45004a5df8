"""The audit journal through Loki's own client, logcli: what it prints is what `balm audit cat` says.

logcli is built once from its Go module (logcli_build.py). Where that cannot be, the tests are skipped and say why.
"""
import collections
import datetime
import json
import os
import re
import subprocess
import sys
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
import harness  # noqa: E402
import logcli_build  # noqa: E402

# The second incident of each service is refused: cooldown.
RUNBOOK = """
name: repair
match: ['alertname=~"Broken.*"']
target: service/${labels.service}
mode: act
steps:
  - bot: echo
    verify: {resolve: {within: 10m}}
    timeout: 20s
guardrails: {cooldown: 10m, rate: {max: 100, per: 1h}, max_in_flight: 1}
"""
TEXT = "a<b & \"c\" \\ d\u20ac"
ALL = '{app="balm"}'
SIGNALS = '{kind="signal"}'


def text_of(record):
    """A record as it is stored. `cat` adds its number, and the members that every line of it has, empty where the record has none."""
    added = ("seq",) + tuple(name for name in ("fingerprint", "function", "incident") if record.get(name) == "")
    return json.dumps({name: value for name, value in record.items() if name not in added}, sort_keys=True, separators=(",", ":"),
                      ensure_ascii=False)


def labels_of(record):
    labels = {"app": "balm", "kind": record["kind"]}
    if record.get("function"):
        labels["function"] = record["function"]
    return labels


def after(moment, nanoseconds):
    """A record's time, some nanoseconds later: Python's own times end at microseconds."""
    whole, fraction = moment.rstrip("Z").split(".")
    seconds, rest = divmod(int(fraction) + nanoseconds, 10**9)
    shifted = datetime.datetime.fromisoformat(whole) + datetime.timedelta(seconds=seconds)
    return f"{shifted.isoformat()}.{rest:09d}Z"


class LogcliTest(harness.PlatformTest):
    @classmethod
    def setUpClass(cls):
        try:
            cls.program = logcli_build.logcli()
        except logcli_build.Unavailable as e:
            raise unittest.SkipTest(f"logcli was not tried: {e}") from None

    # ---- a journal to read ----

    def incidents(self):
        """Alerts accepted and rejected, acts, refusals, one incident that ends healed."""
        p = self.platform(runbooks={"repair.yaml": RUNBOOK})
        began = time.time()
        for i in range(8):
            status, _ = p.post_alerts(harness.alert(f"Broken{i}", starts_at=began, service=f"s{i % 4}", text=TEXT))
            self.assertEqual(status, 202)
            harness.wait_until(lambda: len(p.records("outcome")) + len(p.records("refusal")) > i, 20, f"incident {i} is decided")
        self.assertEqual((len(p.records("outcome")), len(p.records("refusal"))), (4, 4))
        nameless = harness.alert("Nameless")
        del nameless["labels"]["alertname"]
        answer = p.post_alerts(harness.alert("Plain"), nameless)[1]
        self.assertEqual((answer["accepted"], answer["rejected"]), (1, 1))
        p.post_alerts(harness.alert("Broken0", status="resolved", starts_at=began, service="s0", text=TEXT))
        p.wait_record("closed")
        return p

    # ---- logcli ----

    def run_logcli(self, p, *arguments, **env):
        login = {"LOKI_ADDR": f"http://127.0.0.1:{p.port}/function/audit", "LOKI_USERNAME": p.secret("basic-auth-user"),
                 "LOKI_PASSWORD": p.secret("basic-auth-password"), "TZ": "Pacific/Chatham", "NO_COLOR": "1"}
        return subprocess.run([self.program, *arguments], env={**os.environ, **login, **env}, capture_output=True,
                              timeout=120 * harness.PATIENCE, stdin=subprocess.DEVNULL)

    def logcli(self, p, *arguments, **env):
        """The lines that it prints."""
        done = self.run_logcli(p, "--quiet", *arguments, **env)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode().splitlines()

    def query(self, p, *arguments):
        return [json.loads(line) for line in self.logcli(p, "query", "--output=raw", *arguments)]

    def refused(self, p, sentence, *arguments, **env):
        """It ends with an error, prints nothing, and shows the server's one sentence."""
        done = self.run_logcli(p, "--quiet", *arguments, **env)
        error = done.stderr.decode()
        self.assertEqual((done.returncode, done.stdout), (1, b""), error)
        said = re.findall(r"[Ee]rror response from server: (.*)\n? *\(", error + "(")
        self.assertEqual(len(said), 1, error)
        self.assertRegex(said[0], sentence)
        return error

    # ---- the comparison ----

    def same(self, got, expected, is_forward=False):
        """The same records, each once, by time. logcli sorts by time alone, so those of one nanosecond come in any order."""
        times = [record["time"] for record in got]
        self.assertEqual(times, sorted(times, reverse=not is_forward))
        self.assertEqual(sorted(text_of(r) for r in got), sorted(text_of(r) for r in expected))

    # ---- labels and series ----

    def test_labels_values_and_series(self):
        p = self.incidents()
        records = p.records()
        self.assertEqual(self.logcli(p, "labels"), ["app", "function", "kind"])
        for name in ("app", "kind", "function"):
            self.assertEqual(self.logcli(p, "labels", name), sorted({labels_of(r)[name] for r in records if name in labels_of(r)}))
        self.assertLessEqual({"signal", "rejected", "intent", "outcome", "refusal", "verified", "closed"}, set(self.logcli(p, "labels", "kind")))
        self.assertEqual(self.logcli(p, "labels", "nothing"), [])
        self.assertEqual(self.logcli(p, "labels", "a/b c"), [], "escaped in the path")
        self.assertEqual(self.logcli(p, "labels", "kind", "--from=2020-01-01T00:00:00Z", "--to=2020-01-02T00:00:00Z"), [])

        def shown(records):
            return sorted("{" + ", ".join(f'{k}="{v}"' for k, v in sorted(labels_of(r).items())) + "}" for r in records)
        self.assertEqual(sorted(self.logcli(p, "series", "{}")), sorted(set(shown(records))))
        self.assertEqual(sorted(self.logcli(p, "series", '{kind=~"intent|outcome"}')),
                         sorted(set(shown([r for r in records if r["kind"] in ("intent", "outcome")]))))
        self.assertEqual(self.logcli(p, "series", '{kind="signal", function!="alerts"}'), [])
        summary = self.logcli(p, "series", "--analyze-labels", "{}")
        self.assertEqual(summary[0].split(), ["Total", "Streams:", str(len(set(shown(records))))])
        self.assertIn(["kind", str(len({r["kind"] for r in records})), str(len(set(shown(records))))], [line.split() for line in summary])

    # ---- queries ----

    def test_selectors_and_line_filters(self):
        p = self.incidents()
        records = p.records()
        cases = [
            (ALL, lambda r: True),
            (SIGNALS, lambda r: r["kind"] == "signal"),
            ('{app="balm", kind!="signal"}', lambda r: r["kind"] != "signal"),
            ('{kind=~"intent|out.*"}', lambda r: r["kind"] in ("intent", "outcome")),
            ('{kind=~"out"}', lambda r: False),
            ('{app="balm", kind!~"s.*"}', lambda r: not r["kind"].startswith("s")),
            ('{app="balm", function=""}', lambda r: not r.get("function")),
            ('{function="echo", kind="refusal"}', lambda r: r["kind"] == "refusal"),
            (ALL + ' |= "Broken3"', lambda r: "Broken3" in text_of(r)),
            (SIGNALS + ' != "Broken"', lambda r: r["kind"] == "signal" and "Broken" not in text_of(r)),
            (SIGNALS + ' |~ "Broken[0-2]\\""', lambda r: r["kind"] == "signal" and re.search(r'Broken[0-2]"', text_of(r))),
            (SIGNALS + ' !~ `"service":"s(1|2)"`', lambda r: r["kind"] == "signal" and not re.search(r's[12]$', r["labels"].get("service", ""))),
            (SIGNALS + ' |= "Broken" != "Broken1" |~ "s[0-9]"',
             lambda r: r["kind"] == "signal" and "Broken" in text_of(r) and "Broken1" not in text_of(r)),
            (SIGNALS + ' |= "Broken1" or "Broken2"', lambda r: r["kind"] == "signal" and re.search("Broken[12]", text_of(r))),
            (SIGNALS + " |= `a<b & \\\"c\\\" \\\\ d\u20ac`", lambda r: r["kind"] == "signal" and "Broken" in text_of(r)),
            ('{kind="refusal"} |= `"gate":"cooldown"` or `"gate":"in_flight`', lambda r: r["kind"] == "refusal"),
            ('{kind="nothing"}', lambda r: False),
        ]
        for query, wanted in cases:
            with self.subTest(query):
                self.same(self.query(p, "--limit=0", query), [r for r in records if wanted(r)])

    def test_times(self):
        p = self.incidents()
        records = p.records("signal")
        self.assertEqual(len(records), 10)
        times = sorted({r["time"] for r in records})
        self.same(self.query(p, "--since=10m", SIGNALS), records)
        first, last = times[2], times[-2]
        window = [r for r in records if first <= r["time"] < last]
        self.same(self.query(p, f"--from={first}", f"--to={last}", SIGNALS), window)
        self.same(self.query(p, f"--from={first}", f"--to={last}", "--forward", SIGNALS), window, is_forward=True)
        self.same(self.query(p, f"--from={first}", f"--to={after(last, 1)}", SIGNALS), window + [r for r in records if r["time"] == last])
        self.same(self.query(p, f"--from={after(first, 1)}", f"--to={last}", SIGNALS), [r for r in window if r["time"] != first])
        self.same(self.query(p, f"--from={times[0]}", "--to=2200-01-01T00:00:00+13:45", SIGNALS), records)
        self.assertEqual(self.query(p, f"--from={after(times[-1], 1)}", SIGNALS), [])
        self.assertEqual(self.query(p, "--from=2020-01-01T00:00:00Z", "--to=2020-01-02T00:00:00Z", ALL), [])
        self.refused(p, "end timestamp must not be before or equal to start time", "query", f"--from={last}", f"--to={first}", SIGNALS)

    def test_limit_order_and_outputs(self):
        p = self.incidents()
        records = sorted(p.records(), key=lambda r: (r["time"], r["seq"]))
        signals = [r for r in records if r["kind"] == "signal"]
        self.same(self.query(p, "--limit=3", SIGNALS), signals[-3:])
        self.same(self.query(p, "--limit=3", "--forward", SIGNALS), signals[:3], is_forward=True)
        self.assertEqual(len(self.query(p, ALL)), 30, "logcli's own default")
        # The line is what is stored: `cat` shows the same members in the same order, and the number in front of them.
        lines = self.logcli(p, "query", "--output=raw", "--limit=0", SIGNALS)
        code, cat, _ = p.cli("audit", "cat", "--kind", "signal")
        self.assertEqual(code, 0)
        self.assertEqual(sorted(re.sub(r'"seq":\d+,?', "", line) for line in cat.splitlines()), sorted(lines))

        printed = [json.loads(line) for line in self.logcli(p, "query", "--output=jsonl", "--timezone=UTC", "--limit=0", "--include-common-labels", ALL)]
        self.same([json.loads(e["line"]) for e in printed], records)
        for entry in printed:
            record = json.loads(entry["line"])
            self.assertEqual(entry["labels"], labels_of(record))
            self.assertEqual(entry["timestamp"].rstrip("Z"), record["time"].rstrip("Z").rstrip("0").rstrip("."))
        for entry in self.logcli(p, "query", "--output=jsonl", "--no-labels", SIGNALS):
            self.assertEqual(sorted(json.loads(entry)), ["line", "timestamp"])

        shown = self.logcli(p, "query", "--timezone=UTC", "--output-timestamp-format=rfc3339nano", "--limit=0", '{kind=~"intent|refusal"}')
        self.assertEqual(len(shown), 8)
        for line in shown:
            moment, kind, text = re.fullmatch(r'(\S+)Z \{kind="(\w+)"\} +(\{.*\})', line).groups()
            record = json.loads(text)
            self.assertEqual((moment, kind), (record["time"].rstrip("Z").rstrip("0").rstrip("."), record["kind"]))
        said = self.run_logcli(p, "query", "--limit=1", '{kind="intent"}').stderr.decode()
        self.assertIn('Common labels: {app="balm", function="echo", kind="intent"}', said)

    # ---- more than a batch ----

    def test_more_lines_than_a_batch(self):
        p = self.platform()
        for message in range(13):
            self.assertEqual(p.post_alerts(*[harness.alert(f"Page{message}", n=str(i)) for i in range(7)])[0], 202)
        records = p.records("signal")
        self.assertEqual(len(records), 91)
        for batch in (8, 10, 33, 91, 92):  # a message's alerts share their nanosecond: logcli needs batches that are longer
            for order in ((), ("--forward",)):
                with self.subTest(batch=batch, order=order):
                    self.same(self.query(p, "--limit=0", f"--batch={batch}", *order, SIGNALS), records, is_forward=bool(order))
        by_time = sorted(records, key=lambda r: (r["time"], r["seq"]))
        self.same(self.query(p, "--limit=50", "--batch=15", "--forward", SIGNALS), by_time[:50], is_forward=True)
        self.same(self.query(p, "--limit=50", "--batch=15", SIGNALS), by_time[-50:])
        self.same(self.query(p, "--limit=0", "--batch=20", SIGNALS + ' |~ `"n":"[3-5]"`'), [r for r in records if r["labels"]["n"] in "345"])
        compressed = self.logcli(p, "--compress", "query", "--output=raw", "--limit=0", SIGNALS)
        self.same([json.loads(line) for line in compressed], records)
        parts = os.path.join(self.folder, "part")
        self.same(self.query(p, "--since=30m", "--parallel-duration=7m", "--parallel-max-workers=3", f"--part-path-prefix={parts}", "--merge-parts",
                             SIGNALS), records)
        # What is known after a start is read from disk: the same pages.
        self.assertEqual(p.stop(), 0)
        p.start()
        self.same(self.query(p, "--limit=0", "--batch=10", SIGNALS), records)

    def test_more_than_logclis_own_batch(self):
        p = self.platform()
        for message in range(6):
            self.assertEqual(p.post_alerts(*[harness.alert(f"Many{message}", n=str(i), text="x" * 200) for i in range(450)])[0], 202)
        records = p.records()
        self.assertGreaterEqual(len(records), 2700)
        for arguments in ((), ("--forward",), ("--batch=5000",)):
            with self.subTest(arguments):
                self.same(self.query(p, "--limit=0", *arguments, ALL), records, is_forward="--forward" in arguments)

    def test_a_message_larger_than_a_batch(self):
        p = self.platform()
        self.assertEqual(p.post_alerts(*[harness.alert("Outage", n=str(i)) for i in range(1200)])[0], 202)
        records = p.records("signal")
        self.same(self.query(p, "--limit=0", "--batch=5000", SIGNALS), records)
        self.same(self.query(p, "--limit=0", SIGNALS + ' |~ `"n":"[0-9]{1,3}"`', "--batch=1001"), [r for r in records if int(r["labels"]["n"]) < 1000])
        done = self.run_logcli(p, "--quiet", "query", "--limit=0", SIGNALS)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"Please increase your batch size", done.stderr, "its own batch of 1000 does not get beyond one nanosecond")
        self.refused(p, r"max entries limit per query exceeded, .* \(5001 > 5000\)", "query", "--limit=5001", "--batch=5001", SIGNALS)

    # ---- statistics and arithmetic ----

    def test_statistics(self):
        p = self.incidents()
        done = self.run_logcli(p, "--quiet", "--stats", "query", "--limit=1", "--output=raw", '{kind="refusal"}')
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        figures = dict(re.findall(r"^(Summary\.\w+)\s+(.*)$", done.stderr.decode(), re.M))
        self.assertGreaterEqual(int(figures["Summary.TotalLinesProcessed"]), 4)
        self.assertRegex(figures["Summary.TotalBytesProcessed"], r"^[1-9][0-9.]* [kM]?B$")
        self.assertRegex(figures["Summary.ExecTime"], r"^[0-9.]+[mµ]s$")

    def test_the_health_checks_arithmetic(self):
        p = self.platform()
        answer = json.loads("".join(self.logcli(p, "instant-query", "vector(1)+vector(1)")))
        self.assertEqual([(s["metric"], s["value"][1]) for s in answer], [({}, "2")])

    # ---- what goes wrong says so ----

    def test_credentials(self):
        p = self.incidents()
        for command in (("labels",), ("series", "{}"), ("query", ALL)):
            self.refused(p, "^invalid credentials$", *command, LOKI_PASSWORD="wrong")
            self.refused(p, "^invalid credentials$", *command, LOKI_USERNAME="somebody")
        for nobody in ({"LOKI_USERNAME": "", "LOKI_PASSWORD": ""}, {"LOKI_USERNAME": "", "LOKI_PASSWORD": "", "LOKI_BEARER_TOKEN": "x"}):
            self.refused(p, "credentials", "labels", **nobody)
        self.assertEqual(len(self.query(p, SIGNALS)), 10)

    def test_bad_queries(self):
        p = self.platform()
        self.refused(p, "^parse error at line 1, col 1: syntax error: unexpected [$]end$", "query", "")
        self.refused(p, "^parse error at line 1, col 15: syntax error: unexpected [$]end, expecting } or ,$", "query", '{kind="signal"')
        self.refused(p, "^parse error at line 1, col 7: error parsing regexp: ", "query", '{app=~"("}')
        self.refused(p, "^parse error at line 1, col 17: ", "query", SIGNALS + " foo")
        self.refused(p, "^parse error at line 1, col 19: ", "query", SIGNALS + " | 5")
        self.refused(p, "^parse error : queries require at least one regexp or equality matcher", "query", "{}")
        self.refused(p, "only a selector is taken here$", "series", SIGNALS + ' |= "x"')

    def test_what_is_not_served_is_refused_in_one_sentence(self):
        p = self.platform()
        for query in (f"rate({SIGNALS}[1m])", f"sum by (kind) (count_over_time({SIGNALS}[5m]))", f"topk(3, rate({SIGNALS}[1m]))"):
            for command in ("query", "instant-query"):
                self.refused(p, r"^metric queries \('\w+'\) are not supported here: ask for lines, as in ", command, query)
        for stage in ("json", "logfmt", "line_format `{{.kind}}`", "label_format a=kind"):
            self.refused(p, rf"^the stage '\| {stage.split()[0]}' is not supported here: ", "query", f"{SIGNALS} | {stage}")
        self.refused(p, r"^the pattern filters \|> !> are not supported here: ", "query", SIGNALS + ' |> "<_>nginx<_>"')
        self.refused(p, r"^the line filter ip\(…\) is not supported here$", "query", SIGNALS + ' |= ip("127.0.0.1")')
        self.refused(p, "^log queries are not supported as an instant query type, ", "instant-query", SIGNALS)
        self.refused(p, "^live tail is not supported here: ask query_range again ", "query", "--tail", SIGNALS)
        for command in ("stats", "volume", "volume_range", "detected-fields"):
            self.refused(p, "^404 page not found: this log answers query_range, query, labels, label/NAME/values and series$", command, SIGNALS)

    def test_nothing_can_be_taken_away(self):
        p = self.platform()
        before = collections.Counter(text_of(r) for r in p.records())
        window = ("--from=2020-01-01T00:00:00Z", "--to=2999-01-01T00:00:00Z")
        for command in (("list",), ("create", SIGNALS, *window), ("cancel", "--request-id=1")):
            done = self.run_logcli(p, "--quiet", "delete", *command)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"esponse from server: this log is read only\n", done.stderr)
        self.assertEqual(collections.Counter(text_of(r) for r in p.records()), before)


if __name__ == "__main__":
    harness.main()
