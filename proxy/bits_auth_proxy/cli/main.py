"""The commands. Only the standard library is loaded here: each command loads what it needs.

Exit codes: 0, 1 failure, 64 bad usage or settings (EX_USAGE of sysexits.h).
"""

import argparse
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from bits_auth_proxy import __version__
from bits_auth_proxy.errors import OperatorError

if TYPE_CHECKING:
    from bits_auth_proxy.cli.live_view import LiveView
    from bits_auth_proxy.settings.loading import Loaded
    from bits_auth_proxy.telemetry.log import Redactor

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 64
PROGRAM: Final = "bits-auth-proxy"


class _Ground(NamedTuple):
    """What a command's main coroutine stands on."""

    loaded: "Loaded"
    redactor: "Redactor"
    view: "LiveView | None"


class _UsageError(OperatorError):
    """The command line can't be understood."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}\nTry: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    # The first process of a container has no default action: without a handler SIGTERM would be lost on it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = _Parser(
        prog=PROGRAM,
        description="Auth-injecting reverse proxy sidecar for the Bits API.",
        epilog="commands:\n"
        + "".join(f"  {name:<12} {command.__doc__ or ''}\n" for name, command in _COMMANDS.items())
        + f"\n`{PROGRAM} COMMAND --help` lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="what to do")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    try:
        known = parser.parse_args(arguments)
        return _COMMANDS[known.command](known.options)
    except _UsageError as error:
        return _complain(USAGE, str(error))
    except SystemExit as error:  # argparse's way to end --help and --version
        return int(error.code or OK)
    except KeyboardInterrupt:
        return FAILURE
    except BrokenPipeError:
        # Who read our output has seen enough; the interpreter would complain once more at its end.
        sys.stdout = None
        return FAILURE


def _run(options: Sequence[str]) -> int:
    """Serve: forward requests to the Bits API with a valid token."""
    return _with_settings("run", options, _serve, credentials_required=True)


def _demo(options: Sequence[str]) -> int:
    """Serve against the embedded emulator; needs no credentials."""
    return _with_settings("demo", options, _serve_demo, credentials_required=False)


def _emulator(options: Sequence[str]) -> int:
    """Serve the Bits API emulator alone."""
    return _with_settings("emulator", options, _serve_emulator, credentials_required=False)


def _check(options: Sequence[str]) -> int:
    """Try settings, DNS, TLS, token and owner; one line each."""
    return _with_settings("check", options, _examine, credentials_required=True)


def _healthcheck(options: Sequence[str]) -> int:
    """Ask a running proxy whether it is ready; for exec probes."""
    from bits_auth_proxy.cli import healthcheck  # noqa: PLC0415

    parser = _Parser(prog=f"{PROGRAM} healthcheck", description=_healthcheck.__doc__)
    parser.add_argument("--admin-listen", metavar="ADDRESS", help="where to ask (BITS_ADMIN_LISTEN)")
    parser.add_argument("--config", metavar="FILE", help="TOML file that says where (BITS_CONFIG)")
    known = parser.parse_args(options)
    healthy, text = healthcheck.check(known.admin_listen, known.config)
    print(text)
    return OK if healthy else FAILURE


def _config(options: Sequence[str]) -> int:
    """Show the effective settings and where they come from."""
    from bits_auth_proxy.settings import reference  # noqa: PLC0415

    parser = _settings_parser("config", _config.__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--schema", action="store_true", help="print the JSON schema of the TOML file")
    which.add_argument("--env", action="store_true", help="print a commented .env with every setting")
    known = parser.parse_args(options)
    if known.schema or known.env:
        print(reference.as_json_schema() if known.schema else reference.as_env())
        return OK
    loaded = _load(known, credentials_required=False)
    if loaded is None:
        return USAGE
    rows = reference.effective(loaded)
    width = max(len(variable) for variable, _, _ in rows)
    for variable, value, origin in rows:
        print(f"{variable:<{width}}  {value or '(unset)'}  ({origin})")
    return OK


_COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "run": _run,
    "demo": _demo,
    "emulator": _emulator,
    "check": _check,
    "healthcheck": _healthcheck,
    "config": _config,
}


# Settings and the event loop.


def _settings_parser(command: str, description: str | None) -> _Parser:
    from bits_auth_proxy.settings import reference  # noqa: PLC0415

    parser = _Parser(prog=f"{PROGRAM} {command}", description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (BITS_CONFIG)")
    for field in reference.fields():
        if field.flag is not None:
            parser.add_argument(
                field.flag,
                dest=field.name,
                metavar=field.kind.upper(),
                help=f"{field.description} ({field.variable})".replace("%", "%%"),
            )
    return parser


def _load(known: argparse.Namespace, *, credentials_required: bool) -> "Loaded | None":
    """Return the settings, or None after having said all that is wrong with them."""
    from bits_auth_proxy.settings import loading  # noqa: PLC0415

    own = ("config", "schema", "env")
    flags = {name: value for name, value in vars(known).items() if value is not None and name not in own}
    try:
        loaded = loading.load(
            flags=flags,
            config_file=known.config,
            credentials_required=credentials_required,
        )
    except loading.SettingsError as error:
        faults = "".join(f"  {fault}\n" for fault in error.faults)
        count = len(error.faults)
        print(f"{PROGRAM}: {count} setting{'s' * (count != 1)} to change:\n{faults}", end="", file=sys.stderr)
        return None
    return loaded


def _with_settings(
    command: str,
    options: Sequence[str],
    action: Callable[[_Ground], Coroutine[Any, Any, bool]],
    *,
    credentials_required: bool,
) -> int:
    """Read the settings, set the log up and run `action` in an event loop."""
    known = _settings_parser(command, _COMMANDS[command].__doc__).parse_args(options)
    loaded = _load(known, credentials_required=credentials_required)
    if loaded is None:
        return USAGE
    import structlog  # noqa: PLC0415

    from bits_auth_proxy.errors import SettingError  # noqa: PLC0415
    from bits_auth_proxy.telemetry import events  # noqa: PLC0415
    from bits_auth_proxy.telemetry.log import Redactor, configure  # noqa: PLC0415

    settings = loaded.settings
    redactor = Redactor()
    view = _live_view(command, loaded)
    # The log is what `run` prints; the other commands print something for people.
    stream: Any = sys.stdout if command == "run" else sys.stderr
    fmt = settings.log_format or ("console" if stream.isatty() else "json")
    if view is not None and stream.isatty():
        stream = view
    configure(level=settings.log_level, fmt=fmt, redactor=redactor, stream=stream)
    # `check` tells these itself.
    for warning in loaded.warnings if command != "check" else ():
        structlog.get_logger("bits_auth_proxy").warning(events.SETTING_UNKNOWN.name, detail=warning)
    for path in loaded.exposed if command != "check" else ():
        structlog.get_logger("bits_auth_proxy").warning(events.CREDENTIALS_EXPOSED.name, file=str(path))
    try:
        clean = _in_event_loop(action(_Ground(loaded, redactor, view)))
    except SettingError as error:
        return _complain(USAGE, str(error))
    except OperatorError as error:
        return _complain(FAILURE, str(error))
    return OK if clean else FAILURE


def _live_view(command: str, loaded: "Loaded") -> "LiveView | None":
    """Return the live view where there is a terminal for it, and nobody asked for log lines."""
    import shutil  # noqa: PLC0415

    from bits_auth_proxy.settings.sources import environment  # noqa: PLC0415

    terminal = environment().get("TERM", "dumb")
    plain = command not in ("run", "demo") or "log_format" in loaded.origins or terminal == "dumb"
    if plain or not sys.stdout.isatty():
        return None
    from bits_auth_proxy.cli.live_view import LiveView  # noqa: PLC0415

    return LiveView(
        terminal=sys.stdout,
        color="NO_COLOR" not in environment(),
        size=shutil.get_terminal_size,
    )


def _in_event_loop(main_coroutine: Coroutine[Any, Any, bool]) -> bool:
    import asyncio  # noqa: PLC0415 - twice the time of what a health check loads

    try:
        import uvloop  # noqa: PLC0415
    except ImportError:  # where there is none for this platform
        return asyncio.run(main_coroutine)
    return uvloop.run(main_coroutine)


def _complain(code: int, text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return code


# The commands' main coroutines; each returns whether all went well.


async def _serve(ground: _Ground) -> bool:
    from bits_auth_proxy import sidecar  # noqa: PLC0415
    from bits_auth_proxy.settings.credentials import CredentialSource  # noqa: PLC0415

    settings, view = ground.loaded.settings, ground.view
    try:
        return await sidecar.serve(
            settings,
            credentials=CredentialSource.from_settings(settings),
            redactor=ground.redactor,
            started=None if view is None else lambda running: view.start(running.activity),
        )
    finally:
        if view is not None:
            view.stop()


async def _serve_demo(ground: _Ground) -> bool:
    from bits_auth_proxy.cli import demo  # noqa: PLC0415

    view = ground.view
    try:
        return await demo.serve(
            ground.loaded,
            redactor=ground.redactor,
            say=_say,
            watch=None if view is None else lambda running: view.start(running.activity),
        )
    finally:
        if view is not None:
            view.stop()


async def _serve_emulator(ground: _Ground) -> bool:
    from bits_auth_proxy.cli import demo  # noqa: PLC0415

    return await demo.serve_emulator(ground.loaded.settings, redactor=ground.redactor, say=_say)


def _say(text: str) -> None:
    # Flushed: into a pipe, it would come when the command ends.
    print(text, flush=True)


def _tell(outcome: str, step: str, text: str) -> None:
    _say(f"{outcome:<5} {step:<9} {text}")


async def _examine(ground: _Ground) -> bool:
    from bits_auth_proxy import assembly  # noqa: PLC0415
    from bits_auth_proxy.cli import check  # noqa: PLC0415
    from bits_auth_proxy.clock import SystemClock  # noqa: PLC0415
    from bits_auth_proxy.settings import reference  # noqa: PLC0415
    from bits_auth_proxy.settings.credentials import CredentialSource  # noqa: PLC0415

    settings, redactor = ground.loaded.settings, ground.redactor
    clock = SystemClock()
    credentials = assembly.concealed(CredentialSource.from_settings(settings).read(), redactor)
    assembly.listen_certificate(settings)
    context = assembly.trust(settings)
    for warning in ground.loaded.warnings:
        _tell("warn", "settings", warning)
    for path in ground.loaded.exposed:
        _tell("warn", "settings", f"{path} holds a secret, and any user of this machine may read it")
    _tell("ok", "settings", "complete")
    oauth = assembly.build_oauth(settings, context=context, clock=clock)
    egress = assembly.egress_proxy(settings, redactor)
    clear = True
    try:
        async for finding in check.examine(
            api_url=settings.api_url,
            through=f"{egress.host}:{egress.port}" if egress else None,
            context=context,
            oauth=oauth,
            credentials=credentials,
            clock=clock,
        ):
            clear = clear and finding.ok
            _tell("ok" if finding.ok else "FAIL", finding.step, redactor.redact(finding.text))
            for variable, value, origin in reference.effective(ground.loaded, only=finding.about):
                if value:
                    print(f"{'':<15} {variable} = {value}  ({origin.removesuffix(f' {variable}')})")
            if finding.hint:
                print(f"{'':<15} → {finding.hint}")
    finally:
        await oauth.close()
    return clear
