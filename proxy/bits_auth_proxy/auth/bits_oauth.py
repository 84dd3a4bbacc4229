"""The Bits API's token and userinfo endpoints: pure building and parsing, and a thin client around them.

Facts of Bits' documentation: HTTP Basic with the raw pair (no form-escaping, unlike RFC 6749 section 2.3.1),
a form body with `grant_type=client_credentials`, the only grant; the answer names the token's type `type`,
not `token_type`. Nothing of an answer but an OAuth error code and the granted scope gets into an error's
text. All that is known of these two endpoints is in this one module, which is why it is longer than others.
"""

import base64
import contextlib
import json
import math
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias, final, get_args
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

from bits_auth_proxy import __version__
from bits_auth_proxy.auth.tokens import AccessToken
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.errors import TokenEndpointError
from bits_auth_proxy.tls_faults import TlsFault, reason_for_client, tls_fault
from bits_auth_proxy.transport import EgressProxy, route, without_root

ASSUMED_LIFETIME: Final = 3600.0
"""Seconds a token lives when the answer does not say; what Bits documents."""
MIN_LIFETIME: Final = 1.0
"""Shorter-lived tokens can't be replaced in time at any pace that the endpoint would like."""
MAX_LIFETIME: Final = 30 * 24 * 3600.0
"""A token that is said to live longer is replaced after this time: no harm is done by that."""
MAX_ANSWER: Final = 64 * 1024
TOTAL_TIMEOUT: Final = 10.0

FailureKind: TypeAlias = Literal[
    "dns",
    "connect",
    "proxy",
    "tls",
    "timeout",
    "disconnected",
    "throttled",
    "server_error",
    "refused",
    "redirect",
    "scope",
    "customer",
    "malformed",
    "status",
    "internal",
]
FAILURE_KINDS: Final[tuple[FailureKind, ...]] = get_args(FailureKind)
_DENIED_KINDS: Final[frozenset[FailureKind]] = frozenset(("refused", "scope", "customer"))
_REQUESTS_CODES: Final = frozenset(
    ("invalid_request", "invalid_scope", "unauthorized_client", "unsupported_grant_type")
)
"""The error codes that blame the request or what the client may do (RFC 6749 section 5.2), not the pair."""

_OK: Final = 200
_SUCCESS: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_DENIAL_STATUSES: Final = (400, 401)
_THROTTLED: Final = 429
_SERVER_ERRORS: Final = range(500, 600)
_CERTIFICATE_STATUS: Final = 400
_CERTIFICATE_WORDS: Final = (b"No required SSL certificate was sent", b"The SSL certificate error")
"""How nginx answers over TLS where it requires a client certificate, or does not accept the one it got."""
_TRANSIENT_ERRORS: Final = frozenset(("temporarily_unavailable", "server_error"))
_SHOWABLE_ORIGIN: Final = re.compile(r"https?://[!-~]{1,300}\Z")
_ERROR_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


@final
class ClientCredentials:
    """A client's id and secret (RFC 6749 section 2.3), as the header field value that carries them."""

    __slots__ = ("authorization", "client_id")

    def __init__(self, client_id: str, client_secret: str) -> None:
        pair = f"{client_id}:{client_secret}".encode()
        self.client_id: Final = client_id
        self.authorization: Final = "Basic " + base64.b64encode(pair).decode("ascii")

    def __repr__(self) -> str:
        return f"ClientCredentials(client_id={self.client_id!r})"


class TokenRequestError(TokenEndpointError):
    """No token was obtained. The text is safe to show.

    `kind` is stable, for metrics. `code` is the OAuth error code (RFC 6749 section 5.2), if the endpoint sent
    one. `retry_after` is in seconds.
    """

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        code: str = "",
        retry_after: float | None = None,
        tls_fault: TlsFault | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind: Final = kind
        self.detail: Final = detail
        self.code: Final = code
        self.retry_after: Final = retry_after
        self.tls_fault: Final = tls_fault

    @property
    def denied(self) -> bool:
        """Whether the endpoint said no to our credentials, scope or request: trying again hardly helps."""
        return self.kind in _DENIED_KINDS

    @property
    def blames_credentials(self) -> bool:
        """Whether the endpoint denied the pair itself, and not what was requested with it."""
        return self.kind == "customer" or (self.kind == "refused" and self.code not in _REQUESTS_CODES)


class TokenGrant(NamedTuple):
    """A parsed answer. `lifetime` in seconds; `date` is the server's clock, seconds since the Unix epoch.

    `scope` is printable ASCII, so that every log can show it.
    """

    value: str
    lifetime: float
    lifetime_assumed: bool
    scope: str | None
    date: float | None

    def __repr__(self) -> str:
        return f"TokenGrant(lifetime={self.lifetime:g}, scope={self.scope!r})"


