"""Simulate a fleet of proxies and print what its token endpoint sees: make simulation."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bits_auth_proxy.auth.lifecycle import Lifecycle
from tests.simulation.chart import draw
from tests.simulation.policies import FixedShare, Lazy, PolicyMaker
from tests.simulation.scenarios import (
    ANNOUNCED,
    CALM,
    LONG_OUTAGES,
    SHORT_OUTAGES,
    Outcome,
    Scenario,
    run,
    throttled,
)

POLICIES: Final[dict[str, PolicyMaker]] = {
    "bits-auth-proxy": Lifecycle,
    "at a fixed 90 %": FixedShare,
    "lazy": Lazy,
}
HEADINGS: Final = (
    "Refresh",
    "Roll-out, peak/s",
    "Steady, peak/s",
    "Mean/s",
    "Outage, peak/s",
    "After it, peak/s",
    "Requests that waited",
    "Requests that failed",
)


def share(part: float) -> str:
    """Write a share so that a small one is not taken for none."""
    if part == 0:
        return "0"
    return f"{part:.2%}" if part >= 1e-4 else f"{part * 1e6:.1f} per million"


def row(name: str, outcome: Outcome) -> str:
    """Write one outcome as a line of a Markdown table."""
    cells = (
        name,
        str(outcome.roll_out_peak),
        str(outcome.steady_peak),
        f"{outcome.mean:.1f}",
        str(outcome.outage_peak or ""),
        str(outcome.recovery_peak or ""),
        share(outcome.waited_share),
        share(outcome.failed_share),
    )
    return f"| {' | '.join(cells)} |"


def tables(size: int, hours: float, seed: int) -> Iterator[tuple[Scenario, dict[str, Outcome]]]:
    """Run everything, and print as it goes."""
    print(f"{size} pods, {hours:g} h, seed {seed}")
    for scenario in (CALM, SHORT_OUTAGES, ANNOUNCED, LONG_OUTAGES, throttled(size)):
        print(f"\n**{scenario.name[0].upper()}{scenario.name[1:]}**\n")
        print(f"| {' | '.join(HEADINGS)} |")
        print(f"|---{'|---:' * (len(HEADINGS) - 1)}|")
        outcomes = {}
        for name, policy in POLICIES.items():
            outcomes[name] = run(scenario, policy, size=size, hours=hours, seed=seed)
            print(row(name, outcomes[name]), flush=True)
        yield scenario, outcomes


def main() -> int:
    """Print the tables; draw the chart where asked."""
    parser = argparse.ArgumentParser(prog="make simulation", description=__doc__)
    parser.add_argument("--size", type=int, default=10_000, help="pods (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=48.0, help="virtual hours (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all randomness (default: %(default)s)")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write an SVG")
    options = parser.parse_args()
    runs = dict(tables(options.size, options.hours, options.seed))
    if options.chart is not None:
        outage = LONG_OUTAGES.outages[-1]
        calm, long = (
            {name: outcome.fleet.endpoint for name, outcome in runs[scenario].items()}
            for scenario in (CALM, LONG_OUTAGES)
        )
        draw(options.chart, calm=calm, outage=long, around=(outage.start, outage.end))
    return 0


if __name__ == "__main__":
    sys.exit(main())
