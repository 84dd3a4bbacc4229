"""Who may call what: no spelling of a path gets past the rules that its plain form would meet."""

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import (
    LOOPBACK_HOSTS,
    AccessRules,
    HostRule,
    Pattern,
    SiteRule,
    is_ambiguous,
    split_target,
)
from bits_auth_proxy.forward.headers import REQUEST_FIELDS
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.http1.messages import RequestHead
from bits_auth_proxy.http1.parsing import RequestParser
from tests.support import strategies as make

SAFE = ("*.get", "*.list")


def rules(*allow: str) -> AccessRules:
    return AccessRules(allow=allow, safe_operations=SAFE)


def head_of(method: bytes, target: bytes, *lines: bytes) -> RequestHead:
    raw = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"Host: localhost", *lines)) + b"\r\n\r\n"
    head = RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=65_536, max_fields=100).feed(raw)
    assert head is not None
    return head


def decide(method: bytes, target: bytes, allow: Sequence[str] = ()) -> Problem | None:
    """What becomes of a request target, of whatever form."""
    _, path = split_target(head_of(method, target))
    return rules(*allow).decide(method, path.partition(b"?")[0]).rejection


TOKEN_PATHS = [
    b"/v1/oauth2/token",
    b"/V1/OAUTH2/TOKEN",
    b"/v1/oAuth2/Token",
    b"/v1/oauth2/token/",
    b"/v1/oauth2/token?grant_type=x",
    b"/v1/oauth2/token??",
    b"/v1/oauth2//token",
    b"//v1/oauth2/token",
    b"/v1/%6fauth2/token",
    b"/v1/%6Fauth2/token",
    b"/v1/oauth%32/token",
    b"/v1/%256fauth2/token",
    b"/v1/oauth2%2ftoken",
    b"/v1/oauth2%2Ftoken",
    b"/v1%2foauth2/token",
    b"/v1/oauth2%5ctoken",
    b"/v1/oauth2\\token",
    b"/v1/oauth2%252ftoken",
    b"/v1/./oauth2/token",
    b"/v1/x/../oauth2/token",
    b"/v1/oauth2/x/../token",
    b"/v1/%2e/oauth2/token",
    b"/v1/x/%2e%2e/oauth2/token",
    b"/v1/x/.%2E/oauth2/token",
    b"/v1/oauth2;x/token",
    b"/v1/oauth2;/token",
    b"/v1/oauth2%3b/token",
    b"/v1/oauth2/token;x=1",
    b"/v1/oauth2/token%00",
    b"/v1/oauth2%00/token",
    b"/v1/oauth2%0a/token",
    b"/v1/oauth2%7f/token",
    b"/v1/oauth2%/token",
    b"/v1/oauth2%u002ftoken",
    b"/oauth2/token",
    b"/v2/oauth2/token",
    b"/v1/oauth2/revoke",
    b"/v1/oauth2/oauth2/token",
    b"/oauth2/userinfo/",
    b"/oauth2/UserInfo",
    b"/v1/oauth2/userinfo",
    b"http://localhost/v1/oauth2/token",
    b"HTTP://localhost/v1/OAUTH2/token",
    b"https://api.bits.bi/v1/%6fauth2/token",
    b"http://localhost//v1/oauth2/token",
    # Ends that some file systems ignore.
    b"/v1/oauth2./token",
    b"/v1/OAUTH2.../token",
    b"/v1/oauth2%20/token",
    b"/v1/oauth2.%20./token",
    # Overlong, cut and impossible UTF-8.
    b"/v1/oauth2%c0%aftoken",
    b"/v1/oauth2%C0%AF/token",
    b"/v1/oauth2%e0%80%aftoken",
    b"/v1/oauth2%f0%80%80%aftoken",
    b"/v1/%c1%afauth2/token",
    b"/v1/x/%c0%ae%c0%ae/oauth2/token",
    b"/v1/oauth2%c0%80/token",
    b"/v1/oauth2%ff/token",
    b"/v1/oauth2%c3/token",
    b"/v1/oauth2%ed%a0%80/token",
    # Look-alikes that normalise to the real thing.
    b"/v1/%ef%bd%8fauth2/token",
    b"/v1/oauth%ef%bc%92/token",
    b"/v1/oauth%c2%b2/token",
    b"/v1/oauth2%ef%bc%8ftoken",
    b"/v1/oauth2%ef%bc%bctoken",
    b"/v1/%e2%80%a4%e2%80%a4/oauth2/token",
    b"/v1/oauth2%e2%80%a5/token",
    # What is not seen.
    b"/v1/oauth2%e2%80%8b/token",
    b"/v1/%ef%bb%bfoauth2/token",
    b"/v1/oa%c2%aduth2/token",
    b"/v1/%e2%80%aeoauth2/token",
    b"/v1/oauth2%c2%a0/token",
    b"/v1/oauth2%c2%85/token",
    # Old and odd ways to encode.
    b"/v1/%u006fauth2/token",
    b"/v1/%%36fauth2/token",
    b"/v1/%25%36%66auth2/token",
    b"/v1/oauth2%252e%252e/token",
    b"/v1/oauth2%09/token",
    b"/v1/oauth2%0d%0a/token",
    b"/v1/oauth2/..;/oauth2/token",
    b"/v1/..%2foauth2/token",
    b"/v1/oauth2/%2e/token",
    b"/v1/oauth2/.%00./token",
    b"/v1/oauth2/token%3f",
    b"/v1/oauth2/token%23",
    b"/v1/oauth2/token%2f..",
    b"/v1/oauth2/%74oken",
]


