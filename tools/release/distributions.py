"""Our wheel and our source distribution: reproducible builds, and what is in them."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from packaging.metadata import Metadata

TOP_LEVEL: Final = frozenset(("bits_auth_proxy",))
"""The names that the wheel installs at the top level of an environment."""


class Built(NamedTuple):
    """The paths of both."""

    sdist: Path
    wheel: Path


def digests(*paths: Path) -> dict[str, str]:
    """Return SHA-256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def build(tree: Path, out: Path, *, epoch: int) -> Built:
    """Build both from a source tree with this environment's locked build backend.

    `epoch` is the date of all files in them, in seconds since 1970.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    built = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"building failed:\n{built.stderr}")
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel)


def unpack(archive: Path, directory: Path) -> None:
    """Extract a tar archive that we made."""
    with tarfile.open(archive) as tar:
        # Python has this filter since 3.11.4; Debian 12 has 3.11.2.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(directory)


def build_again(sdist: Path, out: Path, *, epoch: int) -> Built:
    """Build both from a source distribution, as another user on another day would."""
    with tempfile.TemporaryDirectory() as directory:
        unpack(sdist, Path(directory))
        (tree,) = Path(directory).iterdir()
        before = os.umask(0o077)
        try:
            for path in tree.rglob("*"):
                # A umask takes the rights of others away, but never the owner's right to execute.
                path.chmod(path.stat().st_mode & 0o700)
                os.utime(path, (0, 0))
            return build(tree, out, epoch=epoch)
        finally:
            os.umask(before)


def files_of_wheel(wheel: Path) -> set[str]:
    """Return the paths in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of_sdist(sdist: Path) -> set[str]:
    """Return the paths in a source distribution, without the directory that holds them all."""
    with tarfile.open(sdist) as tar:
        return {member.name.partition("/")[2] for member in tar if member.isfile()}


def metadata_of(wheel: Path) -> Metadata:
    """Return the metadata of a wheel. Raises an ExceptionGroup that lists all violations of the standard."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name), validate=True)


def tree_files(tree: Path, *folders: str) -> Iterator[str]:
    """Yield the paths of the files in `folders` of a source tree, except for compiled bytecode."""
    for folder in folders:
        for path in sorted((tree / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(tree).as_posix()
