"""The observers through which other modules tell what happens: they count it and log it.

The hot path's numbers are plain integers kept here and turned into metric families at the scrape: that
costs a request two microseconds where a metric object's lock and checks would cost seven. Labels are
bounded: an operation earns its own by a successful answer, so no caller can make series up.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, final

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bits_auth_proxy import __version__
from bits_auth_proxy.auth.bits_oauth import TokenRequestError
from bits_auth_proxy.auth.refresher import RefresherStatus
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.headers import trace_id_of
from bits_auth_proxy.forward.ports import ExchangeRecord
from bits_auth_proxy.telemetry import events, metrics
from bits_auth_proxy.telemetry.access_log import AccessLog
from bits_auth_proxy.telemetry.events import RepeatLimit, Timer
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.metrics import MAX_OPERATIONS, METHODS, OTHER, TLS_HANDSHAKE, Histogram

_OK: Final = range(200, 300)
_FIRST_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_USABLE: Final = (TokenState.FRESH, TokenState.STALE, TokenState.SUSPECT)

LOGGER: Final = "bits_auth_proxy"


class Load(NamedTuple):
    """How much there is of what is limited."""

    clients: int
    upstream_connections: Mapping[str, int]
    """By state: active, idle, connecting."""
    queued: int
    """Requests that wait for a connection."""


class Limits(NamedTuple):
    """How much there may be."""

    clients: int
    upstream_connections: int
    queued: int


@final
class _Operation:
    """What is counted of an operation's requests; the counts by method and status."""

    __slots__ = ("durations", "requests", "upstream_durations")

    def __init__(self) -> None:
        self.requests: dict[tuple[bytes, int], int] = {}
        self.durations = Histogram()
        self.upstream_durations = Histogram()

    def count_new(self, method: bytes, status: int) -> None:
        """Count a request whose method or status is new."""
        key = (method if method.decode("latin-1") in METHODS else OTHER.encode(), status)
        self.requests[key] = self.requests.get(key, 0) + 1


