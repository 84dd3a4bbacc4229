"""Many pods, one token endpoint, one virtual clock: a discrete-event simulation.

A pod is the `Lifecycle` (or another policy) with the loop that `Refresher` runs around it. Time goes from
event to event; a pod has one event ahead. Requests arrive at each pod as a Poisson process, but only those
that find no valid token are drawn: the others have no effect, and their number is known.
"""

import heapq
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.lifecycle import Lifecycle, Reason
from bits_auth_proxy.auth.refresher import TICK
from bits_auth_proxy.auth.tokens import AccessToken
from tests.simulation.endpoint import Answer, ModelledEndpoint
from tests.simulation.policies import Policy, PolicyMaker

TOKEN_WAIT: Final = 5.0
"""Seconds that a request waits for a token before it is answered 503."""
SOONEST: Final = 0.01
NEVER: Final = float("inf")


class Flight(NamedTuple):
    """One token request."""

    at: float
    reason: Reason
    granted: bool


class Gap(NamedTuple):
    """A time in which a pod that had a token before has none that is valid."""

    start: float
    end: float


class Pod:
    """One proxy. `step` at `next_event`, again and again, is its life."""

    __slots__ = (
        "_answer",
        "_arrival",
        "_endpoint",
        "_expires_at",
        "_latency_rng",
        "_next_request",
        "_policy",
        "_sent_at",
        "_waiting",
        "failed",
        "flights",
        "gaps",
        "late",
        "next_event",
        "ready_at",
    )

    def __init__(
        self,
        *,
        start: float,
        seed: str,
        policy: PolicyMaker,
        endpoint: ModelledEndpoint,
        next_request: Callable[[float], float],
        flights: list[Flight] | None = None,
    ) -> None:
        """Begin at `start`. `next_request` maps an instant to that of the next request that arrives."""
        self._policy: Policy = policy(now=start, rng=Random(seed))
        self._latency_rng = Random(f"{seed} latency")
        self._endpoint = endpoint
        self._next_request = next_request
        self._answer: Answer | None = None
        self._sent_at = start
        self._expires_at = NEVER
        self._arrival: float | None = None
        self._waiting: list[float] = []
        self.flights = flights
        self.next_event = start
        self.ready_at = NEVER
        """When the first token came; no request is sent to a pod before."""
        self.late = 0
        """Requests that found no valid token, and got one within TOKEN_WAIT."""
        self.failed = 0
        """Requests that found no valid token, and got none in time."""
        self.gaps: list[Gap] = []

    def step(self) -> None:
        """Do what is due at `next_event`, and set the next."""
        now = self.next_event
        self._receive(now)
        if self._answer is not None:
            self._land(self._answer, now)
            self._answer = None
        self._proceed(now)

    def _receive(self, now: float) -> None:
        """Take the requests that arrived since the token expired, and let go those that waited enough."""
        if now < self._expires_at:
            return
        if self._arrival is None:
            self._arrival = self._next_request(self._expires_at)
        while self._arrival <= now:
            self._waiting.append(self._arrival)
            self._arrival = self._next_request(self._arrival)
        while self._waiting and self._waiting[0] + TOKEN_WAIT <= now:
            del self._waiting[0]
            self.failed += 1

    def _proceed(self, now: float) -> None:
        reason = self._policy.flight_due(now, now, wanted=bool(self._waiting))
        if reason is not None:
            self._policy.flight_started(now, reason)
            self._sent_at = now
            self._answer = answer = self._endpoint.answer(now, self._latency_rng)
            self.next_event = now + answer.latency
            if self.flights is not None:
                self.flights.append(Flight(now, reason, answer.granted))
            return
        soon = self._policy.attempt_at
        if self._waiting:
            soon = now + min(TICK, max(SOONEST, soon - now))
        if soon > self._expires_at:
            if self._arrival is None:
                self._arrival = self._next_request(self._expires_at)
            soon = min(soon, self._arrival)
        self.next_event = soon

    def _land(self, answer: Answer, now: float) -> None:
        if not answer.granted:
            self._policy.failed(now, denied=False, retry_after=answer.retry_after)
            return
        lifetime = self._endpoint.lifetime
        token = AccessToken(
            "t",
            issued_at=self._sent_at,
            issued_wall=self._sent_at,
            lifetime=lifetime,
            margin=schedule.safety_margin(lifetime),
        )
        self._policy.obtained(token, now)
        self.ready_at = min(self.ready_at, now)
        if now >= self._expires_at:
            self.gaps.append(Gap(self._expires_at, now))
            self.late += len(self._waiting)
            self._waiting.clear()
        self._arrival = None
        self._expires_at = token.expires_at


class Fleet:
    """Pods that start at random within `spread` seconds, at time 0."""

    def __init__(
        self,
        *,
        size: int,
        endpoint: ModelledEndpoint,
        policy: PolicyMaker = Lifecycle,
        spread: float = 10.0,
        request_rate: float = 0.1,
        seed: int = 1,
    ) -> None:
        """Make `size` pods, each receiving `request_rate` requests per second."""
        self.endpoint: Final = endpoint
        self._request_rate = request_rate
        rng = Random(seed)
        traffic = Random(f"{seed} traffic")
        self.pods: Final = [
            Pod(
                start=rng.uniform(0.0, spread),
                seed=f"{seed} {number}",
                policy=policy,
                endpoint=endpoint,
                next_request=lambda at: at + traffic.expovariate(request_rate),
            )
            for number in range(size)
        ]

    def run(self, until: float) -> None:
        """Let time pass."""
        events = [(pod.next_event, number) for number, pod in enumerate(self.pods)]
        heapq.heapify(events)
        while events[0][0] < until:
            number = events[0][1]
            pod = self.pods[number]
            pod.step()
            heapq.heapreplace(events, (pod.next_event, number))

    def starved(self) -> int:
        """Return how many requests found no valid token."""
        return sum(pod.late + pod.failed for pod in self.pods)

    def failed(self) -> int:
        """Return how many requests found no valid token, and got none in time."""
        return sum(pod.failed for pod in self.pods)

    def requests(self, until: float) -> float:
        """Return how many requests are to be expected from each pod's first token on."""
        return self._request_rate * sum(max(0.0, until - pod.ready_at) for pod in self.pods)

    def without_token(self, at: float) -> int:
        """Return how many pods had a token before `at`, but no valid one then."""
        return sum(any(gap.start <= at < gap.end for gap in pod.gaps) for pod in self.pods)
