"""The data path as a whole: listeners, connections, the ticker, and the drain."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from bits_auth_proxy.forward.certificates import ServerCertificate
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.downstream import ClientConnection
from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.forward.listener import Listener
from bits_auth_proxy.forward.listener_context import Clients, ListenerContext
from bits_auth_proxy.forward.termination import TlsConnection
from bits_auth_proxy.tasks import TaskOwner

TICK: Final = 0.5
"""Seconds between checks of the deadlines. A timeout may be late by as much."""


class Gateway:
    """Serves clients until it is drained."""

    __slots__ = (
        "_clients",
        "_context",
        "_draining",
        "_hurry",
        "_listener_contexts",
        "_listeners",
        "_loop",
        "_make_exchange",
        "_tasks",
        "_timer",
    )

    def __init__(
        self,
        *,
        context: ForwardContext,
        clients: Clients,
        tasks: TaskOwner,
        loop: asyncio.AbstractEventLoop,
        make_exchange: Callable[..., Exchange] = Exchange,
    ) -> None:
        """Take what the listeners share. The gateway closes `tasks` when it is closed.

        `make_exchange` is called for every request, with the arguments of `Exchange`.
        """
        self._context = context
        self._clients = clients
        self._tasks = tasks
        self._loop = loop
        self._make_exchange = make_exchange
        self._listener_contexts: list[ListenerContext] = []
        self._listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._hurry = asyncio.Event()
        self._draining = False

    @property
    def client_connections(self) -> int:
        """The number of clients that are connected."""
        return len(self._clients.open)

    def listen(
        self,
        sock: socket.socket,
        context: ListenerContext,
        certificate: ServerCertificate | None = None,
    ) -> None:
        """Accept connections on a listening socket from now on; with `certificate`, only TLS."""
        self._listener_contexts.append(context)
        listener = Listener(
            sock=sock,
            factory=self._factory(context, certificate),
            limit=self._clients.limit,
            tasks=self._tasks,
            loop=self._loop,
        )
        self._listeners.append(listener)
        listener.start()

    def start(self) -> None:
        """Start the ticker, and with it the warm connection."""
        self._tick()

    def retire(self) -> None:
        """Let clients with certificates connect again, because what decides about these has changed."""
        for connection in list(self._clients.open):
            connection.retire()

    def hurry(self) -> None:
        """End a drain immediately, if one is under way."""
        self._hurry.set()
        self._clients.gone.set()

    async def drain(self, *, delay: float, timeout: float) -> int:
        """Keep serving for `delay` seconds, then close the listeners and wait for the exchanges in flight.

        Each connection ends with its present response. Returns how many were cut after `timeout` seconds.
        """
        for context in self._listener_contexts:
            context.draining = True
        await _wait(self._hurry, delay)
        for listener in self._listeners:
            listener.close()
        self._draining = True
        self._close_idle()
        if not self._hurry.is_set():
            await _wait(self._clients.gone, timeout)
        cut = len(self._clients.open)
        self._abort_clients()
        return cut

    async def close(self) -> None:
        """Close the listeners and drop all connections."""
        for listener in self._listeners:
            listener.close()
        if self._timer is not None:
            self._timer.cancel()
        self._abort_clients()
        self._context.pool.abort()
        await self._tasks.close()

    def _factory(
        self, context: ListenerContext, certificate: ServerCertificate | None
    ) -> Callable[[], asyncio.BaseProtocol]:
        def plain() -> ClientConnection:
            return ClientConnection(context, self._make_exchange)

        if certificate is None:
            return plain

        def secure() -> TlsConnection:
            above = plain()
            return TlsConnection(
                above, certificate=certificate, listener=context, limit_life=above.limit_life
            )

        return secure

    def _tick(self) -> None:
        # This comes first, so that nothing below can prevent the next tick.
        self._timer = self._loop.call_later(TICK, self._tick)
        now = self._context.now = self._context.clock.now()
        self._context.date.update(self._context.clock.wall())
        for connection in list(self._clients.open):
            try:
                connection.check(now)
            except Exception as error:  # noqa: BLE001 - must not affect other connections
                self._context.observer.crashed(error)
                connection.abort()
        self._context.pool.tick(now)
        if self._draining:
            self._close_idle()

    def _close_idle(self) -> None:
        for connection in list(self._clients.open):
            connection.close_if_idle()

    def _abort_clients(self) -> None:
        for connection in list(self._clients.open):
            connection.abort()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
