"""The admin listener: probes, metrics and status, and who gets them."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

import bits_auth_proxy
from bits_auth_proxy.admin.actions import Actions
from bits_auth_proxy.admin.app import Views, build_app
from bits_auth_proxy.admin.health import Health
from bits_auth_proxy.admin.server import AdminServer
from bits_auth_proxy.forward.listener import bind
from tests.support.bench import Bench
from tests.support.clock import FakeClock
from tests.support.stand import Stand, standing
from tests.support.waiting import HANGS

EVERYWHERE = ("/livez", "/startupz", "/readyz", "/metrics")
LOOPBACK_ONLY = ("/status", "/activity", "/inspected/1.5", "/", "/page.css", "/page.js", "/icon.svg")
PAGES = (*EVERYWHERE, *LOOPBACK_ONLY)


class Admin(NamedTuple):
    """A served admin application over a state that the test sets."""

    origin: str
    clock: FakeClock
    health: Health
    token: list[bool]
    done: list[str]


async def serve(*, loopback: bool) -> tuple[AdminServer, Admin]:
    clock, token, done = FakeClock(), [False], ["info"]

    def refresh() -> float:
        done.append("refresh")
        return 0.25

    health = Health(clock=clock, has_token=lambda: token[0], startup_grace=30.0)
    app: web.Application = build_app(
        health=health,
        views=Views(
            metrics=lambda accept: (f"for {accept}".encode(), "text/plain; version=0.0.4"),
            status=lambda: {"token": {"state": "fresh"}},
            activity=lambda: {"exchanges": []},
            inspected=lambda identity: {"request": {}} if identity == "1.5" else None,
        ),
        actions=Actions(
            refresh=refresh,
            levels=("debug", "info"),
            get_level=lambda: done[-1],
            set_level=done.append,
        ),
        loopback=loopback,
    )
    server = AdminServer()
    sock = bind(("127.0.0.1", 0))
    await server.serve(sock, app)
    return server, Admin(f"http://127.0.0.1:{sock.getsockname()[1]}", clock, health, token, done)


@pytest.fixture(params=[True])
async def admin(request: pytest.FixtureRequest) -> AsyncIterator[Admin]:
    server, made = await serve(loopback=request.param)
    yield made
    await server.close()


async def get(origin: str, path: str, **headers: str) -> tuple[int, str]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(origin + path, headers=fields) as answer:
        assert answer.status >= 400 or answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.text()


async def post(origin: str, path: str, /, body: str = "", **headers: str) -> tuple[int, str]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(origin + path, headers=fields, data=body.encode()) as answer,
    ):
        return answer.status, await answer.text()


async def test_start_up_is_over_with_a_token_or_after_the_grace(admin: Admin) -> None:
    waiting = (503, "waiting for the first token\n")
    assert await get(admin.origin, "/startupz") == await get(admin.origin, "/readyz") == waiting
    assert await get(admin.origin, "/livez") == (200, "alive\n")
    admin.clock.advance(29.9)
    assert await get(admin.origin, "/startupz") == waiting
    admin.clock.advance(0.2)
    assert await get(admin.origin, "/startupz") == (200, "started without a token\n")
    admin.token[0] = True
    assert await get(admin.origin, "/startupz") == (200, "started\n")
    # Once over, start-up stays over: an outage of the token endpoint takes no pod away.
    admin.token[0] = False
    assert await get(admin.origin, "/readyz") == (200, "started\n")


async def test_draining_ends_readiness_and_nothing_else(admin: Admin) -> None:
    admin.token[0] = True
    assert (await get(admin.origin, "/readyz"))[0] == 200
    admin.health.drain()
    assert await get(admin.origin, "/readyz") == (503, "draining\n")
    assert (await get(admin.origin, "/livez"))[0] == 200
    assert (await get(admin.origin, "/startupz"))[0] == 200


async def test_metrics_come_in_the_format_that_is_asked_for(admin: Admin) -> None:
    assert await get(admin.origin, "/metrics", Accept="application/openmetrics-text") == (
        200,
        "for application/openmetrics-text",
    )


@pytest.mark.parametrize("admin", [False], indirect=True)
async def test_where_others_can_reach_it_there_are_probes_and_metrics_alone(admin: Admin) -> None:
    admin.token[0] = True
    # Probes come by the pod's address, so any Host will do.
    found = {path: (await get(admin.origin, path, Host="10.0.0.7"))[0] for path in PAGES}
    assert found == {**dict.fromkeys(EVERYWHERE, 200), **dict.fromkeys(LOOPBACK_ONLY, 404)}


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Host": "rebound.evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:9090"}, 421),
        ({"Host": "localhost:99999"}, 421),
    ],
)
async def test_web_pages_get_nothing(admin: Admin, path: str, headers: dict[str, str], status: int) -> None:
    admin.token[0] = True
    assert (await get(admin.origin, path, **headers))[0] == status


async def test_its_own_page_may_ask(admin: Admin) -> None:
    admin.token[0] = True
    own = {"Origin": admin.origin, "Sec_Fetch_Site": "same-origin"}
    assert (await get(admin.origin, "/status", **own))[0] == 200
    assert (await get(admin.origin, "/status", Host="localhost:9090"))[0] == 200


@pytest.mark.parametrize("own", [{"X_Requested_With": "curl"}, {"Origin": ""}])
async def test_an_operator_or_the_own_page_may_act(admin: Admin, own: dict[str, str]) -> None:
    headers = {name: value or admin.origin for name, value in own.items()}
    assert await post(admin.origin, "/refresh", **headers) == (202, '{"starts_in_seconds": 0.25}')
    assert admin.done == ["info", "refresh"]
    assert (await post(admin.origin, "/log-level?level=debug", **headers))[0] == 200
    assert await post(admin.origin, "/log-level", '{"level":"info"}', **headers) == (
        200,
        '{"level": "info", "before": "debug"}',
    )
    assert await get(admin.origin, "/log-level") == (200, '{"level": "info"}')
    assert admin.done[2:] == ["debug", "info"]


@pytest.mark.parametrize("path", ["/refresh", "/log-level?level=debug"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "cross-site", "X_Requested_With": "x"},
        {"Origin": "https://evil.example", "X_Requested_With": "x"},
        {"Origin": "null", "X_Requested_With": "x"},
        {"Host": "rebound.evil.example", "X_Requested_With": "x"},
    ],
)
async def test_nobody_else_may_act(admin: Admin, path: str, headers: dict[str, str]) -> None:
    assert (await post(admin.origin, path, **headers))[0] in (403, 421)
    assert (await get(admin.origin, "/refresh", X_Requested_With="x"))[0] == 405
    assert admin.done == ["info"]


@pytest.mark.parametrize("admin", [False], indirect=True)
async def test_where_others_can_reach_it_nobody_may_act(admin: Admin) -> None:
    for path in ("/refresh", "/log-level?level=debug"):
        assert (await post(admin.origin, path, X_Requested_With="x"))[0] == 404
    assert admin.done == ["info"]


@pytest.mark.parametrize("body", ["", "{", "[]", '{"level":3}', '{"level":"loud"}', "x" * 5000])
async def test_a_level_that_there_is_not_changes_nothing(admin: Admin, body: str) -> None:
    status, text = await post(admin.origin, "/log-level", body, X_Requested_With="x")
    assert (status, text.endswith("with one of debug, info.\n")) == (400, True)
    assert admin.done == ["info"]


async def test_a_refresh_that_was_asked_for_brings_another_token() -> None:
    async with standing() as stand:
        before = await has_token(stand)
        # The start's token request is less than a second old, so this one waits its turn.
        status, text = await post(stand.admin, "/refresh", X_Requested_With="x")
        assert status == 202
        assert 0 <= json.loads(text)["starts_in_seconds"] <= 1
        async with asyncio.timeout(HANGS):
            while await has_token(stand) == before:
                pass
        metrics = (await get(stand.admin, "/metrics"))[1]
        assert 'token_refreshes_total{outcome="success",reason="requested"} 1.0' in metrics


async def test_the_log_level_changes_while_it_runs() -> None:
    async with standing(BITS_ACCESS_LOG="all") as stand, aiohttp.ClientSession(stand.url) as client:

        async def seen() -> list[tuple[str, str]]:
            stand.log.seek(0)
            stand.log.truncate()
            async with client.get("/oauth2/userinfo") as answer:
                assert answer.status == 200
            found = (json.loads(line) for line in stand.log.getvalue().splitlines())
            return [
                (event["event"], event["level"]) for event in found if event["event"] != "token_refreshed"
            ]

        assert await seen() == [("request", "info")]
        for level, lines in {"warning": [], "error": [], "info": [("request", "info")]}.items():
            status, _ = await post(stand.admin, f"/log-level?level={level}", X_Requested_With="x")
            assert status == 200
            assert "log_level_changed" in stand.log.getvalue()
            assert await seen() == lines


async def has_token(stand: Stand) -> str:
    """Wait for a token; return its fingerprint."""
    async with asyncio.timeout(HANGS):
        while True:
            fingerprint = json.loads((await get(stand.admin, "/status"))[1])["token"]["fingerprint"]
            if fingerprint is not None:
                return str(fingerprint)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_page_may_use_this_listener_alone(admin: Admin, path: str, content_type: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(admin.origin + path) as answer:
        assert answer.status == 200
        assert answer.content_type == content_type
        directives = answer.headers["Content-Security-Policy"].split("; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        text = await answer.text()
    assert {"default-src 'none'", "frame-ancestors 'none'", "script-src 'self'"} <= set(directives)
    assert {each.partition(" ")[2] for each in directives} == {"'self'", "'none'"}
    # Nothing inline, which the policy would refuse, and no address of anybody else.
    assert not re.search(r"<script(?![^>]*src)|<style| on[a-z]+=| style=", text)
    assert set(re.findall(r"https?://[^/\"]+", text)) <= {"http://www.w3.org"}


async def test_what_is_not_kept_is_not_found(admin: Admin) -> None:
    assert await get(admin.origin, "/inspected/1.5") == (200, '{"request": {}}')
    assert (await get(admin.origin, "/inspected/2.5"))[0] == 404


async def test_activity_tells_what_happened_lately() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as client:
        async with client.get("/oauth2/userinfo", headers={"X-Request-ID": "mine"}) as answer:
            assert answer.status == 200
        async with client.get("/v1/oauth2/token") as answer:
            assert answer.status == 403
        told = json.loads((await get(stand.admin, "/activity"))[1])
        assert (await get(stand.admin, f"/inspected/{told['exchanges'][0]['id']}"))[0] == 404
    (exchange,) = told["exchanges"]
    assert exchange["request_id"] == "mine"
    assert (exchange["method"], exchange["operation"], exchange["status"]) == ("GET", "userinfo", 200)
    assert exchange["timestamp_seconds"] == pytest.approx(told["timestamp_seconds"], abs=5)
    assert [each["reason"] for each in told["rejections"]] == ["denied"]
    assert [(each["outcome"], each["reason"]) for each in told["refreshes"]] == [("success", "start")]
    assert told["refreshes"][0]["detail"] == f"{told['token']['fingerprint']}, lives 3600 s"
    assert told["listen"] == [stand.url.removeprefix("http://")]
    assert (told["inspecting"], told["log_level"]) == (False, "debug")
    totals = told["totals"]
    assert (totals["requests"], totals["requests_in_flight"], totals["failed_requests"]) == (1, 0, 0)
    assert (totals["rejected_requests"], totals["token_refreshes"]) == (1, 1)
    assert totals["response_bytes"] == exchange["response_bytes"] > 0


async def test_status_and_metrics_of_a_whole_stand_tell_the_same() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as client:
        async with client.get("/oauth2/userinfo") as answer:
            assert answer.status == 200
        status = json.loads((await get(stand.admin, "/status"))[1])
        metrics = (await get(stand.admin, "/metrics"))[1]
        token = stand.sidecar._refresher.current(stand.sidecar._clock.now())
        assert token is not None
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if not line.startswith("#")
    }
    told = status["token"]
    assert told["state"] == "fresh"
    assert values['bits_proxy_token_state{state="fresh"}'] == 1
    assert sum(value for name, value in values.items() if name.startswith("bits_proxy_token_state{")) == 1
    for name in ("issued", "expires", "next_refresh"):
        assert values[f"bits_proxy_token_{name}_timestamp_seconds"] == pytest.approx(
            told[f"{name}_timestamp_seconds"], abs=2
        )
    assert told["expires_timestamp_seconds"] - told["issued_timestamp_seconds"] == pytest.approx(3570)
    assert values['bits_proxy_upstream_connections{state="idle"}'] == status["upstream_connections"]["idle"]
    assert values['bits_proxy_requests_total{method="GET",operation="other",status="200"}'] == 1
    for shown in (metrics, json.dumps(status)):
        assert token.reveal() not in shown


async def test_hostile_paths_make_no_new_series(bench: Bench) -> None:
    # Errors earn no label, and successes a hundred at most.
    bench.upstream.script = [(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",)]
    async with bench.connect() as client:
        before = 0
        for number in range(300):
            await client.send(b"GET /v1/x%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            assert (await client.answer()).status == 404
            before = before or bench.metrics().count("\n")
        assert bench.metrics().count("\n") == before
        bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",)]
        for number in range(300):
            await client.send(b"GET /v1/x%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            assert (await client.answer()).status == 200
    operations = {
        line for line in bench.metrics().splitlines() if line.startswith("bits_proxy_requests_total{")
    }
    assert len(operations) <= 102
    assert 'operation="other",status="200"' in "".join(operations)


def test_the_health_check_loads_the_standard_library_alone() -> None:
    program = (
        "import sys; from bits_auth_proxy.cli import healthcheck; "
        "print([name for name in sys.modules if name in %r])"
    )
    heavy = (
        "aiohttp",
        "pydantic",
        "structlog",
        "prometheus_client",
        "uvloop",
        "asyncio",
        "bits_auth_proxy.settings",
        "tomllib",
        "ssl",
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", program % (heavy,)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(bits_auth_proxy.__file__).parents[1])},
    )
    assert found.stdout.strip() == "[]"
