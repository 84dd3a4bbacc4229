"""A bounded cache of parsed lines.

The lines of HTTP heads repeat: a client sends the same User-Agent with every request, and an API the same
Server with every response. The meaning of such a line is looked up instead of worked out again. The caches
serve all clients, so they keep only lines that say nothing about who sent them.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

ValueT = TypeVar("ValueT")

_MAX_ENTRIES: Final = 1024
_MAX_LINE: Final = 256
"""Bytes; a longer line is parsed again each time. Together the two bound the memory."""


class BoundedCache(dict[bytes, ValueT], Generic[ValueT]):
    """The values of lines, as many as the bounds allow. What may be a secret must never be kept."""

    def keep(self, line: bytes, value: ValueT) -> None:
        """Keep the value of a line, if it is not too long; a full cache begins again."""
        if len(line) <= _MAX_LINE:
            if len(self) >= _MAX_ENTRIES:
                self.clear()
            self[line] = value


class ParseCache(BoundedCache[ValueT]):
    """`cache[line]` is what `read` returns for the line. What it raises is not kept."""

    def __init__(self, read: Callable[[bytes], ValueT]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, line: bytes) -> ValueT:
        value = self._read(line)
        self.keep(line, value)
        return value
