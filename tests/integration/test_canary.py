"""The secret and the tokens never show: the whole command at debug level, through all that can go wrong."""

import asyncio
import base64
import json
import signal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from bits_auth_proxy.forward.exchange import Exchange
from tests.support.commands import CLIENT_ID, CLIENT_SECRET, Command, command, proxy_env
from tests.support.stand import standing
from tests.support.waiting import HANGS

TOKENS = [f"canary-token-{number}-Zx81" for number in range(8)]
CREATE = "/v1/applications.create"


class LeakyUpstream:
    """An API and token endpoint that fail in every way, and repeat in answers what they were sent."""

    def __init__(self) -> None:
        self.token_modes = iter(["hang", "error", "echo", "html"])
        self.issued = 0
        self.api_mode = "ok"
        self.seen: list[str] = []
        self.release = asyncio.Event()

    async def token(self, request: web.Request) -> web.StreamResponse:
        mode = next(self.token_modes, "ok")
        sent = request.headers["Authorization"]
        if mode == "hang":
            await self.release.wait()
        if mode in ("hang", "error"):
            raise web.HTTPInternalServerError(text=f"{sent} {CLIENT_SECRET}")
        if mode == "echo":
            return web.json_response({"error": f"bad {CLIENT_SECRET} {sent}"}, status=400)
        if mode == "html":
            return web.Response(text=f"<html>{CLIENT_SECRET}</html>", content_type="text/html")
        self.issued += 1
        return web.json_response(
            {
                "type": "Bearer",
                "access_token": TOKENS[self.issued - 1],
                "expires_in": 3600,
                "scope": "application",
            }
        )

    async def api(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.headers.get("Authorization", ""))
        await request.read()
        if self.api_mode == "cut":
            assert request.transport is not None
            request.transport.abort()
        if self.api_mode == "401":
            raise web.HTTPUnauthorized
        if self.api_mode == "hang":
            await self.release.wait()
        return web.json_response({"id": "bits:application::1"})


async def statuses_of(url: str, *bodies: bytes) -> list[int]:
    async with aiohttp.ClientSession(url) as session:
        found = []
        for body in bodies:
            async with session.post(CREATE, data=body) as answer:
                await answer.read()
                found.append(answer.status)
        return found


async def bad_requests(address: str) -> bytes:
    """Send what the proxy refuses, with a token in it as clients might; return the answers."""
    host, _, port = address.rpartition(":")
    answers = b""
    for line in (b"GET /v1/oauth2/token HTTP/1.1", b"GET /%2e%2e HTTP/1.1", b"BREW / HTTP/1.1", b"nonsense"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            line + b"\r\nHost: localhost\r\nAuthorization: Bearer " + TOKENS[0].encode() + b"\r\n\r\n"
        )
        answers += await reader.read()
        writer.close()
        await writer.wait_closed()
    return answers


async def drive(running: Command, upstream: LeakyUpstream) -> str:
    """Take the proxy through success, refusal, timeout and crash paths; return all that it answered."""
    started = await running.event("started")
    url, admin = f"http://{started['listen'][0]}", f"http://{started['admin'][0]}"
    shown = ""
    async with aiohttp.ClientSession() as session:

        async def look() -> str:
            found = ""
            async with session.get(f"{admin}/activity") as answer:
                inspected = [f"/inspected/{each['id']}" for each in (await answer.json())["exchanges"]]
            pages = ("/metrics", "/status", "/activity", "/readyz", "/startupz", "/livez", "/nowhere", "/")
            for page in (*pages, *inspected):
                async with session.get(admin + page) as answer:
                    found += f"{answer.headers} {await answer.text()}"
            return found

        async with session.post(url + CREATE, data=b"{}") as answer:  # the token endpoint hangs
            assert answer.status == 503
            shown += f"{answer.headers} {await answer.text()}"
        shown += await look()
        upstream.release.set()
        # Each attempt fails in another way, until one brings a token.
        async with asyncio.timeout(HANGS):
            while (await statuses_of(url, b"{}")) != [200]:
                pass
        assert await statuses_of(url, b"{}", b"x" * 100_000) == [200, 200]
        upstream.api_mode = "401"
        assert await statuses_of(url, b"{}") == [401]
        upstream.api_mode = "cut"
        assert await statuses_of(url, b"{}") == [502]
        upstream.release.clear()
        upstream.api_mode = "hang"
        assert await statuses_of(url, b"{}") == [504]
        upstream.api_mode = "ok"
        upstream.release.set()
        shown += (await bad_requests(started["listen"][0])).decode()
        running.send_signal(signal.SIGHUP)
        shown += await look()
    return shown


async def test_neither_secret_nor_token_shows_anywhere(tmp_path: Path) -> None:
    upstream = LeakyUpstream()
    app = web.Application()
    app.router.add_post("/v1/oauth2/token", upstream.token)
    app.router.add_route("*", "/{path:.*}", upstream.api)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api = f"http://127.0.0.1:{runner.addresses[0][1]}"
    env = proxy_env(
        api,
        BITS_LOG_LEVEL="debug",
        BITS_ACCESS_LOG="all",
        BITS_INSPECT="true",
        BITS_TOKEN_WAIT="0.5",
        BITS_UPSTREAM__RESPONSE_TIMEOUT="3",
        PYTHONASYNCIODEBUG="1",
    )
    try:
        async with command("run", env=env, cwd=tmp_path) as running:
            cmdline = Path(f"/proc/{running.process.pid}/cmdline").read_bytes().decode()
            shown = await drive(running, upstream)
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
            shown += running.output
    finally:
        await runner.cleanup()
    # It was there to be leaked: it went to where it belongs.
    assert upstream.seen[0] == f"Bearer {TOKENS[0]}"
    kinds = {event.get("kind") for event in running.events}
    assert {"server_error", "refused", "malformed"} <= kinds
    basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    for secret in (CLIENT_SECRET, json.dumps(CLIENT_SECRET)[1:-1], basic, *TOKENS):
        assert secret not in shown + cmdline


async def test_an_exception_that_quotes_a_token_is_logged_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with standing() as stand:
        token = stand.sidecar._refresher.current(stand.sidecar._clock.now())
        while token is None:
            assert await statuses_of(stand.url, b"{}") == [400]
            token = stand.sidecar._refresher.current(stand.sidecar._clock.now())
        value = token.reveal()

        def crash(self: object, content: bytes, *, done: bool) -> None:
            raise RuntimeError(f"a bug that quotes {value!r} and {CLIENT_SECRET}")

        monkeypatch.setattr(Exchange, "start", crash)
        with pytest.raises(aiohttp.ClientError):
            await statuses_of(stand.url, b"{}")
        # The process lives, and the others with it.
        monkeypatch.undo()
        assert await statuses_of(stand.url, b"{}") == [400]
    log = stand.log.getvalue()
    assert "a bug that quotes '[redacted]' and [redacted]" in log
    assert "Traceback (most recent call last)" in log
    assert value not in log
    assert CLIENT_SECRET not in log
