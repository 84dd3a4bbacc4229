"""`bits-auth-proxy emulator`: the emulator of the Bits API alone, until SIGTERM or SIGINT."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from bits_auth_proxy.cli import event_loop
from bits_auth_proxy.cli.arguments import parse_settings
from bits_auth_proxy.cli.emulation import emulating
from bits_auth_proxy.cli.log_setup import log_warnings, set_up_log
from bits_auth_proxy.cli.output import print_text
from bits_auth_proxy.process import on_signals
from bits_auth_proxy.settings.addresses import ListenAddress
from bits_auth_proxy.settings.model import EmulatorSettings
from bits_auth_proxy.telemetry.log import Redactor


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Serve; return True. Raises CommandError."""
    loaded = parse_settings(parser, options, credentials_required=False)
    redactor = set_up_log(loaded.settings, stream=sys.stderr)
    log_warnings(loaded)
    return event_loop.run(_serve(loaded.settings.emulator, redactor=redactor))


async def _serve(settings: EmulatorSettings, *, redactor: Redactor) -> bool:
    stopped = asyncio.Event()
    with on_signals({signal.SIGTERM: stopped.set, signal.SIGINT: stopped.set}):
        async with emulating(settings, redactor) as address:
            print_text(instructions(address, client_id=settings.client_id))
            await stopped.wait()
    return True


def instructions(address: ListenAddress, *, client_id: str) -> str:
    """Return how to use the emulator. The secret itself is not shown."""
    return (
        f"The emulator of the Bits API is ready at http://{address}\n"
        f"Its client ID is {client_id!r}. "
        "Its client secret is the value of BITS_EMULATOR__CLIENT_SECRET (default: bits-demo-secret).\n"
        f"Point a proxy at it:          BITS_API_URL=http://{address} bits-auth-proxy run\n"
        f"See its counters and faults:  curl http://{address}/_emulator/state"
    )
