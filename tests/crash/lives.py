"""Platforms that are killed and started again on the same folder, and held to what they promised at the end."""
import collections
import http.client
import os
import random
import shutil
import signal
import tempfile
import time

import acts
from harness import PATIENCE, wait_until
from senders import Load
from test_state import snapshots, what_is_known

GONE_S = 20  # for what a killed platform leaves
DEED_S = 120


class Lives:
    def __init__(self, seed, arguments=(), env=None, template=None):
        self.rng = random.Random(seed)
        self.folder = tempfile.mkdtemp(prefix="balm-kill-")
        if template:
            shutil.copytree(template, os.path.join(self.folder, "data"))
        self.p = acts.ActingPlatform(self.folder, arguments, env)
        self.load = Load(self.p, seed)
        self.wrongs, self.kills = [], 0
        self.checkpoints = os.path.join(self.folder, "checkpoints")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.load.end()
        if self.p.process is not None:
            self.p.kill()
        for pid, _ in self.p.others():  # nobody should be there
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)

    def kill(self, code=None):
        """Here, or it has been killed already."""
        code = self.p.kill() if code is None else code
        self.kills += 1
        if code != -signal.SIGKILL:
            self.wrongs.append(f"ended by itself with {code}: {self.p.log_text()}")

    def start(self, wait=True):
        """The next life; what the last one left ends by itself meanwhile."""
        left = self.p.others()
        self.p.start(wait=wait)
        wait_until(lambda: not left.keys() & self.p.others().keys(), GONE_S, f"all ended that the platform before had started: {left}")

    def insist(self, deed):
        """The first true answer of deed(); if the platform dies meanwhile, another one without the library that killed it goes on."""
        end = time.monotonic() + DEED_S * PATIENCE
        while time.monotonic() < end:
            try:
                answer = deed()
                if answer:
                    return answer
            except (OSError, http.client.HTTPException):
                pass
            if self.p.process.poll() is not None:
                self.revive()
            time.sleep(0.005)
        raise AssertionError(f"not within {DEED_S} s\n{self.p.log_text()}")

    def revive(self):
        self.kill()
        self.p.env.pop("LD_PRELOAD", None)
        self.start()

    def keep_checkpoint(self):
        """What was signed up to now, kept where the platform cannot change it."""
        code, text, error = self.p.cli("audit", "checkpoint")
        if code == 0:
            with open(self.checkpoints, "a") as f:
                f.write(text)

    def hold_to_promises(self, is_whole=True):
        """All work has come to its end: what the journal, the bots and the senders say is held against each other. Returns the acts.
        is_whole: no record was removed."""
        records, steps = self.p.records(), self.p.steps()
        found, unasked = acts.acts_of(records, steps)
        self.wrongs += [*self.load.surprises, *acts.lost_alerts(records, self.load), *unasked]
        self.wrongs += acts.wrong_acts(found, set(os.listdir(self.p.marks)))
        before = what_is_known(self.p)
        counted = sum(s["signals"] for s in self.p.status()["sources"] if s["name"] == "alertmanager")
        accepted = len(self.load.accepted) + len(self.load.resolved)
        if is_whole and counted != accepted:
            self.wrongs.append(f"{counted} signals are counted of {accepted} that were accepted")
        if self.p.stop() != 0:
            self.wrongs.append("did not stop by itself")
        self._prove("verify", "genuine and complete\n", *(["--checkpoint", self.checkpoints] if os.path.exists(self.checkpoints) else []))
        if is_whole:
            self._prove("refold", "the same decisions\n")
            self._fold_again(before)
        return found

    def _prove(self, command, verdict, *arguments):
        code, text, error = self.p.cli("audit", command, *arguments, timeout=300)
        if code != 0 or verdict not in text:
            self.wrongs.append(f"audit {command}: {text[-300:]} {error[-300:]}")

    def _fold_again(self, before):
        for path in snapshots(self.p):
            os.unlink(path)
        self.start()
        if self.p.find_log("journal read")["snapshot"] != 0 or what_is_known(self.p) != before:
            self.wrongs.append("folding the whole journal again gives another state")
        self.p.stop()


def report(table, what, tried, wrongs):
    for wrong in wrongs[:20]:
        print(f"     {wrong}")
    table.row(what, tried, f"{len(wrongs)}: {wrongs[0]}" if wrongs else 0, not wrongs)


def say(found):
    """Of acts: how many, how they ended, how many attempts were cut."""
    states = collections.Counter(act.outcomes[0]["state"] if act.outcomes else "without outcome" for act in found.values())
    cut = sum(len(set(act.attempts("begin")) - set(act.attempts("end"))) for act in found.values())
    return f"{len(found)} acts ({', '.join(f'{n} {state}' for state, n in sorted(states.items()))}; {cut} attempts cut)"
