"""A whole stand in one event loop: the emulator and the real sidecar before it, on free ports."""

import contextlib
import io
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from bits_auth_proxy.clock import Clock, SystemClock
from bits_auth_proxy.emulator.server import Emulator
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import load
from bits_auth_proxy.sidecar import Sidecar
from bits_auth_proxy.telemetry.log import Redactor, configure
from tests.support import evidence
from tests.support.commands import CLIENT_ID, CLIENT_SECRET, proxy_env
from tests.support.vocabulary import undocumented

CREATE = "/v1/applications.create"
APPLICATION = {
    "workflowId": "bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",
    "countryCode": "SE",
    "redirectUrl": "https://acme.example/done",
}


class Stand(NamedTuple):
    """Where everything is; `log` holds what was logged, as JSON lines at debug level."""

    sidecar: Sidecar
    emulator: Emulator
    api: str
    log: io.StringIO

    @property
    def url(self) -> str:
        return f"http://{self.sidecar.addresses[0]}"

    @property
    def admin(self) -> str:
        return f"http://{self.sidecar.admin_addresses[0]}"


@contextlib.asynccontextmanager
async def emulating(
    *, token_lifetime: float = 3600, token_delay: float = 0, latency: float = 0
) -> AsyncIterator[tuple[Emulator, str]]:
    """Serve the emulator; yield it and its origin."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        emulator = Emulator(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            token_lifetime=token_lifetime,
            token_delay=token_delay,
            latency=latency,
            clock=SystemClock(),
        )
        try:
            await emulator.start(sock)
            yield emulator, f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            await emulator.close()


@contextlib.asynccontextmanager
async def sidecar_for(
    api: str, log: io.StringIO, clock: Clock | None = None, /, **env: str
) -> AsyncIterator[Sidecar]:
    """Serve a sidecar before `api`, on a clock of one's own if wanted."""
    evidence.keep(f"log of the proxy before {api}", log.getvalue)
    redactor = Redactor()
    configure(level="debug", fmt="json", redactor=redactor, stream=log)
    settings = load(environ=proxy_env(api, **env), env_file=None, credentials_required=True).settings
    sidecar = Sidecar(
        settings, credentials=CredentialSource.from_settings(settings), redactor=redactor, clock=clock
    )
    try:
        await sidecar.start()
        yield sidecar
    finally:
        await sidecar.close()
    # Whatever a test does, nothing is logged that the documentation does not know.
    assert undocumented(log.getvalue()) == []


@contextlib.asynccontextmanager
async def standing(
    *, token_lifetime: float = 3600, token_delay: float = 0, latency: float = 0, **env: str
) -> AsyncIterator[Stand]:
    """Serve both."""
    log = io.StringIO()
    async with (
        emulating(token_lifetime=token_lifetime, token_delay=token_delay, latency=latency) as (emulator, api),
        sidecar_for(api, log, **env) as sidecar,
    ):
        yield Stand(sidecar, emulator, api, log)


def unix_address(directory: Path) -> tuple[str, str]:
    """Return BITS_LISTEN for a socket in `directory`, and the socket's path."""
    path = directory / "bits.sock"
    return f"unix:{path}", str(path)
