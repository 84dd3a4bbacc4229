"""The controls under /_emulator/, which show what has happened and set the faults."""

from collections import Counter
from typing import Any

from aiohttp import web

from bits_auth_proxy.emulator.faults import Faults
from bits_auth_proxy.emulator.json_bodies import read_json_object
from bits_auth_proxy.emulator.oauth import OAuth
from bits_auth_proxy.emulator.responses import json_response
from bits_auth_proxy.emulator.tokens import Tokens


class Controls:
    """Handlers for tests against the emulator. They show no tokens, and no secret except a rotated one."""

    def __init__(self, *, oauth: OAuth, tokens: Tokens, faults: Faults, counters: Counter[str]) -> None:
        """Take the parts to control; `reset` restores the faults that are set now."""
        self._oauth = oauth
        self._tokens = tokens
        self._faults = faults
        self._counters = counters
        self._initial = faults.as_dict()

    async def state(self, _: web.Request) -> web.Response:
        """Show the counters and the faults."""
        return self._state()

    async def change_faults(self, request: web.Request) -> web.Response:
        """Set the faults that a JSON object names."""
        try:
            self._faults.change(await _json_object(request))
        except ValueError as error:
            return json_response({"error": f"can't set the faults: {error}"}, status=400)
        return self._state()

    async def revoke(self, _: web.Request) -> web.Response:
        """Make all tokens invalid."""
        return json_response({"revoked": self._tokens.revoke_all()})

    async def rotate(self, request: web.Request) -> web.Response:
        """Change the client's secret, to `client_secret` of a JSON object or to a random one."""
        secret = None
        if request.can_read_body:
            try:
                secret = (await _json_object(request)).get("client_secret")
            except ValueError as error:
                return json_response({"error": str(error)}, status=400)
            if secret is not None and not (isinstance(secret, str) and secret and secret.isprintable()):
                return json_response(
                    {"error": "client_secret must be a non-empty, printable string"}, status=400
                )
        return json_response({"client_secret": self._oauth.rotate(secret)})

    async def reset(self, _: web.Request) -> web.Response:
        """Restore the initial faults, and set all counters to zero."""
        self._faults.change(self._initial)
        self._counters.clear()
        self._tokens.issued = 0
        return self._state()

    def _state(self) -> web.Response:
        counters = {**self._counters, "tokens_issued": self._tokens.issued}
        return json_response({"counters": counters, "faults": self._faults.as_dict()})


async def _json_object(request: web.Request) -> dict[str, Any]:
    members = await read_json_object(request)
    if members is None:
        raise ValueError("the body must be a JSON object")
    return members
