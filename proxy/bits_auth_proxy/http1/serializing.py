"""Writers for the chunked transfer coding (RFC 9112 section 7.1)."""

from collections.abc import Iterable
from typing import Final

from bits_auth_proxy.http1.messages import Field

LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_chunk(content: bytes) -> bytes:
    """Return `content`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def encode_last_chunk(trailers: Iterable[Field]) -> bytes:
    """Return the end of a chunked body with its trailer section."""
    return b"0\r\n%b\r\n" % b"".join([field.line for field in trailers])
