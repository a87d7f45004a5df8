"""The platform watches itself: its metrics, the alert rules and the dashboard that are made of them."""
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from urllib.parse import quote

import busy
from harness import BALM, PATIENCE, ROOT, PlatformTest, alert, free_port, main, stack_file, wait_until, webhook
from peers import Prometheus, Unavailable, binary, get

RULES = os.path.join(ROOT, "charts", "balm", "rules", "balm.rules.yml")
DASHBOARD = os.path.join(ROOT, "charts", "balm", "dashboards", "balm.json")
RULES_TEST = os.path.join(ROOT, "tests", "integration", "balm.rules.test.yml")


def read(path):
    with open(path) as f:
        return f.read()


def need(test, *peers):
    try:
        for peer in peers:
            binary(peer)
    except Unavailable as e:
        test.skipTest(str(e))


def promtool(*arguments, stdin=None):
    done = subprocess.run([binary("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=120 * PATIENCE)
    return done.returncode, done.stdout + done.stderr


class Metrics(PlatformTest):
    def test_what_is_exposed_is_what_the_table_says(self):
        need(self, "promtool")
        p = busy.start(self)
        catalog = busy.catalog()

        def look():
            return {name: f for name, f in busy.families(busy.scrape(p)).items() if name.startswith("balm_")}
        # The size of the journal's files is looked at now and then.
        wait_until(lambda: set(look()) >= set(catalog) or not p.process, 20, "every metric of the table")
        exposed = look()
        self.assertEqual(sorted(exposed), sorted(catalog))
        for name, entry in catalog.items():
            self.assertEqual((exposed[name]["type"], exposed[name]["help"], exposed[name]["labels"]),
                             (entry["type"], entry["help"], set(entry["labels"])), name)
        self.assertEqual(promtool("check", "metrics", stdin=busy.scrape(p)), (0, ""))
        self.assertNotEqual(promtool("check", "metrics", stdin="# TYPE balm_x_total gauge\nbalm_x_total 1\n"), (0, ""))


class Rules(unittest.TestCase):
    def setUp(self):
        need(self, "promtool")
        self.rules = re.split(r"(?m)^(?=      - alert: )", read(RULES))
        self.names = [re.match(r"      - alert: (\w+)", rule).group(1) for rule in self.rules[1:]]

    def test_promtool_takes_them_and_their_tests_pass(self):
        code, text = promtool("check", "rules", RULES)
        self.assertEqual(code, 0, text)
        code, text = promtool("test", "rules", RULES_TEST)
        self.assertEqual(code, 0, text)

    def test_each_rule_is_tested_firing_and_not_firing(self):
        folder = tempfile.mkdtemp(prefix="balm-rules-")
        self.addCleanup(shutil.rmtree, folder)
        cases = read(RULES_TEST)
        for i, name in enumerate(self.names):
            self.assertRegex(cases, rf"alertname: {name}, eval_time: \w+, exp_alerts: \[\]")
            with open(os.path.join(folder, "rules.yml"), "w") as f:
                f.write("".join(rule for k, rule in enumerate(self.rules) if k != i + 1))
            with open(os.path.join(folder, "test.yml"), "w") as f:
                f.write(re.sub(r"rule_files: .*", "rule_files: [rules.yml]", cases))
            code, text = promtool("test", "rules", f.name)
            self.assertNotEqual(code, 0, f"the tests pass without {name}")

    def test_each_says_what_to_run_and_where_to_read_on(self):
        readme = read(os.path.join(ROOT, "README.md")).replace("`", "")
        known = re.findall(r"(?m)^  (\w+)  ", subprocess.run([BALM, "--help"], capture_output=True, text=True).stdout)
        for name, rule in zip(self.names, self.rules[1:]):
            self.assertRegex(rule, r"labels: \{severity: (critical|warning|info)\}", name)
            for part in ("summary", "description", "runbook"):
                self.assertIn(f"          {part}: ", rule, name)
            commands = re.findall(r"`balm ([\w-]+)", rule)
            self.assertTrue(commands, name)
            self.assertEqual([c for c in commands if c not in known], [], name)
            for file, heading in re.findall(r'([\w/]+\.md)(?:, "([^"]+)")?', rule):
                self.assertIn(f"## {heading}" if heading else "#", read(os.path.join(ROOT, file)), name)
            for symptom in re.findall(r'"When something is wrong": ([^;\n\']+)', rule):
                self.assertIn(f"| {symptom} |", readme, name)


# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}
SELECTOR = re.compile(r"\b(\w+)\{([^}]*)\}|\b(balm_\w+|process_\w+|ALERTS)\b")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)")


def selectors(expression):
    """[(metric, [label, …], text)] of everything that is read."""
    return [(m.group(1) or m.group(3), re.findall(r'(\w+)\s*[=!]~?\s*"', m.group(2) or ""), m.group()) for m in SELECTOR.finditer(expression)]


def grouping_labels(expression):
    return {label.strip() for m in GROUPING.finditer(expression) for label in m.group(1).split(",") if label.strip()}


def dashboard_queries(dashboard):
    """(where, expression, labels that its legend shows)"""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], []
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        if found:
            yield variable["name"], found.group(1), [found.group(2)]


def rule_queries():
    text = read(RULES)
    for rule in re.split(r"(?m)^      - alert: ", text)[1:]:
        expression = re.search(r"expr: (?:>-\n)?((?:.|\n)*?)\n        (?:for|labels):", rule).group(1)
        yield rule.split("\n")[0], " ".join(expression.split()), re.findall(r"\$labels\.(\w+)", rule)


class Queries(PlatformTest):
    """Whatever dashboard and rules ask for is there: on a real Prometheus that scrapes a real platform on which everything has happened."""

    def start_prometheus(self, port):
        need(self, "prometheus")
        prometheus = Prometheus(self.folder, read(RULES), port, free_port(), job="balm")
        prometheus.start()
        self.addCleanup(prometheus.stop)
        return prometheus

    def test_every_query_finds_its_metrics_and_labels(self):
        p = busy.start(self)
        prometheus = self.start_prometheus(p.port)
        wait_until(lambda: len(prometheus.query("balm_disk_free_bytes[1m]")) == 1 and len(prometheus.query("count_over_time(up[1m]) > 2")) == 1, 60,
                   "Prometheus has scraped the platform")
        wait_until(lambda: all(r["health"] == "ok" for r in self.rules(prometheus)), 60, f"every rule is evaluated: {self.rules(prometheus)}")
        self.assertEqual(len(self.rules(prometheus)), len(list(rule_queries())))
        # What Prometheus itself stores: its labels are those of the target, ours, and a histogram's.
        labels = {name: self.labels(prometheus, name) for name in json.loads(get(self.url(prometheus, "label/__name__/values")))["data"]}
        labels["ALERTS"] = {"alertname", "alertstate", "severity", "instance", "job", "function", "source"}
        queries = list(rule_queries()) + list(dashboard_queries(json.loads(read(DASHBOARD))))
        self.assertGreater(len(queries), 40)
        for where, expression, shown in queries:
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            with self.subTest(where=where, expression=expression):
                self.check(prometheus, expression, shown, labels)

    def check(self, prometheus, expression, shown, labels):
        self.assertNotIn("$", expression)
        answer = json.loads(get(self.url(prometheus, f"query?query={quote(expression)}")))
        self.assertEqual(answer["status"], "success")
        known = set()
        self.assertTrue(selectors(expression))
        for metric, matched, text in selectors(expression):
            self.assertTrue(metric in labels, f"there is no metric {metric}")
            self.assertLessEqual(set(matched), labels[metric], text)
            self.assertTrue(prometheus.query(text), f"{text} finds nothing")
            known |= labels[metric]
        self.assertLessEqual(grouping_labels(expression), known)
        self.assertLessEqual(set(shown), known)
        for series in answer["data"]["result"]:
            self.assertLessEqual(set(shown), set(series["metric"]), "the legend shows a label that the result has lost")

    def test_dashboard_is_one_that_grafana_can_lay_out(self):
        dashboard = json.loads(read(DASHBOARD))
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]))
        taken = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24)
            taken |= cells
            for target in panel.get("targets", []):
                self.assertEqual(target["datasource"], {"type": "prometheus", "uid": "${datasource}"})

    @staticmethod
    def url(prometheus, path):
        return f"http://127.0.0.1:{prometheus.port}/api/v1/{path}"

    def rules(self, prometheus):
        return [rule for group in json.loads(get(self.url(prometheus, "rules")))["data"]["groups"] for rule in group["rules"]]

    def labels(self, prometheus, name):
        series = json.loads(get(self.url(prometheus, f"series?match[]={quote(name)}")))["data"]
        return {label for s in series for label in s} - {"__name__"}


