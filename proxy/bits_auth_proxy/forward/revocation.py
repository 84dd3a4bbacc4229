"""When certificate revocation lists end (RFC 5280 section 5.1), which Python's ssl does not tell.

OpenSSL itself reads the lists and verifies their signatures. This reads just enough of their DER to reject a
list that has ended before OpenSSL would reject every client because of it.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Final

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----\s([A-Za-z0-9+/=\s]+)-----END X509 CRL-----")
_SEQUENCE: Final = 0x30
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""The formats of UTCTime and GeneralizedTime by their tags."""
_LONG_FORM: Final = 0x80


def list_ends(pem: bytes) -> list[datetime]:
    """Return when each list in a PEM file ends; one that names no end is left out.

    Raises ValueError if there is no list, or one that can't be read.
    """
    lists = [base64.b64decode(match[1]) for match in _CRL.finditer(pem)]
    if not lists:
        raise ValueError("no certificate revocation list")
    return [ends for each in lists if (ends := _next_update(each)) is not None]


def _next_update(crl: bytes) -> datetime | None:
    # CertificateList is a sequence that begins with TBSCertList, whose times are thisUpdate and nextUpdate.
    _, start, _ = _element(crl, 0, _SEQUENCE)
    _, at, end = _element(crl, start, _SEQUENCE)
    times: list[datetime] = []
    while at < end and len(times) < 2:  # noqa: PLR2004 - thisUpdate and nextUpdate
        tag, start, at = _element(crl, at)
        if tag in _TIMES:
            times.append(datetime.strptime(crl[start:at].decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC))
        elif times:
            break
    if not times:
        raise ValueError("a revocation list without a time")
    return times[1] if times[1:] else None


def _element(data: bytes, at: int, expected: int | None = None) -> tuple[int, int, int]:
    """Return the tag of the DER element at `at`, where its contents begin, and where they end."""
    header = data[at : at + 2]
    if len(header) < 2:  # noqa: PLR2004 - tag and length
        raise ValueError("truncated")
    tag, length = header
    start = at + 2
    if length >= _LONG_FORM:
        size = length - _LONG_FORM
        length = int.from_bytes(data[start : start + size])
        start += size
    end = start + length
    if end > len(data) or expected not in (None, tag):
        raise ValueError("not a revocation list")
    return tag, start, end
