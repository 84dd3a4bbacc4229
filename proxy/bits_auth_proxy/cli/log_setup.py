"""The log of a command: where it goes, in which format, and what it says of the settings."""

from typing import Final, TextIO, cast

import structlog

from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.terminal import color_wanted
from bits_auth_proxy.settings.disclosure import unlikely_words
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.permissions import mode_of
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.log import Redactor, configure

_LOGGER: Final = "bits_auth_proxy"


def set_up_log(settings: Settings, *, stream: TextIO, view: LiveView | None = None) -> Redactor:
    """Send the log to `stream`, above `view` where both are on the terminal; return its redactor."""
    redactor = Redactor()
    for word in unlikely_words(settings.scope):
        redactor.add(word, pinned=True)
    on_terminal = stream.isatty()
    configure(
        level=settings.log_level,
        fmt=settings.log_format or ("console" if on_terminal else "json"),
        redactor=redactor,
        stream=cast("TextIO", view) if view is not None and on_terminal else stream,
        color=color_wanted(),
    )
    return redactor


def log_warnings(loaded: Loaded) -> None:
    """Log the settings that look like a slip, and the files that expose a secret."""
    log = structlog.get_logger(_LOGGER)
    for warning in loaded.warnings:
        log.warning(events.SETTING_UNKNOWN.name, detail=warning)
    for path in loaded.exposed:
        log.warning(events.CREDENTIALS_EXPOSED.name, file=str(path), mode=mode_of(path))
