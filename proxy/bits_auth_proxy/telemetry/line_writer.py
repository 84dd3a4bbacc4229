"""Writes the log's lines, so that neither a slow reader nor a full disk holds up or fails who writes.

Lines for a descriptor go through a bounded queue to a thread of their own. Other ways would not be enough:
O_NONBLOCK belongs to the open file, which a shell or another process may share. A look at whether the
descriptor is writable promises too little for a terminal, and nothing for a file on a mount that hangs.

Lines that find the queue full or can't be written are dropped and counted. When lines can be written again,
one of them says how many were dropped.
"""

import atexit
import contextlib
import errno
import os
import queue
import re
import select
import threading
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final, NamedTuple, TextIO

from bits_auth_proxy.threads import start_daemon

CAPACITY: Final = 128 * 1024
"""The largest number of bytes that wait to be written, apart from a single longer text."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that the end of the process waits until everything is written."""
_NEWLINE: Final = ord("\n")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_GONE: Final = (errno.EPIPE, errno.EIO)
"""What writing to a pipe without a reader, or to a terminal that was closed, results in."""


class _Text(NamedTuple):
    """What waits to be written, and how many lines are lost if it can't be."""

    content: bytes
    lines: int


class LineWriter:
    """A stream that takes whole lines: no method blocks or raises."""

    dropped: ClassVar[int] = 0
    """How many lines this process has dropped."""
    on_gone: ClassVar[Callable[[], object] | None] = None
    """Called in another thread when a write fails because the reader or the terminal has gone."""
    _lock: ClassVar = threading.Lock()

    def __init__(
        self,
        stream: TextIO,
        *,
        replace: Callable[[str], str],
        report: Callable[[int], str],
        capacity: int = CAPACITY,
    ) -> None:
        """Write to `stream`. `replace` returns, in ASCII, what stands for a character that it can't encode.

        `report` takes how many lines were dropped and returns the line that says so, which is written once
        lines can be written again. A stream without a descriptor (in tests) is written to directly.
        """
        self._stream = stream
        self._replace = replace
        self._report = report
        self._capacity = capacity
        self._direct = _descriptor_of(stream) is None
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._waiting: queue.SimpleQueue[_Text | None] = queue.SimpleQueue()
        self._size = 0
        self._thread: threading.Thread | None = None
        self._unreported = 0
        self._torn = False

    def write(self, text: str, lines: int | None = None) -> bool:
        """Write `text` soon; return whether it was accepted. `lines` is how many it counts as if dropped."""
        count = text.count("\n") if lines is None else lines
        if self._direct:
            return self._write_directly(text, count)
        content = self._encoded(text)
        with self._lock:
            if self._size and self._size + len(content) > self._capacity:
                self._drop(count)
                return False
            if self._thread is None and not self._start():
                self._drop(count)
                return False
            self._size += len(content)
            self._waiting.put(_Text(content, count))
        return True

    def flush(self) -> None:
        """Write what a stream without a descriptor has buffered. Other lines do not wait for a call."""
        if self._direct:
            self._flush_stream()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    @property
    def idle(self) -> bool:
        """Whether everything has been written."""
        return not self._size

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Wait until everything is written, but no longer than `timeout` seconds."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            self._waiting.put(None)
            thread.join(timeout)

    # Internals.

    def _start(self) -> bool:
        """Start the thread; return whether that was possible. The caller holds the lock.

        The thread gets a descriptor of its own: once the stream is closed, its number may soon be that of a
        client's connection.
        """
        self._flush_stream()
        number = _descriptor_of(self._stream)
        if number is None:
            return False
        try:
            descriptor = os.dup(number)
        except OSError:  # The process has too many open files.
            return False
        try:
            self._thread = start_daemon(partial(self._run, descriptor), name="log")
        except RuntimeError:  # The process is ending.
            os.close(descriptor)
            return False
        atexit.register(self.close)
        return True

    def _write_directly(self, text: str, lines: int) -> bool:
        # ValueError: the stream is closed.
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                # Nothing is written yet: a stream encodes the whole text first.
                self._stream.write(self._encodable(text))
            if self._unreported:
                self._stream.write(self._report_dropped())
        except (OSError, ValueError):
            with self._lock:
                self._drop(lines)
            return False
        return True

    def _encoded(self, text: str) -> bytes:
        try:
            return text.encode(self._encoding)
        except UnicodeError:
            return self._encodable(text).encode(self._encoding, "replace")

    def _encodable(self, text: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            try:
                match[0].encode(self._encoding)
            except UnicodeError:
                return self._replace(match[0])
            return match[0]

        return _NOT_ASCII.sub(replaced, text)

    def _flush_stream(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def _run(self, descriptor: int) -> None:
        """Write what waits, as much as there is at a time, until the end is announced; close `descriptor`.

        Runs in the thread.
        """
        ended = False
        while not ended:
            entries = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    entries.append(self._waiting.get_nowait())
            texts = [entry for entry in entries if entry is not None]
            ended = len(texts) < len(entries)
            if self._write_out(descriptor, texts) and self._unreported:
                report = self._encoded(self._report_dropped())
                with self._lock:
                    self._size += len(report)
                self._write_out(descriptor, [_Text(report, 1)])
        os.close(descriptor)

    def _write_out(self, descriptor: int, texts: list[_Text]) -> bool:
        """Write `texts`; return whether all could be written."""
        # The rest of a line is lost if the disk was full: the next one must not continue it.
        gap = b"\n" if self._torn else b""
        content = gap + b"".join([text.content for text in texts])
        written, error = _write_all(descriptor, content)
        if error is None:
            self._torn = False
        elif written:
            self._torn = content[written - 1] != _NEWLINE
        with self._lock:
            self._size -= len(content) - len(gap)
            if error is not None:
                self._drop(_lines_lost(texts, written - len(gap)))
        on_gone = LineWriter.on_gone
        if error is not None and error.errno in _GONE and on_gone is not None:
            with contextlib.suppress(RuntimeError):  # The event loop is closed by now.
                on_gone()
        return error is None

    def _drop(self, lines: int) -> None:
        """Count lines that are lost. The caller holds the lock."""
        self._unreported += lines
        LineWriter.dropped += lines

    def _report_dropped(self) -> str:
        with self._lock:
            count, self._unreported = self._unreported, 0
        return self._report(count)


def _write_all(descriptor: int, content: bytes) -> tuple[int, OSError | None]:
    """Write `content`, and wait as long as that takes; return how much was written, and the error, if any."""
    written = 0
    while written < len(content):
        try:
            written += os.write(descriptor, content[written:])
        except BlockingIOError:
            # Another process has made the open file non-blocking.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError as error:
            return written, error
    return written, None


def _lines_lost(texts: list[_Text], written: int) -> int:
    """Return how many lines of `texts` are not among the first `written` bytes."""
    lost = 0
    for content, lines in texts:
        if written < len(content):
            lost += min(lines, content.count(b"\n", max(0, written)))
        written -= len(content)
    return lost


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # It is no file, or it is closed.
        return None
