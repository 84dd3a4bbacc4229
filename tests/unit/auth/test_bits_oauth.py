import base64
import contextlib
import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.auth.bits_oauth import (
    ClientCredentials,
    EndpointAnswer,
    TokenGrant,
    TokenRequestError,
    parse_retry_after,
    parse_token_answer,
    parse_userinfo_answer,
    token_request_body,
)

WALL = 1_700_000_000.0
GOOD: dict[str, Any] = {"type": "Bearer", "access_token": "abc", "expires_in": 3600, "scope": "application"}

SENSELESS: tuple[object, ...] = (0, -1, 0.99, "soon", "", True, [], {}, "nan", "inf", -(10**400))
MONTH = 30 * 24 * 3600.0


def parse(members: object, *, scope: str | None = None, status: int = 200, **fields: str) -> TokenGrant:
    content = members if isinstance(members, bytes) else json.dumps(members).encode()
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return parse_token_answer(EndpointAnswer(status, named, content), asked_scope=scope, wall=WALL)


def failure(
    members: object, *, scope: str | None = None, status: int = 200, **fields: str
) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        parse(members, scope=scope, status=status, **fields)
    return caught.value


def is_plain(text: str) -> bool:
    """Return whether any stream can show the text, on one line."""
    return bool(text) and text.isascii() and text.isprintable()


def without(name: str, **more: Any) -> dict[str, Any]:
    return {**{key: value for key, value in GOOD.items() if key != name}, **more}


@pytest.mark.parametrize("secret", ["s", "a:b", "/+%&= ", "ünïcödé-ß", "x" * 500, '"quoted"\\'])
def test_the_basic_pair_is_raw(secret: str) -> None:
    credentials = ClientCredentials("bits:client::1", secret)
    scheme, _, encoded = credentials.authorization.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded) == f"bits:client::1:{secret}".encode()
    assert secret not in repr(credentials) or secret == "s"
    assert encoded not in repr(credentials)


def test_the_form_asks_for_the_one_grant_and_the_scope_if_there_is_one() -> None:
    assert token_request_body(None) == b"grant_type=client_credentials"
    assert token_request_body("application.read") == b"grant_type=client_credentials&scope=application.read"
    assert token_request_body("a b&c") == b"grant_type=client_credentials&scope=a+b%26c"


def test_the_documented_answer() -> None:
    grant = parse(GOOD, date="Tue, 14 Nov 2023 22:13:20 GMT")
    assert grant == ("abc", 3600.0, False, "application", WALL)
    assert "abc" not in repr(grant)


@pytest.mark.parametrize(
    "members",
    [
        without("type", token_type="bearer"),
        without("type", token_type="BEARER"),
        without("type", type="bearer"),
        without("type", type="MAC", token_type="Bearer"),
        without("type", type="Bearer", token_type=None),
        without("type", type=None, token_type="Bearer"),
        without("type", type="Bearer "),
        without("type", token_type=" bearer\t"),
    ],
)
def test_the_type_is_bearer_under_either_name_in_any_case_with_space_around(members: dict[str, Any]) -> None:
    assert parse(members).value == "abc"


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [(1, 1.0), ("3600", 3600.0), (" 60 ", 60.0), (1.5, 1.5), (2_592_000, MONTH)],
)
def test_sensible_lifetimes(expires_in: object, lifetime: float) -> None:
    assert parse({**GOOD, "expires_in": expires_in}).lifetime == lifetime


@pytest.mark.parametrize("expires_in", [MONTH + 1, 31_536_000, "31622401", 1e12, 10**400])
def test_a_lifetime_beyond_thirty_days_is_cut(expires_in: object) -> None:
    grant = parse({**GOOD, "expires_in": expires_in})
    assert (grant.lifetime, grant.lifetime_assumed) == (MONTH, False)


@pytest.mark.parametrize("members", [without("expires_in"), {**GOOD, "expires_in": None}])
def test_a_lifetime_that_is_not_told_is_assumed(members: dict[str, Any]) -> None:
    grant = parse(members)
    assert (grant.lifetime, grant.lifetime_assumed) == (3600.0, True)


