"""Every transition of the exchange's state machine, as the table in its docstring has them."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from bits_auth_proxy.auth.tokens import TokenUnavailable
from bits_auth_proxy.forward import exchange as module
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.exchange import CONTINUE, MIN_RATE, State
from bits_auth_proxy.forward.headers import ClientAuthorization
from tests.support.exchange_rig import (
    BUDGET,
    LIFETIME,
    MAX_REPLAY,
    PATIENCE,
    QUEUE_TIMEOUT,
    RESPONSE_TIMEOUT,
    STREAM_TIMEOUT,
    TOKEN_WAIT,
    Rig,
    response_head,
)

WEBSOCKET: dict[str, Any] = {
    "method": b"GET",
    "fields": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "repeatable": True,
}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n"
REFUSAL = b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
FOREVER = 1000.0


# Ways to each state.


def to_awaiting_token(rig: Rig) -> None:
    rig.start()


def to_awaiting_content(rig: Rig) -> None:
    rig.give_token()
    rig.start()
    rig.body(b"012")


def to_awaiting_connection(rig: Rig) -> None:
    rig.give_token()
    rig.start()


def to_awaiting_response(rig: Rig) -> None:
    to_awaiting_connection(rig)
    rig.connect(served=1)


def to_refused(rig: Rig) -> None:
    to_awaiting_response(rig)
    rig.read(head=REFUSAL, content=[b"no"])


def to_refused_whole(rig: Rig) -> None:
    to_awaiting_response(rig)
    rig.read(head=REFUSAL, content=[b"nope"], end=True)


def to_refused_unproven(rig: Rig) -> None:
    rig.proven = False
    to_refused_whole(rig)


def to_forbidden(rig: Rig) -> None:
    to_awaiting_response(rig)
    rig.read(head=FORBIDDEN, content=[b"no"])


def to_relaying(rig: Rig) -> None:
    to_awaiting_response(rig)
    rig.read(head=OK, content=[b"ha"])


def to_tunnel(rig: Rig) -> None:
    to_awaiting_response(rig)
    rig.read(head=SWITCH)


REACH: dict[State, Callable[[Rig], None]] = {
    State.AWAITING_TOKEN: to_awaiting_token,
    State.AWAITING_CONTENT: to_awaiting_content,
    State.AWAITING_CONNECTION: to_awaiting_connection,
    State.AWAITING_RESPONSE: to_awaiting_response,
    State.UNAUTHORIZED: to_refused,
    State.RELAYING: to_relaying,
    State.TUNNEL: to_tunnel,
}
LIVE = list(REACH)
SMALL: dict[str, Any] = {"fields": b"Content-Length: 10\r\n"}
OPTIONS: dict[State, dict[str, Any]] = {State.AWAITING_CONTENT: SMALL, State.TUNNEL: WEBSOCKET}


def rig_in(state: State, **options: Any) -> Rig:
    rig = Rig(**{**OPTIONS.get(state, {}), **options})
    REACH[state](rig)
    assert rig.exchange.state is state
    rig.check()
    return rig


# The table, row by row as in the docstring.


class Edge(NamedTuple):
    """What the docstring calls `on` leads from `start` to `end`. `act` does it, after `reach`."""

    start: State
    on: str
    end: State
    act: Callable[[Rig], None]
    options: Mapping[str, Any] = MappingProxyType({})
    reach: Callable[[Rig], None] | None = None


def token_idle(rig: Rig) -> None:
    rig.make_idle()
    rig.give_token("second")


def token_busy(rig: Rig) -> None:
    rig.give_token("second")


def token_full(rig: Rig) -> None:
    rig.pool.full = True
    rig.give_token("second")


def token_but_no_body(rig: Rig) -> None:
    rig.body(b"x" * (MAX_REPLAY + 1), done=True)
    rig.give_token("second")


def again(rig: Rig) -> None:
    rig.make_idle()
    rig.give_token("first")


def forbidden(rig: Rig) -> None:
    rig.read(content=[b"pe"], end=True)


def expired(rig: Rig) -> None:
    rig.clock.advance(LIFETIME + 1)
    rig.connect()


def end(rig: Rig) -> None:
    rig.body(b"0123456789", done=True)
    rig.read(content=[b"ha"], end=True)


def end_halves(rig: Rig) -> None:
    rig.tunnel_data(b"bye", done=True)
    assert rig.exchange.state is State.TUNNEL
    assert rig.connection.eofs == 1
    rig.read(end=True)


def rest(rig: Rig) -> None:
    rig.body(b"3456789", done=True)


def rest_idle(rig: Rig) -> None:
    rig.make_idle()
    rest(rig)


def rest_expired(rig: Rig) -> None:
    rig.clock.advance(LIFETIME + 1)
    rest(rig)


def no_room(rig: Rig) -> None:
    rig.use_budget_up()
    rig.body(b"3")


def no_room_idle(rig: Rig) -> None:
    rig.make_idle()
    no_room(rig)


def lost(rig: Rig) -> None:
    rig.lose(problems.CONNECTION_LOST)


def late(rig: Rig) -> None:
    rig.pool.is_connecting = False
    rig.pass_time(FOREVER)


def late_idle(rig: Rig) -> None:
    rig.make_idle()
    late(rig)


def leave(rig: Rig) -> None:
    rig.leave()


def bad_body(rig: Rig) -> None:
    rig.exchange.fail(problems.BAD_CHUNK)


_TOKEN, _CONNECTION, _RESPONSE = State.AWAITING_TOKEN, State.AWAITING_CONNECTION, State.AWAITING_RESPONSE
_CONTENT = State.AWAITING_CONTENT
_REFUSED, _RELAYING, _TUNNEL, _OVER = State.UNAUTHORIZED, State.RELAYING, State.TUNNEL, State.OVER
READ = {"repeatable": True}

EDGES = [
    Edge(_TOKEN, "a token, an idle connection", _RESPONSE, token_idle),
    Edge(_TOKEN, "a token, no idle connection", _CONNECTION, token_busy),
    Edge(_TOKEN, "a token, small content under way", _CONTENT, token_idle, SMALL),
    Edge(_CONTENT, "all of it, an idle connection", _RESPONSE, rest_idle),
    Edge(_CONTENT, "all of it, no idle connection", _CONNECTION, rest),
    Edge(_CONTENT, "all of it, the token expired", _TOKEN, rest_expired),
    Edge(_CONTENT, "no room for it, an idle connection", _RESPONSE, no_room_idle),
    Edge(_CONTENT, "no room for it, no idle connection", _CONNECTION, no_room),
    Edge(_TOKEN, "no token to be had", _OVER, Rig.give_no_token),
    Edge(_CONNECTION, "a connection", _RESPONSE, Rig.connect),
    Edge(_CONNECTION, "a connection, the token expired", _TOKEN, expired),
    Edge(_CONNECTION, "no connection to be had", _OVER, lambda rig: rig.refuse(problems.DNS_ERROR)),
    Edge(_CONNECTION, "the queue full", _OVER, token_full, reach=to_awaiting_token),
    Edge(_RESPONSE, "a final head", _RELAYING, lambda rig: rig.read(head=OK)),
    Edge(_RESPONSE, "101, asked for", _TUNNEL, lambda rig: rig.read(head=SWITCH), WEBSOCKET),
    Edge(_RESPONSE, "401 to our token, the body held", _REFUSED, lambda rig: rig.read(head=REFUSAL)),
    Edge(_RESPONSE, "connection lost, repeatable", _CONNECTION, lost, READ),
    Edge(_RESPONSE, "connection lost", _OVER, lost),
    Edge(_REFUSED, "another token, an idle connection", _RESPONSE, token_idle),
    Edge(_REFUSED, "another token, no idle connection", _CONNECTION, token_busy),
    Edge(_REFUSED, "another token, the body not held", _RELAYING, token_but_no_body),
    Edge(_REFUSED, "the same token, still unproven", _RESPONSE, again, reach=to_refused_unproven),
    Edge(_REFUSED, "a token that was refused", _RELAYING, lambda rig: rig.give_token("first")),
    Edge(_RESPONSE, "403 that may be one, likewise", _REFUSED, lambda rig: rig.read(head=FORBIDDEN)),
    Edge(_REFUSED, "the 403 does not concern the token", _RELAYING, forbidden, reach=to_forbidden),
    Edge(_REFUSED, "no other token to be had", _RELAYING, Rig.give_no_token),
    Edge(_REFUSED, "connection lost, the 401 whole", _REFUSED, lost, reach=to_refused_whole),
    Edge(_REFUSED, "connection lost", _OVER, lost),
    Edge(_REFUSED, "deadline", _RELAYING, late),
    Edge(_REFUSED, "deadline, the token unproven", _RESPONSE, late_idle, reach=to_refused_unproven),
    Edge(_RELAYING, "end of the response", _OVER, end),
    Edge(_RELAYING, "connection lost", _OVER, lost),
    Edge(_TUNNEL, "end of both halves", _OVER, end_halves),
    Edge(_TUNNEL, "connection lost", _OVER, lost),
    *(Edge(state, "deadline", _OVER, late) for state in LIVE if state is not _REFUSED),
    *(Edge(state, "the client leaves", _OVER, leave) for state in LIVE),
    *(Edge(state, "a body that is not acceptable", _OVER, bad_body) for state in LIVE),
]


def documented() -> set[tuple[State, str, State]]:
    """The docstring's table, `all` and `all others` spelt out."""
    rows = []
    for line in (module.__doc__ or "").splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if line.startswith("    ") and len(cells) == 3 and cells[2] in State.__members__:
            rows.append((cells[0], cells[1], State[cells[2]]))
    named = {(State[start], on, to) for start, on, to in rows if start in State.__members__}
    for start, on, to in rows:
        if start == "all":
            named |= {(state, on, to) for state in LIVE}
        elif start == "all others":
            special = {state for state, event, _ in named if event == on}
            named |= {(state, on, to) for state in LIVE if state not in special}
    return named


