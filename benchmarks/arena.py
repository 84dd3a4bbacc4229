"""The upstream and all contenders: each proxy on one core, the load and the upstream on another."""

import http.client
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks import nginx
from benchmarks.contenders import CONTENDERS, ROOT, Setting
from benchmarks.processes import PinnedProcess
from tests.support.ports import free_port

TOKEN: Final = "benchmark-token." + "0123456789abcdef" * 8
_READY_TIMEOUT: Final = 60.0


class Arena:
    """One upstream, http or https, and the proxies in front of it. Ended with the `stack`."""

    def __init__(
        self,
        stack: ExitStack,
        *,
        scheme: str,
        contenders: Sequence[str],
        delay: float = 0.0,
        keep_alive: str = "1h",
    ) -> None:
        """Start them; with a `delay`, the upstream is so many seconds away, each way.

        `keep_alive` is how long it keeps idle connections, as nginx writes it.
        """
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise RuntimeError("two CPU cores are needed: one for the proxy, one for the load")
        self._stack = stack
        self.scheme: Final = scheme
        self.load_core, self.proxy_core = cores[0], cores[-1]
        self.ports: Final[dict[str, int]] = {}
        """Where each contender is reached, over plain http. Without a proxy: see `url`."""
        self.proxies: Final[dict[str, PinnedProcess]] = {}
        self._top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bits-benchmark-")))
        self._top.chmod(0o755)  # nginx started by root reads as another user.
        self.api_port = free_port()
        """Where the upstream is reached, past the delay if there is one."""
        self.ca_file = nginx.make_certificate(self._top)
        stack.enter_context(
            PinnedProcess(
                nginx.upstream(
                    self._top, port=self.api_port, scheme=scheme, token=TOKEN, keep_alive=keep_alive
                ),
                core=self.load_core,
                port=self.api_port,
                directory=self._top,
            ),
        )
        if delay:
            self.api_port = self._delayed(stack, self.api_port, delay)
        for name in contenders:
            if CONTENDERS[name] is not None:
                self.ports[name], self.proxies[name], _ = self.start(name, stack)

    def _delayed(self, stack: ExitStack, target: int, delay: float) -> int:
        """Start a relay before `target` and return its port."""
        port = free_port()
        directory = self._top / "relay"
        directory.mkdir()
        command = [sys.executable, "-m", "benchmarks.relay", "--listen-port", str(port)]
        command += ["--target-port", str(target), "--delay", str(delay)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        stack.enter_context(
            PinnedProcess(
                command, core=self.load_core, port=port, directory=directory, environment=environment
            )
        )
        return port

    def url(self, name: str) -> str:
        """Return where a contender is reached."""
        if name in self.ports:
            return f"http://127.0.0.1:{self.ports[name]}"
        return f"{self.scheme}://127.0.0.1:{self.api_port}"

    def start(self, name: str, stack: ExitStack) -> tuple[int, PinnedProcess, float]:
        """Start a contender of its own. Returns its port, its process, and the seconds until it was ready.

        It is ready once it has put the token in the place of the client's Authorization; it raises
        RuntimeError if that does not come.
        """
        launcher = CONTENDERS[name]
        if launcher is None:
            raise RuntimeError(f"{name} is no proxy")
        setting = Setting(
            directory=Path(tempfile.mkdtemp(prefix="proxy-", dir=self._top)),
            port=free_port(),
            scheme=self.scheme,
            authority=f"127.0.0.1:{self.api_port}",
            ca_file=self.ca_file,
            token=TOKEN,
        )
        launch = launcher(setting)
        began = time.perf_counter()
        proxy = stack.enter_context(
            PinnedProcess(
                launch.command,
                core=self.proxy_core,
                port=setting.port,
                directory=setting.directory,
                environment=launch.environment,
            )
        )
        _await_injection(name, setting.port)
        return setting.port, proxy, time.perf_counter() - began


def _await_injection(name: str, port: int) -> None:
    """Return once the proxy injects the token. A proxy that has none yet may refuse until then."""
    deadline = time.monotonic() + _READY_TIMEOUT
    while True:
        status, arrived = _ask(name, port)
        if status == http.HTTPStatus.OK and arrived == f"Bearer {TOKEN}":
            return
        if status == http.HTTPStatus.OK or time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not inject the token: status {status}, {arrived!r}")
        time.sleep(0.005)


def _ask(name: str, port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            "POST", nginx.ECHO_PATH, body=b"{}", headers={"Authorization": "Basic Y2xpZW50OnM="}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"{name} does not answer: {error!r}") from error
    finally:
        connection.close()
