"""Heads read line by line mean what llhttp makes of them, and nothing is remembered that should not be."""

import contextlib
import re
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bits_auth_proxy.forward.access import split_target
from bits_auth_proxy.http1.lines import REQUEST_LINES, STATUS_LINES, FieldCache
from bits_auth_proxy.http1.messages import MalformedMessage, RequestHead, ResponseHead
from bits_auth_proxy.http1.parse_cache import ParseCache
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from tests.support import strategies as make

FIELDS = FieldCache(lambda key: key == b"te")
LIMITS = {"max_line": 8192, "max_head": 32_768, "max_fields": 100}
Parser = RequestParser | ResponseParser

odd_bytes = st.lists(
    st.sampled_from(
        [b"\0", b"\t", b"\n", b"\r", b" ", b"\x0b", b"\x7f", b"\x80", b"\xff", b":", b"\r\n", b"#"]
    )
    | st.binary(min_size=1, max_size=3),
    max_size=2,
).map(b"".join)
deciding = st.sampled_from(
    [
        (b"Content-Length", b"3"),
        (b"Content-Length", b"03"),
        (b"Content-Length", b"3, 3"),
        (b"Content-Length", b"-1"),
        (b"Content-Length", b""),
        (b"Transfer-Encoding", b"chunked"),
        (b"Transfer-Encoding", b"gzip, chunked"),
        (b"Connection", b"close"),
        (b"Connection", b"Upgrade, x-a"),
        (b"Upgrade", b"websocket"),
        (b"Host", b"a b"),
        (b"Expect", b"100-continue"),
        (b"Keep-Alive", b"timeout=7"),
    ]
)
lines = st.lists(st.tuples(make.names, make.values) | deciding, max_size=8)


class Oracle:
    """What llhttp makes of a head: the pairs of the fields and whether it has an end, or a fault."""

    def __init__(self, engine: type[Any], raw: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = self.fault = False
        try:
            engine(self).feed_data(raw[: raw.find(b"\r\n\r\n") + 4])
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self.fault = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def head_in(parser: Parser, raw: bytes) -> RequestHead | ResponseHead | None:
    """The head, or None if it is refused, for its target too, or has no end."""
    with contextlib.suppress(MalformedMessage, ValueError):
        head = parser.feed(raw)
        if isinstance(head, RequestHead):
            split_target(head)
        return head
    return None


def is_known_difference(raw: bytes) -> bool:
    """Whether llhttp is stricter than HTTP: at a tab after the coding, bytes in a query, equal lengths."""
    start, _, lines = raw.partition(b"\r\n")
    return (
        re.search(rb"(?i)(\A|\r\n)transfer-encoding:[\t ]*chunked[ \t]*\t[ \t]*\r", lines) is not None
        or re.search(rb"\?[^ ]*[\x80-\xff]", start) is not None
        or re.match(rb"HTTP/1\.[2-9]", start) is not None
        or b"," in b",".join(re.findall(rb"(?i)(?:\A|\r\n)content-length:([^\r]*)", lines))
    )


def check_against_llhttp(parser: Parser, raw: bytes) -> None:
    """What is accepted, llhttp accepts too, and reads the same fields in it."""
    head = head_in(parser, raw)
    if head is None:
        return
    is_request = isinstance(head, RequestHead)
    oracle = Oracle(httptools.HttpRequestParser if is_request else httptools.HttpResponseParser, raw)
    if oracle.fault:
        assert is_known_difference(raw)
        return
    assert oracle.complete
    assert [(field.name, field.value) for field in head.fields] == oracle.fields


@settings(max_examples=400)
@given(st.data(), make.methods, make.targets | make.values, lines, odd_bytes)
def test_requests_mean_what_llhttp_makes_of_them(
    data: st.DataObject, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], odd: bytes
) -> None:
    raw = make.raw_head(method, target, fields, data.draw(st.integers(0, 1)))
    at = data.draw(st.integers(0, len(raw)))
    check_against_llhttp(RequestParser(fields=FIELDS, **LIMITS), raw[:at] + odd + raw[at:] + b"rest")


