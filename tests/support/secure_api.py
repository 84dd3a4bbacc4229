"""The emulator over https, with an authority of its own."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import trustme
from aiohttp import web

from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.emulator.server import Emulator
from bits_auth_proxy.sidecar import Sidecar
from tests.support.commands import CLIENT_ID, CLIENT_SECRET
from tests.support.stand import APPLICATION, CREATE


class SecureApi(NamedTuple):
    """Its origin, and the settings that lead to it."""

    origin: str
    env: dict[str, str]


@contextlib.asynccontextmanager
async def secure_api(
    directory: Path,
    *,
    demanding: bool = False,
    suites: str = "",
    most: ssl.TLSVersion | None = None,
    certificate: Path | None = None,
    name: str = "localhost",
) -> AsyncIterator[SecureApi]:
    """Serve it as `name`, and its address; the authority's file goes to `directory`.

    `demanding`: clients must have a certificate of the authority, too; one is in `client.pem` there.
    `suites` are those of TLS 1.2, the only version then; `most` is the newest version.
    `certificate` is a PEM file with another certificate and its key to serve with.
    """
    authority = trustme.CA()
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is None:
        key_type = trustme.KeyType.RSA if suites else trustme.KeyType.ECDSA
        authority.issue_cert(name, "127.0.0.1", key_type=key_type).configure_cert(context)
    else:
        context.load_cert_chain(certificate)
    if suites:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suites)
    if most is not None:
        context.maximum_version = most
    if demanding:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.issue_cert("the-proxy").private_key_and_cert_chain_pem.write_to_path(
            directory / "client.pem"
        )
    emulator = Emulator(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, clock=SystemClock())
    runner = web.AppRunner(emulator.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield SecureApi(f"https://{name}:{runner.addresses[0][1]}", {"BITS_UPSTREAM__CA_FILE": str(ca_file)})
    finally:
        await runner.cleanup()


async def create(sidecar: Sidecar) -> tuple[int, str]:
    """Create an application; return the status and Proxy-Status."""
    async with (
        aiohttp.ClientSession(f"http://{sidecar.addresses[0]}") as session,
        session.post(CREATE, json=APPLICATION) as answer,
    ):
        return answer.status, answer.headers.get("Proxy-Status", "")
