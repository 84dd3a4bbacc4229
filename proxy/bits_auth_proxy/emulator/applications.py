"""Applications: validates the members that create one, and keeps the newest ones."""

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

_MAX_APPLICATIONS: Final = 10_000
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_WORKFLOW_ID: Final = re.compile(rf"bits:workflow::{_UUID}\Z")
_COUNTRY_CODE: Final = re.compile(r"[A-Z]{2}\Z")


class Applications:
    """The applications that this emulator has created."""

    def __init__(self) -> None:
        self._by_id: dict[str, dict[str, Any]] = {}

    def create(self, given: Mapping[str, Any]) -> str:
        """Keep a new application; return its id. Raises ValueError, which names the first wrong member."""
        checks: dict[str, Callable[[str], object]] = {
            "workflowId": _WORKFLOW_ID.match,
            "countryCode": _COUNTRY_CODE.match,
            "redirectUrl": _is_web_url,
        }
        for name, is_valid in checks.items():
            value = given.get(name)
            if not isinstance(value, str) or not is_valid(value):
                raise ValueError(name)
        if len(self._by_id) >= _MAX_APPLICATIONS:
            del self._by_id[next(iter(self._by_id))]
        application_id = f"bits:application::{uuid.uuid4()}"
        self._by_id[application_id] = {"id": application_id, **{name: given[name] for name in checks}}
        return application_id

    def get(self, application_id: str) -> dict[str, Any] | None:
        """Return the application, or None if it does not exist."""
        return self._by_id.get(application_id)


def _is_web_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
