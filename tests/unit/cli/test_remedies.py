"""What `bits-auth-proxy check` says to change."""

import pytest

from bits_auth_proxy.cli import remedies
from bits_auth_proxy.cli.remedies import Remedy
from bits_auth_proxy.settings.fields import fields

ALL = {
    *(value for value in vars(remedies).values() if isinstance(value, Remedy)),
    *remedies._BY_KIND.values(),
}


def test_every_remedy_is_a_sentence_and_names_settings_that_exist() -> None:
    names = {field.name for field in fields()}
    assert len(ALL) >= 12
    for remedy in ALL:
        assert remedy.hint.endswith(".")
        assert set(remedy.settings) <= names


@pytest.mark.parametrize(
    ("kind", "detail", "named"),
    [
        ("refused", "401 invalid_client", "BITS_CLIENT_SECRET"),
        ("refused", "400 invalid_scope", "BITS_SCOPE"),
        ("scope", "", "BITS_SCOPE"),
        ("redirect", "", "BITS_TOKEN_URL"),
        ("throttled", "", "Wait"),
        ("proxy", "", "BITS_HTTPS_PROXY"),
        ("tls", "", "BITS_UPSTREAM__CA_FILE"),
        ("a kind of a later version", "", "DNS"),
    ],
)
def test_a_failed_token_request(kind: str, detail: str, named: str) -> None:
    assert named in remedies.for_token_request(kind, detail).hint
