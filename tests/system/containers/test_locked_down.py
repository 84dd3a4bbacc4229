"""The sidecar and the emulator with hardly any rights: read-only, no capabilities, little memory."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.stand import APPLICATION, CREATE
from tests.system.containers.containers import (
    LOCKED_DOWN,
    Container,
    credentials_directory,
    eventually,
    running,
)
from tools.image.podman import PodmanError, podman

ID = "bits:client::3f1c"
SECRET = "canary-secret-9d2f7c-of-the-image"
PROXY = "http://localhost:8080"
ADMIN = "http://localhost:9090"
API = "http://127.0.0.1:8090"
MEMORY_LIMIT = 69_000
"""The most resident memory at rest, in KiB."""


class Pair(NamedTuple):
    """A sidecar and the emulator, which share a network as in a pod."""

    sidecar: Container
    emulator: Container


@pytest.fixture
def pair(image: str, tmp_path: Path) -> Iterator[Pair]:
    directory = credentials_directory(tmp_path, ID, SECRET)
    credentials = (
        f"--volume={directory}:/run/secrets/bits:ro",
        "--env=BITS_CREDENTIALS_DIR=/run/secrets/bits",
    )
    known = (f"--env=BITS_EMULATOR__CLIENT_ID={ID}", f"--env=BITS_EMULATOR__CLIENT_SECRET={SECRET}")
    with (
        running("emulator", *LOCKED_DOWN, *known, image, "emulator") as emulator,
        running(
            "sidecar",
            f"--network=container:{emulator.name}",
            *LOCKED_DOWN,
            *credentials,
            f"--env=BITS_API_URL={API}",
            image,
        ) as sidecar,
    ):
        sidecar.event("token_refreshed")
        yield Pair(sidecar, emulator)


def create(pair: Pair) -> tuple[int, dict[str, str], str]:
    return pair.emulator.ask("POST", PROXY + CREATE, json.dumps(APPLICATION))


def test_it_serves_is_healthy_and_shows_no_secret(pair: Pair) -> None:
    status, _, body = create(pair)
    assert status == 200
    assert json.loads(body)["id"].startswith("bits:application::")
    status, _, body = pair.emulator.ask("POST", API + CREATE, json.dumps(APPLICATION))
    assert status == 401, "the emulator asks for the token that the sidecar puts on"
    assert pair.emulator.ask("GET", ADMIN + "/readyz")[::2] == (200, "started\n")
    podman("healthcheck", "run", pair.sidecar.name)
    process = Path("/proc", str(pair.sidecar.pid))
    shown = {
        "inspect": podman("inspect", pair.sidecar.name),
        "log": pair.sidecar.logs,
        "title": (process / "cmdline").read_text(),
        "environment": (process / "environ").read_text(),
        "status": pair.emulator.ask("GET", ADMIN + "/status")[2],
        "metrics": pair.emulator.ask("GET", ADMIN + "/metrics")[2],
    }
    assert all(shown.values())
    assert not [where for where, text in shown.items() if SECRET in text]
    memory = next(
        int(line.split()[1]) for line in (process / "status").read_text().splitlines() if "VmRSS" in line
    )
    print(f"resident memory after a request: {memory} KiB")
    assert memory < MEMORY_LIMIT


def test_sigterm_lets_the_exchange_in_flight_end(pair: Pair) -> None:
    pair.emulator.ask("POST", f"{API}/_emulator/faults", '{"latency": 4}')
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(create(pair)[0]))
    client.start()
    pair.emulator.await_page(ADMIN + "/metrics", "bits_proxy_requests_in_flight 1.0")
    pair.sidecar.kill("TERM")
    assert pair.sidecar.ended() == 0
    client.join()
    assert answers == [200]
    assert pair.sidecar.events[-1]["event"] == "stopped"
    assert pair.sidecar.events[-1]["cut"] == 0


def test_idle_it_ends_at_once(pair: Pair) -> None:
    for container in pair:
        podman("stop", "--time=20", container.name)
        assert container.ended() == 0, "it was killed after 20 s"
    took = pair.sidecar.drained_for()
    print(f"stopped in {took:.2f} s")
    assert took < 5


def test_unhealthy_is_said(image: str) -> None:
    # This address is reserved for documentation. Nothing responds there, so start-up goes on without a token.
    env = {
        "BITS_API_URL": "https://192.0.2.1",
        "BITS_CLIENT_ID": "id",
        "BITS_CLIENT_SECRET": "no",
        "BITS_STARTUP_GRACE": "3600",
    }
    settings = (f"--env={name}={value}" for name, value in env.items())
    with running("lonely", "--network=none", *LOCKED_DOWN, *settings, image) as lonely:
        lonely.event("token_refresh_failed")
        with pytest.raises(PodmanError) as unhealthy:
            lonely.run("bits-auth-proxy", "healthcheck")
    assert unhealthy.value.code == 1


def test_sigterm_ends_a_command_that_does_not_serve(image: str, pair: Pair) -> None:
    """The first process of a container has no default action for signals."""
    pair.emulator.ask("POST", f"{API}/_emulator/faults", '{"token_delay": 60}')
    env = (f"--env=BITS_API_URL={API}", f"--env=BITS_CLIENT_ID={ID}", "--env=BITS_CLIENT_SECRET=other")
    network = f"--network=container:{pair.emulator.name}"
    with running("checking", network, *LOCKED_DOWN, *env, image, "check") as checking:
        eventually(lambda: "settings" in checking.logs, "settings", checking)
        checking.kill("TERM")
        # Otherwise it would have waited for a token and ended with 1.
        assert checking.ended() == 143


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ((), ("BITS_CLIENT_ID", "BITS_CLIENT_SECRET")),
        (("BITS_LISTEN=8080", "BITS_TOKEN_WAIT=soon"), ("BITS_LISTEN", "BITS_TOKEN_WAIT", "BITS_CLIENT_ID")),
        (("BITS_CLIENT_ID=a", "BITS_CLIENT_SECRET=b", "BITS_API_URL=http://bits:80"), ("BITS_API_URL",)),
    ],
)
def test_settings_that_cannot_work_end_with_64(
    image: str, env: tuple[str, ...], named: tuple[str, ...]
) -> None:
    with pytest.raises(PodmanError) as refused:
        podman("run", "--rm", *LOCKED_DOWN, *(f"--env={each}" for each in env), image)
    assert refused.value.code == 64
    assert not [name for name in named if f"{name}: " not in refused.value.output]


def test_the_health_check_is_cheap(image: str) -> None:
    script = (
        "import resource, subprocess\n"
        "for _ in range(20): subprocess.run(['bits-auth-proxy', 'healthcheck'], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print((used.ru_utime + used.ru_stime) / 20)\n"
    )
    seconds = float(podman("run", "--rm", *LOCKED_DOWN, "--entrypoint=python", image, "-c", script))
    print(f"a health check takes {seconds * 1000:.0f} ms of CPU")
    assert seconds < 0.05
