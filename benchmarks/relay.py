"""A TCP relay that delays every byte, as a long way does. The kernel of a test machine may have no netem.

A new connection costs a round trip more before its first byte passes: that is TCP's handshake, which between
two processes of one machine takes no time.
"""

import argparse
import asyncio
from collections.abc import Callable
from typing import cast


class Leg(asyncio.Protocol):
    """One of the two connections of a relayed one. What it reads is written to its `other`, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self.other: Leg | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._later(lambda transport: transport.write(data))

    def eof_received(self) -> bool:  # noqa: D102
        self._later(lambda transport: transport.write_eof())
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        self._transport = None
        self._later(lambda transport: transport.close())

    def hold(self) -> None:
        """Read nothing for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def release(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _later(self, act: Callable[[asyncio.Transport], None]) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._pass_on, act)

    def _pass_on(self, act: Callable[[asyncio.Transport], None]) -> None:
        transport = self.other and self.other._transport  # noqa: SLF001 - its twin
        if transport and not transport.is_closing():
            act(transport)


async def serve(listen_port: int, target_port: int, delay: float) -> None:
    """Relay connections from one port of loopback to another, `delay` seconds each way."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def connect(client: Leg) -> None:
        _, server = await loop.create_connection(lambda: Leg(delay), "127.0.0.1", target_port)
        client.other, server.other = server, client
        await asyncio.sleep(2 * delay)
        client.release()

    class Client(Leg):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.hold()
            task = loop.create_task(connect(self))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await loop.create_server(lambda: Client(delay), "127.0.0.1", listen_port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen-port", type=int, required=True)
    parser.add_argument("--target-port", type=int, required=True)
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.listen_port, arguments.target_port, arguments.delay))


if __name__ == "__main__":
    main()
