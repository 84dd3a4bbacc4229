"""Which users may read a file.

Only what every user of the machine may read counts. A service that runs as a user of its own often gets its
files through a group.
"""

import stat
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")


def readable_by_others(path: Path) -> bool:
    """Return whether the file's permissions alone let every user of this machine read it.

    A file that was mounted into a container never counts: there, only that container reads it, and its
    permissions must admit the container's user, whichever that is. Kubernetes keeps the files of a volume
    behind the link `..data`; Docker mounts each secret by itself.
    """
    try:
        if (path.parent / "..data").is_symlink():
            return False
        return bool(path.stat().st_mode & stat.S_IROTH) and not _is_mounted(path)
    except OSError:
        return False


def mode_of(path: Path) -> str:
    """Return the file's permissions in octal, like 0644, or `unknown`."""
    try:
        return f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except OSError:
        return "unknown"


def _is_mounted(path: Path) -> bool:
    """Return whether the file itself is a mount point (Linux only)."""
    if not _MOUNTS.exists():
        return False
    # The fifth column, in which spaces and the like are octal escapes.
    mounts = {line.split(" ")[4] for line in _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()}
    return str(path.resolve()) in mounts
