"""The same bytes mean the same, however they come; and no bytes raise what nobody expects."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from bits_auth_proxy.forward.headers import REQUEST_FIELDS, RESPONSE_FIELDS
from bits_auth_proxy.http1.bodies import ChunkedReader, CloseReader, LengthReader, open_body
from bits_auth_proxy.http1.lines import make_field
from bits_auth_proxy.http1.messages import CHUNKED, NO_BODY, UNTIL_CLOSE, MalformedMessage, RequestHead
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from bits_auth_proxy.http1.serializing import encode_chunk, encode_last_chunk
from tests.support import strategies as make

REST = b"GET /next HTTP/1.1\r\n"


def request_parser() -> RequestParser:
    return RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=32_768, max_fields=100)


def response_parser() -> ResponseParser:
    return ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=32_768, max_fields=100)


def parse_request(split: list[bytes]) -> tuple[RequestHead, bytes]:
    """Feed the reads until the head is there; return it and all that was not part of it."""
    parser = request_parser()
    reads = iter(split)
    for read in reads:
        head = parser.feed(read)
        if head is not None:
            return head, parser.rest + b"".join(reads)
    raise AssertionError("the head has no end")


@given(st.data(), make.methods, make.targets, make.fields)
def test_a_request_parses_back_however_it_is_cut(
    data: st.DataObject, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    sent = make.raw_head(method, target, fields) + REST
    head, rest = parse_request(data.draw(make.splits(sent)))
    assert (head.method, head.target, head.minor_version, head.host) == (method, target, 1, b"localhost")
    assert [(name, value) for _, name, value, *_ in head.fields] == [(b"Host", b"localhost"), *fields]
    assert all(key == name.lower() for key, name, *_ in head.fields)
    assert rest == REST


@given(st.data(), st.integers(200, 599), make.fields)
def test_a_response_parses_back_however_it_is_cut(
    data: st.DataObject, status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    fields = [(name, value) for name, value in fields if name.lower() != b"keep-alive"]
    lines = b"".join(b"%b: %b\r\n" % line for line in fields)
    sent = b"HTTP/1.1 %d Some Reason\r\nContent-Length: 5\r\n%b\r\nhello" % (status, lines)
    parser = response_parser()
    reads = iter(data.draw(make.splits(sent)))
    head = None
    while head is None:
        head = parser.feed(next(reads))
    assert (head.status, head.reason) == (status, b"Some Reason")
    assert head.length == (0 if status in (204, 304) else 5)
    assert [(name, value) for _, name, value, *_ in head.fields][1:] == fields
    assert parser.rest + b"".join(reads) == b"hello"


@given(st.data(), st.lists(make.bodies.filter(bool), max_size=5), make.fields)
def test_a_chunked_body_reads_back_however_it_is_cut(
    data: st.DataObject, pieces: list[bytes], trailers: list[tuple[bytes, bytes]]
) -> None:
    end = encode_last_chunk([make_field(name, value) for name, value in trailers])
    sent = b"".join(map(encode_chunk, pieces)) + end + REST
    reader = ChunkedReader(max_overhead=32_768, max_fields=100)
    content = b""
    reads = iter(data.draw(make.splits(sent)))
    for read in reads:
        content += reader.feed(read)
        if reader.done:
            break
    assert content == b"".join(pieces)
    assert reader.done
    assert reader.rest + b"".join(reads) == REST
    assert [(name, value) for _, name, value, *_ in reader.trailers] == trailers


@given(st.data(), make.bodies.filter(bool))
def test_a_body_with_a_length_ends_where_it_says(data: st.DataObject, body: bytes) -> None:
    reader = LengthReader(len(body))
    content = b""
    reads = iter(data.draw(make.splits(body + REST)))
    for read in reads:
        content += reader.feed(read)
        if reader.done:
            break
    assert content == body
    assert reader.rest + b"".join(reads) == REST


def test_each_framing_has_its_reader() -> None:
    assert isinstance(open_body(1, max_overhead=1, max_fields=1), LengthReader)
    assert isinstance(open_body(CHUNKED, max_overhead=1, max_fields=1), ChunkedReader)
    assert isinstance(open_body(UNTIL_CLOSE, max_overhead=1, max_fields=1), CloseReader)


@settings(max_examples=300)
@given(st.data(), make.methods, make.targets, make.fields, st.binary(min_size=1, max_size=4))
def test_changed_bytes_raise_nothing_but_malformed_message(
    data: st.DataObject, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], noise: bytes
) -> None:
    sent = (
        make.raw_head(method, target, [*fields, (b"Transfer-Encoding", b"chunked")])
        + b"5\r\nhello\r\n0\r\n\r\n"
    )
    at = data.draw(st.integers(0, len(sent)))
    changed = sent[:at] + noise + sent[at + data.draw(st.integers(0, 4)) :]
    with contextlib.suppress(MalformedMessage):
        parser = request_parser()
        head = parser.feed(changed)
        if head is not None and head.length != NO_BODY:
            open_body(head.length, max_overhead=1000, max_fields=10).feed(parser.rest)
    answer = b"HTTP/1.1 200 OK\r\n" + changed.partition(b"\r\n")[2]
    with contextlib.suppress(MalformedMessage):
        response_parser().feed(answer)


@given(st.data(), make.fields)
def test_a_fault_is_found_wherever_the_reads_are_cut(
    data: st.DataObject, fields: list[tuple[bytes, bytes]]
) -> None:
    sent = make.raw_head(
        b"POST", b"/", [*fields, (b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")]
    )
    reasons = set()
    for reads in ([sent], data.draw(make.splits(sent)), [bytes([byte]) for byte in sent]):
        parser = request_parser()
        try:
            for read in reads:
                parser.feed(read)
        except MalformedMessage as error:
            reasons.add(error.reason)
        else:
            reasons.add("none")
    assert reasons == {"bad_framing"}


def test_chunk_framing_without_content_is_bounded() -> None:
    reader = ChunkedReader(max_overhead=1000, max_fields=10)
    reader.feed(b"1\r\na\r\n1;x=")
    grown = 0
    try:
        for _ in range(100):
            reader.feed(b"y" * 100)
            grown += 100
    except MalformedMessage as error:
        assert error.reason == "head_too_large"  # noqa: PT017 - the loop tells how far it went
    assert 900 <= grown <= 1000
