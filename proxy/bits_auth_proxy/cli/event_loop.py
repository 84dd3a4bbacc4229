"""The event loop that a command runs in: uvloop's where there is one, asyncio's elsewhere."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from bits_auth_proxy.cli.exit_codes import FAILURE, USAGE, CommandError
from bits_auth_proxy.errors import OperatorError, SettingError

_Main: TypeAlias = Coroutine[Any, Any, bool]

_run_loop: Callable[[_Main], bool]
try:
    import uvloop
except ImportError:  # There is no uvloop for this platform.
    _run_loop = asyncio.run
else:
    _run_loop = uvloop.run


def run(main: _Main) -> bool:
    """Run a command's main coroutine; return what it returns.

    Raises CommandError where the operator must change something.
    """
    try:
        return _run_loop(main)
    except SettingError as error:
        raise CommandError(str(error), exit_code=USAGE) from error
    except OperatorError as error:
        raise CommandError(str(error), exit_code=FAILURE) from error
