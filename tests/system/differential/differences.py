"""The documented differences between the sidecar and nginx.

Each difference turns what nginx does into what the sidecar does. They apply one after the other.
"""

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from tests.support.recorder import TOKEN
from tests.system.differential.cases import Case
from tests.system.differential.wire import Fields, Request, Response, Seen, fields_of

Change = Callable[[Case, Seen], Seen]

_FRAMING = (b"content-length", b"transfer-encoding")
_HOP_BY_HOP = (
    b"http2-settings",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"upgrade",
)
_INSIDE = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip")
_NOT_IN_TRAILERS = (
    b"authorization",
    b"connection",
    b"content-length",
    b"host",
    b"set-cookie",
    b"transfer-encoding",
    b"upgrade",
)
_KNOWN_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE")
_TWO_READINGS = re.compile(rb"//|/\.\.?(/|\Z)|%2[EeFf]|%61|;")


# These functions limit where a change applies.


def _on_requests(change: Callable[[Case, Request], Request]) -> Change:
    return lambda case, seen: seen._replace(requests=tuple(change(case, got) for got in seen.requests))


def _on_response(change: Callable[[Case, Response], Response]) -> Change:
    """Change a response of the API, but not one of the proxy's own."""

    def apply(case: Case, seen: Seen) -> Seen:
        if seen.response is None or not seen.requests:
            return seen
        return seen._replace(response=change(case, seen.response))

    return apply


def _on_request_fields(change: Callable[[Case, Fields], Fields]) -> Change:
    return _on_requests(lambda case, got: got._replace(fields=change(case, got.fields)))


def _on_response_fields(change: Callable[[Case, Fields], Fields]) -> Change:
    return _on_response(lambda case, got: got._replace(fields=change(case, got.fields)))


def _rejected(status: int, reason: bytes, applies: Callable[[Case], object]) -> Change:
    """Respond without the API, and close the connection."""
    response = Response(b"HTTP/1.1", status, reason, ())
    return lambda case, seen: Seen((), (), response, stays_open=False) if applies(case) else seen


def _only(fields: Fields, *names: bytes) -> Fields:
    return tuple(field for field in fields if field[0].lower() in names)


def _without(fields: Fields, names: Collection[bytes]) -> Fields:
    return tuple(field for field in fields if field[0].lower() not in names)


def _answers(case: Case) -> tuple[list[bytes], bytes]:
    """Return the heads of the API's interim responses, and its final response."""
    answer = b"".join(case.answer)
    interim = []
    while answer.startswith(b"HTTP/1.1 1"):
        head, _, answer = answer.partition(b"\r\n\r\n")
        interim.append(head)
    return interim, answer


def _answer_fields(case: Case) -> Fields:
    return fields_of(_answers(case)[1])


# These functions are the changes.


def _asterisk(case: Case, seen: Seen) -> Seen:
    if case.path != b"*":
        return seen
    fields = ((b"Host", b"api"), (b"Authorization", b"Bearer " + TOKEN.encode()))
    answer = Response(
        b"HTTP/1.1", 200, b"OK", ((b"Content-Type", b"text/plain"), (b"Content-Length", b"2")), b"ok"
    )
    return Seen((Request(case.method, b"*", b"HTTP/1.1", fields, b"", ()),), (), answer, stays_open=True)


def _no_late_continue(case: Case, seen: Seen) -> Seen:
    if case.after_continue:
        return seen
    return seen._replace(interim=tuple(answer for answer in seen.interim if answer.status != 100))


def _interim(case: Case, seen: Seen) -> Seen:
    heads, _ = _answers(case)
    if not heads or seen.response is None:
        return seen
    if case.is_old:
        fields = (*seen.response.fields, (b"Connection", b"close"))
        return seen._replace(interim=(), response=seen.response._replace(fields=fields))
    answers = (_bare_response(head) for head in heads)
    return seen._replace(interim=tuple(answers))


