"""The other clients, in a process of their own while a campaign attacks: new connections one after another, each timed.

Reads one JSON line {"port", "path", "method", "body", "headers", "alerts": {"path", "token"} or null} from stdin, tells "ready", goes on until stdin ends and prints
{"tried", "failed": {"what": n}, "ms": [...], "alerts": [names that were answered 202 or 200]}.
"""
import http.client
import json
import select
import socket
import sys
import time

LIMIT_S = 20.0
PACE_S = 0.01
ALERT_EVERY = 10


def ask(port, method, path, body, headers):
    """The status of one request on a connection of its own, reset and not left in TIME_WAIT: a flood uses up the ports as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        if connection.sock is not None:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()


def alert_body(name):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"version": "4", "status": "firing", "receiver": "balm",
                       "alerts": [{"status": "firing", "labels": {"alertname": name}, "annotations": {}, "startsAt": now}]})


def main():
    cfg = json.loads(sys.stdin.readline())
    result = {"tried": 0, "failed": {}, "ms": [], "alerts": []}
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PACE_S)[0]:
        is_alert = cfg["alerts"] is not None and result["tried"] % ALERT_EVERY == ALERT_EVERY - 1
        began = time.monotonic()
        try:
            if is_alert:
                name = f"Probe{cfg['alerts']['run']}x{result['tried']}"
                headers = {"Authorization": "Bearer " + cfg["alerts"]["token"], "Content-Type": "application/json"}
                status = ask(cfg["port"], "POST", cfg["alerts"]["path"], alert_body(name), headers)
                if status in (200, 202):
                    result["alerts"].append(name)
            else:
                status = ask(cfg["port"], cfg["method"], cfg["path"], cfg["body"], {})
            problem = None if status in (200, 202) else f"answered {status}"
        except (OSError, http.client.HTTPException) as e:
            problem = type(e).__name__
        result["tried"] += 1
        result["ms"].append(round((time.monotonic() - began) * 1000, 2))
        if problem:
            result["failed"][problem] = result["failed"].get(problem, 0) + 1
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
