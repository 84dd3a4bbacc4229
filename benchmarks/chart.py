"""Draws the CPU per request of all contenders."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contenders import OURS
from benchmarks.report import BOUNDS, SCHEMES
from benchmarks.samples import Samples

_COLOURS: Final = {True: ("#0b6e4f", "#5fb293"), False: ("#7d7d7d", "#b9b9b9")}
"""Of our bars and of the others': http, https."""
_HEIGHT: Final = 0.38


def draw(path: Path, samples: Samples) -> None:
    """Write an SVG: for each contender, one bar for an http upstream and one for an https upstream."""
    # The same figures give the same file: no date, no random ids.
    mpl.rcParams["svg.hashsalt"] = "cpu-per-request"
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axes = figure.subplots()
    names = sorted((OURS, *BOUNDS), key=lambda name: _median(samples, SCHEMES[0], name))
    for place, name in enumerate(names):
        for offset, (scheme, colour) in enumerate(zip(SCHEMES, _COLOURS[name == OURS], strict=True)):
            value = _median(samples, scheme, name)
            bar = axes.barh(place + (offset - 0.5) * _HEIGHT, value, _HEIGHT, color=colour)
            axes.bar_label(bar, [f"{value:.0f} {scheme}"], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("CPU µs per request (POST of 300 bytes, response of 350 bytes, 64 connections)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _median(samples: Samples, scheme: str, name: str) -> float:
    spread = samples.spread(scheme, name, "cpu_us")
    return spread.median if spread else 0.0


def _label(name: str) -> str:
    return {"nginx": "nginx (static header)", "Caddy": "Caddy (static header)", "Envoy": "Envoy (OAuth)"}.get(
        name, name
    )
