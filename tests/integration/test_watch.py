"""The platform watches itself: its metrics, the alert rules and the dashboard that are made of them."""
import subprocess

import busy
from harness import PATIENCE, PlatformTest, main, wait_until
from peers import Unavailable, binary


def promtool(*arguments, stdin=None):
    done = subprocess.run([binary("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=120 * PATIENCE)
    return done.returncode, done.stdout + done.stderr


class Metrics(PlatformTest):
    def test_what_is_exposed_is_what_the_table_says(self):
        try:
            binary("promtool")
        except Unavailable as e:
            self.skipTest(str(e))
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


if __name__ == "__main__":
    main()
