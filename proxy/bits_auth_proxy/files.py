"""Reading the files that operators mount, without ever waiting for a writer.

Opening a FIFO waits until somebody writes to it, and opening a device can have effects: only regular files
are read, and links to them. A hung mount can still hold up a read, so these calls belong in a thread.
"""

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import Final

MAX_SIZE: Final = 1024 * 1024
"""Bytes; credentials, certificates and keys are far smaller."""
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KINDS: Final = {
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def read_file(path: Path) -> bytes:
    """Return what a regular file contains, at most MAX_SIZE bytes and one more. Raises OSError."""
    # Looked at before it is opened, and again afterwards, because it may have been replaced in between.
    _check_kind(path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _check_kind(os.fstat(descriptor).st_mode)
        return file.read(MAX_SIZE + 1)


def is_utf16(data: bytes) -> bool:
    """Return whether text is in UTF-16: it says so, or every other byte is zero as in no UTF-8."""
    halves = data[::2], data[1::2]
    return data.startswith(_UTF16) or (len(data) > 1 and any(not half.strip(b"\0") for half in halves))


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{_KINDS.get(stat.S_IFMT(mode), 'it is no regular file')}, not a file")
