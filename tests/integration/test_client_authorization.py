"""What happens to the Authorization field of a client, which may be a session token of one application."""

import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.bench import Bench, set_up
from tests.support.recorder import TOKEN, recording
from tests.support.stand import APPLICATION, CREATE, sidecar_for, standing

OURS = b"Bearer " + TOKEN.encode()
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
GET_APPLICATION = "/v1/applications.get"
METRIC = "bits_proxy_client_authorization_total"


async def call(bench: Bench, fields: bytes) -> int:
    """Send a request with these fields; return the status."""
    async with bench.connect() as client:
        await client.send(
            b"POST /v1/applications.get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            + fields
            + b"\r\nabc"
        )
        return (await client.answer()).status


def credentials_of(head: bytes) -> list[bytes]:
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return [value.strip() for name, _, value in lines if name.lower() == b"authorization"]


def counted(bench: Bench, handling: str) -> float:
    start = f'{METRIC}{{handling="{handling}"}} '
    (sample,) = [line for line in bench.metrics().splitlines() if line.startswith(start)]
    return float(sample.removeprefix(start))


def events(bench: Bench, name: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, bench.log.getvalue().splitlines()) if line["event"] == name]


async def create(client: aiohttp.ClientSession) -> tuple[str, dict[str, str]]:
    """Create an application; return its id, and the field with its session token."""
    async with client.post(CREATE, json=APPLICATION) as answer:
        created = await answer.json()
    return created["id"], {"Authorization": f"Bearer {created['sessionToken']}"}


async def test_a_session_token_reads_its_own_application_alone() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as client:
        first, session = await create(client)
        second, _ = await create(client)
        for application, status in ((first, 200), (second, 403)):
            body = {"applicationId": application}
            async with client.post(GET_APPLICATION, json=body, headers=session) as answer:
                assert answer.status == status
        async with client.post(CREATE, json=APPLICATION, headers=session) as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    "forged", ["Bearer forged", "Basic Zm9yZ2VkOmZvcmdlZA==", "Bearer", "Negotiate YII=", "x", ""]
)
async def test_no_forged_credential_is_made_good(forged: str) -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as client:
        headers = {"Authorization": forged}
        async with client.post(CREATE, json=APPLICATION, headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        (b"Authorization: Bearer mine\r\n", b"Bearer mine"),
        (b"aUTHORIZATION:   Bearer   mine \t\r\n", b"Bearer   mine"),
        (b'Authorization: Digest username="a", realm="b"\r\n', b'Digest username="a", realm="b"'),
        (b"Authorization: Bearer a, Bearer b\r\n", b"Bearer a, Bearer b"),
        (b"Authorization: AWS4-HMAC-SHA256 x\r\n", b"AWS4-HMAC-SHA256 x"),
        (b"Authorization: \xff\xfe\r\n", b"\xff\xfe"),
        # An application whose variable is empty must not get the organisation's token instead.
        (b"Authorization:\r\n", b""),
        (b"Authorization: Bearer\r\n", b"Bearer"),
        # It is for the proxy alone, so it says nothing about the API.
        (b"Proxy-Authorization: Basic eA==\r\n", OURS),
        (b"X-Authorization: Bearer mine\r\n", OURS),
        (b"Connection: Authorization\r\n", OURS),
        (b"", OURS),
    ],
)
async def test_by_default_the_api_gets_the_clients_field_byte_for_byte(field: bytes, sent: bytes) -> None:
    async with set_up() as bench:
        assert await call(bench, field) == 200
        assert credentials_of(bench.upstream.requests[-1][0]) == [sent]
        assert counted(bench, "kept") == (sent != OURS)
        assert counted(bench, "replaced") == counted(bench, "rejected") == 0


