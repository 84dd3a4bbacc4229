"""The observers through which the other modules report: each event goes to counters, log and journal."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bits_auth_proxy import __version__
from bits_auth_proxy.auth.bits_oauth import TokenRequestError
from bits_auth_proxy.auth.lifecycle import Reason
from bits_auth_proxy.auth.ports import RefresherStatus
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.problems import OWN_CREDENTIALS
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry import metrics
from bits_auth_proxy.telemetry.event_log import EventLog
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.line_writer import LineWriter
from bits_auth_proxy.telemetry.metrics import TLS_HANDSHAKE
from bits_auth_proxy.telemetry.repeat_limit import Timer
from bits_auth_proxy.telemetry.token_counters import TokenCounters
from bits_auth_proxy.telemetry.traffic import Limits, Load, TrafficCounters

SCRAPE_LIFE: Final = 1.0
"""Seconds for which scrapes get the same text. To make it costs as much as hundreds of requests."""
_MAX_SCRAPES: Final = 8
FIRST_ERROR: Final = 400
"""The lowest status that the access log counts as an error."""


class Telemetry(Collector):
    """Implements `ports.TrafficObserver`, `refresher.RefreshObserver` and Prometheus' collector."""

    def __init__(
        self,
        *,
        clock: Clock,
        access_log: str,
        token_status: Callable[[], RefresherStatus],
        load: Callable[[], Load],
        limits: Limits,
        journal: Journal,
        call_later: Callable[[float, Callable[[], None]], Timer],
        write_line: Callable[[str, str], None] | None = None,
    ) -> None:
        """Take the access log's mode (`all`, `errors`, `off`) and the functions that return gauges' values.

        `journal` keeps what happened recently. `write_line` takes a level and a finished line; it is None if
        the log is not JSON.
        """
        self._token_status = token_status
        self._load = load
        self._limits = limits
        self._journal = journal
        self._traffic = TrafficCounters()
        self._token = TokenCounters()
        self._unauthorized: AccessToken | None = None
        """The last token that got a 401."""
        # Most requests are not logged, and should not pay for a call that finds that out.
        self._first_logged = 0 if access_log == "all" else FIRST_ERROR
        self._clock = clock
        self._scrapes: dict[str, tuple[float, bytes]] = {}
        """When each content type was last scraped, and what."""
        self._internal_errors = 0
        self._suppressed: Counter[str] = Counter()
        self._log = EventLog(
            clock=clock,
            access_log=access_log,
            call_later=call_later,
            suppressed=self._count_suppressed,
            write_line=write_line,
        )
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def close(self) -> None:
        """Report the log lines that were held back. For shutdown."""
        self._log.close()

    # Events of the data path (see `forward.ports.TrafficObserver`).

    def exchange_started(self) -> None:
        """Count a request as in flight."""
        self._traffic.in_flight += 1

    def exchange_ended(self, record: RequestRecord) -> None:
        """Count a request, note it, and log it if the access log's mode asks for it."""
        self._traffic.exchange_ended(record)
        self._journal.exchange(record)
        if record.client_authorization:
            self._own_authorization(record)
        if record.problem or record.status >= self._first_logged:
            self._log.exchange_ended(record)

    def request_rejected(self, reason: str, peer: str, request_id: bytes, detail: str | None = None) -> None:
        """Count, note and log a request that was rejected before it was admitted."""
        self._traffic.rejected[reason] += 1
        if reason == OWN_CREDENTIALS.code:
            self._traffic.client_authorization["rejected"] += 1
        self._journal.rejection(reason, peer)
        self._log.request_rejected(reason, peer, request_id, detail)

    def handshake_failed(self, detail: str, peer: str) -> None:
        """Count a failed TLS handshake with a client as a rejected request."""
        self._traffic.rejected[TLS_HANDSHAKE] += 1
        self._journal.rejection(TLS_HANDSHAKE, peer)
        self._log.handshake_failed(detail, peer)

    def retried(self, reason: str) -> None:
        """Count a request that is sent again."""
        self._traffic.retries[reason] += 1

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        """Count an attempt to connect, and log a failed one."""
        self._traffic.upstream_connected(outcome, duration)
        if outcome != "ok":
            self._log.connect_failed(outcome, detail, duration)

    def crashed(self, error: BaseException) -> None:
        """Count and log an exception that escaped where none should."""
        self._internal_errors += 1
        self._log.crashed(error)

    # Events of the token (see `auth.refresher.RefreshObserver`).

    def token_obtained(
        self, token: AccessToken, reason: Reason, duration: float, *, assumed: bool, client_id: str
    ) -> None:
        """Count, note and log a new token."""
        self._token.refreshes["success", reason.value] += 1
        self._token.durations.observe(duration)
        detail = f"{token.fingerprint}, lives {token.lifetime:g} s"
        self._journal.refresh(outcome="success", reason=reason.value, duration=duration, detail=detail)
        self._log.token_obtained(token, reason.value, duration, assumed=assumed, client_id=client_id)

    def token_failed(
        self,
        error: TokenRequestError,
        reason: Reason,
        duration: float,
        *,
        state: TokenState,
        failures: int,
        client_id: str,
    ) -> None:
        """Count, note and log a token request that failed."""
        self._token.refreshes["failure", reason.value] += 1
        self._token.failures[error.kind] += 1
        self._token.durations.observe(duration)
        self._journal.refresh(outcome="failure", reason=reason.value, duration=duration, detail=error.detail)
        self._log.token_failed(
            error, reason.value, duration, state=state, failures=failures, client_id=client_id
        )

    def token_unauthorized(self, token: AccessToken) -> None:
        """Count and log that the API answered 401 to the token in hand, once for each token.

        While some of the API's servers do not know it yet, it may be refused and accepted in turn.
        """
        if token is self._unauthorized:
            return
        self._unauthorized = token
        self._token.unauthorized += 1
        self._log.token_unauthorized(token)

    def tokens_die_early(self, count: int) -> None:
        """Count and log that tokens are refused before their time, again and again."""
        self._token.early_deaths += 1
        self._log.tokens_die_early(count)

    def token_forbidden(self) -> None:
        """Count that the API answered 403 to a token that it had not accepted before."""
        self._token.forbidden += 1

    def credentials_adopted(self, client_id: str) -> None:
        """Log that other credentials are in use from now on."""
        self._log.credentials_adopted(client_id)

    # Events of watched files.

    def credentials_read(self, *, changed: bool) -> None:
        """Count and log that the credential files hold another pair; they can be read again."""
        if changed:
            self._token.credentials_changes += 1
        self._log.credentials_read(changed=changed)

    def credentials_unreadable(self, detail: str) -> None:
        """Count and log that the credential files can't be read."""
        self._token.credentials_failures += 1
        self._log.credentials_unreadable(detail)

    def certificate_changed(self) -> None:
        """Count and log that the listener's certificate was renewed."""
        self._traffic.certificate_reloads["success"] += 1
        self._log.certificate_changed()

    def certificate_unusable(self, detail: str) -> None:
        """Count and log that the files changed and can't be used; the old certificate stays in use."""
        self._traffic.certificate_reloads["failure"] += 1
        self._log.certificate_unusable(detail)

    def upstream_certificate_changed(self) -> None:
        """Count and log that the TLS files of connections to the API were renewed."""
        self._traffic.upstream_certificate_reloads["success"] += 1
        self._log.upstream_certificate_changed()

    def upstream_certificate_unusable(self, detail: str) -> None:
        """Count and log that they changed and can't be used; the old ones stay in use."""
        self._traffic.upstream_certificate_reloads["failure"] += 1
        self._log.upstream_certificate_unusable(detail)

    # The scrape.

    def totals(self) -> dict[str, int]:
        """Return the totals of the counters, for people."""
        return self._traffic.totals() | self._token.totals()

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return what `render` does, at most SCRAPE_LIFE seconds old: many scrapers cost as much as one."""
        encode, content_type = choose_encoder(accept)
        now = self._clock.now()
        made, content = self._scrapes.get(content_type, (-SCRAPE_LIFE, b""))
        if now - made >= SCRAPE_LIFE:
            if len(self._scrapes) >= _MAX_SCRAPES:
                # The content type repeats a version that the client has chosen.
                self._scrapes.clear()
            content = encode(self.registry)
            self._scrapes[content_type] = (now, content)
        return content, content_type

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that `accept` prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def numbers(self) -> dict[str, Any]:
        """Return the same numbers as JSON-ready data."""
        return metrics.as_json(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield from self._token.collect(self._token_status())
        yield from self._traffic.collect_requests()
        yield from self._traffic.collect_connections(self._load(), self._limits)
        yield metrics.INTERNAL_ERRORS.of(self._internal_errors)
        yield metrics.LOG_SUPPRESSED.by(self._suppressed)
        yield metrics.LOG_DROPPED.of(LineWriter.dropped)
        yield metrics.BUILD_INFO.by({(__version__, platform.python_version()): 1})

    def _own_authorization(self, record: RequestRecord) -> None:
        """Count a request that brought its own Authorization, and log what an operator may not expect."""
        self._traffic.client_authorization[record.client_authorization] += 1
        if record.client_authorization == "replaced":
            self._log.client_authorization_replaced(record)
        elif record.status == HTTPStatus.UNAUTHORIZED:
            self._traffic.client_unauthorized += 1
            self._log.client_authorization_unauthorized(record)

    def _count_suppressed(self, event: str, count: int) -> None:
        self._suppressed[event] += count
