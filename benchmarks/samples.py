"""What was measured: single values, their medians and ranges, and ratios between contenders."""

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple


class Measure(NamedTuple):
    """A kind of value: how it is called and written."""

    title: str
    form: str


MEASURES: Final = {
    "cpu_us": Measure("CPU µs per request", ".1f"),
    "requests_per_second": Measure("requests/s", ",.0f"),
    "p50_ms": Measure("p50 ms", ".2f"),
    "p99_ms": Measure("p99 ms", ".2f"),
    "added_us": Measure("added µs, one connection", ",.0f"),
    "up_us": Measure("CPU µs per MiB up", ",.0f"),
    "down_us": Measure("CPU µs per MiB down", ",.0f"),
    "gib_seconds": Measure("CPU s per GiB streamed", ".2f"),
    "gib_growth_mib": Measure("MiB over idle while streaming 1 GiB", ".1f"),
    "start_seconds": Measure("start to ready, s", ".2f"),
    "idle_mib": Measure("idle MiB", ".1f"),
    "loaded_mib": Measure("loaded MiB", ".1f"),
    "clients_mib": Measure("MiB for 1,000 idle clients", ".1f"),
}
"""In the order of the tables."""


@dataclass(frozen=True)
class Sample:
    """One value, of one contender in one round."""

    scheme: str
    contender: str
    measure: str
    round: int
    value: float


class Spread(NamedTuple):
    """Median and range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up one value per round."""
        return cls(statistics.median(values), min(values), max(values))


class Samples:
    """All samples of a run."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples = list(samples)

    def add(self, *samples: Sample) -> None:
        """Take what was measured."""
        self._samples += samples

    def spread(self, scheme: str, contender: str, measure: str) -> Spread | None:
        """Return a value's median and range, None where it was not measured."""
        values = self._by_round(scheme, contender, measure)
        return Spread.of(list(values.values())) if values else None

    def ratio(self, scheme: str, measure: str, ours: str, other: str) -> Spread | None:
        """Return ours over the other's, paired within each round."""
        mine, others = self._by_round(scheme, ours, measure), self._by_round(scheme, other, measure)
        pairs = [mine[number] / others[number] for number in mine if others.get(number)]
        return Spread.of(pairs) if pairs else None

    def difference(self, scheme: str, measure: str, ours: str, other: str) -> Spread | None:
        """Return ours less the other's, paired within each round."""
        mine, others = self._by_round(scheme, ours, measure), self._by_round(scheme, other, measure)
        pairs = [mine[number] - others[number] for number in mine if number in others]
        return Spread.of(pairs) if pairs else None

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        report = {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "measures": {name: measure.title for name, measure in MEASURES.items()},
            "samples": [asdict(sample) for sample in self._samples],
        }
        path.write_text(json.dumps(report, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Samples":
        """Return what `write` wrote."""
        return cls(Sample(**sample) for sample in json.loads(path.read_text())["samples"])

    def _by_round(self, scheme: str, contender: str, measure: str) -> dict[int, float]:
        return {
            sample.round: sample.value
            for sample in self._samples
            if (sample.scheme, sample.contender, sample.measure) == (scheme, contender, measure)
        }
