"""The event loop of a command, and what its errors mean."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

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


class Dns:
    """Stands in for the system's resolver: names hang until they are released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        self.fails = False
        self._resolve = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *rest: Any) -> Any:
        if rest[-1] & socket.AI_NUMERICHOST:
            return self._resolve(host, port, *rest)
        self.asked.append(host)
        self.release.wait()
        if self.fails:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    made = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.release.set()


async def look_up(host: str) -> str:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def test_a_hung_lookup_holds_up_neither_others_nor_the_end(dns: Dns) -> None:
    async def main() -> bool:
        hanging = [asyncio.ensure_future(look_up(f"{number}.silent.test")) for number in range(20)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(hanging[0]), 0.001)
        assert await look_up("127.0.0.1") == "127.0.0.1"
        assert await look_up("::1") == "::1"
        return True

    assert event_loop.run(main())
    assert len(dns.asked) == 20
    # The threads have not been waited for.
    assert not dns.release.is_set()


def test_lookups_of_one_name_share_a_thread_and_giving_up_takes_nothing_from_others(dns: Dns) -> None:
    async def main() -> bool:
        first, second, third = (asyncio.ensure_future(look_up("api.test")) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        dns.release.set()
        assert await second == await third == "192.0.2.1"
        return first.cancelled()

    assert event_loop.run(main())
    assert dns.asked == ["api.test"]


def test_a_lookup_that_has_hung_for_a_while_is_not_joined(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_SHARED_FOR", -1.0)

    async def main() -> bool:
        lookups = [asyncio.ensure_future(look_up("api.test")) for _ in range(2)]
        await asyncio.sleep(0)
        dns.release.set()
        return await asyncio.gather(*lookups) == ["192.0.2.1"] * 2

    assert event_loop.run(main())
    assert dns.asked == ["api.test"] * 2


def test_a_failed_lookup_is_an_error_and_forgotten(dns: Dns) -> None:
    dns.release.set()

    async def main() -> bool:
        dns.fails = True
        with pytest.raises(socket.gaierror):
            await look_up("api.test")
        dns.fails = False
        return await look_up("api.test") == "192.0.2.1"

    assert event_loop.run(main())
