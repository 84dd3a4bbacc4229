"""What `bits-auth-proxy check` tells the user to change after a step has failed."""

import re
from typing import Final, NamedTuple

from bits_auth_proxy.tls_faults import TlsFault

_CREDENTIALS: Final = (
    "client_id",
    "client_id_file",
    "client_secret",
    "client_secret_file",
    "credentials_dir",
)
_ENDPOINT: Final = ("api_url", "token_url")
_EGRESS: Final = ("https_proxy", "no_proxy")
_SERVER: Final = "{url}"
"""Stands for the variable of the URL that leads to the server in a hint, and for its name in the settings."""


class Remedy(NamedTuple):
    """A hint what to change, and the settings that have to do with it, by dotted name.

    Both may contain `{url}`, which `at` replaces.
    """

    hint: str
    settings: tuple[str, ...]

    def at(self, variable: str) -> "Remedy":
        """Return the remedy for the server whose URL is in `variable`: BITS_API_URL or BITS_TOKEN_URL."""
        name = variable.removeprefix("BITS_").lower()
        settings = (name if each == _SERVER else each for each in self.settings)
        return Remedy(self.hint.replace(_SERVER, variable), tuple(settings))


DNS: Final = Remedy("Correct the host in {url}, or check the DNS of this machine.", (_SERVER,))
CONNECTION: Final = Remedy(
    "Correct {url}, or open the firewall between this machine and its host.", (_SERVER,)
)
EGRESS: Final = Remedy(
    "Correct BITS_HTTPS_PROXY or HTTPS_PROXY, or exempt the API from the proxy with BITS_NO_PROXY.", _EGRESS
)
OWNER: Final = Remedy("BITS_API_URL does not answer /oauth2/userinfo as the Bits API does.", ("api_url",))
CUSTOMER: Final = Remedy(
    "The credentials belong to another customer. Correct them or BITS_EXPECTED_CUSTOMER_ID.",
    ("expected_customer_id", *_CREDENTIALS),
)
UNAUTHORIZED: Final = Remedy(
    "The API does not accept the token. BITS_API_URL and BITS_TOKEN_URL may belong to different "
    "environments.",
    ("api_url", "token_url"),
)
_NO_TLS: Final = Remedy("{url} does not offer TLS 1.2 or newer. Check its host and port.", (_SERVER,))
_BY_TLS: Final = {
    TlsFault.TIME: Remedy(
        "Set this machine's clock, or have the certificate that {url} presents renewed.", (_SERVER,)
    ),
    TlsFault.NAME: Remedy(
        "The certificate that {url} presents is for another host. Correct the host in {url}.", (_SERVER,)
    ),
    TlsFault.FORM: Remedy(
        "The certificate that {url} presents, or that of its authority (BITS_UPSTREAM__CA_FILE), does not "
        "have the form that verification requires. Issue it again; an authority needs basicConstraints with "
        "CA:TRUE, and keyCertSign in its keyUsage.",
        (_SERVER, "upstream.ca_file"),
    ),
    TlsFault.TRUST: Remedy(
        "If your own certificate authority has issued the certificate that {url} presents, name the "
        "authority's file in BITS_UPSTREAM__CA_FILE. Otherwise, something between this machine and the "
        "server intercepts TLS.",
        (_SERVER, "upstream.ca_file"),
    ),
    TlsFault.VERSION: _NO_TLS,
    TlsFault.NOT_TLS: _NO_TLS,
    TlsFault.CLIENT_CERTIFICATE: Remedy(
        "Name a client certificate that {url} accepts in BITS_UPSTREAM__CLIENT_CERT, and its key in "
        "BITS_UPSTREAM__CLIENT_KEY.",
        (_SERVER, "upstream.client_cert", "upstream.client_key"),
    ),
    TlsFault.HANDSHAKE: Remedy(
        "{url} requires a client certificate (BITS_UPSTREAM__CLIENT_CERT), or offers no cipher suite with "
        "forward secrecy and authenticated encryption (ECDHE with AES-GCM or ChaCha20-Poly1305), or "
        "something in between cuts the connection.",
        (_SERVER, "upstream.client_cert", "upstream.client_key"),
    ),
    TlsFault.OTHER: _NO_TLS,
}
_SCOPE: Final = Remedy(
    "Change BITS_SCOPE, leave it out, or ask Bits to grant this client the scope.", ("scope",)
)
_NO_ENDPOINT: Final = Remedy(
    "{url} does not lead to a token endpoint. BITS_TOKEN_URL names one; without it, it is /v1/oauth2/token "
    "at BITS_API_URL.",
    _ENDPOINT,
)
_REDIRECT: Final = Remedy(
    "{url} leads to an address that sends requests elsewhere. BITS_TOKEN_URL must name the token endpoint "
    "itself.",
    _ENDPOINT,
)
_UNCLEAR: Final = Remedy(
    "The response does not say why. BITS_CLIENT_ID and BITS_CLIENT_SECRET (or their files) may not be a pair "
    "that this API knows, {url} may not lead to its token endpoint, or something in front of it requires a "
    "client certificate (BITS_UPSTREAM__CLIENT_CERT).",
    (*_CREDENTIALS, *_ENDPOINT),
)
_FORBIDDEN: Final = Remedy(
    "The server, or something in front of it, forbids the request. Ask Bits whether this client and the "
    "address of this machine are allowed to make it.",
    _ENDPOINT,
)
_BY_CODE: Final = {
    "invalid_scope": _SCOPE,
    "invalid_request": Remedy(
        "The token endpoint does not understand the request. Check BITS_TOKEN_URL and BITS_SCOPE.",
        (*_ENDPOINT, "scope"),
    ),
    "unauthorized_client": Remedy(
        "The token endpoint does not allow this client the grant client_credentials. Ask Bits to allow it.",
        (),
    ),
    "unsupported_grant_type": Remedy(
        "The token endpoint does not know the grant client_credentials. Check BITS_TOKEN_URL.", _ENDPOINT
    ),
}
"""By error code of RFC 6749 section 5.2; of the others, the pair is the likeliest cause."""
_BY_KIND: Final = {
    "refused": Remedy(
        "BITS_CLIENT_ID and BITS_CLIENT_SECRET (or their files) are not a pair that this API knows. "
        "Compare them with what you received from Bits.",
        (*_CREDENTIALS, *_ENDPOINT),
    ),
    "scope": _SCOPE,
    "redirect": _REDIRECT,
    "malformed": _NO_ENDPOINT,
    "status": _NO_ENDPOINT,
    "throttled": Remedy("Wait before you try again.", ()),
    "server_error": Remedy(
        "The request has reached the server, and the fault is on its side. Try again later; if the fault "
        "persists, ask Bits.",
        (),
    ),
    "proxy": Remedy(
        "The egress proxy (BITS_HTTPS_PROXY or HTTPS_PROXY) does not let requests reach {url}.",
        (*_EGRESS, *_ENDPOINT),
    ),
    "dns": DNS,
    "connect": CONNECTION,
    "timeout": Remedy(
        "{url} does not respond in time. Correct it, or check firewalls and the server itself.", (_SERVER,)
    ),
    "disconnected": Remedy(
        "The server at {url}, or something in between, closes the connection. The server may require a "
        "client certificate (BITS_UPSTREAM__CLIENT_CERT); firewalls and proxies may cut connections.",
        (_SERVER, *_EGRESS),
    ),
}
_OTHERWISE: Final = Remedy(
    "Check the connection to {url}: DNS, firewalls and proxies.", (*_ENDPOINT, *_EGRESS)
)
_WORD: Final = re.compile(r"\w+")


