import pytest

from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry.journal import EXCHANGES, REFRESHES, REJECTIONS, Journal
from tests.support.clock import FakeClock


def ended(at: float, request_id: bytes = b"r-1") -> RequestRecord:
    record = RequestRecord(
        operation="applications.create",
        method=b"POST",
        request_id=request_id,
        traceparent=b"",
        started=at - 0.25,
    )
    record.ended, record.status, record.problem = at, 502, "connection_refused"
    record.request_bytes, record.response_bytes = 300, 350
    return record


def test_an_exchange_is_told_with_the_wall_clocks_time() -> None:
    clock = FakeClock()
    journal = Journal(clock)
    journal.exchange(ended(clock.now()))
    at = clock.wall()
    clock.advance(60)
    (told,) = journal.exchanges()
    assert told.pop("timestamp_seconds") == pytest.approx(at, abs=0.001)
    assert told == {
        "id": "1000.000000000",
        "request_id": "r-1",
        "operation": "applications.create",
        "method": "POST",
        "status": 502,
        "problem": "connection_refused",
        "duration_seconds": 0.25,
        "request_bytes": 300,
        "response_bytes": 350,
    }


def test_it_is_bounded_and_the_newest_come_first() -> None:
    journal = Journal(FakeClock())
    for number in range(200):
        journal.exchange(ended(1.0, b"%d" % number))
        journal.rejection("denied", f"{number}")
        journal.refresh(outcome="failure", reason="retry", duration=1.0, detail=f"{number}")
    assert [each["request_id"] for each in journal.exchanges()] == [
        str(number) for number in range(199, 199 - EXCHANGES, -1)
    ]
    assert [each["peer"] for each in journal.rejections()][::49] == ["199", "150"]
    assert [each["detail"] for each in journal.refreshes()][::49] == ["199", "150"]
    assert (len(journal.rejections()), len(journal.refreshes())) == (REJECTIONS, REFRESHES)


def test_a_record_holds_values_only_so_the_journal_keeps_no_connection_alive() -> None:
    record = ended(1.0)
    held = [getattr(record, name) for name in RequestRecord.__slots__]
    assert {type(value) for value in held} == {bytes, str, int, float}