def test_the_tests_walk_every_transition_of_the_docstring_and_no_other() -> None:
    walked = [(edge.start, edge.on, edge.end) for edge in EDGES]
    assert set(walked) == documented()
    assert len(walked) == len(set(walked)) > 40


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.start.name}, {edge.on}")
def test_a_transition(edge: Edge) -> None:
    options = {**OPTIONS.get(edge.start, {}), **edge.options}
    rig = Rig(**options)
    (edge.reach or REACH[edge.start])(rig)
    before = len(rig.exchange.walked)
    edge.act(rig)
    rig.check()
    steps = rig.exchange.walked[before - 1 :]
    assert (edge.start, edge.end) in pairwise(steps) or steps == [edge.start] == [edge.end]
    # Wherever that was: nothing is left when the client goes then.
    rig.leave()
    rig.check()
    assert rig.is_over


# From the beginning, in one call.


def test_with_token_and_connection_at_hand_the_request_goes_up_at_once() -> None:
    rig = Rig()
    rig.give_token()
    rig.make_idle()
    rig.body(b"0123456789", done=True)
    rig.start()
    assert rig.exchange.walked == [_TOKEN, _RESPONSE]
    assert rig.connection.sent.endswith(b"\r\n\r\n0123456789")


def test_small_content_is_taken_in_before_a_connection_is_and_goes_up_in_one_piece() -> None:
    rig = Rig(**SMALL)
    rig.give_token()
    rig.make_idle()
    rig.start()
    for byte in b"012345678":
        rig.body(bytes([byte]))
        assert len(rig.pool.idle) == 1
    rig.give_token("second")
    rig.body(b"9", done=True)
    assert rig.connection.sent.endswith(b"\r\n\r\n0123456789")
    # The token is that of the moment.
    assert b"Bearer second" in rig.connection.sent
    rig.check()


