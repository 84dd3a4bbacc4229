"""Record the README's terminal session and draw it: `make demo` in one terminal, calls in another.

Nothing is staged: both terminals are shells on pseudo-terminals, the calls are read from README.md, and the
picture shows what was on their screens. The ports 8080, 8090 and 9090 must be free.
"""

import argparse
import fcntl
import html
import itertools
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pyte
from pyte.screens import Char

ROOT: Final = Path(__file__).parents[1]
COLUMNS: Final = 112
_PATIENCE: Final = 120.0
"""Seconds that a screen may take to show what it is to show."""
_QUIET: Final = 0.3
"""Seconds without output after which the output of a command is taken to be whole."""

_ADVANCE: Final = 7.8
_LINE: Final = 18.0
_MARGIN: Final = 14.0
_BAR: Final = 28.0
# One dark background on every page, with the terminal's colours light enough for it.
_BACKGROUND: Final = "#161b22"
_FRAME: Final = "#6e7781"
_TITLE: Final = "#9da7b3"
_INK: Final = "#e6edf3"
_COLOURS: Final = {
    "black": "#9da7b3",
    "red": "#ff8f86",
    "green": "#56d364",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
}


class Shell:
    """A shell on a pseudo-terminal, whose screen can be read."""

    def __init__(self, lines: int) -> None:
        self.screen = pyte.Screen(COLUMNS, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            dropped = ("BITS_", "NO_COLOR", "COLUMNS", "LINES", "MAKE")
            kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
            # An empty line before each prompt separates the commands.
            prompts = {"PS1": r"\n$ ", "PS2": "", "TERM": "xterm"}
            os.chdir(ROOT)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting"], {**kept, **prompts})
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, COLUMNS, 0, 0))
        self.until(lambda text: text.endswith("$"))

    @property
    def text(self) -> str:
        """What is on the screen, without the spaces at the end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def run(self, command: str) -> None:
        """Type a command and wait until the prompt is back."""
        self.type(f"{command}\n")
        self.until(lambda text: text.endswith("\n$"))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, condition: Callable[[str], bool]) -> None:
        """Read the screen until it fulfils a condition and then stays as it is for a moment."""
        deadline = time.monotonic() + _PATIENCE
        while self._read() or not condition(self.text):
            if time.monotonic() > deadline:
                raise SystemExit(f"The terminal shows:\n{self.text}")

    def rows(self) -> list[list[Char]]:
        """Return the characters on the screen, without the empty lines around them and the last prompt."""
        shown = [[self.screen.buffer[y][x] for x in range(COLUMNS)] for y in range(self.screen.lines)]
        while _is_bare(shown[-1]):
            shown.pop()
        while _is_bare(shown[0]):
            shown.pop(0)
        return shown

    def close(self) -> None:
        os.kill(self._pid, signal.SIGHUP)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def _read(self) -> bool:
        """Take what comes within a moment; return whether anything came."""
        if not select.select([self._master], [], [], _QUIET)[0]:
            return False
        self._stream.feed(os.read(self._master, 65_536))
        return True


def _is_bare(row: Sequence[Char]) -> bool:
    return "".join(char.data for char in row).strip() in ("", "$")


def calls() -> list[str]:
    """Return the README's calls, as they are written there but for the comments behind them."""
    readme = (ROOT / "README.md").read_text("utf-8")
    return [
        re.sub(r"\s+# .*$", "", call) for call in re.findall(r"^curl (?:.*\\\n)*.*$", readme, re.MULTILINE)
    ]


def record() -> list[tuple[str, list[list[Char]]]]:
    """Run the session; return each terminal's title and what is on its screen at the end."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(Shell(40)))
        client = stack.enter_context(closing(Shell(40)))
        server.type("make demo\n")
        server.until(lambda text: "expires in" in text)
        for call in calls():
            client.run(call)
        server.until(lambda text: len(re.findall(r"^\d\d:\d\d:\d\d ", text, re.MULTILINE)) >= 2)
        recorded = [("Terminal 1", server.rows()), ("Terminal 2", client.rows())]
        server.type("\x03")
        server.until(lambda text: text.endswith("\n$"))
        return recorded


def draw(terminals: Sequence[tuple[str, list[list[Char]]]]) -> str:
    """Return an SVG of the terminals, one below the other, as text that can be selected."""
    width = COLUMNS * _ADVANCE + 2 * _MARGIN
    parts: list[str] = []
    top = 0.0
    for title, rows in terminals:
        height = _BAR + len(rows) * _LINE + _MARGIN
        parts.append(
            f'<rect x=".5" y="{top + 0.5:g}" width="{width - 1:g}" height="{height - 1:g}" rx="8" '
            f'fill="{_BACKGROUND}" stroke="{_FRAME}"/>'
            f'<text x="{_MARGIN:g}" y="{top + 18:g}" fill="{_TITLE}">{title}</text>'
        )
        for number, row in enumerate(rows):
            parts.extend(_text(row, top + _BAR + (number + 0.8) * _LINE))
        top += height + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top - 10:g}" width="{width:g}" '
        f'height="{top - 10:g}" role="img" aria-labelledby="t" font-size="13" '
        """font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace">\n"""
        '<title id="t">make demo in one terminal, and calls through the proxy in another</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(row: Sequence[Char], y: float) -> Iterator[str]:
    """Draw a row: a text for each run of characters that look the same, held to the grid by its length."""
    column = 0
    for (colour, bold), run in itertools.groupby(row, lambda char: (char.fg, char.bold)):
        text = "".join(char.data for char in run)
        start, column = column + len(text) - len(text.lstrip()), column + len(text)
        if not (text := text.strip()):
            continue
        weight = ' font-weight="bold"' if bold else ""
        place = f'x="{_MARGIN + start * _ADVANCE:.1f}" y="{y:.1f}" textLength="{len(text) * _ADVANCE:.1f}"'
        look = f'fill="{_COLOURS.get(colour, _INK)}"{weight} xml:space="preserve"'
        yield f"<text {place} {look}>{html.escape(text, quote=False)}</text>"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make screencast ARGS=…", description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("docs/demo.svg"), help="where to draw it")
    arguments = parser.parse_args()
    arguments.picture.write_text(draw(record()), "utf-8")


if __name__ == "__main__":
    main()
