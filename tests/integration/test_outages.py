"""The token endpoint in trouble for minutes and hours, and tokens that the API refuses, as callers see it."""

import asyncio
import json
from email.utils import formatdate

import pytest

from bits_auth_proxy.auth.tokens import TokenState
from tests.support.stepped import Reply, Stage, reply, stepped

GOOD = {"type": "Bearer", "access_token": "abc", "expires_in": 3600, "scope": "application"}
# The wall clock of a stage begins here.
WALL = 1_700_000_000.0


def date_in(seconds: float) -> str:
    return formatdate(WALL + seconds, usegmt=True)


def granted(**changed: object) -> Reply:
    return reply("200 OK", json.dumps({**GOOD, **changed}))


TROUBLES: dict[str, tuple[Reply | None, str, str]] = {
    "refused": (None, "connect", "refused"),
    "hang": ((b"", "hang"), "timeout", "within 10 s"),
    "hang mid-head": ((b"HTTP/1.1 200 OK\r\nContent-Le", "hang"), "timeout", "within 10 s"),
    "hang mid-body": ((reply("200 OK", json.dumps(GOOD))[0][:-9], "hang"), "timeout", "within 10 s"),
    "closed": ((b"", "close"), "disconnected", "lost"),
    "reset": ((b"", "reset"), "disconnected", "lost"),
    "cut mid-body": ((reply("200 OK", json.dumps(GOOD))[0][:-9], "close"), "disconnected", "lost"),
    "no HTTP": ((b"220 mail.example ESMTP\r\n\r\n", "close"), "malformed", "not valid HTTP"),
    "429": (reply("429 Slow Down"), "throttled", "429"),
    "429, Retry-After": (reply("429 Slow Down\r\nRetry-After: 20"), "throttled", "429"),
    "429, Retry-After date": (reply(f"429 Slow Down\r\nRetry-After: {date_in(20)}"), "throttled", "429"),
    "503": (reply("503 Down"), "server_error", "503"),
    "503, Retry-After": (reply("503 Down\r\nRetry-After: 20"), "server_error", "503"),
    "503, Retry-After date": (reply(f"503 Down\r\nRetry-After: {date_in(20)}"), "server_error", "503"),
    "500": (reply("500 Oops", "<html>oops</html>"), "server_error", "500"),
    "400": (reply("400 No", '{"error":"invalid_request"}'), "refused", "400 invalid_request"),
    "401": (reply("401 No", '{"error":"invalid_client"}'), "refused", "401 invalid_client"),
    "403": (reply("403 No", "forbidden"), "status", "403"),
    "redirect": (reply("302 Go\r\nLocation: https://elsewhere.example/"), "redirect", "302"),
    "HTML": (reply("200 OK", "<html>Sign in to the hotel's Wi-Fi</html>"), "malformed", "not a JSON object"),
    "empty": (reply("200 OK"), "malformed", "empty"),
    "error in a 200": (reply("200 OK", '{"error":"invalid_client"}'), "refused", "invalid_client"),
    "oversized": (reply("200 OK", " " * 70_000), "malformed", "larger than 65536 bytes"),
    "another type": (granted(type="MAC"), "malformed", "type"),
    "absurd lifetime": (granted(expires_in=-1e12), "malformed", "expires_in"),
    "no lifetime at all": (granted(expires_in=0), "malformed", "expires_in"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@stepped
async def test_down_from_the_start_it_says_why_holds_the_app_for_30_s_and_recovers_by_itself(
    stage: Stage, trouble: str
) -> None:
    answer, kind, said = TROUBLES[trouble]
    stage.door.trouble = answer
    if answer is None:
        await stage.door.shut()
    await stage.begin()
    assert await stage.get("/livez") == (200, "alive\n")
    assert await stage.get("/startupz") == (503, "waiting for the first token\n")
    assert await stage.call_without_token() == 503
    await stage.pass_time(30 - (stage.clock.now() - 1000) - 0.5)
    assert (await stage.get("/startupz"))[0] == 503
    assert (await stage.get("/readyz"))[0] == 503
    await stage.pass_time(0.5)
    assert await stage.get("/startupz") == (200, "started without a token\n")
    assert (await stage.get("/readyz"))[0] == 200
    told = json.loads((await stage.get("/status"))[1])["token"]
    assert told["state"] == "absent"
    assert said in told["last_error"]
    failed = stage.events("token_refresh_failed")[0]
    assert (failed["kind"], failed["level"], failed["token"]) == (kind, "error", "absent")
    assert said in failed["detail"]
    assert stage.token.permanent is (kind == "refused")
    # Refused for good, there is nothing to wait for.
    assert await (stage.call() if kind == "refused" else stage.call_without_token()) == 503

    stage.door.trouble = None
    if answer is None:
        await stage.door.open()
    # Nobody calls: it recovers all the same. What hangs has 10 s, what refuses 5 min at most.
    waited = 0
    while stage.token.state is TokenState.ABSENT:
        await stage.pass_time(1)
        waited += 1
    assert waited <= (300 if kind == "refused" else 41)
    assert await stage.call() == 200
    assert json.loads((await stage.get("/status"))[1])["token"]["last_error"] is None


DOWN: dict[str, Reply | None] = {
    "refused": None,
    "hang": (b"", "hang"),
    "503, back in a minute": reply("503 Down\r\nRetry-After: 60"),
    "503, back in a day": reply("503 Down\r\nRetry-After: 86400"),
    "401": reply("401 No", '{"error":"invalid_client"}'),
}


async def take_down(stage: Stage, how: str) -> None:
    stage.door.trouble = DOWN[how]
    if DOWN[how] is None:
        await stage.door.shut()


async def bring_back(stage: Stage) -> None:
    if stage.door.trouble is None:
        await stage.door.open()
    stage.door.trouble = None


@pytest.mark.parametrize("how", DOWN)
@stepped
async def test_ten_minutes_down_around_the_refresh_go_unnoticed(stage: Stage, how: str) -> None:
    await stage.begin()
    assert await stage.call() == 200
    due = stage.token.next_refresh - stage.clock.wall()
    await stage.pass_time(due - 300, step=100)
    await take_down(stage, how)
    began = stage.clock.now()
    while stage.clock.now() < began + 600:
        await stage.pass_time(5)
        assert await stage.call() == 200
    assert stage.token.state is TokenState.STALE
    assert stage.token.consecutive_failures >= 1
    await bring_back(stage)
    asked = stage.door.asked
    while stage.token.state is TokenState.STALE:
        await stage.pass_time(5)
        assert await stage.call() == 200
    assert stage.door.asked <= asked + 2
    assert stage.token.state is TokenState.FRESH
    assert len(set(stage.api.seen)) == 2
    # A Retry-After is believed for 5 min, and a quarter of that to spread out a fleet.
    assert stage.clock.now() < began + 600 + 330


@pytest.mark.parametrize("how", DOWN)
@stepped
async def test_down_past_the_tokens_end_is_503_from_that_second_on_and_over_at_the_first_success(
    stage: Stage, how: str
) -> None:
    await stage.begin()
    token = stage.token.token
    assert token is not None
    await stage.pass_time(2400, step=100)
    await take_down(stage, how)
    while stage.clock.now() + 10 < token.expires_at:
        await stage.pass_time(10)
        assert await stage.call() == 200
    await stage.pass_time(token.expires_at - stage.clock.now() - 0.001)
    assert await stage.call() == 200
    await stage.pass_time(0.001)
    assert await stage.call_without_token() == 503
    assert stage.token.state is TokenState.EXPIRED
    await stage.pass_time(120)
    assert await stage.call_without_token() == 503
    assert (await stage.get("/readyz"))[0] == 200

    await bring_back(stage)
    waited = 0
    while stage.token.state is TokenState.EXPIRED:
        await stage.pass_time(1)
        waited += 1
    assert waited <= {"refused": 30, "hang": 40, "503, back in a minute": 90}.get(how, 375)
    assert await stage.call() == 200
    assert set(stage.api.seen) == {"token-1", "token-2"}


@stepped
async def test_who_waits_brings_the_recovery_within_a_second(stage: Stage) -> None:
    await stage.door.shut()
    await stage.begin()
    # The backoff is at its longest by now.
    await stage.pass_time(300)
    await stage.door.open()
    call = stage.calling()
    await stage.pass_time(1.2, step=0.1)
    assert await call == 200


@stepped
async def test_a_lifetime_that_is_not_told_is_assumed_with_a_warning(stage: Stage) -> None:
    stage.door.lifetime = None
    await stage.begin()
    assert await stage.call() == 200
    assert stage.token.token is not None
    assert stage.token.token.lifetime == 3600
    assert [event["level"] for event in stage.events("token_lifetime_assumed")] == ["warning"]


@stepped
async def test_calls_that_wait_for_the_first_token_succeed_when_it_comes(stage: Stage) -> None:
    stage.door.trouble = reply("503 Down")
    await stage.begin()
    call = stage.calling()
    await stage.pass_time(1)
    stage.door.trouble = None
    await stage.pass_time(3)
    assert await call == 200


@stepped
async def test_five_hundred_calls_that_get_a_stale_401_cost_one_refresh_and_all_succeed(stage: Stage) -> None:
    await stage.begin(BITS_UPSTREAM__MAX_CONNECTIONS="500")
    assert await stage.call() == 200
    stage.api.revoked.add("token-1")
    refused = asyncio.Barrier(500)

    async def together() -> None:
        await refused.wait()

    stage.api.before_401 = together
    assert await asyncio.gather(*(stage.call(b"body %d" % number) for number in range(500))) == [200] * 500
    assert stage.api.seen.count("token-1") == 1 + 500
    assert stage.api.seen.count("token-2") == 500
    assert stage.door.asked == 2
    assert len(stage.events("token_refused")) == 1


@stepped
async def test_a_call_whose_body_is_no_longer_held_gets_its_401_and_the_next_a_new_token(
    stage: Stage,
) -> None:
    await stage.begin()
    stage.prove()
    stage.api.revoked.add("token-1")
    assert await stage.call(b"x" * 65_537) == 401
    await stage.settle()
    assert await stage.call(b"x" * 65_537) == 200
    assert stage.api.seen == ["token-1", "token-2"]
    stage.api.revoked.add("token-2")
    # Tokens that die one after the other are replaced a second apart.
    call = stage.calling(b"x" * 65_536)
    await stage.pass_time(2, step=0.5)
    assert await call == 200
    assert stage.api.seen == ["token-1", "token-2", "token-2", "token-3"]


@stepped
async def test_a_spurious_401_while_the_endpoint_is_down_costs_that_call_alone(stage: Stage) -> None:
    await stage.begin()
    stage.prove()
    await stage.door.shut()
    stage.api.revoked.add("token-1")
    began = stage.clock.now()
    assert await stage.call_without_token() == 401
    assert stage.clock.now() - began <= 7
    stage.api.revoked.clear()
    assert stage.token.state.value == "suspect"
    for _ in range(60):
        assert await stage.call() == 200
        assert stage.token.state is TokenState.FRESH
        await stage.pass_time(10)
    await stage.door.open()
    await stage.pass_time(31)
    assert stage.token.state is TokenState.FRESH


@stepped
async def test_a_call_that_is_refused_whatever_its_token_gets_its_401_at_a_bounded_price(
    stage: Stage,
) -> None:
    await stage.begin()
    for number in range(1, 20):
        stage.api.revoked.add(f"token-{number}")
    calls = []
    for _ in range(600):
        calls.append(stage.calling())
        await stage.pass_time(1)
    await stage.pass_time(5)
    assert {await call for call in calls} == {401}
    # Forced after 4 s, and then 30, 60, 120 and 240 s after the one before.
    assert stage.door.asked == 1 + 5
    stage.api.revoked.clear()
    assert await asyncio.gather(*(stage.call() for _ in range(16))) == [200] * 16
