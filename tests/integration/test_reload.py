"""Runbooks that change on disk under a running platform: swaps as Kubernetes makes them, edits as people make them, and what goes wrong with both."""
import json
import os
import re
import threading
import time

from harness import PlatformTest, alert, main, stack_file, wait_until

RUNBOOK = """name: NAME
match: ['alertname="NAME"']
target: t/${labels.x}
mode: MODE
steps:
  - {bot: notify, with: {title: "VERSION", text: "x"}}
"""


def runbook(name, version, mode="shadow"):
    return RUNBOOK.replace("NAME", name).replace("VERSION", str(version)).replace("MODE", mode)


class ConfigMap:
    """A folder as the kubelet keeps it: DIR/NAME -> ..data/NAME, DIR/..data -> ..SERIAL, switched by a rename."""

    def __init__(self, folder):
        self.folder, self.serial = folder, 0
        os.makedirs(folder, exist_ok=True)

    def swap(self, files):
        data = os.path.join(self.folder, "..data")
        old = os.readlink(data) if os.path.islink(data) else None
        self.serial += 1
        new = f"..2026_{self.serial}"
        os.mkdir(os.path.join(self.folder, new))
        for name, text in files.items():
            with open(os.path.join(self.folder, new, name), "w") as f:
                f.write(text)
        os.symlink(new, data + "_tmp")
        os.rename(data + "_tmp", data)
        for name in files:
            if not os.path.islink(os.path.join(self.folder, name)):
                os.symlink(os.path.join("..data", name), os.path.join(self.folder, name))
        for name in os.listdir(self.folder):
            if not name.startswith("..") and name not in files:
                os.unlink(os.path.join(self.folder, name))
        if old:
            for name in os.listdir(os.path.join(self.folder, old)):
                os.unlink(os.path.join(self.folder, old, name))
            os.rmdir(os.path.join(self.folder, old))


