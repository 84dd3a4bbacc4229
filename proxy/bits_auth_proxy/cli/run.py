"""`bits-auth-proxy run`: the proxy, until SIGTERM or SIGINT."""

import argparse
import sys
from collections.abc import Sequence

from bits_auth_proxy import sidecar
from bits_auth_proxy.cli import event_loop
from bits_auth_proxy.cli.arguments import parse_settings
from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.log_setup import log_warnings, set_up_log
from bits_auth_proxy.cli.terminal import live_view
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.telemetry.log import Redactor


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Serve; return whether the proxy came to a clean end. Raises CommandError."""
    loaded = parse_settings(parser, options, credentials_required=True, credentials_awaited=True)
    view = live_view(loaded)
    # The log is this command's output.
    redactor = set_up_log(loaded.settings, stream=sys.stdout, view=view)
    log_warnings(loaded)
    return event_loop.run(_serve(loaded.settings, redactor=redactor, view=view))


async def _serve(settings: Settings, *, redactor: Redactor, view: LiveView | None) -> bool:
    try:
        return await sidecar.serve(
            settings,
            credentials=CredentialSource.from_settings(settings),
            redactor=redactor,
            started=None if view is None else lambda running: view.start(running.activity),
        )
    finally:
        if view is not None:
            view.stop()