def test_small_content_of_a_client_with_its_own_credentials_is_taken_in_too() -> None:
    fields = b"Authorization: Basic own\r\nContent-Length: 10\r\n"
    rig = Rig(fields=fields, authorization=ClientAuthorization.KEEP)
    rig.make_idle()
    rig.start()
    assert rig.exchange.state is _CONTENT
    rig.body(b"0123456789", done=True)
    assert b"Basic own" in rig.connection.sent
    rig.check()


@pytest.mark.parametrize("length", [b"Transfer-Encoding: chunked", b"Content-Length: %d" % (MAX_REPLAY + 1)])
def test_other_content_is_streamed(length: bytes) -> None:
    rig = Rig(fields=length + b"\r\n")
    rig.give_token()
    rig.make_idle()
    rig.start()
    assert rig.exchange.state is _RESPONSE
    rig.body(b"01")
    assert b"01" in rig.connection.sent


def test_content_that_comes_in_before_a_connection_is_within_the_budget() -> None:
    rig = Rig(fields=b"Content-Length: 1000\r\n")
    rig.start()
    assert rig.exchange.wants_more
    rig.body(b"x" * MAX_REPLAY)
    assert rig.budget.free == BUDGET - MAX_REPLAY
    assert not rig.exchange.wants_more
    rig.check()


