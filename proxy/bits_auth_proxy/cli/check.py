"""`bits-auth-proxy check`: is the way to the Bits API clear? One line per step, and what to change.

Each step needs the ones before it, so the first failure ends the run.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from yarl import URL

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.errors import reason_of

_TIMEOUT: Final = 5.0
_SKEW: Final = 60.0
"""Seconds that the server's clock and ours may differ before it is worth a word."""
_PAIR: Final = ("client_id", "client_id_file", "client_secret", "client_secret_file", "credentials_dir")
_ENDPOINT: Final = ("api_url", "token_url")
_TRUST: Final = ("api_url", "upstream.ca_file")
_EGRESS: Final = ("https_proxy", "no_proxy")


class Advice(NamedTuple):
    """What to change, and the settings that have to do with it, by dotted name."""

    hint: str
    about: tuple[str, ...]


_NO_ENDPOINT: Final = Advice("BITS_TOKEN_URL is not the token endpoint; unset, it is the API's", _ENDPOINT)
_TLS: Final = Advice(
    "if the server's authority is one of your own, name its file in BITS_UPSTREAM__CA_FILE; "
    "else something in between breaks TLS open",
    _TRUST,
)
_SCOPE: Final = Advice(
    "change BITS_SCOPE or leave it out, or ask Bits to grant it to this client", ("scope",)
)
_BY_KIND: Final = {
    "refused": Advice(
        "BITS_CLIENT_ID and BITS_CLIENT_SECRET (or their files) are not a pair that this API knows: "
        "compare them with what Bits gave you",
        (*_PAIR, *_ENDPOINT),
    ),
    "scope": _SCOPE,
    "redirect": _NO_ENDPOINT,
    "malformed": _NO_ENDPOINT,
    "status": _NO_ENDPOINT,
    "throttled": Advice("wait before trying again", ()),
    "proxy": Advice(
        "the egress proxy of BITS_HTTPS_PROXY or HTTPS_PROXY does not let through to BITS_TOKEN_URL",
        (*_EGRESS, *_ENDPOINT),
    ),
    "tls": _TLS,
}
_OTHERWISE: Final = Advice(
    "look at the way to BITS_TOKEN_URL: DNS, firewalls, proxies", (*_ENDPOINT, *_EGRESS)
)
_CERTIFICATE_TIMES: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


class Finding(NamedTuple):
    """The outcome of one step; `hint` says what to change, `about` which settings it came from."""

    ok: bool
    step: str
    text: str
    hint: str = ""
    about: tuple[str, ...] = ()


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
        advice = _BY_KIND.get(error.kind, _OTHERWISE)
        yield _failed("token", error.detail, _SCOPE if "invalid_scope" in error.detail else advice)
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
        advice = Advice("BITS_API_URL does not answer /oauth2/userinfo as the Bits API does", ("api_url",))
        yield _failed("owner", error.detail, advice)


async def _way(api: URL, context: ssl.SSLContext | None) -> AsyncIterator[Finding]:
    host, port = api.host or "", api.port or 0
    try:
        async with asyncio.timeout(_TIMEOUT):
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        advice = Advice("correct the host in BITS_API_URL, or see to this machine's DNS", ("api_url",))
        yield _failed("dns", f"{host}: {_text(error)}", advice)
        return
    addresses = sorted({str(info[4][0]) for info in infos})
    yield _passed("dns", f"{host} is {', '.join(addresses)}")
    yield await _connect(host, port, context if api.scheme == "https" else None)


async def _way_through(proxy: str) -> AsyncIterator[Finding]:
    """Yield what is to be said of an egress proxy; DNS and TLS beyond it show at the token."""
    host, _, port = proxy.rpartition(":")
    finding = await _connect(host.strip("[]"), int(port), None)
    if not finding.ok:
        hint = "correct BITS_HTTPS_PROXY or HTTPS_PROXY; BITS_NO_PROXY exempts the API from it"
        finding = finding._replace(hint=hint, about=_EGRESS)
    yield finding._replace(step="proxy")


def _passed(step: str, text: str, hint: str = "") -> Finding:
    return Finding(ok=True, step=step, text=text, hint=hint)


def _failed(step: str, text: str, advice: Advice) -> Finding:
    return Finding(ok=False, step=step, text=text, hint=advice.hint, about=advice.about)


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> Finding:
    step = "tcp" if context is None else "tls"
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        advice = _TLS
        if error.verify_code in _CERTIFICATE_TIMES:
            advice = Advice(
                "set this machine's clock, or have the certificate renewed that BITS_API_URL presents",
                ("api_url",),
            )
        return _failed(step, f"{host}:{port}: {_text(error)}", advice)
    except ssl.SSLError as error:
        advice = Advice("there is no TLS 1.2 or newer at BITS_API_URL: is the port right?", ("api_url",))
        return _failed(step, f"{host}:{port}: {_text(error)}", advice)
    except (OSError, TimeoutError) as error:
        advice = Advice("correct BITS_API_URL, or open the firewall in between", ("api_url",))
        return _failed(step, f"{host}:{port}: {_text(error)}", advice)
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
