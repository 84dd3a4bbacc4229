"""The log's vocabulary, and what keeps repeats from flooding it."""

import ast
import inspect
from pathlib import Path

import pytest

import bits_auth_proxy
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry import log as log_setup
from bits_auth_proxy.telemetry.events import EVENTS
from bits_auth_proxy.telemetry.log import LEVELS
from bits_auth_proxy.telemetry.repeat_limit import BURST, WINDOW, RepeatLimit
from tests.support.clock import FakeClock
from tests.support.timers import FakeTimers
from tests.support.vocabulary import undocumented


class Limited:
    """A limit on a clock that the test moves, and what it reported."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timers = FakeTimers(self.clock)
        self.reports: list[tuple[str, str, int]] = []
        self.it = RepeatLimit(
            clock=self.clock,
            call_later=self.timers.call_later,
            report=lambda *what: self.reports.append(what),
        )

    def admitted(self, kind: str, times: int) -> int:
        return sum(self.it.admits(events.REQUEST.name, kind) for _ in range(times))


@pytest.fixture
async def limited() -> Limited:
    return Limited()


async def test_a_few_lines_of_a_kind_get_through_and_the_rest_is_told_as_a_number(limited: Limited) -> None:
    assert limited.admitted("503", 1000) == BURST
    assert limited.reports == []
    await limited.timers.advance(WINDOW)
    assert limited.reports == [("request", "503", 1000 - BURST)]
    # Told once; and the next window is a new one.
    await limited.timers.advance(3 * WINDOW)
    assert len(limited.reports) == 1
    assert limited.admitted("503", 1) == 1


async def test_kinds_and_events_do_not_take_each_others_place(limited: Limited) -> None:
    assert limited.admitted("503", BURST + 1) == BURST
    assert limited.admitted("502", 1) == 1
    assert limited.it.admits(events.CONNECT_FAILED.name, "503")


async def test_each_kind_is_told_at_the_end_of_its_own_window(limited: Limited) -> None:
    limited.admitted("503", BURST + 1)
    await limited.timers.advance(WINDOW / 2)
    limited.admitted("502", BURST + 2)
    await limited.timers.advance(WINDOW / 2)
    assert limited.reports == [("request", "503", 1)]
    await limited.timers.advance(WINDOW / 2)
    assert limited.reports == [("request", "503", 1), ("request", "502", 2)]


async def test_an_hours_outage_costs_a_few_lines_in_each_window(limited: Limited) -> None:
    written = 0
    for _ in range(3600):
        written += limited.admitted("503", 100)
        await limited.timers.advance(1.0, step=1.0)
    assert written <= BURST * (3600 / WINDOW + 1)
    assert limited.timers.waiting <= 1
    limited.it.flush()
    assert written + sum(count for _, _, count in limited.reports) == 3600 * 100


async def test_lines_at_their_natural_pace_are_all_written(limited: Limited) -> None:
    for _ in range(100):
        assert limited.admitted("503", 1) == 1
        await limited.timers.advance(WINDOW / BURST)
    assert limited.reports == []
    assert limited.timers.waiting == 0


async def test_at_the_end_what_was_left_out_is_told(limited: Limited) -> None:
    limited.admitted("503", BURST + 2)
    limited.it.flush()
    assert limited.reports == [("request", "503", 2)]
    assert limited.timers.waiting == 0


async def test_a_window_that_ended_unseen_is_told_before_the_next(limited: Limited) -> None:
    limited.admitted("503", BURST + 2)
    limited.clock.advance(WINDOW)
    assert limited.admitted("503", 1) == 1
    assert limited.reports == [("request", "503", 2)]


def test_names_are_unique_and_levels_are_levels() -> None:
    assert len({event.name for event in EVENTS}) == len(EVENTS)
    assert {level for event in EVENTS for level in event.levels} <= {*LEVELS, "critical"}


def test_nothing_is_logged_but_the_vocabulary() -> None:
    """Every call on our logger names its event by a constant of `bits_auth_proxy.telemetry.events`."""
    calls = [
        ast.unparse(node.args[0])
        for path in Path(bits_auth_proxy.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in (*LEVELS, "level")
        and node.args
    ]
    named = [call for call in calls if call.startswith("events.") and call.endswith(".name")]
    assert len(named) >= 15
    assert [call for call in calls if call not in named] == []
    assert f'critical("{events.DIED.name}"' in inspect.getsource(log_setup)


def test_each_event_is_logged_somewhere() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(bits_auth_proxy.__file__).parent.rglob("*.py"))
    unused = [
        name
        for name, value in vars(events).items()
        if value in EVENTS and f"events.{name}" not in source and value is not events.DIED
    ]
    assert unused == []


def test_what_is_not_documented_is_found() -> None:
    good = '{"timestamp":"t","level":"warning","event":"token_refused","fingerprint":"f"}\n'
    assert undocumented(good) == []
    assert len(undocumented(good.replace("token_refused", "token_lost"))) == 1
    assert len(undocumented(good.replace("warning", "info"))) == 1
    assert len(undocumented(good.replace("fingerprint", "value"))) == 1
