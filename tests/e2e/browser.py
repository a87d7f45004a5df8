"""A headless Chromium, driven over the DevTools protocol: two pipes and JSON, Python's standard library only.

It has a profile of its own, is ended by its pid, and remembers what a person at it would see: every request, every complaint on the console.
"""
import base64
import collections
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

from harness import PATIENCE, wait_until

# Chromium reads its commands from descriptor 3 and answers at 4; Python's own pipes may be there, so the child moves them itself.
AT_THREE_AND_FOUR = ("import os,sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program():
    return next((p for p in PROGRAMS if shutil.which(p)), None)


def pipe_beyond_four():
    return [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe()]


class Browser:
    def __init__(self, login=None):
        """login: (user, password), typed in wherever it is asked for."""
        self.login = login
        self.profile = tempfile.mkdtemp(prefix="balm-browser-")
        theirs_in, self.commands = pipe_beyond_four()
        self.answers, theirs_out = pipe_beyond_four()
        # Root has no namespaces to build Chromium's sandbox from here, and /dev/shm may be small.
        line = [program(), "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "--no-first-run", "--disable-gpu",
                "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--window-size=1200,1400", "--lang=en"]
        if os.geteuid() == 0:
            line.append("--no-sandbox")
        self.process = subprocess.Popen([sys.executable, "-c", AT_THREE_AND_FOUR, str(theirs_in), str(theirs_out), *line],
                                        pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ, HOME=self.profile))
        os.close(theirs_in)
        os.close(theirs_out)
        self.number = 0
        self.replies = {}
        self.seen = threading.Condition()
        self.requests, self.responses, self.complaints, self.logins = [], [], [], collections.Counter()
        threading.Thread(target=self._read, daemon=True).start()
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.call("Fetch.enable", handleAuthRequests=True)

    # ---- the protocol ----

    def _send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self.number

    def call(self, method, **params):
        with self.seen:
            number = self._send(method, **params)
            if not self.seen.wait_for(lambda: number in self.replies, 30 * PATIENCE):
                raise AssertionError(f"the browser does not answer {method}")
            reply = self.replies.pop(number)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']}")
        return reply["result"]

    def _read(self):
        rest = b""
        while True:
            try:
                part = os.read(self.answers, 65536)
            except OSError:
                return
            if not part:
                return
            *messages, rest = (rest + part).split(b"\0")
            with self.seen:
                for message in messages:
                    self._take(json.loads(message))
                self.seen.notify_all()

    def _take(self, message):
        if "id" in message:
            self.replies[message["id"]] = message
            return
        params = message.get("params", {})
        handler = getattr(self, "_on_" + message["method"].replace(".", "_"), None)
        if handler:
            handler(params)

    def _on_Fetch_requestPaused(self, params):
        self._send("Fetch.continueRequest", requestId=params["requestId"])

    def _on_Fetch_authRequired(self, params):
        self.logins[params["request"]["url"]] += 1
        answer = {"response": "CancelAuth"}
        if self.login and self.logins[params["request"]["url"]] == 1:
            answer = {"response": "ProvideCredentials", "username": self.login[0], "password": self.login[1]}
        self._send("Fetch.continueWithAuth", requestId=params["requestId"], authChallengeResponse=answer)

    def _on_Network_requestWillBeSent(self, params):
        self.requests.append(params["request"])

    def _on_Network_responseReceived(self, params):
        self.responses.append(params["response"])

    def _on_Log_entryAdded(self, params):
        self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))

    def _on_Runtime_exceptionThrown(self, params):
        self.complaints.append(json.dumps(params["exceptionDetails"])[:500])

    def _on_Runtime_consoleAPICalled(self, params):
        if params["type"] in ("error", "assert"):
            self.complaints.append(json.dumps(params["args"])[:500])

    # ---- what a person does ----

    def open(self, url):
        """Until it is laid out for good: what is clicked stays where it is."""
        self.call("Page.navigate", url=url)
        self.wait(lambda: self.evaluate("document.readyState") == "complete", "loaded " + url)

    def wait(self, condition, what, seconds=30):
        try:
            return wait_until(condition, seconds, what)
        except AssertionError as e:
            raise AssertionError(f"{e}; console: {self.complaints[-5:]}") from None

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector):
        """What is to be read there; None: there is no such element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def wait_text(self, selector, part, seconds=30):
        return self.wait(lambda: part in (self.text(selector) or ""), f"'{part}' in {selector}", seconds)

    def click(self, selector):
        """With the mouse, in the middle of what is to be seen of it."""
        middle = ("(e => { if (!e) return null; e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getClientRects()[0];"
                  f" return r ? [r.x + r.width / 2, r.y + r.height / 2] : null; }})(document.querySelector({json.dumps(selector)}))")
        x, y = self.wait(lambda: self.evaluate(middle), selector + " can be clicked")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type_into(self, selector, text):
        """Instead of what is there."""
        self.click(selector)
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            self.session = None
            self._send("Browser.close")
        except OSError:
            pass
        try:
            self.process.wait(20 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)  # a process group of its own
            self.process.wait()
        os.close(self.commands)
        shutil.rmtree(self.profile, ignore_errors=True)