@pytest.mark.parametrize("target", TOKEN_PATHS)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
@pytest.mark.parametrize("allow", [(), ("* /*",), ("POST /v1/*", "GET *")])
def test_no_spelling_of_the_token_endpoint_passes_a_wildcard(
    target: bytes, method: bytes, allow: tuple[str, ...]
) -> None:
    assert decide(method, target, allow) in (problems.NOT_ALLOWED, problems.AMBIGUOUS_PATH)


def as_a_lenient_server_reads(path: bytes) -> bytes:
    """`path` as the most forgiving reader could take it: decoded again and again, then normalised."""
    while (decoded := unquote_to_bytes(path)) != path:
        path = decoded
    out: list[bytes] = []
    for segment in re.split(rb"[/\\]", path.lower()):
        plain = re.sub(rb"[\x00-\x1f\x7f]", b"", segment.partition(b";")[0])
        if plain == b"..":
            out = out[:-1]
        elif plain not in (b"", b"."):
            out.append(plain)
    return b"/" + b"/".join(out)


PIECES = [
    b"/", b"//", b"\\", b"oauth2", b"OAuth2", b"%6fauth2", b"oauth%32", b"oauth", b"2", b"token", b"v1", b"x",
    b".", b"..", b"%2e", b"%2E.", b"%2f", b"%5C", b"%252f", b"%25", b"%", b";", b"%3b", b"%00", b"%0d",
    b"%7F", b"userinfo", b"%20", b"%C3%A9",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=9).map(lambda parts: b"/" + b"".join(parts)))
@example(b"/v1/oauth2/token")
def test_what_any_reader_could_take_for_the_token_endpoint_is_refused(path: bytes) -> None:
    meant = as_a_lenient_server_reads(path)
    refusal = rules("* /*").decide(b"POST", path).rejection
    if re.search(rb"(?:\A|/)oauth2/.", meant):
        assert refusal is not None
    elif refusal is None:
        # What passes means the same to everyone.
        assert as_a_lenient_server_reads(path).rstrip(b"/") == unquote_to_bytes(path).lower().rstrip(b"/")


ANY_ENCODING = AccessRules(allow=["POST /v1/*"], safe_operations=SAFE, encoded_paths=True)
MORE_PIECES = [
    b"%2F", b"%252F", b"%25252e", b"%E9", b"%e2%80%8b", b"%ef%bd%8f", b"%c2%ad", b"%ef%bc%8f", b"%e2%80%a5",
    b"%c0%af", b"%ff", b"%b2", b"caf%E9", b"applications.get", b"%2Eget", b"%3b", b"%5c",
]  # fmt: skip


def as_any_server_reads(path: bytes) -> set[bytes]:
    """`path` as a lenient server reads it, in any encoding, with what is not visible dropped or kept."""
    while (decoded := unquote_to_bytes(path)) != path:
        path = decoded
    texts = {path.decode("utf-8", "ignore"), path.decode("latin-1")}
    texts |= {"".join(each for each in text if each.isprintable()) for text in texts}
    texts |= {unicodedata.normalize("NFKC", text) for text in texts}
    return {as_a_lenient_server_reads(text.encode()) for text in texts}


