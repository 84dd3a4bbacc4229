"""The token's life with authorization servers that know nothing of this project: oidc-provider and Authlib.

Bits documents Basic authentication with the pair as it is, RFC 6749 section 2.3.1 wants it form-encoded.
oidc-provider form-decodes it, so it has a pair that looks the same both ways; Authlib decodes percent escapes
and nothing else, so a pair of odd characters without such an escape arrives as it is.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.oauth_servers.servers import HERE, LIFETIME, OAuthServer, proxied, serving
from tests.support.commands import NODE

PLAIN = ("bits-client.3f1c", "canary-secret_9d2f7c")
ODD = ("bits/client+é%=1", "canary:secret/+% ü=&?ß")
NEW_SECRET = "canary-rotated_51c8"


@pytest.fixture(params=["oidc-provider", "authlib", "authlib, odd pair"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[OAuthServer]:
    """Each server with a pair that it takes."""
    if request.param == "oidc-provider":
        assert (HERE / "node_modules").is_dir(), "oidc-provider is missing: `make test` installs it"
        program = (NODE, "oidc_provider.mjs")
    else:
        program = (Path(sys.executable), "authlib_server.py")
    pair = ODD if "odd" in request.param else PLAIN
    async with serving(program, *pair) as running:
        yield running


async def test_tokens_are_fetched_used_and_refreshed(server: OAuthServer, tmp_path: Path) -> None:
    async with proxied(server, tmp_path / "pair", BITS_SCOPE="application") as stand:
        assert [await stand.call() for _ in range(3)] == [200] * 3
        got = await stand.event("token_refreshed")
        assert (got["reason"], got["lifetime"], got["scope"]) == ("start", LIFETIME, "application")
        stand.clock.advance(0.81 * LIFETIME)
        got = await stand.event("token_refreshed", times=2)
        assert got["reason"] == "scheduled"
        assert await stand.call() == 200
        first, last = stand.api.tokens[0], stand.api.tokens[-1]
        assert stand.api.tokens == [first] * 3 + [last]
        assert first != last
        for token in (first, last, server.secret):
            assert token not in stand.log.getvalue()


async def test_a_scope_that_is_not_granted_is_an_error_that_names_it(
    server: OAuthServer, tmp_path: Path
) -> None:
    async with proxied(server, tmp_path / "pair", BITS_SCOPE="application person") as stand:
        failed = await stand.event("token_refresh_failed")
        # Either server is within its rights: to grant less (RFC 6749 section 3.3), or to refuse (5.2).
        told = {
            "scope": "requested scope 'application person', granted 'application': 'person' is missing",
            "refused": "the response is 400 invalid_scope",
        }
        assert failed["detail"] == told[failed["kind"]]
        assert await stand.call_without_token() == 503
        assert stand.api.tokens == []


async def test_a_wrong_secret_is_refused_and_never_shown(server: OAuthServer, tmp_path: Path) -> None:
    server.secret = "canary-wrong"
    async with proxied(server, tmp_path / "pair") as stand:
        failed = await stand.event("token_refresh_failed")
        assert failed["kind"] == "refused"
        assert "invalid_client" in failed["detail"]
        assert await stand.call_without_token() == 503
        assert "canary-wrong" not in stand.log.getvalue()


async def test_a_client_that_was_removed_is_refused_while_its_last_token_serves(
    server: OAuthServer, tmp_path: Path
) -> None:
    async with proxied(server, tmp_path / "pair") as stand:
        assert await stand.call() == 200
        await server.register(None)
        stand.clock.advance(0.81 * LIFETIME)
        assert (await stand.event("token_refresh_failed"))["kind"] == "refused"
        assert await stand.call() == 200
        assert len(set(stand.api.tokens)) == 1


async def test_a_rotated_secret_is_taken_from_its_files(server: OAuthServer, tmp_path: Path) -> None:
    async with proxied(server, tmp_path / "pair") as stand:
        assert await stand.call() == 200
        await server.register(NEW_SECRET)
        await stand.new_pair(NEW_SECRET, server.client_id)
        got = await stand.event("token_refreshed", times=2)
        assert got["reason"] == "credentials"
        assert await stand.call() == 200
        assert stand.events("token_refresh_failed") == []


async def test_a_new_pair_that_is_refused_costs_nothing(server: OAuthServer, tmp_path: Path) -> None:
    async with proxied(server, tmp_path / "pair") as stand:
        assert await stand.call() == 200
        await stand.new_pair("canary-not-yet-known", server.client_id)
        assert (await stand.event("token_refresh_failed"))["kind"] == "refused"
        assert await stand.call() == 200
        assert len(set(stand.api.tokens)) == 1
        # The old pair still gets tokens, while it is valid.
        stand.clock.advance(0.81 * LIFETIME)
        await stand.event("token_refreshed", times=2)
        assert await stand.call() == 200


async def test_a_token_that_was_revoked_costs_no_call(server: OAuthServer, tmp_path: Path) -> None:
    async with proxied(server, tmp_path / "pair") as stand:
        assert await stand.call() == 200
        (token,) = stand.api.tokens
        await server.revoke(token)
        assert not await server.is_active(token)
        assert await stand.call() == 200
        refused, replayed = stand.api.tokens[1:]
        assert refused == token != replayed
        assert (await stand.event("token_refreshed", times=2))["reason"] == "refused"


async def test_a_wrong_path_is_told(server: OAuthServer, tmp_path: Path) -> None:
    async with proxied(server, tmp_path / "pair", BITS_TOKEN_URL=server.url("token") + "s") as stand:
        failed = await stand.event("token_refresh_failed")
        assert "404" in failed["detail"]
        assert await stand.call_without_token() == 503
