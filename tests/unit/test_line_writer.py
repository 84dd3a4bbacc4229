"""Lines that can't be written are dropped and counted, and nobody waits for a reader."""

import contextlib
import errno
import fcntl
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bits_auth_proxy.telemetry.line_writer import LineWriter
from tests.support.line_writers import direct
from tests.support.waiting import HANGS

LINE = "x" * 99 + "\n"


class Pipe:
    """A small pipe, and a writer of lines for it."""

    def __init__(self, capacity: int) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.stream = os.fdopen(writer, "w", encoding="ascii")
        self.it = LineWriter(
            self.stream, replace=ascii, report=lambda count: f"({count} dropped)\n", capacity=capacity
        )

    def read(self) -> str:
        """Return what is there until the other end is closed."""
        pieces = []
        while piece := os.read(self.reader, 65_536):
            pieces.append(piece)
        return b"".join(pieces).decode("ascii")


@pytest.fixture
def dropped() -> Callable[[], int]:
    before = LineWriter.dropped
    return lambda: LineWriter.dropped - before


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(capacity=1000)
    yield made
    made.it.close(timeout=0)
    made.stream.close()
    # The end of the pipe is the end of the thread, so no test has the lines of another.
    made.read()
    os.close(made.reader)


def until_full(it: LineWriter) -> int:
    """Write until lines are dropped; return how many were accepted."""
    accepted = 0
    while it.write(LINE):
        accepted += 1
        assert accepted < 10_000
    return accepted


def reading(pipe: Pipe) -> tuple[threading.Thread, list[str]]:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(pipe.read()))
    thread.start()
    return thread, found


def test_a_stalled_reader_blocks_nobody_and_is_told_what_it_missed(
    pipe: Pipe, dropped: Callable[[], int]
) -> None:
    accepted = until_full(pipe.it)
    for _ in range(5):
        assert not pipe.it.write(LINE * 2)
    assert dropped() == 11
    assert not pipe.it.idle
    thread, found = reading(pipe)
    pipe.it.close(HANGS)
    pipe.stream.close()
    thread.join(HANGS)
    assert found[0].replace("(11 dropped)\n", "") == LINE * accepted
    assert "(11 dropped)\n" in found[0]
    assert dropped() == 11


def test_the_end_waits_for_the_reader_but_not_for_ever(pipe: Pipe) -> None:
    until_full(pipe.it)
    pipe.it.close(timeout=0.01)


def test_a_text_longer_than_the_queue_is_written_if_nothing_else_waits(pipe: Pipe) -> None:
    thread, found = reading(pipe)
    assert pipe.it.write(LINE * 1000)
    pipe.it.close(HANGS)
    pipe.stream.close()
    thread.join(HANGS)
    assert found == [LINE * 1000]


def test_a_pipe_that_was_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    assert pipe.it.write(LINE * 100)
    thread, found = reading(pipe)
    pipe.it.close(HANGS)
    pipe.stream.close()
    thread.join(HANGS)
    assert found == [LINE * 100]


def test_who_reads_no_more_costs_lines_and_is_reported(
    dropped: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    monkeypatch.setattr(LineWriter, "on_gone", gone.set)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="ascii") as stream:
        it = LineWriter(stream, replace=ascii, report=str)
        os.close(reader)
        it.write(LINE)
        assert gone.wait(HANGS)
        it.close(HANGS)
    assert dropped() == 1


class Disk:
    """Stands in for `os.write`: a disk that has room for some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, _: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left")
        piece = data[: self.room]
        self.room -= len(piece)
        self.content += piece
        return len(piece)


def test_a_disk_that_was_full_continues_with_a_line_of_its_own(
    pipe: Pipe, dropped: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(150)
    monkeypatch.setattr("bits_auth_proxy.telemetry.line_writer.os.write", disk.write)
    pipe.it.write(LINE * 3)
    pipe.it.close(HANGS)
    pipe.it.write(LINE)
    pipe.it.close(HANGS)
    assert dropped() == 3
    disk.room = 10_000
    pipe.it.write("again\n")
    pipe.it.close(HANGS)
    assert disk.content.decode().splitlines() == ["x" * 99, "x" * 50, "again", "(3 dropped)"]


def test_while_lines_are_dropped_all_the_time_the_others_are_still_written(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def slow(_: int, data: bytes) -> int:
        # Meanwhile, there are more lines than the queue has room for.
        if len(written) < 100:
            until_full(pipe.it)
        written.append(data)
        return len(data)

    monkeypatch.setattr("bits_auth_proxy.telemetry.line_writer.os.write", slow)
    pipe.it.write(LINE)
    pipe.it.close(HANGS)
    reports = [data for data in written if b"dropped" in data]
    assert 0 < len(reports) <= len(written) / 2 + 1


@contextlib.contextmanager
def reused(number: int) -> Iterator[int]:
    """Let the descriptor `number`, which was closed, be another pipe's; yield that pipe's other end."""
    pair = os.pipe()
    reader, writer = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, number + 1) for each in pair)
    for each in pair:
        os.close(each)
    os.dup2(writer, number)
    os.close(writer)
    os.set_blocking(reader, False)
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(number)


def holds(reader: int) -> bytes:
    try:
        return os.read(reader, 65_536)
    except BlockingIOError:
        return b""


def test_lines_that_wait_when_the_stream_is_closed_do_not_reach_who_gets_its_number(pipe: Pipe) -> None:
    accepted = until_full(pipe.it)
    number = pipe.stream.fileno()
    pipe.stream.close()
    with reused(number) as other:
        thread, found = reading(pipe)
        pipe.it.close(HANGS)
        thread.join(HANGS)
        assert holds(other) == b""
    assert "".join(found).replace("(1 dropped)\n", "") == LINE * accepted


def test_lines_after_the_stream_is_closed_are_dropped(pipe: Pipe, dropped: Callable[[], int]) -> None:
    number = pipe.stream.fileno()
    pipe.stream.close()
    with reused(number) as other:
        assert not pipe.it.write(LINE * 2)
        pipe.it.close(HANGS)
        assert holds(other) == b""
    assert dropped() == 2


def test_without_a_free_descriptor_lines_are_dropped_until_there_is_one(
    pipe: Pipe, dropped: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("bits_auth_proxy.telemetry.line_writer.os.dup", full)
        assert not pipe.it.write(LINE)
    assert dropped() == 1
    assert pipe.it.write(LINE)
    pipe.it.close(HANGS)
    pipe.stream.close()
    assert pipe.read() == LINE + "(1 dropped)\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "utf-16", "shift_jis"])
def test_no_text_raises_in_any_encoding(encoding: str) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding=encoding) as stream:
        it = LineWriter(stream, replace=lambda _: "?", report=str)
        assert it.write("caf\xe9 \u2192 \U0001f511 \udcff \ud83d\n")
        it.close(HANGS)
    with os.fdopen(reader, "rb") as file:
        assert file.read().decode(encoding).startswith("caf")


def test_a_stream_without_a_descriptor_is_written_to_at_once(dropped: Callable[[], int]) -> None:
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> Any:
            if self.full:
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(text)

    stream = Full()
    it = direct(stream)
    assert not it.write("one\ntwo\n")
    assert dropped() == 2
    stream.full = False
    assert it.write("three\n")
    assert stream.getvalue() == "three\n(2 dropped)\n"
    stream.close()
    assert not it.write("four\n")
    it.flush()
    assert dropped() == 3
