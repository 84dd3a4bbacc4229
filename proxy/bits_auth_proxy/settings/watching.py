"""Notices that files have changed: looks at them every few seconds, and at once when asked.

It knows neither what the files hold nor what depends on them: each group of files brings its own way to read
them and callbacks for what comes of it. A read can hang with its mount, so it happens outside of the event
loop, and one that hangs is reported while everything else goes on.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from bits_auth_proxy.errors import OperatorError

POLL_INTERVAL: Final = 5.0
"""Seconds between two looks at the files. A change must be noticed within 10 s."""
TIME_LIMIT: Final = 5.0
"""Seconds after which a read is reported as hanging."""

Content = TypeVar("Content")


class Timer(Protocol):
    """A call that is scheduled."""

    def cancel(self) -> None:
        """Call it off."""
        ...


class Outcome(Protocol):
    """The outcome of a call that is made elsewhere, as in `asyncio.Future`."""

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        ...

    def add_done_callback(self, done: Callable[[Any], Any], /) -> None:
        """Call `done` with this when the call has ended."""
        ...


class WatchedFiles(NamedTuple, Generic[Content]):
    """Files that change together, and what to do about it."""

    name: str
    """Which they are, in messages: the variable and the path."""
    poll: Callable[[], Content]
    """Looks at the files; not called in the event loop. Raises OperatorError when they can't be used."""
    on_read: Callable[[Content], None]
    """Takes what `poll` returned, after every look."""
    on_unusable: Callable[[OperatorError], None]
    """Takes what `poll` raised; whatever was read before stays in use."""


class FileWatcher:
    """Polls files from `start` to `close`. If one look fails, the others and the next ones still happen."""

    __slots__ = ("_call_later", "_closed", "_looks", "_on_crash", "_timer")

    def __init__(
        self,
        files: Sequence[WatchedFiles[Any]],
        *,
        call_later: Callable[[float, Callable[[], None]], Timer],
        read: Callable[[Callable[[], Any]], Outcome],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        """Take the files in the order to look at them; `on_crash` takes every unexpected exception.

        `read` makes a call that may hang.
        """
        self._call_later: Final = call_later
        self._on_crash: Final = on_crash
        self._looks: Final = [_Look(each, call_later, read, on_crash) for each in files]
        self._timer: Timer | None = None
        self._closed = False

    @property
    def looking(self) -> bool:
        """Whether a read is under way that does not seem to hang."""
        return any(each.under_way and not each.hangs for each in self._looks)

    def start(self) -> None:
        """Look at the files from now on, for the first time after one interval."""
        if self._looks and not self._closed:
            self._timer = self._call_later(POLL_INTERVAL, self._poll)

    def look(self) -> None:
        """Look at all files immediately."""
        for each in self._looks:
            try:
                each.begin()
            except Exception as error:  # noqa: BLE001 - what is in use must not suffer from it
                self._on_crash(error)

    def close(self) -> None:
        """Stop polling. Can be called at any time. What is still being read is dropped."""
        self._closed = True
        for each in self._looks:
            each.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        # This comes first: whatever happens below, there is a next time.
        self._timer = self._call_later(POLL_INTERVAL, self._poll)
        self.look()


class _Look:
    """Looks at one group of files, one read at a time."""

    __slots__ = (
        "_again",
        "_call_later",
        "_closed",
        "_files",
        "_on_crash",
        "_read",
        "_timer",
        "hangs",
        "under_way",
    )

    def __init__(
        self,
        files: WatchedFiles[Any],
        call_later: Callable[[float, Callable[[], None]], Timer],
        read: Callable[[Callable[[], Any]], Outcome],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._files: Final = files
        self._call_later: Final = call_later
        self._read: Final = read
        self._on_crash: Final = on_crash
        self._timer: Timer | None = None
        self._closed = False
        self._again = False
        self.under_way = False
        self.hangs = False

    def begin(self) -> None:
        """Read the files; if that is under way, once more afterwards, because they may have changed since."""
        if self.hangs:
            self._report_hanging()
        elif self.under_way:
            self._again = True
        else:
            self.under_way = True
            self._timer = self._call_later(TIME_LIMIT, self._overdue)
            self._read(self._files.poll).add_done_callback(self._end)

    def close(self) -> None:
        """Drop what is still being read."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _overdue(self) -> None:
        self.hangs = True
        self._report_hanging()

    def _report_hanging(self) -> None:
        text = f"{self._files.name} can't be read: no answer within {TIME_LIMIT:g} s"
        self._files.on_unusable(OperatorError(text))

    def _end(self, outcome: Outcome) -> None:
        again, self._again = self._again, False
        self.under_way = self.hangs = False
        if self._timer is not None:
            self._timer.cancel()
        if self._closed:
            return
        try:
            try:
                content = outcome.result()
            except OperatorError as error:
                self._files.on_unusable(error)
            else:
                self._files.on_read(content)
            if again:
                self.begin()
        except Exception as error:  # noqa: BLE001 - what is in use must not suffer from it
            self._on_crash(error)
