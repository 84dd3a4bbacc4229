"""What was logged and printed while a test ran: shown where it fails."""

from collections.abc import Callable
from typing import Final

_LINES: Final = 200

_sources: dict[str, Callable[[], str]] = {}
_lasting: dict[str, Callable[[], str]] = {}


def keep(name: str, source: Callable[[], str], *, lasting: bool = False) -> None:
    """Remember where to find what `name` said: until the next test begins, or, `lasting`, to the end."""
    (_lasting if lasting else _sources)[name] = source


def told() -> list[tuple[str, str]]:
    """Return what was said last, by whom; who said nothing is left out."""
    said = ((name, source().splitlines()) for name, source in (_sources | _lasting).items())
    return [(name, "\n".join(lines[-_LINES:])) for name, lines in said if lines]


def forget() -> None:
    """Begin anew, but for what lasts."""
    _sources.clear()