def _bare_response(head: bytes) -> Response:
    version, status, reason = head.partition(b"\r\n")[0].split(b" ", 2)
    return Response(version, int(status), reason, fields_of(head))


def _trailers(case: Case, response: Response) -> Response:
    if not _only(response.fields, b"transfer-encoding"):
        return response
    section = _answers(case)[1].partition(b"\r\n0\r\n")[2]
    dropped = {*_NOT_IN_TRAILERS, *_nominated(_answer_fields(case))}
    return response._replace(trailers=_without(fields_of(b"\r\n" + section), dropped))


def _websocket(case: Case, fields: Fields) -> Fields:
    if _only(fields_of(case.request), b"upgrade") != ((b"Upgrade", b"websocket"),):
        return fields
    return (*fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))


def _nominated(fields: Fields) -> set[bytes]:
    """Return the connection options, except framing fields, which Connection can't remove."""
    options = b",".join(value for _, value in _only(fields, b"connection")).split(b",")
    return {option.strip().lower() for option in options}.difference(_FRAMING)


def _no_hop_by_hop(fields: Fields, received: Fields) -> Fields:
    """Return `fields` without those that concern only the connection that the message came on."""
    return _without(fields, {*_HOP_BY_HOP, *_nominated(received)})


def _reference(case: Case, fields: Fields) -> Fields:
    return tuple(
        (name, value.removeprefix(b"http://api") if name == b"Location" else value) for name, value in fields
    )


def _no_tabs(_: Case, fields: Fields) -> Fields:
    return tuple((name, value.strip(b"\t")) for name, value in fields)


def _framed_as_received(case: Case, fields: Fields) -> Fields:
    chunked = _only(fields_of(case.request), b"transfer-encoding")
    return (*_without(fields, _FRAMING), (b"Transfer-Encoding", b"chunked")) if chunked else fields


def _own_fields_last(_: Case, fields: Fields) -> Fields:
    last = (_FRAMING, (b"connection", b"upgrade"), (b"authorization",))
    rest = _without(fields, [name for names in last for name in names])
    return (*rest, *(field for names in last for field in _only(fields, *names)))


def _via(case: Case, fields: Fields) -> Fields:
    return (*fields, (b"Via", b"1.0 ours" if case.is_old else b"1.1 ours"))


def _request_id(case: Case, fields: Fields) -> Fields:
    return (*_without(fields, (b"x-request-id",)), (b"X-Request-ID", _id_of(case)))


def _id_of(case: Case) -> bytes:
    """Return the request's identifier, or a new one if it can't be forwarded and logged."""
    ids = [value for _, value in _only(fields_of(case.request), b"x-request-id") if 0 < len(value) <= 200]
    return ids[0] if ids else b"made"


def _echo_of_request_id(case: Case, fields: Fields) -> Fields:
    if _only(fields, b"x-request-id"):
        return fields
    return (*fields, (b"X-Request-ID", _id_of(case)))


def _date(_: Case, fields: Fields) -> Fields:
    return fields if _only(fields, b"date") else (*fields, (b"Date", b"Tue, 14 Nov 2023 22:13:20 GMT"))


def _order_and_spelling_kept(case: Case, fields: Fields) -> Fields:
    rest = list(fields)
    ordered = []
    for name, _ in _without(_answer_fields(case), (b"transfer-encoding", b"connection")):
        for field in rest:
            if field[0].lower() == name.lower():
                rest.remove(field)
                ordered.append((name, field[1]))
                break
    return (*ordered, *rest)


def _persistence_unsaid(case: Case, fields: Fields) -> Fields:
    said = (b"Connection", b"keep-alive")
    return fields if case.is_old else tuple(field for field in fields if field != said)


def _no_length_in_204(_: Case, response: Response) -> Response:
    if response.status != 204:
        return response
    return response._replace(fields=_without(response.fields, (b"content-length",)))


