"""Every event of the log: its name, levels, meaning and fields."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bits_auth_proxy.telemetry.repeat_limit import BURST, WINDOW


class Event(NamedTuple):
    """An event. `levels` are all the levels that it can have; `fields` maps names to meanings."""

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: Mapping[str, str] = {}


_SECONDS: Final = "how many seconds it took"
_CLIENT_ID: Final = "the client id of the credentials that were used"

# Requests.
REQUEST: Final = Event(
    "request",
    ("info", "warning"),
    "A request has ended. The level is warning if the status is 5xx or the proxy met a problem. "
    "`BITS_ACCESS_LOG` decides which requests are logged.",
    {
        "request_id": "the X-Request-ID that the client sent, or a new one",
        "operation": "the last segment of the path, such as applications.create, or other",
        "method": "the HTTP method",
        "status": "the status sent to the client, or 499 if the client left before there was one",
        "seconds": "how many seconds passed from the request's head to the end of the response",
        "upstream_seconds": "how many seconds passed from sending the head to the head of the API's final "
        "response, or null if there was none",
        "token_wait_seconds": "how many seconds the request waited for a token",
        "request_bytes": "the size of the request's content",
        "response_bytes": "the size of the response's content",
        "problem": "the problem's code, if the request did not end with the API's response",
        "trace_id": "the trace id of a valid traceparent",
    },
)
REQUEST_REJECTED: Final = Event(
    "request_rejected",
    ("info",),
    "The proxy rejected a request because the client was at fault.",
    {
        "request_id": "the X-Request-ID of the response",
        "reason": "the problem's code",
        "peer": "the client's address, or unix for a Unix socket",
        "detail": "what exactly is wrong, if the response says so",
    },
)

AUTHORIZATION_REPLACED: Final = Event(
    "client_authorization_replaced",
    ("info",),
    "The proxy's token took the place of an Authorization field that the client sent, because "
    "`BITS_CLIENT_AUTHORIZATION` is `replace`.",
    {
        "request_id": "the request's X-Request-ID",
        "operation": "the operation, as in the event `request`",
    },
)
AUTHORIZATION_UNAUTHORIZED: Final = Event(
    "client_authorization_unauthorized",
    ("warning",),
    "The API answered 401 to an Authorization field that the client sent. The proxy's token has no part in "
    "it.",
    {
        "request_id": "the request's X-Request-ID",
        "operation": "the operation, as in the event `request`",
        "hint": "what to change if the proxy's token is meant",
    },
)

HANDSHAKE_FAILED: Final = Event(
    "tls_handshake_failed",
    ("info",),
    "The TLS handshake with a client failed, so there was no request.",
    {"detail": "the reason, usually in OpenSSL's words", "peer": "the client's address"},
)

# Connections to the API.
CONNECT_FAILED: Final = Event(
    "upstream_connect_failed",
    ("warning",),
    "The proxy could not connect to the API.",
    {"outcome": "the problem's code", "detail": "the reason that the system reported", "seconds": _SECONDS},
)

# The token.
TOKEN_REFRESHED: Final = Event(
    "token_refreshed",
    ("info",),
    "The proxy has obtained a new token.",
    {
        "reason": "why the token was requested",
        "fingerprint": "the first 8 hex digits of the token's SHA-256",
        "lifetime": "the granted lifetime in seconds",
        "scope": "the granted scope",
        "seconds": _SECONDS,
        "client_id": _CLIENT_ID,
    },
)
TOKEN_REFRESH_FAILED: Final = Event(
    "token_refresh_failed",
    ("warning", "error"),
    "A token request failed. The level is error if the request was denied or there is no valid token.",
    {
        "reason": "why a token was requested",
        "kind": "the kind of failure, as in token_refresh_failures_total",
        "detail": "the reason that the token endpoint or the system reported",
        "seconds": _SECONDS,
        "failures": "the number of failures in a row",
        "token": "the state of the current token",
        "client_id": _CLIENT_ID,
    },
)
TOKEN_UNAUTHORIZED: Final = Event(
    "token_refused",
    ("warning",),
    "The API answered 401 to the current token, which it should accept. If it accepted the token before, the "
    "proxy requests another one. If the token is new, the proxy uses the previous one and tries the new one "
    "again. It logs this once for each token.",
    {"fingerprint": "the token's fingerprint"},
)
TOKENS_DIE_EARLY: Final = Event(
    "tokens_refused_early",
    ("error",),
    "The API has refused several tokens in a row that it had accepted, before they were due for refresh. "
    "Something revokes them: often another program with the same credentials, if only the newest token is "
    "valid.",
    {"count": "the number of such tokens in a row"},
)
LIFETIME_ASSUMED: Final = Event(
    "token_lifetime_assumed",
    ("warning",),
    "The token endpoint did not say how long the token lives.",
    {"lifetime": "the assumed lifetime in seconds"},
)

# Credentials.
CREDENTIALS_CHANGED: Final = Event(
    "credentials_changed",
    ("info",),
    "The credential files contain another pair. The proxy tries it immediately. The pair in use remains "
    "in use until the new one has brought a token, which `credentials_adopted` reports.",
)
CREDENTIALS_ADOPTED: Final = Event(
    "credentials_adopted",
    ("info",),
    "The new pair has brought a token and is in use from now on. Only now can the old secret be revoked.",
    {"client_id": "the client id of the new pair"},
)
CREDENTIALS_UNREADABLE: Final = Event(
    "credentials_unreadable",
    ("warning",),
    "A credential file is missing, empty or unreadable, or reading it hangs. The pair that was read before "
    "stays in use. This is logged once for each reason, until all files can be read again.",
    {"detail": "which, and why"},
)
CREDENTIALS_UNUSUAL: Final = Event(
    "credentials_unusual",
    ("warning",),
    "The pair can be used, but the client id or the secret looks like a slip: it is in quotes, there is a "
    "colon in the client id, or its file begins with a byte order mark, which is dropped.",
    {"detail": "which, and why; the value is not shown"},
)
CREDENTIALS_AWAITED: Final = Event(
    "credentials_awaited",
    ("warning",),
    "The credential files can't be read at the start. The proxy waits for them, as `BITS_CREDENTIALS_WAIT` "
    "says. This is logged again if the reason changes.",
    {"detail": "which, and why"},
)
CREDENTIALS_EXPOSED: Final = Event(
    "credentials_readable_by_others",
    ("warning",),
    "Any user of this machine can read the secret or the private key.",
    {"file": "the file that contains it", "mode": "the file's permissions, in octal"},
)

# The listener's certificate.
CERTIFICATE_CHANGED: Final = Event(
    "listen_certificate_changed",
    ("info",),
    "The files of `BITS_LISTEN_TLS__*` have changed. New connections get the new certificate.",
)
CERTIFICATE_UNUSABLE: Final = Event(
    "listen_certificate_refused",
    ("error",),
    "The files of `BITS_LISTEN_TLS__*` have changed and can't be used. The previous ones stay in use.",
    {"detail": "which, and why"},
)

# The TLS files of connections to the API.
UPSTREAM_CERTIFICATE_CHANGED: Final = Event(
    "upstream_certificate_changed",
    ("info",),
    "The files of `BITS_UPSTREAM__CA_FILE`, `__CLIENT_CERT` or `__CLIENT_KEY` have changed. New connections "
    "to the API and to the token endpoint use them.",
)
UPSTREAM_CERTIFICATE_UNUSABLE: Final = Event(
    "upstream_certificate_refused",
    ("error",),
    "The files of `BITS_UPSTREAM__CA_FILE`, `__CLIENT_CERT` or `__CLIENT_KEY` have changed and can't be "
    "used. The previous ones stay in use.",
    {"detail": "which, and why"},
)

# The process.
SETTING_UNKNOWN: Final = Event(
    "setting_unknown",
    ("warning",),
    "A variable with the prefix BITS_ is not a setting.",
    {"detail": "the variable and the nearest setting"},
)
CLIENT_LIMIT_LOWERED: Final = Event(
    "client_limit_lowered",
    ("warning",),
    "The process may open too few files for `BITS_LIMITS__MAX_CONNECTIONS`, so it accepts fewer clients at a "
    "time. Raise the hard limit of open files (RLIMIT_NOFILE), or lower the setting.",
    {
        "limit": "how many clients it accepts",
        "wanted": "the value of the setting",
        "descriptors": "how many files the process may open",
    },
)
ALLOWED_HOSTS_UNSET: Final = Event(
    "allowed_hosts_unset",
    ("warning",),
    "Other machines can reach a listener, and `BITS_ALLOWED_HOSTS` is not set. So that web pages that rebind "
    "DNS read nothing, GET, HEAD and OPTIONS requests are answered with 421 under every host name that "
    "somebody may have registered.",
    {"listen": "the listener's address"},
)
INSPECTING: Final = Event(
    "inspecting",
    ("warning",),
    "`BITS_INSPECT` is on: the proxy keeps the headers and bodies of the last requests, masked.",
    {"mask": "values whose name contains one of these words are masked; credentials always are"},
)
STARTED: Final = Event(
    "started",
    ("info",),
    "The proxy has started to serve.",
    {
        "version": "the proxy's version",
        "listen": "the addresses that clients call",
        "tls": "whether clients must use TLS on TCP addresses",
        "admin": "the addresses of the probes, the metrics and the status",
        "api": "the API's origin",
        "token_url": "where the proxy requests tokens; a query is masked",
    },
)
DRAINING: Final = Event(
    "draining", ("info",), "Shutdown has begun.", {"clients": "the number of connected clients"}
)
STOPPED: Final = Event(
    "stopped",
    ("info",),
    "Shutdown is complete.",
    {"cut": "the number of connections that were cut before their request had ended"},
)
LOG_LEVEL_CHANGED: Final = Event(
    "log_level_changed",
    ("warning",),
    "An operator changed the log level.",
    {"before": "the previous level", "now": "the new level"},
)
REPEATS_SUPPRESSED: Final = Event(
    "repeats_suppressed",
    ("warning",),
    f"There were more than {BURST} lines of one kind within {WINDOW:g} s. The rest were counted but not "
    "written.",
    {"of": "the event", "kind": "what the lines had in common", "count": "the number of lines left out"},
)
LOG_LINES_DROPPED: Final = Event(
    "log_lines_dropped",
    ("warning",),
    "Lines were dropped, because the log's reader was too slow or gone, or the disk was full. Now lines can "
    "be written again.",
    {"count": "the number of lines dropped since the last such line"},
)
CRASHED: Final = Event(
    "internal_error",
    ("error",),
    "An unexpected exception occurred. This is a bug. The proxy continues to run.",
    {"exception": "the traceback"},
)
DIED: Final = Event(
    "crashed",
    ("critical",),
    "An unexpected exception ended the process. This is a bug.",
    {"exception": "the traceback"},
)

EVENTS: Final = tuple(each for each in list(globals().values()) if isinstance(each, Event))


def as_markdown() -> str:
    """Return all events with their fields, for the documentation."""
    blocks = []
    for event in EVENTS:
        levels = " or ".join(f"`{level}`" for level in event.levels)
        rows = [f"### `{event.name}`", "", f"{levels}. {event.meaning}"]
        if event.fields:
            rows += ["", "| field | meaning |", "| --- | --- |"]
            rows += [f"| `{name}` | {meaning} |" for name, meaning in event.fields.items()]
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)
