"""Every metric: name, type, meaning and labels; and how numbers become families, JSON and documentation.

Labels are bounded. If all label values are known, counters start at 0, so the first event is an increase.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from bits_auth_proxy.auth.bits_oauth import FAILURE_KINDS
from bits_auth_proxy.auth.lifecycle import Reason
from bits_auth_proxy.auth.tokens import TokenState
from bits_auth_proxy.forward import problems

MAX_OPERATIONS: Final = 100
MAX_OPERATION_NAME: Final = 64
"""Characters of an operation's name. The name of Bits' longest operation has half as many."""
OTHER: Final = "other"
TLS_HANDSHAKE: Final = "tls_handshake"
"""The reason under which a client's failed handshake is counted among the rejected requests."""
METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", OTHER)
_PREFIX: Final = "bits_proxy_"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Counts durations, in seconds, by bucket."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the upper bound of each bucket and the count of durations up to it."""
        running = 0
        rows = []
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


class Family(NamedTuple):
    """A metric. `name` lacks the prefix, and a counter's `_total`.

    `labels` maps names to all possible values, or to none if these can't be listed.
    """

    kind: str
    name: str
    meaning: str
    labels: Mapping[str, tuple[str, ...]] = {}

    def zeros(self) -> Counter[Any]:
        """Return a count of 0 for each combination of the labels' values."""
        combinations = product(*self.labels.values())
        return Counter(dict.fromkeys((each if len(each) > 1 else each[0] for each in combinations), 0))

    def of(self, value: float | Histogram) -> Metric:
        """Return the family with a single value."""
        return self.by({(): value})

    def by(self, values: Mapping[Any, float | Histogram]) -> Metric:
        """Return the family with `values` by label values: a string for one label, a tuple for several."""
        family = _KINDS[self.kind](_PREFIX + self.name, self.meaning, labels=self.labels)
        for key, value in values.items():
            labels = (key,) if isinstance(key, str) else key
            if isinstance(value, Histogram):
                family.add_metric(labels, value.cumulative(), value.total)
            else:
                family.add_metric(labels, value)
        return family  # type: ignore[no-any-return]  # one of _KINDS


