#!/usr/bin/env python3
"""/docs as a person has it: a real browser logs in, opens a function in Swagger UI, and tries it out by clicking. Pictures stay in the build folder."""
import http.server
import json
import os
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from harness import BUILD, PlatformTest, main, serve, stack_file  # noqa: E402
from browser import PROGRAMS, Browser, program  # noqa: E402

CORE = ["alerts", "audit", "dispatcher", "scaler"]
KEY = "k" * 40
FUNCTIONS = sorted(os.listdir(os.path.join(BUILD, "functions")))


class Pages(PlatformTest):
    def setUp(self):
        super().setUp()
        if program() is None:
            self.skipTest("no browser (Debian: chromium), looked for " + ", ".join(PROGRAMS))
        if not os.path.exists(os.path.join(BUILD, "docs", "swagger-ui-bundle.js")):
            self.skipTest("Swagger UI has not been fetched: make swagger-ui")
        self.p = self.start()
        self.url = f"http://127.0.0.1:{self.p.port}"

    def start(self):
        return self.platform(stack=stack_file(*FUNCTIONS))

    def browser(self, has_login=True):
        login = (self.p.secret("basic-auth-user"), self.p.secret("basic-auth-password"))
        b = Browser(login if has_login else None)
        self.addCleanup(b.close)
        return b

    def expect_quiet(self, b):
        """Nothing was asked of anybody else, and no policy, script or file stood in the way."""
        strangers = [r["url"] for r in b.requests if not r["url"].startswith((self.url + "/", "data:"))]
        self.assertEqual(strangers, [])
        self.assertEqual(b.complaints, [])

    def open_function(self, b, name):
        b.open(self.url + "/docs")
        b.wait_text("h1", "Functions")
        b.click(f'a[href="{name}"]')
        b.wait_text(".opblock-summary", "GET" if name in CORE and name != "alerts" else "POST")

    def execute(self, b, body):
        b.type_into("textarea.body-param__text", body)
        b.click("button.execute")
        return b.wait(lambda: b.text(".live-responses-table .response .response-col_status"), "an answer")


