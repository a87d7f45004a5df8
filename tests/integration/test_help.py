#!/usr/bin/env python3
"""Man pages and completion as the shells and formatters that read them see them: made from the same table as --help."""
import glob
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import time
import unittest

import harness
from harness import BALM, PATIENCE, ROOT

BASH = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_balm
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def balm(*arguments):
    return subprocess.run([BALM, *arguments], capture_output=True, text=True, timeout=60 * PATIENCE)


def command_names():
    return re.findall(r"^  ([a-z][a-z-]*)  +\S", balm("--help").stdout, re.M)


class ManPages(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="balm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.page = os.path.join(self.folder, "balm.1")
        with open(self.page, "w") as f:
            f.write(balm("help", "--man").stdout)

    def pages(self):
        return [self.page] + sorted(glob.glob(os.path.join(ROOT, "runtime", "cli", "man", "*.[57]")))

    def test_every_command_and_option_of_help_is_in_the_page(self):
        with open(self.page) as f:
            text = f.read().replace("\\-", "-")
        self.assertGreater(len(command_names()), 5)
        for name in command_names():
            self.assertIn(f".SS balm {name}\n", text)
            for option in re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", balm("help", name).stdout, re.M):
                self.assertIn(f"\\fB{option}\\fR", text, name)

    def check(self, *command):
        if shutil.which(command[0]) is None:
            self.skipTest(f"{command[0]} is not installed: the man pages were not checked with it")
        for page in self.pages():
            done = subprocess.run([*command, page], capture_output=True, text=True, timeout=60 * PATIENCE)
            said = done.stderr + (done.stdout if command[0] == "mandoc" else "")
            self.assertEqual((done.returncode, said), (0, ""), page)

    def test_mandoc_finds_nothing(self):
        self.check("mandoc", "-Tlint", "-Wwarning")

    def test_groff_warns_of_nothing(self):
        self.check("groff", "-man", "-ww", "-z", "-Tutf8")


class Bash(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="balm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.script = os.path.join(self.folder, "balm.bash")
        with open(self.script, "w") as f:
            f.write(balm("help", "--completion", "bash").stdout)
        os.mkdir(os.path.join(self.folder, "a folder"))
        with open(os.path.join(self.folder, "a file"), "w"):
            pass

    def complete(self, *words):
        quoted = " ".join("'" + w + "'" for w in words)
        done = subprocess.run(["bash", "--norc", "-c", BASH.format(script=self.script, words=quoted)], capture_output=True, text=True,
                              cwd=self.folder, timeout=60 * PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def test_commands(self):
        self.assertEqual(set(self.complete("balm", "")), {*command_names(), "--help", "--version"})
        self.assertEqual(self.complete("balm", "aud"), ["audit"])

    def test_words_of_a_command(self):
        self.assertLessEqual({"tail", "cat", "verify"}, set(self.complete("balm", "audit", "")))
        self.assertEqual(self.complete("balm", "why", "l"), ["last"])
        self.assertEqual(self.complete("balm", "help", "stat"), ["status"])

    def test_options_of_every_command(self):
        for name in command_names():
            known = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", balm("help", name).stdout, re.M))
            self.assertEqual(set(self.complete("balm", name, "--")), known | {"--help"}, name)
        self.assertEqual(self.complete("balm", "up", "--host"), ["--host-acts"])

    def test_values(self):
        self.assertEqual(self.complete("balm", "up", "--data", "a"), ["a folder"])
        self.assertEqual(self.complete("balm", "up", "--data", "=", "a"), ["a folder"])
        self.assertEqual(self.complete("balm", "up", "--data", "="), ["a folder"])
        self.assertEqual(sorted(self.complete("balm", "up", "-f", "a")), ["a file", "a folder"])
        self.assertEqual(self.complete("balm", "help", "--completion", ""), ["bash", "zsh"])
        self.assertEqual(self.complete("balm", "up", "--port", ""), [""])


class Zsh(unittest.TestCase):
    def setUp(self):
        if shutil.which("zsh") is None:
            self.skipTest("zsh is not installed: its completion was not checked")
        self.folder = tempfile.mkdtemp(prefix="balm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        with open(os.path.join(self.folder, "_balm"), "w") as f:
            f.write(balm("help", "--completion", "zsh").stdout)

    def test_it_parses(self):
        done = subprocess.run(["zsh", "-n", os.path.join(self.folder, "_balm")], capture_output=True, text=True, timeout=60 * PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def read_until(self, fd, mark, seconds=30):
        text, end = "", time.monotonic() + seconds * PATIENCE
        while mark not in text:
            self.assertLess(time.monotonic(), end, f"'{mark}' is not in: {text!r}")
            if select.select([fd], [], [], 0.2)[0]:
                text += os.read(fd, 65536).decode(errors="replace")
        return text

    def test_a_real_shell_completes_with_it(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.environ.update(TERM="dumb", PS1="ready> ")
            os.execvp("zsh", ["zsh", "-f", "-i"])
        try:
            self.read_until(fd, "ready> ")
            # The quotes keep what is typed, and echoed, from being taken for what is printed.
            os.write(fd, b"fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; balm() { print -r g'o't $* }; print loa''ded\n")
            self.read_until(fd, "loaded")
            for typed, added in ((b"balm aud\t", "it "), (b"ver\t", "ify "), (b"--pub\t", "lic-key")):
                os.write(fd, typed)
                self.read_until(fd, added)
            os.write(fd, b"x\n")
            self.read_until(fd, "got audit verify --public-key=x")
        finally:
            os.close(fd)
            os.kill(pid, 9)
            os.waitpid(pid, 0)


class Usage(unittest.TestCase):
    def test_wrong_words_name_the_nearest_or_what_there_is(self):
        for arguments, sentence in ((("help", "stauts"), "did you mean 'status'?"), (("help", "--compltion", "bash"), "did you mean --completion?"),
                                    (("help", "--completion", "fish"), "not 'fish'"), (("help", "up", "why"), "got 'why' as well")):
            done = balm(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
            self.assertIn(sentence, done.stderr)


if __name__ == "__main__":
    harness.main()
