"""Listening sockets and the accept loop.

This is an accept loop of our own, because the event loop's server accepts without a limit. At the limit of
connections, we stop accepting. Further connections wait in the kernel's backlog; beyond that, clients wait.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bits_auth_proxy.forward.limits import ConnectionLimit
from bits_auth_proxy.tasks import TaskOwner

_ACCEPTS_PER_WAKE: Final = 64
_PAUSE: Final = 0.5
"""Seconds without accepting after the system ran out of descriptors or memory."""
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """Accepts connections on one socket and hands them to the event loop."""

    __slots__ = ("_factory", "_limit", "_loop", "_open", "_sock", "_tasks")

    def __init__(
        self,
        *,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        limit: ConnectionLimit,
        tasks: TaskOwner,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Take a listening, non-blocking socket. The protocols that `factory` makes return their places."""
        self._sock = sock
        self._factory = factory
        self._limit = limit
        self._tasks = tasks
        self._loop = loop
        self._open = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._open = True
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting, and free the address. Can be called more than once."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        if self._sock.family == socket.AF_UNIX:
            Path(self._sock.getsockname()).unlink(missing_ok=True)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if not self._limit.take():
                self._pause()
                self._limit.wake_when_free(self._resume)
                return
            try:
                sock, _ = self._sock.accept()
            except OSError as error:
                self._limit.give()
                if error.errno in _EXHAUSTED:
                    self._pause()
                    self._loop.call_later(_PAUSE, self._resume)
                # Other errors concern a connection that ended before it was accepted, or mean "no more".
                return
            sock.settimeout(0)
            self._tasks.start(self._serve(sock), name="accept")

    async def _serve(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock)
        except OSError:
            self._limit.give()
            sock.close()

    def _pause(self) -> None:
        if self._open:
            self._loop.remove_reader(self._sock.fileno())

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._sock.fileno(), self._accept)


def bind(address: str | tuple[str, int], *, backlog: int = 1024, socket_mode: int = 0o600) -> socket.socket:
    """Return a listening socket for (host, port) or a Unix socket's path. Raises OSError.

    A Unix socket that a process has left behind is replaced; one that accepts connections is in use.
    """
    if isinstance(address, str):
        return _bind_unix(address, backlog, socket_mode)
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, backlog: int, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            Path(path).unlink()
        # On Linux, the file gets the socket's mode, less the umask, so it is never open to more users. Nobody
        # can connect before `listen`. The umask itself belongs to the whole process, and stays as it is.
        with contextlib.suppress(OSError):
            os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        Path(path).chmod(mode)
        sock.listen(backlog)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False
