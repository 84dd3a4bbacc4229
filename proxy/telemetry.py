"""Every metric and every event name, and the observers through which other modules tell what happens.

The hot path's numbers are plain integers kept here and turned into metric families at the scrape: that
costs a request two microseconds where a metric object's lock and checks would cost seven. Labels are
bounded: an operation earns its own by a successful answer, so no caller can make series up.
"""

import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.auth.bits_oauth import TokenRequestError
from proxy.auth.refresher import RefresherStatus
from proxy.auth.tokens import AccessToken, TokenState
from proxy.clock import Clock
from proxy.forward.observer import ExchangeRecord
from proxy.journal import Journal

MAX_OPERATIONS: Final = 100
OTHER: Final = "other"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OK: Final = range(200, 300)
_FIRST_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_TRACEPARENT_PARTS: Final = 4
"""version, trace id, parent id, flags (W3C Trace Context)"""
_P: Final = "bits_proxy_"
_USABLE: Final = (TokenState.FRESH, TokenState.STALE, TokenState.SUSPECT)

LOGGER: Final = "bits_auth_proxy"

# The event vocabulary of the log.
REQUEST: Final = "request"
REQUEST_REJECTED: Final = "request_rejected"
CONNECT_FAILED: Final = "upstream_connect_failed"
TOKEN_REFRESHED: Final = "token_refreshed"
TOKEN_REFRESH_FAILED: Final = "token_refresh_failed"
TOKEN_REFUSED: Final = "token_refused"
LIFETIME_ASSUMED: Final = "token_lifetime_assumed"
CREDENTIALS_CHANGED: Final = "credentials_changed"
CREDENTIALS_EXPOSED: Final = "credentials_readable_by_others"
LOG_LEVEL_CHANGED: Final = "log_level_changed"
STARTED: Final = "started"
DRAINING: Final = "draining"
STOPPED: Final = "stopped"
CRASHED: Final = "internal_error"


