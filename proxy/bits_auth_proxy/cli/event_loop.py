"""The event loop that a command runs in: uvloop's where there is one, asyncio's elsewhere."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from bits_auth_proxy.cli.exit_codes import FAILURE, USAGE, CommandError
from bits_auth_proxy.errors import OperatorError, SettingError
from bits_auth_proxy.threads import call_in_thread

_Main: TypeAlias = Coroutine[Any, Any, bool]
_Addresses: TypeAlias = list[tuple[Any, ...]]

_BaseLoop: Any
try:
    import uvloop
except ImportError:  # There is no uvloop for this platform.
    _BaseLoop = asyncio.SelectorEventLoop
else:
    _BaseLoop = uvloop.Loop

_SHARED_FOR: Final = 2.0
"""Seconds for which others join a lookup that is under way. A later one may be luckier, and gets its own."""


class _Lookup(NamedTuple):
    began: float
    addresses: asyncio.Future[_Addresses]


class Loop(_BaseLoop):  # type: ignore[misc]  # either of two
    """An event loop that closes at once though a DNS lookup hangs.

    uvloop and asyncio look names up in threads that the process waits for when it ends. uvloop has four of
    them: as many hung lookups block all others.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lookups: dict[tuple[Any, ...], _Lookup] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> _Addresses:
        """Look up a name. Calls for the same name share one lookup, so that silent DNS costs few threads."""
        with contextlib.suppress(socket.gaierror):
            # An address is no name: this asks nobody.
            return socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        key = (host, port, family, type, proto, flags)
        lookup = self._lookups.get(key)
        if lookup is None or lookup.addresses.done() or self.time() - lookup.began > _SHARED_FOR:
            call = partial(socket.getaddrinfo, *key)
            lookup = _Lookup(self.time(), call_in_thread(call, name="lookup"))
            lookup.addresses.add_done_callback(_retrieve)
            self._lookups[key] = lookup
        # One who gives up does not take the addresses from the others.
        return await asyncio.shield(lookup.addresses)


def _retrieve(addresses: asyncio.Future[_Addresses]) -> None:
    """Take a failure that perhaps nobody waits for any more, so that asyncio does not complain of it."""
    if not addresses.cancelled():
        addresses.exception()


def run(main: _Main) -> bool:
    """Run a command's main coroutine; return what it returns.

    Raises CommandError where the operator must change something.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = Loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)
    except SettingError as error:
        raise CommandError(str(error), exit_code=USAGE) from error
    except OperatorError as error:
        raise CommandError(str(error), exit_code=FAILURE) from error
