"""Whether a command shows the live view."""

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
    capable = environment().get("TERM", "dumb") != "dumb" and sys.stdout.isatty()
    if not capable or "log_format" in loaded.origins:
        return None
    return LiveView(
        terminal=LineWriter(sys.stdout, replace=lambda _: "?", report=dropped_line),
        color="NO_COLOR" not in environment(),
        size=shutil.get_terminal_size,
    )
