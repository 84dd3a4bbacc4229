"""Every event of the log: its name, levels, meaning and fields."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bits_auth_proxy.telemetry.repeat_limit import BURST, WINDOW


class Event(NamedTuple):
    """An event. `levels` are all it may have; `fields` maps names to meanings."""

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, str] = {}


_SECONDS: Final = "how long it took"

# Requests.
REQUEST: Final = Event(
    "request",
    ("info", "warning"),
    "A request has ended. A warning where the status is 5xx or the proxy met a problem. "
    "`BITS_ACCESS_LOG` says which requests are logged.",
    {
        "request_id": "X-Request-ID, the client's or a new one",
        "operation": "the last segment of the path, such as applications.create, or other",
        "method": "of HTTP",
        "status": "sent to the client; 499 if it left before there was one",
        "seconds": "from the request's head to the end of the response",
        "upstream_seconds": "from sending the head to the API's final head; null if there was none",
        "token_wait_seconds": "how long it waited for a token",
        "request_bytes": "of content",
        "response_bytes": "of content",
        "problem": "the problem's code, where the end was not the API's answer",
        "trace_id": "of a valid traceparent",
    },
)
REQUEST_REJECTED: Final = Event(
    "request_rejected",
    ("info",),
    "A request was refused as the client's fault.",
    {
        "request_id": "as in the answer",
        "reason": "the problem's code",
        "peer": "the client's address, or unix",
    },
)

HANDSHAKE_FAILED: Final = Event(
    "tls_handshake_failed",
    ("info",),
    "A client's TLS handshake failed, so there was no request.",
    {"detail": "why, in OpenSSL's words", "peer": "the client's address"},
)

# The way to the API.
CONNECT_FAILED: Final = Event(
    "upstream_connect_failed",
    ("warning",),
    "No connection to the API could be made.",
    {"outcome": "the problem's code", "detail": "what the system says", "seconds": _SECONDS},
)

# The token.
TOKEN_REFRESHED: Final = Event(
    "token_refreshed",
    ("info",),
    "There is a new token.",
    {
        "reason": "why it was asked for",
        "fingerprint": "of the token: the first 8 hex digits of its SHA-256",
        "lifetime": "in seconds, as granted",
        "scope": "as granted",
        "seconds": _SECONDS,
    },
)
TOKEN_REFRESH_FAILED: Final = Event(
    "token_refresh_failed",
    ("warning", "error"),
    "A token request failed. An error if the credentials were refused or no valid token is in hand.",
    {
        "reason": "why a token was asked for",
        "kind": "what failed, as in token_refresh_failures_total",
        "detail": "what the endpoint or the system says",
        "seconds": _SECONDS,
        "failures": "how many in a row",
        "token": "the state of the token in hand",
    },
)
TOKEN_UNAUTHORIZED: Final = Event(
    "token_refused",
    ("warning",),
    "The API answered 401 to the token in hand. Another one is asked for.",
    {"fingerprint": "of the token"},
)
LIFETIME_ASSUMED: Final = Event(
    "token_lifetime_assumed",
    ("warning",),
    "The token endpoint did not say how long the token lives.",
    {"lifetime": "what is assumed, in seconds"},
)

# Credentials.
CREDENTIALS_CHANGED: Final = Event(
    "credentials_changed", ("info",), "The credential files hold another pair. It is tried at once."
)
CREDENTIALS_UNREADABLE: Final = Event(
    "credentials_unreadable",
    ("warning",),
    "A credential file is missing, empty or not readable. What was read before stays in use. "
    "Told once, until all can be read again.",
    {"detail": "which, and why"},
)
CREDENTIALS_EXPOSED: Final = Event(
    "credentials_readable_by_others",
    ("warning",),
    "Any user of this machine may read the secret, or the private key.",
    {"file": "which holds it"},
)

# The listener's certificate.
CERTIFICATE_CHANGED: Final = Event(
    "listen_certificate_changed",
    ("info",),
    "The files of `BITS_LISTEN_TLS__*` have changed. New connections are shown the new certificate.",
)
CERTIFICATE_UNUSABLE: Final = Event(
    "listen_certificate_refused",
    ("error",),
    "These files have changed and can't be used. What was read before stays in use.",
    {"detail": "which, and why"},
)

# The process.
SETTING_UNKNOWN: Final = Event(
    "setting_unknown", ("warning",), "A BITS_ variable is no setting.", {"detail": "which, and the nearest"}
)
INSPECTING: Final = Event(
    "inspecting",
    ("warning",),
    "`BITS_INSPECT` is on: headers and bodies of the last requests are kept, masked.",
    {"mask": "words of the names that are masked, besides credentials"},
)
STARTED: Final = Event(
    "started",
    ("info",),
    "The proxy serves.",
    {
        "version": "of the proxy",
        "listen": "where clients call",
        "tls": "whether they must speak TLS on TCP addresses",
        "admin": "where probes, metrics and status are",
        "api": "the API's origin",
    },
)
DRAINING: Final = Event("draining", ("info",), "Shutdown has begun.", {"clients": "that are connected"})
STOPPED: Final = Event(
    "stopped", ("info",), "Shutdown is over.", {"cut": "connections whose request had not ended"}
)
LOG_LEVEL_CHANGED: Final = Event(
    "log_level_changed", ("warning",), "An operator changed the log level.", {"before": "", "now": ""}
)
REPEATS_SUPPRESSED: Final = Event(
    "repeats_suppressed",
    ("warning",),
    f"More than {BURST} lines of one kind within {WINDOW:g} s: the rest were counted, not written.",
    {"of": "the event", "kind": "what they had in common", "count": "of lines that were not written"},
)
CRASHED: Final = Event(
    "internal_error",
    ("error",),
    "An exception where none should be: a bug. The proxy goes on.",
    {"exception": "the traceback"},
)
DIED: Final = Event(
    "crashed", ("critical",), "An exception ended the process: a bug.", {"exception": "the traceback"}
)

EVENTS: Final = tuple(each for each in list(globals().values()) if isinstance(each, Event))


def as_markdown() -> str:
    """Return all events with their fields, for the documentation."""
    blocks = []
    for event in EVENTS:
        levels = " or ".join(f"`{level}`" for level in event.levels)
        rows = [f"### `{event.name}`", "", f"{levels}. {event.meaning}"]
        if event.fields:
            rows += ["", "| field | what |", "| --- | --- |"]
            rows += [f"| `{name}` | {meaning} |" for name, meaning in event.fields.items()]
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)
