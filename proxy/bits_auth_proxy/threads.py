"""Calls that may block for ever, such as a read of a hung mount or a DNS lookup, outside of the event loop.

Each call gets a daemon thread, because the exit of the process waits for all others: for the event loop's own
executor as well.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_in_thread(call: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Return the future outcome of `call`, in the running loop.

    Cancelling the future does not end the call; its outcome is then dropped.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)  # type: ignore[arg-type]  # None only where T allows it
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the caller's to handle
            failure = error
        # RuntimeError: the loop is closed by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, failure)

    start_daemon(run, name=name)
    return outcome


def call_within(seconds: float, call: Callable[[], T], *, name: str) -> T:
    """Return what `call` returns. Blocks for so many seconds at most, and raises TimeoutError then."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the caller's to handle
            outcome.set_exception(error)

    start_daemon(run, name=name)
    return outcome.result(seconds)


def start_daemon(run: Callable[[], None], *, name: str) -> threading.Thread:
    """Start a thread that gets no signals and that the end of the process does not wait for.

    Raises RuntimeError if the system allows no more threads, or if the process is ending.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    # The thread inherits the mask: signals are the main thread's, which blocks them when it must.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
