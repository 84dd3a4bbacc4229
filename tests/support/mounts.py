"""A volume with the content of a Secret, as the kubelet keeps it."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def mount(directory: Path, files: Mapping[str, bytes]) -> None:
    """Put files in place; later, others in place of all of them at once, by a rename of the link to them."""
    link, new_link = directory / "..data", directory / "..data_tmp"
    before = link.resolve() if link.is_symlink() else None
    version = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    version.chmod(0o755)
    for name, content in files.items():
        (version / name).write_bytes(content)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    new_link.symlink_to(version.name)
    new_link.rename(link)
    if before is not None:
        shutil.rmtree(before)
