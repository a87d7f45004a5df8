"""The scaler's wire: frames by hand, peers that stall or flood, TLS with ALPN and client certificates, the bearer token."""
import os
import socket
import ssl
import struct
import threading
import time

from harness import PATIENCE, main, wait_until
from pki import Authority
from scaler import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, OPEN, PING, RST_STREAM, SERVICE, SETTINGS, WINDOW_UPDATE, Keda,
                    ScalerTest, Wire, frame, head, message, ref, reference)

BDP_PING = bytes((2, 4, 16, 16, 9, 14, 7, 7))  # grpc-go's estimator of bandwidth


class WireTest(ScalerTest):
    def assert_served(self, p):
        wire = Wire(self, p.scaler_port)
        wire.call(1, "IsActive", reference("echo"))
        self.assertEqual(wire.until(DATA, stream=1)[3], b"\0" * 5)
        wire.sock.close()


class Frames(WireTest):
    def test_malformed_ones_end_their_connection_alone(self):
        p = self.start()
        path = f"/{SERVICE}/IsActive"
        wrong = {
            "HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b""),
            "TLS in the clear": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500), b""),
            "nothing but noise": (os.urandom(4096), b""),
            "a frame of 16 MiB": (OPEN, b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 65536),
            "DATA of no stream": (OPEN, frame(DATA, 0, 0, b"x")),
            "DATA of a stream that never was": (OPEN, frame(DATA, 0, 7, b"x")),
            "an even stream": (OPEN, frame(HEADERS, END_HEADERS, 2, head(path))),
            "a stream that goes back": (OPEN, frame(HEADERS, END_HEADERS, 5, head(path)) + frame(HEADERS, END_HEADERS, 3, head(path))),
            "a head that is no HPACK": (OPEN, frame(HEADERS, END_HEADERS, 1, b"\xff" * 100)),
            "DATA inside a head": (OPEN, frame(HEADERS, 0, 1, head(path)) + frame(DATA, 0, 1, b"x")),
            "a window of nothing": (OPEN, frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0")),
            "a window too large": (OPEN, frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2),
            "PING of 7 bytes": (OPEN, frame(PING, 0, 0, b"1234567")),
            "SETTINGS of 5 bytes": (OPEN, frame(SETTINGS, 0, 0, b"12345")),
            "padding longer than the frame": (OPEN, frame(HEADERS, END_HEADERS, 1, head(path)) + frame(DATA, 8, 1, b"\xff12")),
            "CONTINUATION without an end": (OPEN, frame(HEADERS, 0, 1, head(path)) + frame(CONTINUATION, 0, 1, b"\x10\x01a\x01b" * 3000) * 40),
            "CONTINUATION of nothing": (OPEN, frame(HEADERS, 0, 1, head(path)) + frame(CONTINUATION, 0, 1) * 5000),
        }
        for what, (opening, frames) in wrong.items():
            with self.subTest(what):
                wire = Wire(self, p.scaler_port, opening)
                try:
                    wire.send(frames)
                    wire.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # cut while it was still talking
                wire.until(99)  # read to its end
                wire.sock.close()
                self.assert_served(p)

    def test_any_byte_may_be_the_last_of_a_piece(self):
        p = self.start()
        request = OPEN + frame(HEADERS, END_HEADERS, 1, head(f"/{SERVICE}/IsActive")) + frame(DATA, END_STREAM, 1, message(reference("echo")))
        for cut in range(1, len(request), 3):
            wire = Wire(self, p.scaler_port, request[:cut])
            wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.send(request[cut:])
            self.assertEqual(wire.until(DATA, stream=1)[3], b"\0" * 5, cut)
            wire.sock.close()

    def test_8_pings_are_answered_and_never_policed(self):
        p = self.start()
        wire = Wire(self, p.scaler_port)
        for i in range(3000):
            wire.send(frame(PING, 0, 0, BDP_PING))
            answer = wire.until(PING, GOAWAY)
            self.assertEqual((answer[0], answer[1], answer[3]), (PING, ACK, BDP_PING), i)
        wire.call(1, "IsActive", reference("echo"))
        self.assertIsNotNone(wire.until(DATA, stream=1))

    def test_a_request_of_megabytes_is_refused_and_the_connection_goes_on(self):
        p = self.start()
        wire = Wire(self, p.scaler_port)
        wire.send(frame(HEADERS, END_HEADERS, 1, head(f"/{SERVICE}/IsActive")), frame(DATA, 0, 1, b"\0" + struct.pack(">I", 3 << 20) + b"x" * 1000))
        self.assertEqual(wire.until(RST_STREAM, stream=1)[3], b"\0\0\0\0")  # NO_ERROR: behind the status
        wire.call(3, "IsActive", reference("echo"))
        self.assertEqual(wire.until(DATA, stream=3)[3], b"\0" * 5)
        code, _, error = self.grpcurl(p, "IsActive", ref("echo", padding="y" * (3 << 20)))
        self.assertNotEqual(code, 0)
        self.assertIn("ResourceExhausted", error)
        code, _, error = self.grpcurl(p, "IsActive", ref("echo", padding="y" * (60 << 10)))
        self.assertEqual(code, 0, error)


