"""The pool of connections to the Bits API: idle connections, a bounded queue, and a warm spare.

The last connection to become idle is taken first, so that surplus connections age and are dropped when the
load falls. Without traffic, one connection stays open with TLS set up, and is replaced before the API would
drop it. So the next request costs one round trip and no handshake.
"""

import random
from collections import deque
from typing import Final

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.dialing import DialError
from bits_auth_proxy.forward.ports import Connector, PoolWaiter, TrafficObserver
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.tasks import TaskOwner
from bits_auth_proxy.tls_faults import reason_for_client

_KEEP_ALIVE_LEAD: Final = 1.0
"""An idle connection is dropped this many seconds before the end that the API has announced."""
_RENEWAL: Final = (0.72, 0.91)
"""The part of an idle connection's time after which its successor is made: after 40 to 50 s of 55 s."""
_WARM_RETRY: Final = (1.0, 30.0)
"""Seconds between tries to make a spare: the first number, doubling up to the second."""


class Pool:
    """All connections to one origin."""

    __slots__ = (
        "_all",
        "_clock",
        "_closed",
        "_connector",
        "_dialing",
        "_idle",
        "_idle_timeout",
        "_last_used",
        "_max_age",
        "_max_connections",
        "_observer",
        "_queue_limit",
        "_renewal",
        "_rng",
        "_tasks",
        "_waiters",
        "_warm",
        "_warm_failures",
        "_warm_for",
        "_warm_not_before",
    )

    def __init__(
        self,
        *,
        connector: Connector,
        clock: Clock,
        rng: random.Random,
        tasks: TaskOwner,
        observer: TrafficObserver,
        max_connections: int,
        queue_limit: int,
        idle_timeout: float,
        max_age: float,
        warm_connections: int,
        warm_for: float,
    ) -> None:
        """Set the limits; durations are in seconds. `warm_for` counts from the last request or the start."""
        self._connector = connector
        self._clock = clock
        self._rng = rng
        self._renewal = rng.uniform(*_RENEWAL)
        self._tasks = tasks
        self._observer = observer
        self._max_connections = max_connections
        self._queue_limit = queue_limit
        self._idle_timeout = idle_timeout
        self._max_age = max_age
        self._warm = warm_connections
        self._warm_for = warm_for
        self._warm_failures = 0
        self._warm_not_before = 0.0
        self._last_used = clock.now()
        self._all: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiters: deque[PoolWaiter] = deque()
        self._dialing = 0
        self._closed = False

    # The exchanges' side.

    def take(self, now: float) -> UpstreamConnection | None:
        """Return an idle connection, or None if there is none: then call `wait`."""
        self._last_used = now
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now < connection.idle_until and connection.can_serve():
                connection.used_at = now
                return connection
            connection.close()
        return None

    def wait(self, waiter: PoolWaiter) -> bool:
        """Queue `waiter` for a connection. Returns False, and does not queue it, if the queue is full."""
        if len(self._waiters) >= self._queue_limit:
            return False
        self._waiters.append(waiter)
        self._grow()
        return True

    def cancel(self, waiter: PoolWaiter) -> None:
        """Remove `waiter` from the queue, if it is there."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    @property
    def is_connecting(self) -> bool:
        """Whether connections are being made."""
        return self._dialing > 0

    # The connections' side.

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can serve again."""
        now = self._clock.now()
        connection.used_at = now
        if self._closed or now - connection.created > self._max_age:
            connection.close()
        elif self._waiters:
            # What arrives on a new connection can't be meant for an earlier request.
            if not connection.served or connection.can_serve():
                self._waiters.popleft().connection_ready(connection)
        else:
            span = self._idle_timeout
            if connection.keep_alive_timeout is not None:
                span = min(span, connection.keep_alive_timeout - _KEEP_ALIVE_LEAD)
            if span > 0:
                connection.idle_until = now + span
                connection.renew_at = now + span * self._renewal
                self._idle.append(connection)
            else:
                connection.close()

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has closed."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.refusal is not None:
            detail = f"{connection.route}: {reason_for_client(connection.refusal)}"
            duration = self._clock.now() - connection.created
            self._observer.upstream_connected(problems.TLS_ERROR.code, detail, duration)
            self._pause_warming()
        self._grow()

    def distrust(self, since: float) -> None:
        """Drop the idle connections that have been silent since `since`, because one has met silence.

        When the network changes, all connections that were made before it lead nowhere.
        """
        for connection in self._idle.copy():
            if connection.used_at <= since:
                self._idle.remove(connection)
                connection.abandon()

    # The owner's side.

    def tick(self, now: float) -> None:
        """Drop connections that are too old, and keep the spare warm."""
        self._renewal = self._rng.uniform(*_RENEWAL)
        fresh = 0
        for connection in self._idle.copy():
            if now >= connection.idle_until or now - connection.created > self._max_age:
                self._idle.remove(connection)
                connection.close()
            elif now < connection.renew_at:
                fresh += 1
        wanted = self._warm if now - self._last_used < self._warm_for else 0
        # At the limit, a spare may take the place of an idle connection only if that one is due for renewal.
        has_place = self._has_room or fresh < len(self._idle)
        if fresh + self._dialing < wanted and has_place and now >= self._warm_not_before:
            self._dial()

    def counts(self) -> dict[str, int]:
        """Return how many connections there are, by state: active, idle, connecting."""
        idle = len(self._idle)
        return {"active": len(self._all) - idle, "idle": idle, "connecting": self._dialing}

    @property
    def queued(self) -> int:
        """The number of requests that are waiting for a connection."""
        return len(self._waiters)

    def abort(self) -> None:
        """Drop all connections immediately, and make no more.

        Waiters are not notified, so end the exchanges first.
        """
        self._closed = True
        self._waiters.clear()
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        for connection in list(self._all):
            connection.abandon()

    # Internals.

    @property
    def _has_room(self) -> bool:
        return len(self._all) + self._dialing < self._max_connections

    def _grow(self) -> None:
        while len(self._waiters) > self._dialing and self._dial():
            pass

    def _dial(self) -> bool:
        if self._closed:
            return False
        if not self._has_room:
            if not self._idle:
                return False
            # A request that waits although there are idle connections has just seen one of them fail.
            oldest = self._idle.pop(0)
            self._all.discard(oldest)
            oldest.close()
        self._dialing += 1
        self._tasks.start(self._connect(), name="upstream-connect")
        return True

    async def _connect(self) -> None:
        started = self._clock.now()
        try:
            connection = await self._connector.connect(self)
        except DialError as error:
            self._dialing -= 1
            self._failed(error, started)
        except BaseException:
            self._dialing -= 1
            raise
        else:
            self._dialing -= 1
            self._observer.upstream_connected("ok", "", self._clock.now() - started)
            self._warm_failures = 0
            self._all.add(connection)
            self.release(connection)
        self._grow()

    def _failed(self, error: DialError, started: float) -> None:
        duration = self._clock.now() - started
        self._observer.upstream_connected(error.problem.code, error.detail, duration)
        if self._waiters:
            self._waiters.popleft().connection_failed(error.problem)
        else:
            self._pause_warming()

    def _pause_warming(self) -> None:
        first, last = _WARM_RETRY
        pause = min(last, first * 2.0 ** min(self._warm_failures, 10))
        self._warm_failures += 1
        self._warm_not_before = self._clock.now() + pause * self._rng.uniform(0.5, 1.0)
