"""Podman on a machine that reaches no image registry: its settings, a base image, and our image on top.

Images and containers are kept in a cache directory ($XDG_CACHE_HOME/bits-auth-proxy/containers), separate
from those of the machine's user.
"""

import os
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from typing import Final

import bits_auth_proxy

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bits-auth-proxy" / "containers"
)
IMAGE: Final = "localhost/bits-auth-proxy:test"
PACKAGES: Final = "ca-certificates,python3,python3-venv"
"""What the base image contains in addition to Debian's minimum."""

# Podman's defaults ask for limits and control groups that a kernel in a sandbox refuses.
_CONTAINERS_CONF: Final = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE_CONF: Final = """\
[storage]
driver = "overlay"
graphroot = "{cache}/storage"
runroot = "{run}"
"""
# If these exist, pip needs them in a build to reach its index. They are mounted and do not enter the image.
_BUILD_MOUNTS: Final = ("/etc/ssl/certs", "/etc/pip.conf")


# Podman's state that must not survive a restart of the machine. Each cache has its own directory.
_RUN: Final = f"/run/bits-auth-proxy-{zlib.crc32(os.fsencode(CACHE)):08x}"


class PodmanError(Exception):
    """A command failed; `output` holds what it printed."""

    def __init__(self, code: int, command: str, output: str) -> None:
        super().__init__(f"{command}: exit {code}\n{output}")
        self.code: Final = code
        self.output: Final = output


@cache
def environment() -> dict[str, str]:
    """Write podman's settings; return the environment variables that make podman use them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    containers, storage = CACHE / "containers.conf", CACHE / "storage.conf"
    containers.write_text(_CONTAINERS_CONF, "utf-8")
    storage.write_text(_STORAGE_CONF.format(cache=CACHE, run=_RUN), "utf-8")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BITS_")},
        "CONTAINERS_CONF": str(containers),
        "CONTAINERS_STORAGE_CONF": str(storage),
    }


def podman(*arguments: str, timeout: float = 300) -> str:
    """Run podman; return its standard output. Raises PodmanError, with both streams, if it fails."""
    return _run("podman", *arguments, env=environment(), timeout=timeout)


def build() -> str:
    """Build the image on Debian's Python, with podman's cache of layers; return its reference."""
    with _locked():
        command = build_command()
        podman(
            *command[1:],
            f"--build-arg=VERSION={bits_auth_proxy.__version__}",
            f"--tag={IMAGE}",
            str(ROOT),
            timeout=600,
        )
        # The layers of recent builds stay, as a cache for the next build.
        podman("image", "prune", "--force", "--filter=until=24h")
    return IMAGE


def build_command() -> list[str]:
    """Return the beginning of a `podman build` command that needs no registry."""
    return [
        "podman",
        "build",
        "--format=docker",  # the format that has health checks
        "--pull=never",
        "--isolation=chroot",
        "--network=host",
        "--layers",
        *(f"--volume={path}:{path}:ro" for path in _BUILD_MOUNTS if Path(path).exists()),
        f"--build-arg=PYTHON_IMAGE={debian_python()}",
    ]


def debian_python() -> str:
    """Return the reference of a Debian image with Python; make it if there is none of this month."""
    codename = _os_release("VERSION_CODENAME")
    reference = f"localhost/debian-python:{codename}-{time.strftime('%Y-%m')}"
    if podman("images", "--quiet", reference).strip():
        return reference
    with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=CACHE) as directory:
        tree = Path(directory, "root")
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", codename, str(tree), _mirror())
        shutil.rmtree(tree / "var/lib/apt/lists")
        shutil.rmtree(tree / "var/cache/apt")
        archive = Path(directory, "root.tar")
        _run("tar", "-C", str(tree), "-cf", str(archive), ".")
        podman("import", str(archive), reference)
    return reference


def _mirror() -> str:
    """Return the URL from which this machine installs Debian packages."""
    template = "$(ORIGIN) $(LABEL) $(REPO_URI)"
    for line in _run("apt-get", "indextargets", "--format", template).splitlines():
        origin, label, uri = line.rsplit(" ", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise LookupError("apt's sources name no Debian mirror")


def _os_release(name: str) -> str:
    for line in Path("/etc/os-release").read_text("utf-8").splitlines():
        if line.startswith(f"{name}="):
            return line.partition("=")[2].strip('"')
    raise LookupError(f"/etc/os-release has no {name}")


def _run(*command: str, env: Mapping[str, str] | None = None, timeout: float = 600) -> str:
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PodmanError(
            -1, " ".join(command), f"still running after {timeout:g} s: {error.stdout!r} {error.stderr!r}"
        ) from None
    if done.returncode != 0:
        raise PodmanError(done.returncode, " ".join(command), done.stdout + done.stderr)
    return done.stdout


@contextmanager
def _locked() -> Iterator[None]:
    """Let only one process at a time make images."""
    environment()
    with (CACHE / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield
