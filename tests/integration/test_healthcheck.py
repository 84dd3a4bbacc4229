"""`bits-auth-proxy healthcheck` against sockets that answer, hang up, or do not exist."""

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bits_auth_proxy.cli import healthcheck
from tests.support.waiting import HANGS

READY = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nstarted\n"


@contextmanager
def answering(sock: socket.socket, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one connection; yields what was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = sock.accept()
        with connection:
            asked.append(connection.recv(4096))
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    with sock:
        thread.start()
        yield asked
        thread.join(HANGS)


@contextmanager
def on_port(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    sock = socket.create_server(("127.0.0.1", 0))
    with answering(sock, answer) as asked:
        yield f"127.0.0.1:{sock.getsockname()[1]}", asked


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BITS_ADMIN_LISTEN", "BITS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("answer", "healthy", "expected"),
    [
        (READY, True, "healthy: started"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n", False, "not healthy: draining"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False, "HTTP/1.1 503"),
        (b"HTTP/1.1 404 Not 200\r\n\r\n", False, "404"),
        (b"SSH-2.0\r\n", False, "SSH-2.0"),
        (b"", False, "not healthy"),
    ],
)
def test_verdicts(answer: bytes, healthy: bool, expected: str) -> None:
    with on_port(answer) as (address, asked):
        verdict, text = healthcheck.check(address, None)
    assert verdict is healthy
    assert expected in text
    assert asked[0].startswith(b"GET /readyz HTTP/1.0\r\n")


def test_a_port_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    verdict, text = healthcheck.check(address, None)
    assert not verdict
    assert address in text
    assert "refused" in text


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", "unix:/no/such/socket"])
def test_an_unusable_address_is_named(address: str) -> None:
    verdict, text = healthcheck.check(address, None)
    assert not verdict
    assert address in text


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen()
    with answering(sock, READY):
        assert healthcheck.check(f"unix:{path}", None) == (True, "healthy: started")


def test_the_address_is_found_where_the_proxy_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tmp_path / "bits.toml"
    with on_port(READY) as (address, _):
        port = address.rpartition(":")[2]
        toml.write_text(f'admin_listen = ["0.0.0.0:{port}"]\n', "utf-8")
        assert healthcheck.check(None, str(toml))[0]
    with on_port(READY) as (address, _):
        (tmp_path / ".env").write_text(f"X=1\nexport BITS_ADMIN_LISTEN='{address}'\n", "utf-8")
        assert healthcheck.check(None, str(toml))[0]
    with on_port(READY) as (address, _):
        monkeypatch.setenv("BITS_ADMIN_LISTEN", f"{address}, [::]:1")
        assert healthcheck.check(None, str(toml))[0]
    monkeypatch.delenv("BITS_ADMIN_LISTEN")
    with on_port(READY) as (address, _):
        toml.write_text(f'admin_listen = "{address}"\n', "utf-8-sig")
        (tmp_path / ".env").write_text(f"BITS_CONFIG={toml}\n", "utf-8-sig")
        assert healthcheck.check(None, None)[0]
    (tmp_path / ".env").unlink()
    verdict, text = healthcheck.check(None, "/no/such/file.toml")
    assert verdict or healthcheck.DEFAULT_ADDRESS in text


@pytest.mark.parametrize(
    ("arguments", "code", "module"),
    [
        (("healthcheck", "--admin-listen=127.0.0.1:1"), 1, "bits_auth_proxy.cli.healthcheck"),
        (("--version",), 0, "bits_auth_proxy.cli.main"),
        (("--help",), 0, "bits_auth_proxy.cli.main"),
    ],
)
def test_the_command_loads_neither_the_event_loop_nor_a_dependency(
    arguments: tuple[str, ...], code: int, module: str
) -> None:
    """An exec probe runs every few seconds."""
    command = [sys.executable, "-X", "importtime", "-m", "bits_auth_proxy", *arguments]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert asked.returncode == code
    loaded = {line.rpartition("|")[2].strip() for line in asked.stderr.splitlines()}
    assert module in loaded
    heavy = {"asyncio", "ssl", "aiohttp", "pydantic", "bits_auth_proxy.settings", "structlog", "uvloop"}
    assert not loaded & heavy


def test_the_command_takes_less_than_50_ms_of_cpu() -> None:
    command = [sys.executable, "-m", "bits_auth_proxy", "healthcheck", "--admin-listen=127.0.0.1:1"]
    # Coverage would measure itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=False, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.05
