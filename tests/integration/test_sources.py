"""Alerts that do not come from Alertmanager: Grafana's webhook, and CloudEvents sent with the CNCF's own SDK (a small Go program in event/).

Grafana itself is not run here (AGPL): its bodies are those of its documentation and of what its notifier is documented to add.
"""
import json
import os
import shutil
import subprocess
import time

import harness
from harness import PATIENCE, PlatformTest, alert, main, rfc3339, wait_until
from peers import Alertmanager, Unavailable
from test_connect import RUNBOOKS, STACK
from test_reconcile import MARGIN

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "balm", "bin")

EVENT_RUNBOOK = """
name: crash-looping
match: ['alertname="dev.knative.apiserver.resource.add"', 'reason="BackOff"', '"involvedObject.namespace"!~"kube-.*"']
target: pod/${labels.involvedObject.name}
mode: shadow
steps: [{bot: service-restart, with: {unit: "${labels.involvedObject.name}"}, verify: {check: {}}}]
"""


def grafana(*alerts):
    firing = any(a["status"] == "firing" for a in alerts)
    return {"receiver": "balm", "status": "firing" if firing else "resolved", "orgId": 1, "alerts": list(alerts), "groupLabels": {},
            "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://localhost:3000/", "version": "1",
            "groupKey": '{}:{alertname="x"}', "truncatedAlerts": 0, "title": "[FIRING:1]", "state": "alerting" if firing else "ok",
            "message": "**Firing**"}


def grafana_alert(name, status="firing", starts_at=None, reason=None, **labels):
    """As Grafana's notifier has it: a fingerprint that is also of labels which it does not send, and members that Alertmanager has not."""
    a = alert(name, status, starts_at, {"summary": "s", **({"grafana_state_reason": reason} if reason else {})}, grafana_folder="F", **labels)
    return dict(a, fingerprint="c6eadffa33fcdf37", generatorURL="http://localhost:3000/alerting/grafana/r/view?orgId=1",
                silenceURL="http://localhost:3000/alerting/silence/new", dashboardURL="http://localhost:3000/d/d?orgId=1",
                panelURL="http://localhost:3000/d/d?orgId=1&viewPanel=1", values={"B": 44.2, "C": None}, valueString="[ var='B' value=44.2 ]",
                imageURL="http://localhost:3000/i.png", orgId=1, ruleUID="r")


def event_tool():
    """The small program of tests/integration/event, built once; None where that cannot be."""
    path = os.path.join(CACHE, "event-send")
    if not os.access(path, os.X_OK) and shutil.which("go") is not None:
        os.makedirs(CACHE, exist_ok=True)
        subprocess.run(["go", "build", "-o", path, "."], cwd=os.path.join(harness.ROOT, "tests", "integration", "event"), capture_output=True,
                       env=dict(os.environ, GOFLAGS="-p=1"), timeout=300)
    return path if os.access(path, os.X_OK) else None


def event(id, subject=None, type="com.example.disk.full", data=None, **attributes):
    e = {"specversion": "1.0", "id": id, "source": "/monitor/a", "type": type, **attributes}
    if subject is not None:
        e["subject"] = subject
    if data is not None:
        e.update(datacontenttype="application/json", data=data)
    return e


class Sources(PlatformTest):
    def post(self, p, body, content_type="application/json", headers=None):
        head = headers if headers is not None else dict(p.bearer(), **{"Content-Type": content_type})
        status, _, text = p.request("POST", "/function/alerts", body, head)
        return status, json.loads(text) if text else None

    def post_event(self, p, e):
        return self.post(p, e, "application/cloudevents+json")


