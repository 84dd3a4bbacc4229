"""Which fields a gateway does not pass on, by their lower-case names.

ParseCache from the name alone, this is worked out once for each line that repeats. What else depends on the
message (names that Connection lists, the client's own credentials) is decided with it.
"""

from typing import Final

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Meant for the next hop alone (RFC 9110 section 7.6.1)."""

# Written anew, answered here, or telling a third party about the inside of this network.
_REQUEST: Final = HOP_BY_HOP | frozenset(
    (b"content-length", b"expect", b"forwarded", b"host", b"http2-settings", b"x-real-ip", b"x-request-id")
)
_REQUEST_PREFIX: Final = b"x-forwarded-"
# Alt-Svc and Strict-Transport-Security speak of the API's origin, not of this one.
_RESPONSE: Final = (HOP_BY_HOP - {b"trailer"}) | frozenset((b"alt-svc", b"strict-transport-security"))


def ends_with_request(name: bytes) -> bool:
    """Tell whether a request's field goes no further than here."""
    return name in _REQUEST or name.startswith(_REQUEST_PREFIX)


def ends_with_response(name: bytes) -> bool:
    """Tell whether a response's field goes no further than here."""
    return name in _RESPONSE
