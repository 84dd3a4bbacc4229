"""Where text for people goes."""

import io
import sys

import pytest

from bits_auth_proxy.cli.output import print_error, print_text


def test_results_and_errors_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("ready")
    print_error("in use")
    assert capsys.readouterr() == ("ready\n", "bits-auth-proxy: in use\n")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "→ bücher €"),
        ("latin-1", "-> bücher \\u20ac"),
        ("cp437", "-> bücher \\u20ac"),
        ("ascii", "-> b\\xfccher \\u20ac"),
        ("utf-16", "→ bücher €"),
    ],
)
def test_every_encoding_gets_what_it_has(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding, newline=""))
    print_text("→ bücher €")
    assert content.getvalue().decode(encoding) == f"{shown}\n"


def test_bytes_of_a_name_that_are_no_text_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="utf-8", newline=""))
    print_text("/a/\udcff")
    assert content.getvalue() == b"/a/\\udcff\n"
