"""The dispatcher: from a command's name to its exit code."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from bits_auth_proxy.cli import check, config, demo, emulator, healthcheck, run
from bits_auth_proxy.cli.exit_codes import CommandError
from bits_auth_proxy.cli.main import COMMANDS, main


@pytest.fixture(autouse=True)
def _process_restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers, stdout = [signal.getsignal(number) for number in numbers], sys.stdout
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    sys.stdout = stdout


def raising(error: BaseException) -> Callable[[argparse.ArgumentParser, Sequence[str]], bool]:
    def command(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
        raise error

    return command


@pytest.mark.parametrize("module", [check, config, demo, emulator, healthcheck, run])
def test_each_command_is_the_module_of_its_name(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, Sequence[str]]] = []

    def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
        called.append((parser.prog, options))
        return True

    name = str(getattr(module, "__name__", "")).rpartition(".")[2]
    monkeypatch.setattr(module, "execute", execute)
    assert main([name, "--config", "x"]) == 0
    assert called == [(f"bits-auth-proxy {name}", ["--config", "x"])]
    assert len(COMMANDS) == 6


@pytest.mark.parametrize(("succeeded", "code"), [(True, 0), (False, 1)])
def test_the_outcome_is_the_exit_code(succeeded: bool, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "run", lambda *_: succeeded)
    assert main(["run"]) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("BITS_LISTEN: no", exit_code=64), 64, "bits-auth-proxy: BITS_LISTEN: no\n"),
        (CommandError("in use", exit_code=1), 1, "bits-auth-proxy: in use\n"),
        (KeyboardInterrupt(), 1, ""),
        (BrokenPipeError(), 1, ""),
        (SystemExit(143), 143, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(COMMANDS, "run", raising(error))
    assert main(["run"]) == code
    assert capsys.readouterr().err == said


def test_a_call_without_a_command_says_that_one_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert capsys.readouterr().err == (
        "bits-auth-proxy: the following arguments are required: COMMAND\nTry: bits-auth-proxy --help\n"
    )


def test_sigterm_ends_a_command_that_has_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return True

    monkeypatch.setitem(COMMANDS, "check", command)
    assert main(["check"]) == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_sighup_is_ignored_by_the_commands_that_will_handle_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    def command(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
        found.append(signal.getsignal(signal.SIGHUP))
        return True

    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setitem(COMMANDS, name, command)
    assert main([name]) == 0
    assert found == [signal.SIG_IGN if name in ("run", "demo") else before]