class Docs(Pages):
    def test_a_function_is_tried_out_by_clicking(self):
        b = self.browser()
        self.open_function(b, "echo")
        status = self.execute(b, '{"tried": "out"}')
        self.assertTrue(status.startswith("200"), status)
        b.wait_text(".live-responses-table", '"tried": "out"')
        b.screenshot(os.path.join(BUILD, "docs-echo.png"))
        calls = [r for r in b.requests if r["method"] == "POST"]
        self.assertEqual([(r["url"], json.loads(r["postData"])) for r in calls], [(self.url + "/function/echo/", {"tried": "out"})])
        self.expect_quiet(b)

    def test_all_functions_are_listed_and_each_can_be_read(self):
        b = self.browser()
        b.open(self.url + "/docs")
        listed = b.evaluate("[...document.querySelectorAll('tbody a')].map(a => a.getAttribute('href')).filter(h => !/[/.]/.test(h))")
        self.assertEqual(sorted(listed), sorted(FUNCTIONS + CORE))
        b.screenshot(os.path.join(BUILD, "docs-list.png"))
        for name in FUNCTIONS + CORE:
            self.open_function(b, name)
            b.wait_text(".info .title", name)
            self.assertIsNone(b.text(".errors-wrapper"), name)
        self.expect_quiet(b)

    def test_the_platform_s_own_document_is_read(self):
        b = self.browser()
        b.open(self.url + "/docs")
        b.click('a[href="platform.html"]')
        b.wait_text(".info .title", "balm")
        n = b.wait(lambda: b.evaluate("document.querySelectorAll('.opblock').length"), "operations")
        self.assertGreater(n, 15)
        self.assertIsNone(b.text(".errors-wrapper"))
        self.expect_quiet(b)

    def test_a_function_that_acts_says_why_it_does_not(self):
        b = self.browser()
        self.open_function(b, "service-restart")
        status = self.execute(b, '{"unit": "nginx"}')
        self.assertTrue(status.startswith("403"), status)
        b.wait_text(".live-responses-table", "no runbook takes direct calls")
        b.screenshot(os.path.join(BUILD, "docs-service-restart.png"))
        b.complaints = [c for c in b.complaints if "403" not in c]  # the refused call itself
        self.expect_quiet(b)

    def test_without_the_login_nothing_is_shown(self):
        b = self.browser(has_login=False)
        b.open(self.url + "/docs")
        self.assertNotIn("service-restart", b.text("body"))
        self.assertEqual([r["status"] for r in b.responses if r["url"] == self.url + "/docs"], [401])

    def test_another_site_s_page_cannot_use_the_login_that_is_remembered(self):
        site = serve(OtherSite)
        self.addCleanup(site.server_close)
        self.addCleanup(site.shutdown)
        b = self.browser()
        self.open_function(b, "echo")
        body = json.dumps({"functionName": "echo"})
        attempts = [("/system/reload", "POST", "{}"), ("/system/functions", "DELETE", body), ("/function/dispatcher/freeze", "POST", "{}")]
        b.open(f"http://127.0.0.1:{site.server_port}/")
        for path, method, body in attempts:
            done = b.evaluate(f"fetch({json.dumps(self.url + path)}, {{method: {json.dumps(method)}, credentials: 'include', mode: 'no-cors',"
                              f" body: {json.dumps(body)}}}).then(r => r.type, e => 'error')")
            self.assertIn(done, ("opaque", "error"))
        # As a form would send it, with the login: that is what reached the platform.
        b.evaluate(f"(f => {{ f.method = 'post'; f.action = {json.dumps(self.url + '/system/reload')}; f.submit(); }})(document.body.appendChild(document.createElement('form')))")
        b.wait(lambda: any(r["url"].endswith("/system/reload") and r["status"] == 403 for r in b.responses), "the form's answer")
        self.assertIsNone(self.p.find_log("reloaded"))
        functions = json.loads(self.p.request("GET", "/system/functions", headers=self.p.basic())[2])
        self.assertEqual([f["name"] for f in functions], FUNCTIONS)
        answered = {r["url"][len(self.url):]: r["status"] for r in b.responses if r["url"].startswith(self.url + "/system/")}
        self.assertEqual(set(answered.values()), {403}, answered)


class Keys(Pages):
    """A function that asks for an API key, which the page's Authorize takes."""

    def start(self):
        functions = os.path.join(self.folder, "functions")
        os.makedirs(os.path.join(functions, "guarded"))
        for name, text, mode in (("bot.yaml", "name: guarded\nsummary: Answers those who have a key\nacts: false\nauth: api-key\n", 0o644),
                                 ("run.sh", "#!/bin/sh\nexec cat\n", 0o755)):
            with open(os.path.join(functions, "guarded", name), "w") as f:
                f.write(text)
            os.chmod(f.name, mode)
        return self.platform(functions=functions, stack="version: 1.0\nfunctions: {guarded: {image: guarded, fprocess: ./run.sh}}\n")

    def test_the_key_is_given_by_authorize(self):
        secret = json.dumps({"name": "guarded-api-key", "value": KEY})
        self.assertEqual(self.p.request("POST", "/system/secrets", secret, self.p.basic())[0], 202)
        b = self.browser()
        self.open_function(b, "guarded")
        status = self.execute(b, '{"who": "nobody"}')
        self.assertTrue(status.startswith("401"), status)
        b.click(".auth-wrapper button.authorize")
        b.type_into(".auth-container input", KEY)
        b.click(".auth-btn-wrapper button.authorize")
        b.click(".auth-btn-wrapper button.btn-done")
        b.click("button.execute")
        b.wait_text(".live-responses-table .response .response-col_status", "200")
        b.wait_text(".live-responses-table", '"who": "nobody"')
        b.screenshot(os.path.join(BUILD, "docs-api-key.png"))
        b.complaints = [c for c in b.complaints if "401" not in c]  # the refused call itself
        self.expect_quiet(b)


class OtherSite(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title><body>hello")

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    main()
