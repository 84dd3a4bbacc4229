"""Addresses to listen on, as operators write them: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/bits.sock`."""

import ipaddress
import re
from typing import Final, NamedTuple, TypeAlias

_PORT: Final = re.compile("[0-9]{1,5}")
_MAX_PORT: Final = 65535
_MAX_UNIX_PATH: Final = 107
"""Bytes that fit into sockaddr_un."""


class TcpAddress(NamedTuple):
    """A host and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str) -> ListenAddress:
    """Return the address that `text` means. Raises ValueError, saying what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or len(path.encode()) > _MAX_UNIX_PATH or "\0" in path:
            raise ValueError(f"the path of a Unix socket must have 1 to {_MAX_UNIX_PATH} bytes")
        return UnixAddress(path)
    host, separator, port = text.rpartition(":")
    if not separator or not _PORT.fullmatch(port) or int(port) > _MAX_PORT:
        raise ValueError("write host:port, with a port from 0 to 65535, or unix:/path")
    if host in ("", "*"):
        raise ValueError("name the host: 0.0.0.0 and [::] stand for all addresses of this machine")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("the host must be an IP address of this machine, or localhost") from None
    if (address.version == 6) != bracketed:  # noqa: PLR2004 - the version of IP
        raise ValueError("write an IPv6 address in brackets, and any other address without them")
    return TcpAddress(host, int(port))


def is_loopback(address: ListenAddress) -> bool:
    """Tell whether only this machine can reach `address`."""
    return isinstance(address, UnixAddress) or ipaddress.ip_address(address.host).is_loopback
