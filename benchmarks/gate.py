"""Fail when a request has become dearer: instructions per request, against the straightforward aiohttp proxy.

Valgrind's callgrind counts the instructions that a process executes. Their number is nearly the same in
every run, however busy the machine is, and CPU time is not: on two machines of one kind, the same code took
0.16 and 0.23 times the CPU time of the aiohttp proxy. The ratio leaves out most of what differs between
builds of Python. The kernel's work is not counted. The traffic is realistic (see `realistic`), on one
connection, and the arrival of the token is checked.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from benchmarks import nginx, realistic
from benchmarks.contenders import CONTENDERS, OURS, YARDSTICK, Setting
from benchmarks.processes import PinnedProcess
from tests.support.ports import free_port

BOUNDS: Final = {"http": 0.405, "https": 0.423}
"""Three hundredths above what was measured: 0.393 and 0.410."""
WARM_UP: Final = 100
REQUESTS: Final = 400
TOKEN: Final = "benchmark-token." + "0123456789abcdef" * 8
REPEATABLE: Final = {
    "PYTHONHASHSEED": "0",
    # No handshake of a spare connection may fall into the count.
    "BITS_UPSTREAM__WARM_CONNECTIONS": "0",
    # Lets callgrind's control reach the process.
    "BITS_ALLOW_DEBUGGERS": "true",
}
_READY_TIMEOUT: Final = 120.0


def main() -> None:
    if missing := [name for name in ("valgrind", "callgrind_control") if shutil.which(name) is None]:
        sys.exit(f"missing: {', '.join(missing)}; on Debian: apt-get install valgrind")
    exceeded = False
    for scheme, bound in BOUNDS.items():
        ours, theirs = (instructions(name, scheme) for name in (OURS, YARDSTICK))
        ratio = ours / theirs
        exceeded |= ratio > bound
        print(
            f"{scheme}: {ours:,.0f} instructions per request, {ratio:.4f} times {YARDSTICK}'s {theirs:,.0f}, "
            f"at most {bound:g}",
            flush=True,
        )
    if exceeded:
        sys.exit("a request costs more than its bound")


def instructions(name: str, scheme: str) -> float:
    """Return the instructions that a proxy executes for one request."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bits-gate-")))
        ca_file = nginx.make_certificate(directory)
        certificate = directory / "server.pem" if scheme == "https" else None
        api = stack.enter_context(realistic.Api(token=TOKEN, certificate=certificate))
        port = free_port()
        launcher = CONTENDERS[name]
        assert launcher is not None
        launch = launcher(
            Setting(
                directory=directory,
                port=port,
                scheme=scheme,
                authority=f"127.0.0.1:{api.port}",
                ca_file=ca_file,
                token=TOKEN,
            )
        )
        counts = directory / "counts"
        proxy = stack.enter_context(
            PinnedProcess(
                [
                    *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}"),
                    *launch.command,
                ],
                core=0,
                port=port,
                directory=directory,
                environment={**launch.environment, **REPEATABLE},
            )
        )
        client = stack.enter_context(Client(port))
        client.until_ready()
        client.send(range(WARM_UP))
        control(proxy.pid, "--instr=on")
        before = api.authorized
        client.send(range(WARM_UP, WARM_UP + REQUESTS))
        control(proxy.pid, "--dump")
        if api.authorized - before != REQUESTS:
            raise RuntimeError(f"{name} did not put the token on every request")
        return total(counts.with_suffix(".1")) / REQUESTS


class Client:
    """One connection to a proxy. A context manager."""

    def __init__(self, port: int) -> None:
        self._authority = f"127.0.0.1:{port}"
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=_READY_TIMEOUT)
        self._stream = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._sock.close()

    def until_ready(self) -> None:
        """Send requests until one is forwarded: the proxy may not have a token yet."""
        deadline = time.monotonic() + _READY_TIMEOUT
        while self._ask(0) != b"200":
            if time.monotonic() > deadline:
                raise RuntimeError("the proxy does not forward")
            time.sleep(0.05)

    def send(self, numbers: range) -> None:
        """Send one request after the other. Raises RuntimeError unless all are answered with 200."""
        for number in numbers:
            if (status := self._ask(number)) != b"200":
                raise RuntimeError(f"the proxy answered {status.decode()}")

    def _ask(self, number: int) -> bytes:
        self._sock.sendall(realistic.request(number, authority=self._authority.encode()))
        head = realistic.read_head(self._stream)
        # The aiohttp proxy sends its content in chunks.
        if length := realistic.content_length(head):
            self._stream.read(length)
        else:
            while size := int(self._stream.readline(), 16):
                self._stream.read(size + 2)
            self._stream.readline()
        return head[9:12]


def control(pid: int, order: str) -> None:
    """Give callgrind an order about a process that it runs."""
    subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True)


def total(counts: Path) -> int:
    """Return the instructions in callgrind's file."""
    for line in counts.read_text("utf-8").splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise RuntimeError("callgrind counted nothing")


if __name__ == "__main__":
    main()