@settings(max_examples=600)
@given(
    st.lists(st.sampled_from(PIECES + MORE_PIECES), max_size=8).map(lambda parts: b"/v1/" + b"".join(parts))
)
@example(b"/v1/%2e%2e/oauth2/token")
@example(b"/v1/x%2F..%2F..%2Fadmin")
@example(b"/v1/oa%ffuth2%2Ftoken")
def test_with_any_encoding_allowed_no_reading_escapes_the_rules(path: bytes) -> None:
    if ANY_ENCODING.decide(b"POST", path).rejection is None:
        for meant in as_any_server_reads(path):
            assert not re.search(rb"(?:\A|/)oauth2[ .]*/.", meant)
            assert meant == b"/v1" or meant.startswith(b"/v1/")


@pytest.mark.parametrize("target", TOKEN_PATHS)
@pytest.mark.parametrize("allow", [(), ("* /*",), ("POST /v1/*", "GET *")])
def test_with_any_encoding_allowed_no_spelling_of_the_token_endpoint_passes(
    target: bytes, allow: tuple[str, ...]
) -> None:
    its = AccessRules(allow=allow, safe_operations=SAFE, encoded_paths=True)
    for method in (b"GET", b"POST"):
        _, path = split_target(head_of(method, target))
        refusal = its.decide(method, path.partition(b"?")[0]).rejection
        assert refusal in (problems.NOT_ALLOWED, problems.AMBIGUOUS_PATH)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/files/a%2Fb",
        b"/v1/files/a%2fb.pdf",
        b"/v1/files/a%2F",
        b"/v1/caf%E9",
        b"/v1/%E9%E8",
        b"/v1/caf%C3%A9",
        b"/v1/%EF%AC%81nance",
        b"/v1/a%C2%A0b",
        b"/v1/bits%3Aapplication%3A%3A1",
        b"/v1/%7Euser",
        b"/v1/100%25",
        b"/v1/a%5Cb",
        b"/v1/a%3Bb",
        b"/v1/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB",
    ],
)
def test_any_encoding_passes_where_it_is_allowed(path: bytes) -> None:
    for allow in ((), ("POST /v1/*",)):
        its = AccessRules(allow=allow, safe_operations=SAFE, encoded_paths=True)
        assert its.decide(b"POST", path).rejection is None
        assert its.decide(b"POST", path).operation == "other"


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/x/..",
        b"/v1//x",
        b"/v1/x;y",
        b"/v1/x\\y",
        b"/v1/%zz",
        b"/v1/%",
        b"/v1/%u0041",
        b"/v1/%00",
        b"/v1/%250a",
        b"/v1/%7f",
        b"/v1/..%2Fx",
        b"/v1/%2e%2e",
        b"/v1/x%2F%2Fy",
        b"/v1/%2Fx",
        b"/v1/..%3Bx/y",
        b"/v1/%3Bx/y",
        b"/v1/..%5Cx",
        b"/v1/%E2%80%A5/x",
        b"/v1/%ef%bc%852e",
        b"/v1/%c0%ae%c0%ae/x",
        b"/v1/" + b"%25" * 5 + b"2525252541",
    ],
)
def test_what_is_never_allowed(path: bytes) -> None:
    its = AccessRules(allow=(), safe_operations=SAFE, encoded_paths=True)
    assert its.decide(b"GET", path).rejection is problems.AMBIGUOUS_PATH


@pytest.mark.parametrize(
    ("allow", "path", "passes"),
    [
        ("POST /v1/files/*", b"/v1/files/a%2Fb", True),
        ("POST /v1/files/*", b"/v1/files%2Fa", False),
        ("POST /v1/files/a%2Fb", b"/v1/files/a%2Fb", False),
        ("POST /v1/applications.get", b"/v1/applications%2Eget", False),
        ("POST /v1/*.get", b"/v1/x%2Fapplications.get", True),
        ("POST /v1/*.get", b"/v1/applications.create%3B.get", False),
        ("POST /v1/*.get", b"/v1/applications%2Fcreate%5Cx%3B.get", False),
    ],
)
def test_each_reading_of_an_encoded_path_must_be_on_the_list(allow: str, path: bytes, passes: bool) -> None:
    its = AccessRules(allow=(allow,), safe_operations=SAFE, encoded_paths=True)
    assert (its.decide(b"POST", path).rejection is None) is passes


