"""Our wheel and our source distribution: built the same to the byte, and looked into."""

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
"""The names that the wheel brings into an environment."""


class Built(NamedTuple):
    """Where the two are."""

    sdist: Path
    wheel: Path


def digests(*paths: Path) -> dict[str, str]:
    """Return SHA-256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def build(tree: Path, out: Path, *, epoch: int) -> Built:
    """Build both from a source tree, dated `epoch` seconds, with the locked build backend of this Python."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    built = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"building failed:\n{built.stderr}")
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Built(sdist, wheel)


def unpack(archive: Path, directory: Path) -> None:
    """Extract a tar archive of our own making."""
    with tarfile.open(archive) as tar:
        # Python has it since 3.11.4; Debian 12's is 3.11.2.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(directory)


def build_again(sdist: Path, out: Path, *, epoch: int) -> Built:
    """Build both from a source distribution, as another user does on another day."""
    with tempfile.TemporaryDirectory() as directory:
        unpack(sdist, Path(directory))
        (tree,) = Path(directory).iterdir()
        before = os.umask(0o077)
        try:
            for path in tree.rglob("*"):
                path.chmod(0o700 if path.is_dir() else 0o600)
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
    """Return the metadata of a wheel. Raises an ExceptionGroup that lists all that breaks the standard."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name), validate=True)


def tree_files(tree: Path, *folders: str) -> Iterator[str]:
    """Yield the paths of the files in `folders` of a source tree, without what Python made itself."""
    for folder in folders:
        for path in sorted((tree / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(tree).as_posix()
