"""Changes the log's level while the proxy runs."""

import structlog

from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.log import LEVELS, LOGGER, get_level, set_level


def change_level(level: str) -> None:
    """Set the level, and log the change while the lower of the old and the new level applies."""
    before = get_level()
    set_level(min(before, level, key=LEVELS.index))
    structlog.get_logger(LOGGER).warning(events.LOG_LEVEL_CHANGED.name, before=before, now=level)
    set_level(level)
