"""The embedded emulator, and the settings of a proxy that forwards to it."""

import socket
from pathlib import Path

import pytest

from bits_auth_proxy.cli.emulation import emulating, settings_for
from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.settings.addresses import TcpAddress, UnixAddress
from bits_auth_proxy.settings.loading import Loaded, load
from bits_auth_proxy.telemetry.log import REDACTED, Redactor
from tests.support.commands import get

EMULATOR = TcpAddress("127.0.0.1", 8090)


def loaded(**environ: str) -> Loaded:
    return load(environ=environ, env_file=None, credentials_required=False)


def test_the_proxy_gets_the_address_and_the_credentials_of_the_emulator() -> None:
    given = loaded(
        BITS_API_URL="https://api.example",
        BITS_TOKEN_URL="https://token.example/token",
        BITS_CLIENT_ID="own",
        BITS_CLIENT_SECRET="own-secret",
        BITS_EMULATOR__CLIENT_SECRET="canary-secret",
        BITS_TOKEN_WAIT="3",
    )
    settings = settings_for(EMULATOR, given, access_log="all")
    assert settings.api_url == "http://127.0.0.1:8090"
    assert settings.effective_token_url == "http://127.0.0.1:8090/v1/oauth2/token"
    assert settings.client_id == "bits-demo"
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == "canary-secret"
    assert settings.token_wait == 3


def test_files_of_credentials_are_left_out(tmp_path: Path) -> None:
    for name in ("client_id", "client_secret"):
        (tmp_path / name).write_text("own", "utf-8")
    settings = settings_for(EMULATOR, loaded(BITS_CREDENTIALS_DIR=str(tmp_path)), access_log="all")
    assert settings.credentials_dir is None


@pytest.mark.parametrize(("environ", "access_log"), [({}, "all"), ({"BITS_ACCESS_LOG": "off"}, "off")])
def test_the_users_choice_of_access_log_wins(environ: dict[str, str], access_log: str) -> None:
    assert settings_for(EMULATOR, loaded(**environ), access_log="all").access_log == access_log


async def test_it_serves_on_a_free_port_and_its_secret_is_redacted() -> None:
    settings = loaded(
        BITS_EMULATOR__LISTEN="127.0.0.1:0", BITS_EMULATOR__CLIENT_SECRET="canary-secret"
    ).settings
    redactor = Redactor()
    async with emulating(settings.emulator, redactor) as address:
        assert (await get(f"http://{address}/_emulator/state"))[0] == 200
    assert redactor.redact("canary-secret") == REDACTED


async def test_addresses_that_it_cannot_listen_on() -> None:
    settings = loaded().settings.emulator
    unix = settings.model_copy(update={"listen": UnixAddress("/run/emulator.sock")})
    with pytest.raises(OperatorError, match=r"^BITS_EMULATOR__LISTEN: .*host:port"):
        async with emulating(unix, Redactor()):
            pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_address = TcpAddress("127.0.0.1", taken.getsockname()[1])
        used = settings.model_copy(update={"listen": taken_address})
        with pytest.raises(OperatorError, match=r"^BITS_EMULATOR__LISTEN: .*in use"):
            async with emulating(used, Redactor()):
                pass
