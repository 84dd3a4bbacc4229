"""The journal: what happened recently, for the live view in a terminal and for the admin page.

It is bounded and cheap to write: an exchange costs one append. Everything else is computed when someone
looks at it.
"""

from collections import deque
from typing import Any, Final

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.record import RequestRecord

EXCHANGES: Final = 100
REFRESHES: Final = 50
REJECTIONS: Final = 50


def exchange_id(ended: float) -> str:
    """Return the id of an exchange. A request id can't identify it, because clients may send one again."""
    return f"{ended:.9f}"


class Journal:
    """The last exchanges, rejections and attempts. Durations are in seconds, instants by the wall clock."""

    __slots__ = ("_clock", "_exchanges", "_refreshes", "_rejections", "exchange")

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._exchanges: Final = deque[RequestRecord](maxlen=EXCHANGES)
        self.exchange: Final = self._exchanges.append
        """Keeps the record of a request that has ended, without a call of Python code in between."""
        self._refreshes: deque[dict[str, Any]] = deque(maxlen=REFRESHES)
        self._rejections: deque[tuple[float, str, str]] = deque(maxlen=REJECTIONS)

    def rejection(self, reason: str, peer: str) -> None:
        """Note a request that was rejected before it was admitted."""
        self._rejections.append((self._clock.now(), reason, peer))

    # Events of the token.

    def refresh(self, *, outcome: str, reason: str, duration: float, detail: str) -> None:
        """Note a token request. `outcome` is `success` or `failure`; `detail` explains it to people."""
        self._refreshes.append(
            {
                "timestamp_seconds": self._clock.wall(),
                "outcome": outcome,
                "reason": reason,
                "duration_seconds": round(duration, 6),
                "detail": detail,
            }
        )

    # The journal's readers.

    def exchanges(self) -> list[dict[str, Any]]:
        """Return the last exchanges, the newest first, ready for JSON."""
        offset = self._clock.wall() - self._clock.now()
        return [
            {
                "id": exchange_id(record.ended),
                "timestamp_seconds": round(record.ended + offset, 3),
                "request_id": record.request_id.decode("latin-1"),
                "operation": record.operation,
                "method": record.method.decode("latin-1"),
                "status": record.status,
                "problem": record.problem,
                "duration_seconds": round(record.duration, 6),
                "request_bytes": record.request_bytes,
                "response_bytes": record.response_bytes,
            }
            for record in reversed(self._exchanges)
        ]

    def rejections(self) -> list[dict[str, Any]]:
        """Return the last rejected requests, the newest first, ready for JSON."""
        offset = self._clock.wall() - self._clock.now()
        return [
            {"timestamp_seconds": round(at + offset, 3), "reason": reason, "peer": peer}
            for at, reason, peer in reversed(self._rejections)
        ]

    def refreshes(self) -> list[dict[str, Any]]:
        """Return the last token requests, the newest first, ready for JSON."""
        return list(reversed(self._refreshes))
