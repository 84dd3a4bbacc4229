"""How each value is measured; see README.md."""

import contextlib
import http.client
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from benchmarks import nginx, wrk
from benchmarks.arena import Arena
from benchmarks.processes import PinnedProcess
from benchmarks.samples import Sample

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
IDLE_CLIENTS: Final = 1000
_PATH: Final = "/v1/applications.create"
_POST: Final = ("POST", "300")
_LARGE_CONNECTIONS: Final = 8


def load(arena: Arena, name: str, number: int, seconds: int) -> Iterator[Sample]:
    """POST 300 bytes, answered by 350, over 64 connections."""
    with _cpu(arena, name) as spent:
        counted = wrk.run(arena.url(name) + _PATH, *_POST, core=arena.load_core, seconds=seconds)
    values = {
        "requests_per_second": counted.requests / counted.seconds,
        "p50_ms": counted.p50_us / 1e3,
        "p99_ms": counted.p99_us / 1e3,
    }
    if name in arena.proxies:
        values["cpu_us"] = spent[0] / counted.requests * 1e6
        values["loaded_mib"] = arena.proxies[name].memory_bytes() / MIB
    for measure, value in values.items():
        yield Sample(arena.scheme, name, measure, number, value)


def latency(arena: Arena, name: str, number: int, seconds: int, direct_us: float) -> tuple[Sample, float]:
    """The same over a single connection: the median, also as what it is above `direct_us`."""
    url = arena.url(name) + _PATH
    counted = wrk.run(url, *_POST, core=arena.load_core, seconds=seconds, connections=1)
    added = counted.p50_us - direct_us
    return Sample(arena.scheme, name, "added_us", number, added), counted.p50_us


def large(arena: Arena, name: str, number: int, seconds: int) -> Iterator[Sample]:
    """Bodies of 1 MiB: one way, then the other."""
    for measure, path, request in (
        ("up_us", nginx.UPLOAD_PATH, ("POST", str(MIB))),
        ("down_us", nginx.MIB_PATH, ("GET",)),
    ):
        with _cpu(arena, name) as spent:
            counted = wrk.run(
                arena.url(name) + path,
                *request,
                core=arena.load_core,
                seconds=seconds,
                connections=_LARGE_CONNECTIONS,
            )
        yield Sample(arena.scheme, name, measure, number, spent[0] / counted.requests * 1e6)


def stream(arena: Arena, name: str, number: int, idle_bytes: int) -> Iterator[Sample]:
    """Download 1 GiB, and see what memory it takes meanwhile above `idle_bytes`."""
    proxy = arena.proxies[name]
    connection = http.client.HTTPConnection("127.0.0.1", arena.ports[name], timeout=30)
    piece = bytearray(MIB)
    got, peak, looked = 0, 0, 0
    with contextlib.closing(connection), _cpu(arena, name) as spent:
        connection.request("GET", nginx.GIB_PATH)
        answer = connection.getresponse()
        while count := answer.readinto(piece):
            got += count
            if got - looked >= 32 * MIB:
                looked, peak = got, max(peak, proxy.memory_bytes())
    if answer.status != http.HTTPStatus.OK or got != GIB:
        raise RuntimeError(f"{name}: status {answer.status}, {got} bytes of 1 GiB")
    yield Sample(arena.scheme, name, "gib_seconds", number, spent[0])
    yield Sample(arena.scheme, name, "gib_growth_mib", number, (peak - idle_bytes) / MIB)


def start(arena: Arena, name: str, number: int) -> Iterator[Sample]:
    """Start a fresh one: how long until it is ready, and its memory then and with 1,000 idle clients."""
    with ExitStack() as stack:
        port, proxy, seconds = arena.start(name, stack)
        time.sleep(0.3)
        idle = proxy.memory_bytes()
        yield Sample(arena.scheme, name, "start_seconds", number, seconds)
        yield Sample(arena.scheme, name, "idle_mib", number, idle / MIB)
        yield Sample(arena.scheme, name, "clients_mib", number, _clients_memory(port, proxy, idle) / MIB)


def _clients_memory(port: int, proxy: PinnedProcess, idle: int) -> int:
    """Return the bytes that clients cost which have each made one request and stay connected."""
    request = f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    with ExitStack() as stack:
        for _ in range(IDLE_CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(request)
            if not client.recv(4096).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("an idle client was not served")
        return proxy.memory_bytes() - idle


def allow_many_descriptors() -> None:
    """Let this process and those it starts have as many sockets as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _cpu(arena: Arena, name: str) -> Iterator[list[float]]:
    """Yield a list that holds, after the block, the seconds of CPU that the proxy spent in it."""
    proxy = arena.proxies.get(name)
    spent: list[float] = []
    before = proxy.cpu_seconds() if proxy else 0.0
    try:
        yield spent
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {error}\n{proxy.output() if proxy else ''}") from error
    spent.append(proxy.cpu_seconds() - before if proxy else 0.0)
