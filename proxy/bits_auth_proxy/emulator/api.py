"""The API's calls. Each needs a token whose scope allows it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from bits_auth_proxy.emulator.applications import Applications
from bits_auth_proxy.emulator.faults import Faults
from bits_auth_proxy.emulator.json_bodies import read_json_object
from bits_auth_proxy.emulator.responses import api_error, json_response
from bits_auth_proxy.emulator.tokens import (
    APPLICATION,
    APPLICATION_READ,
    APPLICATION_SESSION,
    Grant,
    Tokens,
)

_READERS: Final = (APPLICATION, APPLICATION_READ)


class Api:
    """Answers the documented calls."""

    def __init__(
        self,
        *,
        customer: str,
        tokens: Tokens,
        applications: Applications,
        faults: Faults,
        counters: Counter[str],
        pause: Callable[[float | None], Awaitable[None]],
    ) -> None:
        """Serve one customer."""
        self._customer = customer
        self._tokens = tokens
        self._applications = applications
        self._faults = faults
        self._counters = counters
        self._pause = pause

    async def userinfo(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /oauth2/userinfo`."""
        await self._admit(request, "userinfo", _READERS)
        return json_response({"customerId": self._customer})

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /v1/applications.create`."""
        await self._admit(request, "applications.create", (APPLICATION,))
        try:
            application_id = self._applications.create(await _json_object(request))
        except ValueError as error:
            raise api_error(web.HTTPBadRequest, "invalid_argument", f"{error} is missing or wrong") from None
        session = self._tokens.issue_session(application_id)
        return json_response({"id": application_id, "sessionToken": session})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /v1/applications.get`."""
        grant = await self._admit(request, "applications.get", (*_READERS, APPLICATION_SESSION))
        application_id = (await _json_object(request)).get("applicationId")
        if not isinstance(application_id, str):
            raise api_error(web.HTTPBadRequest, "invalid_argument", "applicationId is missing or wrong")
        if grant.application_id not in (None, application_id):
            raise _forbidden()
        application = self._applications.get(application_id)
        if application is None:
            raise api_error(web.HTTPNotFound, "not_found", "the application does not exist")
        return json_response(application)

    async def organization(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /v1/applications.organization.get`."""
        await self._admit(request, "applications.organization.get", _READERS)
        return json_response({"customerId": self._customer, "name": "Acme AB", "countryCode": "SE"})

    async def _admit(self, request: web.Request, operation: str, scopes: tuple[str, ...]) -> Grant:
        """Return the grant of the request's token. If the request must fail, raise the response to it."""
        self._counters[operation] += 1
        await request.read()
        await self._pause(self._faults.latency)
        fault = "401" if operation == self._faults.always_401 else self._faults.take_next()
        if fault == "cut":
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPInternalServerError
        if fault == "429":
            error = api_error(web.HTTPTooManyRequests, "too_many_requests", "emulated")
            error.headers["Retry-After"] = str(self._faults.retry_after)
            raise error
        if fault == "500":
            raise api_error(web.HTTPInternalServerError, "internal", "emulated")
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        grant = self._tokens.look_up(value.strip()) if scheme.lower() == "bearer" else None
        if grant is None or fault == "401":
            self._counters[f"{operation} 401"] += 1
            error = api_error(web.HTTPUnauthorized, "invalid_token", "a valid token is required")
            error.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if value else "Bearer"
            raise error
        if not set(grant.scope.split()).intersection(scopes):
            raise _forbidden()
        return grant


async def _json_object(request: web.Request) -> dict[str, Any]:
    members = await read_json_object(request)
    if members is None:
        raise api_error(web.HTTPBadRequest, "invalid_argument", "the body must be a JSON object")
    return members


def _forbidden() -> web.HTTPException:
    error = api_error(web.HTTPForbidden, "insufficient_scope", "the token does not allow this call")
    error.headers["WWW-Authenticate"] = 'Bearer error="insufficient_scope"'
    return error
