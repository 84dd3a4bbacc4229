"""The header rules one by one; `test_header_rules.py` has what holds for whatever is sent."""

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward.headers import (
    REQUEST_FIELDS,
    RESPONSE_FIELDS,
    ClientAuthorization,
    RequestRules,
    ResponseRules,
    canonical_origin,
    forwardable_trailers,
    request_id_of,
)
from bits_auth_proxy.http1.lines import make_field
from bits_auth_proxy.http1.messages import RequestHead, ResponseHead
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from tests.support import strategies as make
from tests.support.exchange_rig import FakeClient

OURS = b"Authorization: Bearer ours\r\n"
ORIGIN = b"https://api.bits.bi"
PARSER_LIMITS = {"max_line": 8192, "max_head": 65_536, "max_fields": 500}


def request(*lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1") -> RequestHead:
    raw = b"\r\n".join((start, b"Host: LocalHost:8080", *lines)) + b"\r\n\r\n"
    head = RequestParser(fields=REQUEST_FIELDS, **PARSER_LIMITS).feed(raw)
    assert head is not None
    return head


def response(*lines: bytes, status: bytes = b"200 OK") -> ResponseHead:
    raw = b"\r\n".join((b"HTTP/1.1 " + status, *lines)) + b"\r\n\r\n"
    head = ResponseParser(fields=RESPONSE_FIELDS, **PARSER_LIMITS).feed(raw)
    assert head is not None
    return head


def sent_up(head: RequestHead, *, forwarded: bool = False, request_id: bytes = b"r-1") -> list[bytes]:
    rules = RequestRules(
        authority=b"api.bits.bi",
        pseudonym=b"bits-1",
        authorization=ClientAuthorization.REPLACE,
        forwarded=forwarded,
    )
    out = b"".join(rules.rewrite(head, authorization_line=OURS, request_id=request_id, sender=FakeClient()))
    assert out.endswith(b"\r\n\r\n")
    return out[:-4].split(b"\r\n")


def sent_down(
    head: ResponseHead, *, chunked: bool = False, connection: bytes = b"", request_id: bytes = b"r-1"
) -> list[bytes]:
    its = ResponseRules(origin=ORIGIN)
    out = b"".join(its.rewrite(head, chunked=chunked, connection=connection, request_id=request_id))
    assert out.endswith(b"\r\n\r\n")
    return out[:-4].split(b"\r\n")


def test_a_request_goes_up_with_the_upstreams_host_and_all_that_is_ours_at_the_end() -> None:
    assert sent_up(request(b"aCCept: */*", b"X-Tenant: 1", b"x-tenant: 2", b"Content-Length: 3")) == [
        b"POST /v1/x HTTP/1.1",
        b"Host: api.bits.bi",
        b"aCCept: */*",
        b"X-Tenant: 1",
        b"x-tenant: 2",
        b"Content-Length: 3",
        b"Authorization: Bearer ours",
        b"Via: 1.1 bits-1",
        b"X-Request-ID: r-1",
    ]


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ((b"Transfer-Encoding: Chunked",), [b"Transfer-Encoding: chunked"]),
        ((b"Content-Length: 007",), [b"Content-Length: 7"]),
        ((b"Content-Length: 0",), [b"Content-Length: 0"]),
        ((b"Content-Length: 5", b"Connection: content-length"), [b"Content-Length: 5"]),
        ((b"Transfer-Encoding: chunked", b"Connection: transfer-encoding"), [b"Transfer-Encoding: chunked"]),
        ((), []),
    ],
)
def test_framing_is_written_anew_and_cannot_be_nominated_away(
    lines: tuple[bytes, ...], framing: list[bytes]
) -> None:
    up = sent_up(request(*lines))
    assert [line for line in up if line.lower().startswith((b"content-length", b"transfer-"))] == framing


def test_a_request_in_http_1_0_goes_up_as_1_1_and_via_tells() -> None:
    up = sent_up(request(start=b"GET / HTTP/1.0"))
    assert up[0] == b"GET / HTTP/1.1"
    assert b"Via: 1.0 bits-1" in up


def test_other_vias_stay_before_ours() -> None:
    up = sent_up(request(b"Via: 1.1 a", b"Via: 1.1 b"))
    assert [line for line in up if line.startswith(b"Via")] == [
        b"Via: 1.1 a",
        b"Via: 1.1 b",
        b"Via: 1.1 bits-1",
    ]


@pytest.mark.parametrize("nominates", [(), (b"Connection: Via",)])
def test_a_loop_is_seen_in_any_via_even_one_nominated(nominates: tuple[bytes, ...]) -> None:
    rules = RequestRules(
        authority=b"a", pseudonym=b"bits-1", authorization=ClientAuthorization.REPLACE, forwarded=False
    )
    assert rules.is_loop(request(b"Via: 1.1 a", b"Via: 1.1 bits-1, 1.1 b", *nominates))
    assert not rules.is_loop(request(b"Via: 1.1 other"))
    assert not rules.is_loop(request())