def test_content_that_the_budget_has_no_room_for_waits_for_a_connection_and_goes_up_once() -> None:
    rig = rig_in(_CONTENT)
    rig.use_budget_up()
    rig.body(b"34")
    assert not rig.exchange.wants_more
    rig.connect()
    assert rig.connection.sent.endswith(b"\r\n\r\n01234")
    assert rig.budget.free == 3
    assert rig.exchange.wants_more
    rig.body(b"56789", done=True)
    assert rig.connection.sent.endswith(b"\r\n\r\n0123456789")
    rig.read(head=REFUSAL, content=[b"nope"], end=True)
    assert rig.answers() == ([401], b"nope")


def test_the_clients_own_credentials_need_no_token() -> None:
    rig = Rig(fields=b"Authorization: Basic own\r\n", authorization=ClientAuthorization.KEEP)
    rig.make_idle()
    rig.start()
    assert rig.exchange.walked == [_TOKEN, _RESPONSE]
    # And a 401 to them is theirs to see, at once.
    rig.read(head=REFUSAL, content=[b"nope"], end=True)
    assert rig.exchange.walked == [_TOKEN, _RESPONSE, _RELAYING, _OVER]
    assert rig.tokens.denials == 0


def test_a_token_source_that_answers_at_once() -> None:
    rig = Rig()
    rig.tokens.at_once = TokenUnavailable("none", retry_after=1.0, permanent=True)
    rig.start()
    assert rig.exchange.walked == [_TOKEN, _TOKEN, _OVER]
    assert rig.exchange.record.problem == "credentials_refused"
    rig.check()


def test_a_401_that_is_not_held_back_reports_the_token_and_waits_for_nothing() -> None:
    rig = Rig()
    to_awaiting_response(rig)
    rig.body(b"x" * (MAX_REPLAY + 1), done=True)
    rig.read(head=REFUSAL, content=[b"nope"], end=True)
    assert rig.tokens.denials == 1
    assert rig.answers() == ([401], b"nope")
    rig.check()


def test_a_replaced_token_that_is_refused_too_is_not_replaced_again() -> None:
    rig = Rig()
    to_refused_whole(rig)
    rig.body(b"0123456789", done=True)
    token_busy(rig)
    rig.connect()
    rig.read(head=REFUSAL, content=[b"nope"], end=True)
    assert rig.tokens.repeated == [False, True]
    # The lifecycle knows that a third one would not help.
    rig.give_no_token()
    assert rig.answers() == ([401], b"nope")
    assert len([each for each in rig.connections if each.sent]) == 2
    rig.check()


def test_a_request_whose_token_the_api_does_not_know_yet_is_sent_until_the_wait_is_over() -> None:
    rig = Rig()
    to_refused_unproven(rig)
    rig.body(b"0123456789", done=True)
    sent = 1
    while not rig.is_over and sent < 100:
        rig.make_idle()
        rig.pass_time(0.4)
        if rig.tokens.waiters:
            rig.give_token("first")
        if rig.is_served:
            sent += 1
            rig.read(head=REFUSAL, content=[b"nope"], end=True)
    # The last time when the wait is over.
    assert sent == 1 + TOKEN_WAIT // 0.4 + 1
    assert rig.answers() == ([401], b"nope")
    assert rig.tokens.repeated == [False] * sent
    rig.check()


