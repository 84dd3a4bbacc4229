"""Write the Grafana dashboard, and draw it from a run of seven minutes: `make dashboard`."""

import argparse
import asyncio
from pathlib import Path

from tests.system.monitoring.scenario import running
from tools.dashboard import dashboard, picture


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make dashboard", description=__doc__)
    parser.add_argument("--seconds", type=float, default=420.0, help="how long the run takes; 0: no picture")
    parser.add_argument("--picture", type=Path, default=Path("docs/dashboard.png"), help="where to draw it")
    known = parser.parse_args()
    dashboard.FILE.write_text(dashboard.as_json(), "utf-8")
    if known.seconds:
        async with running(known.seconds, every="2s") as run:
            await picture.draw(known.picture, run)


asyncio.run(main())
