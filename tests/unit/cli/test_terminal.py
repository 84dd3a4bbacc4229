"""Which standard output gets a live view."""

import io
import sys

import pytest

from bits_auth_proxy.cli.live_view import LiveView
from bits_auth_proxy.cli.terminal import live_view
from bits_auth_proxy.settings.loading import load


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def view(
    monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO, term: str | None, **environ: str
) -> LiveView | None:
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    return live_view(load(environ=environ, env_file=None, credentials_required=False))


def test_a_terminal_gets_one_with_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = view(monkeypatch, Screen(), "xterm")
    assert shown is not None
    assert shown.isatty()


@pytest.mark.parametrize(
    ("stdout", "term", "environ"),
    [
        (io.StringIO(), "xterm", {}),
        (Screen(), "dumb", {}),
        (Screen(), None, {}),
        (Screen(), "xterm", {"BITS_LOG_FORMAT": "json"}),
    ],
    ids=["pipe", "dumb", "unknown", "log format set"],
)
def test_where_there_is_none(
    stdout: io.StringIO, term: str | None, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view(monkeypatch, stdout, term, **environ) is None
