"""Draw the Grafana dashboard from a run of seven minutes: `make dashboard`.

`make generate` writes the dashboard itself.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.system.monitoring.scenario import running
from tools.dashboard import picture


async def main() -> int:
    """Run the scenario, draw what Prometheus recorded, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make dashboard ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=420.0, help="how long the run takes")
    parser.add_argument("--picture", type=Path, default=Path("docs/dashboard.png"), help="the file to write")
    arguments = parser.parse_args()
    async with running(arguments.seconds, every="2s") as run:
        await picture.draw(arguments.picture, run)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
