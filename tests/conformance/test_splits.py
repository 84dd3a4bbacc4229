"""How bytes are cut into reads makes no difference: not to a request nor to an answer, through the whole proxy."""

import asyncio
import contextlib
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest

from bits_auth_proxy.http1.bodies import ChunkedReader
from tests.conformance.test_refusals import REFUSED
from tests.conformance.test_requests import FORWARDED
from tests.support.bench import Bench, set_up
from tests.support.rawclient import RawClient
from tests.support.recorder import let_it_be_read
from tests.support.waiting import at_rest
from tests.system.differential.cases import ANSWERS, CASES, MORE_ANSWERS, request

REQUESTS = sorted(
    {row[2] for row in REFUSED + FORWARDED} | {case.request for case in CASES},
    key=lambda request: (len(request), request),
)
SHORT = [request for request in REQUESTS if len(request) < 6000]
WHOLE_ANSWERS = {
    name: b"".join(pieces)
    for name, (pieces, closes) in {**ANSWERS, **MORE_ANSWERS}.items()
    if pieces[-1]
    and not closes
    and len(b"".join(pieces)) < 6000
    and not ("401" in name or name.endswith(("ing in trailers", "Length in trailers")))
}
LAST = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_FRAMED = re.compile(rb"Transfer-Encoding: chunked|Content-Length: [1-9]")
_PROBLEM = re.compile(
    rb"HTTP/1\.1 [45][0-9]{2} [^\r]*\r\nContent-Type: application/problem.*?\r\n\r\n(\{[^}]*\})?", re.DOTALL
)
_MADE = re.compile(rb"[0-9a-f]{12}-[0-9a-f]{8}|bits-auth-proxy-[0-9a-f]{8}")


class Outcome(NamedTuple):
    """What both ends saw of a connection; what is made anew each time is left out."""

    received: bytes
    closed: bool
    requests: tuple[tuple[bytes, bytes], ...]


def cuts(rng: random.Random, data: bytes) -> list[bytes]:
    """`data` in pieces, of one byte each or of any size."""
    if len(data) < 300 and rng.random() < 0.3:
        return [data[i : i + 1] for i in range(len(data))]
    edges = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randint(1, 8))))
    return [data[a:b] for a, b in pairwise([0, *edges, len(data)])]


async def outcome(bench: Bench, pieces: Sequence[bytes]) -> Outcome:
    """Send `pieces`, each a read of its own."""
    before = len(bench.upstream.requests)
    async with bench.connect() as client:
        for piece in pieces:
            await client.send(piece)
            await let_it_be_read()
        received, closed = await all_of(client)
    seen = [(simple(head), body) for head, body in bench.upstream.requests[before:]]
    # How far one got that was refused in its body is a matter of reads; and chunks are made anew.
    requests = tuple(
        (head, content_of(head, body)) for head, body in seen if body or not _FRAMED.search(head)
    )
    return Outcome(simple(received), closed, requests)


def content_of(head: bytes, body: bytes) -> bytes:
    if b"Transfer-Encoding: chunked" not in head:
        return body
    reader = ChunkedReader(max_overhead=10_000, max_fields=10)
    return reader.feed(body)


async def all_of(client: RawClient) -> tuple[bytes, bool]:
    """Read to the end of the connection, which most ask for as LAST does, or until nothing more comes."""
    received = b""

    async def read() -> bool:
        nonlocal received
        with contextlib.suppress(ConnectionError):
            while piece := await client.some():
                received += piece
            return True
        return False

    reading, resting = asyncio.ensure_future(read()), asyncio.ensure_future(at_rest(lambda: len(received)))
    await asyncio.wait({reading, resting}, return_when=asyncio.FIRST_COMPLETED)
    closed = reading.done() and reading.result()
    for each in (reading, resting):
        each.cancel()
    await asyncio.gather(reading, resting, return_exceptions=True)
    return received, closed


def simple(data: bytes) -> bytes:
    data = data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    # Which of several faults is found first may depend on what had come.
    data = _PROBLEM.sub(b"refused", data)
    return _MADE.sub(lambda match: b"-" * len(match[0]), data)


@pytest.mark.parametrize("part", range(8))
async def test_of_a_request(bench: Bench, part: int) -> None:
    rng = random.Random(part)
    for each in SHORT[part::8]:
        ends = b"close" in each.lower() or b"HTTP/1.0" in each
        sent = each if ends else each + LAST
        whole = await outcome(bench, [sent])
        assert await outcome(bench, cuts(rng, sent)) == whole


async def answers(bench: Bench, sent: bytes, count: int = 1) -> list[tuple[int, bytes, bytes, bool]]:
    """The answers to `sent` without the framing of their bodies."""
    seen: list[tuple[int, bytes, bytes, bool]] = []
    async with bench.connect() as client:
        await client.send(sent)
        while len(seen) < count or seen[-1][0] < 200:
            answer = await client.answer(sent.split(b" ")[0])
            seen.append((answer.status, simple(answer.head), answer.body, answer.whole))
    return seen


async def test_of_an_answer() -> None:
    rng = random.Random(0)
    sent = request()
    async with set_up() as bench:
        bench.upstream.apart = True
        for name, answer in WHOLE_ANSWERS.items():
            bench.upstream.script = [(answer,)]
            whole = await answers(bench, sent)
            for _ in range(4):
                bench.upstream.script = [cuts(rng, answer)]
                assert await answers(bench, sent) == whole, name
