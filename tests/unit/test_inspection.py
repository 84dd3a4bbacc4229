"""What inspection keeps: never what is to be masked, wherever it stands."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward.inspecting import MAX_COPY, BodyCopy
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.http1.lines import make_field
from bits_auth_proxy.http1.messages import Field, RequestHead, ResponseHead
from bits_auth_proxy.settings.model import KYC_WORDS
from bits_auth_proxy.telemetry.inspection import MAX_DEPTH, MAX_EXCHANGES, MAX_VALUES, Inspection
from bits_auth_proxy.telemetry.journal import exchange_id

CANARY = "Canary-7f3a"


def fields_of(pairs: dict[str, str]) -> list[Field]:
    return [make_field(name.encode(), value.encode()) for name, value in pairs.items()]


class Passed:
    """An exchange that has ended, as inspection sees it."""

    def __init__(
        self,
        body: bytes = b"",
        *,
        target: str = "/v1/applications.create",
        request: dict[str, str] | None = None,
        response: dict[str, str] | None = None,
        pieces: int = 3,
    ) -> None:
        self.target = target.encode()
        self.record = RequestRecord(
            operation="other", method=b"POST", request_id=b"r-1", traceparent=b"", started=12.0
        )
        self.record.ended = 12.5
        self.head = RequestHead(b"POST", self.target, 1, fields_of(request or {}), {})
        self.response = (
            ResponseHead(200, b"OK", 1, fields_of(response or {}), {}) if response is not None else None
        )
        self.request_copy, self.response_copy = BodyCopy(), BodyCopy()
        step = len(body) // pieces + 1
        for start in range(0, len(body), step):
            self.request_copy.add(body[start : start + step])


def kept(passed: Passed, redact: Callable[[str], str] = str, mask: tuple[str, ...] = KYC_WORDS) -> Any:
    inspection = Inspection(mask=mask, redact=redact)
    inspection.keep(passed)  # type: ignore[arg-type]  # it has what is looked at
    found = inspection.find(exchange_id(passed.record.ended))
    assert found is not None
    return found


def body_of(body: bytes, **headers: str) -> str:
    told = kept(Passed(body, request={name.replace("_", "-"): value for name, value in headers.items()}))
    return str(told["request"]["body"])


def test_json_is_shown_with_its_harmless_values() -> None:
    body = b'{"workflowId":"w-1","countryCode":"SE","count":3,"list":[1,{"status":"open"}],"none":null}'
    told = kept(Passed(body, request={"Content-Type": "application/json", "Accept": "*/*"}, response={}))
    assert told["request"]["start"] == "POST /v1/applications.create HTTP/1.1"
    assert told["request"]["fields"] == [["Content-Type", "application/json"], ["Accept", "*/*"]]
    assert json.loads(told["request"]["body"]) == json.loads(body)
    assert told["response"] == {"start": "HTTP/1.1 200 OK", "fields": [], "body": ""}
    assert kept(Passed(b"{}"))["response"] is None


@pytest.mark.parametrize(
    "name",
    [
        "sessionToken",
        "access_token",
        "clientSecret",
        "Password",
        "x-api-key",
        "firstName",
        "personal_number",
        "EMAIL",
        "home-address",
        "documentImage",
        "date.of.birth",
        "selfieVideo",
        "phoneNumber",
        "IBAN",
        "tax",
    ],
)
def test_a_name_hides_all_that_belongs_to_it(name: str) -> None:
    for value in (CANARY, 19900101, {"x": {"y": CANARY}}, [[CANARY]]):
        shown = body_of(json.dumps({"id": 1, "deep": [{name: value}]}).encode())
        assert json.loads(shown) == {"id": 1, "deep": [{name: "[masked]"}]}
    assert CANARY not in str(kept(Passed(request={name: CANARY}, response={name: CANARY})))
    assert CANARY not in str(kept(Passed(target=f"/v1/x?a=1&{name}={CANARY}&b=2")))


def test_credentials_are_masked_whatever_the_settings_say() -> None:
    for name in (
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "X-Auth-Key",
        "sessionToken",
    ):
        assert CANARY not in str(kept(Passed(request={name: CANARY}), mask=()))
    assert "Anna" in str(kept(Passed(b'{"firstName":"Anna"}'), mask=()))


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {CANARY}",
        f"it said bearer  {CANARY}",
        f"Basic {CANARY}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJDYW5hcnktN2YzYSJ9.c2lnbmF0dXJl",
        f"https://acme.example/done?state=1&session%54oken={CANARY}",
        f"https://acme.example/done#access_token={CANARY}",
        "known-to-the-proxy",
    ],
)
def test_what_looks_like_a_credential_is_masked_in_any_value(text: str) -> None:
    def redact(shown: str) -> str:
        return shown.replace("known-to-the-proxy", "[redacted]")

    passed = Passed(
        json.dumps({"note": text, text: 1, "list": [text]}).encode(),
        request={"Referer": text},
        target=f"/v1/x?next={text}",
    )
    shown = json.dumps(kept(passed, redact))
    for canary in (CANARY, "known-to-the-proxy", "eyJhbGci", "c2lnbmF0dXJl"):
        assert canary not in shown


def test_long_texts_are_files_in_disguise() -> None:
    assert json.loads(body_of(json.dumps({"data": "x" * 1025, "note": "y" * 1024}).encode())) == {
        "data": "(1025 characters: not shown)",
        "note": "y" * 1024,
    }


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100, 450, 20_000])
@pytest.mark.parametrize(("begin", "end"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_deep_nesting_costs_little_and_shows_nothing(depth: int, begin: bytes, end: bytes) -> None:
    many = b",".join([b'"%b"' % CANARY.encode()] * 500)
    body = begin * depth + b'{"firstName":[' + many + b"]}" + end * depth
    shown = body_of(body[:MAX_COPY], Content_Type="application/json")
    assert CANARY not in shown
    assert "not shown)" in shown
    assert len(shown) < 2 * MAX_COPY
    assert max(len(line) - len(line.lstrip()) for line in shown.splitlines()) <= 2 * MAX_DEPTH + 2


def test_json_of_very_many_values_is_not_shown() -> None:
    for body in (b"[" + b",".join([b"1"] * 30_000) + b"]", b"[" + b",".join([b"{}"] * 20_000) + b"]"):
        assert body_of(body, Content_Type="application/json").endswith("not shown)")
    body = b"[" + b",".join([b"1"] * (MAX_VALUES - 10)) + b"]"
    assert len(json.loads(body_of(body))) == MAX_VALUES - 10


def test_the_work_is_done_after_the_exchange_or_when_someone_looks() -> None:
    later: list[Callable[[], None]] = []
    redacted: list[str] = []

    def redact(text: str) -> str:
        redacted.append(text)
        return text

    inspection = Inspection(mask=(), redact=redact, call_soon=later.append)
    passed = Passed(b'{"note":"x"}')
    inspection.keep(passed)  # type: ignore[arg-type]  # it has what is looked at
    assert redacted == []
    for call in later:
        call()
    assert redacted != []
    assert inspection.find(exchange_id(passed.record.ended)) is not None


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


@given(
    value=st.recursive(
        st.just({"personal_number": CANARY})
        | st.builds(lambda key: {key: {"x": [CANARY]}}, st.sampled_from(KYC_WORDS)),
        nested,
        max_leaves=10,
    ),
    ascii_only=st.booleans(),
    indent=st.none() | st.just(1),
)
def test_no_nesting_shows_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    shown = body_of(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f"{CANARY}".encode(), "text/plain"),
        (f"firstName={CANARY}".encode(), "application/x-www-form-urlencoded"),
        (f'"{CANARY}"'.encode(), "application/json"),
        (f'{{"firstName":"{CANARY}"'.encode(), "application/json"),
        (f'{{"a":"{CANARY}"}} trailing'.encode(), "application/json"),
        (CANARY.encode() + b"\xff\xfe", "application/json"),
        (b"[" * 60_000 + CANARY.encode(), "application/json"),
        (b'{"id":1}' + b" " * MAX_COPY, "application/json"),
        (f'{{"id":"{CANARY}","more":"{"x" * MAX_COPY}"}}'.encode(), "application/json"),
    ],
)
def test_what_cannot_be_masked_is_told_by_size_and_type(body: bytes, content_type: str) -> None:
    assert body_of(body, Content_Type=f"{content_type}; charset=utf-8") == (
        f"({len(body)} bytes, {content_type}: not shown)"
    )


@pytest.mark.parametrize("size", [MAX_COPY - 1, MAX_COPY, MAX_COPY + 1])
def test_a_body_is_kept_up_to_its_bound(size: int) -> None:
    body = b"[" + b" " * (size - 2) + b"]"
    assert (body_of(body) == "[]") is (size <= MAX_COPY)
    copy = BodyCopy()
    for _ in range(10):
        copy.add(b"x" * MAX_COPY)
    assert sum(map(len, copy._pieces)) == MAX_COPY


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_json_is_masked_as_well(coding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(json.dumps({"id": 1, "firstName": CANARY}).encode())
    assert json.loads(body_of(body, Content_Encoding=coding)) == {"id": 1, "firstName": "[masked]"}
    assert body_of(body[:-3], Content_Encoding=coding).endswith("not shown)")
    assert body_of(b"{}", Content_Encoding=coding).endswith("not shown)")
    bomb = compress(b"[" + b" " * 10_000_000 + b"]")
    assert body_of(bomb, Content_Encoding=coding).endswith("not shown)")
    assert body_of(b"{}", Content_Encoding="br").endswith("not shown)")


def test_only_the_last_are_kept() -> None:
    inspection = Inspection(mask=(), redact=str)
    for number in range(MAX_EXCHANGES + 5):
        passed = Passed()
        passed.record.ended = float(number)
        inspection.keep(passed)  # type: ignore[arg-type]  # it has what is looked at
    found = [inspection.find(exchange_id(float(number))) is not None for number in range(MAX_EXCHANGES + 5)]
    assert found == [False] * 5 + [True] * MAX_EXCHANGES
