"""The dispatcher: loads the module of the command that the user named, and runs it.

Exit codes: 0 success, 1 failure, 64 bad usage or settings, 143 if SIGTERM arrives before a command serves.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from bits_auth_proxy import __version__
from bits_auth_proxy.cli.exit_codes import FAILURE, OK, USAGE, CommandError
from bits_auth_proxy.cli.output import PROGRAM, print_error

_OPTION: Final = re.compile(r"--[a-z]+(-[a-z]+)*(?==|\Z)")
_COMMAND: Final = re.compile(r"[a-z]{1,12}")
_QUOTED_INPUT: Final = re.compile(r"(ignored explicit argument|ambiguous option:).*")
_NO_OPTIONS: Final = {
    "--client-secret": "BITS_CLIENT_SECRET or BITS_CLIENT_SECRET_FILE",
    "--emulator-client-secret": "BITS_EMULATOR__CLIENT_SECRET",
    "--https-proxy": "BITS_HTTPS_PROXY",
}
"""What to set instead of the options that secrets do not have."""


class CommandParser(argparse.ArgumentParser):
    """A parser that raises CommandError where argparse would print its usage and exit with 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an argument that is not known is an error, whose text shows only what can't be a secret."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = _OPTION.match(unknown[0])
            name = option[0] if option else "(not shown, because it may be a secret)"
            instead = _NO_OPTIONS.get(name)
            remedy = f": others can read a command line; set {instead}" if instead else ""
            raise _usage_error(self, f"unrecognized argument {name}{remedy}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Point the user at the help."""
        message = _QUOTED_INPUT.sub(r"\1 (not shown, because it may be a secret)", message)
        raise _usage_error(self, message)


def _usage_error(parser: argparse.ArgumentParser, message: str) -> CommandError:
    return CommandError(f"{message}\nTry: {parser.prog} --help", exit_code=USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # Python sets a stream to None if it was closed before the start.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    try:
        parser = _parser()
        known = parser.parse_args(arguments)
        if known.command in _RELOADING:
            # There is nothing to re-read yet, and the default action would end the process.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # The first process of a container (PID 1) has no default action: without a handler, the kernel would
        # ignore SIGTERM.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        command = COMMANDS.get(known.command)
        if command is None:
            shown = f" {known.command!r}" if _COMMAND.fullmatch(known.command) else ""
            raise _usage_error(parser, f"there is no such command{shown}; choose from {', '.join(COMMANDS)}")
        own_parser = CommandParser(prog=f"{PROGRAM} {known.command}", description=command.__doc__)
        return OK if command(own_parser, known.options) else FAILURE
    except CommandError as error:
        print_error(str(error))
        return error.exit_code
    except SystemExit as error:  # argparse ends --help and --version this way
        return int(error.code or OK)
    except KeyboardInterrupt:
        return FAILURE
    except BrokenPipeError:
        # The reader of our output has closed its end. The interpreter would flush once more and complain.
        sys.stdout = None
        return FAILURE


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


_RELOADING: Final = ("run", "demo")
"""The commands that re-read files on SIGHUP, once they serve."""


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=PROGRAM,
        description="A reverse proxy that adds a valid OAuth token to your requests to the Bits API.",
        epilog="commands:\n"
        + "".join(f"  {name:<12} {command.__doc__ or ''}\n" for name, command in COMMANDS.items())
        + f"\n`{PROGRAM} COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="the command to run")
    options = parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    # Otherwise, some versions of argparse say of a call without a command that the options are missing too.
    options.required = False
    return parser


# The commands. Each loads its module when it is called: importing `run` at the top would cost 350 ms of CPU,
# and `healthcheck`, which probes repeat every few seconds, takes 33 ms in all. The docstring is the summary.


def _run(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Forward requests to the Bits API with a valid token."""
    from bits_auth_proxy.cli import run

    return run.execute(parser, options)


def _demo(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Run the proxy with an emulator of the Bits API; no credentials are needed."""
    from bits_auth_proxy.cli import demo

    return demo.execute(parser, options)


def _emulator(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Run the emulator of the Bits API without the proxy."""
    from bits_auth_proxy.cli import emulator

    return emulator.execute(parser, options)


def _check(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Check the settings, DNS, TLS, the token and its owner; print a line for each."""
    from bits_auth_proxy.cli import check

    return check.execute(parser, options)


def _healthcheck(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Ask a running proxy whether it is ready; for exec probes."""
    from bits_auth_proxy.cli import healthcheck

    return healthcheck.execute(parser, options)


def _config(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Show the settings in effect and where each of them comes from."""
    from bits_auth_proxy.cli import config

    return config.execute(parser, options)


COMMANDS: Final[dict[str, Callable[[argparse.ArgumentParser, Sequence[str]], bool]]] = {
    "run": _run,
    "demo": _demo,
    "emulator": _emulator,
    "check": _check,
    "healthcheck": _healthcheck,
    "config": _config,
}
"""Each returns whether it succeeded. It may raise CommandError."""
