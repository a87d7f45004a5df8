#!/usr/bin/env python3
"""CloudEvents of other languages' SDKs through Knative's queue-proxy to a function, and its reply events back: part of `make e2e-knative`."""
import json
import os
import sys
import unittest
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import events_sdk  # noqa: E402
import go_build  # noqa: E402
import own_network  # noqa: E402
import queue_proxy_build  # noqa: E402
from events_sdk import data_of, plain, send  # noqa: E402
from harness import request, wait_until  # noqa: E402
from knative_pod import QUEUE_PORT, Function, QueueProxy  # noqa: E402
from test_bots import KEY, sign  # noqa: E402

URL = f"http://127.0.0.1:{QUEUE_PORT}/"
MODES = ("binary", "structured", "batch")
STRUCTURED, BATCH = {"Content-Type": "application/cloudevents+json; charset=UTF-8"}, {"Content-Type": "application/cloudevents-batch+json"}
SENDERS = {}


def setUpModule():
    global PROGRAM
    try:
        PROGRAM = queue_proxy_build.queue_proxy()
        SENDERS.update(go=events_sdk.go_sender(), python=events_sdk.python_sender())
        own_network.enter()
    except (go_build.Unavailable, own_network.Unavailable) as e:
        raise unittest.SkipTest(str(e).replace("'", "`"))


def binary(**attributes):
    return {f"ce-{name}": value for name, value in {"specversion": "1.0", "id": "1", "source": "/test", "type": "t", **attributes}.items()}


def document(**members):
    return {"specversion": "1.0", "id": "1", "source": "/test", "type": "t", **members}


class Events(unittest.TestCase):
    def start(self, name, **arguments):
        function = Function(name, **arguments)
        self.addCleanup(function.close)
        function.wait_ready()
        queue = QueueProxy(PROGRAM)
        self.addCleanup(queue.close)
        queue.wait_listening()
        wait_until(lambda: queue.probe() == 200, 20, "the pod is ready")
        return function

    def post(self, body, headers):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return request(QUEUE_PORT, "POST", "/", body, {"Prefer": "reply", **headers})

    def reply(self, **members):
        """The reply to a structured event, as JSON."""
        status, headers, body = self.post(document(**members), STRUCTURED)
        self.assertEqual((status, headers.get("content-type")), (200, "application/cloudevents+json"), body)
        return json.loads(body)

    def status(self, body, headers):
        return self.post(body, headers)[0]


