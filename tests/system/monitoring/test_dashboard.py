"""The dashboard and the documented queries, in a real Prometheus that scraped a running proxy."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from bits_auth_proxy.telemetry.metrics import FAMILIES
from tests.support.commands import ROOT
from tests.system.monitoring.prometheus import JOB
from tests.system.monitoring.scenario import Run, running
from tools.dashboard import dashboard
from tools.dashboard.panels import ALERTS, ROWS, Number, Query, resolved

SECONDS = 30.0
NEVER_SO_FAR = ("internal errors", "queued", "queue")
"""Series that are always zero in the run."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run() -> AsyncIterator[Run]:
    async with running(SECONDS) as made:
        yield made


def now(expr: str) -> str:
    made = resolved(expr, job=JOB, rate_interval=4, seconds=SECONDS + 5)
    assert "$" not in made
    return made


def all_queries() -> list[tuple[str, Query]]:
    return [
        (panel.title, query)
        for panels in ROWS.values()
        for panel in panels
        for query in ((panel.query,) if isinstance(panel, Number) else panel.queries)
    ]


@pytest.mark.parametrize(("title", "query"), all_queries(), ids=lambda part: str(part[:40]))
@pytest.mark.asyncio(loop_scope="module")
async def test_every_query_returns_data_and_more_than_zeros(title: str, query: Query, run: Run) -> None:
    found = await run.prometheus.query_range(now(query.expr), start=run.began, end=run.ended, step=1.0)
    values = [value for series in found for _, value in series.points]
    assert values, title
    if query.legend not in NEVER_SO_FAR:
        assert any(value > 0 for value in values), title
    for name in re.findall(r"\{\{(\w+)\}\}", query.legend):
        assert all(name in series.labels for series in found), title


@pytest.mark.asyncio(loop_scope="module")
async def test_the_alert_that_must_fire_has_fired(run: Run) -> None:
    found = await run.prometheus.query_range(now(ALERTS), start=run.began, end=run.ended, step=1.0)
    assert "BitsProxyCallsWithoutToken" in {series.labels["alertname"] for series in found}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_documented_queries_return_data(run: Run) -> None:
    pages = (ROOT / "docs" / "metrics.md", *(ROOT / "docs" / "runbooks").glob("*.md"))
    queries = {
        query.replace("\\|", "|")
        for page in pages
        for query in re.findall(r"`([^`]*bits_proxy_\w+[^`]*[)}\]a-z])`", page.read_text("utf-8"))
        if re.search(r"[(\[{/ ]", query)
    }
    assert len(queries) >= 15
    for query in queries:
        assert await run.prometheus.query(query.replace("[1h]", "[5m]")) != [], query


@pytest.mark.asyncio(loop_scope="module")
async def test_promtool_has_nothing_to_say_about_the_metrics(run: Run) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{run.admin}/metrics") as answer:
        text = await answer.text()
    # The tool takes "bits" for a unit and demands bytes instead.
    process = await asyncio.create_subprocess_exec(
        "promtool",
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    complaints, _ = await process.communicate(text.replace("bits_proxy_", "bitsproxy_").encode())
    assert (process.returncode, complaints) == (0, b"")


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_is_scraped(run: Run) -> None:
    suffix = {"counter": "_total", "gauge": "", "histogram": "_count"}
    for family in FAMILIES:
        # Some are there only for a while, such as the one of a new pair that is not in use.
        query = f"present_over_time(bits_proxy_{family.name}{suffix[family.kind]}[5m])"
        assert await run.prometheus.query(query), family.name


def test_the_panels_fill_the_grid_and_none_lies_on_another() -> None:
    panels: list[dict[str, Any]] = json.loads(dashboard.as_json())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & cells
        taken |= cells
    assert len(taken) == 24 * (1 + max(row for _, row in taken))
