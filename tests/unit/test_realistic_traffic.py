"""The benchmark's traffic is what its description says."""

import pytest

from benchmarks import realistic


def fields_of(message: bytes) -> dict[bytes, bytes]:
    lines = message.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = dict(line.split(b": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


def differing(messages: list[bytes]) -> set[bytes]:
    heads = [fields_of(message) for message in messages]
    return {name for name in heads[0] if len({head[name] for head in heads}) == len(heads)}


def test_a_request_has_14_fields_and_five_of_them_differ() -> None:
    requests = [realistic.request(number, authority=b"localhost") for number in range(60)]
    assert {len(fields_of(each)) for each in requests} == {14}
    assert differing(requests) == {
        *(b"traceparent", b"tracestate", b"X-Request-ID", b"Idempotency-Key", b"Content-Length")
    }
    sizes = [len(each.partition(b"\r\n\r\n")[2]) for each in requests]
    assert sizes == [realistic.content_length(each) for each in requests]
    assert min(sizes) >= 300
    assert max(sizes) <= 360


def test_a_response_has_17_fields_and_five_of_them_differ() -> None:
    responses = [realistic.response(number) for number in range(60)]
    assert {len(fields_of(each)) for each in responses} == {17}
    assert differing(responses) == {*(b"Date", b"ETag", b"X-Request-Id", b"CF-Ray", b"X-RateLimit-Remaining")}
    assert {len(each.partition(b"\r\n\r\n")[2]) for each in responses} == {350}


@pytest.mark.parametrize(
    ("head", "length"), [(b"GET / HTTP/1.1\r\n\r\n", 0), (b"\r\nContent-Length: 7\r\n", 7)]
)
def test_the_length_of_content(head: bytes, length: int) -> None:
    assert realistic.content_length(head) == length
