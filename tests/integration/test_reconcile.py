"""What deliveries failed to tell, asked from real Alertmanagers: lost deliveries and resolves, a mesh of two, one that forgot everything."""
import subprocess
import time

from harness import PATIENCE, PlatformTest, free_port, main, rfc3339, wait_until
from peers import MARGIN, Alertmanager, Line, Nginx, Prometheus, Unavailable, ended, fires
from test_heal import STACK, runbook

class Reconcile(PlatformTest):
    def prepared(self, **more):
        """A platform that has its secrets and its port, and does not run. Its first start is only to make them."""
        p = self.platform(**more)
        p.stop()
        self.token_file = f"{p.data}/secrets/webhook-token"
        self.line = Line(p.port)
        self.addCleanup(self.line.stop)
        return p

    def alertmanager(self, **more):
        try:
            am = Alertmanager(self.folder, self.line.url, self.token_file, **more)
            am.start()
        except Unavailable as e:
            self.skipTest(str(e))
        self.addCleanup(am.stop)
        return am

    @staticmethod
    def asks(p, *alertmanagers, arguments=MARGIN):
        p.arguments = ["--alertmanager", ",".join(am.url for am in alertmanagers), *arguments]
        return p

    def metric(self, p, line):
        for text in p.request("GET", "/metrics")[2].decode().splitlines():
            if text.startswith(line + " "):
                return float(text.split()[-1])
        return None

    def nginx(self):
        try:
            nginx = Nginx(self.folder)
        except Unavailable as e:
            self.skipTest(str(e))
        nginx.start()
        self.addCleanup(nginx.stop)
        return nginx

    def rounds(self, p, n, result="ok"):
        """Waits until n more rounds have ended so."""
        line = f'balm_reconcile_total{{result="{result}"}}'
        goal = self.metric(p, line) + n
        wait_until(lambda: self.metric(p, line) >= goal, 30, f"{n} rounds {result}")

    def old_enough(self, am, seconds):
        wait_until(lambda: am.call("GET", "/api/v2/status") and time.time() - am.started() > seconds, 30, "it runs for long enough")

    def test_a_lost_delivery_is_found_after_a_start(self):
        p = self.prepared(runbooks=runbook(mode="shadow"), stack=STACK)
        am = self.alertmanager()
        self.line.loses = True
        alert = fires("NginxDown", service="nginx")
        am.post(alert)
        wait_until(lambda: self.line.lost, 20, "the delivery is lost")
        self.asks(p, am).start()
        signal = p.wait_record("signal", status="firing")
        self.assertEqual((signal["how"], signal["receiver"], signal["source"]), ("reconcile", "balm", "alertmanager"))
        self.assertEqual((signal["labels"]["alertname"], signal["function"]), ("NginxDown", "alerts"))
        self.assertNotIn("endsAt", signal)
        self.assertEqual(p.wait_record("refusal")["incident"], signal["incident"])  # decided on as if delivered
        self.rounds(p, 2)
        self.assertEqual(len(p.records("signal")), 1)
        self.assertIn("no delivery of it has come", p.cli("why", signal["incident"], "--json")[1])
        self.line.loses = False
        am.post(ended(alert))
        self.assertEqual(p.wait_record("signal", status="resolved")["incident"], signal["incident"])

    def test_a_lost_resolve_ends_as_unknown_and_the_same_alert_acts_again(self):
        nginx = self.nginx()
        p = self.prepared(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list())
        am = self.alertmanager()
        self.asks(p, am).start()
        nginx.stop()
        first = fires("NginxDown", service="nginx")
        am.post(first)
        p.wait_record("outcome", state="done")
        self.line.loses = True
        am.post(ended(first))
        wait_until(lambda: self.line.lost, 20, "the resolve is lost")
        expired = p.wait_record("expired")
        self.assertEqual(expired["how"], "reconcile")
        self.assertEqual(p.wait_record("closed")["state"], "unknown")
        self.assertEqual([r["status"] for r in p.records("signal")], ["firing"])
        self.line.loses = False
        nginx.stop()
        am.post(fires("NginxDown", since=time.time(), service="nginx"))
        wait_until(lambda: len(p.records("intent")) == 2, 30, "it acts again")
        incidents = [r["incident"] for r in p.records("signal")]
        self.assertEqual(len(set(incidents)), 2)
        wait_until(lambda: len([r for r in p.records("outcome") if r["state"] == "done"]) == 2, 30, "and is done")

    def test_a_dead_prometheus_heals_nothing(self):
        rules = ("groups: [{name: g, rules: [{alert: NginxDown, expr: 'up{job=\"nginx\"} == 0', labels: {service: nginx}}]}]\n")
        nginx = self.nginx()
        p = self.prepared(runbooks=runbook(mode="shadow"), stack=STACK)
        am = self.alertmanager()
        self.asks(p, am).start()
        prometheus = Prometheus(self.folder, rules, nginx.port, am.port, arguments=["--rules.alert.resend-delay=1s"])
        self.addCleanup(prometheus.stop)
        nginx.stop()
        prometheus.start()
        p.wait_record("signal", status="firing", seconds=40)
        self.rounds(p, 2)
        nginx.start()
        p.wait_record("signal", status="resolved", seconds=40)  # said by Prometheus, and it alone can say so
        nginx.stop()
        wait_until(lambda: len(p.records("signal")) == 3, 40, "it fires again")
        self.rounds(p, 2)
        prometheus.process.kill()
        prometheus.process.wait()
        expired = p.wait_record("expired", seconds=40)
        self.assertIn("fell silent", expired["reason"])
        self.assertEqual(expired["incident"], p.records("signal")[2]["incident"])
        self.assertEqual(p.wait_record("closed", incident=expired["incident"])["state"], "unknown")
        self.rounds(p, 5)
        self.assertEqual([r["status"] for r in p.records("signal")], ["firing", "resolved", "firing"])
        prometheus.start()  # it still fires, and always did
        wait_until(lambda: [r["status"] for r in p.records("signal")][3:] == ["firing"], 40, "it is a new incident")
        self.assertEqual(len(p.records("expired")), 1)

    def test_a_mesh_of_two_acts_once_and_survives_one(self):
        nginx = self.nginx()
        p = self.prepared(runbooks=runbook(), stack=STACK, host_acts=nginx.allow_list())
        ports = free_port(), free_port()
        pair = [self.alertmanager(name=f"am{i}", cluster_port=ports[i], cluster_peers=[ports[1 - i]]) for i in (0, 1)]
        for am in pair:
            wait_until(lambda: am.mesh() == (2, "ready"), 60, "the mesh is whole and settled")
        nginx.stop()
        self.asks(p, *pair).start()
        # A receiver that fails makes both of them send: the doubles of a pair.
        self.line.fails = True
        alerts = [fires("NginxDown", service="nginx"), fires("Other", n="1"), fires("Other", n="2")]
        for am in pair:
            am.post(*alerts)
        wait_until(lambda: len(self.line.senders) == 2, 60, "both try")
        self.line.fails = False
        wait_until(lambda: len(self.line.delivered) == 2, 60, "both deliver")
        p.wait_record("outcome", state="done")
        wait_until(lambda: len(p.records("signal")) >= 3, 30, "all of them arrive")
        self.rounds(p, 3)
        pair[0].process.kill()
        pair[0].process.wait()
        self.rounds(p, 6, "partial")
        self.assertEqual(self.metric(p, f'balm_alertmanager_up{{peer="127.0.0.1:{pair[0].port}"}}'), 0)
        self.assertEqual(self.metric(p, f'balm_alertmanager_up{{peer="127.0.0.1:{pair[1].port}"}}'), 1)
        status = p.cli("status")[1]
        self.assertIn(f"127.0.0.1:{pair[0].port}  DOES NOT ANSWER", status)
        self.assertIn(f"127.0.0.1:{pair[1].port}  answers", status)
        self.assertEqual(len(p.records("signal")), 3, "three alerts, one signal each")
        self.assertEqual(len(p.records("intent")), 1)
        self.assertEqual(p.records("expired"), [], "one that is down says nothing")
        # Both down: still nothing is concluded.
        pair[1].process.kill()
        pair[1].process.wait()
        self.rounds(p, 5, "failed")
        self.assertEqual(p.records("expired"), [])
        warned = [line for line in p.log if line.get("message") == "Alertmanager could not be asked what fires"]
        self.assertEqual(len(warned), 2, "one line each, although each round fails")

    def test_one_that_was_restarted_and_knows_nothing_ends_nothing(self):
        p = self.prepared()
        am = self.alertmanager()
        self.asks(p, am, arguments=["--group-interval", "1s", "--reconcile-interval", "1s", "--reconcile-margin", "10s"]).start()
        a = fires("A")
        am.post(a)
        p.wait_record("signal")
        self.old_enough(am, 12)  # what it lists and what it does not counts
        am.stop()
        am.forget()
        am.start()
        self.assertEqual(am.listed(), [])
        began = am.started()
        self.rounds(p, 5)
        self.assertEqual(p.records("expired"), [])
        am.post(a)  # Prometheus tells it again
        wait_until(lambda: time.time() - began > 11, 30, "it counts again")
        self.rounds(p, 2)
        self.assertEqual(len(p.records("signal")), 1)
        self.assertEqual(p.records("expired"), [])

    def test_what_is_silenced_is_not_opened_until_the_silence_ends(self):
        p = self.prepared()
        am = self.alertmanager(group_interval="1h")
        silence = am.call("POST", "/api/v2/silences", {
            "matchers": [{"name": "alertname", "value": "A", "isRegex": False}], "startsAt": rfc3339(time.time() - 1),
            "endsAt": rfc3339(time.time() + 3600), "createdBy": "test", "comment": "test"})["silenceID"]
        am.post(fires("A"))
        self.line.loses = True
        self.asks(p, am).start()
        self.old_enough(am, 4)
        self.rounds(p, 3)
        self.assertEqual(p.records("signal"), [])
        am.call("DELETE", f"/api/v2/silence/{silence}")
        self.assertEqual(p.wait_record("signal")["how"], "reconcile")

    def test_alerts_of_another_receiver_are_not_taken(self):
        p = self.prepared()
        am = self.alertmanager()
        self.line.loses = True
        am.post(fires("A"))
        self.old_enough(am, 4)
        self.asks(p, am, arguments=[*MARGIN, "--alertmanager-receiver", "other"]).start()
        self.rounds(p, 3)
        self.assertEqual(p.records("signal"), [])

    def test_what_a_sender_cuts_off_is_asked_for_at_once(self):
        p = self.prepared()
        am = self.alertmanager(max_alerts=1, group_by="alertname")
        self.asks(p, am, arguments=["--group-interval", "1s", "--reconcile-interval", "1h", "--reconcile-margin", "1s"]).start()
        self.old_enough(am, 3)
        am.post(*(fires("Many", since=time.time() - 1, n=str(n)) for n in range(4)))
        wait_until(lambda: {r["labels"]["n"] for r in p.records("signal")} == {"0", "1", "2", "3"}, 30, "all four")
        self.assertEqual(sorted(r.get("how", "") for r in p.records("signal")), ["", "reconcile", "reconcile", "reconcile"])

    def test_a_long_one_does_not_end_at_its_lease(self):
        p = self.prepared()
        am = self.alertmanager(repeat_interval="1h")
        self.asks(p, am, arguments=[*MARGIN, "--repeat-interval", "2s"]).start()
        am.post(fires("Long"))
        first = p.wait_record("signal")
        # Twice its lease of 5 s, seen by asking alone.
        wait_until(lambda: len([r for r in p.records("seen") if r["how"] == "reconcile"]) >= 6, 60, "seen")
        self.assertEqual(p.records("expired"), [])
        self.assertEqual(p.records("signal")[0]["incident"], first["incident"])
        self.assertEqual(len(p.records("signal")), 1)

    def test_credentials_come_from_a_file_that_may_change(self):
        # bcrypt of "open sesame"
        bcrypt = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"
        p = self.prepared()
        am = self.alertmanager(login=("balm", bcrypt, "open sesame"))
        secret = p.write("am-login", "balm:wrong one", mode=0o600)
        self.asks(p, am, arguments=[*MARGIN, "--alertmanager-token-file", secret]).start()
        self.rounds(p, 1, "failed")
        self.assertIn("HTTP 401", p.cli("status")[1])
        p.write("am-login", "balm:open sesame\n", mode=0o600)
        self.rounds(p, 1)
        self.assertNotIn("HTTP 401", p.cli("status")[1])
        for secret in ("wrong one", "open sesame"):
            self.assertNotIn(secret, p.log_text())

    def test_bad_settings_stop_the_start(self):
        p = self.prepared()
        cases = {"ftp://am:9093": "http://", "am:9093": "http://", "http://": "host", "http://u:geheim@am:9093": "--alertmanager-token-file",
                 "http://am:9093/?x=1": "'?'", "http://am:9093,http://am:9093/": "twice",
                 ",".join(f"http://am{i}" for i in range(9)): "more than 8"}
        for urls, word in cases.items():
            with self.subTest(urls):
                p.arguments = ["--alertmanager", urls]
                done = subprocess.run(p.command(), capture_output=True, timeout=20 * PATIENCE)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(word, done.stderr.decode())
                self.assertNotIn("geheim", done.stderr.decode())


if __name__ == "__main__":
    main()
