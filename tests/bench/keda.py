"""Figures of the scaler: calls a second beside grpc-go's server, what a thousand ScaledObjects cost, and how soon new work is pushed."""
import json
import os
import re
import shutil
import struct
import subprocess
import time

import grpc_build
import scaler
from harness import PATIENCE, Platform, alert, free_ports, stack_file, wait_until
from measure import LOAD_CPU, SECONDS, SERVER_CPU, Program, in_pairs, median, memory_kib, pin, ratio

OBJECTS, PUSHES = 1000, 200
CALL = "/externalscaler.ExternalScaler/GetMetrics"
RUNBOOK = scaler.RUNBOOK.replace("max: 1000,", "max: 10000,")


def field(number, value):
    return bytes((number << 3 | 2, len(value))) + value


def request_file(folder):
    """What KEDA sends to be told a metric, framed."""
    metadata = {b"function": b"echo", b"targetSize": b"10", b"scalerAddress": b"balm.balm.svc:9091"}
    reference = field(1, b"echo") + field(2, b"bots") + b"".join(field(3, field(1, k) + field(2, v)) for k, v in metadata.items())
    body = field(1, reference) + field(2, b"balm-echo")
    path = os.path.join(folder, "request")
    with open(path, "wb") as f:
        f.write(b"\0" + struct.pack(">I", len(body)) + body)
    return path


def h2load(port, request):
    """Calls a second on 8 connections, 32 at a time on each."""
    line = ["taskset", "-c", LOAD_CPU, "h2load", "-c", "8", "-m", "32", "-D", f"{SECONDS:g}", "--warm-up-time", "1", "-H", "content-type: application/grpc",
            "-H", "te: trailers", "-d", request, f"http://127.0.0.1:{port}{CALL}"]
    text = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS + 60).stdout
    rate, counts = re.search(r"([\d.]+) req/s", text), re.search(r"(\d+) done, (\d+) succeeded", text)
    data = re.search(r"\((\d+)\) data", text)
    # Calls that fail have status 200 too, but no message.
    if not rate or not counts or counts.group(1) != counts.group(2) or int(data.group(1)) < 10 * int(counts.group(1)) or counts.group(1) == "0":
        raise RuntimeError("h2load: " + text)
    return float(rate.group(1))


def platform(folder, stack, **more):
    p = Platform(folder, stack=stack, arguments=["--log-level", "info", "--idle", "0s"], **more)
    p.port, p.scaler_port = free_ports(2)
    p.start()
    wait_until(lambda: p.find_log("KEDA can ask"), 20, "the scaler listens")
    return p


def unary(folder, table):
    figure = "GetMetrics, 8 connections × 32 at a time, one core"
    if not shutil.which("h2load"):
        table.skip(figure, "no h2load")
        return
    try:
        program = grpc_build.keda()
    except grpc_build.Unavailable as e:
        table.skip(figure, str(e))
        return
    request = request_file(folder)
    p = platform(os.path.join(folder, "unary"), stack_file("echo"))
    peer = Program(program, "serve", env={"GOMAXPROCS": "1"})
    try:
        pin(p.process.pid, SERVER_CPU)
        got, theirs = in_pairs(lambda: h2load(p.scaler_port, request), lambda: h2load(peer.port, request))
        times = ratio(got, theirs)
        table.row(figure, f"{median(got):,.0f}/s", f"grpc-go {median(theirs):,.0f}/s", f"{times:.2f}", "≥ 1.5", times >= 1.5)
    finally:
        peer.stop()
        p.stop()


class Client:
    """KEDA's client on the load's core."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(["taskset", "-c", LOAD_CPU, grpc_build.keda(), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def said(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        lines = self.process.stdout.read().splitlines()
        self.process.wait(60)
        self.process.stdout.close()
        return json.loads(lines[-1]) if lines else None


def programs(folder, names):
    """A folder of functions that all are the same small program."""
    functions = os.path.join(folder, "functions")
    for name in names:
        os.makedirs(os.path.join(functions, name))
        path = os.path.join(functions, name, "run.sh")
        with open(path, "w") as f:
            f.write("#!/bin/sh\nread -r ignored\n")
        os.chmod(path, 0o755)
    return functions


def objects(folder, table):
    """Each function has had work, so that the queue knows a thousand of them."""
    names = [f"bot-{i}" for i in range(OBJECTS)]
    stack = stack_file() + "".join(f"  {name}: {{image: {name}, fprocess: ./run.sh}}\n" for name in names)
    p = platform(folder, stack, functions=programs(folder, names))
    try:
        for name in names:
            wait_until(lambda: p.request("POST", f"/async-function/{name}", "x")[0] == 202, 30, name)
        wait_until(lambda: json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])["backlog"]["ready"] == 0, 300, "all is done")
        before = memory_kib(p.process.pid)
        client = Client("many", f"127.0.0.1:{p.scaler_port}", "-n", str(OBJECTS), "-interval", "2s")
        opened = client.said()
        after = memory_kib(p.process.pid)
        time.sleep(SECONDS * 2)
        calm = client.end()  # of the time since they were open
        ok = not calm["failures"] and opened["open"] == opened["specs"] == OBJECTS
        table.row(f"{OBJECTS} ScaledObjects on one connection, polled every 2 s: p99 of a call", f"{calm['p99_ms']:.2f} ms, p50 {calm['p50_ms']:.2f} ms", "–",
                  "–", "< 5 ms", ok and calm["p99_ms"] < 5)
        table.row(f"memory of their {2 * OBJECTS} streams", f"{(after - before) / 1024:.1f} MB", "–", "–", "< 10 MB", ok and after - before < 10 * 1024)
    finally:
        p.stop()


def pushes(folder, table):
    p = platform(folder, stack_file() + "  prog: {image: prog, fprocess: ./run.sh}\n", functions=programs(folder, ["prog"]),
                 runbooks={"work.yaml": RUNBOOK})
    try:
        client, took = Client("push", f"127.0.0.1:{p.scaler_port}", "-function", "prog"), []
        client.said()
        for i in range(PUSHES):
            wait_until(lambda: is_idle(p), 30 * PATIENCE, "no work")
            began = time.time_ns()
            p.post_alerts(alert("Work", n=str(i)))
            took.append((client.said()["unix_ns"] - began) / 1e6)
        client.end()
        took.sort()
        p99 = took[int(PUSHES * 0.99)]
        table.row("an alert posted to the message at KEDA's client", f"p99 {p99:.2f} ms, p50 {median(took):.2f} ms", "KEDA polls every 30 s", "–", "p99 < 10 ms",
                  p99 < 10)
    finally:
        p.stop()


def is_idle(p):
    backlog = json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])["backlog"]
    return backlog["ready"] == backlog["leased"] == 0


def scaler(folder, table):
    """All of them."""
    for figure in (unary, objects, pushes):
        inside = os.path.join(folder, figure.__name__)
        os.makedirs(inside)
        figure(inside, table)
