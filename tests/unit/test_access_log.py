"""Lines made directly say what the log's pipeline would have said, and hide what it would have hidden."""

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.auth.refresher import RefresherStatus
from bits_auth_proxy.auth.tokens import TokenState
from bits_auth_proxy.http1.messages import RequestHead
from bits_auth_proxy.telemetry.access_log import AccessLog
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.log import Redactor, configure, json_lines
from bits_auth_proxy.telemetry.observers import Limits, Load, Telemetry
from tests.support.clock import FakeClock
from tests.support.timers import FakeTimers

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ABSENT = RefresherStatus(TokenState.ABSENT, None, None, 0.0, True, 0, False, None)
instants = st.floats(0.0, 100.0).map(lambda seconds: round(seconds, 6))


class Ended:
    problem = ""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


records = st.builds(
    Ended,
    request_id=st.binary(min_size=1, max_size=30).filter(bytes.isascii),
    operation=st.sampled_from(["other", "applications.create"]),
    method=st.sampled_from([b"GET", b"POST", b'odd "\\ \xff']),
    status=st.integers(200, 599),
    started=st.just(0.0),
    token_at=instants,
    sent=instants,
    answered=st.just(0.0) | instants,
    ended=instants,
    request_bytes=st.integers(0, 10**12),
    response_bytes=st.integers(0, 10**12),
    head=st.sampled_from(
        [{}, {b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}]
    ).map(lambda by_name: RequestHead(b"POST", b"/", 1, [], by_name)),
)


def ended(request_id: bytes, status: int) -> Ended:
    return Ended(
        request_id=request_id,
        operation="other",
        method=b"GET",
        status=status,
        started=1.0,
        token_at=1.0,
        sent=1.0,
        answered=1.5,
        ended=2.0,
        request_bytes=0,
        response_bytes=4,
        head=RequestHead(b"GET", b"/", 1, [], {}),
    )


RECORD = ended(b"id-with-a-secret", 200)
BROKEN = ended(b"broken", 502)


def telemetry(write_line: Callable[[str, str], None] | None) -> Telemetry:
    clock = FakeClock()
    return Telemetry(
        clock=clock,
        access_log="all",
        token_status=lambda: ABSENT,
        load=lambda: Load(0, {}, 0),
        limits=Limits(1000, 100, 1000),
        conceal=lambda _: None,
        journal=Journal(clock),
        call_later=FakeTimers(clock).call_later,
        write_line=write_line,
    )


def logged(record: Ended, *, directly: bool, level: str = "info", secret: str = "") -> str:
    stream = io.StringIO()
    redactor = Redactor()
    redactor.add(secret)
    configure(level=level, fmt="json", redactor=redactor, stream=stream)
    lines = json_lines(lambda _: None)
    assert lines is not None
    its = telemetry(lines.write if directly else None)
    its.exchange_ended(record)  # type: ignore[arg-type]  # it has what is looked at
    assert not (directly and stream.getvalue()), "written before the turn's end"
    lines.flush()
    return stream.getvalue()


@given(records)
def test_a_line_is_what_the_pipeline_makes(record: Ended) -> None:
    expected = json.loads(logged(record, directly=False))
    seen = json.loads(logged(record, directly=True))
    assert len(seen.pop("timestamp")) == len(expected.pop("timestamp"))
    assert list(seen) == list(expected)
    assert seen == pytest.approx(expected, abs=2e-6)


@given(st.floats(0, 4e9))
def test_the_time_is_that_of_the_clock(wall: float) -> None:
    written: list[str] = []
    AccessLog(clock=FakeClock(wall=wall), write=lambda _, line: written.append(line)).log(RECORD)  # type: ignore[arg-type]
    seen = datetime.fromisoformat(json.loads(written[0])["timestamp"])
    assert seen.timestamp() == pytest.approx(wall, abs=2e-6)
    assert seen.utcoffset() == timedelta(0)


def test_secrets_in_it_are_hidden() -> None:
    line = logged(RECORD, directly=True, secret="id-with-a-secret")
    assert "secret" not in line
    assert "[redacted]" in line


def test_levels_hold() -> None:
    assert not logged(RECORD, directly=True, level="warning")
    assert logged(BROKEN, directly=True, level="warning")


def test_where_the_log_is_for_people_there_are_no_such_lines() -> None:
    configure(level="info", fmt="console", redactor=Redactor(), stream=io.StringIO())
    assert json_lines(lambda _: None) is None
