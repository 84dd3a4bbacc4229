"""`bits-auth-proxy check`: is the way to the Bits API clear? One line per step, and what to change.

Each step needs the ones before it, so the first failure ends the run.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from yarl import URL

from proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from proxy.auth.tokens import AccessToken
from proxy.clock import Clock
from proxy.errors import reason_of

_TIMEOUT: Final = 5.0
_SKEW: Final = 60.0
"""Seconds that the server's clock and ours may differ before it is worth a word."""
_HINTS: Final = {
    "refused": "BITS_CLIENT_ID and BITS_CLIENT_SECRET (or their files) are not accepted",
    "scope": "change BITS_SCOPE, or ask Bits to grant it to this client",
    "redirect": "BITS_TOKEN_URL is not the token endpoint",
    "malformed": "BITS_TOKEN_URL is not the token endpoint",
    "status": "BITS_TOKEN_URL is not the token endpoint",
    "throttled": "wait before trying again",
    "proxy": "the egress proxy of BITS_HTTPS_PROXY or HTTPS_PROXY does not let through to BITS_TOKEN_URL",
    "tls": "BITS_UPSTREAM__CA_FILE, or a proxy in between",
}
_CERTIFICATE_TIMES: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


class Finding(NamedTuple):
    """The outcome of one step; `hint` says what to change."""

    ok: bool
    step: str
    text: str
    hint: str = ""


async def examine(
    *,
    api_url: str,
    through: str | None,
    context: ssl.SSLContext | None,
    oauth: BitsOAuthClient,
    credentials: ClientCredentials,
    clock: Clock,
) -> AsyncIterator[Finding]:
    """Yield a finding per step until one fails: DNS and TLS of the API's origin, token, owner.

    `through` is host:port of the egress proxy that leads there, if one does.
    """
    steps = _way(URL(api_url), context) if through is None else _way_through(through)
    async for finding in steps:
        yield finding
        if not finding.ok:
            return
    sent_at, sent_wall = clock.now(), clock.wall()
    try:
        grant = await oauth.fetch_token(credentials)
    except TokenRequestError as error:
        yield _failed("token", error.detail, _HINTS.get(error.kind, "the way to BITS_TOKEN_URL"))
        return
    token = AccessToken(
        grant.value, issued_at=sent_at, issued_wall=sent_wall, lifetime=grant.lifetime, scope=grant.scope
    )
    lifetime = f"lives {grant.lifetime:g} s" + (" (assumed, not told)" if grant.lifetime_assumed else "")
    yield _passed("token", f"Bearer, scope {token.scope}, {lifetime}, fingerprint {token.fingerprint}")
    if grant.date is not None and abs(skew := sent_wall - grant.date) > _SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        yield _passed("clock", f"this machine is {abs(skew):.0f} s {ahead} the API", "harmless to the proxy")
    try:
        yield _passed("owner", await oauth.fetch_customer_id(token))
    except TokenRequestError as error:
        yield _failed("owner", error.detail, "BITS_API_URL does not answer /oauth2/userinfo")


async def _way(api: URL, context: ssl.SSLContext | None) -> AsyncIterator[Finding]:
    host, port = api.host or "", api.port or 0
    try:
        async with asyncio.timeout(_TIMEOUT):
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        yield _failed("dns", f"{host}: {_text(error)}", "BITS_API_URL, or this machine's DNS")
        return
    addresses = sorted({str(info[4][0]) for info in infos})
    yield _passed("dns", f"{host} is {', '.join(addresses)}")
    yield await _connect(host, port, context if api.scheme == "https" else None)


async def _way_through(proxy: str) -> AsyncIterator[Finding]:
    """Yield what is to be said of an egress proxy; DNS and TLS beyond it show at the token."""
    host, _, port = proxy.rpartition(":")
    finding = await _connect(host.strip("[]"), int(port), None)
    hint = "" if finding.ok else "BITS_HTTPS_PROXY or HTTPS_PROXY; BITS_NO_PROXY exempts the API from it"
    yield finding._replace(step="proxy", hint=hint)


def _passed(step: str, text: str, hint: str = "") -> Finding:
    return Finding(ok=True, step=step, text=text, hint=hint)


def _failed(step: str, text: str, hint: str) -> Finding:
    return Finding(ok=False, step=step, text=text, hint=hint)


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> Finding:
    step = "tcp" if context is None else "tls"
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        hint = _HINTS["tls"]
        if error.verify_code in _CERTIFICATE_TIMES:
            hint = "this machine's clock, or the certificate that BITS_API_URL presents"
        return _failed(step, _text(error), hint)
    except ssl.SSLError as error:
        return _failed(step, _text(error), "no TLS 1.2 or newer at BITS_API_URL")
    except (OSError, TimeoutError) as error:
        return _failed(step, f"{host}:{port}: {_text(error)}", "BITS_API_URL, or a firewall in between")
    tls = writer.get_extra_info("ssl_object")
    text = f"{host}:{port} accepts connections"
    if tls is not None:
        expires = tls.getpeercert().get("notAfter", "?")
        text = f"{tls.version()}, certificate valid until {expires}"
    writer.transport.abort()
    return _passed(step, text)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return reason_of(error)
    return f"no answer within {_TIMEOUT:g} s"