def _framing_in_trailers(message: bytes) -> bool:
    """Return whether the trailers of a chunked message hold framing fields."""
    _, last_chunk, trailers = message.partition(b"\r\n0\r\n")
    return bool(last_chunk and _only(fields_of(b"\r\n" + trailers), *_FRAMING))


def _bad_answer(case: Case, seen: Seen) -> Seen:
    if not _framing_in_trailers(b"".join(case.answer)):
        return seen
    return seen._replace(response=Response(b"HTTP/1.1", 502, b"Bad Gateway", ()))


class Difference(NamedTuple):
    """What differs, why, and which document demands it. `apply` makes the change."""

    name: str
    why: str
    document: str
    apply: Change


DIFFERENCES = (
    # Rejections.
    Difference(
        "unknown methods are rejected",
        "the set of methods is closed; nginx forwards any token in capitals",
        "design section 5, RFC 9110 section 15.6.2",
        _rejected(501, b"Not Implemented", lambda case: case.method not in _KNOWN_METHODS),
    ),
    Difference(
        "TRACE is rejected with the reason phrase of the RFC",
        "both reject it; nginx calls it Not Allowed",
        "design section 5, RFC 9110 sections 9.3.8 and 15.5.6",
        _rejected(405, b"Method Not Allowed", lambda case: case.method == b"TRACE"),
    ),
    Difference(
        "paths that can be read in two ways are rejected",
        "the API must read the path that the rules matched; nginx has no such rules",
        "design section 5, RFC 3986 section 6",
        _rejected(400, b"Bad Request", lambda case: _TWO_READINGS.search(case.path)),
    ),
    Difference(
        "requests to the token endpoint are rejected",
        "the credentials stay inside; nginx knows nothing of them",
        "design section 5",
        _rejected(403, b"Forbidden", lambda case: case.path == b"/v1/oauth2/token"),
    ),
    Difference(
        "requests from web pages of other origins are rejected",
        "a page in a browser must not use the credentials; nginx has no such rule",
        "design section 5",
        _rejected(403, b"Forbidden", lambda case: _only(fields_of(case.request), b"origin")),
    ),
    Difference(
        "hosts other than this machine are rejected",
        "DNS rebinding must not reach a listener on loopback",
        "design section 5, RFC 9110 section 7.4",
        _rejected(421, b"Misdirected Request", lambda case: b"Host: api.bits.bi" in case.request),
    ),
    Difference(
        "expectations other than 100-continue are rejected",
        "they can't be met; nginx drops them",
        "RFC 9110 section 10.1.1",
        _rejected(417, b"Expectation Failed", lambda case: b"Expect: other" in case.request),
    ),
    Difference(
        "framing fields in the trailers of a request are rejected",
        "a sender must not send them, and they could hide a request; nginx drops them",
        "RFC 9110 section 6.5.1",
        _rejected(400, b"Bad Request", lambda case: _framing_in_trailers(case.request)),
    ),
    Difference(
        "OPTIONS * is forwarded",
        "nginx does not know the asterisk form",
        "design section 5, RFC 9112 section 3.2.4",
        _asterisk,
    ),
    Difference(
        "a client that did not wait for a 100 gets none",
        "it may be left out once content has arrived; nginx sends it nevertheless",
        "RFC 9110 section 10.1.1",
        _no_late_continue,
    ),
    # Requests.
    Difference(
        "hop-by-hop fields of a request are removed, connection options too",
        "nginx drops a fixed few and does not read what Connection names",
        "RFC 9110 section 7.6.1",
        _on_request_fields(
            lambda case, fields: _no_hop_by_hop(_without(fields, (b"trailer",)), fields_of(case.request))
        ),
    ),
    Difference(
        "fields that reveal internals are removed",
        "the API is a third party; nginx drops none by itself",
        "design section 5",
        _on_request_fields(lambda _, fields: _without(fields, _INSIDE)),
    ),
    Difference(
        "tabs around a field value of a request are not part of it",
        "nginx strips spaces only",
        "RFC 9110 section 5.5",
        _on_request_fields(_no_tabs),
    ),
    Difference(
        "a chunked request stays chunked",
        "nginx sends a length if it already has the whole body; the proxy does not look",
        "RFC 9112 section 6.1",
        _on_request_fields(_framed_as_received),
    ),
    Difference(
        "a request may upgrade to WebSocket",
        "nginx drops every Upgrade",
        "design section 5, RFC 6455 section 4.1",
        _on_request_fields(_websocket),
    ),
    Difference(
        "framing and credentials follow the client's fields",
        "nginx writes the fields that it sets first; the order of different fields has no meaning",
        "RFC 9110 section 5.3",
        _on_request_fields(_own_fields_last),
    ),
    Difference(
        "Via is added",
        "a proxy must add it; nginx does not",
        "design section 5, RFC 9110 section 7.6.3",
        _on_request_fields(_via),
    ),
    Difference(
        "X-Request-ID is added, or moved to the end",
        "nginx makes none, and forwards any that the client sends",
        "design section 5",
        _on_request_fields(_request_id),
    ),
    # Responses.
    Difference(
        "interim responses pass unchanged to HTTP/1.1 clients",
        "nginx takes the first for the final one, adds Connection, and takes the rest for its content",
        "design section 5, RFC 9110 section 15.2",
        _interim,
    ),
    Difference(
        "trailers of a response pass, except fields that come too late there",
        "nginx drops them all",
        "design section 5, RFC 9110 section 6.5.1",
        _on_response(_trailers),
    ),
    Difference(
        "tabs around a field value of a response are not part of it",
        "nginx strips spaces only",
        "RFC 9110 section 5.5",
        _on_response_fields(_no_tabs),
    ),
    Difference(
        "hop-by-hop fields of a response are removed, connection options too",
        "nginx drops a fixed few and does not read what Connection names",
        "RFC 9110 section 7.6.1",
        _on_response_fields(lambda case, fields: _no_hop_by_hop(fields, _answer_fields(case))),
    ),
    Difference(
        "fields about the API's origin are removed",
        "clients would apply them to this origin; nginx passes them",
        "design section 5, RFC 7838 section 3, RFC 6797 section 6.1",
        _on_response_fields(lambda _, fields: _without(fields, (b"alt-svc", b"strict-transport-security"))),
    ),
    Difference(
        "Location at the API's origin leads back here",
        "nginx could be configured to do so, but makes it absolute again",
        "design section 5, RFC 9110 section 10.2.2",
        _on_response_fields(_reference),
    ),
    Difference(
        "204 has no Content-Length",
        "a server must not send it; nginx passes it",
        "RFC 9110 section 8.6",
        _on_response(_no_length_in_204),
    ),
    Difference(
        "the order and the spelling of the API's fields are kept",
        "nginx writes the fields that it knows first, in its own spelling",
        "RFC 9110 sections 5.1 and 5.3",
        _on_response_fields(_order_and_spelling_kept),
    ),
    Difference(
        "HTTP/1.1 responses do not say Connection: keep-alive",
        "that is the default; nginx always says it",
        "RFC 9112 section 9.3",
        _on_response_fields(_persistence_unsaid),
    ),
    Difference(
        "a response without a Date gets one",
        "a proxy with a clock must add it; nginx does not if it is told to pass the API's",
        "RFC 9110 section 6.6.1",
        _on_response_fields(_date),
    ),
    Difference(
        "X-Request-ID is echoed",
        "nginx does not do so",
        "design section 5",
        _on_response_fields(_echo_of_request_id),
    ),
    Difference(
        "a response with framing fields in its trailers is invalid",
        "a sender must not send them, and they could hide a response; nginx drops them",
        "RFC 9110 section 6.5.1",
        _bad_answer,
    ),
)
