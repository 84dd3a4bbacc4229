"""The process behind `sandbox`: an emulator and a proxy, again and again, until its input ends.

A line in is `{"settings": {…}}`: the sandbox of before ends, and one with these settings begins; with null,
none does. A line out tells where it is, or `{"error": …}`. Logs go to standard error, so that a test runner
shows them with a test that failed.
"""

import asyncio
import contextlib
import gc
import json
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bits_auth_proxy.cli import emulation
from bits_auth_proxy.errors import ProxyError
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import load
from bits_auth_proxy.sidecar import Sidecar
from bits_auth_proxy.telemetry.log import Redactor, configure

_PORTS: Final = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


async def host(lines: asyncio.StreamReader) -> None:
    """Do what the lines say."""
    async with contextlib.AsyncExitStack() as stack:
        while line := await lines.readline():
            await stack.aclose()
            settings = json.loads(line)["settings"]
            told: Mapping[str, str] = {}
            if settings is not None:
                try:
                    told = await stack.enter_async_context(_sandbox(settings))
                except ProxyError as error:
                    told = {"error": str(error)}
            print(json.dumps(told), flush=True)  # noqa: T201 - the answer


@contextlib.asynccontextmanager
async def _sandbox(environ: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """Serve both; yield where."""
    loaded = load(environ={**environ, **_PORTS}, env_file=None, credentials_required=False)
    redactor = Redactor()
    fmt = loaded.settings.log_format or "console"
    configure(level=loaded.settings.log_level, fmt=fmt, redactor=redactor, stream=sys.stderr)
    async with emulation.emulating(loaded.settings.emulator, redactor) as emulator:
        settings = emulation.settings_for(emulator, loaded, access_log="all")
        sidecar = Sidecar(settings, credentials=CredentialSource.from_settings(settings), redactor=redactor)
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
            # A sidecar keeps the collector from what it began with: it thinks it is the only one.
            gc.unfreeze()


async def _main() -> None:
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    try:
        await host(lines)
    finally:
        transport.close()


if __name__ == "__main__":
    asyncio.run(_main())
