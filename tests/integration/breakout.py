#!/usr/bin/env python3
"""A function that tries to get out: targets as JSON on stdin, for each attempt "done" or why not as JSON on stdout. test_isolation.py deploys it."""
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile

libc = ctypes.CDLL(None, use_errno=True)
# asm/unistd.h
NUMBERS = {
    "x86_64": {"ptrace": 101, "personality": 135, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "init_module": 175, "kexec_load": 246,
               "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308,
               "process_vm_readv": 310, "kcmp": 312, "finit_module": 313, "bpf": 321, "userfaultfd": 323},
    "aarch64": {"ptrace": 117, "personality": 92, "pivot_root": 41, "chroot": 51, "mount": 40, "umount2": 39, "init_module": 105, "kexec_load": 104,
                "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268,
                "process_vm_readv": 270, "kcmp": 272, "finit_module": 273, "bpf": 280, "userfaultfd": 282},
}[os.uname().machine]
NUMBERS.update({"io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_getfd": 438, "mount_setattr": 442})
CLONE_NEWUSER, CLONE, CLONE3 = 0x10000000, {"x86_64": 56, "aarch64": 220}[os.uname().machine], 435
TIOCSTI, PTRACE_ATTACH, EPERM = 0x5412, 16, 1
# What one process may do to another of the same user, done so that it changes nothing.
CHANGES = {"limits": lambda pid: resource.prlimit(pid, resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)) and None,
           "priority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)),
           "scheduler": lambda pid: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)),
           "processors": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(pid))}
# What all processes of one user share.
OF_USER = {"x86_64": {"shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240}, "aarch64": {"shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180}}
HARMLESS = {"personality": (0,), "unshare": (CLONE_NEWUSER,), "ptrace": (0,), "chroot": (b"/",)}


def syscall(number, *arguments):
    """Arguments are all 0 where none are given: a call that is let in fails by something else than EPERM, or works."""
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *(arguments or (0, 0, 0, 0, 0, 0))) >= 0:
        return "done"
    return os.strerror(ctypes.get_errno())


def attempt(what, *arguments):
    try:
        got = what(*arguments)
        return got if isinstance(got, str) else "done"
    except (OSError, subprocess.SubprocessError, ValueError) as e:
        return os.strerror(e.errno) if isinstance(e, OSError) and e.errno else str(e) or type(e).__name__


def read(path):
    with open(path, "rb") as f:
        f.read(1)


def write(path):
    with open(path, "ab") as f:
        f.write(b"x")


def connect(address):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(address)


def in_temporary(name, work):
    path = os.path.join(os.environ["TMPDIR"], name)
    work(path)


def effective_uid_of(program):
    done = subprocess.run([program, "-u"], capture_output=True, text=True, timeout=20, check=True)
    return "done" if int(done.stdout) == 0 else f"runs as {done.stdout.strip()}"


def capabilities():
    with open("/proc/self/status") as f:
        sets = dict(line.split(":\t") for line in f.read().splitlines() if line.startswith(("Cap", "NoNew", "Seccomp:")))
    return {k: v.strip() for k, v in sets.items()}


def clone_user():
    ctypes.set_errno(0)
    pid = libc.syscall(ctypes.c_long(CLONE), ctypes.c_ulong(CLONE_NEWUSER | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return "done" if pid > 0 else os.strerror(ctypes.get_errno())


def become(uid):
    os.setresuid(uid, uid, uid)


def main():
    t = json.load(sys.stdin)
    got = {}
    for name in ("secret", "journal", "password", "memory", "environ", "root_of"):
        for path in t.get(name, []):
            got[f"read {path}"] = attempt(read, path)
    for path in t.get("folders", []):
        got[f"list {path}"] = attempt(lambda p=path: os.listdir(p) and None)
    for path in t.get("writes", []):
        got[f"write {path}"] = attempt(write, path)
    for path in t.get("removes", []):
        got[f"remove {path}"] = attempt(os.unlink, path)
    for pid in t.get("pids", []):
        got[f"signal {pid}"] = attempt(os.kill, pid, 0)
        got[f"trace {pid}"] = syscall(NUMBERS["ptrace"], PTRACE_ATTACH, pid, 0, 0)
        for name, change in CHANGES.items():
            got[f"change the {name} of {pid}"] = attempt(change, pid)
    for path in t.get("sockets", []):
        got[f"connect {path}"] = attempt(connect, path)
    for name in t.get("abstract", []):
        got[f"connect @{name}"] = attempt(connect, "\0" + name)
    for program in t.get("setuid", []):
        got[f"setuid {program}"] = attempt(effective_uid_of, program)
    for uid in t.get("uids", []):
        got[f"become {uid}"] = attempt(become, uid)
    for name, number in NUMBERS.items():
        got[f"call {name}"] = syscall(number, *HARMLESS.get(name, ()))
    got["clone a user namespace"] = clone_user()
    for family in ("AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
        got[f"socket {family}"] = attempt(socket.socket, getattr(socket, family), socket.SOCK_DGRAM)
    got["type into a terminal"] = syscall({"x86_64": 16, "aarch64": 29}[os.uname().machine], 0, TIOCSTI, b"x")
    facts = {"fds": {}, "environment": dict(os.environ), "core": resource.getrlimit(resource.RLIMIT_CORE),
             "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1], "uid": os.getuid(), "gid": os.getgid(),
             "groups": os.getgroups(), "status": capabilities(), "temporary": attempt(in_temporary, "mine", write) == "done",
             "of user": {name: syscall(number) for name, number in OF_USER[os.uname().machine].items()},
             "priority of all": attempt(os.setpriority, os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0)),
             "inet": attempt(socket.socket, socket.AF_INET) == "done", "clone3": syscall(CLONE3)}
    if t.get("keep"):
        with tempfile.NamedTemporaryFile(delete=False) as f:
            facts["kept"] = f.name
    for fd in os.listdir("/proc/self/fd"):
        try:
            facts["fds"][fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # of the listing itself
    json.dump({"got": got, "facts": facts}, sys.stdout)


main()
