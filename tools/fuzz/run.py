"""One run of the fuzzer: the servers, the clients, and the checks of what they received."""

import asyncio
import contextlib
import gc
import io
import itertools
import os
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bits_auth_proxy.settings.addresses import TcpAddress
from bits_auth_proxy.sidecar import Sidecar
from tests.support.leftovers import is_idle, leftovers, open_descriptors
from tests.support.pki import Pki
from tests.support.recorder import TOKEN, recording
from tests.support.stand import sidecar_for
from tests.support.waiting import HANGS
from tools.fuzz.answers import fault_in
from tools.fuzz.api import Api
from tools.fuzz.cases import MARK, Case, Leaving, make_case
from tools.fuzz.client import Client
from tools.fuzz.collisions import Collisions

CLIENTS: Final = 24
QUIET: Final = 0.03
"""Seconds without a byte after which a client leaves. On a slow machine it misses some responses."""
STAYS: Final = 4.0
"""Seconds that those few clients stay which wait for the proxy's own deadlines."""
GROWTH: Final = 24 * 2**20
"""Bytes by which the process, including the fuzzer, may grow after the warm-up."""
_ENV: Final = {
    # The API that judges the requests expects the proxy's token in each of them.
    "BITS_CLIENT_AUTHORIZATION": "replace",
    "BITS_LIMITS__HEAD_TIMEOUT": "1",
    "BITS_UPSTREAM__RESPONSE_TIMEOUT": "2",
    "BITS_UPSTREAM__IDLE_STREAM_TIMEOUT": "2",
    "BITS_ACCESS_LOG": "off",
}
_CRASHED: Final = '"internal_error"'
_STALL: Final = 0.5
"""If the machine stops the process for longer, in seconds, deadlines may be missed because of that."""


