#!/usr/bin/env python3
"""Peers of the scaler, built once from Go modules: `tests/integration/grpc_build.py` prints their paths. Cold: about a minute.

    grpcurl()   the tool that speaks to any server with reflection ($GRPCURL names another one)
    keda()      tests/integration/keda: the stubs of KEDA's own module as a client, and grpc-go's server as a peer
"""
import hashlib
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
import go_build  # noqa: E402
from go_build import Unavailable  # noqa: E402

VERSION = "1.9.3"
MODULE = "github.com/fullstorydev/grpcurl"
SUMS = (f"{MODULE} v{VERSION} h1:PC1Xi3w+JAvEE2Tg2Gf2RfVgPbf9+tbuQr1ZkyVU3jk=\n"
        f"{MODULE} v{VERSION}/go.mod h1:/b4Wxe8bG6ndAjlfSUjwseQReUDUvBJiFEB7UllOlUE=\n")
SOURCE = os.path.join(HERE, "keda")


def make_grpcurl(folder, path):
    go_build.write_module(folder, f"module balm.dev/tests/grpcurl\n\nrequire {MODULE} v{VERSION}\n", SUMS)
    go_build.compile_package(folder, f"{MODULE}/cmd/grpcurl", path, ["-ldflags", "-s -w"])


def grpcurl():
    """Path of grpcurl. Unavailable: the tests that want it skip, and say why."""
    return os.environ.get("GRPCURL") or go_build.program(f"grpcurl-{VERSION}", make_grpcurl)


def make_keda(folder, path):
    for name in os.listdir(SOURCE):
        shutil.copy(os.path.join(SOURCE, name), folder)
    go_build.compile_package(folder, ".", path, ["-ldflags", "-s -w"])


def keda():
    """Path of the client and peer, built again when its source changes."""
    content = hashlib.sha256()
    for name in sorted(os.listdir(SOURCE)):
        with open(os.path.join(SOURCE, name), "rb") as f:
            content.update(f.read())
    return go_build.program(f"keda-client-{content.hexdigest()[:16]}", make_keda)


if __name__ == "__main__":
    try:
        print(grpcurl(), keda(), sep="\n")
    except Unavailable as e:
        sys.exit(str(e))
