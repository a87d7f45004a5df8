"""A certificate authority of a test's own, by openssl."""
import os
import shutil
import subprocess

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """In a folder of its own; `certificate` is what its clients trust."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = os.path.join(folder, "ca.crt")
        os.makedirs(folder)
        self.openssl("req", "-x509", *EC, "-days", "30", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, folder, name, serial, days=30):
        """NAME.crt and NAME.key for localhost, renamed into place as those who renew certificates do; the key nobody else's."""
        with open(os.path.join(self.folder, "names"), "w") as f:
            f.write("subjectAltName=DNS:localhost\n")
        self.openssl("req", *EC, "-subj", "/CN=localhost", "-keyout", "new.key", "-out", "new.csr")
        self.openssl("x509", "-req", "-in", "new.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", str(serial), "-days", str(days), "-extfile",
                     "names", "-out", "new.crt")
        os.chmod(os.path.join(self.folder, "new.key"), 0o600)
        for end in ("key", "crt"):
            new = os.path.join(folder, f"{name}.new.{end}")
            shutil.copy2(os.path.join(self.folder, "new." + end), new)
            os.replace(new, os.path.join(folder, f"{name}.{end}"))