@pytest.mark.parametrize(
    ("head", "body", "refused"),
    [
        (b'WWW-Authenticate: Bearer error="invalid_token"\r\nContent-Length: 4\r\n', b"nope", True),
        (b"Content-Length: 25\r\n", b'{"error":"invalid_token"}', True),
        (b"Content-Length: 30\r\n", b'{"error":"insufficient_scope"}', False),
        (b'WWW-Authenticate: Bearer error="insufficient_scope"\r\nContent-Length: 0\r\n', b"", False),
        (b"Content-Length: 4097\r\n", b"invalid_token".ljust(4097), False),
    ],
)
@pytest.mark.parametrize("proven", [True, False])
def test_a_403_concerns_the_token_only_if_it_says_so(
    head: bytes, body: bytes, refused: bool, proven: bool
) -> None:
    rig = Rig()
    rig.proven = proven
    to_awaiting_response(rig)
    rig.body(b"0123456789", done=True)
    # In two reads.
    rig.read(head=b"HTTP/1.1 403 No\r\n%b\r\n" % head, content=[body[:20]] if body else [])
    if body:
        rig.read(content=[body[20:]], end=True)
    assert bool(rig.tokens.denials) is refused
    assert rig.observer.forbidden == (not refused and not proven)
    if refused:
        rig.give_no_token()
    assert rig.answers() == ([403], body)
    rig.check()


def test_a_403_that_is_cut_while_it_is_looked_at_is_a_failure() -> None:
    rig = Rig()
    to_forbidden(rig)
    lost(rig)
    assert rig.exchange.record.problem == "connection_lost"
    rig.check()


@pytest.mark.parametrize("mended", [True, False])
def test_a_body_that_comes_behind_a_whole_401_goes_up_before_its_connection_serves_again(
    mended: bool,
) -> None:
    rig = Rig()
    to_refused_whole(rig)
    (refused,) = rig.connections
    rig.body(b"01234")
    rig.body(b"56789", done=True)
    if mended:
        rig.give_token("second")
    else:
        rig.give_no_token()
    assert refused.sent.endswith(b"\r\n\r\n0123456789")
    assert refused.ends == ["finished"]
    rig.check()


def test_a_connection_lost_a_second_time_is_the_last() -> None:
    rig = rig_in(_RESPONSE, repeatable=True)
    lost(rig)
    rig.connect(served=1)
    lost(rig)
    assert rig.exchange.record.problem == "connection_lost"
    assert rig.observer.retries == ["connection_lost"]
    rig.check()


@pytest.mark.parametrize("served", [0, 1])
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_what_is_sent_again(served: int, repeatable: bool, answered: bool, held: bool) -> None:
    rig = Rig(repeatable=repeatable)
    to_awaiting_connection(rig)
    rig.connect(served=served)
    rig.body(b"x" * (10 if held else MAX_REPLAY + 1))
    if answered:
        rig.read(interims=1)
    lost(rig)
    again = served > 0 and repeatable and not answered and held
    assert (rig.exchange.state is _CONNECTION) == again
    assert rig.exchange.state in (_CONNECTION, _OVER)
    rig.check()


def test_a_client_that_waits_is_told_to_continue_once_its_content_can_be_taken() -> None:
    rig = Rig(fields=b"Expect: 100-continue\r\nContent-Length: 10\r\n")
    rig.start()
    assert rig.client.received == b""
    rig.give_token()
    assert rig.client.received == CONTINUE
    rig.body(b"0123456789", done=True)
    rig.connect()
    assert rig.connection.sent.endswith(b"\r\n\r\n0123456789")
    assert rig.client.received == CONTINUE
    rig.check()


def test_a_client_with_much_to_send_is_told_to_continue_once_there_is_a_connection() -> None:
    for connects in (True, False):
        rig = Rig(fields=b"Expect: 100-continue\r\nContent-Length: 1000\r\n")
        rig.give_token()
        rig.start()
        assert rig.client.received == b""
        if connects:
            rig.connect()
            assert rig.client.received == CONTINUE
            rig.body(b"0123456789")
            assert rig.connection.sent.endswith(b"\r\n\r\n0123456789")
        else:
            # It has not sent its content for nothing.
            rig.refuse(problems.CONNECTION_REFUSED)
            assert rig.answers()[0] == [502]
        rig.check()


@pytest.mark.parametrize("told", [True, False])
def test_a_100_of_the_api_passes_unless_the_client_has_had_one(told: bool) -> None:
    rig = Rig(fields=b"Expect: 100-continue\r\nContent-Length: 1\r\n" if told else b"Content-Length: 1\r\n")
    rig.give_token()
    rig.make_idle()
    rig.start()
    rig.body(b"x", done=True)
    sink = rig.connection.sink
    assert sink is not None
    sink.response_interim(response_head(CONTINUE))
    rig.read(head=b"HTTP/1.1 204 No Content\r\n\r\n")
    assert rig.answers()[0] == [100, 204]


