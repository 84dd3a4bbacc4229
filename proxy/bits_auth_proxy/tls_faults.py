"""Why a TLS connection to a server failed: what OpenSSL's reasons mean to a client."""

import ssl
from enum import Enum, auto
from typing import Final

from bits_auth_proxy.errors import reason_of


class TlsFault(Enum):
    """The faults that differ in what the operator must change."""

    TIME = auto()
    """The server's certificate has expired, or is not yet valid."""
    NAME = auto()
    """The certificate is for another host."""
    FORM = auto()
    """The certificate, or that of its authority, does not have the form that verification requires."""
    TRUST = auto()
    """The certificate's authority is not trusted."""
    VERSION = auto()
    """There is no common version of TLS."""
    NOT_TLS = auto()
    """The server does not speak TLS."""
    CLIENT_CERTIFICATE = auto()
    """The server requires a client certificate, or another one."""
    HANDSHAKE = auto()
    """The server may require a client certificate, or offer no common suite: it does not say which."""
    OTHER = auto()


_TIMES: Final = frozenset((9, 10))
_NAMES: Final = frozenset((62, 63, 64))
_FORMS: Final = frozenset((24, 25, 32, 34, 37, 41, 66, 67, 68, *range(76, 95)))
"""The numbers of X509_V_ERR_… in OpenSSL, for each of the first three faults."""

_REQUIRED: Final = (TlsFault.CLIENT_CERTIFICATE, "the server requires a client certificate")
_UNWANTED: Final = (TlsFault.CLIENT_CERTIFICATE, "the server does not accept the client certificate")
_VERSION: Final = (TlsFault.VERSION, "no common TLS version")
_NOT_TLS: Final = (TlsFault.NOT_TLS, "the server does not speak TLS on this port")
_REASONS: Final = {
    "HTTP_REQUEST": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        TlsFault.CLIENT_CERTIFICATE,
        "the server requires a client certificate, or does not accept the one that it got",
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _UNWANTED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _UNWANTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _UNWANTED,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        TlsFault.HANDSHAKE,
        "the server requires a client certificate, or offers no common cipher suite",
    ),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _UNWANTED,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _REQUIRED,
    "TLSV1_ALERT_ACCESS_DENIED": _UNWANTED,
    "TLSV1_ALERT_PROTOCOL_VERSION": _VERSION,
    "TLSV1_ALERT_UNKNOWN_CA": _UNWANTED,
    "UNSUPPORTED_PROTOCOL": _VERSION,
    "WRONG_VERSION_NUMBER": _NOT_TLS,
}


def tls_fault(error: ssl.SSLError) -> TlsFault:
    """Return why a client's connection failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return _REASONS[error.reason][0] if error.reason in _REASONS else TlsFault.OTHER
    code = error.verify_code
    if code in _TIMES:
        return TlsFault.TIME
    if code in _NAMES:
        return TlsFault.NAME
    return TlsFault.FORM if code in _FORMS else TlsFault.TRUST


def reason_for_client(error: OSError) -> str:
    """Return why a connection to a server failed, without addresses; for TLS, with OpenSSL's own reason."""
    if isinstance(error, ssl.SSLError) and error.reason in _REASONS:
        return f"{_REASONS[error.reason][1]} ({error.reason})"
    return reason_of(error)
