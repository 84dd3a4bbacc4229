"""Who may read a file."""

import stat
from pathlib import Path


def readable_by_others(path: Path) -> bool:
    """Return whether any user of this machine may, by the file's permissions alone.

    Not so in a volume of Kubernetes, which has its files behind the link `..data`: it is mounted in one
    container, and its permissions are open to that container's user, whoever that is.
    """
    if (path.parent / "..data").is_symlink():
        return False
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
