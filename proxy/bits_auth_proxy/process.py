"""What the proxy sets up in its process: signal handlers, the descriptor limit, protection of its memory."""

import asyncio
import contextlib
import ctypes
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bits_auth_proxy.errors import OperatorError

_PR_SET_DUMPABLE: Final = 4
"""An option of prctl(2)."""
_M_TRIM_THRESHOLD: Final = -1
"""A parameter of mallopt(3)."""
_SPARE_DESCRIPTORS: Final = 100
"""For everything but connections: listeners, files, the event loop."""
_MAX_DESCRIPTORS: Final = 2**20


@contextlib.contextmanager
def on_signals(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Handle signals in the running loop, as long as the context lasts; from then on, ignore them.

    The process is about to end then, and a signal too many must not change its exit code.
    """
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        # Blocked, because each one has its default action, which is to kill, between these two steps.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
        for number in handlers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard limit; return how many files that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def client_limit(*, wanted: int, descriptors: int, others: int) -> int:
    """Return how many client connections fit below the limit of open files, at most `wanted`.

    `others` is the number of connections besides those of clients. Raises OperatorError if none fit.
    """
    room = descriptors - others - _SPARE_DESCRIPTORS
    if room < 1:
        needed = descriptors - room + 1
        raise OperatorError(
            f"the process may open only {descriptors} files; raise the limit (RLIMIT_NOFILE) to {needed} at "
            "least, or lower BITS_UPSTREAM__MAX_CONNECTIONS"
        )
    return min(wanted, room)


def keep_freed_memory() -> None:
    """Let glibc keep up to 4 MiB of freed memory instead of returning it to the system immediately.

    Each read of a streamed body uses the memory that the previous read has freed. Returning it to the system
    every time would cost a third of the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 4 * 1024 * 1024)


def guard_memory(*, core_dumps: bool, debuggers: bool) -> None:
    """Protect the memory, and the secret in it, from everything that is not allowed to read it.

    Without `core_dumps`, a crash writes no memory to a file. Without `debuggers`, other processes of the same
    user can't read the memory and the environment (Linux only).
    """
    if not core_dumps:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if not debuggers and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