class EndpointAnswer(NamedTuple):
    """What the parsers need of an HTTP response; field names in lower case."""

    status: int
    fields: Mapping[str, str]
    content: bytes


def token_request_body(scope: str | None) -> bytes:
    """Return the form that asks for a token."""
    form = {"grant_type": "client_credentials"}
    if scope:
        form["scope"] = scope
    return urlencode(form).encode("ascii")


def parse_token_answer(answer: EndpointAnswer, *, asked_scope: str | None, wall: float) -> TokenGrant:
    """Return the token of a token endpoint's answer. Raises TokenRequestError.

    `asked_scope` must have been granted whole; `wall` is now, for a Retry-After that is a date.
    """
    members = _members(answer, wall)
    error = members.get("error")
    if error is not None:
        code = _error_code(members)
        kind: FailureKind = "server_error" if code in _TRANSIENT_ERRORS else "refused"
        text = f"the response has status {answer.status} but contains the error {code or '(unreadable)'}"
        raise TokenRequestError(kind, text, code=code)
    token_type = members.get("token_type")
    if token_type is None:
        token_type = members.get("type")
    if not isinstance(token_type, str) or token_type.strip().lower() != "bearer":
        raise TokenRequestError("malformed", "the token type in the response is not Bearer")
    value = members.get("access_token")
    if not isinstance(value, str) or not value or not all("!" <= character <= "~" for character in value):
        raise TokenRequestError("malformed", "the response contains no usable access_token")
    lifetime = _lifetime(members)
    # Left out, it is the one that was asked for (RFC 6749 section 5.1).
    listed = members.get("scope")
    words = _scope_words(asked_scope if listed is None else listed)
    # What is not understood matters only where a scope was asked for.
    missing = sorted(set(_scope_words(asked_scope)) - set(words))
    granted = " ".join(map(_plain, words)) or None
    if missing:
        raise TokenRequestError(
            "scope", f"requested scope {asked_scope!a}, granted {granted!r}: {' '.join(missing)!a} is missing"
        )
    return TokenGrant(
        value=value,
        lifetime=ASSUMED_LIFETIME if lifetime is None else lifetime,
        lifetime_assumed=lifetime is None,
        scope=granted,
        date=_date(answer.fields.get("date")),
    )


def parse_userinfo_answer(answer: EndpointAnswer, *, wall: float) -> str:
    """Return the customer id of a userinfo answer. Raises TokenRequestError."""
    customer = _members(answer, wall).get("customerId")
    if not isinstance(customer, str) or not customer.isprintable():
        raise TokenRequestError("malformed", "the response contains no customerId")
    return customer


def parse_retry_after(value: str | None, *, wall: float) -> float | None:
    """Return the seconds a Retry-After field asks for (RFC 9110 section 10.2.3), None if it is no use."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    date = _date(value)
    return None if date is None else max(0.0, date - wall)


def _members(answer: EndpointAnswer, wall: float) -> dict[str, Any]:
    """Return what an answer of success holds: any of them, since a token counts and not how it is sent."""
    status = answer.status
    if status in _SUCCESS:
        try:
            return _json_object(answer)
        except TokenRequestError:
            if status == _OK:
                raise
    raise _failure(answer, wall)


def _failure(answer: EndpointAnswer, wall: float) -> TokenRequestError:
    status = answer.status
    retry_after = parse_retry_after(answer.fields.get("retry-after"), wall=wall)
    if status == _THROTTLED:
        return TokenRequestError(
            "throttled", "the response is 429 (too many requests)", retry_after=retry_after
        )
    if status in _SERVER_ERRORS:
        return TokenRequestError("server_error", f"the response is {status}", retry_after=retry_after)
    if status == _CERTIFICATE_STATUS and any(words in answer.content for words in _CERTIFICATE_WORDS):
        text = f"the response is {status}: the server requires a client certificate, or another one"
        return TokenRequestError("tls", text, tls_fault=TlsFault.CLIENT_CERTIFICATE)
    try:
        code = _error_code(_json_object(answer))
    except TokenRequestError:
        code = ""
    text = f"the response is {status}" + (f" {code}" if code else "")
    kind: FailureKind = "refused" if status in _DENIAL_STATUSES else "status"
    return TokenRequestError(kind, text, code=code, retry_after=retry_after)


def _json_object(answer: EndpointAnswer) -> dict[str, Any]:
    try:
        members = json.loads(answer.content)
    except (ValueError, RecursionError):
        # Not `from error`: its text and document are the answer itself.
        members = None
    if not isinstance(members, dict):
        what = "empty" if not answer.content.strip() else "not a JSON object"
        raise TokenRequestError("malformed", f"the response is {what}")
    return members


def _error_code(members: Mapping[str, Any]) -> str:
    """Return the OAuth error code (RFC 6749 section 5.2) if it looks like one: it gets shown."""
    code = members.get("error")
    return code if isinstance(code, str) and _ERROR_CODE.match(code) else ""


def _lifetime(members: Mapping[str, Any]) -> float | None:
    value = members.get("expires_in")
    if value is None:
        return None
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Compared first: there are whole numbers that no float can hold.
        seconds = MAX_LIFETIME if value > MAX_LIFETIME else -1.0 if value < 0 else float(value)
    elif isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = float(value)
    if not (seconds >= MIN_LIFETIME and math.isfinite(seconds)):
        raise TokenRequestError("malformed", "expires_in in the response is not a sensible number of seconds")
    return min(seconds, MAX_LIFETIME)


def _scope_words(scope: object) -> list[str]:
    """Return the words of a scope: space-separated, as RFC 6749 section 3.3 has it, or in a list."""
    parts = scope if isinstance(scope, list) else [scope]
    return [word for part in parts if isinstance(part, str) for word in part.split()]


def _plain(text: str) -> str:
    return "".join(character if "!" <= character <= "~" else "?" for character in text)


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


class _Resolver(aiohttp.ThreadedResolver):
    """DNS through the event loop, which asks for the names of `lookups` in another form."""

    def __init__(self, lookups: Mapping[str, str]) -> None:
        super().__init__()
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await super().resolve(self._lookups.get(host, host), port, family)


def _proxy_fields(egress: EgressProxy) -> dict[str, str]:
    """Return the fields for CONNECT; aiohttp would encode a URL's user information in Latin-1."""
    return {} if egress.authorization is None else {"Proxy-Authorization": egress.authorization}