class Stalled(WireTest):
    def memory_mib(self, p):
        with open(f"/proc/{p.process.pid}/smaps_rollup") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Private_Dirty")) / 1024

    def test_who_takes_no_answer_holds_nobody_up_and_little(self):
        p = self.start()
        self.assert_served(p)
        before = self.memory_mib(p)
        no_window = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        wires = []
        for _ in range(4):  # each with a thousand streams whose answers may not be sent
            wire = Wire(self, p.scaler_port, OPEN + no_window)
            for i in range(1000):
                wire.call(1 + 2 * i, "GetMetricSpec", reference("echo"))
            wires.append(wire)
        self.assert_served(p)
        release = self.hold(p)
        wait_until(lambda: self.depth(p, "prog") == 1, 20, "the others are served")
        release()
        grown = self.memory_mib(p) - before
        if PATIENCE == 1:
            self.assertLess(grown, 40)
        for wire in wires:
            wire.sock.close()
        wait_until(lambda: self.depth(p, "prog") == 0, 20, "no work")

    def test_requests_that_are_only_begun_are_bounded(self):
        p = self.start()
        self.assert_served(p)
        before = self.memory_mib(p)
        wire = Wire(self, p.scaler_port)
        for i in range(1000):  # 64 KiB are told each time: 64 MB, were they kept
            wire.send(frame(HEADERS, END_HEADERS, 1 + 2 * i, head(f"/{SERVICE}/IsActive")), frame(DATA, 0, 1 + 2 * i, b"\0\0\0\xff\xff" + b"x" * 40))
        self.assertEqual(wire.until(RST_STREAM)[3], b"\0\0\0\0")  # NO_ERROR: behind a refusal, as what is kept has a limit
        self.assert_served(p)
        if PATIENCE == 1:
            self.assertLess(self.memory_mib(p) - before, 20)
        wire.sock.close()

    def test_many_silent_connections_give_way(self):
        p = self.start()
        silent = [socket.create_connection(("127.0.0.1", p.scaler_port), timeout=60) for _ in range(300)]

        def is_served():
            try:
                self.assert_served(p)
                return True
            except (OSError, TypeError, AssertionError):
                return False  # all places are taken by those who came before, for so long as they are new
        wait_until(is_served, 30, "somebody new is served")
        for sock in silent:
            sock.close()


