"""Making connections to the Bits API: DNS, happy eyeballs (RFC 8305), TLS.

Each new connection makes a DNS query, so that the proxy finds an API that has moved. After a timeout, the
dialer tries once more, with the other addresses. A refused connection is final, because happy eyeballs has
tried all addresses.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import aiohappyeyeballs

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.errors import UpstreamError
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.egress import MAX_REPLY, TunnelError, TunnelReply, connect_request
from bits_auth_proxy.forward.ports import ConnectionKeeper
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.tls import TlsChannel, no_password, restrict, verify_leniently
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.tls_faults import reason_for_client
from bits_auth_proxy.transport import EgressProxy, authority, route, without_root

READ_SIZE: Final = 64 * 1024
_HAPPY_EYEBALLS_DELAY: Final = 0.25

AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]


class DialError(UpstreamError):
    """No connection could be made; `problem` is what clients get in response."""

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(f"{problem.title}: {detail}")
        self.problem: Final = problem
        self.detail: Final = detail


def client_context(*, ca_file: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext:
    """Return TLS settings for the data path and the token client: system trust or only `ca_file`.

    Raises OSError, or ssl.SSLError, for files that can't be read or don't contain what they should.
    """
    context = ssl.create_default_context(cafile=ca_file)
    restrict(context)
    verify_leniently(context)
    if client_cert is not None:
        context.load_cert_chain(client_cert, client_key, password=no_password)
    return context


class Dialer:
    """Connects to one origin."""

    __slots__ = (
        "_batcher",
        "_clock",
        "_context",
        "_lookup",
        "_name",
        "_port",
        "_proxy",
        "_read_buffer",
        "_resolve",
        "_route",
        "_timeout",
    )

    def __init__(
        self,
        *,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext] | None,
        timeout: float,
        clock: Clock,
        batcher: WriteBatcher,
        proxy: EgressProxy | None = None,
        resolve: Callable[[str, int], Any] | None = None,
    ) -> None:
        """Take the origin and where new connections get their TLS settings (`context`; None: plain http).

        `timeout` is in seconds, for TCP and TLS together. With `proxy`, connections go through a tunnel that
        it opens. `resolve` replaces DNS: an async callable from host and port to address infos.
        """
        self._name = without_root(host)
        self._port = port
        self._lookup = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._route = route(self._name, port, proxy)
        self._context = context
        self._timeout = timeout
        self._clock = clock
        self._batcher = batcher
        self._proxy = proxy
        self._resolve = resolve
        self._read_buffer = memoryview(bytearray(READ_SIZE))

    async def connect(self, keeper: ConnectionKeeper) -> UpstreamConnection:
        """Return a connection that is ready for a request. Raises DialError."""
        tried: list[Any] = []
        waited_for = ""
        for is_second in (False, True):
            waited_for = f"{self._lookup[0]}: DNS did not answer"
            try:
                addresses = [info for info in await self._addresses() if info[4] not in tried]
                waited_for = f"{self._route}: no connection"
                if not is_second or (tried and addresses):
                    return await self._attempt(keeper, addresses, tried)
            except TimeoutError:
                continue
        raise DialError(problems.CONNECTION_TIMEOUT, f"{waited_for} within {self._timeout:g} s")

    async def _addresses(self) -> Sequence[AddressInfo]:
        loop = asyncio.get_running_loop()
        host, port = self._lookup
        try:
            async with asyncio.timeout(self._timeout):
                if self._resolve is not None:
                    return await self._resolve(host, port)  # type: ignore[no-any-return]  # see __init__
                return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise DialError(problems.DNS_ERROR, f"{host}: {reason_for_client(error)}") from None

    async def _attempt(
        self, keeper: ConnectionKeeper, addresses: Sequence[AddressInfo], tried: list[Any]
    ) -> UpstreamConnection:
        """Try `addresses`; add to `tried` the one that accepted the TCP connection."""
        connection = None
        try:
            async with asyncio.timeout(self._timeout):
                loop = asyncio.get_running_loop()
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY, interleave=1, loop=loop
                )
                tried.append(sock.getpeername())
                if self._proxy is not None:
                    await self._open_tunnel(loop, sock, self._proxy)
                connection = UpstreamConnection(
                    loop=loop,
                    keeper=keeper,
                    tls=None if self._context is None else TlsChannel(self._context(), self._name),
                    batcher=self._batcher,
                    read_buffer=self._read_buffer,
                    now=self._clock.now(),
                )
                connection.route = self._route
                made = connection
                await loop.create_connection(lambda: made, sock=sock)
                await connection.ready()
                return connection
        except TunnelError as error:
            raise self._failure(problems.EGRESS_PROXY_REFUSED, str(error)) from None
        except ssl.SSLCertVerificationError as error:
            raise self._failure(problems.TLS_CERTIFICATE, reason_for_client(error)) from None
        except ssl.SSLError as error:
            raise self._failure(problems.TLS_ERROR, reason_for_client(error)) from None
        except TimeoutError:
            raise
        except OSError as error:
            raise self._failure(problems.CONNECTION_REFUSED, reason_for_client(error)) from None
        finally:
            if connection is not None and not connection.is_ready:
                connection.abandon()

    def _failure(self, problem: Problem, reason: str) -> DialError:
        return DialError(problem, f"{self._route}: {reason}")

    async def _open_tunnel(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: EgressProxy
    ) -> None:
        try:
            await loop.sock_sendall(sock, connect_request(proxy, authority(self._name, self._port)))
            await _read_reply(loop, sock)
        except BaseException:
            sock.close()
            raise


async def _read_reply(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    reply = TunnelReply()
    is_open = False
    while not is_open:
        piece = await loop.sock_recv(sock, MAX_REPLY)
        if not piece:
            raise TunnelError("the egress proxy closed the connection")
        is_open = reply.feed(piece)