class Telemetry(Collector):
    """Implements `TrafficObserver` and `RefreshObserver`, and Prometheus' collector."""

    def __init__(
        self,
        *,
        clock: Clock,
        access_log: str,
        token_status: Callable[[], RefresherStatus],
        load: Callable[[], Load],
        limits: Limits,
        conceal: Callable[[str], None],
        journal: Journal,
        call_later: Callable[[float, Callable[[], None]], Timer],
        write_line: Callable[[str, str], None] | None = None,
    ) -> None:
        """Set the access log's mode (`all`, `errors`, `off`) and where to read gauges at the scrape.

        `conceal` hears every new token, before anything is logged that could hold it; `journal` keeps
        what happened lately. `write_line`, where the log is JSON, takes a level and a finished line.
        """
        self._clock = clock
        # Bound here: an unbound logger is bound anew by every call.
        self._log = structlog.get_logger(LOGGER).bind()
        self._log_all = access_log == "all"
        self._log_errors = access_log != "off"
        self._access_log = None if write_line is None else AccessLog(clock=clock, write=write_line)
        self._repeats = RepeatLimit(clock=clock, call_later=call_later, report=self._report_suppressed)
        self._token_status = token_status
        self._load = load
        self._limits = limits
        self._conceal = conceal
        self._journal = journal
        self._operations = {OTHER: _Operation()}
        self._in_flight = 0
        self._request_bytes = 0
        self._response_bytes = 0
        self._problems = metrics.REQUEST_PROBLEMS.zeros()
        self._rejected = metrics.REJECTED.zeros()
        self._retries = metrics.RETRIES.zeros()
        self._connects = metrics.CONNECTS.zeros()
        self._connect_duration = Histogram()
        self._token_waits = Histogram()
        self._token_unauthorized = 0
        self._credentials_changes = 0
        self._credentials_failures = 0
        self._credentials_trouble = ""
        self._refreshes = metrics.TOKEN_REFRESHES.zeros()
        self._refresh_failures = metrics.TOKEN_REFRESH_FAILURES.zeros()
        self._refresh_duration = Histogram()
        self._certificate_reloads = metrics.CERTIFICATE_RELOADS.zeros()
        self._internal_errors = 0
        self._suppressed: Counter[str] = Counter()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def close(self) -> None:
        """Log what is still to be told."""
        self._repeats.flush()

    # Of the data path (see `bits_auth_proxy.forward.ports`).

    def exchange_started(self) -> None:
        """Count a request in flight."""
        self._in_flight += 1

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """Count a request, and log it when it is to be logged."""
        self._in_flight -= 1
        status, started = record.status, record.started
        operation = self._operations.get(record.operation) or self._admit(record.operation, status)
        try:
            operation.requests[record.method, status] += 1
        except KeyError:
            operation.count_new(record.method, status)
        self._request_bytes += record.request_bytes
        self._response_bytes += record.response_bytes
        operation.durations.observe(record.ended - started)
        if record.answered:
            operation.upstream_durations.observe(record.answered - record.sent)
        self._journal.exchange(record)
        if record.token_at != started:
            self._token_waits.observe(record.token_at - started)
        if record.problem:
            self._problems[record.problem] += 1
        if self._log_all or ((status >= _FIRST_ERROR or record.problem) and self._log_errors):
            self._log_request(record)

    def request_rejected(self, reason: str, peer: str, request_id: bytes) -> None:
        """Count and log a request that was refused."""
        self._rejected[reason] += 1
        self._journal.rejection(reason, peer)
        if self._log_all or (self._log_errors and self._repeats.admits(events.REQUEST_REJECTED, reason)):
            self._log.info(
                events.REQUEST_REJECTED.name,
                request_id=request_id.decode("latin-1"),
                reason=reason,
                peer=peer,
            )

    def handshake_failed(self, detail: str, peer: str) -> None:
        """Count and log a TLS handshake that failed as a request that was refused."""
        self._rejected[TLS_HANDSHAKE] += 1
        self._journal.rejection(TLS_HANDSHAKE, peer)
        if self._log_all or (self._log_errors and self._repeats.admits(events.HANDSHAKE_FAILED, "")):
            self._log.info(events.HANDSHAKE_FAILED.name, detail=detail, peer=peer)

    def retried(self, reason: str) -> None:
        """Count a request that is sent again."""
        self._retries[reason] += 1

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        """Count a connection attempt, and log a failed one."""
        self._connects[outcome] += 1
        self._connect_duration.observe(duration)
        if outcome != "ok" and self._repeats.admits(events.CONNECT_FAILED, outcome):
            self._log.warning(
                events.CONNECT_FAILED.name, outcome=outcome, detail=detail, seconds=round(duration, 3)
            )

    def crashed(self, error: BaseException) -> None:
        """Count and log an exception that escaped where none should."""
        self._internal_errors += 1
        if self._repeats.admits(events.CRASHED, type(error).__name__):
            self._log.error(events.CRASHED.name, exc_info=error)

    # Of the listener's certificate.

    def certificate_changed(self) -> None:
        """Count and log that the listener's certificate was renewed."""
        self._certificate_reloads["success"] += 1
        self._log.info(events.CERTIFICATE_CHANGED.name)

    def certificate_unusable(self, detail: str) -> None:
        """Count and log that its files changed and can't be used; the old one stays."""
        self._certificate_reloads["failure"] += 1
        self._log.error(events.CERTIFICATE_UNUSABLE.name, detail=detail)

    # Of the token (see `bits_auth_proxy.auth.refresher`).

    def token_obtained(self, token: AccessToken, reason: str, duration: float, *, assumed: bool) -> None:
        """Count and log a new token."""
        self._conceal(token.reveal())
        self._refreshes["success", reason] += 1
        self._refresh_duration.observe(duration)
        detail = f"{token.fingerprint}, lives {token.lifetime:g} s"
        self._journal.refresh(outcome="success", reason=reason, duration=duration, detail=detail)
        if assumed:
            self._log.warning(events.LIFETIME_ASSUMED.name, lifetime=token.lifetime)
        self._log.info(
            events.TOKEN_REFRESHED.name,
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
        if not self._repeats.admits(events.TOKEN_REFRESH_FAILED, error.kind):
            return
        status = self._token_status()
        level = self._log.error if error.denied or status.state not in _USABLE else self._log.warning
        level(
            events.TOKEN_REFRESH_FAILED.name,
            reason=reason,
            kind=error.kind,
            detail=error.detail,
            seconds=round(duration, 3),
            failures=status.consecutive_failures + 1,
            token=status.state.value,
        )

    def token_unauthorized(self, token: AccessToken) -> None:
        """Count and log that the API refused the token in hand."""
        self._token_unauthorized += 1
        self._log.warning(events.TOKEN_UNAUTHORIZED.name, fingerprint=token.fingerprint)

    # Of the credential files.

    def credentials_read(self, *, changed: bool) -> None:
        """Count and log that other credentials were found; whatever was wrong is over."""
        self._credentials_trouble = ""
        if changed:
            self._credentials_changes += 1
            self._log.info(events.CREDENTIALS_CHANGED.name)

    def credentials_unreadable(self, detail: str) -> None:
        """Count that the files can't be read, and log it once until they can or the reason changes."""
        self._credentials_failures += 1
        if detail != self._credentials_trouble:
            self._credentials_trouble = detail
            self._log.warning(events.CREDENTIALS_UNREADABLE.name, detail=detail)

    def _admit(self, name: str, status: int) -> "_Operation":
        """Return where an operation that has no label yet counts: under its own if it has earned one."""
        if status not in _OK or len(self._operations) > MAX_OPERATIONS:
            return self._operations[OTHER]
        operation = self._operations[name] = _Operation()
        return operation

    def _log_request(self, record: ExchangeRecord) -> None:
        if self._log_all and not record.problem and self._access_log is not None:
            self._access_log.log(record)
            return
        kind = record.problem or str(record.status)
        if not self._log_all and not self._repeats.admits(events.REQUEST, kind):
            return
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
        trace_id = trace_id_of(record.head)
        if trace_id is not None:
            fields["trace_id"] = trace_id
        level = self._log.warning if record.status >= _SERVER_ERROR or record.problem else self._log.info
        level(events.REQUEST.name, **fields)

    def _report_suppressed(self, event: str, kind: str, count: int) -> None:
        self._suppressed[event] += count
        self._log.warning(events.REPEATS_SUPPRESSED.name, of=event, kind=kind, count=count)

    # Of the scrape.

    def totals(self) -> dict[str, int]:
        """Return the sums of what is counted, for people."""
        return {
            "requests": sum(self._requests().values()),
            "failed_requests": sum(
                count for (_, _, status), count in self._requests().items() if status >= _SERVER_ERROR
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

    def numbers(self) -> dict[str, Any]:
        """Return the same numbers as JSON-ready data."""
        return metrics.as_json(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield from self._collect_token()
        yield from self._collect_traffic()
        yield from self._collect_connections()
        yield metrics.INTERNAL_ERRORS.of(self._internal_errors)
        yield metrics.LOG_SUPPRESSED.by(self._suppressed)
        yield metrics.BUILD_INFO.by({(__version__, platform.python_version()): 1})

    def _collect_token(self) -> Iterator[Metric]:
        status = self._token_status()
        yield metrics.TOKEN_STATE.by({each.value: each is status.state for each in TokenState})
        token = status.token
        yield metrics.TOKEN_EXPIRES.by({} if status.expires is None else {(): status.expires})
        yield metrics.TOKEN_ISSUED.by({} if token is None else {(): token.issued_wall})
        yield metrics.TOKEN_NEXT_REFRESH.of(status.next_refresh)
        yield metrics.TOKEN_REFRESHES.by(self._refreshes)
        yield metrics.TOKEN_REFRESH_FAILURES.by(self._refresh_failures)
        yield metrics.TOKEN_REFRESH_DURATION.of(self._refresh_duration)
        yield metrics.CONSECUTIVE_FAILURES.of(status.consecutive_failures)
        yield metrics.CREDENTIALS_DENIED.of(status.permanent)
        yield metrics.CREDENTIALS_CHANGES.of(self._credentials_changes)
        yield metrics.CREDENTIALS_READ_FAILURES.of(self._credentials_failures)
        yield metrics.TOKEN_UNAUTHORIZED.of(self._token_unauthorized)
        yield metrics.TOKEN_WAIT.of(self._token_waits)

    def _collect_traffic(self) -> Iterator[Metric]:
        yield metrics.REQUESTS.by(
            {
                (operation, method.decode("latin-1"), str(status)): count
                for (operation, method, status), count in self._requests().items()
            }
        )
        operations = self._operations.items()
        yield metrics.REQUEST_DURATION.by({name: each.durations for name, each in operations})
        yield metrics.UPSTREAM_DURATION.by({name: each.upstream_durations for name, each in operations})
        yield metrics.IN_FLIGHT.of(self._in_flight)
        yield metrics.REQUEST_PROBLEMS.by(self._problems)
        yield metrics.REJECTED.by(self._rejected)
        yield metrics.RETRIES.by(self._retries)
        yield metrics.REQUEST_BYTES.of(self._request_bytes)
        yield metrics.RESPONSE_BYTES.of(self._response_bytes)

    def _requests(self) -> dict[tuple[str, bytes, int], int]:
        return {
            (name, *key): count
            for name, operation in self._operations.items()
            for key, count in operation.requests.items()
        }

    def _collect_connections(self) -> Iterator[Metric]:
        load, limits = self._load(), self._limits
        yield metrics.CLIENT_CONNECTIONS.of(load.clients)
        yield metrics.CLIENT_LIMIT.of(limits.clients)
        yield metrics.CERTIFICATE_RELOADS.by(self._certificate_reloads)
        yield metrics.UPSTREAM_CONNECTIONS.by(load.upstream_connections)
        yield metrics.UPSTREAM_LIMIT.of(limits.upstream_connections)
        yield metrics.QUEUE_LENGTH.of(load.queued)
        yield metrics.QUEUE_LIMIT.of(limits.queued)
        yield metrics.CONNECTS.by(self._connects)
        yield metrics.CONNECT_DURATION.of(self._connect_duration)
