"""From a fresh platform to alerts that arrive: receiver, explain, plan, doctor, with the real Alertmanager and its amtool."""
import json
import os
import subprocess

from harness import BALM, PATIENCE, PlatformTest, free_port, main
from peers import Unavailable, binary

BASE_CONFIG = """route:
  receiver: people
  group_wait: 30s
  routes:
ROUTE    - receiver: people
      matchers: ['team="database"']
receivers:
RECEIVER  - name: people
"""


def balm(*arguments, input=None, env=None):
    done = subprocess.run([BALM, *arguments], capture_output=True, input=input, timeout=60 * PATIENCE, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Connect(PlatformTest):
    def peer(self, name):
        try:
            return binary(name)
        except Unavailable as e:
            self.skipTest(str(e))

    def assertSentence(self, answer, code, *words):
        """One sentence on stderr that has these words, nothing on stdout, and the documented exit code."""
        self.assertEqual(answer[0], code, answer)
        self.assertEqual(answer[1], "", answer)
        self.assertEqual(answer[2].count("\n"), 1, answer)
        for word in words:
            self.assertIn(word, answer[2])


class Receiver(Connect):
    def check_config(self, text):
        path = os.path.join(self.folder, "alertmanager.yml")
        with open(path, "w") as f:
            f.write(text)
        done = subprocess.run([self.peer("amtool"), "check-config", path], capture_output=True, timeout=30 * PATIENCE)
        self.assertEqual(done.returncode, 0, text + done.stdout.decode() + done.stderr.decode())
        self.assertIn("2 receivers" if "people" in text else "1 receivers", done.stdout.decode())
        return path

    def route_of(self, path, *labels):
        done = subprocess.run([self.peer("amtool"), "config", "routes", "test", f"--config.file={path}", *labels], capture_output=True,
                              timeout=30 * PATIENCE)
        self.assertEqual(done.returncode, 0, done)
        return done.stdout.decode().strip()

    def test_full_configuration_is_accepted_by_amtool(self):
        p = self.platform(arguments=["--repeat-interval", "90m"])
        token = p.secret("webhook-token")
        for arguments in (["--full"], ["--full", "--inline-token"], ["--full", "--json"], ["--full", "--json", "--inline-token"]):
            code, text, error = p.cli("receiver", *arguments)
            self.assertEqual((code, error), (0, ""), arguments)
            self.check_config(text)
            for part in (f"http://127.0.0.1:{p.port}/function/alerts", "send_resolved", "max_alerts", "'...'" if "--json" not in arguments else
                         '"..."', "repeat_interval", "1h30m", "group_interval", "10s"):
                self.assertIn(part, text)
            self.assertEqual(token in text, "--inline-token" in arguments)
            self.assertEqual(os.path.join(p.data, "secrets", "webhook-token") in text, "--inline-token" not in arguments)

    def test_snippet_fits_into_a_configuration_and_sends_each_alert_on(self):
        p = self.platform()
        code, text, _ = p.cli("receiver")
        self.assertEqual(code, 0)
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
        receiver = "".join(lines[1:next(i for i, line in enumerate(lines) if line.startswith("route:"))])
        route = "".join(lines[next(i for i, line in enumerate(lines) if line.startswith("  routes:")) + 1:])
        path = self.check_config(BASE_CONFIG.replace("ROUTE", route).replace("RECEIVER", receiver))
        self.assertEqual(self.route_of(path, "alertname=X", "team=database"), "balm,people")

    def test_platform_elsewhere(self):
        p = self.platform()
        url = f"http://127.0.0.1:{p.port}/"
        password = os.path.join(p.data, "secrets", "basic-auth-password")
        code, text, error = balm("receiver", "--full", "--url", url, "--token-file", password, "--webhook-token-file", "/etc/alertmanager/balm-token")
        self.assertEqual((code, error), (0, ""))
        self.check_config(text)
        self.assertIn(f'"http://127.0.0.1:{p.port}/function/alerts"', text)
        self.assertIn('"/etc/alertmanager/balm-token"', text)
        arguments = ["--url", url, "--token-file", password]
        self.assertSentence(balm("receiver", *arguments), 2, "--webhook-token-file")
        self.assertSentence(balm("receiver", *arguments, "--webhook-token-file", "/no/such/file", "--inline-token"), 2, "/no/such/file")
        wrong = p.write("wrong", "not the password")
        self.assertSentence(balm("receiver", "--url", url, "--token-file", wrong, "--webhook-token-file", "x"), 1, "401")
        self.assertSentence(balm("receiver", "--url", "ftp://x", "--webhook-token-file", "x"), 2, "ftp://x", "http://")
        nobody = f"http://127.0.0.1:{free_port()}"
        self.assertSentence(balm("receiver", "--url", nobody, "--token-file", password, "--webhook-token-file", "x"), 3, nobody)

    def test_nothing_is_printed_without_a_platform(self):
        p = self.platform(start=False)
        self.assertSentence(p.cli("receiver"), 3, "no platform is running on " + p.data)
        self.assertSentence(p.cli("receiver", "x"), 2, "'x'")
        self.assertSentence(p.cli("receiver", "--inline-tokens"), 2, "--inline-token")


if __name__ == "__main__":
    main()
