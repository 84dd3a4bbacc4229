"""Reads JSON from the bodies of requests."""

from typing import Any

from aiohttp import web


async def read_json_object(request: web.Request) -> dict[str, Any] | None:
    """Return the members of the JSON object that is the request's body, or None if it is not one."""
    try:
        members = await request.json()
    except (ValueError, LookupError, RecursionError):  # LookupError: an unknown charset
        return None
    return members if isinstance(members, dict) else None
