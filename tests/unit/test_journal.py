import pytest

from bits_auth_proxy.http1.messages import RequestHead
from bits_auth_proxy.telemetry.journal import EXCHANGES, REFRESHES, REJECTIONS, Journal
from tests.support.clock import FakeClock


class Ended:
    """An exchange at its end."""

    operation = "applications.create"
    method = b"POST"
    status = 502
    problem = "connection_refused"
    token_at = sent = answered = 0.0
    request_bytes, response_bytes = 300, 350
    head = RequestHead(b"POST", b"/", 1, [], {})

    def __init__(self, ended: float, request_id: bytes = b"r-1") -> None:
        self.started, self.ended = ended - 0.25, ended
        self.request_id = request_id


def test_an_exchange_is_told_with_the_wall_clocks_time() -> None:
    clock = FakeClock()
    journal = Journal(clock)
    journal.exchange(Ended(clock.now()))
    ended = clock.wall()
    clock.advance(60)
    (told,) = journal.exchanges()
    assert told.pop("timestamp_seconds") == pytest.approx(ended, abs=0.001)
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
        journal.exchange(Ended(1.0, b"%d" % number))
        journal.rejection("denied", f"{number}")
        journal.refresh(outcome="failure", reason="retry", duration=1.0, detail=f"{number}")
    assert [each["request_id"] for each in journal.exchanges()] == [
        str(number) for number in range(199, 199 - EXCHANGES, -1)
    ]
    assert [each["peer"] for each in journal.rejections()][::49] == ["199", "150"]
    assert [each["detail"] for each in journal.refreshes()][::49] == ["199", "150"]
    assert (len(journal.rejections()), len(journal.refreshes())) == (REJECTIONS, REFRESHES)


def test_what_ended_is_not_held() -> None:
    journal = Journal(FakeClock())
    journal.exchange(ended := Ended(1.0))
    assert all(ended is not value for value in journal._exchanges[0])