def for_tls(fault: TlsFault, *, variable: str) -> Remedy:
    """Return the remedy for a TLS connection that failed; `variable` holds the server's URL."""
    return _BY_TLS[fault].at(variable)


def for_token_request(kind: str, detail: str, *, variable: str, tls_fault: TlsFault | None = None) -> Remedy:
    """Return the remedy for a failed token request.

    `kind`, `detail` and `tls_fault` are those of TokenRequestError; `variable` leads to the token endpoint.
    """
    if kind == "tls" or tls_fault is not None:
        return for_tls(tls_fault or TlsFault.OTHER, variable=variable)
    words = _WORD.findall(detail)
    if kind == "status" and "403" in words:
        return _FORBIDDEN
    remedy = next((_BY_CODE[word] for word in words if word in _BY_CODE), None)
    if remedy is None and kind == "refused" and "400" in words and "invalid_client" not in words:
        remedy = _UNCLEAR
    return (remedy or _BY_KIND.get(kind, _OTHERWISE)).at(variable)


def for_userinfo_request(kind: str, detail: str, *, tls_fault: TlsFault | None = None) -> Remedy:
    """Return the remedy for a failed userinfo request, with what TokenRequestError says of it."""
    if kind == "refused" and "401" in _WORD.findall(detail):
        return UNAUTHORIZED
    if kind in ("refused", "redirect", "malformed") or (kind == "status" and "403" not in detail):
        return OWNER
    return for_token_request(kind, detail, variable="BITS_API_URL", tls_fault=tls_fault)
