"""What messages may show of an operator's input: what can't be used may be a secret in the wrong place."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

MASK: Final = "********"
_HIDDEN: Final = "[not shown, because it may be a secret]"
_PLAIN_PATH: Final = re.compile(r"(/[a-z0-9_.-]{1,40})+")
"""Generated secrets of this form are too short to be any, or have one kind of letters by a rare chance."""
_WORDS: Final = re.compile(r"[A-Za-z]+([._:/-]+[A-Za-z]+)*")


def shown_path(path: Path) -> str:
    """Return a path as messages show it: as far as it is one without doubt.

    That is a path in lower case from the root on, or one whose directory exists. Of others, only the
    directories that exist are shown.
    """
    text = str(path)
    if _PLAIN_PATH.fullmatch(text) or _is_telling(path.parent):
        return text
    known = next(filter(_is_telling, path.parents), None)
    return _HIDDEN if known is None else f"{known}/{_HIDDEN}"


def shown_name(name: str) -> str:
    """Return the name of a key as messages show it: words are shown."""
    return repr(name) if _WORDS.fullmatch(name.replace("_", "-")) else _HIDDEN


def unlikely_words(scope: str | None) -> list[str]:
    """Return the words of a scope that do not look like names, and may be a secret instead."""
    return [word for word in (scope or "").split() if not _WORDS.fullmatch(word)]


def masked_query(url: str) -> str:
    """Return a URL with its query masked."""
    query = urlsplit(url).query
    return url.replace(f"?{query}", f"?{MASK}") if query else url


def _is_telling(directory: Path) -> bool:
    """Return whether `directory` exists and is neither the root nor the working directory."""
    try:
        return directory.parent != directory and directory.is_dir()
    except OSError:  # A part is too long for a name.
        return False
