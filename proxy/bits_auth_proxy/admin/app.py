"""The admin listener's HTTP application.

Where others than this machine can reach it, only the probes and the metrics exist. Pages in browsers get
nothing on any listener but from the admin listener's own origin.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from bits_auth_proxy.admin.actions import Actions, add_routes
from bits_auth_proxy.admin.health import Health, Verdict
from bits_auth_proxy.admin.static import add_page

LOOPBACK_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    *,
    health: Health,
    metrics: Callable[[str], tuple[bytes, str]],
    status: Callable[[], Mapping[str, Any]],
    activity: Callable[[], Mapping[str, Any]],
    inspected: Callable[[str], Mapping[str, Any] | None] | None,
    actions: Actions,
    loopback: bool,
) -> web.Application:
    """Return the application of one listener.

    `metrics` maps an Accept value to content and content type; `status` and `activity`, which the
    page shows, return JSON-ready data without secrets; `inspected` returns what is
    kept of the exchange of an id, None: nothing; it is None itself where nothing ever is. `loopback` tells
    whether the listener can be reached from this machine only.
    """

    async def livez(_: web.Request) -> web.Response:
        return _answer(Verdict(ok=True, reason="alive"))

    async def startupz(_: web.Request) -> web.Response:
        return _answer(health.startup())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.readiness())

    async def expose(request: web.Request) -> web.Response:
        content, content_type = metrics(request.headers.get("Accept", ""))
        return web.Response(body=content, headers={"Content-Type": content_type})

    async def show_status(_: web.Request) -> web.Response:
        return web.json_response(status(), dumps=lambda data: json.dumps(data, indent=2))

    async def show_activity(_: web.Request) -> web.Response:
        return web.json_response(activity())

    async def show_inspected(request: web.Request) -> web.Response:
        kept = None if inspected is None else inspected(request.match_info["id"])
        if kept is None:
            return web.Response(status=404, text="The proxy does not keep this exchange.\n")
        return web.json_response(kept)

    app = web.Application(middlewares=[_guard(check_host=loopback)])
    app.router.add_get("/livez", livez)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", expose)
    if loopback:
        app.router.add_get("/status", show_status)
        app.router.add_get("/activity", show_activity)
        app.router.add_get("/inspected/{id}", show_inspected)
        add_routes(app.router, actions)
        add_page(app.router)
    return app


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on, or a Host field's name, means this machine alone."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guard(*, check_host: bool) -> Any:
    """Return the middleware that keeps web pages out (cross-site requests, DNS rebinding)."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if check_host and not is_loopback(_host(request)):
            return web.Response(status=421, text="The requested host is not served here.\n")
        origin = request.headers.get("Origin")
        own = f"{request.scheme}://{request.host}"
        if origin is not None and origin != own:
            return web.Response(status=403, text="Requests from web pages of other sites are rejected.\n")
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            return web.Response(status=403, text="Requests from web pages of other sites are rejected.\n")
        response = await handler(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    return guard


def _host(request: web.Request) -> str:
    """Return the host that the client asks for, without its port; empty if that can't be read."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def _answer(verdict: Verdict) -> web.Response:
    return web.Response(status=200 if verdict.ok else 503, text=f"{verdict.reason}\n")
