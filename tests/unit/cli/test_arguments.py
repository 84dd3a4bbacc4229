"""The flags, and the settings that they lead to."""

from pathlib import Path

import pytest

from bits_auth_proxy.cli.arguments import parse_settings
from bits_auth_proxy.cli.exit_codes import USAGE, CommandError
from bits_auth_proxy.cli.main import CommandParser
from bits_auth_proxy.settings import reference
from bits_auth_proxy.settings.loading import Loaded

SECRET = "canary-9c1d"


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for field in reference.fields():
        monkeypatch.delenv(field.variable, raising=False)
    monkeypatch.delenv("BITS_CONFIG", raising=False)


def parsed(*options: str, credentials_required: bool = False) -> Loaded:
    return parse_settings(CommandParser(prog="x"), options, credentials_required=credentials_required)


def test_a_flag_is_a_setting_and_says_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "bits.toml").write_text("drain_delay = 1\ntoken_wait = 2\n", "utf-8")
    loaded = parsed(
        "--config", str(tmp_path / "bits.toml"), "--drain-delay=7", "--upstream-max-connections=3"
    )
    assert loaded.settings.drain_delay == 7
    assert loaded.settings.token_wait == 2
    assert loaded.settings.upstream.max_connections == 3
    assert loaded.origins["drain_delay"] == "flag --drain-delay"
    assert "access_log" not in loaded.origins


def test_every_setting_but_the_secrets_is_in_the_help() -> None:
    parser = CommandParser(prog="x")
    with pytest.raises(SystemExit):
        parse_settings(parser, ["--help"], credentials_required=False)
    text = parser.format_help()
    for field in reference.fields():
        assert (f"({field.variable})" in "".join(text.split())) is (field.flag is not None)


def test_the_help_tells_a_directory_from_a_file() -> None:
    parser = CommandParser(prog="x")
    with pytest.raises(SystemExit):
        parse_settings(parser, ["--help"], credentials_required=False)
    text = parser.format_help()
    assert "--credentials-dir DIRECTORY" in text
    assert "--client-id-file FILE" in text


def test_flags_have_no_abbreviations() -> None:
    with pytest.raises(CommandError, match="--drain-del") as caught:
        parsed("--drain-del=7")
    assert caught.value.exit_code == USAGE


def test_all_faults_are_listed_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITS_CLIENT_SECRET", SECRET)
    with pytest.raises(CommandError) as caught:
        parsed("--drain-delay=soon", credentials_required=True)
    first, *faults = str(caught.value).split("\n")
    assert first == "2 settings must be changed:"
    assert {fault.partition(":")[0] for fault in faults} == {"  BITS_DRAIN_DELAY", "  BITS_CLIENT_ID"}
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == USAGE
    with pytest.raises(CommandError, match=r"^1 setting must be changed:\n"):
        parsed("--drain-delay=soon")
