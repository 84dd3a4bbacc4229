"""What the terminal of a command can show: the live view, colors."""

import shutil
import sys

from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.sources import environment
from bits_auth_proxy.telemetry.line_writer import LineWriter
from bits_auth_proxy.telemetry.log import dropped_line


def live_view(loaded: Loaded) -> LiveView | None:
    """Return a live view for standard output.

    None where standard output is not a terminal that can move its cursor, or where the user set a log format:
    then the log has standard output to itself.
    """
    if _is_dumb() or not sys.stdout.isatty() or "log_format" in loaded.origins:
        return None
    return LiveView(
        terminal=LineWriter(sys.stdout, replace=lambda _: "?", report=dropped_line),
        color=color_wanted(),
        size=shutil.get_terminal_size,
    )


def color_wanted() -> bool:
    """Return whether a terminal may get colors (https://no-color.org)."""
    return not environment().get("NO_COLOR") and not _is_dumb()


def _is_dumb() -> bool:
    return environment().get("TERM", "dumb") == "dumb"
