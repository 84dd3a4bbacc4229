"""The steps of `bits-auth-proxy check`: DNS and TLS of the API, the token, and its owner.

Each step needs the ones before it, so the first failure ends the examination.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import aiohappyeyeballs
from yarl import URL

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken
from bits_auth_proxy.cli import remedies
from bits_auth_proxy.cli.remedies import Remedy
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.tls_faults import TlsFault, reason_for_client, tls_fault
from bits_auth_proxy.transport import authority, without_root

_TIMEOUT: Final = 5.0
_SKEW: Final = 60.0
"""Seconds by which the API's clock and ours may differ before the difference is reported."""
_API: Final = "BITS_API_URL"


class Finding(NamedTuple):
    """The outcome of one step. `hint` says what to change; `settings` are those concerned, by dotted name."""

    ok: bool
    step: str
    text: str
    hint: str = ""
    settings: tuple[str, ...] = ()


async def examine(
    *,
    api_url: str,
    egress: str | None,
    context: ssl.SSLContext | None,
    oauth: BitsOAuthClient,
    token_variable: str,
    credentials: ClientCredentials,
    clock: Clock,
    expected_customer: str | None = None,
) -> AsyncIterator[Finding]:
    """Yield a finding per step until one fails: DNS and TLS of the API's origin, the token, its owner.

    `egress` is host:port of the egress proxy that requests to the API go through, None without one.
    `token_variable` is the variable that leads to the token endpoint. The owner must be `expected_customer`,
    if that is set.
    """
    connection = _direct_connection(URL(api_url), context) if egress is None else _egress_connection(egress)
    async for finding in connection:
        yield finding
        if not finding.ok:
            return
    sent_at, sent_wall = clock.now(), clock.wall()
    try:
        grant = await oauth.fetch_token(credentials)
    except TokenRequestError as error:
        yield _failed("token", error.detail, _token_remedy(error, token_variable))
        return
    token = AccessToken(
        grant.value, issued_at=sent_at, issued_wall=sent_wall, lifetime=grant.lifetime, scope=grant.scope
    )
    assumed = " (assumed, because the response does not say)" if grant.lifetime_assumed else ""
    lifetime = f"valid for {grant.lifetime:g} s{assumed}"
    yield _passed("token", f"Bearer, scope {token.scope}, {lifetime}, fingerprint {token.fingerprint}")
    if grant.date is not None and abs(skew := sent_wall - grant.date) > _SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        text = f"this machine is {abs(skew):.0f} s {ahead} the API"
        yield _passed("clock", text, "The difference does not harm the proxy.")
    try:
        owner = await oauth.fetch_customer_id(token)
        if expected_customer in (None, owner):
            yield _passed("owner", owner)
        else:
            yield _failed("owner", f"{owner}, and {expected_customer} is expected", remedies.CUSTOMER)
    except TokenRequestError as error:
        remedy = remedies.for_userinfo_request(error.kind, error.detail, tls_fault=error.tls_fault)
        yield _failed("owner", error.detail, remedy)


async def _direct_connection(api: URL, context: ssl.SSLContext | None) -> AsyncIterator[Finding]:
    """Yield the findings on the way to the API's origin."""
    host, port = api.host or "", api.port or 0
    dns = await _resolve(host, port)
    yield dns
    if dns.ok:
        yield await _connect(host, port, context if api.scheme == "https" else None)


async def _egress_connection(proxy: str) -> AsyncIterator[Finding]:
    """Yield the finding on the egress proxy. DNS and TLS beyond it are examined with the token."""
    host, _, port = proxy.rpartition(":")
    host = host.strip("[]")
    finding = await _resolve(host, int(port))
    if finding.ok:
        finding = await _connect(host, int(port), None)
    if not finding.ok:
        finding = _failed(finding.step, finding.text, remedies.EGRESS)
    yield finding._replace(step="proxy")


async def _resolve(host: str, port: int) -> Finding:
    """Ask DNS for the addresses of a host."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return _failed("dns", f"{host}: DNS did not answer within {_TIMEOUT:g} s", remedies.DNS.at(_API))
    except OSError as error:
        return _failed("dns", f"{host}: {reason_for_client(error)}", remedies.DNS.at(_API))
    return _passed("dns", f"{host} is {', '.join(sorted({str(info[4][0]) for info in infos}))}")


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> Finding:
    """Open a connection, with TLS where there is a context, and close it."""
    step = "tcp" if context is None else "tls"
    name = None if context is None else without_root(host)
    where = authority(host, port)
    try:
        async with asyncio.timeout(_TIMEOUT):
            loop = asyncio.get_running_loop()
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # As the data path connects: uvloop has no happy eyeballs.
            sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=0.25, loop=loop)
            _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    except TimeoutError:
        return _failed(step, f"{where}: no connection within {_TIMEOUT:g} s", remedies.CONNECTION.at(_API))
    except ConnectionResetError as error:  # Only TLS waits for the server.
        reason = f"{where}: {reason_for_client(error)} during the TLS handshake"
        return _failed(step, reason, remedies.for_tls(TlsFault.HANDSHAKE, variable=_API))
    except OSError as error:
        return _failed(step, f"{where}: {reason_for_client(error)}", _connection_remedy(error))
    tls = writer.get_extra_info("ssl_object")
    text = f"{where} accepts connections"
    if tls is not None:
        expires = tls.getpeercert().get("notAfter", "?")
        text = f"{tls.version()}, certificate valid until {expires}"
    writer.transport.abort()
    return _passed(step, text)


def _connection_remedy(error: OSError) -> Remedy:
    if isinstance(error, ssl.SSLError):
        return remedies.for_tls(tls_fault(error), variable=_API)
    return remedies.CONNECTION.at(_API)


def _token_remedy(error: TokenRequestError, variable: str) -> Remedy:
    return remedies.for_token_request(error.kind, error.detail, variable=variable, tls_fault=error.tls_fault)


def _passed(step: str, text: str, hint: str = "") -> Finding:
    return Finding(ok=True, step=step, text=text, hint=hint)


def _failed(step: str, text: str, remedy: Remedy) -> Finding:
    return Finding(ok=False, step=step, text=text, hint=remedy.hint, settings=remedy.settings)
