"""Containers of the image as the tests run them: locked down, asked from within, removed at the end."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.system.containers.podman import environment, podman

LOCKED_DOWN: Final = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--user=65532:65532",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=256m",
    "--memory-swap=256m",
    "--pids-limit=64",
)
USER: Final = 65532
# What answers is printed as JSON: the status, the fields in lower case, the body's text.
_ASK: Final = """\
import json, sys, urllib.error, urllib.request
method, url, body = sys.argv[1:]
fields = {"Content-Type": "application/json"}
request = urllib.request.Request(url, body.encode() or None, fields, method=method)
try:
    answer = urllib.request.urlopen(request, timeout=60)
except urllib.error.HTTPError as error:
    answer = error
fields = {name.lower(): value for name, value in answer.headers.items()}
print(json.dumps([answer.status, fields, answer.read().decode()]))
"""

T = TypeVar("T")


class Container:
    """A container by its name."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    @property
    def logs(self) -> str:
        """What its process printed to standard output."""
        return podman("logs", self.name)

    def printed(self) -> str:
        """What it printed to either stream, with the times: for a person to read."""
        command = ["podman", "logs", "--timestamps", "--names", self.name]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.logs.splitlines() if line.startswith("{")]

    @property
    def pid(self) -> int:
        """Of its first process, outside."""
        return int(podman("inspect", "--format={{.State.Pid}}", self.name))

    def run(self, *command: str) -> str:
        """Run a command in it; return its standard output."""
        return podman("exec", self.name, *command)

    def ask(self, method: str, url: str, body: str = "") -> tuple[int, dict[str, str], str]:
        """Send a request from within; return status, fields and body of the answer."""
        status, fields, text = json.loads(self.run("python", "-c", _ASK, method, url, body))
        return status, fields, text

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event in its log."""
        logged = eventually(lambda: [each for each in self.events if each["event"] == name], name, self)
        return logged[0]

    def kill(self, signal: str) -> None:
        podman("kill", f"--signal={signal}", self.name)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return int(podman("wait", self.name, timeout=60).split()[-1])


def eventually(condition: Callable[[], T], what: str, *containers: Container) -> T:
    """Wait until a condition holds; return its value. Where it never does, tell what the containers printed.

    The bound is for what hangs: a busy disk can hold a container's start up for most of a minute.
    """
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([f"never seen: {what}", *(each.printed() for each in containers)]))
        time.sleep(0.1)


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Container]:
    """Start a container in the background, `arguments` as for `podman run`; it is removed when this ends."""
    name = unique(name)
    podman("run", "--detach", f"--name={name}", *arguments)
    try:
        yield Container(name)
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


def unique(name: str) -> str:
    """Return a name that no other run of the tests uses."""
    return f"{name}-{os.getpid()}"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def credentials_directory(directory: Path, client_id: str, client_secret: str) -> Path:
    """Make a directory as a Secret is mounted: for the image's user alone."""
    for name, value in (("client_id", client_id), ("client_secret", client_secret)):
        file = directory / name
        file.write_text(value, "utf-8")
        file.chmod(0o400)
        os.chown(file, USER, USER)
    os.chown(directory, USER, USER)
    return directory
