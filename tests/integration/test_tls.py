"""HTTPS on the platform's port: whom it serves, what it refuses, and that a renewed certificate needs no restart."""
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
import warnings

from harness import PlatformTest, alert, main, stack_file, wait_until, webhook
from pki import Authority

RENEWED = 20  # it looks up to a minute later where the kernel tells nothing; here it does


class Tls(PlatformTest):
    def setUp(self):
        super().setUp()
        self.authority = Authority(os.path.join(self.folder, "authority"))
        self.pki = os.path.join(self.folder, "pki")
        os.mkdir(self.pki)
        self.issue("server", 1)
        self.cert, self.key = os.path.join(self.pki, "server.crt"), os.path.join(self.pki, "server.key")

    def issue(self, name, serial, days=30):
        self.authority.issue(self.pki, name, serial, days)

    def start(self, start=True):
        return self.platform(start=start, stack=stack_file("echo"), arguments=["--tls-cert", self.cert, "--tls-key", self.key])

    def context(self):
        return ssl.create_default_context(cafile=self.authority.certificate)

    def connect(self, p):
        """A connection that checks authority and name."""
        connection = http.client.HTTPSConnection("localhost", p.port, context=self.context(), timeout=30)
        self.addCleanup(connection.close)
        connection.connect()
        return connection

    def ask(self, connection, method, path, body=None, headers=None):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def serial(self, p):
        return int(self.connect(p).sock.getpeercert()["serialNumber"], 16)

    def fails_to_start(self):
        p = self.start(start=False)
        done = subprocess.run(p.command(), capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr.decode()

    def test_functions_alerts_and_management_are_served(self):
        p = self.start()
        connection = self.connect(p)
        self.assertIn(connection.sock.version(), ("TLSv1.2", "TLSv1.3"))
        for n in (0, 1, 1000, 300_000):  # on one connection
            self.assertEqual(self.ask(connection, "POST", "/function/echo", b"x" * n), (200, b"x" * n))
        self.assertEqual(self.ask(connection, "POST", "/function/alerts", json.dumps(webhook(alert("A"))), p.bearer())[0], 202)
        self.assertEqual(self.ask(connection, "GET", "/system/functions")[0], 401)
        self.assertEqual(self.ask(connection, "GET", "/system/functions", headers=p.basic())[0], 200)
        self.assertTrue(p.find_log("ready")["url"].startswith("https://"))

    def test_what_comes_in_the_clear_is_cut_and_old_protocols_are_refused(self):
        p = self.start()
        with socket.create_connection(("127.0.0.1", p.port), timeout=30) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertNotIn(b"200", plain.recv(4096))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", p.port), timeout=30) as sock, self.assertRaises((ssl.SSLError, OSError)):
            old.wrap_socket(sock)
        self.assertEqual(self.ask(self.connect(p), "GET", "/healthz")[0], 200)

    def test_who_says_nothing_keeps_nobody_waiting(self):
        p = self.start()
        silent = [socket.create_connection(("127.0.0.1", p.port), timeout=60) for _ in range(200)]
        began = time.monotonic()
        self.assertEqual(self.ask(self.connect(p), "GET", "/healthz")[0], 200)
        self.assertLess(time.monotonic() - began, 5)
        for sock in silent:
            self.assertEqual(sock.recv(1), b"")  # cut by the time limit of the handshake
            sock.close()
        self.assertEqual(p.stop(), 0)

    def test_a_renewed_certificate_is_served_without_a_restart(self):
        p = self.start()
        self.assertEqual(self.serial(p), 1)
        kept = self.connect(p)
        self.issue("server", 2)
        wait_until(lambda: self.serial(p) == 2, RENEWED, "the new certificate")
        self.assertEqual(self.ask(kept, "GET", "/healthz")[0], 200)  # greeted with the old one
        self.assertEqual(p.cli("status")[0], 0)  # this machine's own clients know the new key

        with open(self.cert, "w") as f:
            f.write("-----BEGIN CERTIFICATE-----\nbroken\n")
        wait_until(lambda: p.find_log("the TLS certificate was not renewed: the one before stays"), RENEWED, "a refusal")
        self.assertEqual(self.serial(p), 2)
        self.issue("server", 3, days=2)
        wait_until(lambda: self.serial(p) == 3, RENEWED, "one that can be used again")
        self.assertTrue(p.find_log("the TLS certificate expires soon"))

    def test_the_command_line_knows_its_platform_by_its_key(self):
        p = self.start()
        code, text, error = p.cli("status")
        self.assertEqual((code, error), (0, ""), text)
        with open(os.path.join(p.data, "run", "tls-pin")) as f:
            pin = f.read()
        self.assertRegex(pin, "^sha256//[A-Za-z0-9+/]{43}=$")
        with open(os.path.join(p.data, "run", "tls-pin"), "w") as f:
            f.write("sha256//" + "A" * 43 + "=")
        code, _, error = p.cli("status")  # somebody else has taken the port, say: no password goes there
        self.assertNotEqual(code, 0)
        self.assertIn("key", error)

    def test_the_command_line_reaches_a_platform_elsewhere_by_its_authority(self):
        p = self.start()
        line = ["status", "--url", f"https://localhost:{p.port}", "--token-file", os.path.join(p.data, "secrets", "basic-auth-password")]
        self.assertNotEqual(p.cli(*line)[0], 0)
        self.assertEqual(p.cli(*line, "--ca-file", self.authority.certificate)[0], 0)
        line[2] = f"https://127.0.0.1:{p.port}"  # not the name that it was issued for
        self.assertNotEqual(p.cli(*line, "--ca-file", self.authority.certificate)[0], 0)

    def test_what_cannot_be_served_is_said_at_the_start(self):
        self.assertIn("--tls-cert and --tls-key belong together",
                      subprocess.run([*self.platform(start=False).command(), "--tls-cert", self.cert], capture_output=True, timeout=60).stderr.decode())
        self.issue("other", 9)
        os.replace(os.path.join(self.pki, "other.key"), self.key)
        self.assertIn("key values mismatch", self.fails_to_start())
        os.chmod(self.key, 0o644)
        self.assertIn("everybody may read this key", self.fails_to_start())
        self.authority.openssl("genpkey", "-algorithm", "RSA", "-aes256", "-pass", "pass:secret", "-out", self.key)
        os.chmod(self.key, 0o600)
        self.assertIn("server.key", self.fails_to_start())  # it asks nobody for the passphrase
        os.remove(self.key)
        self.assertIn("No such file", self.fails_to_start())


if __name__ == "__main__":
    main()
