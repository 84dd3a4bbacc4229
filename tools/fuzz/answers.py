"""Checks that the bytes which a client received are a sequence of valid responses (RFC 9112)."""

import re
from typing import Final

# 600 to 999 are invalid, but have three digits, and a gateway forwards them (RFC 9110 section 15).
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [^\x00-\x08\x0a-\x1f\x7f]*\Z")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_CHUNK: Final = re.compile(rb"([0-9a-f]{1,8})\r\n")


def fault_in(received: bytes) -> str | None:
    """Return what is wrong with `received`, or None. The bytes may end anywhere.

    They must not contain a response to HEAD.
    """
    try:
        while received:
            received = _behind_answer(received)
    except ValueError as error:
        return str(error)
    return None


def _behind_answer(data: bytes) -> bytes:
    """Return the bytes of `data` after its first response. Raises ValueError if that is not valid."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return b""
    line, *lines = head.split(b"\r\n")
    match = _STATUS.match(line)
    if not match:
        raise ValueError(f"not a status line: {line[:80]!r}")
    status = int(match[1])
    fields = _fields(lines)
    if status == 101:
        return b""
    if status >= 200 and status not in (204, 304):
        if b"transfer-encoding" in fields:
            if b"content-length" in fields:
                raise ValueError("both framings in one response")
            rest = _behind_chunks(rest)
        elif b"content-length" in fields:
            rest = rest[int(fields[b"content-length"]) :]
        else:
            return b""
    if rest and status >= 200 and fields.get(b"connection", b"").lower() == b"close":
        raise ValueError(f"bytes after the last response: {rest[:80]!r}")
    return rest


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields = {}
    for line in lines:
        match = _FIELD.match(line)
        if not match:
            raise ValueError(f"not a field: {line[:80]!r}")
        fields[match[1].lower()] = line.partition(b":")[2].strip()
    return fields


def _behind_chunks(data: bytes) -> bytes:
    while data:
        match = _CHUNK.match(data)
        if not match:
            if b"\r\n" in data[:10]:
                raise ValueError(f"not a chunk: {data[:80]!r}")
            return b""
        size = int(match[1], 16)
        data = data[match.end() :]
        if size == 0:
            if data.startswith(b"\r\n"):
                return data[2:]
            section, end, data = data.partition(b"\r\n\r\n")
            if end:
                _fields(section.split(b"\r\n"))
            return data
        if len(data) >= size + 2 and data[size : size + 2] != b"\r\n":
            raise ValueError("a chunk without an end")
        data = data[size + 2 :]
    return b""
