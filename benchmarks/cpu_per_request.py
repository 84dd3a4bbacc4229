"""CPU time per forwarded request, beside other proxies: see benchmarks/README.md."""

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import nginx, wrk
from benchmarks.contenders import CONTENDERS, DIRECT, OURS, YARDSTICK, Setting
from benchmarks.processes import PinnedProcess, free_port

TOOLS: Final = {"wrk": "wrk", "nginx": "nginx", "taskset": "util-linux"}
"""command → the Debian package that brings it"""
TOKEN: Final = "benchmark-token." + "0123456789abcdef" * 8
WARM_UP: Final = 1
"""seconds of load before the first round, not counted"""


@dataclass(frozen=True)
class Measurement:
    """One contender in one round. `cpu_us` is the proxy's CPU time per request; 0 without a proxy."""

    contender: str
    round: int
    cpu_us: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Spread:
    """Median and range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up one value per round."""
        return cls(statistics.median(values), min(values), max(values))


COLUMNS: Final = {
    "cpu_us": ("CPU µs/request", ".1f"),
    "requests_per_second": ("requests/s", ",.0f"),
    "p50_ms": ("p50 ms", ".2f"),
    "p99_ms": ("p99 ms", ".2f"),
}


class Arena:
    """The upstream and all contenders, each proxy on one core, the load and the upstream on another."""

    def __init__(self, stack: ExitStack, *, scheme: str, contenders: Sequence[str]) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise RuntimeError("two CPU cores are needed: one for the proxy, one for the load")
        self.load_core, self.proxy_core = cores[0], cores[-1]
        self._urls: dict[str, str] = {}
        self._proxies: dict[str, PinnedProcess] = {}

        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bits-benchmark-")))
        port = free_port()
        ca_file = nginx.make_certificate(top)
        stack.enter_context(
            PinnedProcess(
                nginx.upstream(top, port=port, scheme=scheme, token=TOKEN),
                core=self.load_core,
                port=port,
                directory=top,
            ),
        )
        for name in contenders:
            if (launcher := CONTENDERS[name]) is None:
                self._urls[name] = f"{scheme}://127.0.0.1:{port}"
                continue
            directory = top / name
            directory.mkdir()
            setting = Setting(
                directory=directory,
                port=free_port(),
                scheme=scheme,
                authority=f"127.0.0.1:{port}",
                ca_file=ca_file,
                token=TOKEN,
            )
            launch = launcher(setting)
            proxy = PinnedProcess(
                launch.command,
                core=self.proxy_core,
                port=setting.port,
                directory=directory,
                environment=launch.environment,
            )
            self._proxies[name] = stack.enter_context(proxy)
            self._urls[name] = f"http://127.0.0.1:{setting.port}"
            require_injection(name, setting.port)

    def measure(self, name: str, *, number: int, seconds: int) -> Measurement:
        """Load one contender for `seconds`."""
        proxy = self._proxies.get(name)
        before = proxy.cpu_seconds() if proxy else 0.0
        try:
            counted = wrk.run(self._urls[name], core=self.load_core, seconds=seconds)
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {error}\n{proxy.output() if proxy else ''}") from error
        spent = proxy.cpu_seconds() - before if proxy else 0.0
        return Measurement(
            contender=name,
            round=number,
            cpu_us=spent / counted.requests * 1e6,
            requests_per_second=counted.requests / counted.seconds,
            p50_ms=counted.p50_us / 1e3,
            p99_ms=counted.p99_us / 1e3,
        )


