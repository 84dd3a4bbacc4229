"""What `bits-auth-proxy check` says to change."""

import pytest

from bits_auth_proxy.cli import remedies
from bits_auth_proxy.cli.remedies import Remedy
from bits_auth_proxy.settings.fields import fields
from bits_auth_proxy.tls_faults import TlsFault

ALL = [
    *(value for value in vars(remedies).values() if isinstance(value, Remedy)),
    *(each for table in (remedies._BY_KIND, remedies._BY_CODE, remedies._BY_TLS) for each in table.values()),
]


def test_every_remedy_is_a_sentence_and_names_settings_that_exist() -> None:
    names = {field.name for field in fields()}
    assert len(ALL) >= 20
    for remedy in (each.at(variable) for each in ALL for variable in ("BITS_API_URL", "BITS_TOKEN_URL")):
        assert remedy.hint.endswith(".")
        assert set(remedy.settings) <= names


@pytest.mark.parametrize(
    ("kind", "detail", "named"),
    [
        ("refused", "401 invalid_client", "BITS_CLIENT_SECRET"),
        ("refused", "400 invalid_scope", "BITS_SCOPE"),
        ("scope", "", "BITS_SCOPE"),
        ("redirect", "", "sends requests elsewhere"),
        ("timeout", "", "in time"),
        ("disconnected", "", "BITS_UPSTREAM__CLIENT_CERT"),
        ("throttled", "", "Wait"),
        ("proxy", "", "BITS_HTTPS_PROXY"),
        ("refused", "the response is 400 unauthorized_client", "grant"),
        ("refused", "the response is 401 unauthorized_client", "grant"),
        ("refused", "the response is 400 invalid_request", "BITS_TOKEN_URL"),
        ("refused", "the response is 400 unsupported_grant_type", "BITS_TOKEN_URL"),
        ("status", "the response is 403", "forbids"),
        ("status", "the response is 403 access_denied", "forbids"),
        ("status", "the response is 404", "BITS_TOKEN_URL"),
        ("server_error", "the response is 503", "its side"),
        ("dns", "", "host in BITS_TOKEN_URL"),
        ("connect", "", "firewall"),
        ("a kind of a later version", "", "DNS"),
    ],
)
def test_a_failed_token_request(kind: str, detail: str, named: str) -> None:
    assert named in remedies.for_token_request(kind, detail, variable="BITS_TOKEN_URL").hint


@pytest.mark.parametrize(
    ("kind", "detail", "unsaid"),
    [
        ("refused", "the response is 400 unauthorized_client", "BITS_CLIENT"),
        ("refused", "the response is 400 invalid_request", "BITS_CLIENT"),
        ("status", "the response is 403", "not the address"),
        ("status", "the response is 403", "DNS"),
        ("server_error", "the response is 500", "DNS"),
        ("server_error", "the response is 500", "not the address"),
    ],
)
def test_what_is_not_at_fault_is_not_blamed(kind: str, detail: str, unsaid: str) -> None:
    remedy = remedies.for_token_request(kind, detail, variable="BITS_TOKEN_URL")
    assert unsaid not in remedy.hint
    assert not any(name.startswith("client_") for name in remedy.settings)


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("the response is 400", "does not say why"),
        ("the response is 400 something_else", "does not say why"),
        ("the response is 400 invalid_client", "are not a pair"),
        ("the response is 401", "are not a pair"),
        ("the response is 401 something_else", "are not a pair"),
    ],
)
def test_the_pair_is_blamed_alone_only_where_it_must_be_at_fault(detail: str, said: str) -> None:
    hint = remedies.for_token_request("refused", detail, variable="BITS_API_URL").hint
    assert said in hint
    assert ("BITS_UPSTREAM__CLIENT_CERT" in hint) is (said == "does not say why")


@pytest.mark.parametrize(
    ("kind", "detail", "named"),
    [
        ("refused", "the response is 401", "different environments"),
        ("refused", "the response is 400", "/oauth2/userinfo"),
        ("malformed", "the response contains no customerId", "/oauth2/userinfo"),
        ("redirect", "the response is a redirect (302)", "/oauth2/userinfo"),
        ("status", "the response is 404", "/oauth2/userinfo"),
        ("status", "the response is 403", "forbids"),
        ("server_error", "the response is 503", "its side"),
        ("throttled", "", "Wait"),
        ("timeout", "", "in time"),
        ("dns", "", "host in BITS_API_URL"),
        ("connect", "", "firewall"),
        ("disconnected", "", "closes the connection"),
    ],
)
def test_a_failed_userinfo_request(kind: str, detail: str, named: str) -> None:
    hint = remedies.for_userinfo_request(kind, detail).hint
    assert named in hint
    assert "BITS_CLIENT_" not in hint


@pytest.mark.parametrize("variable", ["BITS_API_URL", "BITS_TOKEN_URL"])
@pytest.mark.parametrize("fault", TlsFault)
def test_a_tls_fault_names_the_url_of_the_server(fault: TlsFault, variable: str) -> None:
    for remedy in (
        remedies.for_tls(fault, variable=variable),
        remedies.for_token_request("tls", "", variable=variable, tls_fault=fault),
    ):
        assert variable in remedy.hint
        assert ({"BITS_API_URL", "BITS_TOKEN_URL"} - {variable}).pop() not in remedy.hint
        assert variable.removeprefix("BITS_").lower() in remedy.settings
        assert ("BITS_UPSTREAM__CA_FILE" in remedy.hint) is (fault in (TlsFault.TRUST, TlsFault.FORM))
        assert ("BITS_UPSTREAM__CLIENT_CERT" in remedy.hint) is (
            fault in (TlsFault.CLIENT_CERTIFICATE, TlsFault.HANDSHAKE)
        )
