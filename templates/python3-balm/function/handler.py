"""One invocation: the parameters of bot.yaml come checked as a JSON object on stdin, one JSON object on stdout is the result, stderr goes to
the log. They come from an alert: never hand one to a shell."""
import json
import os
import sys


def handle(params):
    """The result: state is done, unchanged, refused, failed or unknown."""
    file = params["file"]
    print(f"looking for {file}", file=sys.stderr)
    if not os.path.exists(file):
        return {"state": "refused", "message": f"{file} is not there"}
    size = os.path.getsize(file)
    return {"state": "unchanged", "message": f"{params['alertname']}: {file} has {size} bytes", "detail": {"bytes": size}}


if __name__ == "__main__":
    json.dump(handle(json.load(sys.stdin)), sys.stdout)
