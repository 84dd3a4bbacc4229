"""Runs a command where DNS is silent: its questions arrive at a socket that nobody reads.

In namespaces of its own: `unshare -rmn python silent_dns.py COMMAND…`.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_SERVER: Final = "127.0.0.53"
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
PREFIX: Final = ("unshare", "--map-root-user", "--mount", "--net", sys.executable, __file__)


def is_possible() -> bool:
    """Return whether the kernel lets us have such namespaces. Raises FileNotFoundError without `unshare`."""
    return subprocess.run([*PREFIX, "true"], check=False, capture_output=True).returncode == 0


def asked(pid: int) -> bool:
    """Return whether a process that runs there has sent a question."""
    rows = (line.split() for line in Path(f"/proc/{pid}/net/udp").read_text("utf-8").splitlines()[1:])
    return any(row[1].endswith(":0035") and not row[4].endswith(":00000000") for row in rows)


def main() -> None:
    """Set the namespaces up, and become the command."""
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(door, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    door.bind((_SERVER, 53))
    door.set_inheritable(True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(f"nameserver {_SERVER}\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the test names it


if __name__ == "__main__":
    main()
