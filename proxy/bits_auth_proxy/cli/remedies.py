"""What `bits-auth-proxy check` tells the user to change after a step has failed."""

from typing import Final, NamedTuple

_CREDENTIALS: Final = (
    "client_id",
    "client_id_file",
    "client_secret",
    "client_secret_file",
    "credentials_dir",
)
_ENDPOINT: Final = ("api_url", "token_url")
_EGRESS: Final = ("https_proxy", "no_proxy")


class Remedy(NamedTuple):
    """A hint what to change, and the settings that have to do with it, by dotted name."""

    hint: str
    settings: tuple[str, ...]


DNS: Final = Remedy("Correct the host in BITS_API_URL, or check the DNS of this machine.", ("api_url",))
CONNECTION: Final = Remedy(
    "Correct BITS_API_URL, or open the firewall between this machine and the API.", ("api_url",)
)
TLS: Final = Remedy("BITS_API_URL does not offer TLS 1.2 or newer. Check its port.", ("api_url",))
CERTIFICATE_TIME: Final = Remedy(
    "Set this machine's clock, or renew the certificate that BITS_API_URL presents.", ("api_url",)
)
TRUST: Final = Remedy(
    "If your own certificate authority has issued the server's certificate, name the authority's file in "
    "BITS_UPSTREAM__CA_FILE. Otherwise, something between this machine and the API intercepts TLS.",
    ("api_url", "upstream.ca_file"),
)
EGRESS: Final = Remedy(
    "Correct BITS_HTTPS_PROXY or HTTPS_PROXY, or exempt the API from the proxy with BITS_NO_PROXY.", _EGRESS
)
OWNER: Final = Remedy("BITS_API_URL does not answer /oauth2/userinfo as the Bits API does.", ("api_url",))
_SCOPE: Final = Remedy(
    "Change BITS_SCOPE, leave it out, or ask Bits to grant this client the scope.", ("scope",)
)
_NO_ENDPOINT: Final = Remedy(
    "BITS_TOKEN_URL is not the address of a token endpoint. Leave it out to use that of BITS_API_URL.",
    _ENDPOINT,
)
_BY_KIND: Final = {
    "refused": Remedy(
        "BITS_CLIENT_ID and BITS_CLIENT_SECRET (or their files) are not a pair that this API knows. "
        "Compare them with what you received from Bits.",
        (*_CREDENTIALS, *_ENDPOINT),
    ),
    "scope": _SCOPE,
    "redirect": _NO_ENDPOINT,
    "malformed": _NO_ENDPOINT,
    "status": _NO_ENDPOINT,
    "throttled": Remedy("Wait before you try again.", ()),
    "proxy": Remedy(
        "The egress proxy (BITS_HTTPS_PROXY or HTTPS_PROXY) does not let requests reach BITS_TOKEN_URL.",
        (*_EGRESS, *_ENDPOINT),
    ),
    "tls": TRUST,
}
_OTHERWISE: Final = Remedy(
    "Check the connection to BITS_TOKEN_URL: DNS, firewalls and proxies.", (*_ENDPOINT, *_EGRESS)
)


def for_token_request(kind: str, detail: str) -> Remedy:
    """Return the remedy for a failed token request; `kind` and `detail` are those of TokenRequestError."""
    return _SCOPE if "invalid_scope" in detail else _BY_KIND.get(kind, _OTHERWISE)
