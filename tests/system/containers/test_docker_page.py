"""The commands of docs/docker.md in their order, run with podman; test_compose runs those of compose."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documentation import commands_of
from tests.support.ports import free_port
from tools.image.podman import ROOT, build_command, environment, podman

# `docker run` is called as on the page; only a build needs to be told where to find what a registry has.
_DOCKER = """\
#!/bin/sh
case "$1" in
build) shift; exec {build} "$@" ;;
*) exec podman "$@" ;;
esac
"""
NAMES = ("bits-demo", "bits-sbom")


@pytest.fixture
def shell_environment(image: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell in which `docker` is podman."""
    docker = tmp_path / "docker"
    docker.write_text(_DOCKER.format(build=shlex.join(build_command())), "utf-8")
    docker.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        yield {**environment(), "PATH": path}
    finally:
        podman("rm", "--force", "--ignore", "--time=0", *NAMES)
        podman("untag", image, "localhost/bits-auth-proxy:latest")


def test_the_commands_work(shell_environment: dict[str, str], tmp_path: Path) -> None:
    page = ROOT / "docs" / "docker.md"
    lines = [
        line for line in commands_of(page) if line.startswith(("docker", "curl")) and "compose" not in line
    ]
    assert len(lines) == 9
    port = str(free_port())
    bill = tmp_path / "image.cdx.json"
    for line in lines:
        # Retry until the proxy serves. A reader of the page types more slowly.
        here = line.replace("127.0.0.1:8080:", f"127.0.0.1:{port}:").replace(
            "localhost:8080", f"localhost:{port}"
        )
        here = here.replace("curl -s", "curl -sS --fail --retry 120 --retry-delay 1 --retry-all-errors")
        here = here.replace("> image.cdx.json", f"> {bill}")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", here],
            cwd=ROOT,
            env=shell_environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
    assert "libssl3" in bill.read_text("utf-8")
