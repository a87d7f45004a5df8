"""Figures of the data path: a function's echo, its outbound calls, and the gateway's way to a warm function."""
import os
import subprocess

from harness import BUILD, Platform, free_port, stack_file, wait_until
from measure import (LOAD_CPU, LUA_POST_1K, SERVER_CPU, Function, Missing, Program, bench_program, go_program, in_pairs, median, pin, ratio,
                     wrk)
from peers import Unavailable, answers, binary
from test_gateway_hang import descendants

HERE = os.path.dirname(os.path.abspath(__file__))


class Nginx:
    """One worker on one core, no access log, keep-alive without an end. `server` is the server block's content, `http` what stands before it."""

    def __init__(self, folder, server, http=""):
        self.port = free_port()
        self.folder = os.path.join(folder, f"nginx-{self.port}")
        os.makedirs(os.path.join(self.folder, "tmp"))
        config = os.path.join(self.folder, "nginx.conf")
        temp = " ".join(f"{kind}_temp_path tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(config, "w") as f:
            f.write(f"daemon off; worker_processes 1; pid nginx.pid; error_log error.log;\n"
                    f"events {{ worker_connections 1024; }}\n"
                    f"http {{ access_log off; keepalive_requests 100000000; {temp} {http}\n"
                    f"server {{ listen 127.0.0.1:{self.port}; {server} }} }}\n")
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CPU, binary("nginx"), "-c", config, "-p", self.folder],
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_until(lambda: answers(f"http://127.0.0.1:{self.port}/"), 10, "nginx answers")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def rates(loads):
    return [load.rate for load in loads]


def say(loads):
    return f"{median(rates(loads)):,.0f}/s, p99 {median([load.p99_ms for load in loads]):.2f} ms"


def load_on(port, path="/", connections=64):
    return lambda: wrk(f"http://127.0.0.1:{port}{path}", LUA_POST_1K, connections)


def echo(folder, table):
    """Bare h2o, nginx and Go take turns with ours, so that all ratios are from pairs of one run."""
    ours = Function(os.path.join(BUILD, "functions", "echo"), folder)
    stops = [ours]
    try:
        bare = Program(bench_program("h2o_bare"))
        stops.append(bare)
        got, floor = in_pairs(load_on(ours.port), load_on(bare.port))
        p99 = ratio([load.p99_ms for load in got], [load.p99_ms for load in floor])
        times = ratio(rates(got), rates(floor))
        table.row("echo behind the full runtime, 1 KB POST, 64 connections, one core", say(got), "bare h2o-evloop " + say(floor),
                  f"{times:.2f}; p99 {p99:.2f}×", "≥ 0.90; p99 ≤ 1.5×", times >= 0.90 and p99 <= 1.5)
        peers = [("nginx", "nginx `return 200`", 0.9, lambda: Nginx(folder, 'location / { return 200 "ok"; }')),
                 ("Go", "Go net/http", 1.7, lambda: Program(go_program(folder, os.path.join(HERE, "peer.go")), env={"GOMAXPROCS": "1"}))]
        for name, what, least, start in peers:
            try:
                stops.append(start())
            except (Missing, Unavailable) as e:
                table.skip(f"the same against {name}", str(e))
                continue
            got, peer = in_pairs(load_on(ours.port), load_on(stops[-1].port))
            times = ratio(rates(got), rates(peer))
            table.row(f"the same against {name}", say(got), f"{what} {say(peer)}", f"{times:.2f}", f"≥ {least}", times >= least)
    finally:
        for program in stops:
            program.stop()


def outbound(folder, table):
    figure = "one outbound POST per request, 64 connections, one core"
    try:
        go_path = go_program(folder, os.path.join(HERE, "peer.go"))
    except Missing as e:
        table.skip(figure, str(e))
        return
    backend = Program(bench_program("h2o_bare"), cpu=LOAD_CPU)
    url = f"http://127.0.0.1:{backend.port}/"
    ours = Function(bench_program("relay"), folder, env={"relay_to": url})
    go = Program(go_path, url, env={"GOMAXPROCS": "1"})
    try:
        got, peer = in_pairs(load_on(ours.port), load_on(go.port))
    finally:
        for program in (ours, go, backend):
            program.stop()
    times = ratio(rates(got), rates(peer))
    table.row(figure, say(got), "Go net/http " + say(peer), f"{times:.2f}", "≥ 2.0", times >= 2.0 and sum(load.bad for load in got) == 0)


def gateway(folder, table):
    """nginx passes to the same function over TCP with keep-alive. In both cases the function runs on the load's core."""
    figure = "through the gateway to a warm function, 64 connections, one core"
    p = Platform(os.path.join(folder, "gateway"), stack=stack_file("echo"), arguments=["--log-level", "info", "--idle", "0s"])
    stops = []
    try:
        p.start()
        wait_until(lambda: p.request("POST", "/function/echo", b"x")[0] == 200, 10, "the function is warm")
        pin(p.process.pid, SERVER_CPU)
        for replica in (pid for pid, name in descendants(p.process.pid).items() if name == "echo"):
            pin(replica, LOAD_CPU)
        backend = Function(os.path.join(BUILD, "functions", "echo"), folder, cpu=LOAD_CPU)
        stops.append(backend)
        nginx = Nginx(folder, 'location / { proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection ""; }',
                      f"upstream function {{ server 127.0.0.1:{backend.port}; keepalive 64; }}")
        stops.append(nginx)
        got, peer = in_pairs(load_on(p.port, "/function/echo"), load_on(nginx.port))
        times, bad = ratio(rates(got), rates(peer)), sum(load.bad for load in got)
        table.row(figure, say(got) + (f", {bad} failed" if bad else ""), "nginx proxy_pass " + say(peer), f"{times:.2f}", "≥ 0.9",
                  times >= 0.9 and bad == 0)
    except Unavailable as e:
        table.skip(figure, str(e))
    finally:
        p.stop()
        for program in stops:
            program.stop()
