"""An asyncio event loop whose time passes at once: what is asleep is woken by moving the clock."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from bits_auth_proxy.auth.bits_oauth import ClientCredentials, TokenGrant, TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken
from tests.simulation.endpoint import ModelledEndpoint


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for files, lets the time pass that it should have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is given to it in virtual time, which begins at 0. It is a `clock.Clock` too."""

    def __init__(self) -> None:
        self._virtual: Final = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    now = wall = time


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run `main`, which is given the loop, to its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(main(loop))


class VirtualTokenEndpoint:
    """The modelled endpoint as `Refresher` knows endpoints."""

    def __init__(self, *, model: ModelledEndpoint, loop: VirtualLoop, latency_rng: Random) -> None:
        self._model = model
        self._loop = loop
        self._rng = latency_rng

    async def fetch_token(self, credentials: ClientCredentials) -> TokenGrant:
        answer = self._model.answer(self._loop.now(), self._rng)
        answered = self._loop.create_future()
        self._loop.call_later(answer.latency, answered.set_result, None)
        await answered
        if not answer.granted:
            raise TokenRequestError("server_error", "the response is 503", retry_after=answer.retry_after)
        return TokenGrant("t", self._model.lifetime, lifetime_assumed=False, scope=None, date=None)

    async def fetch_customer_id(self, token: AccessToken) -> str:
        raise AssertionError
