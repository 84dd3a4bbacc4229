"""Whatever a client or the API sends: what must go goes, nothing else is lost or changed."""

from hypothesis import example, given
from hypothesis import strategies as st

from bits_auth_proxy.forward.headers import (
    REQUEST_FIELDS,
    RESPONSE_FIELDS,
    ClientAuthorization,
    RequestRules,
    ResponseRules,
    request_id_of,
)
from bits_auth_proxy.http1.messages import RequestHead
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from tests.support import strategies as make
from tests.support.exchange_rig import FakeClient

OURS = b"Authorization: Bearer ours\r\n"
DROPPED = {name.lower() for name in make.HOP_BY_HOP + make.PRIVATE}
REWRITTEN = {b"host", b"authorization", b"via", b"x-request-id", b"content-length", b"transfer-encoding"}


def rules(
    mode: ClientAuthorization = ClientAuthorization.REPLACE, *, forwarded: bool = False
) -> RequestRules:
    return RequestRules(authority=b"api.bits.bi", pseudonym=b"us-1", authorization=mode, forwarded=forwarded)


def parse(raw: bytes) -> RequestHead:
    head = RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=65_536, max_fields=500).feed(raw)
    assert head is not None
    return head


def rewritten(raw: bytes, mode: ClientAuthorization = ClientAuthorization.REPLACE) -> RequestHead:
    """What the API reads of `raw` after our rules; our own parser must take it."""
    head = parse(raw)
    its = rules(mode)
    line = b"" if its.keeps(head) else OURS
    return parse(
        b"".join(
            its.rewrite(
                head,
                authorization_line=line,
                request_id=request_id_of(head) or b"r-1",
                sender=FakeClient(),
            )
        )
    )


special = st.sampled_from([*make.HOP_BY_HOP, *make.PRIVATE, b"Authorization"]).flatmap(make.spell)
hostile_fields = st.lists(
    st.tuples(special, make.values) | st.tuples(make.names, make.values), max_size=16
).map(lambda lines: [line for line in lines if line[0].lower() != b"connection"])


def at_most_one_authorization(lines: list[tuple[bytes, bytes]]) -> bool:
    return sum(name.lower() == b"authorization" for name, _ in lines) <= 1


connection_options = st.lists(
    special | make.names | st.sampled_from([b"Host", b"Via", b"X-Request-ID", b"Content-Length"]), max_size=4
)


@given(make.methods, make.targets, hostile_fields.filter(at_most_one_authorization), connection_options)
def test_requests(method: bytes, target: bytes, lines: list[tuple[bytes, bytes]], named: list[bytes]) -> None:
    connection = [(b"Connection", b", ".join(named))] if named else []
    raw = make.raw_head(method, target, [*lines, *connection, (b"Content-Length", b"0")])
    seen = rewritten(raw)
    keys = [each.key for each in seen.fields]
    assert (seen.method, seen.target, seen.host) == (method, target, b"api.bits.bi")
    gone = DROPPED | {name.lower() for name in named}
    assert not (set(keys) & gone) - REWRITTEN
    for once in (b"host", b"authorization", b"x-request-id", b"content-length"):
        assert keys.count(once) == 1
    assert seen.by_name[b"authorization"] == b"Bearer ours"
    assert seen.by_name[b"via"].endswith(b"1.1 us-1")
    assert seen.length == 0
    expected = [
        (name, value)
        for name, value in lines
        if name.lower() not in gone | REWRITTEN and not name.lower().startswith(b"x-forwarded-")
    ]
    got = [(each.name, each.value) for each in seen.fields if each.key not in REWRITTEN]
    assert got == expected


@given(make.values)
def test_kept_credentials_go_up_whatever_they_are(value: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: " + value + b"\r\n\r\n"
    seen = rewritten(raw, ClientAuthorization.KEEP)
    assert [each.value for each in seen.fields if each.key == b"authorization"] == [value]


def test_without_its_own_the_clients_request_gets_ours_in_every_mode() -> None:
    for mode in ClientAuthorization:
        seen = rewritten(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", mode)
        assert seen.by_name[b"authorization"] == b"Bearer ours"


def test_reject_refuses_who_brings_an_authorization() -> None:
    bringing = parse(b"GET / HTTP/1.1\r\nHost: a\r\nauthorization: x\r\n\r\n")
    assert rules(ClientAuthorization.REJECT).objection(bringing)
    assert not rules(ClientAuthorization.REPLACE).objection(bringing)
    assert not rules(ClientAuthorization.KEEP).objection(bringing)
    without = parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\n\r\n")
    assert not any(rules(mode).objection(without) for mode in ClientAuthorization)


def test_a_kept_authorization_must_not_be_nominated_away() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nConnection: close, Authorization\r\n\r\n"
    assert rules(ClientAuthorization.KEEP).objection(parse(raw))
    assert rewritten(raw, ClientAuthorization.REPLACE).by_name[b"authorization"] == b"Bearer ours"


@given(st.integers(200, 599), hostile_fields, connection_options)
@example(200, [(b"Trailer", b"X-Sum")], [b"trailer"])
@example(200, [(b"Trailer", b"X-Sum")], [b"close"])
def test_responses(status: int, lines: list[tuple[bytes, bytes]], named: list[bytes]) -> None:
    lines = [line for line in lines if line[0].lower() not in (b"location", b"keep-alive")]
    text = b"".join(b"%b: %b\r\n" % line for line in [*lines, (b"Connection", b", ".join(named))] if line[1])
    raw = b"HTTP/1.1 %d R\r\n%bContent-Length: 0\r\n\r\n" % (status, text)
    head = ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=65_536, max_fields=500).feed(raw)
    assert head is not None
    its = ResponseRules(origin=b"https://api.bits.bi")
    out = b"".join(its.rewrite(head, chunked=False, connection=b"", request_id=b"r-1"))
    seen = ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=65_536, max_fields=500).feed(out)
    assert seen is not None
    hop = {name.lower() for name in make.HOP_BY_HOP} - {b"trailer"}
    gone = hop | {name.lower() for name in named} - {b"content-length"}
    got = [
        (each.name, each.value)
        for each in seen.fields
        if each.key not in (b"content-length", b"x-request-id")
    ]
    expected = [
        (name, value) for name, value in lines if value and name.lower() not in gone | {b"x-request-id"}
    ]
    assert got == expected
    ids = [each.value for each in seen.fields if each.key == b"x-request-id"]
    theirs = [value for name, value in lines if value and name.lower() == b"x-request-id"]
    assert ids == (theirs if theirs and b"x-request-id" not in gone else [b"r-1"])
