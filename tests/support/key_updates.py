"""A peer that asks for new keys again and again, which Python's ssl module can't do (RFC 8446, 4.6.3)."""

import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_HANDSHAKE: Final = b"\x16"
_APPLICATION_DATA: Final = b"\x17"
_UPDATE_REQUESTED: Final = b"\x18\x00\x00\x01\x01"
REPLY: Final = 27
"""The size of a record with the peer's own update: header, message, type and tag."""
_SUITE: Final = "TLS_AES_256_GCM_SHA384"


class KeyUpdates:
    """Seals records in place of a session of TLS 1.3 that has sent nothing after its handshake.

    The session's context writes its secrets to `keylog`; `side` is CLIENT or SERVER.
    """

    def __init__(self, session: ssl.SSLObject, keylog: Path, side: str) -> None:
        cipher = session.cipher()
        assert cipher is not None
        assert cipher[0] == _SUITE
        (line,) = [
            line for line in keylog.read_text().splitlines() if line.startswith(f"{side}_TRAFFIC_SECRET_0 ")
        ]
        self._use(bytes.fromhex(line.split()[2]))

    def request(self, count: int = 1) -> bytes:
        """Return records that ask for `count` updates, each under the keys of the one before."""
        records = []
        for _ in range(count):
            records.append(self._sealed(_UPDATE_REQUESTED + _HANDSHAKE))
            self._use(_expand(self._secret, b"traffic upd", 48))
        return b"".join(records)

    def data(self, content: bytes) -> bytes:
        """Return a record of application data."""
        return self._sealed(content + _APPLICATION_DATA)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12))
        self._sequence = 0

    def _sealed(self, content: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 16).to_bytes(2)
        nonce = (self._iv ^ self._sequence).to_bytes(12)
        self._sequence += 1
        return header + self._cipher.encrypt(nonce, content, header)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """Return HKDF-Expand-Label without a context, of at most one hash's length (RFC 8446 section 7.1)."""
    name = b"tls13 " + label
    info = length.to_bytes(2) + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", hashlib.sha384)[:length]