class _Histogram:
    """Counts by bucket, of durations in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        running = 0
        rows = []
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


class Telemetry(Collector):
    """Implements `TrafficObserver` and `RefreshObserver`, and Prometheus' collector."""

    def __init__(
        self,
        *,
        clock: Clock,
        access_log: str,
        token_status: Callable[[], RefresherStatus],
        connections: Callable[[], Mapping[str, int]],
        conceal: Callable[[str], None],
        journal: Journal,
    ) -> None:
        """Set the access log's mode (`all`, `errors`, `off`) and where to read gauges at the scrape.

        `conceal` hears every new token, before anything is logged that could hold it; `journal` keeps
        what happened lately.
        """
        self._clock = clock
        self._log = structlog.get_logger(LOGGER)
        self._log_all = access_log == "all"
        self._log_errors = access_log != "off"
        self._token_status = token_status
        self._connections = connections
        self._conceal = conceal
        self._journal = journal
        self._operations = {OTHER}
        self._requests: Counter[tuple[str, bytes, int]] = Counter()
        self._durations = {OTHER: _Histogram()}
        self._upstream_durations = {OTHER: _Histogram()}
        self._in_flight = 0
        self._request_bytes = 0
        self._response_bytes = 0
        self._rejected: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._connects: Counter[str] = Counter()
        self._refreshes: Counter[tuple[str, str]] = Counter()
        self._refresh_failures: Counter[str] = Counter()
        self._refresh_duration = _Histogram()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    # Of the data path (see `proxy.forward.observer`).

    def exchange_started(self) -> None:
        """Count a request in flight."""
        self._in_flight += 1

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Count a request, and log it when it is to be logged."""
        self._in_flight -= 1
        status = record.status
        operation = record.operation
        if operation not in self._operations:
            operation = self._admit(operation, status)
        self._requests[operation, record.method, status] += 1
        self._request_bytes += record.request_bytes
        self._response_bytes += record.response_bytes
        self._durations[operation].observe(record.ended - record.started)
        if record.answered:
            self._upstream_durations[operation].observe(record.answered - record.sent)
        self._journal.exchange(record)
        if self._log_all or (self._log_errors and (status >= _FIRST_ERROR or record.problem)):
            self._log_request(record)

    def request_rejected(self, reason: str, peer: str) -> None:
        """Count and log a request that was refused."""
        self._rejected[reason] += 1
        self._journal.rejection(reason, peer)
        if self._log_errors:
            self._log.info(REQUEST_REJECTED, reason=reason, peer=peer)

    def retried(self, reason: str) -> None:
        """Count a request that is sent again."""
        self._retries[reason] += 1

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        """Count a connection attempt, and log a failed one."""
        self._connects[outcome] += 1
        if outcome != "ok":
            self._log.warning(CONNECT_FAILED, outcome=outcome, detail=detail, seconds=round(duration, 3))

    def crashed(self, error: BaseException) -> None:
        """Log an exception that escaped where none should."""
        self._log.error(CRASHED, exc_info=error)

    # Of the token (see `proxy.auth.refresher`).

    def token_obtained(self, token: AccessToken, reason: str, duration: float, *, assumed: bool) -> None:
        """Count and log a new token."""
        self._conceal(token.reveal())
        self._refreshes["success", reason] += 1
        self._refresh_duration.observe(duration)
        detail = f"{token.fingerprint}, lives {token.lifetime:g} s"
        self._journal.refresh(outcome="success", reason=reason, duration=duration, detail=detail)
        if assumed:
            self._log.warning(LIFETIME_ASSUMED, lifetime=token.lifetime)
        self._log.info(
            TOKEN_REFRESHED,
            reason=reason,
            fingerprint=token.fingerprint,
            lifetime=token.lifetime,
            scope=token.scope,
            seconds=round(duration, 3),
        )

    def token_failed(self, error: TokenRequestError, reason: str, duration: float) -> None:
        """Count and log a token request that failed."""
        self._refreshes["failure", reason] += 1
        self._refresh_failures[error.kind] += 1
        self._refresh_duration.observe(duration)
        self._journal.refresh(outcome="failure", reason=reason, duration=duration, detail=error.detail)
        status = self._token_status()
        level = self._log.error if error.refused or status.state not in _USABLE else self._log.warning
        level(
            TOKEN_REFRESH_FAILED,
            reason=reason,
            kind=error.kind,
            detail=error.detail,
            seconds=round(duration, 3),
            failures=status.consecutive_failures + 1,
            token=status.state.value,
        )

    def token_refused(self, token: AccessToken) -> None:
        """Log that the API refused the token in hand."""
        self._log.warning(TOKEN_REFUSED, fingerprint=token.fingerprint)

    def _admit(self, operation: str, status: int) -> str:
        """Return the label of an operation that has none yet: its own if it has earned one."""
        if status not in _OK or len(self._operations) > MAX_OPERATIONS:
            return OTHER
        self._operations.add(operation)
        self._durations[operation] = _Histogram()
        self._upstream_durations[operation] = _Histogram()
        return operation

    def _log_request(self, record: ExchangeRecord) -> None:
        end = record.ended
        fields = {
            "request_id": record.request_id.decode("latin-1"),
            "operation": record.operation,
            "method": record.method.decode("latin-1"),
            "status": record.status,
            "seconds": round(end - record.started, 6),
            "upstream_seconds": round(record.answered - record.sent, 6) if record.answered else None,
            "token_wait_seconds": round(record.token_at - record.started, 6),
            "request_bytes": record.request_bytes,
            "response_bytes": record.response_bytes,
        }
        if record.problem:
            fields["problem"] = record.problem
        traceparent = record.head.notable.get(b"traceparent", b"").split(b"-")
        if len(traceparent) == _TRACEPARENT_PARTS:
            fields["trace_id"] = traceparent[1].decode("latin-1")
        level = self._log.warning if record.status >= _SERVER_ERROR or record.problem else self._log.info
        level(REQUEST, **fields)

    # Of the scrape.

    def totals(self) -> dict[str, int]:
        """Return the sums of what is counted, for people."""
        return {
            "requests": self._requests.total(),
            "failed_requests": sum(
                count for (_, _, status), count in self._requests.items() if status >= _SERVER_ERROR
            ),
            "requests_in_flight": self._in_flight,
            "rejected_requests": self._rejected.total(),
            "retries": self._retries.total(),
            "request_bytes": self._request_bytes,
            "response_bytes": self._response_bytes,
            "token_refreshes": sum(
                count for (outcome, _), count in self._refreshes.items() if outcome == "success"
            ),
            "token_refresh_failures": self._refresh_failures.total(),
        }

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that `accept` prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield from self._collect_traffic()
        yield from self._collect_token()
        build = GaugeMetricFamily(
            _P + "build_info", "Version of the proxy and of Python.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build

    def _collect_token(self) -> Iterator[Metric]:
        status = self._token_status()
        refreshes = CounterMetricFamily(
            _P + "token_refreshes", "Token requests, by why they were made.", labels=["outcome", "reason"]
        )
        for (outcome, reason), count in self._refreshes.items():
            refreshes.add_metric([outcome, reason], count)
        yield refreshes
        yield _counters(
            "token_refresh_failures", "Token requests that failed, by how.", "kind", self._refresh_failures
        )
        duration = HistogramMetricFamily(
            _P + "token_refresh_duration_seconds", "How long token requests took.", labels=[]
        )
        duration.add_metric([], self._refresh_duration.cumulative(), self._refresh_duration.total)
        yield duration
        yield _gauge(
            "token_refresh_consecutive_failures",
            "Failures since the last token.",
            status.consecutive_failures,
        )
        yield _gauge(
            "token_next_refresh_timestamp_seconds", "When the next token request is due.", status.next_refresh
        )
        if status.token is not None and status.expires is not None:
            yield _gauge(
                "token_issued_timestamp_seconds",
                "When the token in hand was asked for.",
                status.token.issued_wall,
            )
            yield _gauge(
                "token_expires_timestamp_seconds",
                "When the token in hand stops being used, margin off.",
                status.expires,
            )
        state = GaugeMetricFamily(
            _P + "token_state", "1 for the state that the token is in.", labels=["state"]
        )
        for each in TokenState:
            state.add_metric([each.value], each is status.state)
        yield state

    def _collect_traffic(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            _P + "requests",
            "Requests answered, by the status sent to the client.",
            labels=["operation", "method", "status"],
        )
        for (operation, method, status), count in self._requests.items():
            requests.add_metric([operation, method.decode("latin-1"), str(status)], count)
        yield requests
        yield _histograms(
            "request_duration_seconds", "From a request's head to the end of its response.", self._durations
        )
        yield _histograms(
            "upstream_duration_seconds",
            "From sending a request's head to the API's final head.",
            self._upstream_durations,
        )
        yield GaugeMetricFamily(_P + "requests_in_flight", "Requests being forwarded.", value=self._in_flight)
        yield _counters("rejected_requests", "Requests refused before forwarding.", "reason", self._rejected)
        yield _counters("retries", "Requests sent again.", "reason", self._retries)
        yield _counters("upstream_connects", "Attempts to connect to the API.", "outcome", self._connects)
        connections = GaugeMetricFamily(
            _P + "upstream_connections", "Connections to the API.", labels=["state"]
        )
        for state, count in self._connections().items():
            connections.add_metric([state], count)
        yield connections
        yield CounterMetricFamily(
            _P + "request_bytes", "Content of requests, in bytes.", value=self._request_bytes
        )
        yield CounterMetricFamily(
            _P + "response_bytes", "Content of responses, in bytes.", value=self._response_bytes
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_P + name, text, value=value)


def _counters(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(_P + name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histograms(name: str, text: str, by_operation: Mapping[str, _Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(_P + name, text, labels=["operation"])
    for operation, histogram in by_operation.items():
        family.add_metric([operation], histogram.cumulative(), histogram.total)
    return family