class Grafana(Sources):
    def test_firing_is_decided_on_and_resolves(self):
        p = self.platform(runbooks={"r.yaml": RUNBOOKS}, stack=STACK)
        began = time.time() - 30
        a = grafana_alert("Quiet", starts_at=began, service="nginx")
        self.assertEqual(self.post(p, grafana(a)), (202, {"accepted": 1, "duplicate": 0, "rejected": 0}))
        self.assertEqual(self.post(p, grafana(a))[1]["duplicate"], 1)
        signal = p.wait_record("signal")
        self.assertEqual((signal["source"], signal["fingerprint"], signal["receiver"]), ("grafana", "c6eadffa33fcdf37", "balm"))
        self.assertRegex(signal["fingerprintComputed"], "^[0-9a-f]{16}$")
        self.assertEqual(p.wait_record("refusal")["gate"], "mode")
        self.assertEqual(self.post(p, grafana(dict(grafana_alert("Quiet", "resolved", began, service="nginx"))))[1]["accepted"], 1)
        self.assertEqual(p.wait_record("closed")["state"], "resolved")
        self.assertIn('balm_source_last_signal_timestamp_seconds{source="grafana"}', p.request("GET", "/metrics")[2].decode())

    def test_what_it_did_not_measure_never_acts(self):
        """An acting runbook on everything, and nothing of it happens."""
        p = self.platform(runbooks={"r.yaml": RUNBOOKS.replace('alertname="Down"', 'alertname=~".+"')}, stack=STACK)
        no_data = grafana_alert("DatasourceNoData", rulename="Down", datasource_uid="u", service="nginx")
        error = grafana_alert("DatasourceError", rulename="Down", datasource_uid="u", service="nginx")
        set_to_alerting = grafana_alert("Down", reason="NoData", service="nginx")
        status, counts = self.post(p, grafana(no_data, error, set_to_alerting))
        self.assertEqual((status, counts["accepted"], counts["rejected"]), (202, 0, 3))
        self.assertIn("measured nothing", counts["error"])
        self.assertEqual([r["source"] for r in p.records("rejected")], ["grafana"] * 3)
        self.assertEqual(p.records("signal") + p.records("intent"), [])
        # The same alert, measured: this one is taken.
        self.assertEqual(self.post(p, grafana(grafana_alert("Down", service="nginx")))[1]["accepted"], 1)
        p.wait_record("intent")

    def test_a_series_that_vanished_is_unknown_and_not_healed(self):
        p = self.platform(runbooks={"r.yaml": RUNBOOKS}, stack=STACK)
        began = time.time() - 30
        self.post(p, grafana(grafana_alert("Quiet", starts_at=began, service="nginx")))
        gone = grafana_alert("Quiet", "resolved", began, "MissingSeries", service="nginx")
        self.assertEqual(self.post(p, grafana(gone))[1]["accepted"], 1)
        self.assertIn("MissingSeries", p.wait_record("expired")["reason"])
        self.assertEqual(p.wait_record("closed")["state"], "unknown")
        self.assertEqual(self.post(p, grafana(gone))[1]["accepted"], 1)  # of nothing that is open any more: noted
        self.assertEqual(len(p.records("closed")), 1)

    def test_credentials_and_method(self):
        p = self.platform()
        body = grafana(grafana_alert("A"))
        for headers in ({}, {"Authorization": "Bearer x"}, p.basic()):
            self.assertEqual(self.post(p, body, headers=headers)[0], 401)
        self.assertEqual(p.request("PUT", "/function/alerts", body, p.bearer())[0], 405)


