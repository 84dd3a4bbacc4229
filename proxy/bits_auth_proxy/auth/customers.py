"""Sees that a pair of credentials belongs to the right customer before its tokens are used.

The userinfo endpoint says whom a token belongs to. It may not answer, and that alone must not stop the token:
only an answer that names another customer does, unless the operator has set the customer.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final

from bits_auth_proxy.auth.bits_oauth import TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken

_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the questions about a token that the API does not accept yet."""


@final
class CustomerCheck:
    """Remembers the customer of the pair in use, and holds those of other pairs against it."""

    __slots__ = ("_any", "_customer", "_expected", "_fetch", "_sleep", "_verified")

    def __init__(
        self,
        *,
        fetch: Callable[[AccessToken], Awaitable[str]],
        sleep: Callable[[float], Awaitable[None]],
        expected: str | None,
        allow_change: bool,
    ) -> None:
        """Take how to ask. With `expected`, no pair of another customer is used, not even the first.

        Without it, the pair may only be replaced by another of the same customer, unless `allow_change`.
        """
        self._fetch: Final = fetch
        self._sleep: Final = sleep
        self._expected: Final = expected
        self._any: Final = allow_change and expected is None
        self._customer = expected
        self._verified = False

    async def check_in_use(self, token: AccessToken) -> None:
        """Check a token of the pair in use. Raises TokenRequestError if it belongs to another customer."""
        if self._expected is None or self._verified:
            return
        try:
            customer = await self._fetch(token)
        except TokenRequestError:
            # It is asked again with the next token.
            return
        self._compare(customer)
        self._verified = True

    async def check_candidate(self, token: AccessToken, held: AccessToken | None) -> None:
        """Check a token of another pair; `held` is a valid token of the pair in use, if there is one.

        Raises TokenRequestError if it belongs to another customer, or if the API does not accept it although
        it accepts the pair in use.
        """
        if self._any:
            return
        if self._customer is None and held is not None:
            try:
                self._customer = await self._fetch(held)
            except TokenRequestError:
                return
        if self._customer is None:
            return
        try:
            self._compare(await self._patiently(token))
        except TokenRequestError as error:
            # Without a token of the pair in use, there is nothing to lose.
            refused = error.kind == "customer" or (error.denied and held is not None)
            if refused or self._expected is not None:
                raise

    async def _patiently(self, token: AccessToken) -> str:
        for pause in _PAUSES:
            try:
                return await self._fetch(token)
            except TokenRequestError as error:
                if not error.denied:
                    raise
            await self._sleep(pause)
        return await self._fetch(token)

    def _compare(self, customer: str) -> None:
        if customer != self._customer:
            raise TokenRequestError(
                "customer", f"the credentials belong to {customer}, and {self._customer} is expected"
            )
