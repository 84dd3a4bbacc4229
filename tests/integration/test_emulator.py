"""The Bits API emulator as its callers meet it: refusals, scopes, expiry, faults, controls, browsers."""

import asyncio
import base64
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from bits_auth_proxy.emulator import server
from bits_auth_proxy.emulator.server import Emulator
from tests.support.clock import FakeClock

CLIENT_ID = "bits:client::7d10"
CLIENT_SECRET = "canary:secret-/+%:ü"
TOKEN = "/v1/oauth2/token"
CREATE = "/v1/applications.create"
GET = "/v1/applications.get"
ORGANIZATION = "/v1/applications.organization.get"
USERINFO = "/oauth2/userinfo"
APPLICATION = {
    "workflowId": "bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",
    "countryCode": "SE",
    "redirectUrl": "https://acme.example/done",
}
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    members: dict[str, Any]


def basic(client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET) -> dict[str, str]:
    pair = f"{client_id}:{client_secret}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


class Caller:
    """Calls one emulator; every answer of it is a JSON object."""

    def __init__(self, session: aiohttp.ClientSession, emulator: Emulator, clock: FakeClock) -> None:
        self.session = session
        self.emulator = emulator
        self.clock = clock

    async def send(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, path, **options) as answer:
            text = await answer.text()
            assert text.endswith("}\n"), "on a terminal, the prompt comes next"
            return Answer(answer.status, answer.headers, json.loads(text))

    async def ask_token(
        self,
        headers: dict[str, str] | None = None,
        *,
        grant_type: str = "client_credentials",
        scope: str | None = None,
    ) -> Answer:
        form = {"grant_type": grant_type} | ({} if scope is None else {"scope": scope})
        return await self.send("POST", TOKEN, data=form, headers=basic() if headers is None else headers)

    async def token(self, *, scope: str | None = None) -> str:
        value: str = (await self.ask_token(scope=scope)).members["access_token"]
        return value

    async def call(self, path: str, token: str | None, members: Any = None) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if path == USERINFO:
            return await self.send("GET", path, headers=headers)
        return await self.send("POST", path, headers=headers, json={} if members is None else members)

    async def control(self, what: str, **members: Any) -> dict[str, Any]:
        answer = await self.send("POST", f"/_emulator/{what}", json=members)
        assert answer.status == 200
        return answer.members

    async def state(self) -> dict[str, Any]:
        return (await self.send("GET", "/_emulator/state")).members


@contextlib.asynccontextmanager
async def serving(address: str = "127.0.0.1", **settings: float) -> AsyncIterator[Caller]:
    clock = FakeClock()
    emulator = Emulator(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, clock=clock, **settings)
    with socket.create_server((address, 0)) as sock:
        await emulator.start(sock)
        try:
            origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
            async with aiohttp.ClientSession(origin) as session:
                yield Caller(session, emulator, clock)
        finally:
            await emulator.close()


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with serving() as found:
        yield found


# The token endpoint


