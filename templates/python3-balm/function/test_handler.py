"""The handler alone: python3 test_handler.py"""
import os
import tempfile
import unittest

from handler import handle


class HandlerTest(unittest.TestCase):
    def test_a_file_that_is_there(self):
        with tempfile.NamedTemporaryFile() as f:
            f.write(b"12345")
            f.flush()
            result = handle({"alertname": "Test", "file": f.name})
        self.assertEqual((result["state"], result["detail"]), ("unchanged", {"bytes": 5}))

    def test_a_file_that_is_not_there(self):
        result = handle({"alertname": "Test", "file": os.path.join(os.sep, "no", "such", "file")})
        self.assertEqual(result["state"], "refused")


if __name__ == "__main__":
    unittest.main()