class Events(Sources):
    def send(self, p, mode, events, token=None):
        tool = event_tool()
        if tool is None:
            self.skipTest("no go, or its module proxy is out of reach: the CloudEvents SDK was not asked")
        done = subprocess.run([tool, f"http://127.0.0.1:{p.port}/function/alerts", mode], input=json.dumps(events).encode(), capture_output=True,
                              env=dict(os.environ, TOKEN=token or p.secret("webhook-token")), timeout=60 * PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().splitlines()

    def test_the_sdk_of_the_cncf_in_all_three_modes(self):
        p = self.platform(runbooks={"r.yaml": EVENT_RUNBOOK}, stack=STACK)
        crash = event("k-1", "/apis/v1/namespaces/shop/events/wéb.1 \"x\"", "dev.knative.apiserver.resource.add",
                      {"kind": "Event", "reason": "BackOff", "count": 3, "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-1"}})
        self.assertEqual(self.send(p, "binary", [crash]), ["202 ack"])
        refusal = p.wait_record("refusal")
        self.assertEqual((refusal["gate"], refusal["target"]), ("mode", "pod/web-1"))
        signal = p.records("signal")[0]
        self.assertEqual(signal["labels"], {"alertname": "dev.knative.apiserver.resource.add", "count": "3", "kind": "Event", "reason": "BackOff",
                                            "involvedObject.kind": "Pod", "involvedObject.name": "web-1", "involvedObject.namespace": "shop",
                                            "source": "/monitor/a", "subject": "/apis/v1/namespaces/shop/events/wéb.1 \"x\""})
        self.assertEqual(signal["detail"], {"event": {"id": "k-1", "source": "/monitor/a", "type": "dev.knative.apiserver.resource.add"}})
        # The same event in another mode, and within a batch: still the same.
        self.assertEqual(self.send(p, "structured", [crash, event("d-1", "a")]), ["202 ack", "202 ack"])
        self.assertEqual(self.send(p, "batch", [crash, event("d-1", "a"), event("d-2", "b")]), ["202"])
        self.assertEqual([s["detail"]["event"]["id"] for s in p.records("signal")], ["k-1", "d-1", "d-2"])
        self.assertEqual({s["source"] for s in p.records("signal")}, {"cloudevents"})
        self.assertEqual(self.send(p, "binary", [event("d-3")], token="wrong"), ["401 nack"])

    def test_redelivered_acts_once_and_resolves(self):
        p = self.platform(runbooks={"r.yaml": RUNBOOKS.replace("Quiet", "com.example.disk.full")}, stack=STACK)
        e = event("1", "disk/a", data={"service": "nginx"})
        self.assertEqual(self.post_event(p, e)[1], {"accepted": 1, "duplicate": 0, "rejected": 0})
        p.wait_record("refusal")
        self.assertEqual(self.post_event(p, event("2", "disk/a", status="resolved"))[1]["accepted"], 1)
        self.assertEqual(p.wait_record("closed")["state"], "resolved")
        for end in (p.kill, p.stop):  # what is known of events is in the journal, and in the snapshot of an orderly end
            end()
            p.start()
            self.assertEqual(self.post_event(p, e)[1], {"accepted": 0, "duplicate": 1, "rejected": 0})
        self.assertGreater(p.find_log("journal read")["snapshot"], 0)
        self.assertEqual(self.post_event(p, event("3", "disk/a", data={"service": "nginx"}))[1]["accepted"], 1)
        self.assertEqual(len(p.records("signal")), 3)

    def test_alerts_in_events(self):
        p = self.platform()
        body = grafana(grafana_alert("A"), grafana_alert("DatasourceNoData", rulename="x"))
        status, counts = self.post_event(p, event("1", data=body))
        self.assertEqual((status, counts["accepted"], counts["rejected"]), (202, 1, 1))
        self.assertEqual(self.post_event(p, event("2", data={"labels": {"alertname": "B"}}))[1]["accepted"], 1)
        signals = p.records("signal")
        self.assertEqual([(s["source"], s["labels"]["alertname"], s["detail"]["carriedBy"]["id"]) for s in signals],
                         [("cloudevents", "A", "1"), ("cloudevents", "B", "2")])

    def test_malformed_is_400_and_another_format_415(self):
        p = self.platform()
        binary = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
        for missing in binary:
            some = {k: v for k, v in binary.items() if k != missing}
            status, answer = self.post(p, "{}", headers=dict(p.bearer(), **some))
            self.assertEqual(status, 400)
            self.assertIn(missing, answer["error"])
        cases = {"another version": (dict(event("1"), specversion="0.3"), "specversion is '0.3'"), "empty id": (event(""), "'id' is empty"),
                 "a bad time": (event("1", time="soon"), "time"), "cut off": (json.dumps(event("1"))[:-2], "line 1")}
        for name, (body, word) in cases.items():
            with self.subTest(name):
                status, answer = self.post_event(p, body)
                self.assertEqual(status, 400, answer)
                self.assertIn(word, answer["error"])
        self.assertEqual(self.post(p, "x", "application/cloudevents+avro")[0], 415)
        self.assertEqual(self.post(p, "[]", "application/cloudevents-batch+json")[0], 202)
        self.assertEqual(self.post(p, [event("1"), {}], "application/cloudevents-batch+json")[0], 400)
        status, counts = self.post(p, [event("1"), event("2", time="soon")], "application/cloudevents-batch+json")
        self.assertEqual((status, counts["accepted"], counts["rejected"]), (202, 1, 1))
        self.assertEqual(len(p.records("signal")), 1)