class Reload(PlatformTest):
    def status(self, p):
        return json.loads(p.request("GET", "/function/dispatcher/status", headers=p.basic())[2])

    def activations(self, p):
        return p.records("activation")

    def versions(self, p, activation):
        """The versions of the runbooks of one activation, by their recorded contents."""
        contents = {r["runbookHash"]: r["content"] for r in p.records("runbook")}
        return [int(re.search(r'"title":"(\d+)"', contents[item["hash"]]).group(1)) for item in activation["runbooks"]]

    def mapped(self, *arguments):
        """A platform on a ConfigMap of three runbooks."""
        p = self.platform(start=False, stack=stack_file("echo", "notify"), arguments=arguments)
        configmap = ConfigMap(p.runbooks)
        configmap.swap(self.files(0))
        p.start()
        return p, configmap

    @staticmethod
    def files(version):
        return {f"{name}.yaml": runbook(name, version) for name in ("a", "b", "c")}

    def test_a_hundred_swaps_under_load_are_an_activation_each_and_never_half_a_set(self):
        p, configmap = self.mapped()
        done = threading.Event()

        def load():
            i = 0
            while not done.is_set():
                i += 1
                p.post_alerts(*[alert(name, x=f"{i}-{k}") for name in "abc" for k in range(10)])
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for version in range(1, 101):
                before = self.status(p)["runbooks"][0]["hash"]
                configmap.swap(self.files(version))
                wait_until(lambda: self.status(p)["runbooks"][0]["hash"] != before, 30, f"swap {version} is in force\n" + p.log_text())
        finally:
            done.set()
            thread.join()
        activations = self.activations(p)
        self.assertEqual([self.versions(p, a) for a in activations], [[v] * 3 for v in range(0, 101)])
        self.assertEqual({a["actor"] for a in activations[1:]}, {"runbooks folder"})
        self.assertNotIn("runbooksChanged", self.status(p))

    def test_swaps_faster_than_they_are_read_end_with_the_last_one_and_never_half_a_set(self):
        p, configmap = self.mapped()
        for version in range(1, 200):
            configmap.swap(self.files(version))
        wait_until(lambda: self.versions(p, self.activations(p)[-1]) == [199] * 3, 60, "the last swap is in force\n" + p.log_text())
        for a in self.activations(p):
            self.assertEqual(len(set(self.versions(p, a))), 1)

    def test_a_bad_swap_keeps_the_old_set_and_is_said_until_it_is_mended(self):
        p, configmap = self.mapped()
        bad = dict(self.files(1), **{"b.yaml": runbook("b", 1) + "guardrails: {cooldwn: 5m}\n"})
        configmap.swap(bad)
        where = r"b\.yaml:7:14: unknown field 'cooldwn' in guardrails \(did you mean 'cooldown'\?\)"
        wait_until(lambda: re.search(where, p.cli("status")[1]), 30, "status says it")
        line = wait_until(lambda: p.find_log("runbooks changed on disk and are refused, the old set stays"), 10, "the log says it")
        self.assertRegex(line["error"], where)
        self.assertEqual(len(self.activations(p)), 1)
        time.sleep(1)
        self.assertRegex(p.cli("status")[1], where)
        configmap.swap(self.files(2))
        wait_until(lambda: len(self.activations(p)) == 2, 30, "the mended set is in force")
        self.assertEqual(self.versions(p, self.activations(p)[-1]), [2] * 3)
        wait_until(lambda: "refused" not in p.cli("status")[1], 10, "nothing is refused any more")

    def test_a_swap_brings_no_other_file_with_it(self):
        p, configmap = self.mapped()
        p.write("stack.yml", "half of a stack fi")
        configmap.swap(self.files(1))
        wait_until(lambda: len(self.activations(p)) == 2, 30, "the swap is in force")
        self.assertNotEqual(p.cli("reload")[0], 0)
        configmap.swap(self.files(2))
        wait_until(lambda: len(self.activations(p)) == 3, 30, "the swap is in force")
        self.assertIn("stack.yml", p.cli("status")[1], "what is wrong with the stack file is not mended by a swap of runbooks")

    def test_a_function_that_comes_later_mends_a_swap(self):
        p, configmap = self.mapped()
        p.write("stack.yml", stack_file("echo", "notify", "disk-clean"))
        configmap.swap({"a.yaml": runbook("a", 1).replace("bot: notify", "bot: disk-clean").replace('title: "1", text: "x"', "root: /x")})
        wait_until(lambda: "disk-clean" in p.cli("status")[1], 30, "refused")
        self.assertEqual(len(self.activations(p)), 1)
        self.assertEqual(p.cli("reload", "--actor", "alice")[0], 0)
        self.assertEqual([a["actor"] for a in self.activations(p)][1:], ["alice"], "alice's reload is on disk")
        self.assertNotIn("refused", p.cli("status")[1])

    def test_an_edit_is_noticed_and_waits_to_be_asked_for(self):
        p = self.platform(runbooks={"a.yaml": runbook("a", 0)}, stack=stack_file("echo", "notify"))
        p.write("runbooks/a.yaml", runbook("a", 1))
        wait_until(lambda: "changed on disk" in p.cli("status")[1], 30, "status says it")
        self.assertEqual(len(self.activations(p)), 1)
        p.process.send_signal(1)
        wait_until(lambda: len(self.activations(p)) == 2, 30, "SIGHUP reads it")
        self.assertEqual(self.activations(p)[-1]["actor"], "SIGHUP")
        wait_until(lambda: "changed on disk" not in p.cli("status")[1], 30, "nothing is left to be read")

    def test_a_plain_file_among_the_links_does_not_go_with_a_swap(self):
        p, configmap = self.mapped()
        p.write("runbooks/d.yaml", runbook("d", 7)[:40])  # somebody is writing it
        data = os.path.join(p.runbooks, "..data")
        os.mkdir(os.path.join(p.runbooks, "..x"))
        for name, text in self.files(1).items():
            p.write(os.path.join("runbooks", "..x", name), text)
        os.symlink("..x", data + "_tmp")
        os.rename(data + "_tmp", data)
        wait_until(lambda: "changed on disk" in p.cli("status")[1], 30, "status says it")
        time.sleep(1)
        self.assertEqual(len(self.activations(p)), 1)
        self.assertNotIn("refused", p.cli("status")[1])

    def test_a_folder_that_is_a_link_is_swapped_too(self):
        p = self.platform(start=False, stack=stack_file("echo", "notify"))
        os.rmdir(p.runbooks)
        for version in (0, 1):
            for name, text in self.files(version).items():
                os.makedirs(os.path.join(self.folder, f"release-{version}"), exist_ok=True)
                p.write(os.path.join(f"release-{version}", name), text)
        os.symlink("release-0", p.runbooks)
        p.start()
        os.symlink("release-1", p.runbooks + ".new")
        os.rename(p.runbooks + ".new", p.runbooks)
        wait_until(lambda: len(self.activations(p)) == 2, 60, "the release is in force")
        self.assertEqual(self.versions(p, self.activations(p)[-1]), [1] * 3)

    def test_edits_go_live_by_themselves_where_that_is_asked_for_once_they_rest(self):
        p = self.platform(runbooks={"a.yaml": runbook("a", 0), "b.yaml": runbook("b", 0)}, stack=stack_file("echo", "notify"),
                          arguments=["--self-reload", "edit"])
        for size in range(20, len(runbook("a", 1)), 12):  # a slow copy: none of its halves may go live
            p.write("runbooks/a.yaml", runbook("a", 1)[:size])
            time.sleep(0.1)
        p.write("runbooks/a.yaml", runbook("a", 1))
        wait_until(lambda: len(self.activations(p)) == 2, 30, "the edit is in force")
        self.assertEqual(self.versions(p, self.activations(p)[-1]), [1, 0])
        self.assertIsNone(p.find_log("runbooks changed on disk and are refused, the old set stays"))
        os.unlink(os.path.join(p.runbooks, "b.yaml"))
        wait_until(lambda: len(self.activations(p)) == 3, 30, "a removal is a change")
        p.write("runbooks/.a.yaml.swp", "not: read")
        p.write("runbooks/a.yaml~", "not: read")
        os.utime(os.path.join(p.runbooks, "a.yaml"))
        time.sleep(4)
        self.assertEqual(len(self.activations(p)), 3, "what is the same is not activated again")
        p.write("runbooks/a.yaml", runbook("a", 2) + "guardrails: {cooldwn: 5m}\n")
        wait_until(lambda: "cooldwn" in p.cli("status")[1], 30, "status says it")
        p.write("runbooks/a.yaml", runbook("a", 2) + "guardrails: {cooldown: 5m}\n")
        wait_until(lambda: len(self.activations(p)) == 4, 30, "the mended one is in force")

    def test_never_reads_nothing_by_itself(self):
        p, configmap = self.mapped("--self-reload", "never")
        configmap.swap(self.files(1))
        wait_until(lambda: "changed on disk" in p.cli("status")[1], 30, "status says it")
        self.assertEqual(len(self.activations(p)), 1)
        self.assertEqual(p.cli("reload")[0], 0)
        self.assertEqual(len(self.activations(p)), 2, "it is on disk, once")

    def test_odd_things_in_the_folder_keep_the_old_set(self):
        p = self.platform(runbooks={"a.yaml": runbook("a", 0)}, stack=stack_file("echo", "notify"), arguments=["--self-reload", "edit"])
        odd = os.path.join(p.runbooks, "x.yaml")

        def many():
            for i in range(10000):
                with open(os.path.join(p.runbooks, f"m{i}.yaml"), "w"):
                    pass

        def few():
            for i in range(10000):
                os.unlink(os.path.join(p.runbooks, f"m{i}.yaml"))
        for make, unmake, word in ((lambda: os.mkdir(odd), lambda: os.rmdir(odd), "x.yaml: not a regular file"),
                                   (lambda: os.mkfifo(odd), lambda: os.unlink(odd), "x.yaml: not a regular file"),
                                   (lambda: os.symlink("x.yaml", odd), lambda: os.unlink(odd), "x.yaml: Too many levels of symbolic links"),
                                   (lambda: os.symlink("nowhere", odd), lambda: os.unlink(odd), "x.yaml: No such file or directory"),
                                   (many, few, "more than 1000 files")):
            make()
            wait_until(lambda: word in p.cli("status")[1], 30, word + "\n" + p.log_text())
            self.assertEqual(len(self.activations(p)), 1)
            unmake()
            wait_until(lambda: "refused" not in p.cli("status")[1] and "cannot be looked at" not in p.cli("status")[1], 30, "mended")
        os.rename(p.runbooks, p.runbooks + ".away")
        wait_until(lambda: "cannot be looked at" in p.cli("status")[1], 30, "the folder is gone")
        os.rename(p.runbooks + ".away", p.runbooks)
        wait_until(lambda: "cannot be looked at" not in p.cli("status")[1], 30, "and back")
        p.write("runbooks/a.yaml", runbook("a", 1))
        wait_until(lambda: len(self.activations(p)) == 2, 30, "and watched again")

    def test_an_unknown_way_is_refused(self):
        p = self.platform(start=False, arguments=["--self-reload", "always"])
        with self.assertRaisesRegex(AssertionError, "swap, edit or never"):
            p.start()


if __name__ == "__main__":
    main()
