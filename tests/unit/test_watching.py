"""Files are looked at every few seconds and on demand, and nothing that a look meets ends that."""

from collections.abc import Callable

from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.settings.watching import POLL_INTERVAL, FileWatcher, WatchedFiles


class Timer:
    """A call that the test makes."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


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
            poll=self.poll,
            on_read=lambda content: self.reports.append(f"read {content}"),
            on_unusable=lambda error: self.reports.append(f"unusable: {error}"),
        )


class Watched:
    """A watcher of two groups of files, its timers and the crashes it reports."""

    def __init__(self) -> None:
        self.files = (Files(), Files())
        self.timers: list[Timer] = []
        self.crashes: list[BaseException] = []
        self.watcher = FileWatcher(
            [each.watched() for each in self.files],
            call_later=self.call_later,
            on_crash=self.crashes.append,
        )

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    @property
    def reports(self) -> list[list[str]]:
        return [each.reports for each in self.files]


def test_the_first_look_comes_after_one_interval_and_each_one_sets_the_next() -> None:
    its = Watched()
    its.watcher.start()
    assert its.reports == [[], []]
    for count in (1, 2, 3):
        timer = its.timers[-1]
        assert timer.seconds == POLL_INTERVAL
        timer.call()
        assert len(its.timers) == count + 1
        assert its.reports == [["read first"] * count] * 2


def test_a_change_is_noticed_within_ten_seconds() -> None:
    assert 2 * POLL_INTERVAL <= 10


def test_a_look_on_demand_sets_no_timer() -> None:
    its = Watched()
    its.watcher.look()
    assert its.reports == [["read first"], ["read first"]]
    assert its.timers == []


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
    its.timers[-1].call()
    assert its.crashes == [error]
    assert its.reports == [[], ["read first"]]
    its.files[0].next = "second"
    its.timers[-1].call()
    assert its.reports[0] == ["read second"]


def test_after_close_no_look_is_due() -> None:
    its = Watched()
    its.watcher.close()
    its.watcher.start()
    its.timers[-1].call()
    its.watcher.close()
    its.watcher.close()
    assert its.timers[-1].cancelled


def test_a_watcher_of_nothing_sets_no_timer() -> None:
    its = Watched()
    watcher = FileWatcher([], call_later=its.call_later, on_crash=its.crashes.append)
    watcher.start()
    watcher.look()
    watcher.close()
    assert its.timers == []
