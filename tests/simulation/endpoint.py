"""A token endpoint as its clients see it: how long an answer takes, and what it says."""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

MEDIAN_LATENCY: Final = 0.12
LATENCY_SIGMA: Final = 0.5
"""Of the log-normal distribution: one answer in a hundred takes longer than 0.38 s."""


class Outage(NamedTuple):
    """No request sent from `start` until before `end` brings a token; each fails after `latency` s.

    `retry_at_end`: the failures carry a Retry-After date, the end of the outage.
    """

    start: float
    end: float
    latency: float
    retry_at_end: bool = False


class Throttle(NamedTuple):
    """Beyond `rate` requests in one second the answer is 429 with `Retry-After: retry_after`."""

    rate: int
    retry_after: float


class Answer(NamedTuple):
    """What becomes of a request: `latency` seconds later it has a token or has failed."""

    latency: float
    granted: bool
    retry_after: float | None = None


class ModelledEndpoint:
    """Decides about requests, and counts them by the second.

    Requests have to be asked about in the order they are sent.
    """

    def __init__(
        self, *, lifetime: float, outages: Sequence[Outage] = (), throttle: Throttle | None = None
    ) -> None:
        """Grant tokens that live `lifetime` seconds, but for `outages` and `throttle`."""
        self.lifetime: Final = lifetime
        self._outages = outages
        self._throttle = throttle
        self.requests: Final[defaultdict[int, int]] = defaultdict(int)
        """Requests received, by the second in which they were sent; throttled ones count."""

    def answer(self, now: float, rng: Random) -> Answer:
        """Take a request sent at `now`; `rng` draws the latency."""
        second = int(now)
        self.requests[second] += 1
        for outage in self._outages:
            if outage.start <= now < outage.end:
                wait = outage.end - now - outage.latency if outage.retry_at_end else None
                return Answer(outage.latency, granted=False, retry_after=wait and max(0.0, wait))
        latency = MEDIAN_LATENCY * rng.lognormvariate(0.0, LATENCY_SIGMA)
        if self._throttle is not None and self.requests[second] > self._throttle.rate:
            return Answer(latency, granted=False, retry_after=self._throttle.retry_after)
        return Answer(latency, granted=True)

    def peak(self, start: float, end: float) -> int:
        """Return the requests of the busiest second between `start` and `end`."""
        return max((self.requests.get(second, 0) for second in range(int(start), int(end))), default=0)

    def mean(self, start: float, end: float) -> float:
        """Return the mean requests per second between `start` and `end`."""
        span = range(int(start), int(end))
        return sum(self.requests.get(second, 0) for second in span) / len(span)
