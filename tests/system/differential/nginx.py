"""Debian's nginx as a reverse proxy, configured to change as little as it can."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.waiting import HANGS

# One process, not a daemon, so that it can be ended by its id and runs as the user of the tests.
_CONFIG = """\
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
    client_max_body_size 0;
    large_client_header_buffers 4 16k;
    ignore_invalid_headers off;
    upstream api {{ server {authority}; keepalive 8; }}
    server {{
        listen unix:{socket};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_buffer_size 32k;
            proxy_buffers 4 32k;
            proxy_redirect off;
            proxy_pass_header Server;
            proxy_pass_header Date;
            proxy_set_header Host {authority};
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
        }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def nginx_before(authority: str, token: str) -> AsyncIterator[Path]:
    """Run nginx in front of the API at `authority`; yield the path of its Unix socket."""
    # Debian installs it in a directory that is not on every PATH.
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        raise AssertionError("nginx is not installed: the differential test needs Debian's package nginx")
    # The path must be short: the name of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        home = Path(name)
        socket = home / "sock"
        config = home / "nginx.conf"
        config.write_text(_CONFIG.format(authority=authority, socket=socket, token=token))
        log = home / "error.log"
        process = await asyncio.create_subprocess_exec(binary, "-p", name, "-c", str(config), "-e", str(log))
        try:
            async with asyncio.timeout(HANGS):
                while not await _accepts(socket):
                    if process.returncode is not None:
                        raise AssertionError(f"nginx did not start: {log.read_text()}")
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
