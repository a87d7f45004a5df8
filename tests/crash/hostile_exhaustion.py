"""Descriptors and memory run out: others are served or told so, nothing that was accepted is lost, and it goes on by itself when there is room again."""
import http.client
import json
import os
import resource
import time

from hostile_connections import open_many, quietly
from hostile_peers import MIB, P99_LIMIT_MS, SLOW, Function, Others, Up, close_all, report
from harness import PATIENCE, alert, request, wait_until, webhook

DESCRIPTORS = 160
BUSY_SHARE = 0.25  # of a core: a process that waits for descriptors must not turn


class Kept:
    """A connection that was there before."""

    def __init__(self, target):
        self.connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30 * PATIENCE)
        self.headers = target.platform.bearer()
        self.accepted, self.answers = [], {}

    def ask(self, method, path, body=None, headers=None):
        """Status, or the name of what went wrong."""
        try:
            self.connection.request(method, path, body, headers or {})
            response = self.connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException) as e:
            self.connection.close()
            status = type(e).__name__
        self.answers[status] = self.answers.get(status, 0) + 1
        return status

    def alert(self, name):
        if self.ask("POST", "/function/alerts", json.dumps(webhook(alert(name))), self.headers) in (200, 202):
            self.accepted.append(name)


def lost(target, names):
    known = {r["labels"]["alertname"] for r in target.platform.records("signal")}
    return [name for name in names if name not in known]


def few_descriptors(table, n):
    """A platform that may have 160: hundreds of connections want them all."""
    with Up(limits=[("nofile", DESCRIPTORS)]) as target:
        with Others(target, descriptors=DESCRIPTORS) as o:
            sockets = open_many(target, n)
            codes = {}
            for _ in range(20):
                status = quietly(lambda: request(target.port, "POST", "/function/echo", "x")[0])
                codes[status] = codes.get(status, 0) + 1
            time.sleep(2)
        close_all(sockets)
        faults = [f"a function behind it answered {codes}"] if set(codes) != {200} else []
        report(table, target, f"{DESCRIPTORS} descriptors and {n} connections", o, faults, "others and a function behind it served")


def no_descriptors(table):
    """Not one is left, for three seconds."""
    with Up() as target:
        kept, before = Kept(target), target.descriptors()
        kept.alert("Before")
        soft, hard = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (before + 1, hard))
        cpu, began = target.cpu_seconds(), time.monotonic()
        waiting = [quietly(lambda: target.dial(timeout=30)) for _ in range(20)]
        for s in waiting:
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        n = 0
        while time.monotonic() - began < 3:
            kept.alert(f"During{n}")
            n += 1
            time.sleep(0.05)
        started = kept.ask("POST", "/function/echo", "x")
        share = (target.cpu_seconds() - cpu) / (time.monotonic() - began)
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (soft, hard))
        back = time.monotonic()
        served = sum(b" 200 " in (quietly(lambda s=s: s.recv(4096)) or b"") for s in waiting)
        wait_until(lambda: quietly(lambda: request(target.port, "POST", "/function/echo", "x")[0]) == 200, 20, "a function starts again")
        seconds = time.monotonic() - back
        kept.alert("After")
        close_all(waiting)
        faults = lost(target, kept.accepted)
        faults = [f"lost: {faults}"] if faults else []
        if "After" not in kept.accepted:
            faults.append("no alert is accepted afterwards")
        if share > BUSY_SHARE * (4 if SLOW else 1):
            faults.append(f"{share * 100:.0f} % of a core while there were none")
        lines = [line for line in target.platform.log if "cannot accept" in str(line.get("message"))]
        if len(lines) > 5:
            faults.append(f"{len(lines)} log lines about it")
        table.row("no descriptor left for 3 s (balm up)", f"{len(kept.accepted)} of {n + 2} alerts accepted on a kept connection, a function's start {started}, {served} of 20 that waited "
                  f"served, {share * 100:.0f} % of a core, {len(lines)} log lines, all well {seconds:.1f} s later", "; ".join(faults) or "0", not faults)


def little_memory(table, is_whole, rng):
    """A platform and a function that may have little, and clients that want more."""
    limit = 640 * MIB
    if SLOW:
        return  # sanitizers reserve terabytes
    with Up(limits=[("as", limit)]) as target:
        crowd(table, target, is_whole, rng, "/function/echo", f"{limit // MIB} MB of address space")
    limit = 192 * MIB
    with Function(limits=[(resource.RLIMIT_DATA, limit)], read_timeout="4s", write_timeout="4s") as target:
        crowd(table, target, is_whole, rng, "/", f"{limit // MIB} MB of memory")


GROUPS = "/sys/fs/cgroup/memory"


def little_group(table, is_whole, rng):
    """The same by a control group, as a container has it, where one can be made (version 1 here: no delegation is needed)."""
    group, limit = os.path.join(GROUPS, f"balm-crash-{os.getpid()}"), 256 * MIB
    try:
        os.mkdir(group)
    except OSError as e:
        print(f"skip memory control group: {e}")
        return
    try:
        with open(os.path.join(group, "memory.limit_in_bytes"), "w") as f:
            f.write(str(limit))
        with Up() as target:
            with open(os.path.join(group, "cgroup.procs"), "w") as f:
                f.write(str(target.pid))
            crowd(table, target, is_whole, rng, "/function/echo", f"a control group of {limit // MIB} MB")
            with open(os.path.join(group, "memory.oom_control")) as f:
                killed = dict(line.split() for line in f).get("oom_kill", "0")
        if killed != "0":
            table.row("processes that the kernel ended for want of memory", limit, killed, False)
    finally:
        wait_until(lambda: not open(os.path.join(group, "cgroup.procs")).read(), 20, "the group is empty")
        os.rmdir(group)


def crowd(table, target, is_whole, rng, echo_path, what):
    """Large bodies, some whole and some not, whose senders read nothing."""
    n = 200 if is_whole else 30
    body = b"m" * (7 * MIB)
    # Bodies of more than 1 MiB are in files of the temporary folder: on a busy disk the loop waits for it.
    with Others(target, growth_mb=600, p99_ms=3 * P99_LIMIT_MS) as o:
        sockets, answered = [], {}
        for i in range(n):
            s = quietly(target.dial)
            if s is None:
                continue
            s.settimeout(2 * PATIENCE)
            sockets.append(s)
            length = len(body) + rng.randrange(2) * 1000
            quietly(lambda s=s, length=length: s.sendall(f"POST {echo_path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode() + body))
        for s in sockets:
            s.settimeout(0.01)
            code = (quietly(lambda s=s: s.recv(12)) or b"-")[-3:].decode(errors="replace")
            answered[code] = answered.get(code, 0) + 1
    close_all(sockets)
    report(table, target, f"{what} and bodies of 7 MB", o, [], f"{len(sockets)} connections, answered " + ", ".join(f"{k}: {v}" for k, v in sorted(answered.items())))


def attack(table, is_whole, rng):
    few_descriptors(table, 1000 if is_whole else 400)
    no_descriptors(table)
    for step in [little_memory, little_group] if is_whole else [rng.choice((little_memory, little_group))]:
        step(table, is_whole, rng)
