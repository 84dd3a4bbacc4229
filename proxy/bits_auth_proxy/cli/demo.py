"""`bits-auth-proxy demo`: the proxy and the emulator that it forwards to, until SIGTERM or SIGINT."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from bits_auth_proxy import sidecar
from bits_auth_proxy.cli import emulation, event_loop
from bits_auth_proxy.cli.arguments import parse_settings
from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.log_setup import log_warnings, set_up_log
from bits_auth_proxy.cli.output import print_text
from bits_auth_proxy.cli.terminal import live_view
from bits_auth_proxy.emulator.server import MAX_CONNECTIONS
from bits_auth_proxy.settings.addresses import ListenAddress, UnixAddress
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.telemetry.line_writer import LineWriter
from bits_auth_proxy.telemetry.log import Redactor

_BODY: Final = (
    '{"workflowId":"bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",'
    '"countryCode":"SE","redirectUrl":"https://acme.example/done"}'
)


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Serve; return whether the proxy came to a clean end. Raises CommandError."""
    loaded = parse_settings(parser, options, credentials_required=False)
    view = live_view(loaded)
    # Standard output has the instructions.
    redactor = set_up_log(loaded.settings, stream=sys.stderr, view=view)
    log_warnings(loaded)
    return event_loop.run(_serve(loaded, redactor=redactor, view=view))


async def _serve(loaded: Loaded, *, redactor: Redactor, view: LiveView | None) -> bool:
    async with emulation.emulating(loaded.settings.emulator, redactor) as emulator:
        # The live view shows the requests; without it the log does.
        access_log = "all" if view is None else "errors"
        settings = emulation.settings_for(emulator, loaded, access_log=access_log)

        def started(running: sidecar.Sidecar) -> None:
            _end_with_terminal(running)
            print_text(
                instructions(
                    listen=running.addresses,
                    admin=running.admin_addresses,
                    emulator=emulator,
                    tls=running.speaks_tls,
                )
            )
            if view is not None:
                view.start(running.activity)

        try:
            return await sidecar.serve(
                settings,
                credentials=CredentialSource.from_settings(settings),
                redactor=redactor,
                started=started,
                neighbors=MAX_CONNECTIONS,
            )
        finally:
            LineWriter.on_gone = None
            if view is not None:
                view.stop()


def _end_with_terminal(running: sidecar.Sidecar) -> None:
    """Let the demo end when its terminal is closed: SIGHUP or a failed write says so."""
    loop = asyncio.get_running_loop()
    terminals = [descriptor for descriptor in range(3) if os.isatty(descriptor)]
    ended = asyncio.Event()

    def end() -> None:
        # A second `stop` would cut requests short.
        if not ended.is_set():
            ended.set()
            running.stop()

    def hang_up() -> None:
        # A terminal that was closed is none any more.
        if all(map(os.isatty, terminals)):
            running.reload()
        else:
            end()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    LineWriter.on_gone = lambda: loop.call_soon_threadsafe(end)


def instructions(
    *,
    listen: Sequence[ListenAddress],
    admin: Sequence[ListenAddress],
    emulator: ListenAddress,
    tls: bool,
) -> str:
    """Return what the user can try. `tls`: clients speak https to the proxy."""
    first = listen[0]
    if isinstance(first, UnixAddress):
        curl, origin = f"curl -s --unix-socket {first.path} ", "http://localhost"
    else:
        # -k, because the certificate of a trial is seldom one that curl trusts.
        curl, scheme = ("curl -sk ", "https") if tls else ("curl -s ", "http")
        origin = f"{scheme}://localhost:{first.port}"
    lines = [
        f"The proxy is ready at {', '.join(map(str, listen))}. It forwards to an emulator of the Bits API.",
        "",
        "Send a request. It needs neither a token nor a secret, because the proxy adds the token:",
        f"  {curl}-X POST {origin}/v1/applications.create -H 'content-type: application/json' -d '{_BODY}'",
        f"  {curl}{origin}/oauth2/userinfo",
        "",
        "If a request has an Authorization field of its own, the proxy passes it on. Try the sessionToken.",
        "",
    ]
    if admin:
        lines += ["See how the proxy is doing:", *(line for each in admin for line in _admin_lines(each)), ""]
    lines += [
        "Break something: make the emulator revoke all tokens.",
        f"  curl -s -X POST {emulator}/_emulator/revoke",
        "",
    ]
    return "\n".join(lines)


def _admin_lines(admin: ListenAddress) -> list[str]:
    if isinstance(admin, UnixAddress):
        page, target = [], f"--unix-socket {admin.path} http://localhost"
    else:
        page, target = [f"  Open http://{admin}/ in a browser."], str(admin)
    return [*page, f"  curl -s {target}/metrics | grep token", f"  curl -s {target}/status"]
