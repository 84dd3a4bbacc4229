"""Lines made directly say what the log's pipeline would have said, and hide what it would have hidden."""

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.auth.ports import RefresherStatus
from bits_auth_proxy.auth.tokens import TokenState
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry.access_log import AccessLog
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.log import Redactor, configure, json_lines
from bits_auth_proxy.telemetry.observers import Telemetry
from bits_auth_proxy.telemetry.traffic import Limits, Load
from tests.support.clock import FakeClock
from tests.support.timers import FakeTimers

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ABSENT = RefresherStatus(TokenState.ABSENT, None, None, 0.0, True, 0, False, None)
instants = st.floats(0.0, 100.0).map(lambda seconds: round(seconds, 6))


def ended(
    *,
    request_id: bytes,
    operation: str = "other",
    method: bytes = b"GET",
    status: int,
    token_at: float = 1.0,
    sent: float = 1.0,
    answered: float = 1.5,
    at: float = 2.0,
    request_bytes: int = 0,
    response_bytes: int = 4,
    traceparent: bytes = b"",
) -> RequestRecord:
    record = RequestRecord(
        operation=operation, method=method, request_id=request_id, traceparent=traceparent, started=0.0
    )
    record.status = status
    record.token_at, record.sent, record.answered, record.ended = token_at, sent, answered, at
    record.request_bytes, record.response_bytes = request_bytes, response_bytes
    return record


records = st.builds(
    ended,
    request_id=st.binary(min_size=1, max_size=30).filter(bytes.isascii),
    operation=st.sampled_from(["other", "applications.create"]),
    method=st.sampled_from([b"GET", b"POST", b'odd "\\ \xff']),
    status=st.integers(200, 599),
    token_at=instants,
    sent=instants,
    answered=st.just(0.0) | instants,
    at=instants,
    request_bytes=st.integers(0, 10**12),
    response_bytes=st.integers(0, 10**12),
    traceparent=st.sampled_from([b"", TRACEPARENT]),
)


RECORD = ended(request_id=b"id-with-a-secret", status=200)
BROKEN = ended(request_id=b"broken", status=502)


def telemetry(write_line: Callable[[str, str], None] | None) -> Telemetry:
    clock = FakeClock()
    return Telemetry(
        clock=clock,
        access_log="all",
        token_status=lambda: ABSENT,
        load=lambda: Load(0, {}, 0),
        limits=Limits(1000, 100, 1000),
        journal=Journal(clock),
        call_later=FakeTimers(clock).call_later,
        write_line=write_line,
    )


def logged(record: RequestRecord, *, directly: bool, level: str = "info", secret: str = "") -> str:
    stream = io.StringIO()
    redactor = Redactor()
    redactor.add(secret)
    configure(level=level, fmt="json", redactor=redactor, stream=stream)
    lines = json_lines(lambda _: None)
    assert lines is not None
    its = telemetry(lines.write if directly else None)
    its.exchange_ended(record)
    assert not (directly and stream.getvalue()), "written before the turn's end"
    lines.flush()
    return stream.getvalue()


@given(records)
def test_a_line_is_what_the_pipeline_makes(record: RequestRecord) -> None:
    expected = json.loads(logged(record, directly=False))
    seen = json.loads(logged(record, directly=True))
    assert len(seen.pop("timestamp")) == len(expected.pop("timestamp"))
    assert list(seen) == list(expected)
    assert seen == pytest.approx(expected, abs=2e-6)


@given(st.floats(0, 4e9))
def test_the_time_is_that_of_the_clock(wall: float) -> None:
    written: list[str] = []
    AccessLog(clock=FakeClock(wall=wall), write=lambda _, line: written.append(line)).log(RECORD)
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
