"""Decides which events are logged, and with which fields; see `events` for their meaning."""

from collections.abc import Callable
from typing import Any, Final, final

import structlog

from bits_auth_proxy.auth.bits_oauth import TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.headers import trace_id_of
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.access_log import AccessLog
from bits_auth_proxy.telemetry.events import Event
from bits_auth_proxy.telemetry.log import LOGGER
from bits_auth_proxy.telemetry.repeat_limit import RepeatLimit, Timer

_SERVER_ERROR: Final = 500
_USABLE: Final = (TokenState.FRESH, TokenState.STALE, TokenState.SUSPECT)


@final
class EventLog:
    """Writes the log's lines about requests, connections, the token and the files."""

    __slots__ = ("_access_log", "_credentials_trouble", "_log", "_log_all", "_log_errors", "_repeats")

    def __init__(
        self,
        *,
        clock: Clock,
        access_log: str,
        call_later: Callable[[float, Callable[[], None]], Timer],
        suppressed: Callable[[str, int], None],
        write_line: Callable[[str, str], None] | None,
    ) -> None:
        """Take the `access_log` setting. `suppressed` takes an event and the count of its lines held back.

        `write_line` takes a level and a finished line; it is None if the log is not JSON.
        """
        # Bind the logger once, because otherwise every call would bind it again.
        self._log = structlog.get_logger(LOGGER).bind()
        self._log_all = access_log == "all"
        self._log_errors = access_log != "off"
        self._access_log = None if write_line is None else AccessLog(clock=clock, write=write_line)
        self._credentials_trouble = ""

        def report(event: str, kind: str, count: int) -> None:
            suppressed(event, count)
            self._log.warning(events.REPEATS_SUPPRESSED.name, of=event, kind=kind, count=count)

        self._repeats = RepeatLimit(clock=clock, call_later=call_later, report=report)

    def close(self) -> None:
        """Report the lines that were held back. For shutdown."""
        self._repeats.flush()

    # Events of requests.

    def exchange_ended(self, record: RequestRecord) -> None:
        """Log a request that was admitted.

        In mode `errors`, the caller passes only those with an error or a problem.
        """
        status, problem = record.status, record.problem
        if self._log_all:
            if not problem and self._access_log is not None:
                self._access_log.log(record)
                return
        elif not self._log_errors or not self._repeats.admits(events.REQUEST.name, problem or str(status)):
            return
        level = self._log.warning if status >= _SERVER_ERROR or problem else self._log.info
        level(events.REQUEST.name, **_fields_of(record))

    def request_rejected(self, reason: str, peer: str, request_id: bytes, detail: str | None) -> None:
        """Log a request that was rejected before it was admitted."""
        if self._admits_client_line(events.REQUEST_REJECTED, reason):
            fields = {"request_id": request_id.decode("latin-1"), "reason": reason, "peer": peer}
            if detail is not None:
                fields["detail"] = detail
            self._log.info(events.REQUEST_REJECTED.name, **fields)

    def client_authorization_replaced(self, record: RequestRecord) -> None:
        """Log that the proxy's token took the place of a client's own Authorization."""
        if self._repeats.admits(events.AUTHORIZATION_REPLACED.name, ""):
            self._log.info(
                events.AUTHORIZATION_REPLACED.name,
                request_id=record.request_id.decode("latin-1"),
                operation=record.operation,
            )

    def client_authorization_unauthorized(self, record: RequestRecord) -> None:
        """Log that the API answered 401 to a client's own Authorization, and what can be done."""
        if self._repeats.admits(events.AUTHORIZATION_UNAUTHORIZED.name, ""):
            self._log.warning(
                events.AUTHORIZATION_UNAUTHORIZED.name,
                request_id=record.request_id.decode("latin-1"),
                operation=record.operation,
                hint="the client sent its own Authorization field, which BITS_CLIENT_AUTHORIZATION=keep "
                "passes on; if the proxy's token is meant, let the client send no such field",
            )

    def handshake_failed(self, detail: str, peer: str) -> None:
        """Log a client's TLS handshake that failed."""
        if self._admits_client_line(events.HANDSHAKE_FAILED, ""):
            self._log.info(events.HANDSHAKE_FAILED.name, detail=detail, peer=peer)

    def connect_failed(self, outcome: str, detail: str, duration: float) -> None:
        """Log a failed attempt to connect to the API."""
        if self._repeats.admits(events.CONNECT_FAILED.name, outcome):
            self._log.warning(
                events.CONNECT_FAILED.name, outcome=outcome, detail=detail, seconds=round(duration, 3)
            )

    def crashed(self, error: BaseException) -> None:
        """Log an exception that escaped where none should."""
        if self._repeats.admits(events.CRASHED.name, type(error).__name__):
            self._log.error(events.CRASHED.name, exc_info=error)

    # Events of the token.

    def token_obtained(
        self, token: AccessToken, reason: str, duration: float, *, assumed: bool, client_id: str
    ) -> None:
        """Log a new token."""
        if assumed:
            self._log.warning(events.LIFETIME_ASSUMED.name, lifetime=token.lifetime)
        self._log.info(
            events.TOKEN_REFRESHED.name,
            reason=reason,
            fingerprint=token.fingerprint,
            lifetime=token.lifetime,
            scope=token.scope,
            seconds=round(duration, 3),
            client_id=client_id,
        )

    def token_failed(
        self,
        error: TokenRequestError,
        reason: str,
        duration: float,
        *,
        state: TokenState,
        failures: int,
        client_id: str,
    ) -> None:
        """Log a token request that failed."""
        if not self._repeats.admits(events.TOKEN_REFRESH_FAILED.name, error.kind):
            return
        level = self._log.error if error.denied or state not in _USABLE else self._log.warning
        level(
            events.TOKEN_REFRESH_FAILED.name,
            reason=reason,
            kind=error.kind,
            detail=error.detail,
            seconds=round(duration, 3),
            failures=failures,
            token=state.value,
            client_id=client_id,
        )

    def token_unauthorized(self, token: AccessToken) -> None:
        """Log that the API answered 401 to the token in hand."""
        self._log.warning(events.TOKEN_UNAUTHORIZED.name, fingerprint=token.fingerprint)

    def tokens_die_early(self, count: int) -> None:
        """Log that `count` tokens in a row were refused before their time."""
        if self._repeats.admits(events.TOKENS_DIE_EARLY.name, ""):
            self._log.error(events.TOKENS_DIE_EARLY.name, count=count)

    def credentials_adopted(self, client_id: str) -> None:
        """Log that other credentials are in use from now on."""
        self._log.info(events.CREDENTIALS_ADOPTED.name, client_id=client_id)

    # Events of watched files.

    def credentials_read(self, *, changed: bool) -> None:
        """The files were read without error: forget earlier trouble, and log a changed pair."""
        self._credentials_trouble = ""
        if changed:
            self._log.info(events.CREDENTIALS_CHANGED.name)

    def credentials_unreadable(self, detail: str) -> None:
        """Log that the files can't be read, but only once until they can be read or the reason changes."""
        if detail != self._credentials_trouble:
            self._credentials_trouble = detail
            self._log.warning(events.CREDENTIALS_UNREADABLE.name, detail=detail)

    def certificate_changed(self) -> None:
        """Log that the listener's certificate was renewed."""
        self._log.info(events.CERTIFICATE_CHANGED.name)

    def certificate_unusable(self, detail: str) -> None:
        """Log that the listener certificate's files changed but can't be used."""
        self._log.error(events.CERTIFICATE_UNUSABLE.name, detail=detail)

    def upstream_certificate_changed(self) -> None:
        """Log that the TLS files of connections to the API were renewed."""
        self._log.info(events.UPSTREAM_CERTIFICATE_CHANGED.name)

    def upstream_certificate_unusable(self, detail: str) -> None:
        """Log that they changed and can't be used."""
        self._log.error(events.UPSTREAM_CERTIFICATE_UNUSABLE.name, detail=detail)

    def _admits_client_line(self, event: Event, kind: str) -> bool:
        """Whether to log a line that a client caused before a request was admitted."""
        return self._log_all or (self._log_errors and self._repeats.admits(event.name, kind))


def _fields_of(record: RequestRecord) -> dict[str, Any]:
    upstream = record.upstream_duration
    fields = {
        "request_id": record.request_id.decode("latin-1"),
        "operation": record.operation,
        "method": record.method.decode("latin-1"),
        "status": record.status,
        "seconds": round(record.duration, 6),
        "upstream_seconds": None if upstream is None else round(upstream, 6),
        "token_wait_seconds": round(record.token_wait, 6),
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
    }
    if record.problem:
        fields["problem"] = record.problem
    trace_id = trace_id_of(record.traceparent)
    if trace_id is not None:
        fields["trace_id"] = trace_id
    return fields
