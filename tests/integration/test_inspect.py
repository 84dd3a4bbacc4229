"""BITS_INSPECT through the real sidecar: what is shown, what is masked, and that it is off by default."""

import gzip
import json
from typing import Any

import aiohttp
import pytest

from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.settings.loading import SettingsError, load
from bits_auth_proxy.telemetry.inspection import Inspection
from tests.support.bench import Bench, set_up
from tests.support.commands import CLIENT_SECRET
from tests.support.recorder import TOKEN

CANARY = "Canary-7f3a"
PERSON = {"firstName": CANARY, "personal_number": CANARY, "documents": [{"image": CANARY}]}


def post(body: bytes, *fields: str, target: str = "/v1/applications.create") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def page(bench: Bench, path: str) -> Any:
    origin = f"http://{bench.sidecar.admin_addresses[0]}"
    async with aiohttp.ClientSession(origin) as session, session.get(path) as found:
        assert found.status == 200
        return await found.json()


async def inspected(bench: Bench) -> list[Any]:
    """Return what is kept of the exchanges, the newest first."""
    told = await page(bench, "/activity")
    assert told["inspecting"] is True
    return [await page(bench, f"/inspected/{each['id']}") for each in told["exchanges"]]


async def test_request_and_response_are_shown_masked() -> None:
    async with set_up(BITS_INSPECT="true") as bench, bench.connect() as client:
        told = {"id": "bits:application::1", "sessionToken": CANARY, "echo": f"Bearer {TOKEN}", **PERSON}
        plain = answer(json.dumps(told).encode(), f"Set-Cookie: a={CANARY}", "X-Plain: yes")
        bench.upstream.script = [(plain,)]
        body = json.dumps({"workflowId": "w-1", "customer": PERSON}).encode()
        target = f"/v1/applications.create?token={CANARY}&a=1"
        await client.send(post(body, f"Authorization: Bearer {CANARY}", target=target))
        assert json.loads((await client.answer()).body) == told
        (kept,) = await inspected(bench)
        log = bench.log.getvalue()
    assert kept["request"]["start"] == "POST /v1/applications.create?token=[masked]&a=1 HTTP/1.1"
    assert kept["response"]["start"] == "HTTP/1.1 200 OK"
    assert ["X-Plain", "yes"] in kept["response"]["fields"]
    assert json.loads(kept["request"]["body"])["workflowId"] == "w-1"
    response = json.loads(kept["response"]["body"])
    assert (response["id"], response["sessionToken"]) == ("bits:application::1", "[masked]")
    # It passed, and nothing of it stayed.
    assert CANARY.encode() in bench.upstream.requests[0][1]
    stored = json.dumps(bench.sidecar._inspection._kept)  # type: ignore[union-attr]  # it is on
    for secret in (CANARY, TOKEN, CLIENT_SECRET):
        assert secret not in stored + log
    assert '"event": "inspecting"' in log


async def test_of_a_request_sent_again_the_last_answer_is_shown() -> None:
    async with set_up(BITS_INSPECT="true") as bench, bench.connect() as client:
        bench.upstream.script = [
            (answer(b'{"try":1}', status="401 Unauthorized"),),
            (answer(gzip.compress(b'{"try":2}'), "Content-Encoding: gzip"),),
        ]
        await client.send(post(b'{"a":1}'))
        assert (await client.answer()).status == 200
        (kept,) = await inspected(bench)
    assert json.loads(kept["request"]["body"]) == {"a": 1}
    assert kept["response"]["start"] == "HTTP/1.1 200 OK"
    assert json.loads(kept["response"]["body"]) == {"try": 2}


async def test_large_bodies_pass_whole_and_are_not_shown() -> None:
    async with set_up(BITS_INSPECT="true") as bench, bench.connect() as client:
        large = json.dumps({"note": CANARY, "more": "x" * 200_000}).encode()
        bench.upstream.script = [(answer(large, "Content-Type: application/json"),)]
        await client.send(post(large, "Content-Type: application/json"))
        assert (await client.answer()).body == large
        (kept,) = await inspected(bench)
    assert bench.upstream.requests[0][1] == large
    told = f"({len(large)} bytes, application/json: not shown)"
    assert (kept["request"]["body"], kept["response"]["body"]) == (told, told)


async def test_no_answer_is_told_as_none() -> None:
    async with set_up(BITS_INSPECT="true") as bench, bench.connect() as client:
        bench.upstream.script = [(b"",)]  # cut
        await client.send(post(b"{}"))
        assert (await client.answer()).status == 502
        (kept,) = await inspected(bench)
    assert kept["response"] is None


async def test_a_fault_of_inspection_is_logged_and_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Inspection, "keep", fail)
    async with set_up(BITS_INSPECT="true") as bench, bench.connect() as client:
        for _ in range(2):
            await client.send(post(b"{}"))
            assert (await client.answer()).status == 200
        assert "a bug" in bench.log.getvalue()


async def test_without_it_exchanges_are_the_plain_ones(bench: Bench) -> None:
    assert bench.sidecar._inspection is None
    assert bench.sidecar._gateway._make_exchange is Exchange


@pytest.mark.parametrize("variable", ["BITS_LISTEN", "BITS_ADMIN_LISTEN"])
def test_it_is_refused_where_others_can_reach_it(variable: str) -> None:
    def try_with(addresses: str, *, inspect: str = "true") -> None:
        environ = {"BITS_INSPECT": inspect, variable: addresses}
        load(environ=environ, env_file=None, credentials_required=False)

    try_with("127.0.0.1:1,unix:/run/x,[::1]:1")
    try_with("0.0.0.0:1", inspect="false")
    with pytest.raises(SettingsError) as caught:
        try_with("127.0.0.1:1,0.0.0.0:1")
    (fault,) = caught.value.faults
    assert fault.startswith(
        f"{variable}: use loopback: BITS_INSPECT=true keeps requests, and others can reach 0.0.0.0:1"
    )
