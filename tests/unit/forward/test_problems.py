"""The table of problems, and how one reads on the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.headers import RESPONSE_FIELDS
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.http1.parsing import ResponseParser

ALL = [each for each in vars(problems).values() if isinstance(each, Problem)]
# https://www.iana.org/assignments/http-proxy-status, HTTP Proxy Error Types.
REGISTERED = frozenset(
    (
        "connection_limit_reached",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "destination_unavailable",
        "dns_error",
        "http_protocol_error",
        "http_request_denied",
        "http_request_error",
        "http_response_timeout",
        "http_upgrade_failed",
        "proxy_configuration_error",
        "proxy_internal_error",
        "proxy_loop_detected",
        "tls_certificate_error",
        "tls_protocol_error",
    )
)


def read(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    parser = ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=65_536, max_fields=100)
    head = parser.feed(raw)
    assert head is not None
    fields = {key.decode(): value.decode("latin-1") for key, _, value, *_ in head.fields}
    assert len(fields) == len(head.fields)
    return head.status, fields, parser.rest


def body_of(raw: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(raw.partition(b"\r\n\r\n")[2])
    return body


def test_codes_are_unique_and_fit_for_labels() -> None:
    codes = [problem.code for problem in ALL]
    assert len(codes) == len(set(codes)) > 30
    assert all(code.replace("_", "").isalpha() and code == code.lower() for code in codes)


@pytest.mark.parametrize("problem", ALL, ids=repr)
def test_every_problem_is_told_as_the_standards_say(problem: Problem) -> None:
    assert problem.error in REGISTERED
    raw = problem.response(request_id=b"r-1", detail="why", keep_alive=True)
    status, fields, content = read(raw)
    assert status == problem.status
    assert fields["content-type"] == "application/problem+json"
    assert fields["content-length"] == str(len(content))
    assert fields["proxy-status"] == f"bits-auth-proxy; error={problem.error}"
    assert fields["cache-control"] == "no-store"
    assert fields["x-request-id"] == "r-1"
    assert "connection" not in fields
    assert "retry-after" not in fields
    assert json.loads(content) == {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "detail": "why",
        "request_id": "r-1",
    }


@pytest.mark.parametrize("problem", ALL, ids=repr)
def test_a_4xx_is_the_clients_fault_and_a_5xx_of_the_way_is_not(problem: Problem) -> None:
    if problem.status < 500:
        assert problem.rejection
    if problem.rejection:
        assert problem.status < 500 or problem.code in ("unknown_method", "unknown_version", "loop")


def test_405_names_the_methods_that_are_forwarded() -> None:
    _, fields, _ = read(problems.METHOD_NOT_ALLOWED.response(request_id=b"", keep_alive=False))
    assert "TRACE" not in fields["allow"]
    assert "CONNECT" not in fields["allow"]
    assert "POST" in fields["allow"]


def test_what_is_not_known_is_not_said() -> None:
    raw = problems.BAD_RESPONSE.response(request_id=b"", keep_alive=False)
    _, fields, _ = read(raw)
    assert "x-request-id" not in fields
    assert fields["connection"] == "close"
    assert body_of(raw).keys() == {"type", "title", "status", "code"}


def test_an_answer_to_head_has_the_fields_without_the_content() -> None:
    whole = problems.NOT_ALLOWED.response(request_id=b"r", keep_alive=True)
    head = problems.NOT_ALLOWED.response(request_id=b"r", keep_alive=True, head_only=True)
    assert head == whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


@given(st.floats(0, 1e6))
def test_retry_after_is_whole_seconds_at_least_one_and_never_too_early(seconds: float) -> None:
    raw = problems.TOKEN_UNAVAILABLE.response(request_id=b"", retry_after=seconds, keep_alive=True)
    said = int(read(raw)[1]["retry-after"])
    assert said >= 1
    assert seconds <= said <= seconds + 2


@given(st.text(max_size=60), st.binary(max_size=30))
def test_no_detail_breaks_the_body(detail: str, request_id: bytes) -> None:
    raw = problems.BAD_TARGET.response(
        request_id=request_id.translate(None, b"\r\n"), detail=detail, keep_alive=True
    )
    body = body_of(raw)
    assert body.get("detail", "") == detail
    assert body.get("request_id", "") == request_id.translate(None, b"\r\n").decode("latin-1")


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("bad_chunk", 400),
        ("bad_field", 400),
        ("bad_framing", 400),
        ("bad_host", 400),
        ("bad_syntax", 400),
        ("bad_target", 400),
        ("head_too_large", 431),
        ("line_too_long", 414),
        ("unknown_expectation", 417),
        ("unknown_method", 501),
        ("unknown_version", 505),
    ],
)
def test_what_the_parser_refuses_has_its_status(reason: str, status: int) -> None:
    assert problems.for_malformed_request(reason).status == status


def test_a_repr_is_short() -> None:
    assert repr(problems.NOT_ALLOWED) == "Problem(denied)"
