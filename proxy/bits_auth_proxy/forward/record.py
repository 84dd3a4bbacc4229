"""The record of one forwarded request, from its admission to its end.

The exchange writes it; metrics, the log, the journal and the inspection read it. Instants are seconds of
`Clock.now()` and 0.0 while unset; sizes are bytes of content.
"""

from typing import final


@final
class RequestRecord:
    """What is known about one forwarded request. It holds only values, so it may outlive the connection."""

    __slots__ = (
        "answered",
        "client_authorization",
        "ended",
        "method",
        "operation",
        "problem",
        "request_bytes",
        "request_id",
        "response_bytes",
        "sent",
        "started",
        "status",
        "token_at",
        "traceparent",
    )

    def __init__(
        self, operation: str, method: bytes, request_id: bytes, traceparent: bytes, started: float
    ) -> None:
        """Begin the record of a request that was admitted at `started`.

        `operation` is the last segment of the path, such as `applications.create`, or `other`;
        `traceparent` is the value of that field, or empty if there is none.
        """
        self.operation = operation
        self.method = method
        self.request_id = request_id
        self.traceparent = traceparent
        self.started = started
        self.token_at = started
        """When the wait for a token ended, with or without one; `started` if there was no wait."""
        self.sent = 0.0
        """When the head was sent to the API; the last time, if it was sent again."""
        self.answered = 0.0
        """When the API's final head arrived."""
        self.ended = 0.0
        self.status = 0
        """The status sent to the client; 499 if the client left before there was one."""
        self.client_authorization = ""
        """What happened to the client's own Authorization: `kept`, `replaced`, or empty if it sent none."""
        self.problem = ""
        """The code of the problem that the proxy responded with or met on the way, or empty."""
        self.request_bytes = 0
        self.response_bytes = 0

    @property
    def duration(self) -> float:
        """Seconds from the admission to the end."""
        return self.ended - self.started

    @property
    def upstream_duration(self) -> float | None:
        """Seconds from sending the head to the API's final head, or None if there was none."""
        return self.answered - self.sent if self.answered else None

    @property
    def token_wait(self) -> float:
        """Seconds that the request waited for a token."""
        return self.token_at - self.started
