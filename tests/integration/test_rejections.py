"""A rejection is counted, noted and logged once, whether it comes before or after the request's admission."""

import json
import re

import pytest

from tests.support.bench import set_up
from tests.support.recorder import OK_ANSWER

HEAD = b"POST /v1/applications.create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
BEFORE = [
    (b"POST /v1//x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "ambiguous_path"),
    (b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n", "body_too_large"),
    (b"POST /v1/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "bad_host"),
]
AFTER = [
    ([HEAD + b"nonsense\r\n"], "bad_chunk"),
    ([HEAD, b"nonsense\r\n"], "bad_chunk"),
    ([HEAD + b"b\r\n12345678901\r\n0\r\n\r\n"], "body_too_large"),
    ([HEAD + b"5\r\n12345\r\n", b"6\r\n678901\r\n0\r\n\r\n"], "body_too_large"),
]


def counted(metrics: str, name: str) -> dict[str, float]:
    found = re.findall(rf'^bits_proxy_{name}_total{{[^}}]*"([a-z_]+)"}} ([0-9.]+)$', metrics, re.MULTILINE)
    assert found
    return {label: float(count) for label, count in found if float(count)}


@pytest.mark.parametrize(("sent", "code"), BEFORE, ids=[code for _, code in BEFORE])
async def test_before_admission_it_is_a_rejection_and_no_request(sent: bytes, code: str) -> None:
    async with set_up(BITS_MAX_BODY_BYTES="10") as bench:
        async with bench.connect() as client:
            await client.send(sent)
            assert json.loads((await client.answer()).body)["code"] == code
        metrics, activity = bench.metrics(), bench.sidecar.activity()
        assert counted(metrics, "rejected_requests") == {code: 1}
        assert counted(metrics, "request_problems") == {}
        assert "bits_proxy_requests_total{" not in metrics
        assert [each["reason"] for each in activity["rejections"]] == [code]
        assert activity["exchanges"] == []
        assert [line["event"] for line in map(json.loads, bench.log.getvalue().splitlines())][-1:] == [
            "request_rejected"
        ]
        assert bench.log.getvalue().count(code) == 1


@pytest.mark.parametrize(("sent", "code"), AFTER)
async def test_after_admission_it_is_the_end_of_one_request(sent: list[bytes], code: str) -> None:
    async with set_up(BITS_MAX_BODY_BYTES="10") as bench:
        bench.upstream.script = [(OK_ANSWER,)]
        async with bench.connect() as client:
            for piece in sent:
                await client.send(piece)
                if piece is not sent[-1]:
                    await bench.seen(lambda: bench.in_flight() == 1)
            assert json.loads((await client.answer()).body)["code"] == code
        metrics, activity = bench.metrics(), bench.sidecar.activity()
        assert counted(metrics, "rejected_requests") == {code: 1}
        assert counted(metrics, "request_problems") == {}
        assert re.findall(r"^bits_proxy_requests_total{.*} (\d)", metrics, re.MULTILINE) == ["1"]
        assert activity["rejections"] == []
        assert [each["problem"] for each in activity["exchanges"]] == [code]
        lines = [json.loads(line) for line in bench.log.getvalue().splitlines()]
        assert [line["event"] for line in lines if code in line.values()] == ["request"]


async def test_a_failure_after_admission_is_no_rejection() -> None:
    async with set_up() as bench:
        bench.upstream.script = [(b"HTTP/1.1 nonsense\r\n\r\n",)]
        async with bench.connect() as client:
            await client.send(HEAD + b"0\r\n\r\n")
            assert (await client.answer()).status == 502
        metrics = bench.metrics()
        assert counted(metrics, "request_problems") == {"bad_response": 1}
        assert counted(metrics, "rejected_requests") == {}
