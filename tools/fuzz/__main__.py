"""Send requests and responses with random changes to their bytes through the real proxy, in one process.

`make fuzz` runs for 10 minutes. The exit code is 0 if no exception escaped, no byte of a client's exchange
reached another client, no token reached a client, only valid requests with the proxy's own token reached the
API, memory stayed bounded, and nothing was left over at the end. For each failure, it writes files with the
bytes that reproduce it.
"""

import argparse
import asyncio
import random
import sys
from pathlib import Path

import uvloop

from tools.fuzz.run import Run


def main() -> int:
    """Run, report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tls", action="store_true", help="speak TLS on both sides")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--case", type=int, action="append", help="run this case of the seed only; repeatable"
    )
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), help="the directory for the bytes of failures"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    run = Run(seed=arguments.seed, failures=arguments.failures, secure=arguments.tls)
    hook = sys.excepthook
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run.run(seconds=arguments.seconds, only=arguments.case))
        finally:
            # The proxy's own hook would log an exception that ends the fuzzer.
            sys.excepthook = hook
    print(run.summary())
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())
