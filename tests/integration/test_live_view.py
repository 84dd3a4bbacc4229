"""The live view of the real command on a real terminal, and the cases without one."""

import asyncio
import re

import aiohttp
import pytest

from tests.support.stand import APPLICATION, CREATE
from tests.support.terminal import Terminal, on_terminal
from tests.support.waiting import HANGS

PORTS = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


def view_of(lines: list[str]) -> list[str]:
    """Return the lines of the view: from its rule on."""
    start = next((index for index, line in enumerate(lines) if line.startswith("── bits-auth-proxy")), None)
    return [] if start is None else lines[start:]


def row(lines: list[str], number: int) -> str:
    """Return a line of the view, none while it is being drawn."""
    view = view_of(lines)
    return view[number] if -len(view) <= number < len(view) else ""


def token_is_fresh(lines: list[str]) -> bool:
    return "fresh · refresh in" in row(lines, 1) and row(lines, 4) != ""


async def origins(terminal: Terminal) -> tuple[str, str]:
    """Return where the proxy and where the emulator are, as the view shows them."""
    found = re.search(r"serving +(\S+) → (\S+)", "\n".join(await terminal.shows(token_is_fresh)))
    assert found is not None
    return f"http://{found[1]}", found[2]


async def test_the_demo_shows_its_token_and_requests_and_the_log_above() -> None:
    async with on_terminal("demo", env=PORTS, columns=250) as terminal, aiohttp.ClientSession() as client:
        url, emulator = await origins(terminal)
        assert any("_emulator/revoke" in line for line in terminal.lines)
        async with client.post(url + CREATE, json=APPLICATION) as answer:
            assert answer.status == 200
        await terminal.shows(lambda lines: "applications.create          200" in row(lines, -1))
        async with client.post(f"{emulator}/_emulator/faults", json={"next_500": 1}):
            pass
        async with client.post(url + CREATE, json=APPLICATION) as answer:
            assert answer.status == 500
        lines = await terminal.shows(lambda lines: "applications.create          500" in row(lines, -1))
        above = "\n".join(lines[: -len(view_of(lines))])
        # The failure is logged, above; the success is in the view alone; there is one view.
        assert "status=500" in above
        assert "status=200" not in above
        assert "\n".join(lines).count("── bits-auth-proxy") == 1
        assert "2 requests · 0 in flight · 1 failed · 0 rejected" in view_of(lines)[2]
        first = row(lines, 1)
        await terminal.shows(lambda lines: row(lines, 1) not in ("", first))  # the countdown moves
        terminal.type("\x03")
        assert await terminal.process.wait() == 0
        assert view_of(await terminal.shows(lambda lines: "stopped" in "\n".join(lines))) == []


async def test_the_admin_pages_address_is_whole_on_80_columns() -> None:
    ports = {**PORTS, "BITS_LISTEN": "127.0.0.1:0,[::1]:0"}
    async with on_terminal("demo", env=ports, columns=80) as terminal:
        lines = await terminal.shows(token_is_fresh)
        assert re.fullmatch(r"admin    http://127\.0\.0\.1:\d+/", row(lines, 4))


async def test_it_follows_the_terminals_size() -> None:
    async with on_terminal("demo", env=PORTS) as terminal:
        await terminal.shows(token_is_fresh)
        terminal.resize(50, 20)
        await terminal.shows(lambda lines: len(row(lines, 0)) == 49)


async def test_colors_can_be_turned_off() -> None:
    async with on_terminal("demo", env={**PORTS, "NO_COLOR": "1"}) as terminal:
        await terminal.shows(token_is_fresh)
        assert "[info     ] token_refreshed" in "\n".join(terminal.lines)
        assert re.search(rb"\x1b\[[0-9;]*m", terminal.raw) is None


@pytest.mark.parametrize(("more", "term"), [({"BITS_LOG_FORMAT": "console"}, "xterm"), ({}, "dumb")])
async def test_a_log_format_or_a_dumb_terminal_turns_the_view_off(more: dict[str, str], term: str) -> None:
    async with on_terminal("demo", env={**PORTS, **more}, term=term) as terminal:
        await terminal.shows(lambda lines: "token_refreshed" in "\n".join(lines))
        await asyncio.sleep(0.6)  # longer than the view takes to come
        assert view_of(terminal.lines) == []
        assert b"\x1b[J" not in terminal.raw


async def test_the_live_view_on_an_ascii_terminal() -> None:
    env = {**PORTS, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    async with on_terminal("demo", env=env, columns=250) as terminal:
        lines = await terminal.shows(lambda lines: any("fresh" in line for line in lines))
        assert any("bits-auth-proxy" in line and line.startswith("??") for line in lines)
        assert not any("internal_error" in line for line in lines)
        terminal.process.terminate()
        assert await terminal.process.wait() == 0


@pytest.mark.parametrize("more", [{}, {"BITS_LOG_FORMAT": "json"}], ids=["view", "no view"])
async def test_a_closed_terminal_ends_the_demo(more: dict[str, str]) -> None:
    async with on_terminal("demo", env={**PORTS, **more}, columns=250) as terminal:
        await terminal.shows(lambda lines: "token_refreshed" in "\n".join(lines))
        terminal.close()
        async with asyncio.timeout(HANGS):
            assert await terminal.process.wait() == 0
