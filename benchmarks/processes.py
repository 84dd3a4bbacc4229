"""Processes on a core of their own: started, awaited, their CPU time and memory read, ended. Linux only."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of CPU time that one unit of /proc/<pid>/stat stands for"""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 5.0


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """Return `command` so that it and all it starts run on `core`."""
    return ["taskset", "--cpu-list", str(core), *command]


class PinnedProcess:
    """A server on one core, run and logged in `directory`. A context manager: ready inside, ended after."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        port: int,
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = " ".join(command[:4])
        self._command = on_core(core, command)
        self._port = port
        self._directory = directory
        self._log = directory / "output.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._await_listener()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return user and system time spent so far by the process and all its descendants that live."""
        return sum((int(fields[11]) + int(fields[12])) * _TICK for fields in self._stats())

    def memory_bytes(self) -> int:
        """Return the resident memory (VmRSS) of the process and all its descendants together."""
        return sum(int(fields[21]) * _PAGE for fields in self._stats())

    def output(self) -> str:
        """Return what the process has printed."""
        return self._log.read_text(errors="replace").strip()

    def _stats(self) -> list[list[str]]:
        """Return the fields of /proc/<pid>/stat that follow the command's name, of the whole tree."""
        stats: dict[int, list[str]] = {}
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The command name, in parentheses, may hold anything (proc(5)).
            fields = stats[int(entry.name)] = stat.rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
        tree = [self._process.pid]
        for pid in tree:
            tree.extend(children.get(pid, ()))
        return [stats[pid] for pid in tree]

    def _await_listener(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._name}: ended at once:\n{self.output()}")
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return
        raise RuntimeError(f"{self._name}: not listening within {_START_TIMEOUT:g} s:\n{self.output()}")

    def _stop(self) -> None:
        for end in (signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(end)
            try:
                self._process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                continue
            return
