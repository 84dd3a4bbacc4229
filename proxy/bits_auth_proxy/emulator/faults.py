"""The faults that the emulator produces on demand, and which one is next. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

TOKEN_MODES: Final = ("ok", "fail", "hang")
MAX_COUNT: Final = 1_000_000


@dataclass(slots=True)
class Faults:
    """The faults that are set. Durations are in seconds; `next_*` count API calls that will still fail."""

    token_lifetime: float = 3600.0
    token_mode: str = "ok"
    token_status: int = 500
    """The status of the token endpoint's responses while `token_mode` is `fail`."""
    token_delay: float = 0.0
    token_lag: float = 0.0
    """How long the API does not know a token that is issued from now on."""
    token_death: float = 0.0
    """How long after its issue such a token becomes invalid, whatever its lifetime says. 0 turns this off."""
    latency: float = 0.0
    always_401: str = ""
    """The operation that refuses every token; no other fault affects it."""
    next_401: int = 0
    next_429: int = 0
    next_500: int = 0
    next_cut: int = 0
    retry_after: int = 1
    """The Retry-After of every 429, and of the failing token endpoint's 503."""

    def change(self, given: Mapping[str, Any]) -> None:
        """Set the faults that are given. If one is wrong, none is set. Raises ValueError, which names it."""
        known = {field.name for field in fields(self)}
        for name, value in given.items():
            if name not in known or not self._fits(name, value):
                raise ValueError(f"{name} is not a fault, or its value is wrong")
        for name, value in given.items():
            setattr(self, name, value)

    def take_next(self) -> str | None:
        """Return the fault of the next API call (`401`, `429`, `500`, `cut`) or None for success."""
        for name in ("401", "429", "500", "cut"):
            left = getattr(self, f"next_{name}")
            if left:
                setattr(self, f"next_{name}", left - 1)
                return name
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return all faults by name."""
        return asdict(self)

    @staticmethod
    def _fits(name: str, value: Any) -> bool:
        if name == "token_mode":
            return value in TOKEN_MODES
        if name == "always_401":
            return isinstance(value, str)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if name == "token_status":
            return isinstance(value, int) and 400 <= value <= 599  # noqa: PLR2004 - 4xx and 5xx
        if name.startswith("next_") or name == "retry_after":
            return isinstance(value, int) and 0 <= value <= MAX_COUNT
        least = 0.001 if name == "token_lifetime" else 0.0
        return least <= value <= MAX_COUNT
