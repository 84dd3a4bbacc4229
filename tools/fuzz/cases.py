"""One case: what a client sends and how the API responds, derived only from a seed and a number."""

import random
import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from tools.fuzz.corpus import ANSWERS, REQUESTS, WORDS

GOOD_ANSWER: Final = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nX-Mark: %b\r\n\r\n%b"
MARK: Final = re.compile(rb"[QA][0-9a-f]{32}")
"""Marks that show which case bytes belong to. Its request has Q and its response A, with the same digits."""


class Leaving(Enum):
    """How a peer ends its connection."""

    FIN = "fin"
    RST = "rst"
    HALF = "half"
    STAY = "stay"
    """It keeps the connection open until the other side closes it or some time has passed."""


class Early(Enum):
    """Whether the API responds before it reads a request's body."""

    NO = "no"
    READS = "reads"
    """It reads the body afterwards."""
    CLOSES = "closes"
    """It closes the connection instead, with the body unread."""


class Case(NamedTuple):
    """What happens on one client connection. A `good` case is valid on both sides and must succeed."""

    number: int
    digits: bytes
    good: bool
    request: Sequence[bytes]
    """The pieces that are sent separately."""
    answer: bytes
    """The response to every request on the connection."""
    client_leaves: Leaving
    api_leaves: Leaving
    early: Early
    api_first: bool | None
    """Whether the API acts before the client where both act at once; None if they never do."""
    late: bytes | Leaving
    """What the API does on the idle connection to the proxy when any client sends its request."""


def make_case(seed: int, number: int) -> Case:
    """Return case `number` of a run with `seed`."""
    rng = random.Random(f"{seed}/{number}")
    digits = b"%032x" % rng.getrandbits(128)
    if rng.random() < 0.2:
        return _good_case(rng, number, digits)
    side = rng.choice(("request", "answer", "both"))
    request = b"".join(_tagged(rng.choice(REQUESTS), b"Q" + digits) for _ in range(rng.choice((1, 1, 2, 3))))
    answer = _tagged(rng.choice(ANSWERS), b"A" + digits)
    if side != "answer":
        request = mutated(rng, request, REQUESTS)
    leaves = _leaving(rng)
    if leaves is Leaving.HALF and rng.random() < 0.3:
        request = _truncate(rng, request, REQUESTS)
    answer = _good_answer(digits) if side == "request" else mutated(rng, answer, ANSWERS)
    return Case(
        number,
        digits,
        good=False,
        request=_split(rng, request),
        answer=answer,
        client_leaves=leaves,
        api_leaves=rng.choice((*[Leaving.STAY] * 6, Leaving.FIN, Leaving.RST)),
        early=rng.choice((*[Early.NO] * 6, Early.READS, Early.CLOSES)),
        api_first=rng.choice((None, False, True)),
        late=_late(rng, digits),
    )


def _good_case(rng: random.Random, number: int, digits: bytes) -> Case:
    """Return a valid request and its response, which may come from the head alone."""
    refused = rng.random() < 0.3
    mark = b"Q" + digits
    if refused:
        body = bytes(rng.choice((1, 1000, 50_000, 200_000)))
        request = (
            b"POST /v1/x?%b HTTP/1.1\r\nHost: localhost\r\nX-Mark: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (
                mark,
                mark,
                len(body),
                body,
            )
        )
    else:
        request = b"GET /v1/x?%b HTTP/1.1\r\nHost: localhost\r\nX-Mark: %b\r\n\r\n" % (mark, mark)
    return Case(
        number,
        digits,
        good=True,
        request=_split(rng, request),
        answer=_good_answer(digits, b"413 Content Too Large" if refused else b"200 OK"),
        client_leaves=_leaving(rng),
        api_leaves=Leaving.STAY,
        early=Early.CLOSES if refused else Early.NO,
        api_first=rng.choice((None, False, True)),
        late=_late(rng, digits),
    )


def _leaving(rng: random.Random) -> Leaving:
    return rng.choice((Leaving.FIN, Leaving.RST, Leaving.HALF)) if rng.random() < 0.98 else Leaving.STAY


def _late(rng: random.Random, digits: bytes) -> bytes | Leaving:
    return rng.choice((_good_answer(digits), b"A" + digits, Leaving.FIN, Leaving.RST))


def _good_answer(digits: bytes, status: bytes = b"200 OK") -> bytes:
    body = b"A" + digits
    return GOOD_ANSWER % (status, len(body), body, body)


def _tagged(message: bytes, mark: bytes) -> bytes:
    """Put `mark` into the head of a message, or append it to data that has no head."""
    line, end, rest = message.lstrip(b"\r\n").partition(b"\r\n")
    return b"%b%bX-Mark: %b\r\n%b" % (line, end, mark, rest) if end else message + mark


def _split(rng: random.Random, data: bytes) -> list[bytes]:
    if rng.random() < 0.5 or len(data) < 2:
        return [data]
    cuts = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randint(1, 4))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def mutated(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return `data` with a few random changes."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        change = rng.choice(_CHANGES)
        data = change(rng, data, corpus)
    return data


def _place(rng: random.Random, data: bytes) -> tuple[int, int]:
    begin = rng.randint(0, len(data))
    return begin, min(len(data), begin + rng.choice((0, 1, 1, 2, 4, 16, 64)))


def _flip(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin, _ = _place(rng, data)
    return data[:begin] + bytes([rng.randrange(256)]) + data[begin + 1 :]


def _insert(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin, _ = _place(rng, data)
    return data[:begin] + rng.choice(WORDS) + data[begin:]


def _insert_line(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(rng.randint(1, len(lines)), rng.choice(WORDS).strip(b"\r\n"))
    return b"\r\n".join(lines)


def _delete(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin, end = _place(rng, data)
    return data[:begin] + data[end:]


def _repeat(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin, end = _place(rng, data)
    return data[:end] + data[begin:end] * rng.choice((1, 1, 2, 100)) + data[end:]


def _repeat_line(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    index = rng.randrange(len(lines))
    return b"\r\n".join([*lines[:index], lines[index], *lines[index:]])


def _move(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin, end = _place(rng, data)
    rest = data[:begin] + data[end:]
    to = rng.randint(0, len(rest))
    return rest[:to] + data[begin:end] + rest[to:]


def _truncate(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return data[: _place(rng, data)[0]]


def _cross(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = rng.choice(corpus)
    return data[: _place(rng, data)[0]] + other[_place(rng, other)[0] :]


def _number(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"[0-9]+", data))
    if not found:
        return data
    match = rng.choice(found)
    value = int(match[0][:30])
    new = rng.choice((b"0", b"-1", b"%d" % (value + 1), b"%d" % max(0, value - 1), b"%x" % value, b"9" * 20))
    return data[: match.start()] + new + data[match.end() :]


def _bare_line_end(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    ends = [match.start() for match in re.finditer(rb"\r\n", data)]
    if not ends:
        return data
    at = rng.choice(ends)
    return data[:at] + rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r")) + data[at + 2 :]


_CHANGES: Final = (
    _flip,
    _insert,
    _insert_line,
    _delete,
    _repeat,
    _repeat_line,
    _move,
    _truncate,
    _cross,
    _number,
    _bare_line_end,
)
