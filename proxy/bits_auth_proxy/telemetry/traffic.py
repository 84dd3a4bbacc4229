"""Counters of the data path: requests, connections, bytes.

They are plain integers, which become metric families at the scrape. They cost two microseconds per request;
the locks and checks of metric objects would cost seven. Labels are bounded: an operation earns its own label
with a successful response to a POST, so callers can't invent time series.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias, final

from prometheus_client.core import Metric

from bits_auth_proxy.forward.problems import REJECTION_CODES
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry import metrics
from bits_auth_proxy.telemetry.metrics import MAX_OPERATION_NAME, MAX_OPERATIONS, METHODS, OTHER, Histogram

_OK: Final = range(200, 300)
_SERVER_ERROR: Final = 500
_STATUSES: Final = frozenset((*map(int, HTTPStatus), 499))
"""The statuses that have labels of their own. 499 is the proxy's own, for a client that has left."""

Status: TypeAlias = int | str
"""A status, or what several that nobody knows have in common: `4xx` or `other`."""


class Load(NamedTuple):
    """How much of everything that is limited is in use."""

    clients: int
    upstream_connections: Mapping[str, int]
    """By state: active, idle, connecting."""
    queued: int
    """Requests that are waiting for a connection."""


class Limits(NamedTuple):
    """How much of everything that is limited may be in use."""

    clients: int
    upstream_connections: int
    queued: int


@final
class _Operation:
    """The counts of one operation's requests, by method and status."""

    __slots__ = ("durations", "requests", "upstream_durations")

    def __init__(self) -> None:
        self.requests: dict[tuple[bytes, Status], int] = {}
        self.durations = Histogram()
        self.upstream_durations = Histogram()

    def count_new(self, method: bytes, status: int) -> None:
        """Count a request whose method or status is new."""
        name = method if method.decode("latin-1") in METHODS else OTHER.encode()
        key = (name, status if status in _STATUSES else _class_of(status))
        self.requests[key] = self.requests.get(key, 0) + 1


@final
class TrafficCounters:
    """Counts the events of the data path."""

    __slots__ = (
        "_connect_duration",
        "_operations",
        "_request_bytes",
        "_response_bytes",
        "_token_waits",
        "certificate_reloads",
        "client_authorization",
        "client_unauthorized",
        "connects",
        "in_flight",
        "problems",
        "rejected",
        "retries",
        "upstream_certificate_reloads",
    )

    def __init__(self) -> None:
        self._operations = {OTHER: _Operation()}
        self._request_bytes = 0
        self._response_bytes = 0
        self._token_waits = Histogram()
        self._connect_duration = Histogram()
        self.in_flight = 0
        self.problems = metrics.REQUEST_PROBLEMS.zeros()
        self.rejected = metrics.REJECTED.zeros()
        self.client_authorization = metrics.CLIENT_AUTHORIZATION.zeros()
        self.client_unauthorized = 0
        self.retries = metrics.RETRIES.zeros()
        self.connects = metrics.CONNECTS.zeros()
        self.certificate_reloads = metrics.CERTIFICATE_RELOADS.zeros()
        self.upstream_certificate_reloads = metrics.UPSTREAM_CERTIFICATE_RELOADS.zeros()

    def exchange_ended(self, record: RequestRecord) -> None:
        """Count a request that had been admitted."""
        self.in_flight -= 1
        status, started = record.status, record.started
        operation = self._operations.get(record.operation) or self._admit(record)
        try:
            operation.requests[record.method, status] += 1
        except KeyError:
            operation.count_new(record.method, status)
        self._request_bytes += record.request_bytes
        self._response_bytes += record.response_bytes
        operation.durations.observe(record.ended - started)
        if record.answered:
            operation.upstream_durations.observe(record.answered - record.sent)
        if record.token_at != started:
            self._token_waits.observe(record.token_at - started)
        if record.problem:
            counts = self.rejected if record.problem in REJECTION_CODES else self.problems
            counts[record.problem] += 1

    def upstream_connected(self, outcome: str, duration: float) -> None:
        """Count an attempt to connect to the API."""
        self.connects[outcome] += 1
        self._connect_duration.observe(duration)

    def totals(self) -> dict[str, int]:
        """Return totals, for people."""
        requests = self.requests()
        return {
            "requests": sum(requests.values()),
            "failed_requests": sum(
                count for (_, _, status), count in requests.items() if _is_failure(status)
            ),
            "requests_in_flight": self.in_flight,
            "rejected_requests": self.rejected.total(),
            "client_authorization_unauthorized": self.client_unauthorized,
            "retries": self.retries.total(),
            "request_bytes": self._request_bytes,
            "response_bytes": self._response_bytes,
        }

    def requests(self) -> dict[tuple[str, bytes, Status], int]:
        """Return the counts of ended requests by operation, method and status."""
        return {
            (name, *key): count
            for name, operation in self._operations.items()
            for key, count in operation.requests.items()
        }

    def collect_requests(self) -> Iterator[Metric]:
        """Yield the metric families of requests."""
        yield metrics.TOKEN_WAIT.of(self._token_waits)
        yield metrics.REQUESTS.by(
            {
                (operation, method.decode("latin-1"), str(status)): count
                for (operation, method, status), count in self.requests().items()
            }
        )
        operations = self._operations.items()
        yield metrics.REQUEST_DURATION.by({name: each.durations for name, each in operations})
        yield metrics.UPSTREAM_DURATION.by({name: each.upstream_durations for name, each in operations})
        yield metrics.IN_FLIGHT.of(self.in_flight)
        yield metrics.REQUEST_PROBLEMS.by(self.problems)
        yield metrics.REJECTED.by(self.rejected)
        yield metrics.CLIENT_AUTHORIZATION.by(self.client_authorization)
        yield metrics.CLIENT_UNAUTHORIZED.of(self.client_unauthorized)
        yield metrics.RETRIES.by(self.retries)
        yield metrics.REQUEST_BYTES.of(self._request_bytes)
        yield metrics.RESPONSE_BYTES.of(self._response_bytes)

    def collect_connections(self, load: Load, limits: Limits) -> Iterator[Metric]:
        """Yield the metric families of connections."""
        yield metrics.CLIENT_CONNECTIONS.of(load.clients)
        yield metrics.CLIENT_LIMIT.of(limits.clients)
        yield metrics.CERTIFICATE_RELOADS.by(self.certificate_reloads)
        yield metrics.UPSTREAM_CERTIFICATE_RELOADS.by(self.upstream_certificate_reloads)
        yield metrics.UPSTREAM_CONNECTIONS.by(load.upstream_connections)
        yield metrics.UPSTREAM_LIMIT.of(limits.upstream_connections)
        yield metrics.QUEUE_LENGTH.of(load.queued)
        yield metrics.QUEUE_LIMIT.of(limits.queued)
        yield metrics.CONNECTS.by(self.connects)
        yield metrics.CONNECT_DURATION.of(self._connect_duration)

    def _admit(self, record: RequestRecord) -> _Operation:
        """Return the counts for an operation without a label: new ones if it has earned its own label now."""
        name = record.operation
        if (
            record.method != b"POST"
            or record.status not in _OK
            or len(name) > MAX_OPERATION_NAME
            or len(self._operations) > MAX_OPERATIONS
        ):
            return self._operations[OTHER]
        operation = self._operations[name] = _Operation()
        return operation


def _class_of(status: int) -> str:
    return f"{status // 100}xx" if status < 600 else OTHER  # noqa: PLR2004 - the last class ends


def _is_failure(status: Status) -> bool:
    return status >= _SERVER_ERROR if isinstance(status, int) else status in ("5xx", OTHER)
