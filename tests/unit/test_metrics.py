"""The metrics as numbers, families, JSON and documentation; and that callers can't make series up."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from bits_auth_proxy.auth.ports import RefresherStatus
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.log import Redactor, configure
from bits_auth_proxy.telemetry.metrics import FAMILIES, MAX_OPERATIONS
from bits_auth_proxy.telemetry.observers import Telemetry
from bits_auth_proxy.telemetry.traffic import Limits, Load
from tests.support.clock import FakeClock
from tests.support.commands import ROOT
from tests.support.timers import FakeTimers

_PREFIX = "bits_proxy_"


def ended(operation: str, method: bytes = b"POST", status: int = 200, problem: str = "") -> RequestRecord:
    record = RequestRecord(
        operation=operation, method=method, request_id=b"r-1", traceparent=b"", started=10.0
    )
    record.sent, record.answered, record.ended = 10.001, 10.051, 10.061
    record.request_bytes, record.response_bytes = 300, 350
    record.status, record.problem = status, problem
    return record


def token(value: str) -> AccessToken:
    return AccessToken(value, issued_at=0.0, issued_wall=0.0, lifetime=3600.0, margin=30.0)


def telemetry(clock: FakeClock | None = None, access_log: str = "errors") -> Telemetry:
    clock = clock or FakeClock()
    absent = RefresherStatus(TokenState.ABSENT, None, None, 0.0, True, 0, False, None)
    return Telemetry(
        clock=clock,
        access_log=access_log,
        token_status=lambda: absent,
        load=lambda: Load(3, {"active": 2, "idle": 1, "connecting": 0}, 4),
        limits=Limits(1000, 100, 1000),
        journal=Journal(clock),
        call_later=FakeTimers(clock).call_later,
    )


@pytest.fixture(autouse=True)
def log() -> io.StringIO:
    stream = io.StringIO()
    configure(level="info", fmt="json", redactor=Redactor(), stream=stream)
    return stream


def series(its: Telemetry) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sample.labels.items())) for family in its.collect() for sample in family.samples
    }


async def test_a_hundred_thousand_hostile_paths_and_methods_make_no_series(log: io.StringIO) -> None:
    its = telemetry()
    rng = Random(7)
    hostile = [b"BREW", b"PROPFIND", b"M-SEARCH", *(rng.randbytes(6) for _ in range(1000))]
    for status in (400, 404, 500):
        its.exchange_started()
        its.exchange_ended(ended("other", b"BREW", status))
        its.exchange_started()
        its.exchange_ended(ended("other", b"POST", status))
    before = series(its)
    for number in range(100_000):
        its.exchange_started()
        status = (400, 404, 500)[number % 3]
        its.exchange_ended(ended(f"x{rng.getrandbits(64):x}", rng.choice((b"POST", *hostile)), status))
    assert series(its) == before
    assert len(its._traffic.requests()) == 6
    # And they don't flood the log.
    assert len(log.getvalue().splitlines()) <= 30


async def test_operations_that_succeed_get_a_hundred_labels_and_not_one_more() -> None:
    its = telemetry(access_log="off")
    for number in range(10_000):
        its.exchange_started()
        its.exchange_ended(ended(f"operation.{number}"))
    names = {labels["operation"] for labels, _ in labelled(its, "requests_total")}
    assert names == {f"operation.{number}" for number in range(MAX_OPERATIONS)} | {"other"}
    counts = {labels["operation"]: value for labels, value in labelled(its, "requests_total")}
    assert counts["other"] == 10_000 - MAX_OPERATIONS
    assert counts["operation.0"] == 1


@pytest.mark.parametrize("method", [b"OPTIONS", b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH"])
async def test_no_other_method_than_post_earns_a_label(method: bytes) -> None:
    its = telemetry(access_log="off")
    for number in range(MAX_OPERATIONS + 1):
        its.exchange_started()
        its.exchange_ended(ended(f"operation.{number}", method))
    its.exchange_started()
    its.exchange_ended(ended("applications.create"))
    its.exchange_started()
    its.exchange_ended(ended("applications.create", method))
    counts = {(each["operation"], each["method"]): value for each, value in labelled(its, "requests_total")}
    assert counts == {
        ("other", method.decode()): MAX_OPERATIONS + 1,
        ("applications.create", "POST"): 1,
        ("applications.create", method.decode()): 1,
    }


@pytest.mark.parametrize(("length", "label"), [(64, "a" * 64), (65, "other"), (8000, "other")])
async def test_a_label_is_at_most_64_characters_long(length: int, label: str) -> None:
    its = telemetry(access_log="off")
    its.exchange_started()
    its.exchange_ended(ended("a" * length))
    assert [each["operation"] for each, _ in labelled(its, "requests_total")] == [label]


async def test_statuses_that_nobody_knows_share_labels() -> None:
    its = telemetry(access_log="off")
    statuses = {
        200: "200",
        299: "2xx",
        298: "2xx",
        399: "3xx",
        418: "418",
        449: "4xx",
        499: "499",
        503: "503",
    }
    statuses |= {520: "5xx", 599: "5xx", 600: "other", 999: "other", 101: "101"}
    for status in statuses:
        its.exchange_started()
        its.exchange_ended(ended("applications.create", status=status))
    counts: dict[str, float] = {}
    for labels, value in labelled(its, "requests_total"):
        counts[labels["status"]] = counts.get(labels["status"], 0) + value
    assert counts == Counter(statuses.values())
    assert its.totals()["requests"] == len(statuses)
    assert its.totals()["failed_requests"] == 5
    for status in range(200, 1000):
        its.exchange_started()
        its.exchange_ended(ended("applications.create", status=status))
    assert len({labels["status"] for labels, _ in labelled(its, "requests_total")}) <= 70


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text"])
async def test_scrapes_within_a_second_are_made_once(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    its = telemetry(clock)
    made: list[int] = []
    collect = its.collect

    def counted() -> Iterator[Metric]:
        made.append(1)
        return collect()

    monkeypatch.setattr(its, "collect", counted)
    first = its.scrape(accept)
    its.exchange_started()
    for _ in range(7):
        assert its.scrape(accept) == first
    assert len(made) == 1
    clock.advance(1)
    assert its.scrape(accept) != first
    assert len(made) == 2
    # The formats that a client can think of take no memory without end.
    for number in range(1000):
        its.scrape(f"application/openmetrics-text; version=1.0.{number}")
    assert len(its._scrapes) <= 8


def labelled(its: Telemetry, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in its.collect()
        for sample in family.samples
        if sample.name == _PREFIX + name
    ]


async def test_what_is_collected_is_what_is_defined() -> None:
    collected = [(family.name, family.type, family.documentation) for family in telemetry().collect()]
    defined = [(_PREFIX + family.name, family.kind, family.meaning) for family in FAMILIES]
    assert collected == defined


async def test_counters_of_known_labels_begin_at_zero() -> None:
    found = telemetry().numbers()
    assert {each["kind"] for each in found["token_refresh_failures_total"]} >= {"refused", "timeout", "dns"}
    assert {each["reason"] for each in found["rejected_requests_total"]} == {
        "tls_handshake",
        *(problem.code for problem in problems.ALL if problem.rejection),
    }
    for name in (
        "token_refreshes_total",
        "retries_total",
        "request_problems_total",
        "upstream_connects_total",
    ):
        assert found[name]
        assert all(each["value"] == 0 for each in found[name])


async def test_the_status_tells_the_same_numbers_as_the_metrics() -> None:
    its = telemetry()
    its.exchange_started()
    its.exchange_ended(ended("applications.create"))
    its.upstream_connected("ok", "", 0.02)
    told = its.numbers()
    content, _ = its.render("text/plain")
    exposed = {
        sample.name.removeprefix(_PREFIX): sample
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
        if sample.name.startswith(_PREFIX) and not sample.name.endswith("_bucket")
    }
    assert told.keys() == exposed.keys()
    assert told["requests_total"] == [
        {"operation": "applications.create", "method": "POST", "status": "200", "value": 1}
    ]
    for name, sample in exposed.items():
        if sample.labels:
            assert {**sample.labels, "value": sample.value} in told[name]
        else:
            assert sample.value == told[name]
    assert told["upstream_connect_duration_seconds_sum"] == pytest.approx(0.02)
    assert told["upstream_queue_length"] == 4


async def test_only_who_had_to_wait_for_a_token_is_in_its_histogram() -> None:
    its = telemetry()
    its.exchange_started()
    its.exchange_ended(ended("applications.create"))
    assert its.numbers()["token_wait_duration_seconds_count"] == 0
    waited = ended("applications.create")
    waited.token_at = waited.started + 0.75
    its.exchange_started()
    its.exchange_ended(waited)
    assert its.numbers()["token_wait_duration_seconds_count"] == 1
    assert its.numbers()["token_wait_duration_seconds_sum"] == pytest.approx(0.75)


async def test_a_token_that_is_refused_and_accepted_in_turn_is_counted_and_logged_once(
    log: io.StringIO,
) -> None:
    its = telemetry()
    first, second = token("one"), token("two")
    for each in (first, first, second, second):
        its.token_unauthorized(each)
    assert its.numbers()["token_refused_total"] == 2
    logged = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [event["fingerprint"] for event in logged] == [first.fingerprint, second.fingerprint]


async def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    content, _ = telemetry().render("text/plain")
    for family in text_string_to_metric_families(content.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page
