"""The Bits API emulator as its callers meet it: refusals, scopes, expiry, faults, controls, browsers."""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import aiohttp
import pytest

from proxy.emulator.server import Emulator
from tests.fakes.clock import FakeClock

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
            return Answer(answer.status, answer.headers, await answer.json())

    async def ask_token(self, headers: dict[str, str] | None = None, **form: str) -> Answer:
        form = {"grant_type": "client_credentials", **form}
        return await self.send("POST", TOKEN, data=form, headers=basic() if headers is None else headers)

    async def token(self, **form: str) -> str:
        value: str = (await self.ask_token(**form)).members["access_token"]
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
async def serving(**settings: float) -> AsyncIterator[Caller]:
    clock = FakeClock()
    emulator = Emulator(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, clock=clock, **settings)
    with socket.create_server(("127.0.0.1", 0)) as sock:
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
    for token in (None, "wrong"):
        answer = await caller.call(path, token, APPLICATION)
        assert (answer.status, answer.members["error"]) == (401, "invalid_token")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


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
    for path, members in ((GET, {"applicationId": other["id"]}), (CREATE, APPLICATION), (ORGANIZATION, {})):
        answer = await caller.call(path, session, members)
        assert (answer.status, answer.members["error"]) == (403, "insufficient_scope")
    caller.clock.advance(3600)
    assert (await caller.call(GET, session, {"applicationId": own["id"]})).status == 401


# What calls answer


async def test_the_owner_is_the_same_customer_every_time(caller: Caller) -> None:
    answers = [(await caller.call(USERINFO, await caller.token())).members for _ in range(2)]
    assert answers[0] == answers[1]
    assert list(answers[0]) == ["customerId"]
    pytest.importorskip  # noqa: B018
    assert answers[0]["customerId"].startswith("bits:customer::")
