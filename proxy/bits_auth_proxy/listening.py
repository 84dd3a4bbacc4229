"""The sockets of all listeners, from the moment they are bound until they are closed."""

import errno
import socket
from collections.abc import Sequence
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
        for variable, addresses, mode, bound in (
            ("BITS_LISTEN", settings.listen or _DEFAULT, settings.socket_mode, self.clients),
            ("BITS_ADMIN_LISTEN", settings.admin_listen, settings.admin_socket_mode, self.admin),
        ):
            for address in addresses:
                try:
                    bound.append(_bind(variable, address, mode))
                except OperatorError as error:
                    if not _is_dispensable(address, addresses, error):
                        raise

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


def _is_dispensable(address: ListenAddress, addresses: Sequence[ListenAddress], error: OperatorError) -> bool:
    """Whether an address could not be bound because the machine has no IPv6, and another stands for it."""
    cause = error.__cause__
    lacks_ipv6 = isinstance(cause, OSError) and cause.errno in _NO_IPV6
    if not lacks_ipv6 or not isinstance(address, TcpAddress) or address.host != "::1":
        return False
    return TcpAddress("127.0.0.1", address.port) in addresses
