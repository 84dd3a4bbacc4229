"""When to try next for a token. Pure: instants in, instants out, randomness injected.

All instants are seconds of `Clock.now()`, all durations seconds.
"""

from random import Random
from typing import Final

from bits_auth_proxy.auth.tokens import AccessToken

MAX_MARGIN: Final = 30.0
MARGIN_SHARE: Final = 0.1
REFRESH_FROM: Final = 0.7
REFRESH_TO: Final = 0.8
"""Shares of the lifetime. A thousand pods that started together are spread over a tenth of it."""
MIN_DELAY: Final = 1.0
"""Attempts that waiting requests or an operator pull forward begin at least this long after the previous one.

Retries wait at least this long, except for very short-lived tokens.
"""
MAX_BACKOFF: Final = 30.0
MAX_RETRY_AFTER: Final = 300.0
DENIED_PACE: Final = 300.0
"""How long to wait at most after a denial that looks permanent."""
_ATTEMPT: Final = 10.0
"""What one attempt may take: the last one before the end begins that much earlier."""
_MAX_DOUBLINGS: Final = 16


def safety_margin(lifetime: float) -> float:
    """Return what is taken off the end of a token's life, so that none dies on its way to the API."""
    return min(MAX_MARGIN, lifetime * MARGIN_SHARE)


def refresh_at(token: AccessToken, rng: Random) -> float:
    """Return when to refresh `token`: once, at random between 70 % and 80 % of its lifetime."""
    return token.issued_at + token.lifetime * rng.uniform(REFRESH_FROM, REFRESH_TO)


def retry_at(
    *, now: float, failures: int, retry_after: float | None, token: AccessToken | None, rng: Random
) -> float:
    """Return when to try again after the `failures`-th failure in a row.

    The delay is drawn from 1 s up to a bound that doubles to 30 s (exponential backoff with full jitter).
    `retry_after`, as far as it is believed, comes on top of it, and lifts the bound to its quarter: all who
    were told the same instant come back spread out. But no valid token is left to die without one more try.
    """
    asked = _believed(retry_after)
    bound = min(MAX_BACKOFF, max(2.0 ** min(failures, _MAX_DOUBLINGS), asked / 4))
    delay = asked + rng.uniform(MIN_DELAY, bound)
    return _not_past_the_last_chance(now + delay, now=now, token=token, rng=rng)


def retry_denied_at(
    *, now: float, denials: int, retry_after: float | None, token: AccessToken | None, rng: Random
) -> float:
    """Return when to try again after the `denials`-th denial in a row; denials hardly end by themselves.

    With a valid token: 5 min, or a quarter of what it still lives. Without: 30 s, doubling up to 5 min.
    `retry_after`, as far as it is believed, is the least; but no valid token is left to die for it.
    """
    if token is not None:
        pace = min(DENIED_PACE, (token.expires_at - now) / 4)
    else:
        pace = min(DENIED_PACE, MAX_BACKOFF * 2.0 ** min(max(0, denials - 3), _MAX_DOUBLINGS))
    asked = _not_past_the_last_chance(now + _believed(retry_after), now=now, token=token, rng=rng)
    return max(asked, now + max(MIN_DELAY, pace * rng.uniform(0.8, 1.0)))


def _believed(retry_after: float | None) -> float:
    return 0.0 if retry_after is None else min(retry_after, MAX_RETRY_AFTER)


def _not_past_the_last_chance(at: float, *, now: float, token: AccessToken | None, rng: Random) -> float:
    if token is None:
        return at
    lead = min(_ATTEMPT, token.lifetime * MARGIN_SHARE)
    last_chance = token.expires_at - lead * rng.uniform(1.0, 2.0)
    return min(at, last_chance) if last_chance >= now + min(MIN_DELAY, lead) else at
