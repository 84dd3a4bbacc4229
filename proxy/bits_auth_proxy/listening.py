"""The sockets of all listeners, from the moment they are bound until they are closed."""

import errno
import socket
from pathlib import Path
from typing import Final, NamedTuple

from bits_auth_proxy.assembly import bind_for, bound_address
from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, UnixAddress
from bits_auth_proxy.settings.model import Settings

_DEFAULT: Final = (TcpAddress("127.0.0.1", 8080), TcpAddress("::1", 8080))
_NO_IPV6: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


class BoundSocket(NamedTuple):
    """A listening socket and its address, with the actual port."""

    address: ListenAddress
    sock: socket.socket


class ListeningSockets:
    """The sockets that the proxy listens on. Both lists are empty before `bind`."""

    __slots__ = ("admin", "clients")

    def __init__(self) -> None:
        self.clients: Final[list[BoundSocket]] = []
        self.admin: Final[list[BoundSocket]] = []

    def bind(self, settings: Settings) -> None:
        """Bind every address in the settings. Raises OperatorError; call `close` even then."""
        for address in settings.listen or _DEFAULT:
            try:
                self.clients.append(_bind("BITS_LISTEN", address, settings.socket_mode))
            except OperatorError as error:
                # A machine without IPv6 has only the first of the default addresses.
                cause = error.__cause__
                if settings.listen is None and isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                    continue
                raise
        for address in settings.admin_listen:
            self.admin.append(_bind("BITS_ADMIN_LISTEN", address, settings.socket_mode))

    @property
    def addresses(self) -> list[ListenAddress]:
        """The addresses of the listeners for clients."""
        return [each.address for each in self.clients]

    @property
    def admin_addresses(self) -> list[ListenAddress]:
        """The addresses of the admin listeners, which serve the probes, the metrics and the admin page."""
        return [each.address for each in self.admin]

    def close(self) -> None:
        """Close all sockets and remove the files of the admin listeners' Unix sockets."""
        for each in (*self.clients, *self.admin):
            each.sock.close()
        for address in self.admin_addresses:
            if isinstance(address, UnixAddress):
                Path(address.path).unlink(missing_ok=True)


def _bind(variable: str, address: ListenAddress, socket_mode: int) -> BoundSocket:
    sock = bind_for(variable, address, socket_mode)
    return BoundSocket(bound_address(address, sock), sock)
