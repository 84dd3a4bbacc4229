"""What each proxy makes of a case in one word, and the cases on which they disagree."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.system.differential.cases import Case
from tests.system.differential.wire import Seen

PASSES: Final = "passes"
"""The API gets the request, and the client the response."""
CUT: Final = "cut"
"""The API gets the request, and the client a response without an end."""
SIDECAR, NGINX, CADDY, HAPROXY = PROXIES = ("sidecar", "nginx", "Caddy", "HAProxy")


def verdict(case: Case, seen: Seen) -> str:
    """Return PASSES, CUT, or the status of the proxy's own response."""
    if seen.response is None:
        return seen.fault
    status = seen.response.status
    answer = b"".join(case.answer).split(b"HTTP/1.")[-1]
    is_own = not seen.requests and not seen.fault
    if is_own or status != int(answer[2:5]):
        return str(status)
    if seen.fault:
        return seen.fault
    return PASSES if seen.response.whole else CUT


class Disagreement(NamedTuple):
    """Cases on which the proxies' verdicts differ; `verdicts` has one for each, in the order of PROXIES."""

    why: str
    verdicts: tuple[str, str, str, str]
    cases: tuple[str, ...]


_PASS: Final = (PASSES, PASSES, PASSES)

DISAGREEMENTS: Final = (
    Disagreement(
        "the set of methods is closed, so that an unknown one can't get around a rule",
        ("501", *_PASS),
        ("PROPFIND", "M-SEARCH", "PURGE", "FROB", "X-Y_Z"),
    ),
    Disagreement(
        "TRACE shows the token to the client",
        ("405", "405", PASSES, PASSES),
        ("TRACE",),
    ),
    Disagreement(
        "the API must read the path that the rules matched",
        ("400", *_PASS),
        (
            "target: empty segment",
            "target: dot segment",
            "target: encoded dot",
            "target: encoded slash",
            "target: encoded letter",
            "target: parameter",
        ),
    ),
    Disagreement(
        "the credentials stay inside",
        ("403", *_PASS),
        ("target: token endpoint",),
    ),
    Disagreement(
        "a page in a browser must not use the credentials",
        ("403", *_PASS),
        ("fields: of a page elsewhere",),
    ),
    Disagreement(
        "DNS rebinding must not reach a listener on loopback",
        ("421", *_PASS),
        ("Host: api.bits.bi",),
    ),
    Disagreement(
        "framing fields in trailers could hide a message (RFC 9110 section 6.5.1)",
        ("400", *_PASS),
        ("POST, Content-Length in trailers", "POST, Transfer-Encoding in trailers"),
    ),
    Disagreement(
        "framing fields in trailers could hide a message (RFC 9110 section 6.5.1)",
        ("502", *_PASS),
        ("answer: Content-Length in trailers", "answer: Transfer-Encoding in trailers"),
    ),
    Disagreement(
        "an expectation that can't be met is rejected (RFC 9110 section 10.1.1); Go's server does so too",
        ("417", PASSES, "417", PASSES),
        ("fields: another expectation",),
    ),
    Disagreement(
        "OPTIONS * is forwarded (RFC 9112 section 3.2.4); Go's server answers it",
        (PASSES, "400", "200", PASSES),
        ("target: asterisk",),
    ),
    Disagreement(
        "an authority with only a query behind it has an empty path (RFC 9112 section 3.2.1)",
        (PASSES, PASSES, PASSES, "400"),
        ("target: absolute form, only a query",),
    ),
    Disagreement(
        "a server ignores an empty line before a request (RFC 9112 section 2.2); Go's does not",
        (PASSES, PASSES, "400", PASSES),
        ("an empty line first",),
    ),
    Disagreement(
        "whitespace before a chunk extension is tolerated (RFC 9112 section 7.1.1); Go's server does not",
        (PASSES, PASSES, "502", PASSES),
        ("POST, space before a chunk extension",),
    ),
    Disagreement(
        "a response without its last chunk is incomplete (RFC 9112 section 8); Caddy gives it an end",
        (CUT, CUT, PASSES, CUT),
        ("answer: ended in a chunk", "answer: ended before the last chunk"),
    ),
)


def expected(case: Case) -> Mapping[str, str] | None:
    """Return the verdict of each proxy, or None if all agree."""
    for row in DISAGREEMENTS:
        if case.name in row.cases:
            return dict(zip(PROXIES, row.verdicts, strict=True))
    return None
