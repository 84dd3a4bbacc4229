"""Text for people: results on standard output, errors on standard error."""

import sys
from typing import Final

PROGRAM: Final = "bits-auth-proxy"


def print_text(text: str) -> None:
    """Print `text` and the end of its line. It arrives immediately, even in a pipe."""
    print(text, flush=True)


def print_error(text: str) -> None:
    """Print `text` as an error of this program."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)
