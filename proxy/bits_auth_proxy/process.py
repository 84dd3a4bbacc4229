"""The process: its signals, its limits, and who may look into it."""

import asyncio
import contextlib
import ctypes
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""Of prctl(2)."""
_M_TRIM_THRESHOLD: Final = -1
"""Of mallopt(3)."""
_SPARE_DESCRIPTORS: Final = 200
"""Beside connections: listeners, files, the event loop, the admin's clients."""


@contextlib.contextmanager
def on_signals(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handle signals in the running loop."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def raise_descriptor_limit(connections: int) -> None:
    """Raise the soft limit of open files as far as `connections` need and the hard limit lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_freed_memory() -> None:
    """Keep up to 4 MiB of freed memory at hand instead of giving it back to the system at once (glibc).

    What a streamed body frees, its next read takes again: given back each time, it costs a third of the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 4 * 1024 * 1024)


def guard_memory(*, core_dumps: bool, debuggers: bool) -> None:
    """Keep what is in memory inside, the secret above all, but for what is allowed.

    Without `debuggers`, the same user's other processes can't read memory and environment (Linux).
    """
    if not core_dumps:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if not debuggers and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
