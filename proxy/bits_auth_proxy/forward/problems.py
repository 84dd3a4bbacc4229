"""One table: what went wrong → status, Proxy-Status error (RFC 9209), problem+json (RFC 9457).

Each response made here has a Proxy-Status field, so that a caller can tell the sidecar's 502 from Bits' own.
"""

import json
from http import HTTPStatus
from typing import Final, final


@final
class Problem:
    """One kind of failure that the proxy itself responds to.

    `code` is stable: metrics, logs and callers may depend on it. `error` is a type from the IANA registry of
    HTTP Proxy Error Types. `rejection` says whether the client is at fault; if so, its connection is closed.
    """

    __slots__ = ("code", "error", "fields", "rejection", "status", "title")

    def __init__(
        self, code: str, status: int, error: str, title: str, *, rejection: bool = False, fields: bytes = b""
    ) -> None:
        self.code: Final = code
        self.status: Final = status
        self.error: Final = error
        self.title: Final = title
        self.rejection: Final = rejection
        self.fields: Final = fields

    def __repr__(self) -> str:
        return f"Problem({self.code})"

    def response(
        self,
        *,
        request_id: bytes,
        detail: str | None = None,
        retry_after: float | None = None,
        head_only: bool = False,
        keep_alive: bool,
        fields: bytes = b"",
    ) -> bytes:
        """Return the whole response. `detail` must be safe to show; `retry_after` is in seconds.

        `fields` are the lines of further header fields.
        """
        body = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        if detail:
            body["detail"] = detail
        if request_id:
            body["request_id"] = request_id.decode("latin-1")
        content = json.dumps(body, separators=(",", ":")).encode()
        lines = [
            b"HTTP/1.1 %d %b\r\n" % (self.status, HTTPStatus(self.status).phrase.encode()),
            b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n" % len(content),
            b"Proxy-Status: bits-auth-proxy; error=%b\r\nCache-Control: no-store\r\n" % self.error.encode(),
            self.fields,
            fields,
        ]
        if request_id:
            lines.append(b"X-Request-ID: %b\r\n" % request_id)
        if retry_after is not None:
            lines.append(b"Retry-After: %d\r\n" % max(1, round(retry_after + 0.5)))
        if not keep_alive:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        if not head_only:
            lines.append(content)
        return b"".join(lines)


def _rejection(
    code: str, status: int, title: str, error: str = "http_request_error", fields: bytes = b""
) -> Problem:
    return Problem(code, status, error, title, rejection=True, fields=fields)


ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
"""The methods that the proxy forwards."""

# The client sent something that the proxy does not forward.
BAD_SYNTAX: Final = _rejection("bad_syntax", 400, "The request is not valid HTTP")
BAD_FRAMING: Final = _rejection("bad_framing", 400, "The length of the request body is not clear")
BAD_CHUNK: Final = _rejection("bad_chunk", 400, "The chunked body is not valid")
BAD_HOST: Final = _rejection("bad_host", 400, "The request must have exactly one valid Host field")
BAD_FIELD: Final = _rejection("bad_field", 400, "A header field is not acceptable")
BAD_TARGET: Final = _rejection("bad_target", 400, "The request target is not acceptable")
AMBIGUOUS_PATH: Final = _rejection("ambiguous_path", 400, "The path could be read in more than one way")
OWN_CREDENTIALS: Final = _rejection(
    "own_credentials", 400, "The request contains its own Authorization field"
)
NOT_ALLOWED: Final = _rejection("denied", 403, "The proxy does not allow this call", "http_request_denied")
CROSS_SITE: Final = _rejection(
    "cross_site", 403, "Requests from web pages of other sites are rejected", "http_request_denied"
)
METHOD_NOT_ALLOWED: Final = _rejection(
    "method_not_allowed", 405, "The proxy does not forward this method", fields=ALLOW
)
REQUEST_TIMEOUT: Final = _rejection("request_timeout", 408, "The request did not arrive in time")
BODY_TOO_LARGE: Final = _rejection("body_too_large", 413, "The request body is too large")
TARGET_TOO_LONG: Final = _rejection("target_too_long", 414, "The request line is too long")
UNKNOWN_EXPECTATION: Final = _rejection(
    "unknown_expectation", 417, "The only supported expectation is 100-continue"
)
MISDIRECTED: Final = _rejection(
    "misdirected", 421, "The proxy does not serve the requested host", "http_request_denied"
)
HEAD_TOO_LARGE: Final = _rejection("head_too_large", 431, "The request's header section is too large")
UNKNOWN_METHOD: Final = _rejection("unknown_method", 501, "The method is unknown")
UNKNOWN_VERSION: Final = _rejection("unknown_version", 505, "Only HTTP/1.1 and HTTP/1.0 are supported")
LOOP: Final = _rejection(
    "loop", 502, "The request has already passed through this proxy", "proxy_loop_detected"
)

