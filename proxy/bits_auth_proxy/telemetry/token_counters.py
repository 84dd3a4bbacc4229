"""Counters of the token's life and of the credential files."""

from collections.abc import Iterator
from typing import final

from prometheus_client.core import Metric

from bits_auth_proxy.auth.ports import RefresherStatus
from bits_auth_proxy.auth.tokens import TokenState
from bits_auth_proxy.telemetry import metrics
from bits_auth_proxy.telemetry.metrics import Histogram


@final
class TokenCounters:
    """Counts token requests, unauthorized tokens and reads of the credential files."""

    __slots__ = (
        "credentials_changes",
        "credentials_failures",
        "durations",
        "early_deaths",
        "failures",
        "forbidden",
        "refreshes",
        "unauthorized",
    )

    def __init__(self) -> None:
        self.refreshes = metrics.TOKEN_REFRESHES.zeros()
        self.failures = metrics.TOKEN_REFRESH_FAILURES.zeros()
        self.durations = Histogram()
        self.unauthorized = 0
        self.early_deaths = 0
        self.forbidden = 0
        self.credentials_changes = 0
        self.credentials_failures = 0

    def totals(self) -> dict[str, int]:
        """Return totals, for people."""
        return {
            "token_refreshes": sum(
                count for (outcome, _), count in self.refreshes.items() if outcome == "success"
            ),
            "token_refresh_failures": self.failures.total(),
        }

    def collect(self, status: RefresherStatus) -> Iterator[Metric]:
        """Yield the metric families of the token."""
        yield metrics.TOKEN_STATE.by({each.value: each is status.state for each in TokenState})
        token = status.token
        yield metrics.TOKEN_EXPIRES.by({} if status.expires is None else {(): status.expires})
        yield metrics.TOKEN_ISSUED.by({} if token is None else {(): token.issued_wall})
        yield metrics.TOKEN_NEXT_REFRESH.of(status.next_refresh)
        yield metrics.TOKEN_REFRESHES.by(self.refreshes)
        yield metrics.TOKEN_REFRESH_FAILURES.by(self.failures)
        yield metrics.TOKEN_REFRESH_DURATION.of(self.durations)
        yield metrics.CONSECUTIVE_FAILURES.of(status.consecutive_failures)
        yield metrics.CREDENTIALS_DENIED.of(status.permanent)
        yield metrics.CREDENTIALS_CHANGES.of(self.credentials_changes)
        yield metrics.CREDENTIALS_READ_FAILURES.of(self.credentials_failures)
        yield metrics.TOKEN_UNAUTHORIZED.of(self.unauthorized)
        yield metrics.TOKENS_DIE_EARLY.of(self.early_deaths)
        yield metrics.TOKEN_FORBIDDEN.of(self.forbidden)
        candidate = status.candidate
        yield metrics.CREDENTIALS_CANDIDATE.by({} if candidate is None else {(): candidate.since})
