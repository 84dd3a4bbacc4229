"""A bounded cache of parsed lines.

The lines of HTTP heads repeat: a client sends the same User-Agent with every request, and an API the same
Server with every response. The cache saves parsing such a line again.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

ValueT = TypeVar("ValueT")

_MAX_ENTRIES: Final = 1024
_MAX_LINE: Final = 256
"""Bytes. A longer line is parsed anew each time. Together, the two limits bound the memory."""


class ParseCache(dict[bytes, ValueT], Generic[ValueT]):
    """`cache[line]` is what `read` returns for the line. None means a malformed line and is not kept.

    `keep` returns whether a value may be kept. A secret must never be kept.
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