# The token.
TOKEN_UNAVAILABLE: Final = Problem(
    "token_unavailable", 503, "destination_unavailable", "There is no valid access token at the moment"
)
CREDENTIALS_DENIED: Final = Problem(
    "credentials_refused",
    503,
    "proxy_configuration_error",
    "The token endpoint denies the proxy's requests for a token",
)

# The Bits API and the connections to it.
DNS_ERROR: Final = Problem("dns_error", 502, "dns_error", "The API's host name could not be resolved")
CONNECTION_REFUSED: Final = Problem(
    "connection_refused", 502, "connection_refused", "The proxy could not connect to the API"
)
EGRESS_PROXY_REFUSED: Final = Problem(
    "egress_proxy_refused",
    502,
    "destination_unavailable",
    "The egress proxy did not open a tunnel to the API",
)
CONNECTION_TIMEOUT: Final = Problem(
    "connection_timeout", 504, "connection_timeout", "Connecting to the API took too long"
)
TLS_ERROR: Final = Problem(
    "tls_error", 502, "tls_protocol_error", "A TLS connection to the API could not be established"
)
TLS_CERTIFICATE: Final = Problem(
    "tls_certificate", 502, "tls_certificate_error", "The API's certificate is not trusted"
)
OVERLOADED: Final = Problem(
    "overloaded", 503, "connection_limit_reached", "All connections to the API are in use"
)
CONNECTION_LOST: Final = Problem(
    "connection_lost", 502, "connection_terminated", "The API closed the connection before it responded"
)
BAD_RESPONSE: Final = Problem(
    "bad_response", 502, "http_protocol_error", "The API's response is not valid HTTP"
)
UPGRADE_FAILED: Final = Problem(
    "upgrade_failed", 502, "http_upgrade_failed", "The API switched to a protocol that was not requested"
)
RESPONSE_TIMEOUT: Final = Problem(
    "response_timeout", 504, "http_response_timeout", "The API did not respond in time"
)
CLIENT_GONE: Final = "client_gone"
"""The code for a client that left before the end. It gets no response, so this is not a `Problem`."""

ALL: Final = tuple(each for each in list(globals().values()) if isinstance(each, Problem))
REJECTION_CODES: Final = tuple(each.code for each in ALL if each.rejection)
"""The codes that blame the client. A problem's code is one of these or one of FAILURE_CODES."""
FAILURE_CODES: Final = (*(each.code for each in ALL if not each.rejection), CLIENT_GONE)
"""The codes of admitted requests that did not end with the API's response, through no fault of their own."""

_BY_REASON: Final = {
    "bad_chunk": BAD_CHUNK,
    "bad_field": BAD_FIELD,
    "bad_framing": BAD_FRAMING,
    "bad_host": BAD_HOST,
    "bad_syntax": BAD_SYNTAX,
    "bad_target": BAD_TARGET,
    "head_too_large": HEAD_TOO_LARGE,
    "line_too_long": TARGET_TOO_LONG,
    "unknown_expectation": UNKNOWN_EXPECTATION,
    "unknown_method": UNKNOWN_METHOD,
    "unknown_version": UNKNOWN_VERSION,
}


def for_malformed_request(reason: str) -> Problem:
    """Return the problem for `MalformedMessage.reason` of a request."""
    return _BY_REASON[reason]
