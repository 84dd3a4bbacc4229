"""Which users may read a file."""

import stat
from pathlib import Path


def readable_by_others(path: Path) -> bool:
    """Return whether the file's permissions alone let every user of this machine read it.

    A Kubernetes volume, which keeps its files behind the link `..data`, never counts: it is mounted in one
    container, and its permissions must admit that container's user, whichever that is.
    """
    try:
        if (path.parent / "..data").is_symlink():
            return False
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