class Run:
    """Runs cases; keeps the findings and counts what was tried."""

    def __init__(self, *, seed: int, failures: Path, secure: bool) -> None:
        self._seed = seed
        self._secure = secure
        self._failures = failures
        self._cases: dict[bytes, Case] = {}
        self._collisions = Collisions()
        self._log = io.StringIO()
        self._context: ssl.SSLContext | None = None
        self.findings: list[str] = []
        self._outcomes: Counter[str] = Counter()
        self._growth = 0.0
        self._requests = 0
        self._seconds = 0.0
        self._stalled = 0.0
        """When the machine last stopped this process, on the event loop's clock."""

    async def run(self, *, seconds: float, only: Sequence[int] | None) -> None:
        """Try cases for `seconds`, or only the cases with the numbers in `only`."""
        began = time.monotonic()
        async with self._stand() as (sidecar, address), self._watching():
            before = open_descriptors()
            warm = 0.0
            if only is None:
                numbers = itertools.count()
                await self._all(_until(began + seconds / 4, numbers), address)
                gc.collect()
                warm = _resident()
                await self._all(_until(began + seconds, numbers), address)
            else:
                await self._all(iter(only), address)
            await self._settle(sidecar, before)
            gc.collect()
            self._growth = _resident() - (warm or _resident())
            if self._growth > GROWTH:
                self._find(f"memory grew by {self._growth / 2**20:.1f} MiB")
            await self._normal(address)
        if self._outcomes["good and lost"] > max(5, sum(self._outcomes.values()) / 200):
            self._find(f"{self._outcomes['good and lost']} good requests failed")
        self._seconds = time.monotonic() - began

    def summary(self) -> str:
        total = sum(self._outcomes.values())
        outcomes = ", ".join(f"{count} {name}" for name, count in self._outcomes.most_common())
        lines = [
            f"{total} cases in {self._seconds:.0f} s: {outcomes}",
            f"{self._requests} requests reached the API",
            f"{self._collisions.acts} times a client and the API acted at once",
            f"memory grew by {self._growth / 2**20:.1f} MiB",
        ]
        return "\n".join([*lines, *(f"FOUND: {finding}" for finding in self.findings)])

    @contextlib.asynccontextmanager
    async def _stand(self) -> AsyncIterator[tuple[Sidecar, TcpAddress]]:
        api = Api(self._cases, self._report, self._collisions)
        try:
            async with recording() as tokens, self._secrets(api) as (origin, more):
                # Short, so that after a 401 there often is another token to retry with.
                tokens.lifetime = 2
                token_url = f"http://{tokens.authority}/v1/oauth2/token"
                env = {**_ENV, **more, "BITS_TOKEN_URL": token_url}
                async with sidecar_for(origin, self._log, **env) as sidecar:
                    address = sidecar.addresses[0]
                    assert isinstance(address, TcpAddress)
                    self._collisions.is_idle = partial(is_idle, sidecar)
                    await self._normal(address)
                    yield sidecar, address
        finally:
            await api.close()
            self._requests = api.requests

    @contextlib.asynccontextmanager
    async def _secrets(self, api: Api) -> AsyncIterator[tuple[str, dict[str, str]]]:
        """Start `api`; yield its origin, and the settings for TLS on both sides if TLS is wanted."""
        if not self._secure:
            yield f"http://127.0.0.1:{await api.start(None)}", {}
            return
        with tempfile.TemporaryDirectory() as directory:
            pki = Pki(Path(directory))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            pki.authority.issue_cert("localhost").configure_cert(context)
            self._context = pki.client()
            settings = {**pki.settings, "BITS_UPSTREAM__CA_FILE": str(pki.ca_file)}
            yield f"https://localhost:{await api.start(context)}", settings

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        """Note when the machine stops this process for a while."""
        loop = asyncio.get_running_loop()

        async def watch() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.1)
                if loop.time() - before > _STALL:
                    self._stalled = loop.time()

        watching = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            watching.cancel()

    # Clients.

    async def _all(self, numbers: Iterator[int], address: TcpAddress) -> None:
        async def work() -> None:
            for number in numbers:
                case = make_case(self._seed, number)
                self._cases[case.digits] = case
                try:
                    await self._try(case, address)
                finally:
                    # Bytes of the case may still be on their way. Forget it only after a while.
                    asyncio.get_running_loop().call_later(STAYS, self._cases.pop, case.digits, None)
                self._look_for_crashes()
                if len(self.findings) >= 5:
                    return

        await asyncio.gather(*(work() for _ in range(CLIENTS)))

    async def _try(self, case: Case, address: TcpAddress) -> None:
        received = b""
        began = asyncio.get_running_loop().time()
        client = await Client.connect(address, self._context)
        quiet = STAYS if case.client_leaves is Leaving.STAY or case.good else QUIET
        try:
            for number, piece in enumerate(case.request, start=1):
                if number == len(case.request):
                    self._end_with_answer(case, client)
                self._collisions.send(case, partial(client.send, piece))
                await asyncio.sleep(0)
            if case.client_leaves is Leaving.HALF and case.api_first is None:
                client.end_half()
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(quiet):
                        piece = await client.read()
                    received += piece
                    if not piece or (case.good and received.endswith(b"A" + case.digits)):
                        break
        except (
            ConnectionError,
            RuntimeError,
            ssl.SSLError,
        ):  # uvloop raises RuntimeError for a write to a closed transport.
            self._outcomes["reset"] += 1
        finally:
            answered = self._collisions.forget(case)
            await client.close(reset=case.client_leaves is Leaving.RST)
        # Give the watching task a turn.
        await asyncio.sleep(0)
        self._judge(case, received, stalled=self._stalled >= began, answered=answered)

    def _end_with_answer(self, case: Case, client: Client) -> None:
        """Let the client end its half of the connection, or all of it, when the API responds."""
        if case.api_first is None:
            return
        if case.client_leaves is Leaving.HALF:
            self._collisions.end_with_answer(case, client.end_half)
        elif case.client_leaves is Leaving.RST and not case.good:
            self._collisions.end_with_answer(case, client.abort)

    def _judge(self, case: Case, received: bytes, *, stalled: bool, answered: bool) -> None:
        self._outcomes[received[9:12].decode("latin-1") if received else "no answer"] += 1
        if TOKEN.encode() in received:
            self._find("the token reached a client", case, received)
        for mark in MARK.findall(received):
            other = self._cases.get(mark[1:])
            if other is not None and other is not case:
                self._find(f"bytes of case {other.number} reached another client", case, received)
        # Once the bytes of requests are shuffled, it is unknown which responses are responses to HEAD.
        if b"HEAD" not in b"".join(case.request) and (fault := fault_in(received)):
            self._find(fault, case, received)
        if not case.good:
            return
        if b'"connection_lost"' in received and not answered:
            # The API may be closing the connection of a POST, or both that the proxy tries for a GET.
            self._outcomes["good and lost" if case.request[0].startswith(b"G") else "POST and lost"] += 1
        elif not (received.startswith(case.answer[:13]) and received.endswith(b"A" + case.digits)):
            if stalled:
                self._outcomes["good and held up"] += 1
                return
            self._find("a good request got a wrong response", case, received)

    async def _normal(self, address: TcpAddress) -> None:
        """Check that a single request gets its response."""
        client = await Client.connect(address, self._context)
        client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        async with asyncio.timeout(HANGS):
            while piece := await client.read():
                answer += piece
        if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok")):
            self._find(f"a normal request: {answer!r}")
        await client.close()

    # What is left over.

    async def _settle(self, sidecar: Sidecar, descriptors: int) -> None:
        """Wait until nothing of the cases is left. The proxy's own deadlines must lead to that."""
        end = time.monotonic() + HANGS
        # There is no event to wait for.
        while any(leftovers(sidecar, descriptors).values()) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for what, count in leftovers(sidecar, descriptors).items():
            if count:
                self._find(f"{count} {what} left")

    # Findings.

    def _look_for_crashes(self) -> None:
        log = self._log.getvalue()
        if _CRASHED in log:
            self._find("an exception escaped; the cases in flight are written to files", written=log)
            for case in list(self._cases.values()):
                self._write(case, b"")
        if log:
            self._log.seek(0)
            self._log.truncate()

    def _report(self, what: str, seen: bytes) -> None:
        marks = [self._cases.get(mark[1:]) for mark in MARK.findall(seen)]
        self._find(what, next((case for case in marks if case is not None), None), seen)

    def _find(self, what: str, case: Case | None = None, seen: bytes = b"", *, written: str = "") -> None:
        where = ""
        if case is not None:
            where = f" (again: --seed {self._seed} --case {case.number}; bytes: {self._write(case, seen)})"
        if written:
            self._failures.mkdir(exist_ok=True)
            path = self._failures / f"{self._seed}.log"
            path.write_text(written)
            where = f" ({path})"
        self.findings.append(what + where)
        print(f"FOUND: {what}{where}", flush=True)

    def _write(self, case: Case, seen: bytes) -> Path:
        self._failures.mkdir(exist_ok=True)
        path = self._failures / f"{self._seed}-{case.number}"
        parts = {"request": b"".join(case.request), "answer": case.answer, "seen": seen}
        for name, data in parts.items():
            path.with_suffix("." + name).write_bytes(data)
        return path


def _until(end: float, numbers: Iterator[int]) -> Iterator[int]:
    while time.monotonic() < end:
        yield next(numbers)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
