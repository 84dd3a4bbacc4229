"""What an operator can have done while the proxy runs: another token, another log level.

Only for who is on this machine, and never for a page of another site: such a page can send neither the
header that is asked for here nor the admin listener's own Origin.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from aiohttp import web

_MAX_BODY: Final = 1024


class Actions(NamedTuple):
    """What can be done. `refresh` returns in how many seconds the token request begins."""

    refresh: Callable[[], float]
    levels: Sequence[str]
    get_level: Callable[[], str]
    set_level: Callable[[str], None]


def add_routes(router: web.UrlDispatcher, actions: Actions) -> None:
    """Serve `POST /refresh`, `GET` and `POST /log-level`."""

    async def refresh(request: web.Request) -> web.Response:
        _require_intent(request)
        return web.json_response({"starts_in_seconds": round(actions.refresh(), 3)}, status=202)

    async def show_level(_: web.Request) -> web.Response:
        return web.json_response({"level": actions.get_level()})

    async def change_level(request: web.Request) -> web.Response:
        _require_intent(request)
        level = request.query.get("level") or await _level_in_body(request)
        if level not in actions.levels:
            known = ", ".join(actions.levels)
            return web.Response(status=400, text=f"Send POST /log-level?level=… with one of {known}.\n")
        before = actions.get_level()
        actions.set_level(level)
        return web.json_response({"level": level, "before": before})

    router.add_post("/refresh", refresh)
    router.add_get("/log-level", show_level)
    router.add_post("/log-level", change_level)


def _require_intent(request: web.Request) -> None:
    """Raise the refusal of a request that a page of another site could have made a browser send."""
    if "Origin" not in request.headers and "X-Requested-With" not in request.headers:
        raise web.HTTPForbidden(text="Send the header X-Requested-With with any value.\n")


async def _level_in_body(request: web.Request) -> Any:
    try:
        members = json.loads(await request.content.read(_MAX_BODY))
    except ValueError:
        return None
    return members.get("level") if isinstance(members, dict) else None