class TlsTest(WireTest):
    def setUp(self):
        super().setUp()
        self.authority = Authority(os.path.join(self.folder, "ca"))
        self.pki = os.path.join(self.folder, "pki")
        os.makedirs(self.pki)
        self.authority.issue(self.pki, "server", 1)
        self.authority.issue(self.pki, "keda", 2)

    def path(self, name):
        return os.path.join(self.pki, name)

    def start_tls(self, *arguments):
        return self.start("--scaler-tls-cert", self.path("server.crt"), "--scaler-tls-key", self.path("server.key"), *arguments)

    def keda(self, p, mode, *arguments):
        return Keda(self, mode, p.scaler_port, "-ca", self.authority.certificate, *arguments, host="localhost")

    def handshake(self, p, *protocols, certificate=None):
        """(protocol, serial of the server's certificate) of a connection on which bytes then come; (None, None): cut."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        if protocols:
            context.set_alpn_protocols(protocols)
        if certificate:
            context.load_cert_chain(self.path(certificate + ".crt"), self.path(certificate + ".key"))
        with socket.create_connection(("localhost", p.scaler_port), timeout=30 * PATIENCE) as sock:
            try:
                with context.wrap_socket(sock, server_hostname="localhost") as tls:
                    tls.sendall(OPEN)
                    if tls.recv(9)[3:4] != bytes((SETTINGS,)):
                        return None, None
                    return tls.selected_alpn_protocol(), int(tls.getpeercert()["serialNumber"], 16)
            except (ssl.SSLError, OSError):
                return None, None

    def test_7_h2_is_chosen_and_who_does_not_offer_it_is_cut(self):
        p = self.start_tls()
        self.assertEqual(self.handshake(p, "h2"), ("h2", 1))
        self.assertEqual(self.handshake(p, "http/1.1", "h2"), ("h2", 1))
        self.assertEqual(self.handshake(p, "http/1.1"), (None, None))
        self.assertEqual(self.handshake(p), (None, None))
        plain = Wire(self, p.scaler_port)
        self.assertIsNone(plain.until(DATA))
        last = self.keda(p, "every").end()
        self.assertEqual((last["calls"], last["failures"]), (600, []))

    def test_without_a_certificate_nobody_is_answered(self):
        p = self.start_tls("--scaler-tls-client-ca", self.authority.certificate)
        self.assertEqual(self.handshake(p, "h2"), (None, None))
        self.assertEqual(self.handshake(p, "h2", certificate="keda"), ("h2", 1))
        other = Authority(os.path.join(self.folder, "other"))
        other.issue(self.pki, "stranger", 3)
        self.assertEqual(self.handshake(p, "h2", certificate="stranger"), (None, None))
        last = self.keda(p, "every", "-cert", self.path("keda.crt"), "-key", self.path("keda.key")).end()
        self.assertEqual((last["calls"], last["failures"]), (600, []))

    def test_a_renewed_certificate_fails_no_call(self):
        p = self.start_tls("--scaler-tls-client-ca", self.authority.certificate)
        keda = self.keda(p, "load", "-cert", self.path("keda.crt"), "-key", self.path("keda.key"))
        keda.wait("open")
        for serial in range(11, 15):
            self.authority.issue(self.pki, "server", serial)
            wait_until(lambda: self.handshake(p, "h2", certificate="keda") == ("h2", serial), 70, "the new certificate")
        last = keda.end()
        self.assertEqual(last["failures"], {})
        self.assertGreater(last["calls"], 500)

    def test_slow_handshakes_hold_nobody_up(self):
        p = self.start_tls()
        silent = [socket.create_connection(("127.0.0.1", p.scaler_port), timeout=60 * PATIENCE) for _ in range(100)]
        began = time.monotonic()
        self.assertEqual(self.handshake(p, "h2"), ("h2", 1))
        self.assertLess(time.monotonic() - began, 5 * PATIENCE)
        for sock in silent:
            self.assertEqual(sock.recv(1), b"")  # cut after ten seconds
            sock.close()


class Token(WireTest):
    def write_token(self, token):
        path = os.path.join(self.folder, "token")
        with open(path + ".new", "w") as f:
            f.write(token + "\n")
        os.chmod(path + ".new", 0o600)
        os.replace(path + ".new", path)
        return path

    def code(self, p, token):
        more = ["-plaintext"] + (["-H", f"authorization: {token}"] if token else []) + ["-import-path", "functions/scaler", "-proto",
                                                                                       "externalscaler.proto"]
        code, _, error = self.grpcurl(p, "IsActive", ref("echo"), arguments=more)
        return "OK" if code == 0 else error.split("Code: ")[1].split()[0]

    def test_who_shows_no_token_is_refused_and_it_can_be_rotated(self):
        first, second = "first-token-of-a-scaler", "second-token-of-a-scaler"
        path = self.write_token(first)
        p = self.start("--scaler-token-file", path)
        self.assertEqual(self.code(p, "Bearer " + first), "OK")
        self.assertEqual(self.code(p, "bearer " + first), "OK")
        for wrong in (None, first, "Bearer", "Bearer " + first[:-1], "Bearer " + first + "x", "Basic " + first):
            self.assertEqual(self.code(p, wrong), "Unauthenticated", wrong)
        self.assertEqual(self.ask(p, "Check", {"service": ""}, service="grpc.health.v1.Health",
                                  arguments=["-plaintext", "-protoset", self.protoset()]), {"status": "SERVING"})
        self.write_token(second)
        wait_until(lambda: self.code(p, "Bearer " + second) == "OK", 20, "the new token")
        self.assertEqual(self.code(p, "Bearer " + first), "Unauthenticated")
        self.write_token("short")
        wait_until(lambda: p.find_log("the token was not renewed: the one before stays"), 20, "a refusal")
        self.assertEqual(self.code(p, "Bearer " + second), "OK")
        self.assertNotIn(first, p.log_text())
        self.assertNotIn(second, p.log_text())
        last = Keda(self, "every", p.scaler_port, "-token-file", path + ".of-keda")
        self.assertIn("error", last.end())

    def protoset(self):
        from harness import BUILD
        return os.path.join(BUILD, "gen", "grpc", "health.set")

    def test_rotation_under_load(self):
        path = self.write_token("first-token-of-a-scaler")
        p = self.start("--scaler-token-file", path)
        keda = Keda(self, "load", p.scaler_port, "-token-file", path)
        keda.wait("open")
        done = threading.Event()
        self.addCleanup(done.set)
        time.sleep(1)
        last = keda.end()
        self.assertEqual(last["failures"], {})
        self.assertGreater(last["calls"], 100)


if __name__ == "__main__":
    main()
