#!/usr/bin/env python3
"""Each function's OpenAPI document: valid, the same from the function and from the gateway, and read without starting anything."""
import json
import os
import subprocess
import sys
import unittest

from harness import BALM, BUILD, PATIENCE, PlatformTest, ROOT, free_port, main, request, stack_file, wait_until
from test_bots import Bot, BotTest

sys.path.insert(0, os.path.join(ROOT, "tests", "openapi"))
import tools  # noqa: E402

FUNCTIONS = sorted(os.listdir(os.path.join(BUILD, "functions")))
CORE = ("alerts", "audit", "dispatcher", "scaler")


class Documents(BotTest):
    def test_every_document_is_valid_openapi(self):
        try:
            python = tools.python()
        except tools.Unavailable as e:
            raise unittest.SkipTest(f"no openapi-spec-validator: {e}")
        for name in FUNCTIONS:
            status, headers, body = request(self.bot(name).port, "GET", "/openapi.json")
            self.assertEqual((status, headers["content-type"]), (200, "application/json"))
            for wrong in (False, True):
                document = json.loads(body)
                if wrong:  # it would notice
                    del document["paths"]["/"]["post"]["responses"]["200"]["description"]
                done = subprocess.run([python, "-m", "openapi_spec_validator", "-"], input=json.dumps(document), capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode != 0, wrong, name + done.stdout)

    def test_a_function_says_what_its_manifest_says(self):
        for name in FUNCTIONS:
            b = self.bot(name)
            document = json.loads(request(b.port, "GET", "/openapi.json")[2])
            schemas = document["components"]["schemas"]
            self.assertEqual(document["info"]["title"], name)
            if b.manifest["acts"]:
                self.assertEqual(schemas["Parameters"]["properties"], b.manifest["schema"]["properties"])
                self.assertEqual(schemas["Detail"]["properties"], b.manifest["reply"]["properties"])


class OfAProgram(unittest.TestCase):
    def start(self, manifest):
        port = free_port()
        env = dict(os.environ, port=str(port), BALM_HOST="127.0.0.1", BALM_METRICS="off", suppress_lock="true", healthcheck_interval="100ms")
        process = subprocess.Popen([os.path.join(BUILD, "balm-watchdog"), "--", "/bin/cat"], env=env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, 20 * PATIENCE)
        self.addCleanup(process.terminate)
        process.stdin.write(manifest)
        process.stdin.close()

        def answer():
            try:
                return request(port, "GET", "/openapi.json")
            except OSError:
                return None
        return wait_until(answer, 10, "balm-watchdog answers")

    def test_a_program_with_a_bot_yaml_has_the_document_of_one_in_c(self):
        described = subprocess.run([os.path.join(BUILD, "functions", "notify"), "--describe"], capture_output=True, check=True).stdout
        status, _, body = self.start(described)
        document = json.loads(body)
        self.assertEqual((status, document["openapi"], document["info"]["title"]), (200, "3.1.0", "notify"))

    def test_one_without_answers_itself(self):
        status, _, body = self.start(b"")
        self.assertEqual((status, body), (200, b""))  # cat of nothing


class AtTheGateway(PlatformTest):
    def test_the_gateway_has_the_same_documents_while_nothing_runs(self):
        p = self.platform(stack=stack_file(*FUNCTIONS))
        for name in FUNCTIONS:
            b = Bot(name, self.folder)
            own = request(b.port, "GET", "/openapi.json")[2]
            self.assertEqual(b.stop(), 0)
            status, _, body = p.request("GET", f"/function/{name}/openapi.json", headers=p.basic())
            self.assertEqual((status, body), (200, own), name)
            self.assertEqual(p.request("GET", "/docs/" + name, headers=p.basic())[0], 200)
        functions = json.loads(p.request("GET", "/system/functions", headers=p.basic())[2])
        self.assertEqual({f["name"]: f["availableReplicas"] for f in functions}, {name: 0 for name in FUNCTIONS})
        self.assertEqual(p.request("GET", "/docs/")[0], 401)
        status, headers, body = p.request("GET", "/openapi.json", headers=p.basic())
        self.assertEqual((status, headers["content-type"]), (200, "application/json"))
        version = subprocess.run([BALM, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
        self.assertEqual(json.loads(body)["info"]["version"], version)
        for name in CORE:
            path = f"/function/{name}/openapi.json"
            status, headers, body = p.request("GET", path, headers=p.basic())
            self.assertEqual((status, headers["content-type"]), (200, "application/json"))
            self.assertEqual((json.loads(body)["info"]["title"], json.loads(body)["info"]["version"]), (name, version))
            self.assertEqual(p.request("GET", path)[0], 401)
            self.assertIn(f'data-document="../function/{name}/openapi.json"', p.request("GET", "/docs/" + name, headers=p.basic())[2].decode())
        page = p.request("GET", "/docs/", headers=p.basic())[2].decode()
        for name in (*FUNCTIONS, *CORE):
            self.assertIn(f'<a href="{name}">', page)


if __name__ == "__main__":
    main()