def require_injection(name: str, port: int) -> None:
    """Raise RuntimeError unless the proxy puts the token in the place of the client's Authorization."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            "POST", nginx.ECHO_PATH, body=b"{}", headers={"Authorization": "Basic Y2xpZW50OnM="}
        )
        answer = connection.getresponse()
        arrived = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"{name} does not answer: {error!r}") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or arrived != f"Bearer {TOKEN}":
        raise RuntimeError(f"{name} does not inject the token: status {answer.status}, {arrived!r}")


def ratios(measurements: Sequence[Measurement]) -> dict[str, Spread]:
    """Return our CPU per request over each other proxy's, paired within a round."""
    by_name: dict[str, list[float]] = {}
    for measurement in sorted(measurements, key=lambda each: each.round):
        by_name.setdefault(measurement.contender, []).append(measurement.cpu_us)
    ours = by_name.pop(OURS, [])
    by_name.pop(DIRECT, None)
    if not ours:
        return {}
    return {
        name: Spread.of([mine / other for mine, other in zip(ours, theirs, strict=True)])
        for name, theirs in by_name.items()
    }


def spreads(measurements: Sequence[Measurement], name: str) -> dict[str, Spread]:
    """Return one contender's columns, summed up over the rounds."""
    rows = [measurement for measurement in measurements if measurement.contender == name]
    return {column: Spread.of([getattr(row, column) for row in rows]) for column in COLUMNS}


def print_table(measurements: Sequence[Measurement], contenders: Sequence[str]) -> None:
    """Print medians and, in parentheses, ranges over the rounds."""
    print(f"{'':18}" + "".join(f"{title:>28}" for title, _ in COLUMNS.values()))
    for name in contenders:
        cells = ""
        for column, spread in spreads(measurements, name).items():
            form = COLUMNS[column][1]
            text = f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
            cells += f"{text if spread.high else '-':>28}"
        print(f"{name:18}{cells}")
    for name, spread in ratios(measurements).items():
        print(f"{OURS} / {name}, paired: {spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--scheme", choices=("http", "https"), default="http", help="of the upstream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load, for each contender in each round")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement here")
    parser.add_argument(
        "--gate",
        type=float,
        metavar="RATIO",
        help=f"fail when the median of {OURS} / {YARDSTICK} exceeds it",
    )
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    if arguments.gate is not None and not {OURS, YARDSTICK} <= set(arguments.contenders):
        parser.error(f"--gate compares {OURS} with {YARDSTICK}: both must run")
    return arguments


def main() -> None:
    # Ended from outside, the processes started here end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse_arguments()
    if missing := [package for command, package in TOOLS.items() if shutil.which(command) is None]:
        sys.exit(f"missing; on Debian: apt-get install {' '.join(missing)}")

    measurements: list[Measurement] = []
    try:
        with ExitStack() as stack:
            arena = Arena(stack, scheme=arguments.scheme, contenders=arguments.contenders)
            print(
                f"{arguments.scheme} upstream, {arguments.rounds} rounds of {arguments.seconds} s, "
                f"{wrk.CONNECTIONS} connections; proxy on CPU {arena.proxy_core}, "
                f"wrk and upstream on CPU {arena.load_core}; Python {platform.python_version()}",
            )
            for name in arguments.contenders:
                arena.measure(name, number=0, seconds=WARM_UP)
            for number in range(1, arguments.rounds + 1):
                # Every other round runs backwards, so that a drift of the machine favours nobody.
                order = arguments.contenders[:: 1 if number % 2 else -1]
                measurements += [
                    arena.measure(name, number=number, seconds=arguments.seconds) for name in order
                ]
    except RuntimeError as error:
        sys.exit(str(error))

    print_table(measurements, arguments.contenders)
    paired = ratios(measurements)
    if arguments.json:
        report = {
            "scheme": arguments.scheme,
            "python": platform.python_version(),
            "measurements": [asdict(measurement) for measurement in measurements],
            "ratios": {name: asdict(spread) for name, spread in paired.items()},
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.gate is not None and paired[YARDSTICK].median > arguments.gate:
        sys.exit(f"gate: {paired[YARDSTICK].median:.3f} times {YARDSTICK}'s CPU, above {arguments.gate:g}")


if __name__ == "__main__":
    main()
