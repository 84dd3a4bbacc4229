"""What hypothesis makes requests of."""

import itertools

from hypothesis import strategies as st

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_BYTES = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
HOP_BY_HOP = (
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"Proxy-Connection",
    b"TE",
    b"Trailer",
    b"Upgrade",
)
PRIVATE = (b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-New", b"X-Real-IP")
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host", b"expect", b"connection", b"upgrade"))


def spell(name: bytes) -> st.SearchStrategy[bytes]:
    """The name in any case."""
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda upper: b"".join(
            (name[i : i + 1].upper() if up else name[i : i + 1].lower()) for i, up in enumerate(upper)
        )
    )


tokens = st.lists(st.sampled_from([bytes([b]) for b in TOKEN_BYTES]), min_size=1, max_size=12).map(b"".join)
names = tokens.filter(
    lambda name: (
        name.lower() not in FRAMING
        and not name.lower().startswith((b"x-forwarded-", b"sec-fetch", b"origin"))
    )
)
values = st.lists(st.sampled_from([bytes([b]) for b in VALUE_BYTES]), max_size=20).map(b"".join)
fields = st.lists(st.tuples(names, values), max_size=12)
methods = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
segments = st.lists(
    st.sampled_from([bytes([b]) for b in b"abcXYZ019-._~!$&'()*+,=:@"] + [b"%C3%A9", b"%20"]), max_size=8
).map(b"".join)
targets = st.lists(segments, min_size=1, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
bodies = st.binary(max_size=300)


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut into reads."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def raw_head(method: bytes, target: bytes, lines: list[tuple[bytes, bytes]], minor: int = 1) -> bytes:
    """A request's head as a client writes it."""
    text = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"%b %b HTTP/1.%d\r\nHost: localhost\r\n%b\r\n" % (method, target, minor, text)
