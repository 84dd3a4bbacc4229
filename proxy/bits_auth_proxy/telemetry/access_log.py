"""Writes the access log's lines directly, without the log's pipeline.

In the pipeline, a line costs nearly as much as forwarding the request. These lines have the same content (see
`events.REQUEST`).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Final

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.headers import trace_id_of
from bits_auth_proxy.forward.record import RequestRecord

_SERVER_ERROR: Final = 500


class AccessLog:
    """Writes a line of JSON for a request that ended without a problem."""

    __slots__ = ("_clock", "_minute", "_prefix", "_write")

    def __init__(self, *, clock: Clock, write: Callable[[str, str], None]) -> None:
        """`write` takes a level and a finished line."""
        self._clock = clock
        self._write = write
        self._minute = -1.0
        self._prefix = ""

    def log(self, record: RequestRecord) -> None:
        """Log the request."""
        level = "warning" if record.status >= _SERVER_ERROR else "info"
        duration = record.upstream_duration
        upstream = "null" if duration is None else f"{duration:.6f}"
        trace_id = trace_id_of(record.traceparent)
        trace = f', "trace_id": "{trace_id}"' if trace_id else ""
        self._write(
            level,
            f'{{"timestamp": "{self._timestamp()}", "level": "{level}", "event": "request", '
            f'"request_id": {encode_basestring(record.request_id.decode("latin-1"))}, '
            f'"operation": {encode_basestring(record.operation)}, '
            f'"method": {encode_basestring(record.method.decode("latin-1"))}, '
            f'"status": {record.status}, "seconds": {record.duration:.6f}, '
            f'"upstream_seconds": {upstream}, '
            f'"token_wait_seconds": {record.token_wait:.6f}, '
            f'"request_bytes": {record.request_bytes}, "response_bytes": {record.response_bytes}{trace}}}',
        )

    def _timestamp(self) -> str:
        """Return the time in UTC, in the format of ISO 8601."""
        minute, second = divmod(self._clock.wall(), 60.0)
        if minute != self._minute:
            self._minute = minute
            self._prefix = datetime.fromtimestamp(minute * 60.0, UTC).strftime("%Y-%m-%dT%H:%M:")
        # Truncated, not rounded, so that the seconds never reach 60.
        micros = int(second * 1e6)
        return f"{self._prefix}{micros // 1_000_000:02d}.{micros % 1_000_000:06d}Z"
