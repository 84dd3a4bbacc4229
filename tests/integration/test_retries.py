"""What is sent again, counted where it arrives: the answer is cut behind each of its bytes, in both ways."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.support.bench import Bench, set_up
from tests.support.rawclient import Answer, reset_on_close
from tests.support.recorder import recording

HOST = b"Host: localhost\r\n"
CALLS = {
    "create": b"POST /v1/applications.create",
    "other": b"PATCH /v1/applications",
    "get": b"POST /v1/applications.get",
    "list": b"POST /v1/applications.list",
    "plain": b"GET /v1/x",
}
READS = ("get", "list", "plain")
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "refusal": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nhello",
}
WHOLE = ANSWERS["length"]


class Api:
    """Answers `mark`, a field's value, with the first `cut` bytes of `answer`, the first time it comes."""

    def __init__(self) -> None:
        self.answer = WHOLE
        self.cut = 0
        self.reset = False
        self.arrivals: Counter[bytes] = Counter()
        self.served_before: dict[bytes, int] = {}
        """How many requests the connection had had when the first of a mark came on it."""
        self._server: asyncio.Server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            served = 0
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                mark = head.partition(b"X-Mark: ")[2].partition(b"\r\n")[0]
                self.arrivals[mark] += 1
                self.served_before.setdefault(mark, served)
                served += 1
                if mark.startswith(b"warm") or self.arrivals[mark] > 1:
                    writer.write(WHOLE)
                    continue
                writer.write(self.answer[: self.cut])
                if self.reset:
                    reset_on_close(writer)
                break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def before(api: Api) -> AsyncIterator[Bench]:
    """The sidecar before `api`, without a warm connection; tokens come from elsewhere."""
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, recording() as tokens:
        env = {
            "BITS_API_URL": f"http://127.0.0.1:{port}",
            "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
            "BITS_UPSTREAM__WARM_CONNECTIONS": "0",
        }
        async with set_up(**env) as bench:
            yield bench


async def call(bench: Bench, line: bytes, mark: bytes) -> Answer | None:
    """Make a call of one's own connection; None: it was cut without an answer."""
    async with bench.connect() as client:
        await client.send(
            line + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nX-Mark: " + mark + b"\r\n\r\n{}"
        )
        try:
            answer = await client.answer()
            while answer.status < 200:
                answer = await client.answer()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return answer


async def settled(bench: Bench, *, idle: int) -> None:
    left = {"active": 0, "idle": idle, "connecting": 0}
    await bench.seen(lambda: bench.sidecar._pool.counts() == left)


@pytest.mark.parametrize("pooled", [False, True], ids=["fresh", "pooled"])
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_arrives_twice(answer: str, reset: bool, pooled: bool) -> None:
    api = Api()
    api.answer = ANSWERS[answer]
    api.reset = reset
    async with before(api) as bench:
        # Behind the head of a 401 another rule holds: then another token may mend it.
        end = api.answer.find(b"\r\n\r\n") + 3 if answer == "refusal" else len(api.answer)
        for api.cut in range(end + 1):
            for kind, line in CALLS.items():
                mark = b"%b-%d" % (kind.encode(), api.cut)
                if pooled:
                    await call(bench, CALLS["get"], b"warm-" + mark)
                    assert bench.sidecar._pool.counts()["idle"] == 1
                seen = await call(bench, line, mark)
                assert bool(api.served_before[mark]) == pooled
                again = pooled and kind in READS and api.cut == 0
                assert api.arrivals[mark] == 1 + again, mark
                whole = seen is not None and seen.status < 500 and seen.whole
                assert whole == (again or api.cut == len(api.answer))
                # The one that was cut is known to be gone before the next call is made.
                await settled(bench, idle=int(again))
