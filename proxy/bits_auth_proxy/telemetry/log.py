"""The log: structlog writes to one stream, as JSON or in a format for people, and every secret is replaced.

Lines of the standard library's loggers (asyncio, aiohttp) and Python's warnings take the same path.
"""

import json
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bits_auth_proxy.printable import escaped, printable
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.line_writer import LineWriter

REDACTED: Final = "[redacted]"
LOGGER: Final = "bits_auth_proxy"
"""The name of our own logger. The standard library's logger of that name stores its level."""
LEVELS: Final = ("debug", "info", "warning", "error")
_LEVEL_NUMBERS: Final = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_OWN_LOGGER: Final = logging.getLogger(LOGGER)
# `json.dumps` with options would create an encoder for every line.
_encode_json: Final = json.JSONEncoder(default=str, ensure_ascii=False).encode
_TOKENS_REMEMBERED: Final = 16
_MIN_LENGTH: Final = 4
"""Shorter secrets are not replaced: ordinary words contain them."""


class Redactor:
    """Knows the secrets and replaces them in texts."""

    def __init__(self) -> None:
        self._pinned: dict[str, None] = {}
        self._recent: deque[str] = deque(maxlen=_TOKENS_REMEMBERED)
        self._forms: tuple[str, ...] = ()

    def add(self, secret: str, *, pinned: bool = False) -> None:
        """Replace `secret` from now on: forever if `pinned`, else until many others have been added."""
        if len(secret) < _MIN_LENGTH:
            return
        if pinned:
            self._pinned[secret] = None
        else:
            self._recent.append(secret)
        forms = {form for each in (*self._pinned, *self._recent) for form in _forms_of(each)}
        # The longest comes first, because one secret may be part of another.
        self._forms = tuple(sorted(forms, key=len, reverse=True))

    def redact(self, text: str) -> str:
        """Return `text` with every secret replaced."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, REDACTED)
        return text

    def __call__(self, logger: WrappedLogger, name: str, rendered: Any) -> str:  # noqa: ARG002
        """Redact a rendered line. As the last processor, it sees everything, including tracebacks."""
        return self.redact(str(rendered))


def _forms_of(secret: str) -> set[str]:
    """Return the forms of a secret in log lines: unchanged, and escaped once or twice by repr or JSON."""
    forms = {secret}
    for _ in range(2):
        for form in tuple(forms):
            forms |= {
                json.dumps(form)[1:-1],
                json.dumps(form, ensure_ascii=False)[1:-1],
                repr(form)[1:-1],
                repr(form.encode(errors="surrogatepass"))[2:-1],
            }
    return forms


class Lines:
    """Writes finished lines to the log, redacted and together, at the end of each turn of the event loop."""

    def __init__(
        self, *, redactor: Redactor, writer: LineWriter, call_soon: Callable[[Callable[[], None]], Any]
    ) -> None:
        self._redactor = redactor
        self._writer = writer
        self._call_soon = call_soon
        self._pending: list[str] = []

    def write(self, level: str, line: str) -> None:
        """Write a line soon, if `level` is logged."""
        if _LEVEL_NUMBERS[level] >= _OWN_LOGGER.level:
            if not self._pending:
                self._call_soon(self.flush)
            self._pending.append(line)

    def flush(self) -> None:
        """Write the lines that have been collected."""
        if self._pending:
            lines, self._pending = self._pending, []
            self._writer.write(self._redactor.redact("\n".join(lines)) + "\n", len(lines))
            self._writer.flush()


_json_log: tuple[Redactor, LineWriter] | None = None
"""The redactor and the writer that the log was last configured with, or None if it is not JSON."""


_writer: LineWriter | None = None
"""What the log was last configured to write with."""


def json_lines(call_soon: Callable[[Callable[[], None]], Any]) -> Lines | None:
    """Return a writer of JSON lines that bypasses the pipeline, or None if the log is not JSON."""
    if _json_log is None:
        return None
    redactor, writer = _json_log
    return Lines(redactor=redactor, writer=writer, call_soon=call_soon)


def dropped_line(count: int) -> str:
    """Return the finished line that says how many were dropped, or nothing if its level is not logged."""
    event: Any = {"event": events.LOG_LINES_DROPPED.name, "count": count}
    try:
        for process in structlog.get_config()["processors"]:
            event = process(None, "warning", event)
    except structlog.DropEvent:
        return ""
    return f"{event}\n"


def configure(*, level: str, fmt: str, redactor: Redactor, stream: TextIO, color: bool = True) -> None:
    """Set up all logging of this process: `level` and above go to `stream`, as `json` or `console`.

    `color` says whether the format `console` may have colors on a terminal.
    """
    global _json_log, _writer  # noqa: PLW0603 - structlog's configuration is global too
    if _writer is not None:
        _writer.close()
    _writer = writer = LineWriter(stream, replace=escaped, report=dropped_line)
    _json_log = (redactor, writer) if fmt == "json" else None
    renderers: list[Processor] = [structlog.processors.format_exc_info, _render_json, redactor]
    if fmt == "console":
        renderers = [
            structlog.processors.format_exc_info,
            _make_printable,
            structlog.dev.ConsoleRenderer(
                colors=color and writer.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
            redactor,
        ]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[_filter_by_level, *shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", writer)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    logging.captureWarnings(capture=True)
    # A logging call that fails prints its arguments to standard error, unredacted.
    logging.raiseExceptions = False
    sys.excepthook = _excepthook


def set_level(level: str) -> None:
    """Log `level` (one of LEVELS) and above from now on."""
    least = logging.getLevelNamesMapping()[level.upper()]
    _OWN_LOGGER.setLevel(least)
    # Libraries log from the level warning on, unless the operator has chosen debug.
    logging.getLogger().setLevel(least if least <= logging.DEBUG else max(least, logging.WARNING))


def get_level() -> str:
    """Return the lowest level that is logged."""
    return logging.getLevelName(_OWN_LOGGER.level).lower()


def _filter_by_level(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:  # noqa: ARG001
    if _LEVEL_NUMBERS[name] < _OWN_LOGGER.level:
        raise structlog.DropEvent
    return event_dict


def _render_json(logger: WrappedLogger, name: str, event_dict: EventDict) -> str:  # noqa: ARG001 - a processor
    ordered: dict[str, Any] = {
        "timestamp": event_dict.pop("timestamp"),
        "level": event_dict.pop("level"),
        "event": event_dict.pop("event"),
        **event_dict,
    }
    return printable(_encode_json(ordered))


def _make_printable(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:  # noqa: ARG001
    """Escape what a terminal would obey; the renderer itself escapes only what it puts in quotes."""
    return {
        printable(key): printable(value, keep="\n" if key == "exception" else "")
        if isinstance(value, str)
        else value
        for key, value in event_dict.items()
    }


def _excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    structlog.get_logger().critical("crashed", exc_info=(kind, error, trace))