async def test_a_token_answer_has_the_documented_members_and_is_not_to_be_stored(caller: Caller) -> None:
    answer = await caller.ask_token()
    assert answer.status == 200
    token = answer.members.pop("access_token")
    assert len(token) >= 32
    assert answer.members == {"type": "Bearer", "expires_in": 3600, "scope": "application"}
    assert isinstance(answer.members["expires_in"], int)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_every_token_is_another(caller: Caller) -> None:
    assert len({await caller.token() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="missing"),
        pytest.param(basic(client_secret="wrong"), id="wrong secret"),
        pytest.param(basic(client_id="wrong"), id="wrong id"),
        pytest.param(basic(client_secret="canary%3Asecret-%2F%2B%25%3A%C3%BC"), id="form-escaped"),
        pytest.param({"Authorization": "Basic not*base64"}, id="not base64"),
        pytest.param({"Authorization": "Basic"}, id="empty"),
        pytest.param({"Authorization": basic()["Authorization"].replace("Basic", "Bearer")}, id="Bearer"),
    ],
)
async def test_wrong_basic_credentials_are_an_invalid_client(caller: Caller, headers: dict[str, str]) -> None:
    answer = await caller.ask_token(headers)
    assert (answer.status, answer.members["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert CLIENT_SECRET not in json.dumps(answer.members, ensure_ascii=False)


async def test_the_name_of_the_scheme_has_no_case(caller: Caller) -> None:
    headers = {"Authorization": basic()["Authorization"].replace("Basic", "bASIC")}
    assert (await caller.ask_token(headers)).status == 200


@pytest.mark.parametrize("grant", ["password", "authorization_code", "refresh_token", ""])
async def test_any_other_grant_is_unsupported(caller: Caller, grant: str) -> None:
    answer = await caller.ask_token(grant_type=grant)
    assert (answer.status, answer.members["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"json": {"grant_type": "client_credentials"}}, id="JSON"),
        pytest.param({"data": b"grant_type=client_credentials"}, id="no form type"),
        pytest.param({"data": {"scope": "application"}}, id="no grant_type"),
        pytest.param({"data": [("grant_type", "client_credentials")] * 2}, id="grant_type twice"),
    ],
)
async def test_what_is_no_form_with_one_grant_type_is_an_invalid_request(
    caller: Caller, options: dict[str, Any]
) -> None:
    answer = await caller.send("POST", TOKEN, headers=basic(), **options)
    assert (answer.status, answer.members["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("scope", ["application", "application.read"])
async def test_the_scope_asked_for_is_the_scope_granted(caller: Caller, scope: str) -> None:
    assert (await caller.ask_token(scope=scope)).members["scope"] == scope


@pytest.mark.parametrize("scope", ["application.session", "everything", "application everything"])
async def test_a_scope_that_clients_cannot_have_is_invalid(caller: Caller, scope: str) -> None:
    answer = await caller.ask_token(scope=scope)
    assert (answer.status, answer.members["error"]) == (400, "invalid_scope")


# Who may call


async def test_an_unexpired_token_serves_and_an_expired_one_does_not(caller: Caller) -> None:
    token = await caller.token()
    caller.clock.advance(3599.9)
    assert (await caller.call(USERINFO, token)).status == 200
    caller.clock.jump_wall(10_000)
    assert (await caller.call(USERINFO, token)).status == 200
    caller.clock.advance(0.1)
    answer = await caller.call(USERINFO, token)
    assert (answer.status, answer.members["error"]) == (401, "invalid_token")


@pytest.mark.parametrize("path", [USERINFO, CREATE, GET, ORGANIZATION])
async def test_a_missing_and_a_wrong_token_are_challenged_everywhere(caller: Caller, path: str) -> None:
    # RFC 6750 section 3.1: who brings no token at all is told no error code in the challenge.
    for token, challenge in ((None, "Bearer"), ("wrong", 'Bearer error="invalid_token"')):
        answer = await caller.call(path, token, APPLICATION)
        assert (answer.status, answer.members["error"]) == (401, "invalid_token")
        assert answer.headers["WWW-Authenticate"] == challenge


async def test_the_basic_pair_is_no_token(caller: Caller) -> None:
    assert (await caller.send("GET", USERINFO, headers=basic())).status == 401


async def test_revoked_tokens_are_refused_and_new_ones_serve(caller: Caller) -> None:
    old = await caller.token()
    session = (await caller.call(CREATE, old, APPLICATION)).members["sessionToken"]
    assert await caller.control("revoke") == {"revoked": 2}
    assert (await caller.call(USERINFO, old)).status == 401
    assert (await caller.call(GET, session)).status == 401
    assert (await caller.call(USERINFO, await caller.token())).status == 200


async def test_application_read_reads_and_does_not_create(caller: Caller) -> None:
    made = (await caller.call(CREATE, await caller.token(), APPLICATION)).members
    reader = await caller.token(scope="application.read")
    answer = await caller.call(CREATE, reader, APPLICATION)
    assert (answer.status, answer.members["error"]) == (403, "insufficient_scope")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
    assert (await caller.call(GET, reader, {"applicationId": made["id"]})).status == 200
    assert (await caller.call(ORGANIZATION, reader)).status == 200


async def test_a_session_token_reads_its_one_application_for_an_hour(caller: Caller) -> None:
    client = await caller.token()
    own, other = [(await caller.call(CREATE, client, APPLICATION)).members for _ in range(2)]
    session = own["sessionToken"]
    assert (await caller.call(GET, session, {"applicationId": own["id"]})).status == 200
    for path, members in (
        (GET, {"applicationId": other["id"]}),
        (CREATE, APPLICATION),
        (ORGANIZATION, {}),
        (USERINFO, {}),
    ):
        answer = await caller.call(path, session, members)
        assert (answer.status, answer.members["error"]) == (403, "insufficient_scope")
    caller.clock.advance(3600)
    assert (await caller.call(GET, session, {"applicationId": own["id"]})).status == 401


# What calls answer


async def test_the_owner_is_the_same_customer_every_time(caller: Caller) -> None:
    answers = [(await caller.call(USERINFO, await caller.token())).members for _ in range(2)]
    assert answers[0] == answers[1]
    assert list(answers[0]) == ["customerId"]
    assert re.fullmatch("bits:customer::" + UUID, answers[0]["customerId"])


async def test_a_created_application_can_be_read_again(caller: Caller) -> None:
    token = await caller.token()
    made = (await caller.call(CREATE, token, {**APPLICATION, "extra": 1})).members
    assert set(made) == {"id", "sessionToken"}
    assert re.fullmatch("bits:application::" + UUID, made["id"])
    assert (await caller.call(GET, token, {"applicationId": made["id"]})).members == {
        "id": made["id"],
        **APPLICATION,
    }


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("workflowId", None),
        ("workflowId", 7),
        ("workflowId", "8abe317f-6d54-4949-8ecd-245efb4fa05d"),
        ("workflowId", APPLICATION["workflowId"] + "\n"),
        ("countryCode", "SWE"),
        ("countryCode", "se"),
        ("countryCode", "S1"),
        ("redirectUrl", "/done"),
        ("redirectUrl", "https:///done"),
        ("redirectUrl", "javascript:alert(1)"),
        ("redirectUrl", "http://[::1"),
    ],
)
async def test_a_wrong_member_of_a_new_application_is_named(caller: Caller, member: str, value: Any) -> None:
    answer = await caller.call(CREATE, await caller.token(), {**APPLICATION, member: value})
    assert answer.status == 400
    assert member in answer.members["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
async def test_what_is_no_json_object_is_refused(caller: Caller, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {await caller.token()}", "Content-Type": "application/json"}
    for path in (CREATE, GET):
        assert (await caller.send("POST", path, headers=headers, data=body)).status == 400


async def test_an_unknown_charset_is_refused(caller: Caller) -> None:
    headers = {
        "Authorization": f"Bearer {await caller.token()}",
        "Content-Type": "application/json; charset=none-such",
    }
    for path in (CREATE, GET, "/_emulator/faults", "/_emulator/rotate"):
        assert (await caller.send("POST", path, headers=headers, data=b"{}")).status == 400


async def test_an_unknown_application_is_not_found_and_a_missing_id_is_wrong(caller: Caller) -> None:
    token = await caller.token()
    unknown = {"applicationId": "bits:application::8abe317f-6d54-4949-8ecd-245efb4fa05d"}
    assert (await caller.call(GET, token, unknown)).status == 404
    assert (await caller.call(GET, token, {})).status == 400


# Faults


async def test_the_lifetime_of_tokens_is_set_at_start_and_while_running() -> None:
    async with serving(token_lifetime=4) as caller:
        answer = await caller.ask_token()
        assert answer.members["expires_in"] == 4
        caller.clock.advance(4)
        assert (await caller.call(USERINFO, answer.members["access_token"])).status == 401
        await caller.control("faults", token_lifetime=9)
        assert (await caller.ask_token()).members["expires_in"] == 9


@pytest.mark.parametrize(("status", "retry_after"), [(400, None), (429, "7"), (500, None), (503, "7")])
async def test_a_failing_token_endpoint_fails_until_told_otherwise(
    caller: Caller, status: int, retry_after: str | None
) -> None:
    await caller.control("faults", token_mode="fail", token_status=status, retry_after=7)
    answer = await caller.ask_token()
    assert (answer.status, answer.headers.get("Retry-After")) == (status, retry_after)
    await caller.control("faults", token_mode="ok")
    assert (await caller.ask_token()).status == 200


async def test_a_hanging_token_endpoint_answers_nobody_and_does_not_hold_up_the_end() -> None:
    async with serving() as caller:
        await caller.control("faults", token_mode="hang")
        hanging = asyncio.ensure_future(caller.session.post(TOKEN, headers=basic()))
        while (await caller.state())["counters"].get("token_requests") != 1:
            pass
        assert (await asyncio.wait({hanging}, timeout=0.1))[0] == set()
        # Far less than the minute that aiohttp's server waits for handlers.
        async with asyncio.timeout(30):
            await caller.emulator.close()
            with contextlib.suppress(aiohttp.ClientError):
                (await hanging).release()


async def test_a_slow_token_endpoint_and_latency_delay_what_they_name() -> None:
    loop = asyncio.get_running_loop()
    async with serving(token_delay=0.1, latency=0.2) as caller:
        begun = loop.time()
        token = await caller.token()
        given = loop.time()
        assert (await caller.call(USERINFO, token)).status == 200
        assert given - begun >= 0.09
        assert loop.time() - given >= 0.19


async def test_the_api_learns_of_a_token_late(caller: Caller) -> None:
    known = await caller.token()
    await caller.control("faults", token_lag=5)
    late = await caller.token()
    assert (await caller.call(USERINFO, late)).status == 401
    assert (await caller.call(USERINFO, known)).status == 200
    caller.clock.advance(5)
    assert (await caller.call(USERINFO, late)).status == 200


async def test_tokens_die_before_their_lifetime_is_over(caller: Caller) -> None:
    living = await caller.token()
    await caller.control("faults", token_death=5)
    answer = await caller.ask_token()
    assert answer.members["expires_in"] == 3600
    dying = answer.members["access_token"]
    assert (await caller.call(USERINFO, dying)).status == 200
    caller.clock.advance(5)
    assert (await caller.call(USERINFO, dying)).status == 401
    assert (await caller.call(USERINFO, living)).status == 200


async def test_one_operation_refuses_every_token_and_takes_no_other_fault(caller: Caller) -> None:
    token = await caller.token()
    await caller.control("faults", always_401="userinfo", next_500=1)
    assert [(await caller.call(USERINFO, token)).status for _ in range(3)] == [401] * 3
    assert (await caller.call(CREATE, token, APPLICATION)).status == 500
    await caller.control("faults", always_401="")
    assert (await caller.call(USERINFO, token)).status == 200


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_the_next_calls_fail_as_often_as_asked_and_no_more(caller: Caller, status: int) -> None:
    token = await caller.token()
    await caller.control("faults", **{f"next_{status}": 2, "retry_after": 3})
    answers = [await caller.call(USERINFO, token) for _ in range(3)]
    assert [answer.status for answer in answers] == [status, status, 200]
    assert answers[0].headers.get("Retry-After") == ("3" if status == 429 else None)


async def test_a_cut_connection_ends_without_a_byte_of_an_answer(caller: Caller) -> None:
    token = await caller.token()
    await caller.control("faults", next_cut=1)
    with pytest.raises((aiohttp.ServerDisconnectedError, ConnectionResetError)):
        await caller.call(CREATE, token, APPLICATION)
    assert (await caller.call(CREATE, token, APPLICATION)).status == 200


async def test_faults_of_calls_spare_the_token_endpoint_and_the_controls(caller: Caller) -> None:
    await caller.control("faults", next_500=1)
    assert (await caller.ask_token()).status == 200
    assert (await caller.state())["faults"]["next_500"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such_fault", 1),
        ("token_mode", "odd"),
        ("token_status", 200),
        ("token_status", 500.0),
        ("token_lifetime", 0),
        ("token_lifetime", float("nan")),
        ("token_delay", -1),
        ("token_lag", "1"),
        ("token_death", -1),
        ("always_401", 1),
        ("latency", "1"),
        ("next_401", True),
        ("next_cut", 1.5),
        ("retry_after", None),
    ],
)
async def test_a_wrong_fault_is_named_and_nothing_is_changed(caller: Caller, name: str, value: Any) -> None:
    before = await caller.state()
    answer = await caller.send("POST", "/_emulator/faults", json={"next_429": 5, name: value})
    assert answer.status == 400
    assert name in answer.members["error"]
    assert await caller.state() == before


# Controls


async def test_the_state_counts_requests_by_operation_and_reset_sets_back() -> None:
    async with serving(latency=0.001) as caller:
        token = await caller.token()
        await caller.ask_token({})
        await caller.call(CREATE, token, APPLICATION)
        await caller.call(USERINFO, "wrong")
        await caller.control("faults", next_401=1)
        state = await caller.state()
        assert state["counters"] == {
            "token_requests": 2,
            "tokens_issued": 1,
            "applications.create": 1,
            "userinfo": 1,
            "userinfo 401": 1,
        }
        assert (state["faults"]["next_401"], state["faults"]["latency"]) == (1, 0.001)
        faults = (await caller.control("reset"))["faults"]
        assert (faults["next_401"], faults["latency"]) == (0, 0.001)
        assert (await caller.state())["counters"] == {"tokens_issued": 0}


async def test_a_rotated_secret_replaces_the_old_one_and_spares_tokens(caller: Caller) -> None:
    token = await caller.token()
    assert await caller.control("rotate", client_secret="new") == {"client_secret": "new"}
    assert (await caller.ask_token()).status == 401
    assert (await caller.ask_token(basic(client_secret="new"))).status == 200
    made = (await caller.send("POST", "/_emulator/rotate")).members["client_secret"]
    assert len(made) >= 16
    assert (await caller.ask_token(basic(client_secret=made))).status == 200
    assert (await caller.call(USERINFO, token)).status == 200


@pytest.mark.parametrize("secret", ["", 7, [], "\ud800", "a\n"])
async def test_a_secret_that_is_no_text_is_refused_and_the_old_one_stays(caller: Caller, secret: Any) -> None:
    answer = await caller.send("POST", "/_emulator/rotate", json={"client_secret": secret})
    assert answer.status == 400
    assert "client_secret" in answer.members["error"]
    assert (await caller.ask_token()).status == 200


async def test_neither_state_nor_repr_shows_a_secret_or_a_token(caller: Caller) -> None:
    token = await caller.token()
    session = (await caller.call(CREATE, token, APPLICATION)).members["sessionToken"]
    shown = json.dumps(await caller.state(), ensure_ascii=False) + repr(caller.emulator)
    shown += repr(caller.emulator.app)
    for hidden in (token, session, CLIENT_SECRET):
        assert hidden not in shown


# Who may reach what


@pytest.mark.parametrize("what", ["state", "faults", "revoke", "rotate", "reset"])
async def test_the_controls_answer_no_peer_but_loopback_ones(
    caller: Caller, what: str, tmp_path: Path
) -> None:
    token = await caller.token()
    runner = web.AppRunner(caller.emulator.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    path = str(tmp_path / "emulator.sock")  # a peer without an address, everywhere to be had
    try:
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(
            "http://localhost", connector=aiohttp.UnixConnector(path)
        ) as session:
            peer = Caller(session, caller.emulator, caller.clock)
            method = "GET" if what == "state" else "POST"
            assert (await peer.send(method, f"/_emulator/{what}")).status == 403
            assert (await peer.call(USERINFO, token)).status == 200
    finally:
        await runner.cleanup()
    assert (await caller.ask_token()).status == 200


async def test_the_controls_answer_nothing_that_came_through_a_proxy(caller: Caller) -> None:
    token = await caller.token()
    answer = await caller.send("POST", "/_emulator/revoke", headers={"Via": "1.1 proxy"})
    assert answer.status == 403
    assert (await caller.call(USERINFO, token)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_web_pages_of_others_get_nothing(caller: Caller, headers: dict[str, str]) -> None:
    token = await caller.token()
    assert (await caller.send("POST", "/_emulator/revoke", headers=headers)).status == 403
    assert (await caller.send("POST", TOKEN, headers={**basic(), **headers})).status == 403
    assert (await caller.call(USERINFO, token)).status == 200


async def test_the_emulators_own_origin_and_requests_typed_by_hand_are_served(caller: Caller) -> None:
    origin = str(caller.session._base_url).rstrip("/")
    for headers in ({"Origin": origin, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert (await caller.send("GET", "/_emulator/state", headers=headers)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "localhost.evil",
        "::1",
        "localhost:x",
        "localhost:99999",
    ],
)
async def test_a_host_that_is_no_loopback_name_is_misdirected(caller: Caller, host: str) -> None:
    for method, path in (("POST", "/_emulator/revoke"), ("GET", USERINFO)):
        assert (await caller.send(method, path, headers={"Host": host})).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.8.9.1:1", "[::1]:80"])
async def test_every_loopback_name_is_served(caller: Caller, host: str) -> None:
    assert (await caller.send("GET", "/_emulator/state", headers={"Host": host})).status == 200


async def test_on_all_addresses_any_host_reaches_the_api_and_still_none_the_controls() -> None:
    async with serving(address="0.0.0.0") as caller:  # noqa: S104 - that is what is tested
        headers = {"Host": "emulator.example"}
        assert (await caller.send("POST", TOKEN, headers=headers)).status == 401
        assert (await caller.send("GET", "/_emulator/state", headers=headers)).status == 421


async def test_connections_that_are_held_open_keep_no_call_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    async with serving() as caller:
        where = urlsplit(str(caller.session._base_url))
        held = [await asyncio.open_connection(where.hostname, where.port) for _ in range(8)]
        assert await caller.token()
        for _, writer in held:
            writer.transport.abort()
