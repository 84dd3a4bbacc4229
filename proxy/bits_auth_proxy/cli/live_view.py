"""The live view of `run` and `demo`: a few lines at the bottom of the terminal, with the log scrolling above.

`render` is pure: it turns what the proxy reports into lines. `LiveView` keeps these lines on the screen. It
is also the stream that the log is written to, so that neither overwrites the other.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from os import terminal_size
from typing import Any, Final, TypeAlias

from bits_auth_proxy.printable import printable
from bits_auth_proxy.telemetry.line_writer import LineWriter

TICK: Final = 0.5
"""Seconds between two updates."""
MAX_ROWS: Final = 8
_FIXED_LINES: Final = 6
_MINUTE: Final = 60
_HOUR: Final = 3600
_SERVER_ERROR: Final = 500
_CLIENT_ERROR: Final = 400

_PLAIN: Final = ""
_BOLD: Final = "1"
_DIM: Final = "2"
_RED: Final = "31"
_GREEN: Final = "32"
_YELLOW: Final = "33"
_STATE_STYLES: Final = {"fresh": _GREEN, "stale": _YELLOW, "suspect": _YELLOW}

_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
"""Synchronized output: terminals that know these show everything between them at once; others ignore them."""

Spans: TypeAlias = Sequence[tuple[str, str]]
"""Pieces of a line, each with its style: the parameters of SGR (ECMA-48), empty for the default style."""


def render(activity: Mapping[str, Any], *, rows: int) -> list[Spans]:
    """Return the lines that show `activity` (see `Sidecar.activity`), with the last `rows` requests."""
    now = activity["timestamp_seconds"]
    totals = activity["totals"]
    failed = totals["failed_requests"]
    lines: list[Spans] = [
        [(f"── bits-auth-proxy {activity['version']} ", _BOLD), ("─" * 200, _DIM)],
        [("token    ", _DIM), *_token(activity["token"], now)],
    ]
    if activity["token"]["candidate"]:
        lines.append([("new pair ", _DIM), *_candidate(activity["token"], now)])
    lines += [
        [
            ("traffic  ", _DIM),
            (f"{totals['requests']} requests · {totals['requests_in_flight']} in flight · ", _PLAIN),
            (f"{failed} failed", _RED if failed else _PLAIN),
            (f" · {totals['rejected_requests']} rejected", _PLAIN),
        ],
        [("serving  ", _DIM), *_serving(activity)],
    ]
    if activity["admin"]:
        lines.append([("admin    ", _DIM), (_page(activity["admin"][0]), _PLAIN)])
    events = [(each["timestamp_seconds"], _exchange(each)) for each in activity["exchanges"]]
    events += [(each["timestamp_seconds"], _rejection(each)) for each in activity["rejections"]]
    events.sort(key=lambda event: event[0])
    for at, spans in events[-rows:] if rows > 0 else ():
        lines.append([(time.strftime("%H:%M:%S ", time.localtime(at)), _DIM), *spans])
    return lines


def _token(token: Mapping[str, Any], now: float) -> Spans:
    state = token["state"]
    spans = [(state, _STATE_STYLES.get(state, _RED))]
    if token["refresh_in_flight"]:
        spans.append((" · refreshing", _PLAIN))
    else:
        spans.append((f" · refresh in {_countdown(token['next_refresh_timestamp_seconds'] - now)}", _PLAIN))
    if token["expires_timestamp_seconds"] is not None:
        spans.append((f" · expires in {_countdown(token['expires_timestamp_seconds'] - now)}", _PLAIN))
    if token["last_error"]:
        spans.append((f" · {token['last_error']}", _RED))
    return spans


def _candidate(token: Mapping[str, Any], now: float) -> Spans:
    candidate = token["candidate"]
    since = _countdown(now - candidate["since_timestamp_seconds"])
    spans = [(f"{candidate['client_id']} · not in use for {since} · {token['client_id']} serves", _YELLOW)]
    if candidate["last_error"]:
        spans.append((f" · {candidate['last_error']}", _RED))
    return spans


def _serving(activity: Mapping[str, Any]) -> Spans:
    ready = activity["ready"]
    where = f"{', '.join(activity['listen'])} → {activity['api']}"
    return [(where, _PLAIN)] if ready["ok"] else [(f"{ready['reason']} · ", _YELLOW), (where, _PLAIN)]


def _page(address: str) -> str:
    return address if address.startswith("unix:") else f"http://{address}/"


def _exchange(exchange: Mapping[str, Any]) -> Spans:
    status = exchange["status"]
    style = _RED if status >= _SERVER_ERROR else _YELLOW if status >= _CLIENT_ERROR else _GREEN
    return [
        (f" {exchange['method']:<6} {exchange['operation']:<28} ", _PLAIN),
        (str(status), style),
        (f" {duration_text(exchange['duration_seconds']):>8}", _PLAIN),
        (f"  {exchange['problem']}" if exchange["problem"] else "", _RED),
    ]


def _rejection(rejection: Mapping[str, Any]) -> Spans:
    return [(" rejected", _YELLOW), (f" {rejection['reason']} from {rejection['peer']}", _PLAIN)]


def _countdown(seconds: float) -> str:
    left = max(0, round(seconds))
    if left >= _HOUR:
        return f"{left // _HOUR}h {left % _HOUR // _MINUTE:02}m"
    return f"{left // _MINUTE}m {left % _MINUTE:02}s" if left >= _MINUTE else f"{left}s"


def duration_text(seconds: float) -> str:
    """Return a duration with at most three significant digits."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"  # noqa: PLR2004 - 1 s, rounded


