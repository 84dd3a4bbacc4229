"""The event loop of a command, and what its errors mean."""

import asyncio

import pytest
import uvloop

from bits_auth_proxy.cli import event_loop
from bits_auth_proxy.cli.exit_codes import FAILURE, USAGE, CommandError
from bits_auth_proxy.errors import OperatorError, SettingError
from bits_auth_proxy.settings.credentials import CredentialsError


@pytest.mark.parametrize("outcome", [True, False])
def test_it_returns_what_the_coroutine_returns_and_is_uvloop(outcome: bool) -> None:
    async def main() -> bool:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        return outcome

    assert event_loop.run(main()) is outcome


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperatorError("BITS_LISTEN: in use"), FAILURE),
        (SettingError("BITS_UPSTREAM__CA_FILE: not usable"), USAGE),
        (CredentialsError("BITS_CLIENT_ID_FILE: can't be read"), USAGE),
    ],
)
def test_what_the_operator_must_change_is_an_error_of_the_command(error: Exception, code: int) -> None:
    async def main() -> bool:
        raise error

    with pytest.raises(CommandError) as caught:
        event_loop.run(main())
    assert (str(caught.value), caught.value.exit_code) == (str(error), code)


def test_other_errors_pass() -> None:
    async def main() -> bool:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        event_loop.run(main())
