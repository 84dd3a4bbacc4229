"""The token as a value: its life span, and that it shows itself to nobody."""

import copy
import hashlib
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.auth.tokens import AccessToken, TokenState, TokenUnavailable

SECRET = "eyJhbGciOi.top~secret-value_1"


def token(value: str = SECRET, *, lifetime: float = 3600.0, margin: float = 0.0) -> AccessToken:
    return AccessToken(
        value, issued_at=100.0, issued_wall=1_700_000_000.0, lifetime=lifetime, margin=margin, scope="a"
    )


def test_it_comes_with_its_header_line() -> None:
    assert token().header_line == b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
    assert token().reveal() == SECRET


@given(st.floats(0, 1e9), st.floats(1, 1e6), st.floats(0, 30))
def test_it_ends_its_lifetime_after_it_was_asked_for_less_the_margin(
    issued: float, lifetime: float, margin: float
) -> None:
    its = AccessToken("t", issued_at=issued, issued_wall=0.0, lifetime=lifetime, margin=margin)
    assert its.expires_at == issued + lifetime - margin
    assert (its.issued_at, its.lifetime) == (issued, lifetime)


def test_the_fingerprint_tells_tokens_apart_without_showing_them() -> None:
    assert token().fingerprint == hashlib.sha256(SECRET.encode()).hexdigest()[:8]
    assert token().fingerprint == token().fingerprint != token("other").fingerprint


def test_no_rendering_shows_the_token() -> None:
    its = token()
    shown = [
        repr(its),
        str(its),
        f"{its}",
        f"{its!s:>80}",
        "{} {!r}".format(its, its),  # noqa: UP032 - the old way must be safe, too
        repr([its]),
        repr({"t": its}),
    ]
    for text in shown:
        assert SECRET not in text
        assert its.fingerprint in text


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_neither_pickled_nor_copied(write: object) -> None:
    assert callable(write)
    with pytest.raises(TypeError, match="can't be pickled") as caught:
        write(token())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_it_is_not_written_as_json_and_has_no_dict() -> None:
    with pytest.raises(TypeError) as caught:
        json.dumps(token())
    assert SECRET not in str(caught.value)
    assert not hasattr(token(), "__dict__")


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=50))
def test_any_visible_ascii_is_a_token(value: str) -> None:
    assert token(value).header_line == b"Authorization: Bearer %b\r\n" % value.encode()


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=5),
    st.characters().filter(lambda character: not "!" <= character <= "~"),
    st.text(max_size=5),
)
def test_nothing_else_gets_into_a_header_field(before: str, bad: str, after: str) -> None:
    with pytest.raises(ValueError, match="not allowed in a header field"):
        token(before + bad + after)


@pytest.mark.parametrize("value", ["", SECRET + "\r\nX-Evil: 1", SECRET + "\n", SECRET + " ", SECRET + "é"])
def test_the_error_does_not_show_what_was_refused(value: str) -> None:
    with pytest.raises(ValueError, match="characters") as caught:
        token(value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_states_are_those_of_the_metric() -> None:
    assert [state.value for state in TokenState] == ["absent", "fresh", "stale", "suspect", "expired"]


def test_why_there_is_none() -> None:
    reason = TokenUnavailable("the endpoint is down", retry_after=2.5)
    assert (reason.detail, reason.retry_after, reason.permanent) == ("the endpoint is down", 2.5, False)
    assert TokenUnavailable("refused", retry_after=60, permanent=True).permanent
