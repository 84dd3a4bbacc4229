"""The live view: its lines, and how it shares a terminal with the log."""

import io
from os import terminal_size
from typing import Any

import pyte
import pytest

from bits_auth_proxy.cli.live_view import LiveView, duration_text, render
from tests.support.line_writers import direct

NOW = 1_700_000_000.0


def activity(**changes: Any) -> dict[str, Any]:
    token = {
        "state": "fresh",
        "refresh_in_flight": False,
        "next_refresh_timestamp_seconds": NOW + 2592,
        "expires_timestamp_seconds": NOW + 3570,
        "last_error": None,
        "credentials_refused": False,
        "client_id": "bits-client-3f1c",
        "candidate": None,
    }
    return {
        "timestamp_seconds": NOW,
        "version": "1.2.3",
        "ready": {"ok": True, "reason": "started"},
        "listen": ["127.0.0.1:8080"],
        "admin": ["127.0.0.1:9090"],
        "api": "https://api.bits.bi",
        "totals": {"requests": 7, "requests_in_flight": 1, "failed_requests": 2, "rejected_requests": 3},
        "exchanges": [],
        "rejections": [],
        **changes,
        "token": token | changes.get("token", {}),
    }


def exchange(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "timestamp_seconds": NOW - number,
        "operation": f"applications.op{number}",
        "method": "POST",
        "status": 200,
        "problem": "",
        "duration_seconds": 0.0412,
        **changes,
    }


def text(*, rows: int = 8, **changes: Any) -> list[str]:
    return ["".join(piece for piece, _ in spans) for spans in render(activity(**changes), rows=rows)]


def test_it_shows_the_token_the_traffic_and_the_addresses() -> None:
    assert text()[1:] == [
        "token    fresh · refresh in 43m 12s · expires in 59m 30s",
        "traffic  7 requests · 1 in flight · 2 failed · 3 rejected",
        "serving  127.0.0.1:8080 → https://api.bits.bi",
        "admin    http://127.0.0.1:9090/",
    ]
    assert text()[0].startswith("── bits-auth-proxy 1.2.3 ─")


def test_the_demos_addresses_fit_into_80_columns() -> None:
    lines = text(listen=["127.0.0.1:8080", "[::1]:8080"], api="http://127.0.0.1:8090")
    assert max(map(len, lines[1:])) < 80
    assert lines[4] == "admin    http://127.0.0.1:9090/"


def test_an_admin_socket_is_no_url() -> None:
    assert text(admin=["unix:/run/admin.sock"])[4] == "admin    unix:/run/admin.sock"


def test_without_an_admin_listener_none_is_shown() -> None:
    assert [line.split()[0] for line in text(admin=[])] == ["──", "token", "traffic", "serving"]


@pytest.mark.parametrize(
    ("token", "line"),
    [
        (
            {"state": "absent", "expires_timestamp_seconds": None, "next_refresh_timestamp_seconds": NOW + 9},
            "token    absent · refresh in 9s",
        ),
        ({"refresh_in_flight": True}, "token    fresh · refreshing · expires in 59m 30s"),
        (
            {"state": "expired", "expires_timestamp_seconds": NOW - 5, "last_error": "refused (401)"},
            "token    expired · refresh in 43m 12s · expires in 0s · refused (401)",
        ),
        (
            {"expires_timestamp_seconds": NOW + 7260},
            "token    fresh · refresh in 43m 12s · expires in 2h 01m",
        ),
    ],
)
def test_it_shows_the_token_in_every_state(token: dict[str, Any], line: str) -> None:
    assert text(token=token)[1] == line


def test_a_new_pair_that_is_not_in_use_has_a_line_of_its_own() -> None:
    candidate = {"client_id": "new", "since_timestamp_seconds": NOW - 75, "last_error": None}
    lines = text(token={"candidate": candidate})
    assert lines[2] == "new pair new · not in use for 1m 15s · bits-client-3f1c serves"
    assert lines[3].startswith("traffic")
    candidate["last_error"] = "the response is 401 invalid_client"
    assert text(token={"candidate": candidate})[2].endswith(" serves · the response is 401 invalid_client")


