"""Text that comes from elsewhere, made fit for a terminal, which would obey some of its characters.

Control characters move the cursor, set the title or answer in the user's name. Bidirectional controls and
invisible characters make a line read as something else (Unicode TR36 section 3).
"""

import re
from json.encoder import encode_basestring_ascii
from typing import Final

_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str, keep: str = "") -> str:
    """Return `text` with such characters, except those in `keep`, as JSON escapes them."""
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else escaped(match[0]), text)


def escaped(character: str) -> str:
    """Return a character as JSON writes it in ASCII, as a backslash, `u` and four hex digits."""
    return encode_basestring_ascii(character)[1:-1]
