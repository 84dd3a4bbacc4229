"""Measure this proxy beside others: see benchmarks/README.md.

A whole run, without options, takes some 12 minutes. At its end it rewrites results.json, results.svg, the
tables in benchmarks/README.md and the sentence in README.md.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import chart, measuring, report
from benchmarks.arena import Arena
from benchmarks.contenders import CONTENDERS, DIRECT, LOGGING
from benchmarks.samples import Samples

TOOLS: Final = {"wrk": "wrk", "nginx": "nginx", "caddy": "caddy", "taskset": "util-linux"}
"""command → the Debian package that brings it"""
HERE: Final = Path(__file__).parent


def require_tools(contenders: Sequence[str]) -> None:
    """End the program, naming the Debian packages, if what is to be run is not there."""
    needed = [name for name in TOOLS if name != "caddy" or "Caddy" in contenders]
    if missing := [TOOLS[name] for name in needed if shutil.which(name) is None]:
        sys.exit(f"missing; on Debian: apt-get install {' '.join(missing)}")


def measure(
    samples: Samples, scheme: str, *, contenders: Sequence[str], rounds: int, seconds: int, brief: bool
) -> None:
    """Take all samples with an http or https upstream; `brief`: nothing but the load."""
    few = (rounds + 1) // 2
    short = max(1, seconds // 3)
    with ExitStack() as stack:
        arena = Arena(stack, scheme=scheme, contenders=contenders)
        # What is measured from here belongs to the load; the next arena looks at all cores again.
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {arena.load_core})
        print(f"{scheme}: proxies on CPU {arena.proxy_core}, load and upstream on CPU {arena.load_core}")
        time.sleep(0.3)
        idle = {name: proxy.memory_bytes() for name, proxy in arena.proxies.items()}
        for name in contenders:
            list(measuring.load(arena, name, 0, 1))  # a warm-up, not counted
        for number in range(1, rounds + 1):
            # Every other round runs backwards, so that a drift of the machine favours nobody.
            for name in contenders[:: 1 if number % 2 else -1]:
                samples.add(*measuring.load(arena, name, number, seconds))
            if brief:
                continue
            others = [name for name in contenders if name != LOGGING]
            direct = 0.0
            for name in sorted(others, key=lambda name: name != DIRECT):
                sample, median = measuring.latency(arena, name, number, short, direct)
                if name == DIRECT:
                    direct = median
                else:
                    samples.add(sample)
            proxies = [name for name in others if name != DIRECT]
            for name in proxies[:: 1 if number % 2 else -1] if number <= few else ():
                samples.add(*measuring.large(arena, name, number, short))
                samples.add(*measuring.stream(arena, name, number, idle[name]))
                samples.add(*measuring.start(arena, name, number))
            print(f"{scheme}: round {number} of {rounds} done", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--schemes", nargs="+", choices=report.SCHEMES, default=list(report.SCHEMES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load, for each contender in each round")
    parser.add_argument("--brief", action="store_true", help="CPU, throughput and latency under load only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument(
        "--publish", action="store_true", help="write results and tables anew, as a run without options does"
    )
    arguments = parser.parse_args()
    arguments.publish = arguments.publish or len(sys.argv) == 1
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return arguments


def main() -> None:
    # Ended from outside, the processes started here end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse_arguments()
    require_tools(arguments.contenders)
    measuring.allow_many_descriptors()
    samples = Samples()
    try:
        for scheme in arguments.schemes:
            measure(
                samples,
                scheme,
                contenders=arguments.contenders,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                brief=arguments.brief,
            )
    except RuntimeError as error:
        sys.exit(str(error))
    details = report.details(samples, [name for name in report.TABLE if name in arguments.contenders])
    print(f"\n{details}")
    if arguments.json:
        samples.write(arguments.json)
    if arguments.publish:
        samples.write(HERE / "results.json")
        chart.draw(HERE / "results.svg", samples)
        report.replace(HERE / "README.md", details)
        report.replace(HERE.parent / "README.md", report.headline(samples))


if __name__ == "__main__":
    main()
