"""Environments with only what a test installs into them, from the wheels that the Makefile has fetched.

Nothing of the development environment can be imported there, and no variable of the test run reaches it.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from tests.support.commands import Command, watched
from tests.support.waiting import HANGS

WHEELS: Final = Path(sys.prefix) / "wheels"


class Environment:
    """A virtual environment in `root`."""

    def __init__(self, root: Path) -> None:
        venv.create(root, symlinks=True)
        self.root = root
        self.python = root / "bin" / "python"
        (self.site_packages,) = root.glob("lib/python*/site-packages")

    def install(self, *what: str | Path, target: Path | None = None) -> None:
        """Install distributions with their dependencies, into the folder `target` if one is given."""
        assert WHEELS.is_dir(), f"{WHEELS} is missing: `make .venv/.dev` fetches it"
        into = () if target is None else (f"--target={target}",)
        self._pip("install", "--no-index", f"--find-links={WHEELS}", "--no-compile", *into, *map(str, what))

    def uninstall(self, name: str) -> None:
        self._pip("uninstall", "--yes", name)

    def command(self, name: str) -> str:
        """Return the path of an installed command."""
        return str(self.root / "bin" / name)

    def run(
        self, *command: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; standard error is part of its output."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=self._variables(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=HANGS,
            check=False,
        )

    def evaluate(self, program: str, *, cwd: Path) -> str:
        """Return what a Python program prints; only what is installed is on its path."""
        ended = self.run(str(self.python), "-I", "-c", program, cwd=cwd)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout.strip()

    @contextlib.asynccontextmanager
    async def running(
        self, *command: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[Command]:
        """Run a server; stop it at the end."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=self._variables(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with watched(process, stop=process.terminate) as running:
            yield running

    def _variables(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", **(more or {})}

    def _pip(self, *arguments: str) -> None:
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        ended = self.run(*pip, f"--python={self.python}", *arguments, cwd=self.root)
        assert ended.returncode == 0, ended.stdout