def test_an_encoded_name_is_repeatable_only_if_each_reading_is() -> None:
    its = AccessRules(allow=(), safe_operations=SAFE, encoded_paths=True)
    assert its.decide(b"POST", b"/v1/caf%E9.get").repeatable
    assert not its.decide(b"POST", b"/v1/applications.create%3Bx.get").repeatable
    assert not its.decide(b"POST", b"/v1/applications.get%2Fx").repeatable


TOKEN_URL_PATHS = [
    b"/v1/auth/token",
    b"/v1/auth/token/",
    b"/v1/auth/token/x",
    b"/V1/Auth/TOKEN",
    b"/v1/auth/token.",
    b"/v1/auth%20/token",
    b"/v1./auth../token%20",
]
MORE_TOKEN_URL_PATHS = [
    b"/v1/auth%2Ftoken",
    b"/v1/auth%252Ftoken",
    b"/v1/a%75th/token",
    b"/v1/auth/to%E2%80%8Bken",
    b"/v1/auth/to%ffken",
    b"/v1/auth/%EF%BD%94oken",
    b"/v1/auth%5Ctoken",
    b"/v1/auth%3Bx/token",
]


@pytest.mark.parametrize("path", TOKEN_URL_PATHS + MORE_TOKEN_URL_PATHS)
@pytest.mark.parametrize("allow", [(), ("* *",), ("POST /v1/auth/token",)])
@pytest.mark.parametrize("encoded_paths", [False, True])
def test_the_token_url_is_refused_whatever_its_path_and_the_rules(
    path: bytes, allow: tuple[str, ...], encoded_paths: bool
) -> None:
    its = AccessRules(
        allow=allow, safe_operations=SAFE, token_path="/v1/auth/token", encoded_paths=encoded_paths
    )
    for method in (b"GET", b"POST"):
        refusal = its.decide(method, path).rejection
        if encoded_paths or path in TOKEN_URL_PATHS:
            assert refusal is problems.NOT_ALLOWED
        else:
            assert refusal is problems.AMBIGUOUS_PATH


@pytest.mark.parametrize("path", [b"/v1/auth/tokens", b"/v1/auth", b"/x/v1/auth/token", b"/v1/authtoken"])
def test_other_paths_than_the_token_urls_pass(path: bytes) -> None:
    for token_path in ("/v1/auth/token", "/V1/%61uth/token/"):
        its = AccessRules(allow=(), safe_operations=SAFE, token_path=token_path)
        assert its.decide(b"POST", path).rejection is None
        assert its.decide(b"POST", b"/v1/auth/token").rejection is problems.NOT_ALLOWED


def test_a_token_url_without_a_path_takes_the_root_alone() -> None:
    its = AccessRules(allow=(), safe_operations=SAFE, token_path="/")
    assert its.decide(b"POST", b"/").rejection is problems.NOT_ALLOWED
    assert its.decide(b"POST", b"/v1/x").rejection is None


@pytest.mark.parametrize(
    ("allow", "passes"),
    [((), True), (("OPTIONS *",), True), (("* *",), True), (("* /*",), False), (("GET *",), False)],
)
def test_the_asterisk_meets_the_allow_list(allow: tuple[str, ...], passes: bool) -> None:
    assert (rules(*allow).decide(b"OPTIONS", b"*").rejection is None) is passes


@given(
    st.lists(st.sampled_from(["a", "b", ".", "*", "**"]), max_size=7).map("".join),
    st.lists(st.sampled_from([b"a", b"b", b".", b"ab"]), max_size=8).map(b"".join),
)
def test_a_pattern_matches_as_a_regular_expression_would(pattern: str, text: bytes) -> None:
    expression = b".*".join(re.escape(part.encode()) for part in pattern.split("*"))
    assert Pattern(pattern).matches(text) == bool(re.fullmatch(expression, text, re.DOTALL))


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    # A search that goes back would take longer than a life.
    its = rules("POST " + "*." * 50 + "get")
    assert its.decide(b"POST", b"/" + b"a." * 4000 + b"x").rejection is problems.NOT_ALLOWED
    assert its.decide(b"POST", b"/" + b"a." * 4000 + b"get").rejection is None
    assert rules("POST *.*.*.get").decide(b"POST", b"/" + b"." * 8000).rejection is problems.NOT_ALLOWED


