"""An eventful run of a proxy: constant traffic, and one fault after the other."""

import asyncio
import contextlib
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import aiohttp

from bits_auth_proxy.auth.schedule import MIN_DELAY
from tests.support import evidence
from tests.support.commands import CLIENT_ID, CLIENT_SECRET, Command, command, proxy_env
from tests.support.stand import APPLICATION, CREATE, emulating
from tests.support.waiting import HANGS
from tests.system.monitoring.prometheus import Prometheus, scraping
from tests.system.monitoring.test_alerts import FILE as RULES

TOKEN_SHARE: Final = 0.15
"""The lifetime of a token, as a share of the whole run."""


class Phase(NamedTuple):
    """A request to a control of the emulator, or new content of the secret's file, at `share` of the run."""

    share: float
    what: str
    control: str = ""
    told: Mapping[str, Any] = MappingProxyType({})
    secret: str | None = None
    """The content of the secret's file. If it is empty, the file is removed."""


_NEW: Final = "another-secret"
PHASES: Final = (
    Phase(0.04, "the secret in the file is wrong", secret="mistaken"),
    Phase(0.10, "the secret's file is gone", secret=""),
    Phase(0.14, "and there again", secret=CLIENT_SECRET),
    Phase(0.20, "the API is slow", "faults", {"latency": 0.15}),
    Phase(0.30, "the API fails", "faults", {"latency": 0, "next_500": 25, "next_429": 10}),
    Phase(0.36, "and cuts", "faults", {"next_cut": 25}),
    Phase(0.41, "all tokens are revoked", "revoke"),
    Phase(0.44, "the API refuses an operation", "faults", {"always_401": "applications.organization.get"}),
    Phase(0.47, "the token endpoint is down", "faults", {"token_mode": "fail", "token_status": 500}),
    Phase(0.73, "and back", "faults", {"token_mode": "ok", "always_401": ""}),
    Phase(0.82, "the secret is another", "rotate", {"client_secret": _NEW}),
    Phase(0.94, "and so in the file", secret=_NEW),
)
_CALLERS: Final = 4
_PAUSE: Final = 0.1


class Run(NamedTuple):
    """A finished run: Prometheus, the proxy's admin origin, and the times of its beginning and end."""

    prometheus: Prometheus
    admin: str
    began: float
    ended: float


@contextlib.asynccontextmanager
async def running(seconds: float, *, every: str = "1s") -> AsyncIterator[Run]:
    """Run the scenario; yield when it is over, while Prometheus and the proxy still serve."""
    with tempfile.TemporaryDirectory() as name:
        async with _running(seconds, every, Path(name)) as made:
            yield made


@contextlib.asynccontextmanager
async def _running(seconds: float, every: str, credentials: Path) -> AsyncIterator[Run]:
    (credentials / "client_id").write_text(CLIENT_ID)
    secret = credentials / "client_secret"
    secret.write_text(CLIENT_SECRET)
    env = {"BITS_CREDENTIALS_DIR": str(credentials), "BITS_TOKEN_WAIT": "0.5"}
    async with (
        emulating(token_lifetime=seconds * TOKEN_SHARE) as (_, api),
        command("run", env=proxy_env(api, **env)) as proxy,
    ):
        evidence.keep("the proxy", lambda: proxy.output, lasting=True)
        started = await proxy.event("started")
        admin = started["admin"][0]
        async with scraping(admin, rules=RULES, every=every) as prometheus:
            await _settled(prometheus, proxy)
            began = time.time()
            stop = asyncio.Event()
            url = f"http://{started['listen'][0]}"
            callers = [asyncio.ensure_future(_call(url, number, stop.is_set)) for number in range(_CALLERS)]
            await _happen(seconds, api, proxy, secret, f"http://{admin}")
            stop.set()
            await asyncio.gather(*callers)
            await _settled(prometheus, proxy)
            yield Run(prometheus, f"http://{admin}", began, time.time())


async def _happen(seconds: float, api: str, proxy: Command, secret: Path, admin: str) -> None:
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        for phase in PHASES:
            await asyncio.sleep(max(0.0, began + phase.share * seconds - time.monotonic()))
            if phase.secret is not None:
                secret.write_text(phase.secret) if phase.secret else secret.unlink()
                proxy.send_signal(signal.SIGHUP)
                continue
            async with session.post(f"{api}/_emulator/{phase.control}", json=dict(phase.told)) as answer:
                assert answer.status == 200, await answer.text()
            if phase.control == "rotate":
                await _refresh(session, admin, 4)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))


async def _refresh(session: aiohttp.ClientSession, admin: str, times: int) -> None:
    for _ in range(times):
        async with session.post(f"{admin}/refresh", headers={"X-Requested-With": "test"}) as answer:
            assert answer.status == 202
        await asyncio.sleep(MIN_DELAY)


async def _call(url: str, number: int, stopped: Callable[[], bool]) -> None:
    """Send various requests, most of them well-formed, until the run is over."""
    rng = random.Random(number)
    calls: tuple[tuple[str, str, Any, dict[str, str]], ...] = (
        ("POST", CREATE, APPLICATION, {}),
        ("POST", CREATE, APPLICATION, {}),
        ("POST", "/v1/applications.organization.get", {}, {}),
        ("POST", "/v1/applications.get", {"applicationId": "bits:application::none"}, {}),
        ("GET", "/oauth2/userinfo", None, {}),
        ("POST", "/v1/oauth2/token", None, {}),
        ("GET", "/v1//applications.get", None, {}),
        ("GET", "/oauth2/userinfo", None, {"Origin": "https://evil.example"}),
    )
    weights = (8, 8, 4, 2, 2, 1, 1, 1)
    # One client has little patience.
    timeout = aiohttp.ClientTimeout(total=0.1 if number == 0 else 30)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        while not stopped():
            method, path, body, headers = rng.choices(calls, weights)[0]
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.request(method, path, json=body, headers=headers) as answer:
                    await answer.read()
            await asyncio.sleep(_PAUSE)


async def _settled(prometheus: Prometheus, proxy: Command) -> None:
    """Wait for two more scrapes, so that the end is recorded. The proxy must still run."""
    assert proxy.process.returncode is None
    seen = time.time() + 2
    async with asyncio.timeout(HANGS):
        while True:
            found = await prometheus.query("timestamp(bits_proxy_build_info)")
            if found and found[0].points[0][1] > seen:
                return
            await asyncio.sleep(0.2)
