"""Files are looked at every few seconds and on demand, and nothing that a look meets ends that."""

from collections.abc import Callable
from typing import Any

from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.settings.watching import POLL_INTERVAL, TIME_LIMIT, FileWatcher, WatchedFiles


class Timer:
    """A call that the test makes."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Call:
    """A call that is made when the test releases it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result = call
        self._done: list[Callable[[Any], Any]] = []
        self._released = False

    def add_done_callback(self, done: Callable[[Any], Any], /) -> None:
        self._done.append(done)
        if self._released:
            done(self)

    def release(self) -> None:
        self._released = True
        for done in self._done:
            done(self)


class Files:
    """Files whose next look goes as the test says."""

    def __init__(self) -> None:
        self.next: str | Exception = "first"
        self.reports: list[str] = []

    def poll(self) -> str:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def watched(self) -> WatchedFiles[str]:
        return WatchedFiles(
            name="NAME: /path",
            poll=self.poll,
            on_read=lambda content: self.reports.append(f"read {content}"),
            on_unusable=lambda error: self.reports.append(f"unusable: {error}"),
        )


class Watched:
    """A watcher of two groups of files, its timers and the crashes it reports."""

    def __init__(self) -> None:
        self.files = (Files(), Files())
        self.timers: list[Timer] = []
        self.calls: list[Call] = []
        self.hanging = False
        self.crashes: list[BaseException] = []
        self.watcher = FileWatcher(
            [each.watched() for each in self.files],
            call_later=self.call_later,
            read=self.read,
            on_crash=self.crashes.append,
        )

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    def read(self, call: Callable[[], Any]) -> Call:
        self.calls.append(Call(call))
        if not self.hanging:
            self.calls[-1].release()
        return self.calls[-1]

    @property
    def polls(self) -> list[Timer]:
        """The timers that are not for the time limit of a read."""
        return [timer for timer in self.timers if getattr(timer.call, "__name__", "") == "_poll"]

    @property
    def reports(self) -> list[list[str]]:
        return [each.reports for each in self.files]


def test_the_first_look_comes_after_one_interval_and_each_one_sets_the_next() -> None:
    its = Watched()
    its.watcher.start()
    assert its.reports == [[], []]
    for count in (1, 2, 3):
        timer = its.polls[-1]
        assert timer.seconds == POLL_INTERVAL
        timer.call()
        assert len(its.polls) == count + 1
        assert its.reports == [["read first"] * count] * 2


def test_a_change_is_noticed_within_ten_seconds() -> None:
    assert 2 * POLL_INTERVAL <= 10


def test_a_look_on_demand_sets_no_timer() -> None:
    its = Watched()
    its.watcher.look()
    assert its.reports == [["read first"], ["read first"]]
    assert its.polls == []


def test_unusable_files_are_reported_and_the_others_are_read() -> None:
    its = Watched()
    its.files[0].next = OperatorError("no such file")
    its.watcher.look()
    assert its.reports == [["unusable: no such file"], ["read first"]]
    its.files[0].next = "second"
    its.watcher.look()
    assert its.reports[0][-1] == "read second"
    assert its.crashes == []


def test_a_crash_is_reported_and_ends_nothing() -> None:
    its = Watched()
    its.watcher.start()
    error = its.files[0].next = RuntimeError("boom")
    its.polls[-1].call()
    assert its.crashes == [error]
    assert its.reports == [[], ["read first"]]
    its.files[0].next = "second"
    its.polls[-1].call()
    assert its.reports[0] == ["read second"]


def test_after_close_no_look_is_due() -> None:
    its = Watched()
    its.watcher.start()
    its.polls[-1].call()
    its.watcher.close()
    its.watcher.close()
    assert all(timer.cancelled for timer in its.timers[1:])
    its.watcher.start()
    assert len(its.polls) == 2


def test_a_read_that_hangs_is_reported_at_every_look_and_holds_up_nothing() -> None:
    its = Watched()
    its.hanging = True
    its.watcher.start()
    its.polls[-1].call()
    first, second = its.calls
    assert its.watcher.looking
    second.release()
    assert its.reports == [[], ["read first"]]
    limits = [timer for timer in its.timers if timer not in its.polls]
    assert [timer.seconds for timer in limits] == [TIME_LIMIT, TIME_LIMIT]
    limits[0].call()
    hung = "unusable: NAME: /path can't be read: no answer within 5 s"
    assert its.reports[0] == [hung]
    assert not its.watcher.looking
    its.hanging = False
    its.watcher.look()
    # One thread at a time is enough to hang.
    assert its.reports == [[hung, hung], ["read first", "read first"]]
    assert len(its.calls) == 3
    first.release()
    assert its.reports[0] == [hung, hung, "read first"]
    its.watcher.look()
    assert its.reports[0][-2:] == ["read first", "read first"]


def test_a_look_during_a_read_is_made_up_for() -> None:
    its = Watched()
    its.hanging = True
    for _ in range(3):
        its.watcher.look()
    assert len(its.calls) == 2
    its.calls[0].release()
    assert len(its.calls) == 3
    its.calls[2].release()
    assert its.reports[0] == ["read first", "read first"]
    assert len(its.calls) == 3


def test_what_is_still_being_read_at_the_end_is_dropped() -> None:
    its = Watched()
    its.hanging = True
    its.watcher.look()
    its.watcher.close()
    its.calls[0].release()
    assert its.reports == [[], []]
    assert all(timer.cancelled for timer in its.timers)


def test_a_watcher_of_nothing_sets_no_timer() -> None:
    its = Watched()
    watcher = FileWatcher([], call_later=its.call_later, read=its.read, on_crash=its.crashes.append)
    watcher.start()
    watcher.look()
    watcher.close()
    assert its.timers == []