TELL = read(os.path.join(ROOT, "functions", "dispatcher", "runbooks", "balm-itself.yaml"))


class Receiver:
    """What people get: keeps the messages whose signature holds; answers 503 to those whose title is in `refused`."""

    KEY = "k3y-of-us"

    def __init__(self, *refused):
        messages = self.messages = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                signed = self.headers["x-balm-timestamp"].encode() + b"." + body
                right = "sha256=" + hmac.new(Receiver.KEY.encode(), signed, hashlib.sha256).hexdigest()
                message = json.loads(body)
                is_refused = message["title"] in refused
                if not is_refused and self.headers["x-balm-signature"] == right:
                    messages.append(message)
                self.send_response(503 if is_refused else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def titles(self):
        return [message["title"] for message in self.messages]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class SelfWatch(PlatformTest):
    """What is wrong with balm itself is told by notify, without an Alertmanager between."""

    WATCHDOG = "the alert that always fires no longer reaches balm: no other alert would either"
    STORE = "balm cannot write its journal: alerts are answered with 503 and nothing is healed"
    DEAD = "acts or calls were given up"

    def watched(self, within, *arguments, runbooks=None, refused=()):
        self.receiver = Receiver(*refused)
        self.addCleanup(self.receiver.close)
        stack = busy.notify_stack() + "    labels: {com.openfaas.scale.min: \"1\"}\n"
        p = self.platform(start=False, runbooks={"balm-itself.yaml": TELL, **(runbooks or {})}, stack=stack,
                          arguments=["--watchdog-within", within, *arguments])
        busy.secret(p, "notify-url", f"http://127.0.0.1:{self.receiver.port}/hook")
        busy.secret(p, "notify-hmac-key", Receiver.KEY)
        return p.start()

    def wait_told(self, *titles, seconds=30):
        try:
            wait_until(lambda: self.receiver.titles() == list(titles), seconds, f"people are told {titles}")
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.receiver.titles()}\n{self.platforms[0].log_text()}")

    def test_a_watchdog_that_falls_silent_is_told_and_one_that_was_never_heard_is_not(self):
        p = self.watched("5s", "--watchdog", "Pulse")
        time.sleep(6)
        self.assertEqual(p.records("signal"), [])
        began = time.time()
        for _ in range(8):  # as Alertmanager repeats it: one episode, and its sightings
            p.post_alerts(alert("Pulse", starts_at=began))
            time.sleep(0.5)
        self.assertEqual(self.receiver.titles(), [])
        self.assertEqual(len(p.records("signal")), 1)
        self.assertGreater(len(p.records("seen")), 1)
        silent_since = time.time()
        self.wait_told(self.WATCHDOG)
        self.assertGreater(time.time() - silent_since, 4)
        signal = p.wait_record("signal", source="balm")
        self.assertEqual(signal["labels"], {"alertname": "BalmWatchdogSilent", "reporter": "balm", "severity": "critical"})
        outcome = p.wait_record("outcome", function="notify", state="done")
        self.assertEqual(outcome["incident"], signal["incident"])
        code, text, _ = p.cli("why", signal["incident"])
        self.assertEqual(code, 0)
        self.assertIn("BalmWatchdogSilent", text)
        # A restart tells nobody a second time, and is no silence of its own.
        p.stop()
        p.start()
        time.sleep(1.5)
        self.assertEqual(len([r for r in p.records("signal") if r["source"] == "balm"]), 1)
        p.post_alerts(alert("Pulse", starts_at=began))
        closed = p.wait_record("closed", incident=signal["incident"])
        self.assertEqual(closed["state"], "escalated")
        self.wait_told(self.WATCHDOG)

    def test_stopped_it_tells_nobody_until_it_is_resumed(self):
        p = self.watched("1s")
        self.assertEqual(p.cli("stop")[0], 0)
        p.post_alerts(alert("Watchdog"))
        self.assertEqual(p.wait_record("refusal", function="notify")["gate"], "freeze")
        self.assertEqual(self.receiver.titles(), [])
        self.assertEqual(p.cli("resume")[0], 0)
        self.wait_told(self.WATCHDOG)

    def test_a_dead_letter_is_told_once(self):
        hopeless = "name: hopeless\nmatch: ['alertname=\"Hopeless\"']\ntarget: x/y\nmode: act\n" \
                   "steps: [{bot: notify, with: {title: hopeless}, timeout: 1s}]\n"
        p = self.watched("2s", runbooks={"hopeless.yaml": hopeless}, refused=["hopeless"])
        p.post_alerts(alert("Hopeless"))
        p.wait_record("outcome", 90, function="notify", state="dead")
        self.wait_told(self.DEAD)
        p.wait_record("outcome", function="notify", state="done")
        time.sleep(1)  # two more looks
        self.assertEqual(self.receiver.titles(), [self.DEAD])
        self.assertIn('balm_dead_letters_total{function="notify"} 1', busy.scrape(p))

    def test_a_failing_store_is_told_although_nothing_can_be_recorded(self):
        p = self.watched("2s")
        self.assertEqual(p.post_alerts(alert("A"))[0], 202)
        journal = os.path.join(p.data, "journal")
        os.rename(journal, journal + ".away")
        self.assertEqual(p.request("POST", "/function/alerts", webhook(alert("B")), p.bearer())[0], 503)
        self.wait_told(self.STORE)
        told = wait_until(lambda: p.find_log("the store fails; people were told"), 10, "the log says it too")
        self.assertEqual(told["level"], "WARNING")
        self.assertIn("balm_store_healthy 0", busy.scrape(p))
        os.rename(journal + ".away", journal)
        wait_until(lambda: p.post_alerts(alert("B"))[0] == 202, 30, "it accepts again")
        note = p.wait_record("note", actor="balm")
        self.assertIn("people were told at", note["message"])
        self.assertEqual([message["intent"] for message in self.receiver.messages], re.findall(r"by intent (\S+):", note["message"]))


if __name__ == "__main__":
    main()
