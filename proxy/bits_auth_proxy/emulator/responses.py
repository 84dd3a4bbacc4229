"""The JSON responses of the emulator. Each ends with a newline, because people read them on terminals."""

import json
from collections.abc import Callable, Mapping

from aiohttp import web


def json_response(
    data: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a response with `data` as its content."""
    return web.json_response(text=_json(data), status=status, headers=headers)


def api_error(kind: Callable[..., web.HTTPException], code: str, message: str) -> web.HTTPException:
    """Return an exception that makes aiohttp answer with an error of the API."""
    return kind(text=_json({"error": code, "message": message}), content_type="application/json")


def _json(data: object) -> str:
    return json.dumps(data) + "\n"