@pytest.mark.parametrize(
    ("members", "said"),
    [({**GOOD, "expires_in": value}, "expires_in") for value in SENSELESS]
    + [
        (without("access_token"), "access_token"),
        ({**GOOD, "access_token": ""}, "access_token"),
        ({**GOOD, "access_token": 7}, "access_token"),
        ({**GOOD, "access_token": "a\r\nX: y"}, "access_token"),
        ({**GOOD, "access_token": "tök"}, "access_token"),
        ({**GOOD, "access_token": "a b"}, "access_token"),
        (without("type"), "type"),
        ({**GOOD, "type": "mac"}, "type"),
        ({**GOOD, "type": 1}, "type"),
        ({**GOOD, "type": " "}, "type"),
        ({**GOOD, "token_type": "mac"}, "type"),
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<html>hello</html>", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'"abc"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"access_token": "secret-in-broken-json', "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 60_000, "not a JSON object"),
    ],
)
def test_malformed_answers_say_what_is_wrong_and_show_nothing(members: object, said: str) -> None:
    error = failure(members)
    assert error.kind == "malformed"
    assert said in error.detail
    assert error.denied is False
    for shown in (str(error), repr(error.__cause__), repr(error.__context__)):
        assert "secret-in-broken-json" not in shown
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 226, 299])
def test_every_success_with_a_token_is_an_answer(status: int) -> None:
    assert parse(GOOD, status=status).value == "abc"


@pytest.mark.parametrize(
    ("status", "members", "kind", "said"),
    [
        (201, {"error": "invalid_client"}, "refused", "status 201 but contains the error invalid_client"),
        (202, b"<html>", "status", "the response is 202"),
        (206, {**GOOD, "access_token": ""}, "malformed", "access_token"),
        (400, GOOD, "refused", "the response is 400"),
        (400, {"error": "unsupported_grant_type"}, "refused", "the response is 400 unsupported_grant_type"),
        (401, {"error": "invalid_client"}, "refused", "the response is 401 invalid_client"),
        (401, b"", "refused", "the response is 401"),
        (400, {"error": "<script>alert(1)</script>"}, "refused", "the response is 400"),
        (400, {"error": "echo of s3cr3t"}, "refused", "the response is 400"),
        (
            200,
            {"error": "invalid_client"},
            "refused",
            "the response has status 200 but contains the error invalid_client",
        ),
        (
            200,
            {"error": {"code": 1}},
            "refused",
            "the response has status 200 but contains the error (unreadable)",
        ),
        (
            200,
            {"error": "temporarily_unavailable"},
            "server_error",
            "contains the error temporarily_unavailable",
        ),
        (403, b"", "status", "the response is 403"),
        (404, b"<html>", "status", "the response is 404"),
        (204, b"", "status", "the response is 204"),
        (
            400,
            b"<html><center>No required SSL certificate was sent</center><center>nginx</center></html>",
            "tls",
            "requires a client certificate",
        ),
        (400, b"<html><center>The SSL certificate error</center></html>", "tls", "or another one"),
        (403, b"No required SSL certificate was sent", "status", "the response is 403"),
        (429, b"", "throttled", "429"),
        (500, b"", "server_error", "the response is 500"),
        (503, b"", "server_error", "the response is 503"),
    ],
)
def test_failures_by_kind(status: int, members: object, kind: str, said: str) -> None:
    error = failure(members, status=status)
    assert error.kind == kind
    assert said in error.detail
    assert "s3cr3t" not in str(error)
    assert "script" not in str(error)
    assert error.denied is (kind == "refused")


