"""The CA file and the client certificate for the API are renewed without a restart, for both clients."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import trustme
from aiohttp import web

from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.emulator.server import Emulator
from tests.support.commands import CLIENT_ID, CLIENT_SECRET, Command, command, get, proxy_env
from tests.support.stand import APPLICATION, CREATE


class Api:
    """The emulator over mutual TLS, whose authority can be exchanged; it closes after each response."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.presented: list[int] = []
        """The serial numbers of the clients' certificates."""
        self.origin = ""

    def exchange(self) -> None:
        """Take another authority for new connections, for the server and its clients."""
        self.authority = trustme.CA()
        self.present(self.context)

    def present(self, context: ssl.SSLContext) -> None:
        self.authority.issue_cert("localhost").configure_cert(context)

    def write(self) -> None:
        """Write the files that fit."""
        self.authority.cert_pem.write_to_path(self.directory / "ca.pem")
        leaf = self.authority.issue_cert("the-proxy")
        leaf.cert_chain_pems[0].write_to_path(self.directory / "client.pem")
        leaf.private_key_pem.write_to_path(self.directory / "client.key")

    @property
    def settings(self) -> dict[str, str]:
        return {
            "BITS_UPSTREAM__CA_FILE": str(self.directory / "ca.pem"),
            "BITS_UPSTREAM__CLIENT_CERT": str(self.directory / "client.pem"),
            "BITS_UPSTREAM__CLIENT_KEY": str(self.directory / "client.key"),
            "BITS_UPSTREAM__WARM_CONNECTIONS": "0",
        }

    def choose(self, sock: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """Use the present authority for a new connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.present(context)
        self.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        sock.context = context


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Api]:
    api = Api(directory)
    api.write()
    api.present(api.context)
    api.authority.configure_trust(api.context)
    api.context.verify_mode = ssl.CERT_REQUIRED
    api.context.sni_callback = api.choose
    emulator = Emulator(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, clock=SystemClock())

    async def close(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()

    emulator.app.on_response_prepare.append(close)
    runner = web.AppRunner(emulator.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=api.context).start()
    api.origin = f"https://localhost:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


async def call(running: Command) -> int:
    started = await running.event("started")
    url = f"http://{started['listen'][0]}"
    async with aiohttp.ClientSession(url) as session, session.post(CREATE, json=APPLICATION) as answer:
        return answer.status


async def metrics_of(running: Command) -> str:
    started = await running.event("started")
    return (await get(f"http://{started['admin'][0]}/metrics"))[1]


async def test_new_files_serve_both_clients_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as api, command("run", env=proxy_env(api.origin, **api.settings)) as running:
        await running.event("token_refreshed")
        assert await call(running) == 200

        # Something that can't be used: the old files stay in use.
        (tmp_path / "client.pem").write_text("nothing", "utf-8")
        running.send_signal(signal.SIGHUP)
        event = await running.event("upstream_certificate_refused")
        assert "BITS_UPSTREAM__CLIENT_CERT" in event["detail"]
        assert await call(running) == 200

        # Another authority, and the files that fit.
        api.exchange()
        api.write()
        running.send_signal(signal.SIGHUP)
        await running.event("upstream_certificate_changed")
        assert await call(running) == 200
        started = await running.event("started")
        admin = f"http://{started['admin'][0]}"
        async with (
            aiohttp.ClientSession(admin) as session,
            session.post("/refresh", headers={"X-Requested-With": "test"}) as answer,
        ):
            assert answer.status < 300
        await running.event("token_refreshed", times=2)

        # One that is gone.
        (tmp_path / "ca.pem").unlink()
        running.send_signal(signal.SIGHUP)
        event = await running.event("upstream_certificate_refused", times=2)
        assert event["detail"].startswith("BITS_UPSTREAM__CA_FILE: ")
        assert await call(running) == 200
        text = await metrics_of(running)
        assert 'upstream_certificate_reloads_total{outcome="failure"} 2.0' in text
        assert 'upstream_certificate_reloads_total{outcome="success"} 1.0' in text
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert "PRIVATE KEY" not in running.output


async def test_system_trust_is_not_watched() -> None:
    env = proxy_env("https://localhost:1")
    async with command("run", env=env) as running:
        await running.event("started")
        running.send_signal(signal.SIGHUP)
        await running.event("token_refresh_failed")
        assert "upstream_certificate" not in running.output
        await asyncio.sleep(0)
