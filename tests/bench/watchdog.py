"""A function called directly, against OpenFaaS's own way to run one: of-watchdog in http mode before a Go function. The watchdog is looked for in
OF_WATCHDOG and on PATH; neither it nor a way to build it is kept here. It listens on 8081 for its metrics, whatever it is told."""
import os
import shutil
import signal
import socket
import subprocess

from harness import BUILD, free_port, request, wait_until
from measure import SECONDS, SERVER_CPU, Function, Missing, cpu_seconds, go_program, in_pairs, median, memory_kib, ratio
from serve import load_on, rates, say
from test_gateway_hang import descendants

HERE = os.path.dirname(os.path.abspath(__file__))
METRICS_PORT = 8081
# As the template golang-middleware has them, but for a load that lasts longer.
SETTINGS = {"mode": "http", "exec_timeout": "60s", "read_timeout": "60s", "write_timeout": "60s", "prefix_logs": "false"}


def find_watchdog():
    path = os.environ.get("OF_WATCHDOG") or shutil.which("of-watchdog") or shutil.which("fwatchdog")
    if not path or not os.access(path, os.X_OK):
        raise Missing("no of-watchdog (OF_WATCHDOG, PATH)")
    with socket.socket() as s:
        if s.connect_ex(("127.0.0.1", METRICS_PORT)) == 0:
            raise Missing(f"somebody has port {METRICS_PORT}, which of-watchdog needs")
    return path


class Watchdog:
    """Both processes on the server's core; Go takes as many threads as that has."""

    def __init__(self, path, function, folder):
        self.port, upstream = free_port(), free_port()
        env = dict(SETTINGS, PATH=os.environ["PATH"], TMPDIR=folder, port=str(self.port), fprocess=function, peer_port=str(upstream),
                   upstream_url=f"http://127.0.0.1:{upstream}")
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CPU, path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.pids = [self.process.pid]

        def is_up():
            try:
                return request(self.port, "POST", "/", b"x")[2] == b"x"
            except OSError:
                return False
        try:
            wait_until(is_up, 20, "of-watchdog and its function answer")
        except AssertionError:
            self.pids += descendants(self.process.pid)
            self.stop()
            raise
        self.pids += descendants(self.process.pid)

    def stop(self):
        self.process.kill()  # its drain takes minutes
        self.process.wait(20)
        for pid in self.pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)  # it outlives the watchdog
            except ProcessLookupError:
                pass


def memory_mib(pids, what):
    return sum(memory_kib(pid, what) for pid in pids) / 1024


class Work:
    """A load and the CPU that its server needed: on a machine that others use as well, that says more than the clock."""

    def __init__(self, program, pids):
        self.load, self.pids = load_on(program.port), pids

    def __call__(self):
        before = sum(cpu_seconds(pid) for pid in self.pids)
        load = self.load()
        load.per_cpu_s = load.rate * SECONDS / (sum(cpu_seconds(pid) for pid in self.pids) - before)
        return load


def direct(folder, table):
    figure = "a function called directly, 1 KB POST, 64 connections, one core"
    try:
        path = find_watchdog()
        go_path = go_program(folder, os.path.join(HERE, "peer.go"))
    except Missing as e:
        table.skip(figure, str(e))
        return
    ours = Function(os.path.join(BUILD, "functions", "echo"), folder)
    stops = [ours]
    try:
        theirs = Watchdog(path, go_path, folder)
        stops.append(theirs)
        got, peer = in_pairs(Work(ours, [ours.pid]), Work(theirs, theirs.pids))
        memory = {what: (memory_mib([ours.pid], what), memory_mib(theirs.pids, what)) for what in ("Private_Dirty", "Rss")}
    finally:
        for program in stops:
            program.stop()
    times, bad = ratio(rates(got), rates(peer)), sum(load.bad for load in got)
    table.row(figure, say(got) + (f", {bad} failed" if bad else ""), "of-watchdog in http mode, Go " + say(peer), f"{times:.1f}", "≥ 15",
              times >= 15 and bad == 0)
    ours_cpu, theirs_cpu = [load.per_cpu_s for load in got], [load.per_cpu_s for load in peer]
    times = ratio(ours_cpu, theirs_cpu)
    table.row("the same: requests a second of CPU", f"{median(ours_cpu):,.0f}", f"{median(theirs_cpu):,.0f}", f"{times:.1f}", "≥ 15", times >= 15)
    (dirty, their_dirty), (resident, their_resident) = memory["Private_Dirty"], memory["Rss"]
    table.row("the same: memory after that load", f"{dirty:.1f} MB Private_Dirty (resident, with shared objects, {resident:.1f} MB)",
              f"both processes {their_dirty:.1f} MB (resident {their_resident:.1f} MB)", f"{dirty / their_dirty:.3f}", "≤ 0.1",
              dirty <= their_dirty / 10)
