"""The alert intake over real HTTP: what is accepted, what is refused and how, and that 202 means on disk."""
import concurrent.futures
import gzip
import http.client
import json
import os
import random
import signal
import threading
import time

from harness import PATIENCE, PlatformTest, alert, main, rfc3339, wait_until, webhook


class Intake(PlatformTest):
    def post(self, p, body, headers=None):
        status, head, text = p.request("POST", "/function/alerts", body, headers or p.bearer())
        return status, head, json.loads(text) if text else None

    def test_accepts_counts_and_finds_duplicates(self):
        p = self.platform()
        a, b = alert("A", pod="p1"), alert("B", pod="p2")
        self.assertEqual(self.post(p, webhook(a, b))[::2], (202, {"accepted": 2, "duplicate": 0, "rejected": 0}))
        self.assertEqual(self.post(p, webhook(a, b))[::2], (202, {"accepted": 0, "duplicate": 2, "rejected": 0}))
        signals = p.records("signal")
        self.assertEqual([s["labels"]["alertname"] for s in signals], ["A", "B"])
        for s in signals:
            self.assertEqual((s["status"], s["source"], s["function"], s["format"]), ("firing", "alertmanager", "alerts", 1))
            self.assertRegex(s["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")
            self.assertTrue(s["incident"].startswith(s["fingerprint"]))

    def test_a_resolve_closes_and_a_later_firing_is_a_new_incident(self):
        p = self.platform()
        began = time.time() - 100
        self.assertEqual(self.post(p, webhook(alert("A", starts_at=began)))[2]["accepted"], 1)
        self.assertEqual(self.post(p, webhook(alert("A", status="resolved", starts_at=began)))[2]["accepted"], 1)
        # Late and out of order: not later than what was resolved.
        self.assertEqual(self.post(p, webhook(alert("A", starts_at=began)))[2], {"accepted": 0, "duplicate": 1, "rejected": 0})
        self.assertEqual(self.post(p, webhook(alert("A", starts_at=began + 50)))[2]["accepted"], 1)
        incidents = [s["incident"] for s in p.records("signal")]
        self.assertEqual(incidents[0], incidents[1])
        self.assertNotEqual(incidents[0], incidents[2])

    def test_one_bad_alert_does_not_take_the_others_with_it(self):
        p = self.platform()
        bad = alert("Bad")
        bad["labels"]["x"] = 7
        status, _, counts = self.post(p, webhook(alert("Good"), bad, alert("Also")))
        self.assertEqual((status, counts["accepted"], counts["duplicate"], counts["rejected"]), (202, 2, 0, 1))
        self.assertIn("alerts[1]", counts["error"])
        rejected = p.records("rejected")
        self.assertEqual(len(rejected), 1)
        self.assertTrue(rejected[0]["reason"])

    def test_bad_bodies_are_400_with_a_sentence(self):
        p = self.platform()
        deep = '{"version":"4","alerts":' + "[" * 100000 + "]" * 100000 + "}"
        long_label = webhook(alert("A", x="v" * 100000))
        cases = {
            "not json": "nonsense",
            "empty": "",
            "cut off": json.dumps(webhook(alert("A")))[:-5],
            "wrong version": dict(webhook(alert("A")), version="3"),
            "no version": {k: v for k, v in webhook(alert("A")).items() if k != "version"},
            "no alerts": dict(webhook(), alerts=[]),
            "alerts missing": {"version": "4"},
            "alerts is a map": {"version": "4", "alerts": {}},
            "labels missing": webhook({k: v for k, v in alert("A").items() if k != "labels"}),
            "labels empty": webhook(dict(alert("A"), labels={})),
            "label over-long": long_label,
            "deep nesting": deep,
            "invalid UTF-8": b'{"version":"4","alerts":[{"status":"firing","labels":{"alertname":"\xff\xfe"},"startsAt":"2026-01-01T00:00:00Z"}]}',
            "an array": "[]",
            "trailing garbage": json.dumps(webhook(alert("A"))) + "x",
            "bad status": webhook(dict(alert("A"), status="burning")),
            "bad time": webhook(dict(alert("A"), startsAt="yesterday")),
        }
        for name, body in cases.items():
            with self.subTest(name):
                status, _, answer = self.post(p, body)
                self.assertEqual(status, 400, answer)
                self.assertGreater(len(answer["error"]), 10)
                self.assertNotIn("\n", answer["error"])
        self.assertEqual(p.records("signal"), [])

    def test_a_compressed_body_is_415_and_says_so(self):
        p = self.platform()
        body = gzip.compress(json.dumps(webhook(alert("A"))).encode())
        status, _, answer = p.request("POST", "/function/alerts", body, {**p.bearer(), "Content-Encoding": "gzip"})
        self.assertEqual(status, 415, answer)
        self.assertIn("Content-Encoding 'gzip' is not taken here", json.loads(answer)["error"])
        self.assertEqual(p.records("signal"), [])

    def test_body_limit_is_413(self):
        p = self.platform()
        body = json.dumps(webhook(alert("A", annotations={"x": "y" * (9 * 1024 * 1024)})))
        status, _, answer = p.request("POST", "/function/alerts", body, p.bearer())
        self.assertEqual(status, 413)
        self.assertTrue(answer)

    def test_large_group_is_taken_whole(self):
        p = self.platform()
        alerts = [alert("Many", n=str(i), pad="p" * 300) for i in range(5000)]
        status, _, counts = self.post(p, webhook(*alerts))
        self.assertEqual((status, counts), (202, {"accepted": 5000, "duplicate": 0, "rejected": 0}))

    def test_credentials(self):
        p = self.platform()
        body = webhook(alert("A"))
        plain = {"Content-Type": "application/json"}
        for headers in (plain, dict(plain, Authorization="Bearer wrong"), dict(plain, Authorization="Bearer "), p.basic(),
                        dict(plain, Authorization="Bearer " + p.secret("webhook-token") + "x")):
            status, _, answer = p.request("POST", "/function/alerts", body, headers)
            self.assertEqual(status, 401, headers)
        self.assertEqual(p.records("signal"), [])
        for name in ("basic-auth-user", "basic-auth-password", "webhook-token"):
            mode = os.stat(os.path.join(p.data, "secrets", name)).st_mode & 0o777
            self.assertEqual(mode, 0o600, name)
        log = p.log_text()
        for name in ("basic-auth-password", "webhook-token"):
            self.assertNotIn(p.secret(name), log)

    def test_wrong_fingerprint_is_recorded_not_refused(self):
        p = self.platform()
        status, _, counts = self.post(p, webhook(dict(alert("A"), fingerprint="0123456789abcdef")))
        self.assertEqual((status, counts["accepted"]), (202, 1))
        record = p.records("signal")[0]
        self.assertEqual(record["fingerprint"], "0123456789abcdef")
        self.assertRegex(record["fingerprintComputed"], "^[0-9a-f]{16}$")

    def test_fingerprint_vectors(self):
        p = self.platform()
        self.post(p, webhook(alert("KubePodCrashLooping", namespace="a", pod="p1", severity="warning"), alert("A", kind="r500")))
        self.assertEqual([r["fingerprint"] for r in p.records("signal")], ["a98a96e03b95fa22", "129c009076f06444"])

    def test_the_same_alert_from_two_peers_at_once_is_one_signal(self):
        p = self.platform()
        headers = p.bearer()
        for round_ in range(10):
            body = json.dumps(webhook(alert("Twin", round=str(round_))))
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: p.request("POST", "/function/alerts", body, headers), range(8)))
            counts = [json.loads(a[2]) for a in answers]
            self.assertEqual([a[0] for a in answers], [202] * 8)
            self.assertEqual(sum(c["accepted"] for c in counts), 1)
        self.assertEqual(len(p.records("signal")), 10)

    def test_other_methods_and_paths(self):
        p = self.platform()
        self.assertEqual(p.request("GET", "/function/alerts", None, p.bearer())[0], 405)
        self.assertEqual(p.request("POST", "/function/alerts/other", webhook(alert("A")), p.bearer())[0], 404)

    def test_the_admin_may_read_whom_we_ask_and_nobody_else(self):
        p = self.platform()
        plain = {"Content-Type": "application/json"}
        for headers in (p.basic(), p.bearer()):
            status, _, answer = p.request("GET", "/function/alerts/alertmanagers", None, headers)
            self.assertEqual((status, json.loads(answer)), (200, []))
        for headers in (plain, dict(plain, Authorization="Bearer x"), dict(plain, Authorization="Basic YTpi")):
            self.assertEqual(p.request("GET", "/function/alerts/alertmanagers", None, headers)[0], 401)
        self.assertEqual(p.request("POST", "/function/alerts", webhook(alert("A")), p.basic())[0], 401)

    def test_kill_9_while_alerts_come_in(self):
        """20 kills at random instants: every alert that got 202 is there afterwards."""
        seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
        print(f"seed {seed}")
        rng = random.Random(seed)
        p = self.platform(start=False)
        acknowledged, lock = set(), threading.Lock()
        for round_ in range(20):
            p.start()
            headers = p.bearer()
            stop = threading.Event()

            def send(worker):
                n = 0
                connection = http.client.HTTPConnection("127.0.0.1", p.port, timeout=10)
                while not stop.is_set():
                    name = f"k{round_}-{worker}-{n}"
                    n += 1
                    try:
                        connection.request("POST", "/function/alerts", json.dumps(webhook(alert("Kill", id=name))), headers)
                        response = connection.getresponse()
                        response.read()
                        if response.status == 202:
                            with lock:
                                acknowledged.add(name)
                    except (OSError, http.client.HTTPException):
                        break
                connection.close()
            threads = [threading.Thread(target=send, args=(w,)) for w in range(8)]
            for t in threads:
                t.start()
            time.sleep(rng.uniform(0.05, 0.4))
            p.kill()
            stop.set()
            for t in threads:
                t.join()
        found = {r["labels"]["id"] for r in p.records("signal")}
        self.assertGreater(len(acknowledged), 100)
        self.assertEqual(acknowledged - found, set(), "acknowledged and lost")
        sequences = [r["seq"] for r in p.records()]
        self.assertEqual(sequences, list(range(1, len(sequences) + 1)))
        print(f"{len(acknowledged)} acknowledged, 0 lost, {len(sequences)} records")


if __name__ == "__main__":
    main()