def test_an_interim_head_restarts_the_time_for_the_final_one_but_not_that_of_the_client() -> None:
    for done in (True, False):
        rig = Rig()
        rig.give_token()
        rig.make_idle()
        rig.start()
        if done:
            rig.body(b"x", done=True)
        for _ in range(3):
            rig.pass_time(0.8 * min(RESPONSE_TIMEOUT, STREAM_TIMEOUT))
            if rig.is_over:
                break
            rig.read(interims=1)
        assert rig.is_over is not done


def test_interim_heads_go_before_a_refusal_that_is_held_back() -> None:
    rig = Rig()
    to_awaiting_response(rig)
    rig.read(interims=1, head=REFUSAL, content=[b"nope"], end=True)
    rig.check()
    rig.give_no_token()
    assert rig.answers() == ([103, 401], b"nope")
    rig.check()


def test_interim_heads_are_told_once_when_the_refusal_is_mended() -> None:
    rig = Rig()
    to_awaiting_response(rig)
    rig.body(b"0123456789", done=True)
    rig.read(interims=2, head=REFUSAL, content=[b"nope"], end=True)
    token_idle(rig)
    rig.read(head=OK, content=[b"haha"], end=True)
    assert rig.answers() == ([103, 103, 200], b"haha")
    rig.check()


# What does not end a state.


@pytest.mark.parametrize("state", [state for state in LIVE if state not in (_CONTENT, _TUNNEL)])
@pytest.mark.parametrize("chunked", [True, False])
def test_the_body_may_arrive_in_any_state(state: State, chunked: bool) -> None:
    fields = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 1000\r\n"
    rig = rig_in(state, fields=fields)
    for content, done in ((b"01234", False), (b"", False), (b"56789", True)):
        rig.body(content, done=done)
        assert rig.exchange.state is state
        rig.check()
    # From wherever it came in: the API has all of it at the end, and the connection is as good as before.
    if state is _TOKEN:
        rig.give_token()
    if state in (_TOKEN, _CONNECTION):
        rig.connect()
    if state is _REFUSED:
        rig.give_token("second")
        rig.connect()
    rig.read(head=b"" if state is _RELAYING else OK, content=[b"ha", b"ha"][state is _RELAYING :], end=True)
    rig.check()
    assert rig.is_over
    assert rig.connections[-1].ends == ["finished"]
    assert rig.exchange.record.request_bytes == 10


@pytest.mark.parametrize("state", LIVE)
def test_a_deadline_that_has_not_come_changes_nothing(state: State) -> None:
    rig = rig_in(state)
    deadline = {
        _TOKEN: TOKEN_WAIT,
        _CONTENT: STREAM_TIMEOUT,
        _CONNECTION: QUEUE_TIMEOUT,
        _RESPONSE: RESPONSE_TIMEOUT if rig.request_done else STREAM_TIMEOUT,
        _REFUSED: TOKEN_WAIT,
        _RELAYING: STREAM_TIMEOUT,
        _TUNNEL: STREAM_TIMEOUT,
    }[state]
    rig.pass_time(deadline - 0.1)
    assert rig.exchange.state is state
    if state is _REFUSED:
        # What goes up in the meantime does not make the wait for a token longer.
        rig.body(b"01234")
    rig.pool.is_connecting = False
    rig.pass_time(0.2)
    assert rig.exchange.state is not state
    rig.check()


def test_who_queues_while_connections_are_made_waits_for_their_end() -> None:
    rig = rig_in(_CONNECTION)
    rig.pass_time(QUEUE_TIMEOUT + 0.1)
    rig.pass_time(PATIENCE - 0.1)
    assert rig.exchange.state is _CONNECTION
    rig.pass_time(0.2)
    assert rig.exchange.record.problem == "connection_timeout"
    rig.check()


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (_TOKEN, "token_unavailable"),
        (_CONTENT, "request_timeout"),
        (_CONNECTION, "overloaded"),
        (_RESPONSE, "request_timeout"),
        (_RELAYING, "response_timeout"),
        (_TUNNEL, "response_timeout"),
    ],
)
def test_a_deadline_names_who_was_late(state: State, problem: str) -> None:
    rig = rig_in(state)
    late(rig)
    assert rig.exchange.record.problem == problem


