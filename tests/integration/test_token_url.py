"""The token endpoint is never forwarded, wherever `BITS_TOKEN_URL` puts it."""

import json

import pytest

from bits_auth_proxy.assembly import access_rules
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.settings.loading import load
from tests.support.bench import set_up
from tests.support.commands import proxy_env


def decide(path: bytes, **env: str) -> Problem | None:
    settings = load(
        environ=proxy_env("https://api.bits.bi", **env), env_file=None, credentials_required=True
    ).settings
    return access_rules(settings).decide(b"POST", path).rejection


@pytest.mark.parametrize(
    "url",
    [
        "https://api.bits.bi/v1/auth/token",
        "https://API.bits.bi:443/v1/auth/token",
        "https://api.bits.bi./V1/auth/token/",
        "https://api.bits.bi/v1/%61uth/token?audience=x",
        "https://api.bits.bi:8443/v1/auth/token",
    ],
)
def test_at_the_api_its_path_is_refused(url: str) -> None:
    for allow in ("", "POST /v1/auth/token, * *"):
        for path in (b"/v1/auth/token", b"/v1/AUTH/token/", b"/v1/auth/token%20"):
            assert decide(path, BITS_TOKEN_URL=url, BITS_ALLOW=allow) is problems.NOT_ALLOWED
        assert decide(b"/v1/auth/x", BITS_TOKEN_URL=url, BITS_ALLOW=allow) is None


def test_elsewhere_its_path_means_nothing_at_the_api() -> None:
    assert decide(b"/v1/auth/token", BITS_TOKEN_URL="https://login.example/v1/auth/token") is None


def test_the_default_one_is_refused_even_to_a_rule_that_names_it() -> None:
    assert decide(b"/v1/oauth2/token", BITS_ALLOW="POST /v1/oauth2/token") is problems.NOT_ALLOWED
    # Others there are open to a rule that names them.
    assert decide(b"/v1/oauth2/revoke", BITS_ALLOW="POST /v1/oauth2/revoke") is None


async def test_nothing_of_such_a_request_reaches_the_api() -> None:
    async with set_up() as bench, bench.connect() as client:
        await client.send(b"POST /v1/oauth2/TOKEN/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (403, "denied")
        assert bench.upstream.requests == []
