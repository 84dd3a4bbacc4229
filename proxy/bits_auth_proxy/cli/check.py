"""`bits-auth-proxy check`: examines the settings and the way to the Bits API, and prints a line per step."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from bits_auth_proxy import assembly
from bits_auth_proxy.cli import event_loop
from bits_auth_proxy.cli.arguments import parse_settings
from bits_auth_proxy.cli.examination import Finding, examine
from bits_auth_proxy.cli.log_setup import set_up_log
from bits_auth_proxy.cli.output import print_text
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.settings import reference
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.permissions import mode_of
from bits_auth_proxy.telemetry.log import Redactor

_INDENT: Final = " " * 16


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Print the findings; return whether all steps passed. Raises CommandError."""
    loaded = parse_settings(parser, options, credentials_required=True)
    redactor = set_up_log(loaded.settings, stream=sys.stderr)
    return event_loop.run(_examine(loaded, redactor=redactor))


async def _examine(loaded: Loaded, *, redactor: Redactor) -> bool:
    settings = loaded.settings
    clock = SystemClock()
    for warning in loaded.warnings:
        _print_step("warn", "settings", warning)
    source = CredentialSource.from_settings(settings)
    for path in (*loaded.exposed, *source.exposed_files()):
        text = f"{path} holds a secret, and any user of this machine may read it (mode {mode_of(path)})"
        _print_step("warn", "settings", text)
    pair = assembly.read_in_time(source)
    credentials = assembly.concealed(pair, redactor)
    for oddity in source.oddities(pair):
        _print_step("warn", "settings", oddity)
    assembly.listen_certificate(settings)
    context = assembly.trust(settings)
    _print_step("ok", "settings", "complete")
    oauth = assembly.build_oauth(settings, context=context, clock=clock)
    egress = assembly.egress_proxy(settings, redactor)
    passed = True
    try:
        async for finding in examine(
            api_url=settings.api_url,
            egress=None if egress is None else str(egress),
            context=None if context is None else context.context,
            oauth=oauth,
            token_variable="BITS_API_URL" if settings.token_url is None else "BITS_TOKEN_URL",
            credentials=credentials,
            clock=clock,
            expected_customer=settings.expected_customer_id,
        ):
            passed = passed and finding.ok
            _print_finding(finding, loaded, redactor)
    finally:
        await oauth.close()
    return passed


def _print_finding(finding: Finding, loaded: Loaded, redactor: Redactor) -> None:
    _print_step("ok" if finding.ok else "FAIL", finding.step, redactor.redact(finding.text))
    for variable, value, origin in reference.effective(loaded, only=finding.settings):
        if value:
            print_text(f"{_INDENT}{variable} = {value}  ({origin.removesuffix(f' {variable}')})")
    if finding.hint:
        print_text(f"{_INDENT}→ {finding.hint}")


def _print_step(outcome: str, step: str, text: str) -> None:
    print_text(f"{outcome:<5} {step:<9} {text}")
