"""The process behind `sandbox`, which serves one sandbox (an emulator and a proxy) after another.

For each line of input, `{"settings": {…}}`, it stops the previous sandbox and starts one with these settings,
or none if they are null. It answers with a line that holds the new sandbox's addresses, or `{"error": …}`. It
ends when its input ends. Logs go to standard error, so that a test runner shows them for a test that failed.
"""

import asyncio
import contextlib
import gc
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bits_auth_proxy.cli import emulation
from bits_auth_proxy.emulator.server import MAX_CONNECTIONS
from bits_auth_proxy.errors import ProxyError
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import load
from bits_auth_proxy.sidecar import Sidecar
from bits_auth_proxy.telemetry.log import Redactor, configure

# Tests see what the service will see: a session token that it sends itself reaches the API.
_DEFAULTS: Final = {"BITS_CLIENT_AUTHORIZATION": "keep"}
_PORTS: Final = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


async def host(lines: asyncio.StreamReader) -> None:
    """Serve what each line asks for."""
    async with contextlib.AsyncExitStack() as stack:
        while line := await lines.readline():
            await stack.aclose()
            settings = json.loads(line)["settings"]
            response: Mapping[str, str] = {}
            if settings is not None:
                try:
                    response = await stack.enter_async_context(_sandbox(settings))
                except ProxyError as error:
                    response = {"error": str(error)}
            print(json.dumps(response), flush=True)  # noqa: T201 - the protocol with `sandbox`


@contextlib.asynccontextmanager
async def _sandbox(environ: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """Serve an emulator and a proxy; yield their addresses."""
    environ = {**_DEFAULTS, **environ, **_PORTS}
    loaded = load(environ=environ, env_file=None, credentials_required=False, calls_api=False)
    redactor = Redactor()
    fmt = loaded.settings.log_format or "console"
    configure(level=loaded.settings.log_level, fmt=fmt, redactor=redactor, stream=sys.stderr)
    async with emulation.emulating(loaded.settings.emulator, redactor) as emulator:
        settings = emulation.settings_for(emulator, loaded, access_log="all")
        sidecar = Sidecar(
            settings,
            credentials=CredentialSource.from_settings(settings),
            redactor=redactor,
            neighbors=MAX_CONNECTIONS,
        )
        try:
            await sidecar.start()
            scheme = "https" if sidecar.speaks_tls else "http"
            yield {
                "url": f"{scheme}://{sidecar.addresses[0]}",
                "admin_url": f"http://{sidecar.admin_addresses[0]}",
                "emulator_url": f"http://{emulator}",
            }
        finally:
            await sidecar.close()
            # A sidecar freezes the garbage collector's objects, as if it were the only one in its process.
            gc.unfreeze()


def main() -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve_input())


async def _serve_input() -> None:
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    try:
        await host(lines)
    finally:
        transport.close()
