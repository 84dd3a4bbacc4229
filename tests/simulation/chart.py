"""The token endpoint's load over time, drawn."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from tests.simulation.endpoint import ModelledEndpoint
from tests.simulation.scenarios import HOUR, MINUTE

COLOURS: Final = ("#0b6e4f", "#c8553d", "#7d7d7d")


def draw(
    path: Path,
    *,
    calm: dict[str, ModelledEndpoint],
    outage: dict[str, ModelledEndpoint],
    around: tuple[float, float],
) -> None:
    """Write an SVG: above the hours after a roll-out, below an outage (`around`: its start and end, in s).

    The keys of `calm` and `outage` name the curves.
    """
    # The same figures give the same file: no date, no random ids.
    mpl.rcParams["svg.hashsalt"] = "token-fleet"
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1)
    _curves(above, calm, 0.0, 6 * HOUR)
    above.set_title("All pods start within one minute", loc="left")
    above.set_xlabel("hours since the roll-out")
    start, end = around
    _curves(below, outage, start - HOUR / 2, end + 2 * HOUR, origin=start)
    below.axvspan(0.0, (end - start) / HOUR, color="#f3d9b1", label="outage")
    below.set_title("An outage of half an hour", loc="left")
    below.set_xlabel("hours since the outage began")
    for axes in (above, below):
        axes.set_ylabel("token requests per second,\nbusiest second of each minute")
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _curves(
    axes: Axes, endpoints: dict[str, ModelledEndpoint], start: float, end: float, *, origin: float = 0.0
) -> None:
    minutes = [start + i * MINUTE for i in range(round((end - start) / MINUTE))]
    hours = [(minute - origin) / HOUR for minute in minutes]
    for (name, endpoint), colour in zip(endpoints.items(), COLOURS, strict=True):
        peaks = [endpoint.peak(minute, minute + MINUTE) for minute in minutes]
        axes.plot(hours, peaks, label=name, color=colour, linewidth=1.2)
