"""Exchanges that keep copies of both bodies, for `BITS_INSPECT`. If that is off, nothing here is used."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.http1.messages import ResponseHead

MAX_COPY: Final = 64 * 1024
"""The largest number of bytes of a body that are copied."""

Keep: TypeAlias = Callable[["InspectedExchange"], None]


class BodyCopy:
    """The beginning of a body, and its whole size."""

    __slots__ = ("_pieces", "_room", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._room = MAX_COPY
        self.size = 0

    @property
    def content(self) -> bytes | None:
        """The body, or None if it was too large to be copied whole."""
        return b"".join(self._pieces) if self.size <= MAX_COPY else None

    def add(self, content: bytes) -> None:
        """Take the next piece of the body."""
        self.size += len(content)
        if self._room:
            self._pieces.append(content[: self._room])
            self._room -= len(self._pieces[-1])


class InspectedExchange(Exchange):
    """An exchange that passes itself to `keep` when it ends, with copies of both bodies."""

    __slots__ = ("_keep", "request_copy", "response_copy")

    def __init__(self, keep: Keep, *parts: Any, **more: Any) -> None:
        """Take `keep`, then the arguments of `Exchange`."""
        super().__init__(*parts, **more)
        self._keep = keep
        self.request_copy = BodyCopy()
        self.response_copy = BodyCopy()

    @property
    def response(self) -> ResponseHead | None:
        """The head of the API's response, or None if there was none."""
        return self._relay.head

    def start(self, content: bytes, *, done: bool) -> None:  # noqa: D102 - as in Exchange
        self.request_copy.add(content)
        super().start(content, done=done)

    def request_data(self, content: bytes, *, done: bool) -> None:  # noqa: D102 - as in Exchange
        self.request_copy.add(content)
        super().request_data(content, done=done)

    def response_head(self, head: ResponseHead, length: int) -> None:  # noqa: D102 - as in Exchange
        # Drop the copy of a 401 if another token has led to this response.
        self.response_copy = BodyCopy()
        super().response_head(head, length)

    def response_body(self, content: bytes) -> None:  # noqa: D102 - as in Exchange
        self.response_copy.add(content)
        super().response_body(content)

    def _finish_record(self) -> None:
        super()._finish_record()
        try:
            self._keep(self)
        except Exception as error:  # noqa: BLE001 - inspection must not disturb the exchange
            self._context.observer.crashed(error)