@pytest.mark.parametrize(
    "path",
    [b"/v1/oauth2", b"/v1/oauth2/", b"/v1/oauth2.x", b"/v1/myoauth2/x", b"/v1/oauth22/x", b"/v1/oauth2.x/y"],
)
def test_only_what_lies_behind_the_segment_is_sensitive(path: bytes) -> None:
    assert decide(b"POST", path) is None


def test_the_owner_can_be_asked_for_but_only_that_way() -> None:
    assert decide(b"GET", b"/oauth2/userinfo") is None
    assert decide(b"GET", b"/oauth2/userinfo?x=1") is None
    assert decide(b"POST", b"/oauth2/userinfo") is problems.NOT_ALLOWED
    assert decide(b"HEAD", b"/oauth2/userinfo") is problems.NOT_ALLOWED


def test_the_token_endpoint_opens_to_a_rule_with_its_name_and_to_no_other_spelling() -> None:
    allow = ("POST /v1/oauth2/token",)
    assert decide(b"POST", b"/v1/oauth2/token", allow) is None
    assert decide(b"GET", b"/v1/oauth2/token", allow) is problems.NOT_ALLOWED
    assert decide(b"POST", b"/v1/oauth2/revoke", allow) is problems.NOT_ALLOWED
    assert decide(b"POST", b"/v1/OAuth2/token", allow) is problems.NOT_ALLOWED
    assert decide(b"POST", b"/v1/%6fauth2/token", allow) is problems.AMBIGUOUS_PATH


@pytest.mark.parametrize(
    ("allow", "method", "path", "passes"),
    [
        ("POST /v1/applications.*", b"POST", b"/v1/applications.get", True),
        ("POST /v1/applications.*", b"POST", b"/v1/applications.organization.get", True),
        ("POST /v1/applications.*", b"GET", b"/v1/applications.get", False),
        ("POST /v1/applications.*", b"POST", b"/v1/applicationsXget", False),
        ("POST /v1/applications.*", b"POST", b"/v1/Applications.get", False),
        ("POST /v1/applications.get", b"POST", b"/v1/applications.get/", False),
        ("POST /v1/applications.get", b"POST", b"/x/v1/applications.get", False),
        ("* /v1/*", b"DELETE", b"/v1/a/b", True),
        ("GET *.list", b"GET", b"/v1/flows.list", True),
        ("GET /v1/(a|b)", b"GET", b"/v1/a", False),
        ("GET /v1/[a]", b"GET", b"/v1/a", False),
    ],
)
def test_the_allow_list_matches_whole_paths_and_only_the_star_is_special(
    allow: str, method: bytes, path: bytes, passes: bool
) -> None:
    assert decide(method, path, (allow,)) is (None if passes else problems.NOT_ALLOWED)


@given(make.targets)
def test_paths_without_tricks_pass(path: bytes) -> None:
    tricky = b"//" in path or any(segment in (b".", b"..") for segment in path.split(b"/")) or b";" in path
    assert is_ambiguous(path) == tricky


@given(st.integers(0, 255), st.booleans())
def test_encoding_is_accepted_only_where_it_is_needed(byte: int, upper: bool) -> None:
    code = b"%%%02X" % byte if upper else b"%%%02x" % byte
    plain = bytes([byte])
    needless = plain.isalnum() or plain in b"-._~/\\%;" or byte < 0x20 or byte == 0x7F
    # Alone, a byte above is no UTF-8.
    assert is_ambiguous(b"/v1/a" + code) == (needless or byte > 0x7F)


@pytest.mark.parametrize("text", ["é", "e\u0301", "日本", "ß", "😀", "a b", "Ωmega", "\u2044"])
def test_text_of_any_language_may_be_encoded(text: str) -> None:
    assert not is_ambiguous(b"/v1/" + quote(text).encode())


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3))
def test_what_normalises_to_other_ascii_is_ambiguous(text: str) -> None:
    ascii_before = [each for each in text if each.isascii()]
    apart = "".join(unicodedata.normalize("NFKC", each) for each in text)
    if [each for each in apart if each.isascii()] != ascii_before:
        assert is_ambiguous(b"/v1/" + quote(text).encode())


