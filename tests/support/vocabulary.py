"""The log's documented vocabulary, held against what was really logged."""

import json
from typing import Any

from bits_auth_proxy.telemetry.events import EVENTS

_BY_NAME = {event.name: event for event in EVENTS}
_ALWAYS = {"timestamp", "level", "event"}


def undocumented(log: str) -> list[dict[str, Any]]:
    """Return the lines of a JSON log whose event, level or fields are not documented; libraries' aside."""
    lines = [json.loads(line) for line in log.splitlines()]
    return [line for line in lines if "logger" not in line and not _is_documented(line)]


def _is_documented(line: dict[str, Any]) -> bool:
    event = _BY_NAME.get(line["event"])
    if event is None or line["level"] not in event.levels:
        return False
    return line.keys() - _ALWAYS <= event.fields.keys()
