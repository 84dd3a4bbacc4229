"""A secret that is given by mistake where a path, a URL, a flag or a key belongs is never printed."""

from pathlib import Path

import pytest

from bits_auth_proxy.cli import healthcheck
from bits_auth_proxy.cli.main import main
from bits_auth_proxy.settings.disclosure import shown_path
from bits_auth_proxy.settings.fields import SettingField, fields, flag_of

SECRETS = [
    "s3cr3t-Canary-9d2f",
    "/x9Canary+fKabc/dEf==",
    "Canary" * 60,
    "-----BEGIN Canary KEY-----\nMIIC\n",
    "pasSword2",
]
"""Generated ones, base64 with a slash at its start, some too long for a file's name, a key, a short one."""
PATHS = [
    "BITS_CLIENT_SECRET_FILE",
    "BITS_CLIENT_ID_FILE",
    "BITS_CREDENTIALS_DIR",
    "BITS_UPSTREAM__CA_FILE",
    "BITS_UPSTREAM__CLIENT_KEY",
    "BITS_LISTEN_TLS__KEY",
    "BITS_CONFIG",
]
VALUES = [
    "BITS_API_URL",
    "BITS_TOKEN_URL",
    "BITS_HTTPS_PROXY",
    "BITS_LISTEN",
    "BITS_ADMIN_LISTEN",
    "BITS_ALLOW",
]
VALUES += ["BITS_ALLOWED_ORIGINS", "BITS_TOKEN_WAIT", "BITS_LOG_LEVEL", "BITS_INSPECT", "BITS_SOCKET_MODE"]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 64) -> str:
    """Run a command to its end; return what it printed."""
    assert main(arguments) == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def shows(text: str, secret: str) -> bool:
    """Return whether any telling part of a secret is in a text."""
    return any(part in text for part in (secret, secret[1:], "anary", "pasSword"))


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("variable", [*PATHS, *VALUES])
@pytest.mark.parametrize("command", ["check", "config"])
def test_in_a_variable_for_something_else(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    variable: str,
    secret: str,
) -> None:
    monkeypatch.setenv(variable, secret)
    text = said(capsys, command)
    assert f"{variable}: " in text
    assert not shows(text, secret)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("url", ["https://id:{}@api.test", "https://api.test/#{}", "{}://api.test"])
def test_in_a_url(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, secret: str
) -> None:
    monkeypatch.setenv("BITS_API_URL", url.format(secret))
    monkeypatch.setenv("BITS_TOKEN_URL", url.format(secret))
    assert not shows(said(capsys, "check"), secret)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "{}"),
        ("{}",),
        ("{}", "run"),
        ("run", "--client-secret={}"),
        ("run", "--client-secret", "{}"),
        ("run", "--{}"),
        ("run", "-{}"),
        ("run", "--nonsense={}"),
        ("run", "--drain-delay", "{}"),
        ("run", "--client-secret-file", "{}"),
        ("run", "--api-url={}"),
        ("run", "--config={}"),
        ("--version={}",),
        ("--={}",),
        ("config", "--schema={}"),
        ("healthcheck", "{}"),
        ("healthcheck", "--{}"),
    ],
)
def test_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    secret: str,
) -> None:
    monkeypatch.setenv("BITS_CREDENTIALS_WAIT", "0")
    text = said(capsys, *(argument.format(secret) for argument in arguments))
    assert not shows(text, secret)


@pytest.mark.parametrize("field", [field for field in fields() if field.secret], ids=lambda field: field.name)
def test_a_flag_for_a_secret_is_answered_with_the_variable(
    capsys: pytest.CaptureFixture[str], field: SettingField
) -> None:
    flag = flag_of(field.name)
    text = said(capsys, "run", flag, "s3cr3t")
    assert f"{flag}: others can read a command line; set {field.variable}" in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize("secret", SECRETS[:1])
@pytest.mark.parametrize(
    "toml",
    [
        '{} = "x"',
        '"{}" = "client_secret"',
        "[{}]\nx = 1",
        "[{}]\nx = 1\n[{}]\n",
        '[upstream]\n{} = "x"',
        'client_scret = "{}"',
        "client_secret = {}",
        'client_secret = "{}',
        'client_secret = ["{}"]',
        'token_wait = "{}"',
        '[client_secret]\nvalue = "{}"',
        '[upstream.client_secret]\nvalue = "{}"',
    ],
)
def test_in_a_toml_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, toml: str, secret: str) -> None:
    (tmp_path / "bits.toml").write_text(toml.replace("{}", secret), "utf-8")
    text = said(capsys, "check", "--config", str(tmp_path / "bits.toml"))
    assert "bits.toml" in text
    assert not shows(text, secret)


@pytest.mark.parametrize("line", ["{}", "BITS_CLIENT_SECRET {}", "BITS_CLIENT_SECRET: {}", "={}", "'{}"])
def test_in_an_env_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(line.format(SECRETS[0]), "utf-8")
    assert not shows(said(capsys, "check"), SECRETS[0])


def test_config_masks_it_in_second_places(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = SECRETS[0]
    monkeypatch.setenv("BITS_CLIENT_SECRET", secret)
    monkeypatch.setenv("BITS_NO_PROXY", secret)
    monkeypatch.setenv("BITS_CLIENT_ID", secret)
    assert not shows(said(capsys, "config", code=0), secret)
    monkeypatch.delenv("BITS_CLIENT_SECRET")
    monkeypatch.setenv("BITS_CLIENT_ID", "acme-7")
    monkeypatch.setenv("BITS_NO_PROXY", "")
    monkeypatch.setenv("BITS_SCOPE", f"application.read {secret}")
    monkeypatch.setenv("BITS_TOKEN_URL", f"https://api.test/token?client_secret={secret}")
    text = said(capsys, "config", code=0)
    assert not shows(text, secret)
    assert "acme-7" in text
    assert "https://api.test/token?" in text


def test_the_health_check_shows_what_resembles_an_address() -> None:
    assert not shows(healthcheck.check(SECRETS[0], None)[1], SECRETS[0])
    assert not shows(healthcheck.check(f"{SECRETS[0]}:{SECRETS[0]}", None)[1], SECRETS[0])
    assert "127.0.0.1:http" in healthcheck.check("127.0.0.1:http", None)[1]


@pytest.mark.parametrize("path", ["/run/no-such/client_secret", "/no/such", "{}/client_secret", "{}/A1/b/c"])
def test_what_is_a_path_without_doubt_is_shown(tmp_path: Path, path: str) -> None:
    (tmp_path / "A1").mkdir()
    shown = shown_path(Path(path.format(tmp_path)))
    assert shown.startswith(path.format(tmp_path).removesuffix("/b/c"))
    assert ("not shown" in shown) is path.endswith("/b/c")


def test_a_path_that_no_file_can_have_is_shown_as_far_as_it_exists(tmp_path: Path) -> None:
    path = tmp_path / ("Canary" * 60) / "key.pem"
    assert shown_path(path) == f"{tmp_path}/[not shown, because it may be a secret]"
