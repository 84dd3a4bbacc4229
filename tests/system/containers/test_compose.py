"""compose.yaml, unchanged and complete. Only Prometheus comes from Debian, because no registry is reached."""

import http.client
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.support import evidence
from tests.support.documentation import commands_of
from tests.support.ports import free_port
from tests.support.stand import APPLICATION, CREATE
from tests.support.waiting import HANGS
from tests.system.containers.containers import (
    Container,
    credentials_directory,
    eventually,
    unique,
)
from tools.image.podman import ROOT, debian_python, environment, podman

SERVICES = ("app", "sidecar", "emulator", "prometheus")


class Project:
    """The containers of one compose file, under a unique name and on free ports."""

    def __init__(self, image: str, *files: Path, name: str, **variables: str) -> None:
        self.name = unique(name)
        self.proxy_port, self.prometheus_port = free_port(), free_port()
        self._files = [f"--file={file}" for file in files]
        self._environment = {
            **environment(),
            "IMAGE": image,
            "PROXY_PORT": str(self.proxy_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            **variables,
        }

    def compose(self, *arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "podman_compose",
            f"--project-name={self.name}",
            *self._files,
            *arguments,
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, service: str) -> Container:
        return Container(f"{self.name}_{service}_1")

    def eventually(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds. If it never does, show what all containers printed."""
        eventually(condition, what, *(self.container(service) for service in SERVICES))

    def ask(self, method: str, path: str, host: str, body: str = "") -> tuple[int, str]:
        """Send a request to the published port of the proxy, like a program on this machine."""
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy_port, timeout=HANGS)
        try:
            connection.request(method, path, body, {"Host": host, "Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of a PromQL expression."""
        result: list[dict[str, Any]] = self.prometheus(f"query?query={quote(expression)}")["result"]
        return result

    def prometheus(self, what: str) -> dict[str, Any]:
        """Query the API of Prometheus. Raises OSError while it is not ready."""
        connection = http.client.HTTPConnection("127.0.0.1", self.prometheus_port, timeout=HANGS)
        try:
            connection.request("GET", f"/api/v1/{what}")
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise ConnectionError(f"Prometheus is not ready: {answer.status} {text.decode()}")
            data: dict[str, Any] = json.loads(text)["data"]
            return data
        finally:
            connection.close()


@pytest.fixture(scope="module")
def project(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    assert prometheus, "Debian's package prometheus is needed"
    assert promtool
    programs = [f"{program}:/bin/{Path(program).name}:ro" for program in (prometheus, promtool)]
    substitute = {
        "image": debian_python(),
        "entrypoint": ["/bin/prometheus"],
        "user": "65534:65534",
        "volumes": programs,
    }
    override = tmp_path_factory.mktemp("compose") / "override.yaml"
    override.write_text(yaml.safe_dump({"services": {"prometheus": substitute}}), "utf-8")
    project = Project(image, ROOT / "compose.yaml", override, name="companion")
    try:
        project.compose("up", "--detach", "--no-build")
        for service in SERVICES:
            evidence.keep(f"{service} of compose", project.container(service).printed, lasting=True)
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout=5")


def test_the_service_creates_applications_and_knows_no_secret(project: Project) -> None:
    app = project.container("app")
    project.eventually(lambda: app.logs.count("created bits:application::") >= 2, "two applications")
    assert "client_secret" not in podman("inspect", app.name)
    assert app.run("python", "-c", "import os; print(os.path.exists('/run/secrets'))") == "False\n"
    # Only the sidecar can reach the API.
    resolve = "import socket\ntry: print(socket.gethostbyname('emulator'))\nexcept OSError: print('unknown')"
    assert app.run("python", "-c", resolve) == "unknown\n"


def test_this_machine_reaches_the_proxy_by_its_names_only(project: Project) -> None:
    project.eventually(lambda: project.ask("GET", "/oauth2/userinfo", "localhost")[0] == 200, "a 200")
    status, body = project.ask("POST", CREATE, f"localhost:{project.proxy_port}", json.dumps(APPLICATION))
    assert status == 200, body
    status, body = project.ask("POST", CREATE, "rebound.example", json.dumps(APPLICATION))
    assert status == 421, body


def test_prometheus_sees_it(project: Project) -> None:
    project.eventually(lambda: [each for each in project.query("up") if each["value"][1] == "1"], "a scrape")
    assert project.query("bits_proxy_token_state")
    groups = project.prometheus("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert sum(len(group["rules"]) for group in groups) >= 5


def test_revoked_tokens_go_unnoticed(project: Project) -> None:
    app = project.container("app")
    command = next(line for line in commands_of(ROOT / "docs" / "docker.md") if "revoke" in line)
    failed = app.logs.count("failed")
    project.compose(*shlex.split(command)[2:])
    created = app.logs.count("created")
    project.eventually(lambda: app.logs.count("created") >= created + 3, "three more")
    assert app.logs.count("failed") == failed
    assert "token_refused" in {event["event"] for event in project.container("sidecar").events}


@pytest.mark.parametrize("service", ["sidecar", "emulator", "prometheus"])
def test_each_service_is_healthy(project: Project, service: str) -> None:
    def healthy() -> bool:
        return "unhealthy" not in podman("healthcheck", "run", project.container(service).name)

    project.eventually(healthy, "healthy")


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_locked_down(project: Project, service: str) -> None:
    described = json.loads(podman("inspect", project.container(service).name))[0]
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert not described["BoundingCaps"]
    assert "no-new-privileges" in " ".join(described["HostConfig"]["SecurityOpt"])
    assert described["Config"]["User"] not in ("", "0", "root")
    bindings = [each for ports in described["HostConfig"]["PortBindings"].values() for each in ports or ()]
    assert {each["HostIp"] for each in bindings} <= {"127.0.0.1"}


def test_stopped_it_drains_and_ends_well(project: Project) -> None:
    sidecar = project.container("sidecar")
    project.compose("stop", "app", "sidecar")
    assert sidecar.ended() == 0
    assert project.container("app").ended() == 0
    assert [each["event"] for each in sidecar.events][-2:] == ["draining", "stopped"]


def test_with_the_real_api_nothing_of_the_emulator_is_left(image: str, tmp_path: Path) -> None:
    """The container is created but not started, because the tests must not call the API."""
    credentials = credentials_directory(tmp_path, "id", "canary-secret")
    project = Project(image, ROOT / "compose.bits.yaml", name="real", CREDENTIALS=str(credentials))
    try:
        project.compose("up", "--no-start", "--no-build", "sidecar")
        described = json.loads(podman("inspect", project.container("sidecar").name))[0]
    finally:
        project.compose("down", "--volumes")
    env = dict(each.split("=", 1) for each in described["Config"]["Env"])
    assert env["BITS_API_URL"] == "https://api.bits.bi"
    assert env["BITS_ALLOW_INSECURE_HTTP"] == "false"
    assert env["BITS_ALLOWED_HOSTS"] == "sidecar,localhost"
    mounts = {each["Destination"]: each["Source"] for each in described["Mounts"]}
    assert mounts == {
        f"/run/secrets/{name}": str(credentials / name) for name in ("client_id", "client_secret")
    }
    assert "canary-secret" not in str(described)
    assert "emulator" not in str(described)