class _Progress:
    """How far a request has come."""

    __slots__ = ("connected", "lookup")

    def __init__(self) -> None:
        self.connected = False
        self.lookup: str | None = None
        """The name that DNS was asked for and has not answered yet."""


def _tracing() -> aiohttp.TraceConfig:
    """Return what keeps the `_Progress` of each request."""

    async def looks_up(_: object, context: Any, params: aiohttp.TraceDnsResolveHostStartParams) -> None:
        context.trace_request_ctx.lookup = params.host

    async def found(_: object, context: Any, __: object) -> None:
        context.trace_request_ctx.lookup = None

    async def connected(_: object, context: Any, __: object) -> None:
        context.trace_request_ctx.connected = True

    tracing = aiohttp.TraceConfig()
    tracing.on_dns_resolvehost_start.append(looks_up)
    tracing.on_dns_resolvehost_end.append(found)
    tracing.on_connection_create_end.append(connected)
    return tracing


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error behind one of aiohttp's, None if there is none.

    In TLS 1.3, a server refuses a client certificate only after the client's handshake.
    """
    while error is not None:
        # First what is inside: some of aiohttp's errors are TLS errors by type, and lack a reason.
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        if inner is None and isinstance(error, ssl.SSLError):
            return error
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return None


def _origin_of(base: URL, location: str | None) -> str:
    """Return ` to ` and the origin of a redirect's target, nothing if there is none that can be shown."""
    if not location:
        return ""
    try:
        target = base.join(URL(location)).origin()
    except ValueError:
        return ""
    shown = str(target)
    return f" to {shown}" if _SHOWABLE_ORIGIN.match(shown) else ""


