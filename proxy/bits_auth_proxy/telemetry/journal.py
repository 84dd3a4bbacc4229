"""What happened lately, for eyes: the live view in a terminal and the admin page.

Bounded, and cheap to write: an exchange costs one tuple and one append. All else is worked out when
somebody looks.
"""

from collections import deque
from typing import Any, Final

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.ports import ExchangeRecord

EXCHANGES: Final = 100
REFRESHES: Final = 50
REJECTIONS: Final = 50


def exchange_id(ended: float) -> str:
    """Return what tells an exchange from others: clients may send the same request id again."""
    return f"{ended:.9f}"


class Journal:
    """The last exchanges, rejections and token requests. Durations in seconds, instants by the wall."""

    __slots__ = ("_clock", "_exchanges", "_refreshes", "_rejections")

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._exchanges: deque[tuple[Any, ...]] = deque(maxlen=EXCHANGES)
        self._refreshes: deque[dict[str, Any]] = deque(maxlen=REFRESHES)
        self._rejections: deque[tuple[float, str, str]] = deque(maxlen=REJECTIONS)

    # In the hot path.

    def exchange(self, record: ExchangeRecord) -> None:
        """Note an exchange that has ended. Values only: the record itself holds on to its connection."""
        self._exchanges.append(
            (
                record.ended,
                record.started,
                record.request_id,
                record.operation,
                record.method,
                record.status,
                record.problem,
                record.request_bytes,
                record.response_bytes,
            )
        )

    def rejection(self, reason: str, peer: str) -> None:
        """Note a request that was refused before forwarding."""
        self._rejections.append((self._clock.now(), reason, peer))

    # Of the token.

    def refresh(self, *, outcome: str, reason: str, duration: float, detail: str) -> None:
        """Note a token request: `outcome` is `success` or `failure`, `detail` says more, for people."""
        self._refreshes.append(
            {
                "timestamp_seconds": self._clock.wall(),
                "outcome": outcome,
                "reason": reason,
                "duration_seconds": round(duration, 6),
                "detail": detail,
            }
        )

    # For eyes.

    def exchanges(self) -> list[dict[str, Any]]:
        """Return the last exchanges, the newest first, ready for JSON."""
        offset = self._clock.wall() - self._clock.now()
        return [
            {
                "id": exchange_id(ended),
                "timestamp_seconds": round(ended + offset, 3),
                "request_id": request_id.decode("latin-1"),
                "operation": operation,
                "method": method.decode("latin-1"),
                "status": status,
                "problem": problem,
                "duration_seconds": round(ended - started, 6),
                "request_bytes": request_bytes,
                "response_bytes": response_bytes,
            }
            for (
                ended,
                started,
                request_id,
                operation,
                method,
                status,
                problem,
                request_bytes,
                response_bytes,
            ) in reversed(self._exchanges)
        ]

    def rejections(self) -> list[dict[str, Any]]:
        """Return the last refused requests, the newest first, ready for JSON."""
        offset = self._clock.wall() - self._clock.now()
        return [
            {"timestamp_seconds": round(at + offset, 3), "reason": reason, "peer": peer}
            for at, reason, peer in reversed(self._rejections)
        ]

    def refreshes(self) -> list[dict[str, Any]]:
        """Return the last token requests, the newest first, ready for JSON."""
        return list(reversed(self._refreshes))