def test_the_api_is_late_when_it_takes_no_more_of_the_body() -> None:
    rig = rig_in(_RESPONSE)
    rig.connection.blocked = True
    late(rig)
    assert rig.exchange.record.problem == "response_timeout"


@pytest.mark.parametrize("state", [_RELAYING, _TUNNEL])
def test_a_slow_client_is_not_cut_while_it_takes_bytes_at_the_least_rate(state: State) -> None:
    rig = rig_in(state)
    rig.block()
    assert rig.connection.paused
    least = round(MIN_RATE * STREAM_TIMEOUT)
    for _ in range(3):
        rig.client.waiting -= least
        rig.pass_time(STREAM_TIMEOUT + 0.1)
        assert rig.exchange.state is state
    rig.client.waiting -= least - 1
    rig.pass_time(STREAM_TIMEOUT + 0.1)
    assert rig.exchange.record.problem == "request_timeout"
    rig.check()


def test_a_held_back_401_pauses_the_api_and_its_rest_comes_with_it() -> None:
    rig = rig_in(_REFUSED)
    assert rig.connection.paused
    rig.block()
    rig.unblock()
    assert rig.connection.paused
    rig.give_no_token()
    assert not rig.connection.paused
    rig.read(content=[b"pe"], end=True)
    assert rig.answers() == ([401], b"nope")
    rig.check()


def test_either_half_of_a_tunnel_may_end_first() -> None:
    rig = rig_in(_TUNNEL)
    rig.read(content=[b"from the API"], end=True)
    assert (rig.client.eofs, rig.exchange.state) == (1, _TUNNEL)
    rig.tunnel_data(b"to the API")
    assert rig.connection.sent.endswith(b"to the API")
    rig.tunnel_data(b"", done=True)
    assert rig.is_over
    rig.check()


@pytest.mark.parametrize("state", LIVE)
def test_only_what_was_answered_in_full_keeps_the_client(state: State) -> None:
    rig = rig_in(state)
    rig.exchange.fail(problems.CONNECTION_LOST)
    assert rig.client.over == ([] if state in (_RELAYING, _TUNNEL) else [False])
    assert rig.client.aborts == (1 if state in (_RELAYING, _TUNNEL) else 0)
    rig.check()


def test_an_answer_that_was_dropped_is_not_timed() -> None:
    rig = rig_in(State.UNAUTHORIZED)
    rig.body(b"0123456789", done=True)
    rig.make_idle()
    rig.clock.advance(1)
    rig.give_token("second")
    rig.lose(problems.CONNECTION_LOST)
    assert rig.exchange.record.sent > 0
    assert rig.exchange.record.answered == 0


def test_a_client_that_can_be_written_to_again_moves_no_deadline_of_others() -> None:
    rig = rig_in(State.AWAITING_TOKEN)
    rig.block()
    rig.unblock()
    rig.pass_time(TOKEN_WAIT)
    assert rig.is_over


def test_an_api_is_not_read_from_for_a_client_that_is_blocked_already() -> None:
    rig = rig_in(State.AWAITING_CONNECTION)
    rig.block()
    rig.connect()
    assert rig.connection.paused
    rig.unblock()
    assert not rig.connection.paused


@pytest.mark.parametrize("silent", [True, False])
def test_only_an_api_that_is_silent_brings_its_other_connections_into_doubt(*, silent: bool) -> None:
    rig = rig_in(State.AWAITING_RESPONSE)
    sent = rig.clock.now()
    if silent:
        rig.body(b"0123456789", done=True)
    rig.pass_time(FOREVER)
    assert rig.is_over
    assert rig.pool.distrusted == ([sent] if silent else [])


def test_while_the_api_takes_none_of_a_body_the_clients_time_stands_still() -> None:
    rig = rig_in(State.AWAITING_RESPONSE)
    for _ in range(3):
        rig.pass_time(STREAM_TIMEOUT - 1)
        rig.exchange.upstream_writable()
    assert rig.exchange.state is State.AWAITING_RESPONSE
    rig.pass_time(STREAM_TIMEOUT + 1)
    assert rig.exchange.record.problem == "request_timeout"