class BitsOAuthClient:
    """Talks to the token and userinfo endpoints."""

    __slots__ = (
        "_clock",
        "_context",
        "_egress_for",
        "_lookups",
        "_scope",
        "_session",
        "_timeout",
        "_token_url",
        "_userinfo_url",
    )

    def __init__(
        self,
        *,
        token_url: str,
        userinfo_url: str,
        scope: str | None,
        context: Callable[[], ssl.SSLContext] | None,
        egress_for: Callable[[str], EgressProxy | None] = lambda _: None,
        clock: Clock,
        timeout: float = TOTAL_TIMEOUT,
    ) -> None:
        """Set the endpoints, the scope to ask for, TLS (None: plain http), and seconds for an answer.

        `context` returns the TLS settings of a new connection.

        `egress_for` maps a URL to the egress proxy that leads there, None for none.
        """
        self._lookups: dict[str, str] = {}
        self._token_url = self._named(token_url)
        self._userinfo_url = self._named(userinfo_url)
        self._scope = scope
        self._context = context
        self._egress_for = egress_for
        self._clock = clock
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def fetch_token(self, credentials: ClientCredentials) -> TokenGrant:
        """Ask for a token. Raises TokenRequestError."""
        answer = await self._ask(
            "POST",
            self._token_url,
            {"Authorization": credentials.authorization, "Content-Type": "application/x-www-form-urlencoded"},
            token_request_body(self._scope),
        )
        return parse_token_answer(answer, asked_scope=self._scope, wall=self._clock.wall())

    async def fetch_customer_id(self, token: AccessToken) -> str:
        """Return whom `token` belongs to. Raises TokenRequestError."""
        answer = await self._ask(
            "GET", self._userinfo_url, {"Authorization": f"bearer {token.reveal()}"}, None
        )
        return parse_userinfo_answer(answer, wall=self._clock.wall())

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    def _named(self, url: str) -> URL:
        """Return a URL without the root dot of its host, and remember what to ask DNS for instead."""
        parsed = URL(url)
        host = parsed.host or ""
        name = without_root(host)
        if name == host:
            return parsed
        self._lookups[name] = host
        return parsed.with_host(name)

    async def _ask(
        self, method: str, url: URL, fields: Mapping[str, str], body: bytes | None
    ) -> EndpointAnswer:
        egress = self._egress_for(str(url))
        way = route(url.host or "", url.port or 0, egress)
        progress = _Progress()
        # No `from error` below: aiohttp's exceptions carry the request, and so our credentials.
        try:
            return await self._exchange(method, url, fields, body, egress=egress, progress=progress)
        except TimeoutError:  # aiohttp's own are such, too
            failure = self._late(way, progress)
        except aiohttp.ClientHttpProxyError as error:
            failure = TokenRequestError("proxy", f"{way}: the egress proxy answered with {error.status}")
        except aiohttp.ClientResponseError:
            failure = TokenRequestError("malformed", "the response is not valid HTTP")
        except (aiohttp.ClientError, OSError) as error:
            failure = self._unconnected(way, error)
        raise failure

    def _late(self, way: str, progress: _Progress) -> TokenRequestError:
        """Return the failure for a time-out, which names what was waited for."""
        limit = f"within {self._timeout:g} s"
        if progress.lookup is not None:
            host = self._lookups.get(progress.lookup, progress.lookup)
            return TokenRequestError("dns", f"{host}: DNS did not answer {limit}")
        what = "complete response" if progress.connected else "connection"
        return TokenRequestError("timeout", f"{way}: no {what} {limit}")

    def _unconnected(self, way: str, error: Exception) -> TokenRequestError:
        """Return the failure for a connection that was not made, or was lost."""
        tls = _tls_error(error)
        if tls is not None:
            what = "TLS certificate" if isinstance(tls, ssl.SSLCertVerificationError) else "TLS"
            return TokenRequestError(
                "tls", f"{way}: {what}: {reason_for_client(tls)}", tls_fault=tls_fault(tls)
            )
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            host = self._lookups.get(error.host, error.host)
            return TokenRequestError("dns", f"{host}: DNS: {reason_for_client(error.os_error)}")
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            text = f"{way}: no connection to the egress proxy: {reason_for_client(error.os_error)}"
            return TokenRequestError("proxy", text)
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = reason_for_client(error.os_error)
            if isinstance(error.os_error, ConnectionResetError):  # TCP was set up before that.
                return TokenRequestError(
                    "connect", f"{way}: {reason} during the TLS handshake", tls_fault=TlsFault.HANDSHAKE
                )
            return TokenRequestError("connect", f"{way}: no connection: {reason}")
        text = f"{way}: the connection was lost before the response was complete"
        return TokenRequestError("disconnected", text)

    async def _exchange(
        self,
        method: str,
        url: URL,
        fields: Mapping[str, str],
        body: bytes | None,
        *,
        egress: EgressProxy | None,
        progress: _Progress,
    ) -> EndpointAnswer:
        if self._session is None:
            # One request in three quarters of an hour: no connection is worth keeping.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    force_close=True, use_dns_cache=False, resolver=_Resolver(self._lookups)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "application/json", "User-Agent": f"bits-auth-proxy/{__version__}"},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                trace_configs=[_tracing()],
                trust_env=False,
            )
        async with self._session.request(
            method,
            url,
            headers=fields,
            data=body,
            allow_redirects=False,
            proxy=None if egress is None else f"http://{egress}",
            proxy_headers=None if egress is None else _proxy_fields(egress),
            ssl=True if self._context is None else self._context(),
            trace_request_ctx=progress,
        ) as response:
            if response.status in _REDIRECTS:
                target = _origin_of(response.url, response.headers.get("Location"))
                text = f"the response is a redirect ({response.status}){target}, which is not followed"
                raise TokenRequestError("redirect", text)
            content = bytearray()
            async for piece in response.content.iter_chunked(16 * 1024):
                content += piece
                if len(content) > MAX_ANSWER:
                    raise TokenRequestError("malformed", f"the response is larger than {MAX_ANSWER} bytes")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return EndpointAnswer(response.status, headers, bytes(content))
