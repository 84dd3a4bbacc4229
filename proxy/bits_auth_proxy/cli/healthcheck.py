"""`bits-auth-proxy healthcheck`: asks `/readyz` of a running proxy, with the standard library alone.

An exec probe runs this every few seconds, so it must not load what the proxy needs. Therefore it does not use
the settings model, but looks the admin address up in the same places itself: flag, environment, .env, file.
"""

import argparse
import contextlib
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bits_auth_proxy.cli.exit_codes import CommandError
from bits_auth_proxy.cli.output import print_text

DEFAULT_ADDRESS: Final = "127.0.0.1:9090"
_TIMEOUT: Final = 2.0
_VARIABLE: Final = "BITS_ADMIN_LISTEN"
_CONFIG: Final = "BITS_CONFIG"
_HARMLESS: Final = re.compile(r"[0-9.:\[\]]*[a-z]{0,12}")
_LOOPBACK_OF_ANY: Final = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Print whether the proxy is ready, and return it."""
    parser.add_argument(
        "--admin-listen", metavar="ADDRESS", help="address of the admin listener (BITS_ADMIN_LISTEN)"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file that names the address (BITS_CONFIG)")
    arguments = parser.parse_args(options)
    healthy, text = check(arguments.admin_listen, arguments.config)
    # The exit code is what counts.
    with contextlib.suppress(CommandError, BrokenPipeError):
        print_text(text)
    return healthy


def check(address: str | None, config: str | None) -> tuple[bool, str]:
    """Return whether the proxy is ready, and a text that says so.

    `address` replaces the configured address; `config` is the path of a TOML file.
    """
    address = (address or _configured_address(config)).partition(",")[0].strip()
    try:
        response = _ask(address)
    except ValueError:
        # What does not resemble an address may be a secret that belongs elsewhere.
        shown = f"{address}: " if _HARMLESS.fullmatch(address) else ""
        return False, f"not healthy: {shown}write host:port or unix:/path"
    except OSError as error:
        return False, f"not healthy: {address}: {error}"
    status = response.partition(b"\r\n")[0]
    reason = response.partition(b"\r\n\r\n")[2].decode("latin-1").strip()
    if status.split(b" ")[1:2] == [b"200"]:
        return True, f"healthy: {reason}"
    return False, f"not healthy: {reason or status.decode('latin-1')}"


def _ask(address: str) -> bytes:
    with _connect(address) as sock:
        sock.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        response = b""
        while piece := sock.recv(4096):
            response += piece
        return response


def _connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_TIMEOUT)
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.create_connection((_LOOPBACK_OF_ANY.get(host, host), int(port)), timeout=_TIMEOUT)


def _configured_address(config: str | None) -> str:
    return (
        os.environ.get(_VARIABLE)
        or _from_env_file(Path(".env"), _VARIABLE)
        or _from_toml(config or os.environ.get(_CONFIG) or _from_env_file(Path(".env"), _CONFIG))
        or DEFAULT_ADDRESS
    )


def _from_env_file(path: Path, variable: str) -> str | None:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, separator, value = line.removeprefix("export ").partition("=")
        if separator and name.strip() == variable:
            return value.strip().strip("'\"")
    return None


def _from_toml(path: str | None) -> str | None:
    if not path:
        return None
    import tomllib  # noqa: PLC0415 - 3 ms of CPU, and only a TOML file needs it

    try:
        value = tomllib.loads(Path(path).read_text("utf-8-sig")).get("admin_listen")
    except (OSError, ValueError):
        return None
    return ",".join(value) if isinstance(value, list) else value
