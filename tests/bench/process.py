"""Figures of processes: how fast they start, and what they cost while idle."""
import os
import re
import subprocess
import time

from harness import BUILD, Platform, request, stack_file, wait_until
from measure import Function, bench_program, cpu_seconds, median, memory_kib, in_pairs, ratio
from test_gateway_hang import descendants

RUNS = 60


def cold_ms(program):
    """p50 from exec to the first byte of an answer."""
    done = subprocess.run([bench_program("cold_start"), program, str(RUNS)], capture_output=True, text=True, timeout=120, check=True)
    return float(re.search(r"p50 ([\d.]+) ms", done.stdout).group(1))


def start(folder, table):
    ours, floor = in_pairs(lambda: cold_ms(os.path.join(BUILD, "functions", "echo")), lambda: cold_ms(bench_program("h2o_bare")))
    times = ratio(ours, floor)
    table.row("cold start of a bot: exec → first byte of the answer", f"p50 {median(ours):.2f} ms", f"bare h2o-evloop {median(floor):.2f} ms",
              f"{times:.2f}", "< 1.3×, < 5 ms", times < 1.3 and median(ours) < 5)


def first_invocation(folder, table, n=40):
    """Through the gateway at 0 replicas: shim, sandbox, process, request. Ended by --idle between two calls."""
    p = Platform(os.path.join(folder, "first"), stack=stack_file("echo"), arguments=["--idle", "200ms"])
    p.start()
    times = []
    try:
        for _ in range(n):
            wait_until(lambda: not descendants(p.process.pid), 30, "0 replicas")
            began = time.perf_counter()
            if p.request("POST", "/function/echo", b"x")[0] != 200:
                raise RuntimeError("no answer")
            times.append((time.perf_counter() - began) * 1000)
    finally:
        p.stop()
    floor = cold_ms(bench_program("h2o_bare"))
    table.row("first invocation through the gateway at 0 replicas", f"p50 {median(times):.2f} ms, max {max(times):.2f} ms",
              f"bare h2o-evloop's cold start {floor:.2f} ms", f"{median(times) / floor:.2f}", "p50 < 5 ms", median(times) < 5)


def idle(folder, table):
    subprocess.run(["sync"])  # a program that was linked a moment ago counts its unwritten file pages as private and dirty
    function = Function(os.path.join(BUILD, "functions", "echo"), folder)
    try:
        request(function.port, "POST", "/", b"x" * 1024)
        time.sleep(1)
        bot = memory_kib(function.pid) / 1024
    finally:
        function.stop()
    table.row("idle bot after one invocation without outbound calls", f"{bot:.2f} MB Private_Dirty", "–", "–", "< 1 MB", bot < 1)
    p = Platform(os.path.join(folder, "idle"), stack=stack_file("echo", "disk-clean", "service-restart"), arguments=["--idle", "200ms"])
    p.start()
    try:
        p.request("POST", "/function/echo", b"x")
        wait_until(lambda: not descendants(p.process.pid), 30, "0 replicas")
        time.sleep(2)
        before, began = cpu_seconds(p.process.pid), time.monotonic()
        time.sleep(30)
        share = (cpu_seconds(p.process.pid) - before) / (time.monotonic() - began) * 100
        platform = memory_kib(p.process.pid) / 1024
    finally:
        p.stop()
    table.row("idle platform with three bots at 0", f"{platform:.2f} MB Private_Dirty, {share:.2f} % of a core", "–", "–", "< 8 MB, < 0.2 %",
              platform < 8 and share < 0.2)


def hundred(folder, table, n=100):
    """Each with one replica, which has answered once; their shims count, and so does the platform."""
    stack = "version: 1.0\nprovider: {name: openfaas}\nfunctions:\n"
    stack += "".join(f'  bot{i}: {{image: "echo:latest", labels: {{com.openfaas.scale.min: "1"}}}}\n' for i in range(n))
    subprocess.run(["sync"])
    p = Platform(os.path.join(folder, "hundred"), stack=stack, arguments=["--idle", "0s"])
    p.start()
    try:
        for i in range(n):
            if p.request("POST", f"/function/bot{i}", b"x" * 1024)[0] != 200:
                raise RuntimeError("no answer")
        time.sleep(2)
        below = descendants(p.process.pid)
        if sorted(below.values()).count("echo") != n:
            raise RuntimeError(f"{sorted(below.values()).count('echo')} replicas of {n}")
        bots, platform = sum(memory_kib(pid) for pid in below) / 1024, memory_kib(p.process.pid) / 1024
    finally:
        p.stop()
    table.row(f"{n} idle bots at one replica each, with their shims", f"{bots:.1f} MB Private_Dirty; with the platform {bots + platform:.1f} MB", "–", "–",
              "< 120 MB", bots + platform < 120)
