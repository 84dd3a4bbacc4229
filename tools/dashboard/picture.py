"""Draws the panels of the dashboard from the results of their queries in Prometheus."""

import re
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.system.monitoring.prometheus import JOB
from tests.system.monitoring.scenario import PHASES, Run
from tools.dashboard.panels import ROWS, Chart, Number, Query, resolved

_POINTS: Final = 210
_COLUMNS: Final = 3
_LEGEND: Final = 8
"""The largest number of series that a legend names."""
_UNITS: Final[Mapping[str, str]] = {
    "s": "s",
    "short": "",
    "cpm": "per minute",
    "reqps": "per second",
    "percentunit": "%",
    "Bps": "B/s",
    "bytes": "MiB",
}
_SCALES: Final[Mapping[str, float]] = {"percentunit": 100.0, "bytes": 2.0**-20}
_SHADES: Final = (
    "#2f6690",
    "#e08e45",
    "#4f9d69",
    "#b5495b",
    "#8d6fb8",
    "#8a6d5b",
    "#d98cb3",
    "#7a7f87",
    "#b8b23c",
)
_INK, _FAINT, _FAULT = "#2b2f36", "#8a919c", "#f3e6d3"
_GOOD, _BAD = "#0b6e4f", "#c8553d"


async def draw(path: Path, run: Run) -> None:
    """Write the picture as a PNG file."""
    heights = [
        height
        for panels in ROWS.values()
        for height in (
            0.22,
            *([0.55] if isinstance(panels[0], Number) else []),
            *[1.0] * -(-sum(isinstance(panel, Chart) for panel in panels) // _COLUMNS),
        )
    ]
    figure = Figure(figsize=(15.0, 2.05 * sum(heights)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
    line = 0
    for title, panels in ROWS.items():
        heading = figure.add_subplot(grid[line, :])
        heading.axis("off")
        heading.text(0.0, 0.3, title, fontsize=13, fontweight="bold", color=_INK, transform=heading.transAxes)
        line += 1
        numbers = [panel for panel in panels if isinstance(panel, Number)]
        if numbers:
            inner = grid[line, :].subgridspec(1, len(numbers))
            for column, number in enumerate(numbers):
                await _draw_number(figure.add_subplot(inner[0, column]), number, run)
            line += 1
        charts = [panel for panel in panels if isinstance(panel, Chart)]
        for index, chart in enumerate(charts):
            axes = figure.add_subplot(grid[line + index // _COLUMNS, index % _COLUMNS])
            await _draw_chart(axes, chart, run)
        line += -(-len(charts) // _COLUMNS)
    figure.savefig(path, dpi=100, metadata={"Software": None})


async def _draw_number(axes: Axes, panel: Number, run: Run) -> None:
    found = await run.prometheus.query(_now(panel.query, run))
    value = found[0].points[0][1]
    fine = panel.bad is None or panel.warn is None or (value > panel.bad) == (panel.bad < panel.warn)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d8dce2")
    axes.set_title(panel.title, loc="left", fontsize=8.5, color=_INK)
    text = f"{value:.0%}" if panel.unit == "percentunit" else f"{value:.0f}"
    axes.text(0.5, 0.45, text, fontsize=19, ha="center", va="center", color=_GOOD if fine else _BAD)


async def _draw_chart(axes: Axes, panel: Chart, run: Run) -> None:
    scale = _SCALES.get(panel.unit, 1.0)
    step = (run.ended - run.began) / _POINTS
    curves: dict[str, dict[int, float]] = {}
    for query in panel.queries:
        found = await run.prometheus.query_range(_now(query, run), start=run.began, end=run.ended, step=step)
        for series in found:
            curves[_named(query, series.labels)] = {
                round((instant - run.began) / step): value * scale for instant, value in series.points
            }
    for phase in _faults(run):
        axes.axvspan(*phase, color=_FAULT, lw=0)
    if panel.stacked:
        minutes = [step * index / 60 for index in range(_POINTS + 1)]
        rows = [[points.get(index, 0.0) for index in range(_POINTS + 1)] for points in curves.values()]
        colours = [
            panel.colours.get(name, shade) for name, shade in zip(curves, cycle(_SHADES), strict=False)
        ]
        axes.stackplot(minutes, rows, labels=list(curves), colors=colours, alpha=0.8, lw=0)
    else:
        for (name, points), shade in zip(curves.items(), cycle(_SHADES), strict=False):
            minutes = [step * index / 60 for index in points]
            axes.plot(minutes, list(points.values()), label=name, color=shade, lw=1.2)
    axes.set_title(panel.title, loc="left", fontsize=8.5, color=_INK)
    axes.set_title(_UNITS[panel.unit], loc="right", fontsize=7.5, color=_FAINT)
    axes.set_xlim(0, (run.ended - run.began) / 60)
    axes.autoscale(axis="y")
    # Leave room for the legend.
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.tick_params(labelsize=7, colors=_FAINT, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d8dce2")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:_LEGEND],
        labels[:_LEGEND],
        fontsize=6.5,
        ncols=2,
        loc="upper right",
        framealpha=0.7,
        frameon=True,
    )


def _faults(run: Run) -> list[tuple[float, float]]:
    """Return from when to when, in minutes, the token endpoint was down, and the credentials were wrong."""
    length = (run.ended - run.began) / 60
    at = {phase.what: phase.share * length for phase in PHASES}
    return [
        (at["the token endpoint is down"], at["and back"]),
        (at["the secret is another"], at["and so in the file"]),
    ]


def _now(query: Query, run: Run) -> str:
    seconds = run.ended - run.began
    return resolved(query.expr, job=JOB, rate_interval=max(4.0, seconds / 30), seconds=seconds)


def _named(query: Query, labels: Mapping[str, str]) -> str:
    name = re.sub(r"\{\{(\w+)\}\}", lambda found: labels[found[1]], query.legend)
    # Each run uses another port.
    return re.sub(r"^127\.0\.0\.1:\d+$", "127.0.0.1:9090", name)