class LiveView:
    """The bottom of a terminal, and a stream for the log above it: `write`, `flush`, `isatty`."""

    def __init__(self, *, terminal: LineWriter, color: bool, size: Callable[[], terminal_size]) -> None:
        """Show nothing before `start`; the log passes through. `size` returns the size of the terminal."""
        self._terminal = terminal
        self._color = color
        self._size = size
        self._timer: asyncio.TimerHandle | None = None
        self._partial = ""
        self._behind = False
        self._shown: list[str] = []
        self._lengths: list[int] = []

    def start(self, activity: Callable[[], Mapping[str, Any]]) -> None:
        """Show `activity()` and keep it up to date, in the running event loop."""
        self._tick(activity)

    def stop(self) -> None:
        """Remove the view from the screen. The log still passes through."""
        if self._timer is not None:
            self._timer.cancel()
        if self._shown:
            self._put("", [], [])

    # The stream for the log.

    def write(self, text: str) -> int:
        """Put complete lines above the view, and keep an incomplete line until its end comes."""
        whole, _, self._partial = (self._partial + text).rpartition("\n")
        if whole or text.endswith("\n"):
            self._put(f"{whole}\n", self._shown, self._lengths)
        return len(text)

    def flush(self) -> None:
        """Do nothing: only an incomplete line is held back."""

    def isatty(self) -> bool:
        """Return whether the log may use colors: there is a live view on terminals only."""
        return self._color

    def _tick(self, activity: Callable[[], Mapping[str, Any]]) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick, activity)
        width, height = self._size()
        lines = render(activity(), rows=min(MAX_ROWS, height - _FIXED_LINES - 2))
        painted = [self._paint(line, width - 1) for line in lines[: max(1, height - 2)]]
        shown = [text for text, _ in painted]
        # A terminal that is stopped gets no further view, so that what waits are lines of the log.
        behind, self._behind = self._behind, not self._terminal.idle
        if shown != self._shown and not (behind and self._behind):
            self._put("", shown, [length for _, length in painted])

    def _put(self, above: str, shown: list[str], lengths: list[int]) -> None:
        """Write lines above the view and draw the view anew, in one write."""
        width = max(1, self._size()[0])
        # A line that was drawn before the terminal became narrower takes more than one row now.
        rows = sum(max(1, -(-length // width)) for length in self._lengths)
        erase = f"\r\x1b[{rows}A\x1b[J" if rows else ""
        text = _BEGIN + erase + above + "".join(f"{line}\n" for line in shown) + _END
        if self._terminal.write(text, above.count("\n")):
            self._shown, self._lengths = shown, lengths
        self._terminal.flush()

    def _paint(self, spans: Spans, width: int) -> tuple[str, int]:
        """Return the line cut to `width` columns, and the number of columns it takes."""
        pieces, used = [], 0
        for text, style in spans:
            visible = printable(text)[: width - used]
            used += len(visible)
            pieces.append(f"\x1b[{style}m{visible}\x1b[m" if style and self._color and visible else visible)
        return "".join(pieces), used
