"""An API on the other side of a network that a test can change, by Linux's network namespaces. Needs root."""

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

API: Final = "198.18.77.1"
OWN: Final = ("198.18.77.2", "198.18.77.3")
"""Addresses of this side, the first of which is in use. The range is for tests of networks (RFC 2544)."""
_CLONE_NEWNET: Final = 0x40000000


class Network:
    """A cable between this namespace and the API's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def replace_own_address(self) -> None:
        """Take this side's address away and give it another one, as DHCP in another network does."""
        ip("address", "add", f"{OWN[1]}/24", "dev", self._name)
        ip("address", "delete", f"{OWN[0]}/24", "dev", self._name)
        # A network's second address goes with the first.
        ip("address", "replace", f"{OWN[1]}/24", "dev", self._name)

    def pull(self) -> None:
        """Cut the cable at the API's end, which this side's link does not notice."""
        ip("-netns", self._name, "link", "set", "api", "down")

    def plug(self) -> None:
        """Connect both ends again."""
        ip("-netns", self._name, "link", "set", "api", "up")

    async def listen(self) -> socket.socket:
        """Return a listening socket on the API's side."""
        return await asyncio.to_thread(_listen, Path("/run/netns") / self._name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a namespace and a cable to it."""
    name = f"bits-{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "api", "netns", name)
        ip("address", "add", f"{OWN[0]}/24", "dev", name)
        ip("link", "set", name, "up")
        ip("-netns", name, "address", "add", f"{API}/24", "dev", "api")
        ip("-netns", name, "link", "set", "api", "up")
        yield Network(name)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # It was never made.
            ip("link", "delete", name)
        ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """Run iproute2's ip, which needs root."""
    subprocess.run(["ip", *arguments], check=True)


def _listen(namespace: Path) -> socket.socket:
    """Return a socket of `namespace`: a thread's sockets belong to the thread's namespace."""
    with Path("/proc/thread-self/ns/net").open() as own, namespace.open() as other:
        _enter(other.fileno())
        try:
            return socket.create_server((API, 0))
        finally:
            _enter(own.fileno())


def _enter(namespace: int) -> None:
    # Python has os.setns since 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
