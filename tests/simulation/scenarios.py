"""What the fleet goes through, and the figures that come of it."""

from random import Random
from typing import Final, NamedTuple

from tests.simulation.endpoint import ModelledEndpoint, Outage, Throttle
from tests.simulation.fleet import Fleet
from tests.simulation.policies import PolicyMaker

HOUR: Final = 3600.0
MINUTE: Final = 60.0
LIFETIME: Final = 3600.0
ROLL_OUT: Final = 60.0
"""Seconds within which all pods start."""
LONGEST_RUN: Final = 48 * HOUR
RECOVERY: Final = 2 * HOUR
"""How long after an outage its wave at the token endpoint is looked for."""


class Scenario(NamedTuple):
    """A model of the token endpoint."""

    name: str
    outages: tuple[Outage, ...] = ()
    throttle: Throttle | None = None


def outages(duration: float, *, retry_at_end: bool = False) -> tuple[Outage, ...]:
    """Return outages of `duration` seconds; each request in one fails within 50 ms.

    They begin at random, 2 to 6 h apart: a fleet that moves in step is lucky once, but not each time.
    """
    rng = Random(1)
    found: list[Outage] = []
    start = rng.uniform(2 * HOUR, 6 * HOUR)
    while start + duration + RECOVERY < LONGEST_RUN:
        found.append(Outage(start, start + duration, 0.05, retry_at_end))
        start += rng.uniform(2 * HOUR, 6 * HOUR)
    return tuple(found)


CALM: Final = Scenario("no outage")
SHORT_OUTAGES: Final = Scenario("outages of 10 minutes", outages(10 * MINUTE))
LONG_OUTAGES: Final = Scenario("outages of 30 minutes", outages(30 * MINUTE))
ANNOUNCED: Final = Scenario(
    "outages of 10 minutes, their end announced", outages(10 * MINUTE, retry_at_end=True)
)


def throttled(size: int) -> Scenario:
    """Return an endpoint that grants a hundredth of the fleet a second, and tells the others to wait 5 s."""
    return Scenario(
        "a hundredth of the fleet per second, else 429", throttle=Throttle(max(1, size // 100), 5.0)
    )


class Outcome(NamedTuple):
    """What a run showed. Rates are token requests per second."""

    fleet: Fleet
    roll_out_peak: int
    mean: float
    """From an hour after the roll-out on."""
    steady_peak: int
    """From an hour after the roll-out to the first outage."""
    outage_peak: int
    recovery_peak: int
    """The busiest second in the two hours after an outage."""
    waited_share: float
    """Of all requests: found no valid token, and waited for one successfully."""
    failed_share: float
    """Of all requests: found no valid token, and got none in time."""


def run(scenario: Scenario, policy: PolicyMaker, *, size: int, hours: float, seed: int = 1) -> Outcome:
    """Let `size` pods live through `scenario` for `hours`."""
    endpoint = ModelledEndpoint(lifetime=LIFETIME, outages=scenario.outages, throttle=scenario.throttle)
    fleet = Fleet(size=size, endpoint=endpoint, policy=policy, spread=ROLL_OUT, seed=seed)
    until = hours * HOUR
    fleet.run(until)
    requests = fleet.requests(until)
    seen = [outage for outage in scenario.outages if outage.end < until]
    return Outcome(
        fleet=fleet,
        roll_out_peak=endpoint.peak(0, HOUR / 2),
        mean=endpoint.mean(HOUR, until),
        steady_peak=endpoint.peak(HOUR, min([until, *(outage.start for outage in scenario.outages)])),
        outage_peak=max((endpoint.peak(outage.start, outage.end) for outage in seen), default=0),
        recovery_peak=max((endpoint.peak(outage.end, outage.end + RECOVERY) for outage in seen), default=0),
        waited_share=(fleet.starved() - fleet.failed()) / requests,
        failed_share=fleet.failed() / requests,
    )
