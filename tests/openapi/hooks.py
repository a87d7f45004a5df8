"""Loaded by schemathesis: signs what it sends to functions that act, as the platform would, and brings a part of the valid calls to what the
function may touch here. BALM_OPENAPI is JSON: name, key (of a function that acts), known (parameters that lead to an act)."""
import json
import os
import re
import sys

import requests
import schemathesis

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))
from test_bots import sign  # noqa: E402

FUNCTION = json.loads(os.environ["BALM_OPENAPI"])
# What no JSON Schema can say of a text: its length in bytes, the range of a number that it spells.
BEYOND_SCHEMA = re.compile(r"^parameter '[a-z_0-9]+': (a length of )?\S+ is out of range \(|^parameter '[a-z_0-9]+' must be (a whole number|a duration|a size)")
sent = 0


class Signed(requests.auth.AuthBase):
    def __call__(self, request):
        body = request.body or b""
        signed = sign(FUNCTION["name"], body.encode() if isinstance(body, str) else body, intent=f"fuzz-{sent}")
        del signed["content-type"]
        request.headers.update(signed)
        return request


if FUNCTION["key"]:
    schemathesis.auth.set_from_requests(Signed())


@schemathesis.hook
def before_call(context, case, kwargs):
    """Half of the valid calls act, and those whose example happens to. Nobody waits for what a function will log."""
    global sent
    sent += 1
    if isinstance(case.query, dict) and "follow" in case.query:
        case.query["follow"] = "false"
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_valid or not isinstance(case.body, dict):
        return
    if sent % 2 == 0 or any(case.body.get(name) == value for name, value in FUNCTION["known"].items()):
        case.body = {**case.body, **FUNCTION["known"]}


@schemathesis.check
def valid_parameters_are_taken(ctx, response, case):
    """schemathesis' own positive_data_acceptance, but for what a schema cannot say; then the sentence must be about that."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    message = response.json().get("message", "")
    value = None
    found = re.match(r"parameter '([a-z_0-9]+)'", message)
    if found and isinstance(case.body, dict):
        value = case.body.get(found.group(1))
    assert isinstance(value, str) and BEYOND_SCHEMA.match(message), f"a valid call was refused: {message}"
