"""Sends CloudEvents with Python's SDK and reads the replies with it: events_python.py URL binary|structured|batch, in an environment that has it.

stdin: [{"attributes": {...}, "data_base64": "..."}]; stdout: [{"status": 200, "events": [the same], "error": ""}], one for each request.
"""
import base64
import json
import sys
import urllib.error
import urllib.request

from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse


def is_json(attributes):
    return attributes.get("datacontenttype", "").split(";")[0].endswith(("/json", "+json"))


def to_event(plain, mode):
    attributes = dict(plain["attributes"])
    if "time" in attributes:
        attributes["time"] = isoparse(attributes["time"])
    data = plain.get("data_base64")
    data = base64.b64decode(data) if data is not None else None
    if data is not None and is_json(attributes) and mode != "binary":
        data = json.loads(data)
    return CloudEvent(attributes, data)


def from_event(event):
    attributes = {name: value.isoformat() if hasattr(value, "isoformat") else str(value) for name, value in event.get_attributes().items()}
    data = event.get_data()
    if data is not None and is_json(attributes) and not isinstance(data, bytes):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return {"attributes": attributes, "data_base64": base64.b64encode(data or b"").decode()}


def events_of(headers, body):
    if headers.get("content-type", "").startswith("application/cloudevents-batch"):
        return [JSONFormat().read(None, json.dumps(one)) for one in json.loads(body)]
    return [from_http_event(HTTPMessage(headers, body))]


def ask(url, headers, body):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, {**headers, "Prefer": "reply"}, method="POST"), timeout=60) as response:
            headers, body = {k.lower(): v for k, v in response.headers.items()}, response.read()
            events = events_of(headers, body) if response.status == 200 else []
            return {"status": response.status, "events": [from_event(e) for e in events], "error": ""}
    except urllib.error.HTTPError as e:
        return {"status": e.code, "events": [], "error": ""}


def main():
    url, mode = sys.argv[1:]
    events = [to_event(plain, mode) for plain in json.load(sys.stdin)]
    if mode == "batch":
        body = "[" + ",".join(JSONFormat().write(e).decode() for e in events) + "]"
        answers = [ask(url, {"content-type": "application/cloudevents-batch+json"}, body.encode())]
    else:
        to_message = to_binary_event if mode == "binary" else to_structured_event
        messages = [to_message(e) for e in events]
        answers = [ask(url, m.headers, m.body) for m in messages]
    json.dump(answers, sys.stdout)


main()
