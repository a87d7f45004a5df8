"""Readiness of a function's processes: one that says it is not ready is not called while another one is, and one that hangs unused is replaced."""
import json
import os
import signal

from harness import PlatformTest, main, wait_until

# Each process of it answers with its own name; /ready says no while a file of that name is there.
PROGRAM = """#!/bin/sh
case $Http_Path in
/ready) [ ! -e "FOLDER/not-$PPID" ] || exit 1 ;;
*) echo $PPID ;;
esac
"""
STACK = """version: 1.0
functions:
  twins:
    image: twins
    fprocess: FOLDER/run.sh
    labels: {com.openfaas.scale.min: "2", com.openfaas.scale.max: "2"}
    environment: {ready_path: /ready}
  own:
    image: own
    fprocess: FOLDER/run.sh
    labels: {com.openfaas.scale.min: "1"}
    annotations: {com.openfaas.ready.http.path: /ready}
"""
SOON = 40  # a look comes 10 s after the last answer, then each second


class ReadyTest(PlatformTest):
    def start(self):
        with open(os.path.join(self.folder, "run.sh"), "w") as f:
            f.write(PROGRAM.replace("FOLDER", self.folder))
        os.chmod(f.name, 0o755)
        return self.platform(stack=STACK.replace("FOLDER", self.folder))

    def who(self, p, name="twins", n=12):
        """Which processes answer `n` calls, one after the other."""
        answers = [p.request("POST", f"/function/{name}") for _ in range(n)]
        self.assertEqual({status for status, _, _ in answers}, {200})
        return {int(body) for _, _, body in answers}

    def available(self, p, name="twins"):
        return json.loads(p.request("GET", "/system/function/" + name, headers=p.basic())[2])["availableReplicas"]

    def set_ready(self, pid, is_ready):
        path = os.path.join(self.folder, f"not-{pid}")
        if is_ready:
            os.unlink(path)
        else:
            open(path, "w").close()

    def test_one_that_is_not_ready_is_not_called_until_it_is(self):
        p = self.start()
        both = self.who(p)
        self.assertEqual(len(both), 2)
        ill, well = sorted(both)
        self.set_ready(ill, False)
        wait_until(lambda: self.available(p) == 1, SOON, "it is not ready")
        self.assertEqual(self.who(p), {well})
        self.set_ready(well, False)
        wait_until(lambda: self.available(p) == 0, SOON, "none is ready")
        self.assertEqual(self.who(p), both)  # better than nobody: it is the function that says what it can do
        self.set_ready(ill, True)
        wait_until(lambda: self.available(p) == 1, SOON, "it is ready again")
        self.assertEqual(self.who(p), {ill})
        self.set_ready(well, True)
        wait_until(lambda: self.available(p) == 2, SOON, "both are")
        self.assertEqual(self.who(p), both)
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        self.assertEqual({f["name"]: f["invocationCount"] for f in functions}["own"], 0)  # a probe is no call

    def test_one_that_hangs_unused_is_replaced(self):
        p = self.start()
        both = self.who(p)
        hung, well = sorted(both)
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: self.available(p) == 1, SOON, "it does not answer")
        self.assertEqual(self.who(p, n=4), {well})
        wait_until(lambda: p.find_log("function hangs: it is killed"), SOON, "it is killed")
        wait_until(lambda: self.available(p) == 2, SOON, "there is another one")
        now = self.who(p)
        self.assertTrue(well in now and hung not in now and len(now) == 2, (both, now))

    def test_the_annotation_names_the_path(self):
        p = self.start()
        [pid] = self.who(p, "own", 1)
        self.set_ready(pid, False)
        wait_until(lambda: self.available(p, "own") == 0, SOON, "it is not ready")
        self.assertEqual(self.who(p, "own", 1), {pid})
        self.set_ready(pid, True)
        wait_until(lambda: self.available(p, "own") == 1, SOON, "it is")


if __name__ == "__main__":
    main()
