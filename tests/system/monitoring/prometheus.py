"""Debian's Prometheus, which scrapes what a test runs."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.support import evidence
from tests.support.ports import free_port
from tests.support.waiting import HANGS

JOB = "bits"


class Series(NamedTuple):
    """A series in the result of a query: its labels, and pairs of time and value."""

    labels: Mapping[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def query(self, expr: str) -> list[Series]:
        """Return the present values of a query."""
        return [
            Series(each["metric"], [_point(each["value"])])
            for each in (await self._get("query", query=expr))["result"]
        ]

    async def query_range(self, expr: str, *, start: float, end: float, step: float) -> list[Series]:
        """Return the values of a query over time."""
        found = await self._get("query_range", query=expr, start=start, end=end, step=step)
        return [Series(each["metric"], [_point(pair) for pair in each["values"]]) for each in found["result"]]

    async def _get(self, what: str, **parameters: str | float) -> dict[str, Any]:
        async with self._session.get(f"/api/v1/{what}", params=parameters) as answer:
            content = json.loads(await answer.read())
        assert content["status"] == "success", f"{parameters}: {content['error']}"
        data: dict[str, Any] = content["data"]
        return data


def _text(log: Path) -> str:
    return log.read_text("utf-8") if log.exists() else ""


def _point(pair: tuple[float, str]) -> tuple[float, float]:
    return pair[0], float(pair[1])


@contextlib.asynccontextmanager
async def scraping(target: str, *, rules: Path, every: str = "1s") -> AsyncIterator[Prometheus]:
    """Run Prometheus with a rule file. It scrapes `target` (host:port) and evaluates at this interval."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise AssertionError("prometheus is not installed: Debian's package of that name brings it")
    # In memory if possible, because Prometheus does not scrape while it waits for a busy disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - with a unique name in there
    with tempfile.TemporaryDirectory(prefix="prometheus-", dir=memory) as name:
        home = Path(name)
        config = {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [target]}]}],
        }
        (home / "prometheus.yml").write_text(json.dumps(config), "utf-8")
        port = free_port()
        evidence.keep("Prometheus", lambda: _text(home / "log"), lasting=True)
        with (home / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                binary,
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                stdout=log,
                stderr=log,
            )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                await _ready(session, process, home / "log")
                yield Prometheus(session)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _ready(session: aiohttp.ClientSession, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(HANGS):
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get("/-/ready") as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(0.05)
    raise AssertionError(f"Prometheus did not start: {log.read_text()}")
