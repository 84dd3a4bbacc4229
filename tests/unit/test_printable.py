"""Nothing that comes from elsewhere makes a terminal do anything but show text."""

import io
import json
import logging
import re
from collections.abc import Iterator
from os import terminal_size
from typing import Any

import pytest
import structlog

from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.output import print_error, print_text
from bits_auth_proxy.printable import printable
from bits_auth_proxy.telemetry.log import Redactor, configure
from tests.support.line_writers import direct
from tests.support.logging_state import logging_restored
from tests.unit.cli.test_live_view import activity, exchange

HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b2J",
    "\x08\x08",
    "\r",
    "\x7f",
    "\x85",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "\u200fx",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\U000e0041",
]
ORDINARY = "caf\xe9 \u2192 \u6f22\u5b57 \U0001f511 plain"


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    with logging_restored():
        yield


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    shown = printable(text)
    assert shown != text
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == text


def test_ordinary_text_stays_as_it_is() -> None:
    assert printable(ORDINARY) == ORDINARY
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("stream", [io.StringIO, Screen])
def test_the_log_shows_none_of_it(fmt: str, text: str, stream: type[io.StringIO]) -> None:
    output = stream()
    configure(level="info", fmt=fmt, redactor=Redactor(), stream=output)
    log = structlog.get_logger()
    event = f"event{text}"
    log.info(event, value=text, **{f"name{text}": [text, {text: text}]}, spaced=f"a b{text}")
    logging.getLogger("aiohttp.client").warning("library %s", text)
    try:
        fail(text)
    except ValueError:
        log.exception("failed")
        logging.getLogger("aiohttp.client").exception("library failed %s", text)
    # The log's own colours are not what this is about.
    shown = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue())
    assert all(line.isprintable() for line in shown.split("\n"))
    if fmt == "json":
        assert json.loads(shown.splitlines()[0])["value"] == text


async def test_the_live_view_shows_none_of_it() -> None:
    for text in HOSTILE:
        output = io.StringIO()
        view = LiveView(terminal=direct(output), color=False, size=lambda: terminal_size((200, 24)))
        shown: dict[str, Any] = activity(exchanges=[{**exchange(1), "operation": text}], api=text)
        shown["token"] = {**shown["token"], "last_error": text}
        view.start(lambda shown=shown: shown)  # type: ignore[misc]
        view.stop()
        frame = output.getvalue().partition("\x1b[?2026h")[2].partition("\x1b[?2026l")[0]
        assert all(line.isprintable() for line in frame.split("\n")), text


@pytest.mark.parametrize("text", HOSTILE)
def test_results_and_errors_show_none_of_it(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_text(f"one{text}\ntwo")
    print_error(f"one{text}\ntwo")
    for shown in capsys.readouterr():
        assert len(shown.splitlines()) == 2
        assert all(line.isprintable() for line in shown.split("\n"))
