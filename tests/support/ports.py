"""Ports for programs that can't choose one themselves."""

import random
import socket
from pathlib import Path
from typing import Final

_KERNELS_OWN: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL: Final = 32_768
"""Where the kernel's own begin, if it does not say."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on.

    It is none of those that the kernel gives to connections and to who asks for any port: nobody else gets it
    by chance before the program has it.
    """
    end = int(_KERNELS_OWN.read_text("utf-8").split()[0]) if _KERNELS_OWN.exists() else _USUAL
    while True:
        port = random.randrange(end // 2, end)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
