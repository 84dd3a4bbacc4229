"""Finding a way to the API: addresses that are dead, stall or move."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.dialing import Dialer, DialError, client_context
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from tests.support.connector import Keeper, unexpected
from tests.support.waiting import seen

Address = tuple[str, int]


class Names:
    """DNS whose answer changes; `asked` counts the questions."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: Sequence[Address] = addresses
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[Any]:
        assert (host, port) == ("api.bits.test", 443)
        self.asked += 1
        return [
            (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in self.addresses
        ]


def dialer(names: Names, *, context: ssl.SSLContext | None = None, timeout: float = 5.0) -> Dialer:
    return Dialer(
        host="api.bits.test",
        port=443,
        context=None if context is None else lambda: context,
        timeout=timeout,
        clock=SystemClock(),
        batcher=WriteBatcher(asyncio.get_running_loop().call_soon, unexpected),
        resolve=names.resolve,
    )


class Api:
    """A server that counts who connects."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.connections = 0

    async def had(self, connections: int) -> None:
        """Wait until there were so many: over TLS a client is ready before its server is."""
        await seen(lambda: self.connections >= connections)
        assert self.connections == connections


@contextlib.asynccontextmanager
async def serving(host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncIterator[Api]:
    writers: list[asyncio.StreamWriter] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        api.connections += 1
        writers.append(writer)

    server = await asyncio.start_server(accept, host, 0, ssl=context)
    api = Api(server.sockets[0].getsockname()[:2])
    async with server:
        yield api
        for writer in writers:
            writer.transport.abort()


@contextlib.contextmanager
def refusing(host: str = "127.0.0.2") -> Iterator[Address]:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield sock.getsockname()


@contextlib.contextmanager
def swallowing() -> Iterator[Address]:
    """An address that answers nothing at all: its queue is full, so the kernel drops what asks for more."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.3", 0))
        sock.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(sock.getsockname())
        yield sock.getsockname()


@contextlib.contextmanager
def stalling() -> Iterator[Address]:
    """An address that takes the TCP connection, and no word of TLS."""
    with socket.create_server(("127.0.0.4", 0)) as sock:
        yield sock.getsockname()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def secure(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what client and server need for TLS."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.bits.test").configure_cert(server)
    client = client_context(ca_file=None, client_cert=None, client_key=None)
    authority.configure_trust(client)
    return client, server


def descriptors() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


async def connect(maker: Dialer) -> None:
    connection = await maker.connect(Keeper())
    assert connection.is_ready
    connection.close()


async def test_where_the_first_address_refuses_the_second_serves() -> None:
    async with serving() as api:
        with refusing() as dead:
            await connect(dialer(Names(dead, api.address)))
        await api.had(1)


async def test_where_the_first_address_swallows_the_second_serves_long_before_the_timeout() -> None:
    async with serving() as api:
        with swallowing() as dead:
            async with asyncio.timeout(20):
                await connect(dialer(Names(dead, api.address), timeout=60))
        await api.had(1)


async def test_where_ipv6_refuses_ipv4_serves() -> None:
    async with serving() as api:
        await connect(dialer(Names(("::1", 9), api.address)))
        await api.had(1)


async def test_where_tls_stalls_at_one_address_another_is_tried(authority: trustme.CA) -> None:
    client, server = secure(authority)
    async with serving(context=server) as api:
        with stalling() as dead:
            names = Names(dead, api.address)
            await connect(dialer(names, context=client, timeout=2))
        await api.had(1)
        assert names.asked == 2


async def test_the_second_try_finds_an_api_that_has_moved(authority: trustme.CA) -> None:
    client, server = secure(authority)
    async with serving(context=server) as api:
        with stalling() as dead:
            names = Names(dead)
            connecting = asyncio.ensure_future(connect(dialer(names, context=client, timeout=2)))
            await seen(lambda: names.asked)
            names.addresses = [api.address]
            await connecting
        await api.had(1)


async def test_dns_is_asked_at_every_connect_and_a_moved_api_is_found() -> None:
    async with serving() as old, serving() as new:
        names = Names(old.address)
        maker = dialer(names)
        await connect(maker)
        await connect(maker)
        names.addresses = [new.address]
        await connect(maker)
        await old.had(2)
        await new.had(1)
        assert names.asked == 3


@pytest.mark.parametrize("tls", [True, False])
async def test_where_nobody_answers_it_is_a_timeout_and_no_socket_is_left(
    authority: trustme.CA, *, tls: bool
) -> None:
    client, _ = secure(authority)
    with stalling() as one, swallowing() as other:
        names = Names(one, other) if tls else Names(other)
        opened = []
        # The first time, the event loop opens what it keeps for itself.
        for _ in range(2):
            opened.append(descriptors())
            with pytest.raises(DialError, match=r"no connection within 0\.3 s") as caught:
                await connect(dialer(names, context=client if tls else None, timeout=0.3))
            assert caught.value.problem is problems.CONNECTION_TIMEOUT
        # The event loop closes in its own time.
        await seen(lambda: descriptors() == opened[1])


async def test_where_all_refuse_it_is_told_at_once() -> None:
    with refusing() as one, refusing("127.0.0.5") as other:
        names = Names(one, other)
        with pytest.raises(DialError) as caught:
            await connect(dialer(names))
    assert caught.value.problem is problems.CONNECTION_REFUSED
    assert names.asked == 1


async def test_dns_that_does_not_answer_is_a_timeout() -> None:
    class Silent(Names):
        async def resolve(self, host: str, port: int) -> list[Any]:
            self.asked += 1
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return] # never

    names = Silent()
    with pytest.raises(DialError) as caught:
        await connect(dialer(names, timeout=0.2))
    assert caught.value.problem is problems.CONNECTION_TIMEOUT
    assert names.asked == 2
