"""The test's side of the sandbox, in the standard library alone; the servers run in a separate process.

So they share no event loop, logging configuration or garbage collector with the tests, and they work for
synchronous and asynchronous tests alike.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from bits_auth_proxy.errors import ProxyError

_START_TIMEOUT: Final = 60.0
_TIMEOUT: Final = 60.0
# The proxy variables of the environment do not apply to the loopback addresses that are called here.
_OPENER: Final = build_opener(ProxyHandler({}))
# The folder that holds our package, and usually its dependencies.
_OURS: Final = str(Path(__file__).parents[2])
# No module of the project under test may replace one that the sandbox needs. So Python starts isolated
# (-I), without the working directory, PYTHONPATH and the other PYTHON… variables. The standard library
# comes first on its path (-S), then our folder, then the packages of the environment. The path of the
# tests comes last, for dependencies that are in none of these.
_PROGRAM: Final = """
import site, sys
ours, *theirs = sys.argv[1:]
sys.path.append(ours)
site.main()
sys.path += theirs
from bits_auth_proxy.testing.host import main
main()
"""


class SandboxError(ProxyError):
    """The sandbox failed, or rejected a request; the text gives the reason."""


class Sandbox:
    """A running emulator with a proxy in front of it.

    The service under test sends its calls to `url`. `emulator_url` is the emulated API itself, which requires
    tokens; `admin_url` serves the proxy's `/status` and `/metrics`.
    """

    def __init__(self, *, url: str, admin_url: str, emulator_url: str) -> None:
        self.url: Final = url
        self.admin_url: Final = admin_url
        self.emulator_url: Final = emulator_url

    def revoke(self) -> None:
        """Make the API reject all tokens that it has issued so far."""
        self._control("revoke")

    def fail_next(self, fault: Literal["401", "429", "500", "cut"], times: int = 1) -> None:
        """Make the next API calls fail with this status, or cut them off before a response ("cut")."""
        self.set_faults(**{f"next_{fault}": times})

    def set_faults(self, **faults: object) -> None:
        """Set faults by name, e.g. `latency=0.5`, `token_mode="hang"`; docs/testing.md lists them."""
        self._control("faults", faults)

    def reset(self) -> None:
        """Clear all faults and set the counters to zero."""
        self._control("reset")

    def counters(self) -> dict[str, int]:
        """Return the number of calls and of 401s by operation, with `token_requests` and `tokens_issued`."""
        found: dict[str, int] = _fetch(f"{self.emulator_url}/_emulator/state")["counters"]
        return found

    def status(self) -> dict[str, Any]:
        """Return the content of the proxy's `/status`."""
        status: dict[str, Any] = _fetch(f"{self.admin_url}/status")
        return status

    def refresh(self) -> None:
        """Make the proxy request a new token."""
        _fetch(f"{self.admin_url}/refresh", {})

    def _control(self, name: str, members: Mapping[str, object] | None = None) -> None:
        _fetch(f"{self.emulator_url}/_emulator/{name}", members or {})


class SandboxHost:
    """A context manager for the process that serves one sandbox after another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", _PROGRAM, _OURS, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Control-C interrupts the tests; the sandbox must still be there for their teardown.
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The process ends when its input does, which happens even if the tests are killed.
        self._process.communicate(timeout=_TIMEOUT)

    @contextlib.contextmanager
    def serve(self, settings: Mapping[str, str]) -> Iterator[Sandbox]:
        """Serve a sandbox, and yield it once the proxy has a token. Raises SandboxError."""
        response = self._ask({"settings": dict(settings)})
        if "error" in response:
            raise SandboxError(response["error"])
        sandbox = Sandbox(**response)
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
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SandboxError(f"the sandbox's process ended with exit code {self._process.wait()}")
        response: dict[str, str] = json.loads(line)
        return response


def _await_start(sandbox: Sandbox) -> None:
    """Wait until the proxy has its first token, or has stopped waiting for one (BITS_STARTUP_GRACE)."""
    ends = time.perf_counter() + _START_TIMEOUT
    while time.perf_counter() < ends:
        try:
            with _OPENER.open(f"{sandbox.admin_url}/startupz", timeout=_TIMEOUT):
                return
        except HTTPError as response:
            response.close()
        time.sleep(0.005)
    raise SandboxError(f"the proxy was not ready within {_START_TIMEOUT:.0f} seconds")


def _fetch(url: str, members: Mapping[str, object] | None = None) -> Any:
    """Return the JSON content of a page. If `members` are given, send them in a POST request."""
    body = None if members is None else json.dumps(members).encode()
    request = Request(url, data=body, headers={"X-Requested-With": "bits-sandbox"})  # noqa: S310 - http
    try:
        with _OPENER.open(request, timeout=_TIMEOUT) as response:
            return json.load(response)
    except HTTPError as error:
        with error:
            raise SandboxError(f"{url}: {error.code} {error.read().decode(errors='replace')}") from None
