"""Text for people: results on standard output, errors on standard error."""

import sys
from typing import Final

PROGRAM: Final = "bits-auth-proxy"


def print_text(text: str) -> None:
    """Print `text` and the end of its line. It arrives immediately, even in a pipe.

    Characters that the stream can't encode are replaced.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("→", "->").encode(encoding, "backslashreplace").decode(encoding)
    print(text, flush=True)


def print_error(text: str) -> None:
    """Print `text` as an error of this program."""
    print(f"{PROGRAM}: {text}", file=sys.stderr)
