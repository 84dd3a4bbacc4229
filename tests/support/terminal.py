"""The real command on a terminal of its own, whose screen a test can read."""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import pyte

from tests.support import evidence
from tests.support.commands import ROOT
from tests.support.waiting import HANGS

_NOT_INHERITED: Final = ("BITS_", "NO_COLOR", "COLUMNS", "LINES")


class Terminal:
    """A terminal with a command on it; `screen` shows what a person would see."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, columns: int, lines: int) -> None:
        self.process = process
        self.raw = b""
        self.screen = pyte.Screen(columns, lines)
        self._master = master
        self._stream = pyte.ByteStream(self.screen)
        self._changed = asyncio.Event()
        evidence.keep(f"terminal of process {process.pid}", lambda: "\n".join(self.lines))
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without empty lines at its end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    async def shows(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen fulfils `condition`; return its lines."""
        try:
            async with asyncio.timeout(HANGS):
                while not condition(self.lines):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError("the screen shows\n" + "\n".join(self.lines)) from None
        return self.lines

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size; lines that no longer fit are cut, as the simplest terminals do."""
        set_size(self._master, columns, lines)
        self.screen.resize(lines, columns)

    def close(self) -> None:
        """Close the window; the command notices."""
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # Linux: nobody has the other end open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.raw += data
        self._stream.feed(data)
        self._changed.set()


def set_size(descriptor: int, columns: int, lines: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.asynccontextmanager
async def on_terminal(
    *arguments: str, env: Mapping[str, str], columns: int = 100, lines: int = 40, term: str = "xterm"
) -> AsyncIterator[Terminal]:
    """Run `bits-auth-proxy` on a terminal; it has ended when this ends."""
    master, slave = pty.openpty()
    set_size(master, columns, lines)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bits_auth_proxy",
        *arguments,
        cwd=ROOT / "tests",
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("BITS_", "NO_COLOR"))
            },
            "TERM": term,
            **env,
        },
        stdin=slave,
        stdout=slave,
        stderr=slave,
        # So that Ctrl-C reaches it as it does from a shell.
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    terminal = Terminal(process, master, columns, lines)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        terminal.close()


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