class Reconciled(Sources):
    def test_what_alertmanager_does_not_list_ends_only_what_came_from_it(self):
        p = self.platform()
        p.stop()
        try:
            am = Alertmanager(self.folder, "http://127.0.0.1:9/", f"{p.data}/secrets/webhook-token")
            am.start()
        except Unavailable as e:
            self.skipTest(str(e))
        self.addCleanup(am.stop)
        p.arguments = ["--alertmanager", am.url, *MARGIN]
        p.start()
        since = time.time() - 120
        p.post_alerts(alert("Same", starts_at=since, grafana_folder="F"))
        same = grafana({k: v for k, v in grafana_alert("Same", starts_at=since).items() if k != "fingerprint"})
        self.post(p, same)
        self.post_event(p, event("1", "a", data={"labels": {"alertname": "Same", "grafana_folder": "F"}, "startsAt": rfc3339(since)}))
        self.post_event(p, event("2", "b"))
        signals = p.records("signal")
        self.assertIn('balm_alert_unseen_seconds{source="alertmanager"}', p.request("GET", "/metrics")[2].decode())
        self.assertEqual([s["source"] for s in signals], ["alertmanager", "grafana", "cloudevents", "cloudevents"])
        self.assertEqual(len({s["fingerprint"] for s in signals[:3]}), 1, "one fingerprint")
        self.assertEqual(len({s["incident"] for s in signals}), 4, "and four incidents")
        expired = p.wait_record("expired", 30)
        self.assertEqual((expired["source"], expired["incident"]), ("alertmanager", signals[0]["incident"]))
        p.post_alerts(alert("Marker", starts_at=since))
        wait_until(lambda: len(p.records("expired")) == 2, 30, "rounds went on")
        self.assertEqual({r["source"] for r in p.records("expired")}, {"alertmanager"})
        self.assertEqual(self.post(p, same)[1]["duplicate"], 1, "open still")


class Explained(Sources):
    def explain(self, p, body):
        path = os.path.join(self.folder, "body.json")
        with open(path, "w") as f:
            json.dump(body, f)
        code, text, error = p.cli("explain", path, "--json")
        self.assertEqual(code, 0, error)
        return json.loads(text)["alerts"]

    def test_explain_reads_the_same_bodies(self):
        p = self.platform(runbooks={"r.yaml": RUNBOOKS, "e.yaml": EVENT_RUNBOOK}, stack=STACK)
        first, second = self.explain(p, grafana(grafana_alert("Quiet", service="nginx"), grafana_alert("DatasourceNoData", rulename="Quiet")))
        self.assertEqual((first["result"], first["runbook"]["name"]), ("shadow", "quiet"))
        self.assertEqual(second["result"], "rejected")
        self.assertIn("measured nothing", second["reason"])
        crash = event("1", "s", "dev.knative.apiserver.resource.add", {"reason": "BackOff", "involvedObject": {"namespace": "shop", "name": "web-1"}})
        self.assertEqual(self.explain(p, crash)[0]["target"], "pod/web-1")
        self.assertEqual([a["result"] for a in self.explain(p, [crash, event("2")])], ["shadow", "no_runbook"])
        self.assertEqual(p.records("signal"), [])


if __name__ == "__main__":
    main()
