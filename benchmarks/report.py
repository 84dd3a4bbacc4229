"""Tables of the figures, in Markdown, and their place in the documents."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.contenders import DIRECT, LOGGING, OURS
from benchmarks.samples import MEASURES, Samples, Spread

SCHEMES: Final = ("http", "https")
BOUNDS: Final = {"Envoy": 0.70, "Caddy": 0.40, "nginx": 2.2, "aiohttp": 0.25}
"""What our CPU per request may be at most of each other's."""
_BEGIN: Final = "<!-- figures: make bench -->"
_END: Final = "<!-- end of figures -->"


def headline(samples: Samples) -> str:
    """Return one sentence: CPU per request, and its ratio to that of Envoy and of nginx."""
    parts = []
    for scheme in SCHEMES:
        own = _cell(samples.spread(scheme, OURS, "cpu_us"), ".1f")
        ratios = ((name, samples.ratio(scheme, "cpu_us", OURS, name)) for name in ("Envoy", "nginx"))
        beside = ", ".join(f"{ratio.median:.2f} times {name}'s" for name, ratio in ratios if ratio)
        if own and beside:
            parts.append(f"{own} µs of CPU over {scheme} ({beside})")
    return (
        "When every request has the same head, which suits the proxy's cache, forwarding one costs "
        f"{' and '.join(parts)}."
    )


def details(samples: Samples, contenders: Sequence[str]) -> str:
    """Return everything: medians, in parentheses the ranges over the rounds; and ratios against bounds."""
    return "\n\n".join((*_tables(samples, contenders), _ratios(samples), *_logging(samples)))


def replace(path: Path, text: str) -> None:
    """Put `text` where `path` has its figures."""
    before, _, rest = path.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def _tables(samples: Samples, contenders: Sequence[str]) -> Iterator[str]:
    for scheme in SCHEMES:
        rows = [f"| {scheme} upstream | {' | '.join(contenders)} |", f"|---|{'---:|' * len(contenders)}"]
        for measure, (title, form) in MEASURES.items():
            spreads = [samples.spread(scheme, name, measure) for name in contenders]
            if any(spreads):
                rows.append(
                    f"| {title} | {' | '.join(_cell(spread, form, full=True) for spread in spreads)} |"
                )
        if len(rows) > 2:
            yield "\n".join(rows)


def _ratios(samples: Samples) -> str:
    rows = [
        f"| CPU per request, {OURS} over | at most | {' | '.join(SCHEMES)} |",
        f"|---|---:|{'---:|' * len(SCHEMES)}",
    ]
    for name, bound in BOUNDS.items():
        cells = []
        for scheme in SCHEMES:
            ratio = samples.ratio(scheme, "cpu_us", OURS, name)
            missed = ratio is not None and ratio.median > bound
            cells.append(_cell(ratio, ".2f", full=True) + ", not reached" * missed)
        rows.append(f"| {name} | {bound:.2f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _logging(samples: Samples) -> Iterator[str]:
    for scheme in SCHEMES:
        if cost := samples.difference(scheme, "cpu_us", LOGGING, OURS):
            yield (
                f"A JSON line in the access log for every request costs {cost.median:.1f} µs more "
                f"({cost.low:.1f} to {cost.high:.1f}; {scheme} upstream)."
            )


def _cell(spread: Spread | None, form: str, *, full: bool = False) -> str:
    if spread is None:
        return ""
    median = f"{spread.median:{form}}"
    return f"{median} ({spread.low:{form}} to {spread.high:{form}})" if full else median


TABLE: Final = (OURS, "Envoy", "Caddy", "nginx", "aiohttp", DIRECT)
"""The contenders in the order of the tables."""
