"""DNS under the test's control."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop

_LOOPS = (asyncio.BaseEventLoop, uvloop.Loop)


class Names:
    """Answers DNS for every event loop with `known`; of what is not there, it says that it does not exist."""

    def __init__(self, known: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = known
        self.silent = False
        """Whether DNS answers nothing at all."""
        self.asked: list[str] = []
        for kind in _LOOPS:
            monkeypatch.setattr(kind, "getaddrinfo", self._look_up)

    async def _look_up(self, host: Any, port: Any, **_: Any) -> list[Any]:
        self.asked.append(host)
        if self.silent:
            await asyncio.get_running_loop().create_future()
        address = self.known.get(host, host if host[:1].isdigit() else None)
        if address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]
