"""Notices that files have changed: looks at them every few seconds, and at once when asked.

It knows neither what the files hold nor what depends on them: each group of files brings its own way to read
them and callbacks for what comes of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from bits_auth_proxy.errors import OperatorError

POLL_INTERVAL: Final = 5.0
"""Seconds between two looks at the files. A change must be noticed within 10 s."""

Content = TypeVar("Content")


class Timer(Protocol):
    """A call that is scheduled."""

    def cancel(self) -> None:
        """Call it off."""
        ...


class WatchedFiles(NamedTuple, Generic[Content]):
    """Files that change together, and what to do about it."""

    poll: Callable[[], Content]
    """Looks at the files. Raises OperatorError when they can't be used."""
    on_read: Callable[[Content], None]
    """Takes what `poll` returned, after every look."""
    on_unusable: Callable[[OperatorError], None]
    """Takes what `poll` raised; whatever was read before stays in use."""


class FileWatcher:
    """Polls files from `start` to `close`. If one look fails, the others and the next ones still happen."""

    __slots__ = ("_call_later", "_files", "_on_crash", "_timer")

    def __init__(
        self,
        files: Sequence[WatchedFiles[Any]],
        *,
        call_later: Callable[[float, Callable[[], None]], Timer],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """Take the files in the order to look at them; `on_crash` takes every unexpected exception."""
        self._files: Final = files
        self._call_later: Final = call_later
        self._on_crash: Final = on_crash
        self._timer: Timer | None = None

    def start(self) -> None:
        """Look at the files from now on, for the first time after one interval."""
        if self._files:
            self._timer = self._call_later(POLL_INTERVAL, self._poll)

    def look(self) -> None:
        """Look at all files immediately."""
        for files in self._files:
            try:
                _look_at(files)
            except Exception as error:  # noqa: BLE001 - what is in use must not suffer from it
                self._on_crash(error)

    def close(self) -> None:
        """Stop polling. Can be called at any time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        # This comes first: whatever happens below, there is a next time.
        self._timer = self._call_later(POLL_INTERVAL, self._poll)
        self.look()


def _look_at(files: WatchedFiles[Content]) -> None:
    try:
        content = files.poll()
    except OperatorError as error:
        files.on_unusable(error)
    else:
        files.on_read(content)
