"""What is written, to the API and to the client, reads back as what came: head, content, trailers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bits_auth_proxy.forward.headers import REQUEST_FIELDS, RESPONSE_FIELDS
from bits_auth_proxy.http1.bodies import open_body
from bits_auth_proxy.http1.messages import NO_BODY, UNTIL_CLOSE
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from tests.support import strategies as make
from tests.support.exchange_rig import Rig
from tools.fuzz.answers import fault_in
from tools.fuzz.api import Request

pieces = st.lists(make.bodies.filter(bool), max_size=5)
OURS = {b"host", b"authorization", b"via", b"x-request-id", b"content-length", b"transfer-encoding"}
GONE = {name.lower() for name in make.HOP_BY_HOP + make.PRIVATE} | OURS
LATE = (b"Content-Type", b"Set-Cookie", b"Authorization", b"Location", b"X-Sum", b"Server-Timing")


@given(
    st.sampled_from([b"GET", b"POST", b"PUT"]),
    make.fields,
    pieces,
    st.booleans(),
    st.integers(0, 5),
    st.booleans(),
)
def test_a_request(
    method: bytes,
    fields: list[tuple[bytes, bytes]],
    body: list[bytes],
    chunked: bool,
    early: int,
    end_apart: bool,
) -> None:
    content = b"".join(body)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(content)
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    rig = Rig(method, fields=lines + framing + b"\r\n")
    rig.context.replay_budget.free += 10_000
    rig.give_token("recorder-token")
    rig.make_idle()
    for index, piece in enumerate(body):
        if index == early:
            rig.start()
        rig.body(piece, done=index == len(body) - 1 and not (end_apart and chunked))
    if not rig.connections[0].sent:
        rig.start()
    rig.body(b"", done=True)
    sent = rig.connections[0].sent
    # By a reader that shares nothing with the proxy, and by the proxy's own.
    Request(sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    parser = RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=65_536, max_fields=500)
    head = parser.feed(sent)
    assert head is not None
    assert (head.method, head.target) == (method, b"/v1/x")
    got = [(each.name, each.value) for each in head.fields if each.key not in OURS]
    assert got == [field for field in fields if field[0].lower() not in GONE]
    reader = open_body(head.length, max_overhead=10_000, max_fields=10)
    taken = rig.content
    if reader is None:
        assert (taken, parser.rest) == (b"", b"")
    else:
        assert reader.feed(parser.rest) == taken
        assert (reader.done, reader.rest, reader.trailers) == (rig.request_done, b"", [])


@settings(max_examples=300)
@given(
    st.sampled_from([200, 201, 299, 404, 503]),
    make.fields,
    pieces,
    st.sampled_from([b"chunked", b"length", b"close"]),
    st.lists(st.tuples(st.sampled_from(LATE), make.tokens), max_size=3),
    st.sampled_from([1, 0]),
)
def test_an_answer(
    status: int,
    fields: list[tuple[bytes, bytes]],
    body: list[bytes],
    framing: bytes,
    trailers: list[tuple[bytes, bytes]],
    minor: int,
) -> None:
    content = b"".join(body)
    lines = [(name, value) for name, value in fields if name.lower() not in (b"location", b"keep-alive")]
    text = b"".join(b"%b: %b\r\n" % line for line in lines)
    if framing != b"close":
        text += (
            b"Content-Length: %d\r\n" % len(content)
            if framing == b"length"
            else b"Transfer-Encoding: chunked\r\n"
        )
    rig = Rig(b"GET", fields=b"", minor=minor)
    rig.give_token()
    rig.make_idle()
    rig.start()
    rig.read(head=b"HTTP/1.1 %d A Reason\r\n%b\r\n" % (status, text))
    for piece in body:
        rig.read(content=[piece])
    if not rig.is_over:
        rig.read(end=True, trailers=trailers if framing == b"chunked" else [])
    assert rig.is_over
    received = rig.client.received
    assert fault_in(received) is None
    parser = ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=65_536, max_fields=500)
    head = parser.feed(received)
    assert head is not None
    assert (head.status, head.reason) == (status, b"A Reason")
    gone = {name.lower() for name in make.HOP_BY_HOP} - {b"trailer"} | {
        b"alt-svc",
        b"strict-transport-security",
    }
    added = (b"date", b"x-request-id", b"content-length", b"transfer-encoding", b"connection")
    got = [(each.name, each.value) for each in head.fields if each.key not in added]
    assert got == [line for line in lines if line[0].lower() not in gone and line[0].lower() not in added]
    length = head.length
    assert (length == UNTIL_CLOSE) == (minor == 0 and framing != b"length")
    reader = open_body(length, max_overhead=10_000, max_fields=10)
    if reader is None:
        assert (length, content, parser.rest) == (NO_BODY, b"", b"")
        return
    assert reader.feed(parser.rest) == content
    passing = [line for line in trailers if line[0] in (b"X-Sum", b"Server-Timing")]
    assert [(each.name, each.value) for each in reader.trailers] == (
        passing if framing == b"chunked" and minor == 1 else []
    )
    assert reader.done or length == UNTIL_CLOSE
