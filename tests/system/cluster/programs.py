"""The programs of Kubernetes and Helm, built from their Go modules.

`go.mod` lists their versions and `go.sum` the hashes of their sources. They are built once and kept in
$XDG_CACHE_HOME/bits-auth-proxy/cluster. They take 600 MB there, and some 5 GB in Go's own caches.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

from tools.image.podman import CACHE as CONTAINERS

HERE: Final = Path(__file__).parent
CACHE: Final = CONTAINERS.with_name("cluster")
KUBERNETES: Final = re.findall(r"\tk8s\.io/kubernetes v([\d.]+)", (HERE / "go.mod").read_text("utf-8"))[0]

# The modules of operators, for their custom resource definitions: version, hash, files.
DEFINITIONS: Final = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
    (
        "github.com/external-secrets/external-secrets@v0.16.2",
        "h1:iNY+gIgSyL5higXTfnz+hdPCaiB/43UiHLqE7HBpj68=",
        ("config/crds/bases/external-secrets.io_externalsecrets.yaml",),
    ),
)

# Helm holds the version of Kubernetes that it supports here.
_HELM_KNOWS: Final = ("chartutil", "lint/rules")


def build() -> Path:
    """Build what is not in the cache; return the directory with the programs and the definitions."""
    recipe = (
        b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum")) + repr(DEFINITIONS).encode()
    )
    made = CACHE / hashlib.sha256(recipe).hexdigest()[:12]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not made.exists():
            for old in CACHE.glob("*/"):
                shutil.rmtree(old)
            new = CACHE / "new"
            new.mkdir()
            _compile(new)
            _copy_definitions(new)
            new.rename(made)
    return made


def _compile(directory: Path) -> None:
    major, minor, _ = KUBERNETES.split(".")
    texts = {
        "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        **{f"helm.sh/helm/v3/pkg/{package}.k8sVersionMajor": major for package in _HELM_KNOWS},
        **{f"helm.sh/helm/v3/pkg/{package}.k8sVersionMinor": minor for package in _HELM_KNOWS},
    }
    flags = ["-s", "-w", *(f"-X={name}={text}" for name, text in texts.items())]
    _go(
        "build",
        "-mod=readonly",
        "-trimpath",
        f"-ldflags={' '.join(flags)}",
        f"-o={directory}/",
        "tool",
        cwd=HERE,
    )


def _copy_definitions(directory: Path) -> None:
    for module, checksum, files in DEFINITIONS:
        told = json.loads(_go("mod", "download", "-json", module, cwd=directory))
        if told["Sum"] != checksum:
            raise ValueError(f"{module} has the hash {told['Sum']}, not {checksum}")
        for file in files:
            shutil.copy(Path(told["Dir"], file), directory)


def _go(*arguments: str, cwd: Path) -> str:
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None:
        raise FileNotFoundError("Go is needed, of the version in tests/system/cluster/go.mod or newer")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    done = subprocess.run(
        ["nice", go, *arguments],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=1800,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    print(build())
