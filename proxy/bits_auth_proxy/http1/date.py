"""The Date field, formatted once a second and not for each message."""

from email.utils import formatdate
from typing import final


@final
class DateField:
    """A Date field (RFC 9110 section 6.6.1). `line` is the whole field with its CRLF."""

    __slots__ = ("_second", "line")

    def __init__(self, wall: float) -> None:
        """Begin at `wall`, in seconds since the Unix epoch."""
        self._second = int(wall)
        self.line = _format(self._second)

    def update(self, wall: float) -> None:
        """Set the time."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self.line = _format(second)


def _format(second: int) -> bytes:
    return f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
