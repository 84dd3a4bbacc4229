"""The first request after a long idleness, with 40 ms each way between here and the API; see README.md."""

import argparse
import http.client
import json
import signal
import ssl
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from benchmarks.__main__ import require_tools
from benchmarks.arena import TOKEN, Arena
from benchmarks.contenders import OURS
from benchmarks.samples import Spread

DELAY: Final = 0.04
"""Seconds, each way."""
KEEP_ALIVE: Final = "75s"
"""After which the API drops an idle connection: nginx's default."""
OF_EACH: Final = 3
"""instances, so that chance shows"""
ENVOY: Final = "Envoy"
OWN: Final = "a client that fetches its own token"
_PATH: Final = "/v1/applications.create"


def through(port: int) -> float:
    """Return the seconds that a request through a proxy takes."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        _post(connection, _PATH, {})
    return time.perf_counter() - began


def alone(arena: Arena) -> float:
    """Return the seconds that it takes to connect, get a token and make the request, over one connection."""
    trust = ssl.create_default_context(cafile=arena.ca_file)
    began = time.perf_counter()
    with closing(
        http.client.HTTPSConnection("127.0.0.1", arena.api_port, timeout=10, context=trust)
    ) as connection:
        token = json.loads(_post(connection, "/v1/oauth2/token", {}))["access_token"]
        _post(connection, _PATH, {"Authorization": f"Bearer {token}"})
    if token != TOKEN:
        raise RuntimeError("that is not the token")
    return time.perf_counter() - began


def _post(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("POST", path, body=b"{}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"status {answer.status}: {body[:200]!r}")
    return body


def measure(idle: float) -> dict[str, Spread]:
    """Return the seconds of the first request after `idle` seconds, by who made it."""
    with ExitStack() as stack:
        arena = Arena(stack, scheme="https", contenders=(), delay=DELAY, keep_alive=KEEP_ALIVE)
        ports = {name: [arena.start(name, stack)[0] for _ in range(OF_EACH)] for name in (OURS, ENVOY)}
        for group in ports.values():
            for port in group:
                through(port)
        time.sleep(idle)
        taken = {name: [through(port) for port in group] for name, group in ports.items()}
        taken[OWN] = [alone(arena) for _ in range(OF_EACH)]
        return {name: Spread.of(seconds) for name, seconds in taken.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sporadic ARGS=…", description=__doc__)
    parser.add_argument("--idle", type=float, default=600.0, help="seconds (default: %(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser.parse_args()


def main() -> None:
    # Ended from outside, the processes started here end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse_arguments()
    require_tools(())
    try:
        spreads = measure(arguments.idle)
    except RuntimeError as error:
        sys.exit(str(error))
    print(f"The first request after {arguments.idle:g} s, {DELAY * 1e3:g} ms each way, in ms:")
    figures: dict[str, Any] = {"idle_seconds": arguments.idle, "delay_seconds": DELAY}
    for name, spread in spreads.items():
        print(f"{name:40} {spread.median * 1e3:4.0f} ({spread.low * 1e3:.0f} to {spread.high * 1e3:.0f})")
        figures[name] = spread._asdict()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
