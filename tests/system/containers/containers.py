"""Containers of the image for the tests: locked down, called from inside, and removed at the end."""

import contextlib
import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support import evidence
from tests.support.waiting import HANGS
from tools.image.podman import PodmanError, environment, podman

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
# Prints the response as JSON: status, fields with names in lower case, and the body as text.
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

# Polls a page until it holds a text, without the seconds that each `podman exec` may take.
_AWAIT: Final = """\
import sys, time, urllib.request
url, text = sys.argv[1:]
while text not in urllib.request.urlopen(url, timeout=60).read().decode():
    time.sleep(0.01)
"""

T = TypeVar("T")


class Container:
    """A container, known by its name."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    @property
    def logs(self) -> str:
        """The standard output of its process."""
        return podman("logs", self.name)

    def printed(self) -> str:
        """Its latest output on both streams, with times, for people. Empty once it is removed."""
        command = ["podman", "logs", "--timestamps", "--names", "--tail=200", self.name]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        return done.stdout + done.stderr if done.returncode == 0 else ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in its log."""
        return [json.loads(line) for line in self.logs.splitlines() if line.startswith("{")]

    @property
    def pid(self) -> int:
        """The id of its first process, as this machine sees it."""
        return int(podman("inspect", "--format={{.State.Pid}}", self.name))

    def run(self, *command: str) -> str:
        """Run a command inside; return its standard output."""
        return podman("exec", self.name, *command)

    def ask(self, method: str, url: str, body: str = "") -> tuple[int, dict[str, str], str]:
        """Send a request from inside; return status, fields and body of the response."""
        status, fields, text = json.loads(self.run("python", "-c", _ASK, method, url, body))
        return status, fields, text

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event in its log."""
        logged = eventually(lambda: [each for each in self.events if each["event"] == name], name, self)
        return logged[0]

    def kill(self, signal: str) -> None:
        podman("kill", f"--signal={signal}", self.name)

    def await_page(self, url: str, text: str) -> None:
        """Wait, inside the container, until a page holds `text`."""
        self.run("python", "-c", _AWAIT, url, text)

    def ended(self) -> int:
        """Wait until it has ended; return the exit code."""
        return int(podman("wait", self.name).split()[-1])

    def drained_for(self) -> float:
        """Seconds from its event `draining` to its end. This leaves out delays of podman itself."""
        told = dt.datetime.fromisoformat(self.event("draining")["timestamp"]).timestamp()
        return float(podman("inspect", "--format={{.State.FinishedAt.UnixMilli}}", self.name)) / 1000 - told


def eventually(condition: Callable[[], T], what: str, *containers: Container) -> T:
    """Wait until a condition holds; return its value. On failure, show what the containers printed."""
    deadline = time.monotonic() + HANGS
    failed: Exception | None = None
    while True:
        try:
            if value := condition():
                return value
        except (OSError, PodmanError) as error:
            failed = error
        if time.monotonic() > deadline:
            said = "\n".join(each.printed() for each in containers)
            raise AssertionError(f"never seen: {what}\n{said}") from failed
        time.sleep(0.1)


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Container]:
    """Run a container in the background, with the arguments of `podman run`; remove it at the end."""
    name = unique(name)
    podman("run", "--detach", f"--name={name}", *arguments)
    container = Container(name)
    evidence.keep(name, container.printed)
    try:
        yield container
    except BaseException:
        said = container.printed()
        evidence.keep(name, lambda: said)
        raise
    finally:
        podman("rm", "--force", "--time=0", "--volumes", name)


def unique(name: str) -> str:
    """Return a name that no other run of the tests uses."""
    return f"{name}-{os.getpid()}"


def credentials_directory(directory: Path, client_id: str, client_secret: str) -> Path:
    """Fill a directory like a mounted Secret, readable only for the user of the image."""
    for name, value in (("client_id", client_id), ("client_secret", client_secret)):
        file = directory / name
        file.write_text(value, "utf-8")
        file.chmod(0o400)
        os.chown(file, USER, USER)
    os.chown(directory, USER, USER)
    return directory
