"""The exit codes of the commands, and the error that leads to one."""

from typing import Final

from bits_auth_proxy.errors import OperatorError

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 64
"""Bad usage or settings: EX_USAGE of sysexits.h."""


class CommandError(OperatorError):
    """The command can't do its work. The message is for people and holds no secret."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code: Final = exit_code
