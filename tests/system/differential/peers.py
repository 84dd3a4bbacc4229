"""Other proxies, which set the token and the API's Host. All are configured to change little else."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.waiting import HANGS


class Peer(NamedTuple):
    """A proxy that listens at a Unix socket. Its Debian package has the name of the program.

    `{home}`, `{socket}`, `{authority}` and `{token}` are replaced in the configuration; `{home}` and
    `{config}` are replaced in the arguments.
    """

    program: str
    configuration: str
    arguments: Sequence[str]


CADDY: Final = Peer(
    "caddy",
    """\
{{
    admin off
    auto_https off
    storage file_system {home}
    servers {{
        protocols h1
    }}
}}
http:// {{
    bind unix/{socket}
    reverse_proxy http://{authority} {{
        header_up Host {authority}
        header_up Authorization "Bearer {token}"
        transport http {{
            versions 1.1
            compression off
        }}
    }}
}}
""",
    ("run", "--config", "{config}", "--adapter", "caddyfile"),
)
HAPROXY: Final = Peer(
    "haproxy",
    """\
global
    tune.bufsize 32768
defaults
    mode http
    # So that it answers Expect itself: the API does not.
    option http-buffer-request
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind unix@{socket}
    http-request del-header Expect
    http-request set-header Host {authority}
    http-request set-header Authorization "Bearer {token}"
    default_backend api
backend api
    server api {authority}
""",
    # In the foreground, so that it can be ended by its id.
    ("-db", "-f", "{config}"),
)


@contextlib.asynccontextmanager
async def running(peer: Peer, authority: str, token: str) -> AsyncIterator[Path]:
    """Run a proxy in front of the API at `authority`; yield the path of its Unix socket."""
    # Debian installs some in a directory that is not on every PATH.
    binary = shutil.which(peer.program) or shutil.which(peer.program, path="/usr/sbin")
    if binary is None:
        raise AssertionError(
            f"{peer.program} is not installed: the differential tests need Debian's package of that name"
        )
    # The path must be short: the name of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix=f"{peer.program}-") as name:
        home = Path(name)
        socket = home / "sock"
        config = home / "config"
        config.write_text(
            peer.configuration.format(home=home, socket=socket, authority=authority, token=token)
        )
        arguments = [argument.format(home=home, config=config) for argument in peer.arguments]
        log = home / "log"
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                # Caddy saves its configuration at home.
                binary,
                *arguments,
                stdout=output,
                stderr=output,
                env={"HOME": name},
            )
        try:
            async with asyncio.timeout(HANGS):
                while not await _accepts(socket):
                    if process.returncode is not None:
                        raise AssertionError(f"{peer.program} did not start: {log.read_text()}")
                    await asyncio.sleep(0.01)
            yield socket
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _accepts(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