@pytest.mark.parametrize("mode", ["keep", "replace", "reject"])
@pytest.mark.parametrize(
    "fields",
    [
        b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        b"Authorization: Bearer a\r\nauthorization: Bearer a\r\n",
        b"Authorization:\r\nAuthorization: Bearer a\r\n",
    ],
)
async def test_repeated_fields_are_rejected_because_two_readers_could_take_different_ones(
    mode: str, fields: bytes
) -> None:
    async with set_up(BITS_CLIENT_AUTHORIZATION=mode) as bench:
        assert await call(bench, fields) == 400
        assert bench.upstream.requests == []


@pytest.mark.parametrize("connection", [b"authorization", b"close, AUTHORIZATION", b"x-a,Authorization ,x-b"])
async def test_a_kept_field_that_connection_names_is_rejected(connection: bytes) -> None:
    async with set_up() as bench:
        fields = b"Authorization: Bearer mine\r\nConnection: %b\r\n" % connection
        assert await call(bench, fields) == 400
        assert bench.upstream.requests == []
        assert counted(bench, "rejected") == 1


async def test_replace_sends_our_token_and_says_so() -> None:
    async with set_up(BITS_CLIENT_AUTHORIZATION="replace") as bench:
        for fields in (
            b"Authorization: Bearer mine\r\nX-Request-ID: mine-1\r\n",
            b"Authorization: Bearer mine\r\nConnection: authorization\r\n",
            b"Authorization:\r\n",
        ):
            assert await call(bench, fields) == 200
            assert credentials_of(bench.upstream.requests[-1][0]) == [OURS]
        assert counted(bench, "replaced") == 3
        assert counted(bench, "kept") == 0
        first, *_ = events(bench, "client_authorization_replaced")
        assert first["request_id"] == "mine-1"
        assert first["operation"] == "applications.get"
        assert "mine" not in bench.log.getvalue().replace("mine-1", "")


async def test_reject_answers_400_and_says_so() -> None:
    async with set_up(BITS_CLIENT_AUTHORIZATION="reject") as bench:
        assert await call(bench, b"Authorization: Bearer mine\r\n") == 400
        assert await call(bench, b"Authorization:\r\n") == 400
        assert bench.upstream.requests == []
        assert await call(bench, b"") == 200
        assert counted(bench, "rejected") == 2
        assert [event["reason"] for event in events(bench, "request_rejected")] == ["own_credentials"] * 2


async def test_a_401_to_a_kept_credential_gets_a_hint_but_costs_our_token_nothing() -> None:
    async with set_up() as bench:
        bench.upstream.script = [(UNAUTHORIZED,)]
        for _ in range(50):
            assert await call(bench, b"Authorization: Bearer mine\r\n") == 401
        assert bench.upstream.tokens == 1
        hints = events(bench, "client_authorization_unauthorized")
        assert 0 < len(hints) <= 5
        assert "bits_proxy_client_authorization_unauthorized_total 50.0" in bench.metrics()
        assert bench.sidecar.activity()["totals"]["client_authorization_unauthorized"] == 50


async def test_a_401_to_our_own_token_gets_no_such_hint() -> None:
    async with set_up() as bench:
        bench.upstream.same_token = True
        bench.upstream.script = [(UNAUTHORIZED,)]
        assert await call(bench, b"") == 401
        assert events(bench, "client_authorization_unauthorized") == []


async def test_a_kept_credential_is_forwarded_while_the_proxy_has_no_token(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        # An empty directory: the proxy waits for its credentials.
        sidecar_for(
            f"http://{upstream.authority}", io.StringIO(), BITS_CREDENTIALS_DIR=str(tmp_path)
        ) as sidecar,
        aiohttp.ClientSession(f"http://{sidecar.addresses[0]}") as client,
    ):
        async with client.post(CREATE, headers={"Authorization": "Bearer mine"}) as answer:
            assert answer.status == 200
        async with client.post(CREATE) as answer:
            assert answer.status == 503
        assert [credentials_of(head) for head, _ in upstream.requests] == [[b"Bearer mine"]]
