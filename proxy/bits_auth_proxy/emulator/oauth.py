"""The token endpoint, with its denials (RFC 6749 sections 2.3, 4.4 and 5)."""

import base64
import binascii
import hmac
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from bits_auth_proxy.emulator.faults import Faults
from bits_auth_proxy.emulator.responses import json_response
from bits_auth_proxy.emulator.tokens import APPLICATION, APPLICATION_READ, Tokens

_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_RETRIED: Final = (429, 503)


class OAuth:
    """Issues tokens to one client."""

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        tokens: Tokens,
        faults: Faults,
        counters: Counter[str],
        pause: Callable[[float | None], Awaitable[None]],
    ) -> None:
        """Accept one client by its unescaped id and secret: Bits documents no form-escaping."""
        self._client_id = client_id
        self._client_secret = client_secret
        self._tokens = tokens
        self._faults = faults
        self._counters = counters
        self._pause = pause

    def rotate(self, client_secret: str | None) -> str:
        """Replace the secret, with a random one if None is given, and return it; the old one is denied."""
        self._client_secret = client_secret or secrets.token_urlsafe(24)
        return self._client_secret

    async def token(self, request: web.Request) -> web.Response:
        """Answer a token request."""
        self._counters["token_requests"] += 1
        faults = self._faults
        if faults.token_mode == "hang":
            await self._pause(None)
            raise web.HTTPServiceUnavailable
        await self._pause(faults.token_delay)
        if faults.token_mode == "fail":
            headers = {"Retry-After": str(faults.retry_after)} if faults.token_status in _RETRIED else {}
            return json_response({"error": "emulated"}, status=faults.token_status, headers=headers)
        if not self._authenticates(request.headers.get("Authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="bits"'}
            return _denial("invalid_client", "the Basic credentials are missing or wrong", 401, challenge)
        if request.content_type != "application/x-www-form-urlencoded":
            return _denial("invalid_request", "the body must be application/x-www-form-urlencoded")
        form = parse_qs((await request.read()).decode("utf-8", "replace"), keep_blank_values=True)
        if any(len(values) > 1 for values in form.values()) or "grant_type" not in form:
            return _denial("invalid_request", "grant_type is required, and no parameter may occur twice")
        if form["grant_type"] != ["client_credentials"]:
            return _denial("unsupported_grant_type", "the only supported grant is client_credentials")
        asked = set(form.get("scope", [""])[0].split())
        if not asked <= {APPLICATION, APPLICATION_READ}:
            return _denial("invalid_scope", f"the supported scopes are {APPLICATION} and {APPLICATION_READ}")
        scope = APPLICATION_READ if asked == {APPLICATION_READ} else " ".join(sorted(asked)) or APPLICATION
        lifetime = round(float(faults.token_lifetime), 3)
        ends = min(lifetime, faults.token_death) if faults.token_death else lifetime
        body = {
            "type": "Bearer",
            "access_token": self._tokens.issue(scope, lag=faults.token_lag, lifetime=ends),
            "expires_in": int(lifetime) if lifetime.is_integer() else lifetime,
            "scope": scope,
        }
        return json_response(body, headers=_NO_STORE)

    def _authenticates(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            pair = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(pair, f"{self._client_id}:{self._client_secret}".encode())


def _denial(
    code: str, description: str, status: int = 400, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": code, "error_description": description}
    return json_response(body, status=status, headers={**_NO_STORE, **(headers or {})})
