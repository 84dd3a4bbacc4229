"""Lines that were read before.

The lines of HTTP heads repeat: a client sends the same User-Agent, an API the same Server, again and again.
What such a line means is looked up instead of worked out.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

ValueT = TypeVar("ValueT")

_MAX_ENTRIES: Final = 1024
_MAX_LINE: Final = 256
"""Bytes; a longer line is read anew each time. Together the two bound the memory."""


class ParseCache(dict[bytes, ValueT], Generic[ValueT]):
    """`known[line]` is what `read` makes of the line; None, where it is not well-formed, is not kept.

    `keep` tells of a value whether its line may come again; a secret never should be kept.
    """

    def __init__(self, read: Callable[[bytes], ValueT], keep: Callable[[Any], bool] = lambda _: True) -> None:
        super().__init__()
        self._read = read
        self._keep = keep

    def __missing__(self, line: bytes) -> ValueT:
        value = self._read(line)
        if value is not None and len(line) <= _MAX_LINE and self._keep(value):
            if len(self) >= _MAX_ENTRIES:
                self.clear()
            self[line] = value
        return value