@pytest.mark.parametrize("path", [b"", b"v1/x", b"/%", b"/%4", b"/%zz", b"/a%2"])
def test_broken_paths_are_ambiguous(path: bytes) -> None:
    assert is_ambiguous(path)


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE"])
@pytest.mark.parametrize("path", [b"/", b"*", b"api.bits.bi:443"])
def test_connect_and_trace_go_nowhere(method: bytes, path: bytes) -> None:
    assert rules("* /*").decide(method, path).rejection is problems.METHOD_NOT_ALLOWED


def test_the_asterisk_is_for_options() -> None:
    assert rules().decide(b"OPTIONS", b"*").rejection is None
    assert rules().decide(b"GET", b"*").rejection is problems.BAD_TARGET


@pytest.mark.parametrize(
    ("method", "path", "operation", "repeatable"),
    [
        (b"POST", b"/v1/applications.create", "applications.create", False),
        (b"POST", b"/v1/applications.get", "applications.get", True),
        (b"POST", b"/v1/applications.organization.get", "applications.organization.get", True),
        (b"POST", b"/applications.list", "applications.list", True),
        (b"POST", b"/v1/applications.get/", "other", False),
        (b"POST", b"/v1/applications.getx", "applications.getx", False),
        (b"PATCH", b"/v1/x", "x", False),
        (b"PUT", b"/v1/x", "x", True),
        (b"DELETE", b"/v1/x", "x", True),
        (b"GET", b"/", "other", True),
        (b"POST", b"/v1/9", "other", False),
        (b"POST", b"/v1/a%20b.get", "other", True),
    ],
)
def test_operation_and_repeatability(method: bytes, path: bytes, operation: str, repeatable: bool) -> None:
    decision = rules().decide(method, path)
    assert (decision.rejection, decision.operation, decision.repeatable) == (None, operation, repeatable)


def test_decisions_are_remembered_a_bounded_number_of_them_and_by_method() -> None:
    its = rules("GET /v1/*")
    first = its.decide(b"GET", b"/v1/x")
    assert its.decide(b"GET", b"/v1/x") is first
    assert its.decide(b"POST", b"/v1/x").rejection is problems.NOT_ALLOWED
    for i in range(5000):
        its.decide(b"GET", b"/v1/%d" % i)
    assert len(its._cache) <= 1024
    assert its.decide(b"GET", b"/v1/x").rejection is None
    assert its.decide(b"POST", b"/v1/x").rejection is problems.NOT_ALLOWED


@pytest.mark.parametrize(
    ("method", "target", "authority", "path"),
    [
        (b"GET", b"/v1/x?y=/", None, b"/v1/x?y=/"),
        (b"GET", b"http://localhost:8080/v1/x?y", b"localhost:8080", b"/v1/x?y"),
        (b"GET", b"HTTPS://Api.bits.bi", b"Api.bits.bi", b"/"),
        (b"GET", b"http://localhost?y=http://b/", b"localhost", b"/?y=http://b/"),
        (b"OPTIONS", b"http://localhost", b"localhost", b"*"),
        (b"OPTIONS", b"*", None, b"*"),
        (b"CONNECT", b"a:443", None, b"a:443"),
    ],
)
def test_targets_are_split(method: bytes, target: bytes, authority: bytes | None, path: bytes) -> None:
    assert split_target(RequestHead(method, target, 1, [], {})) == (authority, path)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/x#y",
        b"http://localhost/#y",
        b"ftp://localhost/",
        b"ws://localhost/",
        b"localhost:8080",
        b"v1/x",
        b"",
        b"http:///v1/x",
        b"http://",
        b"http://localhost@evil.example/",
        b"http://user:password@localhost/",
        b"http:/v1/x",
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(ValueError, match="request target"):
        split_target(RequestHead(b"GET", target, 1, [], {}))


LOOPBACK = [name.decode() for name in LOOPBACK_HOSTS]


def test_on_loopback_only_loopback_names_are_served_whatever_the_port() -> None:
    rule = HostRule(allowed=LOOPBACK, upstream=b"api.bits.bi")
    for host in (
        b"localhost",
        b"LOCALHOST:8080",
        b"localhost:",
        b"127.0.0.1:1",
        b"[::1]",
        b"[::1]:8080",
        None,
    ):
        assert rule.accepts(host)
    for host in (
        b"evil.example",
        b"localhost.evil.example",
        b"evil.example:8080",
        b"localhost::",
        b"api.bits.bi",
        b"localhost:8080:1",
        b"localhost..",
        b"[1.2.3.4]",
        b"[::1.]:80",
        b"",
    ):
        assert not rule.accepts(host)


