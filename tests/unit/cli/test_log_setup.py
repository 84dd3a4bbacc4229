"""The log of a command: its stream, its format, and the warnings about the settings."""

import io
import json
from collections.abc import Iterator
from os import terminal_size
from pathlib import Path

import pytest
import structlog

from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.log_setup import log_warnings, set_up_log
from bits_auth_proxy.settings.loading import Loaded, load
from tests.support.line_writers import direct
from tests.support.logging_state import logging_restored


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    with logging_restored():
        yield


def loaded(**environ: str) -> Loaded:
    return load(environ=environ, env_file=None, credentials_required=False)


def test_slips_and_exposed_secrets_are_events() -> None:
    stream = io.StringIO()
    given = loaded(BITS_CLIENT_SECERT="x")._replace(exposed=(Path("/x/.env"),))
    set_up_log(given.settings, stream=stream)
    log_warnings(given)
    slip, exposed = map(json.loads, stream.getvalue().splitlines())
    assert (slip["event"], slip["level"]) == ("setting_unknown", "warning")
    assert "BITS_CLIENT_SECERT" in slip["detail"]
    assert (exposed["event"], exposed["file"]) == ("credentials_readable_by_others", "/x/.env")


@pytest.mark.parametrize(
    ("stream", "environ", "is_json"),
    [
        (io.StringIO(), {}, True),
        (Screen(), {}, False),
        (Screen(), {"BITS_LOG_FORMAT": "json"}, True),
        (io.StringIO(), {"BITS_LOG_FORMAT": "console"}, False),
    ],
)
def test_the_format_is_the_streams_unless_it_is_set(
    stream: io.StringIO, environ: dict[str, str], is_json: bool
) -> None:
    set_up_log(loaded(**environ).settings, stream=stream)
    structlog.get_logger().info("hello")
    assert stream.getvalue().startswith("{") is is_json


@pytest.mark.parametrize("stream", [io.StringIO(), Screen()], ids=["elsewhere", "terminal"])
def test_the_log_goes_above_the_view_where_both_are_on_the_terminal(stream: io.StringIO) -> None:
    terminal = Screen()
    view = LiveView(terminal=direct(terminal), color=False, size=lambda: terminal_size((80, 24)))
    redactor = set_up_log(loaded().settings, stream=stream, view=view)
    redactor.add("canary-secret", pinned=True)
    structlog.get_logger().info("hello", value="canary-secret")
    filled, empty = (terminal, stream) if stream.isatty() else (stream, terminal)
    assert "hello" in filled.getvalue()
    assert empty.getvalue() == ""
    assert "canary-secret" not in filled.getvalue()


@pytest.mark.parametrize(
    ("environ", "colored"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colors_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], colored: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    stream = Screen()
    set_up_log(loaded().settings, stream=stream)
    structlog.get_logger().info("hello")
    assert ("\x1b[" in stream.getvalue()) is colored


def test_a_scope_that_may_be_a_secret_is_not_logged() -> None:
    stream = io.StringIO()
    redactor = set_up_log(loaded(BITS_SCOPE="application.read s3cr3t-canary").settings, stream=stream)
    assert redactor.redact("application.read s3cr3t-canary") == "application.read [redacted]"