def test_the_inside_of_the_network_is_told_only_when_asked_for_and_only_by_us() -> None:
    head = request(b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=10.0.0.1", b"X-Real-IP: 10.0.0.1")
    assert not [line for line in sent_up(head) if b"10.0.0.1" in line]
    told = [line for line in sent_up(head, forwarded=True) if line.startswith(b"X-Forwarded")]
    assert told == [
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: LocalHost:8080",
    ]


@given(
    st.lists(
        st.sampled_from(
            [b"Host", b"Authorization", b"Via", b"X-Request-ID", b"X-Forwarded-For", b"X-Forwarded-Proto"]
        ).flatmap(make.spell),
        min_size=1,
    )
)
def test_nothing_we_inject_can_be_nominated_away(named: list[bytes]) -> None:
    up = sent_up(request(b"Connection: " + b", ".join(named)), forwarded=True)
    assert sorted(line.partition(b":")[0] for line in up[1:]) == [
        b"Authorization",
        b"Host",
        b"Via",
        b"X-Forwarded-For",
        b"X-Forwarded-Host",
        b"X-Forwarded-Proto",
        b"X-Request-ID",
    ]


@pytest.mark.parametrize(
    ("value", "used"),
    [(b"abc", b"abc"), (b"a" * 200, b"a" * 200), (b"a" * 201, None), (b"\xe9", None), (b"", None)],
)
def test_a_request_id_is_used_when_it_can_be_logged(value: bytes, used: bytes | None) -> None:
    assert request_id_of(request(b"X-Request-ID: " + value)) == used


def test_without_a_request_id_none_is_used() -> None:
    assert request_id_of(request()) is None


@pytest.mark.parametrize(
    ("location", "localised"),
    [
        (b"https://api.bits.bi/v1/x?y#z", b"/v1/x?y#z"),
        (b"HTTPS://API.bits.BI:443/v1/x", b"/v1/x"),
        (b"https://api.bits.bi", b"/"),
        (b"https://api.bits.bi?next=1", b"/?next=1"),
        (b"https://api.bits.bi#top", b"/#top"),
        # `//evil.example` alone would be another host's.
        (b"https://api.bits.bi//evil.example/", b"/.//evil.example/"),
        # A network-path reference takes the API's scheme, not ours (RFC 3986 section 4.2).
        (b"//api.bits.bi/v1/x", b"/v1/x"),
        (b"//api.bits.bi:443//evil.example", b"/.//evil.example"),
        (b"//evil.example/x", b"//evil.example/x"),
        (b"http://api.bits.bi/v1/x", b"http://api.bits.bi/v1/x"),
        (b"https://api.bits.bi:8443/x", b"https://api.bits.bi:8443/x"),
        (b"https://api.bits.bi.evil.example/x", b"https://api.bits.bi.evil.example/x"),
        (b"https://api.bits.bi@evil.example/x", b"https://api.bits.bi@evil.example/x"),
        # Browsers ignore tabs and take a backslash for a slash.
        (b"https://api.bits.bi/\\evil.example/", b"/%5Cevil.example/"),
        (b"https://api.bits.bi/\\\\evil.example/", b"/%5C%5Cevil.example/"),
        (b"https://api.bits.bi/\t/evil.example/", b"/.//evil.example/"),
        (b"https://api.bits.bi/x\\y\tz?\\\t#\\", b"/x%5Cyz?\\\t#\\"),
        (b"https://acme.example/?u=https://api.bits.bi/", b"https://acme.example/?u=https://api.bits.bi/"),
        (b"/login?next=https://api.bits.bi/", b"/login?next=https://api.bits.bi/"),
        (b"next", b"next"),
        (b"", b""),
    ],
)
def test_a_location_at_the_apis_origin_leads_back_here(location: bytes, localised: bytes) -> None:
    down = sent_down(response(b"Location: " + location, b"Content-Length: 0", status=b"302 Found"))
    assert b"Location: " + localised in down


def whatwg_host(reference: bytes, base: bytes) -> bytes:
    """The host that a browser goes to (WHATWG URL section 4.4, as far as it concerns special schemes)."""
    text = reference.strip(bytes(range(0x21)))
    text = text.translate(None, b"\t\r\n").replace(b"\\", b"/")
    scheme = re.match(rb"[A-Za-z][A-Za-z0-9+.-]*:", text)
    if scheme:
        text = text[scheme.end() :]
    if scheme or text.startswith(b"//"):
        return re.split(rb"[/?#]", text.lstrip(b"/"), maxsplit=1)[0].rpartition(b"@")[2]
    return base


@given(
    st.lists(
        st.sampled_from(
            [
                b"/",
                b"\\",
                b"\t",
                b" ",
                b".",
                b"..",
                b"%2e",
                b"%2F",
                b"%5c",
                b"@",
                b":",
                b"?",
                b"#",
                b"evil.example",
            ]
        ),
        max_size=8,
    ).map(b"".join),
    st.sampled_from([b"https://api.bits.bi", b"//api.bits.bi", b"HTTPS://API.BITS.BI:443"]),
)
def test_no_parser_reads_another_host_in_a_location_that_is_rewritten(rest: bytes, origin: bytes) -> None:
    location = (origin + rest).strip(b" \t")
    down = sent_down(response(b"Location: " + location, b"Content-Length: 0", status=b"302 Found"))
    (line,) = (line for line in down if line.startswith(b"Location"))
    rewritten = line.partition(b": ")[2]
    if rewritten == location:
        return
    assert rewritten.startswith(b"/")
    assert whatwg_host(rewritten, b"here") == b"here"
    assert urlsplit(urljoin("http://here/x", rewritten.decode())).netloc == "here"
    assert not rewritten.startswith((b"//", b"/\\", b"/\t"))


def test_an_origin_is_lower_case_without_its_default_port() -> None:
    assert canonical_origin(b"HTTP", b"LocalHost:80") == b"http://localhost"
    assert canonical_origin(b"https", b"a:80") == b"https://a:80"
    assert canonical_origin(b"https", b"[::1]:443") == b"https://[::1]"


def test_a_response_comes_down_without_what_speaks_of_the_other_connection_or_origin() -> None:
    head = response(
        b"SERVER: bits",
        b"Connection: x-hop, Content-Length",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Alt-Svc: h3",
        b"Strict-Transport-Security: max-age=1",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Content-Length: 4",
    )
    assert sent_down(head, connection=b"close") == [
        b"HTTP/1.1 200 OK",
        b"SERVER: bits",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Content-Length: 4",
        b"Connection: close",
        b"X-Request-ID: r-1",
    ]


def test_a_chunked_response_comes_down_chunked_and_announces_its_trailers() -> None:
    head = response(b"Transfer-Encoding: CHUNKED", b"Trailer: Digest")
    assert sent_down(head, chunked=True, request_id=b"") == [
        b"HTTP/1.1 200 OK",
        b"Trailer: Digest",
        b"Transfer-Encoding: chunked",
    ]


def test_no_content_has_no_length_but_not_modified_may() -> None:
    assert b"Content-Length: 0" not in sent_down(response(b"Content-Length: 0", status=b"204 No Content"))
    assert b"Content-Length: 9" in sent_down(response(b"Content-Length: 9", status=b"304 Not Modified"))


def test_the_apis_own_request_id_wins_unless_it_is_hop_by_hop() -> None:
    ids = [b"X-Request-ID: theirs"]
    down = sent_down(response(*ids, b"Content-Length: 0"))
    assert [line for line in down if line.startswith(b"X-Request-ID")] == ids
    down = sent_down(response(*ids, b"Connection: X-Request-ID", b"Content-Length: 0"))
    assert [line for line in down if line.startswith(b"X-Request-ID")] == [b"X-Request-ID: r-1"]


def test_an_interim_response_passes_without_hop_by_hop_fields_and_length() -> None:
    head = response(
        b"Link: </a>; rel=preload",
        b"Connection: x-hop",
        b"X-Hop: 1",
        b"Content-Length: 0",
        b"Alt-Svc: h3",
        status=b"103 Early Hints",
    )
    out = ResponseRules(origin=ORIGIN).interim(head)
    assert out == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"


NEVER_LATE = (
    b"Authorization",
    b"Content-Length",
    b"Content-Type",
    b"Host",
    b"Location",
    b"Proxy-Authenticate",
    b"Set-Cookie",
    b"Transfer-Encoding",
    b"WWW-Authenticate",
)


@given(st.lists(st.tuples(make.names | st.sampled_from(NEVER_LATE).flatmap(make.spell), make.values)))
def test_trailers_keep_order_and_bytes_but_bring_no_control_late(lines: list[tuple[bytes, bytes]]) -> None:
    fields = [make_field(name, value) for name, value in lines]
    passed = forwardable_trailers(fields, frozenset())
    assert not {each.key for each in passed} & {name.lower() for name in NEVER_LATE}
    rest = iter(fields)
    assert all(field in rest for field in passed)


def test_trailers_pass_unless_nominated() -> None:
    digest, hop = make_field(b"Digest", b"x"), make_field(b"X-Hop", b"1")
    assert forwardable_trailers([digest, hop, digest], frozenset((b"x-hop",))) == [digest, digest]
