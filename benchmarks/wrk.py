"""One run of wrk: closed-loop load over keep-alive connections."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import on_core

CONNECTIONS: Final = 64
_SCRIPT: Final = Path(__file__).with_name("load.lua")
_MARK: Final = "FIGURES "
_GRACE: Final = 60
"""seconds after which an answer is taken for lost, and beyond its duration wrk for hung"""


@dataclass(frozen=True)
class Figures:
    """What wrk counted. `refused` are answers of 400 and above, `broken` failed or timed-out connections."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    refused: int
    broken: int


def run(url: str, *request: str, core: int, seconds: int, connections: int = CONNECTIONS) -> Figures:
    """Load `url` for `seconds` from `core` with `request`: "POST" and a size in bytes, or "GET".

    Raises RuntimeError unless every answer was a good one.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{_GRACE}s"]
    command += ["--script", str(_SCRIPT), url, "--", *request]
    try:
        finished = subprocess.run(
            on_core(core, command),
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"wrk still runs {_GRACE} s after its end") from error
    figures = finished.stdout.rpartition(_MARK)[2]
    if finished.returncode != 0 or not figures.startswith("{"):
        raise RuntimeError(f"wrk failed:\n{finished.stdout}{finished.stderr}")
    counted = Figures(**json.loads(figures))
    if counted.refused or counted.broken or not counted.requests:
        raise RuntimeError(f"not every answer was a good one: {counted}")
    return counted