@pytest.mark.parametrize("lines", [b"", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n"])
def test_a_101_says_to_what_it_switches(lines: bytes) -> None:
    with pytest.raises(MalformedMessage):
        ResponseParser(fields=FIELDS, **LIMITS).feed(b"HTTP/1.1 101 Switching\r\n" + lines + b"\r\n")


@settings(max_examples=400)
@given(st.data(), st.integers(99, 600), make.values, lines, odd_bytes)
def test_responses_mean_what_llhttp_makes_of_them(
    data: st.DataObject, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], odd: bytes
) -> None:
    text = b"".join(b"%b: %b\r\n" % line for line in fields)
    raw = b"HTTP/1.%d %d %b\r\n%b\r\n" % (data.draw(st.integers(0, 1)), status, reason, text)
    at = data.draw(st.integers(0, len(raw)))
    check_against_llhttp(ResponseParser(fields=FIELDS, **LIMITS), raw[:at] + odd + raw[at:] + b"rest")


@pytest.mark.parametrize("place", ["name", "value", "target", "version"])
def test_every_byte_of_a_request_means_what_llhttp_makes_of_it(place: str) -> None:
    for byte in range(256):
        at = dict.fromkeys(("name", "value", "target", "version"), b"") | {place: bytes([byte])}
        raw = b"POST /a%(target)bb HTTP/1.1%(version)b\r\nHost: x\r\nX%(name)bY: a%(value)bb\r\n\r\n"
        raw %= {key.encode(): value for key, value in at.items()}
        check_against_llhttp(RequestParser(fields=FIELDS, **LIMITS), raw)
        accepted = head_in(RequestParser(fields=FIELDS, **LIMITS), raw) is not None
        if accepted == Oracle(httptools.HttpRequestParser, raw).fault:
            # Stricter than llhttp: there are no other versions and no fragments.
            assert place == "version" or (place, byte) == ("target", ord("#")), byte


@pytest.mark.parametrize("place", ["name", "value", "status", "reason"])
def test_every_byte_of_a_response_means_what_llhttp_makes_of_it(place: str) -> None:
    for byte in range(256):
        at = dict.fromkeys(("name", "value", "status", "reason"), b"") | {place: bytes([byte])}
        raw = b"HTTP/1.1 20%(status)b0 O%(reason)bK\r\nX%(name)bY: a%(value)bb\r\n\r\n"
        check_against_llhttp(
            ResponseParser(fields=FIELDS, **LIMITS), raw % {key.encode(): value for key, value in at.items()}
        )


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer of-the-client",
        b"cookie: session=1",
        b"Set-Cookie: session=1",
        b"Proxy-Authorization: Basic eDp5",
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"X-Api-Key: k",
        b"x-amz-security-token: t",
        b"Idempotency-Key: 1",
        b"Location: /v1/x?token=t",
        b"ETag: 1",
        b"X-Anything: x",
        b"Referer: http://localhost/?token=t",
        b"X-Long: " + 256 * b"x",
    ],
)
def test_secrets_and_what_never_comes_again_is_not_kept(line: bytes) -> None:
    assert FIELDS[line].value == line.partition(b": ")[2]
    assert line not in FIELDS


@pytest.mark.parametrize(
    "line",
    [
        b"Host: localhost",
        b"user-agent: curl/8",
        b"Accept: */*",
        b"CONTENT-TYPE: application/json",
        b"Content-Length: 3",
        b"Server: nginx",
    ],
)
def test_what_repeats_and_is_harmless_is_kept(line: bytes) -> None:
    assert FIELDS[line] is FIELDS[line]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"GET /v1/x HTTP/1.1", True),
        (b"GET /v1/x?token=t HTTP/1.1", False),
        (b"GET /v1/x? HTTP/1.0", False),
        (b"OPTIONS /?a HTTP/1.1", False),
    ],
)
def test_no_query_is_kept(line: bytes, *, kept: bool) -> None:
    assert REQUEST_LINES[line] is not None
    assert (line in REQUEST_LINES) is kept


def test_what_is_no_field_is_refused_and_not_kept() -> None:
    with pytest.raises(MalformedMessage, match="bad_syntax"):
        FIELDS[b"no field"]
    assert b"no field" not in FIELDS


def test_a_line_is_read_once() -> None:
    read: list[bytes] = []

    def upper(line: bytes) -> bytes:
        read.append(line)
        return line.upper()

    known = ParseCache(upper)
    assert [known[b"a"], known[b"a"], known[b"b"]] == [b"A", b"A", b"B"]
    assert read == [b"a", b"b"]


def test_what_is_kept_is_bounded() -> None:
    for known, line in (
        (FIELDS, b"Accept: %d"),
        (REQUEST_LINES, b"GET /%d HTTP/1.1"),
        (STATUS_LINES, b"HTTP/1.1 200 %d"),
    ):
        for i in range(5000):
            assert known[line % i]
        assert 0 < len(known) <= 1024