class Sdks(Events):
    EVENTS = [
        plain(b'{"alertname": "Down", "n": [1, 2.5, null, true]}', id="json", datacontenttype="application/json"),
        plain(b'{"a": 1}', id="suffix", datacontenttype="application/vnd.balm+json", dataschema="https://balm.dev/schema"),
        plain("line\nzwölf €".encode(), id="text", datacontenttype="text/plain", subject="Euro € 😀 100% \"quoted\" a+b"),
        plain(bytes(range(256)), id="bytes", datacontenttype="application/octet-stream", time="2026-01-02T03:04:05.000006Z"),
        plain(json.dumps({"text": "x" * 100000}).encode(), id="large", datacontenttype="application/json", tenant="a b"),
    ]

    def events_for(self, language, mode):
        """Without what the SDK itself cannot: Go's takes no JSON value as the data of a type that ends in +json."""
        return [e for e in self.EVENTS if language != "go" or mode == "binary" or e["attributes"]["id"] != "suffix"]

    def check_reply(self, event, reply, seen, is_encoded):
        name, given, got = event["attributes"]["id"], event["attributes"], dict(reply["attributes"])
        if is_encoded:  # Go's SDK sends and reads headers as they are
            got["subject"] = urllib.parse.unquote(got["subject"])
        self.assertEqual((got["type"], got["source"], got["specversion"]), ("dev.balm.echo.result", "/echo", "1.0"), name)
        self.assertEqual((got["datacontenttype"], got.get("subject", "")), (given["datacontenttype"], given.get("subject", "")), name)
        self.assertNotIn(got["id"], seen | {given["id"]})
        seen.add(got["id"])
        self.assertEqual(got["balmhops"], "1")
        data = data_of(event), data_of(reply)
        if given["datacontenttype"].endswith("json"):
            data = tuple(json.loads(d) for d in data)
        self.assertEqual(*data, name)

    def test_every_event_of_every_sdk_in_every_mode_is_answered_by_one_that_it_reads(self):
        self.start("echo")
        for language, command in SENDERS.items():
            seen = set()
            for mode in MODES:
                with self.subTest(language=language, mode=mode):
                    events = self.events_for(language, mode)
                    answers = send(command, URL, mode, events)
                    self.assertEqual([a["status"] for a in answers], [200] * (1 if mode == "batch" else len(events)))
                    self.assertEqual([a["error"] for a in answers], [""] * len(answers))
                    replies = [e for a in answers for e in a["events"]]
                    self.assertEqual(len(replies), len(events))
                    for event, reply in zip(events, replies):
                        self.check_reply(event, reply, seen, language == "go" and mode == "binary")

    def test_events_without_data_have_no_reply_of_echo(self):
        self.start("echo")
        for language, command in SENDERS.items():
            for mode in MODES:
                answers = send(command, URL, mode, [plain(id="none"), plain(id="none-2")])
                self.assertEqual({(a["status"], len(a["events"])) for a in answers}, {(202, 0)}, (language, mode))

    def test_a_program_in_another_language_sees_the_event_and_its_output_is_the_reply(self):
        self.start("echo", program=["/bin/sh", "-c", 'echo "$Http_Ce_Type $Http_Ce_Id $Http_Content_Type"; cat'], content_type="text/plain")
        for language, command in SENDERS.items():
            for mode in MODES:
                answers = send(command, URL, mode, [plain(b'{"a": 1}', id="e1", datacontenttype="application/json")])
                reply = answers[0]["events"][0]
                text, _, data = data_of(reply).decode().partition("\n")
                self.assertEqual((text, json.loads(data)), ("dev.balm.test e1 application/json", {"a": 1}), (language, mode))
                self.assertEqual(reply["attributes"]["type"], "dev.balm.sh.result")