def test_it_shows_why_the_proxy_is_not_ready() -> None:
    assert text(ready={"ok": False, "reason": "draining"})[3].startswith("serving  draining · 127.0.0.1:8080")


def test_the_last_requests_come_in_the_order_of_time() -> None:
    exchanges = [exchange(number) for number in range(1, 20)]
    exchanges[0] |= {"status": 502, "problem": "connection_refused", "duration_seconds": 1.5}
    rejected = [{"timestamp_seconds": NOW - 2.5, "reason": "cross_site", "peer": "127.0.0.1"}]
    lines = text(rows=3, exchanges=exchanges, rejections=rejected)[5:]
    assert [line[8:] for line in lines] == [
        "  rejected cross_site from 127.0.0.1",
        "  POST   applications.op2             200  41.2 ms",
        "  POST   applications.op1             502    1.5 s  connection_refused",
    ]
    assert len(text(rows=0, exchanges=exchanges)) == 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00042, "0.42 ms"), (0.9994, "999 ms"), (0.9996, "1 s"), (61.23, "61.2 s")]
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


class Stage:
    """A view on an emulated terminal, and the activity that it shows."""

    def __init__(self, columns: int = 60, lines: int = 12) -> None:
        self.activity = activity()
        self.size = terminal_size((columns, lines))
        self.output = io.StringIO()
        self.view = LiveView(terminal=direct(self.output), color=True, size=lambda: self.size)

    def screen(self) -> list[str]:
        # Lines end with CR LF, as the terminal's driver makes them.
        screen = pyte.Screen(self.size.columns, self.size.lines)
        pyte.Stream(screen).feed(self.output.getvalue().replace("\n", "\r\n"))
        return "\n".join(line.rstrip() for line in screen.display).rstrip().split("\n")


async def test_log_lines_scroll_above_the_view() -> None:
    stage = Stage()
    stage.view.write("before\n")
    stage.view.start(lambda: stage.activity)
    for number in range(20):
        print(f"line {number}", file=stage.view)  # writes the text and its end apart
    shown = stage.screen()
    assert shown[:6] == [f"line {number}" for number in range(14, 20)]
    assert [line.split()[0] for line in shown[6:]] == ["──", "token", "traffic", "serving", "admin"]
    # A new state replaces what the screen showed.
    stage.activity = activity(exchanges=[exchange(1)])
    stage.view._tick(lambda: stage.activity)
    assert stage.screen()[-1].endswith("applications.op1             200  41.2 ms")
    assert "\n".join(stage.screen()).count("token ") == 1
    stage.view.stop()
    stage.view.stop()
    assert stage.screen()[-1] == "line 19"
    stage.view.write("no end ")
    assert stage.screen()[-1] == "line 19"
    stage.view.write("yet\n")
    assert stage.screen()[-1] == "no end yet"
    stage.view.write("after\n")
    assert stage.screen()[-1] == "after"


async def test_nothing_is_written_while_nothing_changes() -> None:
    stage = Stage()
    stage.view.start(lambda: stage.activity)
    before = stage.output.getvalue()
    stage.view._tick(lambda: stage.activity)
    assert stage.output.getvalue() == before
    stage.view.stop()


@pytest.mark.parametrize("size", [(30, 12), (12, 5), (1, 1)])
async def test_it_fits_into_any_terminal(size: tuple[int, int]) -> None:
    stage = Stage(*size)
    stage.activity = activity(exchanges=[exchange(number) for number in range(30)])
    stage.view.start(lambda: stage.activity)
    stage.view.write("a line\n")
    shown = stage.view._shown
    assert 1 <= len(shown) <= max(1, size[1] - 2)
    assert all(length < max(2, size[0]) for length in stage.view._lengths)
    stage.view.stop()


async def test_lines_that_a_narrower_terminal_wraps_are_erased_as_well() -> None:
    stage = Stage(columns=60)
    stage.view.start(lambda: stage.activity)
    lengths = list(stage.view._lengths)
    stage.size = terminal_size((20, 12))
    before = len(stage.output.getvalue())
    stage.view.write("x\n")
    rows = sum(-(-length // 20) for length in lengths)
    assert f"\x1b[{rows}A\x1b[J" in stage.output.getvalue()[before:]
    stage.view.stop()
