"""The steps of `bits-auth-proxy check`: DNS and TLS of the API, the token, and its owner.

Each step needs the ones before it, so the first failure ends the examination.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from yarl import URL

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken
from bits_auth_proxy.cli import remedies
from bits_auth_proxy.cli.remedies import Remedy
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.errors import reason_of

_TIMEOUT: Final = 5.0
_SKEW: Final = 60.0
"""Seconds by which the API's clock and ours may differ before the difference is reported."""
_CERTIFICATE_TIMES: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


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
    credentials: ClientCredentials,
    clock: Clock,
) -> AsyncIterator[Finding]:
    """Yield a finding per step until one fails: DNS and TLS of the API's origin, the token, its owner.

    `egress` is host:port of the egress proxy that requests to the API go through, None without one.
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
        yield _failed("token", error.detail, remedies.for_token_request(error.kind, error.detail))
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
        yield _passed("owner", await oauth.fetch_customer_id(token))
    except TokenRequestError as error:
        yield _failed("owner", error.detail, remedies.OWNER)


async def _direct_connection(api: URL, context: ssl.SSLContext | None) -> AsyncIterator[Finding]:
    """Yield the findings on the way to the API's origin."""
    host, port = api.host or "", api.port or 0
    try:
        async with asyncio.timeout(_TIMEOUT):
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:  # a TimeoutError is one
        yield _failed("dns", f"{host}: {_reason(error)}", remedies.DNS)
        return
    addresses = sorted({str(info[4][0]) for info in infos})
    yield _passed("dns", f"{host} is {', '.join(addresses)}")
    yield await _connect(host, port, context if api.scheme == "https" else None)


async def _egress_connection(proxy: str) -> AsyncIterator[Finding]:
    """Yield the finding on the egress proxy. DNS and TLS beyond it are examined with the token."""
    host, _, port = proxy.rpartition(":")
    finding = await _connect(host.strip("[]"), int(port), None)
    if not finding.ok:
        finding = _failed(finding.step, finding.text, remedies.EGRESS)
    yield finding._replace(step="proxy")


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> Finding:
    """Open a connection, with TLS where there is a context, and close it."""
    step = "tcp" if context is None else "tls"
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError as error:  # a TimeoutError is one
        return _failed(step, f"{host}:{port}: {_reason(error)}", _connection_remedy(error))
    tls = writer.get_extra_info("ssl_object")
    text = f"{host}:{port} accepts connections"
    if tls is not None:
        expires = tls.getpeercert().get("notAfter", "?")
        text = f"{tls.version()}, certificate valid until {expires}"
    writer.transport.abort()
    return _passed(step, text)


def _connection_remedy(error: OSError) -> Remedy:
    if isinstance(error, ssl.SSLCertVerificationError):
        untimely = error.verify_code in _CERTIFICATE_TIMES
        return remedies.CERTIFICATE_TIME if untimely else remedies.TRUST
    return remedies.TLS if isinstance(error, ssl.SSLError) else remedies.CONNECTION


def _passed(step: str, text: str, hint: str = "") -> Finding:
    return Finding(ok=True, step=step, text=text, hint=hint)


def _failed(step: str, text: str, remedy: Remedy) -> Finding:
    return Finding(ok=False, step=step, text=text, hint=remedy.hint, settings=remedy.settings)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no response within {_TIMEOUT:g} s"
    return reason_of(error)
