"""The whole stand while the token or its endpoint is in trouble: the emulator's faults, seen by callers."""

import asyncio
import io
import json
from typing import Any

import aiohttp

from tests.support.stand import APPLICATION, CREATE, Stand, emulating, sidecar_for, standing
from tests.support.waiting import HANGS


async def control(api: str, what: str, **members: Any) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(api) as session,
        session.post(f"/_emulator/{what}", json=members) as answer,
    ):
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


async def counters(stand: Stand) -> dict[str, int]:
    async with aiohttp.ClientSession(stand.api) as session, session.get("/_emulator/state") as answer:
        found: dict[str, int] = (await answer.json())["counters"]
        return found


async def call(stand: Stand, times: int = 1) -> list[int]:
    async with aiohttp.ClientSession(stand.url) as session:

        async def once() -> int:
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                return answer.status

        return await asyncio.gather(*(once() for _ in range(times)))


def events(stand: Stand, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in stand.log.getvalue().splitlines())
    return [event for event in lines if event["event"] == name]


async def test_calls_made_before_the_first_token_wait_for_it_and_share_one_request() -> None:
    async with standing(token_delay=0.2) as stand:
        assert await call(stand, 32) == [200] * 32
        assert (await counters(stand))["token_requests"] == 1


async def test_all_tokens_revoked_costs_one_refresh_and_no_call() -> None:
    async with standing() as stand:
        assert await call(stand) == [200]
        await control(stand.api, "revoke")
        assert await call(stand, 64) == [200] * 64
        assert (await counters(stand))["token_requests"] == 2
        (refused,) = events(stand, "token_refused")
        assert refused["level"] == "warning"


async def test_the_token_endpoint_down_from_the_start_is_answered_with_503_until_it_is_back() -> None:
    async with emulating() as (emulator, api):
        await control(api, "faults", token_mode="fail", token_status=503)
        log = io.StringIO()
        async with sidecar_for(api, log, BITS_TOKEN_WAIT="0.2") as sidecar:
            stand = Stand(sidecar, emulator, api, log)
            async with (
                aiohttp.ClientSession(stand.url) as session,
                session.post(CREATE, json=APPLICATION) as answer,
            ):
                assert answer.status == 503
                assert answer.content_type == "application/problem+json"
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.headers["Proxy-Status"].startswith("bits-auth-proxy; error=")
                assert (await answer.json())["code"] == "token_unavailable"
            await control(api, "faults", token_mode="ok")
            async with asyncio.timeout(HANGS):
                while await call(stand) != [200]:
                    pass


async def test_throttling_errors_and_cuts_of_the_api_pass_as_what_they_are() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as session:
        await control(stand.api, "faults", next_429=1, retry_after=7)
        async with session.post(CREATE, json=APPLICATION) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
            assert "Proxy-Status" not in answer.headers
        await control(stand.api, "faults", next_500=1)
        assert await call(stand) == [500]
        await control(stand.api, "faults", next_cut=1)
        async with session.post(CREATE, json=APPLICATION) as answer:
            assert answer.status == 502
            assert "bits-auth-proxy" in answer.headers["Proxy-Status"]
        # `.create` went up once for each of the calls: nothing was sent again.
        assert (await counters(stand))["applications.create"] == 3


async def test_the_emulators_controls_and_its_token_endpoint_are_not_reached_through_the_proxy() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as session:
        async with session.post("/v1/oauth2/token", data={"grant_type": "client_credentials"}) as answer:
            assert answer.status == 403
        for path in ("/_emulator/revoke", "/_emulator/rotate"):
            async with session.post(path) as answer:
                assert answer.status == 403, path
        assert await call(stand) == [200]