_KINDS: Final[Mapping[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


# The token.
TOKEN_STATE: Final = Family(
    "gauge",
    "token_state",
    "1 for the current state of the token, 0 for all other states.",
    {"state": tuple(each.value for each in TokenState)},
)
TOKEN_EXPIRES: Final = Family(
    "gauge",
    "token_expires_timestamp_seconds",
    "When the current token stops being used: its end less the safety margin. Absent before the first token.",
)
TOKEN_ISSUED: Final = Family(
    "gauge",
    "token_issued_timestamp_seconds",
    "When the current token was requested. Absent before the first token.",
)
TOKEN_NEXT_REFRESH: Final = Family(
    "gauge", "token_next_refresh_timestamp_seconds", "When the next token request is due."
)
TOKEN_REFRESHES: Final = Family(
    "counter",
    "token_refreshes",
    "Token requests by outcome and reason.",
    {"outcome": ("success", "failure"), "reason": tuple(each.value for each in Reason)},
)
TOKEN_REFRESH_FAILURES: Final = Family(
    "counter",
    "token_refresh_failures",
    "Failed token requests by kind of failure.",
    {"kind": FAILURE_KINDS},
)
TOKEN_REFRESH_DURATION: Final = Family(
    "histogram", "token_refresh_duration_seconds", "Duration of token requests, including failed ones."
)
CONSECUTIVE_FAILURES: Final = Family(
    "gauge",
    "token_refresh_consecutive_failures",
    "Failed token requests since the last successful one.",
)
CREDENTIALS_DENIED: Final = Family(
    "gauge",
    "token_credentials_refused",
    "1 once the token endpoint has denied three or more token requests in a row, otherwise 0.",
)
CREDENTIALS_CHANGES: Final = Family(
    "counter", "credentials_changes", "Changes of the client id or the client secret in the credential files."
)
CREDENTIALS_READ_FAILURES: Final = Family(
    "counter",
    "credentials_read_failures",
    "Checks of the credential files, one every 5 s, that found a file missing, empty or unreadable.",
)
TOKEN_UNAUTHORIZED: Final = Family(
    "counter",
    "token_refused",
    "Current tokens that the API answered with 401 before they expired, once each.",
)
TOKENS_DIE_EARLY: Final = Family(
    "counter",
    "tokens_refused_early",
    "Tokens that the API accepted and then refused before they were due, from the third in a row.",
)
TOKEN_FORBIDDEN: Final = Family(
    "counter",
    "token_forbidden",
    "Responses with status 403 to calls with a token that the API had not accepted before.",
)
CREDENTIALS_CANDIDATE: Final = Family(
    "gauge",
    "credentials_candidate_timestamp_seconds",
    "When the credential files brought a pair that is not in use yet. Absent if there is none.",
)
TOKEN_WAIT: Final = Family(
    "histogram",
    "token_wait_duration_seconds",
    "Time that requests waited for a token: only those that had to wait, including those that got none.",
)

# Requests.
REQUESTS: Final = Family(
    "counter",
    "requests",
    "Requests that were accepted for forwarding and have ended, by the status sent to the client. Statuses "
    "that are not registered are counted by class, such as 4xx.",
    {"operation": (), "method": METHODS, "status": ()},
)
REQUEST_DURATION: Final = Family(
    "histogram",
    "request_duration_seconds",
    "Time from a request's head to the end of its response or of its tunnel.",
    {"operation": ()},
)
UPSTREAM_DURATION: Final = Family(
    "histogram",
    "upstream_duration_seconds",
    "Time from sending a request's head to the head of the API's final response.",
    {"operation": ()},
)
IN_FLIGHT: Final = Family("gauge", "requests_in_flight", "Requests that are being forwarded.")
REQUEST_PROBLEMS: Final = Family(
    "counter",
    "request_problems",
    "Requests that were accepted for forwarding but did not end with the API's response, by problem.",
    {"problem": problems.FAILURE_CODES},
)
REJECTED: Final = Family(
    "counter",
    "rejected_requests",
    "Requests that the proxy rejected because the client was at fault, by reason.",
    {"reason": (*problems.REJECTION_CODES, TLS_HANDSHAKE)},
)
CLIENT_AUTHORIZATION: Final = Family(
    "counter",
    "client_authorization",
    "Requests that brought their own Authorization field, by what the proxy did with it.",
    {"handling": ("kept", "replaced", "rejected")},
)
CLIENT_UNAUTHORIZED: Final = Family(
    "counter",
    "client_authorization_unauthorized",
    "Requests whose own Authorization field was kept and that the API answered with 401.",
)
RETRIES: Final = Family(
    "counter", "retries", "Requests sent again, by reason.", {"reason": ("token_refused", "connection_lost")}
)
REQUEST_BYTES: Final = Family("counter", "request_bytes", "Size of the content of requests, in bytes.")
RESPONSE_BYTES: Final = Family("counter", "response_bytes", "Size of the content of responses, in bytes.")

# Connections.
CLIENT_CONNECTIONS: Final = Family("gauge", "client_connections", "Client connections.")
CLIENT_LIMIT: Final = Family(
    "gauge",
    "client_connections_limit",
    "Maximum number of client connections. Further connections wait to be accepted.",
)
CERTIFICATE_RELOADS: Final = Family(
    "counter",
    "listen_certificate_reloads",
    "Changes of the listener's certificate files, by whether the new files could be used.",
    {"outcome": ("success", "failure")},
)
UPSTREAM_CERTIFICATE_RELOADS: Final = Family(
    "counter",
    "upstream_certificate_reloads",
    "Changes of the CA file and of the client certificate for connections to the API, by whether the new "
    "files could be used.",
    {"outcome": ("success", "failure")},
)
UPSTREAM_CONNECTIONS: Final = Family(
    "gauge",
    "upstream_connections",
    "Connections to the API by state.",
    {"state": ("active", "idle", "connecting")},
)
UPSTREAM_LIMIT: Final = Family(
    "gauge", "upstream_connections_limit", "Maximum number of connections to the API."
)
QUEUE_LENGTH: Final = Family("gauge", "upstream_queue_length", "Requests that are waiting for a connection.")
QUEUE_LIMIT: Final = Family(
    "gauge",
    "upstream_queue_limit",
    "Maximum number of requests that may wait for a connection. Further requests get 503.",
)
CONNECTS: Final = Family(
    "counter",
    "upstream_connects",
    "Attempts to connect to the API by outcome.",
    {
        "outcome": (
            "ok",
            *(
                each.code
                for each in (
                    problems.DNS_ERROR,
                    problems.CONNECTION_REFUSED,
                    problems.EGRESS_PROXY_REFUSED,
                    problems.CONNECTION_TIMEOUT,
                    problems.TLS_ERROR,
                    problems.TLS_CERTIFICATE,
                )
            ),
        )
    },
)
CONNECT_DURATION: Final = Family(
    "histogram",
    "upstream_connect_duration_seconds",
    "Time taken to connect to the API, with DNS, TCP, egress proxy and TLS, including failed attempts.",
)

# The proxy itself.
INTERNAL_ERRORS: Final = Family(
    "counter", "internal_errors", "Unexpected exceptions. Each one is in the log."
)
LOG_SUPPRESSED: Final = Family(
    "counter",
    "log_lines_suppressed",
    "Log lines that were not written because there were too many similar ones, by event.",
    {"event": ()},
)
LOG_DROPPED: Final = Family(
    "counter",
    "log_lines_dropped",
    "Log lines that were dropped because the log's reader was too slow or gone, or the disk was full.",
)
BUILD_INFO: Final = Family(
    "gauge", "build_info", "Always 1. The labels hold the versions.", {"version": (), "python": ()}
)


FAMILIES: Final = tuple(each for each in list(globals().values()) if isinstance(each, Family))


def as_json(families: Iterable[Metric]) -> dict[str, Any]:
    """Return all numbers by name without prefix: a number, or a list of objects with labels and `value`.

    A histogram is represented by its count and sum.
    """
    found: dict[str, Any] = {}
    for family in families:
        for sample in family.samples:
            name = sample.name.removeprefix(_PREFIX)
            if name.endswith("_bucket"):
                continue
            if sample.labels:
                found.setdefault(name, []).append({**sample.labels, "value": sample.value})
            else:
                found[name] = sample.value
    return found


def as_markdown_table() -> str:
    """Return a table of all metrics, for the documentation."""
    rows = ["| metric | type | meaning | labels |", "| --- | --- | --- | --- |"]
    for family in FAMILIES:
        name = _PREFIX + family.name + ("_total" if family.kind == "counter" else "")
        labels = "; ".join(
            f"`{label}`: {', '.join(values)}" if values else f"`{label}`"
            for label, values in family.labels.items()
        )
        rows.append(f"| `{name}` | {family.kind} | {family.meaning} | {labels} |")
    return "\n".join(rows)
