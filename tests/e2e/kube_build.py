#!/usr/bin/env python3
"""A Kubernetes control plane, kwok and KEDA, built once from their Go modules: `tests/e2e/kube_build.py [NAME...]` prints the programs' paths.

Cold: kube-apiserver, kube-controller-manager and kubectl take about six minutes of two cores, KEDA's two ten more.
"""
import os
import re
import shutil
import sys
import tempfile

import go_build
from go_build import Unavailable

KUBERNETES, KUBERNETES_VERSION = "k8s.io/kubernetes", "v1.33.13"
KWOK, KWOK_VERSION = "sigs.k8s.io/kwok", "v0.8.0"
KEDA, KEDA_VERSION = "github.com/kedacore/keda/v2", "v2.21.0"
BUILD_S = 3600
NAME = "module balm.dev/tests/kube\n"


def of_module(folder, module, version):
    """(go.mod, go.sum) of the module itself: only a main module's replacements count, so ours has to have them."""
    go_build.write_module(folder, NAME)
    own = go_build.module_dir(folder, module, version)
    with open(os.path.join(own, "go.mod")) as f:
        text = f.read()
    with open(os.path.join(own, "go.sum")) as f:
        return re.sub(r"^module .*$", NAME.strip(), text, count=1, flags=re.M), f.read()


def write_kubernetes(folder):
    """Its staging modules are published beside it, as v0.X of its v1.X."""
    lines, sums = of_module(folder, KUBERNETES, KUBERNETES_VERSION)
    staged = re.sub(r"^v1", "v0", KUBERNETES_VERSION)
    lines = re.sub(r"^\s*k8s\.io/\S+ v0\.0\.0( // indirect)?$", "", lines, flags=re.M)
    lines = re.sub(r"=> \./staging/src/(\S+)", rf"=> \1 {staged}", lines)
    go_build.write_module(folder, f"{lines}\nrequire {KUBERNETES} {KUBERNETES_VERSION}\n", sums)


def write_keda(folder):
    lines, sums = of_module(folder, KEDA, KEDA_VERSION)
    go_build.write_module(folder, f"{lines}\nrequire {KEDA} {KEDA_VERSION}\n", sums)


def write_kwok(folder):
    go_build.write_module(folder, f"{NAME}\nrequire {KWOK} {KWOK_VERSION}\n")


# What it is called in the cache: (how its module is made, package, version)
PROGRAMS = {
    "kube-apiserver": (write_kubernetes, f"{KUBERNETES}/cmd/kube-apiserver", KUBERNETES_VERSION),
    "kube-controller-manager": (write_kubernetes, f"{KUBERNETES}/cmd/kube-controller-manager", KUBERNETES_VERSION),
    "kubectl": (write_kubernetes, f"{KUBERNETES}/cmd/kubectl", KUBERNETES_VERSION),
    "kwok": (write_kwok, f"{KWOK}/cmd/kwok", KWOK_VERSION),
    "keda": (write_keda, f"{KEDA}/cmd/operator", KEDA_VERSION),
    "keda-adapter": (write_keda, f"{KEDA}/cmd/adapter", KEDA_VERSION),
}


def program(name):
    """Path of it, built if it is not there. Unavailable: the tests that want it skip, and say why."""
    write, package, version = PROGRAMS[name]

    def make(folder, path):
        write(folder)
        go_build.compile_package(folder, package, path, ["-ldflags", "-s -w"], BUILD_S)
    return go_build.program(f"{name}-{version.lstrip('v')}", make)


def source(module, version):
    """Folder of the module's own files (CRDs, stages of kwok)."""
    if shutil.which("go") is None:
        raise Unavailable(f"no go here to fetch {module} with")
    with tempfile.TemporaryDirectory(prefix="balm-go-") as folder:
        go_build.write_module(folder, NAME)
        return go_build.module_dir(folder, module, version)


if __name__ == "__main__":
    try:
        for wanted in sys.argv[1:] or PROGRAMS:
            print(program(wanted), flush=True)
    except Unavailable as e:
        sys.exit(str(e))
