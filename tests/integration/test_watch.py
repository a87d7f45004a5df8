"""The platform watches itself: its metrics, the alert rules and the dashboard that are made of them."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import busy
from harness import BALM, PATIENCE, ROOT, PlatformTest, main, wait_until
from peers import Unavailable, binary

RULES = os.path.join(ROOT, "charts", "balm", "rules", "balm.rules.yml")
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


if __name__ == "__main__":
    main()