@pytest.mark.parametrize(("status", "kind"), [(429, "throttled"), (503, "server_error"), (401, "refused")])
def test_retry_after_is_taken_along(status: int, kind: str) -> None:
    error = failure(b"", status=status, retry_after="120")
    assert (error.kind, error.retry_after) == (kind, 120.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        (formatdate(WALL + 90, usegmt=True), 90.0),
        (formatdate(WALL - 90, usegmt=True), 0.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
        (None, None),
        ("٣", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, wall=WALL) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_raises(value: str) -> None:
    seconds = parse_retry_after(value, wall=WALL)
    assert seconds is None or seconds >= 0


@given(st.binary(max_size=200), st.integers(100, 599))
def test_no_answer_raises_anything_but_a_token_request_error(content: bytes, status: int) -> None:
    grant = None
    with contextlib.suppress(TokenRequestError):
        grant = parse_token_answer(EndpointAnswer(status, {}, content), asked_scope=None, wall=WALL)
    assert grant is None or grant.lifetime > 0


@pytest.mark.parametrize(
    ("asked", "granted", "fits"),
    [
        (None, "application", True),
        ("application", "application", True),
        ("application", "application application.read", True),
        ("application application.read", "application.read application", True),
        ("application", "application.read", False),
        ("a b", "a", False),
    ],
)
def test_a_granted_scope_that_lacks_what_was_asked_names_both(
    asked: str | None, granted: str, fits: bool
) -> None:
    if fits:
        assert parse({**GOOD, "scope": granted}, scope=asked).scope == granted
        return
    error = failure({**GOOD, "scope": granted}, scope=asked)
    assert error.kind == "scope"
    assert error.denied
    assert repr(asked) in error.detail
    assert repr(granted) in error.detail


@pytest.mark.parametrize(
    "granted", [7, True, {}, {"a": 1}, [], [7], [None], "", " ", "é", "\ud83d", "\x00", ["é"]]
)
def test_an_unasked_scope_of_any_form_harms_no_answer(granted: object) -> None:
    grant = parse({**GOOD, "scope": granted})
    assert grant.value == "abc"
    assert grant.scope is None or is_plain(grant.scope)


@pytest.mark.parametrize(
    ("granted", "kept"),
    [
        ("application", "application"),
        (["application", "application.read"], "application application.read"),
        (["application", 7, None], "application"),
        ("a\ud83db", "a?b"),
        ("application ü\n", "application ?"),
        (7, None),
        ({"application": True}, None),
        ([], None),
    ],
)
def test_the_scope_that_is_kept_is_plain_text(granted: object, kept: str | None) -> None:
    assert parse({**GOOD, "scope": granted}).scope == kept


@pytest.mark.parametrize(
    "granted", ["application \ud83d", ["application", "x"], ["application x"], ["x", "application", 7]]
)
def test_an_asked_scope_is_found_in_whatever_lists_it(granted: object) -> None:
    assert parse({**GOOD, "scope": granted}, scope="application").value == "abc"


@pytest.mark.parametrize(
    "granted", [[], ["other"], "\ud83d", "application\ud83d", [["application"]], {"application": 1}, 7]
)
def test_an_asked_scope_that_is_not_there_is_missed(granted: object) -> None:
    error = failure({**GOOD, "scope": granted}, scope="application")
    assert error.kind == "scope"
    assert is_plain(error.detail)


SLOPPY: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(
        ["Bearer", "bearer ", "application", "3600", "abc", "\ud83d", 3600, 10**400, float("inf")]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    members=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("type", "token_type", "access_token", "expires_in", "scope", "error", "other"), SLOPPY
        ),
    ),
    good=st.booleans(),
    status=st.sampled_from([200, 201, 204, 299, 400, 401, 403, 500]),
    asked=st.sampled_from([None, "application", "a b"]),
)
def test_a_sloppy_answer_is_a_token_or_a_plain_error(
    members: dict[str, Any], good: bool, status: int, asked: str | None
) -> None:
    content = json.dumps({**(GOOD if good else {}), **members}).encode()
    grant, detail = None, "a token"
    try:
        grant = parse_token_answer(EndpointAnswer(status, {}, content), asked_scope=asked, wall=WALL)
    except TokenRequestError as error:
        detail = error.detail
    assert is_plain(detail)
    if grant is not None:
        assert 1 <= grant.lifetime <= MONTH
        assert is_plain(grant.value)
        assert grant.scope is None or is_plain(grant.scope)


@given(SLOPPY)
def test_nothing_in_an_unasked_scope_costs_the_token(granted: Any) -> None:
    assert parse({**GOOD, "scope": granted}).value == "abc"


def test_a_scope_left_out_is_the_one_that_was_asked_for() -> None:
    assert parse(without("scope"), scope="application.read").scope == "application.read"


def test_userinfo() -> None:
    customer = "bits:customer::e0d429f2-635b-418c-8b74-4a554f82c0bc"
    content = json.dumps({"customerId": customer}).encode()
    assert parse_userinfo_answer(EndpointAnswer(200, {}, content), wall=WALL) == customer
    for content in (b"{}", b'{"customerId": 7}', b'{"customerId": "a\\nb"}', b"<html>"):
        with pytest.raises(TokenRequestError, match="response"):
            parse_userinfo_answer(EndpointAnswer(200, {}, content), wall=WALL)
