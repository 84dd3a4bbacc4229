"""Who may read a file."""

import stat
from pathlib import Path


def readable_by_others(path: Path) -> bool:
    """Return whether any user of this machine may, by the file's permissions alone."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
