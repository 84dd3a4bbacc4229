"""The test's side of the sandbox. Standard library only; what serves runs in a process of its own.

So it shares no event loop, log set-up or garbage collector with the tests, and serves synchronous and
asynchronous ones alike.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from bits_auth_proxy.errors import ProxyError

_START_TIMEOUT: Final = 60.0
_TIMEOUT: Final = 60.0
# What the environment says of proxies is not about this machine's own addresses.
_OPENER: Final = build_opener(ProxyHandler({}))


class SandboxError(ProxyError):
    """The sandbox can't be had; the text says why."""


class Sandbox:
    """A running emulator with a proxy before it.

    `url` is where the service under test calls; `emulator_url` is the Bits API itself, which wants tokens;
    `admin_url` has the proxy's `/status` and `/metrics`.
    """

    def __init__(self, *, url: str, admin_url: str, emulator_url: str) -> None:
        self.url: Final = url
        self.admin_url: Final = admin_url
        self.emulator_url: Final = emulator_url

    def revoke(self) -> None:
        """Make the API refuse all tokens it has issued so far."""
        self._control("revoke")

    def fail_next(self, fault: Literal["401", "429", "500", "cut"], times: int = 1) -> None:
        """Let the next API calls fail: with that status, or cut off without an answer."""
        self.set_faults(**{f"next_{fault}": times})

    def set_faults(self, **faults: object) -> None:
        """Set the emulator's faults by name, e.g. `latency=0.5`, `token_mode="hang"`: see docs/testing.md."""
        self._control("faults", faults)

    def reset(self) -> None:
        """Set faults and counters back."""
        self._control("reset")

    def counters(self) -> dict[str, int]:
        """Return how many calls of each operation the API got, and `token_requests`, `tokens_issued`."""
        found: dict[str, int] = _fetch(f"{self.emulator_url}/_emulator/state")["counters"]
        return found

    def status(self) -> dict[str, Any]:
        """Return the proxy's `/status`."""
        told: dict[str, Any] = _fetch(f"{self.admin_url}/status")
        return told

    def refresh(self) -> None:
        """Let the proxy ask for another token."""
        _fetch(f"{self.admin_url}/refresh", {})

    def _control(self, name: str, members: Mapping[str, object] | None = None) -> None:
        _fetch(f"{self.emulator_url}/_emulator/{name}", members or {})


class SandboxHost:
    """The process that serves one sandbox after the other. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bits_auth_proxy.testing.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its input ends the process, also when the tests are killed.
        self._process.communicate(timeout=_TIMEOUT)

    @contextlib.contextmanager
    def serve(self, settings: Mapping[str, str]) -> Iterator[Sandbox]:
        """Serve a sandbox; it has a token. Raises SandboxError."""
        told = self._ask({"settings": dict(settings)})
        if "error" in told:
            raise SandboxError(told["error"])
        sandbox = Sandbox(**told)
        try:
            _await_start(sandbox)
            yield sandbox
        finally:
            self._ask({"settings": None})

    def _ask(self, request: Mapping[str, object]) -> dict[str, str]:
        stdin, stdout = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            stdin.write(f"{json.dumps(request)}\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SandboxError(f"the sandbox's process ended with exit code {self._process.wait()}")
        told: dict[str, str] = json.loads(answer)
        return told


def _await_start(sandbox: Sandbox) -> None:
    """Wait for the first token, or until the proxy no longer waits for it (BITS_STARTUP_GRACE)."""
    ends = time.perf_counter() + _START_TIMEOUT
    while time.perf_counter() < ends:
        try:
            with _OPENER.open(f"{sandbox.admin_url}/startupz", timeout=_TIMEOUT):
                return
        except HTTPError as answer:
            answer.close()
        time.sleep(0.005)
    raise SandboxError("no token came in time")


def _fetch(url: str, members: Mapping[str, object] | None = None) -> Any:
    """Return the JSON of a page; with `members` it is a POST of them."""
    body = None if members is None else json.dumps(members).encode()
    request = Request(url, data=body, headers={"X-Requested-With": "bits-sandbox"})  # noqa: S310 - http
    try:
        with _OPENER.open(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            raise SandboxError(f"{url}: {error.code} {error.read().decode(errors='replace')}") from None
