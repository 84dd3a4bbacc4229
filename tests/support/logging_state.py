"""Logging is set up for the whole process; a test that does so puts it back."""

import contextlib
import logging
import sys
from collections.abc import Iterator

import structlog


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Restore the configuration of logging and of structlog at the end."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions, sys.excepthook)
    try:
        yield
    finally:
        root.handlers[:], level, logging.raiseExceptions, sys.excepthook = before
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
