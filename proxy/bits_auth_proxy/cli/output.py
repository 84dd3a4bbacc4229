"""Text for people: results on standard output, errors on standard error."""

import sys
from typing import Final

from bits_auth_proxy.cli.exit_codes import FAILURE, CommandError
from bits_auth_proxy.printable import printable

PROGRAM: Final = "bits-auth-proxy"


def print_text(text: str) -> None:
    """Print `text` and the end of its line. It arrives immediately, even in a pipe.

    Characters that the stream can't encode are replaced. Raises CommandError if it can't be written, and
    BrokenPipeError if nobody reads it.
    """
    text = printable(text, keep="\n")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("→", "->").encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter would flush once more at its end, fail and change the exit code.
        sys.stdout = None
        if isinstance(error, BrokenPipeError):
            raise
        raise CommandError(f"standard output: {error.strerror}", exit_code=FAILURE) from error


def print_error(text: str) -> None:
    """Print `text` as an error of this program, if standard error takes it."""
    try:
        print(PROGRAM, printable(text, keep="\n"), sep=": ", file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = None