def test_an_accepted_host_does_not_open_the_door_to_the_next() -> None:
    rule = HostRule(allowed=["app:8080"], upstream=b"api.bits.bi")
    assert rule.accepts(b"app:8080")
    assert not rule.accepts(b"app:9090")
    assert not rule.accepts(b"app")
    assert rule.accepts(b"APP:8080")


def test_without_a_list_any_host_is_served_and_any_authority() -> None:
    rule = HostRule(allowed=None, upstream=b"API.bits.bi")
    assert rule.accepts(b"anything:1")
    assert rule.accepts_authority(b"api.BITS.bi")
    assert rule.accepts_authority(b"anything:1")


@pytest.mark.parametrize(
    ("upstream", "target", "passes"),
    [
        (b"api.bits.bi", b"http://api.bits.bi/x", True),
        (b"api.bits.bi", b"http://API.bits.bi.:80/x", True),
        (b"api.bits.bi", b"https://api.bits.bi:443/x", True),
        (b"api.bits.bi:443", b"http://api.bits.bi/x", True),
        (b"api.bits.bi:8443", b"http://api.bits.bi:8443/x", True),
        (b"[2001:db8::1]:8443", b"http://[2001:DB8:0::1]:8443/x", True),
        (b"api.bits.bi", b"http://api.bits.bi:8080/x", False),
        (b"api.bits.bi", b"http://api.bits.bi.evil.example/x", False),
        (b"api.bits.bi", b"http://bits.bi/x", False),
    ],
)
def test_the_apis_own_authority_passes_in_any_spelling(upstream: bytes, target: bytes, passes: bool) -> None:
    rule = HostRule(allowed=["app"], upstream=upstream)
    authority, _ = split_target(RequestHead(b"GET", target, 1, [], {}))
    assert authority is not None
    assert rule.accepts_authority(authority) is passes


def test_with_a_list_the_authority_meets_it_or_is_the_apis() -> None:
    rule = HostRule(allowed=["app"], upstream=b"api.bits.bi")
    assert rule.accepts_authority(b"app:8080")
    assert rule.accepts_authority(b"api.bits.bi")
    assert not rule.accepts_authority(b"evil.example")
    assert not rule.accepts(b"api.bits.bi")


def test_the_decision_cache_covers_neither_host_nor_origin() -> None:
    its = rules()
    assert its.decide(b"GET", b"/v1/x").rejection is None
    host = HostRule(allowed=LOOPBACK, upstream=b"api.bits.bi")
    site = SiteRule(allowed_origins=())
    for _ in range(2):
        assert host.accepts(b"localhost")
        assert not host.accepts(b"evil.example")
        assert site.accepts(head_of(b"GET", b"/v1/x"))
        assert not site.accepts(head_of(b"GET", b"/v1/x", b"Origin: https://evil.example"))
        assert its.decide(b"GET", b"/v1/x").rejection is None


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        ((), True),
        ((b"Sec-Fetch-Site: none",), True),
        ((b"Sec-Fetch-Site: same-origin",), True),
        ((b"Sec-Fetch-Site: Cross-Site",), False),
        ((b"Sec-Fetch-Site: same-site",), False),
        ((b"Origin: null",), False),
        ((b"Origin:",), False),
        ((b"Origin: http://localhost:8080",), False),
        ((b"Origin: https://evil.example", b"Sec-Fetch-Site: none"), False),
        ((b"Origin: https://app.example", b"Sec-Fetch-Site: cross-site"), True),
        ((b"Origin: HTTPS://App.example:443",), True),
        ((b"Origin: https://app.example:8443",), False),
        ((b"Origin: http://app.example",), False),
        ((b"Origin: https://app.example.evil.example",), False),
        ((b"Origin: https://app.example, https://evil.example",), False),
    ],
)
def test_pages_of_other_sites_get_nothing(lines: tuple[bytes, ...], passes: bool) -> None:
    rule = SiteRule(allowed_origins=["https://app.example"])
    assert rule.accepts(head_of(b"GET", b"/", *lines)) == passes
