"""A `.env` decides where credentials go only if it supplies them."""

from pathlib import Path

import pytest

from bits_auth_proxy.settings.loading import SettingsError, load

SECRET = "canary-s3cret"
PAIR = ["BITS_CLIENT_ID=acme", f"BITS_CLIENT_SECRET={SECRET}"]
URLS = ["BITS_API_URL=https://sandbox.test", "BITS_TOKEN_URL=https://tokens.test/token"]
OUTSIDE = {"BITS_CLIENT_ID": "acme", "BITS_CLIENT_SECRET": SECRET}


def faults(
    directory: Path,
    lines: list[str],
    environ: dict[str, str] | None = None,
    *,
    flags: dict[str, str] | None = None,
    config_file: Path | None = None,
    calls_api: bool = True,
) -> list[str]:
    """Return the faults of the settings with a `.env` of these lines in `directory`."""
    (directory / ".env").write_text("\n".join(lines), "utf-8")
    try:
        load(
            environ=environ or {},
            env_file=directory / ".env",
            flags=flags,
            config_file=None if config_file is None else str(config_file),
            credentials_required=calls_api,
            calls_api=calls_api,
        )
    except SettingsError as error:
        return error.faults
    return []


def test_what_supplies_the_secret_may_say_where_it_goes(tmp_path: Path) -> None:
    assert faults(tmp_path, [*PAIR, *URLS]) == []
    assert faults(tmp_path, [], OUTSIDE | {"BITS_API_URL": "https://sandbox.test"}) == []


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        (URLS[0], "BITS_API_URL"),
        (URLS[1], "BITS_TOKEN_URL"),
        ("BITS_HTTPS_PROXY=http://proxy.test:3128", "BITS_HTTPS_PROXY"),
        (f"BITS_UPSTREAM__CA_FILE={__file__}", "BITS_UPSTREAM__CA_FILE"),
        ("BITS_ALLOW_INSECURE_HTTP=true", "BITS_ALLOW_INSECURE_HTTP"),
    ],
)
@pytest.mark.parametrize(
    "supplier", ["BITS_CLIENT_SECRET", "BITS_CLIENT_SECRET_FILE", "BITS_CREDENTIALS_DIR"]
)
def test_it_leads_no_credentials_away_that_come_from_elsewhere(
    tmp_path: Path, line: str, variable: str, supplier: str
) -> None:
    value = {"BITS_CLIENT_SECRET": SECRET, "BITS_CLIENT_SECRET_FILE": __file__}.get(supplier, str(tmp_path))
    environ = {supplier: value} | ({} if supplier.endswith("DIR") else {"BITS_CLIENT_ID": "acme"})
    [fault] = faults(tmp_path, ["# a comment", line], environ)
    assert fault == (
        f"{variable}: .env must not decide where credentials go that come from elsewhere; set this in the "
        f"environment, or set {supplier} in .env, too (.env line 2)"
    )


def test_a_secret_in_the_environment_overrides_that_of_the_env_file_and_gets_no_destination_from_it(
    tmp_path: Path,
) -> None:
    [fault] = faults(tmp_path, [*PAIR, URLS[0]], {"BITS_CLIENT_SECRET": "another"})
    assert fault.startswith("BITS_API_URL: ")


def test_neither_does_a_file_of_settings_that_only_the_env_file_names(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text('api_url = "https://sandbox.test"\n', "utf-8")
    [fault] = faults(tmp_path, [f"BITS_CONFIG={toml}"], OUTSIDE)
    assert fault.startswith("BITS_API_URL: ")
    assert f"{toml} line 1" in fault
    assert faults(tmp_path, [], OUTSIDE, config_file=toml) == []
    assert faults(tmp_path, [f"BITS_CONFIG={toml}"], OUTSIDE | {"BITS_CONFIG": str(toml)}) == []


def test_a_file_of_settings_elsewhere_that_the_env_file_names_keeps_its_own_destination(
    tmp_path: Path,
) -> None:
    project, toml = tmp_path / "project", tmp_path / "bits.toml"
    project.mkdir()
    toml.write_text(
        f'client_id = "acme"\nclient_secret = "{SECRET}"\napi_url = "https://own.test"\n', "utf-8"
    )
    assert faults(project, [f"BITS_CONFIG={toml}"]) == []
    [fault] = faults(project, [f"BITS_CONFIG={toml}", *URLS[:1]])
    assert fault.startswith("BITS_API_URL: ")
    toml.write_text(f'credentials_dir = "{tmp_path}"\napi_url = "https://own.test"\n', "utf-8")
    [fault] = faults(project, [f"BITS_CONFIG={toml}"])
    assert f"{toml} line 2" in fault


def test_the_environment_and_flags_may_say_where_instead(tmp_path: Path) -> None:
    assert faults(tmp_path, URLS[:1], OUTSIDE | {"BITS_API_URL": "https://other.test"}) == []
    assert faults(tmp_path, URLS[:1], OUTSIDE, flags={"api_url": "https://other.test"}) == []
    # The token would still go where `.env` says.
    assert len(faults(tmp_path, URLS[:1], OUTSIDE | {"BITS_TOKEN_URL": "https://other.test/token"})) == 1


def test_credential_files_that_it_names_must_be_in_its_directory(tmp_path: Path) -> None:
    project, mounted = tmp_path / "project", tmp_path / "mounted"
    for directory in (project, project / "secrets", mounted):
        directory.mkdir()
        (directory / "client_secret").write_text("x", "utf-8")
    (project / "link").symlink_to(mounted)
    for place in (project, project / "secrets"):
        assert faults(project, [f"BITS_CREDENTIALS_DIR={place}", URLS[0]]) == []
    for place in (mounted, project / "link", project / ".." / "mounted"):
        [fault] = faults(project, [f"BITS_CREDENTIALS_DIR={place}", URLS[0]])
        assert "move the file that BITS_CREDENTIALS_DIR names into the directory of .env" in fault
        assert faults(project, [f"BITS_CREDENTIALS_DIR={place}"]) == []


def test_settings_that_lead_nowhere_else_are_free(tmp_path: Path) -> None:
    harmless = [
        "BITS_API_URL=https://api.bits.bi",
        "BITS_SCOPE=application",
        "BITS_ALLOW_INSECURE_HTTP=false",
    ]
    assert faults(tmp_path, harmless, OUTSIDE) == []


def test_a_command_with_an_api_of_its_own_does_not_mind(tmp_path: Path) -> None:
    assert faults(tmp_path, URLS, OUTSIDE, calls_api=False) == []
