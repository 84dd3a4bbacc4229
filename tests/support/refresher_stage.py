"""A refresher without sockets, timers or a clock of its own."""

from collections.abc import Callable
from random import Random
from typing import Any

from bits_auth_proxy.auth.bits_oauth import ClientCredentials
from bits_auth_proxy.auth.refresher import Refresher
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from bits_auth_proxy.tasks import TaskOwner
from tests.support.clock import FakeClock
from tests.support.timers import FakeTimers, settle
from tests.support.token_endpoint import FakeEndpoint, RefreshLog, Waiter


class RefresherStage:
    """A refresher with everything around it under control."""

    def __init__(self, seed: int = 3, look: Callable[[], None] = lambda: None, **customers: Any) -> None:
        self.clock = FakeClock()
        self.timers = FakeTimers(self.clock)
        self.endpoint = FakeEndpoint()
        self.log = RefreshLog()
        self.tasks = TaskOwner(self.log.crashed)
        self.it = Refresher(
            endpoint=self.endpoint,
            credentials=ClientCredentials("old", "s"),
            clock=self.clock,
            rng=Random(seed),
            tasks=self.tasks,
            call_later=self.timers.call_later,
            patience=5.0,
            look=look,
            conceal=self.log.concealed.append,
            observer=self.log,
            **customers,
        )

    async def begin(self, lifetime: float = 3600.0) -> AccessToken:
        """Start, and have a first token, which the API accepts."""
        self.it.start()
        await settle()
        self.endpoint.grant(lifetime)
        await settle()
        token = self.current()
        assert token is not None
        self.it.accept(token, "x")
        return token

    def current(self) -> AccessToken | None:
        """Return the token to send now."""
        return self.it.current(self.clock.now())

    def waiter(self) -> Waiter:
        """Return one who has asked for a token."""
        waiter = Waiter()
        self.it.acquire(waiter)
        return waiter

    def unauthorized(self, token: AccessToken, operation: str = "x", *, repeated: bool = False) -> Waiter:
        """Return one whose `token` was refused."""
        waiter = Waiter()
        self.it.unauthorized(token, operation, waiter, repeated=repeated)
        return waiter

    def state(self) -> TokenState:
        return self.it.status().state