class Rules(Events):
    def test_header_values_are_decoded_once_and_encoded_as_the_binding_says(self):
        self.start("echo")
        euro = "Euro%20%E2%82%AC%20%F0%9F%98%80"  # the binding's own example
        for given, wanted in ((euro, euro), ("Euro%20%e2%82%ac%20%f0%9f%98%80", euro), ('"Euro %E2%82%AC \\"x\\""', "Euro%20%E2%82%AC%20%22x%22"),
                              ("%41b", "Ab"), ("a+b", "a+b"), ("100%25", "100%25"), ("100% %4 %zz", "100%25%20%254%20%25zz"), ("%2541", "%2541"), ("~!#$&'()*,/:;=?@[]", "~!#$&'()*,/:;=?@[]")):
            with self.subTest(given=given):
                status, headers, _ = self.post(b"x", binary(subject=given))
                self.assertEqual((status, headers.get("ce-subject")), (200, wanted))
        for refused in ("%C0%A0", "%00", "%0A", "%C2%80", "%ED%A0%80", "%EF%BF%BF", "%FF"):
            with self.subTest(refused=refused):
                self.assertEqual(self.status(b"x", binary(subject=refused)), 400)

    def test_data_is_what_its_type_says(self):
        self.start("echo")
        for members, type_of, wanted in (
                ({"data": {"a": [1]}}, "application/json", {"data": {"a": [1]}}),
                ({"data": "text"}, "application/json", {"data": "text"}),
                ({"data": '{"not": "parsed again"}'}, "application/json", {"data": '{"not": "parsed again"}'}),
                ({"data": None}, "application/json", {"data": None}),
                ({"data": 7, "datacontenttype": "application/x+JSON; v=1"}, "application/x+JSON; v=1", {"data": 7}),
                ({"data": "<a/>", "datacontenttype": "application/xml"}, "application/xml", {"data": "<a/>"}),
                ({"data": "ä", "datacontenttype": "text/plain"}, "text/plain", {"data": "ä"}),
                ({"data_base64": "AAH/"}, "application/octet-stream", {"data_base64": "AAH/"}),
                ({"data_base64": "eyJhIjoxfQ==", "datacontenttype": "application/json"}, "application/json", {"data": {"a": 1}})):
            with self.subTest(members=members):
                reply = self.reply(**members)
                self.assertEqual(reply["datacontenttype"], type_of)
                self.assertEqual({k: v for k, v in reply.items() if k.startswith("data") and k != "datacontenttype"}, wanted)
        for members in ({"data": 1, "data_base64": "AA=="}, {"data": 7, "datacontenttype": "text/plain"}, {"data_base64": "A"}, {"data_base64": 7}):
            self.assertEqual(self.status(document(**members), STRUCTURED), 400, members)

    def test_attributes_are_checked_and_null_is_absence(self):
        self.start("echo")
        self.assertNotIn("subject", self.reply(data=1, subject=None))
        self.assertEqual(self.reply(data=1, subject="s", flag=True, count=-3)["subject"], "s")
        for bad in ({"id": ""}, {"id": None}, {"source": 1.5}, {"type": {}}, {"specversion": "0.3"}, {"Subject": "x"}, {"n": 1 << 31}, {"a_b": "x"}):
            self.assertEqual(self.status(document(**{"data": 1, **bad}), STRUCTURED), 400, bad)
        status, headers, body = self.post(document(id="in the payload", data=1), {**STRUCTURED, **binary(id="a copy", type="other")})
        self.assertEqual((status, json.loads(body)["data"], "ce-id" in headers), (200, 1, False))

    def test_statuses_are_those_that_senders_understand(self):
        self.start("echo")
        self.assertEqual(self.status(b"{", STRUCTURED), 400)
        self.assertEqual(self.status(b"x", {"Content-Type": "application/cloudevents+avro"}), 415)
        self.assertEqual(self.status(b"x", {"Content-Type": "application/cloudevents-batch+avro"}), 415)
        self.assertEqual(self.status([], BATCH), 202)
        self.assertEqual(self.status([document(data=1), {}], BATCH), 400)
        self.assertEqual(self.status([document(data=1)] * 1001, BATCH), 400)
        self.assertEqual(self.status({}, BATCH), 400)
        status, headers, body = self.post(b"plain", {"Content-Type": "text/plain", "ce-id": "1"})
        self.assertEqual((status, body, "ce-type" in headers), (200, b"plain", False))  # not an event

    def test_replies_that_come_back_end_there(self):
        self.start("echo")
        status, headers, body = self.post(b"x", binary(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        self.assertEqual((status, headers["ce-traceparent"][:5]), (200, "00-0a"))
        own = {name: value for name, value in headers.items() if name.startswith("ce-") or name == "content-type"}
        self.assertEqual(self.status(body, own), 202)
        hops = 0
        while status == 200:  # two bots that answer each other: here the other one only changes the source
            hops += 1
            status, headers, body = self.post(body, {**own, "ce-source": "/other"})
            own = {name: value for name, value in headers.items() if name.startswith("ce-") or name == "content-type"}
        self.assertEqual((status, hops), (202, 8))

    def test_an_acting_function_takes_signed_events_in_either_mode_and_refuses_the_others_for_good(self):
        self.start("disk-clean", secrets={"balm-invocation-key": KEY, "disk-clean-roots": "/mnt"})
        body = b'{"dry_run":true,"root":"/mnt"}'
        self.assertEqual(self.status(body, {**binary(), "Content-Type": "application/json"}), 403)
        self.assertEqual(self.status(document(data={"root": "/mnt"}), STRUCTURED), 403)
        signed = sign("disk-clean", body)
        status, headers, answer = self.post(body, signed)
        self.assertEqual((status, headers["ce-type"], json.loads(answer)["state"]), (200, "dev.balm.disk-clean.result", "unchanged"))
        members = {name.removeprefix("ce-"): value for name, value in signed.items() if name.startswith("ce-")}
        status, headers, answer = self.post(b'{"data":' + body + b"," + json.dumps(members).encode()[1:], STRUCTURED)
        reply = json.loads(answer)
        self.assertEqual((status, reply["type"], reply["source"], reply["data"]["state"]),
                         (200, "dev.balm.disk-clean.result", "/disk-clean", "unchanged"))
        # The platform, which asks for no reply event, reads the answer as it always was.
        status, headers, answer = request(QUEUE_PORT, "POST", "/", body, signed)
        self.assertEqual((status, json.loads(answer)["state"], "ce-type" in headers), (200, "unchanged", False))


if __name__ == "__main__":
    unittest.main()
